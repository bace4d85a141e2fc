//! Hash algorithms as the kernel numbers and names them.
//!
//! The numbers are `enum hash_algo` of `include/uapi/linux/hash_info.h`, the names `hash_algo_name[]` and the lengths
//! `hash_digest_size[]` of `crypto/hash_info.c`. They appear in `security.ima`, in the measurement list and in policies
//! (`appraise_algos=`).

use core::fmt;
use core::str::FromStr;

/// The longest digest any [`HashAlgorithm`] has, in bytes (`IMA_MAX_DIGEST_SIZE`).
pub const MAX_DIGEST_LEN: usize = 64;

/// A hash algorithm the kernel knows by number.
///
/// That a variant exists does not say that a given kernel was built with the algorithm, nor that this crate can compute
/// it (see [`HashAlgorithm::is_computable`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // the names are the documentation
pub enum HashAlgorithm {
    Md4 = 0,
    Md5 = 1,
    Sha1 = 2,
    Rmd160 = 3,
    Sha256 = 4,
    Sha384 = 5,
    Sha512 = 6,
    Sha224 = 7,
    Rmd128 = 8,
    Rmd256 = 9,
    Rmd320 = 10,
    Wp256 = 11,
    Wp384 = 12,
    Wp512 = 13,
    Tgr128 = 14,
    Tgr160 = 15,
    Tgr192 = 16,
    Sm3 = 17,
    Streebog256 = 18,
    Streebog512 = 19,
    Sha3_256 = 20,
    Sha3_384 = 21,
    Sha3_512 = 22,
}

impl HashAlgorithm {
    /// Every algorithm, in the order of the kernel's numbers.
    pub const ALL: [HashAlgorithm; 23] = [
        Self::Md4,
        Self::Md5,
        Self::Sha1,
        Self::Rmd160,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
        Self::Sha224,
        Self::Rmd128,
        Self::Rmd256,
        Self::Rmd320,
        Self::Wp256,
        Self::Wp384,
        Self::Wp512,
        Self::Tgr128,
        Self::Tgr160,
        Self::Tgr192,
        Self::Sm3,
        Self::Streebog256,
        Self::Streebog512,
        Self::Sha3_256,
        Self::Sha3_384,
        Self::Sha3_512,
    ];

    /// The kernel's number, one byte in `security.ima`.
    #[must_use]
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The algorithm with the kernel's number `id`.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// The kernel's name, such as `sha256` or `sha3-256`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md4 => "md4",
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Rmd160 => "rmd160",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Sha224 => "sha224",
            Self::Rmd128 => "rmd128",
            Self::Rmd256 => "rmd256",
            Self::Rmd320 => "rmd320",
            Self::Wp256 => "wp256",
            Self::Wp384 => "wp384",
            Self::Wp512 => "wp512",
            Self::Tgr128 => "tgr128",
            Self::Tgr160 => "tgr160",
            Self::Tgr192 => "tgr192",
            Self::Sm3 => "sm3",
            Self::Streebog256 => "streebog256",
            Self::Streebog512 => "streebog512",
            Self::Sha3_256 => "sha3-256",
            Self::Sha3_384 => "sha3-384",
            Self::Sha3_512 => "sha3-512",
        }
    }

    /// The algorithm with the kernel's name `name`, exactly as the kernel spells it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    /// The length of a digest in bytes.
    #[must_use]
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Md4 | Self::Md5 | Self::Rmd128 | Self::Tgr128 => 16,
            Self::Sha1 | Self::Rmd160 | Self::Tgr160 => 20,
            Self::Tgr192 => 24,
            Self::Sha224 => 28,
            Self::Sha256
            | Self::Rmd256
            | Self::Wp256
            | Self::Sm3
            | Self::Streebog256
            | Self::Sha3_256 => 32,
            Self::Rmd320 => 40,
            Self::Sha384 | Self::Wp384 | Self::Sha3_384 => 48,
            Self::Sha512 | Self::Wp512 | Self::Streebog512 | Self::Sha3_512 => 64,
        }
    }

    /// The DER of a PKCS #1 `DigestInfo` up to the digest itself (RFC 8017 section 9.2, note 1), which an EMSA-PKCS1-v1_5
    /// signature is made over; `None` for an algorithm the kernel's `pkcs1pad` has no prefix for
    /// (`crypto/rsa-pkcs1pad.c`, `rsa_hash_info`).
    #[must_use]
    pub const fn digest_info_prefix(self) -> Option<&'static [u8]> {
        Some(match self {
            Self::Md5 => &[
                0x30, 0x20, 0x30, 0x0c, 0x06, 0x08, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x05,
                0x05, 0x00, 0x04, 0x10,
            ],
            Self::Sha1 => &[
                0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04,
                0x14,
            ],
            Self::Rmd160 => &[
                0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x24, 0x03, 0x02, 0x01, 0x05, 0x00, 0x04,
                0x14,
            ],
            Self::Sha224 => const { &nist_prefix(0x2d, 0x04, 0x1c) },
            Self::Sha256 => const { &nist_prefix(0x31, 0x01, 0x20) },
            Self::Sha384 => const { &nist_prefix(0x41, 0x02, 0x30) },
            Self::Sha512 => const { &nist_prefix(0x51, 0x03, 0x40) },
            Self::Sha3_256 => const { &nist_prefix(0x31, 0x08, 0x20) },
            Self::Sha3_384 => const { &nist_prefix(0x41, 0x09, 0x30) },
            Self::Sha3_512 => const { &nist_prefix(0x51, 0x0a, 0x40) },
            _ => return None,
        })
    }

    /// Whether [`digest`](Self::digest) can compute this algorithm.
    #[must_use]
    pub const fn is_computable(self) -> bool {
        if cfg!(feature = "legacy") && matches!(self, Self::Md5 | Self::Rmd160 | Self::Sm3) {
            return true;
        }
        matches!(
            self,
            Self::Sha1
                | Self::Sha224
                | Self::Sha256
                | Self::Sha384
                | Self::Sha512
                | Self::Sha3_256
                | Self::Sha3_384
                | Self::Sha3_512
        )
    }

    /// The digest of `data`; `None` for an algorithm this crate does not compute.
    #[must_use]
    pub fn digest(self, data: &[u8]) -> Option<Vec<u8>> {
        let mut hasher = Hasher::new(self)?;
        hasher.update(data);
        Some(hasher.finish())
    }
}

