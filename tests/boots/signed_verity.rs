//! Roots of which the disk has the root hash with a signature that the kernel verifies: `verity=signed`.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ima::dm_verity::RootHash;
use ima::dm_verity::signed::{PARTITION_TYPE, SignedRootHash};
use imactl::key::KeyKind;
use imactl::verity::{make, sign};
use imactl::x509::Template;

use crate::accepted::assert_warned;
use crate::attacks::{assert_said, attacked_by, said};
use crate::built::{Kernel, PROGRAMS, busybox};
use crate::initramfs::script;
use crate::keys::{CA, OTHER_CA, P256, Pair, RSA};
use crate::matrix::{Action, Check, SCRIPT, faults};
use crate::media::blank;
use crate::partitions::{Partition, disk};
use crate::setup::{
    CERTIFICATE, Setup, VERITY_CERTIFICATE, assert_booted, assert_refused, console_tail,
};
use crate::verity::{named_by, parameters, part};

static P384: LazyLock<Pair> =
    LazyLock::new(|| Pair::new(KeyKind::P384, &Template::leaf("boots P-384"), Some(&CA)));

/// Signed by a CA that the kernel does not have.
static STRANGER: LazyLock<Pair> =
    LazyLock::new(|| Pair::new(KeyKind::P256, &Template::leaf("stranger"), Some(&OTHER_CA)));

/// A root with its tree and its signed root hash, each in a partition.
struct Signed {
    /// Where the partition of the signed root hash begins, in bytes.
    place: usize,
    root_hash: RootHash,
}

fn written(content: &[u8]) -> PathBuf {
    let path = blank(0);
    std::fs::write(&path, content).expect("a file");
    path
}

/// Changes the set-up to such a root. `change` gets the content of the partition of the signed root hash.
fn signed_by(signer: &Pair, setup: &mut Setup, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Signed {
    let image = setup.image();
    let tree = blank(0);
    let made = make(&image, Some(&tree), &parameters()).expect("a hash tree");
    let root_hash = made.root_hash;
    let signed = sign(&root_hash, &signer.identity(), &signer.certificate).expect("a signature");
    let content = change(signed.to_bytes());
    let signature = written(&content);
    let [data, hashes] = named_by(&root_hash);
    let parts = [
        part(&image, data),
        part(&tree, hashes),
        signature_part(&signature, 1),
    ];
    let (path, places) = disk(&parts);
    setup.disk = Some(path);
    setup.root_name = None;
    setup.configure("verity=signed");
    Signed {
        place: usize::try_from(places[2]).expect("a place"),
        root_hash,
    }
}

pub fn signature_part(image: &Path, number: u8) -> Partition<'_> {
    Partition {
        kind: PARTITION_TYPE,
        ..part(image, [number; 16])
    }
}

fn signed(setup: &mut Setup) -> Signed {
    signed_by(&P256, setup, |content| content)
}

/// Only the disk changes: the same initramfs boots one root and then another.
#[test]
fn a_new_root_boots_with_the_old_initramfs() {
    let mut setup = Setup::new();
    signed(&mut setup);
    let old = setup.packed();
    setup.root.add("etc/new", 0o644, b"new");
    setup.disk = None;
    let new = signed(&mut setup);
    assert_eq!(setup.packed(), old);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert!(
        report
            .mounts
            .iter()
            .any(|it| it.source == "/dev/dm-0" && it.point == "/")
    );
    let line = format!("signed by {}", P256.certificate.subject());
    assert!(
        outcome.console_contains(&line),
        "{}",
        console_tail(&outcome)
    );
    assert!(outcome.console_contains("handover: executing"));
    assert_eq!(setup.checked(), None);
    assert_eq!(new.root_hash.to_string().len(), 64);
}

/// Keys of each kind, and the devices named in the configuration.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn signers_of_each_kind() {
    for signer in [&*RSA, &*P384] {
        let mut setup = Setup::new();
        signed_by(signer, &mut setup, |content| content);
        setup.configure("verity_signature=/dev/vda3");
        setup.configure("verity_corruption=panic");
        assert_booted(&setup.boot());
        assert_eq!(setup.checked(), None);
    }
}

