//! Roots in a directory that the host shares, for development.

use ima_testbed::{Outcome, Share, free_port};
use tempfile::TempDir;

use crate::accepted::{assert_all_attempts_passed, assert_warned};
use crate::built::{Kernel, source};
use crate::matrix::{Action, Check, faults};
use crate::roots::root_of;
use crate::setup::{
    DEFAULT_POLICY, Setup, assert_booted, assert_no_signatures, assert_refused, console_tail,
};
use crate::tree::Tree;

/// The tag of the root.
const TAG: &str = "root";

fn virtiofs(directory: &TempDir) -> Share {
    Share::Virtiofs {
        tag: TAG.to_owned(),
        directory: directory.path().to_owned(),
    }
}

fn nine_p(directory: &TempDir) -> Share {
    Share::NineP {
        tag: TAG.to_owned(),
        directory: directory.path().to_owned(),
    }
}

/// A boot whose configuration names a shared root.
fn named(setup: &mut Setup, name: &str) {
    setup.root_name = None;
    setup.configure(&format!("root={name}"));
}

/// Signatures are those of the host's files: everything signed runs, and nothing else.
#[test]
fn virtiofs_carries_signatures() {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts(Some(&Kernel::Full.module("dummy")));
    let directory = setup.root.directory();
    setup.shares.push(virtiofs(&directory));
    named(&mut setup, "virtiofs:root");
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_eq!(root_of(report), (TAG, "virtiofs"));
    assert_all_attempts_passed(report);
    assert!(!outcome.console_contains("[IMA-451]"));
}

fn over_9p(setup: &mut Setup) -> Outcome {
    let directory = setup.root.directory();
    setup.shares.push(nine_p(&directory));
    named(setup, "9p:root");
    setup.boot()
}

/// QEMU's 9p server has no extended attributes of security.*: the init says so, and nothing can run.
#[test]
fn nine_p_carries_no_signatures() {
    let outcome = over_9p(&mut Setup::new());
    assert_no_signatures(&outcome);
}

/// Without appraisal such a root boots.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn nine_p_boots_where_nothing_is_enforced() {
    let mut setup = Setup::new();
    setup.configure("enforce=permissive");
    setup.append("ima_appraise=log rootflags=cache=none");
    let outcome = over_9p(&mut setup);
    assert_eq!(root_of(assert_booted(&outcome)), (TAG, "9p"));
    // The last of two transports counts: no other one than this.
    assert!(outcome.console_contains("9p (ro,cache=none,trans=virtio)"));
    assert_warned(&outcome, "IMA-451");
}

/// A root that an NFS server serves; the server, as long as the machine runs, has its files in the directory.
fn over_nfs(setup: &mut Setup) -> TempDir {
    // The server opens files by their handles, which an overlay may not have.
    let directory = setup.root.directory_in("/var/tmp".as_ref());
    let port = free_port().expect("a port");
    setup.shares.push(Share::Nfs {
        port,
        directory: directory.path().to_owned(),
    });
    named(setup, "nfs:10.0.2.2:/root");
    setup.append(&format!("ip=dhcp rootflags=port={port}"));
    directory
}

/// NFS has no security.ima: the init says so, and nothing can run.
#[test]
fn nfs_carries_no_signatures() {
    let mut setup = Setup::new();
    let _directory = over_nfs(&mut setup);
    assert_eq!(setup.checked(), Some("IMA-704"));
    let outcome = setup.boot();
    assert_no_signatures(&outcome);
}

/// Without appraisal such a root boots.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn nfs_boots_where_nothing_is_enforced() {
    let mut setup = Setup::new();
    setup.configure("enforce=permissive");
    setup.append("ima_appraise=log");
    let _directory = over_nfs(&mut setup);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_eq!(root_of(report), ("10.0.2.2:/root", "nfs4"));
    assert!(
        outcome.console_contains("vers=4.2,addr=10.0.2.2)"),
        "{}",
        console_tail(&outcome)
    );
    assert_warned(&outcome, "IMA-451");
}

/// A policy that leaves NFS out is refused: nothing would then be appraised.
#[test]
fn nfs_that_the_policy_does_not_appraise() {
    let mut setup = Setup::new();
    let mut policy = b"dont_appraise fsname=nfs4\n".to_vec();
    policy.extend(source("policy/ima_policy.default"));
    setup.put(DEFAULT_POLICY, policy);
    let _directory = over_nfs(&mut setup);
    let outcome = setup.boot();
    assert_refused(&outcome, "IMA-612", Action::Poweroff);
}

/// What a host shares is in no file that is checked.
const HOST: Check = Check::Silent("the files of a root do not show what the host shares");

faults! {
    shared_root_on_the_command_line: "IMA-401", Halt, Check::Same, |setup| {
        setup.root_name = Some("virtiofs:root".to_owned());
        setup.says = "is taken from the configuration alone";
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    shared_root_that_is_to_be_verified: "IMA-401", Panic, Check::Same, |setup| {
        named(setup, "9p:root");
        setup.configure(&format!("verity={}", "5a".repeat(32)));
    };
    nfs_root_on_the_command_line: "IMA-401", Poweroff, Check::Same, |setup| {
        setup.root_name = Some("nfs:10.0.2.2:/root".to_owned());
        setup.says = "is taken from the configuration alone";
    };
    nfs_root_without_a_network: "IMA-404", Panic, Check::Same, |setup| {
        named(setup, "nfs:10.0.2.2:/root");
        setup.says = "the kernel has no network";
    };
    nfs_server_that_does_not_answer: "IMA-404", Reboot, Check::Sooner("IMA-704"), |setup| {
        // The network card comes with a server, on another port.
        let port = free_port().expect("a port");
        setup.shares.push(Share::Nfs { port, directory: "/var/tmp".into() });
        named(setup, "nfs:10.0.2.2:/root");
        setup.append("ip=dhcp rootflags=port=1");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    kernel_without_virtiofs: "IMA-404", Halt, Check::Same, |setup| {
        named(setup, "virtiofs:root");
        setup.append("initcall_blacklist=virtio_fs_init");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    kernel_without_9p: "IMA-404", Panic, Check::Same, |setup| {
        named(setup, "9p:root");
        setup.append("initcall_blacklist=init_v9fs");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    kernel_without_virtio_for_9p: "IMA-404", Poweroff, Check::Same, |setup| {
        named(setup, "9p:root");
        setup.append("initcall_blacklist=p9_virtio_init");
    };
    tag_that_no_host_shares_by_virtiofs: "IMA-404", Poweroff, HOST, |setup| named(setup, "virtiofs:root");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    tag_that_no_host_shares_by_9p: "IMA-404", Reboot, HOST, |setup| named(setup, "9p:root");
}
