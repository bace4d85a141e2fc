use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_setfl, mknodat};
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Map, Value, json};

use crate::outcome::{self, Ending, Exit, Outcome};
use crate::process::{Killer, spawn};
use crate::qmp;
use crate::report::{FromGuest, Report, ToGuest, decode_hex, encode_hex};
use crate::share::Server;
use crate::tpm::Emulator;
use crate::{DiskHandle, Machine, SignRequest, TestbedError, Tpm};

/// Longest message accepted from the guest, in bytes. The measurement list of a large system has a few megabytes.
const MAX_MESSAGE: u64 = 64 << 20;

/// Limits in bytes on what is kept of the console and read from the report port, for guests that never stop writing.
const MAX_CONSOLE: usize = 64 << 20;
const MAX_REPORT_PORT: u64 = 256 << 20;

/// A running machine. Dropping it ends QEMU and swtpm.
#[derive(Debug)]
pub struct Running {
    machine: Machine,
    shared: Arc<Shared>,
    qemu: Killer,
    qmp: Mutex<qmp::Sender>,
    console: Mutex<File>,
    // Dropped after QEMU was killed (see `Drop`), in this order.
    _tpm: Option<Emulator>,
    _servers: Vec<Server>,
    _directory: tempfile::TempDir,
    started: Instant,
}

/// The output of a running machine so far, as [`Running::wait_for`] passes it on.
#[derive(Debug)]
#[non_exhaustive]
pub struct MachineOutput<'a> {
    /// The serial console from the start.
    pub console: Cow<'a, str>,
    /// The reports of the guest program.
    pub reports: &'a [Report],
    /// The events of QEMU, as QMP reports them.
    pub events: &'a [Value],
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    console: Vec<u8>,
    reports: Vec<Report>,
    invalid_messages: Vec<String>,
    events: Vec<Value>,
    answers: VecDeque<Value>,
    open_streams: usize,
    exit: Option<Exit>,
}

impl State {
    /// Returns whether QEMU has ended and all its output has been read.
    fn ended(&self) -> bool {
        self.exit.is_some() && self.open_streams == 0
    }

