//! Every system call of the init and of switch_root can fail, and what comes of it is one of two: the boot is refused with a code and its action,
//! and nothing of the root ran; or it is handed over, and everything is enforced as it is without the failure.
//!
//! The guest program traces the init and has one of its calls fail, without making it, with one error (`guest`'s module
//! `faults`). A first boot counts the calls; then each boot has another pair of call and error, drawn evenly over
//! the calls. `IMA_INIT_FAULTS` says how many (12), `IMA_INIT_SEED` repeats a run, `IMA_INIT_FAULT=CALL:ERRNO,...` makes these alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ima_testbed::report::FAULTS;
use ima_testbed::{Ending, Outcome};

use crate::built::{Kernel, scratch};
use crate::front;
use crate::keys::RSA;
use crate::killed::{Random, number};
use crate::matrix::{assert_nothing_executed, same, watched};
use crate::setup::{Setup, console_tail};
use crate::tree::Tree;

/// The errors that calls fail with: what disks, memory, modules of the kernel that are missing, security modules and signals
/// bring about (include/uapi/asm-generic/errno-base.h and errno.h).
const ERRORS: [(i32, &str); 16] = [
    (1, "EPERM"),
    (2, "ENOENT"),
    (4, "EINTR"),
    (5, "EIO"),
    (9, "EBADF"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (16, "EBUSY"),
    (17, "EEXIST"),
    (22, "EINVAL"),
    (24, "EMFILE"),
    (28, "ENOSPC"),
    (38, "ENOSYS"),
    (95, "EOPNOTSUPP"),
    (110, "ETIMEDOUT"),
];

/// A boot that succeeds with all attempts, traced.
fn alone(faults: &str) -> Setup {
    on(Kernel::Full, faults)
}

/// The same on the processor of a kernel.
fn on(kernel: Kernel, faults: &str) -> Setup {
    let programs = kernel.programs();
    let mut setup = watched();
    setup.kernel = kernel;
    setup.root = Tree::with_attempts_of(programs, Some(&kernel.module("dummy")), &RSA);
    setup.init = &programs.guest;
    setup
        .programs
        .push(("ima-init".to_owned(), programs.init.clone()));
    setup.configure("stall_timeout=20");
    setup.append(&format!("FAULTS={faults} rootwait=20"));
    setup
}

/// The same in front of another initramfs: the first half is traced.
fn in_front(faults: &str) -> Setup {
    let mut setup = alone(faults);
    front::fronted(&mut setup, &front::like_initramfs_tools());
    setup
}

/// The same, with the switch_root of the root traced.
fn of_switch_root(faults: &str) -> Setup {
    alone(&format!("{SWITCH_ROOT}{faults}"))
}

/// What came of a boot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Result {
    /// Handed over, with all attempts as they must be.
    Enforced,
    /// Refused with this code, and nothing of the root ran.
    Refused(String),
    /// The init ended before it could say anything, and with it the machine, and nothing of the root ran.
    Died,
}

impl std::fmt::Display for Result {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Result::Enforced => f.write_str("booted, enforced"),
            Result::Refused(code) => write!(f, "refused, {code}"),
            Result::Died => f.write_str("ended before its first line"),
        }
    }
}

/// Boots; the outcome, and whether the disk is what it was.
fn boot(setup: &mut Setup) -> (Outcome, bool) {
    let (outcome, [before, after]) = setup.boot_on_a_disk();
    let unchanged = same(&before, &after);
    for disk in [before, after] {
        std::fs::remove_file(disk).expect("a disk");
    }
    (outcome, unchanged)
}

/// The property.
fn judge(outcome: &Outcome, unchanged: bool) -> std::result::Result<Result, String> {
    let wrong = |what: &str| Err(format!("{what}: {}", console_tail(outcome)));
    if outcome.guest_ran() {
        let Some(report) = outcome.report() else {
            return wrong("the root's init ran and did not report");
        };
        let all = !report.attempts.is_empty() && report.attempts.iter().all(|one| one.passed);
        if outcome.ending != Ending::PowerOff || !all {
            return wrong(&format!("not enforced: {:#?}", report.attempts));
        }
        return Ok(Result::Enforced);
    }
    if std::panic::catch_unwind(|| assert_nothing_executed(outcome)).is_err() {
        return wrong("a program of the root was executed");
    }
    if !unchanged {
        return wrong("the disk was written to");
    }
    let code = outcome
        .console
        .split_once("refused: [")
        .and_then(|(_, after)| after.split_once(']'))
        .map(|(code, _)| code.to_owned());
    match code {
        Some(code) if acted(outcome, &code) => Ok(Result::Refused(code)),
        // Before main there is nobody who could refuse.
        None if matches!(outcome.ending, Ending::Panic(_)) && !said_anything(outcome) => {
            Ok(Result::Died)
        }
        Some(_) => wrong("refused, but its action did not follow"),
        None => wrong("neither handed over nor refused"),
    }
}

