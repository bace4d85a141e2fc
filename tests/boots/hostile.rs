//! Roots made by somebody who wants in: something else in the place of a file, links that lead out, names that are not text.

use std::sync::LazyLock;

use imactl::image::read_ext4;
use imactl::tree::Kind;

use crate::accepted::{assert_all_attempts_passed, assert_warned};
use crate::built::Kernel;
use crate::keys::{CA, OTHER_CA, P256, Pair, RSA};
use crate::matrix::{Check, faults, sign_init_with_another_key};
use crate::setup::{Setup, assert_booted};
use crate::tree::{INIT, SWITCH_ROOT, Tree};
use imactl::key::KeyKind;
use imactl::x509::Template;

const INTERPRETER: &str = "bin/interpreter";

/// Longer than any program, and than there is time for.
const ENDLESS: u64 = 2 << 30;

/// /dev/zero, which never ends.
const ZEROS: Kind = Kind::CharacterDevice(1, 5);

/// The root's own disk.
const DISK: Kind = Kind::BlockDevice(254, 0);

/// A key whose certificate the CA signed long ago. The kernel does not look at the dates.
static RETIRED: LazyLock<Pair> = LazyLock::new(|| {
    let template = Template {
        not_before: 1_000_000_000,
        not_after: 1_100_000_000,
        ..Template::leaf("retired")
    };
    Pair::new(KeyKind::P256, &template, Some(&CA))
});

fn link(setup: &mut Setup, path: &str, target: &str) {
    setup.root.remove(path);
    setup.root.link(path, target);
}

/// A chain of links that ends at the program, longer than the kernel follows (MAXSYMLINKS, 40).
fn chain(setup: &mut Setup, path: &str) {
    let program = setup.root.file(path).content.clone();
    setup.root.add_signed("end", 0o755, &program, &RSA);
    link(setup, path, "/link-0");
    for number in 0..41 {
        setup
            .root
            .link(&format!("link-{number}"), &format!("/link-{}", number + 1));
    }
    setup.root.link("link-41", "/end");
}

fn circle(setup: &mut Setup, path: &str) {
    link(setup, path, "/around");
    setup.root.link("around", &format!("/{path}"));
}

/// The init is a script, and this interprets it.
fn interpreted_by(setup: &mut Setup, kind: Kind) {
    setup
        .root
        .add_signed(INIT, 0o755, b"#!/bin/interpreter\n", &RSA);
    setup.root.other(INTERPRETER, kind);
}

fn directory(setup: &mut Setup, path: &str) {
    setup.root.remove(path);
    setup.root.add(&format!("{path}/file"), 0o644, b"");
}

/// A file of holes with a signature, of which the kernel would have to hash every byte to see that it is wrong.
fn endless(setup: &mut Setup, path: &str) {
    let signature = setup
        .root
        .file(path)
        .signature
        .clone()
        .expect("a signature");
    setup.root.hole(path, ENDLESS);
    setup.root.sign_other(path, signature);
}

/// A policy that would free everything.
const FREE: &[u8] = b"dont_appraise func=MMAP_CHECK\ndont_appraise func=BPRM_CHECK\n";

/// What is in the place of `path` must not help an init that is unsigned.
fn instead(setup: &mut Setup, path: &str, kind: Kind) {
    setup.root.unsign(INIT);
    setup.root.other(path, kind);
}

fn symlink(target: &str) -> Kind {
    Kind::Symlink(target.as_bytes().to_vec())
}