    fn console(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.console)
    }

    fn tail(&self) -> String {
        let console = self.console();
        let lines: Vec<&str> = console.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until `until` returns a value or the deadline passes.
    fn wait<T>(
        &self,
        deadline: Instant,
        mut until: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(value) = until(&mut state) {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            (state, _) = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Running {
    pub(crate) fn start(machine: &Machine) -> Result<Running, TestbedError> {
        let directory = tempfile::Builder::new()
            .prefix("testbed-")
            .tempdir()
            .map_err(TestbedError::io("make a temporary directory"))?;
        let listen = |name: &str| {
            UnixListener::bind(directory.path().join(format!("{name}.socket")))
                .map_err(TestbedError::io("make a socket for QEMU"))
        };
        let (qmp, report) = (listen("qmp")?, listen("report")?);
        let console = Console::make(directory.path())
            .map_err(TestbedError::io("make pipes for the serial console"))?;
        let tpm = match machine.tpm {
            Tpm::None => None,
            Tpm::Swtpm | Tpm::Swtpm12 => Some(Emulator::start(
                directory.path(),
                machine.tpm,
                machine.tpm_state.as_deref(),
            )?),
        };
        if let Some(uefi) = &machine.uefi {
            uefi.write(directory.path())?;
        }
        let mut servers = Vec::new();
        for (number, share) in machine.shares.iter().enumerate() {
            servers.extend(Server::start(share, number, directory.path())?);
        }
        let socket = tpm.as_ref().map(|tpm| tpm.socket.as_path());
        let arguments = machine.arguments(directory.path(), socket);
        // `arguments` may have booted a machine to try KVM; that time does not count.
        let started = Instant::now();
        let program = machine.architecture.qemu_program();
        let mut child = spawn(program, |command| {
            command
                .args(&arguments)
                // QEMU keeps the writes to drives with snapshot=on there.
                .env("TMPDIR", snapshot_directory(directory.path()))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
        })
        .map_err(|source| TestbedError::Spawn {
            program: program.to_owned(),
            package: machine.architecture.qemu_package(),
            source,
        })?;
        let killer = Killer::of(&child).map_err(TestbedError::io("watch QEMU"))?;
        let watch = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .map_err(|errno| TestbedError::io("watch QEMU")(errno.into()))?;

        let shared = Arc::new(Shared::default());
        let stderr = child.stderr.take();
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let mut words = Vec::new();
                if let Some(mut stderr) = stderr {
                    let _ = stderr.read_to_end(&mut words);
                }
                let (success, status) = child.wait().map_or_else(
                    |error| (false, error.to_string()),
                    |status| (status.success(), status.to_string()),
                );
                let text = format!("{status}: {}", String::from_utf8_lossy(&words).trim());
                shared.change(|state| state.exit = Some(Exit { success, text }));
            }
        });

        let accept = |listener: &UnixListener| -> Result<UnixStream, TestbedError> {
            let mut fds = [
                PollFd::new(listener, PollFlags::IN),
                PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN),
            ];
            // QEMU connects to its sockets before it does anything else.
            let limit = Timespec {
                tv_sec: 60,
                tv_nsec: 0,
            };
            poll(&mut fds, Some(&limit))
                .map_err(|errno| TestbedError::io("wait for QEMU")(errno.into()))?;
            if fds[0].revents().contains(PollFlags::IN) {
                let (stream, _) = listener
                    .accept()
                    .map_err(TestbedError::io("talk to QEMU"))?;
                return Ok(stream);
            }
            killer.kill();
            Err(not_started(&shared))
        };
        let (qmp, report) = (accept(&qmp)?, accept(&report)?);
        // Before it connected to the last socket, it has opened the pipes.
        let Ok((output, input)) = console.open() else {
            killer.kill();
            return Err(not_started(&shared));
        };
        let clone =
            |stream: &UnixStream| stream.try_clone().map_err(TestbedError::io("talk to QEMU"));
        shared.lock().open_streams = 3;
        read_qmp(clone(&qmp)?, Arc::clone(&shared));
        read_console(output, Arc::clone(&shared), machine.tee);
        read_report(report, Arc::clone(&shared), machine.clone());
        let running = Running {
            machine: machine.clone(),
            shared,
            qemu: killer,
            qmp: Mutex::new(qmp::Sender::new(qmp)),
            console: Mutex::new(input),
            _tpm: tpm,
            _servers: servers,
            _directory: directory,
            started,
        };
        // An accelerator that does not work ends QEMU between its connecting and the guest's first instruction.
        if running.qmp("qmp_capabilities", json!({})).is_err() {
            running.qemu.kill();
            return Err(not_started(&running.shared));
        }
        Ok(running)
    }

    fn deadline(&self) -> Instant {
        self.started + self.machine.time_limit
    }

    /// Waits until `until` returns a value for the output of the machine, and returns the value. Waits at most for `limit`, and
    /// never beyond the time limit of the machine. `event` describes in the error what was waited for.
    ///
    /// # Errors
    /// [`TestbedError::TimedOut`], or [`TestbedError::Ended`] if the machine ended first.
    pub fn wait_for<T>(
        &self,
        event: &str,
        limit: Duration,
        mut until: impl FnMut(&MachineOutput<'_>) -> Option<T>,
    ) -> Result<T, TestbedError> {
        let from = Instant::now();
        let result = self
            .shared
            .wait(self.deadline().min(from + limit), |state| {
                let output = MachineOutput {
                    console: state.console(),
                    reports: &state.reports,
                    events: &state.events,
                };
                match until(&output) {
                    Some(value) => Some(Ok(value)),
                    None if state.ended() => Some(Err(TestbedError::Ended {
                        event: event.to_owned(),
                        console: state.tail(),
                    })),
                    None => None,
                }
            });
        result.unwrap_or_else(|| {
            Err(TestbedError::TimedOut {
                event: event.to_owned(),
                waited: from.elapsed(),
                console: self.shared.lock().tail(),
            })
        })
    }

    /// Waits until a complete line of the console contains this text, and returns the line.
    ///
    /// # Errors
    /// Those of [`Running::wait_for`].
    pub fn wait_for_console(&self, text: &str) -> Result<String, TestbedError> {
        self.wait_for(
            &format!("“{text}” on the console"),
            self.machine.time_limit,
            |output| {
                let at = output.console.find(text)?;
                // A complete line, with its end.
                let start = output.console[..at].rfind('\n').map_or(0, |end| end + 1);
                let end = at + output.console[at..].find('\n')?;
                Some(output.console[start..end].trim_end().to_owned())
            },
        )
    }

    /// Waits until the guest program has reported, and returns its first report.
    ///
    /// # Errors
    /// Those of [`Running::wait_for`].
    pub fn wait_for_report(&self) -> Result<Report, TestbedError> {
        self.wait_for(
            "the guest program's report",
            self.machine.time_limit,
            |output| output.reports.first().cloned(),
        )
    }

    /// Lets the machine run for this long: to delay an event, or to show that something does not happen.
    ///
    /// # Errors
    /// [`TestbedError::Ended`] if the machine ends meanwhile.
    pub fn run_for(&self, time: Duration) -> Result<(), TestbedError> {
        match self.wait_for("the end of the delay", time, |_| None::<()>) {
            Err(TestbedError::TimedOut { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    /// Returns the time since QEMU was started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns everything that the serial console has shown so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.shared.lock().console().into_owned()
    }

    /// Sends text to the serial console. A line needs its `\n`.
    ///
    /// # Errors
    /// QEMU has ended.
    pub fn send_text(&self, text: &str) -> Result<(), TestbedError> {
        let mut console = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        console
            .write_all(text.as_bytes())
            .map_err(TestbedError::io("write to the serial console"))
    }

    /// Returns the description from which the machine was started.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Attaches a disk that was declared with [`Disk::hotplug`](crate::Disk::hotplug).
    ///
    /// # Errors
    /// [`TestbedError::UnknownDisk`] and [`TestbedError::NotHotplug`] for other disks; [`TestbedError::Qmp`] if the disk is
    /// attached already or the machine has ended.
    pub fn plug(&self, disk: DiskHandle) -> Result<(), TestbedError> {
        let (index, (_, disk)) = self
            .machine
            .disks
            .iter()
            .enumerate()
            .find(|(_, (handle, _))| *handle == disk)
            .ok_or(TestbedError::UnknownDisk)?;
        if !disk.hotplug {
            return Err(TestbedError::NotHotplug {
                path: disk.path.clone(),
            });
        }
        let arguments: Map<String, Value> = self
            .machine
            .device(index, disk)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), Value::from(value)))
            .collect();
        self.qmp("device_add", Value::Object(arguments)).map(drop)
    }

    /// Sends a command of the QEMU Machine Protocol (QMP), and returns the `return` member of the answer.
    ///
    /// # Errors
    /// [`TestbedError::Qmp`] if QEMU refused the command or has ended.
    pub fn qmp(&self, command: &str, arguments: Value) -> Result<Value, TestbedError> {
        let refused = |answer: String| TestbedError::Qmp {
            command: command.to_owned(),
            answer,
        };
        // Held until the answer has arrived: QEMU answers in order.
        let mut qmp = self.qmp.lock().unwrap_or_else(PoisonError::into_inner);
        qmp.send(command, &arguments)
            .map_err(|error| refused(error.to_string()))?;
        let answer = self
            .shared
            .wait(self.deadline(), |state| match state.answers.pop_front() {
                None if state.ended() => Some(None),
                None => None,
                answer => Some(answer),
            });
        match answer.flatten() {
            None => Err(refused("no answer".to_owned())),
            Some(mut answer) if answer.get("return").is_some() => Ok(answer["return"].take()),
            Some(answer) => Err(refused(answer["error"]["desc"].to_string())),
        }
    }

    /// Ends the machine at once, as a power failure would.
    #[must_use]
    pub fn kill(self) -> Outcome {
        self.end(Some(Ending::Killed))
    }

    /// Waits until the machine ends: by itself, with a halt or a panic, or at its time limit.
    #[must_use]
    pub fn finish(self) -> Outcome {
        let ended = self.shared.wait(self.deadline(), |state| {
            (state.ended() || outcome::has_stopped(&state.console())).then_some(())
        });
        self.end(ended.is_none().then_some(Ending::TimedOut))
    }

    fn end(self, forced: Option<Ending>) -> Outcome {
        let duration = self.started.elapsed();
        self.qemu.kill();
        // After SIGKILL the kernel closes its sockets; only an unkillable QEMU would make us give up here.
        self.shared
            .wait(Instant::now() + Duration::from_secs(30), |state| {
                state.ended().then_some(())
            });
        let mut state = self.shared.lock();
        let console = state.console().into_owned();
        let ending = forced.unwrap_or_else(|| {
            let exit = state.exit.clone().unwrap_or_else(|| Exit {
                success: false,
                text: "it did not end".to_owned(),
            });
            outcome::ending(&console, &state.events, &exit)
        });
        Outcome {
            ending,
            console,
            reports: std::mem::take(&mut state.reports),
            invalid_messages: std::mem::take(&mut state.invalid_messages),
            events: std::mem::take(&mut state.events),
            duration,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.qemu.kill();
    }
}

/// Makes the error of a QEMU that ended at its start, from its exit status and error output.
fn not_started(shared: &Shared) -> TestbedError {
    let deadline = Instant::now() + Duration::from_secs(10);
    let words = shared.wait(deadline, |state| Some(state.exit.clone()?.text));
    let (status, stderr) = words
        .as_deref()
        .and_then(|words| words.split_once(": "))
        .unwrap_or(("no exit status", ""));
    TestbedError::NotStarted {
        status: status.to_owned(),
        stderr: stderr.to_owned(),
    }
}

/// Returns the directory for what guests write to shared images: on a disk, because /tmp may be a tmpfs.
fn snapshot_directory(directory: &Path) -> std::path::PathBuf {
    let disk = Path::new("/var/tmp");
    if disk.is_dir() {
        disk.to_owned()
    } else {
        directory.to_owned()
    }
}

/// The pipes of the serial console. Of a socket, QEMU's side takes few letters until they are read, because each is a message of its own,
/// and its serial port throws away what is not taken at once (hw/char/serial.c, `serial_xmit`); a pipe takes as many as it has bytes.
struct Console {
    input: PathBuf,
    output: PathBuf,
}

impl Console {
    /// Makes them where [`Machine::arguments`] has QEMU look.
    fn make(directory: &Path) -> io::Result<Console> {
        let make = |name: &str| {
            let path = directory.join(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            Ok::<_, io::Error>(path)
        };
        Ok(Console {
            input: make("console.in")?,
            output: make("console.out")?,
        })
    }

    /// Opens the ends that are not QEMU's. QEMU has opened its own; if it has ended meanwhile, neither open waits for it.
    fn open(&self) -> io::Result<(File, File)> {
        let open = |path: &Path, flags| -> io::Result<File> {
            let end = rustix::fs::open(
                path,
                flags | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            fcntl_setfl(&end, OFlags::empty())?;
            Ok(File::from(end))
        };
        let output = open(&self.output, OFlags::RDONLY)?;
        // As much as an ordinary user may ask for. With less, letters are lost sooner.
        let _ = fcntl_setpipe_size(&output, 1 << 20);
        Ok((output, open(&self.input, OFlags::WRONLY)?))
    }
}

fn read_console(mut stream: File, shared: Arc<Shared>, tee: bool) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if tee {
                let _ = io::stderr().write_all(&buffer[..length]);
            }
            shared.change(|state| {
                let room = MAX_CONSOLE.saturating_sub(state.console.len());
                state.console.extend_from_slice(&buffer[..length.min(room)]);
            });
        }
        shared.change(|state| state.open_streams -= 1);
    });
}

