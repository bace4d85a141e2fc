//! Reads a squashfs image back into a tree, extended attributes and all (`fs/squashfs/squashfs_fs.h` of the kernel).
//!
//! Nothing of an image is trusted: lengths are compared with the image's before anything is made of them. The content of files is
//! not read: it is unpacked whenever the file is read. Images that are compressed with lzo or lzma, or with xz and its filters for
//! machine code, are read by the program `sqfs2tar`.

mod failure;
mod program;
mod unpack;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Result;
use crate::image::bounds::{Kept, MAX_PATH, MAX_TARGET};
use crate::tree::{Content, Inode, Kind, Stored, StoredReader, Timestamp, Tree};
use failure::{Failure, Read, bad};
use unpack::Compressor;

/// Bytes of a block of metadata (`SQUASHFS_METADATA_SIZE`).
const METADATA: usize = 8192;
/// The largest block of data (`SQUASHFS_FILE_MAX_SIZE`).
const MAX_BLOCK: u32 = 1 << 20;
/// The deepest directory that is gone into: PATH_MAX has room for no more.
const MAX_DEPTH: usize = 2048;
/// The longest value of an attribute that the kernel hands out (include/uapi/linux/limits.h, XATTR_SIZE_MAX).
const MAX_XATTR: u32 = 65_536;
/// No fragment, no table of attributes, no attributes.
const NONE: u32 = u32::MAX;

/// Reads an image. The content of its files stays in it, unless the program reads it.
///
/// # Errors
///
/// [`Code::InputUnreadable`](ima::fault::Code::InputUnreadable) if it cannot be read,
/// [`Code::SourceMalformed`](ima::fault::Code::SourceMalformed) if it is damaged;
/// [`Code::ToolMissing`](ima::fault::Code::ToolMissing) if the program is needed and not installed.
pub(super) fn read(path: &Path) -> Result<Tree> {
    let volume = match Volume::open(path) {
        Ok(Some(volume)) => volume,
        Ok(None) => return program::read(path),
        Err(failure) => return Err(failure.fault(path)),
    };
    let volume = Arc::new(volume);
    let mut walk = Walk {
        kept: Kept::for_image(volume.length),
        volume,
        tree: Tree::new(),
        links: HashMap::new(),
        directories: HashSet::new(),
        listed: 0,
    };
    walk.run().map_err(|failure| failure.fault(path))?;
    Ok(walk.tree)
}

/// The little-endian field at the beginning of `bytes`, and what comes after it; both are zero or empty beyond the end.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

/// A place in metadata: the block's place in its table, and the offset in what it unpacks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Reference(u64);

impl Reference {
    const fn block(self) -> u64 {
        self.0 >> 16
    }

