//! How a refused boot ends. The only program that is executed then is the shell of `on_failure=shell`, for which the
//! configuration in the initramfs must have `debug=yes` too.

use std::ffi::CStr;
use std::sync::Mutex;
use std::time::Duration;

use ima::config::{Config, FAILURE_DELAY, ON_FAILURE, OnFailure};
use ima::fault::{Code, Fault};
use ima::keyring::KeyringName;
use ima::layout::ROOT;
use ima_keyring::{Keyring, root_keyring, seal};
use log::error;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::system::{RebootCommand, reboot};

use crate::errno::describe;
use crate::kernel_files;
use crate::process;
use crate::syscalls;
use crate::watch;

/// The environment variable with the action and the delay, from the init to switch_root.
pub const VARIABLE: &str = "IMA_INIT_ON_FAILURE";

/// Where the root is mounted by this init, by initramfs-tools, and by dracut.
const ROOTS: [&str; 3] = [ROOT, "/root", "/sysroot"];

/// The time limit for a device to shut down or to complete its writes.
const LIMIT: Duration = Duration::from_secs(30);

/// Takes commands that the kernel executes at once (Documentation/admin-guide/sysrq.rst).
const SYSRQ: &CStr = c"/proc/sysrq-trigger";

/// The action after a refusal, and the delay before it.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// The action.
    pub action: OnFailure,
    /// How long the message stays on the console before the action.
    pub delay: Duration,
    /// The PCR that a refusal is measured into before a shell is started.
    pub measure_pcr: Option<u8>,
    /// Executes the shell, and returns if that fails. Only [`Ending::of`] sets it: switch_root starts none, and has no code for it.
    shell: Option<fn()>,
}

impl Default for Ending {
    fn default() -> Self {
        Self {
            action: ON_FAILURE,
            delay: FAILURE_DELAY,
            measure_pcr: None,
            shell: None,
        }
    }
}

impl Ending {
    /// The ending that a configuration chose.
    pub const fn of(config: &Config) -> Self {
        Self {
            action: config.on_failure,
            delay: config.failure_delay,
            measure_pcr: config.measure_pcr,
            shell: Some(shell),
        }
    }

    /// `ACTION:SECONDS`, for [`VARIABLE`]. Not `shell`: the initramfs with its shell may be deleted when switch_root fails.
    pub fn to_text(self) -> String {
        let ending = self.without_shell();
        format!("{}:{}", ending.action.name(), ending.delay.as_secs())
    }

    /// Whether a shell is started.
    pub fn is_shell(self) -> bool {
        self.action == OnFailure::Shell
    }

    /// The same with a restart in the place of a shell.
    pub fn without_shell(self) -> Self {
        let action = match self.action {
            OnFailure::Shell => OnFailure::Reboot,
            action => action,
        };
        Self { action, ..self }
    }

    /// Parses what [`Ending::to_text`] returns; the default ending for any other text.
    pub fn from_text(text: &str) -> Self {
        let parse = || {
            let (action, delay) = text.split_once(':')?;
            let action =
                OnFailure::from_name(action).filter(|action| *action != OnFailure::Shell)?;
            let delay = ima::config::seconds(delay)?;
            Some(Self {
                action,
                delay,
                ..Self::default()
            })
        };
        parse().unwrap_or_default()
    }
}

/// Prints what was refused, why, and what to do; waits for the delay; takes the action. Never returns.
pub fn end(fault: &Fault, ending: Ending) -> ! {
    watch::stop();
    print(fault, ending);
    let device = if process::run_for(LIMIT, &unmount_roots) {
        Device::Answers
    } else {
        error!("the root's device does not answer; its file system is left as it is");
        Device::DoesNotAnswer
    };
    act(ending, device)
}

/// The same from another process while PID 1 waits for a device that does not answer. It does not touch the root, and starts no
/// shell, because PID 1 waits and could not go on after it.
pub fn end_from_watch(fault: &Fault, ending: Ending) -> ! {
    let ending = ending.without_shell();
    print(fault, ending);
    act(ending, Device::DoesNotAnswer)
}

/// Whether the root's device completes what it is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Device {
    Answers,
    DoesNotAnswer,
}

fn print(fault: &Fault, ending: Ending) {
    error!("refused: {fault}");
    let seconds = ending.delay.as_secs();
    error!("action: {} in {seconds} s", ending.action.name());
}

/// Makes the root read-only before it is unmounted, so that its file system is clean although open files delay the unmounting.
fn unmount_roots() {
    for root in ROOTS {
        let _ = mount_remount(root, MountFlags::RDONLY, c"");
        let _ = unmount(root, UnmountFlags::DETACH);
    }
    rustix::fs::sync();
}

/// reboot(2), for which the kernel first shuts down every device and waits for it (kernel/reboot.c, `kernel_restart`;
/// drivers/base/core.c, `device_shutdown`). Returns if the kernel refuses or a device does not answer.
fn reboot_orderly(command: RebootCommand) {
    process::run_for(LIMIT, &|| {
        let _ = reboot(command);
    });
}

