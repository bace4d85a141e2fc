//! Writes ext4 file systems: the layout of `Documentation/filesystems/ext4/` of the kernel, in its plain form.
//!
//! 4 KiB blocks, 32-bit block numbers, extents, one block group after the other with its own bitmaps and inode table,
//! attributes inside the inode as far as they fit. No checksums, no hashed directories: what a writable mount adds to is
//! hashed by the kernel from then on. Everything written follows from the input, so the same input gives the same bytes.
//!
//! Content is written as it is read; blocks of zeros are left out of files and of the image, so both are sparse.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use ima::fault::{Cause, Code, Fault};

use super::format::{
    EXTENT_MAGIC, EXTENTS_FLAG, MAX_EXTENT, ROOT, XATTR_MAGIC, XATTR_PREFIXES, acl_to_disk, is_acl,
};
use crate::Result;
use crate::image::blocks::{BLOCK, DataRuns, ReadContent};
use crate::tree::{Inode, InodeIndex, Kind, Timestamp, Tree};

const BLOCK_SIZE: usize = 4096;
const BLOCKS_PER_GROUP: u64 = 32_768;
const DESCRIPTOR_LEN: u64 = 32;
const JOURNAL: u32 = 8;
const FIRST: u32 = 11;
const LOST_AND_FOUND_BLOCKS: u64 = 4;
/// Extents in a block of the extent tree.
const EXTENTS_PER_BLOCK: usize = 340;
/// Extents in the inode itself.
const EXTENTS_PER_INODE: usize = 4;
const EXTRA_ISIZE: u16 = 32;

const COMPAT_HAS_JOURNAL: u32 = 0x4;
const COMPAT_EXT_ATTR: u32 = 0x8;
const COMPAT_DIR_INDEX: u32 = 0x20;
const INCOMPAT_FILETYPE: u32 = 0x2;
const INCOMPAT_EXTENTS: u32 = 0x40;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_LARGE_FILE: u32 = 0x2;
const RO_COMPAT_DIR_NLINK: u32 = 0x20;
const RO_COMPAT_EXTRA_ISIZE: u32 = 0x40;

/// What the file system is to be, apart from its content.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// Size in bytes; `None` for what the content needs and a tenth more.
    pub size: Option<u64>,
    /// UUID.
    pub uuid: [u8; 16],
    /// Seed of the hashes of directories that the kernel will index.
    pub hash_seed: [u8; 16],
    /// Volume label, at most 16 bytes.
    pub label: String,
    /// Time of making, seconds since 1970.
    pub time: i64,
    /// Whether to make a journal.
    pub journal: bool,
    /// Inodes to have, at least; more if the content needs more.
    pub inodes: Option<u32>,
}

/// A piece of a file on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    logical: u64,
    physical: u64,
    len: u64,
}

/// A number of bytes that is not known to be too much for a file system of this kind.
fn too_small(needed: u64, size: u64) -> Fault {
    Fault::new(
        Code::ImageTooSmall,
        format!("{size} bytes, about {needed} needed"),
    )
}

/// Where everything goes.
#[derive(Debug)]
struct Geometry {
    blocks: u64,
    groups: u64,
    descriptor_blocks: u64,
    inodes_per_group: u64,
    inode_size: u64,
}

impl Geometry {
    fn new(blocks: u64, inodes: u64, inode_size: u64) -> Self {
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let per_block = BLOCK / inode_size;
        // Whole blocks of inode table, and whole bytes of bitmap.
        let inodes_per_group = inodes
            .div_ceil(groups)
            .next_multiple_of(per_block.max(8))
            .clamp(per_block.max(8), 32_768);
        Self {
            blocks,
            groups,
            descriptor_blocks: (groups * DESCRIPTOR_LEN).div_ceil(BLOCK),
            inodes_per_group,
            inode_size,
        }
    }

    fn has_superblock(group: u64) -> bool {
        let power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        group <= 1 || power_of(3) || power_of(5) || power_of(7)
    }

    fn group_start(&self, group: u64) -> u64 {
        group * BLOCKS_PER_GROUP
    }

    fn group_blocks(&self, group: u64) -> u64 {
        (self.blocks - self.group_start(group)).min(BLOCKS_PER_GROUP)
    }

    fn block_bitmap(&self, group: u64) -> u64 {
        self.group_start(group)
            + if Self::has_superblock(group) {
                1 + self.descriptor_blocks
            } else {
                0
            }
    }

    fn inode_bitmap(&self, group: u64) -> u64 {
        self.block_bitmap(group) + 1
    }

    fn inode_table(&self, group: u64) -> u64 {
        self.block_bitmap(group) + 2
    }

    fn inode_table_blocks(&self) -> u64 {
        self.inodes_per_group * self.inode_size / BLOCK
    }

    fn data_start(&self, group: u64) -> u64 {
        self.inode_table(group) + self.inode_table_blocks()
    }

    /// Blocks left for content.
    fn capacity(&self) -> u64 {
        (0..self.groups)
            .map(|group| {
                (self.group_start(group) + self.group_blocks(group))
                    .saturating_sub(self.data_start(group))
            })
            .sum()
    }

    /// Whether the last group has room for its own tables.
    fn last_group_fits(&self) -> bool {
        let last = self.groups - 1;
        self.data_start(last) + 8 <= self.group_start(last) + self.group_blocks(last)
    }
}

