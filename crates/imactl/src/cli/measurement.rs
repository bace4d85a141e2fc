//! `imactl measurement`

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use ima::certificate::Certificate;
use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use ima::measurement::{Bank, ByteOrder, MeasurementList, PcrMatch, boot_aggregate};
use ima::signature::ImaXattr;
use ima::verify::verify_digest;
use imactl::file::read_bounded;
use imactl::hex;
use imactl::pcr::{self, Pcrs, Tpm};
use serde_json::json;

use super::{Outcome, Result, options, output};

/// The kernel's own list.
const LIST: &str = "/sys/kernel/security/ima/binary_runtime_measurements";

/// The longest list that is read, in bytes.
const MAX_LIST: u64 = 1 << 30;

/// Replay a measurement list and compare it with the PCRs of a TPM
///
/// The PCRs are read before the list, so that what is measured meanwhile is in the list only: a PCR that holds a beginning of the
/// list is right. A list with a changed entry, a PCR that fits no beginning of it, a boot_aggregate that is not that of PCRs 0 to
/// 9, or, with --cert, a signature in the list that is not good, makes exit status 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl measurement                                                      this machine's list and TPM
  imactl measurement --pcrs sha256,pcrs.txt binary_runtime_measurements
  imactl measurement --tpm swtpm:host=localhost,port=2321 ascii_runtime_measurements_sha256
  imactl measurement --list --cert ima.der --json list | jq '.entries[].name'")]
pub struct Measurement {
    /// The list, binary or ASCII; the kernel's own if none is given
    list: Option<PathBuf>,
    /// Bank whose template digests a binary list has; ASCII lists tell it
    #[arg(long, value_name = "ALGO", default_value = "sha1", value_parser = bank)]
    bank: Bank,
    /// PCRs from a file, as tpm2_pcrread, tsspcrread or the kernel print them; may be repeated
    #[arg(long = "pcrs", value_name = "ALGO,FILE", value_parser = pcr_file, conflicts_with = "tpm")]
    pcrs: Vec<(Bank, PathBuf)>,
    /// PCRs from this TPM: device:/dev/tpmrm0 or swtpm:host=HOST,port=PORT. Without this and --pcrs, those of this machine count
    /// for its own list, and none for a list from elsewhere
    #[arg(long, value_name = "TPM")]
    tpm: Option<Tpm>,
    /// The list is from a big-endian machine
    #[arg(long)]
    big_endian: bool,
    /// Check the signatures in the list, over the digests in the list, with these certificates
    #[arg(long = "cert", value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// Print the list
    #[arg(long = "list", id = "show")]
    show: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn bank(name: &str) -> std::result::Result<Bank, String> {
    Bank::ALL
        .into_iter()
        .find(|bank| bank.name() == name)
        .ok_or_else(|| format!("there are {}", Bank::ALL.map(Bank::name).join(", ")))
}

fn pcr_file(text: &str) -> std::result::Result<(Bank, PathBuf), String> {
    let (name, path) = text
        .split_once(',')
        .ok_or("write ALGO,FILE, such as sha256,pcrs.txt")?;
    Ok((bank(name)?, path.into()))
}

/// How a PCR and the list fit.
struct Compared {
    bank: Bank,
    pcr: u32,
    replay: Vec<u8>,
    found: Vec<u8>,
    how: &'static str,
    good: bool,
    entries: usize,
}

impl Measurement {
    pub fn run(self) -> Result {
        let certificates: imactl::Result<Vec<Vec<Certificate>>> = self
            .certificates
            .iter()
            .map(|path| options::certificates(path))
            .collect();
        let certificates = certificates?.concat();
        let banks = self.banks()?;
        let list = self.read()?;
        let compared = compare(&list, &banks);
        let aggregate = aggregate(&list, &banks);
        let wrong = list.first_wrong_digest().map(|index| index + 1);
        let signatures = signatures(&list, &certificates);
        let bad = signatures
            .iter()
            .filter(|(_, verdict)| *verdict != "good")
            .count();
        let violations = list.entries().iter().filter(|entry| entry.is_violation());
        let violations = violations.count();
        if self.json {
            self.print_json(&list, &compared, aggregate, wrong, &signatures, violations)?;
        } else {
            if self.show {
                for line in list.to_ascii().split(|byte| *byte == b'\n') {
                    if !line.is_empty() {
                        output::line(format_args!("{}", String::from_utf8_lossy(line)))?;
                    }
                }
            }
            output::line(format_args!(
                "{} entries, {violations} violations",
                list.entries().len()
            ))?;
            if let Some(entry) = wrong {
                output::line(format_args!(
                    "entry {entry} was changed: its digest is not that of its data"
                ))?;
            }
            for item in &compared {
                output::line(format_args!("PCR {} {}: {}", item.pcr, item.bank, item.how))?;
                if !item.good {
                    output::line(format_args!("  TPM    {}", hex::encode(&item.found)))?;
                    output::line(format_args!("  replay {}", hex::encode(&item.replay)))?;
                } else if item.entries < list.entries().len() {
                    output::line(format_args!(
                        "  up to entry {} of {}; what follows was measured after the PCR was read",
                        item.entries,
                        list.entries().len()
                    ))?;
                }
            }
            if compared.is_empty() {
                for bank in Bank::ALL {
                    let replay = hex::encode(&list.replay(bank, 10));
                    output::line(format_args!("PCR 10 {bank} would be {replay}"))?;
                }
            }
            if let Some(good) = aggregate {
                let how = if good { "is" } else { "is not" };
                output::line(format_args!("boot_aggregate {how} that of PCRs 0 to 9"))?;
            }
            for (name, verdict) in signatures.iter().filter(|(_, verdict)| *verdict != "good") {
                output::line(format_args!("{name}: {verdict}"))?;
            }
            if !certificates.is_empty() {
                output::line(format_args!(
                    "{} signatures good, {bad} not",
                    signatures.len() - bad
                ))?;
            }
        }
        let good = wrong.is_none()
            && bad == 0
            && aggregate != Some(false)
            && compared.iter().all(|item| item.good);
        Ok(if good {
            Outcome::Good
        } else {
            Outcome::Findings
        })
    }

