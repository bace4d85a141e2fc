//! The verifier: what evidence shows, and what speaks against it.
//!
//! The signature, the nonce and the PCRs come first: what is not signed is not looked at. The logs are then replayed against the PCRs
//! that were signed, and only what a PCR covers is judged.

use std::collections::{BTreeMap, BTreeSet};

use ima::bank::Bank;
use ima::boot_event::{self, CONTENT_TYPE, Record};
use ima::certificate::Certificate;
use ima::eventlog;
use ima::fault::{Cause, Code, Explanation, Fault};
use ima::hash::HashAlgorithm;
use ima::measurement::{
    BOOT_AGGREGATE, DEFAULT_PCR, Digested, Entry, FieldId, MeasurementList, PcrMatch, PcrMatcher,
    PcrReplay, boot_aggregate,
};

use super::{Evidence, PublicArea, Quote, pcr_digest};
use crate::digest::DigestOf;
use crate::events::{Logs, parse_programs};
use crate::hex;
use crate::manifest::Manifest;
use crate::measurement::{GOOD, ambiguity, signature_verdict};
use crate::pcr::Pcrs;

/// The last PCR that is the firmware's alone (TCG PC Client Platform Firmware Profile, 2.3.4).
const LAST_OF_FIRMWARE: u32 = 7;

/// What the verifier knows beforehand.
#[derive(Debug)]
pub struct Expected<'a> {
    /// The attestation key of the machine.
    pub key: &'a PublicArea,
    /// The nonce that this verifier chose for this evidence.
    pub nonce: &'a [u8],
    /// The certificates of the keys by which measured files must be signed; if none, signatures are not looked at.
    pub certificates: &'a [Certificate],
    /// The text of the policy that must be in force.
    pub policy: Option<&'a [u8]>,
    /// The files that may be measured; if none, any may.
    pub manifests: &'a [Manifest],
    /// How often the TPM was reset.
    pub resets: Option<u32>,
    /// Values that PCRs must have, by bank: those of a boot that is trusted.
    pub pcrs: &'a BTreeMap<Bank, Pcrs>,
}

