//! Writes erofs file systems, not compressed: the layout of `fs/erofs/erofs_fs.h` of the kernel.
//!
//! Block 0 has the superblock; the inodes follow it, each with its attributes and the end of its content behind it, and then
//! come the blocks of content. Inodes are of the extended form, with 32-bit owners and times of their own. Files with holes
//! are made of chunks (Linux 5.15), all others lie in one piece. Everything written follows from the input, so the same input
//! gives the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use ima::fault::{Cause, Code, Fault};
use ima::filesystem::crc32c;

use super::blocks::{BLOCK, DataRuns, ReadContent};
use crate::Result;
use crate::tree::{Inode, InodeIndex, Kind, Tree};

const SUPERBLOCK: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// The first inode's place, behind the superblock. A multiple of [`ALIGN`].
const FIRST: u64 = 1152;
/// Inodes are counted in slots of 32 bytes.
const SLOT: u64 = 32;
/// An inode of the extended form, and what inodes are aligned to, so that none lies in two blocks.
const ALIGN: u64 = 64;
/// The longest end of a file that is put behind its inode: it must not lie in two blocks.
const MAX_TAIL: u64 = BLOCK - ALIGN;
/// The most chunks that a file is made of; chunks grow with longer files.
const MAX_CHUNKS: u64 = 1 << 16;
/// The chunk of a hole.
const NULL_BLOCK: u32 = u32::MAX;

const COMPAT_CHECKSUM: u32 = 0x1;
const COMPAT_MTIME: u32 = 0x2;
const INCOMPAT_CHUNKED: u32 = 0x4;

/// What the file system is to be, apart from its content.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// UUID.
    pub uuid: [u8; 16],
    /// Volume label, at most 16 bytes.
    pub label: String,
    /// Time of making, seconds since 1970.
    pub time: i64,
}

/// Where the content of an inode lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// In blocks.
    Plain,
    /// Whole blocks, and so many bytes behind the inode.
    Inline(u64),
    /// In chunks of two to the power of this many blocks.
    Chunks(u32),
}

/// An inode and its place.
#[derive(Debug)]
struct Placed {
    index: InodeIndex,
    /// Bytes from the beginning of the image.
    position: u64,
    /// As on the disk.
    xattrs: Vec<u8>,
    size: u64,
    layout: Layout,
    /// The first block of content; nothing if there is none.
    start: Option<u32>,
    /// The block of each chunk.
    chunks: Vec<u32>,
}

impl Placed {
    fn number(&self) -> u64 {
        self.position / SLOT
    }

    /// Where what is behind inode and attributes begins: the end of the content, or the chunks.
    fn behind(&self) -> u64 {
        self.position + ALIGN + self.xattrs.len() as u64
    }

    /// Where a block of the file is to be written; nothing for a block of a hole.
    fn place_of(&self, block: u64) -> Option<u64> {
        let start = self.start.map(|start| u64::from(start) * BLOCK);
        match self.layout {
            Layout::Plain => Some(start? + block * BLOCK),
            Layout::Inline(_) if block == self.size / BLOCK => Some(self.behind()),
            Layout::Inline(_) => Some(start? + block * BLOCK),
            Layout::Chunks(bits) => {
                let chunk = self.chunks.get(usize::try_from(block >> bits).ok()?)?;
                let within = block & ((1 << bits) - 1);
                (*chunk != NULL_BLOCK).then(|| (u64::from(*chunk) + within) * BLOCK)
            }
        }
    }
}

/// A file system in the making.
#[derive(Debug)]
pub struct Writer<'a> {
    tree: &'a Tree,
    parameters: &'a Parameters,
    inodes: Vec<Placed>,
    /// Where each is in `inodes`.
    order: HashMap<InodeIndex, usize>,
    links: HashMap<InodeIndex, u32>,
    directories: HashMap<InodeIndex, Directory<'a>>,
    blocks: u32,
}