    const fn offset(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

/// Unpacked blocks that are likely to be asked for again, by their place.
#[derive(Debug)]
struct Cache<T> {
    most: usize,
    blocks: Mutex<HashMap<u64, T>>,
}

impl<T: Clone> Cache<T> {
    fn of(most: usize) -> Self {
        Self {
            most,
            blocks: Mutex::new(HashMap::new()),
        }
    }

    fn get(&self, at: u64, unpack: impl FnOnce() -> Read<T>) -> Read<T> {
        let lock = || self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = lock().get(&at) {
            return Ok(block.clone());
        }
        // Not under the lock: others need not wait.
        let block = unpack()?;
        let mut blocks = lock();
        if blocks.len() >= self.most {
            blocks.clear();
        }
        blocks.insert(at, block.clone());
        Ok(block)
    }
}

/// A block of metadata, and where the next one begins.
type MetadataBlock = (Arc<[u8]>, u64);

/// A file system that is open (`struct squashfs_super_block`).
#[derive(Debug)]
struct Volume {
    file: File,
    path: PathBuf,
    /// Bytes of the file system, which the image has.
    length: u64,
    compressor: Compressor,
    block_size: u32,
    root: Reference,
    inodes: u64,
    directories: u64,
    fragments: Table,
    ids: Table,
    attributes: Option<Attributes>,
    metadata: Cache<MetadataBlock>,
    ends: Cache<Arc<[u8]>>,
}

/// A table that is looked up by number: where the places of its blocks of metadata lie, and how many entries it has.
#[derive(Debug)]
struct Table {
    start: u64,
    entries: u32,
}

/// The attributes of all inodes (`struct squashfs_xattr_id_table`).
#[derive(Debug)]
struct Attributes {
    start: u64,
    lists: Table,
}

impl Volume {
    /// Opens an image. There is nothing for one that is compressed as the program has to unpack it.
    fn open(path: &Path) -> Read<Option<Self>> {
        let open = || {
            let file = File::open(path)?;
            // Also the length of a device.
            let length = std::io::Seek::seek(&mut &file, std::io::SeekFrom::End(0))?;
            Ok((file, length))
        };
        let (file, length) = open().map_err(Failure::Unreadable)?;
        let mut superblock = [0; 96];
        if let Err(error) = file.read_exact_at(&mut superblock, 0) {
            return match error.kind() {
                std::io::ErrorKind::UnexpectedEof => bad("it has no superblock"),
                _ => Err(Failure::Unreadable(error)),
            };
        }
        let used = u64_at(&superblock, 40);
        if used > length {
            return bad("the image is shorter than its file system");
        }
        let block_size = u32_at(&superblock, 12);
        if !block_size.is_power_of_two() || !(4096..=MAX_BLOCK).contains(&block_size) {
            return bad(format!("blocks of {block_size} bytes"));
        }
        let number = u16_at(&superblock, 20);
        let Some(compressor) = Compressor::numbered(number) else {
            return match number {
                2 | 3 => Ok(None),
                _ => bad(format!("compressor {number}")),
            };
        };
        let attributes_at = u64_at(&superblock, 56);
        let mut volume = Self {
            file,
            path: path.to_owned(),
            length: used,
            compressor,
            block_size,
            root: Reference(u64_at(&superblock, 32)),
            inodes: u64_at(&superblock, 64),
            directories: u64_at(&superblock, 72),
            fragments: Table {
                start: u64_at(&superblock, 80),
                entries: u32_at(&superblock, 16),
            },
            ids: Table {
                start: u64_at(&superblock, 48),
                entries: u32::from(u16_at(&superblock, 26)),
            },
            attributes: None,
            metadata: Cache::of(256),
            ends: Cache::of(16),
        };
        if attributes_at != u64::MAX {
            let header: [u8; 16] = volume.array(attributes_at)?;
            volume.attributes = Some(Attributes {
                start: u64_at(&header, 0),
                lists: Table {
                    start: attributes_at.saturating_add(16),
                    entries: u32_at(&header, 8),
                },
            });
        }
        // `SQUASHFS_COMP_OPT`: the options lie behind the superblock.
        if compressor == Compressor::Xz && u16_at(&superblock, 24) & 0x400 != 0 {
            let (options, _) = volume.metadata_block(96)?;
            // fs/squashfs/xz_wrapper.c, `struct disk_comp_opts`: the filters come second.
            if u32_at(&options, 4) != 0 {
                return Ok(None);
            }
        }
        Ok(Some(volume))
    }

    /// Bytes of the file system.
    fn bytes(&self, at: u64, length: usize) -> Read<Vec<u8>> {
        match at.checked_add(length as u64) {
            Some(end) if end <= self.length => {}
            _ => return bad(format!("byte {at} of {}", self.length)),
        }
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, at)
            .map_err(Failure::Unreadable)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&self, at: u64) -> Read<[u8; N]> {
        Ok(field(&self.bytes(at, N)?, 0))
    }

    /// Unpacks the block of metadata at a place (fs/squashfs/block.c, `squashfs_read_data`).
    fn metadata_block(&self, at: u64) -> Read<MetadataBlock> {
        const PLAIN: u16 = 0x8000;
        self.metadata.get(at, || {
            let header = u16::from_le_bytes(self.array(at)?);
            let length = usize::from(header & !PLAIN);
            if !(1..=METADATA).contains(&length) {
                return bad(format!("a block of {length} bytes of metadata"));
            }
            let from = at.saturating_add(2);
            let mut bytes = self.bytes(from, length)?;
            if header & PLAIN == 0 {
                bytes = self.compressor.unpack(&bytes, METADATA)?;
            }
            Ok((bytes.into(), from.saturating_add(length as u64)))
        })
    }

    /// Begins to read metadata of the table at `start`.
    fn metadata(&self, start: u64, reference: Reference) -> Read<Metadata<'_>> {
        self.metadata_at(Place {
            block: start.saturating_add(reference.block()),
            offset: reference.offset(),
        })
    }

