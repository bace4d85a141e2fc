//! The program that runs inside a machine and reports what it sees.
//!
//! As PID 1 (it may be the init of a root, or of an initramfs) it reports, makes the attempts if their files are in the
//! root, and switches the machine off; `testbed.end=reboot`, `halt` or `panic` on the kernel's command line says
//! otherwise. With `testbed.mark=yes` it first leaves a file on the root's disk; with `testbed.write=yes` it writes files
//! without end once it has reported. A file `/record` names files that it reports as they are, one a line. With a file `/rules`, `/mount-options` or `/disks` it only asks the kernel what it makes of the
//! contents: see the modules of these names. `testbed.try=PATH` names a program of the root that was changed after it was
//! signed: one more attempt. As an ordinary program:
//!
//! ```text
//! guest ok                                             exit with 0
//! guest report [--system] [--attempts] [--power-off]   report over the port; --system: once systemd has settled
//! guest copy FROM TO                                   copy a tree with its signatures
//! guest fs-verity PATH...                              enable fs-verity on each file, and on each below a directory
//! guest exec-below DEPTH signed|unsigned               execute a program below the root: see the module `below`
//! guest exec-memfd PROGRAM                             execute PROGRAM from a memfd
//! guest as-user USER ACTION FILE                       one attempt as another user
//! guest forge-keys                                     make keys that forge lines of /proc/keys
//! guest tool NAME ARGUMENT...                          what an attacker does by means of signed programs: see `tools`
//! ```
//!
//! With `FAULTS=` in its environment it has another init's system calls fail: see the module `faults`.

mod attempts;
mod below;
mod calls;
mod copy;
mod disks;
mod faults;
mod forge;
mod fuse;
mod inspect;
mod kexec;
mod map;
mod mount_options;
mod port;
mod registers;
mod rules;
mod system;
mod tools;
mod users;
mod verity;
mod write;

use std::process::ExitCode;

use ima_testbed::report::{Attempt, FromGuest, Report};
use nix::sys::reboot::{RebootMode, reboot};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    match (std::process::id(), faults::wanted()) {
        (1, Some(_)) => return faults::start(),
        (1, None) => return init(),
        _ => {}
    }
    match arguments.get(1).map(String::as_str) {
        Some("ok") => ExitCode::SUCCESS,
        Some("trace") => faults::trace(),
        Some("copy") => copy::tree(arguments.get(2), arguments.get(3)),
        Some("fs-verity") => verity::enable_below(arguments.get(2..).unwrap_or_default()),
        Some("exec-below") => below::execute(arguments.get(2), arguments.get(3)),
        Some("forge-keys") => forge::keys(),
        Some("tool") => tools::run(arguments.get(2..).unwrap_or_default()),
        Some("exec-memfd") => attempts::exec_memfd(arguments.get(2)),
        Some("as-user") => users::as_user(&arguments[2..]),
        Some("report") => {
            let has = |option: &str| arguments.iter().any(|argument| argument == option);
            let sent = report(has("--system"), has("--attempts"));
            if has("--power-off") {
                end(RebootMode::RB_POWER_OFF);
            }
            sent
        }
        _ => {
            eprintln!(
                "usage: guest ok | report [--system] [--attempts] [--power-off] | copy FROM TO | exec-memfd PROGRAM | forge-keys"
            );
            ExitCode::from(2)
        }
    }
}

fn init() -> ExitCode {
    let problems = system::prepare();
    system::announce();
    for problem in problems {
        system::log(&problem);
    }
    let there = |path: &str| std::path::Path::new(path).exists();
    let asked = if there(rules::RULES) {
        Some(rules::offer())
    } else if there(mount_options::OPTIONS) {
        Some(mount_options::offer())
    } else if there(disks::DISKS) {
        Some(disks::asked())
    } else {
        None
    };
    if let Some(answered) = asked {
        if let Err(error) = answered {
            system::log(&format!("cannot ask the kernel: {error}"));
        }
        end(RebootMode::RB_POWER_OFF);
    }
    if inspect::parameter("testbed.mark").is_some()
        && let Err(problem) = system::mark()
    {
        system::log(&problem);
    }
    // Without the files there is nothing to try.
    let with_attempts = attempts::path(ima_testbed::attempts::names::SIGNED).exists();
    report(false, with_attempts);
    if inspect::parameter("testbed.write").is_some() {
        let problem = write::forever();
        system::log(&format!("cannot write: {problem}"));
        return ExitCode::FAILURE;
    }
    match inspect::parameter("testbed.end").as_deref() {
        Some("reboot") => end(RebootMode::RB_AUTOBOOT),
        Some("halt") => end(RebootMode::RB_HALT_SYSTEM),
        // The end of PID 1 is a panic.
        Some("panic") => ExitCode::FAILURE,
        _ => end(RebootMode::RB_POWER_OFF),
    }
}

fn report(system: bool, with_attempts: bool) -> ExitCode {
    let mut report = Report::default();
    if system {
        report.system = Some(system::settle(&mut report.problems));
    }
    inspect::fill(&mut report);
    let mut port = port::open();
    if with_attempts {
        report.attempts = attempts::make(port.as_mut().ok());
        // The attempts add entries to the kernel log.
        inspect::read_kernel_log(&mut report);
    }
    inspect::record(&mut report);
    let attempts: Vec<String> = report.attempts.iter().map(line_of).collect();
    let sent = port.and_then(|mut port| port.send(&FromGuest::Report(Box::new(report))));
    match sent {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in attempts {
                system::log(&line);
            }
            system::log(&format!("cannot report: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What came of an attempt, in a line.
fn line_of(attempt: &Attempt) -> String {
    let judgement = if attempt.passed { "passed" } else { "failed" };
    format!(
        "attempt {}: {judgement}, {:?}",
        attempt.name, attempt.result
    )
}

fn end(mode: RebootMode) -> ExitCode {
    rustix::fs::sync();
    let Err(error) = reboot(mode);
    system::log(&format!("cannot end the machine: {error}"));
    ExitCode::FAILURE
}
