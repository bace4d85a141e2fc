//! Signatures of version 1 and the public keys that they are checked with: evmctl's old format, for devices with old kernels.
//!
//! Layouts are those of `struct signature_hdr` and `struct pubkey_hdr` (`include/linux/digsig.h`), after the type byte of the
//! attribute; what is checked is in `digsig_verify` (`lib/digsig.c`):
//!
//! | offset | length | signature | public key |
//! |---|---|---|---|
//! | 0 | 1 | version, 1 | version, 1 |
//! | 1 | 4 | seconds since 1970 (LE32, as evmctl writes it on x86) | 0 |
//! | 5 | 1 | key algorithm, 0 for RSA | the same |
//! | 6 | 1 | hash algorithm: 0 for SHA-1, 1 for SHA-256 | how many numbers follow, 2 |
//! | 7 | 8 | [`KeyId`] | the numbers: modulus and exponent |
//! | 15 | 1 | how many numbers follow, 1 | |
//! | 16 | | the number: the RSA signature | |
//!
//! A number is its length in bits (BE16) and then its bytes, big-endian.

use core::fmt;

use sha1::{Digest as _, Sha1};

use crate::hash::HashAlgorithm;

/// The byte after the attribute's type, by which signatures of version 1 are recognised.
pub const VERSION: u8 = 1;

const RSA: u8 = 0;
const HEADER_LEN: usize = 16;

/// The key that a signature names: the last eight bytes of the SHA-1 of its [`PublicKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId(pub [u8; 8]);

/// Displays the identifier as the kernel looks it up among keys of type `user` (`%llX` in `digsig_verify`): without leading zeros.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}", u64::from_be_bytes(self.0))
    }
}

/// A hash algorithm of version 1 (`enum digest_algo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the documentation
pub enum DigestAlgorithm {
    Sha1 = 0,
    Sha256 = 1,
}

impl DigestAlgorithm {
    /// The algorithm that the rest of the project knows; `None` for one that version 1 has no number of.
    #[must_use]
    pub const fn new(algo: HashAlgorithm) -> Option<Self> {
        match algo {
            HashAlgorithm::Sha1 => Some(Self::Sha1),
            HashAlgorithm::Sha256 => Some(Self::Sha256),
            _ => None,
        }
    }

    /// The same algorithm under the kernel's usual number.
    #[must_use]
    pub const fn algorithm(self) -> HashAlgorithm {
        match self {
            Self::Sha1 => HashAlgorithm::Sha1,
            Self::Sha256 => HashAlgorithm::Sha256,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Sha1, Self::Sha256]
            .into_iter()
            .find(|algo| *algo as u8 == number)
    }
}

/// The header of a signature, which is signed together with the file's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// When the signature was made, in seconds since 1970.
    pub time: u32,
    /// What the file's digest was computed with.
    pub algo: DigestAlgorithm,
    /// The key.
    pub key_id: KeyId,
}

impl Header {
    /// What the RSA signature is over, with PKCS #1 padding and without a `DigestInfo`: the SHA-1 of the file's digest and
    /// the header.
    #[must_use]
    pub fn signed_digest(&self, digest: &[u8]) -> [u8; 20] {
        Sha1::new()
            .chain_update(digest)
            .chain_update(self.encode())
            .finalize()
            .into()
    }

    fn encode(&self) -> Vec<u8> {
        [
            &[VERSION][..],
            &self.time.to_le_bytes(),
            &[RSA, self.algo as u8],
            &self.key_id.0,
            &[1],
        ]
        .concat()
    }

    fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, Error> {
        let [version, a, b, c, d, key, hash, key_id @ .., numbers] = *bytes;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        if key != RSA {
            return Err(Error::KeyAlgorithm(key));
        }
        let algo = DigestAlgorithm::from_number(hash).ok_or(Error::HashAlgorithm(hash))?;
        if numbers != 1 {
            return Err(Error::Numbers(numbers));
        }
        Ok(Self {
            time: u32::from_le_bytes([a, b, c, d]),
            algo,
            key_id: KeyId(key_id),
        })
    }
}