    fn metadata_at(&self, place: Place) -> Read<Metadata<'_>> {
        let (block, next) = self.metadata_block(place.block)?;
        if place.offset > block.len() {
            return bad("a place behind the end of its block");
        }
        Ok(Metadata {
            volume: self,
            place,
            block,
            next,
        })
    }

    /// The entry of a table; blocks of metadata are full of entries, and their places lie one behind the other.
    fn entry<const N: usize>(&self, table: &Table, number: u32) -> Read<[u8; N]> {
        if number >= table.entries {
            return bad(format!("entry {number} of {}", table.entries));
        }
        let at = u64::from(number).saturating_mul(N as u64);
        let index = (at / METADATA as u64).saturating_mul(8);
        let start = u64::from_le_bytes(self.array(table.start.saturating_add(index))?);
        let offset = Reference(at % METADATA as u64);
        self.metadata(start, offset)?.array()
    }

    /// Unpacks a block of data, of which `size` says how long it is and whether it is compressed.
    fn data(&self, at: u64, size: u32) -> Read<Vec<u8>> {
        const PLAIN: u32 = 1 << 24;
        let length = size & !PLAIN;
        if length > self.block_size {
            return bad(format!("a block of {length} bytes"));
        }
        let bytes = self.bytes(at, length as usize)?;
        if size & PLAIN != 0 {
            return Ok(bytes);
        }
        self.compressor.unpack(&bytes, self.block_size as usize)
    }

    /// The block with the ends of files of that number.
    fn ends(&self, number: u32) -> Read<Arc<[u8]>> {
        let entry: [u8; 16] = self.entry(&self.fragments, number)?;
        let (at, size) = (u64_at(&entry, 0), u32_at(&entry, 8));
        self.ends.get(at, || Ok(self.data(at, size)?.into()))
    }

    /// How many bytes the metadata between two places unpacks to, at most.
    fn metadata_length(&self, start: u64, end: u64) -> u64 {
        // A block has at least one byte, after two bytes with its length.
        let blocks = end.min(self.length).saturating_sub(start) / 3;
        blocks.saturating_mul(METADATA as u64)
    }

    /// The attributes of a list (fs/squashfs/xattr.c). Those of a class that the kernel does not know are passed over, as it does.
    fn attributes(&self, list: u32, kept: &mut Kept) -> Read<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut found = BTreeMap::new();
        let Some(attributes) = self.attributes.as_ref().filter(|_| list != NONE) else {
            return Ok(found);
        };
        let entry: [u8; 16] = self.entry(&attributes.lists, list)?;
        let mut at = self.metadata(attributes.start, Reference(u64_at(&entry, 0)))?;
        for _ in 0..u32_at(&entry, 8) {
            let kind = at.u16()?;
            let length = at.u16()?;
            let rest = at.take(usize::from(length))?;
            let size = at.u32()?;
            // `SQUASHFS_XATTR_VALUE_OOL`: the value lies elsewhere, where others have it too.
            let value = if kind & 0x100 == 0 {
                at.value(size)?
            } else {
                let place = Reference(u64::from_le_bytes(at.array()?));
                let mut elsewhere = self.metadata(attributes.start, place)?;
                let size = elsewhere.u32()?;
                elsewhere.value(size)?
            };
            let prefix: &[u8] = match kind & 0xff {
                0 => b"user.",
                1 => b"trusted.",
                2 => b"security.",
                _ => continue,
            };
            let name = [prefix, &rest].concat();
            if !kept.attribute(&name, &value) {
                return bad("attributes without end");
            }
            // The kernel takes the first it finds.
            found.entry(name).or_insert(value);
        }
        Ok(found)
    }
}

/// A place in metadata: where its block begins in the image, and the offset in what that unpacks to.
#[derive(Debug, Clone, Copy)]
struct Place {
    block: u64,
    offset: usize,
}

/// Metadata that is being read, over the ends of its blocks.
struct Metadata<'a> {
    volume: &'a Volume,
    /// Of the next byte.
    place: Place,
    /// What the block unpacks to.
    block: Arc<[u8]>,
    /// Where the next block begins.
    next: u64,
}

