//! `measure_pcr=`: what the init concludes is in the TPM, and what a secret that is sealed to it gains.

use std::collections::BTreeMap;

use ima::bank::Bank;
use ima::boot_event::{self, CONTENT_TYPE};
use ima::eventlog;
use ima::hash::HashAlgorithm;
use ima::hex;
use ima_testbed::report::{Report, decode_hex};
use ima_testbed::{Outcome, Tpm};
use imactl::events::{Compared, Logs};
use imactl::pcr::Pcrs;

use crate::accepted::assert_all_attempts_passed;
use crate::built::{PLAIN_INIT, busybox, source};
use crate::front;
use crate::keys::RSA;
use crate::luks;
use crate::matrix::{Action, Check, faults};
use crate::setup::{
    CERTIFICATE, DEFAULT_POLICY, Setup, TIME_LIMIT, assert_booted, assert_refused, console_tail,
};
use crate::tree::{SWITCH_ROOT, Tree};

const PCR: u32 = 13;

fn measured() -> Setup {
    let mut setup = Setup::new();
    setup.tpm = Tpm::Swtpm;
    setup.configure("measure_pcr=13");
    setup
}

/// The PCRs of the machine, as its kernel showed them.
fn banks(report: &Report) -> BTreeMap<Bank, Pcrs> {
    let bank = |(name, values): (&String, &Vec<String>)| {
        let values = (0..).zip(values.iter().filter_map(decode_hex));
        Some((Bank::from_name(name)?, values.collect()))
    };
    report.pcrs.iter().filter_map(bank).collect()
}

/// The logs of the boot, which explain every PCR, in every bank.
pub fn assert_logs_explain(report: &Report) -> Logs {
    let firmware = decode_hex(&report.firmware_log).expect("the firmware's log");
    let logs = Logs {
        firmware: eventlog::parse(&firmware).expect("the firmware's log"),
        programs: match report.programs_log.as_str() {
            "" => Vec::new(),
            log => boot_event::parse(log).expect("the log"),
        },
    };
    assert_eq!(logs.wrong(), [0; 0]);
    let banks = banks(report);
    let compared = logs.compare(&banks);
    assert_eq!(compared.len(), banks.len() * 15);
    let differ: Vec<&Compared> = compared.iter().filter(|pcr| !pcr.matches()).collect();
    assert!(differ.is_empty(), "{differ:#?}");
    logs
}

/// The events of the init, which are all that PCR 13 has.
fn events(report: &Report) -> Vec<serde_json::Value> {
    let logs = assert_logs_explain(report);
    let events = logs.programs.iter().map(|record| {
        assert_eq!(u32::from(record.pcr), PCR);
        assert_eq!(record.content_type.as_deref(), Some(CONTENT_TYPE));
        let text = record.text.as_deref().expect("a text");
        serde_json::from_str(text).expect("JSON")
    });
    events.collect()
}

fn pcr_13(outcome: &Outcome) -> String {
    assert_booted(outcome).pcrs["sha256"][PCR as usize].clone()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(&HashAlgorithm::Sha256.digest(bytes).expect("a digest"))
}

/// The policy and the root are measured in every bank, and the log has what was measured.
#[test]
fn conclusions_are_in_the_tpm() {
    let mut setup = measured();
    setup.root = Tree::with_attempts(None);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_all_attempts_passed(report);
    assert!(report.pcrs.len() > 1, "one bank only");
    let events = events(report);
    let [policy, root] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(policy["event"], "policy");
    assert_eq!(policy["enforce"], "required");
    assert_eq!(
        policy["policy"],
        sha256(&source("policy/ima_policy.default"))
    );
    let proofs = &report.init.as_ref().expect("the init's report")["policy"]["proofs"];
    assert_eq!(&policy["proofs"], proofs);
    assert_eq!(policy["keys"][0]["keyring"], ".ima");
    assert_eq!(policy["keys"][0]["sha256"], sha256(&RSA.der()));
    assert_eq!(root["event"], "root");
    assert_eq!(root["init"], "/sbin/init");
}

/// The same initramfs leaves the same value in each boot, and another policy another one.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn value_depends_on_the_policy_and_not_on_the_boot() {
    let mut setup = measured();
    let first = pcr_13(&setup.boot());
    assert_eq!(first, pcr_13(&setup.boot()));
    let mut policy = source("policy/ima_policy.default");
    policy.extend(b"audit func=MODULE_CHECK\n");
    setup.put(DEFAULT_POLICY, policy);
    assert_ne!(first, pcr_13(&setup.boot()));
}

/// Both halves of a boot in front of another initramfs, which mounts a /run of its own between them.
#[test]
fn conclusions_of_both_halves() {
    let mut setup = measured();
    setup.root = Tree::with_attempts(None);
    front::fronted(&mut setup, &front::like_initramfs_tools());
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_all_attempts_passed(report);
    let events = events(report);
    let names: Vec<_> = events.iter().map(|event| &event["event"]).collect();
    assert_eq!(names, ["policy", "root"]);
}

/// A disk whose key is sealed to the policy's event is unlocked after that policy is in force, and not after another one. The event
/// of the root closes it for whatever runs later.
mod sealed_to_the_policy {
    use super::*;

