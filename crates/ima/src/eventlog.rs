//! The firmware's event log in the form of TPM 1.2, `binary_bios_measurements`: what was extended into PCRs 0 to 7 before the
//! kernel ran.
//!
//! An entry is `TCG_PCR_EVENT` (TCG PC Client Specific Implementation Specification for Conventional BIOS 1.21, section 11.1.1):
//! PCR, type, SHA-1 digest, length of the data, data; integers are little-endian.

use crate::measurement::Bank;

/// PCRs that a log extends.
pub const PCRS: usize = 24;

/// The longest data of an event that is taken, in bytes.
pub const MAX_EVENT: usize = 200_000;

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
}

/// The SHA-1 PCRs after the log, from 0 on.
///
/// # Errors
///
/// The first event, counted from 1, that is malformed.
pub fn replay_sha1(log: &[u8]) -> Result<Vec<Vec<u8>>, EventLogError> {
    let mut pcrs = vec![vec![0; Bank::Sha1.digest_len()]; PCRS];
    let mut rest = log;
    let mut event = 0_usize;
    while !rest.is_empty() {
        event = event.saturating_add(1);
        let cut = EventLogError::Truncated(event);
        let pcr = number(&mut rest).ok_or(cut)?;
        number(&mut rest).ok_or(cut)?;
        let digest = take(&mut rest, Bank::Sha1.digest_len()).ok_or(cut)?;
        let len = number(&mut rest).ok_or(cut)?;
        let value = usize::try_from(pcr)
            .ok()
            .and_then(|pcr| pcrs.get_mut(pcr))
            .ok_or(EventLogError::Pcr(event, pcr))?;
        let data = usize::try_from(len).unwrap_or(usize::MAX);
        if data > MAX_EVENT {
            return Err(EventLogError::TooLong(event, len));
        }
        take(&mut rest, data).ok_or(cut)?;
        *value = Bank::Sha1.extend(value, digest);
    }
    Ok(pcrs)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (taken, left) = rest.split_first_chunk::<4>()?;
    *rest = left;
    Some(u32::from_le_bytes(*taken))
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

    proptest! {
        #[test]
        fn any_bytes(log: Vec<u8>) {
            let _ = replay_sha1(&log);
        }
    }
}