/// A file system in the making.
#[derive(Debug)]
pub struct Writer<'a> {
    tree: &'a Tree,
    parameters: &'a Parameters,
    data: &'a HashMap<InodeIndex, DataRuns>,
    geometry: Geometry,
    /// Inode numbers.
    numbers: HashMap<InodeIndex, u32>,
    links: HashMap<InodeIndex, u64>,
    directories: HashMap<InodeIndex, Vec<u8>>,
    lost_and_found: bool,
    journal_blocks: u64,
}

impl<'a> Writer<'a> {
    /// Plans a file system with the content of `tree`; `data` says for each regular file which of its blocks hold data.
    ///
    /// # Errors
    ///
    /// [`Code::ImageTooSmall`] if the size given is too small, [`Code::ImageContent`] for what ext4 cannot hold.
    pub fn plan(
        tree: &'a Tree,
        data: &'a HashMap<InodeIndex, DataRuns>,
        parameters: &'a Parameters,
    ) -> Result<Self> {
        if parameters.label.len() > 16 {
            return Err(
                Fault::new(Code::Usage, format!("label `{}`", parameters.label))
                    .because(Cause::LABEL_TOO_LONG.with(&["ext4"])),
            );
        }
        let lost_and_found = tree.get(b"lost+found").is_none();
        let mut numbers = HashMap::new();
        let mut links: HashMap<InodeIndex, u64> = HashMap::new();
        let mut next = FIRST + u32::from(lost_and_found);
        for (name, index) in tree.names() {
            let number = if name.is_empty() { ROOT } else { next };
            if let std::collections::hash_map::Entry::Vacant(entry) = numbers.entry(index) {
                entry.insert(number);
                if number != ROOT {
                    next = next
                        .checked_add(1)
                        .ok_or_else(|| Fault::new(Code::ImageContent, "more than 2^32 files"))?;
                }
            }
            *links.entry(index).or_default() += 1;
        }
        let inodes_used = u64::from(next) - 1;
        let inode_size = inode_size(tree, &numbers);
        let mut writer = Self {
            tree,
            parameters,
            data,
            geometry: Geometry::new(1, 1, inode_size),
            numbers,
            links,
            directories: HashMap::new(),
            lost_and_found,
            journal_blocks: 0,
        };
        writer.directories = writer.directory_blocks()?;
        let content = writer.content_blocks()?;
        writer.geometry = writer.fit(content, inodes_used, inode_size)?;
        Ok(writer)
    }

