//! A file tree with everything an image keeps of it: owners, modes, times, extended attributes, devices, hard links.
//!
//! It comes from a directory, from a tar archive, or is put together in memory. Names are bytes.

mod archive;
mod content;

use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use ima::fault::{Code, Fault};

use crate::Result;
use crate::file::unreadable;

pub use content::{Content, OpenFile, Piece, Run, Stored, StoredReader};

/// A time with nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// 0 to 999 999 999.
    pub nanoseconds: u32,
}

/// What an inode is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device: major, minor.
    CharacterDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// An inode: a file under one or more names.
#[derive(Debug, Clone)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky: the low twelve bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes by full name, such as `security.ima`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Inode {
    /// An inode of root's without extended attributes, dated 1970.
    #[must_use]
    pub fn new(kind: Kind, mode: u16) -> Self {
        Self {
            kind,
            mode: mode & 0o7777,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: BTreeMap::new(),
        }
    }
}

/// Where an inode stands in a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct InodeIndex(usize);

impl InodeIndex {
    /// Counted from 0, without gaps.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0
    }
}

/// A file tree. The root directory is always there, under the empty name; names are relative to it.
#[derive(Debug, Clone)]
pub struct Tree {
    names: BTreeMap<Vec<u8>, InodeIndex>,
    inodes: Vec<Inode>,
    whiteouts: Vec<Whiteout>,
}

