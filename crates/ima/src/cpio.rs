//! The archive format of initramfs images: cpio "newc".
//!
//! `Documentation/driver-api/early-userspace/buffer-format.rst`, read by the kernel in `init/initramfs.c`: a header of
//! 110 bytes, magic `070701` (or `070702` with a checksum) and thirteen numbers of eight hexadecimal digits; the name with
//! its NUL, padded so that the data starts on a multiple of four; the data, padded likewise. An entry `TRAILER!!!` ends an
//! archive; zeros may follow it, and another archive.
//!
//! The writer is reproducible: times, device and inode numbers are what the caller gives or what follows from the order of
//! the entries.

/// Length of a header in bytes.
const HEADER_LEN: usize = 110;
/// The longest name, with its NUL, that the kernel takes (`N_ALIGN(PATH_MAX)`).
const MAX_NAME_LEN: usize = 4096;
const MAGIC: &[u8] = b"070701";
const MAGIC_CHECKSUM: &[u8] = b"070702";
const TRAILER: &[u8] = b"TRAILER!!!";

/// The file type bits of a mode.
pub const S_IFMT: u32 = 0o170_000;
/// A directory.
pub const S_IFDIR: u32 = 0o040_000;
/// A regular file.
pub const S_IFREG: u32 = 0o100_000;
/// A symbolic link; its data is the target.
pub const S_IFLNK: u32 = 0o120_000;
/// A character device.
pub const S_IFCHR: u32 = 0o020_000;
/// A block device.
pub const S_IFBLK: u32 = 0o060_000;

/// What a header says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime: u32,
    /// Major number of a device node.
    pub rdev_major: u32,
    /// Minor number of a device node.
    pub rdev_minor: u32,
}

/// Why an entry cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Empty, longer than 4095 bytes, with a NUL byte, or the name that ends archives.
    #[error("`{0}` cannot be a name in an initramfs")]
    Name(String),
    /// More data than the 32-bit length of the format can say.
    #[error("`{0}` is longer than 4 GiB - 1")]
    TooLong(String),
}

/// Writes an archive into memory.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    archive: Vec<u8>,
    inode: u32,
}

impl Writer {
    /// An archive without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry. `name` is relative to the root, without a leading slash; its directories must have come before.
    /// `data` is the content of a regular file or the target of a symbolic link.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; nothing is written then.
    pub fn entry(
        &mut self,
        name: &[u8],
        metadata: &Metadata,
        data: &[u8],
    ) -> Result<(), WriteError> {
        let lossy = || String::from_utf8_lossy(name).into_owned();
        if name.is_empty() || name == TRAILER || name.len() >= MAX_NAME_LEN || name.contains(&0) {
            return Err(WriteError::Name(lossy()));
        }
        let len = u32::try_from(data.len()).map_err(|_| WriteError::TooLong(lossy()))?;
        self.inode = self.inode.saturating_add(1);
        self.write(self.inode, name, metadata, len, data);
        Ok(())
    }

    /// Ends the archive and gives its bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.write(0, TRAILER, &Metadata::default(), 0, &[]);
        self.archive
    }

    fn write(&mut self, inode: u32, name: &[u8], metadata: &Metadata, len: u32, data: &[u8]) {
        let links = if metadata.mode & S_IFMT == S_IFDIR {
            2
        } else {
            1
        };
        let name_len = u32::try_from(name.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        self.archive.extend_from_slice(MAGIC);
        for number in [
            inode,
            metadata.mode,
            metadata.uid,
            metadata.gid,
            links,
            metadata.mtime,
            len,
            0,
            0,
            metadata.rdev_major,
            metadata.rdev_minor,
            name_len,
            0,
        ] {
            self.archive
                .extend_from_slice(format!("{number:08x}").as_bytes());
        }
        self.archive.extend_from_slice(name);
        self.archive.push(0);
        self.pad();
        self.archive.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.archive
            .resize(self.archive.len().next_multiple_of(4), 0);
    }
}

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Name without its NUL.
    pub name: &'a [u8],
    /// Inode number: entries of one archive with the same number and more than one link are one file.
    pub inode: u32,
    /// Number of links.
    pub links: u32,
    /// Type, owner, times.
    pub metadata: Metadata,
    /// Content or link target.
    pub data: &'a [u8],
}

