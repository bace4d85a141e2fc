//! The event logs of a boot, replayed: the firmware's, and that of the programs which measured something afterwards.

use std::collections::BTreeMap;
use std::path::Path;

use ima::bank::Bank;
use ima::boot_event::{self, CONTENT_TYPE, Record};
use ima::eventlog::{self, Event};
use ima::fault::{Code, Fault};

use crate::Result;
use crate::file::read_bounded;
use crate::pcr::Pcrs;
use crate::uki::pe::Section;

/// The PCRs that the logs explain. PCR 10 is IMA's: its list is the log. Programs can reset PCRs from 16 on.
const EXPLAINED: [u32; 15] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15];

/// The PCR that systemd's stub measures the sections of a unified kernel image into (systemd-stub(7)).
const STUB_PCR: u8 = 11;

/// The longest section that is compared, in bytes.
const MAX_SECTION: u32 = 1 << 30;

/// The logs of a boot.
#[derive(Debug, Default)]
pub struct Logs {
    /// The firmware's.
    pub firmware: Vec<Event>,
    /// That of programs, in the order in which they measured.
    pub programs: Vec<Record>,
}

/// A PCR, compared with the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The PCR.
    pub pcr: u32,
    /// The bank.
    pub bank: Bank,
    /// What the TPM has.
    pub found: Vec<u8>,
    /// What the logs make of it.
    pub replay: Vec<u8>,
}

impl Compared {
    /// Whether the logs explain the PCR.
    #[must_use]
    pub fn matches(&self) -> bool {
        self.found == self.replay
    }
}

impl Logs {
    /// Reads both logs; a file that is not given stands for an empty one.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::EventLogMalformed`].
    pub fn read(firmware: Option<&Path>, programs: Option<&Path>) -> Result<Logs> {
        let malformed = |path: &Path, error: &dyn std::fmt::Display| {
            Fault::new(
                Code::EventLogMalformed,
                format!("{}: {error}", path.display()),
            )
        };
        let mut logs = Logs::default();
        if let Some(path) = firmware {
            let bytes = read_bounded(path, eventlog::MAX_LOG as u64)?;
            logs.firmware = eventlog::parse(&bytes).map_err(|error| malformed(path, &error))?;
        }
        if let Some(path) = programs {
            let bytes = read_bounded(path, boot_event::MAX_LOG as u64)?;
            logs.programs = parse_programs(&bytes).map_err(|error| malformed(path, &error))?;
        }
        Ok(logs)
    }

    /// The records of the init whose digests are not those of their text, or that have none, counted from 0. What the digests of other programs' records
    /// are of, only these programs know.
    #[must_use]
    pub fn wrong(&self) -> Vec<usize> {
        let is_wrong = |record: &Record| {
            let text = record.text.as_deref().unwrap_or_default().as_bytes();
            let mut compared = record.digests.iter().filter_map(|(name, digest)| {
                let expected = Bank::from_name(name)?.algorithm().digest(text)?;
                Some(expected == *digest)
            });
            // A text without a digest that is known here was extended into no PCR.
            record.content_type.as_deref() == Some(CONTENT_TYPE)
                && (compared.next() != Some(true) || compared.any(|is_right| !is_right))
        };
        let records = self.programs.iter().enumerate();
        records
            .filter(|(_, record)| is_wrong(record))
            .map(|(number, _)| number)
            .collect()
    }

    /// Compares the PCRs of each bank that the TPM has with what the logs make of them.
    #[must_use]
    pub fn compare(&self, banks: &BTreeMap<Bank, Pcrs>) -> Vec<Compared> {
        let of_bank = |(bank, pcrs): (&Bank, &Pcrs)| {
            let replayed = self.replay(*bank);
            let compared = EXPLAINED.iter().filter_map(|pcr| {
                let zeros = || vec![0; bank.digest_len()];
                Some(Compared {
                    pcr: *pcr,
                    bank: *bank,
                    found: pcrs.get(pcr)?.clone(),
                    replay: replayed.get(pcr).cloned().unwrap_or_else(zeros),
                })
            });
            compared.collect::<Vec<_>>()
        };
        banks.iter().flat_map(of_bank).collect()
    }

    fn replay(&self, bank: Bank) -> BTreeMap<u32, Vec<u8>> {
        let firmware = eventlog::replay(&self.firmware, bank).into_iter();
        let mut pcrs: BTreeMap<u32, Vec<u8>> =
            firmware.map(|(pcr, value)| (pcr.into(), value)).collect();
        for record in &self.programs {
            let mut digests = record.digests.iter();
            let digest = digests.find(|(name, _)| Bank::from_name(name) == Some(bank));
            let value = pcrs
                .entry(record.pcr.into())
                .or_insert_with(|| vec![0; bank.digest_len()]);
            if let Some((_, digest)) = digest {
                *value = bank.extend(value, digest);
            }
        }
        pcrs
    }

