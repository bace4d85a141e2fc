//! What is in force on a system: from the init's report, and from what the kernel shows. docs/reference/status.md documents it.

mod boot;
mod denials;
mod html;
mod init_report;
mod keyrings;
mod measurements;
mod metrics;
mod policy;
mod root;
mod system;

use serde::Serialize;
use serde_json::{Value, json};

pub use boot::{Boot, SecureBoot};
pub use denials::{Denial, Denials, KernelLog};
pub use init_report::{Found, InitReport, Warning};
pub use keyrings::{Ring, Takes};
pub use measurements::{Measurements, PcrVerdict, Tpm};
pub use policy::Policy;
pub use root::{Protection, Root};
pub use system::System;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// Whether the init booted this system.
    Init,
    /// The kernel, and what started it.
    Kernel,
    /// Secure Boot and lockdown.
    SecureBoot,
    /// Whether somebody can change the command line.
    CommandLine,
    /// The TPM.
    Tpm,
    /// The keyrings.
    Keyrings,
    /// The policy.
    Policy,
    /// The root.
    Root,
    /// The measurement list.
    Measurements,
    /// What was denied.
    Denials,
    /// What the init warned of.
    Warnings,
}

impl Item {
    /// Every item, in the order in which they are shown.
    pub const ALL: [Self; 11] = [
        Self::Init,
        Self::Kernel,
        Self::SecureBoot,
        Self::CommandLine,
        Self::Tpm,
        Self::Keyrings,
        Self::Policy,
        Self::Root,
        Self::Measurements,
        Self::Denials,
        Self::Warnings,
    ];

    /// Its name, as in the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Kernel => "kernel",
            Self::SecureBoot => "secure-boot",
            Self::CommandLine => "command-line",
            Self::Tpm => "tpm",
            Self::Keyrings => "keyrings",
            Self::Policy => "policy",
            Self::Root => "root",
            Self::Measurements => "measurements",
            Self::Denials => "denials",
            Self::Warnings => "warnings",
        }
    }

    /// What it is called on a screen.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::SecureBoot => "Secure Boot",
            Self::CommandLine => "command line",
            Self::Tpm => "TPM",
            item => item.name(),
        }
    }

    /// The item of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|item| item.name() == name)
    }
}

/// What was found of an item. The worst counts last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Good,
    /// It cannot be seen on this system, or by this user.
    NotVisible,
    /// Somebody should look at it.
    Attention,
    /// It is not in force, does not hold, or it cannot be told whether it is in force.
    Failed,
}

impl State {
    /// Its name, as in the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::NotVisible => "not-visible",
            Self::Attention => "attention",
            Self::Failed => "failed",
        }
    }

    /// Its sign on a screen.
    #[must_use]
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::NotVisible => "·",
            Self::Attention => "!",
            Self::Failed => "✗",
        }
    }
}

/// What was found of an item, in words. The texts contain names of files and devices as they are: escape them for where they are
/// shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The item.
    pub item: Item,
    /// What was found.
    pub state: State,
    /// A line about it.
    pub text: String,
    /// More lines.
    pub details: Vec<String>,
}

impl Check {
    fn new(item: Item, state: State, text: impl Into<String>) -> Self {
        Self {
            item,
            state,
            text: text.into(),
            details: Vec::new(),
        }
    }

    fn detail(mut self, text: impl Into<String>) -> Self {
        self.details.push(text.into());
        self
    }

    /// The same, at least [`State::Attention`].
    fn attention(mut self) -> Self {
        self.state = self.state.max(State::Attention);
        self
    }

    fn failed(mut self) -> Self {
        self.state = State::Failed;
        self
    }
}

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

/// A number with its noun.
fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

/// A day, as ISO 8601 writes it.
fn date(seconds: u64) -> String {
    match der::DateTime::from_unix_duration(std::time::Duration::from_secs(seconds)) {
        Ok(time) => format!("{:04}-{:02}-{:02}", time.year(), time.month(), time.day()),
        Err(_) => seconds.to_string(),
    }
}
