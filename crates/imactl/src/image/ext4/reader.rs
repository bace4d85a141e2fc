//! Reads ext4 file systems (and ext2 and ext3, which are the same format with less in it) into a tree.
//!
//! Nothing of an image is trusted: each block of metadata is read at most once, so no loop and no sharing makes an image
//! larger than it is; lengths are compared with the image's before anything is made of them; where the metadata has
//! checksums, they are verified as the kernel does. The content of files is not read: the tree says where it lies.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ima::fault::{Cause, Code, Fault};

use super::format::{
    EXTENT_MAGIC, EXTENTS_FLAG, MAX_EXTENT, ROOT, XATTR_MAGIC, XATTR_PREFIXES, acl_from_disk,
    crc32c, is_acl,
};
use crate::Result;
use crate::file::unreadable;
use crate::image::bounds::damaged;
use crate::image::programs::{copy, missing_tool, path_with_sbin};
use crate::tree::{self, Content, InodeIndex, Kind, Run, Timestamp, Tree};

/// The deepest directory that is gone into: PATH_MAX has room for no more.
const MAX_DEPTH: usize = 2048;
/// The longest value of an attribute that the kernel hands out (include/uapi/linux/limits.h, XATTR_SIZE_MAX).
const MAX_XATTR: u64 = 65_536;
/// The most bytes of attributes that are taken from an image: blocks of attributes may be shared, so the image's length is no
/// bound.
const MAX_ATTRIBUTES: usize = 1 << 30;
/// The longest target of a symbolic link, PATH_MAX.
const MAX_TARGET: u64 = 4096;
/// The deepest extent tree (fs/ext4/ext4_extents.h, EXT4_MAX_EXTENT_DEPTH).
const MAX_EXTENT_DEPTH: u16 = 5;

const INLINE_DATA_FLAG: u32 = 0x1000_0000;
const EA_INODE_FLAG: u32 = 0x20_0000;
const ENCRYPT_FLAG: u32 = 0x800;

const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;

const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_JOURNAL_DEVICE: u32 = 0x8;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
const INCOMPAT_LARGE_DIR: u32 = 0x4000;
/// Features that the kernel reads (fs/ext4/ext4.h, EXT4_FEATURE_INCOMPAT_SUPP): file types, meta_bg, extents, 64bit, mmp,
/// flex_bg, ea_inode, metadata_csum_seed, large_dir, inline_data, encrypt and casefold.
const INCOMPAT_KNOWN: u32 = 0x2
    | INCOMPAT_META_BG
    | 0x40
    | INCOMPAT_64BIT
    | 0x100
    | 0x200
    | 0x400
    | INCOMPAT_CSUM_SEED
    | INCOMPAT_LARGE_DIR
    | 0x8000
    | 0x1_0000
    | 0x2_0000;

/// Reads an image. The content of its files stays in it.
///
/// # Errors
///
/// [`Code::InputUnreadable`] if it cannot be read, [`Code::SourceMalformed`] if it is not an ext4 file system, or damaged.
pub fn read(path: &Path) -> Result<Tree> {
    read_numbered(path).map(|(tree, _)| tree)
}

/// Reads an image and returns the numbers of its inodes.
///
/// # Errors
///
/// As [`read`].
pub fn read_numbered(path: &Path) -> Result<(Tree, HashMap<InodeIndex, u32>)> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    read_file(file).or_else(|failure| match failure {
        Failure::NeedsRecovery => {
            read_file(recovered(path)?).map_err(|failure| failure.fault(path))
        }
        failure => Err(failure.fault(path)),
    })
}

/// A copy of the image with what its journal holds, as the kernel sees it after mounting: e2fsck plays it back.
fn recovered(path: &Path) -> Result<File> {
    let mut copied = tempfile::NamedTempFile::new()
        .map_err(|error| Fault::new(Code::OutputUnwritable, format!("temporary file: {error}")))?;
    let name = copied.path().to_owned();
    copy(path, &name, copied.as_file_mut())?;
    let output = Command::new("e2fsck")
        .args(["-y", "-E", "journal_only"])
        .arg(&name)
        .env("PATH", path_with_sbin())
        .output()
        .map_err(|error| missing_tool("e2fsck", "e2fsprogs", &error))?;
    // 1: errors were corrected, which is what playing back a journal counts as.
    if !matches!(output.status.code(), Some(0 | 1)) {
        let said = String::from_utf8_lossy(&output.stderr);
        let detail = format!("{}: its journal cannot be played back", path.display());
        return Err(Fault::new(Code::SourceMalformed, detail).because(
            Cause::JOURNAL_NOT_REPLAYED.with(&[said.trim().lines().last().unwrap_or("nothing")]),
        ));
    }
    File::open(&name).map_err(|error| unreadable(&name, &error))
}

