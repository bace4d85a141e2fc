//! Unpacks the blocks of a squashfs image, each to a length that is known to be enough.

use std::io::{Cursor, Read as _};

use super::failure::{Read, bad};
use crate::contained::contained;
use crate::packed::xz_length;

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
                // One byte more shows that there is more.
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

/// Unpacks an xz stream. The decoder keeps all that it unpacks, so what the stream announces is added up before.
fn xz(packed: &[u8], limit: usize) -> Option<Vec<u8>> {
    xz_length(packed).filter(|length| *length <= limit as u64)?;
    contained(|| {
        let mut bytes = Vec::with_capacity(limit);
        lzma_rs::xz_decompress(&mut Cursor::new(packed), &mut bytes).map(|()| bytes)
    })?
    .ok()
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
        }
    }
}
