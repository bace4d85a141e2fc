//! Unpacks the blocks of a squashfs image, each to a length that is known to be enough.

use std::io::{Cursor, Read as _};

use super::{Read, bad};
use crate::contained::contained;

/// How the blocks are compressed (fs/squashfs/squashfs_fs.h, `ZLIB_COMPRESSION` and others), as far as they are unpacked here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compressor {
    Zlib,
    Xz,
    Lz4,
    Zstd,
}

impl Compressor {
    /// Returns the compressor of that number in the superblock.
    pub(super) fn numbered(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Zlib,
            4 => Self::Xz,
            5 => Self::Lz4,
            6 => Self::Zstd,
            _ => return None,
        })
    }

    /// Unpacks a block of at most `limit` bytes. It takes no more memory than that, and some fixed amount.
    pub(super) fn unpack(self, packed: &[u8], limit: usize) -> Read<Vec<u8>> {
        let unpacked = match self {
            Self::Zlib => {
                let mut bytes = Vec::with_capacity(limit);
                // One more tells that there is more.
                let most = (limit as u64).saturating_add(1);
                flate2::read::ZlibDecoder::new(packed)
                    .take(most)
                    .read_to_end(&mut bytes)
                    .ok()
                    .map(|_| bytes)
            }
            Self::Zstd => zstd::bulk::decompress(packed, limit).ok(),
            Self::Lz4 => {
                let mut bytes = vec![0; limit];
                lz4_flex::block::decompress_into(packed, &mut bytes)
                    .ok()
                    .map(|length| {
                        bytes.truncate(length);
                        bytes
                    })
            }
            Self::Xz => xz(packed, limit),
        };
        match unpacked {
            Some(bytes) if bytes.len() <= limit => Ok(bytes),
            _ => bad("a block that cannot be unpacked"),
        }
    }
}

/// Unpacks an xz stream of one block. The decoder keeps all that it unpacks, so what the stream announces is added up before.
fn xz(packed: &[u8], limit: usize) -> Option<Vec<u8>> {
    announced(packed).filter(|length| *length <= limit as u64)?;
    contained(|| {
        let mut bytes = Vec::with_capacity(limit);
        lzma_rs::xz_decompress(&mut Cursor::new(packed), &mut bytes).map(|()| bytes)
    })?
    .ok()
}

