//! dm-verity: the superblock of a hash tree, where the tree lies, and the table that the kernel takes.
//!
//! The superblock is veritysetup's, version 1 (cryptsetup, lib/verity/verity.c, `struct verity_sb`); little-endian:
//!
//! | offset | length | field |
//! |---|---|---|
//! | 0 | 8 | `verity`, two NULs |
//! | 8 | 4 | version of the superblock: 1 |
//! | 12 | 4 | type of the tree: 1 (0 is Chrome OS's) |
//! | 16 | 16 | UUID |
//! | 32 | 32 | name of the hash algorithm, NULs behind it |
//! | 64 | 4 | length of a data block |
//! | 68 | 4 | length of a block of the tree |
//! | 72 | 8 | number of data blocks |
//! | 80 | 2 | length of the salt |
//! | 88 | 256 | salt |
//!
//! The tree begins at the next block of its own size. Its levels lie one behind the other, the topmost first
//! (drivers/md/dm-verity-target.c, `verity_ctr`). Each digest is that of the salt and the block below.
//!
//! Nothing of a superblock is signed. It says how to compute, and the root hash, which is trusted, says whether the result is
//! right: a salt, a length or an algorithm that somebody else put there gives another root hash, or an algorithm in which that
//! hash would have to be forged. Only strong ones are taken for this reason.

pub mod signed;

use std::fmt;

use crate::cmdline::RootName;
use crate::fault::{Cause, Code, Fault};
use crate::hash::{HashAlgorithm, Hasher};
use crate::hex;

/// `verity_corruption=`: what the kernel does when the running system reads a block of a verity root that is not the one that it
/// should be. Until the real init is executed such a block is an error, and the boot is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corruption {
    /// Restart.
    Restart,
    /// Panic.
    Panic,
    /// Give the reader an error.
    Error,
}

impl Corruption {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Restart, Self::Panic, Self::Error];

    /// The value of the key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Panic => "panic",
            Self::Error => "error",
        }
    }

    /// The argument of dm-verity's that asks for it (drivers/md/dm-verity-target.c); an error is what it gives unasked.
    pub const fn argument(self) -> Option<&'static str> {
        match self {
            Self::Restart => Some("restart_on_corruption"),
            Self::Panic => Some("panic_on_corruption"),
            Self::Error => None,
        }
    }
}

/// `verity=`: which root hash is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// This one.
    RootHash(RootHash),
    /// `signed`: any that the kernel takes the signature of.
    Signed,
}

impl Trust {
    /// Parses the value of the key.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "signed" => Some(Self::Signed),
            hash => RootHash::parse(hash).map(Self::RootHash),
        }
    }
}

/// The length of a superblock in bytes.
pub const SUPERBLOCK_LENGTH: usize = 512;

/// The longest salt in bytes.
pub const MAX_SALT: usize = 256;

/// The name of the kernel's target.
pub const TARGET: &str = "verity";

const MAGIC: &[u8; 8] = b"verity\0\0";

/// The longest block in bytes (veritysetup's VERITY_MAX_BLOCK_SIZE); the kernel takes data blocks of a page at most.
const MAX_BLOCK: u32 = 512 << 10;

/// The algorithms that are taken. The kernel would take any that it has, broken ones too.
pub const ALGORITHMS: [HashAlgorithm; 6] = [
    HashAlgorithm::Sha256,
    HashAlgorithm::Sha384,
    HashAlgorithm::Sha512,
    HashAlgorithm::Sha3_256,
    HashAlgorithm::Sha3_384,
    HashAlgorithm::Sha3_512,
];

/// The digest at the top of a tree, of 32, 48 or 64 bytes: whoever knows it knows what every block of the device must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootHash(Vec<u8>);