/// Something that speaks against the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the catalogue has the text of each, and the fields are those of the text
pub enum Finding {
    OtherKey(String),
    NotAQuote(String),
    StaleNonce,
    PcrsNotQuoted,
    PcrNotSelected(u32),
    Resets { found: u32, expected: u32 },
    OtherPcr { pcr: u32, bank: Bank },
    NeverExtended(Bank),
    ListMalformed(String),
    EntryChanged(usize),
    EntryUnjudged { entry: usize, why: String },
    ListNotReplayed(Bank),
    AggregateMissing,
    AggregateDiffers,
    LogMalformed { whose: &'static str, why: String },
    LogNotReplayed { pcr: u32, bank: Bank },
    ConclusionChanged(usize),
    ConclusionsNotReplayed { pcr: u32, bank: Bank },
    NoConclusion,
    Refused(String),
    OtherPolicy { found: String, expected: String },
    SignaturesBad { count: usize, first: String },
    NothingSigned,
    UnknownFiles { count: usize, first: String },
}

impl Finding {
    /// A name for programs, which stays the same.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::OtherKey(_) => "other-key",
            Self::NotAQuote(_) => "not-a-quote",
            Self::StaleNonce => "stale-nonce",
            Self::PcrsNotQuoted => "pcrs-not-quoted",
            Self::PcrNotSelected(_) => "pcr-not-selected",
            Self::Resets { .. } => "tpm-was-reset",
            Self::OtherPcr { .. } => "other-pcr",
            Self::NeverExtended(_) => "pcr-never-extended",
            Self::ListMalformed(_) => "list-malformed",
            Self::EntryChanged(_) => "entry-changed",
            Self::EntryUnjudged { .. } => "entry-unjudged",
            Self::ListNotReplayed(_) => "list-not-replayed",
            Self::AggregateMissing => "boot-aggregate-missing",
            Self::AggregateDiffers => "boot-aggregate-differs",
            Self::LogMalformed { .. } => "log-malformed",
            Self::LogNotReplayed { .. } => "log-not-replayed",
            Self::ConclusionChanged(_) => "conclusion-changed",
            Self::ConclusionsNotReplayed { .. } => "conclusions-not-replayed",
            Self::NoConclusion => "no-conclusion",
            Self::Refused(_) => "boot-refused",
            Self::OtherPolicy { .. } => "other-policy",
            Self::SignaturesBad { .. } => "signatures-bad",
            Self::NothingSigned => "nothing-signed",
            Self::UnknownFiles { .. } => "unknown-files",
        }
    }

    fn explanation(&self) -> Explanation {
        match self {
            Self::OtherKey(why) => Cause::QUOTE_BY_OTHER_KEY.with(&[why]),
            Self::NotAQuote(why) => Cause::QUOTE_OF_SOMETHING_ELSE.with(&[why]),
            Self::StaleNonce => Cause::QUOTE_OF_OTHER_NONCE.into(),
            Self::PcrsNotQuoted => Cause::PCRS_NOT_QUOTED.into(),
            Self::PcrNotSelected(pcr) => Cause::PCR_NOT_SELECTED.with(&[&pcr.to_string()]),
            Self::Resets { found, expected } => {
                Cause::TPM_WAS_RESET.with(&[&found.to_string(), &expected.to_string()])
            }
            Self::OtherPcr { pcr, bank } => {
                Cause::PCR_OTHER_THAN_REFERENCE.with(&[&pcr.to_string(), bank.name()])
            }
            Self::NeverExtended(bank) => Cause::PCR_NEVER_EXTENDED.with(&[bank.name()]),
            Self::ListMalformed(why) => Cause::LIST_MALFORMED.with(&[why]),
            Self::EntryChanged(entry) => Cause::LIST_ENTRY_CHANGED.with(&[&entry.to_string()]),
            Self::EntryUnjudged { entry, why } => {
                Cause::LIST_ENTRY_UNJUDGED.with(&[&entry.to_string(), why])
            }
            Self::ListNotReplayed(bank) => Cause::LIST_NOT_REPLAYED.with(&[bank.name()]),
            Self::AggregateMissing => Cause::AGGREGATE_MISSING.into(),
            Self::AggregateDiffers => Cause::AGGREGATE_DIFFERS.into(),
            Self::LogMalformed { whose, why } => Cause::LOG_MALFORMED.with(&[whose, why]),
            Self::LogNotReplayed { pcr, bank } => {
                Cause::LOG_NOT_REPLAYED.with(&[&pcr.to_string(), bank.name()])
            }
            Self::ConclusionChanged(record) => {
                Cause::CONCLUSION_CHANGED.with(&[&record.to_string()])
            }
            Self::ConclusionsNotReplayed { pcr, bank } => {
                Cause::CONCLUSIONS_NOT_REPLAYED.with(&[&pcr.to_string(), bank.name()])
            }
            Self::NoConclusion => Cause::NO_CONCLUSION.into(),
            Self::Refused(code) => Cause::CONCLUSION_OF_REFUSAL.with(&[code]),
            Self::OtherPolicy { found, expected } => Cause::OTHER_POLICY.with(&[found, expected]),
            Self::SignaturesBad { count, first } => {
                Cause::LIST_SIGNATURES_BAD.with(&[&count.to_string(), first])
            }
            Self::NothingSigned => Cause::LIST_WITHOUT_SIGNATURES.into(),
            Self::UnknownFiles { count, first } => {
                Cause::FILES_NOT_IN_MANIFEST.with(&[&count.to_string(), first])
            }
        }
    }

    /// The fault of the catalogue.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::new(Code::AttestationRefused, self.name()).because(self.explanation())
    }
}