/// A signature of version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// What is signed with the file's digest.
    pub header: Header,
    /// The RSA signature, as long as the modulus: 1 to 8191 bytes.
    pub number: Vec<u8>,
}

impl Signature {
    /// Reads what follows the attribute's type byte.
    ///
    /// # Errors
    ///
    /// [`Error`] for a header that the kernel would refuse (`digsig_verify`), and for a length that is not that of the
    /// rest.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let too_short = || Error::TooShort(bytes.len());
        let (header, rest) = bytes.split_first_chunk().ok_or_else(too_short)?;
        let (bits, number) = rest.split_first_chunk().ok_or_else(too_short)?;
        let header = Header::parse(header)?;
        let bits = u16::from_be_bytes(*bits);
        if bits == 0 || usize::from(bits.div_ceil(8)) != number.len() {
            return Err(Error::Length {
                bits,
                found: number.len(),
            });
        }
        Ok(Self {
            header,
            number: number.to_vec(),
        })
    }

    /// The signature as [`Signature::parse`] reads it. As evmctl does, it counts the bits of all bytes of the number.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bits = bits(self.number.len(), 0);
        [&self.header.encode()[..], &bits, &self.number].concat()
    }
}

/// A length in bits as it precedes a number of `len` bytes whose first `zeros` bits are none. No RSA key is longer than
/// the field holds; the length of a longer number would be refused by every reader.
fn bits(len: usize, zeros: u32) -> [u8; 2] {
    let bits = len
        .checked_mul(8)
        .and_then(|bits| u16::try_from(bits).ok())
        .unwrap_or_default();
    bits.saturating_sub(u16::try_from(zeros).unwrap_or_default())
        .to_be_bytes()
}

/// An RSA public key as the kernel's `user` keys hold it, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// Encodes a key from its modulus and exponent, both big-endian; zeros in front are left out.
    #[must_use]
    pub fn new(modulus: &[u8], exponent: &[u8]) -> Self {
        let time = [0; 4];
        let mut key = [&[VERSION][..], &time, &[RSA, 2]].concat();
        for number in [modulus, exponent] {
            let zeros = number.iter().take_while(|&&byte| byte == 0).count();
            let number = number.get(zeros..).unwrap_or_default();
            let unused = number.first().map_or(0, |byte| byte.leading_zeros());
            key.extend(bits(number.len(), unused));
            key.extend(number);
        }
        Self(key)
    }

    /// The encoded key, as `keyctl padd user` takes it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The identifier under which signatures name the key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        let [.., a, b, c, d, e, f, g, h] = <[u8; 20]>::from(Sha1::digest(&self.0));
        KeyId([a, b, c, d, e, f, g, h])
    }
}

