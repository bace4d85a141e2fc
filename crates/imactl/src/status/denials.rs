//! What was denied since the system was started: from the kernel's log, and from auditd's, which takes the records where it runs.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ima::audit::{IntegrityRecord, Stamp};
use ima::kmsg;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::item::{Check, Item, State, count};
use super::system::System;
use crate::denial;

/// The kernel's log.
const KMSG: &str = "/dev/kmsg";
/// auditd's log.
const AUDIT_LOG: &str = "/var/log/audit/audit.log";
/// The longest record of the kernel's log, with its dictionary (kernel/printk/printk.c, `CONSOLE_EXT_LOG_MAX`).
const MAX_RECORD: usize = 8192;
/// How much of auditd's log is read, in bytes.
const MAX_AUDIT_LOG: u64 = 1 << 30;
/// How many different denials are kept; more are only counted.
const MAX_KEPT: usize = 1000;
/// How many of them the status shows.
const SHOWN: usize = 3;

/// A file that was denied, for one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// The file's path as the process saw it; bytes that are not UTF-8 are replaced.
    pub file: String,
    /// The name of the last process that wanted it.
    pub command: String,
    /// The kernel's cause.
    pub cause: String,
    /// What that means.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// How often it was denied.
    pub count: u64,
    /// When last, in seconds since 1970.
    pub last: u64,
}

/// The denials since the system was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Denials {
    /// Whether the kernel's log could be read: only root and members of few groups may, as the system is set up.
    pub readable: bool,
    /// Whether the log has lost records of this boot, so that there may be more denials.
    pub incomplete: bool,
    /// How many denials there were.
    pub total: u64,
    /// How many of them by the kernel's cause.
    pub by_cause: BTreeMap<String, u64>,
    /// The files, the one that was denied last at the end; 1000 at most.
    pub files: Vec<Denial>,
}

impl Denials {
    pub(super) fn of(system: &System) -> Self {
        let mut found = Self::default();
        let mut seen = HashSet::new();
        let log = if system.is_running() {
            let log = KernelLog::open().map(|mut log| log.records());
            if let Ok(records) = &log {
                system.keep(KMSG, records.concat().as_bytes());
            }
            log
        } else {
            system.read(KMSG).map(|bytes| records(&bytes))
        };
        if let Ok(log) = log {
            found.readable = true;
            let first = log.first().and_then(|record| sequence(record));
            found.incomplete = first.is_some_and(|first| first > 0);
            for record in log.iter().filter_map(|record| kmsg::kernel_text(record)) {
                if let Some(record) = IntegrityRecord::parse(record) {
                    found.add(&record, &mut seen);
                }
            }
        }
        // auditd's log has records of earlier boots too.
        if let (Some(start), Ok(log)) = (started(system), system.stream(AUDIT_LOG)) {
            found.readable = true;
            let mut lines = BufReader::new(log.take(MAX_AUDIT_LOG));
            let mut line = Vec::new();
            while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
                if let Some(record) = IntegrityRecord::find(&String::from_utf8_lossy(&line))
                    && record.stamp.seconds >= start
                {
                    found.add(&record, &mut seen);
                }
                line.clear();
            }
        }
        found.files.sort_by_key(|denial| denial.last);
        found
    }

    fn add(&mut self, record: &IntegrityRecord, seen: &mut HashSet<Stamp>) {
        if !record.is_denial() || denial::is_canary(record) || !seen.insert(record.stamp) {
            return;
        }
        self.total += 1;
        *self.by_cause.entry(record.cause.clone()).or_default() += 1;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let file = text(record.name.as_deref().unwrap_or_default());
        let known = self
            .files
            .iter_mut()
            .find(|denial| denial.file == file && denial.cause == record.cause);
        if let Some(denial) = known {
            denial.count += 1;
            denial.last = denial.last.max(record.stamp.seconds);
            denial.command = text(&record.command);
        } else if self.files.len() < MAX_KEPT {
            let explanation = denial::explain(&record.cause);
            self.files.push(Denial {
                file,
                command: text(&record.command),
                cause: record.cause.clone(),
                meaning: explanation.meaning,
                remedy: explanation.remedy,
                count: 1,
                last: record.stamp.seconds,
            });
        }
    }

    pub(super) fn check(&self, enforced: bool, audit_is_off: bool) -> Check {
        if audit_is_off {
            let text = "audit=0 is on the command line: the kernel records none";
            return Check::new(Item::Denials, State::NotVisible, text);
        }
        if !self.readable {
            let text = "the kernel's log cannot be read: run this as root";
            return Check::new(Item::Denials, State::NotVisible, text);
        }
        let lost = if self.incomplete {
            "; the kernel's log has lost its beginning, so there may be more"
        } else {
            ""
        };
        if self.total == 0 {
            return Check::new(Item::Denials, State::Good, format!("none since boot{lost}"));
        }
        let verb = if enforced { "" } else { " (logged only)" };
        let total = count(self.total, "denial");
        let files = count(self.files.len() as u64, "file");
        let text = format!("{total} of {files} since boot{verb}{lost}");
        let mut check = Check::new(Item::Denials, State::Attention, text);
        for denial in self.files.iter().rev().take(SHOWN) {
            let times = match denial.count {
                1 => String::new(),
                count => format!(", {count} times"),
            };
            check = check
                .detail(format!(
                    "{} (for {}{times}): {}",
                    denial.file, denial.command, denial.meaning
                ))
                .detail(format!("  remedy: {}", denial.remedy));
        }
        let more = self.files.len().saturating_sub(SHOWN);
        if more > 0 {
            check = check.detail(format!("and {more} more: imactl status --json"));
        }
        check
    }
}