    /// Size of the image in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.geometry.blocks * BLOCK
    }

    fn fit(&mut self, content: u64, inodes_used: u64, inode_size: u64) -> Result<Geometry> {
        let inodes_wanted = self
            .parameters
            .inodes
            .map_or(inodes_used + inodes_used / 10 + 16, u64::from)
            .max(inodes_used);
        if let Some(size) = self.parameters.size {
            let mut blocks = size / BLOCK;
            self.journal_blocks = journal_blocks(blocks, self.parameters.journal);
            let needed = content + self.journal_blocks;
            loop {
                if blocks < 64 || blocks > u64::from(u32::MAX) {
                    return Err(too_small((needed + 64) * BLOCK, size));
                }
                // An inode for each 16 KiB, as mke2fs gives, if that leaves room; a given number is kept to.
                let generous = if self.parameters.inodes.is_some() {
                    0
                } else {
                    blocks / 4
                };
                let roomy = Geometry::new(blocks, inodes_wanted.max(generous), inode_size);
                let geometry = if roomy.capacity() >= needed {
                    roomy
                } else {
                    Geometry::new(blocks, inodes_wanted, inode_size)
                };
                if !geometry.last_group_fits() && geometry.groups > 1 {
                    // A tail too short for a group of its own stays unused, as with mke2fs.
                    blocks = geometry.group_start(geometry.groups - 1);
                    continue;
                }
                let inodes = geometry.groups * geometry.inodes_per_group;
                if geometry.capacity() < needed
                    || inodes < inodes_used
                    || !geometry.last_group_fits()
                {
                    let overhead = geometry.blocks.saturating_sub(geometry.capacity());
                    return Err(too_small((needed + overhead) * BLOCK, size));
                }
                return Ok(geometry);
            }
        }
        let mut blocks = (content + content / 10 + 256).next_multiple_of(256);
        loop {
            self.journal_blocks = journal_blocks(blocks, self.parameters.journal);
            let needed = content + content / 10 + self.journal_blocks;
            let geometry = Geometry::new(blocks, inodes_wanted, inode_size);
            let inodes = geometry.groups * geometry.inodes_per_group;
            if geometry.capacity() >= needed && inodes >= inodes_used && geometry.last_group_fits()
            {
                return Ok(geometry);
            }
            if blocks > u64::from(u32::MAX) {
                return Err(Fault::new(Code::ImageContent, "more than 16 TiB"));
            }
            blocks += 256;
        }
    }

    /// Blocks for everything but group tables and the journal.
    fn content_blocks(&self) -> Result<u64> {
        let mut blocks = if self.lost_and_found {
            LOST_AND_FOUND_BLOCKS
        } else {
            0
        };
        for &index in self.numbers.keys() {
            let inode = self.tree.inode(index);
            blocks += match &inode.kind {
                Kind::Directory => self
                    .directories
                    .get(&index)
                    .map_or(0, |data| data.len() as u64 / BLOCK),
                Kind::File(content) => {
                    if content.len() > BLOCK << 32 {
                        return Err(Fault::new(Code::ImageContent, "a file of more than 16 TiB"));
                    }
                    let runs = self.data.get(&index).map_or(&[][..], Vec::as_slice);
                    let data: u64 = runs.iter().map(|run| run.1).sum();
                    // Groups break runs up: a few extents more than runs for each 128 MiB.
                    let extents =
                        runs.len() as u64 + 2 * data.div_ceil(BLOCKS_PER_GROUP - 2048) + 2;
                    let leaves = if extents as usize > EXTENTS_PER_INODE {
                        extents.div_ceil(EXTENTS_PER_BLOCK as u64)
                    } else {
                        0
                    };
                    data + leaves + leaves.div_ceil(EXTENTS_PER_BLOCK as u64)
                }
                Kind::Symlink(target) => u64::from(target.len() >= 60),
                _ => 0,
            };
            blocks += u64::from(
                split_xattrs(inode, self.geometry.inode_size)?
                    .block
                    .is_some(),
            );
        }
        Ok(blocks)
    }

    /// The content of each directory.
    fn directory_blocks(&self) -> Result<HashMap<InodeIndex, Vec<u8>>> {
        let by_name: BTreeMap<&[u8], InodeIndex> = self.tree.names().collect();
        let mut directories: HashMap<InodeIndex, DirectoryWriter> = HashMap::new();
        for (name, index) in self.tree.names() {
            let (parent, last) = match name.iter().rposition(|&byte| byte == b'/') {
                Some(slash) => (
                    name.get(..slash).unwrap_or_default(),
                    name.get(slash + 1..).unwrap_or_default(),
                ),
                None => (&[][..], name),
            };
            let parent = by_name.get(parent).copied().unwrap_or(index);
            let number = self.number(index);
            if matches!(self.tree.inode(index).kind, Kind::Directory) {
                let mut directory = DirectoryWriter::default();
                directory.entry(number, b".", 2);
                directory.entry(self.number(parent), b"..", 2);
                if name.is_empty() && self.lost_and_found {
                    directory.entry(FIRST, b"lost+found", 2);
                }
                directories.insert(index, directory);
            }
            if !name.is_empty() {
                let file_type = match self.tree.inode(index).kind {
                    Kind::File(_) => 1,
                    Kind::Directory => 2,
                    Kind::CharacterDevice(..) => 3,
                    Kind::BlockDevice(..) => 4,
                    Kind::Fifo => 5,
                    Kind::Socket => 6,
                    Kind::Symlink(_) => 7,
                };
                if let Some(directory) = directories.get_mut(&parent) {
                    directory.entry(number, last, file_type);
                }
            }
        }
        Ok(directories
            .into_iter()
            .map(|(index, directory)| (index, directory.finish()))
            .collect())
    }

    fn number(&self, index: InodeIndex) -> u32 {
        self.numbers.get(&index).copied().unwrap_or(ROOT)
    }

    /// Writes the file system into `image`, an empty file. `content` is called once for each regular file that has data, with
    /// a function that takes the file's blocks by their number in the file.
    ///
    /// # Errors
    ///
    /// [`Code::OutputUnwritable`] if the image cannot be written, and what `content` answers.
    pub fn write(&self, image: &File, content: &mut ReadContent<'_>) -> Result<()> {
        let out = Output { image };
        image.set_len(self.size()).map_err(write_error)?;
        let mut allocator = Allocator::new(&self.geometry);
        let mut inodes = InodeTable {
            geometry: &self.geometry,
            out: &out,
            used: Vec::new(),
            directories: Vec::new(),
        };

        let mut journal_inode = None;
        if self.journal_blocks > 0 {
            let extents = allocator.allocate(&[(0, self.journal_blocks)])?;
            let root = self.extent_root(&extents, &mut allocator, &out)?;
            if let Some(first) = extents.first() {
                out.write(
                    first.physical * BLOCK,
                    &journal_superblock(self.journal_blocks),
                )?;
            }
            let mut raw =
                self.raw_inode(0o100_600, 0, 0, self.time(), 1, self.journal_blocks * BLOCK);
            raw.blocks(self.journal_blocks + root.tree_blocks);
            raw.extents(&root.bytes);
            journal_inode = Some(raw.bytes.clone());
            inodes.put(JOURNAL, &raw.bytes, false)?;
        }
        if self.lost_and_found {
            let extents = allocator.allocate(&[(0, LOST_AND_FOUND_BLOCKS)])?;
            let root = self.extent_root(&extents, &mut allocator, &out)?;
            let mut directory = DirectoryWriter::default();
            directory.entry(FIRST, b".", 2);
            directory.entry(ROOT, b"..", 2);
            let mut data = directory.finish();
            while (data.len() as u64) < LOST_AND_FOUND_BLOCKS * BLOCK {
                data.extend(empty_directory_block());
            }
            self.write_extents(&out, &extents, &data)?;
            let mut raw = self.raw_inode(0o040_700, 0, 0, self.time(), 2, data.len() as u64);
            raw.blocks(LOST_AND_FOUND_BLOCKS + root.tree_blocks);
            raw.extents(&root.bytes);
            inodes.put(FIRST, &raw.bytes, true)?;
        }

        let subdirectories = self.subdirectories();
        let mut written = std::collections::HashSet::new();
        for (_, index) in self.tree.names() {
            if written.insert(index) {
                let subdirectories = subdirectories.get(&index).copied().unwrap_or(0);
                self.write_inode(
                    index,
                    subdirectories,
                    &mut allocator,
                    &mut inodes,
                    &out,
                    content,
                )?;
            }
        }
        self.write_tables(&out, &allocator, &inodes, journal_inode.as_deref())
    }

    fn time(&self) -> Timestamp {
        Timestamp {
            seconds: self.parameters.time,
            nanoseconds: 0,
        }
    }

    /// How many directories each directory holds.
    fn subdirectories(&self) -> HashMap<InodeIndex, u64> {
        let by_name: BTreeMap<&[u8], InodeIndex> = self.tree.names().collect();
        let mut subdirectories: HashMap<InodeIndex, u64> = HashMap::new();
        for (name, index) in self.tree.names() {
            if name.is_empty() || !matches!(self.tree.inode(index).kind, Kind::Directory) {
                continue;
            }
            let parent = name
                .iter()
                .rposition(|&byte| byte == b'/')
                .map_or(&[][..], |slash| name.get(..slash).unwrap_or_default());
            if let Some(&parent) = by_name.get(parent) {
                *subdirectories.entry(parent).or_default() += 1;
            }
        }
        if self.lost_and_found
            && let Some(&root) = by_name.get(&[][..])
        {
            *subdirectories.entry(root).or_default() += 1;
        }
        subdirectories
    }

    fn write_inode(
        &self,
        index: InodeIndex,
        subdirectories: u64,
        allocator: &mut Allocator<'_>,
        inodes: &mut InodeTable<'_>,
        out: &Output<'_>,
        content: &mut ReadContent<'_>,
    ) -> Result<()> {
        let inode = self.tree.inode(index);
        let number = self.number(index);
        let mut links = self.links.get(&index).copied().unwrap_or(1);
        let (file_type, size) = match &inode.kind {
            Kind::Directory => {
                // Beyond what 16 bits hold, 1 stands for "many" (dir_nlink).
                links = if subdirectories + 2 >= 65_000 {
                    1
                } else {
                    subdirectories + 2
                };
                (
                    0o040_000,
                    self.directories
                        .get(&index)
                        .map_or(0, |data| data.len() as u64),
                )
            }
            Kind::File(content) => (0o100_000, content.len()),
            Kind::Symlink(target) => (0o120_000, target.len() as u64),
            Kind::CharacterDevice(..) => (0o020_000, 0),
            Kind::BlockDevice(..) => (0o060_000, 0),
            Kind::Fifo => (0o010_000, 0),
            Kind::Socket => (0o140_000, 0),
        };
        let links = u16::try_from(links)
            .ok()
            .filter(|&links| links <= 65_000)
            .ok_or_else(|| {
                Fault::new(Code::ImageContent, format!("a file with {links} names"))
                    .because(Cause::TOO_MANY_LINKS)
            })?;
        let mut raw = self.raw_inode(
            file_type | inode.mode,
            inode.uid,
            inode.gid,
            inode.mtime,
            links,
            size,
        );
        let mut blocks = 0;
        match &inode.kind {
            Kind::Directory => {
                let data = self.directories.get(&index).map_or(&[][..], Vec::as_slice);
                let count = data.len() as u64 / BLOCK;
                let extents = allocator.allocate(&[(0, count)])?;
                let root = self.extent_root(&extents, allocator, out)?;
                self.write_extents(out, &extents, data)?;
                blocks += count + root.tree_blocks;
                raw.extents(&root.bytes);
            }
            Kind::File(_) => {
                let runs = self.data.get(&index).map_or(&[][..], Vec::as_slice);
                let extents = allocator.allocate(runs)?;
                let root = self.extent_root(&extents, allocator, out)?;
                blocks += runs.iter().map(|run| run.1).sum::<u64>() + root.tree_blocks;
                raw.extents(&root.bytes);
                let mut write = |block: u64, data: &[u8]| -> Result<()> {
                    let missing =
                        || Fault::new(Code::FileChanged, "a file being put into an image");
                    let at = extents
                        .partition_point(|extent| extent.logical <= block)
                        .checked_sub(1)
                        .ok_or_else(missing)?;
                    let extent = extents.get(at).ok_or_else(missing)?;
                    let within = block - extent.logical;
                    let room = extent
                        .len
                        .checked_sub(within)
                        .filter(|&room| room > 0)
                        .ok_or_else(missing)?
                        * BLOCK;
                    if data.len() as u64 > room {
                        return Err(missing());
                    }
                    out.write((extent.physical + within) * BLOCK, data)
                };
                if !extents.is_empty() || size > 0 {
                    content(index, &mut write)?;
                }
            }
            Kind::Symlink(target) if target.len() < 60 => raw.block_bytes(target),
            Kind::Symlink(target) => {
                if target.len() >= BLOCK_SIZE {
                    return Err(Fault::new(Code::ImageContent, "a symbolic link")
                        .because(Cause::LINK_TARGET_TOO_LONG));
                }
                let extents = allocator.allocate(&[(0, 1)])?;
                let root = self.extent_root(&extents, allocator, out)?;
                let mut data = target.clone();
                data.resize(BLOCK_SIZE, 0);
                self.write_extents(out, &extents, &data)?;
                blocks += 1;
                raw.extents(&root.bytes);
            }
            Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                let mut bytes = [0; 8];
                if *major < 256 && *minor < 256 {
                    bytes[..4].copy_from_slice(&((major << 8) | minor).to_le_bytes());
                } else {
                    // new_encode_dev in include/linux/kdev_t.h
                    let device = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
                    bytes[4..].copy_from_slice(&device.to_le_bytes());
                }
                raw.block_bytes(&bytes);
            }
            Kind::Fifo | Kind::Socket => {}
        }
        let xattrs = split_xattrs(inode, self.geometry.inode_size)?;
        raw.inline_xattrs(&xattrs.inline);
        if let Some(block) = xattrs.block {
            let extents = allocator.allocate(&[(0, 1)])?;
            if let Some(extent) = extents.first() {
                out.write(extent.physical * BLOCK, &block)?;
                raw.put_u32(0x68, extent.physical as u32);
                blocks += 1;
            }
        }
        raw.blocks(blocks);
        inodes.put(number, &raw.bytes, matches!(inode.kind, Kind::Directory))
    }

    fn raw_inode(
        &self,
        mode: u16,
        uid: u32,
        gid: u32,
        mtime: Timestamp,
        links: u16,
        size: u64,
    ) -> RawInode {
        let mut raw = RawInode {
            bytes: vec![0; self.geometry.inode_size as usize],
        };
        raw.put_u16(0x00, mode);
        raw.put_u16(0x02, uid as u16);
        raw.put_u32(0x04, size as u32);
        raw.put_u16(0x18, gid as u16);
        raw.put_u16(0x1a, links);
        raw.put_u32(0x6c, (size >> 32) as u32);
        raw.put_u16(0x78, (uid >> 16) as u16);
        raw.put_u16(0x7a, (gid >> 16) as u16);
        raw.put_u16(0x80, EXTRA_ISIZE);
        // Access, change, modification; the last of them counts, the others are not used.
        for (at, extra) in [(0x08, 0x8c), (0x0c, 0x84), (0x10, 0x88)] {
            raw.time(at, extra, mtime);
        }
        raw.time(0x90, 0x94, self.time());
        raw
    }

    /// The 60 bytes of an inode that say where its extents are, with blocks of the extent tree written as needed.
    fn extent_root(
        &self,
        extents: &[Extent],
        allocator: &mut Allocator<'_>,
        out: &Output<'_>,
    ) -> Result<ExtentRoot> {
        let node = |entries: &[[u8; 12]], max: usize, depth: u16, len: usize| {
            let mut bytes = Vec::with_capacity(len);
            bytes.extend(EXTENT_MAGIC.to_le_bytes());
            bytes.extend((entries.len() as u16).to_le_bytes());
            bytes.extend((max as u16).to_le_bytes());
            bytes.extend(depth.to_le_bytes());
            bytes.extend([0; 4]);
            for entry in entries {
                bytes.extend(entry);
            }
            bytes.resize(len, 0);
            bytes
        };
        let mut entries: Vec<(u64, [u8; 12])> = extents
            .iter()
            .map(|extent| {
                let mut entry = [0; 12];
                entry[..4].copy_from_slice(&(extent.logical as u32).to_le_bytes());
                entry[4..6].copy_from_slice(&(extent.len as u16).to_le_bytes());
                entry[8..].copy_from_slice(&(extent.physical as u32).to_le_bytes());
                (extent.logical, entry)
            })
            .collect();
        let mut depth = 0;
        let mut tree_blocks = 0;
        while entries.len() > EXTENTS_PER_INODE {
            let mut above = Vec::new();
            for chunk in entries.chunks(EXTENTS_PER_BLOCK) {
                let bytes: Vec<[u8; 12]> = chunk.iter().map(|entry| entry.1).collect();
                let block = allocator
                    .allocate(&[(0, 1)])?
                    .first()
                    .map_or(0, |extent| extent.physical);
                out.write(
                    block * BLOCK,
                    &node(&bytes, EXTENTS_PER_BLOCK, depth, BLOCK_SIZE),
                )?;
                tree_blocks += 1;
                let logical = chunk.first().map_or(0, |entry| entry.0);
                let mut entry = [0; 12];
                entry[..4].copy_from_slice(&(logical as u32).to_le_bytes());
                entry[4..8].copy_from_slice(&(block as u32).to_le_bytes());
                above.push((logical, entry));
            }
            entries = above;
            depth += 1;
        }
        let bytes: Vec<[u8; 12]> = entries.iter().map(|entry| entry.1).collect();
        Ok(ExtentRoot {
            bytes: node(&bytes, EXTENTS_PER_INODE, depth, 60),
            tree_blocks,
        })
    }

    fn write_extents(&self, out: &Output<'_>, extents: &[Extent], data: &[u8]) -> Result<()> {
        for extent in extents {
            let start = (extent.logical * BLOCK) as usize;
            let end = start + (extent.len * BLOCK) as usize;
            out.write(
                extent.physical * BLOCK,
                data.get(start..end).unwrap_or_default(),
            )?;
        }
        Ok(())
    }

    /// Superblocks, group descriptors and bitmaps.
    fn write_tables(
        &self,
        out: &Output<'_>,
        allocator: &Allocator<'_>,
        inodes: &InodeTable<'_>,
        journal_inode: Option<&[u8]>,
    ) -> Result<()> {
        let geometry = &self.geometry;
        let mut descriptors = Vec::new();
        let mut free_blocks = 0;
        let mut free_inodes = 0;
        for group in 0..geometry.groups {
            let start = geometry.group_start(group);
            let len = geometry.group_blocks(group);
            // All blocks up to the allocator's are taken: it goes through the disk once, from its start to its end.
            let used = allocator.used_in(group);
            let mut bitmap = vec![0; BLOCK_SIZE];
            set_bits(&mut bitmap, 0, used);
            set_bits(&mut bitmap, len, BLOCKS_PER_GROUP);
            out.write(geometry.block_bitmap(group) * BLOCK, &bitmap)?;
            let first_inode = group * geometry.inodes_per_group;
            let mut bitmap = vec![0; BLOCK_SIZE];
            let mut used_inodes = 0;
            for number in first_inode + 1..=first_inode + geometry.inodes_per_group {
                if number < u64::from(FIRST) || inodes.used.binary_search(&(number as u32)).is_ok()
                {
                    set_bits(&mut bitmap, number - 1 - first_inode, number - first_inode);
                    used_inodes += 1;
                }
            }
            set_bits(&mut bitmap, geometry.inodes_per_group, BLOCKS_PER_GROUP);
            out.write(geometry.inode_bitmap(group) * BLOCK, &bitmap)?;
            let directories = inodes
                .directories
                .iter()
                .filter(|&&number| (u64::from(number) - 1) / geometry.inodes_per_group == group)
                .count();
            free_blocks += len - used;
            free_inodes += geometry.inodes_per_group - used_inodes;
            for number in [
                geometry.block_bitmap(group),
                geometry.inode_bitmap(group),
                geometry.inode_table(group),
            ] {
                descriptors.extend((number as u32).to_le_bytes());
            }
            for number in [
                len - used,
                geometry.inodes_per_group - used_inodes,
                directories as u64,
            ] {
                descriptors.extend((number as u16).to_le_bytes());
            }
            descriptors.resize(((group + 1) * DESCRIPTOR_LEN) as usize, 0);
            debug_assert!(start + used <= start + len);
        }
        for group in (0..geometry.groups).filter(|&group| Geometry::has_superblock(group)) {
            let superblock = self.superblock(group, free_blocks, free_inodes, journal_inode);
            let start = geometry.group_start(group) * BLOCK;
            out.write(start + if group == 0 { 1024 } else { 0 }, &superblock)?;
            out.write(start + BLOCK, &descriptors)?;
        }
        Ok(())
    }

    fn superblock(
        &self,
        group: u64,
        free_blocks: u64,
        free_inodes: u64,
        journal_inode: Option<&[u8]>,
    ) -> Vec<u8> {
        let geometry = &self.geometry;
        let mut raw = RawInode {
            bytes: vec![0; 1024],
        };
        let time = self.parameters.time.clamp(0, i64::from(u32::MAX)) as u32;
        for (at, value) in [
            (0x00, (geometry.groups * geometry.inodes_per_group) as u32),
            (0x04, geometry.blocks as u32),
            (0x0c, free_blocks as u32),
            (0x10, free_inodes as u32),
            (0x18, 2), // blocks of 1024 << 2
            (0x1c, 2),
            (0x20, BLOCKS_PER_GROUP as u32),
            (0x24, BLOCKS_PER_GROUP as u32),
            (0x28, geometry.inodes_per_group as u32),
            (0x30, time),
            (0x40, time),
            (0x4c, 1),
            (0x54, FIRST),
            (
                0x5c,
                COMPAT_EXT_ATTR
                    | COMPAT_DIR_INDEX
                    | if journal_inode.is_some() {
                        COMPAT_HAS_JOURNAL
                    } else {
                        0
                    },
            ),
            (0x60, INCOMPAT_FILETYPE | INCOMPAT_EXTENTS),
            (
                0x64,
                RO_COMPAT_SPARSE_SUPER
                    | RO_COMPAT_LARGE_FILE
                    | RO_COMPAT_DIR_NLINK
                    | RO_COMPAT_EXTRA_ISIZE,
            ),
            (0x100, 0x000c), // user_xattr, acl
            (0x108, time),
            (0x160, 1), // signed directory hash
        ] {
            raw.put_u32(at, value);
        }
        for (at, value) in [
            (0x36, 0xffff), // no check after so many mounts
            (0x38, 0xef53),
            (0x3a, 1), // clean
            (0x3c, 1), // go on after errors
            (0x58, geometry.inode_size as u16),
            (0x5a, group as u16),
            (0x15c, EXTRA_ISIZE),
            (0x15e, EXTRA_ISIZE),
        ] {
            raw.put_u16(at, value);
        }
        raw.put(0x68, &self.parameters.uuid);
        raw.put(0x78, self.parameters.label.as_bytes());
        raw.put(0xec, &self.parameters.hash_seed);
        raw.put(0xfc, &[1]); // half MD4
        if let Some(inode) = journal_inode {
            raw.put_u32(0xe0, JOURNAL);
            raw.put(0xfd, &[1]);
            raw.put(0x10c, inode.get(0x28..0x64).unwrap_or_default());
            raw.put(0x148, inode.get(0x6c..0x70).unwrap_or_default());
            raw.put(0x14c, inode.get(0x04..0x08).unwrap_or_default());
        }
        raw.bytes
    }
}

