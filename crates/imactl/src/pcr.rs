//! PCRs: from files as tools print them, from the kernel's sysfs, and from a TPM.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ima::fault::{Cause, Code, Fault};
use ima::measurement::Bank;
use tpm2_protocol::data::{TpmAlgId, TpmlPcrSelection, TpmsPcrSelect, TpmsPcrSelection};
use tpm2_protocol::frame::{TpmPcrReadCommand, TpmPcrReadResponse};

use crate::Result;
use crate::file::read_bounded;
use crate::tpm::{Connection, Tpm, TpmError};

/// PCRs of a TPM that are read.
pub const COUNT: u32 = 24;

/// The kernel's directory of the first TPM.
pub const SYSFS: &str = "/sys/class/tpm/tpm0";

/// The longest list of PCRs that is read from a file, in bytes.
const MAX_TEXT: u64 = 1 << 16;

/// PCRs of one bank by number.
pub type Pcrs = BTreeMap<u32, Vec<u8>>;

/// Reads PCRs of `bank` from text, a line each: `PCR-00: 00 11 ...` as the kernel shows those of a TPM 1.2, `0: 0011...` as
/// tsspcrread, `  0 : 0x0011...` as tpm2_pcrread does. Lines of another form, and headings, are passed over.
#[must_use]
pub fn parse(text: &str, bank: Bank) -> Pcrs {
    text.lines()
        .filter_map(|line| {
            let (number, value) = line.split_once(':')?;
            let number = number.trim();
            let number = number.strip_prefix("PCR-").unwrap_or(number);
            let number: u32 = number.parse().ok().filter(|number| *number < COUNT)?;
            let value = value.trim();
            let value = value
                .strip_prefix("0x")
                .or_else(|| value.strip_prefix("0X"))
                .unwrap_or(value);
            let digits: String = value.chars().filter(|c| *c != ' ').collect();
            let value = crate::hex::decode(&digits)?;
            (value.len() == bank.digest_len()).then_some((number, value))
        })
        .collect()
}

/// Reads PCRs of `bank` from a file.
///
/// # Errors
///
/// [`Code::InputUnreadable`]; [`Code::PcrsUnreadable`] for a file without a PCR of that bank.
pub fn read_file(path: &Path, bank: Bank) -> Result<Pcrs> {
    let text = read_bounded(path, MAX_TEXT)?;
    let pcrs = parse(&String::from_utf8_lossy(&text), bank);
    if pcrs.is_empty() {
        return Err(
            Fault::new(Code::PcrsUnreadable, path.display().to_string()).because(
                Cause::FILE_WITHOUT_PCRS
                    .with(&[&bank.to_string(), &"00".repeat(bank.digest_len())]),
            ),
        );
    }
    Ok(pcrs)
}

/// Reads PCRs by bank: from a TPM, else from files, else from this machine's TPM.
///
/// # Errors
///
/// [`Code::InputUnreadable`], [`Code::PcrsUnreadable`].
pub fn read(tpm: Option<&Tpm>, files: &[(Bank, PathBuf)]) -> Result<BTreeMap<Bank, Pcrs>> {
    match tpm {
        Some(tpm) => read_tpm(tpm),
        None if files.is_empty() => read_system(),
        None => files
            .iter()
            .map(|(bank, path)| Ok((*bank, read_file(path, *bank)?)))
            .collect(),
    }
}

/// Reads the PCRs of this machine's TPM by bank: from sysfs, where the kernel shows them since 5.12 (TPM 1.2: always), else from
/// /dev/tpmrm0.
///
/// # Errors
///
/// [`Code::PcrsUnreadable`] if there is no TPM or it does not answer.
pub fn read_system() -> Result<BTreeMap<Bank, Pcrs>> {
    let banks = in_sysfs(|path| std::fs::read_to_string(path).ok());
    if banks.is_empty() {
        return read_tpm(&Tpm::of_this_machine());
    }
    Ok(banks)
}