    fn banks(&self) -> imactl::Result<BTreeMap<Bank, Pcrs>> {
        if let Some(tpm) = &self.tpm {
            return pcr::read_tpm(tpm);
        }
        if !self.pcrs.is_empty() {
            return self
                .pcrs
                .iter()
                .map(|(bank, path)| Ok((*bank, pcr::read_file(path, *bank)?)))
                .collect();
        }
        match self.list {
            Some(_) => Ok(BTreeMap::new()),
            None => pcr::read_system(),
        }
    }

    fn read(&self) -> imactl::Result<MeasurementList> {
        let path = self.list.as_deref().unwrap_or(Path::new(LIST));
        let bytes = read_bounded(path, MAX_LIST)?;
        let order = if self.big_endian {
            ByteOrder::Big
        } else {
            ByteOrder::Little
        };
        // A binary list begins with the number of a PCR, which has a zero byte in it; text has none.
        let text = bytes.first().is_some_and(u8::is_ascii_digit) && !bytes.contains(&0);
        let list = if text {
            MeasurementList::parse_ascii(&bytes, order)
        } else {
            MeasurementList::parse_binary(&bytes, self.bank, order)
        };
        list.map_err(|error| {
            Fault::new(
                Code::SourceMalformed,
                format!("{}: {error}", path.display()),
            )
            .cause("it is no measurement list, or one of another bank or byte order")
            .remedy("give --bank for a list of another bank than SHA-1, --big-endian for one from such a machine")
        })
    }

