//! Checking signatures. Nothing here can make one.
//!
//! The kernel's counterpart is `public_key_verify_signature`: RSA with EMSA-PKCS1-v1_5 (`pkcs1pad(rsa, <hash>)`), ECDSA
//! over P-256, P-384 and (feature `p521`) P-521 with the digest truncated to the curve's length (FIPS 186-5 section 6.4.2).

use rsa::RsaPublicKey;
use rsa::pkcs1::DecodeRsaPublicKey as _;
use rsa::traits::SignatureScheme as _;

use crate::certificate::{Certificate, Curve, LeafDefect, MlDsa, PublicKey, is_rsa_length};
use crate::hash::HashAlgorithm;
use crate::oid::{
    ECDSA_WITH_SHA_1, ECDSA_WITH_SHA_224, ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384,
    ECDSA_WITH_SHA_512, ECDSA_WITH_SHA3_256, ECDSA_WITH_SHA3_384, ECDSA_WITH_SHA3_512,
    RSA_WITH_SHA3_256, RSA_WITH_SHA3_384, RSA_WITH_SHA3_512, SHA_1_WITH_RSA_ENCRYPTION,
    SHA_224_WITH_RSA_ENCRYPTION, SHA_256_WITH_RSA_ENCRYPTION, SHA_384_WITH_RSA_ENCRYPTION,
    SHA_512_WITH_RSA_ENCRYPTION,
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
    if digest.len() != algo.digest_len() {
        return Err(VerifyError::DigestLength {
            algo,
            found: digest.len(),
        });
    }
    if let Some(why) = unverifiable(certificate.key(), algo) {
        return Err(VerifyError::NoKernel(why));
    }
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

/// Checks a version 2 signature of a file's digest: the key id first, as the kernel looks its key up by it.
///
/// # Errors
///
/// [`VerifyError`]; `digest` must be of the signature's algorithm.
pub fn verify_signature(
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
    verify_digest(certificate, signature.algo, digest, &signature.signature)
}

/// Checks a signature of any type and version. `digest` is that of what the type is over: the content, the fs-verity digest, or
/// what [`crate::evm`] hashes.
///
/// # Errors
///
/// [`VerifyError`]; [`VerifyError::Unsupported`] for a value that is no signature.
pub fn verify_value(
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
        return verify_signature(certificate, digest, signature);
    };
    if digest.len() != signature.algo.digest_len() {
        return Err(VerifyError::DigestLength {
            algo: signature.algo,
            found: digest.len(),
        });
    }
    let signed = v3_digest(kind, signature.algo, digest)
        .ok_or_else(|| VerifyError::Unsupported(format!("{} signatures", signature.algo)))?;
    verify_signature(certificate, &signed, signature)
}