faults! {
    switch_root_links_to_the_init_of_the_initramfs: "IMA-701", Poweroff, Check::Same, |setup| link(setup, SWITCH_ROOT, "../../../../init");
    switch_root_links_through_proc: "IMA-701", Reboot, Check::Same, |setup| link(setup, SWITCH_ROOT, "/proc/1/exe");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_links_to_itself: "IMA-701", Halt, Check::Same, |setup| link(setup, SWITCH_ROOT, "switch_root.static");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_in_a_circle_of_links: "IMA-701", Panic, Check::Same, |setup| circle(setup, SWITCH_ROOT);
    switch_root_at_the_end_of_42_links: "IMA-701", Poweroff, Check::Same, |setup| chain(setup, SWITCH_ROOT);
    switch_root_is_a_fifo: "IMA-702", Reboot, Check::Same, |setup| setup.root.other(SWITCH_ROOT, Kind::Fifo);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_is_a_socket: "IMA-702", Halt, Check::Same, |setup| setup.root.other(SWITCH_ROOT, Kind::Socket);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_is_a_character_device: "IMA-702", Panic, Check::Same, |setup| setup.root.other(SWITCH_ROOT, ZEROS);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_is_a_disk: "IMA-702", Poweroff, Check::Same, |setup| setup.root.other(SWITCH_ROOT, DISK);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_is_a_directory: "IMA-702", Reboot, Check::Same, |setup| directory(setup, SWITCH_ROOT);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_is_empty: "IMA-702", Halt, Check::Same, |setup| setup.root.add_signed(SWITCH_ROOT, 0o755, b"", &RSA);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_of_2_gib: "IMA-702", Panic, Check::Same, |setup| endless(setup, SWITCH_ROOT);
    switch_root_cut_off_after_its_header: "IMA-702", Poweroff, Check::Same, |setup| {
        let head = setup.root.file(SWITCH_ROOT).content[..64].to_vec();
        setup.root.add_signed(SWITCH_ROOT, 0o755, &head, &RSA);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    its_directory_is_a_file: "IMA-701", Reboot, Check::Same, |setup| {
        setup.root.remove(SWITCH_ROOT);
        setup.root.other("usr/sbin", Kind::Fifo);
    };
    its_directory_links_out_of_the_root: "IMA-701", Halt, Check::Same, |setup| {
        setup.root.remove(SWITCH_ROOT);
        setup.root.other("usr/sbin", symlink("/../../"));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    init_links_to_the_init_of_the_initramfs: "IMA-711", Panic, Check::Same, |setup| link(setup, INIT, "/init");
    init_links_to_itself: "IMA-711", Poweroff, Check::Same, |setup| link(setup, INIT, "init");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    init_in_a_circle_of_links: "IMA-711", Reboot, Check::Same, |setup| circle(setup, INIT);
    init_at_the_end_of_42_links: "IMA-711", Halt, Check::Same, |setup| chain(setup, INIT);
    init_is_a_fifo: "IMA-712", Panic, Check::Same, |setup| setup.root.other(INIT, Kind::Fifo);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    init_is_a_socket: "IMA-712", Poweroff, Check::Same, |setup| setup.root.other(INIT, Kind::Socket);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    init_is_a_character_device: "IMA-712", Reboot, Check::Same, |setup| setup.root.other(INIT, ZEROS);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    init_is_a_disk: "IMA-712", Halt, Check::Same, |setup| setup.root.other(INIT, DISK);
    init_of_2_gib: "IMA-712", Panic, Check::Same, |setup| endless(setup, INIT);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    init_not_executable: "IMA-712", Poweroff, Check::Same, |setup| setup.root.file(INIT).mode = 0o644;
    init_links_to_an_unsigned_program: "IMA-713", Reboot, Check::Same, |setup| {
        let init = setup.root.file(INIT).content.clone();
        setup.root.add("opt/init", 0o755, &init);
        link(setup, INIT, "../opt/../opt/init");
    };
    interpreter_is_a_fifo: "IMA-723", Halt, Check::Same, |setup| interpreted_by(setup, Kind::Fifo);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    interpreter_is_a_character_device: "IMA-723", Panic, Check::Same, |setup| interpreted_by(setup, ZEROS);
    interpreter_links_out_of_the_root: "IMA-721", Poweroff, Check::Same, |setup| interpreted_by(setup, symlink("/../init"));
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    interpreter_links_to_itself: "IMA-721", Reboot, Check::Same, |setup| interpreted_by(setup, symlink("interpreter"));
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    interpreter_of_2_gib: "IMA-723", Halt, Check::Same, |setup| {
        setup.root.add_signed(INIT, 0o755, b"#!/bin/interpreter\n", &RSA);
        setup.root.hole(INTERPRETER, ENDLESS);
    };
    script_that_interprets_itself: "IMA-723", Panic, Check::Same, |setup| {
        setup.root.add_signed(INIT, 0o755, b"#!/sbin/init\n", &RSA);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    dynamic_loader_is_a_script: "IMA-723", Poweroff, Check::Same, |setup| {
        crate::refused::dynamic_init(setup);
        setup.root.add_signed(crate::refused::DYNAMIC_LOADER, 0o755, b"#!/sbin/init\n", &RSA);
    };

    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    etc_is_a_fifo: "IMA-713", Reboot, Check::Same, |setup| instead(setup, "etc", Kind::Fifo);
    etc_links_to_the_initramfs: "IMA-713", Halt, Check::Same, |setup| instead(setup, "etc", symlink("/proc/1/root/etc"));
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policies_in_a_link_out_of_the_root: "IMA-713", Panic, Check::Same, |setup| {
        setup.root.add("policies/ima_policy", 0o644, FREE);
        instead(setup, "etc/ima", symlink("../../../policies"));
    };
    policy_of_the_root_is_a_fifo: "IMA-713", Poweroff, Check::Same, |setup| instead(setup, "etc/ima/ima_policy", Kind::Fifo);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_of_the_root_is_a_disk: "IMA-713", Reboot, Check::Same, |setup| instead(setup, "etc/ima/ima_policy", DISK);
    policy_of_the_root_links_to_the_kernel_s: "IMA-713", Halt, Check::Same, |setup| {
        instead(setup, "etc/ima/ima_policy", symlink("/sys/kernel/security/ima/policy"));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_of_the_root_of_2_gib: "IMA-713", Panic, Check::Same, |setup| {
        setup.root.unsign(INIT);
        setup.root.hole("etc/ima/ima_policy", ENDLESS);
    };
    policies_of_the_root_by_the_hundred: "IMA-713", Poweroff, Check::Same, |setup| {
        setup.root.unsign(INIT);
        for number in 0..300 {
            setup.root.add(&format!("etc/ima/ima_policy.{number}"), 0o644, FREE);
        }
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policies_of_the_root_whose_names_are_no_text: "IMA-713", Reboot, Check::Same, |setup| {
        setup.root.unsign(INIT);
        for name in [&b"etc/ima/ima_policy\xff\xfe"[..], b"etc/ima/ima_policy\n\x1b[2J", b"etc/ima/ima_policy\x01%s%n"] {
            setup.root.other(name, Kind::File(imactl::tree::Content::Bytes(FREE.into())));
        }
    };
    certificate_of_the_root_of_another_ca: "IMA-713", Halt, Check::Same, |setup| {
        setup.configure("root_certificates=yes");
        let stranger = Pair::new(KeyKind::P256, &Template::leaf("stranger"), Some(&OTHER_CA));
        setup.trust_root_s_own(&stranger);
    };
    retired_certificate_of_the_root: "IMA-713", Reboot, Check::Same, |setup| setup.trust_root_s_own(&RETIRED);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    retired_certificate_of_the_root_where_some_are_taken: "IMA-713", Halt, Check::Same, |setup| {
        setup.configure("root_certificates=yes");
        setup.trust_root_s_own(&RETIRED);
    };
    revoked_key_of_the_root: "IMA-713", Panic, Check::Same, |setup| {
        setup.configure("root_certificates=yes");
        let key = P256.skid();
        setup.configure(&format!("revoked_keys={}", &key[key.len() - 8..]));
        setup.trust_root_s_own(&P256);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    revoked_serial_of_the_root: "IMA-713", Poweroff, Check::Same, |setup| {
        setup.configure("root_certificates=yes");
        setup.configure(&format!("revoked_serials={}", P256.serial()));
        setup.trust_root_s_own(&P256);
    };
    certificate_of_the_root_that_nobody_asked_for: "IMA-713", Reboot, Check::Same, |setup| setup.trust_root_s_own(&P256);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_of_the_root_and_the_ca_that_signed_it: "IMA-713", Panic, Check::Same, |setup| {
        setup.configure("root_certificates=yes");
        let stranger = Pair::new(KeyKind::P256, &Template::leaf("stranger"), Some(&OTHER_CA));
        let init = setup.root.file(INIT).content.clone();
        setup.root.add("etc/keys/x509_secondary_1.der", 0o644, &OTHER_CA.der());
        setup.root.add("etc/keys/x509_ima.der", 0o644, &stranger.der());
        setup.root.add_signed(INIT, 0o755, &init, &stranger);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_of_the_root_is_a_device: "IMA-713", Poweroff, Check::Same, |setup| {
        setup.configure("root_certificates=yes");
        sign_init_with_another_key(setup);
        setup.root.other("etc/keys/x509_ima.der", ZEROS);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_of_the_root_of_2_gib: "IMA-713", Reboot, Check::Same, |setup| {
        setup.configure("root_certificates=yes");
        sign_init_with_another_key(setup);
        setup.root.hole("etc/keys/x509_ima.der", ENDLESS);
    };
    keys_link_out_of_the_root: "IMA-713", Halt, Check::Same, |setup| {
        setup.configure("root_certificates=yes");
        sign_init_with_another_key(setup);
        setup.put("elsewhere/x509_ima.der", P256.der());
        setup.root.other("etc/keys", symlink("/proc/1/root/elsewhere"));
    };
    certificates_of_the_root_by_the_hundred: "IMA-713", Panic, Check::Same, |setup| {
        setup.configure("root_certificates=yes");
        sign_init_with_another_key(setup);
        for number in 0..300 {
            setup.root.add(&format!("etc/keys/x509_ima_{number}.der"), 0o644, b"no certificate");
        }
    };
}

/// All of it at once on a root that is well signed boots, and enforcement is as it is without.
#[test]
fn a_hostile_etc_changes_nothing() {
    let mut setup = Setup::new();
    setup.configure("root_certificates=yes");
    setup.root = Tree::with_attempts(Some(&Kernel::Full.module("dummy")));
    let root = &mut setup.root;
    for (number, kind) in [
        Kind::Fifo,
        Kind::Socket,
        ZEROS,
        DISK,
        Kind::Directory,
        symlink("/proc/kcore"),
        symlink("ima_policy.6"),
        symlink("../../../../../../etc/ima/ima_policy.default"),
    ]
    .into_iter()
    .enumerate()
    {
        root.other(format!("etc/ima/ima_policy.{number}"), kind.clone());
        root.other(format!("etc/keys/x509_ima.{number}.der"), kind.clone());
        root.other(format!("etc/keys/x509_secondary_{number}.der"), kind);
    }
    root.hole("etc/ima/ima_policy.hole", ENDLESS);
    root.hole("etc/keys/x509_ima_hole.der", ENDLESS);
    root.other("etc/ima/ima_policy\x01\n\x1b[2J%s%n", Kind::Fifo);
    root.other("etc/keys/x509_ima\x01\n\x1b[2J%s%n.der", Kind::Fifo);
    root.add("etc/ima/ima_policy.free", 0o644, FREE);
    let outcome = setup.boot();
    assert_all_attempts_passed(assert_booted(&outcome));
    for code in ["IMA-553", "IMA-652"] {
        assert_warned(&outcome, code);
    }
}

/// The images of this module are what they say: nothing of them is lost when they are packed.
#[test]
fn hostile_images_are_hostile() {
    let mut setup = Setup::new();
    setup.root.other(SWITCH_ROOT, Kind::Fifo);
    setup.root.hole("hole", ENDLESS);
    setup.root.other("socket", Kind::Socket);
    let image = setup.image();
    let tree = read_ext4(&image).expect("the image");
    std::fs::remove_file(image).expect("the image");
    let kind = |path: &[u8]| {
        let (_, index) = tree
            .names()
            .find(|(name, _)| *name == path)
            .expect("a name");
        &tree.inode(index).kind
    };
    assert!(matches!(kind(SWITCH_ROOT.as_bytes()), Kind::Fifo));
    assert!(matches!(kind(b"socket"), Kind::Socket));
    assert!(matches!(kind(b"hole"), Kind::File(content) if content.len() == ENDLESS));
}
