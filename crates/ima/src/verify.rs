//! Checking signatures. Nothing here can make one.
//!
//! The kernel's counterpart is `public_key_verify_signature`: RSA with EMSA-PKCS1-v1_5 (`pkcs1pad(rsa, <hash>)`), ECDSA
//! over P-256, P-384 and (feature `p521`) P-521 with the digest truncated to the curve's length (FIPS 186-5 section 6.4.2).

#[cfg(feature = "verify")]
mod software;

#[cfg(feature = "verify")]
pub use software::{verify_certificate, verify_digest};

use crate::certificate::{Certificate, Curve, LeafDefect, MlDsa, PublicKey, is_rsa_length};
use crate::hash::HashAlgorithm;
use crate::oid::{
    ECDSA_WITH_SHA_1, ECDSA_WITH_SHA_224, ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384,
    ECDSA_WITH_SHA_512, ECDSA_WITH_SHA3_256, ECDSA_WITH_SHA3_384, ECDSA_WITH_SHA3_512,
    ObjectIdentifier, RSA_WITH_SHA3_256, RSA_WITH_SHA3_384, RSA_WITH_SHA3_512,
    SHA_1_WITH_RSA_ENCRYPTION, SHA_224_WITH_RSA_ENCRYPTION, SHA_256_WITH_RSA_ENCRYPTION,
    SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
};
use crate::release::Release;
use crate::signature::{ImaXattr, SignatureV2, v3_digest};

/// Why a signature does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The signature was made by another key or over other content.
    #[error("the signature is wrong: other content, or another key")]
    Mismatch,
    /// The signature names another key.
    #[error("the signature is by key {found}, the certificate's key is {expected}")]
    OtherKey {
        /// The key id of the certificate.
        expected: crate::signature::KeyId,
        /// The key id of the signature.
        found: crate::signature::KeyId,
    },
    /// The issuer the certificate names is another.
    #[error("issued by `{0}`")]
    OtherIssuer(String),
    /// The digest is not as long as its algorithm's.
    #[error("{algo} digest of {found} bytes")]
    DigestLength {
        /// The algorithm.
        algo: HashAlgorithm,
        /// The length found.
        found: usize,
    },
    /// The public key cannot be used: a malformed point or modulus.
    #[error("the certificate's public key is malformed")]
    BadKey,
    /// No kernel verifies signatures of this kind: an RSA key of another length, or a hash algorithm that it has no encoding of.
    #[error("no kernel can verify it: {0}")]
    NoKernel(String),
    /// A kind of key, or a hash algorithm, that is not checked here.
    #[error("cannot check {0}")]
    Unsupported(String),
}

/// Why no kernel verifies signatures by such a key over such a digest; nothing if a kernel may
/// (crypto/rsa.c, `rsa_check_key_length`; crypto/rsa-pkcs1pad.c, `rsa_asn1_templates`;
/// crypto/asymmetric_keys/public_key.c, `software_key_determine_akcipher`).
pub fn unverifiable(key: &PublicKey, algo: HashAlgorithm) -> Option<String> {
    use HashAlgorithm as H;
    let encoded = match key {
        PublicKey::Rsa { bits } if !is_rsa_length(*bits) => {
            let defect = LeafDefect::RsaLength(*bits);
            return Some(defect.to_string());
        }
        PublicKey::Rsa { .. } => algo.digest_info_prefix().is_some(),
        PublicKey::Ec { .. } => matches!(
            algo,
            H::Sha1
                | H::Sha224
                | H::Sha256
                | H::Sha384
                | H::Sha512
                | H::Sha3_256
                | H::Sha3_384
                | H::Sha3_512
        ),
        // It signs what the digest is in, whatever that is of.
        PublicKey::MlDsa(_) | PublicKey::Other { .. } => return None,
    };
    (!encoded).then(|| format!("the kernel takes no {algo} digest with a key of kind {key}"))
}

/// The first kernel that takes signatures of version 3 over the digests of files and in security.evm; those before take them for
/// fs-verity alone (ima_appraise.c, `xattr_verify`; evm_main.c, `evm_verify_hmac`).
pub const SIGV3_FILES: Release = Release { major: 7, minor: 1 };

/// The first kernel that verifies signatures by such a key over such a digest; nothing if every kernel with IMA does. Elliptic
/// curves came with 5.13 (crypto/ecdsa.c), the hash IDs of SHA-3 with 6.7 (include/uapi/linux/hash_info.h), and P-521 with 6.10
/// (crypto/asymmetric_keys/x509_cert_parser.c, `x509_extract_key_data`), and ML-DSA with 7.2 (security/integrity/digsig_asymmetric.c,
/// `asymmetric_verify_v3`).
#[must_use]
pub fn since(key: &PublicKey, algo: HashAlgorithm) -> Option<Release> {
    use HashAlgorithm as H;
    let release = |major, minor| Some(Release { major, minor });
    let key = match key {
        PublicKey::Ec { curve: Curve::P521 } => release(6, 10),
        PublicKey::Ec { .. } => release(5, 13),
        PublicKey::MlDsa(_) => release(7, 2),
        PublicKey::Rsa { .. } | PublicKey::Other { .. } => None,
    };
    let digest = match algo {
        H::Sha3_256 | H::Sha3_384 | H::Sha3_512 => release(6, 7),
        _ => None,
    };
    key.max(digest)
}

/// Why a kernel of that release verifies no signature by such a key over such a digest, if it is too old for one of them.
#[must_use]
pub fn too_old(kernel: Release, key: &PublicKey, algo: HashAlgorithm) -> Option<String> {
    let since = since(key, algo).filter(|since| kernel < *since)?;
    Some(format!(
        "{key} with {algo} needs Linux {since}, and this is for {kernel}"
    ))
}

