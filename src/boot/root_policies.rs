//! The policies of the root, which the kernel adds to the one in force if they are signed.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ima::config::{Cover, Enforce};
use ima::fault::{Cause, Code, Explanation, Fault, Stage};
use ima::layout;
use ima::policy::cover::On;
use ima::policy::{Hook, MAX_POLICY, Policy};
use log::info;

use super::policy::{self, PolicyInForce};
use super::root::MountedRoot;
use crate::canary::{Canary, Execution};
use crate::denial::{self, AppraisalKeys};
use crate::errno::{Errno, describe};
use crate::files;
use crate::kernel_log::{KernelLog, PolicyUpdate};
use crate::report::{AdditionalPolicy, Report};
use crate::securityfs;
use crate::watch;

/// How many policies of the root are offered to the kernel at most.
const MAX_POLICIES: usize = 64;

/// A mounted root, and the policy in force, with the policies of the root that the kernel took. Only [`extend`] makes one.
#[derive(Debug)]
pub struct RootUnderPolicy {
    policy: PolicyInForce,
    root: MountedRoot,
}

impl RootUnderPolicy {
    /// The policy and the root.
    pub fn into_parts(self) -> (PolicyInForce, MountedRoot) {
        (self.policy, self.root)
    }
}

/// Requires that the policy covers the root as it is mounted, and offers the root's own policies to the kernel, which takes
/// those that are signed.
///
/// # Errors
///
/// [`Code::PolicyUncovered`]. [`Code::PolicyNotInForce`]: afterwards an unsigned program is no longer denied.
/// [`Code::ApiMount`].
pub fn extend(
    policy: PolicyInForce,
    root: MountedRoot,
    report: &mut Report,
) -> Result<RootUnderPolicy, Fault> {
    watch::during(Stage::Policy, "reading the root's policies", || {
        offer(policy, root, report)
    })
}

fn offer(
    policy: PolicyInForce,
    root: MountedRoot,
    report: &mut Report,
) -> Result<RootUnderPolicy, Fault> {
    policy::require_cover(policy.wanted(), file_system(&root), report)?;
    let offered = offer_all(&policy, &root, report);
    let required = policy.wanted().enforce() == Enforce::Required;
    if offered > 0
        && required
        && policy.policy().appraises_tmpfs()
        && Canary::new()?.execute() != Execution::Denied
    {
        // Rules are only ever appended; this must not happen, and must not pass if it does.
        let detail = "after the real root's policies were loaded, an unsigned program runs";
        return Err(Fault::new(Code::PolicyNotInForce, detail));
    }
    Ok(RootUnderPolicy { policy, root })
}

fn file_system(root: &MountedRoot) -> On<'_> {
    On::This {
        name: root.fstype(),
        magic: root.magic(),
    }
}

/// Offers the root's `etc/ima/ima_policy*` and systemd's `etc/ima/ima-policy`, by path, so that the kernel checks their
/// signatures. Each policy that is not empty is in the report, up to [`MAX_POLICIES`]; each that the kernel does not take gives
/// a warning. Returns how many of them are not empty.
fn offer_all(policy: &PolicyInForce, root: &MountedRoot, report: &mut Report) -> usize {
    let directory = Path::new(layout::ROOT_POLICIES);
    let names = files::names_in(root.directory(), directory).unwrap_or_else(|errno| {
        let detail = format!("{}: {}", root.shown(directory), describe(errno));
        let fault =
            Fault::new(Code::RootPolicyRefused, detail).because(Cause::ROOT_POLICIES_UNREADABLE);
        report.warn(fault);
        Vec::new()
    });
    // The init loads them as root, and whoever wrote the disk chose who owns the files.
    let is_guarded = policy
        .policy()
        .gap(&[Hook::PolicyCheck], file_system(root), Cover::Root)
        .is_none();
    let mut names = names
        .iter()
        .filter(|name| layout::is_root_policy(name.as_bytes()));
    let mut offered: usize = 0;
    for name in names.by_ref().take(MAX_POLICIES) {
        let path = directory.join(name);
        let shown = root.shown(&path);
        let accepted = match offer_one(&path, &shown, is_guarded, policy.keys().appraisal(), root) {
            Ok(Offered::Empty) => continue,
            Ok(Offered::Taken) => {
                info!("policy: {shown} added");
                true
            }
            Err(fault) => {
                report.warn(fault);
                false
            }
        };
        offered = offered.saturating_add(1);
        report.policy.additional.push(AdditionalPolicy {
            path: shown,
            accepted,
        });
    }
    // One warning for all of them: whoever wrote the disk chose their number.
    let more = names.count();
    if more > 0 {
        let detail = format!("{}: {more} more", root.shown(directory));
        let fault = Fault::new(Code::RootPolicyRefused, detail)
            .because(Cause::TOO_MANY_ROOT_POLICIES.with(&[&MAX_POLICIES.to_string()]));
        report.warn(fault);
    }
    offered
}