impl<'a> Writer<'a> {
    /// Plans a file system with the content of `tree`; `data` says for each regular file which of its blocks hold data.
    ///
    /// # Errors
    ///
    /// [`Code::ImageContent`] for what erofs cannot hold, [`Code::Usage`] for a label that is too long.
    pub fn plan(
        tree: &'a Tree,
        data: &HashMap<InodeIndex, DataRuns>,
        parameters: &'a Parameters,
    ) -> Result<Self> {
        if parameters.label.len() > 16 {
            return Err(
                Fault::new(Code::Usage, format!("label `{}`", parameters.label))
                    .because(Cause::LABEL_TOO_LONG.with(&["erofs"])),
            );
        }
        let mut writer = Self {
            tree,
            parameters,
            inodes: Vec::new(),
            order: HashMap::new(),
            links: HashMap::new(),
            directories: directories(tree),
            blocks: 0,
        };
        let mut at = FIRST;
        for (name, index) in tree.names() {
            *writer.links.entry(index).or_default() += 1;
            if matches!(tree.inode(index).kind, Kind::Directory) {
                // Its own entry `.`, and this one's `..` in its parent's.
                *writer.links.entry(index).or_default() += 1;
                if !name.is_empty() {
                    let parent = parent(tree, name);
                    *writer.links.entry(parent).or_default() += 1;
                }
            }
            if writer.order.contains_key(&index) {
                continue;
            }
            let runs = data.get(&index).map_or(&[][..], Vec::as_slice);
            let placed = writer.place(name, index, runs, at)?;
            at = match placed.layout {
                Layout::Inline(tail) => placed.behind() + tail,
                Layout::Plain => placed.behind(),
                Layout::Chunks(_) => placed.behind() + 4 * placed.chunks.len() as u64,
            }
            .next_multiple_of(ALIGN);
            writer.order.insert(index, writer.inodes.len());
            writer.inodes.push(placed);
        }
        writer.place_content(data, at.div_ceil(BLOCK))?;
        Ok(writer)
    }

