//! The check that the programs of the root will run, before the first of them is executed.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ima::elf::{self, Elf};
use ima::fault::{Fault, Stage};
use ima::policy::{Hook, Query};
use ima::program::{self, Denial, INIT, INTERPRETER, OpenFailure, Opened, Programs};
use ima::settings::Settings;

use super::policy::PolicyInForce;
use super::root::MountedRoot;
use super::root_policies::RootUnderPolicy;
use super::start::Start;
use crate::denial;
use crate::errno::{Errno, describe};
use crate::files::{self, OpenError};
use crate::kernel_log::KernelLog;
use crate::report::Report;
use crate::syscalls::{self, Verdict};
use crate::watch;

/// The kernel will run what is executed next, under a policy that is in force. Only [`check`] makes one, from a
/// [`RootUnderPolicy`].
#[derive(Debug)]
pub struct Ready {
    pub(super) policy: PolicyInForce,
    pub(super) settings: Settings,
    pub(super) root: MountedRoot,
    pub(super) next: Next,
}

/// What happens next.
#[derive(Debug)]
pub enum Next {
    /// The init executes the root's switch_root.
    SwitchRoot(File),
    /// The init exits, and the systemd of the initramfs changes root.
    Systemd,
}

/// Checks switch_root, init and init's interpreters.
///
/// # Errors
///
/// `SwitchRoot*`, `Init*`, `Interpreter*`.
pub fn check(
    root: RootUnderPolicy,
    settings: Settings,
    start: &Start,
    report: &mut Report,
) -> Result<Ready, Fault> {
    watch::during(Stage::Preflight, "reading the root's programs", || {
        check_all(root, settings, start, report)
    })
}

fn check_all(
    root: RootUnderPolicy,
    settings: Settings,
    start: &Start,
    report: &mut Report,
) -> Result<Ready, Fault> {
    let (policy, root) = root.into_parts();
    let programs = KernelPrograms::new(&policy, root.directory(), root.magic(), root.fstype());
    let init = &settings.init;
    let (next, text) = if matches!(start, Start::Load { .. }) {
        (Next::Systemd, format!("{init} may run"))
    } else {
        let shown = &settings.config.switch_root;
        let file = program::switch_root(&programs, shown)?;
        report.switch_root.clone_from(shown);
        (
            Next::SwitchRoot(file),
            format!("{shown} and {init} may run"),
        )
    };
    program::runs(&programs, init.as_bytes(), &INIT, &INTERPRETER)?;
    report.init.clone_from(init);
    report.done(Stage::Preflight, &text);
    Ok(Ready {
        policy,
        settings,
        root,
        next,
    })
}

/// The programs below a directory. The kernel answers whether they may run.
pub(super) struct KernelPrograms<'a> {
    policy: &'a PolicyInForce,
    directory: &'a OwnedFd,
    /// Whether the policy appraises what is executed or mapped there.
    appraised: bool,
    /// The machine that this init is built for, and so one whose programs the kernel runs.
    machine: Option<elf::Machine>,
}

impl<'a> KernelPrograms<'a> {
    /// The programs of a directory on a file system of that magic number and type.
    pub(super) fn new(
        policy: &'a PolicyInForce,
        directory: &'a OwnedFd,
        magic: u64,
        fstype: &str,
    ) -> Self {
        let appraised = [Hook::BprmCheck, Hook::MmapCheck].into_iter().any(|hook| {
            let query = Query::by_root(hook, magic, fstype);
            policy.policy().appraisal(&query).is_some()
        });
        Self {
            policy,
            directory,
            appraised,
            machine: own_machine(),
        }
    }
}

impl Programs for KernelPrograms<'_> {
    type File = File;

    fn machine(&self) -> Option<elf::Machine> {
        self.machine
    }

    fn open(&self, path: &[u8]) -> Result<Opened<File>, OpenFailure> {
        let path = Path::new(OsStr::from_bytes(path));
        let file = files::open_in(self.directory, path).map_err(|error| match error {
            OpenError::Missing(_) => OpenFailure::Missing(error.to_string()),
            OpenError::NotRegular(_) => OpenFailure::NotRegular(error.to_string()),
            // A policy with FILE_CHECK denies even opening it.
            OpenError::Failed(Errno::ACCESS) => OpenFailure::Denied(error.to_string()),
            OpenError::Failed(_) => OpenFailure::Failed(error.to_string()),
        })?;
        let metadata = file
            .metadata()
            .map_err(|error| OpenFailure::Failed(error.to_string()))?;
        Ok(Opened {
            mode: metadata.permissions().mode(),
            length: metadata.len(),
            file,
        })
    }

    fn read(&self, file: &File, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        files::read_at(file, offset, length).map_err(|error| error.to_string())
    }

    /// A kernel without AT_EXECVE_CHECK appraises a mapping instead, under the same conditions if the policy has MMAP_CHECK.
    /// Under a policy without it, a denial shows only at the execution.
    fn may_run(&self, file: &File) -> Result<(), Denial> {
        let mut log = KernelLog::from_now();
        let verdict = match syscalls::execve_check(file) {
            Verdict::Unknown if self.appraised => syscalls::map_executable(file),
            Verdict::Unknown => Verdict::Allowed,
            verdict => verdict,
        };
        let Verdict::Denied(errno) = verdict else {
            return Ok(());
        };
        Err(Denial {
            detail: describe(errno),
            cause: denial::explain(file, self.policy.keys().appraisal(), &mut log),
        })
    }
}

/// The machine that this program is built for. `None` if that cannot be read; then only the kernel decides.
fn own_machine() -> Option<elf::Machine> {
    let own = File::open("/proc/self/exe").ok()?;
    let header = files::read_at(&own, 0, elf::HEADER_LENGTH).ok()?;
    Some(Elf::parse(&header)?.machine())
}