impl Metadata<'_> {
    fn fill(&mut self, to: &mut [u8]) -> Read<()> {
        let mut rest = to;
        while !rest.is_empty() {
            let here = self.block.get(self.place.offset..).unwrap_or_default();
            if here.is_empty() {
                let (block, next) = self.volume.metadata_block(self.next)?;
                if block.is_empty() {
                    return bad("an empty block of metadata");
                }
                self.place = Place {
                    block: self.next,
                    offset: 0,
                };
                (self.block, self.next) = (block, next);
                continue;
            }
            let count = here.len().min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(here.get(..count).unwrap_or_default());
            self.place.offset = self.place.offset.saturating_add(count);
            rest = later;
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// A few bytes, as many as a field of two bytes can say.
    fn take(&mut self, length: usize) -> Read<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn value(&mut self, size: u32) -> Read<Vec<u8>> {
        if size > MAX_XATTR {
            return bad(format!("an attribute of {size} bytes"));
        }
        self.take(size as usize)
    }

    fn u16(&mut self) -> Read<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_le_bytes)
    }
}

/// A directory's list of entries.
struct Listing {
    place: Reference,
    length: u32,
}

/// An entry of a directory.
struct Entry {
    name: Vec<u8>,
    inode: Reference,
}

/// What was read of an inode.
struct Taken {
    inode: Inode,
    links: u32,
    listing: Option<Listing>,
}

/// Goes through all directories.
struct Walk {
    volume: Arc<Volume>,
    tree: Tree,
    /// The first name of each inode that has several.
    links: HashMap<Reference, Vec<u8>>,
    directories: HashSet<Reference>,
    /// Bytes of all lists of entries.
    listed: u64,
    kept: Kept,
}

impl Walk {
    fn run(&mut self) -> Read<()> {
        let root = self.volume.root;
        let mut todo = vec![(Vec::new(), root)];
        while let Some((name, reference)) = todo.pop() {
            if name.len() > MAX_PATH
                || name.iter().filter(|byte| **byte == b'/').count() > MAX_DEPTH
            {
                return bad("names without end");
            }
            if let Some(first) = self.links.get(&reference) {
                self.tree.link(&name, first)?;
                continue;
            }
            let taken = self.inode(reference)?;
            if name.is_empty() && taken.listing.is_none() {
                return bad("its root is not a directory");
            }
            if taken.listing.is_none() && taken.links > 1 {
                self.links.insert(reference, name.clone());
            }
            self.tree.insert(&name, taken.inode)?;
            let Some(listing) = taken.listing else {
                continue;
            };
            // Without this a few directories that contain one another would be names without end.
            if !self.directories.insert(reference) {
                return bad("a directory with two names");
            }
            for entry in self.entries(&name, &listing)? {
                let child = match name.as_slice() {
                    [] => entry.name,
                    _ => [&name, &b"/"[..], &entry.name].concat(),
                };
                todo.push((child, entry.inode));
            }
        }
        Ok(())
    }

    /// The entries of the directory of that name (fs/squashfs/dir.c, `squashfs_readdir`).
    fn entries(&mut self, directory: &[u8], listing: &Listing) -> Read<Vec<Entry>> {
        const HEADER: u32 = 12;
        const ENTRY: u32 = 8;
        // `.` and `..`, which are not in the list, are counted as three bytes.
        let mut left = listing.length.saturating_sub(3);
        let volume = Arc::clone(&self.volume);
        // No part of a list is another directory's, so all of them together are not longer than what the table unpacks to.
        self.listed = self.listed.saturating_add(u64::from(left));
        if self.listed > volume.metadata_length(volume.directories, volume.length) {
            return bad("directories without end");
        }
        let mut entries = Vec::new();
        let mut names = HashSet::new();
        if left == 0 {
            return Ok(entries);
        }
        let mut at = volume.metadata(volume.directories, listing.place)?;
        while left > 0 {
            let count = at.u32()?;
            let block = at.u32()?;
            let _number = at.u32()?;
            left = match left.checked_sub(HEADER) {
                Some(left) if count < 256 => left,
                _ => return bad("a malformed directory"),
            };
            for _ in 0..=count {
                let header: [u8; 8] = at.array()?;
                let length = u16_at(&header, 6);
                let name = at.take(usize::from(length).saturating_add(1).min(257))?;
                let used = ENTRY.saturating_add(name.len() as u32);
                left = match left.checked_sub(used) {
                    Some(left) if name.len() <= 256 => left,
                    _ => return bad("a malformed directory"),
                };
                if name.contains(&b'/') || name.contains(&0) || matches!(&name[..], b"." | b"..") {
                    return bad("a name that no file can have");
                }
                if !names.insert(name.clone()) {
                    return bad("a directory with the same name twice");
                }
                if !self.kept.room(directory.len().saturating_add(name.len())) {
                    return bad("names without end");
                }
                let inode = u64::from(block) << 16 | u64::from(u16_at(&header, 0));
                entries.push(Entry {
                    name,
                    inode: Reference(inode),
                });
            }
        }
        Ok(entries)
    }

