//! The log: to `/dev/kmsg`, one write a record; warnings and errors to the console too where the kernel's own console
//! level would keep them from it.

use std::borrow::Cow;
use std::ffi::CStr;
use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::{Mode, OFlags, open as open_file};

use crate::errno::Errno;
use crate::kernel_files;

/// A record longer than the kernel's PRINTKRB_RECORD_MAX is refused with EINVAL (kernel/printk/printk.c,
/// `devkmsg_write`); the prefix and the kernel's own header fit in what is left.
const MAX_RECORD: usize = 960;

/// The syslog facility "daemon", by which these records differ from the kernel's own.
const FACILITY: u8 = 3 << 3;

const WRITE: OFlags = OFlags::WRONLY.union(OFlags::CLOEXEC);

struct Logger {
    state: Mutex<State>,
}

enum State {
    /// `/dev` is not mounted yet: records are kept.
    Waiting(Vec<(Level, String)>),
    Open {
        kmsg: OwnedFd,
        /// Records of a smaller severity number reach the console through the kernel.
        console_level: u8,
    },
}

static LOGGER: Logger = Logger {
    state: Mutex::new(State::Waiting(Vec::new())),
};

/// Starts to accept records. They are kept until [`open`] is called.
pub fn start() {
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Settings of the kernel that keep records from its log, with the value that the init works with. The kernel drops records of
/// userspace beyond ten in five seconds (`ratelimit`, the default of the first), and its own of the audit system likewise, of
/// which a policy of ten rules leaves none to those that say why a file was denied (kernel/audit.c, `kauditd_printk_skb`).
const LIMITS: [(&CStr, &[u8]); 2] = [
    (c"/proc/sys/kernel/printk_devkmsg", b"on\n"),
    (c"/proc/sys/kernel/printk_ratelimit", b"0\n"),
];

/// The values that they had.
static LIMITED: Mutex<[Option<Vec<u8>>; LIMITS.len()]> = Mutex::new([const { None }; LIMITS.len()]);

/// Removes the limits, for the first time or after [`restore_limits`].
pub fn lift_limits() {
    let Ok(mut limited) = LIMITED.try_lock() else {
        return;
    };
    for ((path, free), before) in LIMITS.iter().zip(&mut *limited) {
        if let Ok(value) = kernel_files::read(*path) {
            before.get_or_insert(value);
            let _ = kernel_files::write(*path, free);
        }
    }
}

/// Restores the limits of the kernel's log. To be called just before another program is executed, because the init cannot do it
/// afterwards. The kernel still logs the first ten records after that, and the denial of that program is one of them.
pub fn restore_limits() {
    let Ok(limited) = LIMITED.try_lock() else {
        return;
    };
    for ((path, _), before) in LIMITS.iter().zip(&*limited) {
        if let Some(value) = before {
            let _ = kernel_files::write(*path, value);
        }
    }
}

/// Opens `/dev/kmsg` and writes the records that were kept. Called again, after a mount of proc, it only reads the console
/// level. Without `/dev/kmsg` (no CONFIG_PRINTK) records go to the console alone.
pub fn open() {
    lift_limits();
    let console_level = kernel_files::text(c"/proc/sys/kernel/printk")
        .ok()
        .and_then(|levels| levels.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(7);
    let Ok(mut state) = LOGGER.state.try_lock() else {
        return;
    };
    let waiting = match &mut *state {
        State::Open {
            console_level: level,
            ..
        } => {
            *level = console_level;
            return;
        }
        State::Waiting(records) => std::mem::take(records),
    };
    let Ok(kmsg) = open_file(c"/dev/kmsg", WRITE, Mode::empty()) else {
        *state = State::Waiting(waiting);
        return;
    };
    let mut open = State::Open {
        kmsg,
        console_level,
    };
    for (level, text) in waiting {
        open.write(level, &text);
    }
    *state = open;
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        // There is only one thread, so the lock is held only if a lack of memory interrupted the writing of a record. The
        // message about that goes to the console alone.
        match self.state.try_lock() {
            Ok(mut state) => state.write(record.level(), &text),
            Err(_) => console(&text),
        }
    }

    fn flush(&self) {}
}

impl State {
    fn write(&mut self, level: Level, text: &str) {
        match self {
            Self::Waiting(records) => {
                if level <= Level::Warn {
                    console(text);
                }
                records.push((level, text.to_owned()));
            }
            Self::Open {
                kmsg,
                console_level,
            } => {
                let severity = severity(level);
                for line in text.lines() {
                    print(&*kmsg, &record(severity, line));
                }
                if severity >= *console_level && level <= Level::Warn {
                    console(text);
                }
            }
        }
    }
}

fn console(text: &str) {
    let mut all = String::new();
    for line in text.lines() {
        let _ = write!(all, "ima-init: {}\r\n", printable(line));
    }
    match open_file(c"/dev/console", WRITE, Mode::empty()) {
        Ok(console) => print(console, &all),
        // The kernel opened /dev/console of the initramfs as stderr of the init.
        Err(_) => print(rustix::stdio::stderr(), &all),
    }
}

/// Writes a text; what cannot be written is lost, as there is nowhere else to say so.
pub fn print(file: impl AsFd, text: &str) {
    let file = file.as_fd();
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match rustix::io::write(file, rest) {
            Ok(0) => return,
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

const fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn record(severity: u8, line: &str) -> String {
    let mut record = format!("<{}>ima-init: {}", FACILITY | severity, printable(line));
    let mut end = MAX_RECORD.min(record.len());
    while !record.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    record.truncate(end);
    record
}

/// Replaces control characters, so that file names and labels of a hostile disk cannot send escape sequences to the console.
fn printable(line: &str) -> Cow<'_, str> {
    if line.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return line.into();
    }
    line.chars()
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_its_level_and_no_control_characters() {
        assert_eq!(record(3, "root: \u{1b}[2Jx"), "<27>ima-init: root: ?[2Jx");
    }

    #[test]
    fn a_long_record_is_cut_between_characters() {
        let cut = record(6, &"é".repeat(2000));
        assert!(cut.len() <= MAX_RECORD && cut.len() > MAX_RECORD - 4);
    }
}
