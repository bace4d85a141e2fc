//! What is in force on a system: from the init's report, and from what the kernel shows. docs/reference/status.md documents it.

mod boot;
mod denials;
mod html;
mod init_report;
mod item;
mod keyrings;
mod measurements;
mod metrics;
mod policy;
mod root;
mod system;

use serde_json::{Value, json};

pub use boot::{Boot, SecureBoot};
pub use denials::{Denial, Denials, KernelLog};
pub use init_report::{Found, InitReport, Warning};
pub use item::{Check, Item, State};
pub use keyrings::{Ring, Takes};
pub use measurements::{Measurements, PcrVerdict, Tpm};
pub use policy::Policy;
pub use root::{Protection, Root};
pub use system::System;

/// What is in force on a system.
#[derive(Debug, Clone)]
pub struct Status {
    /// The init's report.
    pub report: Found,
    /// How the kernel was started.
    pub boot: Boot,
    /// The TPM.
    pub tpm: Tpm,
    /// The keyrings.
    pub keyrings: Vec<Ring>,
    /// The policy.
    pub policy: Policy,
    /// The root; nothing if the list of mounts cannot be read.
    pub root: Option<Root>,
    /// The measurement list.
    pub measurements: Measurements,
    /// The denials.
    pub denials: Denials,
    /// When this was, in seconds since 1970.
    pub now: u64,
}

impl Status {
    /// Reads the status of a system; `now` in seconds since 1970.
    #[must_use]
    pub fn of(system: &System, now: u64) -> Self {
        let report = Found::of(system);
        let boot = Boot::of(system);
        let (tpm, measurements) = measurements::read(system);
        Self {
            tpm,
            measurements,
            keyrings: keyrings::rings(system),
            policy: Policy::of(system, report.report(), boot.weakened.as_deref()),
            root: Root::of(system, report.report()),
            denials: Denials::of(system),
            report,
            boot,
            now,
        }
    }

    /// What was found, item by item.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        let report = self.report.report();
        Item::ALL
            .into_iter()
            .filter_map(|item| {
                Some(match item {
                    Item::Init => self.report.check(self.boot.kernel.as_deref()),
                    Item::Kernel => self.boot.kernel_check(),
                    Item::SecureBoot => self.boot.secure_boot_check(),
                    Item::CommandLine => self.boot.command_line_check(),
                    Item::Tpm => self.tpm.check(),
                    Item::Keyrings => keyrings::check(&self.keyrings, report, self.now),
                    Item::Policy => self.policy.check(),
                    Item::Root => Root::check(self.root.as_ref()),
                    Item::Measurements => self.measurements.check(&self.tpm),
                    Item::Denials => self
                        .denials
                        .check(self.policy.in_force, self.boot.audit_is_off),
                    Item::Warnings => report?.warnings_check(),
                })
            })
            .collect()
    }

    /// The status as JSON; `accepted` are the items that do not count.
    #[must_use]
    pub fn json(&self, accepted: &[Item]) -> Value {
        let checks = self.checks();
        let warnings: Vec<&Warning> = self
            .report
            .report()
            .map(|report| report.all_warnings().collect())
            .unwrap_or_default();
        json!({
            "version": 1,
            "status": exit_status(&checks, accepted),
            "time": self.now,
            "booted_by_ima_init": self.report.report().is_some(),
            "checks": checks,
            "accepted": accepted,
            "boot": self.boot,
            "tpm": self.tpm,
            "keyrings": self.keyrings,
            "policy": self.policy,
            "root": self.root,
            "measurements": self.measurements,
            "denials": self.denials,
            "warnings": warnings,
        })
    }
}

/// The exit status: 0 if nothing is to be looked at, 1 if something is, 2 if something is not in force or that cannot be told. What is
/// accepted does not count.
#[must_use]
pub fn exit_status(checks: &[Check], accepted: &[Item]) -> u8 {
    checks
        .iter()
        .filter(|check| !accepted.contains(&check.item))
        .map(|check| match check.state {
            State::Good | State::NotVisible => 0,
            State::Attention => 1,
            State::Failed => 2,
        })
        .max()
        .unwrap_or(0)
}