/// What was found. If there are findings, the rest is what was established before them.
#[derive(Debug, Default)]
pub struct Findings {
    /// What speaks against the evidence. If there is nothing, it shows what was expected.
    pub findings: Vec<Finding>,
    /// The quote, once its signature is good.
    pub quote: Option<Quote>,
    /// The entries of the measurement list.
    pub entries: usize,
    /// The entries at its beginning that the quote covers.
    pub quoted: usize,
    /// The violations among those: files that were written while they were measured, or open.
    pub violations: usize,
    /// Whether PCRs were compared with the firmware's log.
    pub firmware_log_replayed: bool,
    /// The init's conclusions that a PCR holds: the PCR and the text.
    pub conclusions: Vec<(u32, String)>,
    /// The signatures among the quoted entries that are good.
    pub good_signatures: usize,
    /// The signatures that are not: the file, and the verdict.
    pub bad_signatures: Vec<(String, &'static str)>,
    /// The measured files that are in no manifest.
    pub unknown_files: Vec<String>,
}

/// Judges evidence.
#[must_use]
pub fn verify(evidence: &Evidence, expected: &Expected<'_>) -> Findings {
    let mut found = Findings::default();
    let quote = match authentic(evidence, expected) {
        Ok(quote) => quote,
        Err(finding) => {
            found.findings.push(finding);
            return found;
        }
    };
    if let Some(resets) = expected.resets.filter(|resets| *resets != quote.resets) {
        found.findings.push(Finding::Resets {
            found: quote.resets,
            expected: resets,
        });
    }
    for (bank, pcrs) in expected.pcrs {
        for (pcr, value) in pcrs {
            let quoted = evidence.pcrs.get(bank).and_then(|pcrs| pcrs.get(pcr));
            match quoted {
                Some(quoted) if quoted == value => {}
                Some(_) => found.add(Finding::OtherPcr {
                    pcr: *pcr,
                    bank: *bank,
                }),
                None => found.add(Finding::PcrNotSelected(*pcr)),
            }
        }
    }
    let logs = found.logs(evidence);
    found.judge_list(evidence, expected, &logs);
    found.judge_logs(evidence, &logs);
    found.judge_conclusions(evidence, expected, &logs);
    found.quote = Some(quote);
    found
}

/// The quote, if the expected key signed it over the expected nonce and the PCRs of the evidence.
fn authentic(evidence: &Evidence, expected: &Expected<'_>) -> Result<Quote, Finding> {
    let algorithm = expected
        .key
        .verify(&evidence.quote, &evidence.signature)
        .map_err(|error| Finding::OtherKey(error.to_string()))?;
    let quote =
        Quote::parse(&evidence.quote).map_err(|error| Finding::NotAQuote(error.to_string()))?;
    if quote.nonce != expected.nonce {
        return Err(Finding::StaleNonce);
    }
    let digest = pcr_digest(algorithm, &quote.selected, &evidence.pcrs);
    if digest.as_ref() != Some(&quote.digest) {
        return Err(Finding::PcrsNotQuoted);
    }
    Ok(quote)
}

impl Findings {
    fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// The logs; one that is malformed counts as one without events.
    fn logs(&mut self, evidence: &Evidence) -> Logs {
        let mut logs = Logs::default();
        if let Some(log) = &evidence.firmware_log {
            match eventlog::parse(log) {
                Ok(events) => {
                    logs.firmware = events;
                    self.firmware_log_replayed = true;
                }
                Err(error) => self.add(Finding::LogMalformed {
                    whose: "firmware",
                    why: error.to_string(),
                }),
            }
        }
        if let Some(log) = &evidence.programs_log {
            match parse_programs(log) {
                Ok(records) => logs.programs = records,
                Err(why) => self.add(Finding::LogMalformed {
                    whose: "programs",
                    why,
                }),
            }
        }
        logs
    }