/// What became of a policy of the root that the kernel did not refuse.
enum Offered {
    /// It is empty, and was not offered.
    Empty,
    /// The kernel took it.
    Taken,
}

/// Offers a policy of the root to the kernel. `is_guarded` says whether the policy in force appraises policies of this root.
///
/// # Errors
///
/// [`Code::RootPolicyRefused`], [`Code::PoliciesUnguarded`], [`Code::RootPolicyImpossible`].
fn offer_one(
    path: &Path,
    shown: &str,
    is_guarded: bool,
    keys: &AppraisalKeys,
    root: &MountedRoot,
) -> Result<Offered, Fault> {
    let warning = |code, why: &str| Fault::new(code, format!("{shown}: {why}"));
    let unreadable =
        |why: &str| warning(Code::RootPolicyRefused, why).because(Cause::ROOT_POLICY_UNREADABLE);
    let file =
        files::open_in(root.directory(), path).map_err(|error| unreadable(&error.to_string()))?;
    let length = file
        .metadata()
        .map_err(|error| unreadable(&error.to_string()))?
        .len();
    if length == 0 {
        return Ok(Offered::Empty);
    }
    // The kernel reads the whole of it into its memory before it looks at the signature.
    if usize::try_from(length).map_or(true, |length| length > MAX_POLICY) {
        return Err(warning(Code::RootPolicyRefused, "longer than 1 MiB"));
    }
    if !is_guarded {
        return Err(warning(Code::PoliciesUnguarded, "not loaded"));
    }
    let mut log = KernelLog::from_now();
    let result = securityfs::write_path(&file);
    if result.is_ok() && log.policy_update() != PolicyUpdate::Failed {
        return Ok(Offered::Taken);
    }
    let why = match result {
        Err(errno) => describe(errno),
        Ok(()) => log.ima_messages(),
    };
    if let Err(Errno::NOENT | Errno::BUSY) = result {
        return Err(warning(Code::RootPolicyImpossible, &why));
    }
    let warning = warning(Code::RootPolicyRefused, &why);
    Err(match cause(&file, result, keys, &mut log) {
        Some(cause) => warning.because(cause),
        None => warning,
    })
}

/// Why the kernel did not take a policy of the root.
fn cause(
    file: &File,
    result: Result<(), Errno>,
    keys: &AppraisalKeys,
    log: &mut KernelLog,
) -> Option<Explanation> {
    match result {
        Err(Errno::ACCESS) => denial::explain(file, keys, log),
        Err(Errno::INVAL) => {
            let text = files::read(file, MAX_POLICY).ok()?;
            let errors = Policy::errors(&text);
            if let Some(error) = errors.first() {
                return Some(Cause::ROOT_POLICY_RULE.with(&[&error.to_string()]));
            }
            (text.last() != Some(&b'\n')).then(|| Cause::ROOT_POLICY_WITHOUT_NEWLINE.into())
        }
        _ => None,
    }
}