/// Why an image was not read.
#[derive(Debug)]
enum Failure {
    /// Reading it failed.
    Unreadable(std::io::Error),
    /// Something in it cannot be.
    Damaged(String),
    /// It is sound, but cannot be read here: what and why.
    Unsupported(String, Cause),
    /// It was not unmounted, and its journal holds changes.
    NeedsRecovery,
    /// From the tree.
    Fault(Fault),
}

impl Failure {
    fn fault(self, path: &Path) -> Fault {
        match self {
            Self::Unreadable(error) => unreadable(path, &error),
            Self::Damaged(what) => damaged(path, "ext4", "e2fsck -fn", &what),
            Self::Unsupported(what, cause) => {
                let detail = format!("{}: {what}", path.display());
                Fault::new(Code::SourceMalformed, detail).because(cause)
            }
            Self::NeedsRecovery => damaged(
                path,
                "ext4",
                "e2fsck -fn",
                &"its journal does not become empty",
            ),
            Self::Fault(fault) => fault,
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

type Read<T> = std::result::Result<T, Failure>;

fn bad<T>(what: impl Into<String>) -> Read<T> {
    Err(Failure::Damaged(what.into()))
}

/// Little-endian fields of a structure of the disk; what is beyond its end is damage.
trait Fields {
    fn bytes<const N: usize>(&self, at: usize) -> Read<[u8; N]>;

    fn u16(&self, at: usize) -> Read<u16> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Read<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    /// A number in two fields.
    fn wide(&self, low: usize, high: usize) -> Read<u64> {
        Ok(u64::from(self.u32(high)?) << 32 | u64::from(self.u32(low)?))
    }
}

impl Fields for [u8] {
    fn bytes<const N: usize>(&self, at: usize) -> Read<[u8; N]> {
        match self.get(at..).and_then(|rest| rest.first_chunk().copied()) {
            Some(bytes) => Ok(bytes),
            None => bad("a structure is cut off"),
        }
    }
}

fn range(bytes: &[u8], range: std::ops::Range<usize>) -> Read<&[u8]> {
    match bytes.get(range) {
        Some(part) => Ok(part),
        None => bad("a structure is cut off"),
    }
}

/// A time of its two fields: the second has the seconds' 33rd and 34th bit and the nanoseconds (fs/ext4/ext4.h,
/// `ext4_decode_extra_time`).
fn timestamp(seconds: u32, extra: u32) -> Timestamp {
    Timestamp {
        seconds: i64::from(seconds.cast_signed()) + (i64::from(extra & 3) << 32),
        nanoseconds: (extra >> 2).min(999_999_999),
    }
}

/// An inode as it lies on the disk.
struct Inode {
    number: u32,
    raw: Vec<u8>,
    mode: u16,
    flags: u32,
    size: u64,
    /// Where the checksums of its blocks begin, if the file system has checksums.
    seed: Option<u32>,
}

impl Inode {
    /// The type bits of the mode (include/uapi/linux/stat.h).
    const fn kind(&self) -> u16 {
        self.mode & 0o170_000
    }

    fn is_directory(&self) -> bool {
        self.kind() == 0o040_000
    }

    const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Block numbers, an extent tree's root, a short target or a device number.
    fn block(&self) -> Read<&[u8]> {
        range(&self.raw, 0x28..0x64)
    }

    /// What lies behind the fields that every inode has: up to where, and the attributes.
    fn extra(&self) -> Read<Option<&[u8]>> {
        if self.raw.len() <= 128 {
            return Ok(None);
        }
        let extra = usize::from(self.raw.u16(0x80)?);
        if !extra.is_multiple_of(4) {
            return bad(format!("inode {}: a malformed length", self.number));
        }
        range(&self.raw, 128 + extra..self.raw.len()).map(Some)
    }

    /// Whether a field of two or four bytes at this place is in use.
    fn reaches(&self, end: usize) -> Read<bool> {
        Ok(self.raw.len() > 128 && end <= 128 + usize::from(self.raw.u16(0x80)?))
    }
}

/// The attributes of an inode.
#[derive(Default)]
struct Attributes {
    shown: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What does not fit into the inode of a file with inline data.
    inline_data: Vec<u8>,
}

/// An entry of a directory.
struct Entry {
    name: Vec<u8>,
    inode: u32,
}

/// A file system that is being read.
struct Volume {
    file: Arc<File>,
    block_size: u64,
    blocks: u64,
    first_block: u64,
    /// The block of the superblock.
    superblock: u64,
    blocks_per_group: u64,
    inodes: u32,
    first_inode: u32,
    inodes_per_group: u32,
    inode_size: usize,
    descriptor_size: u64,
    /// With meta_bg, from which block of descriptors on they lie in their groups.
    first_meta_group: Option<u64>,
    backups: Backups,
    /// Whether directories may have 4 GiB and more.
    large_directories: bool,
    /// Where checksums begin, if there are any.
    seed: Option<u32>,
    /// Where each group's inode table begins.
    tables: HashMap<u64, u64>,
    /// Blocks of metadata that were read: none belongs to two files, nor twice to one.
    claimed: HashSet<u64>,
    /// Values that lie in inodes of their own, which files may share.
    values: HashMap<u32, Vec<u8>>,
    attributes: usize,
}

/// Which groups have a copy of the superblock (fs/ext4/balloc.c, `ext4_bg_has_super`).
enum Backups {
    All,
    Powers,
    Listed([u32; 2]),
}

impl Backups {
    fn contain(&self, group: u64) -> bool {
        let power_of = |base: u64| {
            let mut rest = group;
            while rest.is_multiple_of(base) {
                rest /= base;
            }
            rest == 1
        };
        match self {
            _ if group == 0 => true,
            Self::All => true,
            Self::Powers => group == 1 || power_of(3) || power_of(5) || power_of(7),
            Self::Listed(groups) => groups.iter().any(|listed| u64::from(*listed) == group),
        }
    }
}

impl Volume {
    fn open(mut file: File) -> Read<Self> {
        // Also the length of a device.
        let length = file.seek(SeekFrom::End(0)).map_err(Failure::Unreadable)?;
        let mut superblock = [0; 1024];
        if let Err(error) = file.read_exact_at(&mut superblock, 1024) {
            return match error.kind() {
                std::io::ErrorKind::UnexpectedEof => bad("it has no superblock"),
                _ => Err(Failure::Unreadable(error)),
            };
        }
        let superblock = &superblock[..];
        if superblock.u16(0x38)? != 0xef53 {
            return bad("it has no superblock of ext4");
        }
        let revision = superblock.u32(0x4c)?;
        let [compat, incompat, ro_compat] = if revision == 0 {
            [0; 3]
        } else {
            [
                superblock.u32(0x5c)?,
                superblock.u32(0x60)?,
                superblock.u32(0x64)?,
            ]
        };
        if incompat & INCOMPAT_JOURNAL_DEVICE != 0 {
            return Err(Failure::Unsupported(
                "it is the journal of another file system".to_owned(),
                Cause::EXTERNAL_JOURNAL,
            ));
        }
        let unknown = incompat & !(INCOMPAT_KNOWN | INCOMPAT_RECOVER);
        if unknown != 0 {
            return Err(Failure::Unsupported(
                format!("feature flags {unknown:#x} (s_feature_incompat)"),
                Cause::UNKNOWN_FEATURES,
            ));
        }
        let seed = if ro_compat & RO_COMPAT_METADATA_CSUM == 0 {
            None
        } else {
            if crc32c(u32::MAX, range(superblock, 0..0x3fc)?) != superblock.u32(0x3fc)? {
                return bad("its superblock has another checksum");
            }
            Some(if incompat & INCOMPAT_CSUM_SEED == 0 {
                crc32c(u32::MAX, range(superblock, 0x68..0x78)?)
            } else {
                superblock.u32(0x270)?
            })
        };
        if incompat & INCOMPAT_RECOVER != 0 {
            return Err(Failure::NeedsRecovery);
        }
        let wide = incompat & INCOMPAT_64BIT != 0;
        let block_size = match superblock.u32(0x18)? {
            log @ 0..=6 => 1024_u64 << log,
            log => return bad(format!("blocks of 2^{log} KiB")),
        };
        let blocks = if wide {
            superblock.wide(4, 0x150)?
        } else {
            u64::from(superblock.u32(4)?)
        };
        if blocks
            .checked_mul(block_size)
            .is_none_or(|claimed| claimed > length)
        {
            return bad("the image is shorter than its file system");
        }
        let (inode_size, first_inode) = if revision == 0 {
            (128, 11)
        } else {
            (superblock.u16(0x58)?, superblock.u32(0x54)?)
        };
        if !inode_size.is_power_of_two() || inode_size < 128 || u64::from(inode_size) > block_size {
            return bad(format!("inodes of {inode_size} bytes"));
        }
        let descriptor_size = match superblock.u16(0xfe)? {
            _ if !wide => 32,
            size if size.is_power_of_two() && size >= 64 && u64::from(size) <= block_size => {
                u64::from(size)
            }
            size => return bad(format!("group descriptors of {size} bytes")),
        };
        let blocks_per_group = u64::from(superblock.u32(0x20)?);
        let inodes_per_group = superblock.u32(0x28)?;
        if blocks_per_group == 0 || inodes_per_group == 0 {
            return bad("groups of no blocks or no inodes");
        }
        let backups = if compat & COMPAT_SPARSE_SUPER2 != 0 {
            Backups::Listed([superblock.u32(0x24c)?, superblock.u32(0x250)?])
        } else if ro_compat & RO_COMPAT_SPARSE_SUPER != 0 {
            Backups::Powers
        } else {
            Backups::All
        };
        let first_meta_group = (incompat & INCOMPAT_META_BG != 0)
            .then(|| superblock.u32(0x104))
            .transpose()?;
        Ok(Self {
            file: Arc::new(file),
            block_size,
            blocks,
            first_block: u64::from(superblock.u32(0x14)?),
            superblock: 1024 / block_size,
            blocks_per_group,
            inodes: superblock.u32(0)?,
            first_inode,
            inodes_per_group,
            inode_size: usize::from(inode_size),
            descriptor_size,
            first_meta_group: first_meta_group.map(u64::from),
            backups,
            large_directories: incompat & INCOMPAT_LARGE_DIR != 0,
            seed,
            tables: HashMap::new(),
            claimed: HashSet::new(),
            values: HashMap::new(),
            attributes: 0,
        })
    }

    /// Bytes from anywhere in the file system. `length` is at most a block's.
    fn bytes(&self, at: u64, length: usize) -> Read<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, at)
            .map_err(Failure::Unreadable)?;
        Ok(bytes)
    }

    /// The position of a block, which must be one that files may have (fs/ext4/block_validity.c).
    fn position(&self, block: u64) -> Read<u64> {
        if block <= self.first_block || block >= self.blocks {
            return bad(format!("block {block} of {}", self.blocks));
        }
        // Below the image's length.
        Ok(block * self.block_size)
    }

    /// Reads a block of metadata that belongs to one file.
    fn claim(&mut self, block: u64) -> Read<Vec<u8>> {
        let at = self.position(block)?;
        if !self.claimed.insert(block) {
            return bad(format!("block {block} is in use twice"));
        }
        self.bytes(at, self.block_size as usize)
    }

    /// The block of a group's inode table (fs/ext4/super.c, `descriptor_loc`).
    fn inode_table(&mut self, group: u64) -> Read<u64> {
        if let Some(table) = self.tables.get(&group) {
            return Ok(*table);
        }
        let per_block = self.block_size / self.descriptor_size;
        let (block, within) = (group / per_block, group % per_block);
        let block = if self.first_meta_group.is_none_or(|first| block < first) {
            self.superblock.saturating_add(block).saturating_add(1)
        } else {
            let first = block.saturating_mul(per_block);
            let mut start = first
                .saturating_mul(self.blocks_per_group)
                .saturating_add(self.first_block)
                .saturating_add(u64::from(self.backups.contain(first)));
            // Blocks of 1 KiB counted from 0, as bigalloc has them: the superblock is the second.
            if self.block_size == 1024 && block == 0 && self.first_block == 0 {
                start = start.saturating_add(1);
            }
            start
        };
        let at = self.position(block)? + within * self.descriptor_size;
        let mut descriptor = self.bytes(at, self.descriptor_size as usize)?;
        let table = if self.descriptor_size >= 64 {
            descriptor.wide(8, 0x28)?
        } else {
            u64::from(descriptor.u32(8)?)
        };
        if let Some(seed) = self.seed {
            let stored = descriptor.u16(0x1e)?;
            if let Some(field) = descriptor.get_mut(0x1e..0x20) {
                field.fill(0);
            }
            let crc = crc32c(seed, &(group as u32).to_le_bytes());
            if crc32c(crc, &descriptor) as u16 != stored {
                return bad(format!(
                    "the descriptor of group {group} has another checksum"
                ));
            }
        }
        self.tables.insert(group, table);
        Ok(table)
    }

    /// Reads an inode that is in use.
    fn inode(&mut self, number: u32) -> Read<Inode> {
        let reserved = number < self.first_inode && number != ROOT;
        if number == 0 || number > self.inodes || reserved {
            return bad(format!("inode {number}, which no file can have"));
        }
        let index = number - 1;
        let table = self.inode_table(u64::from(index / self.inodes_per_group))?;
        let within = u64::from(index % self.inodes_per_group) * self.inode_size as u64;
        let at = self.position(table.saturating_add(within / self.block_size))?
            + within % self.block_size;
        let raw = self.bytes(at, self.inode_size)?;
        let mode = raw.u16(0)?;
        // Others have something else there (fs/ext4/ext4.h, `ext4_isize`).
        let size = if self.large_directories || mode & 0o170_000 == 0o100_000 {
            raw.wide(4, 0x6c)?
        } else {
            u64::from(raw.u32(4)?)
        };
        let mut inode = Inode {
            number,
            mode,
            flags: raw.u32(0x20)?,
            size,
            seed: None,
            raw,
        };
        if let Some(seed) = self.seed {
            let seed = crc32c(seed, &number.to_le_bytes());
            inode.seed = Some(crc32c(seed, range(&inode.raw, 0x64..0x68)?));
            self.check_inode(&inode)?;
        }
        if mode == 0 || inode.raw.u16(0x1a)? == 0 {
            return bad(format!("inode {number} is in use, and was deleted"));
        }
        // As far as the kernel counts blocks of a file.
        if size > self.block_size << 32 {
            return bad(format!("inode {number}: {size} bytes"));
        }
        Ok(inode)
    }

    /// Compares an inode's checksum (fs/ext4/inode.c, `ext4_inode_csum`).
    fn check_inode(&self, inode: &Inode) -> Read<()> {
        let Some(seed) = inode.seed else {
            return Ok(());
        };
        let mut raw = inode.raw.clone();
        let low = raw.u16(0x7c)?;
        let high = if inode.reaches(0x84)? {
            Some(raw.u16(0x82)?)
        } else {
            None
        };
        for at in std::iter::once(0x7c).chain(high.map(|_| 0x82)) {
            if let Some(field) = raw.get_mut(at..at + 2) {
                field.fill(0);
            }
        }
        let crc = crc32c(seed, &raw);
        if crc as u16 != low || high.is_some_and(|high| (crc >> 16) as u16 != high) {
            return bad(format!("inode {} has another checksum", inode.number));
        }
        Ok(())
    }

    /// Where the data of an inode lies.
    fn runs(&mut self, inode: &Inode) -> Read<Vec<Run>> {
        let block = inode.block()?.to_vec();
        let mut runs = Runs {
            block_size: self.block_size,
            runs: Vec::new(),
        };
        if inode.has(EXTENTS_FLAG) {
            self.extents(inode, &block, None, &mut runs)?;
        } else {
            let mut logical = 0;
            for level in [0_u32; 12]
                .into_iter()
                .chain([1, 2, 3])
                .zip(block.chunks(4))
            {
                let (level, pointer) = level;
                self.pointer(pointer.u32(0)?, level, &mut logical, &mut runs)?;
            }
        }
        Ok(runs.runs)
    }

    /// A node of an extent tree (`Documentation/filesystems/ext4/ifork.rst`). `depth` is what its parent says.
    fn extents(
        &mut self,
        inode: &Inode,
        node: &[u8],
        depth: Option<u16>,
        runs: &mut Runs,
    ) -> Read<()> {
        let found = node.u16(6)?;
        let (entries, most) = (node.u16(2)?, node.u16(4)?);
        if node.u16(0)? != EXTENT_MAGIC
            || entries > most
            || found > MAX_EXTENT_DEPTH
            || depth.is_some_and(|depth| depth != found)
        {
            return bad(format!("inode {}: a malformed extent tree", inode.number));
        }
        if let (Some(seed), Some(_)) = (inode.seed, depth) {
            let end = 12 + 12 * usize::from(most);
            if crc32c(seed, range(node, 0..end)?) != node.u32(end)? {
                let what = "a block of its extent tree has another checksum";
                return bad(format!("inode {}: {what}", inode.number));
            }
        }
        for at in (12..).step_by(12).take(usize::from(entries)) {
            let entry = range(node, at..at + 12)?;
            let logical = u64::from(entry.u32(0)?);
            if let Some(below) = found.checked_sub(1) {
                let child = u64::from(entry.u16(8)?) << 32 | u64::from(entry.u32(4)?);
                let child = self.claim(child)?;
                self.extents(inode, &child, Some(below), runs)?;
                continue;
            }
            let first = u64::from(entry.u16(6)?) << 32 | u64::from(entry.u32(8)?);
            let (len, written) = match entry.u16(4)? {
                len if len > MAX_EXTENT => (len - MAX_EXTENT, false),
                len => (len, true),
            };
            let last = first.saturating_add(u64::from(len).saturating_sub(1));
            self.position(last)?;
            let from = self.position(first)?;
            if len == 0 || !runs.reach_up_to(logical) {
                return bad(format!("inode {}: a malformed extent", inode.number));
            }
            runs.push(logical, from, u64::from(len), written);
        }
        Ok(())
    }

    /// A block, or at a level above 0 a block of block numbers, of a file without extents.
    fn pointer(&mut self, block: u32, level: u32, logical: &mut u64, runs: &mut Runs) -> Read<()> {
        let per_block = self.block_size / 4;
        if block == 0 {
            // At most 16384 to the power of 3, four times.
            *logical += per_block.pow(level);
            return Ok(());
        }
        let Some(below) = level.checked_sub(1) else {
            let from = self.position(u64::from(block))?;
            runs.push(*logical, from, 1, true);
            *logical += 1;
            return Ok(());
        };
        let pointers = self.claim(u64::from(block))?;
        for pointer in pointers.chunks_exact(4) {
            self.pointer(pointer.u32(0)?, below, logical, runs)?;
        }
        Ok(())
    }

    /// The data of a file with inline data: in the inode, and carried on in an attribute.
    fn inline_data(inode: &Inode, attributes: &Attributes) -> Read<Vec<u8>> {
        let mut data = [inode.block()?, &attributes.inline_data].concat();
        match usize::try_from(inode.size) {
            Ok(size) if size <= data.len() => data.truncate(size),
            _ => return bad(format!("inode {}: inline data is missing", inode.number)),
        }
        Ok(data)
    }

    fn entries(&mut self, inode: &Inode, attributes: &Attributes) -> Read<Vec<Entry>> {
        let mut entries = Vec::new();
        if inode.has(INLINE_DATA_FLAG) {
            // The number of the directory above comes first (fs/ext4/inline.c, `ext4_get_inline_dir_parent` and others).
            self.parse_entries(range(inode.block()?, 4..60)?, &mut entries)?;
            self.parse_entries(&attributes.inline_data, &mut entries)?;
            return Ok(entries);
        }
        for run in self.runs(inode)? {
            // The tree of hashes is passed over: its blocks look like blocks with unused entries.
            let end = run.end().min(inode.size);
            for at in (run.at..end).step_by(self.block_size as usize) {
                let block = self.claim((run.from + (at - run.at)) / self.block_size)?;
                self.check_directory_block(inode, &block)?;
                self.parse_entries(&block, &mut entries)?;
            }
        }
        Ok(entries)
    }

    /// Compares the checksum of a block of entries (`struct ext4_dir_entry_tail`); blocks of the tree of hashes have none
    /// there.
    fn check_directory_block(&self, inode: &Inode, block: &[u8]) -> Read<()> {
        let (Some(seed), Some((entries, tail))) = (inode.seed, block.split_last_chunk::<12>())
        else {
            return Ok(());
        };
        let [0, 0, 0, 0, 12, 0, 0, 0xde, stored @ ..] = tail else {
            return Ok(());
        };
        if crc32c(seed, entries) != u32::from_le_bytes(*stored) {
            return bad(format!(
                "directory {}: a block has another checksum",
                inode.number
            ));
        }
        Ok(())
    }

    /// Takes the entries of a block (fs/ext4/dir.c, `__ext4_check_dir_entry`).
    fn parse_entries(&self, block: &[u8], entries: &mut Vec<Entry>) -> Read<()> {
        let mut at = 0;
        while at < block.len() {
            let inode = block.u32(at)?;
            let [name_len, _] = block.bytes(at + 6)?;
            // Blocks of 64 KiB have lengths that two bytes do not hold (`ext4_rec_len_from_disk`).
            let len = match usize::from(block.u16(at + 4)?) {
                0 | 0xffff if self.block_size == 65_536 => 65_536,
                len => len & 0xfffc | (len & 3) << 16,
            };
            let name = range(block, at + 8..at + 8 + usize::from(name_len))?;
            if len < 12 || 8 + name.len() > len || at + len > block.len() {
                return bad("a malformed entry of a directory");
            }
            at += len;
            if inode == 0 || matches!(name, b"." | b"..") {
                continue;
            }
            if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
                return bad("a name that no file can have");
            }
            entries.push(Entry {
                name: name.to_vec(),
                inode,
            });
        }
        Ok(())
    }

