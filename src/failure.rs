//! How a refused boot ends. Nothing here leads to another program but `on_failure=shell`, which the configuration in
//! the initramfs must have asked for twice.

use std::sync::Mutex;
use std::time::Duration;

use ima::config::{Config, OnFailure};
use ima::fault::{Code, Fault};
use ima::layout::ROOT;
use log::error;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::system::{RebootCommand, reboot};

use crate::watch;

/// The variable in which the init hands its action on to switch_root.
pub const VARIABLE: &str = "IMA_INIT_ON_FAILURE";

/// Where the root may be mounted: by this init, by initramfs-tools, by dracut.
const ROOTS: [&str; 3] = [ROOT, "/root", "/sysroot"];

/// How long a device is given to shut down or to take what is written to it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the kernel takes commands that ask nobody (Documentation/admin-guide/sysrq.rst).
const SYSRQ: &str = "/proc/sysrq-trigger";

/// What a refusal ends in, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The action.
    pub action: OnFailure,
    /// How long the message stays before it.
    pub delay: Duration,
}

impl Default for Ending {
    fn default() -> Self {
        Self::of(&Config::default())
    }
}

impl Ending {
    /// The ending that a configuration chose.
    pub const fn of(config: &Config) -> Self {
        Self {
            action: config.on_failure,
            delay: config.failure_delay,
        }
    }

    /// `ACTION:SECONDS`, for [`VARIABLE`]. The shell is of the initramfs, which is gone when switch_root fails.
    pub fn to_text(self) -> String {
        let ending = self.without_shell();
        format!("{}:{}", ending.action.name(), ending.delay.as_secs())
    }

    fn without_shell(self) -> Self {
        let action = match self.action {
            OnFailure::Shell => OnFailure::Reboot,
            action => action,
        };
        Self { action, ..self }
    }

    /// The ending of such a text; the default one if it is none.
    pub fn from_text(text: &str) -> Self {
        let parse = || {
            let (action, delay) = text.split_once(':')?;
            let action =
                OnFailure::from_name(action).filter(|action| *action != OnFailure::Shell)?;
            let delay = ima::config::seconds(delay)?;
            Some(Self { action, delay })
        };
        parse().unwrap_or_default()
    }
}

/// Says what was refused, why, and what now; waits; does the action. Never returns.
pub fn end(fault: &Fault, ending: Ending) -> ! {
    watch::stop();
    say(fault, ending);
    let answers = watch::within(PATIENCE, &leave);
    if !answers {
        error!("the root's device does not answer; its file system is left as it is");
    }
    act(ending, answers)
}

/// The same beside PID 1, which waits for a device that does not answer, and so without a look at the root. Without a shell
/// too: PID 1 could not take the machine back from it.
pub fn end_beside(fault: &Fault, ending: Ending) -> ! {
    let ending = ending.without_shell();
    say(fault, ending);
    act(ending, false)
}

fn say(fault: &Fault, ending: Ending) {
    error!("refused: {fault}");
    let seconds = ending.delay.as_secs();
    error!("action: {} in {seconds} s", ending.action.name());
}

/// A file system that was written to is left clean; open files keep it from being unmounted at once.
fn leave() {
    for root in ROOTS {
        let _ = mount_remount(root, MountFlags::RDONLY, "");
        let _ = unmount(root, UnmountFlags::DETACH);
    }
    rustix::fs::sync();
}

/// Asks the kernel, which asks every device to shut down first and waits for it (kernel/reboot.c, `kernel_restart`;
/// drivers/base/core.c, `device_shutdown`). Comes back if the kernel refuses or a device does not answer.
fn orderly(command: RebootCommand) {
    watch::within(PATIENCE, &|| {
        let _ = reboot(command);
    });
}

/// Restarts without asking any device (drivers/tty/sysrq.c, `sysrq_handle_reboot`). Comes back without CONFIG_MAGIC_SYSRQ.
fn at_once() {
    let _ = std::fs::write(SYSRQ, "b\n");
}

fn act(ending: Ending, answers: bool) -> ! {
    std::thread::sleep(ending.delay);
    match ending.action {
        OnFailure::Reboot => {}
        OnFailure::Poweroff => orderly(RebootCommand::PowerOff),
        OnFailure::Halt => {
            orderly(RebootCommand::Halt);
            // A kernel that cannot halt: stay, as it would have.
            forever();
        }
        OnFailure::Panic => {
            let _ = std::fs::write("/proc/sys/kernel/sysrq", "1\n");
            let _ = std::fs::write(SYSRQ, "c\n");
            // Without CONFIG_MAGIC_SYSRQ the end of PID 1 is the way to a panic.
            if std::process::id() == 1 {
                std::process::exit(1);
            }
        }
        OnFailure::Shell => shell(),
    }
    if answers {
        orderly(RebootCommand::Restart);
        at_once();
    } else {
        at_once();
        orderly(RebootCommand::Restart);
    }
    error!(
        "the kernel does not do this ({}); the machine stands still, switch it off",
        ending.action.name()
    );
    forever()
}

/// The initramfs's own shell; back here only if there is none. Where systemd is PID 1, it has the console, and its
/// emergency shell is the way to one: the end of this process with an error leads there.
fn shell() {
    if std::process::id() != 1 {
        std::process::exit(1);
    }
    let arguments = [c"sh"];
    let environment = [
        c"HOME=/",
        c"TERM=linux",
        c"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    ];
    let Err(errno) = nix::unistd::execve(c"/bin/sh", &arguments, &environment);
    error!(
        "/bin/sh of the initramfs could not be started ({}); rebooting",
        errno.desc()
    );
}

fn forever() -> ! {
    loop {
        std::thread::park();
    }
}

/// How a boot ends for which there is no memory, while it can.
static ENDING: Mutex<Option<Ending>> = Mutex::new(None);

/// Refuses the boot: there is no memory for it. Comes back if nothing said how it ends, or if this very refusal needs more.
pub fn out_of_memory(bytes: usize) {
    let ending = ENDING.try_lock().ok().and_then(|mut ending| ending.take());
    if let Some(ending) = ending {
        end(
            &Fault::new(Code::NoMemory, format!("{bytes} bytes are wanted")),
            ending,
        );
    }
}

/// Has a panic, and the end of the memory, end like any refusal: neither must read "Attempted to kill init".
pub fn catch_panics(ending: Ending) {
    if let Ok(mut known) = ENDING.lock() {
        *known = Some(ending);
    }
    std::panic::set_hook(Box::new(move |panic| {
        end(&Fault::new(Code::Internal, panic.to_string()), ending);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_survives_the_way_to_switch_root() {
        for action in [
            OnFailure::Reboot,
            OnFailure::Poweroff,
            OnFailure::Halt,
            OnFailure::Panic,
        ] {
            let ending = Ending {
                action,
                delay: Duration::from_secs(3),
            };
            assert_eq!(Ending::from_text(&ending.to_text()), ending);
        }
    }

    #[test]
    fn no_text_leads_to_a_shell() {
        for text in ["shell:0", "", "reboot", "reboot:x", ":", "shell"] {
            assert_eq!(Ending::from_text(text), Ending::default(), "{text}");
        }
        let shell = Ending {
            action: OnFailure::Shell,
            delay: Duration::ZERO,
        };
        assert_eq!(shell.to_text(), "reboot:0");
    }
}
