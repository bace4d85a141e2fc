//! Reads an erofs image back into a tree, extended attributes and all, compressed or not.
//!
//! Where the content of a file lies is given by its inode, unless it is compressed or made of chunks; then it is decoded whenever
//! the file is read. Nothing of the content is read here.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use erofs_rs::Error;
use erofs_rs::r#async::{EroFS, File as DiskFile};
use erofs_rs::backend::AsyncImage;
use erofs_rs::types::{Inode as DiskInode, Layout};

use crate::Result;
use crate::contained::contained;
use crate::file::unreadable;
use crate::image::bounds::{Kept, MAX_PATH, MAX_TARGET, damaged};
use crate::tree::{Content, Inode, Kind, Run, Stored, StoredReader, Timestamp, Tree};

/// The deepest directory that is gone into: PATH_MAX has room for no more.
const MAX_DEPTH: usize = 2048;

/// Addresses of 48 bits, and inodes in an inode (fs/erofs/erofs_fs.h, `EROFS_FEATURE_INCOMPAT_48BIT` and
/// `EROFS_FEATURE_INCOMPAT_METABOX`).
const INCOMPAT_WIDE: u32 = 0x80 | 0x100;
/// The address of a hole.
const NULL_BLOCK: u32 = u32::MAX;
/// The most bytes of files that a byte of the image can stand for: two bytes of an index stand for a block.
const MAX_RATIO: u64 = 4096;

/// Reads an image. The content of its files stays in it.
///
/// # Errors
///
/// [`Code::InputUnreadable`](ima::fault::Code::InputUnreadable) if it cannot be read,
/// [`Code::SourceMalformed`](ima::fault::Code::SourceMalformed) if it is damaged.
pub(super) fn read(path: &Path) -> Result<Tree> {
    contained(|| read_sound(path)).unwrap_or_else(|| Err(bad(path, &"a number out of range")))
}

fn bad(path: &Path, what: &dyn std::fmt::Display) -> ima::fault::Fault {
    damaged(path, "erofs", "fsck.erofs", what)
}

