//! Says what the boot waits for where a device does not answer, and ends the boot where it never does.
//!
//! A read from such a device waits where no signal reaches (TASK_UNINTERRUPTIBLE; mm/filemap.c, `folio_wait_bit_common`), so
//! that PID 1 could neither say so nor stop by itself. Hence a process beside it that looks at the clock. It shares no lock
//! and no memory with PID 1, opens nothing of the root and reads nothing of it, so that it cannot come to wait too. It ends
//! when the pipe between the two does: when PID 1 has become another program, or has ended.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ima::config;
use ima::fault::{Code, Fault, Stage};
use log::warn;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::failure::{self, Ending};
use crate::files::describe;
use crate::syscalls::{self, Side};

/// The variable in which the init hands the limit on to switch_root.
pub const VARIABLE: &str = "IMA_INIT_STALL_TIMEOUT";

const FOREVER: &str = "forever";

/// How often a line says what is waited for.
const NOTICE: Duration = Duration::from_secs(5);

/// What ends a step. Every message is one packet of the pipe, and a packet is not empty.
const DONE: &[u8] = b"\n";

/// What stands between the name of the stage and what it does.
const SEPARATOR: &str = ": ";

/// The longest packet, in bytes (PIPE_BUF; pipe(7), O_DIRECT).
const PACKET: usize = 4096;

/// The way to the process that watches.
static STEPS: Mutex<Option<File>> = Mutex::new(None);

/// Starts to watch: a step that takes longer than `limit` is refused and ends so; without a limit it is only told.
pub fn start(ending: Ending, limit: Option<Duration>) {
    let started = pipe_with(PipeFlags::CLOEXEC | PipeFlags::DIRECT).and_then(|(steps, sender)| {
        if syscalls::fork()? == Side::Child {
            // Its own end of the pipe would keep it from seeing that the other is closed.
            drop(sender);
            watch(&steps, ending, limit);
            std::process::exit(0);
        }
        Ok(sender)
    });
    match started {
        Ok(sender) => put(Some(sender)),
        Err(errno) => {
            let errno = describe(errno);
            warn!(
                "root: a disk that does not answer would go unnoticed: no process to watch it could be started ({errno})"
            );
        }
    }
}

/// The limit, for [`VARIABLE`].
pub fn to_text(limit: Option<Duration>) -> String {
    limit.map_or_else(|| FOREVER.to_owned(), |limit| limit.as_secs().to_string())
}

/// The limit of such a text; the default one if it is none.
pub fn from_text(text: Option<&str>) -> Option<Duration> {
    match text {
        Some(FOREVER) => None,
        text => text
            .and_then(config::seconds)
            .filter(|limit| !limit.is_zero())
            .or(Some(config::STALL_TIMEOUT)),
    }
}

/// Ends the watch: from here on, nothing is waited for that has no limit of its own.
pub fn stop() {
    put(None);
}

fn put(sender: Option<OwnedFd>) {
    *STEPS.lock().unwrap_or_else(PoisonError::into_inner) = sender.map(File::from);
}

/// Does something that may wait for a device, while the watch looks on. Steps do not contain one another.
pub fn during<T>(stage: Stage, what: impl AsRef<str>, act: impl FnOnce() -> T) -> T {
    begin(stage, what);
    let result = act();
    send(DONE);
    result
}

/// Begins a step that ends with the program.
pub fn begin(stage: Stage, what: impl AsRef<str>) {
    let message = format!("{stage}{SEPARATOR}{}", what.as_ref());
    let message = message.as_bytes();
    send(message.get(..PACKET).unwrap_or(message));
}

fn send(message: &[u8]) {
    let steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(mut steps) = steps.as_ref() {
        // Without a watch the boot goes on as it would have.
        let _ = steps.write(message);
    }
}

/// What the boot does with a device, and since when.
struct Step {
    /// The stage that does it, for the log.
    stage: String,
    what: String,
    since: Instant,
    /// After how long it is told, the next time.
    next: Duration,
}

