//! Checking signatures without the kernel.

use rsa::RsaPublicKey;
use rsa::pkcs1::DecodeRsaPublicKey as _;
use rsa::traits::SignatureScheme as _;

use super::{VerifyError, check_digest, signature_algorithm};
use crate::certificate::{Certificate, Curve, PublicKey};
use crate::hash::HashAlgorithm;

/// Checks that `signature` is one of `digest`, computed with `algo`, by the key of `certificate`. RSA and DER-encoded ECDSA.
///
/// # Errors
///
/// [`VerifyError`].
pub fn verify_digest(
    certificate: &Certificate,
    algo: HashAlgorithm,
    digest: &[u8],
    signature: &[u8],
) -> Result<(), VerifyError> {
    check_digest(certificate, algo, digest)?;
    match certificate.key() {
        PublicKey::Rsa { .. } => {
            verify_rsa(certificate.public_key_bytes(), algo, digest, signature)
        }
        PublicKey::Ec { curve: Curve::P256 } => {
            use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(certificate.public_key_bytes())
                .map_err(|_| VerifyError::BadKey)?;
            let signature =
                p256::ecdsa::Signature::from_der(signature).map_err(|_| VerifyError::Mismatch)?;
            key.verify_prehash(&field_digest::<32>(digest), &signature)
                .map_err(|_| VerifyError::Mismatch)
        }
        PublicKey::Ec { curve: Curve::P384 } => {
            use p384::ecdsa::signature::hazmat::PrehashVerifier as _;
            let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(certificate.public_key_bytes())
                .map_err(|_| VerifyError::BadKey)?;
            let signature =
                p384::ecdsa::Signature::from_der(signature).map_err(|_| VerifyError::Mismatch)?;
            key.verify_prehash(&field_digest::<48>(digest), &signature)
                .map_err(|_| VerifyError::Mismatch)
        }
        #[cfg(feature = "p521")]
        PublicKey::Ec { curve: Curve::P521 } => {
            use p521::ecdsa::signature::hazmat::PrehashVerifier as _;
            let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(certificate.public_key_bytes())
                .map_err(|_| VerifyError::BadKey)?;
            let signature =
                p521::ecdsa::Signature::from_der(signature).map_err(|_| VerifyError::Mismatch)?;
            key.verify_prehash(&field_digest::<66>(digest), &signature)
                .map_err(|_| VerifyError::Mismatch)
        }
        other => Err(VerifyError::Unsupported(format!("signatures by {other}"))),
    }
}

/// Checks that `issuer` signed `certificate`.
///
/// # Errors
///
/// [`VerifyError`]; [`VerifyError::OtherIssuer`] if the names or key identifiers already say that it did not.
pub fn verify_certificate(
    certificate: &Certificate,
    issuer: &Certificate,
) -> Result<(), VerifyError> {
    if !certificate.names_issuer(issuer) {
        return Err(VerifyError::OtherIssuer(certificate.issuer()));
    }
    let (algo, rsa) = signature_algorithm(certificate).ok_or_else(|| {
        let oid = certificate.signature_algorithm();
        VerifyError::Unsupported(format!("certificates signed with {oid}"))
    })?;
    if rsa != matches!(issuer.key(), PublicKey::Rsa { .. }) {
        return Err(VerifyError::Mismatch);
    }
    let digest = algo
        .digest(certificate.tbs_der())
        .ok_or_else(|| VerifyError::Unsupported(algo.to_string()))?;
    verify_digest(issuer, algo, &digest, certificate.signature())
}

fn verify_rsa(
    key: &[u8],
    algo: HashAlgorithm,
    digest: &[u8],
    signature: &[u8],
) -> Result<(), VerifyError> {
    let key = RsaPublicKey::from_pkcs1_der(key).map_err(|_| VerifyError::BadKey)?;
    let prefix = algo
        .digest_info_prefix()
        .ok_or_else(|| VerifyError::Unsupported(format!("RSA signatures of {algo} digests")))?;
    rsa::Pkcs1v15Sign {
        hash_len: Some(algo.digest_len()),
        prefix: prefix.into(),
    }
    .verify(&key, digest, signature)
    .map_err(|_| VerifyError::Mismatch)
}

/// A digest as ECDSA takes it on a curve of `LEN` bytes: the leftmost bytes of a longer one; a shorter one is a smaller
/// number, so zeros come in front.
fn field_digest<const LEN: usize>(digest: &[u8]) -> [u8; LEN] {
    let mut field = [0; LEN];
    let taken = digest.get(..LEN).unwrap_or(digest);
    let zeros = LEN.saturating_sub(taken.len());
    for (to, from) in field.iter_mut().skip(zeros).zip(taken) {
        *to = *from;
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_on_a_curve() {
        assert_eq!(field_digest::<4>(&[1, 2]), [0, 0, 1, 2]);
        assert_eq!(field_digest::<4>(&[1, 2, 3, 4, 5]), [1, 2, 3, 4]);
    }
}