fn read_sound(path: &Path) -> Result<Tree> {
    let open = || {
        let file = File::open(path)?;
        // Also the length of a device.
        let length = std::io::Seek::seek(&mut &file, std::io::SeekFrom::End(0))?;
        Ok((file, length))
    };
    let (file, length) = open().map_err(|error: std::io::Error| unreadable(path, &error))?;
    let file = Arc::new(file);
    let bad = |error: Error| bad(path, &error);
    let image = ready(EroFS::new(Image(Arc::clone(&file)))).map_err(bad)?;
    let volume = Arc::new(Volume {
        image,
        file,
        length,
        path: path.to_owned(),
    });
    let image = &volume.image;
    let mut reader = Reader {
        volume: &volume,
        tree: Tree::new(),
        links: HashMap::new(),
        directories: HashSet::new(),
        kept: Kept::for_image(length),
    };
    let root = ready(image.get_inode(image.super_block().root_inode_id())).map_err(bad)?;
    reader.take(b"", root)?;
    let mut walk = ready(image.walk_dir("/")).map_err(bad)?;
    while let Some(entry) = ready(walk.next_entry()) {
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

/// Runs what reads from an [`Image`], which never has to wait.
fn ready<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

/// The image for the library: read where it lies, so that it takes no memory.
#[derive(Debug)]
struct Image(Arc<File>);

impl AsyncImage for Image {
    async fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> erofs_rs::Result<()> {
        Ok(self.0.read_exact_at(buffer, offset)?)
    }
}

/// An image that is open.
#[derive(Debug)]
struct Volume {
    image: EroFS<Image>,
    file: Arc<File>,
    /// In bytes.
    length: u64,
    path: PathBuf,
}

impl Volume {
    fn bad(&self, what: &dyn std::fmt::Display) -> ima::fault::Fault {
        bad(&self.path, what)
    }

    /// Reads bytes that the image must have.
    fn bytes(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        self.file
            .read_exact_at(buffer, at)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => self.bad(&"it is cut off"),
                _ => unreadable(&self.path, &error),
            })
    }

    /// What the content of a regular file is made of (fs/erofs/data.c, `erofs_map_blocks`).
    fn content(self: &Arc<Self>, inode: DiskInode) -> Result<Content> {
        let len = inode.data_size();
        let superblock = self.image.super_block();
        let out_of_range = || self.bad(&"a file that lies outside of the image");
        let stored = |file: Arc<dyn Stored>| Content::Stored { file, len };
        let layout = inode.layout();
        if superblock.feature_incompat & INCOMPAT_WIDE != 0
            || !matches!(
                layout,
                Some(Layout::FlatPlain | Layout::FlatInline | Layout::ChunkBased)
            )
        {
            if len > self.length.saturating_mul(MAX_RATIO) {
                return Err(out_of_range());
            }
            return Ok(stored(Arc::new(Encoded {
                volume: Arc::clone(self),
                inode,
            })));
        }
        let bits = superblock.blk_size_bits;
        let at = inode
            .id()
            .checked_mul(32)
            .and_then(|at| at.checked_add(u64::from(superblock.meta_blk_addr) << bits))
            .ok_or_else(out_of_range)?;
        // `struct erofs_inode_compact`; the extended form has the same fields up to here.
        let mut raw = [0; 20];
        self.bytes(&mut raw, at)?;
        let [format, .., a, b, c, d] = raw;
        let union = u32::from_le_bytes([a, b, c, d]);
        let body = if format & 1 == 0 { 32 } else { 64 };
        // The library has read both.
        let behind = at
            .saturating_add(body)
            .saturating_add(inode.xattr_size() as u64);
        let block = 1_u64 << bits;
        let run = |at: u64, from: u64, len: u64| match from.checked_add(len) {
            Some(end) if end <= self.length => Ok(Run { at, from, len }),
            _ => Err(out_of_range()),
        };
        let runs = match layout {
            _ if len == 0 => Vec::new(),
            Some(Layout::ChunkBased) => {
                // `EROFS_CHUNK_FORMAT_INDEXES` and `EROFS_CHUNK_FORMAT_BLKBITS_MASK`
                let entry = if union & 0x20 == 0 { 4 } else { 8 };
                let chunk = block << (union & 0x1f);
                let table = behind.next_multiple_of(entry);
                run(0, table, len.div_ceil(chunk).saturating_mul(entry))?;
                return Ok(stored(Arc::new(Chunked {
                    volume: Arc::clone(self),
                    table,
                    entry,
                    chunk,
                    block,
                    len,
                })));
            }
            Some(Layout::FlatInline) => {
                // The last block, also a whole one, lies behind the inode.
                let whole = (len.saturating_sub(1) / block).saturating_mul(block);
                let mut runs = Vec::new();
                if whole > 0 {
                    runs.push(run(0, u64::from(union) << bits, whole)?);
                }
                runs.push(run(whole, behind, len.saturating_sub(whole))?);
                runs
            }
            _ if union == NULL_BLOCK => Vec::new(),
            _ => vec![run(0, u64::from(union) << bits, len)?],
        };
        Ok(Content::Mapped {
            file: Arc::clone(&self.file),
            runs: runs.into(),
            len,
        })
    }
}

/// A file that the library decodes.
#[derive(Debug)]
struct Encoded {
    volume: Arc<Volume>,
    inode: DiskInode,
}

impl Stored for Encoded {
    fn open(&self) -> Result<Box<dyn StoredReader + '_>> {
        let volume = &self.volume;
        let file = volume.image.open_inode_file(self.inode);
        let file = file.map_err(|error| volume.bad(&error))?;
        Ok(Box::new(EncodedReader { volume, file }))
    }
}

struct EncodedReader<'a> {
    volume: &'a Volume,
    file: DiskFile<'a, Image>,
}

impl StoredReader for EncodedReader<'_> {
    fn skip_hole(&mut self) -> Result<u64> {
        Ok(0)
    }

    fn fill(&mut self, piece: &mut [u8]) -> Result<()> {
        let Self { volume, file } = self;
        let mut rest = piece;
        while !rest.is_empty() {
            let read = contained(|| ready(file.read(rest)));
            let count = match read {
                Some(Ok(count)) if count > 0 => count,
                Some(Ok(_)) => return Err(volume.bad(&"a file without an end")),
                Some(Err(error)) => return Err(volume.bad(&error)),
                None => return Err(volume.bad(&"a number out of range")),
            };
            rest = rest.get_mut(count..).unwrap_or_default();
        }
        Ok(())
    }
}

/// A file in chunks of one length, whose addresses lie behind the inode.
#[derive(Debug)]
struct Chunked {
    volume: Arc<Volume>,
    /// Where the addresses begin, in bytes.
    table: u64,
    /// Bytes of an address: 4, or 8 with the number of a device.
    entry: u64,
    /// Bytes of a chunk.
    chunk: u64,
    /// Bytes of a block.
    block: u64,
    len: u64,
}