/// Blocks of journal for a file system of so many blocks, as mke2fs chooses (`ext2fs_default_journal_size`).
fn journal_blocks(blocks: u64, wanted: bool) -> u64 {
    match blocks {
        _ if !wanted => 0,
        0..2048 => 0,
        2048..32_768 => 1024,
        32_768..262_144 => 4096,
        262_144..524_288 => 8192,
        524_288..4_194_304 => 16_384,
        _ => 32_768,
    }
}

/// The superblock of an empty journal (`journal_superblock_t`, big-endian).
fn journal_superblock(blocks: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK_SIZE];
    for (at, value) in [
        (0, 0xc03b_3998_u32),
        (4, 4), // superblock, version 2
        (12, BLOCK as u32),
        (16, blocks as u32),
        (20, 1), // first block of the log
        (24, 1), // first commit expected
        (64, 1), // file systems that use it
    ] {
        bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    bytes
}

/// The inode size that makes the tables and the blocks for overflowing attributes smallest together.
fn inode_size(tree: &Tree, numbers: &HashMap<InodeIndex, u32>) -> u64 {
    [256, 512, 1024]
        .into_iter()
        .min_by_key(|&size| {
            let overflow = numbers
                .keys()
                .filter(|&&index| {
                    split_xattrs(tree.inode(index), size).is_ok_and(|split| split.block.is_some())
                })
                .count() as u64;
            numbers.len() as u64 * size + overflow * BLOCK
        })
        .unwrap_or(256)
}

