//! The TPM, and the measurement list beside its PCRs.

use std::collections::BTreeMap;
use std::path::Path;

use ima::measurement::{Bank, ByteOrder, Digested};
use serde::Serialize;

use super::item::{Check, Item, State, count};
use super::system::System;
use crate::measurement::{Comparison, LIST, ListReader};
use crate::pcr;

/// More templates than a kernel has are counted together.
const MAX_TEMPLATES: usize = 32;

/// The TPM.
#[derive(Debug, Clone, Serialize)]
pub struct Tpm {
    /// Its version, 1 or 2; nothing if there is none.
    pub version: Option<String>,
    /// The banks whose PCRs could be read.
    pub banks: Vec<&'static str>,
}

/// A PCR beside the list.
#[derive(Debug, Clone, Serialize)]
pub struct PcrVerdict {
    /// Its number.
    pub pcr: u32,
    /// Its bank.
    pub bank: &'static str,
    /// Whether it fits the list.
    pub good: bool,
    /// How, in words.
    pub verdict: &'static str,
}

/// The measurement list.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Measurements {
    /// Why it cannot be read or parsed, if so.
    pub error: Option<String>,
    /// Whether that is because it is malformed.
    pub malformed: bool,
    /// How many entries it has.
    pub entries: usize,
    /// How many of them are violations.
    pub violations: usize,
    /// The entries by their template: `ima-ng` and `ima-sig` of files, `ima-buf` of keys and other data.
    pub templates: BTreeMap<String, usize>,
    /// The first entry that was changed, counted from 1.
    pub changed_entry: Option<usize>,
    /// The PCRs that the list extends and that were read.
    pub pcrs: Vec<PcrVerdict>,
    /// Whether its first entry is boot_aggregate: if not, earlier ones were taken out of the kernel.
    pub begins_at_boot: bool,
    /// Whether boot_aggregate is that of PCRs 0 to 9; nothing if that is not known.
    pub boot_aggregate: Option<bool>,
    /// Whether nothing contradicts the list.
    pub consistent: bool,
}

/// Reads the TPM's PCRs, then the list: what is measured in between is in the list only.
pub(super) fn read(system: &System) -> (Tpm, Measurements) {
    let version = system.text(&format!("{}/tpm_version_major", pcr::SYSFS));
    let banks = match version {
        Some(_) => system.pcrs(),
        None => BTreeMap::new(),
    };
    let tpm = Tpm {
        version,
        banks: banks.keys().map(|bank| bank.name()).collect(),
    };
    let mut comparison = Comparison::new(banks);
    let mut found = Measurements::default();
    if let Err((malformed, error)) = follow(system, &mut comparison, &mut found.templates) {
        (found.malformed, found.error) = (malformed, Some(error));
    }
    found.entries = comparison.entries;
    found.violations = comparison.violations;
    found.changed_entry = comparison.wrong;
    found.begins_at_boot = comparison.begins_at_boot;
    found.boot_aggregate = comparison.aggregate.matches();
    found.consistent = comparison.is_consistent();
    found.pcrs = comparison
        .compared()
        .map(|item| {
            let (verdict, held) = item.verdict(comparison.entries);
            PcrVerdict {
                pcr: item.pcr,
                bank: item.bank.name(),
                good: held.is_some(),
                verdict,
            }
        })
        .collect();
    (tpm, found)
}

/// Reads the list, entry by entry. Of an error it says whether the list is malformed.
fn follow(
    system: &System,
    comparison: &mut Comparison,
    templates: &mut BTreeMap<String, usize>,
) -> Result<(), (bool, String)> {
    let order = if system.is_running() && cfg!(target_endian = "big") {
        ByteOrder::Big
    } else {
        ByteOrder::Little
    };
    let file = system
        .stream(LIST)
        .map_err(|error| (false, error.to_string()))?;
    let failed = |fault: ima::fault::Fault| (true, fault.detail().to_owned());
    let mut list = ListReader::new(file, Path::new(LIST), Bank::Sha1, order).map_err(failed)?;
    while let Some(entry) = list.read().map_err(failed)? {
        let mut digested = Digested::new(&entry, order);
        comparison.add(&entry, &mut digested, list.bank());
        let name = entry.template().name();
        let known = templates.contains_key(name) || templates.len() < MAX_TEMPLATES;
        let name = if known { name } else { "others" };
        *templates.entry(name.to_owned()).or_default() += 1;
    }
    Ok(())
}

impl Tpm {
    pub(super) fn check(&self) -> Check {
        match &self.version {
            None => Check::new(
                Item::Tpm,
                State::Attention,
                "none: nobody outside can verify what this system measures",
            ),
            Some(version) if self.banks.is_empty() => Check::new(
                Item::Tpm,
                State::NotVisible,
                format!("version {version}; its PCRs cannot be read: run this as root"),
            ),
            Some(version) => Check::new(
                Item::Tpm,
                State::Good,
                format!("version {version}, banks {}", self.banks.join(", ")),
            ),
        }
    }
}

impl Measurements {
    pub(super) fn check(&self, tpm: &Tpm) -> Check {
        let check = |state, text: String| Check::new(Item::Measurements, state, text);
        match &self.error {
            Some(error) if self.malformed => {
                return check(State::Failed, format!("the list cannot be parsed: {error}"));
            }
            Some(error) => {
                return check(
                    State::NotVisible,
                    format!("the list cannot be read: {error}"),
                );
            }
            None => {}
        }
        let entries = match self.entries {
            1 => "1 entry".to_owned(),
            count => format!("{count} entries"),
        };
        let violations = count(self.violations as u64, "violation");
        let text = format!("{entries}, {violations}");
        if self.pcrs.is_empty() && self.consistent {
            let why = match tpm.version {
                None => "no TPM to compare them with",
                Some(_) => "no PCR to compare them with",
            };
            return check(State::NotVisible, format!("{text}; {why}"));
        }
        if self.consistent {
            let banks: Vec<&str> = self.pcrs.iter().map(|pcr| pcr.bank).collect();
            let pcr = self.pcrs.first().map_or(0, |pcr| pcr.pcr);
            let text = format!("{text}; PCR {pcr} is their replay ({})", banks.join(", "));
            return check(State::Good, text);
        }
        if !self.begins_at_boot && self.changed_entry.is_none() {
            let text = format!("{text}; earlier ones were taken out of the kernel");
            return check(State::Attention, text)
                .detail("imactl measurement compares the whole list with the TPM: give it the earlier entries first");
        }
        let mut check = check(State::Failed, format!("{text}; they do not fit the TPM"));
        if let Some(entry) = self.changed_entry {
            check = check.detail(format!(
                "entry {entry} was changed: its digest is not that of its data"
            ));
        }
        for pcr in self.pcrs.iter().filter(|pcr| !pcr.good) {
            check = check.detail(format!("PCR {} {}: {}", pcr.pcr, pcr.bank, pcr.verdict));
        }
        if self.boot_aggregate == Some(false) {
            check = check.detail("boot_aggregate is not that of PCRs 0 to 9");
        }
        check.detail("imactl measurement shows more")
    }
}
