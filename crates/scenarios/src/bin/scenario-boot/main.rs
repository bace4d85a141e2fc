//! Boots a signed root under ima-init and shows, in plain words, what was enforced: the last step of `qemu/boot`.

use std::collections::VecDeque;
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use ima::audit::IntegrityRecord;
use ima::measurement::{Bank, ByteOrder, MeasurementList, PcrMatch};
use ima_testbed::report::{AttemptResult, Report, decode_hex, encode_hex};
use ima_testbed::{Disk, Ending, Machine, Outcome, Running, SignRequest, TestbedError, Tpm};
use serde_json::Value;

const USAGE: &str = "\
Usage: scenario-boot --kernel BZIMAGE --initramfs FILE --disk FILE [OPTION]...

Boots the machine, waits until its guest program has reported and switched it off, and shows what was enforced.
Exits with 0 if everything came out as it must, with 1 if not, with 2 if the machine could not be started.

  --disk FILE       may be given again for more disks; what is written to them is lost
  --written-disk FILE  a disk that keeps what is written to it
  --append TEXT     more of the kernel command line
  --no-tpm          without a TPM
  --memory MIB      1024 unless told
  --cpus N          1 unless told
  --limit SECONDS   end the machine after this time; 300 unless told
  --sign COMMAND    run for the program that the guest makes: COMMAND SHA256 PATH, prints security.ima in hexadecimal
  --tampered PATH   this file of the root was changed after it was signed: a refusal that names it is what must come
  --refused CODE    the refusal that must come, before anything of the root has run; the machine must then be off
  --one-policy      the kernel takes one policy only: that no second one can be offered is as it must be
  --report FILE     keep the guest's report, as JSON
  --console FILE    keep the console
  --verbose         show the console while the machine runs
  --shell           the console on this terminal, nothing reported
";

type Error = Box<dyn std::error::Error>;

struct Options {
    machine: Machine,
    limit: Duration,
    tampered: Option<String>,
    refused: Option<String>,
    one_policy: bool,
    report: Option<PathBuf>,
    console: Option<PathBuf>,
    verbose: bool,
    shell: bool,
}

fn main() -> ExitCode {
    let arguments: VecDeque<String> = std::env::args().skip(1).collect();
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let result = options(arguments).and_then(|options| {
        if options.shell {
            shell(&options)
        } else {
            boot(&options)
        }
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("scenario-boot: {error}");
            ExitCode::from(2)
        }
    }
}

fn options(mut arguments: VecDeque<String>) -> Result<Options, Error> {
    let mut kernel = None;
    let mut changes: Vec<Box<dyn FnOnce(Machine) -> Machine>> = Vec::new();
    let mut with_tpm = true;
    let (mut memory, mut cpus, mut limit) = (1024, 1, 300);
    let (mut tampered, mut refused, mut report, mut console) = (None, None, None, None);
    let (mut verbose, mut shell, mut one_policy) = (false, false, false);
    while let Some(option) = arguments.pop_front() {
        let mut value = || {
            arguments
                .pop_front()
                .ok_or_else(|| format!("{option} needs a value; --help shows the usage"))
        };
        match option.as_str() {
            "--kernel" => kernel = Some(value()?),
            "--initramfs" => {
                let path = value()?;
                changes.push(Box::new(move |machine| machine.initramfs(path)));
            }
            "--disk" => {
                let disk = Disk::new(value()?);
                changes.push(Box::new(move |machine| machine.disk(disk)));
            }
            "--written-disk" => {
                let disk = Disk::new(value()?).keep_writes();
                changes.push(Box::new(move |machine| machine.disk(disk)));
            }
            "--append" => {
                let text = value()?;
                changes.push(Box::new(move |machine| machine.append(text)));
            }
            "--sign" => {
                let command = value()?;
                changes.push(Box::new(move |machine| {
                    machine.signer(move |request| sign(&command, request))
                }));
            }
            "--memory" => memory = value()?.parse()?,
            "--cpus" => cpus = value()?.parse()?,
            "--limit" => limit = value()?.parse()?,
            "--tampered" => tampered = Some(value()?),
            "--refused" => refused = Some(value()?),
            "--report" => report = Some(value()?.into()),
            "--console" => console = Some(value()?.into()),
            "--no-tpm" => with_tpm = false,
            "--one-policy" => one_policy = true,
            "--verbose" => verbose = true,
            "--shell" => shell = true,
            _ => return Err(format!("unknown option {option}; --help shows the usage").into()),
        }
    }
    let kernel = kernel.ok_or("--kernel is missing; --help shows the usage")?;
    // A person at the shell decides how long.
    let limit = Duration::from_secs(if shell { 24 * 3600 } else { limit });
    let mut machine = Machine::new(kernel)
        .memory_mib(memory)
        .cpus(cpus)
        .time_limit(limit)
        .tpm(if with_tpm { Tpm::Swtpm } else { Tpm::None });
    for change in changes {
        machine = change(machine);
    }
    Ok(Options {
        machine,
        limit,
        tampered,
        refused,
        one_policy,
        report,
        console,
        verbose,
        shell,
    })
}