    /// What a boot without the encryption measures first.
    fn first_event() -> String {
        let outcome = measured().boot();
        let logs = assert_logs_explain(assert_booted(&outcome));
        logs.programs[0].text.clone().expect("a text")
    }

    fn sealed() -> Setup {
        let mut setup = measured();
        setup.root = Tree::with_attempts(None);
        let digest = sha256(first_event().as_bytes());
        luks::sealed_to_pcr(&mut setup, PCR, &[digest]);
        setup
    }

    #[test]
    fn is_unlocked_under_that_policy() {
        let outcome = sealed().boot();
        let report = assert_booted(&outcome);
        assert_all_attempts_passed(report);
        assert_eq!(events(report).len(), 2);
    }

    #[test]
    fn stays_locked_under_another_policy() {
        let mut setup = sealed();
        let mut policy = source("policy/ima_policy.default");
        policy.extend(b"audit func=MODULE_CHECK\n");
        setup.put(DEFAULT_POLICY, policy);
        assert_refused(&setup.boot_unchecked(), "IMA-425", Action::Poweroff);
    }
}

/// A shell after a refusal finds the PCR extended by the refusal: no value of a good boot can be reached any more.
#[test]
fn refusal_is_measured_before_a_shell() {
    let (outcome, digits) = with_a_shell(Tpm::Swtpm, "cat /sys/class/tpm/tpm0/pcr-sha256/13");
    let line = r#"measured into PCR 13: {"event":"refused","code":"IMA-502"}"#;
    assert!(outcome.console_contains(line), "{}", console_tail(&outcome));
    let digest = sha256(br#"{"event":"refused","code":"IMA-502"}"#);
    let digest = decode_hex(&digest).expect("a digest");
    let value = hex::encode(&Bank::Sha256.extend(&[0; 32], &digest));
    assert_eq!(digits.to_ascii_lowercase(), value);
}

/// A boot without a certificate, which ends in a shell that executes this; and what it printed.
fn with_a_shell(tpm: Tpm, command: &str) -> (Outcome, String) {
    let mut setup = measured();
    setup.tpm = tpm;
    setup.drop_file(CERTIFICATE);
    setup.configure("debug=yes");
    setup.configure("on_failure=shell");
    for name in ["bin/sh", "bin/cat", "bin/poweroff"] {
        setup.programs.push((name.into(), busybox()));
    }
    let (_, outcome) = setup.boot_with(|running| {
        running
            .wait_for_console("job control turned off")
            .expect("the shell");
        let line = format!("echo value=$({command})=; poweroff -f\n");
        running.send_text(&line).expect("a console");
        let ended = running.wait_for("the end", TIME_LIMIT, |_| None::<()>);
        assert!(ended.is_err());
    });
    assert_refused(&outcome, "IMA-502", Action::Poweroff);
    let printed = outcome.console.rsplit("value=").find_map(|rest| {
        let (value, _) = rest.split_once('=')?;
        (value.len() == 64).then(|| value.to_owned())
    });
    let value = printed.unwrap_or_else(|| panic!("{}", console_tail(&outcome)));
    (outcome, value)
}

/// Where the refusal cannot be measured, no shell is started.
#[test]
fn no_shell_if_the_refusal_cannot_be_measured() {
    let mut setup = measured();
    setup.tpm = Tpm::None;
    setup.configure("debug=yes");
    setup.configure("on_failure=shell");
    setup.programs.push(("bin/sh".into(), busybox()));
    let outcome = setup.boot_unchecked();
    assert_refused(&outcome, "IMA-113", Action::Reboot);
    for (line, expected) in [("no shell is started", true), ("job control", false)] {
        assert_eq!(
            outcome.console_contains(line),
            expected,
            "{}",
            console_tail(&outcome)
        );
    }
}

/// A boot that is refused after its policy was measured never reaches the value of a good one.
#[test]
fn refused_root_is_not_measured() {
    let mut setup = measured();
    setup.root.unsign(SWITCH_ROOT);
    let outcome = setup.boot();
    assert_refused(&outcome, "IMA-704", Action::Poweroff);
    assert!(outcome.console_contains(r#"{"event":"policy""#));
    assert!(!outcome.console_contains(r#"{"event":"root""#));
}

const NO_TPM: Check = Check::Silent("an image does not show whether the machine has a TPM");

faults! {
    pcr_of_a_machine_without_a_tpm: "IMA-113", Halt, NO_TPM, |setup| setup.configure("measure_pcr=13");
    pcr_of_a_tpm_1_2: "IMA-113", Halt, NO_TPM, |setup| {
        setup.tpm = Tpm::Swtpm12;
        setup.configure("measure_pcr=13");
    };
    pcr_of_ima: "IMA-202", Reboot, Check::Unmade, |setup| setup.configure("measure_pcr=10");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    pcr_that_programs_can_reset: "IMA-202", Reboot, Check::Unmade, |setup| setup.configure("measure_pcr=16");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    measured_boot_that_is_not_built_in: "IMA-211", Poweroff, Check::Same, |setup| {
        setup.init = &PLAIN_INIT;
        setup.configure("measure_pcr=13");
    };
}
