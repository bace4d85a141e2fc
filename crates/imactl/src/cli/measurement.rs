//! `imactl measurement`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use ima::measurement::{Bank, ByteOrder, Digested, Entry, PcrReplay};
use imactl::hex;
use imactl::measurement::{Aggregate, Comparison, GOOD, ListReader, signature_verdict};
use imactl::pcr::{self, Pcrs};
use imactl::tpm::Tpm;
use imactl::verify::nothing_checked;
use serde_json::json;

use super::options::{self, OutputOptions, bank, pcr_file};
use super::outcome::{Outcome, Result};
use super::output;

/// The PCR that IMA extends unless the kernel or a rule says another (CONFIG_IMA_MEASURE_PCR_IDX).
const IMA_PCR: u32 = 10;

/// Replay a measurement list and compare it with the PCRs of a TPM
///
/// The PCRs are read before the list, so that what is measured meanwhile is in the list only: a PCR that holds a beginning of the
/// list is right. A list with a changed entry, a PCR that fits no beginning of it, entries for a PCR that was not given, a
/// boot_aggregate that is not that of PCRs 0 to 9, or, with --cert, a signature in the list that is not good, makes exit status 1;
/// PCRs of which none can be compared make it 2.
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
    /// Bank whose template digests a binary list has; ASCII lists contain it
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
    #[command(flatten)]
    output: OutputOptions,
}

/// What was found in a list.
struct Found {
    /// The list beside the PCRs.
    comparison: Comparison,
    /// What the PCR of IMA would be.
    replays: Vec<(Bank, PcrReplay)>,
    /// The signatures that are not good, and with --json the others too.
    signatures: Vec<(String, &'static str)>,
    good_signatures: usize,
    bad_signatures: usize,
    /// The entries, with --list and --json.
    shown: Vec<serde_json::Value>,
}

impl Measurement {
    pub fn run(self) -> Result {
        let certificates: imactl::Result<Vec<Vec<Certificate>>> = self
            .certificates
            .iter()
            .map(|path| options::certificates(path))
            .collect();
        let certificates = certificates?.concat();
        let found = self.follow(self.banks()?, &certificates)?;
        let comparison = &found.comparison;
        let list = self
            .list
            .as_deref()
            .unwrap_or(Path::new(imactl::measurement::LIST));
        let entries = comparison.entries;
        if entries == 0 {
            return Err(
                Fault::new(Code::MeasurementsMalformed, list.display().to_string())
                    .because(Cause::NO_ENTRIES),
            );
        }
        if !certificates.is_empty() && found.good_signatures + found.bad_signatures == 0 {
            let what = format!("{}: no entry has a signature", list.display());
            return Err(nothing_checked(what).because(Cause::NO_SIGNED_ENTRY));
        }
        if comparison.has_pcrs() && comparison.compared().next().is_none() {
            return Err(Fault::new(Code::PcrsUnreadable, list.display().to_string())
                .because(Cause::NO_PCR_COMPARED));
        }
        if self.output.json {
            self.print_json(&found)?;
        } else {
            let violations = comparison.violations;
            output::line(format_args!("{entries} entries, {violations} violations"))?;
            if let Some(entry) = comparison.wrong {
                output::line(format_args!(
                    "entry {entry} was changed: its digest is not that of its data"
                ))?;
            }
            for item in comparison.compared() {
                let (how, held) = item.verdict(entries);
                output::line(format_args!("PCR {} {}: {how}", item.pcr, item.bank))?;
                match held {
                    None => {
                        let replay = hex::encode(item.replay());
                        output::line(format_args!("  TPM    {}", hex::encode(&item.found)))?;
                        output::line(format_args!("  replay {replay}"))?;
                    }
                    Some(held) if held < entries => output::line(format_args!(
                        "  up to entry {held} of {entries}; what follows was measured after the PCR was read"
                    ))?,
                    Some(_) => {}
                }
            }
            if !comparison.has_pcrs() {
                for (bank, replay) in &found.replays {
                    let value = hex::encode(replay.value());
                    output::line(format_args!("PCR {IMA_PCR} {bank} would be {value}"))?;
                }
            } else {
                for pcr in &comparison.unread {
                    output::line(format_args!(
                        "PCR {pcr}: the list extends it, and it is not among the PCRs given"
                    ))?;
                }
            }
            match comparison.aggregate {
                Aggregate::Absent | Aggregate::NotCompared => {}
                Aggregate::Matches => {
                    output::line(format_args!("boot_aggregate is that of PCRs 0 to 9"))?;
                }
                Aggregate::Differs => {
                    output::line(format_args!("boot_aggregate is not that of PCRs 0 to 9"))?;
                }
            }
            for (name, verdict) in &found.signatures {
                output::line(format_args!("{name}: {verdict}"))?;
            }
            if !certificates.is_empty() {
                output::line(format_args!(
                    "{} signatures good, {} not",
                    found.good_signatures, found.bad_signatures
                ))?;
            }
        }
        let good = comparison.is_consistent() && found.bad_signatures == 0;
        Ok(if good {
            Outcome::Good
        } else {
            Outcome::Findings
        })
    }

