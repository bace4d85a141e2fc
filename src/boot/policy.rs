//! The IMA policy: read, checked, written, and proved in force.

mod canary;
mod proof;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ima::config::{Cover, Enforce};
use ima::fault::{Cause, Code, Explanation, Fault, Severity, Stage};
use ima::layout;
use ima::policy::cover::{self, On};
use ima::policy::{Hook, MAX_POLICY, Policy};
use ima::settings::Settings;
use log::info;
use nix::errno::Errno;

use super::environment::POLICY;
use super::explain;
use super::kernel_log::KernelLog;
use super::keys::{self, KeysLoaded};
use super::root::MountedRoot;
use crate::files::{self, Initramfs, OpenError};
use crate::report::{PolicyRecord, Report};
use canary::{Canary, Tried};
use proof::{Expected, Kernel};

/// How many policies of the real root are offered to the kernel at most.
const MAX_ADDITIONAL: usize = 64;

/// A policy that has been checked and is to be loaded.
#[derive(Debug)]
pub struct Wanted {
    path: &'static str,
    text: Vec<u8>,
    policy: Policy,
    required: bool,
    cover: Cover,
}

impl Wanted {
    /// Its rules.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// The policy is loaded, and was proved to be in force as far as it appraises. Only [`enforce`] and [`prove_again`] make one.
#[derive(Debug)]
pub struct PolicyInForce {
    wanted: Wanted,
    keys: KeysLoaded,
}

impl PolicyInForce {
    /// The rules of the initramfs's policy.
    pub const fn policy(&self) -> &Policy {
        &self.wanted.policy
    }

    /// The keys that appraisal looks for.
    pub const fn keys(&self) -> &KeysLoaded {
        &self.keys
    }

    /// The same, to add those of the root.
    pub(super) const fn keys_mut(&mut self) -> &mut KeysLoaded {
        &mut self.keys
    }
}

/// A mounted root, and the policy in force, with the policies of the root's own that the kernel took. Only [`extend`] makes
/// one.
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

/// Reads and checks the policy of the initramfs.
///
/// # Errors
///
/// [`Code::PolicyMissing`], [`Code::PolicyUnreadable`], [`Code::PolicyInvalid`], [`Code::PolicyEmpty`],
/// [`Code::AppraiseWeakened`], [`Code::KernelWeakened`].
pub fn read(settings: &Settings, report: &mut Report) -> Result<Wanted, Fault> {
    let (path, text, policy) =
        layout::policy(file(layout::POLICY)?, file(layout::DEFAULT_POLICY)?)?;
    let required = settings.config.enforce == Enforce::Required;
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
        required,
        cover: settings.config.cover,
    })
}

/// Refuses a policy that leaves a way for unsigned programs on these file systems; a warning with `enforce=permissive`.
///
/// # Errors
///
/// [`Code::PolicyUncovered`].
pub fn require_cover(wanted: &Wanted, on: On<'_>, report: &mut Report) -> Result<(), Fault> {
    let Some(fault) = cover::fault(&wanted.policy, on, wanted.cover, wanted.required) else {
        return Ok(());
    };
    let fault = fault.in_file(wanted.path);
    if fault.code().entry().severity == Severity::Refusal {
        return Err(fault);
    }
    report.warn(fault);
    Ok(())
}