/// Whether the program that is traced said anything: of switch_root, that is what comes after the init's last line.
fn said_anything(outcome: &Outcome) -> bool {
    let console = &outcome.console;
    let after = match console.split_once("ima-init: handover: after ") {
        Some((before, after)) if before.contains(&format!("FAULTS={SWITCH_ROOT}")) => after,
        _ => console,
    };
    after.contains("ima-init: ")
}

/// Whether the action that the refusal announced is the configured one, or before the configuration was read the default, and
/// followed.
fn acted(outcome: &Outcome, code: &str) -> bool {
    let before = code.starts_with("IMA-1") || code.starts_with("IMA-2");
    match outcome.ending {
        Ending::PowerOff => outcome.console_contains("action: poweroff in 0 s"),
        Ending::Reboot => before && outcome.console_contains("action: reboot in 10 s"),
        _ => false,
    }
}

/// The names of the calls that the init makes.
fn counted(traced: Traced) -> Vec<String> {
    let (outcome, _) = boot(&mut traced("count"));
    assert_eq!(
        judge(&outcome, true),
        Ok(Result::Enforced),
        "traced, it boots as it does without"
    );
    let mut calls = Vec::new();
    for line in outcome.console.lines() {
        if let Some((_, rest)) = line.split_once(FAULTS)
            && let Some((_, names)) = rest
                .strip_prefix("calls ")
                .and_then(|part| part.split_once(": "))
        {
            calls.extend(names.split_whitespace().map(str::to_owned));
        }
    }
    assert!(
        outcome.console_contains(&format!("{FAULTS}{} calls until the handover", calls.len())),
        "{}",
        console_tail(&outcome)
    );
    assert!(calls.len() > 40, "{} calls", calls.len());
    calls
}

/// One boot with a call that fails; which call it was, and what came of it.
fn fail(
    traced: Traced,
    call: usize,
    errno: i32,
) -> (String, std::result::Result<Result, String>, Duration) {
    let (outcome, unchanged) = boot(&mut traced(&format!("{call}:{errno}")));
    let made = outcome
        .console
        .split_once(&format!("{FAULTS}call {call} is "))
        .and_then(|(_, rest)| rest.split_once(' '));
    match made {
        Some((name, _)) => (
            name.to_owned(),
            judge(&outcome, unchanged),
            outcome.duration,
        ),
        // A boot that waited less made fewer calls.
        None if outcome.guest_ran() => (
            "not reached".to_owned(),
            judge(&outcome, unchanged),
            outcome.duration,
        ),
        None => (
            "none".to_owned(),
            Err(format!(
                "the tracer failed no call: {}",
                console_tail(&outcome)
            )),
            outcome.duration,
        ),
    }
}

fn error_name(errno: i32) -> &'static str {
    ERRORS
        .iter()
        .find(|(number, _)| *number == errno)
        .map_or("?", |(_, name)| name)
}

/// Has switch_root traced, before what is to become of it.
const SWITCH_ROOT: &str = "switch_root:";

/// Calls that have no error: if one of these fails, it shows nothing about a real kernel.
const WITHOUT_ERROR: [&str; 1] = ["getpid"];

/// add_key(2), for the certificate.
const ADD_KEY: &str = "add_key";

/// Pairs of call and error, each once: one of each stretch of the calls, with errors by chance.
fn pairs(calls: usize, wanted: usize, seed: u64) -> Vec<(usize, i32)> {
    let mut random = Random(seed);
    let mut below = |limit: usize| {
        let chosen = random.next() % u64::try_from(limit.max(1)).expect("a number");
        usize::try_from(chosen).expect("a number")
    };
    let mut chosen = Vec::new();
    for number in 0..wanted {
        let (start, end) = (number * calls / wanted, (number + 1) * calls / wanted);
        let pair = (start + below(end - start), ERRORS[below(ERRORS.len())].0);
        if !chosen.contains(&pair) {
            chosen.push(pair);
        }
    }
    chosen
}

/// CALL:ERRNO
fn pair(text: &str) -> (usize, i32) {
    let number = |text: &str| text.parse::<u16>().expect("CALL:ERRNO");
    let (call, errno) = text.split_once(':').expect("CALL:ERRNO");
    (number(call).into(), number(errno).into())
}

/// The program runs into the instruction by which its panics end, after the configuration is read.
fn panics(mut setup: Setup) {
    let (outcome, unchanged) = boot(&mut setup);
    let refused = Result::Refused("IMA-106".to_owned());
    assert_eq!(judge(&outcome, unchanged), Ok(refused));
    assert_eq!(outcome.ending, Ending::PowerOff);
}

#[test]
fn a_panic_is_a_refusal() {
    panics(on(Kernel::Full, "150:panic"));
}

#[test]
fn a_panic_of_switch_root_is_a_refusal() {
    panics(of_switch_root("35:panic"));
}

