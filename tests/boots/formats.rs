//! Every form of signature that `imactl` makes, as the kernel judges it: what is signed runs, and what was changed after it was
//! signed, or carries nothing, does not.

use ima::hash::HashAlgorithm;
use ima::signature::ImaXattr;
use ima_testbed::attempts::{DIRECTORY, names};
use imactl::key::KeyKind;

use crate::accepted::assert_all_attempts_passed;
use crate::built::{PROGRAMS, source};
use crate::keys::{Pair, RSA, leaf};
use crate::setup::{CERTIFICATE, DEFAULT_POLICY, POLICY, Setup, assert_booted};
use crate::tree::Tree;

/// Boots a root that is signed with a key of that kind over digests of `algo`.
fn format(kind: KeyKind, algo: HashAlgorithm) {
    let key = Pair {
        algo,
        ..leaf(kind, &format!("boots {kind}"))
    };
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts_by(None, &key);
    setup.put(CERTIFICATE, key.der());
    // The testbed's own key signs what the guest makes.
    setup.put("etc/keys/x509_ima_testbed.der", RSA.der());
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_all_attempts_passed(report);
    for name in ["signed", "unsigned", "tampered", "library-signed"] {
        assert!(
            report.attempts.iter().any(|attempt| attempt.name == name),
            "{name}"
        );
    }
}

macro_rules! formats {
    ($($(#[$attribute:meta])* $name:ident: $kind:expr, $algo:ident;)+) => {
        $(#[test]
        $(#[$attribute])*
        fn $name() {
            format($kind, HashAlgorithm::$algo);
        })+
    };
}

formats! {
    #[ignore = "another form of what is tested always; tests/run --all"]
    rsa_sha384: KeyKind::Rsa(2048), Sha384;
    rsa_sha512: KeyKind::Rsa(3072), Sha512;
    #[ignore = "another form of what is tested always; tests/run --all"]
    rsa_sha3_256: KeyKind::Rsa(2048), Sha3_256;
    #[ignore = "another form of what is tested always; tests/run --all"]
    rsa_sha3_384: KeyKind::Rsa(2048), Sha3_384;
    #[ignore = "another form of what is tested always; tests/run --all"]
    rsa_sha3_512: KeyKind::Rsa(4096), Sha3_512;
    #[ignore = "another form of what is tested always; tests/run --all"]
    p256_sha384: KeyKind::P256, Sha384;
    #[ignore = "another form of what is tested always; tests/run --all"]
    p256_sha3_256: KeyKind::P256, Sha3_256;
    p384_sha384: KeyKind::P384, Sha384;
    #[ignore = "another form of what is tested always; tests/run --all"]
    p384_sha3_384: KeyKind::P384, Sha3_384;
    #[ignore = "another form of what is tested always; tests/run --all"]
    p521_sha256: KeyKind::P521, Sha256;
    p521_sha512: KeyKind::P521, Sha512;
    #[ignore = "another form of what is tested always; tests/run --all"]
    p521_sha3_512: KeyKind::P521, Sha3_512;
}

/// Rules for programs of user 1001, before those of the default policy.
pub fn policy_for_1001(demand: &str) -> Vec<u8> {
    let mut policy = Vec::new();
    for hook in ["BPRM_CHECK", "MMAP_CHECK"] {
        policy.extend(format!("appraise func={hook} fowner=1001 {demand}\n").into_bytes());
    }
    policy.extend(source("policy/ima_policy.default"));
    policy
}

#[test]
fn fs_verity_digests() {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts(None);
    setup.root.verity = true;
    let program = PROGRAMS.guest.as_slice();
    for (name, signature) in [
        (names::VERITY_SIGNED, RSA.sign_verity(program)),
        (names::VERITY_TAMPERED, RSA.sign_verity(b"other content")),
        (names::VERITY_PLAIN, RSA.sign(program)),
    ] {
        let path = format!("{DIRECTORY}/{name}");
        setup.root.add(&path, 0o755, program);
        let file = setup.root.file(&path);
        file.owner = 1001;
        file.signature = Some(signature);
    }
    setup.drop_file(DEFAULT_POLICY);
    setup.put(
        POLICY,
        policy_for_1001("digest_type=verity appraise_type=sigv3"),
    );
    // fs-verity writes its tree behind the file.
    setup.append("rw");
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_all_attempts_passed(report);
    let made = report
        .attempts
        .iter()
        .filter(|attempt| attempt.name.starts_with("verity-"))
        .count();
    assert_eq!(made, 4);
}

/// Digests where the rule asks for no signature: the right one runs, a wrong one does not.
#[test]
fn digests_instead_of_signatures() {
    for (algo, right) in [
        (HashAlgorithm::Sha256, true),
        (HashAlgorithm::Sha512, true),
        (HashAlgorithm::Sha3_256, true),
        (HashAlgorithm::Sha512, false),
    ] {
        let mut setup = Setup::new();
        setup.root = Tree::with_attempts(None);
        let path = format!(
            "{DIRECTORY}/{}",
            if right {
                names::SIGNED
            } else {
                names::TAMPERED
            }
        );
        let digest = |content: &[u8]| {
            let digest = algo.digest(content).expect("a digest");
            Some(ImaXattr::Digest { algo, digest }.encode())
        };
        let file = setup.root.file(&path);
        file.owner = 1001;
        file.signature = digest(if right {
            &file.content
        } else {
            b"other content"
        });
        setup.drop_file(DEFAULT_POLICY);
        // A digest is not a signature: where enforcement is required, the init refuses such a rule.
        setup.configure("enforce=permissive");
        setup.put(POLICY, policy_for_1001(""));
        let outcome = setup.boot();
        assert_all_attempts_passed(assert_booted(&outcome));
    }
}
