//! The API file systems and the kernel's IMA.

use std::path::Path;

use ima::config::Config;
use ima::fault::{Code, Fault, Stage};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind};

use super::start::Start;
use crate::files::{self, describe};
use crate::logging;
use crate::report::Report;

/// Where the kernel's policy is written and read.
pub const POLICY: &str = "/sys/kernel/security/ima/policy";

/// Where EVM is switched on.
pub const EVM: &str = "/sys/kernel/security/evm";

/// For file systems of files that are no programs.
const CLOSED: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// The API file systems are mounted.
#[derive(Debug)]
pub struct Environment {
    tpm: bool,
}

/// Mounts what the boot works with, where another initramfs has not left it.
///
/// # Errors
///
/// [`Code::ApiMount`].
pub fn set_up(start: &Start, report: &mut Report) -> Result<Environment, Fault> {
    // The kernel leaves 077 only to programs that set it; directories made here are for everybody.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    api("devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755")?;
    logging::open();
    // Every mount of proc is another one (fs/proc/root.c, `proc_get_tree`): it would lie over the one that is there, and
    // over what is mounted in that.
    if !files::is_mount_point(Path::new("/proc")) {
        api("proc", "/proc", CLOSED, "")?;
    }
    // Now the console's level can be read.
    logging::open();
    api("sysfs", "/sys", CLOSED, "")?;
    run(start.root())?;
    let tpm = std::fs::read_dir("/sys/class/tpm").is_ok_and(|mut devices| devices.next().is_some());
    let kernel = rustix::system::uname();
    report.kernel = kernel.release().to_string_lossy().into_owned();
    report.tpm = tpm;
    let text = format!(
        "ima-init {} on Linux {}, {}",
        env!("CARGO_PKG_VERSION"),
        report.kernel,
        if tpm { "with a TPM" } else { "without a TPM" }
    );
    report.done(Stage::Environment, &text);
    Ok(Environment { tpm })
}

/// The tmpfs on /run: a new one, or that of the initramfs which mounted the root; it may be in the root already.
fn run(root: Option<&Path>) -> Result<(), Fault> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let Some(root) = root else {
        return api("tmpfs", "/run", flags, "mode=0755");
    };
    if files::is_mount_point(Path::new("/run")) {
        return Ok(());
    }
    let moved = root.join("run");
    if !files::is_mount_point(&moved) {
        return api("tmpfs", "/run", flags, "mode=0755");
    }
    let _ = rustix::fs::mkdir("/run", rustix::fs::Mode::from_raw_mode(0o755));
    mount_bind(&moved, "/run").map_err(|errno| {
        let detail = format!("{} on /run: {}", moved.display(), describe(errno));
        Fault::new(Code::ApiMount, detail)
    })
}

/// Mounts a file system; one of which there is one only, where it is not mounted yet.
fn api(kind: &str, target: &str, flags: MountFlags, options: &str) -> Result<(), Fault> {
    let fault = |errno| {
        Fault::new(
            Code::ApiMount,
            format!("{kind} on {target}: {}", describe(errno)),
        )
    };
    match rustix::fs::mkdir(target, rustix::fs::Mode::from_raw_mode(0o755)) {
        // In sysfs and securityfs nothing can be made; whether it is there, mount will tell.
        Ok(()) | Err(Errno::EXIST | Errno::PERM | Errno::ROFS) => {}
        Err(errno) => return Err(fault(errno)),
    }
    let options = std::ffi::CString::new(options).map_err(|_| fault(Errno::INVAL))?;
    match mount(kind, target, kind, flags, options.as_c_str()) {
        // EBUSY: the same file system is mounted there already (CONFIG_DEVTMPFS_MOUNT).
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(errno) => Err(fault(errno)),
    }
}

impl Environment {
    /// Refuses what the machine lacks: IMA, and what the configuration demands. After the configuration was read, so that
    /// its action is taken.
    ///
    /// # Errors
    ///
    /// [`Code::NoSecurityfs`], [`Code::NoIma`], [`Code::NoTpm`].
    pub fn require(&self, config: &Config) -> Result<(), Fault> {
        api("securityfs", "/sys/kernel/security", CLOSED, "")
            .map_err(|fault| Fault::new(Code::NoSecurityfs, fault.detail()))?;
        if !Path::new("/sys/kernel/security/ima").is_dir() {
            return Err(Fault::new(
                Code::NoIma,
                "/sys/kernel/security/ima is not there",
            ));
        }
        if config.require_tpm && !self.tpm {
            return Err(Fault::new(Code::NoTpm, "/sys/class/tpm is empty"));
        }
        Ok(())
    }
}