impl RootHash {
    /// A digest; nothing if it has the length of none of [`ALGORITHMS`].
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        let mut lengths = ALGORITHMS.iter().map(|algorithm| algorithm.digest_len());
        lengths
            .any(|length| length == bytes.len())
            .then_some(Self(bytes))
    }

    /// Parses it as veritysetup prints it: hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        Self::new(hex::decode(text)?)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The partitions of the device and of its tree, by the Discoverable Partitions Specification: their UUIDs are the first
    /// and the last 128 bits of the root hash.
    pub fn partitions(&self) -> [RootName; 2] {
        let first = self.0.first_chunk().copied().unwrap_or_default();
        let last = self.0.last_chunk().copied().unwrap_or_default();
        [first, last].map(|half| RootName::PartUuid {
            uuid: uuid(&half),
            offset: 0,
        })
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

/// A UUID as it is written.
fn uuid(bytes: &[u8; 16]) -> String {
    let digits = hex::encode(bytes);
    let mut text = String::with_capacity(36);
    for (at, digit) in digits.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// How a tree is made. Its numbers are such that device and tree have lengths: only [`Superblock::new`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    uuid: [u8; 16],
    algorithm: HashAlgorithm,
    data_block: u32,
    hash_block: u32,
    data_blocks: u64,
    salt: Vec<u8>,
}

/// Why bytes are not the superblock of a tree that is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// No magic, or fewer than 512 bytes.
    #[error("there is no superblock of a hash tree")]
    Missing,
    /// Of another version.
    #[error("the superblock has version {0}, and 1 is known")]
    Version(u32),
    /// Of another type of tree.
    #[error("the tree is of type {0}, and 1 is taken")]
    TreeType(u32),
    /// An algorithm that is not known, or weak.
    #[error(
        "hash algorithm {0:?}; taken are sha256, sha384, sha512, sha3-256, sha3-384 and sha3-512"
    )]
    Algorithm(String),
    /// A length of a block that is not a power of two, or none between 512 bytes and 512 KiB.
    #[error("a block of {0} bytes")]
    BlockLength(u32),
    /// No blocks, or more than a device can have.
    #[error("{0} data blocks")]
    DataBlocks(u64),
    /// A salt that is longer than its field.
    #[error("a salt of {0} bytes")]
    Salt(usize),
}

/// A level of a tree, in blocks of the tree from the beginning of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub blocks: u64,
}

/// The devices of a table, as `MAJOR:MINOR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices {
    /// What is verified.
    pub data: String,
    /// What has the tree.
    pub tree: String,
}

impl Superblock {
    /// A tree of that form.
    ///
    /// # Errors
    ///
    /// What dm-verity or this crate does not take.
    pub fn new(
        uuid: [u8; 16],
        algorithm: HashAlgorithm,
        [data_block, hash_block]: [u32; 2],
        data_blocks: u64,
        salt: Vec<u8>,
    ) -> Result<Self, SuperblockError> {
        if !ALGORITHMS.contains(&algorithm) {
            return Err(SuperblockError::Algorithm(algorithm.name().to_owned()));
        }
        for length in [data_block, hash_block] {
            if !length.is_power_of_two() || !(512..=MAX_BLOCK).contains(&length) {
                return Err(SuperblockError::BlockLength(length));
            }
        }
        // A block of the tree may be a thousand times as long as one of the data, and there is at most one for each.
        let most = i64::MAX.unsigned_abs() >> 22;
        if data_blocks == 0 || data_blocks > most {
            return Err(SuperblockError::DataBlocks(data_blocks));
        }
        if salt.len() > MAX_SALT {
            return Err(SuperblockError::Salt(salt.len()));
        }
        Ok(Self {
            uuid,
            algorithm,
            data_block,
            hash_block,
            data_blocks,
            salt,
        })
    }