/// Why bytes are not a signature of version 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Less than a header and the length of a number.
    #[error("too short: {0} bytes")]
    TooShort(usize),
    /// The signature is of another version.
    #[error("version {0} instead of 1")]
    Version(u8),
    /// The number is not that of RSA.
    #[error("unknown key algorithm number {0}")]
    KeyAlgorithm(u8),
    /// The number is neither that of SHA-1 nor of SHA-256.
    #[error("unknown hash algorithm number {0}")]
    HashAlgorithm(u8),
    /// An RSA signature is one number.
    #[error("{0} numbers instead of 1")]
    Numbers(u8),
    /// The length in bits is zero, or not that of the bytes that follow.
    #[error("signature of {found} bytes where the header says {bits} bits")]
    Length {
        /// The length found before the number.
        bits: u16,
        /// The number's bytes.
        found: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layouts() {
        let header = Header {
            time: 0x0403_0201,
            algo: DigestAlgorithm::Sha256,
            key_id: KeyId([0, 0xb, 0xc, 0xd, 0xe, 0xf, 0x10, 0x11]),
        };
        let signature = Signature {
            header,
            number: vec![0, 0x5a],
        };
        let bytes = [
            1, 1, 2, 3, 4, 0, 1, 0, 0xb, 0xc, 0xd, 0xe, 0xf, 0x10, 0x11, 1, 0, 16, 0, 0x5a,
        ];
        assert_eq!(signature.encode(), bytes);
        assert_eq!(Signature::parse(&bytes), Ok(signature));
        assert_eq!(header.key_id.to_string(), "B0C0D0E0F1011");
        let covered = [b"digest", &bytes[..16]].concat();
        assert_eq!(
            HashAlgorithm::Sha1.digest(&covered).unwrap(),
            header.signed_digest(b"digest")
        );
        let key = PublicKey::new(&[0, 0, 0x7f, 0xff], &[1, 0, 1]);
        let bytes = [1, 0, 0, 0, 0, 0, 2, 0, 15, 0x7f, 0xff, 0, 17, 1, 0, 1];
        assert_eq!(key.as_bytes(), bytes);
        let sha1 = HashAlgorithm::Sha1.digest(&bytes).unwrap();
        assert_eq!(key.key_id().0, sha1[12..]);
    }

    #[test]
    fn refusals() {
        let good = [
            1, 9, 9, 9, 9, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 12, 0xf, 1,
        ];
        assert!(Signature::parse(&good).is_ok());
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            Signature::parse(&bytes)
        };
        assert_eq!(with(0, 2), Err(Error::Version(2)));
        assert_eq!(with(5, 1), Err(Error::KeyAlgorithm(1)));
        assert_eq!(with(6, 2), Err(Error::HashAlgorithm(2)));
        assert_eq!(with(15, 0), Err(Error::Numbers(0)));
        assert_eq!(with(15, 2), Err(Error::Numbers(2)));
        for (bits, found) in [(0, 2), (8, 2), (17, 2)] {
            assert_eq!(with(17, bits), {
                let bits = u16::from(bits);
                Err(Error::Length { bits, found })
            });
        }
        let empty = [&good[..16], &[0, 0]].concat();
        let length = Error::Length { bits: 0, found: 0 };
        assert_eq!(Signature::parse(&empty), Err(length));
    }

    fn signatures() -> impl Strategy<Value = Signature> {
        let algo = prop_oneof![Just(DigestAlgorithm::Sha1), Just(DigestAlgorithm::Sha256)];
        let number = proptest::collection::vec(any::<u8>(), 1..600);
        (any::<u32>(), algo, any::<[u8; 8]>(), number).prop_map(|(time, algo, id, number)| {
            let key_id = KeyId(id);
            let header = Header { time, algo, key_id };
            Signature { header, number }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_shorter_or_longer(
            signature in signatures(), cut in any::<proptest::sample::Index>(), more in 1usize..40,
        ) {
            let bytes = signature.encode();
            prop_assert!(Signature::parse(&bytes[..cut.index(bytes.len())]).is_err());
            let longer = [&bytes[..], &vec![0; more]].concat();
            prop_assert!(Signature::parse(&longer).is_err());
            prop_assert_eq!(Signature::parse(&bytes), Ok(signature));
        }

        #[test]
        fn hostile_bytes_never_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..80), near in any::<bool>(),
        ) {
            if near && let [version, _, _, _, _, key, hash, _, _, _, _, _, _, _, _, count, high, low, number @ ..] = &mut bytes[..] {
                (*version, *key, *hash, *count) = (1, 0, *hash % 3, 1);
                (*high, *low) = (u8::from(*high > 250), (number.len() * 8) as u8);
            }
            if let Ok(signature) = Signature::parse(&bytes) {
                prop_assert_eq!(&signature.encode()[..16], &bytes[..16]);
                prop_assert_eq!(Signature::parse(&signature.encode()), Ok(signature));
            }
        }
    }
}
