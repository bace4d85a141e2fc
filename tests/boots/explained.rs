//! What the init says of the cause: a refusal must name what is really wrong, worked out from the certificates, the keyrings,
//! the file and the kernel's own words.

use ima::hash::HashAlgorithm;
use ima::signature::ImaXattr;
use imactl::key::KeyKind;
use imactl::x509::Template;

use crate::keys::{CA, OTHER_CA, P256, Pair, RSA, leaf};
use crate::matrix::Action;
use crate::setup::{CERTIFICATE, DEFAULT_POLICY, Setup, assert_refused, console_tail};
use crate::tree::{INIT, SWITCH_ROOT};

/// The boot is refused with that code, and its cause and remedy hold each of the words.
fn explained(code: &str, words: &[&str], fault: impl FnOnce(&mut Setup)) {
    let mut setup = Setup::new();
    fault(&mut setup);
    let outcome = setup.boot();
    assert_refused(&outcome, code, Action::Poweroff);
    let start = outcome.console.find(&format!("[{code}]")).unwrap_or(0);
    for word in words {
        assert!(
            outcome.console[start..].contains(word),
            "“{word}” is not said: {}",
            console_tail(&outcome)
        );
    }
}

macro_rules! explained {
    ($($(#[$attribute:meta])* $name:ident: $code:literal, [$($words:expr),+], $fault:expr;)+) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $name() {
                explained($code, &[$($words),+], $fault);
            }
        )+
    };
}

/// The certificate with its last byte changed, which is one of the issuer's signature.
fn with_a_wrong_signature() -> Vec<u8> {
    let mut der = P256.der();
    if let Some(last) = der.last_mut() {
        *last ^= 1;
    }
    der
}

explained! {
    unsigned: "IMA-704", ["it is unsigned", "the kernel says IMA-signature-required"], |setup| {
        setup.root.unsign(SWITCH_ROOT);
    };
    #[ignore = "another form of what is tested always; tests/run --all"]
    a_hash_for_a_signature: "IMA-704", ["holds a hash only", "the kernel says IMA-signature-required"], |setup| {
        let file = setup.root.file(SWITCH_ROOT);
        let digest = HashAlgorithm::Sha256.digest(&file.content).expect("SHA-256");
        file.signature = Some(ImaXattr::Digest { algo: HashAlgorithm::Sha256, digest }.encode());
    };
    changed_after_it_was_signed: "IMA-713", ["it was changed after it was signed", "the kernel says invalid-signature"], |setup| {
        setup.root.tamper(INIT);
    };
    changed_after_it_was_signed_on_a_curve: "IMA-713", ["it was changed after it was signed", "the kernel says invalid-signature"], |setup| {
        let key = leaf(KeyKind::P521, "boots P-521");
        setup.root.sign(&key);
        setup.put(CERTIFICATE, key.der());
        setup.root.tamper(INIT);
    };
    signed_by_a_key_that_is_not_loaded: "IMA-713",
        [
            &format!("it is signed with key id {}, which is not on the keyring", P256.certificate.key_id()),
            &format!("there is {}", RSA.certificate.key_id()),
            "the kernel says invalid-signature"
        ],
        |setup| {
            let file = setup.root.file(INIT);
            file.signature = Some(P256.sign(&file.content));
        };

    issuer_that_is_not_trusted: "IMA-504",
        ["its issuer, CN=another CA (key id ", "is not among the CAs that this kernel trusts: ", "boots CA"],
        |setup| {
            let stranger = Pair::new(KeyKind::P256, &Template::leaf("stranger"), Some(&OTHER_CA));
            setup.put(CERTIFICATE, stranger.der());
        };
    #[ignore = "another form of what is tested always; tests/run --all"]
    issuer_whose_signature_is_wrong: "IMA-504", ["a CA of its issuer's name is trusted, CN=boots CA", "is not of that CA's key"], |setup| {
        setup.put(CERTIFICATE, with_a_wrong_signature());
    };
    #[ignore = "another form of what is tested always; tests/run --all"]
    issuer_that_ca_keys_does_not_allow: "IMA-504", ["ca_keys=id:12345678 on the kernel command line", "its issuer is CN=boots CA"], |setup| {
        setup.append("ca_keys=id:12345678");
    };
    #[ignore = "another form of what is tested always; tests/run --all"]
    certificate_that_no_signature_finds: "IMA-704", ["which is not on the keyring (there is none)"], |setup| {
        let template = Template { skid: false, ..Template::leaf("unnamed") };
        let unnamed = Pair::new(KeyKind::P256, &template, Some(&CA));
        setup.root.sign(&unnamed);
        setup.put(CERTIFICATE, unnamed.der());
    };

    rule_that_is_beyond_the_kernel: "IMA-604", ["line 2: dont_measure obj_type=nothing_t", "it read so far: action=dont_measure"], |setup| {
        setup.put(DEFAULT_POLICY, "appraise func=BPRM_CHECK appraise_type=imasig\ndont_measure obj_type=nothing_t\n");
    };

    #[ignore = "another form of what is tested always; tests/run --all"]
    disk_of_a_kind_that_is_not_there: "IMA-402", ["there is no device of the kind nvme", "CONFIG_BLK_DEV_NVME", "block devices: vda"], |setup| {
        setup.root_name = Some("/dev/nvme0n1p2".into());
        setup.append("rootwait=1");
    };
    #[ignore = "another form of what is tested always; tests/run --all"]
    partition_of_a_disk_without_table: "IMA-402", ["the disk vda is there, but has no partition table", "root=/dev/vda,"], |setup| {
        setup.root_name = Some("/dev/vda2".into());
        setup.append("rootwait=1");
    };
}

/// It is taken, and warned of at once.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn a_certificate_without_identifier_is_warned_of() {
    let mut setup = Setup::new();
    let template = Template {
        skid: false,
        ..Template::leaf("unnamed")
    };
    let unnamed = Pair::new(KeyKind::P256, &template, Some(&CA));
    setup.put("etc/keys/x509_ima2.der", unnamed.der());
    let outcome = setup.boot();
    crate::setup::assert_booted(&outcome);
    assert!(
        outcome.console_contains("[IMA-557]"),
        "{}",
        console_tail(&outcome)
    );
}
