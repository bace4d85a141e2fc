//! Checking many signatures by one key, with the library that also signs: several times as fast as `ima::verify`, which is made to
//! be small.

use std::borrow::Cow;

use aws_lc_rs::digest::{Algorithm, Digest, SHA256, SHA384, SHA512};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ML_DSA_44, ML_DSA_65, ML_DSA_87,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, VerificationAlgorithm,
};
use ima::certificate::{Certificate, Curve, MlDsa, PublicKey};
use ima::hash::HashAlgorithm;
use ima::signature::{ImaXattr, SignatureV2, file_id, v3_digest};
use ima::verify::{VerifyError, verify_digest, verify_value};

/// A certificate made ready.
#[derive(Debug)]
pub struct Verifier<'a> {
    certificate: &'a Certificate,
    /// For RSA one of each algorithm.
    keys: Vec<(&'static Algorithm, ParsedPublicKey)>,
}

impl<'a> Verifier<'a> {
    /// Prepares `certificate`. A key that the library does not take is checked by `ima::verify` alone.
    #[must_use]
    pub fn new(certificate: &'a Certificate) -> Self {
        type Kind = (&'static Algorithm, &'static dyn VerificationAlgorithm);
        let kinds: &[Kind] = match certificate.key() {
            PublicKey::Rsa { .. } => &[
                (&SHA256, &RSA_PKCS1_2048_8192_SHA256),
                (&SHA384, &RSA_PKCS1_2048_8192_SHA384),
                (&SHA512, &RSA_PKCS1_2048_8192_SHA512),
            ],
            PublicKey::Ec { curve: Curve::P256 } => &[(&SHA256, &ECDSA_P256_SHA256_ASN1)],
            PublicKey::Ec { curve: Curve::P384 } => &[(&SHA384, &ECDSA_P384_SHA384_ASN1)],
            _ => &[],
        };
        let keys = kinds
            .iter()
            .filter_map(|(digest, algorithm)| {
                let key = ParsedPublicKey::new(*algorithm, certificate.public_key_bytes());
                Some((*digest, key.ok()?))
            })
            .collect();
        Self { certificate, keys }
    }

    /// Checks a signature, as [`verify_value`] does. What the quick library does not find good is judged by `ima::verify`.
    ///
    /// # Errors
    ///
    /// [`VerifyError`].
    pub fn verify_value(&self, digest: &[u8], value: &ImaXattr) -> Result<(), VerifyError> {
        if let PublicKey::MlDsa(_) = self.certificate.key() {
            return verify_any(self.certificate, digest, value);
        }
        if let Some(signature) = value.signature()
            && self.certificate.key_id() == signature.key_id
        {
            let signed = match value.v3_kind() {
                None => Some(Cow::Borrowed(digest)),
                Some(kind) => v3_digest(kind, signature.algo, digest).map(Cow::Owned),
            };
            if signed.is_some_and(|signed| self.is_good(&signed, signature)) {
                return Ok(());
            }
        }
        verify_value(verify_digest, self.certificate, digest, value)
    }

    fn is_good(&self, digest: &[u8], signature: &SignatureV2) -> bool {
        let wanted = match signature.algo {
            HashAlgorithm::Sha256 => &SHA256,
            HashAlgorithm::Sha384 => &SHA384,
            HashAlgorithm::Sha512 => &SHA512,
            _ => return false,
        };
        // ECDSA takes any digest that was brought to the curve's length; here those are enough that have it.
        self.keys
            .iter()
            .find(|(algorithm, _)| *algorithm == wanted)
            .zip(Digest::import_less_safe(digest, wanted).ok())
            .is_some_and(|((_, key), digest)| {
                key.verify_digest_sig(&digest, &signature.signature).is_ok()
            })
    }
}

/// Checks a signature by a key of any kind: [`verify_value`], and ML-DSA, which `ima::verify` leaves out.
///
/// # Errors
///
/// [`VerifyError`].
pub fn verify_any(
    certificate: &Certificate,
    digest: &[u8],
    value: &ImaXattr,
) -> Result<(), VerifyError> {
    let (PublicKey::MlDsa(set), Some(signature), Some(kind)) =
        (certificate.key(), value.signature(), value.v3_kind())
    else {
        return verify_value(verify_digest, certificate, digest, value);
    };
    if certificate.key_id() != signature.key_id {
        return Err(VerifyError::OtherKey {
            expected: certificate.key_id(),
            found: signature.key_id,
        });
    }
    if digest.len() != signature.algo.digest_len() {
        return Err(VerifyError::DigestLength {
            algo: signature.algo,
            found: digest.len(),
        });
    }
    let message = file_id(kind, signature.algo, digest);
    verify_ml_dsa(*set, certificate, &message, &signature.signature)
}

/// Checks that `issuer`, with a key of any kind, signed `certificate`.
///
/// # Errors
///
/// As [`ima::verify::verify_certificate`].
pub fn verify_certificate(
    certificate: &Certificate,
    issuer: &Certificate,
) -> Result<(), VerifyError> {
    let PublicKey::MlDsa(set) = issuer.key() else {
        return ima::verify::verify_certificate(certificate, issuer);
    };
    if !certificate.names_issuer(issuer) {
        return Err(VerifyError::OtherIssuer(certificate.issuer()));
    }
    if certificate.signature_algorithm() != set.oid() {
        return Err(VerifyError::Mismatch);
    }
    verify_ml_dsa(*set, issuer, certificate.tbs_der(), certificate.signature())
}