    /// Parses a superblock.
    ///
    /// # Errors
    ///
    /// Where there is none, or one of a tree that is not taken.
    pub fn parse(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let field = |at: usize, length: usize| {
            let end = at.saturating_add(length);
            bytes.get(at..end).ok_or(SuperblockError::Missing)
        };
        let number = |at: usize| {
            let bytes = field(at, 4)?.first_chunk().copied();
            Ok(u32::from_le_bytes(bytes.unwrap_or_default()))
        };
        if field(0, 8)? != MAGIC || bytes.len() < SUPERBLOCK_LENGTH {
            return Err(SuperblockError::Missing);
        }
        match (number(8)?, number(12)?) {
            (1, 1) => {}
            (1, tree) => return Err(SuperblockError::TreeType(tree)),
            (version, _) => return Err(SuperblockError::Version(version)),
        }
        let uuid = field(16, 16)?.first_chunk().copied().unwrap_or_default();
        let name = field(32, 32)?.split(|byte| *byte == 0).next();
        let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
        let algorithm = HashAlgorithm::from_name(&name).ok_or(SuperblockError::Algorithm(name))?;
        let data_blocks = field(72, 8)?.first_chunk().copied().unwrap_or_default();
        let salt = field(80, 2)?.first_chunk().copied().unwrap_or_default();
        let salt = usize::from(u16::from_le_bytes(salt));
        if salt > MAX_SALT {
            return Err(SuperblockError::Salt(salt));
        }
        Self::new(
            uuid,
            algorithm,
            [number(64)?, number(68)?],
            u64::from_le_bytes(data_blocks),
            field(88, salt)?.to_owned(),
        )
    }

    /// The superblock as it is written.
    pub fn to_bytes(&self) -> [u8; SUPERBLOCK_LENGTH] {
        let mut bytes = [0; SUPERBLOCK_LENGTH];
        let salt = u16::try_from(self.salt.len()).unwrap_or_default();
        let fields: [(usize, &[u8]); 9] = [
            (0, MAGIC),
            (8, &[1, 0, 0, 0, 1, 0, 0, 0]),
            (16, &self.uuid),
            (32, self.algorithm.name().as_bytes()),
            (64, &self.data_block.to_le_bytes()),
            (68, &self.hash_block.to_le_bytes()),
            (72, &self.data_blocks.to_le_bytes()),
            (80, &salt.to_le_bytes()),
            (88, &self.salt),
        ];
        for (at, field) in fields {
            for (to, from) in bytes.iter_mut().skip(at).zip(field) {
                *to = *from;
            }
        }
        bytes
    }

    /// Its UUID, as a device-mapper UUID of libcryptsetup's has it (`CRYPT-VERITY-` and the digits).
    pub const fn uuid(&self) -> &[u8; 16] {
        &self.uuid
    }

    /// The hash algorithm.
    pub const fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// The length of a data block in bytes.
    pub const fn data_block(&self) -> u32 {
        self.data_block
    }

    /// The length of a block of the tree in bytes.
    pub const fn hash_block(&self) -> u32 {
        self.hash_block
    }

    /// The number of data blocks.
    pub const fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    /// The length of what is verified, in bytes.
    pub const fn data_length(&self) -> u64 {
        // No overflow: see `new`.
        self.data_blocks.saturating_mul(self.data_block as u64)
    }

    /// The digest of a block of the data or of the tree.
    pub fn digest(&self, block: &[u8]) -> Vec<u8> {
        // Each of `ALGORITHMS` is computed.
        let Some(mut hasher) = Hasher::new(self.algorithm) else {
            return Vec::new();
        };
        hasher.update(&self.salt);
        hasher.update(block);
        hasher.finish()
    }

    /// How many digests a block of the tree has, as a power of two (`hash_per_block_bits`).
    fn per_block(&self) -> u32 {
        let digest = u32::try_from(self.algorithm.digest_len()).unwrap_or(u32::MAX);
        let count = self.hash_block.checked_div(digest).unwrap_or_default();
        count.checked_ilog2().unwrap_or(1)
    }

    /// How many bytes a digest takes up in a block of the tree: at least its own, and a power of two.
    pub fn slot(&self) -> usize {
        let slot = self.hash_block.checked_shr(self.per_block());
        slot.and_then(|slot| usize::try_from(slot).ok())
            .unwrap_or(1)
    }

