//! The watch: a process that prints a notice when a device does not answer, and ends the boot when the limit is reached.
//!
//! A read from such a device cannot be interrupted (TASK_UNINTERRUPTIBLE; mm/filemap.c, `folio_wait_bit_common`), so PID 1
//! itself can neither print a notice nor stop. The watch shares no lock and no memory with PID 1 and reads nothing from the
//! root, so it never waits for the device. It ends when PID 1 closes its end of the pipe between them, ends, or executes
//! another program.

use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::Duration;

use ima::config;
use ima::fault::{Code, Fault, Stage};
use log::warn;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::errno::{Errno, describe};
use crate::process::is_ready;
use crate::syscalls::{self, Forked, monotonic_time};

/// The environment variable with the limit, from the init to switch_root.
pub const VARIABLE: &str = "IMA_INIT_STALL_TIMEOUT";

const FOREVER: &str = "forever";

/// How often a notice is printed.
const NOTICE: Duration = Duration::from_secs(5);

/// The message that ends a step. Each message is one packet of the pipe, and no packet is empty.
const DONE: &[u8] = b"\n";

/// The longest packet, in bytes (PIPE_BUF; pipe(7), O_DIRECT).
const PACKET: usize = 4096;

/// The pipe to the watch; `None` while there is none. Nothing waits for the lock: there is no other thread that could release it,
/// and a crash may have interrupted what has it.
static STEPS: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Starts the watch. When a step takes longer than `limit`, `on_limit` is called with the fault, in the process of the watch;
/// without a limit there are only notices.
pub fn start(limit: Option<Duration>, on_limit: &dyn Fn(&Fault)) {
    let started = pipe_with(PipeFlags::CLOEXEC | PipeFlags::DIRECT).and_then(|(steps, sender)| {
        if syscalls::fork()? == Forked::Child {
            // While this process has the sending end open too, it would not see that PID 1 has closed it.
            drop(sender);
            watch(&steps, limit, on_limit);
            syscalls::exit(0);
        }
        Ok(sender)
    });
    match started {
        Ok(sender) => set_sender(Some(sender)),
        Err(errno) => {
            let errno = describe(errno);
            warn!(
                "root: a disk that does not answer would not be noticed: the watch could not be started ({errno})"
            );
        }
    }
}

/// The limit in seconds, or `forever`, for [`VARIABLE`].
pub fn to_text(limit: Option<Duration>) -> String {
    limit.map_or_else(|| FOREVER.to_owned(), |limit| limit.as_secs().to_string())
}

/// Parses what [`to_text`] returns; the default limit for any other text.
pub fn from_text(text: Option<&str>) -> Option<Duration> {
    match text {
        Some(FOREVER) => None,
        text => text
            .and_then(config::seconds)
            .filter(|limit| !limit.is_zero())
            .or(Some(config::STALL_TIMEOUT)),
    }
}

/// Ends the watch.
pub fn stop() {
    set_sender(None);
}

fn set_sender(sender: Option<OwnedFd>) {
    if let Ok(mut steps) = STEPS.try_lock() {
        *steps = sender;
    }
}

/// Runs a step that may wait for a device. A step contains no other step. `what` describes it, as in "reading /dev/sda1".
pub fn during<T>(stage: Stage, what: impl AsRef<str>, step: impl FnOnce() -> T) -> T {
    begin(stage, what.as_ref());
    let result = step();
    send(DONE);
    result
}

/// Begins a step that lasts until this program ends or executes another one.
pub fn begin(stage: Stage, what: &str) {
    let message = format!("{stage}: {what}");
    let message = message.as_bytes();
    send(message.get(..PACKET).unwrap_or(message));
}

fn send(message: &[u8]) {
    if let Ok(steps) = STEPS.try_lock()
        && let Some(steps) = steps.as_ref()
    {
        // If the watch has ended, the boot goes on without it.
        let _ = rustix::io::write(steps, message);
    }
}