    /// All attributes of an inode: in it, and in a block of its own.
    fn attributes(&mut self, inode: &Inode) -> Read<Attributes> {
        let mut attributes = Attributes::default();
        if let Some(area) = inode.extra()?
            && area.get(..4) == Some(&XATTR_MAGIC.to_le_bytes())
        {
            let area = range(area, 4..area.len())?.to_vec();
            self.parse_attributes(&area, 0, &mut attributes)?;
        }
        let block = u64::from(inode.raw.u16(0x76)?) << 32 | u64::from(inode.raw.u32(0x68)?);
        if block != 0 {
            let at = self.position(block)?;
            let mut bytes = self.bytes(at, self.block_size as usize)?;
            if bytes.u32(0)? != XATTR_MAGIC || bytes.u32(8)? != 1 {
                return bad(format!("block {block}: malformed attributes"));
            }
            if let Some(seed) = self.seed {
                let stored = bytes.u32(16)?;
                if let Some(field) = bytes.get_mut(16..20) {
                    field.fill(0);
                }
                if crc32c(crc32c(seed, &block.to_le_bytes()), &bytes) != stored {
                    return bad(format!("block {block}: attributes with another checksum"));
                }
            }
            self.parse_attributes(&bytes, 32, &mut attributes)?;
        }
        Ok(attributes)
    }

