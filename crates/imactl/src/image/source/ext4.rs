//! Reads an ext4 image back into a tree, extended attributes and all.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ext4::{Checksums, Enhanced, Options, SuperBlock};
use ima::fault::Fault;

use super::{Spool, contained, damaged};
use crate::Result;
use crate::file::unreadable;
use crate::tree::{Inode, InodeIndex, Kind, Timestamp, Tree};

/// The deepest directory that is gone into: PATH_MAX has room for no more.
const MAX_DEPTH: usize = 2048;

/// Reads an image. The content of its files goes to a temporary file.
///
/// # Errors
///
/// `IMA-901` if it cannot be read, `IMA-918` if it is no ext4 file system, or damaged.
pub fn read(path: &Path) -> Result<Tree> {
    read_numbered(path).map(|(tree, _)| tree)
}

/// Reads an image, and tells the numbers of its inodes.
///
/// # Errors
///
/// As [`read`].
pub fn read_numbered(path: &Path) -> Result<(Tree, HashMap<InodeIndex, u32>)> {
    contained(path, "ext4", "e2fsck -fn", || read_sound(path))
}

fn read_sound(path: &Path) -> Result<(Tree, HashMap<InodeIndex, u32>)> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let bad = |error: &dyn std::fmt::Display| damaged(path, "ext4", "e2fsck -fn", error);
    let length = file
        .metadata()
        .map_err(|error| unreadable(path, &error))?
        .len();
    if claimed_length(&file).is_none_or(|claimed| claimed > length) {
        return Err(bad(&"the image is shorter than its file system"));
    }
    // Metadata is checked where it carries checksums; images made here do not.
    let options = Options {
        checksums: Checksums::Enabled,
    };
    let filesystem =
        SuperBlock::new_with_options(file, &options).map_err(|error| bad(&format!("{error:#}")))?;
    let mut reader = Reader {
        filesystem: &filesystem,
        spool: Spool::new()?,
        tree: Tree::new(),
        seen: HashMap::new(),
        directories: HashSet::new(),
        numbers: HashMap::new(),
    };
    let root = filesystem
        .root()
        .map_err(|error| bad(&format!("{error:#}")))?;
    let mut todo = vec![(Vec::new(), root)];
    while let Some((name, inode)) = todo.pop() {
        if name.iter().filter(|byte| **byte == b'/').count() > MAX_DEPTH {
            return Err(bad(&"a directory lies in itself"));
        }
        let entries = reader.take(&name, &inode).map_err(|error| match error {
            Failure::Image(error) => bad(&format!("{error:#}")),
            Failure::Content(error) => bad(&error),
            Failure::TwoNames => bad(&"a directory with two names"),
            Failure::Acl => bad(&"a malformed ACL"),
            Failure::Fault(fault) => fault,
        })?;
        for entry in entries {
            if entry.name == "." || entry.name == ".." {
                continue;
            }
            let mut path = name.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.name.as_bytes());
            let child = filesystem
                .load_inode(entry.inode)
                .map_err(|error| bad(&format!("{error:#}")))?;
            todo.push((path, child));
        }
    }
    // The file system's own furniture, which the writer makes again.
    reader.tree.remove_empty_directory(b"lost+found");
    Ok((reader.tree, reader.numbers))
}

/// How long the superblock says that the file system is, in bytes (`struct ext4_super_block`: `s_log_block_size`,
/// `s_blocks_count`).
fn claimed_length(file: &File) -> Option<u64> {
    const INCOMPAT_64BIT: u32 = 0x80;
    let mut superblock = [0; 1024];
    file.read_exact_at(&mut superblock, 1024).ok()?;
    let field = |at: usize| -> Option<u32> {
        let bytes = superblock.get(at..)?.first_chunk().copied()?;
        Some(u32::from_le_bytes(bytes))
    };
    let high = if field(0x60)? & INCOMPAT_64BIT == 0 {
        0
    } else {
        field(0x150)?
    };
    let blocks = u64::from(high) << 32 | u64::from(field(4)?);
    blocks.checked_mul(1024_u64.checked_shl(field(0x18)?)?)
}

/// A time of its two fields: the second has the seconds' 33rd and 34th bit and the nanoseconds (fs/ext4/ext4.h,
/// `ext4_decode_extra_time`).
fn timestamp(seconds: u32, extra: u32) -> Timestamp {
    Timestamp {
        seconds: i64::from(seconds.cast_signed()) + (i64::from(extra & 3) << 32),
        nanoseconds: (extra >> 2).min(999_999_999),
    }
}

