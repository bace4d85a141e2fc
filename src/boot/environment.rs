//! The API file systems, and the kernel features that the boot needs.

use std::path::Path;

use ima::config::Config;
use ima::fault::{Code, Fault, Stage};
use rustix::mount::{MountFlags, mount, mount_bind};

use super::start::Start;
use crate::errno::{Errno, describe};
use crate::files;
use crate::kernel_files;
use crate::logging;
use crate::process;
use crate::report::Report;
use crate::securityfs::{IMA, SECURITYFS};

/// For file systems that hold no programs.
const CLOSED: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// The API file systems are mounted.
#[derive(Debug)]
pub struct Environment {
    tpm: bool,
}

/// Mounts the API file systems that another initramfs has not mounted already.
///
/// # Errors
///
/// [`Code::ApiMount`].
pub fn set_up(start: &Start, report: &mut Report) -> Result<Environment, Fault> {
    // Other users must be able to read the directories that are made here, whatever umask the init inherited.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    api("devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755")?;
    // Without /dev/console in the initramfs, the kernel opened none.
    process::open_standard_files();
    logging::open();
    // A mount of proc never fails with EBUSY (fs/proc/root.c, `proc_get_tree`): a second one would hide the first, and the
    // filtered command line that is mounted in it.
    if !files::is_mount_point(Path::new("/proc")) {
        api("proc", "/proc", CLOSED, "")?;
    }
    // Again, because the console's log level is read from /proc.
    logging::open();
    api("sysfs", "/sys", CLOSED, "")?;
    run(start.root())?;
    let tpm = !kernel_files::names("/sys/class/tpm").is_empty();
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

/// Mounts a tmpfs on /run, unless another initramfs has mounted one: there, or in the root already.
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

/// Mounts a file system, unless the same one is mounted there already.
fn api(kind: &str, target: &str, flags: MountFlags, options: &str) -> Result<(), Fault> {
    let fault = |errno| {
        Fault::new(
            Code::ApiMount,
            format!("{kind} on {target}: {}", describe(errno)),
        )
    };
    match rustix::fs::mkdir(target, rustix::fs::Mode::from_raw_mode(0o755)) {
        // In sysfs and securityfs no directory can be made. If it does not exist, mount(2) fails.
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
    /// Refuses a machine without IMA, or without the TPM that the configuration requires. To be called when the configuration
    /// has been read, so that a refusal ends as it says.
    ///
    /// # Errors
    ///
    /// [`Code::NoSecurityfs`], [`Code::NoIma`], [`Code::NoTpm`].
    pub fn require(&self, config: &Config) -> Result<(), Fault> {
        api("securityfs", SECURITYFS, CLOSED, "")
            .map_err(|fault| Fault::new(Code::NoSecurityfs, fault.detail()))?;
        if !Path::new(IMA).is_dir() {
            return Err(Fault::new(Code::NoIma, format!("{IMA} is not there")));
        }
        if config.require_tpm && !self.tpm {
            return Err(Fault::new(Code::NoTpm, "/sys/class/tpm is empty"));
        }
        Ok(())
    }
}