    /// Reads an inode (fs/squashfs/inode.c, `squashfs_read_inode`). Its number in the table of types is 7 more for each with
    /// fields for attributes.
    fn inode(&mut self, reference: Reference) -> Read<Taken> {
        let volume = Arc::clone(&self.volume);
        let mut at = volume.metadata(volume.inodes, reference)?;
        let base: [u8; 16] = at.array()?;
        let (kind, mode) = (u16_at(&base, 0), u16_at(&base, 2));
        let id = |at: usize| -> Read<u32> {
            let entry = volume.entry(&volume.ids, u32::from(u16_at(&base, at)))?;
            Ok(u32::from_le_bytes(entry))
        };
        let (uid, gid) = (id(4)?, id(6)?);
        let mut links = 1;
        let mut list = NONE;
        let mut listing = None;
        let kind = match kind {
            1 => {
                let fields: [u8; 16] = at.array()?;
                let place = u64::from(u32_at(&fields, 0)) << 16 | u64::from(u16_at(&fields, 10));
                listing = Some(Listing {
                    place: Reference(place),
                    length: u32::from(u16_at(&fields, 8)),
                });
                Kind::Directory
            }
            8 => {
                let fields: [u8; 24] = at.array()?;
                let place = u64::from(u32_at(&fields, 8)) << 16 | u64::from(u16_at(&fields, 18));
                list = u32_at(&fields, 20);
                listing = Some(Listing {
                    place: Reference(place),
                    length: u32_at(&fields, 4),
                });
                Kind::Directory
            }
            2 => {
                let fields: [u8; 16] = at.array()?;
                let start = u64::from(u32_at(&fields, 0));
                let len = u64::from(u32_at(&fields, 12));
                let end = (u32_at(&fields, 4), u32_at(&fields, 8));
                Kind::File(self.content(start, len, end, &at)?)
            }
            9 => {
                let fields: [u8; 40] = at.array()?;
                links = u32_at(&fields, 24);
                list = u32_at(&fields, 36);
                let end = (u32_at(&fields, 28), u32_at(&fields, 32));
                Kind::File(self.content(u64_at(&fields, 0), u64_at(&fields, 8), end, &at)?)
            }
            3 | 10 => {
                links = at.u32()?;
                let length = at.u32()?;
                if u64::from(length) > MAX_TARGET {
                    return bad("a symbolic link with too long a target");
                }
                let target = at.take(length as usize)?;
                if target.is_empty() || target.contains(&0) {
                    return bad("a symbolic link with a target that no link can have");
                }
                if kind == 10 {
                    list = at.u32()?;
                }
                Kind::Symlink(target)
            }
            4 | 5 | 11 | 12 => {
                links = at.u32()?;
                // `new_decode_dev` of include/linux/kdev_t.h
                let device = at.u32()?;
                let major = (device >> 8) & 0xfff;
                let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
                if kind > 7 {
                    list = at.u32()?;
                }
                match kind {
                    4 | 11 => Kind::BlockDevice(major, minor),
                    _ => Kind::CharacterDevice(major, minor),
                }
            }
            6 | 7 | 13 | 14 => {
                links = at.u32()?;
                if kind > 7 {
                    list = at.u32()?;
                }
                match kind {
                    6 | 13 => Kind::Fifo,
                    _ => Kind::Socket,
                }
            }
            _ => return bad(format!("an inode of type {kind}")),
        };
        let mut inode = Inode::new(kind, mode);
        (inode.uid, inode.gid) = (uid, gid);
        inode.mtime = Timestamp {
            seconds: i64::from(u32_at(&base, 8)),
            nanoseconds: 0,
        };
        inode.xattrs = volume.attributes(list, &mut self.kept)?;
        Ok(Taken {
            inode,
            links,
            listing,
        })
    }

    /// The content of a regular file; the lengths of its blocks come next in the metadata.
    fn content(&self, start: u64, len: u64, end: (u32, u32), at: &Metadata<'_>) -> Read<Content> {
        let volume = &self.volume;
        let (fragment, offset) = end;
        let size = u64::from(volume.block_size);
        let blocks = if fragment == NONE {
            len.div_ceil(size)
        } else {
            len / size
        };
        if blocks > volume.metadata_length(volume.inodes, volume.directories) / 4 {
            return bad("a file with more blocks than the image has room for");
        }
        Ok(Content::Stored {
            file: Arc::new(StoredFile {
                volume: Arc::clone(volume),
                start,
                len,
                blocks,
                fragment: (fragment != NONE).then_some((fragment, offset)),
                sizes: at.place,
            }),
            len,
        })
    }
}