    /// The measurement list: that PCR 10 covers its beginning, and what that holds.
    fn judge_list(&mut self, evidence: &Evidence, expected: &Expected<'_>, logs: &Logs) {
        let list = MeasurementList::parse_binary(
            &evidence.measurements,
            evidence.measurements_bank,
            evidence.byte_order,
        );
        let list = match list {
            Ok(list) => list,
            Err(error) => return self.add(Finding::ListMalformed(error.to_string())),
        };
        self.entries = list.entries().len();
        let Some(quoted) = self.replay(evidence, &list) else {
            return;
        };
        self.quoted = quoted;
        let entries = list.entries().get(..quoted).unwrap_or_default();
        if entries.first().and_then(Entry::name) != Some(BOOT_AGGREGATE) {
            self.add(Finding::AggregateMissing);
        } else {
            let aggregates = entries
                .iter()
                .filter(|entry| entry.name() == Some(BOOT_AGGREGATE));
            let findings = aggregates.filter_map(|entry| aggregate(entry, evidence, logs));
            self.findings.extend(findings);
        }
        let files = Files::of(expected.manifests);
        for (number, entry) in (1..).zip(entries) {
            if let Some(why) = unjudged(entry) {
                self.add(Finding::EntryUnjudged { entry: number, why });
                continue;
            }
            let name = || String::from_utf8_lossy(entry.name().unwrap_or_default()).into_owned();
            self.violations = self
                .violations
                .saturating_add(usize::from(entry.is_violation()));
            match signature_verdict(entry, expected.certificates) {
                None => {}
                Some(GOOD) => self.good_signatures = self.good_signatures.saturating_add(1),
                Some(verdict) => self.bad_signatures.push((name(), verdict)),
            }
            if !expected.manifests.is_empty() && !files.allow(entry) {
                self.unknown_files.push(name());
            }
        }
        if let Some((first, _)) = self.bad_signatures.first() {
            self.findings.push(Finding::SignaturesBad {
                count: self.bad_signatures.len(),
                first: first.clone(),
            });
        } else if !expected.certificates.is_empty() && self.good_signatures == 0 {
            self.add(Finding::NothingSigned);
        }
        if let Some(first) = self.unknown_files.first() {
            self.findings.push(Finding::UnknownFiles {
                count: self.unknown_files.len(),
                first: first.clone(),
            });
        }
    }

    /// How many entries at the beginning of the list the PCRs of all banks cover; nothing if they do not.
    fn replay(&mut self, evidence: &Evidence, list: &MeasurementList) -> Option<usize> {
        if let Some(entry) = list.first_wrong_digest() {
            self.add(Finding::EntryChanged(entry.saturating_add(1)));
            return None;
        }
        let mut matchers = Vec::new();
        for (bank, pcrs) in &evidence.pcrs {
            let Some(value) = pcrs.get(&DEFAULT_PCR) else {
                self.add(Finding::PcrNotSelected(DEFAULT_PCR));
                return None;
            };
            let replay = PcrReplay::new(*bank, DEFAULT_PCR);
            matchers.push((*bank, PcrMatcher::new(replay, value.clone())));
        }
        if matchers.is_empty() {
            self.add(Finding::PcrNotSelected(DEFAULT_PCR));
            return None;
        }
        for entry in list.entries() {
            let mut digested = Digested::new(entry, evidence.byte_order);
            for (_, matcher) in &mut matchers {
                matcher.extend(&mut digested);
            }
        }
        let mut covered = list.entries().len();
        let mut is_covered = true;
        for (bank, matcher) in &matchers {
            match matcher.found() {
                PcrMatch::Whole if !list.entries().is_empty() => {}
                // A TPM that was never extended fits the beginning of every list, and proves nothing.
                PcrMatch::Whole | PcrMatch::Prefix { entries: 0 } => {
                    self.add(Finding::NeverExtended(*bank));
                    is_covered = false;
                }
                PcrMatch::Prefix { entries } => covered = covered.min(entries),
                PcrMatch::No => {
                    self.add(Finding::ListNotReplayed(*bank));
                    is_covered = false;
                }
            }
        }
        is_covered.then_some(covered)
    }