/// Checks that a signature is one of a digest, computed with that algorithm, by the key of a certificate: [`verify_digest`] does
/// that with code of its own, and `ima_keyring::verify_digest` asks the kernel.
pub type VerifyDigest = fn(&Certificate, HashAlgorithm, &[u8], &[u8]) -> Result<(), VerifyError>;

/// What [`VerifyDigest`] says whatever the signature is.
///
/// # Errors
///
/// [`VerifyError::DigestLength`] and [`VerifyError::NoKernel`].
pub fn check_digest(
    certificate: &Certificate,
    algo: HashAlgorithm,
    digest: &[u8],
) -> Result<(), VerifyError> {
    if digest.len() != algo.digest_len() {
        return Err(VerifyError::DigestLength {
            algo,
            found: digest.len(),
        });
    }
    unverifiable(certificate.key(), algo).map_or(Ok(()), |why| Err(VerifyError::NoKernel(why)))
}

/// Checks a version 2 signature of a file's digest: the key id first, as the kernel looks its key up by it.
///
/// # Errors
///
/// [`VerifyError`]; `digest` must be of the signature's algorithm.
pub fn verify_signature(
    verify: VerifyDigest,
    certificate: &Certificate,
    digest: &[u8],
    signature: &SignatureV2,
) -> Result<(), VerifyError> {
    let expected = certificate.key_id();
    if expected != signature.key_id {
        return Err(VerifyError::OtherKey {
            expected,
            found: signature.key_id,
        });
    }
    verify(certificate, signature.algo, digest, &signature.signature)
}

/// Checks a signature of any type and version. `digest` is that of what the type is over: the content, the fs-verity digest, or
/// what [`crate::evm`] hashes.
///
/// # Errors
///
/// [`VerifyError`]; [`VerifyError::Unsupported`] for a value that is no signature.
pub fn verify_value(
    verify: VerifyDigest,
    certificate: &Certificate,
    digest: &[u8],
    value: &ImaXattr,
) -> Result<(), VerifyError> {
    let signature = value
        .signature()
        .ok_or_else(|| VerifyError::Unsupported("what is no signature".to_owned()))?;
    let Some(kind) = value.v3_kind() else {
        if let PublicKey::MlDsa(set) = certificate.key() {
            return Err(VerifyError::NoKernel(version_2_of(*set)));
        }
        return verify_signature(verify, certificate, digest, signature);
    };
    if digest.len() != signature.algo.digest_len() {
        return Err(VerifyError::DigestLength {
            algo: signature.algo,
            found: digest.len(),
        });
    }
    let signed = v3_digest(kind, signature.algo, digest)
        .ok_or_else(|| VerifyError::Unsupported(format!("{} signatures", signature.algo)))?;
    verify_signature(verify, certificate, &signed, signature)
}

/// Why no kernel verifies a signature of version 2 by such a key (digsig_asymmetric.c, `asymmetric_verify_common`).
#[must_use]
pub fn version_2_of(set: MlDsa) -> String {
    format!("the kernel takes signatures by {set} of version 3 alone")
}

/// The hash of the signature in a certificate; nothing if the algorithm is not known here.
pub fn signature_digest(certificate: &Certificate) -> Option<HashAlgorithm> {
    signature_algorithm(certificate).map(|(algo, _)| algo)
}

/// The algorithms of certificates' signatures: the hash of each, and whether it is RSA; the others are ECDSA.
const SIGNATURE_ALGORITHMS: [(ObjectIdentifier, HashAlgorithm, bool); 16] = [
    (SHA_1_WITH_RSA_ENCRYPTION, HashAlgorithm::Sha1, true),
    (SHA_224_WITH_RSA_ENCRYPTION, HashAlgorithm::Sha224, true),
    (SHA_256_WITH_RSA_ENCRYPTION, HashAlgorithm::Sha256, true),
    (SHA_384_WITH_RSA_ENCRYPTION, HashAlgorithm::Sha384, true),
    (SHA_512_WITH_RSA_ENCRYPTION, HashAlgorithm::Sha512, true),
    (RSA_WITH_SHA3_256, HashAlgorithm::Sha3_256, true),
    (RSA_WITH_SHA3_384, HashAlgorithm::Sha3_384, true),
    (RSA_WITH_SHA3_512, HashAlgorithm::Sha3_512, true),
    (ECDSA_WITH_SHA_1, HashAlgorithm::Sha1, false),
    (ECDSA_WITH_SHA_224, HashAlgorithm::Sha224, false),
    (ECDSA_WITH_SHA_256, HashAlgorithm::Sha256, false),
    (ECDSA_WITH_SHA_384, HashAlgorithm::Sha384, false),
    (ECDSA_WITH_SHA_512, HashAlgorithm::Sha512, false),
    (ECDSA_WITH_SHA3_256, HashAlgorithm::Sha3_256, false),
    (ECDSA_WITH_SHA3_384, HashAlgorithm::Sha3_384, false),
    (ECDSA_WITH_SHA3_512, HashAlgorithm::Sha3_512, false),
];

/// Hash of a certificate's signature, and whether it is RSA.
fn signature_algorithm(certificate: &Certificate) -> Option<(HashAlgorithm, bool)> {
    let wanted = certificate.signature_algorithm();
    SIGNATURE_ALGORITHMS
        .iter()
        .find(|(oid, ..)| *oid == wanted)
        .map(|(_, algo, rsa)| (*algo, *rsa))
}

#[cfg(all(test, feature = "verify"))]
mod tests;
