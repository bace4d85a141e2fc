//! PCRs: from files as tools print them, from the kernel's sysfs, and from a TPM.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ima::fault::{Cause, Code, Fault};
use ima::measurement::Bank;

use crate::Result;
use crate::file::read_bounded;

/// PCRs of a TPM that are read.
pub const COUNT: u32 = 24;

/// The kernel's directory of the first TPM.
pub const SYSFS: &str = "/sys/class/tpm/tpm0";

/// The longest list of PCRs that is read from a file, in bytes.
const MAX_TEXT: u64 = 1 << 16;

/// How long a TPM may take for an answer. A PCR is read in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// Where a TPM is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tpm {
    /// A device file.
    Device(PathBuf),
    /// A software TPM's socket for commands, `HOST:PORT`.
    Socket(String),
}

impl std::str::FromStr for Tpm {
    type Err = String;

    /// As tpm2-tools name them (TPM2TOOLS_TCTI): `device:/dev/tpmrm0` or `swtpm:host=localhost,port=2321`; or a path.
    fn from_str(name: &str) -> std::result::Result<Self, String> {
        if let Some(options) = name.strip_prefix("swtpm:") {
            let (mut host, mut port) = ("localhost", "2321");
            for option in options.split(',').filter(|option| !option.is_empty()) {
                match option.split_once('=') {
                    Some(("host", value)) => host = value,
                    Some(("port", value)) => port = value,
                    _ => return Err(format!("`{option}`: swtpm takes host= and port=")),
                }
            }
            return Ok(Self::Socket(format!("{host}:{port}")));
        }
        let path = name.strip_prefix("device:").unwrap_or(name);
        if path.starts_with('/') {
            Ok(Self::Device(path.into()))
        } else {
            Err(format!(
                "`{name}`: give device:/dev/tpmrm0, swtpm:host=HOST,port=PORT or a path"
            ))
        }
    }
}

impl std::fmt::Display for Tpm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device(path) => write!(f, "{}", path.display()),
            Self::Socket(address) => f.write_str(address),
        }
    }
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
        return read_tpm(&Tpm::Device("/dev/tpmrm0".into()));
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
    let failed =
        |error: std::io::Error| Fault::new(Code::PcrsUnreadable, format!("TPM {tpm}: {error}"));
    let mut connection: Box<dyn Connection> = match tpm {
        Tpm::Device(path) => Box::new(
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .map_err(failed)?,
        ),
        Tpm::Socket(address) => {
            let stream = TcpStream::connect(address).map_err(failed)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
            Box::new(stream)
        }
    };
    let mut banks = BTreeMap::new();
    for bank in Bank::ALL {
        let pcrs = read_bank(&mut *connection, bank).map_err(failed)?;
        if !pcrs.is_empty() {
            banks.insert(bank, pcrs);
        }
    }
    if banks.is_empty() {
        return Err(
            Fault::new(Code::PcrsUnreadable, format!("TPM {tpm}")).because(Cause::TPM_WITHOUT_PCRS)
        );
    }
    Ok(banks)
}

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

/// `TPM2_PCR_Read` (TPM 2.0 library, part 3, section 22.4), again and again: an answer holds eight PCRs at most.
fn read_bank(connection: &mut dyn Connection, bank: Bank) -> std::io::Result<Pcrs> {
    let mut pcrs = Pcrs::new();
    for first in (0..COUNT).step_by(8) {
        let mut command = vec![0x80, 0x01, 0, 0, 0, 20, 0, 0, 0x01, 0x7e, 0, 0, 0, 1];
        command.extend(bank.tpm_algorithm().to_be_bytes());
        let mut select = [3, 0, 0, 0];
        if let Some(byte) = select.get_mut(1 + (first / 8) as usize) {
            *byte = 0xff;
        }
        command.extend(select);
        connection.write_all(&command)?;
        // A device gives the whole answer to one read; a socket gives it in pieces.
        let mut answer = vec![0; 4096];
        let mut len = 0;
        loop {
            let read = connection.read(answer.get_mut(len..).unwrap_or_default())?;
            len += read;
            let announced = answer.get(2..6).map_or(0, |bytes| number(bytes) as usize);
            if read == 0 || (len >= 6 && len >= announced) {
                break;
            }
        }
        let values = pcr_values(answer.get(..len).unwrap_or_default())
            .ok_or_else(|| std::io::Error::other("the answer is not that of a TPM 2.0"))?;
        for (number, value) in (first..).zip(values) {
            if value.len() == bank.digest_len() {
                pcrs.insert(number, value);
            }
        }
    }
    Ok(pcrs)
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

/// The PCRs in an answer to `TPM2_PCR_Read`: none from a bank that the TPM does not have.
fn pcr_values(answer: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = answer;
    let mut take = |len: usize| {
        let (taken, left) = rest.split_at_checked(len)?;
        rest = left;
        Some(taken)
    };
    // TPM_ST_NO_SESSIONS, and the length of the answer.
    if take(2)? != [0x80, 0x01] {
        return None;
    }
    take(4)?;
    match number(take(4)?) {
        0 => {}
        // TPM_RC_HASH, TPM_RC_VALUE of a parameter: an algorithm this TPM does not know.
        code if code & 0xbf == 0x83 || code & 0xbf == 0x84 => return Some(Vec::new()),
        _ => return None,
    }
    // The update counter, then which PCRs these are.
    take(4)?;
    for _ in 0..number(take(4)?).min(16) {
        take(2)?;
        let len = number(take(1)?) as usize;
        take(len)?;
    }
    let count = number(take(4)?).min(8);
    (0..count)
        .map(|_| {
            let len = number(take(2)?) as usize;
            Some(take(len)?.to_vec())
        })
        .collect()
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

    #[test]
    fn answers_of_a_tpm() {
        let mut answer = vec![0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        answer.extend([0, 0, 0, 1, 0, 4, 3, 3, 0, 0, 0, 0, 0, 2]);
        answer.extend([0, 2, 7, 7, 0, 1, 8]);
        assert_eq!(pcr_values(&answer), Some(vec![vec![7, 7], vec![8]]));
        for len in 0..answer.len() {
            assert_eq!(pcr_values(&answer[..len]), None, "{len}");
        }
        assert_eq!(
            pcr_values(&[0x80, 1, 0, 0, 0, 10, 0, 0, 2, 0xc3]),
            Some(vec![])
        );
        assert_eq!(pcr_values(&[0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1]), None);
    }

    proptest::proptest! {
        #[test]
        fn any_answer(answer: Vec<u8>) {
            if let Some(values) = pcr_values(&answer) {
                proptest::prop_assert!(values.len() <= 8);
            }
        }
    }

    #[test]
    fn names_of_tpms() {
        assert_eq!("/dev/tpm0".parse(), Ok(Tpm::Device("/dev/tpm0".into())));
        assert_eq!(
            "swtpm:port=1".parse(),
            Ok(Tpm::Socket("localhost:1".to_owned()))
        );
        assert!("mssim:".parse::<Tpm>().is_err());
        assert!("swtpm:path=x".parse::<Tpm>().is_err());
    }
}
