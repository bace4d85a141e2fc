//! Reads a root back into a tree, whatever it is in: a directory, a tar archive, or an image of ext4, squashfs or erofs.

mod erofs;
mod squashfs;

use std::fs::File;
use std::io::{Read, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use ima::fault::{Code, Fault};
use ima::filesystem::{self, Filesystem, Kind};

use crate::Result;
use crate::file::{in_file, unreadable};
use crate::image::ext4;
use crate::select::FileSystem;
use crate::tree::{Content, Run, Tree};

/// The most that the files of an image may hold together: a damaged image may claim any length, and holes cost it nothing.
const MAX_CONTENT: u64 = 1 << 40;

/// A root that was read.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its files.
    pub tree: Tree,
    /// What the superblocks say, if it is an image; an older file system's may be among them.
    pub superblocks: Option<Vec<Filesystem>>,
}

impl Source {
    /// Its file system, if it is an image.
    #[must_use]
    pub fn filesystem(&self) -> Option<FileSystem> {
        let found = self.superblocks.as_ref()?.first()?;
        let mut filesystem = FileSystem::by_name(found.kind.name())?;
        filesystem.uuid = found
            .uuid
            .as_deref()
            .and_then(filesystem::Uuid::parse)
            .map(|uuid| uuid.0);
        Some(filesystem)
    }
}

/// Reads a root by what it is.
///
/// # Errors
///
/// `IMA-901` if it cannot be read, `IMA-918` if it is damaged or of a kind that is not read here, `IMA-919` if the program
/// that reads squashfs is not installed.
pub fn read(path: &Path) -> Result<Source> {
    if path.is_dir() {
        return Ok(Source {
            tree: Tree::from_directory(path)?,
            superblocks: None,
        });
    }
    let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let superblocks = probe(&file).map_err(|error| unreadable(path, &error))?;
    let tree = match superblocks.first().map(|found| found.kind) {
        Some(Kind::Ext4) => ext4::read(path)?,
        Some(Kind::Erofs) => erofs::read(path)?,
        Some(Kind::Squashfs) => squashfs::read(path)?,
        Some(other) => {
            return Err(
                Fault::new(Code::SourceMalformed, format!("{}: {other}", path.display()))
                    .with_cause("file systems of this type are not read without mounting them")
                    .with_remedy("mount it and give the directory, or a tar archive of it (tar --xattrs --xattrs-include='*' --format=pax)"),
            );
        }
        None => {
            file.rewind().map_err(|error| unreadable(path, &error))?;
            let tree = Tree::from_tar(std::io::BufReader::new(file))
                .map_err(|fault| in_file(fault, path))?;
            return Ok(Source {
                tree,
                superblocks: None,
            });
        }
    };
    Ok(Source {
        tree,
        superblocks: Some(superblocks),
    })
}

/// The file system in an image, without reading it.
///
/// # Errors
///
/// `IMA-901` if it cannot be read, `IMA-918` if there is none that is known.
pub fn filesystem(path: &Path) -> Result<FileSystem> {
    let source = Source {
        tree: Tree::new(),
        superblocks: Some(probe_file(path)?),
    };
    source.filesystem().ok_or_else(|| {
        Fault::new(Code::SourceMalformed, path.display().to_string())
            .with_cause("it is no image of a file system that is known here")
            .with_remedy("give an image of ext4, squashfs or erofs")
    })
}

/// The file systems that an image's superblocks tell of.
pub(super) fn probe_file(path: &Path) -> Result<Vec<Filesystem>> {
    File::open(path)
        .and_then(|file| probe(&file))
        .map_err(|error| unreadable(path, &error))
}

fn probe(file: &File) -> std::io::Result<Vec<Filesystem>> {
    let mut head = Vec::new();
    file.take(filesystem::PROBE_LENGTH as u64)
        .read_to_end(&mut head)?;
    Ok(filesystem::probe(&head))
}

/// The fault of an image that cannot be read as what its superblock says.
pub(super) fn damaged(
    path: &Path,
    kind: &str,
    check: &str,
    error: &dyn std::fmt::Display,
) -> Fault {
    Fault::new(
        Code::SourceMalformed,
        format!("{}: {error}", path.display()),
    )
    .with_cause(format!(
        "it is damaged, or uses something of {kind} that is not read here"
    ))
    .with_remedy(format!(
        "check it with {check}; if that finds nothing, mount it and give the directory"
    ))
}

/// Reads an image with a library that is meant for sound file systems: where it gives up in the middle, over a number out of
/// range, the image is damaged. Its words about that are of no use to who reads them.
fn contained<T>(
    path: &Path,
    kind: &str,
    check: &str,
    read: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    std::panic::set_hook(hook);
    result.unwrap_or_else(|_| Err(damaged(path, kind, check, &"a number out of range")))
}

/// A temporary file that holds the content of an image's files, one behind the other. Blocks of zeros take no room in it.
struct Spool {
    file: Arc<File>,
    end: u64,
}

impl Spool {
    fn new() -> Result<Self> {
        Ok(Self {
            file: Arc::new(tempfile::tempfile().map_err(|error| Self::failed(&error))?),
            end: 0,
        })
    }

    fn failed(error: &std::io::Error) -> Fault {
        Fault::new(Code::OutputUnwritable, format!("temporary file: {error}"))
    }

    /// Takes the content of a file, which the image says is `len` bytes long. The outer error is the spool's, the inner one
    /// the image's.
    fn take(&mut self, source: &mut impl Read, len: u64) -> Result<std::io::Result<Content>> {
        const BLOCK: usize = 4096;
        let offset = self.end.next_multiple_of(BLOCK as u64);
        let end = match offset.checked_add(len) {
            Some(end) if end <= MAX_CONTENT => end,
            _ => {
                return Ok(Err(std::io::Error::other(
                    "its files claim to hold more than 1 TiB",
                )));
            }
        };
        let mut at = offset;
        let mut buffer = vec![0; 1 << 18];
        while at < end {
            let room = usize::try_from(end - at)
                .unwrap_or(buffer.len())
                .min(buffer.len());
            let piece = buffer.get_mut(..room).unwrap_or_default();
            if let Err(error) = source.read_exact(piece) {
                return Ok(Err(error));
            }
            for (block, start) in piece.chunks(BLOCK).zip((at..).step_by(BLOCK)) {
                if block.iter().any(|byte| *byte != 0) {
                    self.file
                        .write_all_at(block, start)
                        .map_err(|error| Self::failed(&error))?;
                }
            }
            at += room as u64;
        }
        self.file
            .set_len(end)
            .map_err(|error| Self::failed(&error))?;
        self.end = end;
        let run = Run {
            at: 0,
            from: offset,
            len,
        };
        Ok(Ok(Content::Mapped {
            file: Arc::clone(&self.file),
            runs: Arc::new([run]),
            len,
        }))
    }
}