impl Stored for Chunked {
    fn open(&self) -> Result<Box<dyn StoredReader + '_>> {
        Ok(Box::new(ChunkedReader {
            file: self,
            at: 0,
            first: 0,
            addresses: Vec::new(),
        }))
    }
}

struct ChunkedReader<'a> {
    file: &'a Chunked,
    at: u64,
    /// The chunk of the first address that was read.
    first: u64,
    addresses: Vec<u32>,
}

impl ChunkedReader<'_> {
    /// The block where the chunk at this place in the file begins; nothing for a hole.
    fn address(&mut self) -> Result<Option<u32>> {
        /// Addresses that are read at once.
        const MANY: u64 = 1024;
        let file = self.file;
        let chunk = self.at / file.chunk;
        let known = |reader: &Self| {
            let index = usize::try_from(chunk.checked_sub(reader.first)?).ok()?;
            reader.addresses.get(index).copied()
        };
        let address = match known(self) {
            Some(address) => address,
            None => {
                let count = file
                    .len
                    .div_ceil(file.chunk)
                    .saturating_sub(chunk)
                    .min(MANY);
                let mut bytes = vec![0; count.saturating_mul(file.entry) as usize];
                let table = file.table.saturating_add(chunk.saturating_mul(file.entry));
                file.volume.bytes(&mut bytes, table)?;
                // The address comes last (`struct erofs_inode_chunk_index`).
                self.addresses = bytes
                    .chunks_exact(file.entry as usize)
                    .filter_map(|entry| entry.last_chunk().copied())
                    .map(u32::from_le_bytes)
                    .collect();
                self.first = chunk;
                known(self).unwrap_or(NULL_BLOCK)
            }
        };
        Ok((address != NULL_BLOCK).then_some(address))
    }

    /// How many bytes of the chunk at this place come from here on.
    fn rest_of_chunk(&self) -> u64 {
        let within = self.at % self.file.chunk;
        let left = self.file.len.saturating_sub(self.at);
        self.file.chunk.saturating_sub(within).min(left)
    }
}

impl StoredReader for ChunkedReader<'_> {
    fn skip_hole(&mut self) -> Result<u64> {
        let start = self.at;
        while self.at < self.file.len && self.address()?.is_none() {
            self.at = self.at.saturating_add(self.rest_of_chunk());
        }
        // Chunks may be shorter than the pieces that holes are counted in.
        if self.at < self.file.len {
            self.at = start.max(self.at & !4095);
        }
        Ok(self.at.saturating_sub(start))
    }

    fn fill(&mut self, piece: &mut [u8]) -> Result<()> {
        let mut rest = piece;
        while !rest.is_empty() {
            let count = usize::try_from(self.rest_of_chunk())
                .unwrap_or(usize::MAX)
                .min(rest.len());
            let (part, behind) = rest.split_at_mut(count);
            if part.is_empty() {
                return Err(self.file.volume.bad(&"a file without an end"));
            }
            match self.address()? {
                None => part.fill(0),
                Some(block) => {
                    let from = u64::from(block)
                        .saturating_mul(self.file.block)
                        .saturating_add(self.at % self.file.chunk);
                    self.file.volume.bytes(part, from)?;
                }
            }
            self.at = self.at.saturating_add(count as u64);
            rest = behind;
        }
        Ok(())
    }
}

struct Reader<'a> {
    volume: &'a Arc<Volume>,
    tree: Tree,
    /// The first name of each inode that has several.
    links: HashMap<u64, Vec<u8>>,
    directories: HashSet<u64>,
    kept: Kept,
}

impl Reader<'_> {
    /// Puts one inode into the tree.
    fn take(&mut self, name: &[u8], inode: DiskInode) -> Result<()> {
        let volume = self.volume;
        let bad = |error: &dyn std::fmt::Display| volume.bad(error);
        if name.len() > MAX_PATH || !self.kept.room(name.len()) {
            return Err(bad(&"names without end"));
        }
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
            Kind::File(volume.content(inode)?)
        } else if kind.is_symlink() {
            if inode.data_size() > MAX_TARGET {
                return Err(bad(&"a symbolic link with too long a target"));
            }
            let target = ready(volume.image.read_link_inode(inode)).map_err(|error| bad(&error))?;
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
        taken.xattrs = ready(volume.image.xattrs_inode(inode)).map_err(|error| bad(&error))?;
        if !taken
            .xattrs
            .iter()
            .all(|(name, value)| self.kept.attribute(name, value))
        {
            return Err(bad(&"attributes without end"));
        }
        self.tree.insert(name, taken)?;
        Ok(())
    }
}