/// Its instruction raises SIGTRAP, and not SIGILL.
#[test]
fn a_panic_on_aarch64_is_a_refusal() {
    panics(on(Kernel::Aarch64, "150:panic"));
}

#[test]
#[ignore = "varies the processor of a_panic_is_a_refusal"]
fn a_panic_on_armv7_is_a_refusal() {
    panics(on(Kernel::Armv7, "150:panic"));
}

#[test]
#[ignore = "varies the processor of a_panic_is_a_refusal"]
fn a_panic_on_riscv64_is_a_refusal() {
    panics(on(Kernel::Riscv64, "150:panic"));
}

/// A boot of which one call is to fail.
type Traced = fn(&str) -> Setup;

#[test]
fn every_call_may_fail() {
    every_call_of(alone, ADD_KEY, "faults.tsv");
}

#[test]
fn every_call_of_switch_root_may_fail() {
    every_call_of(of_switch_root, "chroot", "faults-of-switch-root.tsv");
}

#[test]
fn every_call_in_front_of_another_initramfs_may_fail() {
    every_call_of(in_front, ADD_KEY, "faults-in-front.tsv");
}

#[test]
#[ignore = "varies the processor of every_call_may_fail"]
fn every_call_may_fail_on_aarch64() {
    every_call_of(
        |faults| on(Kernel::Aarch64, faults),
        ADD_KEY,
        "faults-aarch64.tsv",
    );
}

#[test]
#[ignore = "varies the processor of every_call_may_fail"]
fn every_call_may_fail_on_armv7() {
    every_call_of(
        |faults| on(Kernel::Armv7, faults),
        ADD_KEY,
        "faults-armv7.tsv",
    );
}

#[test]
#[ignore = "varies the processor of every_call_may_fail"]
fn every_call_may_fail_on_riscv64() {
    every_call_of(
        |faults| on(Kernel::Riscv64, faults),
        ADD_KEY,
        "faults-riscv64.tsv",
    );
}

/// Without the call `needed` a boot is refused, so that some boot is whatever the draw.
fn every_call_of(traced: Traced, needed: &str, table: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = number("IMA_INIT_SEED", now.expect("a clock").as_secs());
    println!("IMA_INIT_SEED={seed}");
    let calls = counted(traced);
    let wanted = usize::try_from(number("IMA_INIT_FAULTS", 12)).expect("a number");
    let pairs = match std::env::var("IMA_INIT_FAULT") {
        Ok(list) => list.split(',').map(pair).collect(),
        Err(_) => {
            let mut pairs = pairs(calls.len(), wanted, seed);
            let call = calls.iter().position(|name| name == needed);
            let refused = (call.expect("it is made"), ERRORS[0].0);
            if !pairs.contains(&refused) {
                pairs.push(refused);
            }
            pairs
        }
    };
    let can_fail = |(call, _): &(usize, i32)| {
        let name = calls.get(*call);
        name.is_none_or(|name| !WITHOUT_ERROR.contains(&name.as_str()))
    };
    let pairs: Vec<_> = pairs.into_iter().filter(can_fail).collect();
    let next = AtomicUsize::new(0);
    let lines = Mutex::new(BTreeMap::new());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((call, errno)) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (name, result, ran) = fail(traced, *call, *errno);
                    let error = error_name(*errno);
                    let text = match &result {
                        Ok(result) => result.to_string(),
                        Err(_) => "WRONG".to_owned(),
                    };
                    let line = format!("{call}\t{name}\t{error}\t{text}\t{:.1}", ran.as_secs_f64());
                    println!("{line}");
                    if let Err(why) = &result {
                        println!("{why}");
                    }
                    lines
                        .lock()
                        .expect("lines")
                        .insert((*call, *errno), (line, text));
                    if let Err(why) = result {
                        wrong
                            .lock()
                            .expect("faults")
                            .push(format!("call {call}, {name}, {error}: {why}"));
                    }
                }
            });
        }
    });
    let lines = lines.into_inner().expect("lines");
    write(&scratch().join(table), &lines, calls.len(), seed);
    let wrong = wrong.into_inner().expect("faults");
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n\n"));
    assert!(lines.values().any(|(_, text)| text.starts_with("refused")));
}

type Lines = BTreeMap<(usize, i32), (String, String)>;

/// The table of the boots, and how often each result came, for whoever ran them.
fn write(path: &Path, lines: &Lines, calls: usize, seed: u64) {
    let mut table = "call\tname\terror\tresult\tseconds\n".to_owned();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (line, text) in lines.values() {
        table.push_str(line);
        table.push('\n');
        *counts.entry(text).or_default() += 1;
    }
    std::fs::write(path, table).expect("the table");
    let mut summary = format!(
        "{} boots, each with another one of {calls} system calls failing (seed {seed}):\n",
        lines.len()
    );
    for (text, count) in counts {
        summary.push_str(&format!("  {count:4}  {text}\n"));
    }
    print!("{summary}");
    std::fs::write(path.with_extension("txt"), summary).expect("the summary");
}
