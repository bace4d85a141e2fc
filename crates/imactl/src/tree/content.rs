//! The content of regular files: in memory, on the host, or in an image; read in pieces.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ima::fault::{Code, Fault};

use crate::Result;
use crate::file::unreadable;

/// The bytes of a regular file.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// A whole file of the host.
    Host {
        /// Where.
        path: PathBuf,
        /// Its length when the tree was read.
        len: u64,
    },
    /// Parts of an open file: an image, or what an archive was unpacked into. Between them are zeros.
    Mapped {
        /// The file.
        file: Arc<File>,
        /// The parts, in order, not overlapping one another.
        runs: Arc<[Run]>,
        /// Length in bytes.
        len: u64,
    },
    /// Decoded whenever it is read: a file that an image holds compressed, or in more parts than are worth keeping.
    Stored {
        /// What decodes it.
        file: Arc<dyn Stored>,
        /// Length in bytes.
        len: u64,
    },
}

/// A regular file in an image that is decoded whenever it is read.
pub trait Stored: std::fmt::Debug + Send + Sync {
    /// Begins to read at the first byte.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`] if the image cannot be read, [`Code::SourceMalformed`] if it is damaged.
    fn open(&self) -> Result<Box<dyn StoredReader + '_>>;
}

/// A regular file that is being decoded from its first byte to its last.
pub trait StoredReader {
    /// Passes over a hole that begins here, and returns its length in bytes: a multiple of 4096, or all that is left. It is 0
    /// where there is data, and where the format does not show which.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`] if the image cannot be read, [`Code::SourceMalformed`] if it is damaged.
    fn skip_hole(&mut self) -> Result<u64>;

    /// Fills `piece` with the bytes that come next. There are as many: nobody asks for more than the length of the file.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`] if the image cannot be read, [`Code::SourceMalformed`] if it is damaged.
    fn fill(&mut self, piece: &mut [u8]) -> Result<()>;
}

/// A part of a regular file, and where it lies in another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where the part begins, in bytes.
    pub at: u64,
    /// Where it lies in the other file, in bytes.
    pub from: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl Run {
    /// Where the part ends, in bytes.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.at.saturating_add(self.len)
    }
}

impl Content {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Host { len, .. } | Self::Mapped { len, .. } | Self::Stored { len, .. } => *len,
        }
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands the content to `each` in pieces, in order, each but the last a multiple of 4096 bytes long. A piece of `None` is
    /// a hole of that many bytes. The file system's own holes are passed over without being read.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`] if it cannot be read, [`Code::FileChanged`] if a file has another length than when the tree
    /// was read, [`Code::SourceMalformed`] if it is in an image that is damaged.
    pub fn read(&self, each: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
        match self {
            Self::Bytes(bytes) => each(Piece::Data(bytes)),
            Self::Mapped { file, runs, len } => {
                let mut buffer = vec![0; usize::try_from(*len).unwrap_or(PIECE).min(PIECE)];
                let mut runs = &runs[..];
                let mut at = 0;
                while at < *len {
                    while let Some((first, rest)) = runs.split_first()
                        && first.end() <= at
                    {
                        runs = rest;
                    }
                    // Only whole blocks count as holes.
                    let data = runs.first().map_or(*len, |run| run.at & !4095);
                    let data = data.clamp(at, *len);
                    if data > at {
                        each(Piece::Hole(data.saturating_sub(at)))?;
                        at = data;
                        continue;
                    }
                    let take = usize::try_from(len.saturating_sub(at))
                        .unwrap_or(PIECE)
                        .min(PIECE);
                    let piece = buffer.get_mut(..take).unwrap_or_default();
                    read_runs(file, runs, at, piece)?;
                    each(Piece::Data(piece))?;
                    at += take as u64;
                }
                Ok(())
            }
            Self::Stored { file, len } => {
                let mut reader = file.open()?;
                let mut buffer = vec![0; usize::try_from(*len).unwrap_or(PIECE).min(PIECE)];
                let mut at = 0;
                while at < *len {
                    let left = len.saturating_sub(at);
                    let hole = reader.skip_hole()?.min(left);
                    if hole > 0 {
                        each(Piece::Hole(hole))?;
                        at = at.saturating_add(hole);
                        continue;
                    }
                    let take = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                    let piece = buffer.get_mut(..take).unwrap_or_default();
                    reader.fill(piece)?;
                    each(Piece::Data(piece))?;
                    at = at.saturating_add(take as u64);
                }
                Ok(())
            }
            Self::Host { path, len } => OpenFile::open(path, *len)?.read(each),
        }
    }

    /// The first bytes, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`] if it cannot be read, [`Code::SourceMalformed`] if it is in an image that is damaged.
    pub fn head(&self, limit: usize) -> Result<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.get(..limit).unwrap_or(bytes).to_vec()),
            Self::Host { path, .. } => {
                let mut head = Vec::new();
                File::open(path)
                    .and_then(|file| file.take(limit as u64).read_to_end(&mut head))
                    .map_err(|error| unreadable(path, &error))?;
                Ok(head)
            }
            Self::Mapped { file, runs, len } => {
                let mut head = vec![0; usize::try_from(*len).unwrap_or(limit).min(limit)];
                read_runs(file, runs, 0, &mut head)?;
                Ok(head)
            }
            Self::Stored { file, len } => {
                let mut head = vec![0; usize::try_from(*len).unwrap_or(limit).min(limit)];
                file.open()?.fill(&mut head)?;
                Ok(head)
            }
        }
    }
}