/// Why no kernel verifies a signature of version 2 by such a key (digsig_asymmetric.c, `asymmetric_verify_common`).
#[must_use]
pub fn version_2_of(set: MlDsa) -> String {
    format!("the kernel takes signatures by {set} of version 3 alone")
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

/// The hash of the signature in a certificate; nothing if the algorithm is not known here.
pub fn signature_digest(certificate: &Certificate) -> Option<HashAlgorithm> {
    signature_algorithm(certificate).map(|(algo, _)| algo)
}

/// Hash of a certificate's signature, and whether it is RSA.
fn signature_algorithm(certificate: &Certificate) -> Option<(HashAlgorithm, bool)> {
    Some(match certificate.signature_algorithm() {
        SHA_1_WITH_RSA_ENCRYPTION => (HashAlgorithm::Sha1, true),
        SHA_224_WITH_RSA_ENCRYPTION => (HashAlgorithm::Sha224, true),
        SHA_256_WITH_RSA_ENCRYPTION => (HashAlgorithm::Sha256, true),
        SHA_384_WITH_RSA_ENCRYPTION => (HashAlgorithm::Sha384, true),
        SHA_512_WITH_RSA_ENCRYPTION => (HashAlgorithm::Sha512, true),
        RSA_WITH_SHA3_256 => (HashAlgorithm::Sha3_256, true),
        RSA_WITH_SHA3_384 => (HashAlgorithm::Sha3_384, true),
        RSA_WITH_SHA3_512 => (HashAlgorithm::Sha3_512, true),
        ECDSA_WITH_SHA_1 => (HashAlgorithm::Sha1, false),
        ECDSA_WITH_SHA_224 => (HashAlgorithm::Sha224, false),
        ECDSA_WITH_SHA_256 => (HashAlgorithm::Sha256, false),
        ECDSA_WITH_SHA_384 => (HashAlgorithm::Sha384, false),
        ECDSA_WITH_SHA_512 => (HashAlgorithm::Sha512, false),
        ECDSA_WITH_SHA3_256 => (HashAlgorithm::Sha3_256, false),
        ECDSA_WITH_SHA3_384 => (HashAlgorithm::Sha3_384, false),
        ECDSA_WITH_SHA3_512 => (HashAlgorithm::Sha3_512, false),
        _ => return None,
    })
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
    use proptest::prelude::*;

    fn data(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn certificate(name: &str) -> Certificate {
        Certificate::parse(&data(&format!("{name}.der"))).unwrap()
    }

    fn signature(name: &str) -> SignatureV2 {
        match ImaXattr::parse(&data(&format!("{name}.sig"))).unwrap() {
            ImaXattr::Signature(signature) => signature,
            other => panic!("{other:?}"),
        }
    }

    const LEAVES: [&str; 4] = ["rsa2048", "rsa3072", "p256", "p384"];

    #[test]
    fn signatures_by_evmctl() {
        for leaf in LEAVES {
            for algo in [
                HashAlgorithm::Sha1,
                HashAlgorithm::Sha256,
                HashAlgorithm::Sha384,
                HashAlgorithm::Sha512,
            ] {
                let certificate = certificate(leaf);
                let signature = signature(&format!("{leaf}.{algo}"));
                assert_eq!(signature.algo, algo);
                let digest = algo.digest(&data("content")).unwrap();
                assert_eq!(
                    verify_signature(&certificate, &digest, &signature),
                    Ok(()),
                    "{leaf} {algo}"
                );

                let mut other = digest.clone();
                other[0] ^= 1;
                let found = verify_signature(&certificate, &other, &signature);
                assert_eq!(
                    found,
                    Err(VerifyError::Mismatch),
                    "{leaf} {algo}, other content"
                );

                for cut in [0, 1, signature.signature.len() - 1] {
                    let cut = &signature.signature[..cut];
                    assert_eq!(
                        verify_digest(&certificate, algo, &digest, cut),
                        Err(VerifyError::Mismatch)
                    );
                }
                let padded = [&signature.signature[..], &[0]].concat();
                assert_eq!(
                    verify_digest(&certificate, algo, &digest, &padded),
                    Err(VerifyError::Mismatch)
                );
            }
        }
    }

    #[test]
    fn signature_by_another_key() {
        let digest = HashAlgorithm::Sha256.digest(&data("content")).unwrap();
        let signature = signature("p256.sha256");
        let found = verify_signature(&certificate("sample"), &digest, &signature);
        let expected = certificate("sample").key_id();
        assert_eq!(
            found,
            Err(VerifyError::OtherKey {
                expected,
                found: signature.key_id
            })
        );
        let found = verify_digest(
            &certificate("sample"),
            HashAlgorithm::Sha256,
            &digest,
            &signature.signature,
        );
        assert_eq!(found, Err(VerifyError::Mismatch));
    }

    #[test]
    fn what_is_not_checked_is_not_taken() {
        let digest = [0; 32];
        for name in ["p521", "ed25519"] {
            if name == "p521" && cfg!(feature = "p521") {
                continue;
            }
            let found = verify_digest(&certificate(name), HashAlgorithm::Sha256, &digest, &[0; 64]);
            assert!(
                matches!(found, Err(VerifyError::Unsupported(_))),
                "{name}: {found:?}"
            );
        }
        let found = verify_digest(
            &certificate("rsa2048"),
            HashAlgorithm::Sm3,
            &digest,
            &[0; 256],
        );
        assert!(matches!(found, Err(VerifyError::NoKernel(_))), "{found:?}");
        let found = verify_digest(
            &certificate("p256"),
            HashAlgorithm::Sha512,
            &digest,
            &[0; 64],
        );
        assert_eq!(
            found,
            Err(VerifyError::DigestLength {
                algo: HashAlgorithm::Sha512,
                found: 32
            })
        );
    }

    #[test]
    fn chains_by_openssl() {
        for (leaf, issuer) in [
            ("rsa-ca", "rsa-ca"),
            ("ec-ca", "ec-ca"),
            ("rsa2048", "rsa-ca"),
            ("rsa3072", "ec-ca"),
            ("p256", "rsa-ca"),
            ("p384", "ec-ca"),
            ("no-skid", "ec-ca"),
        ] {
            assert_eq!(
                verify_certificate(&certificate(leaf), &certificate(issuer)),
                Ok(()),
                "{leaf}"
            );
        }
        let found = verify_certificate(&certificate("p384"), &certificate("rsa-ca"));
        assert_eq!(
            found,
            Err(VerifyError::OtherIssuer("CN=EC CA,O=Test".to_owned()))
        );
        let mut changed = data("p256.der");
        let subject = changed
            .windows(10)
            .position(|window| window == b"P-256 leaf")
            .unwrap();
        changed[subject] = b'Q';
        let changed = Certificate::parse(&changed).unwrap();
        assert_eq!(
            verify_certificate(&changed, &certificate("rsa-ca")),
            Err(VerifyError::Mismatch)
        );
    }

    #[test]
    fn digests_on_a_curve() {
        assert_eq!(field_digest::<4>(&[1, 2]), [0, 0, 1, 2]);
        assert_eq!(field_digest::<4>(&[1, 2, 3, 4, 5]), [1, 2, 3, 4]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn hostile_signatures_are_refused(which in 0usize..4, bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(verify_digest(&certificate(LEAVES[which]), HashAlgorithm::Sha256, &[7; 32], &bytes).is_err());
        }
    }
}