    /// Takes attributes: entries from `at` on, whose values lie at offsets into `area`.
    fn parse_attributes(&mut self, area: &[u8], mut at: usize, to: &mut Attributes) -> Read<()> {
        // Four zero bytes end the list; so does the area's end in an inode.
        while area.len() >= at + 4 && area.u32(at)? != 0 {
            let [name_len, index] = area.bytes(at)?;
            let offset = usize::from(area.u16(at + 2)?);
            let value_inode = area.u32(at + 4)?;
            let size = area.u32(at + 8)?;
            if u64::from(size) > MAX_XATTR {
                return bad(format!("an attribute of {size} bytes"));
            }
            let rest = range(area, at + 16..at + 16 + usize::from(name_len))?;
            let value = if value_inode == 0 {
                // An empty value may have any offset.
                let offset = if size == 0 { 0 } else { offset };
                range(area, offset..offset + size as usize)?.to_vec()
            } else {
                self.value(value_inode, size)?
            };
            at += (16 + rest.len()).next_multiple_of(4);
            self.attributes += 64 + rest.len() + value.len();
            if self.attributes > MAX_ATTRIBUTES {
                return Err(Failure::Unsupported(
                    format!("attributes of more than {MAX_ATTRIBUTES} bytes"),
                    Cause::TOO_MANY_ATTRIBUTES,
                ));
            }
            if index == 7 && rest == b"data" {
                to.inline_data = value;
                continue;
            }
            // Others are the kernel's own (the context of encryption), or of no kernel: it does not show them.
            let Some((_, prefix)) = XATTR_PREFIXES.iter().find(|(known, _)| *known == index) else {
                continue;
            };
            let value = match acl_from_disk(&value) {
                _ if !is_acl(index) => value,
                Some(acl) => acl,
                None => return bad("a malformed ACL"),
            };
            // The kernel takes the first it finds.
            to.shown.entry([prefix, rest].concat()).or_insert(value);
        }
        Ok(())
    }

