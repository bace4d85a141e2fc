//! Reads an ext4 image back into a tree, extended attributes and all.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;

use ext4::{Checksums, Enhanced, Options, SuperBlock};
use ima::fault::{Code, Fault};

use crate::Result;
use crate::file::unreadable;
use crate::tree::{Content, Inode, Kind, Timestamp, Tree};

/// The deepest directory that is gone into: PATH_MAX has room for no more.
const MAX_DEPTH: usize = 2048;

/// Reads an image. The content of its files goes to a temporary file.
///
/// # Errors
///
/// `IMA-901` if it cannot be read, `IMA-918` if it is no ext4 file system, or damaged.
pub fn read_ext4(path: &Path) -> Result<Tree> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let bad = |error: &dyn std::fmt::Display| {
        Fault::new(Code::SourceMalformed, format!("{}: {error}", path.display()))
            .cause("it is no ext4 file system, or a damaged one")
            .remedy("check it with e2fsck -fn; give a directory or a tar archive for a root on another file system")
    };
    // Metadata is checked where it carries checksums; images made here do not.
    let options = Options {
        checksums: Checksums::Enabled,
    };
    let filesystem =
        SuperBlock::new_with_options(file, &options).map_err(|error| bad(&format!("{error:#}")))?;
    let spool = tempfile::tempfile()
        .map_err(|error| Fault::new(Code::OutputUnwritable, format!("temporary file: {error}")))?;
    let mut reader = Reader {
        filesystem: &filesystem,
        spool: Arc::new(spool),
        tree: Tree::new(),
        seen: HashMap::new(),
    };
    let root = filesystem
        .root()
        .map_err(|error| bad(&format!("{error:#}")))?;
    let mut todo = vec![(Vec::new(), root)];
    while let Some((name, inode)) = todo.pop() {
        if name.iter().filter(|byte| **byte == b'/').count() > MAX_DEPTH {
            return Err(bad(&"directories without end"));
        }
        let entries = reader.take(&name, &inode).map_err(|error| match error {
            Failure::Image(error) => bad(&format!("{error:#}")),
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
    Ok(reader.tree)
}

enum Failure<E> {
    Image(E),
    Fault(Fault),
}

impl<E> From<Fault> for Failure<E> {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

struct Reader<'a> {
    filesystem: &'a SuperBlock<File>,
    spool: Arc<File>,
    tree: Tree,
    /// The first name of each inode that has several.
    seen: HashMap<u32, Vec<u8>>,
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
            Enhanced::Directory(entries) => (Kind::Directory, entries),
            Enhanced::RegularFile => {
                if let Some(first) = self.seen.get(&inode.number) {
                    self.tree.link(name, first)?;
                    return Ok(Vec::new());
                }
                if stat.link_count > 1 {
                    self.seen.insert(inode.number, name.to_vec());
                }
                let mut source = self.filesystem.open(inode).map_err(Failure::Image)?;
                (Kind::File(self.spool(&mut source)?), Vec::new())
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
        taken.mtime = Timestamp {
            seconds: i64::from(stat.mtime.epoch_secs),
            nanoseconds: stat.mtime.nanos.unwrap_or(0),
        };
        taken.xattrs = stat
            .xattrs
            .iter()
            .map(|(name, value)| (name.clone().into_bytes(), value.clone()))
            .collect();
        if name.is_empty() {
            if let Some(root) = self.tree.get_mut(b"") {
                *root = taken;
            }
        } else {
            self.tree.insert(name, taken)?;
        }
        Ok(entries)
    }

    fn spool(&mut self, source: &mut impl std::io::Read) -> Result<Content> {
        let failed = |error: std::io::Error| {
            Fault::new(
                Code::InputUnreadable,
                format!("the image's content: {error}"),
            )
        };
        let mut spool = &*self.spool;
        let offset = spool.seek(SeekFrom::End(0)).map_err(failed)?;
        let len = std::io::copy(source, &mut spool).map_err(failed)?;
        spool.flush().map_err(failed)?;
        Ok(Content::Spooled {
            file: Arc::clone(&self.spool),
            offset,
            len,
        })
    }
}
