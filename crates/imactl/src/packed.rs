//! Compressed data as the kernel knows it: an initramfs, the kernel in a bzImage, modules.

use std::io::{Cursor, Error, Read as _, Result, Write};

use crate::contained::contained;

/// A way to compress, by its first bytes (lib/decompress.c, `compressed_formats`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names are the documentation
pub enum Packing {
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lzo,
    Lz4,
    Zstd,
}

impl Packing {
    /// How something that begins so is compressed; nothing if it is not, or in another way.
    #[must_use]
    pub fn of(head: &[u8]) -> Option<Self> {
        Some(match head {
            [0x1f, 0x8b | 0x9e, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0x5d, 0, 0, ..] => Self::Lzma,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x89, b'L', b'Z', b'O', 0, ..] => Self::Lzo,
            [0x02, 0x21, 0x4c, 0x18, ..] => Self::Lz4,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => return None,
        })
    }

    /// Its name, as the kernel's messages have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lzo => "lzo",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The option, without `CONFIG_`, with which a kernel unpacks an initramfs that is compressed so.
    #[must_use]
    pub const fn initramfs_option(self) -> &'static str {
        match self {
            Self::Gzip => "RD_GZIP",
            Self::Bzip2 => "RD_BZIP2",
            Self::Lzma => "RD_LZMA",
            Self::Xz => "RD_XZ",
            Self::Lzo => "RD_LZO",
            Self::Lz4 => "RD_LZ4",
            Self::Zstd => "RD_ZSTD",
        }
    }

    /// The first bytes of what is packed, at most `limit`; nothing if they cannot be unpacked without the rest.
    #[must_use]
    pub fn head(self, packed: &[u8], limit: usize) -> Option<Vec<u8>> {
        let mut head = Vec::new();
        let read = |reader: &mut dyn std::io::Read, head: &mut Vec<u8>| {
            std::io::Read::take(reader, limit as u64).read_to_end(head)
        };
        match self {
            Self::Gzip => read(&mut flate2::bufread::GzDecoder::new(packed), &mut head),
            Self::Zstd => read(&mut zstd::Decoder::with_buffer(packed).ok()?, &mut head),
            _ => return None,
        }
        .ok()?;
        Some(head)
    }

    /// Unpacks the first stream of `packed` as the kernel does, which takes each by itself; gives how many bytes it took too.
    ///
    /// # Errors
    ///
    /// What is malformed, unpacks to more than `limit` bytes, or is compressed with bzip2 or lzo, which are not unpacked here.
    pub fn unpack(self, packed: &[u8], limit: u64) -> Result<(Vec<u8>, usize)> {
        let mut unpacked = Bounded {
            bytes: Vec::new(),
            left: limit,
        };
        let taken = match self {
            Self::Gzip => {
                let mut decoder = flate2::bufread::GzDecoder::new(packed);
                std::io::copy(&mut decoder, &mut unpacked)?;
                packed.len() - decoder.into_inner().len()
            }
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(packed)?.single_frame();
                std::io::copy(&mut decoder, &mut unpacked)?;
                packed.len() - decoder.finish().len()
            }
            Self::Xz => {
                // The kernel's decoder has no other check (lib/xz/xz_dec_stream.c, `dec_stream_header`).
                const CRC32: u8 = 1;
                if packed.get(7).is_some_and(|check| *check > CRC32) {
                    return Err(Error::other(
                        "xz data with a check that the kernel does not know; compress it with xz --check=crc32",
                    ));
                }
                // The decoder takes nothing behind the stream, where there may be zeros.
                let end = packed.iter().rposition(|byte| *byte != 0);
                let length = end.map_or(0, |end| end + 1);
                let stream = packed.get(..length).unwrap_or_default();
                match xz_length(stream) {
                    Some(length) if length > limit => return Err(too_much()),
                    Some(_) => {}
                    None => {
                        return Err(Error::other(
                            "malformed xz data, or such with a filter for machine code, which is not unpacked here",
                        ));
                    }
                }
                contained(|| lzma_rs::xz_decompress(&mut Cursor::new(stream), &mut unpacked))
                    .ok_or_else(|| Error::other("malformed xz data"))?
                    .map_err(|error| Error::other(format!("malformed xz data ({error:?})")))?;
                packed.len()
            }
            Self::Lzma => {
                // The decoder takes nothing behind the stream, where there may be zeros; but some may be the stream's last bytes.
                let end = packed.iter().rposition(|byte| *byte != 0);
                let length = end.map_or(0, |end| end + 1);
                let options = lzma_rs::decompress::Options {
                    // What it keeps before it hands it out is as long as the stream's header says.
                    memlimit: usize::try_from(limit).ok(),
                    ..lzma_rs::decompress::Options::default()
                };
                let mut result = Some(Ok(()));
                for zeros in 0..=LZMA_FLUSH {
                    let stream = packed.get(..length + zeros).unwrap_or(packed);
                    unpacked.bytes.clear();
                    unpacked.left = limit;
                    result = contained(|| {
                        let stream = &mut Cursor::new(stream);
                        lzma_rs::lzma_decompress_with_options(stream, &mut unpacked, &options)
                    });
                    if matches!(result, Some(Ok(()))) {
                        break;
                    }
                }
                let result = result.ok_or_else(|| Error::other("malformed lzma data"))?;
                result.map_err(|error| Error::other(format!("malformed lzma data ({error:?})")))?;
                packed.len()
            }
            Self::Lz4 => lz4(packed, &mut unpacked)?,
            Self::Bzip2 | Self::Lzo => {
                return Err(Error::other(format!(
                    "it is compressed with {}, which is not unpacked here; compress it with gzip, zstd, xz or lz4",
                    self.name()
                )));
            }
        };
        Ok((unpacked.bytes, taken))
    }
}