    /// Compares the events of systemd's stub with the sections of a unified kernel image: for each section that it measured, its name
    /// and then its content. Returns the names, and whether each is that of the image.
    ///
    /// # Errors
    ///
    /// [`Code::EventLogMalformed`]: the log has no such events.
    pub fn stub_sections(&self, sections: &[Section<'_>]) -> Result<Vec<(String, bool)>> {
        let events: Vec<&Event> = self
            .firmware
            .iter()
            .filter(|event| event.pcr == STUB_PCR && event.kind == eventlog::IPL)
            .collect();
        let is_of = |event: &Event, content: &dyn Fn() -> Vec<u8>| {
            let last = event.digests.iter().next_back();
            last.is_some_and(|(bank, digest)| {
                bank.algorithm().digest(&content()).as_ref() == Some(digest)
            })
        };
        let mut found = Vec::new();
        let mut events = events.into_iter();
        while let Some(event) = events.next() {
            let named = sections
                .iter()
                .find(|section| is_of(event, &|| [section.name.as_bytes(), b"\0"].concat()));
            let Some(section) = named else { continue };
            let content = || {
                // In memory, zeros follow what the file has.
                let mut content = section.content.to_vec();
                content.resize(section.size.min(MAX_SECTION) as usize, 0);
                content
            };
            let measured = events.next();
            let matches = measured.is_some_and(|event| is_of(event, &content));
            found.push((section.name.clone(), matches));
        }
        if found.is_empty() {
            let detail = format!("no event of PCR {STUB_PCR} names a section of the image");
            return Err(Fault::new(Code::EventLogMalformed, detail));
        }
        Ok(found)
    }
}

/// The records in the log of what programs measured; an empty file has none.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse_programs(bytes: &[u8]) -> std::result::Result<Vec<Record>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    boot_event::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ima::hash::HashAlgorithm;
    use ima::tpm::Extended;

    fn extended(text: &str) -> Vec<Extended> {
        let algorithm = HashAlgorithm::Sha256;
        let digest = algorithm.digest(text.as_bytes()).unwrap();
        vec![Extended { algorithm, digest }]
    }

    fn logs(records: &[(u8, &str)]) -> Logs {
        let log: String = records
            .iter()
            .map(|(pcr, text)| boot_event::record(*pcr, &extended(text), text))
            .collect();
        Logs {
            programs: boot_event::parse(&log).unwrap(),
            ..Logs::default()
        }
    }

    fn banks(pcr: u32, value: Vec<u8>) -> BTreeMap<Bank, Pcrs> {
        let mut pcrs: Pcrs = (0..24).map(|pcr| (pcr, vec![0; 32])).collect();
        pcrs.insert(10, vec![7; 32]);
        pcrs.insert(pcr, value);
        BTreeMap::from([(Bank::Sha256, pcrs)])
    }

    #[test]
    fn a_pcr_is_the_replay_of_its_records() {
        let logs = logs(&[(13, "a"), (13, "b")]);
        assert_eq!(logs.wrong(), [0; 0]);
        let bank = Bank::Sha256;
        let digest = |text: &str| bank.algorithm().digest(text.as_bytes()).unwrap();
        let value = bank.extend(&bank.extend(&[0; 32], &digest("a")), &digest("b"));
        let compared = logs.compare(&banks(13, value.clone()));
        assert_eq!(compared.len(), EXPLAINED.len());
        assert!(compared.iter().all(Compared::matches), "{compared:?}");
        // Another order, another event less, and one that no log has.
        for logs in [
            super::tests::logs(&[(13, "b"), (13, "a")]),
            super::tests::logs(&[(13, "a")]),
            super::tests::logs(&[(13, "a"), (13, "b"), (12, "c")]),
        ] {
            let compared = logs.compare(&banks(13, value.clone()));
            assert!(!compared.iter().all(Compared::matches));
        }
        let compared = logs.compare(&banks(15, value));
        let differ: Vec<u32> = compared
            .iter()
            .filter(|pcr| !pcr.matches())
            .map(|pcr| pcr.pcr)
            .collect();
        assert_eq!(differ, [13, 15]);
    }

    #[test]
    fn a_text_that_was_changed_is_found() {
        let mut logs = logs(&[(13, "a"), (13, "b")]);
        logs.programs[1].text = Some("c".to_owned());
        assert_eq!(logs.wrong(), [1]);
        logs.programs[1].content_type = Some("systemd".to_owned());
        assert_eq!(logs.wrong(), [0; 0]);
    }

    #[test]
    fn sections_of_an_image_are_compared_with_the_events_of_the_stub() {
        let event = |bytes: &[u8]| Event {
            pcr: STUB_PCR,
            kind: eventlog::IPL,
            digests: BTreeMap::from([(Bank::Sha256, HashAlgorithm::Sha256.digest(bytes).unwrap())]),
            data: Vec::new(),
        };
        let section = |name: &str, size, content| Section {
            name: name.to_owned(),
            address: 0,
            size,
            content,
        };
        let sections = [section(".linux", 4, b"ab"), section(".cmdline", 2, b"ro")];
        let logs = Logs {
            firmware: vec![
                event(b".linux\0"),
                event(b"ab\0\0"),
                event(b".cmdline\0"),
                event(b"rw"),
            ],
            ..Logs::default()
        };
        assert_eq!(
            logs.stub_sections(&sections).unwrap(),
            [(".linux".to_owned(), true), (".cmdline".to_owned(), false)]
        );
        let none = Logs::default().stub_sections(&sections).unwrap_err();
        assert_eq!(none.code(), Code::EventLogMalformed);
    }
}