/// A step that has begun.
struct Step {
    /// The stage that does it and a description, as in `root: reading /dev/sda1`.
    text: String,
    /// By [`monotonic_time`].
    since: Duration,
    /// After how long the next notice is due.
    next: Duration,
}

impl Step {
    fn new(message: &[u8]) -> Self {
        Self {
            text: String::from_utf8_lossy(message).into_owned(),
            since: monotonic_time(),
            next: NOTICE,
        }
    }

    /// Prints a notice when one is due; calls `on_limit` when the limit is reached.
    fn check(&mut self, limit: Option<Duration>, on_limit: &dyn Fn(&Fault)) {
        let waited = self.waited();
        let seconds = waited.as_secs();
        if limit.is_some_and(|limit| waited >= limit) {
            // Without the name of the stage.
            let what = self.text.split_once(' ').map_or("", |(_, what)| what);
            let detail = format!("{what} has not ended after {seconds} s");
            on_limit(&Fault::new(Code::RootSilent, detail));
        }
        if waited >= self.next {
            warn!("{}", self.notice(waited, limit));
            self.next = waited.saturating_add(NOTICE);
        }
    }

    /// The text of a notice.
    fn notice(&self, waited: Duration, limit: Option<Duration>) -> String {
        let until = limit.map_or_else(
            || "there is no limit, because of rootwait".to_owned(),
            |limit| {
                let left = limit.saturating_sub(waited).as_secs();
                format!("the limit is {left} s more")
            },
        );
        format!(
            "{} has taken {} s so far; {until}",
            self.text,
            waited.as_secs()
        )
    }

    /// The time until a notice is due or the limit is reached.
    fn time_to_next(&self, limit: Option<Duration>) -> Duration {
        limit
            .map_or(self.next, |limit| limit.min(self.next))
            .saturating_sub(self.waited())
    }

    fn waited(&self) -> Duration {
        monotonic_time().saturating_sub(self.since)
    }
}

/// The work of the watch, until the other end of the pipe is closed.
fn watch(steps: &OwnedFd, limit: Option<Duration>, on_limit: &dyn Fn(&Fault)) {
    let mut step: Option<Step> = None;
    loop {
        let time = step.as_ref().map(|step| step.time_to_next(limit));
        if !is_ready(steps, time) {
            if let Some(step) = &mut step {
                step.check(limit, on_limit);
            }
            continue;
        }
        let mut packet = [0; PACKET];
        match rustix::io::read(steps, &mut packet) {
            Ok(0) => return,
            Ok(length) => {
                let message = packet.get(..length).unwrap_or_default();
                step = (message != DONE).then(|| Step::new(message));
            }
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_round_trips() {
        for limit in [None, Some(Duration::from_secs(7))] {
            assert_eq!(from_text(Some(&to_text(limit))), limit);
        }
        for none in [None, Some(""), Some("0"), Some("-1"), Some("never")] {
            assert_eq!(from_text(none), Some(config::STALL_TIMEOUT));
        }
    }

    #[test]
    fn a_notice_is_due_after_five_seconds_or_at_the_limit() {
        let step = Step::new(b"root: reading");
        for (limit, most) in [(None, NOTICE), (Some(1), Duration::from_secs(1))] {
            let time = step.time_to_next(limit.map(Duration::from_secs));
            assert!(time <= most && time > most - Duration::from_millis(900));
        }
    }

    #[test]
    fn a_notice_names_the_stage_and_the_limit() {
        let step = Step::new(b"keys: reading the root's certificates");
        let waited = Duration::from_secs(5);
        let text = "keys: reading the root's certificates has taken 5 s so far; ";
        for (limit, until) in [
            (Some(Duration::from_secs(20)), "the limit is 15 s more"),
            (None, "there is no limit, because of rootwait"),
        ] {
            assert_eq!(step.notice(waited, limit), format!("{text}{until}"));
        }
    }
}
