//! Whether what is executed next will run, asked of the kernel before there is no way back.

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

use super::explain;
use super::kernel_log::KernelLog;
use super::policy::{PolicyInForce, RootUnderPolicy};
use super::root::MountedRoot;
use super::start::Start;
use crate::files::{self, OpenError};
use crate::report::Report;
use crate::syscalls::{self, Verdict};

/// What is executed next was asked about, under a policy that is in force. Only [`check`] makes one, of a
/// [`RootUnderPolicy`].
#[derive(Debug)]
pub struct Ready {
    pub(super) policy: PolicyInForce,
    pub(super) settings: Settings,
    pub(super) root: MountedRoot,
    pub(super) next: Next,
}

/// Who goes on.
#[derive(Debug)]
pub enum Next {
    /// The real root's switch_root, which this init becomes.
    SwitchRoot(File),
    /// The systemd of the initramfs, which changes root itself.
    Systemd,
}

/// Looks at switch_root, init and init's interpreters.
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
    let (policy, root) = root.into_parts();
    let programs = Running::new(&policy, root.directory(), root.magic(), root.fstype());
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

/// The programs below a directory, of which the kernel is asked.
pub(super) struct Running<'a> {
    policy: &'a PolicyInForce,
    directory: &'a OwnedFd,
    /// Whether the policy appraises what is executed or mapped there.
    appraised: bool,
    /// What this init is made for, and so what the kernel runs.
    machine: Option<elf::Machine>,
}

impl<'a> Running<'a> {
    /// Of a directory on a file system of that magic and type.
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

impl Programs for Running<'_> {
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
            OpenError::Failed(rustix::io::Errno::ACCESS) => OpenFailure::Denied(error.to_string()),
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
        let mut bytes = vec![0; length];
        let filled = files::read_at(file, &mut bytes, offset).map_err(|error| error.to_string())?;
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Where the kernel cannot be asked about an execution, it is asked about a mapping, which is appraised under the same
    /// conditions in every policy that has MMAP_CHECK; under one that has not, the execution decides.
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
            detail: format!("{} ({errno:?})", errno.desc()),
            cause: explain::denial(file, self.policy.keys(), &mut log),
        })
    }
}

/// The machine of this very program; nothing if it cannot be found out, and then only the kernel judges.
fn own_machine() -> Option<elf::Machine> {
    let mut header = [0; elf::HEADER_LENGTH];
    let own = File::open("/proc/self/exe").ok()?;
    let length = files::read_at(&own, &mut header, 0).ok()?;
    Some(Elf::parse(header.get(..length)?)?.machine())
}