    /// The levels of the tree behind a superblock at the offset, the topmost first; none if the root hash is the digest of the
    /// only data block.
    pub fn levels(&self, offset: u64) -> Vec<Level> {
        let bits = self.per_block();
        let last = self.data_blocks.saturating_sub(1);
        let mut counts: Vec<u64> = Vec::new();
        loop {
            let below = u32::try_from(counts.len()).unwrap_or(u32::MAX);
            if last
                .checked_shr(below.saturating_mul(bits))
                .unwrap_or_default()
                == 0
            {
                break;
            }
            let shift = below.saturating_add(1).saturating_mul(bits);
            let count = last.checked_shr(shift).unwrap_or_default();
            counts.push(count.saturating_add(1));
        }
        let mut start = self.start(offset);
        let levels = counts.into_iter().rev().map(|blocks| {
            let level = Level { start, blocks };
            start = start.saturating_add(blocks);
            level
        });
        levels.collect()
    }

    /// Where the tree behind a superblock at the offset begins, in its blocks.
    fn start(&self, offset: u64) -> u64 {
        let end = offset.saturating_add(SUPERBLOCK_LENGTH as u64);
        end.div_ceil(self.hash_block.into())
    }

    /// Where the tree behind a superblock at the offset ends, in bytes.
    pub fn tree_end(&self, offset: u64) -> u64 {
        let last = self.levels(offset).last().copied();
        let end = last.map_or(self.start(offset), |level| {
            level.start.saturating_add(level.blocks)
        });
        end.saturating_mul(self.hash_block.into())
    }

    /// The error correction on a device, by the rule that veritysetup makes it by (cryptsetup, lib/verity/verity_fec.c,
    /// `VERITY_FEC_blocks`): it covers the data, and the device of the tree from the tree to its end. `places` are, in bytes, where
    /// the tree's superblock begins, where what is covered of its device ends, and where the data for the correction begins. That end
    /// is the latter if both are one device. Nothing if a place is not at the beginning of a block.
    #[must_use]
    pub fn fec(&self, device: String, roots: u8, places: (u64, u64, u64)) -> Option<Fec> {
        let (tree, end, start) = places;
        let length = u64::from(self.data_block);
        let covered = end.checked_div(length)?.checked_sub(self.start(tree))?;
        start.is_multiple_of(length).then_some(Fec {
            device,
            roots,
            blocks: self.data_blocks.checked_add(covered)?,
            start: start.checked_div(length)?,
        })
    }

    /// The arguments of the target in a table of the device mapper
    /// (Documentation/admin-guide/device-mapper/verity.rst).
    pub fn table(
        &self,
        devices: &Devices,
        offset: u64,
        root_hash: &RootHash,
        options: &TableOptions<'_>,
    ) -> String {
        let salt = match self.salt.as_slice() {
            [] => "-".to_owned(),
            salt => hex::encode(salt),
        };
        let mut table = format!(
            "1 {} {} {} {} {} {} {} {root_hash} {salt}",
            devices.data,
            devices.tree,
            self.data_block,
            self.hash_block,
            self.data_blocks,
            self.start(offset),
            self.algorithm,
        );
        let options = options.arguments();
        if !options.is_empty() {
            let count = options.iter().flat_map(|it| it.split(' ')).count();
            table.push_str(&format!(" {count} {}", options.join(" ")));
        }
        table
    }
}

/// Where the data for error correction is, as a table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fec {
    /// Its device, as `MAJOR:MINOR`.
    pub device: String,
    /// The number of parity bytes in each 255 bytes.
    pub roots: u8,
    /// How many blocks can be corrected: those of the data, and those of the tree's device from the tree on.
    pub blocks: u64,
    /// Where it begins, in blocks.
    pub start: u64,
}

/// What a table says beside the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableOptions<'a> {
    /// Error correction.
    pub fec: Option<&'a Fec>,
    /// What the kernel does when it reads a wrong block.
    pub corruption: Corruption,
    /// The name of a key of type `user` on a keyring of this process, which holds the signature of the root hash. The kernel takes
    /// the table only if it takes the signature.
    pub signature_key: Option<&'a str>,
}