/// Adds up what the chunks of an xz stream's only block announce ("The .xz File Format", 2.1.1 and 3.1; lib/xz/xz_dec_lzma2.c).
/// There is none of a stream with more blocks, or with a filter before LZMA2.
fn announced(stream: &[u8]) -> Option<u64> {
    const STREAM_HEADER: usize = 12;
    const LZMA2: u8 = 0x21;
    let block = stream.get(STREAM_HEADER..)?;
    let (&size, fields) = block.split_first()?;
    let (&flags, mut fields) = fields.split_first()?;
    // Without a block the index begins here, with a zero.
    if size == 0 || flags & 0x3f != 0 {
        return None;
    }
    // The lengths of the block, packed and unpacked: numbers of seven bits a byte.
    for present in [0x40, 0x80] {
        if flags & present != 0 {
            let length = fields.iter().position(|byte| byte & 0x80 == 0)?;
            fields = fields.get(length.checked_add(1)?..)?;
        }
    }
    if fields.first() != Some(&LZMA2) {
        return None;
    }
    let header = usize::from(size).checked_add(1)?.checked_mul(4)?;
    let mut chunks = block.get(header..)?;
    let mut length = 0_u64;
    loop {
        let (&control, rest) = chunks.split_first()?;
        let skip = match (control, rest) {
            (0, _) => break,
            (1 | 2, [a, b, ..]) => {
                let bytes = usize::from(u16::from_be_bytes([*a, *b])).checked_add(1)?;
                length = length.checked_add(bytes as u64)?;
                bytes.checked_add(2)?
            }
            (0x80.., [a, b, c, d, ..]) => {
                let high = u64::from(control & 0x1f) << 16;
                let bytes = high | u64::from(u16::from_be_bytes([*a, *b]));
                length = length.checked_add(bytes)?.checked_add(1)?;
                let packed = usize::from(u16::from_be_bytes([*c, *d])).checked_add(1)?;
                // With new properties there is a byte of them.
                let properties = usize::from(control >= 0xc0);
                packed.checked_add(4)?.checked_add(properties)?
            }
            _ => return None,
        };
        chunks = rest.get(skip..)?;
    }
    // Behind the block comes the index, which begins with a zero; another block has its size there.
    let check = match stream.get(7)? & 0xf {
        0 => 0,
        1 => 4,
        4 => 8,
        10 => 32,
        _ => return None,
    };
    // The zero that ended the chunks is the first of what is left.
    let (_, rest) = chunks.split_first()?;
    let end = stream.len().checked_sub(rest.len())?;
    let index = end.next_multiple_of(4).checked_add(check)?;
    (stream.get(index) == Some(&0)).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};
    use std::sync::LazyLock;

    fn content() -> Vec<u8> {
        (0..100_000_u32)
            .map(|at| (u64::from(at).pow(2) / 999) as u8)
            .collect()
    }

    fn xz_stream(options: &[&str], content: &[u8]) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let output = Command::new("xz")
            .args(options)
            .arg("-c")
            .stdin(Stdio::from(std::fs::File::open(file.path()).unwrap()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    #[test]
    fn xz_streams_announce_their_length() {
        for length in [0, 1, 100, 100_000, 5_000_000_usize] {
            let content: Vec<u8> = content().into_iter().cycle().take(length).collect();
            for options in [
                &["--check=crc32"][..],
                &["--check=crc64"],
                &["--check=none"],
            ] {
                let stream = xz_stream(options, &content);
                let expected = (length > 0).then_some(length as u64);
                assert_eq!(announced(&stream), expected, "{length} {options:?}");
            }
        }
        let filtered = xz_stream(&["--check=crc32", "--x86", "--lzma2"], &content());
        assert_eq!(announced(&filtered), None);
        let blocks = xz_stream(&["--check=crc32", "--block-size=50000"], &content());
        assert_eq!(announced(&blocks), None);
    }

    static PACKED: LazyLock<Vec<(Compressor, Vec<u8>)>> = LazyLock::new(|| {
        let content = content();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut zlib, &content).unwrap();
        vec![
            (Compressor::Zlib, zlib.finish().unwrap()),
            (Compressor::Xz, xz_stream(&["--check=crc32"], &content)),
            (Compressor::Lz4, lz4_flex::block::compress(&content)),
            (
                Compressor::Zstd,
                zstd::bulk::compress(&content, 15).unwrap(),
            ),
        ]
    });

    #[test]
    fn blocks_are_unpacked_up_to_their_length() {
        for (compressor, packed) in PACKED.iter() {
            let unpacked = compressor.unpack(packed, 131_072).unwrap();
            assert!(unpacked == content(), "{compressor:?}");
            assert_eq!(compressor.unpack(packed, 100_000).unwrap(), content());
            assert!(compressor.unpack(packed, 99_999).is_err(), "{compressor:?}");
        }
    }

    proptest! {
        #[test]
        fn damaged_blocks_never_unpack_to_more_than_allowed(
            which in 0_usize..4, at in any::<prop::sample::Index>(), value in any::<[u8; 4]>(), cut in any::<prop::sample::Index>(),
        ) {
            let (compressor, packed) = &PACKED[which];
            let mut packed = packed.clone();
            let at = at.index(packed.len() - 4);
            packed[at..at + 4].copy_from_slice(&value);
            packed.truncate(packed.len() - cut.index(packed.len()) / 8);
            if let Ok(unpacked) = compressor.unpack(&packed, 100_000) {
                prop_assert!(unpacked.len() <= 100_000);
            }
            let _ = announced(&packed);
        }
    }
}