/// Reads the bytes from `at` of what `runs` lay out, zeros where there is no run.
fn read_runs(file: &File, runs: &[Run], at: u64, piece: &mut [u8]) -> Result<()> {
    let end = at.saturating_add(piece.len() as u64);
    let mut filled = 0;
    for run in runs.iter().take_while(|run| run.at < end) {
        let (from, to) = (run.at.max(at), run.end().min(end));
        // Both lie in the piece, whose length is a usize.
        let (start, stop) = (
            from.saturating_sub(at) as usize,
            to.saturating_sub(at) as usize,
        );
        if let Some(gap) = piece.get_mut(filled..start) {
            gap.fill(0);
        }
        let Some(part) = piece.get_mut(start..stop) else {
            continue;
        };
        file.read_exact_at(part, run.from.saturating_add(from.saturating_sub(run.at)))
            .map_err(|error| {
                let detail = format!("the image, or a temporary file: {error}");
                Fault::new(Code::InputUnreadable, detail)
            })?;
        filled = stop;
    }
    if let Some(rest) = piece.get_mut(filled..) {
        rest.fill(0);
    }
    Ok(())
}

/// Bytes read at once.
pub(super) const PIECE: usize = 1 << 18;

/// A piece of a file.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Bytes.
    Data(&'a [u8]),
    /// So many zeros that take no room.
    Hole(u64),
}

/// A host's file, open for one pass: what is read, and what is written to its attributes, is one and the same file whatever
/// becomes of its name.
#[derive(Debug)]
pub struct OpenFile<'a> {
    file: File,
    path: &'a Path,
    len: u64,
    before: Stamp,
}

/// What changes when a file does.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    blocks: u64,
}

impl Stamp {
    fn of(file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            len: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            blocks: meta.blocks(),
        })
    }
}

impl<'a> OpenFile<'a> {
    /// Opens the file at `path`, which was `len` bytes long when it was found.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`] if it cannot be opened, [`Code::FileChanged`] if it has another length now.
    pub fn open(path: &'a Path, len: u64) -> Result<Self> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let before = Stamp::of(&file).map_err(|error| unreadable(path, &error))?;
        if before.len != len {
            return Err(Fault::new(Code::FileChanged, path.display().to_string()));
        }
        Ok(Self {
            file,
            path,
            len,
            before,
        })
    }

    /// The descriptor.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the file was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.path
    }

    /// The first bytes, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`].
    pub fn head(&self, limit: usize) -> Result<Vec<u8>> {
        let mut head = vec![0; usize::try_from(self.len).unwrap_or(limit).min(limit)];
        self.file
            .read_exact_at(&mut head, 0)
            .map_err(|error| self.failed(&error))?;
        Ok(head)
    }

    /// As [`Content::read`].
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`] if it cannot be read, [`Code::FileChanged`] if it changes meanwhile.
    pub fn read(&self, each: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
        thread_local! {
            // Kept for the next file: making a new one costs as much as hashing a small file.
            static BUFFER: std::cell::Cell<Vec<u8>> = const { std::cell::Cell::new(Vec::new()) };
        }
        let mut buffer = BUFFER.take();
        let wanted = usize::try_from(self.len).unwrap_or(PIECE).min(PIECE);
        if buffer.len() < wanted {
            buffer.resize(wanted, 0);
        }
        let read = self.read_with(&mut buffer, each);
        BUFFER.set(buffer);
        read
    }

    fn read_with(
        &self,
        buffer: &mut [u8],
        each: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        // With a block for each of its bytes a file has no holes to ask for. Blocks are counted in 512 bytes.
        let sparse = self.before.blocks.saturating_mul(512) < self.len;
        let mut at = 0;
        while at < self.len {
            if sparse {
                // Where the next data begins; a file system without holes says: here. Only whole blocks count as holes.
                let data = match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(at)) {
                    Ok(data) => (data & !4095).clamp(at, self.len),
                    Err(rustix::io::Errno::NXIO) => self.len,
                    Err(_) => at,
                };
                if data > at {
                    each(Piece::Hole(data - at))?;
                    at = data;
                    continue;
                }
            }
            let take = usize::try_from(self.len - at).unwrap_or(PIECE).min(PIECE);
            let piece = buffer.get_mut(..take).unwrap_or_default();
            self.file
                .read_exact_at(piece, at)
                .map_err(|error| self.failed(&error))?;
            each(Piece::Data(piece))?;
            at += take as u64;
        }
        let after = Stamp::of(&self.file).map_err(|error| unreadable(self.path, &error))?;
        if after != self.before {
            return Err(Fault::new(
                Code::FileChanged,
                self.path.display().to_string(),
            ));
        }
        Ok(())
    }

    fn failed(&self, error: &std::io::Error) -> Fault {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Fault::new(Code::FileChanged, self.path.display().to_string())
            }
            _ => unreadable(self.path, error),
        }
    }
}
