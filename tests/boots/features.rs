//! An init that was built without any of its features (`build/ship --features ''`): what it boots, and that it refuses a configuration
//! which needs one of them.

use std::sync::LazyLock;

use ima_testbed::Tpm;

use crate::accepted::assert_all_attempts_passed;
use crate::built::{Kernel, PLAIN_INIT};
use crate::matrix::{Check, faults};
use crate::setup::{Setup, assert_booted};
use crate::tree::Tree;

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

/// An init without features, and lines of its configuration.
fn configured(setup: &mut Setup, lines: &[&str]) {
    setup.init = &PLAIN_INIT;
    for line in lines {
        setup.configure(line);
    }
}

faults! {
    composefs_that_is_not_built_in: "IMA-211", Reboot, Check::Same, |setup| {
        let digest = format!("composefs_digest={}", *HASH);
        configured(setup, &["composefs=/root.cfs", &digest, "composefs_objects=/objects"]);
    };
    encryption_that_is_not_built_in: "IMA-211", Poweroff, Check::Same, |setup| {
        configured(setup, &["luks=yes"]);
    };
    overlay_that_is_not_built_in: "IMA-211", Halt, Check::Same, |setup| {
        configured(setup, &["overlay=tmpfs"]);
    };
    root_of_a_server_that_is_not_built_in: "IMA-211", Panic, Check::Same, |setup| {
        configured(setup, &["root=nfs:10.0.2.2:/root"]);
        setup.root_name = None;
    };
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
