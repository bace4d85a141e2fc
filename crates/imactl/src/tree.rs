//! A file tree with everything an image keeps of it: owners, modes, times, extended attributes, devices, hard links.
//!
//! It comes from a directory, from a tar archive, or is put together in memory. Names are bytes.

mod archive;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ima::fault::{Code, Fault};

use crate::Result;
use crate::file::unreadable;
use crate::packed::Packing;

/// A time with nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// 0 to 999 999 999.
    pub nanoseconds: u32,
}

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
const PIECE: usize = 1 << 18;

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

    /// Reads a tar archive, plain or compressed with gzip, zstd or xz. Extended attributes are taken from PAX records
    /// `SCHILY.xattr.*`, as `tar --xattrs` writes them, and `LIBARCHIVE.xattr.*`. Whiteouts of an OCI image's layer are not files;
    /// [`overlay`](Self::overlay) applies them.
    ///
    /// # Errors
    ///
    /// [`Code::SourceMalformed`] for a malformed archive, [`Code::OutputUnwritable`] if there is no room for its content in
    /// the temporary directory.
    pub fn from_tar(archive: impl Read) -> Result<Self> {
        let unpacked = unpacked(archive)
            .map_err(|error| Fault::new(Code::SourceMalformed, error.to_string()))?;
        archive::read(archive::Stream(unpacked))
    }

    /// Reads a tar archive as [`from_tar`](Self::from_tar) does. The content of files stays in the archive if that is a regular
    /// file and not compressed.
    ///
    /// # Errors
    ///
    /// As [`from_tar`](Self::from_tar).
    pub fn from_tar_file(file: File) -> Result<Self> {
        let failed = |error: std::io::Error| Fault::new(Code::SourceMalformed, error.to_string());
        let meta = file.metadata().map_err(failed)?;
        let mut head = [0; 6];
        if meta.is_file()
            && file.read_exact_at(&mut head, 0).is_ok()
            && Packing::of(&head).is_none()
        {
            return archive::read(archive::InPlace::new(file, meta.len()));
        }
        Self::from_tar(std::io::BufReader::new(file))
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

/// Unpacks a stream by what its first bytes are.
fn unpacked<'a>(mut archive: impl Read + 'a) -> std::io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    archive.by_ref().take(6).read_to_end(&mut head)?;
    let whole = std::io::Cursor::new(head.clone()).chain(archive);
    Ok(match Packing::of(&head) {
        Some(Packing::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        Some(Packing::Zstd) => Box::new(zstd::Decoder::new(whole)?),
        Some(Packing::Xz) => {
            let mut plain = tempfile::tempfile()?;
            lzma_rs::xz_decompress(&mut std::io::BufReader::new(whole), &mut plain)
                .map_err(|error| std::io::Error::other(format!("malformed xz data ({error:?})")))?;
            plain.rewind()?;
            Box::new(plain)
        }
        Some(other) => {
            return Err(std::io::Error::other(format!(
                "it is compressed with {}, and archives are read plain or compressed with gzip, zstd or xz",
                other.name()
            )));
        }
        None => Box::new(whole),
    })
}
