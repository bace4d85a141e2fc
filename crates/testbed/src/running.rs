use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Map, Value, json};

use crate::outcome::{self, Ending, Outcome};
use crate::process::{Killer, spawn};
use crate::qmp;
use crate::report::{FromGuest, Report, ToGuest, decode_hex, encode_hex};
use crate::tpm::Emulator;
use crate::{Machine, SignRequest, TestbedError, Tpm};

const QEMU: &str = "qemu-system-x86_64";

/// Longest message taken from the guest, in bytes: a measurement list of a large system is a few megabytes.
const MAX_MESSAGE: u64 = 64 << 20;

/// How much of the console and how much of the report's port is taken, in bytes, from a guest that does not stop talking.
const MAX_CONSOLE: usize = 64 << 20;
const MAX_CONVERSATION: u64 = 256 << 20;

/// A machine that runs. Dropping it ends the machine.
#[derive(Debug)]
pub struct Running {
    machine: Machine,
    shared: Arc<Shared>,
    qemu: Killer,
    qmp: Mutex<qmp::Sender>,
    console: Mutex<UnixStream>,
    // Dropped after QEMU was killed (see `Drop`), in this order.
    _tpm: Option<Emulator>,
    _directory: tempfile::TempDir,
    started: Instant,
}

/// What has been seen of a machine so far.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The console from the start.
    pub console: Cow<'a, str>,
    /// The guest program's reports.
    pub reports: &'a [Report],
    /// QEMU's events.
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
    garbled: Vec<String>,
    events: Vec<Value>,
    answers: VecDeque<Value>,
    open_streams: usize,
    /// QEMU's exit status and what it wrote.
    exit: Option<String>,
}

impl State {
    /// QEMU is gone and all that it had written is read.
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

    /// Wait until `until` gives something or the deadline passes.
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
        // Of the accelerator's probe too, so that it does not count.
        let directory = tempfile::Builder::new()
            .prefix("testbed-")
            .tempdir()
            .map_err(TestbedError::io("make a temporary directory"))?;
        let listen = |name: &str| {
            UnixListener::bind(directory.path().join(format!("{name}.socket")))
                .map_err(TestbedError::io("make a socket for QEMU"))
        };
        let (qmp, console, report) = (listen("qmp")?, listen("console")?, listen("report")?);
        let tpm = match machine.tpm {
            Tpm::None => None,
            Tpm::Swtpm => Some(Emulator::start(directory.path())?),
        };
        let socket = tpm.as_ref().map(|tpm| tpm.socket.as_path());
        let arguments = machine.arguments(directory.path(), socket);
        let started = Instant::now();
        let mut child = spawn(QEMU, |command| {
            command
                .args(&arguments)
                // snapshot=on keeps what is written there.
                .env("TMPDIR", snapshots(directory.path()))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
        })
        .map_err(|source| TestbedError::Spawn {
            program: QEMU.to_owned(),
            package: "qemu-system-x86",
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
                let status = child
                    .wait()
                    .map_or_else(|error| error.to_string(), |status| status.to_string());
                let words = String::from_utf8_lossy(&words);
                shared.change(|state| state.exit = Some(format!("{status}: {}", words.trim())));
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
        let (qmp, console, report) = (accept(&qmp)?, accept(&console)?, accept(&report)?);
        let clone =
            |stream: &UnixStream| stream.try_clone().map_err(TestbedError::io("talk to QEMU"));
        shared.lock().open_streams = 3;
        read_qmp(clone(&qmp)?, Arc::clone(&shared));
        read_console(clone(&console)?, Arc::clone(&shared), machine.tee);
        read_report(report, Arc::clone(&shared), machine.clone());
        let running = Running {
            machine: machine.clone(),
            shared,
            qemu: killer,
            qmp: Mutex::new(qmp::Sender::new(qmp)),
            console: Mutex::new(console),
            _tpm: tpm,
            _directory: directory,
            started,
        };
        // An accelerator that does not work ends QEMU between its connecting and the guest's first instruction.
        if running.request("qmp_capabilities", json!({})).is_err() {
            running.qemu.kill();
            return Err(not_started(&running.shared));
        }
        Ok(running)
    }

    fn deadline(&self) -> Instant {
        self.started + self.machine.time_limit
    }

    /// Wait until `until` gives something of what has been seen: at most `limit`, and never beyond the machine's own.
    ///
    /// # Errors
    /// The time is over, or the machine has ended. `event` names in the error what was waited for.
    pub fn wait_for<T>(
        &self,
        event: &str,
        limit: Duration,
        mut until: impl FnMut(&Seen<'_>) -> Option<T>,
    ) -> Result<T, TestbedError> {
        let from = Instant::now();
        let result = self
            .shared
            .wait(self.deadline().min(from + limit), |state| {
                let seen = Seen {
                    console: state.console(),
                    reports: &state.reports,
                    events: &state.events,
                };
                match until(&seen) {
                    Some(value) => Some(Ok(value)),
                    None if state.ended() => Some(Err(TestbedError::Ended {
                        event: event.to_owned(),
                        console: state.tail(),
                    })),
                    None => None,
                }
            });
        result.unwrap_or_else(|| {
            Err(TestbedError::Late {
                event: event.to_owned(),
                waited: from.elapsed(),
                console: self.shared.lock().tail(),
            })
        })
    }

    /// Wait until a line of the console contains this text; gives the line.
    ///
    /// # Errors
    /// As [`Running::wait_for`].
    pub fn wait_for_console(&self, text: &str) -> Result<String, TestbedError> {
        self.wait_for(
            &format!("“{text}” on the console"),
            self.machine.time_limit,
            |seen| {
                let at = seen.console.find(text)?;
                // A whole line, with its end.
                let start = seen.console[..at].rfind('\n').map_or(0, |end| end + 1);
                let end = at + seen.console[at..].find('\n')?;
                Some(seen.console[start..end].trim_end().to_owned())
            },
        )
    }

    /// Wait until the guest program has reported; gives its first report.
    ///
    /// # Errors
    /// As [`Running::wait_for`].
    pub fn wait_for_report(&self) -> Result<Report, TestbedError> {
        self.wait_for(
            "the guest program's report",
            self.machine.time_limit,
            |seen| seen.reports.first().cloned(),
        )
    }

    /// Let the machine run for this long; fails if it ends meanwhile. For events that must come late, and to show that
    /// something does not happen.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn run_for(&self, time: Duration) -> Result<(), TestbedError> {
        match self.wait_for("the time was over", time, |_| None::<()>) {
            Err(TestbedError::Late { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    /// How long it has been running.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The console so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.shared.lock().console().into_owned()
    }

    /// Type into the serial console; a line needs its `\n`.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn type_text(&self, text: &str) -> Result<(), TestbedError> {
        let mut console = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        console
            .write_all(text.as_bytes())
            .map_err(TestbedError::io("type into the console"))
    }

    /// Attach the late disk `number`, counted from 0 among the machine's late disks.
    ///
    /// # Errors
    /// There is no such disk, or QEMU refuses it: it is there already, the machine has ended.
    pub fn plug(&self, number: usize) -> Result<(), TestbedError> {
        let (index, disk) = self
            .machine
            .disks
            .iter()
            .enumerate()
            .filter(|(_, disk)| disk.late)
            .nth(number)
            .ok_or(TestbedError::NoSuchDisk(number))?;
        let arguments: Map<String, Value> = self
            .machine
            .device(index, disk)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), Value::from(value)))
            .collect();
        self.request("device_add", Value::Object(arguments))
            .map(drop)
    }