/// Why an archive cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Neither `070701` nor `070702` where a header should be.
    #[error("no cpio header at byte {0}")]
    Magic(usize),
    /// A number that is not eight hexadecimal digits.
    #[error("malformed cpio header at byte {0}")]
    Header(usize),
    /// A name that is empty, too long or without its NUL.
    #[error("malformed name in the cpio entry at byte {0}")]
    Name(usize),
    /// The archive ends inside an entry or without a trailer.
    #[error("cpio archive truncated at byte {0}")]
    Truncated(usize),
}

/// Reads the entries of one archive, or of several one after the other, without their trailers.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    archive: &'a [u8],
    at: usize,
    /// Between archives, where zeros and the end are allowed.
    between: bool,
}

/// Reads the entries of `archive`, which must be uncompressed.
#[must_use]
pub fn entries(archive: &[u8]) -> Entries<'_> {
    Entries {
        archive,
        at: 0,
        between: false,
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.between {
                let rest = self.archive.get(self.at..)?;
                let zeros = rest.iter().position(|&byte| byte != 0)?;
                self.at = self.at.checked_add(zeros)?;
            }
            match self.read() {
                Ok(entry) if entry.name == TRAILER => self.between = true,
                Ok(entry) => {
                    self.between = false;
                    return Some(Ok(entry));
                }
                Err(error) => {
                    self.archive = &[];
                    self.at = 0;
                    self.between = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl<'a> Entries<'a> {
    fn read(&mut self) -> Result<Entry<'a>, ReadError> {
        let start = self.at;
        let rest = self.archive.get(start..).unwrap_or_default();
        let magic = rest.get(..MAGIC.len()).unwrap_or(rest);
        if !MAGIC.starts_with(magic) && !MAGIC_CHECKSUM.starts_with(magic) {
            return Err(ReadError::Magic(start));
        }
        let header = self.take(HEADER_LEN)?;
        let numbers = header
            .get(MAGIC.len()..)
            .ok_or(ReadError::Truncated(start))?;
        let mut fields = [0u32; 13];
        for (field, digits) in fields.iter_mut().zip(numbers.chunks(8)) {
            *field = crate::hex::number(digits).ok_or(ReadError::Header(start))?;
        }
        let [
            inode,
            mode,
            uid,
            gid,
            links,
            mtime,
            len,
            _,
            _,
            rdev_major,
            rdev_minor,
            name_len,
            _,
        ] = fields;
        let name_len = usize::try_from(name_len).map_err(|_| ReadError::Name(start))?;
        if !(2..=MAX_NAME_LEN).contains(&name_len) {
            return Err(ReadError::Name(start));
        }
        let name = match self.take(name_len)? {
            [name @ .., 0] if !name.contains(&0) => name,
            _ => return Err(ReadError::Name(start)),
        };
        self.align()?;
        let data = self.take(usize::try_from(len).map_err(|_| ReadError::Truncated(start))?)?;
        if name != TRAILER {
            self.align()?;
        }
        let metadata = Metadata {
            mode,
            uid,
            gid,
            mtime,
            rdev_major,
            rdev_minor,
        };
        Ok(Entry {
            name,
            inode,
            links,
            metadata,
            data,
        })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ReadError> {
        let truncated = ReadError::Truncated(self.at);
        let end = self.at.checked_add(len).ok_or_else(|| truncated.clone())?;
        let taken = self.archive.get(self.at..end).ok_or(truncated)?;
        self.at = end;
        Ok(taken)
    }

    /// To the next multiple of four of the whole file, or to its end.
    fn align(&mut self) -> Result<(), ReadError> {
        let aligned = self
            .at
            .checked_next_multiple_of(4)
            .ok_or(ReadError::Truncated(self.at))?;
        self.at = aligned.min(self.archive.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .entry(
                b"dev",
                &Metadata {
                    mode: S_IFDIR | 0o755,
                    ..Metadata::default()
                },
                &[],
            )
            .unwrap();
        let console = Metadata {
            mode: S_IFCHR | 0o600,
            rdev_major: 5,
            rdev_minor: 1,
            ..Metadata::default()
        };
        writer.entry(b"dev/console", &console, &[]).unwrap();
        writer
            .entry(
                b"init",
                &Metadata {
                    mode: S_IFREG | 0o755,
                    ..Metadata::default()
                },
                b"hello",
            )
            .unwrap();
        writer.finish()
    }

    #[test]
    fn written_and_read_again() {
        let archive = sample();
        let read: Vec<Entry<'_>> = entries(&archive).collect::<Result<_, _>>().unwrap();
        assert_eq!(read.len(), 3);
        assert_eq!(
            (read[0].name, read[0].metadata.mode, read[0].links),
            (&b"dev"[..], 0o040_755, 2)
        );
        assert_eq!(
            (read[1].metadata.rdev_major, read[1].metadata.rdev_minor),
            (5, 1)
        );
        assert_eq!(
            (read[2].name, read[2].data, read[2].inode),
            (&b"init"[..], &b"hello"[..], 3)
        );
        assert_eq!(archive, sample());
        assert_eq!(archive.len() % 4, 0);
    }

    #[test]
    fn archives_one_after_the_other() {
        let mut both = sample();
        both.extend([0; 512]);
        both.extend(sample());
        both.extend([0; 8]);
        assert_eq!(entries(&both).filter(Result::is_ok).count(), 6);
        assert_eq!(entries(&both).filter(Result::is_err).count(), 0);
    }

    #[test]
    fn names_that_cannot_be() {
        for name in [&b""[..], b"TRAILER!!!", b"a\0b", &[b'a'; 4096]] {
            let error = Writer::new()
                .entry(name, &Metadata::default(), &[])
                .unwrap_err();
            assert!(matches!(error, WriteError::Name(_)), "{error}");
        }
        assert!(
            Writer::new()
                .entry(&[b'a'; 4095], &Metadata::default(), &[])
                .is_ok()
        );
    }

    #[test]
    fn broken_archives() {
        let whole = sample();
        for (name, archive, error) in [
            ("nothing", vec![], ReadError::Truncated(0)),
            (
                "no trailer",
                whole[..whole.len() - 124].to_vec(),
                ReadError::Truncated(whole.len() - 124),
            ),
            (
                "other magic",
                [&b"070707"[..], &whole[6..]].concat(),
                ReadError::Magic(0),
            ),
            (
                "no digit",
                [&whole[..6], b"g", &whole[7..]].concat(),
                ReadError::Header(0),
            ),
            (
                "name without NUL",
                [&whole[..113], b"x", &whole[114..]].concat(),
                ReadError::Name(0),
            ),
            (
                "cut in a header",
                whole[..50].to_vec(),
                ReadError::Truncated(0),
            ),
        ] {
            let found = entries(&archive).find_map(Result::err);
            assert_eq!(found, Some(error), "{name}");
        }
        let zeros = [0u8; 512];
        assert_eq!(
            entries(&zeros).find_map(Result::err),
            Some(ReadError::Magic(0))
        );
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(archive in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(entries(&archive).count() <= 20);
        }

        #[test]
        fn a_flipped_byte_does_no_harm(at in 0usize..500, value in any::<u8>()) {
            let mut archive = sample();
            let at = at % archive.len();
            archive[at] = value;
            prop_assert!(entries(&archive).count() <= 6);
        }

        #[test]
        fn what_is_written_is_read(
            files in proptest::collection::vec(("[a-z]{1,20}", proptest::collection::vec(any::<u8>(), 0..50)), 0..8),
        ) {
            let mut writer = Writer::new();
            for (name, data) in &files {
                writer.entry(name.as_bytes(), &Metadata { mode: S_IFREG, ..Metadata::default() }, data).unwrap();
            }
            let archive = writer.finish();
            let read: Vec<_> = entries(&archive).map(|entry| entry.map(|entry| (entry.name.to_vec(), entry.data.to_vec())))
                .collect::<Result<_, _>>().unwrap();
            let written: Vec<_> = files.into_iter().map(|(name, data)| (name.into_bytes(), data)).collect();
            prop_assert_eq!(read, written);
        }
    }
}