struct ExtentRoot {
    bytes: Vec<u8>,
    tree_blocks: u64,
}

struct RawInode {
    bytes: Vec<u8>,
}

impl RawInode {
    fn put(&mut self, at: usize, value: &[u8]) {
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }

    fn put_u16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_le_bytes());
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    /// Seconds, and in the extra word nanoseconds above the two bits that carry on the seconds.
    fn time(&mut self, at: usize, extra: usize, time: Timestamp) {
        let low = time.seconds as i32;
        let epoch = ((time.seconds - i64::from(low)) >> 32) as u32 & 3;
        self.put_u32(at, low as u32);
        self.put_u32(extra, (time.nanoseconds << 2) | epoch);
    }

    /// Number of blocks the file takes, which the inode has in units of 512 bytes.
    fn blocks(&mut self, blocks: u64) {
        let sectors = blocks * (BLOCK / 512);
        self.put_u32(0x1c, sectors as u32);
        self.put_u16(0x74, (sectors >> 32) as u16);
    }

    fn extents(&mut self, root: &[u8]) {
        self.put_u32(0x20, EXTENTS_FLAG);
        self.put(0x28, root);
    }

    fn block_bytes(&mut self, bytes: &[u8]) {
        self.put(0x28, bytes);
    }

    fn inline_xattrs(&mut self, bytes: &[u8]) {
        self.put(0x80 + usize::from(EXTRA_ISIZE), bytes);
    }
}

