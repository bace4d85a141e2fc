//! Roots of which the disk has the root hash with a signature that the kernel verifies: `verity=signed`.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ima::dm_verity::RootHash;
use ima::dm_verity::signed::{PARTITION_TYPE, SignedRootHash};
use imactl::key::KeyKind;
use imactl::verity::{make, sign};
use imactl::x509::Template;

use crate::built::Kernel;
use crate::keys::{CA, OTHER_CA, P256, Pair, RSA};
use crate::matrix::{Check, faults};
use crate::media::blank;
use crate::partitions::{Partition, disk};
use crate::setup::{Setup, assert_booted, console_tail};
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
fn the_ca_as_the_signer() {
    let mut setup = Setup::new();
    signed_by(&CA, &mut setup, |content| content);
    assert_booted(&setup.boot());
    assert_eq!(setup.checked(), None);
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

faults! {
    signature_by_a_stranger: "IMA-418", Reboot, Check::Same, |setup| {
        signed_by(&STRANGER, setup, |content| content);
    };
    signature_by_another_ca: "IMA-418", Halt, Check::Same, |setup| {
        signed_by(&OTHER_CA, setup, |content| content);
    };
    signature_of_another_root_hash: "IMA-418", Poweroff, Check::Same, |setup| {
        of_another_root_hash(setup);
    };
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
    signature_under_a_revoked_serial_number: "IMA-417", Halt, Check::Same, |setup| {
        signed_by(&P384, setup, |content| content);
        setup.configure(&format!("revoked_serials={}", P384.serial()));
    };
    signed_root_hash_that_is_damaged: "IMA-417", Poweroff, Check::Same, |setup| {
        let signed = signed(setup);
        setup.damage.push((signed.place, vec![0xff]));
    };
    signed_root_hash_that_is_empty: "IMA-417", Panic, Check::Same, |setup| {
        signed_by(&P256, setup, |content| vec![0; content.len()]);
    };
    signed_root_hash_that_is_not_there: "IMA-416", Reboot, Check::Same, |setup| {
        signed(setup);
        setup.configure("verity_signature=PARTLABEL=other");
        setup.append("rootwait=1");
    };
    signed_root_hashes_of_which_there_are_two: "IMA-416", Halt, Check::Same, |setup| {
        signed(setup);
        let signature = written(&[0; 4096]);
        let parts = [signature_part(&signature, 1), signature_part(&signature, 2)];
        setup.disk = Some(disk(&parts).0);
    };
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
