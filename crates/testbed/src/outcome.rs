use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::firmware::NOTHING_TO_BOOT;
use crate::report::Report;

/// The way in which a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// The guest switched the machine off.
    PowerOff,
    /// The guest restarted the machine.
    Reboot,
    /// The guest halted: the kernel printed "System halted" and stopped. The library then ended the machine.
    Halt,
    /// The UEFI firmware found nothing that it would start, and stopped. The console has its reason for each device, such as
    /// "Access Denied" for a program without a signature that Secure Boot accepts. The library then ended the machine. Without Secure
    /// Boot, OVMF starts a shell instead.
    NothingToBoot,
    /// The kernel panicked, with this message.
    Panic(String),
    /// [`crate::Running::kill`] ended the machine.
    Killed,
    /// The machine reached its time limit, and the library ended it.
    TimedOut,
    /// QEMU itself ended, with this exit status and error output.
    QemuFailed(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::PowerOff => f.write_str("power-off"),
            Ending::Reboot => f.write_str("reboot"),
            Ending::Halt => f.write_str("halt"),
            Ending::NothingToBoot => f.write_str("nothing to boot"),
            Ending::Panic(message) => write!(f, "kernel panic: {message}"),
            Ending::Killed => f.write_str("killed"),
            Ending::TimedOut => f.write_str("time limit"),
            Ending::QemuFailed(reason) => write!(f, "QEMU failed: {reason}"),
        }
    }
}

/// The result of running a machine to its end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The way in which the machine ended.
    pub ending: Ending,
    /// Everything that the serial console showed. Bytes that are not UTF-8 are replaced.
    pub console: String,
    /// The reports of the guest program, in order.
    pub reports: Vec<Report>,
    /// Lines from the report port that are not valid messages, each with the reason.
    pub invalid_messages: Vec<String>,
    /// The events of QEMU, as QMP reports them.
    pub events: Vec<Value>,
    /// The time from the start of QEMU until the machine ended.
    pub duration: Duration,
}

impl Outcome {
    /// Returns the last report of the guest program, if there is one.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.reports.last()
    }

    /// Returns whether the console contains this text.
    #[must_use]
    pub fn console_contains(&self, text: &str) -> bool {
        self.console.contains(text)
    }

    /// Returns whether the guest program ran: it prints a line to the console before anything else.
    #[must_use]
    pub fn guest_ran(&self) -> bool {
        !self.reports.is_empty() || self.console_contains(crate::report::GUEST_STARTED)
    }
}

const PANIC: &str = "Kernel panic - not syncing: ";

/// Returns the message of a panic, if the console shows one.
pub(crate) fn panic_message(console: &str) -> Option<String> {
    let (_, rest) = console.split_once(PANIC)?;
    Some(
        rest.lines()
            .next()
            .unwrap_or_default()
            .trim_end()
            .to_owned(),
    )
}

/// Returns whether this console shows that the kernel has stopped for good, or the firmware without a kernel. A panic without `panic=` ends with the first
/// line (kernel/panic.c), a halt with the second (kernel/reboot.c).
#[must_use]
pub fn has_stopped(console: &str) -> bool {
    console.contains("---[ end Kernel panic")
        || console.contains("reboot: System halted")
        || console.contains(NOTHING_TO_BOOT)
}

/// Returns whether the kernel printed that it restarts the machine: after shutting its devices down (kernel/reboot.c), or at
/// once (drivers/tty/sysrq.c).
fn printed_restart(console: &str) -> bool {
    console.contains("reboot: Restarting system") || console.contains("sysrq: Resetting")
}

/// How QEMU ended.
#[derive(Debug, Clone)]
pub(crate) struct Exit {
    /// Whether its exit status is 0.
    pub(crate) success: bool,
    /// The exit status and the error output.
    pub(crate) text: String,
}

/// Determines how the machine ended from the console, the events of QEMU and how QEMU ended.
pub(crate) fn ending(console: &str, events: &[Value], exit: &Exit) -> Ending {
    if let Some(message) = panic_message(console) {
        return Ending::Panic(message);
    }
    if console.contains("reboot: System halted") {
        return Ending::Halt;
    }
    if console.contains(NOTHING_TO_BOOT) {
        return Ending::NothingToBoot;
    }
    let reason = events
        .iter()
        .rev()
        .find(|event| event["event"] == "SHUTDOWN")
        .and_then(|event| event["data"]["reason"].as_str());
    match reason {
        Some("guest-shutdown") => Ending::PowerOff,
        // A triple fault resets the machine too, but the kernel prints nothing then.
        Some("guest-reset") if printed_restart(console) => Ending::Reboot,
        Some(reason) => Ending::QemuFailed(format!("{reason}, but the kernel printed no restart")),
        // QEMU 7.2 ends a RISC-V machine without an event (hw/misc/sifive_test.c).
        None if exit.success && console.contains("reboot: Power down") => Ending::PowerOff,
        None => Ending::QemuFailed(exit.text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endings_are_told_apart() {
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
                Ending::QemuFailed("guest-reset, but the kernel printed no restart".into()),
            ),
            (
                "firmware",
                "BdsDxe: failed to load Boot0001: Access Denied\r\nBdsDxe: No bootable option or device was found.\r\n",
                vec![],
                Ending::NothingToBoot,
            ),
            ("crash", "", vec![], Ending::QemuFailed("signal 11".into())),
            (
                "crash after the power-off",
                "reboot: Power down\n",
                vec![],
                Ending::QemuFailed("signal 11".into()),
            ),
        ];
        let crash = Exit {
            success: false,
            text: "signal 11".to_owned(),
        };
        for (name, console, events, expected) in rows {
            assert_eq!(ending(console, &events, &crash), expected, "{name}");
        }
        let end = Exit {
            success: true,
            text: "exit status: 0".to_owned(),
        };
        let without_event = |console| ending(console, &[], &end);
        assert_eq!(without_event("reboot: Power down\n"), Ending::PowerOff);
        assert_eq!(
            without_event("booting\n"),
            Ending::QemuFailed("exit status: 0".to_owned())
        );
    }
}