    fn print_json(
        &self,
        list: &MeasurementList,
        compared: &[Compared],
        aggregate: Option<bool>,
        wrong: Option<usize>,
        signatures: &[(String, &'static str)],
        violations: usize,
    ) -> imactl::Result<()> {
        let entries: Vec<_> = list
            .entries()
            .iter()
            .map(|entry| {
                let digest = entry.file_digest();
                json!({
                    "pcr": entry.pcr(),
                    "template": entry.template().name(),
                    "template_digest": hex::encode(entry.digest()),
                    "algorithm": digest.map(|digest| digest.algorithm),
                    "digest": digest.map(|digest| hex::encode(digest.digest)),
                    "name": entry.name().map(|name| String::from_utf8_lossy(name).into_owned()),
                    "signature": entry.signature().filter(|value| !value.is_empty()).map(hex::encode),
                    "violation": entry.is_violation(),
                })
            })
            .collect();
        let pcrs: Vec<_> = compared
            .iter()
            .map(|item| {
                json!({
                    "pcr": item.pcr, "bank": item.bank.name(), "good": item.good, "entries": item.entries,
                    "tpm": hex::encode(&item.found), "replay": hex::encode(&item.replay),
                })
            })
            .collect();
        let replay: BTreeMap<&str, String> = Bank::ALL
            .into_iter()
            .map(|bank| (bank.name(), hex::encode(&list.replay(bank, 10))))
            .collect();
        let signatures: Vec<_> = signatures
            .iter()
            .map(|(name, verdict)| json!({"name": name, "verdict": verdict}))
            .collect();
        output::json(&json!({
            "entries": if self.show { json!(entries) } else { json!(entries.len()) },
            "violations": violations,
            "changed_entry": wrong,
            "pcrs": pcrs,
            "replay_pcr10": replay,
            "boot_aggregate": aggregate,
            "signatures": signatures,
        }))
    }
}

fn compare(list: &MeasurementList, banks: &BTreeMap<Bank, Pcrs>) -> Vec<Compared> {
    let extended: BTreeSet<u32> = list.entries().iter().map(|entry| entry.pcr()).collect();
    let mut compared = Vec::new();
    for (bank, pcrs) in banks {
        for number in &extended {
            let Some(value) = pcrs.get(number) else {
                continue;
            };
            let (how, good, entries) = match list.match_pcr(*bank, *number, value) {
                PcrMatch::Whole => ("is the replay of the list", true, list.entries().len()),
                PcrMatch::Prefix { entries } => {
                    ("is the replay of the list's beginning", true, entries)
                }
                PcrMatch::No => match list.match_padded_pcr(*bank, *number, value) {
                    PcrMatch::No => ("is not the replay of the list", false, 0),
                    PcrMatch::Whole => {
                        let all = list.entries().len();
                        ("is the replay of SHA-1 digests with zeros", true, all)
                    }
                    PcrMatch::Prefix { entries } => {
                        ("is the replay of SHA-1 digests with zeros", true, entries)
                    }
                },
            };
            // A TPM that was never extended fits the beginning of every list, and proves nothing.
            let empty = entries == 0 && !list.entries().is_empty();
            compared.push(Compared {
                bank: *bank,
                pcr: *number,
                replay: list.replay(*bank, *number),
                found: value.clone(),
                how: if good && empty {
                    "was never extended"
                } else {
                    how
                },
                good: good && !empty,
                entries,
            });
        }
    }
    compared
}

/// Whether the last boot_aggregate in the list is that of the PCRs; nothing if there is none, or too few PCRs to tell.
fn aggregate(list: &MeasurementList, banks: &BTreeMap<Bank, Pcrs>) -> Option<bool> {
    let entry = list
        .entries()
        .iter()
        .rev()
        .find(|entry| entry.name() == Some(b"boot_aggregate"))?;
    let digest = entry.file_digest()?;
    let name = match digest.algorithm {
        // The first template says no algorithm: SHA-1.
        "" => "sha1",
        name => name,
    };
    let bank = Bank::ALL.into_iter().find(|bank| bank.name() == name)?;
    let pcrs = banks.get(&bank)?;
    let values: Vec<Vec<u8>> = (0..pcr::COUNT)
        .map_while(|number| pcrs.get(&number).cloned())
        .collect();
    Some(boot_aggregate(bank, &values)? == digest.digest)
}

fn signatures(list: &MeasurementList, certificates: &[Certificate]) -> Vec<(String, &'static str)> {
    if certificates.is_empty() {
        return Vec::new();
    }
    list.entries()
        .iter()
        .filter_map(|entry| {
            let value = entry.signature().filter(|value| !value.is_empty())?;
            let name = String::from_utf8_lossy(entry.name().unwrap_or_default()).into_owned();
            let verdict = match (ImaXattr::parse(value), entry.file_digest()) {
                (Ok(ImaXattr::Signature(signature)), Some(digest))
                    if HashAlgorithm::from_name(digest.algorithm) == Some(signature.algo) =>
                {
                    let mut by_key = certificates
                        .iter()
                        .filter(|certificate| certificate.key_id() == signature.key_id)
                        .peekable();
                    if by_key.peek().is_none() {
                        "unknown-key"
                    } else if by_key.any(|certificate| {
                        verify_digest(
                            certificate,
                            signature.algo,
                            digest.digest,
                            &signature.signature,
                        )
                        .is_ok()
                    }) {
                        "good"
                    } else {
                        "changed"
                    }
                }
                (Ok(_), _) => "unsupported",
                (Err(_), _) => "malformed",
            };
            Some((name, verdict))
        })
        .collect()
}
