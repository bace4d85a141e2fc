//! Lockdown and kexec: ways to change or replace the running kernel that IMA does not control.

use ima::config::{Config, Lockdown, lists_lockdown};
use ima::fault::{Code, Fault};
use log::info;

use crate::errno::{Errno, describe};
use crate::kernel_files;

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
    match kernel_files::write(KEXEC, b"1\n") {
        Ok(()) => info!("lockdown: kexec is disabled"),
        Err(Errno::NOENT) => {}
        Err(errno) => {
            let detail = format!("{KEXEC}: {}", describe(errno));
            return Err(Fault::new(Code::KexecOpen, detail));
        }
    }
    Ok(())
}

/// Sets a level and returns the one in force: the same or a higher one.
fn lock_down(wanted: Lockdown) -> Result<Lockdown, Fault> {
    let unreadable = |path: &str, errno| {
        let detail = format!("{path}: {}", describe(errno));
        Fault::new(Code::LockdownNotInForce, detail)
    };
    // EPERM: this level or a higher one is in force already. After any error but ENOENT the file shows the level in force.
    if kernel_files::write(LOCKDOWN, wanted.name().as_bytes()) == Err(Errno::NOENT) {
        let detail = format!("{LOCKDOWN}: {}", describe(Errno::NOENT));
        return Err(Fault::new(Code::NoLockdown, detail));
    }
    // If lsm= does not list lockdown, the file shows any level that was written to it, but nothing is forbidden.
    let modules = kernel_files::text(MODULES).map_err(|errno| unreadable(MODULES, errno))?;
    if !lists_lockdown(&modules) {
        let detail = format!("the security modules in force are {}", modules.trim());
        return Err(Fault::new(Code::LockdownNotInForce, detail));
    }
    let text = kernel_files::text(LOCKDOWN).map_err(|errno| unreadable(LOCKDOWN, errno))?;
    match Lockdown::shown(&text) {
        Some(level) if level >= wanted => Ok(level),
        _ => {
            let detail = format!("{LOCKDOWN} shows: {}", text.trim());
            Err(Fault::new(Code::LockdownNotInForce, detail))
        }
    }
}
