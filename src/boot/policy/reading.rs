//! The policy file of the initramfs: read, parsed and checked.

use std::path::Path;

use ima::config::{Cover, Enforce};
use ima::fault::{Code, Fault, Severity};
use ima::layout;
use ima::policy::cover::{self, On};
use ima::policy::{MAX_POLICY, Policy};
use ima::settings::Settings;
use log::info;

use crate::errno::describe;
use crate::files::{self, Initramfs, OpenError};
use crate::report::{PolicyRecord, Report};

/// A policy that was checked and is to be loaded.
#[derive(Debug)]
pub struct Wanted {
    pub(super) path: &'static str,
    pub(super) text: Vec<u8>,
    pub(super) policy: Policy,
    pub(super) enforce: Enforce,
    pub(super) cover: Cover,
}

impl Wanted {
    /// Its rules.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether an unsigned program must be denied for the boot to go on.
    pub const fn enforce(&self) -> Enforce {
        self.enforce
    }
}

/// Reads and checks the policy of the initramfs.
///
/// # Errors
///
/// [`Code::PolicyMissing`], [`Code::PolicyUnreadable`], [`Code::PolicyInvalid`], [`Code::PolicyEmpty`],
/// [`Code::AppraiseWeakened`], [`Code::KernelWeakened`].
pub fn read(settings: &Settings, report: &mut Report) -> Result<Wanted, Fault> {
    let (path, text, policy) =
        layout::policy(file(layout::POLICY)?, file(layout::DEFAULT_POLICY)?)?;
    settings.refuse_weakened(&policy)?;
    let rules = policy.lines().len();
    info!("policy: {path}, {rules} rules, checked");
    report.policy = PolicyRecord {
        path: path.to_owned(),
        rules,
        ..PolicyRecord::default()
    };
    Ok(Wanted {
        path,
        text,
        policy,
        enforce: settings.config.enforce,
        cover: settings.config.cover,
    })
}

/// Refuses a policy that leaves a way for unsigned programs on these file systems; with `enforce=permissive` warns of it.
///
/// # Errors
///
/// [`Code::PolicyUncovered`].
pub fn require_cover(wanted: &Wanted, on: On<'_>, report: &mut Report) -> Result<(), Fault> {
    let required = wanted.enforce == Enforce::Required;
    let Some(fault) = cover::fault(&wanted.policy, on, wanted.cover, required) else {
        return Ok(());
    };
    let fault = fault.in_file(wanted.path);
    if fault.code().entry().severity == Severity::Refusal {
        return Err(fault);
    }
    report.warn(fault);
    Ok(())
}

/// The content of a file of the initramfs; `None` if it does not exist.
pub(super) fn file(path: &str) -> Result<Option<Vec<u8>>, Fault> {
    let unreadable = |why: String| Fault::new(Code::PolicyUnreadable, format!("{path}: {why}"));
    let initramfs = Initramfs::open().map_err(|errno| unreadable(describe(errno)))?;
    match initramfs.file(Path::new(path)) {
        Ok(file) => match files::read(&file, MAX_POLICY) {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(unreadable(error.to_string())),
        },
        Err(OpenError::Missing(_)) => Ok(None),
        Err(error) => Err(unreadable(error.to_string())),
    }
}