impl TableOptions<'_> {
    fn arguments(&self) -> Vec<String> {
        let corruption = self.corruption.argument().map(str::to_owned);
        let signature = self
            .signature_key
            .map(|key| format!("root_hash_sig_key_desc {key}"));
        let fec = self.fec.map(|fec| {
            format!(
                "use_fec_from_device {} fec_roots {} fec_blocks {} fec_start {}",
                fec.device, fec.roots, fec.blocks, fec.start
            )
        });
        [corruption, fec, signature].into_iter().flatten().collect()
    }
}

/// Where a tree is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The device of the tree, for a person.
    pub device: &'a str,
    /// The length of that device in bytes.
    pub length: u64,
    /// Where on it the superblock begins, in bytes.
    pub offset: u64,
    /// The length of the device that is verified, in bytes.
    pub data_length: u64,
    /// Whether both are one device.
    pub is_data: bool,
}

/// The superblock that is there, if a device can be verified with it.
///
/// # Errors
///
/// [`Code::VeritySuperblock`].
pub fn superblock(
    bytes: &[u8],
    place: &Place<'_>,
    root_hash: &RootHash,
) -> Result<Superblock, Fault> {
    let at = format!("{} at byte {}", place.device, place.offset);
    let fault = |why: &dyn fmt::Display| Fault::new(Code::VeritySuperblock, format!("{at}: {why}"));
    let superblock = Superblock::parse(bytes).map_err(|error| fault(&error))?;
    let digest = superblock.algorithm.digest_len();
    if digest != root_hash.bytes().len() {
        let (length, configured) = (digest.to_string(), root_hash.bytes().len().to_string());
        let algorithm = superblock.algorithm.to_string();
        return Err(
            fault(&superblock.algorithm).because(Cause::VERITY_OTHER_ALGORITHM.with(&[
                &algorithm,
                &length,
                &configured,
            ])),
        );
    }
    let room = match place.is_data {
        true => place.data_length.min(place.offset),
        false => place.data_length,
    };
    if superblock.data_length() > room {
        let (bytes, room) = (superblock.data_length().to_string(), room.to_string());
        return Err(fault(&"the data is shorter than the tree says")
            .because(Cause::VERITY_DATA_TOO_SHORT.with(&[&bytes, &room])));
    }
    if superblock.tree_end(place.offset) > place.length {
        let end = superblock.tree_end(place.offset).to_string();
        return Err(fault(&"the tree is cut short")
            .because(Cause::VERITY_TREE_CUT.with(&[&end, &place.length.to_string()])));
    }
    Ok(superblock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(data_blocks: u64, salt: &[u8]) -> Superblock {
        let algorithm = HashAlgorithm::Sha256;
        Superblock::new([7; 16], algorithm, [4096, 4096], data_blocks, salt.into()).unwrap()
    }

    /// Made by `veritysetup format --salt=... --uuid=...` over 300 blocks.
    #[test]
    fn a_superblock_of_veritysetup_s() {
        let mut bytes = Vec::new();
        bytes.extend(b"verity\0\0\x01\0\0\0\x01\0\0\0");
        bytes.extend([7; 16]);
        bytes.extend(b"sha256");
        bytes.resize(64, 0);
        bytes.extend([0, 16, 0, 0, 0, 16, 0, 0, 0x2c, 1, 0, 0, 0, 0, 0, 0, 2, 0]);
        bytes.resize(88, 0);
        bytes.extend([0xab, 0xcd]);
        bytes.resize(512, 0);
        let expected = sample(300, &[0xab, 0xcd]);
        assert_eq!(Superblock::parse(&bytes), Ok(expected.clone()));
        assert_eq!(expected.to_bytes().as_slice(), bytes);
        assert_eq!(expected.data_length(), 300 * 4096);
    }

    #[test]
    fn what_is_no_superblock_of_a_strong_tree() {
        let good = sample(300, &[1; 32]).to_bytes();
        type Expected = fn(&SuperblockError) -> bool;
        let cases: [(usize, &[u8], Expected); 11] = [
            (0, b"Verity", |it| *it == SuperblockError::Missing),
            (8, &[2], |it| *it == SuperblockError::Version(2)),
            (12, &[0], |it| *it == SuperblockError::TreeType(0)),
            (32, b"sha1\0\0", |it| {
                matches!(it, SuperblockError::Algorithm(_))
            }),
            (32, b"md5\0\0\0", |it| {
                matches!(it, SuperblockError::Algorithm(_))
            }),
            (32, &[b'a'; 32], |it| {
                matches!(it, SuperblockError::Algorithm(_))
            }),
            (65, &[0], |it| *it == SuperblockError::BlockLength(0)),
            (64, &[1], |it| *it == SuperblockError::BlockLength(4097)),
            (70, &[16], |it| {
                *it == SuperblockError::BlockLength(0x10_1000)
            }),
            (72, &[0; 8], |it| *it == SuperblockError::DataBlocks(0)),
            (80, &[1, 1], |it| *it == SuperblockError::Salt(257)),
        ];
        for (at, bytes, expected) in cases {
            let mut bad = good;
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            let error = Superblock::parse(&bad).unwrap_err();
            assert!(expected(&error), "{at}: {error}");
        }
        assert_eq!(
            Superblock::parse(&good[..511]),
            Err(SuperblockError::Missing)
        );
        assert_eq!(Superblock::parse(&[]), Err(SuperblockError::Missing));
    }

    /// As `veritysetup dump` and the kernel have them.
    #[test]
    fn levels_lie_from_the_top() {
        let places = |data_blocks| -> Vec<_> {
            let levels = sample(data_blocks, &[]).levels(0);
            levels
                .iter()
                .map(|level| (level.start, level.blocks))
                .collect()
        };
        assert_eq!(places(1), []);
        assert_eq!(places(2), [(1, 1)]);
        assert_eq!(places(128), [(1, 1)]);
        assert_eq!(places(129), [(1, 1), (2, 2)]);
        assert_eq!(places(16384), [(1, 1), (2, 128)]);
        assert_eq!(places(16385), [(1, 1), (2, 2), (4, 129)]);
        let superblock = sample(300, &[]);
        assert_eq!(superblock.levels(1 << 20)[0].start, 257);
        assert_eq!(superblock.levels((1 << 20) + 512)[0].start, 257);
        assert_eq!(superblock.tree_end(0), 5 * 4096);
        assert_eq!(superblock.slot(), 32);
        let wide = Superblock::new([0; 16], HashAlgorithm::Sha384, [4096; 2], 64, vec![]).unwrap();
        assert_eq!((wide.slot(), wide.levels(0).len()), (64, 1));
    }

    #[test]
    fn the_table_as_the_kernel_takes_it() {
        let options = |corruption, signature_key| TableOptions {
            corruption,
            signature_key,
            fec: None,
        };
        let hash = RootHash::new(vec![0xab; 32]).unwrap();
        let devices = Devices {
            data: "254:1".into(),
            tree: "254:2".into(),
        };
        let hex = "ab".repeat(32);
        assert_eq!(
            sample(300, &[]).table(&devices, 0, &hash, &options(Corruption::Error, None)),
            format!("1 254:1 254:2 4096 4096 300 1 sha256 {hex} -")
        );
        assert_eq!(
            sample(300, &[1, 2]).table(&devices, 8192, &hash, &options(Corruption::Restart, None)),
            format!("1 254:1 254:2 4096 4096 300 3 sha256 {hex} 0102 1 restart_on_corruption")
        );
        let beside = sample(300, &[]).fec("254:3".into(), 2, (4096, 7 * 4096, 512));
        assert_eq!(beside, None);
        let fec = sample(300, &[]).fec("254:3".into(), 2, (4096, 7 * 4096, 8192));
        let corrected = TableOptions {
            fec: fec.as_ref(),
            ..options(Corruption::Error, None)
        };
        assert_eq!(
            sample(300, &[]).table(&devices, 4096, &hash, &corrected),
            format!(
                "1 254:1 254:2 4096 4096 300 2 sha256 {hex} - 8 use_fec_from_device 254:3 \
                 fec_roots 2 fec_blocks 305 fec_start 2"
            )
        );
        let signed = options(Corruption::Panic, Some("name"));
        assert_eq!(
            sample(300, &[]).table(&devices, 0, &hash, &signed),
            format!(
                "1 254:1 254:2 4096 4096 300 1 sha256 {hex} - 3 panic_on_corruption \
                 root_hash_sig_key_desc name"
            )
        );
    }

    #[test]
    fn root_hashes_and_the_partitions_they_name() {
        let text = "00112233445566778899aabbccddeeff0f1e2d3c4b5a69788796a5b4c3d2e1f0";
        let hash = RootHash::parse(&text.to_uppercase()).unwrap();
        assert_eq!(hash.to_string(), text);
        assert_eq!(
            hash.partitions().map(|name| name.to_string()),
            [
                "PARTUUID=00112233-4455-6677-8899-aabbccddeeff",
                "PARTUUID=0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
            ]
        );
        for bad in ["", "00", &text[..62], &text[..63], "zz"] {
            assert_eq!(RootHash::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tree_that_does_not_fit_is_refused() {
        let hash = RootHash::new(vec![0; 32]).unwrap();
        let bytes = sample(300, &[]).to_bytes();
        let place = Place {
            device: "/dev/vdb",
            length: 5 * 4096,
            offset: 0,
            data_length: 300 * 4096,
            is_data: false,
        };
        assert!(superblock(&bytes, &place, &hash).is_ok());
        let long = RootHash::new(vec![0; 64]).unwrap();
        let shorter = |length, data_length| Place {
            length,
            data_length,
            ..place
        };
        for (place, hash, cause) in [
            (place, &long, "digests of sha256 have 32 bytes"),
            (
                shorter(5 * 4096 - 1, 300 * 4096),
                &hash,
                "ends at byte 20480",
            ),
            (shorter(5 * 4096, 299 * 4096), &hash, "for 1228800 bytes"),
        ] {
            let fault = superblock(&bytes, &place, hash).unwrap_err();
            assert_eq!(fault.code(), Code::VeritySuperblock);
            assert!(fault.cause().contains(cause), "{fault}");
        }
        // On one device, the data ends where the superblock begins.
        let same = Place {
            offset: 299 * 4096,
            length: 1 << 30,
            data_length: 1 << 30,
            is_data: true,
            ..place
        };
        assert!(superblock(&bytes, &same, &hash).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Superblock::parse(&bytes);
        }

        /// Whatever a superblock says, it is written as it was read, and its levels lie in a row and hold every digest.
        #[test]
        fn trees_hold_their_digests(
            changes in proptest::collection::vec((0..88_usize, any::<u8>()), 0..6),
            blocks in 1..u64::MAX >> 24, shift in 0..8_u32, offset in 0..1_u64 << 40,
        ) {
            let mut bytes = sample(blocks, &[9; 32]).to_bytes();
            bytes[68..72].copy_from_slice(&(512_u32 << shift).to_le_bytes());
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            if let Ok(superblock) = Superblock::parse(&bytes) {
                prop_assert_eq!(Superblock::parse(&superblock.to_bytes()), Ok(superblock.clone()));
                let levels = superblock.levels(offset);
                let mut end = superblock.start(offset);
                let per_block = superblock.hash_block() as u64 / superblock.slot() as u64;
                let mut digests = 1;
                for level in &levels {
                    prop_assert_eq!(level.start, end);
                    prop_assert_eq!(level.blocks, digests);
                    end += level.blocks;
                    digests = match levels.iter().position(|it| it == level) {
                        Some(at) if at + 1 < levels.len() => levels[at + 1].blocks,
                        _ => superblock.data_blocks(),
                    };
                    prop_assert_eq!(digests.div_ceil(per_block), level.blocks);
                }
                prop_assert!(superblock.tree_end(offset) < i64::MAX as u64);
            }
        }
    }
}
