//! Has system calls of another init fail, one at a time.
//!
//! As the `/init` of an initramfs, with `FAULTS=` in its environment (where the kernel puts it from its command line), this
//! program starts a tracer and becomes `/ima-init`. The tracer counts that program's system calls (ptrace(2)) until it
//! becomes another one, and keeps one of them from being made: the program sees it fail. x86-64 only.
//!
//!     FAULTS=count      none fails; the numbers of all calls are reported
//!     FAULTS=N:ERRNO    the Nth, from 0, fails with this error

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use crate::system;

/// Where the other init is.
const INIT: &str = "/ima-init";

/// What is asked for, if it is.
pub fn wanted() -> Option<String> {
    std::env::var("FAULTS").ok()
}

/// Becomes the other init, traced. Comes back only with a failure.
pub fn start() -> ExitCode {
    let error = match traced() {
        Ok(()) => {
            let arguments = std::env::args_os().skip(1);
            Command::new(INIT).arg0("/init").args(arguments).exec()
        }
        Err(error) => error,
    };
    system::log(&format!("{INIT}: {error}"));
    ExitCode::FAILURE
}

/// Starts the tracer, and waits until it holds this process.
fn traced() -> std::io::Result<()> {
    let mut tracer = Command::new("/init")
        .arg("trace")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ready = [0];
    tracer
        .stdout
        .as_mut()
        .map_or(Ok(()), |pipe| pipe.read_exact(&mut ready))
}

/// The tracer.
pub fn trace() -> ExitCode {
    match tracer::run(&wanted().unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracer::say(&format!("the tracer: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod tracer {
    pub(super) fn run(_: &str) -> Result<(), String> {
        Err("only on x86-64".to_owned())
    }

    pub(super) fn say(text: &str) {
        crate::system::log(text);
    }
}

#[cfg(target_arch = "x86_64")]
mod tracer {
    use std::fs::File;
    use std::io::Write as _;

    use ima_testbed::report::FAULTS;
    use nix::errno::Errno;
    use nix::sys::ptrace::{self, Options};
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

    /// PTRACE_EVENT_EXEC (ptrace(2)).
    const EXEC: i32 = 4;

    /// The call that fails, and how.
    struct Fault {
        call: usize,
        errno: i32,
    }

    impl Fault {
        fn parse(text: &str) -> Option<Fault> {
            let (call, errno) = text.split_once(':')?;
            Some(Fault {
                call: call.parse().ok()?,
                errno: errno.parse().ok()?,
            })
        }
    }

    /// Says to whoever started the tracer that it is ready.
    fn ready() -> std::io::Result<()> {
        let mut output = std::io::stdout();
        output.write_all(b"x")?;
        output.flush()
    }

    pub(super) fn run(wanted: &str) -> Result<(), String> {
        let fault = Fault::parse(wanted);
        if fault.is_none() && wanted != "count" {
            return Err(format!("FAULTS={wanted} is not understood"));
        }
        let calls = follow(fault.as_ref()).map_err(|errno| errno.to_string())?;
        if fault.is_none() {
            // A record of the kernel's log is short.
            for (part, numbers) in calls.chunks(100).enumerate() {
                let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
                say(&format!("calls {part}: {}", numbers.join(" ")));
            }
        }
        say(&format!("{} calls until the handover", calls.len()));
        Ok(())
    }

    /// Follows PID 1 from its next execve to the one after that; gives the numbers of its calls.
    fn follow(fault: Option<&Fault>) -> Result<Vec<u64>, Errno> {
        let init = Pid::from_raw(1);
        let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC;
        ptrace::seize(init, options)?;
        ready().map_err(|_| Errno::EPIPE)?;
        let mut calls = Vec::new();
        // The end of the execve that begins it all is seen first.
        let mut within = true;
        let mut failing = None;
        let mut begun = false;
        loop {
            let signal = match waitpid(init, Some(WaitPidFlag::__WALL))? {
                WaitStatus::PtraceEvent(_, _, EXEC) if begun => {
                    ptrace::detach(init, None)?;
                    return Ok(calls);
                }
                WaitStatus::PtraceEvent(_, _, EXEC) => {
                    begun = true;
                    None
                }
                WaitStatus::PtraceSyscall(_) => {
                    let mut registers = ptrace::getregs(init)?;
                    if within {
                        if let Some(errno) = failing.take() {
                            registers.rax = i64::from(errno).wrapping_neg() as u64;
                            ptrace::setregs(init, registers)?;
                        }
                    } else {
                        if let Some(fault) = fault.filter(|fault| fault.call == calls.len()) {
                            let (number, errno) = (registers.orig_rax, fault.errno);
                            say(&format!(
                                "call {} is {number} and fails with {errno}",
                                calls.len()
                            ));
                            failing = Some(errno);
                        }
                        calls.push(registers.orig_rax);
                        if failing.is_some() {
                            // No call has this number.
                            registers.orig_rax = u64::MAX;
                            ptrace::setregs(init, registers)?;
                        }
                    }
                    within = !within;
                    None
                }
                // A traced PID 1 survives these and runs into them again, without end (kernel/signal.c,
                // `force_sig_info_to_task`). Alone it dies of them.
                WaitStatus::Stopped(
                    _,
                    Signal::SIGSEGV | Signal::SIGILL | Signal::SIGBUS | Signal::SIGFPE,
                ) => {
                    say("it dies");
                    ptrace::detach(init, None)?;
                    return Ok(calls);
                }
                WaitStatus::Stopped(_, signal) => Some(signal),
                WaitStatus::PtraceEvent(..) => None,
                _ => return Err(Errno::ESRCH),
            };
            if begun {
                ptrace::syscall(init, signal)?;
            } else {
                ptrace::cont(init, signal)?;
            }
        }
    }

    /// A line in the kernel's log, which is on the console: through a device of its own, as /dev is the init's affair.
    pub(super) fn say(text: &str) {
        const LOG: &str = "/faults.kmsg";
        let mode = Mode::RUSR | Mode::WUSR;
        let _ = mknodat(CWD, LOG, FileType::CharacterDevice, mode, makedev(1, 11));
        if let Ok(mut log) = File::options().write(true).open(LOG) {
            let _ = log.write_all(format!("<4>{FAULTS}{text}\n").as_bytes());
        }
    }
}