    /// Chooses an inode's layout and its place, at `at` or soon after.
    fn place(
        &self,
        name: &[u8],
        index: InodeIndex,
        runs: &[(u64, u64)],
        at: u64,
    ) -> Result<Placed> {
        let inode = self.tree.inode(index);
        let refused = |why: &str| {
            let name = String::from_utf8_lossy(name);
            Fault::new(Code::ImageContent, format!("/{name}: {why}"))
        };
        let size = match &inode.kind {
            Kind::Directory => self
                .directories
                .get(&index)
                .map_or(0, |directory| directory.size),
            Kind::File(content) => content.len(),
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        if matches!(inode.kind, Kind::Symlink(_)) && !(1..BLOCK).contains(&size) {
            return Err(refused("a symbolic link's target has 1 to 4095 bytes"));
        }
        let stored: u64 = runs.iter().map(|run| run.1).sum();
        let holes = matches!(inode.kind, Kind::File(_)) && stored < size.div_ceil(BLOCK);
        let tail = size % BLOCK;
        let layout = if holes {
            let mut bits = 0;
            while size.div_ceil(BLOCK << bits) > MAX_CHUNKS {
                bits += 1;
            }
            if bits > 19 {
                // Chunks have at most 2^31 bytes.
                return Err(refused("a file with holes of more than 128 TiB"));
            }
            Layout::Chunks(bits)
        } else if (1..=MAX_TAIL).contains(&tail) {
            Layout::Inline(tail)
        } else {
            Layout::Plain
        };
        let mut placed = Placed {
            index,
            position: at,
            xattrs: xattrs(inode).map_err(refused)?,
            size,
            layout,
            start: None,
            chunks: Vec::new(),
        };
        match layout {
            Layout::Inline(tail) if placed.behind() % BLOCK + tail > BLOCK => {
                let next = placed.behind().next_multiple_of(BLOCK);
                let before = placed.behind() - placed.position;
                placed.position = (next - before).next_multiple_of(ALIGN);
            }
            Layout::Chunks(bits) => {
                let count = size.div_ceil(BLOCK << bits);
                placed.chunks = vec![NULL_BLOCK; usize::try_from(count).unwrap_or(usize::MAX)];
            }
            _ => {}
        }
        Ok(placed)
    }

    /// Gives each inode its blocks, from `next` on.
    fn place_content(&mut self, data: &HashMap<InodeIndex, DataRuns>, next: u64) -> Result<()> {
        let mut next = next;
        let too_large = |_| Fault::new(Code::ImageContent, "more than 16 TiB");
        for placed in &mut self.inodes {
            let blocks = match placed.layout {
                Layout::Plain => placed.size.div_ceil(BLOCK),
                Layout::Inline(_) => placed.size / BLOCK,
                Layout::Chunks(bits) => {
                    let all = placed.size.div_ceil(BLOCK);
                    for &(first, len) in data.get(&placed.index).map_or(&[][..], Vec::as_slice) {
                        for chunk in first >> bits..=(first + len - 1) >> bits {
                            let index = usize::try_from(chunk).unwrap_or(usize::MAX);
                            if let Some(place) = placed.chunks.get_mut(index)
                                && *place == NULL_BLOCK
                            {
                                *place = u32::try_from(next).map_err(too_large)?;
                                next += (all - (chunk << bits)).min(1 << bits);
                            }
                        }
                    }
                    0
                }
            };
            if blocks > 0 {
                placed.start = Some(u32::try_from(next).map_err(too_large)?);
                next += blocks;
            }
        }
        self.blocks = u32::try_from(next).map_err(too_large)?;
        Ok(())
    }

    /// Writes the file system into `image`, an empty file. `content` is called once for each regular file that has data, with
    /// a function that takes the file's blocks by their number in the file.
    ///
    /// # Errors
    ///
    /// [`Code::OutputUnwritable`] if the image cannot be written, and what `content` answers.
    pub fn write(&self, image: &File, content: &mut ReadContent<'_>) -> Result<()> {
        let put = |at: u64, bytes: &[u8]| {
            image
                .write_all_at(bytes, at)
                .map_err(|error| Fault::new(Code::OutputUnwritable, format!("the image: {error}")))
        };
        image
            .set_len(u64::from(self.blocks) * BLOCK)
            .map_err(|error| Fault::new(Code::OutputUnwritable, format!("the image: {error}")))?;
        for (count, placed) in self.inodes.iter().enumerate() {
            let mut bytes = self.inode(placed, count as u32 + 1);
            bytes.extend_from_slice(&placed.xattrs);
            for chunk in &placed.chunks {
                bytes.extend_from_slice(&chunk.to_le_bytes());
            }
            put(placed.position, &bytes)?;
            let mut block = |number: u64, bytes: &[u8]| match placed.place_of(number) {
                Some(at) => put(at, bytes),
                None => Ok(()),
            };
            match &self.tree.inode(placed.index).kind {
                Kind::File(file) if !file.is_empty() => content(placed.index, &mut block)?,
                Kind::Symlink(target) => block(0, target)?,
                Kind::Directory => {
                    let bytes = self.directory(placed.index);
                    for (number, bytes) in (0..).zip(bytes.chunks(BLOCK as usize)) {
                        block(number, bytes)?;
                    }
                }
                _ => {}
            }
        }
        put(SUPERBLOCK, &self.superblock())?;
        // It covers the first inodes too.
        let mut covered = vec![0; (BLOCK - SUPERBLOCK) as usize];
        image
            .read_exact_at(&mut covered, SUPERBLOCK)
            .map_err(|error| Fault::new(Code::OutputUnwritable, format!("the image: {error}")))?;
        // fs/erofs/super.c, `erofs_superblock_csum_verify`
        put(SUPERBLOCK + 4, &crc32c(&covered).to_le_bytes())
    }

    /// `struct erofs_inode_extended`.
    fn inode(&self, placed: &Placed, number: u32) -> Vec<u8> {
        let inode = self.tree.inode(placed.index);
        let (kind, device) = match inode.kind {
            Kind::Fifo => (0o010_000, None),
            Kind::CharacterDevice(major, minor) => (0o020_000, Some((major, minor))),
            Kind::Directory => (0o040_000, None),
            Kind::BlockDevice(major, minor) => (0o060_000, Some((major, minor))),
            Kind::File(_) => (0o100_000, None),
            Kind::Symlink(_) => (0o120_000, None),
            Kind::Socket => (0o140_000, None),
        };
        let (layout, union): (u16, u32) = match (placed.layout, device) {
            // new_encode_dev of include/linux/kdev_t.h
            (_, Some((major, minor))) => (0, minor & 0xff | major << 8 | (minor & !0xff) << 12),
            (Layout::Plain, _) => (0, placed.start.unwrap_or(0)),
            (Layout::Inline(_), _) => (2, placed.start.unwrap_or(0)),
            (Layout::Chunks(bits), _) => (4, bits),
        };
        let xattr_count = match placed.xattrs.len() {
            0 => 0,
            len => (len - XATTR_HEADER) / 4 + 1,
        };
        let mut bytes = Vec::with_capacity(ALIGN as usize);
        bytes.extend_from_slice(&(layout << 1 | 1).to_le_bytes());
        bytes.extend_from_slice(&(xattr_count as u16).to_le_bytes());
        bytes.extend_from_slice(&(kind | inode.mode).to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&placed.size.to_le_bytes());
        bytes.extend_from_slice(&union.to_le_bytes());
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&inode.uid.to_le_bytes());
        bytes.extend_from_slice(&inode.gid.to_le_bytes());
        bytes.extend_from_slice(&inode.mtime.seconds.to_le_bytes());
        bytes.extend_from_slice(&inode.mtime.nanoseconds.to_le_bytes());
        let links = self.links.get(&placed.index).copied().unwrap_or(1);
        bytes.extend_from_slice(&links.to_le_bytes());
        bytes.resize(ALIGN as usize, 0);
        bytes
    }

