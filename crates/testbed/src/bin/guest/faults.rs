//! Has system calls of another init fail, one at a time, or lists them with their times.
//!
//! As the `/init` of an initramfs, with `FAULTS=` in its environment (where the kernel puts it from its command line), this
//! program starts a tracer and becomes `/ima-init`. The tracer counts that program's system calls (ptrace(2)) until it
//! becomes another one, and keeps one of them from being made: the program sees it fail.
//!
//!     FAULTS=count      none fails; the names of all calls are reported
//!     FAULTS=N:ERRNO    the Nth, from 0, fails with this error
//!     FAULTS=N:panic    after the Nth, the program runs into the instruction by which it would end itself in a panic
//!     FAULTS=trace      none fails; each is reported with its time (ima_testbed::trace)
//!
//! With `switch_root:` before any of these, it is about the program that the init becomes.

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

mod tracer {
    use std::collections::BTreeMap;
    use std::ffi::c_void;
    use std::fs::File;
    use std::io::Write as _;
    use std::time::{Duration, Instant};

    use ima_testbed::report::FAULTS;
    use ima_testbed::trace::TracedCall;
    use nix::errno::Errno;
    use nix::libc;
    use nix::sys::ptrace::{self, Options};
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

    use crate::calls;
    use crate::registers::Registers;

    /// PTRACE_EVENT_EXEC (ptrace(2)).
    const EXEC: i32 = 4;

    /// The call that fails, and with which error; without one the program panics after it.
    struct Fault {
        call: usize,
        errno: Option<i32>,
    }

