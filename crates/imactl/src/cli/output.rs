//! What is printed: results to standard output, everything else to standard error.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ima::fault::{Code, Fault};
use indicatif::{ProgressBar, ProgressStyle};

/// Prints a line of results.
///
/// # Errors
///
/// `IMA-902` if standard output is closed or full.
pub fn line(text: fmt::Arguments<'_>) -> imactl::Result<()> {
    writeln!(std::io::stdout(), "{text}")
        .map_err(|error| Fault::new(Code::OutputUnwritable, format!("standard output: {error}")))
}

/// Prints a value as JSON.
///
/// # Errors
///
/// `IMA-902` if standard output is closed or full.
pub fn json(value: &serde_json::Value) -> imactl::Result<()> {
    line(format_args!("{value:#}"))
}

/// Prints a line to standard error. Nothing can be done if that fails.
pub fn warn(text: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A path fit for a terminal: control characters escaped, bytes that are no UTF-8 replaced.
pub fn shown(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// Progress of work on many files: a bar on a terminal, a line every few seconds elsewhere.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    total: u64,
    plain: Mutex<(u64, Instant)>,
}

impl Progress {
    /// So many files will be worked on.
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
            plain: Mutex::new((0, Instant::now())),
        }
    }

    /// One more is done.
    pub fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
            return;
        }
        let Ok(mut plain) = self.plain.lock() else {
            return;
        };
        plain.0 += 1;
        if plain.1.elapsed() > Duration::from_secs(5) {
            plain.1 = Instant::now();
            warn(format_args!(
                "{}: {} of {} files",
                self.what, plain.0, self.total
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
