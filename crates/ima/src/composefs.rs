//! A composefs root: an erofs image with the names and attributes of the files, and a directory of objects with their content.
//!
//! Image and objects are files with fs-verity on another file system. The fs-verity digest of the image is trusted; the image
//! has the digest of each object, and overlayfs compares them (Documentation/filesystems/overlayfs.rst, "Data-only lower layers",
//! "fs-verity support").

use std::fmt;

use crate::hash::HashAlgorithm;
use crate::hex;
use crate::verity::algorithm_id;

/// Where the objects are if the configuration does not say: where composefs's own tools keep them.
pub const OBJECTS: &str = "/composefs/objects";

/// Attributes of overlayfs in the image (fs/overlayfs/overlayfs.h): where a file's content is, and its fs-verity digest.
pub const REDIRECT: &str = "trusted.overlay.redirect";
/// See [`REDIRECT`].
pub const METACOPY: &str = "trusted.overlay.metacopy";

/// An fs-verity digest: of SHA-256 or SHA-512.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    algorithm: HashAlgorithm,
    bytes: Vec<u8>,
}

impl Digest {
    /// The algorithms of fs-verity.
    const ALGORITHMS: [HashAlgorithm; 2] = [HashAlgorithm::Sha256, HashAlgorithm::Sha512];

    /// A digest; `None` if it has the length of none of fs-verity's.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        Self::ALGORITHMS
            .into_iter()
            .find(|algorithm| algorithm.digest_len() == bytes.len())
            .map(|algorithm| Self { algorithm, bytes })
    }

    /// Parses hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::new(hex::decode(text)?)
    }

    /// Parses what FS_IOC_MEASURE_VERITY answers: `struct fsverity_digest` (include/uapi/linux/fsverity.h), which has the numbers of
    /// algorithm and length, 16 bits each in the order of the processor, before the digest.
    #[must_use]
    pub fn measured(answer: &[u8]) -> Option<Self> {
        let (algorithm, rest) = answer.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let bytes = rest.get(..u16::from_ne_bytes(*length).into())?;
        Self::new(bytes.to_vec()).filter(|digest| digest.id() == u16::from_ne_bytes(*algorithm))
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn id(&self) -> u16 {
        algorithm_id(self.algorithm).map_or(0, u16::from)
    }

    /// The path of the object with this digest, from the directory of the objects on: what [`REDIRECT`] has.
    #[must_use]
    pub fn object(&self) -> String {
        let hex = self.to_string();
        let (first, rest) = hex.split_at_checked(2).unwrap_or_default();
        format!("/{first}/{rest}")
    }

    /// The value of [`METACOPY`] (fs/overlayfs/overlayfs.h, `struct ovl_metacopy`): version 0, length, no flags, the number of the
    /// algorithm, the digest.
    #[must_use]
    pub fn metacopy(&self) -> Vec<u8> {
        let length = METACOPY_HEADER.saturating_add(self.bytes.len());
        let mut value = vec![0, u8::try_from(length).unwrap_or(u8::MAX), 0];
        value.extend(algorithm_id(self.algorithm));
        value.extend_from_slice(&self.bytes);
        value
    }
}

const METACOPY_HEADER: usize = 4;

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.bytes))
    }
}

/// What the configuration says of a composefs root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composefs {
    /// The image: an absolute path on the file system that `root=` names.
    pub image: String,
    /// Its fs-verity digest.
    pub digest: Digest,
    /// The directory of the objects: an absolute path there.
    pub objects: String,
}

/// The magic numbers of the file systems that have fs-verity (include/uapi/linux/magic.h): ext4, btrfs, f2fs. A file system of
/// another kind, such as one that a server provides, may answer with any digest.
pub const WITH_FS_VERITY: [u64; 3] = [0xef53, 0x9123_683e, 0xf2f5_2010];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_the_lengths_that_fs_verity_has() {
        for (length, algorithm) in [
            (20, None),
            (32, Some(HashAlgorithm::Sha256)),
            (48, None),
            (64, Some(HashAlgorithm::Sha512)),
        ] {
            let found = Digest::parse(&"5a".repeat(length));
            assert_eq!(found.map(|found| found.algorithm()), algorithm, "{length}");
        }
    }

    /// As mkcomposefs writes them.
    #[test]
    fn attributes_of_a_file() {
        let digest = Digest::new((0..32).collect()).unwrap();
        assert_eq!(
            digest.object(),
            "/00/0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
        );
        let value = digest.metacopy();
        assert_eq!(value[..6], [0, 36, 0, 1, 0, 1]);
        assert_eq!(value.len(), 36);
    }

    proptest! {
        #[test]
        fn only_a_whole_answer_is_taken(answer in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(digest) = Digest::measured(&answer) {
                let length = digest.bytes().len();
                prop_assert_eq!(digest.bytes(), &answer[4..4 + length]);
                prop_assert_eq!(usize::from(u16::from_ne_bytes([answer[2], answer[3]])), length);
            }
        }

        #[test]
        fn answers_round_trip(sha512: bool, bytes: [u8; 64]) {
            let length = if sha512 { 64 } else { 32 };
            let mut answer = vec![];
            answer.extend((1 + u16::from(sha512)).to_ne_bytes());
            answer.extend(u16::try_from(length).unwrap().to_ne_bytes());
            answer.extend(bytes);
            let digest = Digest::measured(&answer).unwrap();
            prop_assert_eq!(digest.bytes(), &bytes[..length]);
            prop_assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
            // Another algorithm's number.
            answer[..2].copy_from_slice(&3_u16.to_ne_bytes());
            prop_assert_eq!(Digest::measured(&answer), None);
            prop_assert_eq!(Digest::measured(&answer[..length + 3]), None);
        }
    }
}
