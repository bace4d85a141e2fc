//! Keylime's verifier judges the measurement lists of boots, by a runtime policy that `imactl keylime policy` made of the same files.

use std::path::Path;
use std::process::{Command, Stdio};

use ima_testbed::report::Report;
use imactl::key::KeyKind;
use serde_json::Value;

use crate::built::{PROGRAMS, project};
use crate::how_to::IMACTL;
use crate::keys::{RSA, leaf};
use crate::predicted::{booted, device};
use crate::setup::{Setup, assert_booted};
use crate::tree::INIT;

/// The first entry of the list, whose last part but the name is the digest with its algorithm.
fn boot_aggregate(report: &Report) -> &str {
    let first = report.measurements_ascii.lines().next();
    let words: Vec<&str> = first.expect("an entry").split(' ').collect();
    let (_, digest) = words[3].split_once(':').expect("a digest");
    digest
}

/// The runtime policy for a device; `options` are further ones of `imactl keylime policy`.
fn policy(setup: &Setup, report: &Report, options: &[&str], directory: &Path) -> Vec<u8> {
    let path = directory.join("policy");
    let output = Command::new(IMACTL.join("imactl"))
        .args(["keylime", "policy"])
        .args(booted(setup, directory))
        .args(["--boot-aggregate", boot_aggregate(report)])
        .args(["--out".as_ref(), path.as_os_str()])
        .args(options)
        .output()
        .expect("imactl");
    assert!(output.status.success(), "{output:?}");
    std::fs::read(path).expect("the policy")
}

/// What a script of tests/ that runs Keylime prints of a policy and a list.
fn keylime(script: &str, policy: &[u8], list: &str, bank: &str, pcr: &str) -> Value {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path
    };
    let output = Command::new(project().join("tests").join(script))
        .args([file("policy", policy), file("list", list.as_bytes())])
        .args([bank, pcr])
        .stdin(Stdio::null())
        .output()
        .expect(script);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// The kind of an event, without that of its component.
fn kind(id: &str) -> &str {
    id.rsplit('.').next().unwrap_or_default()
}

/// What Keylime's verifier finds wrong: the kind of each event, and the event.
fn judged(policy: &[u8], list: &str, bank: &str, pcr: &str) -> Vec<(String, String)> {
    let events = keylime("keylime", policy, list, bank, pcr);
    let events = events.as_array().expect("events").iter();
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    events
        .map(|event| (kind(&text(&event[0])).to_owned(), text(&event[1])))
        .collect()
}

fn kinds(events: &[(String, String)]) -> Vec<&str> {
    events.iter().map(|(kind, _)| kind.as_str()).collect()
}

/// The device is accepted in every bank, also by digests alone; a list that was changed is not.
#[test]
fn keylime_accepts_the_device_and_no_other_list() {
    let setup = device();
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let directory = tempfile::tempdir().expect("a directory");
    let list = report.measurements_ascii.as_str();
    assert!(report.pcr10.len() > 1, "one bank only");
    for options in [&[][..], &["--digests-only"]] {
        let policy = policy(&setup, report, options, directory.path());
        for (bank, pcr) in &report.pcr10 {
            assert_eq!(judged(&policy, list, bank, pcr), [], "{options:?} {bank}");
        }
    }
    let policy = policy(&setup, report, &[], directory.path());
    let lines: Vec<&str> = list.lines().collect();
    let without_one = lines[..1].iter().chain(&lines[2..]);
    let without_one: Vec<&str> = without_one.copied().collect();
    let pcr = &report.pcr10["sha256"];
    let events = judged(&policy, &without_one.join("\n"), "sha256", pcr);
    assert_eq!(kinds(&events), ["pcr_mismatch"], "{events:?}");
}

/// A root that is not that of the policy: another init under the same name, which the key of the device signed, and a key that is on no
/// list.
#[test]
fn keylime_notices_another_init_and_another_key() {
    let first = device();
    let report = first.boot();
    let directory = tempfile::tempdir().expect("a directory");
    let report = assert_booted(&report);
    let exact = policy(&first, report, &["--digests-only"], directory.path());
    let signed = policy(&first, report, &[], directory.path());

    let mut second = device();
    let other = [PROGRAMS.guest.as_slice(), b"other"].concat();
    second.root.add_signed(INIT, 0o755, &other, &RSA);
    let outcome = second.boot();
    let report = assert_booted(&outcome);
    let (list, pcr) = (&report.measurements_ascii, &report.pcr10["sha256"]);
    let events = judged(&exact, list, "sha256", pcr);
    assert_eq!(kinds(&events), ["runtime_policy_hash"], "{events:?}");
    // A signature is good whatever it is of.
    assert_eq!(judged(&signed, list, "sha256", pcr), []);

    let mut third = device();
    let key = leaf(KeyKind::P256, "another key");
    third.put("etc/keys/x509_ima_other.der", key.der());
    third.root.add_signed(INIT, 0o755, &PROGRAMS.guest, &key);
    let outcome = third.boot();
    let report = assert_booted(&outcome);
    let (list, pcr) = (&report.measurements_ascii, &report.pcr10["sha256"]);
    let events = judged(&signed, list, "sha256", pcr);
    assert_eq!(kinds(&events), ["runtime_policy_hash"], "{events:?}");
    assert!(events[0].1.contains("Hash not found"), "{events:?}");
}

/// Keylime's own services attest the device by quotes of a TPM: they accept it, notice the program that is not in the policy, and that
/// the device hides it.
#[test]
#[ignore = "starts all services of Keylime; tests/run --all"]
fn keylime_attests_the_device_until_it_is_tampered_with() {
    let setup = device();
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let directory = tempfile::tempdir().expect("a directory");
    let policy = policy(&setup, report, &[], directory.path());
    let (list, pcr) = (&report.measurements_ascii, &report.pcr10["sha256"]);
    let verdicts = keylime("keylime-attestation", &policy, list, "sha256", pcr);
    assert!(verdicts[0]["quotes"].as_u64() >= Some(2), "{verdicts}");
    let verdicts = verdicts.as_array().expect("verdicts").iter();
    let seen: Vec<_> = verdicts
        .map(|verdict| {
            let text = |name: &str| verdict[name].as_str();
            (text("stage"), text("state"), text("event").map(kind))
        })
        .collect();
    let invalid = Some("invalid quote");
    assert_eq!(
        seen,
        [
            (Some("as it booted"), Some("accepted"), None),
            (
                Some("another program is executed"),
                invalid,
                Some("not_in_allowlist")
            ),
            (Some("its entry is removed"), invalid, Some("pcr_mismatch")),
            (Some("its entry is replaced"), invalid, Some("pcr_mismatch")),
        ]
    );
}
