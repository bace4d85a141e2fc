//! Remote attestation: a TPM 2.0 signs the PCRs of a boot with a key that never leaves it, and a verifier elsewhere judges the boot by
//! the logs that explain those PCRs.
//!
//! The device makes the [`Evidence`] with [`device`]; the verifier judges it with [`verify`](verify::verify), which needs no TPM.
//! [`credential`] shows the verifier once that the key is in the same TPM as an endorsement key.

pub mod credential;
pub mod device;
mod evidence;
mod key;
mod quote;
pub mod verify;

use ima::bank::Bank;
use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use tpm2_protocol::data::TpmAlgId;

pub use evidence::{Evidence, MAX_EVIDENCE};
pub use key::{BadSignature, KeyKind, PublicArea};
pub use quote::{Quote, Selected, pcr_digest, tpm2_tools_pcrs};

/// The lengths of a nonce in bytes: long enough that none is chosen twice, and short enough for every TPM, which takes a digest
/// of its longest hash algorithm (TPM 2.0 Library, part 2, `TPM2B_DATA`).
pub const NONCE: std::ops::RangeInclusive<usize> = 16..=32;

/// The fault of a file that is not what an option takes.
fn malformed(detail: impl Into<String>) -> Fault {
    Fault::new(Code::AttestationInput, detail)
}

/// The hash algorithm of that number; nothing for those that no signature here may be made with, SHA-1 among them.
fn hash_of(algorithm: TpmAlgId) -> Option<HashAlgorithm> {
    match algorithm {
        TpmAlgId::Sha256 => Some(HashAlgorithm::Sha256),
        TpmAlgId::Sha384 => Some(HashAlgorithm::Sha384),
        TpmAlgId::Sha512 => Some(HashAlgorithm::Sha512),
        _ => None,
    }
}

/// The bank of that number.
fn bank_of(algorithm: TpmAlgId) -> Option<Bank> {
    Bank::ALL
        .into_iter()
        .find(|bank| bank.tpm_algorithm() == algorithm.value())
}