/// A regular file: blocks one behind the other, and its end in a block that others share.
#[derive(Debug)]
struct StoredFile {
    volume: Arc<Volume>,
    /// Where the first block lies.
    start: u64,
    len: u64,
    blocks: u64,
    fragment: Option<(u32, u32)>,
    /// Where the lengths of the blocks lie.
    sizes: Place,
}

impl Stored for StoredFile {
    fn open(&self) -> Result<Box<dyn StoredReader + '_>> {
        let sizes = self.volume.metadata_at(self.sizes);
        Ok(Box::new(FileReader {
            file: self,
            sizes: sizes.map_err(|failure| failure.fault(&self.volume.path))?,
            at: 0,
            next: 0,
            from: self.start,
            now: Now::Nothing,
        }))
    }
}

/// The block of a file that is being read.
enum Now {
    Nothing,
    Hole,
    /// What it unpacks to, and the place of the file's next byte in it.
    Data(Arc<[u8]>, usize),
}

struct FileReader<'a> {
    file: &'a StoredFile,
    sizes: Metadata<'a>,
    at: u64,
    /// The number of the next block.
    next: u64,
    /// Where it lies.
    from: u64,
    now: Now,
}

impl FileReader<'_> {
    /// How many bytes of the present block come from here on; 0 if there is none.
    fn left(&self) -> u64 {
        let size = u64::from(self.file.volume.block_size);
        let end = self.next.saturating_mul(size).min(self.file.len);
        end.saturating_sub(self.at)
    }

    /// Goes on to the next block if the present one is used up.
    fn advance(&mut self) -> Read<()> {
        if self.left() > 0 || self.at >= self.file.len {
            return Ok(());
        }
        let volume = &self.file.volume;
        if self.next < self.file.blocks {
            let size = self.sizes.u32()?;
            self.now = if size == 0 {
                Now::Hole
            } else {
                let data = volume.data(self.from, size)?;
                // The compressed length, without the bit that says that it is none.
                self.from = self.from.saturating_add(u64::from(size & 0x00ff_ffff));
                Now::Data(data.into(), 0)
            };
        } else {
            let Some((fragment, offset)) = self.file.fragment else {
                return bad("a file that is longer than its blocks");
            };
            self.now = Now::Data(volume.ends(fragment)?, offset as usize);
        }
        self.next = self.next.saturating_add(1);
        // All blocks but the last are whole.
        match &self.now {
            Now::Data(data, offset)
                if (data.len().saturating_sub(*offset) as u64) < self.left() =>
            {
                bad("a block that is too short")
            }
            _ => Ok(()),
        }
    }

    fn copy(&mut self, piece: &mut [u8]) -> Read<()> {
        let mut rest = piece;
        while !rest.is_empty() {
            self.advance()?;
            let count = usize::try_from(self.left())
                .unwrap_or(usize::MAX)
                .min(rest.len());
            let (part, later) = rest.split_at_mut(count);
            match &mut self.now {
                Now::Hole => part.fill(0),
                Now::Data(data, offset) => {
                    let end = offset.saturating_add(count);
                    match data.get(*offset..end) {
                        Some(bytes) if count > 0 => part.copy_from_slice(bytes),
                        _ => return bad("a block that is too short"),
                    }
                    *offset = end;
                }
                Now::Nothing => return bad("a file that is longer than its blocks"),
            }
            self.at = self.at.saturating_add(count as u64);
            rest = later;
        }
        Ok(())
    }

    fn hole(&mut self) -> Read<u64> {
        let start = self.at;
        loop {
            self.advance()?;
            match self.now {
                Now::Hole if self.left() > 0 => self.at = self.at.saturating_add(self.left()),
                _ => return Ok(self.at.saturating_sub(start)),
            }
        }
    }
}

impl StoredReader for FileReader<'_> {
    fn skip_hole(&mut self) -> Result<u64> {
        self.hole()
            .map_err(|failure| failure.fault(&self.file.volume.path))
    }

    fn fill(&mut self, piece: &mut [u8]) -> Result<()> {
        self.copy(piece)
            .map_err(|failure| failure.fault(&self.file.volume.path))
    }
}
