//! Prints the outcome of a boot, and decides whether it is the expected one.

use std::time::Duration;

use ima::audit::IntegrityRecord;
use ima::measurement::{Bank, ByteOrder, MeasurementList, PcrMatch};
use ima_testbed::report::{AttemptResult, Report, decode_hex, encode_hex};
use ima_testbed::{Ending, Outcome};
use serde_json::Value;

use crate::Options;

/// Prints the outcome. Returns whether it is the expected one.
pub fn print(options: &Options, outcome: &Outcome, took: Duration) -> bool {
    let mut problems: Vec<String> = Vec::new();
    println!();
    match outcome.report() {
        Some(_) if options.refused.is_some() || options.refused_by_firmware => {
            problems.push("the system booted, but a refusal was expected".to_owned());
        }
        Some(report) => {
            print_enforcement(report, outcome, &mut problems);
            if options.efi_disk.is_some() && report.secure_boot != Some(true) {
                problems.push("the firmware does not enforce Secure Boot".to_owned());
            }
            print_system(report, options, &mut problems);
            print_attempts(report, options, &mut problems);
        }
        None if options.refused_by_firmware => print_firmware(outcome, &mut problems),
        None => print_refusal(options, outcome, &mut problems),
    }
    for message in &outcome.invalid_messages {
        problems.push(format!("the guest sent an invalid message: {message}"));
    }
    println!();
    if problems.is_empty() {
        println!(
            "Everything had the expected result ({:.0} s).",
            took.as_secs_f64()
        );
        return true;
    }
    println!("Unexpected results:");
    for problem in &problems {
        println!("  {problem}");
    }
    false
}

fn row(name: &str, text: &str) {
    println!("  {name:<12} {text}");
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("?")
}

/// Prints what ima-init and the kernel report about the boot.
fn print_enforcement(report: &Report, outcome: &Outcome, problems: &mut Vec<String>) {
    println!("ima-init booted this system:\n");
    row("kernel", &report.kernel);
    row("", &report.command_line);
    if let Some(enabled) = report.secure_boot {
        row("Secure Boot", if enabled { "enabled" } else { "disabled" });
    }
    row("TPM", &describe_tpm(report, problems));
    let authorities = report
        .keyrings
        .get(".builtin_trusted_keys")
        .map(|ring| ring.keys.as_slice())
        .unwrap_or_default();
    for key in authorities {
        row("CA", &format!("{} on .builtin_trusted_keys", subject(key)));
    }
    if authorities.is_empty() {
        row("CA", "none on .builtin_trusted_keys");
    }
    let Some(init) = &report.init else {
        problems.push("ima-init left no report: it did not boot this system".to_owned());
        return;
    };
    for key in init["keys"].as_array().into_iter().flatten() {
        let state = match key["accepted"].as_bool() {
            Some(true) => "taken".to_owned(),
            _ => format!("refused, {}", text(key, "code")),
        };
        row(
            &format!("key {}", text(key, "keyring")),
            &format!(
                "{}, key id {}, {}; {} of the {}: {state}",
                text(key, "subject"),
                text(key, "key_id"),
                text(key, "algorithm"),
                text(key, "path"),
                text(key, "source"),
            ),
        );
    }
    let policy = &init["policy"];
    let proofs: Vec<&str> = policy["proofs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    row(
        "policy",
        &format!(
            "{}, {} rules; proved in force by {}",
            text(policy, "path"),
            policy["rules"],
            if proofs.is_empty() {
                "nothing".to_owned()
            } else {
                proofs.join(", ")
            }
        ),
    );
    if proofs.is_empty() {
        problems.push("nothing proves that the policy is in force".to_owned());
    }
    for more in policy["additional"].as_array().into_iter().flatten() {
        let state = if more["accepted"] == true {
            "taken"
        } else {
            "refused"
        };
        row("", &format!("{} of the root: {state}", text(more, "path")));
    }
    let root = &init["root"];
    row(
        "root",
        &format!(
            "{}, {} ({})",
            text(root, "device"),
            text(root, "fstype"),
            text(root, "options")
        ),
    );
    row("switch_root", text(init, "switch_root"));
    row("init", text(init, "init"));
    let total = init["times_us"]["total"].as_f64().unwrap_or_default();
    let from_kernel = handover_time(&outcome.console)
        .map(|seconds| format!(" ({:.0} ms by the kernel's clock)", seconds * 1e3))
        .unwrap_or_default();
    row(
        "time",
        &format!("{:.0} ms from /init to handover{from_kernel}", total / 1e3),
    );
    for warning in init["warnings"].as_array().into_iter().flatten() {
        row(
            "warning",
            &format!("[{}] {}", text(warning, "code"), text(warning, "detail")),
        );
    }
}

