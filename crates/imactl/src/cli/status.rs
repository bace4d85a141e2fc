//! `imactl status`

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use imactl::status::{Check, Item, KernelLog, State, Status, System, exit_status};

use super::options::OutputOptions;
use super::outcome::{Outcome, Result};
use super::output;

/// Show what is in force on the running system
///
/// What booted it, Secure Boot, command line, TPM, keyrings, the policy and how the init proved it, the root, the measurement list
/// against the TPM, denials since boot with cause and remedy, and the init's warnings. Root sees more than others.
#[derive(Debug, Args)]
#[command(after_help = "\
Signs:
  ✓  as it should be                       (+ without UTF-8)
  ·  cannot be seen from here              (-)
  !  somebody should look at it            (!)
  ✗  not in force, or cannot be told       (X)

Exit status:
  0  nothing to look at
  1  something to look at: denials, an open command line, a warning of the init
  2  not in force, or that cannot be told: no report of the init, a permissive boot, PCRs that do not fit; or an error

Examples:
  imactl status
  imactl status --accept command-line --accept secure-boot
  imactl status --watch
  imactl status --metrics --out /var/lib/prometheus/node-exporter/ima.prom
  imactl status --json | jq '.checks[] | select(.state != \"good\")'
  imactl status --record bundle                                        for a support case
  imactl status --root bundle")]
pub struct StatusCommand {
    /// Read the files of a system from this directory: a recorded tree of /proc, /sys, /run and /dev/kmsg
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Also write the files that were read into a new directory, for --root. They contain the measurement list and the command line
    #[arg(long, value_name = "DIR", conflicts_with_all = ["root", "watch"])]
    record: Option<PathBuf>,
    /// An item that does not count for the exit status, such as secure-boot on a board without UEFI; may be repeated
    #[arg(long, value_name = "ITEM", value_parser = item)]
    accept: Vec<Item>,
    /// Show it again every so many seconds, and when something is denied, until it is interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "10", conflicts_with_all = ["root", "json"],
        value_parser = clap::value_parser!(u32).range(1..=86400))]
    watch: Option<u32>,
    /// Print the status as metrics, for node_exporter's textfile collector. The exit status is then 0
    #[arg(long, conflicts_with_all = ["watch", "json"])]
    metrics: bool,
    /// Write the metrics into this file, beside it first and then renamed
    #[arg(long, value_name = "FILE", requires = "metrics")]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: OutputOptions,
}

fn item(name: &str) -> std::result::Result<Item, String> {
    Item::from_name(name).ok_or_else(|| {
        let names = Item::ALL.map(Item::name).join(", ");
        format!("no item `{name}`; there are {names}")
    })
}

/// The time now, in seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// The system in the directory of `--root`, else the running one.
pub fn system(root: Option<&PathBuf>) -> imactl::Result<System> {
    root.map_or_else(|| Ok(System::running()), |root| System::recorded(root))
}

impl StatusCommand {
    pub fn run(self) -> Result {
        if let Some(seconds) = self.watch {
            return self.watch(Duration::from_secs(seconds.into()));
        }
        let mut system = system(self.root.as_ref())?;
        if self.record.is_some() {
            system = system.recording();
        }
        let status = Status::of(&system, now());
        if let Some(directory) = &self.record {
            system.write_recording(directory)?;
        }
        if self.metrics {
            let text = status.metrics(&self.accept);
            match &self.out {
                Some(path) => imactl::file::write(path, text.as_bytes(), 0o644, true)?,
                None => output::line(format_args!("{}", text.trim_end()))?,
            }
            return Ok(Outcome::Good);
        }
        let checks = status.checks();
        if self.output.json {
            output::json(&status.json(&self.accept))?;
        } else {
            let screen = screen(&checks, &self.accept, Style::of_the_terminal());
            output::line(format_args!("{}", screen.trim_end()))?;
        }
        Ok(match exit_status(&checks, &self.accept) {
            0 => Outcome::Good,
            status => Outcome::Found(status),
        })
    }

    /// Redraws the screen at each denial, and when the time is over.
    fn watch(&self, time: Duration) -> Result {
        /// Between two screens, so that many denials do not occupy the machine.
        const PAUSE: Duration = Duration::from_secs(1);
        let style = Style::of_the_terminal();
        let mut log = KernelLog::open().ok();
        let system = System::running();
        loop {
            // What is logged from here on is waited for below.
            if let Some(log) = &mut log {
                log.skip();
            }
            let checks = Status::of(&system, now()).checks();
            let clear = if style.terminal { "\x1b[H\x1b[2J" } else { "" };
            let screen = screen(&checks, &self.accept, style);
            output::line(format_args!("{clear}{screen}"))?;
            std::thread::sleep(PAUSE);
            let left = time.saturating_sub(PAUSE);
            match &mut log {
                Some(log) => log.wait(left),
                None => std::thread::sleep(left),
            }
        }
    }
}

/// How a screen is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Style {
    utf8: bool,
    terminal: bool,
    color: bool,
}

impl Style {
    fn of_the_terminal() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        // As setlocale(3) looks for the locale of LC_CTYPE.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(variable);
        let locale = locale.map(|name| name.to_string_lossy().to_ascii_lowercase());
        let terminal = std::io::stdout().is_terminal();
        Self {
            utf8: locale.is_some_and(|name| name.contains("utf-8") || name.contains("utf8")),
            terminal,
            // https://no-color.org/
            color: terminal && variable("NO_COLOR").is_none(),
        }
    }

    /// The sign of a state, in a column, and a blank.
    fn sign(self, state: State) -> String {
        let (ascii, color) = match state {
            State::Good => ("+", "32"),
            State::NotVisible => ("-", "2"),
            State::Attention => ("!", "33"),
            State::Failed => ("X", "31"),
        };
        let sign = if self.utf8 { state.sign() } else { ascii };
        if self.color {
            format!("\x1b[{color}m{sign}\x1b[0m ")
        } else {
            format!("{sign} ")
        }
    }

    /// Text fit for the terminal: what is not printable, or not ASCII where that is not UTF-8, is escaped.
    fn text(self, text: &str) -> String {
        if self.utf8 {
            imactl::text::printable(text)
        } else {
            imactl::text::printable(text)
                .chars()
                .map(|character| match character.is_ascii() {
                    true => character.to_string(),
                    false => character.escape_default().to_string(),
                })
                .collect()
        }
    }
}

/// One screen: a line for each item, its details below it.
fn screen(checks: &[Check], accepted: &[Item], style: Style) -> String {
    let mut screen = String::new();
    for check in checks {
        let note = if accepted.contains(&check.item) && check.state >= State::Attention {
            " (accepted)"
        } else {
            ""
        };
        screen.push_str(&format!(
            "{}{:<14}{}{note}\n",
            style.sign(check.state),
            check.item.label(),
            style.text(&check.text)
        ));
        for detail in &check.details {
            screen.push_str(&format!("{:16}{}\n", "", style.text(detail)));
        }
    }
    screen
}
