//! Checking many signatures by one key, with the library that also signs: several times as fast as `ima::verify`, which is made to
//! be small.

use std::borrow::Cow;

use aws_lc_rs::digest::{Algorithm, Digest, SHA256, SHA384, SHA512};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, VerificationAlgorithm,
};
use ima::certificate::{Certificate, Curve, PublicKey};
use ima::hash::HashAlgorithm;
use ima::signature::{ImaXattr, SignatureV2, v3_digest};
use ima::verify::{VerifyError, verify_value};

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
        verify_value(self.certificate, digest, value)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, Version};
    use crate::key::{FileKey, KeyKind};
    use crate::x509::Template;
    use std::sync::Arc;

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
