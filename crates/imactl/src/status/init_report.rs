//! The report that the init left, `/run/ima-init/report.json` (docs/reference/report.md).

use std::collections::BTreeMap;

use ima::layout;
use serde::Deserialize;

use super::item::{Check, Item, State, count};
use super::system::System;

/// The longest report that is read, in bytes.
const MAX_REPORT: usize = 4 << 20;

/// The stages in the order of the boot.
const STAGES: [&str; 7] = [
    "environment",
    "configuration",
    "modules",
    "root",
    "keys",
    "policy",
    "preflight",
];

/// What the init says of the boot. Root can have changed it since.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct InitReport {
    /// The kernel's release.
    pub kernel: String,
    /// Whether the kernel had a TPM.
    pub tpm: bool,
    /// `required` or `permissive`.
    pub enforce: String,
    /// Every certificate that was offered to a keyring.
    pub keys: Vec<Key>,
    /// The policy.
    pub policy: Policy,
    /// The root.
    pub root: Root,
    /// The slot whose root was booted.
    pub slot: Option<String>,
    /// The slots that were refused before it.
    pub refused_slots: Vec<RefusedSlot>,
    /// The init of the real root.
    pub init: String,
    /// What the init warned of.
    pub warnings: Vec<Warning>,
    /// Microseconds by stage, and `total`.
    pub times_us: BTreeMap<String, u64>,
    /// The report of the first half of the boot, where that was another process.
    pub first_half: Option<Box<InitReport>>,
}

/// A certificate that was offered to a keyring.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Key {
    /// The keyring.
    pub keyring: String,
    /// The file.
    pub path: String,
    /// Whose it is.
    pub subject: Option<String>,
    /// The key ID in signatures.
    pub key_id: Option<String>,
    /// Algorithm and size.
    pub algorithm: Option<String>,
    /// The end of its validity in seconds since 1970.
    pub not_after: Option<u64>,
    /// Whether the kernel took it.
    pub accepted: bool,
    /// Why not, as a code.
    pub code: Option<String>,
}

/// The policy of the initramfs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Its file in the initramfs.
    pub path: String,
    /// How many rules it has.
    pub rules: u64,
    /// How the init proved that it is in force.
    pub proofs: Vec<String>,
    /// The policies of the real root.
    pub additional: Vec<AdditionalPolicy>,
}

/// A policy of the real root.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct AdditionalPolicy {
    /// Its file.
    pub path: String,
    /// Whether the kernel took it.
    pub accepted: bool,
}

/// The root as the init mounted it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Root {
    /// The device.
    pub device: String,
    /// Its file system.
    pub fstype: String,
    /// The root hash of dm-verity.
    pub verity: Option<String>,
    /// The device of the writable layer, or `tmpfs`.
    pub overlay: Option<String>,
    /// The digest of the image of a composefs.
    pub composefs: Option<String>,
}

/// A slot that was refused.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RefusedSlot {
    /// Its name.
    pub slot: String,
    /// Why.
    #[serde(flatten)]
    pub warning: Warning,
}