/// Restarts without shutting down devices (drivers/tty/sysrq.c, `sysrq_handle_reboot`). Returns without CONFIG_MAGIC_SYSRQ.
fn reboot_at_once() {
    let _ = kernel_files::write(SYSRQ, b"b\n");
}

fn act(ending: Ending, device: Device) -> ! {
    process::sleep(ending.delay);
    match ending.action {
        OnFailure::Reboot => {}
        OnFailure::Poweroff => reboot_orderly(RebootCommand::PowerOff),
        OnFailure::Halt => {
            reboot_orderly(RebootCommand::Halt);
            // The kernel cannot halt: this is the closest to it.
            forever();
        }
        OnFailure::Panic => {
            let _ = kernel_files::write(c"/proc/sys/kernel/sysrq", b"1\n");
            let _ = kernel_files::write(SYSRQ, b"c\n");
            // Without CONFIG_MAGIC_SYSRQ, the kernel panics when PID 1 ends.
            if std::process::id() == 1 {
                syscalls::exit(1);
            }
        }
        OnFailure::Shell => {
            if let Some(shell) = ending.shell {
                shell();
            }
        }
    }
    match device {
        Device::Answers => {
            reboot_orderly(RebootCommand::Restart);
            reboot_at_once();
        }
        Device::DoesNotAnswer => {
            reboot_at_once();
            reboot_orderly(RebootCommand::Restart);
        }
    }
    error!(
        "the kernel refused to {}; switch the machine off",
        ending.action.name()
    );
    forever()
}

/// Executes the shell of the initramfs; returns only if that fails. Where systemd is PID 1, this process ends with an error,
/// and systemd starts its emergency shell.
fn shell() {
    if std::process::id() != 1 {
        syscalls::exit(1);
    }
    // A refusal before the certificates were added leaves it as the kernel made it.
    if let Some(keyring) = root_keyring(KeyringName::DmVerity) {
        let _ = seal(Keyring::Serial(keyring));
    }
    let arguments = [c"sh"];
    let environment = [
        c"HOME=/",
        c"TERM=linux",
        c"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    ];
    let errno = syscalls::execute(c"/bin/sh", &arguments, &environment);
    error!(
        "/bin/sh of the initramfs could not be started: {}; rebooting",
        describe(errno)
    );
}

fn forever() -> ! {
    loop {
        rustix::event::pause();
    }
}

/// The ending of a boot that panics or runs out of memory; `None` once a lack of memory has used it.
static ENDING: Mutex<Option<Ending>> = Mutex::new(None);

/// Refuses the boot for lack of memory. Returns where no ending is set, or if there is no memory for this refusal either.
fn out_of_memory(bytes: usize) {
    let ending = ENDING.try_lock().ok().and_then(|mut ending| ending.take());
    if let Some(ending) = ending {
        end(
            &Fault::new(Code::NoMemory, format!("{bytes} bytes are wanted")),
            ending,
        );
    }
}

/// Refuses the boot for a panic of a program that `build/ship` made, which has no messages of panics: the address of the
/// instruction is all that is known of it.
fn crashed(address: usize) -> ! {
    let ending = ENDING.try_lock().ok().and_then(|ending| *ending);
    let detail = format!("it stopped at the address {address:#x}");
    end(
        &Fault::new(Code::Internal, detail),
        ending.unwrap_or_default(),
    )
}

/// Makes a panic and a lack of memory end like any refusal, and not with the kernel's panic "Attempted to kill init".
pub fn catch_panics(ending: Ending) {
    syscalls::on_out_of_memory(out_of_memory);
    syscalls::on_crash(crashed);
    if let Ok(mut known) = ENDING.try_lock() {
        *known = Some(ending);
    }
    // Not called in a program of `build/ship`.
    #[cfg(not(panic = "immediate-abort"))]
    std::panic::set_hook(Box::new(move |panic| {
        end(&Fault::new(Code::Internal, panic.to_string()), ending);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_round_trips() {
        for action in [
            OnFailure::Reboot,
            OnFailure::Poweroff,
            OnFailure::Halt,
            OnFailure::Panic,
        ] {
            let ending = Ending {
                action,
                delay: Duration::from_secs(3),
                ..Ending::default()
            };
            let parsed = Ending::from_text(&ending.to_text());
            assert_eq!((parsed.action, parsed.delay), (ending.action, ending.delay));
            assert!(parsed.measure_pcr.is_none() && parsed.shell.is_none());
        }
    }

    #[test]
    fn no_text_gives_a_shell() {
        for text in ["shell:0", "", "reboot", "reboot:x", ":", "shell"] {
            let parsed = Ending::from_text(text);
            let default = Config::default();
            assert_eq!(parsed.action, default.on_failure, "{text}");
            assert_eq!(parsed.delay, default.failure_delay, "{text}");
            assert!(parsed.shell.is_none(), "{text}");
        }
        let shell = Ending {
            action: OnFailure::Shell,
            delay: Duration::ZERO,
            ..Ending::default()
        };
        assert_eq!(shell.to_text(), "reboot:0");
    }
}