/// By the CA itself, whose key is on the kernel's keyring.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn the_ca_as_the_signer() {
    let mut setup = Setup::new();
    signed_by(&CA, &mut setup, |content| content);
    assert_booted(&setup.boot());
    assert_eq!(setup.checked(), None);
}

/// Has the kernel leave the keyring `.dm-verity` open until the init seals it.
const UNSEALED: &str = "dm_verity.keyring_unsealed=1";

/// Offers a certificate of the root to `.dm-verity`, and to a keyring that takes it; and starts a program that is not signed, and
/// one that is.
const ADD: &str = "for keyring in @u .dm-verity; do
        answer=$(guest tool add-certificate $keyring /signer.der); say \"$keyring: $? $answer\"
    done
    /bin/unsigned tool status 2>/tmp/error; say \"unsigned: $?\"
    /bin/guest tool status; say \"signed: $?\"";

/// The keyring is sealed; 126: a program that the shell may not execute.
const SEALED: [&str; 4] = [
    "@u: 0",
    ".dm-verity: 99 EPERM",
    "unsigned: 126",
    "signed: 0",
];

fn attacked() -> Setup {
    let mut setup = attacked_by(ADD);
    setup.kernel = Kernel::Newer;
    setup.root.add("signer.der", 0o644, &OTHER_CA.der());
    setup.root.add("bin/unsigned", 0o755, &PROGRAMS.guest);
    setup
}

/// The root is signed by this one, and the stranger's certificate is in the initramfs.
fn trusting_a_stranger(signer: &Pair, setup: &mut Setup) {
    setup.kernel = Kernel::Newer;
    setup.put(VERITY_CERTIFICATE, STRANGER.der());
    signed_by(signer, setup, |content| content);
}

/// Only `.dm-verity` has the certificate of the signer. Root cannot add another one to it.
#[test]
fn signer_on_the_verity_keyring() {
    let mut setup = attacked();
    trusting_a_stranger(&STRANGER, &mut setup);
    setup.append(UNSEALED);
    assert_eq!(setup.checked(), None);
    let outcome = setup.boot();
    assert_eq!(said(&outcome), SEALED, "{}", console_tail(&outcome));
    let line = format!("signed by {}", STRANGER.certificate.subject());
    for text in [&line, "keys: .dm-verity: sealed"] {
        assert!(outcome.console_contains(text), "{}", console_tail(&outcome));
    }
}

/// The CA of the signer, in the place of the signer's own certificate.
#[test]
fn ca_of_the_signer_on_the_verity_keyring() {
    let mut setup = Setup::new();
    trusting_a_stranger(&STRANGER, &mut setup);
    setup.put(VERITY_CERTIFICATE, OTHER_CA.der());
    setup.append(UNSEALED);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let [key] = report.keyrings[".dm-verity"].keys.as_slice() else {
        panic!("{:?}", report.keyrings);
    };
    assert!(key.contains("another CA"), "{key:?}");
    assert_eq!(setup.checked(), None);
}

/// Without certificates in the initramfs, the keyring is sealed all the same.
#[test]
fn verity_keyring_that_is_left_open_and_empty() {
    let mut setup = attacked();
    setup.append(UNSEALED);
    assert_said(&setup, &SEALED);
}

/// The kernel sealed the keyring. What its CA signed boots all the same, with a warning.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn certificates_for_a_verity_keyring_that_is_sealed() {
    let mut setup = Setup::new();
    trusting_a_stranger(&P256, &mut setup);
    assert_warned(&setup.boot(), "IMA-559");
    assert_eq!(setup.checked(), None);
}

/// A refusal before the certificates are added leaves no open keyring to the shell.
#[test]
fn verity_keyring_that_a_shell_finds() {
    let mut setup = Setup::new();
    setup.kernel = Kernel::Newer;
    setup.append(UNSEALED);
    setup.drop_file(CERTIFICATE);
    setup.configure("debug=yes");
    setup.configure("on_failure=shell");
    setup.put("signer.der", STRANGER.der());
    for (path, program) in [("bin/sh", busybox()), ("guest", PROGRAMS.guest.clone())] {
        setup.programs.push((path.into(), program));
    }
    let (_, outcome) = setup.boot_with(|running| {
        running
            .wait_for_console("job control turned off")
            .expect("the shell");
        let command =
            "/guest tool add-certificate .dm-verity /signer.der; echo status-$?-; poweroff -f\n";
        running.send_text(command).expect("a console");
        running
            .wait_for_console("status-99-")
            .expect("the keyring is sealed");
    });
    assert!(
        outcome.console_contains("EPERM"),
        "{}",
        console_tail(&outcome)
    );
    assert_refused(&outcome, "IMA-502", Action::Poweroff);
}

