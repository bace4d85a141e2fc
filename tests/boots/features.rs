//! An init that was built without any of its features (`build/ship --features ''`): what it boots, and that it refuses a configuration
//! which needs one of them.

use std::sync::LazyLock;

use ima_testbed::Tpm;

use crate::accepted::assert_all_attempts_passed;
use crate::built::{Kernel, PLAIN_INIT, PROGRAMS};
use crate::matrix::{Action, Check, faults};
use crate::setup::{Setup, assert_booted, assert_refused, console_tail};
use crate::tree::Tree;

/// A program may grow by this much beyond what tests/boots/size.budget says, in percent.
const TOLERANCE: usize = 2;

/// Growth that is meant is written into the file, with UPDATE_SIZES=1.
#[test]
#[cfg(target_arch = "x86_64")]
fn programs_are_within_their_sizes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boots/size.budget");
    let budget = std::fs::read_to_string(path).expect("the budget");
    let sizes = [
        ("all-features", PROGRAMS.init.len()),
        ("no-features", PLAIN_INIT.len()),
        ("switch_root", PROGRAMS.switch_root.len()),
        ("aarch64", Kernel::Aarch64.programs().init.len()),
    ];
    if std::env::var_os("UPDATE_SIZES").is_some() {
        let comment = budget.lines().next().expect("the comment");
        let lines = sizes.map(|(name, size)| format!("{name} {size}\n"));
        std::fs::write(path, format!("{comment}\n{}", lines.concat())).expect("the budget");
        return;
    }
    for (name, size) in sizes {
        let mut lines = budget.lines().filter_map(|line| line.split_once(' '));
        let (_, allowed) = lines.find(|(known, _)| *known == name).expect("its line");
        let allowed: usize = allowed.parse().expect("a number");
        assert!(
            size * 100 <= allowed * (100 + TOLERANCE),
            "{name}: {size} bytes, where {path} has {allowed}: docs/explanation/size.md says how to find what has grown"
        );
    }
}

/// A root hash.
static HASH: LazyLock<String> = LazyLock::new(|| "5e".repeat(32));

#[test]
fn init_without_features_enforces_the_policy() {
    let mut setup = Setup::new();
    setup.init = &PLAIN_INIT;
    setup.tpm = Tpm::Swtpm;
    setup.root = Tree::with_attempts(Some(&Kernel::Full.module("dummy")));
    assert_eq!(setup.checked(), None);
    let outcome = setup.boot();
    assert_all_attempts_passed(assert_booted(&outcome));
}

/// Without its cause and its remedy, a refusal is its code, what happened, and the kernel's error.
#[test]
fn init_without_features_refuses_a_certificate_of_another_ca() {
    let mut setup = Setup::new();
    setup.init = &PLAIN_INIT;
    setup.trusts_ca = false;
    assert_eq!(setup.checked(), Some("IMA-504"));
    let outcome = setup.boot();
    assert_refused(&outcome, "IMA-504", Action::Poweroff);
    for said in ["ENOKEY", "imactl explain IMA-504"] {
        assert!(outcome.console_contains(said), "{}", console_tail(&outcome));
    }
}

/// An init without features, and lines of its configuration.
fn configured(setup: &mut Setup, lines: &[&str]) {
    setup.init = &PLAIN_INIT;
    for line in lines {
        setup.configure(line);
    }
}

faults! {
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    composefs_that_is_not_built_in: "IMA-211", Reboot, Check::Same, |setup| {
        let digest = format!("composefs_digest={}", *HASH);
        configured(setup, &["composefs=/root.cfs", &digest, "composefs_objects=/objects"]);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    encryption_that_is_not_built_in: "IMA-211", Poweroff, Check::Same, |setup| {
        configured(setup, &["luks=yes"]);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    overlay_that_is_not_built_in: "IMA-211", Halt, Check::Same, |setup| {
        configured(setup, &["overlay=tmpfs"]);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_of_a_server_that_is_not_built_in: "IMA-211", Panic, Check::Same, |setup| {
        configured(setup, &["root=nfs:10.0.2.2:/root"]);
        setup.root_name = None;
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_on_flash_that_is_not_built_in: "IMA-211", Reboot, Check::Same, |setup| {
        configured(setup, &[]);
        setup.root_name = Some("ubi0:rootfs".to_owned());
    };
    signatures_of_the_initramfs_that_are_not_built_in: "IMA-211", Poweroff, Check::Same, |setup| {
        configured(setup, &[]);
        setup.put("etc/ima/initramfs.signatures", b"".as_slice());
    };
    slots_that_are_not_built_in: "IMA-211", Halt, Check::Same, |setup| {
        configured(setup, &["slots=a b", "root=/dev/vd{slot}"]);
        setup.root_name = None;
    };
    verity_that_is_not_built_in: "IMA-211", Panic, Check::Same, |setup| {
        configured(setup, &[&format!("verity={}", *HASH)]);
    };
}