/// Pure ML-DSA with an empty context (FIPS 204, algorithm 3), as the kernel has it (crypto/mldsa.c).
fn verify_ml_dsa(
    set: MlDsa,
    certificate: &Certificate,
    message: &[u8],
    signature: &[u8],
) -> Result<(), VerifyError> {
    let algorithm = match set {
        MlDsa::MlDsa44 => &ML_DSA_44,
        MlDsa::MlDsa65 => &ML_DSA_65,
        MlDsa::MlDsa87 => &ML_DSA_87,
    };
    let key = ParsedPublicKey::new(algorithm, certificate.public_key_bytes())
        .map_err(|_| VerifyError::BadKey)?;
    key.verify_sig(message, signature)
        .map_err(|_| VerifyError::Mismatch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, Version};
    use crate::key::{FileKey, KeyKind};
    use crate::x509::Template;
    use ima::fault::Code;
    use std::sync::Arc;

    #[test]
    fn ml_dsa_has_version_3_alone() {
        for (set, len) in MlDsa::ALL.into_iter().zip([2420, 3309, 4627]) {
            let key = Arc::new(FileKey::generate(KeyKind::MlDsa(set)).unwrap());
            let ca = Template::ca("CA").sign(&*key, None, None).unwrap();
            assert_eq!(ca.key(), &PublicKey::MlDsa(set));
            assert_eq!(verify_certificate(&ca, &ca), Ok(()), "{set}");
            let other = FileKey::generate(KeyKind::P256).unwrap();
            let leaf = Template::leaf("leaf").sign(&other, Some((&*key, &ca)), None);
            assert_eq!(verify_certificate(&leaf.unwrap(), &ca), Ok(()), "{set}");
            let namesake = FileKey::generate(KeyKind::MlDsa(set)).unwrap();
            let namesake = Template {
                renewed: Some(ca.clone()),
                ..Template::ca("CA")
            }
            .sign(&namesake, None, None);
            let namesake = namesake.unwrap();
            assert_eq!(
                verify_certificate(&ca, &namesake),
                Err(VerifyError::Mismatch)
            );

            let algo = HashAlgorithm::Sha256;
            let identity = Identity::new(key, &ca, algo)
                .unwrap()
                .with_version(Version::V2);
            assert_eq!(identity.version(), Version::V3);
            let digest = algo.digest(b"content").unwrap();
            let value = identity.sign_digest(&digest).unwrap();
            assert_eq!(value.len(), 9 + len);
            let good = ImaXattr::parse(&value).unwrap();
            let verifier = Verifier::new(&ca);
            assert_eq!(verifier.verify_value(&digest, &good), Ok(()), "{set}");
            let changed = algo.digest(b"changed").unwrap();
            assert_eq!(
                verifier.verify_value(&changed, &good),
                Err(VerifyError::Mismatch)
            );
            assert_eq!(
                verifier.verify_value(&digest[1..], &good),
                Err(VerifyError::DigestLength { algo, found: 31 })
            );
            // Another type, version, key and signature: the first, second, fourth and last byte.
            let with = |at: usize, byte: u8| {
                let mut bytes = value.clone();
                bytes[at] = byte;
                verifier.verify_value(&digest, &ImaXattr::parse(&bytes).unwrap())
            };
            assert_eq!(with(0, 5), Err(VerifyError::Mismatch));
            assert!(matches!(with(1, 2), Err(VerifyError::NoKernel(_))));
            assert!(matches!(
                with(3, value[3] ^ 1),
                Err(VerifyError::OtherKey { .. })
            ));
            let last = value.len() - 1;
            assert_eq!(with(last, value[last] ^ 1), Err(VerifyError::Mismatch));
            assert!(matches!(
                ima::verify::verify_value(verify_digest, &ca, &digest, &good),
                Err(VerifyError::Unsupported(_))
            ));
            let fault = identity.sign_detached(&ca, b"content").unwrap_err();
            assert_eq!(fault.code(), Code::SigningFailed);
        }
    }

    #[test]
    fn both_libraries_agree() {
        for kind in [
            KeyKind::Rsa(2048),
            KeyKind::P256,
            KeyKind::P384,
            KeyKind::P521,
        ] {
            let key = FileKey::generate(kind).unwrap();
            let certificate = Template::ca("key").sign(&key, None, None).unwrap();
            let verifier = Verifier::new(&certificate);
            assert_eq!(verifier.keys.is_empty(), kind == KeyKind::P521, "{kind}");
            let key = Arc::new(key);
            for algo in [
                HashAlgorithm::Sha256,
                HashAlgorithm::Sha384,
                HashAlgorithm::Sha512,
                HashAlgorithm::Sha3_256,
            ] {
                for version in [Version::V2, Version::V3] {
                    let identity = Identity::new(key.clone(), &certificate, algo)
                        .unwrap()
                        .with_version(version);
                    let digest = algo.digest(b"content").unwrap();
                    let value = identity.sign_digest(&digest).unwrap();
                    let good = ImaXattr::parse(&value).unwrap();
                    assert_eq!(good.v3_kind().is_some(), version == Version::V3);
                    assert_eq!(
                        verifier.verify_value(&digest, &good),
                        Ok(()),
                        "{kind} {algo} {version:?}"
                    );
                    let other = algo.digest(b"other").unwrap();
                    assert_eq!(
                        verifier.verify_value(&other, &good),
                        Err(VerifyError::Mismatch)
                    );
                    // The last byte is the signature's, the fourth the first of the key's id.
                    let damaged = |at: usize| {
                        let mut bytes = value.clone();
                        bytes[at] ^= 1;
                        verifier.verify_value(&digest, &ImaXattr::parse(&bytes).unwrap())
                    };
                    assert_eq!(damaged(value.len() - 1), Err(VerifyError::Mismatch));
                    assert!(matches!(damaged(3), Err(VerifyError::OtherKey { .. })));
                }
            }
        }
    }
}