fn sign(command: &str, request: &SignRequest) -> Result<Vec<u8>, String> {
    let output = Command::new("sh")
        .args(["-c", &format!("{command} \"$@\""), "sh"])
        .arg(encode_hex(&request.sha256))
        .arg(&request.path)
        .output()
        .map_err(|error| format!("{command}: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    decode_hex(String::from_utf8_lossy(&output.stdout).trim())
        .ok_or_else(|| format!("{command} did not print a value in hexadecimal"))
}

/// The guest's console on this terminal, key by key. Ends with the machine.
fn shell(options: &Options) -> Result<bool, Error> {
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
    let terminal = std::io::stdin();
    let before = tcgetattr(&terminal).map_err(|_| "--shell needs a terminal on standard input")?;
    let machine = options.machine.clone().tee();
    let running = std::sync::Arc::new(machine.start()?);
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(&terminal, OptionalActions::Now, &raw)?;
    std::thread::spawn({
        let running = std::sync::Arc::downgrade(&running);
        move || {
            let mut keys = [0; 256];
            while let Ok(length @ 1..) = std::io::stdin().read(&mut keys) {
                let Some(running) = running.upgrade() else {
                    break;
                };
                let text = String::from_utf8_lossy(&keys[..length]);
                if running.send_text(&text).is_err() {
                    break;
                }
            }
        }
    });
    let result = watch(&running, options, |_, _| ());
    tcsetattr(&terminal, OptionalActions::Now, &before)?;
    println!();
    result.map(|()| true).map_err(Error::from)
}

/// Wait until the machine has ended or stands still; `show` is called each half second.
fn watch(
    running: &Running,
    options: &Options,
    mut show: impl FnMut(Duration, &str),
) -> Result<(), TestbedError> {
    while running.elapsed() < options.limit {
        let still = running.wait_for("the end", Duration::from_millis(500), |seen| {
            let console = &seen.console;
            (console.contains("---[ end Kernel panic") || console.contains("reboot: System halted"))
                .then_some(())
        });
        match still {
            Ok(()) | Err(TestbedError::Ended { .. }) => break,
            Err(TestbedError::TimedOut { console, .. }) => show(running.elapsed(), &console),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn boot(options: &Options) -> Result<bool, Error> {
    let mut machine = options.machine.clone();
    if options.verbose {
        machine = machine.tee();
    }
    let started = Instant::now();
    let running = machine.start()?;
    let line = std::io::stderr().is_terminal() && !options.verbose;
    watch(&running, options, |elapsed, console| {
        if line {
            let last = console.lines().last().unwrap_or_default();
            let last: String = last.chars().filter(|c| !c.is_control()).take(60).collect();
            eprint!("\r\x1b[Kbooting  {:.0} s  {last}", elapsed.as_secs_f64());
            let _ = std::io::stderr().flush();
        }
    })?;
    if line {
        eprint!("\r\x1b[K");
    }
    let outcome = running.finish();
    if let Some(path) = &options.console {
        std::fs::write(path, &outcome.console)?;
    }
    if let (Some(path), Some(report)) = (&options.report, outcome.report()) {
        std::fs::write(path, serde_json::to_vec_pretty(report)?)?;
    }
    Ok(present(options, &outcome, started.elapsed()))
}

/// The screen. Gives whether all is as it must be.
fn present(options: &Options, outcome: &Outcome, took: Duration) -> bool {
    let mut wrong: Vec<String> = Vec::new();
    println!();
    match outcome.report() {
        Some(_) if options.refused.is_some() => {
            wrong.push("the system came up; it was expected to be refused".to_owned());
        }
        Some(report) => {
            enforced(report, outcome, &mut wrong);
            system(report, options, &mut wrong);
            attempts(report, options, &mut wrong);
        }
        None => refused(options, outcome, &mut wrong),
    }
    for words in &outcome.invalid_messages {
        wrong.push(format!("the guest sent what is no report: {words}"));
    }
    println!();
    if wrong.is_empty() {
        println!(
            "Everything came out as it must ({:.0} s).",
            took.as_secs_f64()
        );
        return true;
    }
    println!("Not as it must be:");
    for words in &wrong {
        println!("  {words}");
    }
    false
}

fn row(name: &str, text: &str) {
    println!("  {name:<12} {text}");
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("?")
}

/// What the kernel and the init say of themselves.
fn enforced(report: &Report, outcome: &Outcome, wrong: &mut Vec<String>) {
    println!("ima-init brought this system up:\n");
    row("kernel", &report.kernel);
    row("", &report.command_line);
    row("TPM", &tpm(report, wrong));
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
        wrong.push("ima-init left no report: it did not bring this system up".to_owned());
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
        wrong.push("nothing proves that the policy is in force".to_owned());
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

/// What the TPM holds of the measurement list: it must be the replay of the list, or of its beginning.
fn tpm(report: &Report, wrong: &mut Vec<String>) -> String {
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
            wrong.push(format!("the measurement list cannot be read: {error}"));
            return "there".to_owned();
        }
    };
    let Some(pcr) = report.pcr10.get("sha256").and_then(|pcr| decode_hex(pcr)) else {
        wrong.push("the TPM's PCR 10 cannot be read".to_owned());
        return "there".to_owned();
    };
    let entries = match list.match_pcr(Bank::Sha256, 10, &pcr) {
        PcrMatch::Whole => list.entries().len(),
        PcrMatch::Prefix { entries } => entries,
        PcrMatch::No => {
            wrong.push("PCR 10 is not the replay of the measurement list".to_owned());
            return format!("PCR 10 {}", encode_hex(&pcr));
        }
    };
    let what = if entries == 1 { "entry" } else { "entries" };
    format!("PCR 10 is the replay of the measurement list, {entries} {what}")
}

/// /proc/keys describes a certificate as "subject: skid: X509.rsa id []".
fn subject(key: &str) -> &str {
    key.split_once(": ").map_or(key, |(subject, _)| subject)
}

/// From the kernel's "Run /init" to the line in which the init says that it hands over.
fn handover_time(console: &str) -> Option<f64> {
    let at = |words: &str| {
        let line = console.lines().find(|line| line.contains(words))?;
        let (_, rest) = line.split_once('[')?;
        rest.split_once(']')?.0.trim().parse::<f64>().ok()
    };
    Some(at("ima-init: handover")? - at("Run /init as init process")?)
}

/// How far systemd came.
fn system(report: &Report, options: &Options, wrong: &mut Vec<String>) {
    let Some(system) = &report.system else {
        wrong.push("the guest did not say how far systemd came".to_owned());
        return;
    };
    // The init's own proof is no denial of a program of the system; those of the file that was tampered with on purpose
    // are provoked.
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
        row("", &format!("denied, as it must be: {line}"));
    }
    for line in &others {
        wrong.push(format!("denied while the system came up: {line}"));
    }
    // A unit whose program was tampered with may fail.
    if options.tampered.is_none() {
        if system.state != "running" {
            wrong.push(format!(
                "systemd is {}; failed: {}",
                system.state,
                system.failed_units.join(" ")
            ));
        }
        if !system.target_reached {
            wrong.push(format!("{} was not reached", system.default_target));
        }
    }
}

/// The denial that the init provokes as PID 1 to prove the policy.
fn is_canary(line: &str) -> bool {
    let init = ["init", "run-init", "switch_root", "ima-init"]
        .iter()
        .any(|name| line.contains(&format!(" comm=\"{name}\" ")));
    init && line.contains(" name=\"canary\" dev=\"tmpfs\" ")
}

/// Whether a line of the kernel's log or the init's refusal is about this file of the root.
fn names(line: &str, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    line.contains(&format!("/{name}\""))
        || line.contains(&format!("/{name} "))
        || line.ends_with(&format!("/{name}"))
}

fn attempts(report: &Report, options: &Options, wrong: &mut Vec<String>) {
    if report.attempts.is_empty() {
        wrong.push("no attempts were made".to_owned());
        return;
    }
    let width = report
        .attempts
        .iter()
        .map(|attempt| attempt.tried.chars().count())
        .max()
        .unwrap_or_default();
    println!("\nAttempts made inside the running system:\n");
    println!("  {:<width$}  must be  was", "attempt");
    for attempt in &report.attempts {
        let (must, was) = (attempt.expected, &attempt.result);
        // Where the kernel is known to take one policy only, a second one is out of anybody's reach.
        let out_of_reach = options.one_policy
            && matches!(&attempt.result, AttemptResult::NotMadeBecause(reason)
                if reason.starts_with("the kernel takes no further policy"));
        let passed = attempt.passed || out_of_reach;
        let mark = if passed { "" } else { "   WRONG" };
        println!("  {:<width$}  {must:<7}  {was}{mark}", attempt.tried);
        if !passed {
            wrong.push(format!("{}: must be {must}, was {was}", attempt.tried));
        }
    }
}

/// No report: the machine ended before the system was up.
fn refused(options: &Options, outcome: &Outcome, wrong: &mut Vec<String>) {
    println!("The system did not come up: {}.\n", outcome.ending);
    let story: Vec<&str> = refusal(&outcome.console);
    for line in &story {
        println!("  {line}");
    }
    let records: Vec<&str> = outcome
        .console
        .lines()
        .filter(|line| IntegrityRecord::find(line).is_some_and(|record| !record.succeeded))
        .collect();
    if story.is_empty() {
        let lines: Vec<&str> = outcome.console.lines().collect();
        let tail = lines.len().saturating_sub(20);
        for line in records.iter().chain(&lines[tail..]) {
            println!("  {line}");
        }
    }
    if outcome.guest_ran() {
        wrong.push("programs of the root ran, but the guest did not report".to_owned());
    }
    if let Some(code) = &options.refused {
        refused_as(code, outcome, &story, wrong);
    }
    match &options.tampered {
        None if options.refused.is_some() => {}
        None => wrong.push("the system was expected to come up".to_owned()),
        Some(path) if !story.iter().chain(&records).any(|line| names(line, path)) => {
            wrong.push(format!(
                "neither the init nor the kernel says that it refused {path}"
            ));
        }
        Some(_) if matches!(outcome.ending, Ending::TimedOut | Ending::QemuFailed(_)) => {
            wrong.push(format!("the machine ended with: {}", outcome.ending));
        }
        Some(path) => {
            println!("\nNothing ran after {path}, changed after it was signed, was refused.")
        }
    }
}

/// The refusal that was expected: its code, its action, and that it came before the handover.
fn refused_as(code: &str, outcome: &Outcome, story: &[&str], wrong: &mut Vec<String>) {
    if !story
        .first()
        .is_some_and(|line| line.contains(&format!("refused: [{code}]")))
    {
        wrong.push(format!("it was not refused with {code}"));
    }
    let off = story
        .last()
        .is_some_and(|line| line.contains("action: poweroff"));
    if !off || outcome.ending != Ending::PowerOff {
        wrong.push(format!(
            "it must say that it switches the machine off, and do it; the end was: {}",
            outcome.ending
        ));
    }
    if outcome.console_contains("handover: executing") {
        wrong.push("it handed over before it refused".to_owned());
    }
}

/// The lines in which the init refuses: the fault with its cause and remedy, and what it did then.
fn refusal(console: &str) -> Vec<&str> {
    let mut lines = console
        .lines()
        .map(str::trim_end)
        .skip_while(|line| !line.contains("refused: ["));
    let mut story = Vec::new();
    for line in lines.by_ref() {
        story.push(line);
        if line.contains("action: ") {
            break;
        }
    }
    story
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
        assert_eq!(refusal(console).len(), 4);
        assert!(refusal("x\r\ny").is_empty());
    }

    #[test]
    fn a_file_is_named_whole() {
        let line = r#"op=appraise_data cause=invalid-signature name="/usr/bin/ls" dev="vda""#;
        assert!(names(line, "/bin/ls"));
        assert!(!names(line, "/bin/s"));
        assert!(names(
            "refused: [IMA-703] x: /usr/sbin/switch_root.static",
            "/usr/sbin/switch_root.static"
        ));
    }
}