fn read_qmp(stream: UnixStream, shared: Arc<Shared>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            match serde_json::from_str::<Value>(&line) {
                Ok(message) if message.get("event").is_some() => {
                    shared.change(|state| state.events.push(message));
                }
                Ok(message)
                    if message.get("return").is_some() || message.get("error").is_some() =>
                {
                    shared.change(|state| state.answers.push_back(message));
                }
                // The greeting.
                _ => {}
            }
        }
        shared.change(|state| state.open_streams -= 1);
    });
}

fn read_report(stream: UnixStream, shared: Arc<Shared>, machine: Machine) {
    thread::spawn(move || {
        if let Ok(answers) = stream.try_clone() {
            answer_messages(
                BufReader::new(stream.take(MAX_REPORT_PORT)),
                answers,
                &shared,
                &machine,
            );
        }
        shared.change(|state| state.open_streams -= 1);
    });
}

fn answer_messages(
    mut messages: impl BufRead,
    mut answers: UnixStream,
    shared: &Shared,
    machine: &Machine,
) {
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut messages)
            .take(MAX_MESSAGE)
            .read_until(b'\n', &mut line)
        {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        match serde_json::from_slice(&line) {
            Ok(FromGuest::Report(report)) => shared.change(|state| state.reports.push(*report)),
            Ok(FromGuest::Sign { path, sha256 }) => {
                let answer = match sign(machine, path, &sha256) {
                    Ok(xattr) => ToGuest::Signed {
                        xattr: encode_hex(&xattr),
                    },
                    Err(reason) => ToGuest::Refused { reason },
                };
                if let Ok(mut text) = serde_json::to_vec(&answer) {
                    text.push(b'\n');
                    // The guest sees a closed port if this fails.
                    let _ = answers.write_all(&text);
                }
            }
            Err(error) => {
                let start = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
                shared.change(|state| state.invalid_messages.push(format!("{error}: {start}")));
            }
        }
    }
}

fn sign(machine: &Machine, path: String, sha256: &str) -> Result<Vec<u8>, String> {
    let signer = machine.signer.as_ref().ok_or("the machine has no signer")?;
    let sha256 = decode_hex(sha256)
        .and_then(|digest| digest.try_into().ok())
        .ok_or("not a SHA-256 digest")?;
    signer(&SignRequest { path, sha256 })
}
