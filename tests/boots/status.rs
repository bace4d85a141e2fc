//! `imactl status` of booted systems: the guest program reports the files that it is made of.

use ima_testbed::report::{Report, decode_hex};
use ima_testbed::{Outcome, Tpm};
use imactl::status::{Check, Item, State, Status, System, exit_status};

use crate::built::{Kernel, PROGRAMS};
use crate::setup::{Setup, assert_booted, console_tail};
use crate::tree::Tree;

/// The file that names the files to report.
pub const RECORD: &str = "record";

/// What `imactl status` reads.
pub const FILES: &str = "\
/dev/kmsg
/proc/config.gz
/proc/cmdline
/proc/keys
/proc/self/mountinfo
/proc/stat
/proc/sys/kernel/bootloader_type
/proc/sys/kernel/osrelease
/run/ima-init/private/proc/cmdline
/run/ima-init/report.json
/sys/class/tpm/tpm0/pcr-sha1
/sys/class/tpm/tpm0/pcr-sha256
/sys/class/tpm/tpm0/tpm_version_major
/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f
/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
/sys/firmware/efi/efivars/SetupMode-8be4df61-93ca-11d2-aa0d-00e098032b8c
/sys/firmware/efi/efivars/StubInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f
/sys/firmware/efi/fw_platform_size
/sys/kernel/security/ima/binary_runtime_measurements
/sys/kernel/security/ima/policy
/sys/kernel/security/lockdown
";

/// The status of the system that a report is of.
pub fn status(report: &Report) -> Status {
    let tree = tempfile::tempdir().expect("a directory");
    for (path, content) in &report.files {
        let path = tree.path().join(path.trim_start_matches('/'));
        let directory = path.parent().expect("a directory");
        std::fs::create_dir_all(directory).expect("a directory");
        let content = decode_hex(content).expect("hexadecimal digits");
        std::fs::write(path, content).expect("a file");
    }
    assert!(!report.files.is_empty(), "the root has no /{RECORD}");
    let system = System::recorded(tree.path()).expect("the tree");
    Status::of(&system, imactl::x509::now())
}

#[track_caller]
pub fn assert_check(checks: &[Check], item: Item, state: State, text: &str) {
    let check = checks.iter().find(|check| check.item == item);
    let check = check.unwrap_or_else(|| panic!("no {}: {checks:#?}", item.name()));
    assert_eq!(check.state, state, "{check:#?}");
    assert!(check.text.contains(text), "{text}: {check:#?}");
}

/// The denials of the attempts are in the status with their files; everything else is as it should be but for the open command line.
#[test]
fn status_of_a_system_with_denials() {
    let mut setup = Setup::new();
    setup.tpm = Tpm::Swtpm;
    setup.root = Tree::with_attempts(Some(&Kernel::Full.module("dummy")));
    setup.root.add(RECORD, 0o644, FILES.as_bytes());
    let outcome = setup.boot();
    let status = status(assert_booted(&outcome));
    let checks = status.checks();
    for (item, state, text) in [
        (Item::Init, State::Good, "booted by ima-init in "),
        (Item::Kernel, State::Good, ", started by QEMU"),
        (Item::SecureBoot, State::NotVisible, "no UEFI"),
        (Item::CommandLine, State::Attention, "open "),
        (Item::Tpm, State::Good, "version 2, banks "),
        (Item::Keyrings, State::Good, ".ima 1 key"),
        (
            Item::Policy,
            State::Good,
            "proved at boot by record, read-back, canary",
        ),
        (Item::Root, State::Good, "ext4 on /dev/"),
        (
            Item::Measurements,
            State::Good,
            "PCR 10 is their replay (sha1, sha256",
        ),
        (Item::Denials, State::Attention, " since boot"),
        (Item::Warnings, State::Good, "none"),
    ] {
        assert_check(&checks, item, state, text);
    }
    assert_eq!(exit_status(&checks, &[]), 1, "{checks:#?}");
    assert_eq!(exit_status(&checks, &[Item::CommandLine, Item::Denials]), 0);
    let denials = &status.denials;
    assert!(!denials.incomplete, "{denials:#?}");
    for (name, cause) in [
        ("unsigned", "IMA-signature-required"),
        ("tampered", "invalid-signature"),
        ("unsigned.so", "IMA-signature-required"),
    ] {
        let path = format!("/{name}");
        let denial = denials.files.iter().find(|it| it.file.ends_with(&path));
        let denial = denial.unwrap_or_else(|| panic!("{name}: {denials:#?}"));
        assert_eq!(denial.cause, cause, "{denial:?}");
        assert!(!denial.meaning.contains("does not know"), "{denial:?}");
    }
    // The init had its canary denied, and that is none of them.
    assert!(!denials.files.iter().any(|denial| denial.file == "canary"));
    // Every cause that this kernel gives is explained.
    let unknown = |denial: &&imactl::status::Denial| denial.meaning.contains("does not know");
    assert_eq!(denials.files.iter().find(unknown), None);
    let page = status.html();
    assert!(page.contains("/unsigned</code>"), "{page}");
}

/// What would be denied is told as such, and nobody takes the system for one on which a policy is in force.
#[test]
fn status_of_a_permissive_boot() {
    let mut setup = Setup::new();
    setup.configure("enforce=permissive");
    setup.append("ima_appraise=log");
    setup.root = Tree::with_attempts(None);
    setup.root.add(RECORD, 0o644, FILES.as_bytes());
    let outcome = setup.boot();
    let status = status(assert_booted(&outcome));
    let checks = status.checks();
    for (item, state, text) in [
        (Item::Init, State::Good, "booted by ima-init in "),
        (Item::Tpm, State::Attention, "none"),
        (
            Item::Policy,
            State::Failed,
            "not enforced: ima_appraise=log is on the command line",
        ),
        (
            Item::Measurements,
            State::NotVisible,
            "no TPM to compare them with",
        ),
        (Item::Denials, State::Attention, "(logged only)"),
        (Item::Warnings, State::Attention, " at boot"),
    ] {
        assert_check(&checks, item, state, text);
    }
    assert_eq!(exit_status(&checks, &[]), 2);
}

/// The program that the command line starts in the place of the init reports the files.
#[test]
fn status_of_a_system_that_the_init_did_not_boot() {
    let mut setup = Setup::new();
    setup
        .programs
        .push(("bin/sh".to_owned(), PROGRAMS.guest.clone()));
    setup.put(RECORD, FILES);
    setup.append("rdinit=/bin/sh");
    let outcome: Outcome = setup.boot_unchecked();
    let report = assert_booted(&outcome);
    let status = status(report);
    let checks = status.checks();
    let tail = || console_tail(&outcome);
    assert_check(&checks, Item::Init, State::Failed, "not booted by ima-init");
    assert_check(
        &checks,
        Item::Policy,
        State::Failed,
        "not enforced: no rule that the kernel shows",
    );
    assert_eq!(exit_status(&checks, &[]), 2, "{}", tail());
}
