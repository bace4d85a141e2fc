//! What can sign a digest, and which digests are signed.

use std::fmt;

use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;

use super::kind::KeyKind;
use crate::Result;

/// Something that signs digests: a key in a file, in a token, behind a service.
pub trait Signer: Send + Sync + fmt::Debug {
    /// The public key as it stands in a certificate's BIT STRING: DER of RSAPublicKey, an uncompressed SEC 1 point, or the bytes of
    /// FIPS 204.
    fn public_key(&self) -> &[u8];

    /// The kind of key.
    fn kind(&self) -> KeyKind;

    /// Signs `digest`, computed with `algo`, in the form `security.ima` holds: EMSA-PKCS1-v1_5 for RSA, DER of
    /// `SEQUENCE { r, s }` for ECDSA with the digest truncated to the curve.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`] for an algorithm the key cannot sign, or a digest of the wrong length.
    fn sign_digest(&self, algo: HashAlgorithm, digest: &[u8]) -> Result<Vec<u8>>;

    /// Signs `message`: its digest, computed with `algo`, or with ML-DSA the message itself.
    ///
    /// # Errors
    ///
    /// As [`sign_digest`](Self::sign_digest).
    fn sign_message(&self, algo: HashAlgorithm, message: &[u8]) -> Result<Vec<u8>> {
        self.sign_digest(algo, &digest_of(algo, message)?)
    }

    /// Whether a digest always has the same signature, and making it takes less time than verifying one: then a signature is
    /// best checked by making it again.
    fn is_quickly_repeated(&self) -> bool {
        false
    }
}

/// The digest of a message.
///
/// # Errors
///
/// [`Code::SigningFailed`] for an algorithm that is not computed.
pub(super) fn digest_of(algo: HashAlgorithm, message: &[u8]) -> Result<Vec<u8>> {
    algo.digest(message)
        .ok_or_else(|| Fault::new(Code::SigningFailed, format!("digests of {algo}")))
}

/// The algorithms that signatures are made with. SHA-1 is only verified: whoever can choose a file's content finds another
/// with the same digest.
pub const SIGNED: [HashAlgorithm; 6] = [
    HashAlgorithm::Sha256,
    HashAlgorithm::Sha384,
    HashAlgorithm::Sha512,
    HashAlgorithm::Sha3_256,
    HashAlgorithm::Sha3_384,
    HashAlgorithm::Sha3_512,
];

/// Checks that digests of `algo` are signed and that `digest` is one.
///
/// # Errors
///
/// [`Code::SigningFailed`].
pub(crate) fn check_digest(algo: HashAlgorithm, digest: &[u8]) -> Result<()> {
    if !SIGNED.contains(&algo) {
        let cause = match algo {
            HashAlgorithm::Md5 | HashAlgorithm::Sha1 => Cause::DIGEST_TOO_WEAK,
            _ => Cause::DIGEST_NOT_COMPUTED,
        };
        return Err(Fault::new(Code::SigningFailed, format!("a digest of {algo}")).because(cause));
    }
    if digest.len() != algo.digest_len() {
        return Err(Fault::new(
            Code::SigningFailed,
            format!("{algo} digest of {} bytes", digest.len()),
        )
        .because(Cause::DIGEST_LENGTH.with(&[&algo.to_string(), &algo.digest_len().to_string()])));
    }
    Ok(())
}

/// Checks that `signer` holds the private key of `certificate`.
///
/// # Errors
///
/// [`Code::KeyMismatch`].
pub fn check_belongs(signer: &dyn Signer, certificate: &Certificate) -> Result<()> {
    if certificate.public_key_bytes() == signer.public_key() {
        return Ok(());
    }
    Err(Fault::new(
        Code::KeyMismatch,
        format!(
            "the certificate of `{}` is for a {} key",
            certificate.subject(),
            certificate.key()
        ),
    )
    .because(Cause::KEYS_DIFFER.with(&[&signer.kind().to_string()])))
}
