//! Checking many signatures by one key, with the library that also signs: several times as fast as `ima::verify`, which is made to
//! be small.

use aws_lc_rs::digest::{Algorithm, Digest, SHA256, SHA384, SHA512};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, VerificationAlgorithm,
};
use ima::certificate::{Certificate, Curve, PublicKey};
use ima::hash::HashAlgorithm;
use ima::signature::SignatureV2;
use ima::verify::{VerifyError, verify_signature};

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

    /// Checks a version 2 signature of `digest`, which is of the signature's algorithm. What the quick library does not find good
    /// is judged by `ima::verify`.
    ///
    /// # Errors
    ///
    /// [`VerifyError`].
    pub fn verify(&self, digest: &[u8], signature: &SignatureV2) -> Result<(), VerifyError> {
        if self.certificate.key_id() == signature.key_id && self.is_good(digest, signature) {
            return Ok(());
        }
        verify_signature(self.certificate, digest, signature)
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        self.certificate
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
    use crate::identity::Identity;
    use crate::key::{FileKey, KeyKind};
    use crate::x509::Template;
    use ima::signature::ImaXattr;
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
                let identity = Identity::new(key.clone(), &certificate, algo).unwrap();
                let digest = algo.digest(b"content").unwrap();
                let Ok(ImaXattr::Signature(good)) =
                    ImaXattr::parse(&identity.sign_digest(&digest).unwrap())
                else {
                    panic!("no signature");
                };
                assert_eq!(verifier.verify(&digest, &good), Ok(()), "{kind} {algo}");
                let other = algo.digest(b"other").unwrap();
                assert_eq!(verifier.verify(&other, &good), Err(VerifyError::Mismatch));
                let mut bad = good.clone();
                *bad.signature.last_mut().unwrap() ^= 1;
                assert_eq!(verifier.verify(&digest, &bad), Err(VerifyError::Mismatch));
                bad = good;
                bad.key_id.0[0] ^= 1;
                assert!(matches!(
                    verifier.verify(&digest, &bad),
                    Err(VerifyError::OtherKey { .. })
                ));
            }
        }
    }
}