    impl Fault {
        fn parse(text: &str) -> Option<Fault> {
            let (call, errno) = text.split_once(':')?;
            Some(Fault {
                call: call.parse().ok()?,
                errno: match errno {
                    "panic" => None,
                    errno => Some(errno.parse().ok()?),
                },
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
        let (programs, wanted) = match wanted.strip_prefix("switch_root:") {
            Some(wanted) => (1, wanted),
            None => (0, wanted),
        };
        let fault = Fault::parse(wanted);
        if fault.is_none() && !["count", "trace"].contains(&wanted) {
            return Err(format!("FAULTS={wanted} is not understood"));
        }
        let calls = follow(programs, fault.as_ref()).map_err(|errno| errno.to_string())?;
        match wanted {
            "count" => {
                // A record of the kernel's log is short.
                for (part, calls) in calls.chunks(50).enumerate() {
                    let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
                    say(&format!("calls {part}: {}", names.join(" ")));
                }
            }
            "trace" => {
                for call in &calls {
                    say(&call.to_string());
                }
            }
            _ => {}
        }
        say(&format!("{} calls until the handover", calls.len()));
        Ok(())
    }

    /// What is read of the path or the text that a call has.
    const TEXT: usize = 48;

    /// A string of the process that is traced, as far as it is shown.
    fn string(init: Pid, address: usize) -> String {
        let mut bytes = Vec::new();
        while bytes.len() < TEXT {
            let at = address.wrapping_add(bytes.len());
            let Ok(word) = ptrace::read(init, at as *mut c_void) else {
                break;
            };
            let word = word.to_ne_bytes();
            let length = word.iter().position(|byte| *byte == 0);
            bytes.extend_from_slice(&word[..length.unwrap_or(word.len())]);
            if length.is_some() {
                break;
            }
        }
        String::from_utf8_lossy(&bytes).escape_debug().to_string()
    }

    /// The files that the process has open, by descriptor.
    type Files = BTreeMap<usize, String>;

    /// What a call is about: a path or a text, or the file of a descriptor.
    fn subject(name: &str, init: Pid, registers: &Registers, files: &Files) -> String {
        let file = |descriptor: usize| files.get(&descriptor).cloned().unwrap_or_default();
        let [first, second, .., fifth] = registers.arguments();
        match name {
            "open" | "stat" | "lstat" | "lstat64" | "execve" | "chdir" | "mkdir" | "unlink"
            | "readlink" | "chroot" | "add_key" | "request_key" => string(init, first),
            "mount" | "openat" | "mkdirat" | "newfstatat" | "fstatat64" | "unlinkat"
            | "readlinkat" | "execveat" | "statx" | "openat2" => string(init, second),
            "read" | "write" | "close" | "fstat" | "fstat64" | "lseek" | "_llseek" | "ioctl"
            | "pread64" | "readv" | "writev" | "fgetxattr" | "getdents64" | "fstatfs"
            | "fstatfs64" => file(first),
            "mmap" | "mmap2" => file(fifth),
            _ => String::new(),
        }
    }

    /// Notes what was opened and closed.
    fn follow_files(call: &TracedCall, descriptor: usize, files: &mut Files) {
        match call.name.as_str() {
            "open" | "openat" | "openat2" => {
                if let Ok(opened) = usize::try_from(call.result) {
                    files.insert(opened, call.subject.clone());
                }
            }
            "close" => {
                files.remove(&descriptor);
            }
            _ => {}
        }
    }

    fn nanoseconds(time: Duration) -> u64 {
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
    }

    /// An instruction of the process that was replaced.
    struct Replaced {
        address: usize,
        /// What was there.
        word: libc::c_long,
    }

    impl Replaced {
        /// Has the process run into the instruction of a panic next.
        fn by_panic(process: Pid, registers: &Registers) -> Result<Replaced, Errno> {
            let (address, instruction) = registers.trap();
            let word = ptrace::read(process, address as *mut c_void)?;
            let mut bytes = word.to_ne_bytes();
            bytes[..instruction.len()].copy_from_slice(instruction);
            let with = libc::c_long::from_ne_bytes(bytes);
            ptrace::write(process, address as *mut c_void, with)?;
            Ok(Replaced { address, word })
        }

        fn restore(&self, process: Pid) -> Result<(), Errno> {
            ptrace::write(process, self.address as *mut c_void, self.word)
        }
    }

    /// Lets PID 1 become so many programs more, and follows it from its next execve to the one after that; gives its calls.
    fn follow(mut programs: usize, fault: Option<&Fault>) -> Result<Vec<TracedCall>, Errno> {
        let init = Pid::from_raw(1);
        let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC;
        ptrace::seize(init, options)?;
        ready().map_err(|_| Errno::EPIPE)?;
        let mut calls: Vec<TracedCall> = Vec::new();
        let mut files = Files::new();
        // The end of the execve that begins it all is seen first.
        let mut within = true;
        let mut failing = None;
        let mut replaced: Option<Replaced> = None;
        let mut before = Registers::default();
        let mut begun = false;
        let mut continued = Instant::now();
        loop {
            let status = waitpid(init, Some(WaitPidFlag::__WALL))?;
            let ran = nanoseconds(continued.elapsed());
            // The same code makes calls while the signal is handled.
            if let WaitStatus::Stopped(_, signal @ (Signal::SIGILL | Signal::SIGTRAP)) = status
                && let Some(replaced) = &replaced
            {
                replaced.restore(init)?;
                ptrace::detach(init, signal)?;
                return Ok(calls);
            }
            let signal = match status {
                WaitStatus::PtraceEvent(_, _, EXEC) if begun => {
                    ptrace::detach(init, None)?;
                    return Ok(calls);
                }
                WaitStatus::PtraceEvent(_, _, EXEC) => {
                    begun = programs == 0;
                    programs = programs.saturating_sub(1);
                    None
                }
                WaitStatus::PtraceSyscall(_) => {
                    let registers = Registers::of(init)?;
                    if within {
                        let last = calls.len().checked_sub(1);
                        if fault
                            .is_some_and(|fault| fault.errno.is_none() && Some(fault.call) == last)
                        {
                            replaced = Some(Replaced::by_panic(init, &registers)?);
                        }
                        let mut result = registers.result();
                        if let Some(errno) = failing.take() {
                            registers.fail(init, errno, &before)?;
                            result = -(errno as isize);
                        }
                        if let Some(call) = calls.last_mut() {
                            call.within = ran;
                            call.result = result as i64;
                            follow_files(call, before.arguments()[0], &mut files);
                        }
                    } else {
                        let name = calls::name(registers.call());
                        let fault = fault.filter(|fault| fault.call == calls.len());
                        if let Some(errno) = fault.and_then(|fault| fault.errno) {
                            say(&format!(
                                "call {} is {name} and fails with {errno}",
                                calls.len()
                            ));
                            registers.make_none(init)?;
                            failing = Some(errno);
                        }
                        calls.push(TracedCall {
                            before: ran,
                            within: 0,
                            result: 0,
                            subject: subject(&name, init, &registers, &files),
                            name,
                        });
                        before = registers;
                    }
                    within = !within;
                    None
                }
                // A traced PID 1 survives these, unless it handles them, and runs into them again, without end (kernel/signal.c,
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
            continued = Instant::now();
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