    /// The content of a directory: in each block its entries and then their names.
    fn directory(&self, index: InodeIndex) -> Vec<u8> {
        let mut bytes = Vec::new();
        let blocks = self
            .directories
            .get(&index)
            .map_or(&[][..], |directory| &directory.blocks);
        for entries in blocks {
            bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
            let mut offset = entries.len() * ENTRY;
            for (name, child) in entries {
                let child = self.order.get(child).and_then(|at| self.inodes.get(*at));
                let number = child.map_or(0, Placed::number);
                let kind = match child.map(|child| &self.tree.inode(child.index).kind) {
                    Some(Kind::File(_)) => 1,
                    Some(Kind::Directory) | None => 2,
                    Some(Kind::CharacterDevice(..)) => 3,
                    Some(Kind::BlockDevice(..)) => 4,
                    Some(Kind::Fifo) => 5,
                    Some(Kind::Socket) => 6,
                    Some(Kind::Symlink(_)) => 7,
                };
                bytes.extend_from_slice(&number.to_le_bytes());
                bytes.extend_from_slice(&(offset as u16).to_le_bytes());
                bytes.extend_from_slice(&[kind, 0]);
                offset += name.len();
            }
            for (name, _) in entries {
                bytes.extend_from_slice(name);
            }
        }
        bytes
    }

