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
                verify_signature(verify_digest, &certificate, &digest, &signature),
                Ok(()),
                "{leaf} {algo}"
            );

            let mut other = digest.clone();
            other[0] ^= 1;
            let found = verify_signature(verify_digest, &certificate, &other, &signature);
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
    let found = verify_signature(verify_digest, &certificate("sample"), &digest, &signature);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_signatures_are_refused(which in 0usize..4, bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(verify_digest(&certificate(LEAVES[which]), HashAlgorithm::Sha256, &[7; 32], &bytes).is_err());
    }
}
