//! Reads a root back into a tree, whatever it is in: a directory, a tar archive, or an image of ext4, squashfs or erofs.

mod erofs;
mod squashfs;

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;

use ima::fault::{Cause, Code, Fault};
use ima::filesystem::{self, Filesystem, Kind};

use crate::Result;
use crate::file::{in_file, unreadable};
use crate::image::ext4;
use crate::select::FileSystem;
use crate::tree::Tree;

/// The longest name below the root, PATH_MAX.
const MAX_PATH: usize = 4096;
/// The longest target of a symbolic link, PATH_MAX.
const MAX_TARGET: u64 = 4096;

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
/// [`Code::InputUnreadable`] if it cannot be read, [`Code::SourceMalformed`] if it is damaged or of a kind that is not read
/// here, [`Code::ToolMissing`] if the program that reads squashfs is not installed.
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
            return Err(Fault::new(
                Code::SourceMalformed,
                format!("{}: {other}", path.display()),
            )
            .because(Cause::TYPE_NOT_READ));
        }
        None => {
            file.rewind().map_err(|error| unreadable(path, &error))?;
            let tree = Tree::from_tar_file(file).map_err(|fault| in_file(fault, path))?;
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
/// [`Code::InputUnreadable`] if it cannot be read, [`Code::SourceMalformed`] if there is none that is known.
pub fn filesystem(path: &Path) -> Result<FileSystem> {
    let source = Source {
        tree: Tree::new(),
        superblocks: Some(probe_file(path)?),
    };
    source.filesystem().ok_or_else(|| {
        Fault::new(Code::SourceMalformed, path.display().to_string()).because(Cause::NOT_AN_IMAGE)
    })
}

/// The file systems whose superblocks an image has.
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
    .because(Cause::DAMAGED.with(&[kind, check]))
}

/// Counts what of an image is kept in memory: names and attributes. Both may lie where others do, so that a short image could
/// hold any number; a sound one has a small part of its length.
struct Kept {
    left: u64,
}

impl Kept {
    fn for_image(length: u64) -> Self {
        const ALWAYS: u64 = 32 << 20;
        const RATIO: u64 = 16;
        Self {
            left: length.saturating_mul(RATIO).saturating_add(ALWAYS),
        }
    }

    /// Whether there is room for so many bytes, and what goes with them.
    fn room(&mut self, bytes: usize) -> bool {
        const EACH: u64 = 128;
        match self.left.checked_sub((bytes as u64).saturating_add(EACH)) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Whether there is room for another attribute.
    fn attribute(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.room(name.len().saturating_add(value.len()))
    }
}
