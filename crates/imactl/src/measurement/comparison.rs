//! A measurement list beside the PCRs of a TPM.

use std::collections::{BTreeMap, BTreeSet};

use ima::bank::Bank;
use ima::measurement::{
    BOOT_AGGREGATE, DEFAULT_PCR, Digested, Entry, PcrMatch, PcrMatcher, PcrReplay, boot_aggregate,
};

use crate::pcr::{self, Pcrs};

/// More PCRs than a TPM has are not named one by one.
const MAX_UNREAD: usize = 24;

/// A list compared with PCRs, entry by entry. The PCRs are read before the list, so that what is measured meanwhile is in the list
/// only.
#[derive(Debug)]
pub struct Comparison {
    banks: BTreeMap<Bank, Pcrs>,
    pcrs: Vec<ComparedPcr>,
    /// How many entries the list has so far.
    pub entries: usize,
    /// How many of them are violations: the kernel could not tell what was used.
    pub violations: usize,
    /// The first entry, counted from 1, whose digest is not that of its data: it was changed.
    pub wrong: Option<usize>,
    /// PCRs that the list extends and that were not read, a few of them.
    pub unread: BTreeSet<u32>,
    /// The last boot_aggregate.
    pub aggregate: Aggregate,
    /// Whether the first entry is a boot_aggregate: if not, earlier entries were taken out of the kernel.
    pub begins_at_boot: bool,
}

impl Comparison {
    /// Begins a comparison with the PCRs that were read, by bank; with none of them the list alone is looked at.
    #[must_use]
    pub fn new(banks: BTreeMap<Bank, Pcrs>) -> Self {
        Self::after(&BTreeMap::new(), banks)
    }

    /// The same for a list whose earlier entries are not at hand: `before` is what PCR 10 held after those.
    #[must_use]
    pub fn after(before: &BTreeMap<Bank, Vec<u8>>, banks: BTreeMap<Bank, Pcrs>) -> Self {
        let mut compared = Vec::new();
        for (bank, pcrs) in &banks {
            for (pcr, value) in pcrs {
                let before = before.get(bank).filter(|_| *pcr == DEFAULT_PCR);
                compared.push(ComparedPcr::new(*bank, *pcr, value, before));
            }
        }
        Self {
            banks,
            pcrs: compared,
            entries: 0,
            violations: 0,
            wrong: None,
            unread: BTreeSet::new(),
            aggregate: Aggregate::Absent,
            begins_at_boot: false,
        }
    }

    /// Takes the next entry; `digested` are its digests, and `bank` is that of those in the list.
    pub fn add(&mut self, entry: &Entry, digested: &mut Digested<'_>, bank: Bank) {
        self.entries += 1;
        self.violations += usize::from(entry.is_violation());
        if self.wrong.is_none() && digested.is_wrong(bank) {
            self.wrong = Some(self.entries);
        }
        let read = self.pcrs.iter().any(|item| item.pcr == entry.pcr());
        if !read && self.unread.len() < MAX_UNREAD {
            self.unread.insert(entry.pcr());
        }
        for item in &mut self.pcrs {
            item.extend(entry.pcr(), digested);
        }
        if entry.name() == Some(BOOT_AGGREGATE) {
            self.begins_at_boot |= self.entries == 1;
            self.aggregate = Aggregate::of(entry, &self.banks);
        }
    }

    /// The PCRs that were read and that the list extends.
    pub fn compared(&self) -> impl Iterator<Item = &ComparedPcr> {
        self.pcrs.iter().filter(|item| item.extended)
    }

    /// Whether PCRs were read.
    #[must_use]
    pub fn has_pcrs(&self) -> bool {
        !self.banks.is_empty()
    }

    /// Whether nothing contradicts the list: no entry was changed, and every PCR that was read, or that should have been, and
    /// boot_aggregate fit.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.wrong.is_none()
            && self.aggregate != Aggregate::Differs
            && (!self.has_pcrs() || self.unread.is_empty())
            && self
                .compared()
                .all(|item| item.verdict(self.entries).1.is_some())
    }
}