/// `DigestInfo` of the algorithms under 2.16.840.1.101.3.4.2: `total` is the outer length, `arc` the last of the object
/// identifier, `digest` the length of the digest.
const fn nist_prefix(total: u8, arc: u8, digest: u8) -> [u8; 19] {
    [
        0x30, total, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, arc,
        0x05, 0x00, 0x04, digest,
    ]
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of the kernel's hash algorithms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no hash algorithm `{0}`")]
pub struct UnknownHash(pub String);

impl FromStr for HashAlgorithm {
    type Err = UnknownHash;

    fn from_str(name: &str) -> Result<Self, UnknownHash> {
        Self::from_name(name).ok_or_else(|| UnknownHash(name.to_owned()))
    }
}

/// A digest in the making, for data that comes in pieces.
#[derive(Debug, Clone)]
pub struct Hasher(State);

#[derive(Debug, Clone)]
enum State {
    Sha1(sha1::Sha1),
    Sha224(sha2::Sha224),
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
    Sha3_256(sha3::Sha3_256),
    Sha3_384(sha3::Sha3_384),
    Sha3_512(sha3::Sha3_512),
    #[cfg(feature = "legacy")]
    Md5(md5::Md5),
    #[cfg(feature = "legacy")]
    Rmd160(ripemd::Ripemd160),
    #[cfg(feature = "legacy")]
    Sm3(sm3::Sm3),
}

macro_rules! each_state {
    ($state:expr, $hasher:ident => $act:expr) => {
        match $state {
            State::Sha1($hasher) => $act,
            State::Sha224($hasher) => $act,
            State::Sha256($hasher) => $act,
            State::Sha384($hasher) => $act,
            State::Sha512($hasher) => $act,
            State::Sha3_256($hasher) => $act,
            State::Sha3_384($hasher) => $act,
            State::Sha3_512($hasher) => $act,
            #[cfg(feature = "legacy")]
            State::Md5($hasher) => $act,
            #[cfg(feature = "legacy")]
            State::Rmd160($hasher) => $act,
            #[cfg(feature = "legacy")]
            State::Sm3($hasher) => $act,
        }
    };
}

impl Hasher {
    /// An empty digest; `None` for an algorithm this crate does not compute.
    #[must_use]
    pub fn new(algorithm: HashAlgorithm) -> Option<Self> {
        use sha1::Digest as _;
        Some(Self(match algorithm {
            HashAlgorithm::Sha1 => State::Sha1(sha1::Sha1::new()),
            HashAlgorithm::Sha224 => State::Sha224(sha2::Sha224::new()),
            HashAlgorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            HashAlgorithm::Sha384 => State::Sha384(sha2::Sha384::new()),
            HashAlgorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
            HashAlgorithm::Sha3_256 => State::Sha3_256(sha3::Sha3_256::new()),
            HashAlgorithm::Sha3_384 => State::Sha3_384(sha3::Sha3_384::new()),
            HashAlgorithm::Sha3_512 => State::Sha3_512(sha3::Sha3_512::new()),
            #[cfg(feature = "legacy")]
            HashAlgorithm::Md5 => State::Md5(md5::Md5::new()),
            #[cfg(feature = "legacy")]
            HashAlgorithm::Rmd160 => State::Rmd160(ripemd::Ripemd160::new()),
            #[cfg(feature = "legacy")]
            HashAlgorithm::Sm3 => State::Sm3(sm3::Sm3::new()),
            _ => return None,
        }))
    }

    /// Takes the next piece of the data.
    pub fn update(&mut self, data: &[u8]) {
        use sha1::Digest as _;
        each_state!(&mut self.0, hasher => hasher.update(data));
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        use sha1::Digest as _;
        each_state!(self.0, hasher => hasher.finalize().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_go_both_ways() {
        for (index, algorithm) in HashAlgorithm::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(algorithm.id()), index);
            assert_eq!(HashAlgorithm::from_id(algorithm.id()), Some(algorithm));
            assert_eq!(HashAlgorithm::from_name(algorithm.name()), Some(algorithm));
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
            assert!(algorithm.digest_len() <= MAX_DIGEST_LEN);
        }
        assert_eq!(HashAlgorithm::from_id(23), None);
        assert_eq!(HashAlgorithm::from_name("SHA256"), None);
        assert_eq!(HashAlgorithm::from_name("sha-256"), None);
    }

    #[test]
    fn kernel_numbers() {
        for (algorithm, id) in [
            (HashAlgorithm::Md5, 1),
            (HashAlgorithm::Sha1, 2),
            (HashAlgorithm::Sha256, 4),
            (HashAlgorithm::Sha384, 5),
            (HashAlgorithm::Sha512, 6),
            (HashAlgorithm::Sha224, 7),
            (HashAlgorithm::Sm3, 17),
            (HashAlgorithm::Sha3_256, 20),
            (HashAlgorithm::Sha3_384, 21),
            (HashAlgorithm::Sha3_512, 22),
        ] {
            assert_eq!(algorithm.id(), id, "{algorithm}");
        }
    }

    #[test]
    fn digest_info_announces_the_digest_it_is_for() {
        for algorithm in HashAlgorithm::ALL {
            if let Some(prefix) = algorithm.digest_info_prefix() {
                assert_eq!(
                    usize::from(*prefix.last().unwrap()),
                    algorithm.digest_len(),
                    "{algorithm}"
                );
                assert_eq!(
                    usize::from(prefix[1]) + 2,
                    prefix.len() + algorithm.digest_len(),
                    "{algorithm}"
                );
            }
        }
    }

    #[test]
    fn digests_of_abc() {
        for (algorithm, hex) in [
            (
                HashAlgorithm::Sha1,
                "a9993e364706816aba3e25717850c26c9cd0d89d",
            ),
            (
                HashAlgorithm::Sha224,
                "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
            ),
            (
                HashAlgorithm::Sha256,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                HashAlgorithm::Sha384,
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
            ),
            (
                HashAlgorithm::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
            (
                HashAlgorithm::Sha3_256,
                "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
            ),
            #[cfg(feature = "legacy")]
            (HashAlgorithm::Md5, "900150983cd24fb0d6963f7d28e17f72"),
            #[cfg(feature = "legacy")]
            (
                HashAlgorithm::Rmd160,
                "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc",
            ),
            #[cfg(feature = "legacy")]
            (
                HashAlgorithm::Sm3,
                "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0",
            ),
        ] {
            let digest = algorithm.digest(b"abc").unwrap();
            let text = crate::hex::encode(&digest);
            assert_eq!(text, hex, "{algorithm}");
        }
        for algorithm in HashAlgorithm::ALL {
            let digest = algorithm.digest(b"");
            assert_eq!(digest.is_some(), algorithm.is_computable(), "{algorithm}");
            assert!(digest.is_none_or(|digest| digest.len() == algorithm.digest_len()));
        }
    }
}
