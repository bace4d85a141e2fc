use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::report::Report;

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest switched it off.
    PowerOff,
    /// The guest restarted it.
    Reboot,
    /// The guest halted: the kernel said so and stands still; we ended the machine.
    Halt,
    /// The kernel panicked, with these words.
    Panic(String),
    /// We ended it, as asked: [`crate::Running::kill`].
    Killed,
    /// It ran into its time limit, and we ended it.
    TimedOut,
    /// QEMU itself ended: its exit status and what it wrote.
    Broken(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::PowerOff => f.write_str("power-off"),
            Ending::Reboot => f.write_str("reboot"),
            Ending::Halt => f.write_str("halt"),
            Ending::Panic(words) => write!(f, "kernel panic: {words}"),
            Ending::Killed => f.write_str("killed"),
            Ending::TimedOut => f.write_str("time limit"),
            Ending::Broken(words) => write!(f, "QEMU ended: {words}"),
        }
    }
}

/// What became of a machine.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// All that its serial console showed; bytes that are not UTF-8 replaced.
    pub console: String,
    /// What the guest program reported, in order.
    pub reports: Vec<Report>,
    /// What came over the report's port and was no message, with the reason.
    pub garbled: Vec<String>,
    /// QEMU's own events, as QMP gives them.
    pub events: Vec<Value>,
    /// How long it ran.
    pub ran: Duration,
}

impl Outcome {
    /// The last report of the guest program.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.reports.last()
    }

    /// Whether any line of the console contains this text.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        self.console.contains(text)
    }

    /// Whether the guest program ran at all: it says so on the console before it does anything else.
    #[must_use]
    pub fn guest_ran(&self) -> bool {
        !self.reports.is_empty() || self.says(crate::report::HELLO)
    }
}

const PANIC: &str = "Kernel panic - not syncing: ";

/// The words of a panic, if the console shows one.
pub(crate) fn panic_words(console: &str) -> Option<String> {
    let (_, rest) = console.split_once(PANIC)?;
    Some(
        rest.lines()
            .next()
            .unwrap_or_default()
            .trim_end()
            .to_owned(),
    )
}

/// Whether the kernel stands still for good. A panic without `panic=` ends in this line (kernel/panic.c); a halt in
/// the other (kernel/reboot.c).
pub(crate) fn stands_still(console: &str) -> bool {
    console.contains("---[ end Kernel panic") || console.contains("reboot: System halted")
}

/// Whether the kernel says that it restarts the machine: after its devices were shut down (kernel/reboot.c), or without
/// (drivers/tty/sysrq.c).
fn restarts(console: &str) -> bool {
    console.contains("reboot: Restarting system") || console.contains("sysrq: Resetting")
}

/// How the machine ended, from QEMU's last words and the guest's.
pub(crate) fn ending(console: &str, events: &[Value], broken: impl FnOnce() -> String) -> Ending {
    if let Some(words) = panic_words(console) {
        return Ending::Panic(words);
    }
    if console.contains("reboot: System halted") {
        return Ending::Halt;
    }
    let reason = events
        .iter()
        .rev()
        .find(|event| event["event"] == "SHUTDOWN")
        .and_then(|event| event["data"]["reason"].as_str());
    match reason {
        Some("guest-shutdown") => Ending::PowerOff,
        // A triple fault resets the machine too, but the kernel says nothing then.
        Some("guest-reset") if restarts(console) => Ending::Reboot,
        Some(reason) => Ending::Broken(format!("{reason}, without the kernel's words of a reboot")),
        None => Ending::Broken(broken()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endings() {
        let shutdown = |reason: &str| {
            vec![json!({"event": "SHUTDOWN", "data": {"guest": true, "reason": reason}})]
        };
        let rows = [
            (
                "power-off",
                "reboot: Power down\n",
                shutdown("guest-shutdown"),
                Ending::PowerOff,
            ),
            (
                "reboot",
                "reboot: Restarting system\n",
                shutdown("guest-reset"),
                Ending::Reboot,
            ),
            (
                "reboot at once",
                "sysrq: Resetting\n",
                shutdown("guest-reset"),
                Ending::Reboot,
            ),
            (
                "halt",
                "[ 1.0] reboot: System halted\n",
                vec![],
                Ending::Halt,
            ),
            (
                "panic that reboots",
                "[ 1.0] Kernel panic - not syncing: Attempted to kill init!\r\nreboot: Restarting system\n",
                shutdown("guest-reset"),
                Ending::Panic("Attempted to kill init!".into()),
            ),
            (
                "triple fault",
                "[ 1.0] booting\n",
                shutdown("guest-reset"),
                Ending::Broken("guest-reset, without the kernel's words of a reboot".into()),
            ),
            ("crash", "", vec![], Ending::Broken("signal 11".into())),
        ];
        for (name, console, events, expected) in rows {
            assert_eq!(
                ending(console, &events, || "signal 11".into()),
                expected,
                "{name}"
            );
        }
    }
}