/// A PCR that was read, compared with the list entry by entry.
#[derive(Debug)]
pub struct ComparedPcr {
    /// Its bank.
    pub bank: Bank,
    /// Its number.
    pub pcr: u32,
    /// Its value as it was read.
    pub found: Vec<u8>,
    /// Whether the list extends it.
    extended: bool,
    exact: PcrMatcher,
    padded: PcrMatcher,
}

impl ComparedPcr {
    fn new(bank: Bank, pcr: u32, found: &[u8], before: Option<&Vec<u8>>) -> Self {
        let matcher = |replay: PcrReplay| {
            let replay = match before {
                Some(value) => replay.from_value(value),
                None => replay,
            };
            PcrMatcher::new(replay, found.to_vec())
        };
        Self {
            bank,
            pcr,
            found: found.to_vec(),
            extended: false,
            exact: matcher(PcrReplay::new(bank, pcr)),
            padded: matcher(PcrReplay::padded(bank, pcr)),
        }
    }

    fn extend(&mut self, pcr: u32, entry: &mut Digested<'_>) {
        self.extended |= self.pcr == pcr;
        self.exact.extend(entry);
        self.padded.extend(entry);
    }

    /// What it would hold after the list.
    #[must_use]
    pub fn replay(&self) -> &[u8] {
        self.exact.replay()
    }

    /// How it fits, in words, and how many of the list's entries it holds; nothing of them if it does not fit.
    #[must_use]
    pub fn verdict(&self, entries: usize) -> (&'static str, Option<usize>) {
        match (self.exact.found(), self.padded.found()) {
            (PcrMatch::Whole, _) => ("is the replay of the list", Some(entries)),
            // A TPM that was never extended fits the beginning of every list, and proves nothing.
            (PcrMatch::Prefix { entries: 0 }, _) => ("was not extended by this list", None),
            (PcrMatch::Prefix { entries }, _) => {
                ("is the replay of the list's beginning", Some(entries))
            }
            (PcrMatch::No, PcrMatch::Whole) => {
                ("is the replay of SHA-1 digests with zeros", Some(entries))
            }
            (PcrMatch::No, PcrMatch::Prefix { entries }) => {
                ("is the replay of SHA-1 digests with zeros", Some(entries))
            }
            (PcrMatch::No, PcrMatch::No) => ("is not the replay of the list", None),
        }
    }
}

/// What was found of the boot_aggregate, the digest of PCRs 0 to 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// The list has none.
    Absent,
    /// It could not be compared: PCRs of its bank were not read.
    NotCompared,
    /// It is that of the PCRs.
    Matches,
    /// It is another.
    Differs,
}

impl Aggregate {
    fn of(entry: &Entry, banks: &BTreeMap<Bank, Pcrs>) -> Self {
        let expected = || {
            let digest = entry.file_digest()?;
            let name = match digest.algorithm {
                // The first template says no algorithm: SHA-1.
                "" => "sha1",
                name => name,
            };
            let bank = Bank::from_name(name)?;
            let pcrs = banks.get(&bank)?;
            let values: Vec<Vec<u8>> = (0..pcr::COUNT)
                .map_while(|number| pcrs.get(&number).cloned())
                .collect();
            Some((boot_aggregate(bank, &values)?, digest.digest))
        };
        match expected() {
            None => Self::NotCompared,
            Some((expected, found)) if expected == found => Self::Matches,
            Some(_) => Self::Differs,
        }
    }

    /// Whether it is that of the PCRs; `None` if that is not known.
    #[must_use]
    pub const fn matches(self) -> Option<bool> {
        match self {
            Self::Absent | Self::NotCompared => None,
            Self::Matches => Some(true),
            Self::Differs => Some(false),
        }
    }
}