    /// `struct erofs_super_block`, its checksum left out.
    fn superblock(&self) -> Vec<u8> {
        let chunked = self
            .inodes
            .iter()
            .any(|placed| matches!(placed.layout, Layout::Chunks(_)));
        let root = self.inodes.first().map_or(0, Placed::number);
        let mut bytes = vec![0; 128];
        let mut put = |at: usize, value: &[u8]| {
            bytes
                .iter_mut()
                .skip(at)
                .zip(value)
                .for_each(|(place, byte)| *place = *byte);
        };
        put(0, &MAGIC.to_le_bytes());
        put(8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        put(12, &[BLOCK.trailing_zeros() as u8]);
        put(14, &(root as u16).to_le_bytes());
        put(16, &(self.inodes.len() as u64).to_le_bytes());
        put(24, &self.parameters.time.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(48, &self.parameters.uuid);
        put(64, self.parameters.label.as_bytes());
        put(
            80,
            &(if chunked { INCOMPAT_CHUNKED } else { 0 }).to_le_bytes(),
        );
        bytes
    }
}

/// Bytes of a directory's entry without its name (`struct erofs_dirent`).
const ENTRY: usize = 12;

/// A directory's entries, sorted by name as the kernel searches them, block by block.
#[derive(Debug, Default)]
struct Directory<'a> {
    blocks: Vec<Vec<(&'a [u8], InodeIndex)>>,
    size: u64,
}

/// The directory that a name is in.
fn parent(tree: &Tree, name: &[u8]) -> InodeIndex {
    let above = match name.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => name.get(..slash).unwrap_or_default(),
        None => &[],
    };
    tree.index(above).unwrap_or_default()
}

fn directories(tree: &Tree) -> HashMap<InodeIndex, Directory<'_>> {
    let mut entries: HashMap<InodeIndex, BTreeMap<&[u8], InodeIndex>> = HashMap::new();
    for (name, index) in tree.names() {
        let above = parent(tree, name);
        if matches!(tree.inode(index).kind, Kind::Directory) {
            let own = entries.entry(index).or_default();
            own.insert(b".", index);
            own.insert(b"..", above);
        }
        if !name.is_empty() {
            let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
            entries.entry(above).or_default().insert(last, index);
        }
    }
    entries
        .into_iter()
        .map(|(index, entries)| {
            let mut directory = Directory::default();
            let mut used = 0;
            for (name, child) in entries {
                let needed = ENTRY + name.len();
                match directory.blocks.last_mut() {
                    Some(block) if used + needed <= BLOCK as usize => {
                        block.push((name, child));
                        used += needed;
                    }
                    _ => {
                        directory.blocks.push(vec![(name, child)]);
                        used = needed;
                    }
                }
            }
            let whole = directory.blocks.len().saturating_sub(1) as u64;
            directory.size = whole * BLOCK + used as u64;
            (index, directory)
        })
        .collect()
}

/// Bytes of `struct erofs_xattr_ibody_header`.
const XATTR_HEADER: usize = 12;

/// The attributes of an inode as they lie behind it; nothing if there are none.
fn xattrs(inode: &Inode) -> std::result::Result<Vec<u8>, &'static str> {
    /// The prefixes that have a number, with the number (fs/erofs/erofs_fs.h, `EROFS_XATTR_INDEX_*`). The ACLs' are whole
    /// names.
    const PREFIXES: [(&[u8], u8); 5] = [
        (b"user.", 1),
        (b"system.posix_acl_access", 2),
        (b"system.posix_acl_default", 3),
        (b"trusted.", 4),
        (b"security.", 6),
    ];
    if inode.xattrs.is_empty() {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; XATTR_HEADER];
    for (name, value) in &inode.xattrs {
        let (rest, prefix) = PREFIXES
            .iter()
            .find_map(|(prefix, number)| {
                let rest = name.strip_prefix(*prefix)?;
                (rest.is_empty() != prefix.ends_with(b".")).then_some((rest, *number))
            })
            .ok_or("an extended attribute of a class that erofs does not keep")?;
        let length =
            u8::try_from(rest.len()).map_err(|_| "an extended attribute with too long a name")?;
        let size = u16::try_from(value.len())
            .map_err(|_| "an extended attribute of more than 65535 bytes")?;
        bytes.push(length);
        bytes.push(prefix);
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(rest);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    if bytes.len() > 4 * usize::from(u16::MAX) {
        return Err("extended attributes of more than 256 KiB together");
    }
    Ok(bytes)
}