/// How many bytes LZMA's range coder ends with.
const LZMA_FLUSH: usize = 5;

/// Adds up what the chunks of an xz stream announce ("The .xz File Format", 2.1.1 and 3.1; lib/xz/xz_dec_lzma2.c): the decoder
/// keeps all that it unpacks, so its length must be known before. There is nothing for a malformed stream, nor for one with a
/// filter before LZMA2.
pub(crate) fn xz_length(stream: &[u8]) -> Option<u64> {
    const STREAM_HEADER: usize = 12;
    const LZMA2: u8 = 0x21;
    let check = match stream.get(7)? & 0xf {
        0 => 0,
        1 => 4,
        4 => 8,
        10 => 32,
        _ => return None,
    };
    let mut at = STREAM_HEADER;
    let mut length = 0_u64;
    loop {
        let block = stream.get(at..)?;
        let (&size, fields) = block.split_first()?;
        // The index begins with a zero, where a block has its size.
        if size == 0 {
            return Some(length);
        }
        let (&flags, mut fields) = fields.split_first()?;
        if flags & 0x3f != 0 {
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
        loop {
            let (&control, rest) = chunks.split_first()?;
            let skip = match (control, rest) {
                (0, _) => {
                    chunks = rest;
                    break;
                }
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
        // What is checked is filled up to a multiple of four bytes, as is all before it.
        let end = stream.len().checked_sub(chunks.len())?;
        at = end.checked_next_multiple_of(4)?.checked_add(check)?;
    }
}

/// LZ4's legacy format, which the kernel takes alone: a magic number, then blocks, each with its length before it
/// (lib/decompress_unlz4.c). Gives how many bytes it took.
fn lz4(packed: &[u8], unpacked: &mut Bounded) -> Result<usize> {
    const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
    const BLOCK: usize = 8 << 20;
    let malformed = || Error::other("malformed lz4 data");
    let mut rest = packed;
    let mut block = vec![0; BLOCK];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        if *length == MAGIC {
            rest = after;
            continue;
        }
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(Error::other)?;
        if length == 0 {
            break;
        }
        let (packed, after) = after.split_at_checked(length).ok_or_else(malformed)?;
        let count = lz4_flex::block::decompress_into(packed, &mut block)
            .map_err(|error| Error::other(format!("malformed lz4 data ({error})")))?;
        unpacked.write_all(block.get(..count).unwrap_or_default())?;
        rest = after;
    }
    Ok(packed.len() - rest.len())
}

fn too_much() -> Error {
    Error::other("it unpacks to more than is read here")
}

/// Bytes up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    left: u64,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(too_much)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the program makes of the content.
    fn packed(command: &[&str], content: &[u8]) -> Vec<u8> {
        use std::process::{Command, Stdio};
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command[0]));
        let mut input = child.stdin.take().unwrap();
        let content = content.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&content).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.status.success(), "{command:?}");
        output.stdout
    }

    fn commands() -> [(Packing, &'static [&'static str]); 5] {
        [
            (Packing::Gzip, &["gzip", "-c"]),
            (Packing::Zstd, &["zstd", "-c"]),
            (Packing::Xz, &["xz", "--check=crc32", "-c"]),
            (Packing::Lzma, &["xz", "--format=lzma", "-c"]),
            (Packing::Lz4, &["lz4", "-l", "-c"]),
        ]
    }

    #[test]
    fn what_the_programs_pack_is_unpacked() {
        let content: Vec<u8> = (0..20_u32 << 20).map(|at| (at / 7) as u8).collect();
        for (packing, command) in commands() {
            let packed = packed(command, &content);
            assert_eq!(Packing::of(&packed), Some(packing));
            let (unpacked, taken) = packing.unpack(&packed, 1 << 30).unwrap();
            assert!(unpacked == content, "{packing:?}");
            assert_eq!(taken, packed.len(), "{packing:?}");
            let padded = [packed.as_slice(), &[0; 64]].concat();
            assert!(packing.unpack(&padded, 1 << 30).unwrap().0 == content);
            assert!(packing.unpack(&packed, 1 << 20).is_err(), "{packing:?}");
        }
    }

    #[test]
    fn what_is_not_unpacked_is_named() {
        for (packing, command) in [
            (Packing::Bzip2, &["bzip2", "-c"][..]),
            (Packing::Xz, &["xz", "-c"]),
        ] {
            let packed = packed(command, b"content");
            assert_eq!(Packing::of(&packed), Some(packing));
            let error = packing.unpack(&packed, 1 << 20).unwrap_err().to_string();
            assert!(error.contains(packing.name()), "{error}");
        }
        let lzop = b"\x89LZO\0\r\n\x1a\n";
        let error = Packing::of(lzop).unwrap().unpack(lzop, 1).unwrap_err();
        assert!(error.to_string().contains("lzo"), "{error}");
    }

    #[test]
    fn xz_streams_announce_their_length() {
        for length in [0, 1, 100, 100_000, 5_000_000_usize] {
            let content: Vec<u8> = (0..length).map(|at| (at * at / 999) as u8).collect();
            for options in [
                &["--check=crc32"][..],
                &["--check=crc64"],
                &["--check=none"],
            ] {
                let stream = packed(&[&["xz", "-c"], options].concat(), &content);
                assert_eq!(
                    xz_length(&stream),
                    Some(length as u64),
                    "{length} {options:?}"
                );
            }
        }
        let filtered = packed(&["xz", "-c", "--x86", "--lzma2"], b"content");
        assert_eq!(xz_length(&filtered), None);
    }

    proptest! {
        #[test]
        fn lengths_of_damaged_xz_streams_end(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let stream = [&b"\xfd7zXZ\0\0\x01\0\0\0\0\x02\0\x21"[..], &bytes].concat();
            let _ = xz_length(&stream);
        }

        #[test]
        fn damaged_data_never_unpacks_to_more_than_allowed(
            which in 0_usize..5, at in any::<prop::sample::Index>(), value in any::<[u8; 4]>(), cut in any::<prop::sample::Index>(),
        ) {
            use std::sync::LazyLock;
            static SAMPLES: LazyLock<Vec<(Packing, Vec<u8>)>> = LazyLock::new(|| {
                let content: Vec<u8> = (0..5000_u32).map(|at| (at * at / 99) as u8).collect();
                commands().into_iter().map(|(packing, command)| (packing, packed(command, &content))).collect()
            });
            let (packing, sample) = &SAMPLES[which];
            let mut sample = sample.clone();
            let at = at.index(sample.len() - 4);
            sample[at..at + 4].copy_from_slice(&value);
            sample.truncate(cut.index(sample.len()) + 1);
            if let Ok((unpacked, taken)) = packing.unpack(&sample, 10_000) {
                prop_assert!(unpacked.len() <= 10_000 && taken <= sample.len());
            }
        }
    }
}
