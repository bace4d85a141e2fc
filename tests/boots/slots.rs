//! Several roots, of which the next is booted if one is refused: `slots=`.

use std::path::PathBuf;

use ima_testbed::report::Report;
use imactl::verity::{make, sign};

use crate::accepted::{assert_all_attempts_passed, init_report};
use crate::keys::P256;
use crate::matrix::{Check, faults};
use crate::media::blank;
use crate::partitions::disk;
use crate::setup::{Setup, assert_booted, root_of};
use crate::signed_verity::signature_part;
use crate::tree::{INIT, Tree};
use crate::verity::{named_by, parameters, part};

const SECOND: Check = Check::Sooner("IMA-713");

/// Two disks with a root each, the slots `a` and `b`; `change` is what the root of `a` has that is different.
fn two(setup: &mut Setup, change: impl FnOnce(&mut Tree)) {
    let good = setup.image();
    change(&mut setup.root);
    setup.more_disks.push(good);
    setup.root_name = None;
    setup.configure("slots=a b");
    setup.configure("root=/dev/vd{slot}");
}

/// Which slot was booted, and the codes of those that were refused before.
pub fn booted(report: &Report) -> (String, Vec<String>) {
    let report = init_report(report);
    let refused = report["refused_slots"].as_array().expect("a list");
    let code = |it: &serde_json::Value| format!("{} {}", it["slot"], it["code"]).replace('"', "");
    let slot = report["slot"].as_str().expect("a slot");
    (slot.to_owned(), refused.iter().map(code).collect())
}

#[test]
fn the_first_that_is_good() {
    let mut setup = Setup::new();
    two(&mut setup, |_| {});
    let outcome = setup.boot();
    assert_eq!(booted(assert_booted(&outcome)), ("a".to_owned(), vec![]));
}

/// As a boot loader chooses it.
#[test]
fn the_one_that_the_command_line_names() {
    let mut setup = Setup::new();
    two(&mut setup, |_| {});
    setup.append("ima_init.slot=b");
    let outcome = setup.boot();
    assert_eq!(booted(assert_booted(&outcome)), ("b".to_owned(), vec![]));
}

/// The second root is held to the same policy: what is unsigned on it is denied.
#[test]
fn the_second_if_the_first_has_an_unsigned_init() {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts(None);
    two(&mut setup, |root| root.unsign(INIT));
    let outcome = setup.boot_unchecked();
    let report = assert_booted(&outcome);
    assert_eq!(
        booted(report),
        ("b".to_owned(), vec!["a IMA-713".to_owned()])
    );
    assert_all_attempts_passed(report);
    assert_eq!(root_of(report).source, "/dev/vdb");
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn the_second_if_the_first_disk_is_missing() {
    let mut setup = Setup::new();
    two(&mut setup, |_| {});
    setup.configure("slots=c b");
    setup.append("rootwait=1");
    let outcome = setup.boot_unchecked();
    let expected = ("b".to_owned(), vec!["c IMA-402".to_owned()]);
    assert_eq!(booted(assert_booted(&outcome)), expected);
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn the_second_if_the_first_has_no_file_system() {
    let mut setup = Setup::new();
    two(&mut setup, |_| {});
    setup.disk = Some(blank(1));
    setup.configure("overlay=tmpfs");
    let outcome = setup.boot_unchecked();
    let expected = ("b".to_owned(), vec!["a IMA-403".to_owned()]);
    assert_eq!(booted(assert_booted(&outcome)), expected);
}

/// A disk with the partitions of a verity root with a signed root hash.
fn signed(setup: &Setup, damaged: bool) -> PathBuf {
    let image = setup.image();
    let tree = blank(0);
    let made = make(&image, Some(&tree), &parameters()).expect("a hash tree");
    if damaged {
        let mut bytes = std::fs::read(&image).expect("the image");
        let init = setup.root.clone().file(INIT).content.clone();
        let mut blocks = bytes.chunks_exact_mut(4096);
        let block = blocks.find(|block| init.starts_with(block));
        block.expect("the content")[0] ^= 1;
        std::fs::write(&image, bytes).expect("the image");
    }
    let signed = sign(&made.root_hash, &P256.identity(), &P256.certificate);
    let signature = blank(0);
    let content = signed.expect("a signature").to_bytes();
    std::fs::write(&signature, content).expect("a file");
    let [data, hashes] = named_by(&made.root_hash);
    let parts = [
        part(&image, data),
        part(&tree, hashes),
        signature_part(&signature, 1),
    ];
    disk(&parts).0
}

/// Roots of which the kernel verifies each block, under a writable layer: the device of the first is set up, refused and removed.
#[test]
fn the_second_if_the_first_is_damaged() {
    let mut setup = Setup::new();
    setup.root_name = None;
    setup.configure("slots=a b");
    setup.configure("verity=signed");
    setup.configure("verity_signature=/dev/vd{slot}3");
    setup.configure("overlay=tmpfs");
    let damaged = signed(&setup, true);
    setup.root.add("etc/second", 0o644, b"second");
    let good = signed(&setup, false);
    setup.disk = Some(damaged);
    setup.more_disks.push(good);
    let outcome = setup.boot_unchecked();
    let report = assert_booted(&outcome);
    assert_eq!(
        booted(report),
        ("b".to_owned(), vec!["a IMA-414".to_owned()])
    );
}

faults! {
    slots_of_which_none_is_good: "IMA-713", Reboot, Check::Same, |setup| {
        setup.root.unsign(INIT);
        two(setup, |_| {});
    };
    second_slot_that_is_missing: "IMA-402", Halt, SECOND, |setup| {
        two(setup, |root| root.unsign(INIT));
        setup.more_disks.clear();
        setup.append("rootwait=1");
    };
    slot_that_left_rules_in_the_kernel: "IMA-713", Poweroff, Check::Same, |setup| {
        // The first root's policy was loaded before its init was refused.
        two(setup, |root| {
            root.add_signed("etc/ima/ima-policy", 0o644, b"measure func=CRITICAL_DATA\n", &crate::keys::RSA);
            root.unsign(INIT);
        });
    };
    slot_that_left_a_key_in_the_kernel: "IMA-713", Halt, Check::Same, |setup| {
        setup.configure("root_certificates=yes");
        two(setup, |root| {
            root.add("etc/keys/x509_ima.der", 0o644, &P256.der());
            root.unsign(INIT);
        });
    };
    slot_that_does_not_exist: "IMA-203", Panic, Check::Same, |setup| {
        two(setup, |_| {});
        setup.append("ima_init.slot=c");
    };
}
