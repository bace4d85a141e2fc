//! Banks of PCRs in a TPM.

use std::fmt;

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::hash::HashAlgorithm;

/// A bank of PCRs in the TPM, by its hash algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bank {
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-384, 48 bytes.
    Sha384,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Bank {
    /// Every bank known here.
    pub const ALL: [Bank; 4] = [Bank::Sha1, Bank::Sha256, Bank::Sha384, Bank::Sha512];

    /// The hash algorithm.
    #[must_use]
    pub const fn algorithm(self) -> HashAlgorithm {
        match self {
            Bank::Sha1 => HashAlgorithm::Sha1,
            Bank::Sha256 => HashAlgorithm::Sha256,
            Bank::Sha384 => HashAlgorithm::Sha384,
            Bank::Sha512 => HashAlgorithm::Sha512,
        }
    }

    /// The number of the algorithm in commands to a TPM (`TPM_ALG_ID`; TPM 2.0 Library, part 2, 6.3).
    #[must_use]
    pub const fn tpm_algorithm(self) -> u16 {
        match self {
            Bank::Sha1 => 0x04,
            Bank::Sha256 => 0x0b,
            Bank::Sha384 => 0x0c,
            Bank::Sha512 => 0x0d,
        }
    }

    /// Length of a PCR and of a digest, in bytes.
    #[must_use]
    pub const fn digest_len(self) -> usize {
        self.algorithm().digest_len()
    }

    /// The name of the algorithm, as the kernel writes it in `pcr-sha256` and `ascii_runtime_measurements_sha256`, and
    /// systemd in the tokens of LUKS2.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.algorithm().name()
    }

    /// The bank of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Bank> {
        Bank::ALL.into_iter().find(|bank| bank.name() == name)
    }

    /// The bank whose digests have this many bytes.
    #[must_use]
    pub fn from_digest_len(len: usize) -> Option<Bank> {
        Bank::ALL.into_iter().find(|bank| bank.digest_len() == len)
    }

    /// What a PCR that holds `value` holds after it was extended by `digest`.
    #[must_use]
    pub fn extend(self, value: &[u8], digest: &[u8]) -> Vec<u8> {
        self.hash(&[value, digest])
    }

    pub(crate) fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
        fn run<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
            let mut digest = D::new();
            for part in parts {
                digest.update(part);
            }
            digest.finalize().to_vec()
        }
        match self {
            Bank::Sha1 => run::<Sha1>(parts),
            Bank::Sha256 => run::<Sha256>(parts),
            Bank::Sha384 => run::<Sha384>(parts),
            Bank::Sha512 => run::<Sha512>(parts),
        }
    }
}

impl fmt::Display for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lengths_go_both_ways() {
        for bank in Bank::ALL {
            assert_eq!(Bank::from_name(bank.name()), Some(bank));
            assert_eq!(Bank::from_digest_len(bank.digest_len()), Some(bank));
            assert_eq!(
                bank.hash(&[b"a", b"b"]),
                bank.algorithm().digest(b"ab").unwrap()
            );
        }
        assert_eq!(Bank::from_name("md5"), None);
        assert_eq!(Bank::from_digest_len(21), None);
    }
}