/// What a layer takes away from those below it (OCI image specification, "Whiteouts").
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whiteout {
    /// What is under this name, with all that is in it.
    Name(Vec<u8>),
    /// All that is in this directory.
    Content(Vec<u8>),
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// A tree with an empty root directory.
    #[must_use]
    pub fn new() -> Self {
        let root = Inode::new(Kind::Directory, 0o755);
        Self {
            names: BTreeMap::from([(Vec::new(), InodeIndex(0))]),
            inodes: vec![root],
            whiteouts: Vec::new(),
        }
    }

    /// Adds an inode under a name, replacing what was there. Directories above it are made as needed; a leading slash does
    /// not matter.
    ///
    /// # Errors
    ///
    /// [`Code::ImageContent`] for a name with `..`, or below something that is not a directory.
    pub fn insert(&mut self, name: &[u8], inode: Inode) -> Result<InodeIndex> {
        let name = clean(name)?;
        self.make_parents(&name)?;
        if let Some(&index) = self.names.get(&name) {
            // A directory that was made on the way gets its properties now; one with content cannot become a file.
            if self.has_children(&name) && !matches!(inode.kind, Kind::Directory) {
                return Err(content(
                    &name,
                    "a directory with content cannot become something else",
                ));
            }
            let hard_linked = self.names.values().filter(|&&other| other == index).count() > 1;
            if !hard_linked {
                if let Some(place) = self.inodes.get_mut(index.0) {
                    *place = inode;
                }
                return Ok(index);
            }
        }
        let index = InodeIndex(self.inodes.len());
        self.inodes.push(inode);
        self.names.insert(name, index);
        Ok(index)
    }

    /// All inodes.
    pub fn inodes_mut(&mut self) -> impl Iterator<Item = &mut Inode> {
        self.inodes.iter_mut()
    }

    /// Gives an inode another name: a hard link.
    ///
    /// # Errors
    ///
    /// [`Code::ImageContent`] if there is nothing under `target`, or it is a directory.
    pub fn link(&mut self, name: &[u8], target: &[u8]) -> Result<()> {
        let (name, target) = (clean(name)?, clean(target)?);
        let index = *self
            .names
            .get(&target)
            .ok_or_else(|| content(&name, "a hard link to nothing"))?;
        if matches!(self.inode(index).kind, Kind::Directory) {
            return Err(content(&name, "a hard link to a directory"));
        }
        self.make_parents(&name)?;
        self.names.insert(name, index);
        Ok(())
    }

    /// Takes a directory out, if there is one of that name and nothing is in it.
    pub(crate) fn remove_empty_directory(&mut self, name: &[u8]) {
        let directory = self
            .get(name)
            .is_some_and(|inode| matches!(inode.kind, Kind::Directory));
        if directory && !self.has_children(name) {
            // The inode stays, without a name: indices are places.
            self.names.remove(name);
        }
    }

    fn has_children(&self, name: &[u8]) -> bool {
        self.names
            .range([name, b"/"].concat()..[name, b"0"].concat())
            .next()
            .is_some()
    }

    /// Takes out what a layer that comes over this tree takes away. Inodes stay, without a name: indices are places.
    fn white_out(&mut self, whiteout: &Whiteout) {
        let (name, itself) = match whiteout {
            Whiteout::Name(name) => (name, true),
            Whiteout::Content(directory) => (directory, false),
        };
        self.names
            .retain(|other, _| match other.strip_prefix(name.as_slice()) {
                Some(b"") => !itself,
                Some(rest) => !name.is_empty() && !rest.starts_with(b"/"),
                None => true,
            });
    }

    /// The inode at `index`.
    #[must_use]
    pub fn inode(&self, index: InodeIndex) -> &Inode {
        // An index is only ever handed out by this tree, which never shrinks.
        &self.inodes[index.0]
    }

    /// The inode at `index`, to be changed.
    pub fn inode_mut(&mut self, index: InodeIndex) -> &mut Inode {
        &mut self.inodes[index.0]
    }

    /// Where the inode under a name stands; the name as [`names`](Self::names) gives it.
    #[must_use]
    pub fn index(&self, name: &[u8]) -> Option<InodeIndex> {
        self.names.get(name).copied()
    }

    /// The inode under a name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&Inode> {
        self.names
            .get(&clean(name).ok()?)
            .map(|&index| self.inode(index))
    }

    /// The inode under a name, to be changed.
    pub fn get_mut(&mut self, name: &[u8]) -> Option<&mut Inode> {
        let index = *self.names.get(&clean(name).ok()?)?;
        self.inodes.get_mut(index.0)
    }

    /// Follows a path as the kernel will once this tree is the root: links are followed, never out of it, and `..` stops
    /// at it. Gives the name without links; nothing if the path leads nowhere or through more than 40 links (fs/namei.c,
    /// MAXSYMLINKS).
    #[must_use]
    pub fn resolve(&self, path: &[u8]) -> Option<(Vec<u8>, &Inode)> {
        const MAX_LINKS: usize = 40;
        let parts = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|byte| *byte == b'/')
                .filter(|part| !part.is_empty() && *part != b".")
                .map(<[u8]>::to_vec)
                .rev()
                .collect()
        };
        let mut todo = parts(path);
        let mut place: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == b".." {
                place.pop();
                continue;
            }
            place.push(part);
            let inode = self.get(&place.join(&b'/'))?;
            match &inode.kind {
                Kind::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    place.pop();
                    if target.starts_with(b"/") {
                        place.clear();
                    }
                    todo.extend(parts(target));
                }
                Kind::Directory => {}
                // Something behind what is not a directory.
                _ if !todo.is_empty() => return None,
                _ => {}
            }
        }
        let name = place.join(&b'/');
        let inode = self.get(&name)?;
        Some((name, inode))
    }

    /// Every name and its inode, sorted by name: a directory comes before what is in it.
    pub fn names(&self) -> impl Iterator<Item = (&[u8], InodeIndex)> {
        self.names
            .iter()
            .map(|(name, &index)| (name.as_slice(), index))
    }

    /// Every inode that has a name, and its names, sorted.
    #[must_use]
    pub fn names_by_inode(&self) -> BTreeMap<InodeIndex, Vec<&[u8]>> {
        let mut names: BTreeMap<InodeIndex, Vec<&[u8]>> = BTreeMap::new();
        for (name, index) in self.names() {
            names.entry(index).or_default().push(name);
        }
        names
    }

    /// What is directly in a directory: last components and inodes, sorted. The name as [`names`](Self::names) gives it.
    pub fn children<'a>(
        &'a self,
        directory: &[u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a Inode)> + 'a {
        let prefix = if directory.is_empty() {
            Vec::new()
        } else {
            [directory, b"/"].concat()
        };
        let start = prefix.len();
        self.names
            .range(prefix.clone()..)
            .take_while(move |(name, _)| name.starts_with(&prefix))
            .filter_map(move |(name, &index)| {
                let last = name.get(start..).filter(|last| !last.is_empty())?;
                (!last.contains(&b'/')).then(|| (last, self.inode(index)))
            })
    }

    /// Number of names, the root among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is nothing but the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.len() == 1
    }

    /// Lays another tree over this one: what it has replaces what is here under the same name. Directories are
    /// merged and keep the owner and mode they have here. If the other one is a layer of an OCI image, its whiteouts take away
    /// what is here, and nothing of its own.
    ///
    /// # Errors
    ///
    /// [`Code::ImageContent`] where a directory with content would be replaced by something else.
    pub fn overlay(&mut self, other: Tree) -> Result<()> {
        for whiteout in &other.whiteouts {
            self.white_out(whiteout);
        }
        let mut first_names: HashMap<InodeIndex, Vec<u8>> = HashMap::new();
        for (name, &index) in &other.names {
            match first_names.get(&index) {
                Some(first) => self.link(name, first)?,
                None => {
                    let inode = other.inode(index);
                    let merged = matches!(inode.kind, Kind::Directory)
                        && self
                            .get(name)
                            .is_some_and(|here| matches!(here.kind, Kind::Directory));
                    if !merged {
                        self.insert(name, inode.clone())?;
                    }
                    first_names.insert(index, name.clone());
                }
            }
        }
        Ok(())
    }

    /// Makes root the owner of everything.
    pub fn all_root(&mut self) {
        for inode in &mut self.inodes {
            (inode.uid, inode.gid) = (0, 0);
        }
    }

    /// Limits every time to `latest`, as reproducible builds do with `SOURCE_DATE_EPOCH`.
    pub fn clamp_times(&mut self, latest: i64) {
        let latest = Timestamp {
            seconds: latest,
            nanoseconds: 0,
        };
        for inode in &mut self.inodes {
            inode.mtime = inode.mtime.min(latest);
        }
    }

    /// Reads a directory of the host, as far as its file system goes. Owners, modes, times and extended attributes are what they
    /// are there; attributes this user may not read are not seen.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`].
    pub fn from_directory(directory: &Path) -> Result<Self> {
        let mut tree = Self::new();
        let mut links: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
        for entry in walkdir::WalkDir::new(directory)
            .sort_by_file_name()
            .same_file_system(true)
            .follow_root_links(true)
        {
            let entry =
                entry.map_err(|error| Fault::new(Code::InputUnreadable, error.to_string()))?;
            let path = entry.path();
            let name = path
                .strip_prefix(directory)
                .unwrap_or(path)
                .as_os_str()
                .as_bytes();
            let meta = if entry.depth() == 0 {
                std::fs::metadata(path)
            } else {
                std::fs::symlink_metadata(path)
            }
            .map_err(|error| unreadable(path, &error))?;
            if !meta.is_dir() && meta.nlink() > 1 {
                if let Some(first) = links.get(&(meta.dev(), meta.ino())) {
                    tree.link(name, &first.clone())?;
                    continue;
                }
                links.insert((meta.dev(), meta.ino()), name.to_vec());
            }
            let kind = meta.file_type();
            let device = || {
                (
                    rustix::fs::major(meta.rdev()),
                    rustix::fs::minor(meta.rdev()),
                )
            };
            let kind = if kind.is_dir() {
                Kind::Directory
            } else if kind.is_file() {
                Kind::File(Content::Host {
                    path: path.to_owned(),
                    len: meta.len(),
                })
            } else if kind.is_symlink() {
                let target = std::fs::read_link(path).map_err(|error| unreadable(path, &error))?;
                Kind::Symlink(target.into_os_string().into_vec())
            } else if kind.is_char_device() {
                let (major, minor) = device();
                Kind::CharacterDevice(major, minor)
            } else if kind.is_block_device() {
                let (major, minor) = device();
                Kind::BlockDevice(major, minor)
            } else if kind.is_fifo() {
                Kind::Fifo
            } else {
                Kind::Socket
            };
            let inode = Inode {
                kind,
                mode: (meta.mode() & 0o7777) as u16,
                uid: meta.uid(),
                gid: meta.gid(),
                mtime: Timestamp {
                    seconds: meta.mtime(),
                    nanoseconds: u32::try_from(meta.mtime_nsec()).unwrap_or(0),
                },
                xattrs: crate::xattr::read_all(path)?,
            };
            tree.insert(name, inode)?;
        }
        Ok(tree)
    }

    fn make_parents(&mut self, name: &[u8]) -> Result<()> {
        for (at, _) in name.iter().enumerate().filter(|&(_, &byte)| byte == b'/') {
            let parent = name.get(..at).unwrap_or_default();
            match self.names.get(parent) {
                Some(&index) if !matches!(self.inode(index).kind, Kind::Directory) => {
                    return Err(content(name, "what it is in is not a directory"));
                }
                Some(_) => {}
                None => {
                    let index = InodeIndex(self.inodes.len());
                    self.inodes.push(Inode::new(Kind::Directory, 0o755));
                    self.names.insert(parent.to_vec(), index);
                }
            }
        }
        Ok(())
    }
}

fn content(name: &[u8], why: &str) -> Fault {
    let name = String::from_utf8_lossy(name);
    Fault::new(Code::ImageContent, format!("/{name}: {why}"))
}

/// A name without empty components and without `.`.
fn clean(name: &[u8]) -> Result<Vec<u8>> {
    let mut clean = Vec::with_capacity(name.len());
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(content(name, "a name with `..` would leave the tree")),
            _ if component.len() > 255 => {
                return Err(content(name, "a component longer than 255 bytes"));
            }
            _ if component.contains(&0) => return Err(content(name, "a NUL byte in a name")),
            _ => {}
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(component);
    }
    Ok(clean)
}
