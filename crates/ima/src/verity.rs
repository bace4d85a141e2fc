//! The digest that fs-verity gives a file (Documentation/filesystems/fsverity.rst, "File digest computation").
//!
//! A Merkle tree over the file's blocks, and the hash of a descriptor with its root. Without salt and with blocks of 4096
//! bytes, as it is usually enabled; with other parameters the digest is another.

use crate::hash::{HashAlgorithm, Hasher};

/// Length of a block in bytes, of the file and of the tree.
pub const BLOCK_LEN: usize = 4096;

/// The number of the algorithm in the descriptor (`FS_VERITY_HASH_ALG_*`, include/uapi/linux/fsverity.h); `None` for one that
/// fs-verity does not have.
#[must_use]
pub const fn algorithm_id(algo: HashAlgorithm) -> Option<u8> {
    match algo {
        HashAlgorithm::Sha256 => Some(1),
        HashAlgorithm::Sha512 => Some(2),
        _ => None,
    }
}

/// An fs-verity digest in the making, for content that comes in pieces.
#[derive(Debug, Clone)]
pub struct VerityHasher {
    /// An empty one, cloned for each hash.
    hasher: Hasher,
    algorithm: u8,
    len: u64,
    blocks: Level,
    /// The hash of a block of zeros, of which holes are made.
    zeros: Vec<u8>,
}

/// A level of the tree: the block that is being filled. The file's own blocks are the lowest.
#[derive(Debug, Clone, Default)]
struct Level {
    block: Vec<u8>,
    /// The hashes of this level's blocks; nothing as long as there is but one.
    above: Option<Box<Level>>,
}

impl VerityHasher {
    /// An empty file's; `None` for an algorithm that fs-verity does not have.
    #[must_use]
    pub fn new(algo: HashAlgorithm) -> Option<Self> {
        Some(Self {
            hasher: Hasher::new(algo)?,
            algorithm: algorithm_id(algo)?,
            len: 0,
            blocks: Level::default(),
            zeros: algo.digest(&[0; BLOCK_LEN])?,
        })
    }

    /// Takes the next piece of the content.
    pub fn update(&mut self, data: &[u8]) {
        self.len = self.len.saturating_add(data.len() as u64);
        self.blocks.push(data, &self.hasher);
    }

    /// Takes `len` zeros, hashing only those that share a block with something else.
    pub fn update_zeros(&mut self, mut len: u64) {
        while len > 0 {
            self.blocks.rise(&self.hasher);
            let filled = self.blocks.block.len();
            let taken = len.min(BLOCK_LEN.saturating_sub(filled) as u64);
            // A whole block that others follow goes up at once: its hash is known.
            if taken == BLOCK_LEN as u64 && len > taken {
                let above = self.blocks.above.get_or_insert_default();
                above.push(&self.zeros, &self.hasher);
                self.len = self.len.saturating_add(taken);
            } else {
                self.update(&vec![0; usize::try_from(taken).unwrap_or(BLOCK_LEN)]);
            }
            len = len.saturating_sub(taken);
        }
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        // The descriptor of an empty file has zeros for a root.
        let root = match self.len {
            0 => Vec::new(),
            _ => self.blocks.root(&self.hasher),
        };
        // struct fsverity_descriptor: version, hash algorithm, log2 of the block length, salt length, reserved (4), length of
        // the content (8), root hash (64), salt (32), reserved (144).
        let head = [1, self.algorithm, 12, 0, 0, 0, 0, 0];
        let parts = head.into_iter().chain(self.len.to_le_bytes()).chain(root);
        let mut descriptor = [0_u8; 256];
        for (to, from) in descriptor.iter_mut().zip(parts) {
            *to = from;
        }
        digest(&self.hasher, &descriptor)
    }
}

impl Level {
    fn push(&mut self, mut data: &[u8], hasher: &Hasher) {
        while !data.is_empty() {
            self.rise(hasher);
            let room = BLOCK_LEN.saturating_sub(self.block.len());
            let (now, later) = data.split_at(room.min(data.len()));
            self.block.extend_from_slice(now);
            data = later;
        }
    }

    /// A full block goes up as its hash; called when it is known not to be the last.
    fn rise(&mut self, hasher: &Hasher) {
        if self.block.len() == BLOCK_LEN {
            let hash = digest(hasher, &self.block);
            self.block.clear();
            self.above.get_or_insert_default().push(&hash, hasher);
        }
    }

    /// The hash of the one block of the topmost level.
    fn root(mut self, hasher: &Hasher) -> Vec<u8> {
        self.block.resize(BLOCK_LEN, 0);
        let hash = digest(hasher, &self.block);
        match self.above {
            None => hash,
            Some(mut above) => {
                above.push(&hash, hasher);
                above.root(hasher)
            }
        }
    }
}

fn digest(hasher: &Hasher, data: &[u8]) -> Vec<u8> {
    let mut hasher = hasher.clone();
    hasher.update(data);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(algo: HashAlgorithm, content: &[u8]) -> Vec<u8> {
        let mut hasher = VerityHasher::new(algo).unwrap();
        hasher.update(content);
        hasher.finish()
    }

    /// By `fsverity digest` of fsverity-utils 1.5, over `i * 31 % 251` for each byte `i`.
    #[test]
    fn digests_by_fsverity() {
        let table = include_str!("../testdata/verity");
        for line in table.lines() {
            let [len, algo, expected] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let content: Vec<u8> = (0..len.parse::<u64>().unwrap())
                .map(|at| (at * 31 % 251) as u8)
                .collect();
            let found = whole(algo.parse().unwrap(), &content);
            assert_eq!(crate::hex::encode(&found), expected, "{len} {algo}");
        }
        assert_eq!(table.lines().count(), 22);
    }

    #[test]
    fn algorithms_that_fs_verity_does_not_have() {
        for algo in HashAlgorithm::ALL {
            let has = matches!(algo, HashAlgorithm::Sha256 | HashAlgorithm::Sha512);
            assert_eq!(VerityHasher::new(algo).is_some(), has, "{algo}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn pieces_and_holes_do_not_matter(
            parts in proptest::collection::vec((any::<bool>(), 0_usize..700_000), 0..5),
        ) {
            let mut hasher = VerityHasher::new(HashAlgorithm::Sha256).unwrap();
            let mut content = Vec::new();
            for (zeros, len) in parts {
                if zeros {
                    content.resize(content.len() + len, 0);
                    hasher.update_zeros(len as u64);
                } else {
                    content.resize(content.len() + len, 7);
                    hasher.update(&vec![7; len]);
                }
            }
            prop_assert_eq!(hasher.finish(), whole(HashAlgorithm::Sha256, &content));
        }
    }
}
