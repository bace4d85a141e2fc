//! What is printed: results to standard output, everything else to standard error.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ima::fault::{Code, Fault};
use indicatif::{ProgressBar, ProgressStyle};

/// Prints a line of results.
///
/// # Errors
///
/// [`Code::OutputUnwritable`] if standard output is closed or full.
pub fn line(text: fmt::Arguments<'_>) -> imactl::Result<()> {
    writeln!(std::io::stdout(), "{text}")
        .map_err(|error| Fault::new(Code::OutputUnwritable, format!("standard output: {error}")))
}

/// Prints text that need not be UTF-8.
///
/// # Errors
///
/// [`Code::OutputUnwritable`] if standard output is closed or full.
pub fn raw(bytes: &[u8]) -> imactl::Result<()> {
    std::io::stdout()
        .write_all(bytes)
        .map_err(|error| Fault::new(Code::OutputUnwritable, format!("standard output: {error}")))
}

/// Prints a value as JSON.
///
/// # Errors
///
/// [`Code::OutputUnwritable`] if standard output is closed or full.
pub fn json(value: &serde_json::Value) -> imactl::Result<()> {
    line(format_args!("{value:#}"))
}

/// Prints a line to standard error. Nothing can be done if that fails.
pub fn warn(text: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A path fit for a terminal: control characters escaped, bytes that are not UTF-8 replaced.
pub fn shown(path: &Path) -> String {
    imactl::text::printable(&path.to_string_lossy())
}

/// Progress of work on many files: a bar on a terminal, a line every few seconds elsewhere. No file waits for it.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    total: u64,
    start: Instant,
    done: AtomicU64,
    /// Seconds after the start when the next line is due.
    due: AtomicU64,
}

/// Seconds between two lines.
const PACE: u64 = 5;

impl Progress {
    /// So many files will be worked on; 0 if it is not known how many.
    pub fn new(what: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            if let Ok(style) = ProgressStyle::with_template(
                "{prefix} {bar:40} {pos}/{len} files, {per_sec}, {eta} left",
            ) {
                bar.set_style(style);
            }
            bar.set_prefix(what);
            bar
        });
        Self {
            bar,
            what,
            total,
            start: Instant::now(),
            done: AtomicU64::new(0),
            due: AtomicU64::new(PACE),
        }
    }

    /// One more is done.
    pub fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
            return;
        }
        let seconds = self.start.elapsed().as_secs();
        let due = self.due.load(Ordering::Relaxed);
        // Of those that come at the same time one prints the line.
        let mine = seconds >= due
            && self
                .due
                .compare_exchange(due, seconds + PACE, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine {
            let rate = done / seconds.max(1);
            let left = self.total.saturating_sub(done) / rate.max(1);
            if self.total == 0 {
                return warn(format_args!("{}: {done} files, {rate}/s", self.what));
            }
            warn(format_args!(
                "{}: {done} of {} files, {rate}/s, {left} s left",
                self.what, self.total
            ));
        }
    }

    /// All are done.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