/// Extended attributes as they lie on the disk.
struct Xattrs {
    /// After the inode's fixed part: empty, or the magic, entries and values.
    inline: Vec<u8>,
    /// A block of its own.
    block: Option<Vec<u8>>,
}

/// An attribute's name as the kernel shortens it (`ext4_xattr_handler_map`), and its value as it is stored.
fn stored_xattr(name: &[u8], value: &[u8]) -> Result<(u8, Vec<u8>, Vec<u8>)> {
    let known = XATTR_PREFIXES
        .iter()
        .find_map(|(index, prefix)| Some((*index, name.strip_prefix(*prefix)?)));
    let stored = match known {
        Some((index, [])) if is_acl(index) => {
            acl_to_disk(value).map(|acl| (index, Vec::new(), acl))
        }
        Some((index @ (1 | 4 | 6), rest)) => Some((index, rest.to_vec(), value.to_vec())),
        _ => None,
    };
    stored.ok_or_else(|| {
        Fault::new(
            Code::ImageContent,
            format!("extended attribute {}", String::from_utf8_lossy(name)),
        )
        .because(Cause::XATTR_NAME)
    })
}

/// Distributes an inode's attributes: in the inode as long as there is room, then in one block.
fn split_xattrs(inode: &Inode, inode_size: u64) -> Result<Xattrs> {
    let mut stored = inode
        .xattrs
        .iter()
        .map(|(name, value)| stored_xattr(name, value))
        .collect::<Result<Vec<_>>>()?;
    // The order in which the kernel searches blocks: index, length of the name, name (`ext4_xattr_cmp_entry`).
    stored.sort_by(|one, other| {
        (one.0, one.1.len(), &one.1).cmp(&(other.0, other.1.len(), &other.1))
    });
    let room = (inode_size as usize).saturating_sub(128 + usize::from(EXTRA_ISIZE) + 4);
    let mut inline = Vec::new();
    let mut overflow = Vec::new();
    // The four bytes of zeros that end the entries need room too.
    let mut taken = 4;
    for xattr in stored {
        let len = entry_len(&xattr.1) + xattr.2.len().next_multiple_of(4);
        if taken + len <= room {
            taken += len;
            inline.push(xattr);
        } else {
            overflow.push(xattr);
        }
    }
    let inline = if inline.is_empty() {
        Vec::new()
    } else {
        [
            &XATTR_MAGIC.to_le_bytes()[..],
            &lay_out(&inline, room, 0, false),
        ]
        .concat()
    };
    if overflow.is_empty() {
        return Ok(Xattrs {
            inline,
            block: None,
        });
    }
    let needed: usize = overflow
        .iter()
        .map(|(_, name, value)| entry_len(name) + value.len().next_multiple_of(4))
        .sum::<usize>()
        + 4
        + 32;
    if needed > BLOCK_SIZE {
        return Err(Fault::new(
            Code::ImageContent,
            format!("extended attributes of {needed} bytes"),
        )
        .because(Cause::XATTRS_TOO_LARGE));
    }
    let mut block = vec![0; 32];
    for (at, value) in [(0, XATTR_MAGIC), (4, 1), (8, 1)] {
        block[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let hash = overflow.iter().fold(0_u32, |hash, (_, name, value)| {
        hash.rotate_left(16) ^ entry_hash(name, value)
    });
    block[12..16].copy_from_slice(&hash.to_le_bytes());
    block.extend(lay_out(&overflow, BLOCK_SIZE - 32, 32, true));
    Ok(Xattrs {
        inline,
        block: Some(block),
    })
}

fn entry_len(name: &[u8]) -> usize {
    (16 + name.len()).next_multiple_of(4)
}

/// Entries from the start of `room` bytes, values from their end. `base` is added to the values' offsets.
fn lay_out(xattrs: &[(u8, Vec<u8>, Vec<u8>)], room: usize, base: usize, hashed: bool) -> Vec<u8> {
    let mut bytes = vec![0; room];
    let (mut at, mut end) = (0, room);
    for (index, name, value) in xattrs {
        end -= value.len().next_multiple_of(4);
        bytes[end..end + value.len()].copy_from_slice(value);
        // In an inode the hash is not looked at and the kernel leaves it zero.
        let hash = if hashed { entry_hash(name, value) } else { 0 };
        let entry = &mut bytes[at..];
        entry[0] = name.len() as u8;
        entry[1] = *index;
        let offset = if value.is_empty() { 0 } else { base + end };
        entry[2..4].copy_from_slice(&(offset as u16).to_le_bytes());
        entry[8..12].copy_from_slice(&(value.len() as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&hash.to_le_bytes());
        entry[16..16 + name.len()].copy_from_slice(name);
        at += entry_len(name);
    }
    bytes
}

/// `ext4_xattr_hash_entry`.
fn entry_hash(name: &[u8], value: &[u8]) -> u32 {
    let hash = name
        .iter()
        .fold(0_u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
    value.chunks(4).fold(hash, |hash, word| {
        let mut padded = [0; 4];
        padded[..word.len()].copy_from_slice(word);
        hash.rotate_left(16) ^ u32::from_le_bytes(padded)
    })
}

/// Lays out directory entries in blocks.
#[derive(Default)]
struct DirectoryWriter {
    bytes: Vec<u8>,
    last: usize,
}

impl DirectoryWriter {
    fn entry(&mut self, number: u32, name: &[u8], file_type: u8) {
        let len = (8 + name.len()).next_multiple_of(4);
        let in_block = self.bytes.len() % BLOCK_SIZE;
        if self.bytes.is_empty() || in_block + len > BLOCK_SIZE {
            self.end_block();
        }
        self.last = self.bytes.len();
        self.bytes.extend(number.to_le_bytes());
        self.bytes.extend((len as u16).to_le_bytes());
        self.bytes.push(name.len() as u8);
        self.bytes.push(file_type);
        self.bytes.extend(name);
        self.bytes.resize(self.last + len, 0);
    }

    /// The last entry of a block reaches to its end.
    fn end_block(&mut self) {
        let end = self.bytes.len().next_multiple_of(BLOCK_SIZE);
        if end > self.bytes.len() {
            let len = (end - self.last) as u16;
            self.bytes[self.last + 4..self.last + 6].copy_from_slice(&len.to_le_bytes());
            self.bytes.resize(end, 0);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.end_block();
        self.bytes
    }
}

/// A block of a directory with nothing in it.
fn empty_directory_block() -> Vec<u8> {
    let mut block = vec![0; BLOCK_SIZE];
    block[4..6].copy_from_slice(&(BLOCK_SIZE as u16).to_le_bytes());
    block
}

/// Hands out blocks from the start of the disk to its end, around the groups' tables.
struct Allocator<'a> {
    geometry: &'a Geometry,
    group: u64,
    next: u64,
}

impl<'a> Allocator<'a> {
    fn new(geometry: &'a Geometry) -> Self {
        Self {
            geometry,
            group: 0,
            next: geometry.data_start(0),
        }
    }

    /// Blocks for runs of a file.
    fn allocate(&mut self, runs: &[(u64, u64)]) -> Result<Vec<Extent>> {
        let mut extents: Vec<Extent> = Vec::new();
        for &(mut logical, mut len) in runs {
            while len > 0 {
                let end =
                    self.geometry.group_start(self.group) + self.geometry.group_blocks(self.group);
                if self.next >= end {
                    self.group += 1;
                    if self.group >= self.geometry.groups {
                        let size = self.geometry.blocks * BLOCK;
                        return Err(too_small(size + len * BLOCK, size));
                    }
                    self.next = self.geometry.data_start(self.group);
                    continue;
                }
                let take = len.min(end - self.next).min(u64::from(MAX_EXTENT));
                extents.push(Extent {
                    logical,
                    physical: self.next,
                    len: take,
                });
                self.next += take;
                logical += take;
                len -= take;
            }
        }
        Ok(extents)
    }

    /// Blocks of a group that are taken, all from its start.
    fn used_in(&self, group: u64) -> u64 {
        let start = self.geometry.group_start(group);
        match group.cmp(&self.group) {
            std::cmp::Ordering::Less => self.geometry.group_blocks(group),
            std::cmp::Ordering::Equal => self.next - start,
            std::cmp::Ordering::Greater => self.geometry.data_start(group) - start,
        }
    }
}

/// Writes inodes and remembers which are in use. Numbers come in ascending order but for the root.
struct InodeTable<'a> {
    geometry: &'a Geometry,
    out: &'a Output<'a>,
    used: Vec<u32>,
    directories: Vec<u32>,
}

impl InodeTable<'_> {
    fn put(&mut self, number: u32, bytes: &[u8], directory: bool) -> Result<()> {
        let index = u64::from(number) - 1;
        let group = index / self.geometry.inodes_per_group;
        let within = index % self.geometry.inodes_per_group;
        if let Err(at) = self.used.binary_search(&number) {
            self.used.insert(at, number);
        }
        if directory {
            self.directories.push(number);
        }
        self.out.write(
            self.geometry.inode_table(group) * BLOCK + within * self.geometry.inode_size,
            bytes,
        )
    }
}

struct Output<'a> {
    image: &'a File,
}

impl Output<'_> {
    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.image.write_all_at(bytes, at).map_err(write_error)
    }
}

fn write_error(error: std::io::Error) -> Fault {
    Fault::new(Code::OutputUnwritable, format!("the image: {error}"))
}

/// Sets bits `from..to`.
fn set_bits(bitmap: &mut [u8], from: u64, to: u64) {
    for bit in from..to {
        if let Some(byte) = bitmap.get_mut((bit / 8) as usize) {
            *byte |= 1 << (bit % 8);
        }
    }
}
