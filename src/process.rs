//! What belongs to a process: its standard files, waiting, and work in a process of its own, so that what waits for a device
//! without end waits there.

use std::os::fd::{AsFd, AsRawFd as _, IntoRawFd as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::stderr;
use rustix::thread::{NanosleepRelativeResult, nanosleep};

use crate::errno::Errno;
use crate::syscalls::{self, Forked};

/// Opens what of the standard files is not open, so that nothing else becomes one of them: the programs that are executed later
/// inherit them.
pub fn open_standard_files() {
    // The kernel takes the lowest number that is free.
    while let Ok(file) = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty()) {
        if file.as_raw_fd() > stderr().as_raw_fd() {
            return;
        }
        let _ = file.into_raw_fd();
    }
}

/// Runs `action` in a new process and waits at most `limit` for it. Returns whether it ended by then. Where no process can be
/// started, this one does it and waits as long as it takes.
pub fn run_for(limit: Duration, action: &dyn Fn()) -> bool {
    let Ok((end, running)) = pipe_with(PipeFlags::CLOEXEC) else {
        action();
        return true;
    };
    match syscalls::fork() {
        Ok(Forked::Parent) => {}
        Ok(Forked::Child) => {
            action();
            syscalls::exit(0);
        }
        Err(_) => {
            action();
            return true;
        }
    }
    // Only the child has this end open then, until it ends.
    drop(running);
    is_ready(&end, Some(limit))
}

/// Waits, at most `limit`, until there is something to read from the pipe or its other end is closed. Returns whether that
/// happened.
pub fn is_ready(pipe: impl AsFd, limit: Option<Duration>) -> bool {
    let deadline = limit.map(|limit| syscalls::monotonic_time().saturating_add(limit));
    loop {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_sub(syscalls::monotonic_time());
            timespec(left)
        });
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], timeout.as_ref()) {
            Err(Errno::INTR) => {}
            Err(_) => return true,
            Ok(count) => return count > 0,
        }
    }
}

/// Waits for that long.
pub fn sleep(time: Duration) {
    let mut left = timespec(time);
    while let NanosleepRelativeResult::Interrupted(rest) = nanosleep(&left) {
        left = rest;
    }
}

/// The longest time that can be said for one that cannot.
fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_ready_when_its_other_end_is_closed() {
        let (end, other) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        assert!(!is_ready(&end, Some(Duration::from_millis(1))));
        drop(other);
        assert!(is_ready(&end, None));
    }
}