impl Step {
    fn new(message: &[u8]) -> Self {
        let message = String::from_utf8_lossy(message);
        let (stage, what) = message
            .split_once(SEPARATOR)
            .unwrap_or((Stage::Root.name(), &message));
        Self {
            stage: stage.to_owned(),
            what: what.to_owned(),
            since: Instant::now(),
            next: NOTICE,
        }
    }

    /// Prints a notice when one is due; ends the boot when the limit is reached.
    fn check(&mut self, ending: Ending, limit: Option<Duration>) {
        let waited = self.since.elapsed();
        let seconds = waited.as_secs();
        if limit.is_some_and(|limit| waited >= limit) {
            let detail = format!("{} has not ended after {seconds} s", self.what);
            failure::end_beside(&Fault::new(Code::RootSilent, detail), ending);
        }
        if waited >= self.next {
            warn!("{}", self.notice(waited, limit));
            self.next = waited.saturating_add(NOTICE);
        }
    }

    /// The line that says what has not ended yet.
    fn notice(&self, waited: Duration, limit: Option<Duration>) -> String {
        let until = limit.map_or_else(
            || "there is no limit, because of rootwait".to_owned(),
            |limit| {
                let left = limit.saturating_sub(waited).as_secs();
                format!("the limit is {left} s more")
            },
        );
        let (stage, what) = (&self.stage, &self.what);
        format!(
            "{stage}: {what} has taken {} s so far; {until}",
            waited.as_secs()
        )
    }

    /// How long nothing is to be told of it.
    fn rest(&self, limit: Option<Duration>) -> Duration {
        limit
            .map_or(self.next, |limit| limit.min(self.next))
            .saturating_sub(self.since.elapsed())
    }
}

fn watch(steps: &OwnedFd, ending: Ending, limit: Option<Duration>) {
    let mut step: Option<Step> = None;
    loop {
        let rest = step.as_ref().map(|step| step.rest(limit));
        if !ready(steps, rest) {
            if let Some(step) = &mut step {
                step.check(ending, limit);
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

/// Waits, at most so long, for something to read or for the end of whoever could write it; whether there is.
fn ready(pipe: impl AsFd, most: Option<Duration>) -> bool {
    let deadline = most.map(|most| Instant::now().checked_add(most));
    loop {
        let timeout = deadline.flatten().map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], timeout.as_ref()) {
            Err(Errno::INTR) => {}
            Err(_) => return true,
            Ok(count) => return count > 0,
        }
    }
}

/// Does something in a process of its own and waits for it, at most so long; whether it was done by then. What waits for a
/// device without end then waits alone.
pub fn within(limit: Duration, act: &dyn Fn()) -> bool {
    let Ok((end, running)) = pipe_with(PipeFlags::CLOEXEC) else {
        act();
        return true;
    };
    match syscalls::fork() {
        Ok(Side::Parent) => {}
        Ok(Side::Child) => {
            act();
            std::process::exit(0);
        }
        Err(_) => {
            act();
            return true;
        }
    }
    // The child's alone is open then, until it ends.
    drop(running);
    ready(&end, Some(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_survives_the_way_to_switch_root() {
        for limit in [None, Some(Duration::from_secs(7))] {
            assert_eq!(from_text(Some(&to_text(limit))), limit);
        }
        for none in [None, Some(""), Some("0"), Some("-1"), Some("never")] {
            assert_eq!(from_text(none), Some(config::STALL_TIMEOUT));
        }
    }

    #[test]
    fn a_step_is_told_when_it_is_time() {
        let step = Step::new(b"root: reading");
        for (limit, most) in [(None, NOTICE), (Some(1), Duration::from_secs(1))] {
            let rest = step.rest(limit.map(Duration::from_secs));
            assert!(rest <= most && rest > most - Duration::from_millis(900));
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

    #[test]
    fn a_pipe_is_ready_when_its_other_end_is_closed() {
        let (end, other) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        assert!(!ready(&end, Some(Duration::from_millis(1))));
        drop(other);
        assert!(ready(&end, None));
    }
}