/// An ACL as the kernel shows it, version 2 with an id in every entry, of the form on the disk, version 1 with ids only where
/// they mean something (fs/ext4/acl.c, `ext4_acl_from_disk`).
fn acl(stored: &[u8]) -> Option<Vec<u8>> {
    const USER: u8 = 0x02;
    const GROUP: u8 = 0x08;
    let mut rest = stored.strip_prefix(&1_u32.to_le_bytes())?;
    let mut value = 2_u32.to_le_bytes().to_vec();
    while let Some(&tag) = rest.first() {
        let named = matches!(tag, USER | GROUP);
        let (entry, after) = rest.split_at_checked(if named { 8 } else { 4 })?;
        value.extend_from_slice(entry);
        if !named {
            value.extend_from_slice(&u32::MAX.to_le_bytes());
        }
        rest = after;
    }
    Some(value)
}

enum Failure<E> {
    Image(E),
    Content(std::io::Error),
    TwoNames,
    Acl,
    Fault(Fault),
}

impl<E> From<Fault> for Failure<E> {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

struct Reader<'a> {
    filesystem: &'a SuperBlock<File>,
    spool: Spool,
    tree: Tree,
    /// The first name of each inode that has several.
    seen: HashMap<u32, Vec<u8>>,
    directories: HashSet<u32>,
    numbers: HashMap<InodeIndex, u32>,
}

impl Reader<'_> {
    /// Puts one inode into the tree; a directory's entries come back.
    fn take(
        &mut self,
        name: &[u8],
        inode: &ext4::Inode,
    ) -> std::result::Result<Vec<ext4::DirEntry>, Failure<impl std::fmt::Display + use<>>> {
        let stat = &inode.stat;
        let enhanced = self.filesystem.enhance(inode).map_err(Failure::Image)?;
        let (kind, entries) = match enhanced {
            Enhanced::Directory(entries) => {
                // Without this a few directories that contain one another twice would be names without end.
                if !self.directories.insert(inode.number) {
                    return Err(Failure::TwoNames);
                }
                (Kind::Directory, entries)
            }
            Enhanced::RegularFile => {
                if let Some(first) = self.seen.get(&inode.number) {
                    self.tree.link(name, first)?;
                    return Ok(Vec::new());
                }
                if stat.link_count > 1 {
                    self.seen.insert(inode.number, name.to_vec());
                }
                let mut source = self.filesystem.open(inode).map_err(Failure::Image)?;
                let content = self.spool.take(&mut source, stat.size)?;
                (Kind::File(content.map_err(Failure::Content)?), Vec::new())
            }
            Enhanced::SymbolicLink(target) => (Kind::Symlink(target.into_bytes()), Vec::new()),
            Enhanced::CharacterDevice(major, minor) => {
                (Kind::CharacterDevice(u32::from(major), minor), Vec::new())
            }
            Enhanced::BlockDevice(major, minor) => {
                (Kind::BlockDevice(u32::from(major), minor), Vec::new())
            }
            Enhanced::Fifo => (Kind::Fifo, Vec::new()),
            Enhanced::Socket => (Kind::Socket, Vec::new()),
        };
        let mut taken = Inode::new(kind, stat.file_mode);
        taken.uid = stat.uid;
        taken.gid = stat.gid;
        taken.mtime = timestamp(stat.mtime.epoch_secs, stat.mtime.nanos.unwrap_or(0));
        for (name, value) in &stat.xattrs {
            let value = if name.starts_with("system.posix_acl_") {
                acl(value).ok_or(Failure::Acl)?
            } else {
                value.clone()
            };
            taken.xattrs.insert(name.clone().into_bytes(), value);
        }
        if name.is_empty() {
            if let Some(root) = self.tree.get_mut(b"") {
                *root = taken;
            }
        } else {
            let index = self.tree.insert(name, taken)?;
            self.numbers.insert(index, inode.number);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_and_acls_are_read_as_the_kernel_reads_them() {
        for (seconds, extra, expected) in [
            (0, 0, (0, 0)),
            (u32::MAX, 0, (-1, 0)),
            (0x8000_0000, 1, (0x8000_0000, 0)),
            (5, 123 << 2, (5, 123)),
        ] {
            let found = timestamp(seconds, extra);
            assert_eq!((found.seconds, found.nanoseconds), expected);
        }
        let stored = [
            &[1, 0, 0, 0][..],
            &[1, 0, 6, 0],
            &[2, 0, 4, 0, 232, 3, 0, 0],
        ]
        .concat();
        let shown = [
            &[2, 0, 0, 0][..],
            &[1, 0, 6, 0, 255, 255, 255, 255],
            &[2, 0, 4, 0, 232, 3, 0, 0],
        ]
        .concat();
        assert_eq!(acl(&stored), Some(shown));
        assert_eq!(acl(&stored[..stored.len() - 1]), None, "cut off");
        assert_eq!(acl(b""), None);
    }

    proptest! {
        #[test]
        fn hostile_acls_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = acl(&bytes);
            let _ = acl(&[&1_u32.to_le_bytes()[..], &bytes].concat());
        }
    }
}