    /// The logs of the firmware and of programs: that they explain the PCRs. Without the firmware's, PCRs 0 to 7 are not compared; the
    /// others are, so that no conclusion of the init can be left out, and another put into another PCR.
    fn judge_logs(&mut self, evidence: &Evidence, logs: &Logs) {
        let conclusions: BTreeSet<u32> = init_records(logs)
            .map(|(_, record)| record.pcr.into())
            .collect();
        for pcr in &conclusions {
            if evidence.pcrs.values().any(|pcrs| !pcrs.contains_key(pcr)) {
                self.add(Finding::PcrNotSelected(*pcr));
            }
        }
        for compared in logs.compare(&evidence.pcrs) {
            let (pcr, bank) = (compared.pcr, compared.bank);
            if compared.matches() {
                continue;
            }
            if conclusions.contains(&pcr) {
                self.add(Finding::ConclusionsNotReplayed { pcr, bank });
            } else if self.firmware_log_replayed || pcr > LAST_OF_FIRMWARE {
                self.add(Finding::LogNotReplayed { pcr, bank });
            }
        }
    }

    /// What the init concluded, if the PCRs hold it.
    fn judge_conclusions(&mut self, evidence: &Evidence, expected: &Expected<'_>, logs: &Logs) {
        let unproved = |finding: &Finding| {
            matches!(
                finding,
                Finding::ConclusionsNotReplayed { .. } | Finding::PcrNotSelected(_)
            )
        };
        let mut are_proved = !self.findings.iter().any(unproved);
        for (number, record) in init_records(logs) {
            if !is_measured(record, &evidence.pcrs) {
                self.add(Finding::ConclusionChanged(number));
                are_proved = false;
            }
        }
        if are_proved {
            self.conclusions = init_records(logs)
                .filter_map(|(_, record)| Some((record.pcr.into(), record.text.clone()?)))
                .collect();
        }
        let mut policies = Vec::new();
        for (_, text) in &self.conclusions {
            let Ok(event) = serde_json::from_str::<serde_json::Value>(text) else {
                continue;
            };
            let word = |key: &str| event.get(key).and_then(serde_json::Value::as_str);
            match word("event") {
                Some("policy") => policies.push(word("policy").unwrap_or_default().to_owned()),
                Some("refused") => {
                    let code = word("code").unwrap_or_default().to_owned();
                    self.findings.push(Finding::Refused(code));
                }
                _ => {}
            }
        }
        let Some(policy) = expected.policy.filter(|_| are_proved) else {
            return;
        };
        let digest = HashAlgorithm::Sha256.digest(policy).unwrap_or_default();
        let digest = hex::encode(&digest);
        match policies.iter().find(|found| **found != digest) {
            Some(other) => self.add(Finding::OtherPolicy {
                found: other.clone(),
                expected: digest,
            }),
            None if policies.is_empty() => self.add(Finding::NoConclusion),
            None => {}
        }
    }
}

/// The records of the init, counted from 1 among all records.
fn init_records(logs: &Logs) -> impl Iterator<Item = (usize, &Record)> {
    (1..)
        .zip(&logs.programs)
        .filter(|(_, record)| record.content_type.as_deref() == Some(CONTENT_TYPE))
}

/// Whether the record's text was extended into its PCR in each quoted bank, as far as the record says: the replay of the PCR then
/// says whether that is so.
fn is_measured(record: &Record, pcrs: &BTreeMap<Bank, Pcrs>) -> bool {
    let Some(text) = &record.text else {
        return false;
    };
    boot_event::is_usable(record.pcr)
        && pcrs.keys().all(|bank| {
            let expected = bank.algorithm().digest(text.as_bytes());
            let digest = record
                .digests
                .iter()
                .find(|(name, _)| Bank::from_name(name) == Some(*bank));
            expected.is_some() && digest.map(|(_, digest)| digest) == expected.as_ref()
        })
}

/// Why an entry cannot be judged. The PCR is not in the template digest: whoever changes it could add entries that PCR 10 does not cover.
fn unjudged(entry: &Entry) -> Option<String> {
    if entry.pcr() != DEFAULT_PCR {
        return Some(format!("it is for PCR {}", entry.pcr()));
    }
    ambiguity(entry)
}

/// What is wrong with a boot_aggregate, the digest of PCRs 0 to 9: of those that were quoted, or of what the firmware's log makes of
/// them, because the init and boot services may have extended 8 and 9 since. A list that kexec has carried over has several.
fn aggregate(entry: &Entry, evidence: &Evidence, logs: &Logs) -> Option<Finding> {
    let found = entry.file_digest();
    let name = match found.map(|found| found.algorithm) {
        // The first template says no algorithm: SHA-1.
        Some("") => "sha1",
        Some(name) => name,
        None => return Some(Finding::AggregateDiffers),
    };
    let Some(bank) = Bank::from_name(name) else {
        return Some(Finding::AggregateDiffers);
    };
    let quoted = evidence.pcrs.get(&bank).and_then(|pcrs| {
        let values = (0..10).map_while(|number| pcrs.get(&number).cloned());
        boot_aggregate(bank, &values.collect::<Vec<_>>())
    });
    let replayed = || {
        let pcrs = eventlog::replay(&logs.firmware, bank);
        let zeros = || vec![0; bank.digest_len()];
        let values = (0..10).map(|number| pcrs.get(&number).cloned().unwrap_or_else(zeros));
        boot_aggregate(bank, &values.collect::<Vec<_>>())
    };
    let matches = |aggregate: Option<&[u8]>| aggregate == found.map(|found| found.digest);
    match quoted {
        None => Some(Finding::PcrNotSelected(0)),
        Some(quoted) if matches(Some(&quoted)) => None,
        Some(_) if !logs.firmware.is_empty() && matches(replayed().as_deref()) => None,
        Some(_) => Some(Finding::AggregateDiffers),
    }
}

/// The digests of the files that may be measured.
struct Files<'a>(BTreeSet<(DigestOf, HashAlgorithm, &'a [u8])>);

