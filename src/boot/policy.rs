//! The IMA policy of the initramfs: read, written to the kernel, and proved in force.

mod proof;
mod reading;

use ima::fault::{Cause, Code, Fault, Stage};
use ima::layout;
use ima::policy::Policy;

use super::keys::{self, KeysLoaded};
use crate::canary::{Canary, Execution};
use crate::errno::{Errno, describe};
use crate::kernel_log::{KernelLog, PolicyUpdate};
use crate::report::{Proof, Report};
use crate::securityfs::{self, POLICY, WriteError};
use proof::{Expected, Kernel};
pub use reading::{Wanted, read, require_cover};

/// The policy is loaded, and was proved to be in force as far as it appraises. Only [`enforce`] and [`prove_again`] make one.
#[derive(Debug)]
pub struct PolicyInForce {
    wanted: Wanted,
    keys: KeysLoaded,
}

impl PolicyInForce {
    /// The policy as it was read from the initramfs.
    pub const fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The rules of the initramfs's policy.
    pub const fn policy(&self) -> &Policy {
        self.wanted.policy()
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
    let mut kernel = RunningKernel {
        canary: Canary::new()?,
        log: KernelLog::from_now(),
    };
    let expected = Expected::of(&wanted);
    let proofs = proof::prove(&mut kernel, &wanted, expected, report)?;
    record(&wanted, proofs, report);
    Ok(PolicyInForce { wanted, keys })
}

/// Proves that the policy which was loaded in front of this initramfs is in force.
///
/// # Errors
///
/// [`Code::PolicyNotLoaded`], [`Code::KeyringUnusable`].
pub fn prove_again(wanted: Wanted, report: &mut Report) -> Result<PolicyInForce, Fault> {
    let keys = keys::loaded_before()?;
    let mut kernel = RunningKernel {
        canary: Canary::new()?,
        log: KernelLog::from_start(),
    };
    let expected = Expected::of(&wanted);
    let proofs = proof::prove_again(&mut kernel, &wanted, expected, report)?;
    record(&wanted, proofs, report);
    Ok(PolicyInForce { wanted, keys })
}

fn record(wanted: &Wanted, proofs: Vec<Proof>, report: &mut Report) {
    let names: Vec<&str> = proofs.iter().map(|proof| proof.name()).collect();
    let text = format!(
        "{} in force, {} rules; proved by {}",
        wanted.path,
        wanted.policy.lines().len(),
        names.join(", ")
    );
    report.policy.proofs = proofs;
    report.done(Stage::Policy, &text);
}

/// The kernel that is running.
struct RunningKernel {
    canary: Canary,
    /// From just before the policy was loaded.
    log: KernelLog,
}

impl Kernel for RunningKernel {
    fn execute_unsigned(&self) -> Execution {
        self.canary.execute()
    }

    fn appraises(&self) -> bool {
        self.canary.kernel_appraises() == Ok(true)
    }

    fn load(&mut self, wanted: &Wanted) -> Result<(), Fault> {
        self.log = KernelLog::from_now();
        load(wanted, &self.canary)
    }

    fn recorded(&mut self) -> PolicyUpdate {
        self.log.policy_update()
    }

    fn messages(&self) -> String {
        self.log.ima_messages()
    }

    fn shows(&self, wanted: &Wanted) -> Result<bool, Fault> {
        read_back(wanted)
    }
}

/// Writes the rules, or the path of a signed copy where the kernel takes only a signed policy.
fn load(wanted: &Wanted, canary: &Canary) -> Result<(), Fault> {
    let mut log = KernelLog::from_now();
    match securityfs::write_rules(&wanted.policy) {
        Ok(()) => Ok(()),
        Err(WriteError::Open(errno)) => {
            let detail = format!("{POLICY}: {}", describe(errno));
            Err(Fault::new(Code::PolicyClosed, detail))
        }
        // The kernel takes only a path, and the file there must be signed (ima_fs.c, `ima_write_policy`).
        Err(WriteError::Rule(_, Errno::ACCESS)) => load_signed(wanted, canary),
        Err(WriteError::Rule(line, errno)) => {
            let detail = format!(
                "{}, line {}: {}: {}",
                wanted.path,
                line.number,
                line.text,
                describe(errno)
            );
            let fault = Fault::new(Code::PolicyRefused, detail);
            Err(match log.refused_rule() {
                Some(read) => fault.because(Cause::RULE_BEYOND_KERNEL.with(&[&read])),
                None => fault,
            })
        }
    }
}

/// Names a copy of the policy that has the signature from the file beside it. A copy on a tmpfs, because rootfs may be a ramfs,
/// which keeps no extended attributes.
fn load_signed(wanted: &Wanted, canary: &Canary) -> Result<(), Fault> {
    let fault = |why: String| Fault::new(Code::PolicySignature, format!("{}: {why}", wanted.path));
    let signature_path = format!("{}{}", wanted.path, layout::SIGNATURE);
    let signature = reading::file(&signature_path)?
        .filter(|signature| !signature.is_empty())
        .ok_or_else(|| fault(format!("{signature_path} is not there")))?;
    let copy = canary
        .signed_copy(&wanted.text, &signature)
        .map_err(|errno| fault(format!("a signed copy on a tmpfs: {}", describe(errno))))?;
    securityfs::write_path(&copy)
        .map_err(|errno| fault(describe(errno)).because(Cause::POLICY_SIGNATURE_REFUSED))
}

/// Compares with the rules that the kernel shows; `false` if this kernel shows none.
fn read_back(wanted: &Wanted) -> Result<bool, Fault> {
    let Some(text) = securityfs::rules() else {
        return Ok(false);
    };
    if wanted.policy.is_within(&text) {
        return Ok(true);
    }
    let shown = String::from_utf8_lossy(&text);
    let first: Vec<&str> = shown.lines().take(8).collect();
    let detail = format!("{}: the kernel shows: {}", wanted.path, first.join(" | "));
    Err(Fault::new(Code::PolicyReadBack, detail))
}