fn file(path: &str) -> Result<Option<Vec<u8>>, Fault> {
    let unreadable = |why: String| Fault::new(Code::PolicyUnreadable, format!("{path}: {why}"));
    let initramfs = Initramfs::open().map_err(|errno| unreadable(files::describe(errno)))?;
    match initramfs.file(Path::new(path)) {
        Ok(file) => match files::read(&file, MAX_POLICY) {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(unreadable(error.to_string())),
        },
        Err(OpenError::Missing(_)) => Ok(None),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// Writes the policy and proves it in force.
///
/// # Errors
///
/// [`Code::PolicyClosed`], [`Code::PolicyRefused`], [`Code::PolicySignature`], [`Code::PolicyNotRecorded`],
/// [`Code::PolicyReadBack`], [`Code::PolicyNotInForce`].
pub fn enforce(
    wanted: Wanted,
    keys: KeysLoaded,
    report: &mut Report,
) -> Result<PolicyInForce, Fault> {
    let mut kernel = Running {
        canary: Canary::new()?,
        log: KernelLog::from_now(),
    };
    let expected = Running::expected(&wanted);
    let proofs = proof::prove(&mut kernel, &wanted, expected, report)?;
    proved(&wanted, proofs, report);
    Ok(PolicyInForce { wanted, keys })
}

/// Proves that the policy which was loaded in front of this initramfs is in force.
///
/// # Errors
///
/// [`Code::PolicyNotLoaded`], [`Code::KeyringUnusable`].
pub fn prove_again(wanted: Wanted, report: &mut Report) -> Result<PolicyInForce, Fault> {
    let keys = keys::loaded_before()?;
    let mut kernel = Running {
        canary: Canary::new()?,
        log: KernelLog::from_start(),
    };
    let expected = Running::expected(&wanted);
    let proofs = proof::prove_again(&mut kernel, &wanted, expected, report)?;
    proved(&wanted, proofs, report);
    Ok(PolicyInForce { wanted, keys })
}

fn proved(wanted: &Wanted, proofs: Vec<&'static str>, report: &mut Report) {
    let text = format!(
        "{} in force, {} rules; proved by {}",
        wanted.path,
        wanted.policy.lines().len(),
        proofs.join(", ")
    );
    report.policy.proofs = proofs;
    report.done(Stage::Policy, &text);
}

/// Demands that the policy covers the root as it is mounted, and offers the root's own policies to the kernel, which takes those
/// that are signed.
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
    let PolicyInForce { wanted, keys } = &policy;
    let on = On::This {
        name: root.fstype(),
        magic: root.magic(),
    };
    require_cover(wanted, on, report)?;
    additional(wanted, keys, &root, report);
    let canary = Canary::new()?;
    let demanded = wanted.required && wanted.policy.appraises_tmpfs();
    if demanded && canary.execute() != Tried::Denied {
        // Rules are only ever appended; this must not happen, and must not pass if it does.
        let detail = "after the real root's policies were loaded, an unsigned program runs";
        return Err(Fault::new(Code::PolicyNotInForce, detail));
    }
    Ok(RootUnderPolicy { policy, root })
}

/// The kernel that is running.
struct Running {
    canary: Canary,
    /// From just before the policy was loaded.
    log: KernelLog,
}

impl Running {
    fn expected(wanted: &Wanted) -> Expected {
        Expected {
            canary: wanted.policy.appraises_tmpfs(),
            programs: wanted.policy.appraises_programs(),
        }
    }
}

impl Kernel for Running {
    fn execute_unsigned(&self) -> Tried {
        self.canary.execute()
    }

    fn appraises(&self) -> bool {
        self.canary.kernel_appraises() == Ok(true)
    }

    fn load(&mut self, wanted: &Wanted) -> Result<(), Fault> {
        self.log = KernelLog::from_now();
        load(wanted, &self.canary)
    }

    fn recorded(&mut self) -> (Option<bool>, String) {
        (self.log.policy_update(), self.log.words())
    }

    fn shows(&self, wanted: &Wanted) -> Result<bool, Fault> {
        read_back(wanted)
    }
}

/// Writes the rules, or names a signed copy where the kernel takes only a signed policy.
fn load(wanted: &Wanted, canary: &Canary) -> Result<(), Fault> {
    let closed = |errno: Errno| {
        Fault::new(
            Code::PolicyClosed,
            format!("{POLICY}: {} ({errno:?})", errno.desc()),
        )
    };
    let mut log = KernelLog::from_now();
    match write_rules(wanted) {
        Ok(()) => Ok(()),
        Err(WriteError::Open(errno)) => Err(closed(errno)),
        // The kernel wants a path, and a signature on what it names (ima_fs.c, ima_write_policy).
        Err(WriteError::Rule(_, Errno::EACCES)) => load_signed(wanted, canary),
        Err(WriteError::Rule(line, errno)) => {
            let rule = wanted
                .policy
                .lines()
                .iter()
                .find(|have| have.number == line)
                .map_or("", |have| have.text.as_str());
            let detail = format!(
                "{}, line {line}: {rule}: {} ({errno:?})",
                wanted.path,
                errno.desc()
            );
            let fault = Fault::new(Code::PolicyRefused, detail);
            Err(match log.refused_rule() {
                Some(read) => fault.because(Cause::RULE_BEYOND_KERNEL.with(&[&read])),
                None => fault,
            })
        }
    }
}

enum WriteError {
    Open(Errno),
    Rule(usize, Errno),
}

/// One write a rule: the kernel parses only the first line of each. A refused one poisons the open file, so the first
/// error is the last write.
fn write_rules(wanted: &Wanted) -> Result<(), WriteError> {
    let errno = |error: &std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or_default());
    let mut file = OpenOptions::new()
        .write(true)
        .open(POLICY)
        .map_err(|error| WriteError::Open(errno(&error)))?;
    for line in wanted.policy.lines() {
        let rule = format!("{}\n", line.text);
        let written = file
            .write(rule.as_bytes())
            .map_err(|error| WriteError::Rule(line.number, errno(&error)))?;
        if written < rule.len() {
            return Err(WriteError::Rule(line.number, Errno::E2BIG));
        }
    }
    Ok(())
}

