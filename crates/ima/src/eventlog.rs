//! The firmware's event log, `binary_bios_measurements`: what was extended into the PCRs before the kernel ran, by the firmware, the boot
//! loader and systemd's UEFI stub.
//!
//! In the form of TPM 1.2 an entry is `TCG_PCR_EVENT` (TCG PC Client Specific Implementation Specification for Conventional BIOS 1.21,
//! section 11.1.1): PCR, type, SHA-1 digest, length of the data, data. In that of TPM 2.0 the first entry is such a one and names the
//! hash algorithms, and the others are `TCG_PCR_EVENT2`, with a digest for each of these (TCG PC Client Platform Firmware Profile
//! Specification 1.06, section 10). Integers are little-endian.

use std::collections::BTreeMap;

use crate::bank::Bank;

/// PCRs that a log extends.
pub const PCRS: usize = 24;

/// The longest log that is read, in bytes.
pub const MAX_LOG: usize = 16 << 20;

/// The longest data of an event that is taken, in bytes.
pub const MAX_EVENT: usize = 200_000;

/// The type of events that extend nothing (`EV_NO_ACTION`).
const NO_ACTION: u32 = 3;

/// The type of events of boot loaders, and of systemd's stub (`EV_IPL`).
pub const IPL: u32 = 0xd;

/// What the data of the first event begin with in the form of TPM 2.0 (`TCG_EfiSpecIdEvent.signature`).
const SPEC_ID: &[u8] = b"Spec ID Event03\0";

/// What the data of the event begin with that says which locality started the TPM; its number follows
/// (`TCG_EfiStartupLocalityEvent`). PCR 0 begins with it.
const STARTUP_LOCALITY: &[u8] = b"StartupLocality\0";

/// More hash algorithms than a TPM has.
const MAX_ALGORITHMS: u32 = 16;

/// Why a log is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventLogError {
    /// It ends inside an event.
    #[error("event {0} is cut off")]
    Truncated(usize),
    /// A PCR that no TPM has.
    #[error("event {0} is for PCR {1}")]
    Pcr(usize, u32),
    /// More data than an event has.
    #[error("event {0} has {1} bytes of data")]
    TooLong(usize, u32),
    /// The first event does not name the hash algorithms as it should.
    #[error("its first event is malformed")]
    SpecId,
    /// A digest of a hash algorithm that the first event does not name.
    #[error("event {0} has a digest of algorithm {1:#x}, which the first event does not name")]
    Algorithm(usize, u16),
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The PCR.
    pub pcr: u8,
    /// Its type.
    pub kind: u32,
    /// The digest for each bank that is known here.
    pub digests: BTreeMap<Bank, Vec<u8>>,
    /// The data; what they are depends on the type.
    pub data: Vec<u8>,
}

impl Event {
    /// Whether a PCR was extended.
    #[must_use]
    pub const fn extends(&self) -> bool {
        self.kind != NO_ACTION
    }
}

/// Parses a log of either form.
///
/// # Errors
///
/// The first event, counted from 1, that is malformed.
pub fn parse(log: &[u8]) -> Result<Vec<Event>, EventLogError> {
    let sha1 = Bank::Sha1.digest_len();
    let mut rest = log;
    let mut events: Vec<Event> = Vec::new();
    // Each hash algorithm with the length of its digests, in the form of TPM 2.0.
    let mut algorithms: Option<Vec<(u16, usize)>> = None;
    while !rest.is_empty() {
        let number = events.len().saturating_add(1);
        let cut = EventLogError::Truncated(number);
        let pcr = long(&mut rest).ok_or(cut)?;
        let kind = long(&mut rest).ok_or(cut)?;
        let digests = match &algorithms {
            None => {
                let digest = take(&mut rest, sha1).ok_or(cut)?;
                BTreeMap::from([(Bank::Sha1, digest.to_vec())])
            }
            Some(algorithms) => digests(&mut rest, algorithms, number)?,
        };
        let length = long(&mut rest).ok_or(cut)?;
        let pcr = u8::try_from(pcr)
            .ok()
            .filter(|known| usize::from(*known) < PCRS)
            .ok_or(EventLogError::Pcr(number, pcr))?;
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if bytes > MAX_EVENT {
            return Err(EventLogError::TooLong(number, length));
        }
        let data = take(&mut rest, bytes).ok_or(cut)?;
        if events.is_empty() && kind == NO_ACTION && data.starts_with(SPEC_ID) {
            algorithms = Some(spec_id(data).ok_or(EventLogError::SpecId)?);
        }
        events.push(Event {
            pcr,
            kind,
            digests,
            data: data.to_vec(),
        });
    }
    Ok(events)
}