/// A warning of the init.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(default)]
pub struct Warning {
    /// The code.
    pub code: String,
    /// The file, device or value.
    pub detail: String,
    /// Why.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

/// Whether there is a report.
#[derive(Debug, Clone)]
pub enum Found {
    /// The init left one.
    Report(Box<InitReport>),
    /// There is none: the init did not boot this system.
    None,
    /// There is one that cannot be read, for this reason.
    Unreadable(String),
}

impl Found {
    pub(super) fn of(system: &System) -> Self {
        match system.read(layout::REPORT) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::None,
            Err(error) => Self::Unreadable(error.to_string()),
            Ok(bytes) if bytes.len() > MAX_REPORT => Self::Unreadable("it is too long".to_owned()),
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(report) => Self::Report(report),
                Err(error) => Self::Unreadable(error.to_string()),
            },
        }
    }

    /// The report, if there is one.
    #[must_use]
    pub fn report(&self) -> Option<&InitReport> {
        match self {
            Self::Report(report) => Some(report),
            Self::None | Self::Unreadable(_) => None,
        }
    }

    pub(super) fn check(&self, kernel: Option<&str>) -> Check {
        let report = match self {
            Self::Report(report) => report,
            Self::None => {
                let text = format!(
                    "this system was not booted by ima-init: no {}",
                    layout::REPORT
                );
                return Check::new(Item::Init, State::Failed, text);
            }
            Self::Unreadable(reason) => {
                let text = format!("{} cannot be read: {reason}", layout::REPORT);
                return Check::new(Item::Init, State::Failed, text);
            }
        };
        if kernel.is_some_and(|kernel| kernel != report.kernel) {
            let text = format!("{} is of another kernel, {}", layout::REPORT, report.kernel);
            return Check::new(Item::Init, State::Failed, text);
        }
        let time = match report.times_us.get("total") {
            Some(time) => format!(" in {}", milliseconds(*time)),
            None => String::new(),
        };
        let slot = match &report.slot {
            Some(slot) => format!(", slot {slot}"),
            None => String::new(),
        };
        let text = format!("booted by ima-init{time}{slot}");
        let mut check = Check::new(Item::Init, State::Good, text);
        for refused in &report.refused_slots {
            check = check.attention().detail(format!(
                "slot {} was refused: {}: {}",
                refused.slot, refused.warning.code, refused.warning.detail
            ));
        }
        check
    }
}

impl InitReport {
    /// The certificates of both halves of the boot.
    pub fn all_keys(&self) -> impl Iterator<Item = &Key> {
        self.halves().flat_map(|half| &half.keys)
    }

    /// The warnings of both halves.
    pub fn all_warnings(&self) -> impl Iterator<Item = &Warning> {
        self.halves().flat_map(|half| &half.warnings)
    }

    /// The proofs of the half that loaded the policy, and those of the other one that are different.
    #[must_use]
    pub fn proofs(&self) -> Vec<&str> {
        let mut proofs: Vec<&str> = Vec::new();
        for proof in self.halves().flat_map(|half| &half.policy.proofs) {
            if !proofs.contains(&proof.as_str()) {
                proofs.push(proof);
            }
        }
        proofs
    }

    /// The stages with their times in microseconds, in the order of the boot; whether each is of the first half of two.
    #[must_use]
    pub fn stages(&self) -> Vec<(bool, String, u64)> {
        let mut stages = Vec::new();
        for half in self.halves() {
            let first = self.first_half.is_some() && !std::ptr::eq(half, self);
            let place = |name: &str| STAGES.iter().position(|stage| *stage == name);
            let mut times: Vec<_> = half
                .times_us
                .iter()
                .filter(|(name, _)| *name != "total")
                .collect();
            times.sort_by_key(|(name, _)| place(name).unwrap_or(STAGES.len()));
            stages.extend(
                times
                    .into_iter()
                    .map(|(name, time)| (first, name.clone(), *time)),
            );
        }
        stages
    }

    /// The first half, if that was another process, and this one.
    fn halves(&self) -> impl Iterator<Item = &Self> {
        self.first_half.as_deref().into_iter().chain([self])
    }

    pub(super) fn warnings_check(&self) -> Check {
        let number = self.all_warnings().count();
        if number == 0 {
            return Check::new(Item::Warnings, State::Good, "none");
        }
        let text = count(number as u64, "warning");
        let mut check = Check::new(Item::Warnings, State::Attention, format!("{text} at boot"));
        for warning in self.all_warnings() {
            check = check
                .detail(format!(
                    "{}: {}: {}",
                    warning.code, warning.detail, warning.cause
                ))
                .detail(format!("  remedy: {}", warning.remedy));
        }
        check
    }
}

/// A time in milliseconds with one decimal.
#[must_use]
pub fn milliseconds(microseconds: u64) -> String {
    format!("{}.{} ms", microseconds / 1000, microseconds % 1000 / 100)
}