/// Describes the TPM. PCR 10 must be the replay of the measurement list, or of its beginning.
fn describe_tpm(report: &Report, problems: &mut Vec<String>) -> String {
    if !report.tpm {
        return "none".to_owned();
    }
    let list = decode_hex(&report.measurements_binary)
        .ok_or_else(|| "it is not hexadecimal".to_owned())
        .and_then(|list| {
            MeasurementList::parse_binary(&list, Bank::Sha1, ByteOrder::Little)
                .map_err(|error| error.to_string())
        });
    let list = match list {
        Ok(list) => list,
        Err(error) => {
            problems.push(format!("the measurement list cannot be read: {error}"));
            return "there".to_owned();
        }
    };
    let Some(pcr) = report.pcr10.get("sha256").and_then(decode_hex) else {
        problems.push("the TPM's PCR 10 cannot be read".to_owned());
        return "there".to_owned();
    };
    let entries = match list.match_pcr(Bank::Sha256, 10, &pcr) {
        PcrMatch::Whole => list.entries().len(),
        PcrMatch::Prefix { entries } => entries,
        PcrMatch::No => {
            problems.push("PCR 10 is not the replay of the measurement list".to_owned());
            return format!("PCR 10 {}", encode_hex(&pcr));
        }
    };
    let what = if entries == 1 { "entry" } else { "entries" };
    format!("PCR 10 is the replay of the measurement list, {entries} {what}")
}

/// Returns the subject of a certificate, which /proc/keys describes as "subject: skid: X509.rsa id []".
fn subject(key: &str) -> &str {
    key.split_once(": ").map_or(key, |(subject, _)| subject)
}

/// Returns the seconds from the kernel's "Run /init" to the line of the handover.
fn handover_time(console: &str) -> Option<f64> {
    let at = |words: &str| {
        let line = console.lines().find(|line| line.contains(words))?;
        let (_, rest) = line.split_once('[')?;
        rest.split_once(']')?.0.trim().parse::<f64>().ok()
    };
    Some(at("ima-init: handover")? - at("Run /init as init process")?)
}

/// Prints how far the boot of systemd got.
fn print_system(report: &Report, options: &Options, problems: &mut Vec<String>) {
    let Some(system) = &report.system else {
        problems.push("the guest program did not report the state of systemd".to_owned());
        return;
    };
    // The canary of ima-init is not a denial of a program of the system. Denials of the file that was tampered with are expected.
    let (provoked, others): (Vec<&String>, Vec<&String>) = system
        .denials
        .iter()
        .filter(|line| !is_canary(line))
        .partition(|line| {
            options
                .tampered
                .as_ref()
                .is_some_and(|path| names(line, path))
        });
    row(
        "system",
        &format!(
            "systemd is {} after {:.1} s; {} {}; {} programs denied",
            system.state,
            system.seconds,
            system.default_target,
            if system.target_reached {
                "reached"
            } else {
                "not reached"
            },
            others.len(),
        ),
    );
    for line in &provoked {
        row("", &format!("denied, as expected: {line}"));
    }
    for line in &others {
        problems.push(format!("denied while the system came up: {line}"));
    }
    // A unit whose program was tampered with may fail.
    if options.tampered.is_none() {
        if system.state != "running" {
            problems.push(format!(
                "systemd is {}; failed: {}",
                system.state,
                system.failed_units.join(" ")
            ));
        }
        if !system.target_reached {
            problems.push(format!("{} was not reached", system.default_target));
        }
    }
}

/// Returns whether this is the denial that ima-init provokes as PID 1 to prove the policy.
fn is_canary(line: &str) -> bool {
    let init = ["init", "run-init", "switch_root", "ima-init"]
        .iter()
        .any(|name| line.contains(&format!(" comm=\"{name}\" ")));
    init && line.contains(" name=\"canary\" dev=\"tmpfs\" ")
}

/// Returns whether a line of the kernel log or of the refusal names this file of the root.
fn names(line: &str, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    line.contains(&format!("/{name}\""))
        || line.contains(&format!("/{name} "))
        || line.ends_with(&format!("/{name}"))
}

fn print_attempts(report: &Report, options: &Options, problems: &mut Vec<String>) {
    if report.attempts.is_empty() {
        problems.push("no attempts were made".to_owned());
        return;
    }
    let width = report
        .attempts
        .iter()
        .map(|attempt| attempt.tried.chars().count())
        .max()
        .unwrap_or_default();
    println!("\nAttempts in the running system:\n");
    println!("  {:<width$}  expected  result", "attempt");
    for attempt in &report.attempts {
        let (expected, result) = (attempt.expected, &attempt.result);
        // A kernel that takes one policy only cannot be given a second one.
        let impossible = options.one_policy
            && matches!(&attempt.result, AttemptResult::NotMadeBecause(reason)
                if reason.starts_with("the kernel takes no further policy"));
        let passed = attempt.passed || impossible;
        let mark = if passed { "" } else { "   WRONG" };
        println!("  {:<width$}  {expected:<8}  {result}{mark}", attempt.tried);
        if !passed {
            problems.push(format!(
                "{}: expected {expected}, result {result}",
                attempt.tried
            ));
        }
    }
}