    /// A request of QEMU's machine protocol; gives its `return`.
    ///
    /// # Errors
    /// QEMU's error, or that it is gone.
    pub fn request(&self, command: &str, arguments: Value) -> Result<Value, TestbedError> {
        let refused = |answer: String| TestbedError::Qmp {
            command: command.to_owned(),
            answer,
        };
        // Held until the answer is there: QEMU answers in order.
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
            None => Err(refused("it gave no answer".to_owned())),
            Some(mut answer) if answer.get("return").is_some() => Ok(answer["return"].take()),
            Some(answer) => Err(refused(answer["error"]["desc"].to_string())),
        }
    }

    /// Take its power away, now.
    #[must_use]
    pub fn kill(self) -> Outcome {
        self.end(Some(Ending::Killed))
    }

    /// Wait until it ends: by itself, by standing still after a halt or a panic, or by its time limit.
    #[must_use]
    pub fn finish(self) -> Outcome {
        let ended = self.shared.wait(self.deadline(), |state| {
            (state.ended() || outcome::stands_still(&state.console())).then_some(())
        });
        self.end(ended.is_none().then_some(Ending::TimedOut))
    }

    fn end(self, forced: Option<Ending>) -> Outcome {
        let ran = self.started.elapsed();
        self.qemu.kill();
        // After SIGKILL the kernel closes its sockets; only an unkillable QEMU would make us give up here.
        self.shared
            .wait(Instant::now() + Duration::from_secs(30), |state| {
                state.ended().then_some(())
            });
        let mut state = self.shared.lock();
        let console = state.console().into_owned();
        let ending = forced.unwrap_or_else(|| {
            outcome::ending(&console, &state.events, || {
                state
                    .exit
                    .clone()
                    .unwrap_or_else(|| "it does not end".to_owned())
            })
        });
        Outcome {
            ending,
            console,
            reports: std::mem::take(&mut state.reports),
            garbled: std::mem::take(&mut state.garbled),
            events: std::mem::take(&mut state.events),
            ran,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.qemu.kill();
    }
}

/// QEMU's last words, once it has ended.
fn not_started(shared: &Shared) -> TestbedError {
    let deadline = Instant::now() + Duration::from_secs(10);
    let words = shared.wait(deadline, |state| state.exit.clone());
    let (status, stderr) = words
        .as_deref()
        .and_then(|words| words.split_once(": "))
        .unwrap_or(("no exit status", ""));
    TestbedError::NotStarted {
        status: status.to_owned(),
        stderr: stderr.to_owned(),
    }
}

/// A directory for what the guest writes to shared images: on a disk, not on a tmpfs that /tmp may be.
fn snapshots(directory: &Path) -> std::path::PathBuf {
    let disk = Path::new("/var/tmp");
    if disk.is_dir() {
        disk.to_owned()
    } else {
        directory.to_owned()
    }
}

fn read_console(mut stream: UnixStream, shared: Arc<Shared>, tee: bool) {
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
            converse(
                BufReader::new(stream.take(MAX_CONVERSATION)),
                answers,
                &shared,
                &machine,
            );
        }
        shared.change(|state| state.open_streams -= 1);
    });
}

fn converse(
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
                shared.change(|state| state.garbled.push(format!("{error}: {start}")));
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
