//! Whether what is executed next will run, asked of the kernel before there is no way back.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ima::elf::{self, Elf};
use ima::fault::{Fault, Stage};
use ima::policy::{Hook, Query};
use ima::program::{
    self, Codes, Format, INIT, INTERPRETER, MAX_INTERPRETERS, Program, SWITCH_ROOT,
};
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
    let examiner = Examiner::new(&policy, root.directory(), root.magic(), root.fstype());
    let init = &settings.init;
    let (next, text) = if matches!(start, Start::Load { .. }) {
        (Next::Systemd, format!("{init} may run"))
    } else {
        let shown = &settings.config.switch_root;
        let path = Path::new(shown);
        let file = examiner.open(path, &SWITCH_ROOT)?;
        let format = examiner.program(&file, path, &SWITCH_ROOT, |program| program.format())?;
        program::require_static(shown, &format)?;
        examiner.ask(&file, path, &SWITCH_ROOT)?;
        report.switch_root.clone_from(shown);
        (
            Next::SwitchRoot(file),
            format!("{shown} and {init} may run"),
        )
    };
    examiner.runs(Path::new(init), &INIT, &INTERPRETER)?;
    report.init.clone_from(init);
    report.done(Stage::Preflight, &text);
    Ok(Ready {
        policy,
        settings,
        root,
        next,
    })
}

/// Looks at the programs below a directory, and asks the kernel about them.
pub(super) struct Examiner<'a> {
    policy: &'a PolicyInForce,
    directory: &'a OwnedFd,
    /// Whether the policy appraises what is executed or mapped there.
    appraised: bool,
    /// What this init is made for, and so what the kernel runs.
    machine: Option<elf::Machine>,
}

impl<'a> Examiner<'a> {
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

    /// Whether a program runs: itself, then what interprets it, and what interprets that.
    pub(super) fn runs(
        &self,
        path: &Path,
        first: &Codes,
        interpreter: &Codes,
    ) -> Result<(), Fault> {
        let mut path = path.to_owned();
        let mut codes = first;
        for _ in 0..MAX_INTERPRETERS {
            let file = self.open(&path, codes)?;
            let format = self.program(&file, &path, codes, |program| program.format())?;
            self.ask(&file, &path, codes)?;
            match format {
                Format::Static => return Ok(()),
                Format::Interpreted(loader) => {
                    let loader = path_of(&loader);
                    let file = self.open(&loader, interpreter)?;
                    self.program(&file, &loader, interpreter, |program| {
                        program.check_loader()
                    })?;
                    return self.ask(&file, &loader, interpreter);
                }
                Format::Script(program) => path = path_of(&program),
            }
            codes = interpreter;
        }
        let detail = format!("{} is one script too many", path.display());
        Err(Fault::new(interpreter.invalid, detail)
            .cause(program::TOO_MANY_SCRIPTS)
            .remedy(program::NO_SCRIPT))
    }

    /// Opens a file that is to be executed.
    pub(super) fn open(&self, path: &Path, codes: &Codes) -> Result<File, Fault> {
        let shown = path.display();
        let file = files::open_in(self.directory, path).map_err(|error| match error {
            OpenError::Missing(_) => Fault::new(codes.missing, format!("{shown}: {error}")),
            OpenError::NotRegular(_) => Fault::new(codes.invalid, format!("{shown} is {error}")),
            // A policy with FILE_CHECK denies even opening it.
            OpenError::Failed(rustix::io::Errno::ACCESS) => {
                Fault::new(codes.denied, format!("{shown}: {error}"))
            }
            OpenError::Failed(_) => Fault::new(codes.invalid, format!("{shown}: {error}")),
        })?;
        let metadata = file
            .metadata()
            .map_err(|error| Fault::new(codes.invalid, format!("{shown}: {error}")))?;
        if metadata.permissions().mode() & 0o111 == 0 {
            return Err(
                Fault::new(codes.invalid, format!("{shown} is not executable"))
                    .cause("it has no execute permission for anybody")
                    .remedy(format!(
                        "chmod 755 {shown}, and sign it again if security.evm is used"
                    )),
            );
        }
        program::check_length(&shown.to_string(), codes, metadata.len())?;
        Ok(file)
    }

    /// Looks into an open program.
    pub(super) fn program<T>(
        &self,
        file: &File,
        path: &Path,
        codes: &Codes,
        look: impl FnOnce(&mut Program<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let shown = path.display().to_string();
        let mut read = |offset: u64, length: usize| -> Result<Vec<u8>, Fault> {
            let mut bytes = vec![0; length];
            let filled = files::read_at(file, &mut bytes, offset)
                .map_err(|error| {
                    Fault::new(codes.invalid, format!("{shown}: {error}"))
                        .cause("it could not be read: a bad medium, cable or controller, or a damaged file system")
                        .remedy("see the kernel's messages above; check the file system (fsck), replace the medium")
                })?;
            bytes.truncate(filled);
            Ok(bytes)
        };
        look(&mut Program {
            path: &shown,
            codes,
            machine: self.machine,
            read: &mut read,
        })
    }

    /// Asks the kernel. Where it cannot be asked about an execution, it is asked about a mapping, which is appraised
    /// under the same conditions in every policy that has MMAP_CHECK; under one that has not, the execution decides.
    fn ask(&self, file: &File, path: &Path, codes: &Codes) -> Result<(), Fault> {
        let mut log = KernelLog::from_now();
        let verdict = match syscalls::execve_check(file) {
            Verdict::Unknown if self.appraised => syscalls::map_executable(file),
            Verdict::Unknown => Verdict::Allowed,
            verdict => verdict,
        };
        let Verdict::Denied(errno) = verdict else {
            return Ok(());
        };
        let detail = format!("{}: {} ({errno:?})", path.display(), errno.desc());
        let fault = Fault::new(codes.denied, detail);
        Err(match explain::denial(file, self.policy.keys(), &mut log) {
            Some(cause) => fault.cause(cause),
            None => fault,
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

/// Bytes as a path.
pub(super) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}