/// What UEFI says of a program without a valid signature.
const ACCESS_DENIED: &str = ": Access Denied";

/// Prints what the firmware says of a program that it did not start.
fn print_firmware(outcome: &Outcome, problems: &mut Vec<String>) {
    println!("The firmware started nothing:\n");
    let lines = outcome.console.lines();
    for line in lines.filter(|line| line.starts_with("BdsDxe:")) {
        println!("  {}", line.trim_end());
    }
    if !outcome.console_contains(ACCESS_DENIED) {
        problems.push("the firmware did not say that it denies the program".to_owned());
    }
    if outcome.ending != Ending::NothingToBoot || outcome.console_contains("Linux version") {
        problems.push(format!("the machine ended with: {}", outcome.ending));
    }
}

/// Prints why there is no report: the machine ended before the system was up.
fn print_refusal(options: &Options, outcome: &Outcome, problems: &mut Vec<String>) {
    println!("The system did not boot: {}.\n", outcome.ending);
    let lines: Vec<&str> = refusal_lines(&outcome.console);
    for line in &lines {
        println!("  {line}");
    }
    let records: Vec<&str> = outcome
        .console
        .lines()
        .filter(|line| IntegrityRecord::find(line).is_some_and(|record| !record.succeeded))
        .collect();
    if lines.is_empty() {
        let console: Vec<&str> = outcome.console.lines().collect();
        let tail = console.len().saturating_sub(20);
        for line in records.iter().chain(&console[tail..]) {
            println!("  {line}");
        }
    }
    if outcome.guest_ran() {
        problems.push("programs of the root ran, but the guest program did not report".to_owned());
    }
    if let Some(code) = &options.refused {
        check_refusal(code, outcome, &lines, problems);
    }
    match &options.tampered {
        None if options.refused.is_some() => {}
        None => problems.push("the system was expected to boot".to_owned()),
        Some(path) if !lines.iter().chain(&records).any(|line| names(line, path)) => {
            problems.push(format!(
                "neither ima-init nor the kernel reported that it refused {path}"
            ));
        }
        Some(_) if matches!(outcome.ending, Ending::TimedOut | Ending::QemuFailed(_)) => {
            problems.push(format!("the machine ended with: {}", outcome.ending));
        }
        Some(path) => {
            println!("\nNothing ran after {path}, changed after it was signed, was refused.")
        }
    }
}

/// Checks the expected refusal: its code, its action, and that it came before the handover.
fn check_refusal(code: &str, outcome: &Outcome, lines: &[&str], problems: &mut Vec<String>) {
    if !lines
        .first()
        .is_some_and(|line| line.contains(&format!("refused: [{code}]")))
    {
        problems.push(format!("the boot was not refused with {code}"));
    }
    let off = lines
        .last()
        .is_some_and(|line| line.contains("action: poweroff"));
    if !off || outcome.ending != Ending::PowerOff {
        problems.push(format!(
            "ima-init must announce that it powers the machine off, and do it; the machine ended with: {}",
            outcome.ending
        ));
    }
    if outcome.console_contains("handover: executing") {
        problems.push("ima-init handed over before it refused".to_owned());
    }
}

/// Returns the lines of the refusal on the console: the fault with its cause and remedy, and the action.
fn refusal_lines(console: &str) -> Vec<&str> {
    let mut lines = console
        .lines()
        .map(str::trim_end)
        .skip_while(|line| !line.contains("refused: ["));
    let mut refusal = Vec::new();
    for line in lines.by_ref() {
        refusal.push(line);
        if line.contains("action: ") {
            break;
        }
    }
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handover_is_timed_by_the_kernels_clock() {
        let console = "[    1.008065] Run /init as init process\r\n\
                       [    1.050065] ima-init: handover: executing x\r\n";
        assert_eq!(
            handover_time(console).map(|time| (time * 1e6).round()),
            Some(42000.0)
        );
        assert_eq!(handover_time("[ 1.0] Run /init as init process"), None);
    }

    #[test]
    fn a_refusal_ends_with_the_action() {
        let console = "x\r\nima-init: refused: [IMA-701] a: b\r\n  cause: c\r\n  remedy: d\r\nima-init: action: reboot in 10 s\r\n[ 3.0] y\r\n";
        assert_eq!(refusal_lines(console).len(), 4);
        assert!(refusal_lines("x\r\ny").is_empty());
    }

    #[test]
    fn a_file_is_named_by_its_last_component() {
        let line = r#"op=appraise_data cause=invalid-signature name="/usr/bin/ls" dev="vda""#;
        assert!(names(line, "/bin/ls"));
        assert!(!names(line, "/bin/s"));
        assert!(names(
            "refused: [IMA-703] x: /usr/sbin/switch_root.static",
            "/usr/sbin/switch_root.static"
        ));
    }
}
