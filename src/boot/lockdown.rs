//! Lockdown and kexec: ways to change or replace the running kernel that IMA does not control.

use std::fs::OpenOptions;
use std::io::{self, Write as _};

use ima::config::{Config, Lockdown, lists_lockdown};
use ima::fault::{Code, Fault};
use log::info;

/// The level in force; a level that is written to it is set.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// The security modules in force.
const MODULES: &str = "/sys/kernel/security/lsm";

/// Does not exist in a kernel without kexec. Once it is 1, it stays so until the next boot.
const KEXEC: &str = "/proc/sys/kernel/kexec_load_disabled";

/// Locks the kernel down as the configuration says, and disables kexec unless it allows that.
///
/// # Errors
///
/// [`Code::NoLockdown`], [`Code::LockdownNotInForce`], [`Code::KexecOpen`].
pub fn close(config: &Config) -> Result<(), Fault> {
    if config.lockdown > Lockdown::No {
        info!("lockdown: {}", lock_down(config.lockdown)?.name());
    }
    if config.kexec {
        return Ok(());
    }
    match write(KEXEC, "1\n") {
        Ok(()) => info!("lockdown: kexec is disabled"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Fault::new(Code::KexecOpen, format!("{KEXEC}: {error}"))),
    }
    Ok(())
}

/// Writes to an existing file of the kernel. Opened without O_CREAT, a missing file gives ENOENT, and not EACCES.
fn write(path: &str, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// Sets a level and returns the one in force: the same or a higher one.
fn lock_down(wanted: Lockdown) -> Result<Lockdown, Fault> {
    let unreadable = |path: &str, error: io::Error| {
        Fault::new(Code::LockdownNotInForce, format!("{path}: {error}"))
    };
    // EPERM: this level or a higher one is in force already. After any error but ENOENT the file shows the level in force.
    match write(LOCKDOWN, wanted.name()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Fault::new(Code::NoLockdown, format!("{LOCKDOWN}: {error}")));
        }
        _ => {}
    }
    // If lsm= does not list lockdown, the file shows any level that was written to it, but nothing is forbidden.
    let modules = std::fs::read_to_string(MODULES).map_err(|error| unreadable(MODULES, error))?;
    if !lists_lockdown(&modules) {
        let detail = format!("the security modules in force are {}", modules.trim());
        return Err(Fault::new(Code::LockdownNotInForce, detail));
    }
    let text = std::fs::read_to_string(LOCKDOWN).map_err(|error| unreadable(LOCKDOWN, error))?;
    match Lockdown::shown(&text) {
        Some(level) if level >= wanted => Ok(level),
        _ => {
            let detail = format!("{LOCKDOWN} shows: {}", text.trim());
            Err(Fault::new(Code::LockdownNotInForce, detail))
        }
    }
}