/// The PCRs by bank that sysfs shows, of which `read` gives the files; none if it has none.
pub fn in_sysfs(read: impl Fn(&str) -> Option<String>) -> BTreeMap<Bank, Pcrs> {
    let mut banks = BTreeMap::new();
    for bank in Bank::ALL {
        let mut pcrs = Pcrs::new();
        for number in 0..COUNT {
            let Some(text) = read(&format!("{SYSFS}/pcr-{bank}/{number}")) else {
                continue;
            };
            let line = format!("{number}: {text}");
            pcrs.append(&mut parse(&line, bank));
        }
        if !pcrs.is_empty() {
            banks.insert(bank, pcrs);
        }
    }
    if banks.is_empty()
        && let Some(text) = read(&format!("{SYSFS}/device/pcrs"))
    {
        let pcrs = parse(&text, Bank::Sha1);
        if !pcrs.is_empty() {
            banks.insert(Bank::Sha1, pcrs);
        }
    }
    banks
}

/// Reads the PCRs of a TPM 2.0 by bank; a bank that is not allocated is not there.
///
/// # Errors
///
/// [`Code::PcrsUnreadable`] if it cannot be reached, does not answer as a TPM does, or has no PCR.
pub fn read_tpm(tpm: &Tpm) -> Result<BTreeMap<Bank, Pcrs>> {
    let failed = |error: TpmError| Fault::new(Code::PcrsUnreadable, format!("TPM {tpm}: {error}"));
    let banks = Connection::open(tpm)
        .and_then(|mut connection| read_banks(&mut connection))
        .map_err(failed)?;
    if banks.is_empty() {
        return Err(
            Fault::new(Code::PcrsUnreadable, format!("TPM {tpm}")).because(Cause::TPM_WITHOUT_PCRS)
        );
    }
    Ok(banks)
}

/// Reads the PCRs of every bank that is allocated and known here.
///
/// # Errors
///
/// [`TpmError`].
pub fn read_banks(
    connection: &mut Connection,
) -> std::result::Result<BTreeMap<Bank, Pcrs>, TpmError> {
    let mut banks = BTreeMap::new();
    for bank in Bank::ALL {
        let pcrs = read_bank(connection, bank)?;
        if !pcrs.is_empty() {
            banks.insert(bank, pcrs);
        }
    }
    Ok(banks)
}

/// `TPM2_PCR_Read` (TPM 2.0 Library, part 3, section 22.4), again and again: an answer holds eight PCRs at most.
fn read_bank(connection: &mut Connection, bank: Bank) -> std::result::Result<Pcrs, TpmError> {
    let mut pcrs = Pcrs::new();
    for first in (0..COUNT).step_by(8) {
        let selection = selection(&[(bank, 0xff << first)]);
        let command = TpmPcrReadCommand {
            handles: [],
            pcr_selection_in: selection,
        };
        let response: TpmPcrReadResponse = match connection.execute(&command, &[]) {
            // An algorithm that this TPM does not know.
            Err(error) if error.is_unknown_value() => return Ok(Pcrs::new()),
            response => response?,
        };
        for (number, value) in (first..).zip(response.pcr_values.iter()) {
            if value.len() == bank.digest_len() {
                pcrs.insert(number, value.to_vec());
            }
        }
    }
    Ok(pcrs)
}

/// PCRs of banks, by masks of which bit 0 is PCR 0, as the TPM takes them: of 24 PCRs.
#[must_use]
pub fn selection(banks: &[(Bank, u32)]) -> TpmlPcrSelection {
    let mut list = TpmlPcrSelection::new();
    for (bank, mask) in banks {
        let [select @ .., _] = mask.to_le_bytes();
        let pcr_select = TpmsPcrSelect::try_from(&select[..]);
        let hash = TpmAlgId::try_from(bank.tpm_algorithm());
        if let (Ok(pcr_select), Ok(hash)) = (pcr_select, hash) {
            // There are fewer banks than the list has places.
            let _ = list.try_push(TpmsPcrSelection { hash, pcr_select });
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcrs_in_text() {
        let value = "01".repeat(20);
        let spaced = "01 ".repeat(20);
        for (line, number) in [
            (format!("PCR-10: {spaced}"), 10),
            (format!("0: {value}"), 0),
            (format!("  7 : 0x{value}"), 7),
        ] {
            let pcrs = parse(&format!("heading: sha1\n{line}\n"), Bank::Sha1);
            assert_eq!(pcrs, Pcrs::from([(number, vec![1; 20])]), "{line}");
        }
        for bad in [
            format!("24: {value}"),
            format!("0: {value}00"),
            "0: xx".to_owned(),
        ] {
            assert!(parse(&bad, Bank::Sha1).is_empty(), "{bad}");
        }
    }
}