/// A kernel that has no `.dm-verity` boots what its CA signed, with a warning.
#[test]
fn certificates_for_a_kernel_without_the_verity_keyring() {
    let mut setup = Setup::new();
    signed(&mut setup);
    setup.put(VERITY_CERTIFICATE, STRANGER.der());
    setup.append(UNSEALED);
    assert_warned(&setup.boot(), "IMA-559");
}

/// As openssl signs it, by the documented command.
#[test]
fn signature_of_openssl() {
    let mut setup = Setup::new();
    signed_by(&P256, &mut setup, |content| {
        let parsed = SignedRootHash::parse(&content).expect("a signed root hash");
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let text = SignedRootHash::signed_text(parsed.root_hash());
        std::fs::write(path("text"), text).expect("a file");
        std::fs::write(path("key"), P256.key.to_pem(None).expect("a key")).expect("a file");
        let certificate = imactl::x509::pem(&P256.certificate).expect("a certificate");
        std::fs::write(path("certificate"), certificate).expect("a file");
        let output = std::process::Command::new("openssl")
            .args([
                "smime", "-sign", "-noattr", "-binary", "-in", "text", "-inkey", "key",
            ])
            .args([
                "-signer",
                "certificate",
                "-outform",
                "der",
                "-out",
                "signature",
            ])
            .current_dir(directory.path())
            .output()
            .expect("openssl");
        assert!(output.status.success(), "{output:?}");
        let message = std::fs::read(path("signature")).expect("a signature");
        let signed = SignedRootHash::new(parsed.root_hash().clone(), message);
        signed.expect("a signed root hash").to_bytes()
    });
    assert_booted(&setup.boot());
    assert_eq!(setup.checked(), None);
}

/// The signed root hash says one root hash, and its signature is another's.
fn of_another_root_hash(setup: &mut Setup) {
    signed_by(&P256, setup, |content| {
        let parsed = SignedRootHash::parse(&content).expect("a signed root hash");
        let other = RootHash::new(vec![0xab; 32]).expect("a root hash");
        let signed = sign(&other, &P256.identity(), &P256.certificate).expect("a signature");
        let message = signed.message().to_vec();
        let mixed = SignedRootHash::new(parsed.root_hash().clone(), message);
        mixed.expect("a signed root hash").to_bytes()
    });
}

/// A script runs a tool of the guest program, which succeeds, and then the init; the keyring is open.
fn before_the_init(setup: &mut Setup, tool: &str) {
    setup.kernel = Kernel::Newer;
    setup.append(UNSEALED);
    setup.put("signer.der", STRANGER.der());
    setup
        .programs
        .push(("guest".into(), PROGRAMS.guest.clone()));
    script(setup, &format!("/guest tool {tool} && exec /ima-init"));
}