impl<'a> Files<'a> {
    fn of(manifests: &'a [Manifest]) -> Self {
        let files = manifests.iter().flat_map(|manifest| {
            let files = manifest.files.iter();
            files.map(|file| (manifest.over, manifest.algo, file.digest.as_slice()))
        });
        Self(files.collect())
    }

    /// Whether what was measured is one of the files, under whatever name, or no file: the boot_aggregate, a buffer, a violation,
    /// which has no digest.
    fn allow(&self, entry: &Entry) -> bool {
        if entry.name() == Some(BOOT_AGGREGATE)
            || entry.field(FieldId::Buffer).is_some()
            || entry.is_violation()
        {
            return true;
        }
        let Some(digest) = entry.file_digest() else {
            return false;
        };
        let over = match digest.kind {
            "verity" => DigestOf::Verity,
            _ => DigestOf::Content,
        };
        HashAlgorithm::from_name(digest.algorithm)
            .is_some_and(|algo| self.0.contains(&(over, algo, digest.digest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use ima::measurement::ByteOrder;
    use ima::tpm::Extended;
    use proptest::prelude::*;

    const NONCE: [u8; 16] = [7; 16];

    fn sized(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
    }

    /// A public area as that of an attestation key: P-256, ECDSA with SHA-256 (TPMT_PUBLIC).
    fn public(key: &EcdsaKeyPair) -> Vec<u8> {
        let point = key.public_key().as_ref();
        let mut area = vec![0, 0x23, 0, 0x0b, 0, 5, 4, 0x72, 0, 0];
        area.extend([0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10]);
        area.extend(sized(&point[1..33]));
        area.extend(sized(&point[33..]));
        sized(&area)
    }

    /// What a TPM signs of these PCRs of the SHA-256 bank (TPMS_ATTEST).
    fn attest(digest: &[u8], mask: u32) -> Vec<u8> {
        let mut attest = vec![0xff, b'T', b'C', b'G', 0x80, 0x18];
        attest.extend(sized(&[0, 0x0b, 9, 9]));
        attest.extend(sized(&NONCE));
        attest.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1]);
        attest.extend([0; 8]);
        attest.extend([0, 0, 0, 1, 0, 0x0b, 3]);
        attest.extend(&mask.to_le_bytes()[..3]);
        attest.extend(sized(digest));
        attest
    }

    fn entry(name: &str, digest: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        for field in [
            &[b"sha256:\0", digest].concat()[..],
            format!("{name}\0").as_bytes(),
        ] {
            data.extend((field.len() as u32).to_le_bytes());
            data.extend(field);
        }
        let mut entry = 10_u32.to_le_bytes().to_vec();
        entry.extend(HashAlgorithm::Sha1.digest(&data).unwrap());
        for part in [&b"ima-ng"[..], &data] {
            entry.extend((part.len() as u32).to_le_bytes());
            entry.extend(part);
        }
        entry
    }

    /// Evidence of a boot as a TPM would make it, and its key.
    fn evidence() -> (Evidence, PublicArea) {
        let bank = Bank::Sha256;
        let text = r#"{"event":"policy","policy":"00"}"#;
        let mut pcrs: Pcrs = (0..16).map(|number| (number, vec![0; 32])).collect();
        let zeros = vec![vec![0; 32]; 10];
        let list = [
            entry("boot_aggregate", &boot_aggregate(bank, &zeros).unwrap()),
            entry("/bin/a", &[1; 32]),
            entry("/bin/b", &[2; 32]),
        ]
        .concat();
        let parsed = MeasurementList::parse_binary(&list, Bank::Sha1, ByteOrder::Little).unwrap();
        pcrs.insert(10, parsed.replay(bank, 10));
        let digest = HashAlgorithm::Sha256.digest(text.as_bytes()).unwrap();
        pcrs.insert(13, bank.extend(&[0; 32], &digest));
        let digests = [Extended {
            algorithm: HashAlgorithm::Sha256,
            digest,
        }];
        let pcrs = BTreeMap::from([(bank, pcrs)]);
        let selected = [super::super::Selected { bank, mask: 0xffff }];
        let digest = pcr_digest(HashAlgorithm::Sha256, &selected, &pcrs).unwrap();
        let quote = attest(&digest, 0xffff);
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let signature = key.sign(&SystemRandom::new(), &quote).unwrap();
        let (r, s) = signature.as_ref().split_at(32);
        let public = public(&key);
        let evidence = Evidence {
            quote,
            signature: [&[0, 0x18, 0, 0x0b][..], &sized(r), &sized(s)].concat(),
            key: public.clone(),
            pcrs,
            measurements: list,
            measurements_bank: Bank::Sha1,
            byte_order: ByteOrder::Little,
            firmware_log: None,
            programs_log: Some(boot_event::record(13, &digests, text).into_bytes()),
        };
        (evidence, PublicArea::parse(&public).unwrap())
    }

    fn judge(evidence: &Evidence, key: &PublicArea) -> Findings {
        let expected = Expected {
            key,
            nonce: &NONCE,
            certificates: &[],
            policy: None,
            manifests: &[],
            resets: None,
            pcrs: &BTreeMap::new(),
        };
        verify(evidence, &expected)
    }

    #[test]
    fn good_evidence_has_no_finding() {
        let (evidence, key) = evidence();
        key.check_attests().unwrap();
        let found = judge(&evidence, &key);
        assert_eq!(found.findings, []);
        assert_eq!((found.entries, found.quoted), (3, 3));
        assert_eq!(found.conclusions.len(), 1);
        let quote = found.quote.unwrap();
        assert_eq!((quote.resets, quote.restarts), (2, 3));
    }

    /// What a restricted key signs begins with a magic number, and says what it is: nothing else is a quote.
    #[test]
    fn what_is_signed_and_no_quote_is_refused() {
        let (good, _) = evidence();
        let signed = |quote: Vec<u8>| {
            let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            let signature = key.sign(&SystemRandom::new(), &quote).unwrap();
            let (r, s) = signature.as_ref().split_at(32);
            let evidence = Evidence {
                quote,
                signature: [&[0, 0x18, 0, 0x0b][..], &sized(r), &sized(s)].concat(),
                ..good.clone()
            };
            let key = PublicArea::parse(&public(&key)).unwrap();
            judge(&evidence, &key).findings
        };
        assert_eq!(signed(good.quote.clone()), []);
        let mut no_magic = good.quote.clone();
        no_magic[0] = 0;
        // TPMS_TIME_ATTEST_INFO and TPMS_CREATION_INFO by their types.
        let mut time = good.quote.clone();
        time[5] = 0x19;
        let mut creation = good.quote.clone();
        creation[5] = 0x1a;
        let longer = [&good.quote[..], &[0]].concat();
        let shorter = good.quote[..good.quote.len() - 1].to_vec();
        for quote in [no_magic, time, creation, longer, shorter, Vec::new()] {
            let findings = signed(quote);
            assert!(
                matches!(findings[..], [Finding::NotAQuote(_)]),
                "{findings:?}"
            );
        }
    }

    #[test]
    fn keys_that_sign_what_others_say_are_refused() {
        let (good, _) = evidence();
        // Restricted, sign and decrypt, fixedTPM, fixedParent, sensitiveDataOrigin of TPMA_OBJECT.
        for (byte, bit) in [(7, 1), (7, 4), (7, 2), (9, 2), (9, 0x10), (9, 0x20)] {
            let mut key = good.key.clone();
            key[byte] ^= bit;
            let key = PublicArea::parse(&key).unwrap();
            let fault = key.check_attests().unwrap_err();
            assert_eq!(fault.code(), Code::AttestationInput, "{byte} {bit}");
        }
    }

    proptest! {
        /// No byte of what is signed, or of what a PCR covers, can be changed.
        #[test]
        fn a_changed_byte_is_found(part in 0..4, at: prop::sample::Index, by in 1..=u8::MAX) {
            let (mut evidence, key) = evidence();
            let bytes = match part {
                0 => &mut evidence.quote,
                1 => &mut evidence.signature,
                2 => &mut evidence.measurements,
                _ => evidence.pcrs.get_mut(&Bank::Sha256).unwrap().get_mut(&(at.index(16) as u32)).unwrap(),
            };
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            prop_assert_ne!(judge(&evidence, &key).findings, []);
        }

        /// Cut off anywhere, or with anything in its place.
        #[test]
        fn any_part_is_judged(part in 0..5, bytes: Vec<u8>, at: prop::sample::Index, cut: bool) {
            let (mut evidence, key) = evidence();
            let one = match part {
                0 => &mut evidence.quote,
                1 => &mut evidence.signature,
                2 => &mut evidence.measurements,
                3 => evidence.firmware_log.insert(Vec::new()),
                _ => evidence.programs_log.as_mut().unwrap(),
            };
            if cut {
                one.truncate(at.index(one.len() + 1));
            } else {
                *one = bytes;
            }
            let _ = judge(&evidence, &key);
        }

        #[test]
        fn any_public_area(bytes: Vec<u8>, at: prop::sample::Index, by: u8) {
            let _ = PublicArea::parse(&bytes);
            let (evidence, _) = evidence();
            let mut bytes = evidence.key.clone();
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            if let Ok(key) = PublicArea::parse(&bytes) {
                prop_assert_eq!(key.encode().unwrap(), bytes);
                let _ = key.name();
                let _ = key.to_pem();
                let _ = judge(&evidence, &key);
            }
        }

        #[test]
        fn any_quote(bytes: Vec<u8>) {
            let _ = Quote::parse(&bytes);
        }
    }
}
