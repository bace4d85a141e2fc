//! Reads an erofs image back into a tree, extended attributes and all, compressed or not.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use erofs_rs::backend::SliceImage;
use erofs_rs::types::Inode as DiskInode;
use erofs_rs::{EroFS, Error};

use super::{Spool, contained, damaged};
use crate::Result;
use crate::file::read_bounded;
use crate::tree::{Inode, Kind, Timestamp, Tree};

/// The largest image that is read: it is held in memory.
const MAX_IMAGE: u64 = 4 << 30;

/// The deepest directory that is gone into: PATH_MAX has room for no more.
const MAX_DEPTH: usize = 2048;

/// Reads an image. The content of its files goes to a temporary file.
///
/// # Errors
///
/// `IMA-901` if it cannot be read, `IMA-918` if it is damaged.
pub(super) fn read(path: &Path) -> Result<Tree> {
    contained(path, "erofs", "fsck.erofs", || read_sound(path))
}

fn read_sound(path: &Path) -> Result<Tree> {
    let bytes = read_bounded(path, MAX_IMAGE)?;
    let bad = |error: Error| damaged(path, "erofs", "fsck.erofs", &error);
    let image = EroFS::new(SliceImage::new(&bytes)).map_err(bad)?;
    let mut reader = Reader {
        image: &image,
        path,
        spool: Spool::new()?,
        tree: Tree::new(),
        links: HashMap::new(),
        directories: HashSet::new(),
    };
    let root = image
        .get_inode(image.super_block().root_inode_id())
        .map_err(bad)?;
    reader.take(b"", root)?;
    for entry in image.walk_dir("/").map_err(bad)? {
        let entry = entry.map_err(bad)?;
        if entry.depth > MAX_DEPTH {
            return Err(bad(Error::CorruptedData(
                "a directory lies in itself".to_owned(),
            )));
        }
        let name = entry.dir_entry.path();
        reader.take(name.as_bytes(), entry.inode)?;
    }
    Ok(reader.tree)
}

struct Reader<'a> {
    image: &'a EroFS<SliceImage<'a>>,
    path: &'a Path,
    spool: Spool,
    tree: Tree,
    /// The first name of each inode that has several.
    links: HashMap<u64, Vec<u8>>,
    directories: HashSet<u64>,
}

impl Reader<'_> {
    /// Puts one inode into the tree.
    fn take(&mut self, name: &[u8], inode: DiskInode) -> Result<()> {
        let bad = |error: &dyn std::fmt::Display| damaged(self.path, "erofs", "fsck.erofs", error);
        let kind = inode.file_type();
        if kind.is_dir() {
            // Without this a few directories that contain one another twice would be names without end.
            if !self.directories.insert(inode.id()) {
                return Err(bad(&"a directory with two names"));
            }
        } else if let Some(first) = self.links.get(&inode.id()) {
            return self.tree.link(name, first);
        } else if inode.nlink() > 1 {
            self.links.insert(inode.id(), name.to_vec());
        }
        let device = || {
            inode
                .device()
                .ok_or_else(|| bad(&"a device without number"))
        };
        let kind = if kind.is_dir() {
            Kind::Directory
        } else if kind.is_file() {
            let mut source = self
                .image
                .open_inode_file(inode)
                .map_err(|error| bad(&error))?;
            let content = self.spool.take(&mut source, inode.data_size())?;
            Kind::File(content.map_err(|error| bad(&error))?)
        } else if kind.is_symlink() {
            let target = self
                .image
                .read_link_inode(inode)
                .map_err(|error| bad(&error))?;
            Kind::Symlink(target.as_bytes().to_vec())
        } else if kind.is_char_device() {
            let (major, minor) = device()?;
            Kind::CharacterDevice(major, minor)
        } else if kind.is_block_device() {
            let (major, minor) = device()?;
            Kind::BlockDevice(major, minor)
        } else if kind.is_fifo() {
            Kind::Fifo
        } else {
            Kind::Socket
        };
        let mode = std::os::unix::fs::PermissionsExt::mode(&inode.permissions());
        let mut taken = Inode::new(kind, (mode & 0o7777) as u16);
        taken.uid = inode.uid();
        taken.gid = inode.gid();
        let (seconds, nanoseconds) = inode.modified_unix();
        taken.mtime = Timestamp {
            seconds,
            nanoseconds,
        };
        taken.xattrs = self
            .image
            .xattrs_inode(inode)
            .map_err(|error| bad(&error))?;
        self.tree.insert(name, taken)?;
        Ok(())
    }
}