    /// A value that lies in an inode of its own (feature ea_inode).
    fn value(&mut self, number: u32, size: u32) -> Read<Vec<u8>> {
        let value = match self.values.get(&number) {
            Some(value) => value.clone(),
            None => {
                let inode = self.inode(number)?;
                if !inode.has(EA_INODE_FLAG) {
                    return bad(format!("inode {number} is not an attribute's value"));
                }
                let value = self.whole(&inode, MAX_XATTR)?;
                self.values.insert(number, value.clone());
                value
            }
        };
        if value.len() != size as usize {
            return bad(format!("inode {number} is not a value of {size} bytes"));
        }
        Ok(value)
    }

    /// The data of a short file.
    fn whole(&mut self, inode: &Inode, most: u64) -> Read<Vec<u8>> {
        if inode.size > most {
            return bad(format!("inode {}: {} bytes", inode.number, inode.size));
        }
        Ok(self.content(inode)?.head(most as usize)?)
    }

    fn content(&mut self, inode: &Inode) -> Read<Content> {
        Ok(Content::Mapped {
            runs: self.runs(inode)?.into(),
            file: Arc::clone(&self.file),
            len: inode.size,
        })
    }

    /// What an inode is; a directory's entries come beside it.
    fn kind(&mut self, inode: &Inode, attributes: &Attributes) -> Read<(Kind, Vec<Entry>)> {
        if inode.has(ENCRYPT_FLAG) {
            return Err(Failure::Unsupported(
                format!("inode {} is encrypted", inode.number),
                Cause::ENCRYPTED_FILES,
            ));
        }
        let kind = match inode.kind() {
            0o040_000 => return Ok((Kind::Directory, self.entries(inode, attributes)?)),
            0o100_000 if inode.has(INLINE_DATA_FLAG) => {
                Kind::File(Content::Bytes(Self::inline_data(inode, attributes)?.into()))
            }
            0o100_000 => Kind::File(self.content(inode)?),
            0o120_000 if inode.has(INLINE_DATA_FLAG) => {
                Kind::Symlink(Self::inline_data(inode, attributes)?)
            }
            // Targets of less than 60 bytes lie where the block numbers would (`ext4_inode_is_fast_symlink`).
            0o120_000 if inode.size < 60 && !inode.has(EXTENTS_FLAG) => {
                Kind::Symlink(range(inode.block()?, 0..inode.size as usize)?.to_vec())
            }
            0o120_000 => Kind::Symlink(self.whole(inode, MAX_TARGET)?),
            0o020_000 => {
                let (major, minor) = device(inode.block()?)?;
                Kind::CharacterDevice(major, minor)
            }
            0o060_000 => {
                let (major, minor) = device(inode.block()?)?;
                Kind::BlockDevice(major, minor)
            }
            0o010_000 => Kind::Fifo,
            0o140_000 => Kind::Socket,
            _ => return bad(format!("inode {}: mode {:o}", inode.number, inode.mode)),
        };
        Ok((kind, Vec::new()))
    }
}

