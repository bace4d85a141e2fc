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