/// When the system was started, in seconds since 1970.
fn started(system: &System) -> Option<u64> {
    let stat = system.text("/proc/stat")?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// The number of a record of the kernel's log: the second of the numbers at its beginning, counted from 0 at boot.
fn sequence(record: &str) -> Option<u64> {
    record.split(';').next()?.split(',').nth(1)?.parse().ok()
}

/// The records in a recorded log: each has a line, and perhaps lines of its dictionary, which begin with a blank.
fn records(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes)
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The kernel's log of the running system.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
}

impl KernelLog {
    /// Opens the log at the first record that there is.
    ///
    /// # Errors
    ///
    /// What open(2) says: EPERM for others than root where `kernel.dmesg_restrict` is set.
    pub fn open() -> std::io::Result<Self> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(KMSG, flags, Mode::empty())?.into();
        Ok(Self { file })
    }

    /// The records up to now that are the kernel's own and about integrity, and the first one, whose number shows whether records were
    /// lost.
    fn records(&mut self) -> Vec<String> {
        let mut records = Vec::new();
        let mut buffer = [0; MAX_RECORD];
        while let Some(record) = self.next(&mut buffer) {
            let of_integrity =
                |record: &str| kmsg::kernel_text(record).is_some_and(ima::audit::is_of_integrity);
            if records.is_empty() {
                // Its text may be anybody's, and a recording goes to somebody else.
                let head = record.split(';').next().unwrap_or_default();
                records.push(format!("{head};\n"));
            }
            if of_integrity(&record) {
                records.push(
                    record
                        .lines()
                        .take(1)
                        .map(|line| format!("{line}\n"))
                        .collect(),
                );
            }
        }
        records
    }

    /// The next record, if there is one.
    fn next(&mut self, buffer: &mut [u8]) -> Option<String> {
        loop {
            match self.file.read(buffer) {
                Ok(0) => return None,
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    return Some(String::from_utf8_lossy(bytes).into_owned());
                }
                // EPIPE: records were overwritten; the next read goes on behind them.
                Err(error) if error.raw_os_error() == Some(32) => {}
                Err(_) => return None,
            }
        }
    }

    /// Waits until a denial is logged or the time is over.
    pub fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut buffer = [0; MAX_RECORD];
        loop {
            while let Some(record) = self.next(&mut buffer) {
                let record = kmsg::kernel_text(&record).and_then(IntegrityRecord::parse);
                if record.is_some_and(|record| record.is_denial()) {
                    return;
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let Ok(left) = Timespec::try_from(left) else {
                return;
            };
            // A signal ends the wait early, which does no harm.
            if poll(
                &mut [PollFd::from_borrowed_fd(self.file.as_fd(), PollFlags::IN)],
                Some(&left),
            )
            .is_err()
            {
                return;
            }
        }
    }

    /// Passes over what is in the log.
    pub fn skip(&mut self) {
        let mut buffer = [0; MAX_RECORD];
        while self.next(&mut buffer).is_some() {}
    }
}