faults! {
    signature_by_a_stranger: "IMA-418", Reboot, Check::Same, |setup| {
        signed_by(&STRANGER, setup, |content| content);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    signature_by_another_ca: "IMA-418", Halt, Check::Same, |setup| {
        signed_by(&OTHER_CA, setup, |content| content);
    };
    signer_for_a_verity_keyring_that_is_sealed: "IMA-418", Halt, Check::Same, |setup| {
        trusting_a_stranger(&STRANGER, setup);
        setup.says = "[IMA-559]";
    };
    signer_that_is_not_on_the_verity_keyring: "IMA-418", Poweroff, Check::Same, |setup| {
        trusting_a_stranger(&OTHER_CA, setup);
        setup.append(UNSEALED);
        setup.says = "keys: .dm-verity: sealed";
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    signer_for_a_verity_keyring_that_is_empty: "IMA-418", Panic, Check::Same, |setup| {
        trusting_a_stranger(&STRANGER, setup);
        setup.drop_file(VERITY_CERTIFICATE);
        setup.append(UNSEALED);
        setup.says = "keys: .dm-verity: sealed";
    };
    signer_for_a_kernel_without_the_verity_keyring: "IMA-418", Reboot, Check::Same, |setup| {
        trusting_a_stranger(&STRANGER, setup);
        setup.kernel = Kernel::Full;
        setup.append(UNSEALED);
        setup.says = "[IMA-559]";
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    signer_for_the_verity_keyring_that_is_revoked: "IMA-509", Reboot, Check::Unmade, |setup| {
        trusting_a_stranger(&STRANGER, setup);
        setup.append(UNSEALED);
        setup.configure(&format!("revoked_keys={}", STRANGER.skid()));
        setup.says = "keys: .dm-verity: sealed";
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    verity_certificate_that_is_damaged: "IMA-503", Halt, Check::Unmade, |setup| {
        trusting_a_stranger(&P256, setup);
        setup.put(VERITY_CERTIFICATE, [0x30; 64]);
        setup.append(UNSEALED);
    };
    verity_keyring_with_a_key_of_another_program: "IMA-505", Poweroff, SCRIPT, |setup| {
        before_the_init(setup, "add-certificate .dm-verity /signer.der");
        setup.says = "there were keys on .dm-verity";
    };
    verity_keyring_that_another_program_restricted: "IMA-505", Halt, SCRIPT, |setup| {
        // The kernel would use it, and root could add what the CA signed.
        before_the_init(setup, "restrict .dm-verity asymmetric builtin_trusted");
        setup.says = ".dm-verity: Operation not supported";
    };
    signature_of_another_root_hash: "IMA-418", Poweroff, Check::Same, |setup| {
        of_another_root_hash(setup);
        setup.says = "the signature is not one of this root hash";
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    kernel_without_the_ca_of_the_signer: "IMA-418", Panic, Check::Same, |setup| {
        // Onto _ima any certificate is taken; for the root hash there is no such keyring.
        signed(setup);
        setup.trusts_ca = false;
        setup.configure("keyring=_ima");
    };
    signature_by_a_revoked_key: "IMA-417", Reboot, Check::Same, |setup| {
        signed_by(&P384, setup, |content| content);
        setup.configure(&format!("revoked_keys={}", P384.skid()));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    signature_under_a_revoked_serial_number: "IMA-417", Halt, Check::Same, |setup| {
        signed_by(&P384, setup, |content| content);
        setup.configure(&format!("revoked_serials={}", P384.serial()));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    signed_root_hash_that_is_damaged: "IMA-417", Poweroff, Check::Same, |setup| {
        let signed = signed(setup);
        setup.damage.push((signed.place, vec![0xff]));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    signed_root_hash_that_is_empty: "IMA-417", Panic, Check::Same, |setup| {
        signed_by(&P256, setup, |content| vec![0; content.len()]);
    };
    signed_root_hash_that_is_not_there: "IMA-416", Reboot, Check::Same, |setup| {
        signed(setup);
        setup.configure("verity_signature=PARTLABEL=other");
        setup.append("rootwait=1");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    signed_root_hashes_of_which_there_are_two: "IMA-416", Halt, Check::Same, |setup| {
        signed(setup);
        let signature = written(&[0; 4096]);
        let parts = [signature_part(&signature, 1), signature_part(&signature, 2)];
        setup.disk = Some(disk(&parts).0);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    signed_root_hash_of_another_image: "IMA-402", Poweroff, Check::Same, |setup| {
        // Its partitions are those of an image that is not on the disk.
        signed_by(&P256, setup, |_| {
            let other = RootHash::new(vec![0xab; 32]).expect("a root hash");
            let signed = sign(&other, &P256.identity(), &P256.certificate).expect("a signature");
            signed.to_bytes()
        });
        setup.append("rootwait=1");
    };
    root_that_is_not_the_signed_one: "IMA-413", Panic, Check::Same, |setup| {
        let signed = signed(setup);
        let other = RootHash::new(vec![0xab; 32]).expect("a root hash");
        let new = sign(&other, &P256.identity(), &P256.certificate).expect("a signature");
        setup.damage.push((signed.place, new.to_bytes()));
        setup.root_name = Some("/dev/vda1".to_owned());
        setup.configure("verity_hash=/dev/vda2");
    };
    kernel_without_signatures_of_root_hashes: "IMA-409", Reboot, Check::Same, |setup| {
        signed(setup);
        setup.kernel = Kernel::PlainVerity;
    };
}