/// Names a copy of the policy that carries the signature packed beside it: rootfs may be a ramfs, which keeps no
/// extended attributes, but a tmpfs does.
fn load_signed(wanted: &Wanted, canary: &Canary) -> Result<(), Fault> {
    let fault = |why: String| Fault::new(Code::PolicySignature, format!("{}: {why}", wanted.path));
    let signature_path = format!("{}{}", wanted.path, layout::SIGNATURE);
    let signature = file(&signature_path)?
        .filter(|signature| !signature.is_empty())
        .ok_or_else(|| fault(format!("{signature_path} is not there")))?;
    let copy = canary
        .signed_copy(&wanted.text, &signature)
        .map_err(|errno| {
            fault(format!(
                "a signed copy on a tmpfs: {}",
                files::describe(errno)
            ))
        })?;
    write_path(&copy).map_err(|errno| {
        fault(format!("{} ({errno:?})", errno.desc())).because(Cause::POLICY_SIGNATURE_REFUSED)
    })
}

/// Writes the path of an open file, by which the kernel finds exactly that file.
fn write_path(file: &File) -> Result<(), Errno> {
    let path = format!("{}\n", files::descriptor_path(file));
    let written = OpenOptions::new()
        .write(true)
        .open(POLICY)
        .and_then(|mut policy| policy.write(path.as_bytes()));
    match written {
        Ok(_) => Ok(()),
        Err(error) => Err(Errno::from_raw(error.raw_os_error().unwrap_or_default())),
    }
}

/// Compares with what the kernel shows; `false` if this kernel shows nothing (CONFIG_IMA_READ_POLICY).
fn read_back(wanted: &Wanted) -> Result<bool, Fault> {
    let Ok(text) = std::fs::read(POLICY) else {
        return Ok(false);
    };
    if wanted.policy.is_within(&Policy::parse_known(&text)) {
        return Ok(true);
    }
    let shown = String::from_utf8_lossy(&text);
    let first: Vec<&str> = shown.lines().take(8).collect();
    let detail = format!("{}: the kernel shows: {}", wanted.path, first.join(" | "));
    Err(Fault::new(Code::PolicyReadBack, detail))
}