/// A device number, in the older or the newer form (fs/ext4/inode.c, `__ext4_iget`; include/linux/kdev_t.h).
fn device(block: &[u8]) -> Read<(u32, u32)> {
    Ok(match (block.u32(0)?, block.u32(4)?) {
        (0, new) => ((new >> 8) & 0xfff, (new & 0xff) | ((new >> 12) & 0xf_ff00)),
        (old, _) => ((old >> 8) & 0xff, old & 0xff),
    })
}

/// Collects where a file lies, neighbours as one.
struct Runs {
    block_size: u64,
    runs: Vec<Run>,
}

impl Runs {
    /// Whether nothing lies at or behind that block of the file.
    fn reach_up_to(&self, logical: u64) -> bool {
        let at = logical * self.block_size;
        self.runs.last().is_none_or(|last| last.end() <= at)
    }

    fn push(&mut self, logical: u64, from: u64, len: u64, written: bool) {
        if !written {
            return;
        }
        let (at, len) = (logical * self.block_size, len * self.block_size);
        match self.runs.last_mut() {
            Some(last) if last.end() == at && last.from + last.len == from => last.len += len,
            _ => self.runs.push(Run { at, from, len }),
        }
    }
}

fn read_file(file: File) -> Read<(Tree, HashMap<InodeIndex, u32>)> {
    let mut volume = Volume::open(file)?;
    let mut tree = Tree::new();
    let mut numbers = HashMap::new();
    // The first name of each inode.
    let mut seen: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut todo = vec![(Vec::new(), ROOT)];
    while let Some((name, number)) = todo.pop() {
        let inode = match seen.get(&number) {
            None => volume.inode(number)?,
            Some(first)
                if tree.get(first).is_some_and(|inode| {
                    // Without this a few directories that contain one another would be names without end.
                    matches!(inode.kind, Kind::Directory)
                }) =>
            {
                return bad("a directory with two names");
            }
            Some(first) => {
                let first = first.clone();
                tree.link(&name, &first)?;
                continue;
            }
        };
        if name.is_empty() && !inode.is_directory() {
            return bad("its root is not a directory");
        }
        seen.insert(number, name.clone());
        let attributes = volume.attributes(&inode)?;
        let (kind, entries) = volume.kind(&inode, &attributes)?;
        let mut taken = tree::Inode::new(kind, inode.mode);
        let id = |low, high| -> Read<u32> {
            Ok(u32::from(inode.raw.u16(high)?) << 16 | u32::from(inode.raw.u16(low)?))
        };
        (taken.uid, taken.gid) = (id(0x02, 0x78)?, id(0x18, 0x7a)?);
        let extra = if inode.reaches(0x8c)? {
            inode.raw.u32(0x88)?
        } else {
            0
        };
        taken.mtime = timestamp(inode.raw.u32(0x10)?, extra);
        taken.xattrs = attributes.shown;
        if let (true, Some(root)) = (name.is_empty(), tree.get_mut(b"")) {
            *root = taken;
        } else {
            let index = tree.insert(&name, taken)?;
            numbers.insert(index, number);
        }
        if name.iter().filter(|byte| **byte == b'/').count() > MAX_DEPTH {
            return bad("directories below one another without end");
        }
        let mut children = HashSet::new();
        for entry in entries {
            if !children.insert(entry.name.clone()) {
                return bad(format!("directory {number} has the same name twice"));
            }
            let child = match name.as_slice() {
                [] => entry.name,
                _ => [&name, &b"/"[..], &entry.name].concat(),
            };
            todo.push((child, entry.inode));
        }
    }
    // The file system's own furniture, which the writer makes again.
    tree.remove_empty_directory(b"lost+found");
    Ok((tree, numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_kernel_reads_them() {
        for (seconds, extra, expected) in [
            (0, 0, (0, 0)),
            (u32::MAX, 0, (-1, 0)),
            (0x8000_0000, 1, (0x8000_0000, 0)),
            (5, 123 << 2, (5, 123)),
        ] {
            let found = timestamp(seconds, extra);
            assert_eq!((found.seconds, found.nanoseconds), expected);
        }
    }

    #[test]
    fn device_numbers_have_two_forms() {
        for (block, expected) in [
            ([0x0103_u32, 0], (1, 3)),
            ([0, 0x0111_0370], (0x103, 0x1170)),
            ([0, 0], (0, 0)),
        ] {
            let block: Vec<u8> = block.into_iter().flat_map(u32::to_le_bytes).collect();
            let found = device(&block).ok();
            assert_eq!(found, Some(expected));
        }
    }

    #[test]
    fn superblocks_have_copies_where_the_kernel_looks_for_them() {
        let with = |backups: &Backups| -> Vec<u64> {
            (0..50).filter(|group| backups.contain(*group)).collect()
        };
        assert_eq!(with(&Backups::Powers), [0, 1, 3, 5, 7, 9, 25, 27, 49]);
        assert_eq!(with(&Backups::Listed([1, 30])), [0, 1, 30]);
        assert_eq!(with(&Backups::All).len(), 50);
    }
}
