//! What IMA does not see: the kernel changed from below, or replaced by another.

use std::fs::OpenOptions;
use std::io::{self, Write as _};

use ima::config::{Config, Lockdown, lists_lockdown};
use ima::fault::{Code, Fault};
use log::info;

/// The level in force, and where another is asked for.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// The security modules in force.
const MODULES: &str = "/sys/kernel/security/lsm";

/// Not there in a kernel without kexec. What it holds is never less again before the next boot.
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

/// Writes to a file of the kernel's, which is not to be made: of one that is not there, it would say EACCES then.
fn write(path: &str, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// Asks for a level, and gives the one in force: the same or a higher.
fn lock_down(wanted: Lockdown) -> Result<Lockdown, Fault> {
    let unreadable = |path: &str, error: io::Error| {
        Fault::new(Code::LockdownNotInForce, format!("{path}: {error}"))
    };
    // EPERM says that this level or a higher one is in force already. Whatever it says, the file is read then.
    match write(LOCKDOWN, wanted.name()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Fault::new(Code::NoLockdown, format!("{LOCKDOWN}: {error}")));
        }
        _ => {}
    }
    // Where lsm= leaves the module out, the file takes a level and shows it, and nothing is forbidden.
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