/// Offers the real root's `etc/ima/ima_policy*` and systemd's `etc/ima/ima-policy`, by path, so that the kernel checks their
/// signatures. Each policy that is not empty is in the report, up to [`MAX_ADDITIONAL`]; each that is not taken is warned of.
fn additional(wanted: &Wanted, keys: &KeysLoaded, root: &MountedRoot, report: &mut Report) {
    let directory = Path::new(layout::ROOT_POLICIES);
    let names = files::names_in(root.directory(), directory).unwrap_or_else(|errno| {
        let detail = format!("{}: {}", root.shown(directory), files::describe(errno));
        let fault =
            Fault::new(Code::RootPolicyRefused, detail).because(Cause::ROOT_POLICIES_UNREADABLE);
        report.warn(fault);
        Vec::new()
    });
    // The init loads them, as root. Who owns the file is up to whoever wrote the disk.
    let on = On::This {
        name: root.fstype(),
        magic: root.magic(),
    };
    let guarded = wanted
        .policy
        .gap(&[Hook::PolicyCheck], on, Cover::Root)
        .is_none();
    let mut names = names
        .iter()
        .filter(|name| layout::is_root_policy(name.as_bytes()));
    for name in names.by_ref().take(MAX_ADDITIONAL) {
        let path = directory.join(name);
        let shown = root.shown(&path);
        match add(&path, &shown, guarded, keys, root) {
            Ok(Added::Empty) => {}
            Ok(Added::Taken) => {
                info!("policy: {shown} added");
                report.policy.additional.push((shown, true));
            }
            Err(fault) => {
                report.warn(fault);
                report.policy.additional.push((shown, false));
            }
        }
    }
    // One warning for all of them: their number is up to whoever wrote the disk.
    let more = names.count();
    if more > 0 {
        let detail = format!("{}: {more} more", root.shown(directory));
        let fault = Fault::new(Code::RootPolicyRefused, detail)
            .because(Cause::TOO_MANY_ROOT_POLICIES.with(&[&MAX_ADDITIONAL.to_string()]));
        report.warn(fault);
    }
}

/// What became of a policy of the real root that the kernel did not refuse.
enum Added {
    /// There is nothing in it.
    Empty,
    /// The kernel took it.
    Taken,
}

/// Offers a policy of the real root to the kernel.
///
/// # Errors
///
/// [`Code::RootPolicyRefused`], [`Code::PoliciesUnguarded`], [`Code::RootPolicyImpossible`].
fn add(
    path: &Path,
    shown: &str,
    guarded: bool,
    keys: &KeysLoaded,
    root: &MountedRoot,
) -> Result<Added, Fault> {
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
        return Ok(Added::Empty);
    }
    // The kernel reads the whole of it into its memory before it looks at the signature.
    if usize::try_from(length).map_or(true, |length| length > MAX_POLICY) {
        return Err(warning(Code::RootPolicyRefused, "longer than 1 MiB"));
    }
    if !guarded {
        return Err(warning(Code::PoliciesUnguarded, "not loaded"));
    }
    let mut log = KernelLog::from_now();
    let result = write_path(&file);
    if result.is_ok() && log.policy_update() != Some(false) {
        return Ok(Added::Taken);
    }
    let why = match result {
        Err(errno) => format!("{} ({errno:?})", errno.desc()),
        Ok(()) => log.words(),
    };
    if let Err(Errno::ENOENT | Errno::EBUSY) = result {
        return Err(warning(Code::RootPolicyImpossible, &why));
    }
    let warning = warning(Code::RootPolicyRefused, &why);
    Err(match cause(&file, result, keys, &mut log) {
        Some(cause) => warning.because(cause),
        None => warning,
    })
}

/// Why the kernel did not take a policy of the real root.
fn cause(
    file: &File,
    result: Result<(), Errno>,
    keys: &KeysLoaded,
    log: &mut KernelLog,
) -> Option<Explanation> {
    match result {
        Err(Errno::EACCES) => explain::denial(file, keys, log),
        Err(Errno::EINVAL) => {
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