/// The hash algorithms in the data of the first event (`TCG_EfiSpecIDEvent`), with the lengths of their digests.
fn spec_id(data: &[u8]) -> Option<Vec<(u16, usize)>> {
    let mut rest = data.strip_prefix(SPEC_ID)?;
    // platformClass, the version of the specification, and the size of an UINTN
    take(&mut rest, 8)?;
    let count = long(&mut rest).filter(|count| *count <= MAX_ALGORITHMS)?;
    (0..count)
        .map(|_| Some((short(&mut rest)?, short(&mut rest)?.into())))
        .collect()
}

/// The digests of an event (`TPML_DIGEST_VALUES`).
fn digests(
    rest: &mut &[u8],
    algorithms: &[(u16, usize)],
    number: usize,
) -> Result<BTreeMap<Bank, Vec<u8>>, EventLogError> {
    let cut = EventLogError::Truncated(number);
    let count = long(rest).ok_or(cut)?;
    let mut digests = BTreeMap::new();
    for _ in 0..count {
        let algorithm = short(rest).ok_or(cut)?;
        let (_, length) = algorithms
            .iter()
            .find(|(known, _)| *known == algorithm)
            .ok_or(EventLogError::Algorithm(number, algorithm))?;
        let digest = take(rest, *length).ok_or(cut)?;
        let bank = Bank::ALL
            .into_iter()
            .find(|bank| bank.tpm_algorithm() == algorithm && bank.digest_len() == *length);
        if let Some(bank) = bank {
            digests.insert(bank, digest.to_vec());
        }
    }
    Ok(digests)
}

/// The PCRs of a bank after the events, by number: those that an event extends.
#[must_use]
pub fn replay(events: &[Event], bank: Bank) -> BTreeMap<u8, Vec<u8>> {
    let mut pcrs: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    let zeros = vec![0; bank.digest_len()];
    for event in events {
        if !event.extends() {
            let locality = event.data.strip_prefix(STARTUP_LOCALITY);
            if let (0, Some([locality, ..])) = (event.pcr, locality) {
                let mut value = zeros.clone();
                if let Some(last) = value.last_mut() {
                    *last = *locality;
                }
                pcrs.insert(0, value);
            }
            continue;
        }
        let value = pcrs.entry(event.pcr).or_insert_with(|| zeros.clone());
        if let Some(digest) = event.digests.get(&bank) {
            *value = bank.extend(value, digest);
        }
    }
    pcrs
}

/// The SHA-1 PCRs after a log of the form of TPM 1.2, from 0 on.
///
/// # Errors
///
/// The first event, counted from 1, that is malformed.
pub fn replay_sha1(log: &[u8]) -> Result<Vec<Vec<u8>>, EventLogError> {
    let mut pcrs = vec![vec![0; Bank::Sha1.digest_len()]; PCRS];
    for (number, value) in replay(&parse(log)?, Bank::Sha1) {
        if let Some(pcr) = pcrs.get_mut(usize::from(number)) {
            *pcr = value;
        }
    }
    Ok(pcrs)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn long(rest: &mut &[u8]) -> Option<u32> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(u32::from_le_bytes(*taken))
}

