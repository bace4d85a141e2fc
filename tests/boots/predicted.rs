//! What `imactl measurement predict` says that a boot can measure, beside what it measured.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output};

use ima_testbed::Tpm;
use ima_testbed::report::Report;

use crate::built::{Kernel, PROGRAMS, source};
use crate::how_to::IMACTL;
use crate::keys::RSA;
use crate::setup::{DEFAULT_POLICY, Setup, assert_booted};
use crate::tree::INIT;

/// A boot that is measured, of a root with nothing but its init.
pub fn device() -> Setup {
    let mut setup = Setup::new();
    setup.tpm = Tpm::Swtpm;
    setup.put(DEFAULT_POLICY, source("policy/ima_policy.measure"));
    setup
}

/// Writes what a machine boots to a directory, and returns the options that name it.
pub fn booted(setup: &Setup, directory: &Path) -> Vec<OsString> {
    let file = |name: &str| directory.join(name);
    std::fs::write(file("initramfs"), setup.packed()).expect("the initramfs");
    std::fs::copy(setup.kernel.with_ca(), file("kernel")).expect("the kernel");
    let symbols = setup.kernel.directory().join("extra-cert.json");
    std::fs::copy(symbols, file("extra-cert.json")).expect("where its CAs are");
    std::fs::rename(setup.image(), file("root")).expect("the image");
    [
        "--from",
        "root",
        "--initramfs",
        "initramfs",
        "--kernel",
        "kernel",
    ]
    .iter()
    .map(|word| match word.strip_prefix("--") {
        Some(_) => word.into(),
        None => file(word).into(),
    })
    .collect()
}

fn imactl(arguments: &[&str], options: &[OsString], directory: &Path) -> Output {
    Command::new(IMACTL.join("imactl"))
        .args(arguments)
        .args(options)
        .current_dir(directory)
        .output()
        .expect("imactl")
}

/// Predicts what the boot of `predicted` can measure, and returns the names of what `report` has beyond that, with the exit status of
/// the comparison.
fn unexpected(predicted: &Setup, report: &Report) -> (Option<i32>, Vec<String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let list = imactl(
        &["measurement", "predict"],
        &booted(predicted, directory),
        directory,
    );
    assert!(list.status.success(), "{list:?}");
    std::fs::write(directory.join("predicted"), list.stdout).expect("the list");
    std::fs::write(directory.join("measured"), &report.measurements_ascii).expect("the list");
    let words = "measurement diff --allowed predicted measured";
    let words: Vec<&str> = words.split(' ').collect();
    let found = imactl(&words, &[], directory);
    let text = String::from_utf8(found.stdout).expect("text");
    let names = text.lines().filter_map(|line| line.strip_prefix("+ "));
    let names = names.filter_map(|line| line.split_once("  "));
    (
        found.status.code(),
        names.map(|(name, _)| name.to_owned()).collect(),
    )
}

/// Everything but boot_aggregate was predicted; of another root, what is another file was not.
#[test]
fn measured_is_what_was_predicted() {
    let setup = device();
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_eq!(
        unexpected(&setup, report),
        (Some(1), vec!["boot_aggregate".to_owned()])
    );
    let entries = report.measurements_ascii.lines().count();
    assert!(entries > 4, "{}", report.measurements_ascii);

    let mut other = device();
    let program = [PROGRAMS.guest.as_slice(), b"other"].concat();
    other.root.add_signed(INIT, 0o755, &program, &RSA);
    let (status, names) = unexpected(&other, report);
    assert_eq!(status, Some(1));
    assert_eq!(names, [&format!("/rootfs/{INIT}"), "boot_aggregate"]);
}

/// A policy that is in the kernel has the files of the initramfs measured too.
#[test]
fn the_files_of_the_initramfs_are_predicted() {
    let mut setup = device();
    setup.append("ima_policy=tcb");
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let list = &report.measurements_ascii;
    assert!(list.contains(" /etc/ima/ima-init.conf "), "{list}");
    let (_, names) = unexpected(&setup, report);
    assert!(
        names.iter().all(|name| name == "boot_aggregate"),
        "{names:?}\n{list}"
    );
}

/// From 7.3 on the kernel measures each rule as it is written, if policies are measured by then.
#[test]
#[ignore = "a kernel of its own; tests/run --all"]
fn the_rules_that_are_written_are_predicted() {
    let mut setup = device();
    setup.kernel = Kernel::Newest;
    setup.append("ima_policy=tcb");
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let written = |line: &&str| line.contains(" ima_policy_written ");
    let rules = report.measurements_ascii.lines().filter(written).count();
    assert!(rules > 4, "{}", report.measurements_ascii);
    let (_, names) = unexpected(&setup, report);
    assert!(
        !names.iter().any(|name| name == "ima_policy_written"),
        "{names:?}"
    );
}
