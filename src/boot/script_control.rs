//! Script control: interpreters that ask the kernel are told to refuse what the policy denies.
//!
//! IMA appraises a script when it is executed by its name, and not when it is given to an interpreter as an argument. From Linux 6.14
//! an interpreter can ask whether a file could be executed (execveat() with AT_EXECVE_CHECK), and the bits that are set here tell it to
//! do so (Documentation/userspace-api/check_exec.rst).

use ima::config::ScriptControl;
use ima::fault::{Cause, Code, Fault};
use log::info;
use rustix::thread::{
    CapabilitiesSecureBits, capabilities_secure_bits, set_capabilities_secure_bits,
};

use crate::errno::describe;

/// Sets the bits that are demanded, and locks them, for this process and so for the real init and all that it starts.
///
/// # Errors
///
/// [`Code::NoScriptControl`]: the kernel does not know them.
pub fn set(wanted: ScriptControl) -> Result<(), Fault> {
    let bits = wanted.secure_bits();
    if bits == 0 {
        return Ok(());
    }
    let failed = |errno| Fault::new(Code::NoScriptControl, describe(errno).to_string());
    let before = capabilities_secure_bits().map_err(failed)?;
    let wanted = before | CapabilitiesSecureBits::from_bits_retain(bits);
    // A kernel that does not know a bit takes none of them: EPERM (security/commoncap.c, `cap_task_prctl`).
    set_capabilities_secure_bits(wanted).map_err(failed)?;
    info!("script control: the secure bits are {:#x}", wanted.bits());
    Ok(())
}

/// Refuses a boot that demands the bits where systemd is PID 1 already.
///
/// # Errors
///
/// [`Code::NoScriptControl`].
pub fn refuse_under_systemd(wanted: ScriptControl) -> Result<(), Fault> {
    if wanted.secure_bits() == 0 {
        return Ok(());
    }
    Err(Fault::new(Code::NoScriptControl, "").because(Cause::SYSTEMD_IS_RUNNING))
}