fn short(rest: &mut &[u8]) -> Option<u16> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(u16::from_le_bytes(*taken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(pcr: u32, digest: u8, data: &[u8]) -> Vec<u8> {
        let mut event = [pcr.to_le_bytes(), 8_u32.to_le_bytes()].concat();
        event.extend([digest; 20]);
        event.extend((data.len() as u32).to_le_bytes());
        event.extend(data);
        event
    }

    #[test]
    fn a_log_of_two_events() {
        let log = [event(0, 1, b"data"), event(7, 2, b"")].concat();
        let pcrs = replay_sha1(&log).unwrap();
        assert_eq!(pcrs[0], Bank::Sha1.extend(&[0; 20], &[1; 20]));
        assert_eq!(pcrs[7], Bank::Sha1.extend(&[0; 20], &[2; 20]));
        assert_eq!(pcrs[1], [0; 20]);
        assert_eq!(
            replay_sha1(&log[..log.len() - 1]),
            Err(EventLogError::Truncated(2))
        );
        assert_eq!(
            replay_sha1(&event(24, 0, b"")),
            Err(EventLogError::Pcr(1, 24))
        );
        let mut long = event(0, 0, b"");
        long[28..32].copy_from_slice(&200_001_u32.to_le_bytes());
        assert_eq!(replay_sha1(&long), Err(EventLogError::TooLong(1, 200_001)));
    }

    /// The first event of the form of TPM 2.0, for SHA-256 and for SM3, which is not known here.
    fn spec_id_event() -> Vec<u8> {
        let mut data = SPEC_ID.to_vec();
        data.extend([0, 0, 0, 0, 0, 2, 0, 2]);
        data.extend(2_u32.to_le_bytes());
        for (algorithm, length) in [(0xb_u16, 32_u16), (0x12, 32)] {
            data.extend(algorithm.to_le_bytes());
            data.extend(length.to_le_bytes());
        }
        data.push(0);
        let mut event = event(0, 0, &data);
        event[4] = 3;
        event
    }

    fn event_2(pcr: u32, kind: u32, digest: u8, data: &[u8]) -> Vec<u8> {
        let mut event = [pcr.to_le_bytes(), kind.to_le_bytes(), 2_u32.to_le_bytes()].concat();
        for algorithm in [0x12_u16, 0xb] {
            event.extend(algorithm.to_le_bytes());
            event.extend([digest; 32]);
        }
        event.extend((data.len() as u32).to_le_bytes());
        event.extend(data);
        event
    }

    #[test]
    fn a_log_of_tpm_2() {
        let locality = [STARTUP_LOCALITY, &[3]].concat();
        let log = [
            spec_id_event(),
            event_2(0, 3, 0, &locality),
            event_2(0, 8, 1, b"x"),
            event_2(11, 0xd, 2, b""),
        ]
        .concat();
        let events = parse(&log).unwrap();
        assert_eq!(events.len(), 4);
        assert_eq!(
            events[3].digests,
            BTreeMap::from([(Bank::Sha256, vec![2; 32])])
        );
        let pcrs = replay(&events, Bank::Sha256);
        let mut start = vec![0; 32];
        start[31] = 3;
        assert_eq!(pcrs[&0], Bank::Sha256.extend(&start, &[1; 32]));
        assert_eq!(pcrs[&11], Bank::Sha256.extend(&[0; 32], &[2; 32]));
        assert_eq!(pcrs.len(), 2);

        let mut unknown = log.clone();
        let at = spec_id_event().len() + 12;
        unknown[at] = 0x13;
        assert_eq!(parse(&unknown), Err(EventLogError::Algorithm(2, 0x13)));
        let mut many = spec_id_event();
        many[32 + SPEC_ID.len() + 8] = 17;
        assert_eq!(parse(&many), Err(EventLogError::SpecId));
    }

    proptest! {
        #[test]
        fn any_bytes(log: Vec<u8>) {
            let _ = replay_sha1(&log);
        }

        #[test]
        fn any_bytes_behind_the_first_event(log: Vec<u8>) {
            let _ = parse(&[spec_id_event(), log].concat());
        }

        #[test]
        fn events_are_parsed_as_they_were_written(events in proptest::collection::vec((0..24_u32, 4..20_u32, any::<u8>(), any::<Vec<u8>>()), 0..5)) {
            let mut log = spec_id_event();
            for (pcr, kind, digest, data) in &events {
                log.extend(event_2(*pcr, *kind, *digest, data));
            }
            let parsed = parse(&log).unwrap();
            prop_assert_eq!(parsed.len(), events.len() + 1);
            for (parsed, (pcr, kind, digest, data)) in parsed[1..].iter().zip(&events) {
                prop_assert_eq!(u32::from(parsed.pcr), *pcr);
                prop_assert_eq!(parsed.kind, *kind);
                prop_assert_eq!(&parsed.digests[&Bank::Sha256], &vec![*digest; 32]);
                prop_assert_eq!(&parsed.data, data);
            }
        }
    }
}