    fn banks(&self) -> imactl::Result<BTreeMap<Bank, Pcrs>> {
        let is_named = self.tpm.is_some() || !self.pcrs.is_empty();
        match self.list {
            Some(_) if !is_named => Ok(BTreeMap::new()),
            _ => pcr::read(self.tpm.as_ref(), &self.pcrs),
        }
    }

    /// Reads the list, entry by entry; with --list each is printed as it comes.
    fn follow(
        &self,
        banks: BTreeMap<Bank, Pcrs>,
        certificates: &[Certificate],
    ) -> imactl::Result<Found> {
        let order = if self.big_endian {
            ByteOrder::Big
        } else {
            ByteOrder::Little
        };
        let path = self
            .list
            .as_deref()
            .unwrap_or(Path::new(imactl::measurement::LIST));
        let mut list = ListReader::open(path, self.bank, order)?;
        let mut replays = Vec::new();
        if self.output.json || banks.is_empty() {
            replays = Bank::ALL
                .map(|bank| (bank, PcrReplay::new(bank, IMA_PCR)))
                .to_vec();
        }
        let mut found = Found {
            comparison: Comparison::new(banks),
            replays,
            signatures: Vec::new(),
            good_signatures: 0,
            bad_signatures: 0,
            shown: Vec::new(),
        };
        while let Some(entry) = list.read()? {
            let mut digested = Digested::new(&entry, order);
            found.comparison.add(&entry, &mut digested, list.bank());
            for (_, replay) in &mut found.replays {
                replay.extend(&mut digested);
            }
            if let Some(verdict) = signature_verdict(&entry, certificates) {
                let name = String::from_utf8_lossy(entry.name().unwrap_or_default()).into_owned();
                let good = verdict == GOOD;
                found.good_signatures += usize::from(good);
                found.bad_signatures += usize::from(!good);
                if self.output.json || !good {
                    found.signatures.push((name, verdict));
                }
            }
            match (self.show, self.output.json) {
                (true, true) => found.shown.push(entry_json(&entry)),
                (true, false) => {
                    let line = entry.to_ascii(order);
                    output::line(format_args!("{}", String::from_utf8_lossy(&line)))?;
                }
                (false, _) => {}
            }
        }
        Ok(found)
    }

    fn print_json(&self, found: &Found) -> imactl::Result<()> {
        let comparison = &found.comparison;
        let pcrs: Vec<_> = comparison
            .compared()
            .map(|item| {
                let (_, held) = item.verdict(comparison.entries);
                json!({
                    "pcr": item.pcr, "bank": item.bank.name(), "good": held.is_some(), "entries": held.unwrap_or(0),
                    "tpm": hex::encode(&item.found), "replay": hex::encode(item.replay()),
                })
            })
            .collect();
        let replay: BTreeMap<&str, String> = found
            .replays
            .iter()
            .map(|(bank, replay)| (bank.name(), hex::encode(replay.value())))
            .collect();
        let signatures: Vec<_> = found
            .signatures
            .iter()
            .map(|(name, verdict)| json!({"name": name, "verdict": verdict}))
            .collect();
        output::json(&json!({
            "entries": if self.show { json!(found.shown) } else { json!(comparison.entries) },
            "violations": comparison.violations,
            "changed_entry": comparison.wrong,
            "pcrs": pcrs,
            "replay_pcr10": replay,
            "boot_aggregate": comparison.aggregate.matches(),
            "signatures": signatures,
        }))
    }
}

fn entry_json(entry: &Entry) -> serde_json::Value {
    let digest = entry.file_digest();
    json!({
        "pcr": entry.pcr(),
        "template": entry.template().name(),
        "template_digest": hex::encode(entry.digest()),
        "algorithm": digest.map(|digest| digest.algorithm),
        "digest": digest.map(|digest| hex::encode(digest.digest)),
        "name": entry.name().map(|name| String::from_utf8_lossy(name).into_owned()),
        "signature": entry.signature().map(hex::encode),
        "violation": entry.is_violation(),
    })
}
