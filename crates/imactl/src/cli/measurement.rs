//! `imactl measurement`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use ima::measurement::{Bank, ByteOrder, DEFAULT_PCR, Digested, Entry, PcrReplay};
use imactl::measurement::{
    Aggregate, Comparison, Difference, GOOD, LIST, Lists, ambiguity, signature_verdict,
};
use imactl::pcr::{self, Pcrs};
use imactl::prediction::PredictedList;
use imactl::text::printable;
use imactl::tpm::Tpm;
use imactl::verify::nothing_checked;
use imactl::{file, hex};
use serde_json::json;

use super::booted::Booted;
use super::options::{self, OutputOptions, bank, pcr_file};
use super::outcome::{Outcome, Result};
use super::output;

/// The forms of a measurement list
#[derive(Debug, Args)]
struct Form {
    /// Bank whose template digests a binary list has; ASCII lists contain it
    #[arg(long, value_name = "ALGO", default_value = "sha1", value_parser = bank)]
    bank: Bank,
    /// The list is from a big-endian machine
    #[arg(long)]
    big_endian: bool,
}

impl Form {
    const fn order(&self) -> ByteOrder {
        if self.big_endian {
            ByteOrder::Big
        } else {
            ByteOrder::Little
        }
    }

    const fn lists<'a>(&self, paths: &'a [PathBuf]) -> Lists<'a> {
        Lists {
            paths,
            bank: self.bank,
            order: self.order(),
        }
    }
}

/// A bank and a digest of its length.
fn pcr_value(text: &str) -> std::result::Result<(Bank, Vec<u8>), String> {
    let wrong = || format!("`{text}`: give a bank and a value, such as sha256,0000...");
    let (name, digits) = text.split_once(',').ok_or_else(wrong)?;
    let bank = bank(name)?;
    hex::decode(digits)
        .filter(|value| value.len() == bank.digest_len())
        .map(|value| (bank, value))
        .ok_or_else(wrong)
}

/// Replay a measurement list and compare it with the PCRs of a TPM
///
/// The PCRs are read before the list, so that what is measured meanwhile is in the list only: a PCR that holds a beginning of the
/// list is right. A list with a changed entry, a PCR that fits no beginning of it, entries for a PCR that was not given, a
/// boot_aggregate that is not that of PCRs 0 to 9, or, with --cert, a signature in the list that is not good, makes exit status 1;
/// PCRs of which none can be compared make it 2.
///
/// A list that was taken out of the kernel in pieces (CONFIG_IMA_STAGING) is given as several files, in their order. If its beginning is
/// not at hand, --before gives what PCR 10 held after that.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  imactl measurement                                                      this machine's list and TPM
  imactl measurement staged-1 staged-2 /sys/kernel/security/ima/binary_runtime_measurements --tpm device:/dev/tpmrm0
  imactl measurement --pcrs sha256,pcrs.txt binary_runtime_measurements
  imactl measurement --tpm swtpm:host=localhost,port=2321 ascii_runtime_measurements_sha256
  imactl measurement --list --cert ima.der --json list | jq '.entries[].name'"
)]
pub struct Measurement {
    #[command(subcommand)]
    command: Option<MeasurementCommand>,
    #[command(flatten)]
    replay: Replay,
}

#[derive(Debug, Subcommand)]
enum MeasurementCommand {
    Diff(Diff),
    Predict(Box<Predict>),
}

impl Measurement {
    pub fn run(self) -> Result {
        match self.command {
            None => self.replay.run(),
            Some(MeasurementCommand::Diff(command)) => command.run(),
            Some(MeasurementCommand::Predict(command)) => command.run(),
        }
    }
}

#[derive(Debug, Args)]
struct Replay {
    /// The list, binary or ASCII, in one or more files; the kernel's own if none is given
    #[arg(value_name = "LIST")]
    lists: Vec<PathBuf>,
    #[command(flatten)]
    form: Form,
    /// PCRs from a file, as tpm2_pcrread, tsspcrread or the kernel print them; may be repeated
    #[arg(long = "pcrs", value_name = "ALGO,FILE", value_parser = pcr_file, conflicts_with = "tpm")]
    pcrs: Vec<(Bank, PathBuf)>,
    /// PCRs from this TPM: device:/dev/tpmrm0 or swtpm:host=HOST,port=PORT. Without this and --pcrs, those of this machine count
    /// for its own list, and none for a list from elsewhere
    #[arg(long, value_name = "TPM")]
    tpm: Option<Tpm>,
    /// What PCR 10 held before the first entry, in hexadecimal; may be repeated
    #[arg(long, value_name = "ALGO,VALUE", value_parser = pcr_value)]
    before: Vec<(Bank, Vec<u8>)>,
    /// Check the signatures in the list, over the digests in the list, with these certificates
    #[arg(long = "cert", value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// Print the list
    #[arg(long = "list", id = "show")]
    show: bool,
    #[command(flatten)]
    output: OutputOptions,
}

/// More violations are only counted.
const MAX_VIOLATIONS: usize = 10;

/// What a violation is (security/integrity/ima/ima_main.c, `ima_rdwr_violation_check`).
const VIOLATION: &str = "  A violation is a file that was open for writing while it was measured (open_writers in the audit log), or was opened for
  writing while a measured reader had it open (ToMToU): what was read may be something else than what was measured.
  Measure no file that changes while it is read, such as a log: exclude its file system or owner in the policy.";

/// What was found in a list.
struct Found {
    /// The list beside the PCRs.
    comparison: Comparison,
    /// What the PCR of IMA would be.
    replays: Vec<(Bank, PcrReplay)>,
    /// The first violations: the entry, counted from 1, and the name.
    violations: Vec<(usize, String)>,
    /// The signatures that are not good, and with --json the others too.
    signatures: Vec<(String, &'static str)>,
    good_signatures: usize,
    bad_signatures: usize,
    /// The entries, with --list and --json.
    shown: Vec<serde_json::Value>,
}

impl Replay {
    fn run(mut self) -> Result {
        let banks = self.banks()?;
        if self.lists.is_empty() {
            self.lists.push(PathBuf::from(LIST));
        }
        let certificates: imactl::Result<Vec<Vec<Certificate>>> = self
            .certificates
            .iter()
            .map(|path| options::certificates(path))
            .collect();
        let certificates = certificates?.concat();
        let found = self.follow(banks, &certificates)?;
        let comparison = &found.comparison;
        let list = self.lists.first().map_or(Path::new(LIST), PathBuf::as_path);
        let entries = comparison.entries;
        if entries == 0 {
            return Err(self.form.lists(&self.lists).empty());
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
            for (entry, name) in &found.violations {
                let name = printable(name);
                output::line(format_args!("entry {entry} is a violation: {name}"))?;
            }
            if violations > found.violations.len() {
                let more = violations - found.violations.len();
                output::line(format_args!(
                    "{more} more violations; --list prints all entries"
                ))?;
            }
            if violations > 0 {
                output::line(format_args!("{VIOLATION}"))?;
            }
            if !comparison.begins_at_boot && self.before.is_empty() {
                output::line(format_args!(
                    "the first entry is not boot_aggregate: earlier ones were taken out of the kernel; give them first, or --before"
                ))?;
            }
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
                    output::line(format_args!("PCR {DEFAULT_PCR} {bank} would be {value}"))?;
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
        match self.lists[..] {
            [_, ..] if !is_named => Ok(BTreeMap::new()),
            _ => pcr::read(self.tpm.as_ref(), &self.pcrs),
        }
    }

    /// Reads the list, entry by entry; with --list each is printed as it comes.
    fn follow(
        &self,
        banks: BTreeMap<Bank, Pcrs>,
        certificates: &[Certificate],
    ) -> imactl::Result<Found> {
        let order = self.form.order();
        let mut list = self.form.lists(&self.lists).open()?;
        let before: BTreeMap<Bank, Vec<u8>> = self.before.iter().cloned().collect();
        let mut replays = Vec::new();
        if self.output.json || banks.is_empty() {
            replays = Bank::ALL
                .map(|bank| {
                    let replay = PcrReplay::new(bank, DEFAULT_PCR);
                    match before.get(&bank) {
                        Some(value) => (bank, replay.from_value(value)),
                        None => (bank, replay),
                    }
                })
                .to_vec();
        }
        let mut found = Found {
            comparison: Comparison::after(&before, banks),
            replays,
            violations: Vec::new(),
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
            let name = || String::from_utf8_lossy(entry.name().unwrap_or_default()).into_owned();
            if entry.is_violation() && found.violations.len() < MAX_VIOLATIONS {
                found.violations.push((found.comparison.entries, name()));
            }
            if let Some(verdict) = signature_verdict(&entry, certificates) {
                let good = verdict == GOOD;
                found.good_signatures += usize::from(good);
                found.bad_signatures += usize::from(!good);
                if self.output.json || !good {
                    found.signatures.push((name(), verdict));
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
        let violations: Vec<_> = found
            .violations
            .iter()
            .map(|(entry, name)| json!({"entry": entry, "name": name}))
            .collect();
        output::json(&json!({
            "entries": if self.show { json!(found.shown) } else { json!(comparison.entries) },
            "begins_at_boot": comparison.begins_at_boot,
            "violations": comparison.violations,
            "first_violations": violations,
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
        "ambiguous": ambiguity(entry),
        "violation": entry.is_violation(),
    })
}

/// Compare what two boots have measured
///
/// The order of the entries, their templates and the signatures in them do not matter: what counts is what was measured under which
/// name. With --allowed the first list holds what may be measured, as `imactl measurement predict` prints it, and only what the second
/// has beyond that is a difference. Differences make exit status 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl measurement diff boot-1/binary_runtime_measurements boot-2/binary_runtime_measurements
  imactl measurement diff --allowed predicted binary_runtime_measurements")]
struct Diff {
    /// The first list, binary or ASCII
    first: PathBuf,
    /// The second list
    second: PathBuf,
    /// What the second list lacks is no difference
    #[arg(long)]
    allowed: bool,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    output: OutputOptions,
}

impl Diff {
    fn run(self) -> Result {
        let [first, second] = [self.first.clone(), self.second.clone()].map(|path| [path]);
        let mut found = Difference::between(&self.form.lists(&first), &self.form.lists(&second))?;
        if self.allowed {
            // What may be measured under a name that has other contents shows what was expected.
            found
                .first
                .retain(|name, _| found.second.contains_key(name));
        }
        let changed = found.changed().count();
        let (gone, new) = (found.first.len() - changed, found.second.len() - changed);
        if self.output.json {
            let json = |map: &BTreeMap<Vec<u8>, _>| {
                map.iter()
                    .map(|(name, contents)| {
                        (String::from_utf8_lossy(name).into_owned(), json!(contents))
                    })
                    .collect::<serde_json::Map<_, _>>()
            };
            output::json(&json!({
                "first": json(&found.first), "second": json(&found.second), "both": found.both,
            }))?;
        } else {
            for (sign, map) in [('-', &found.first), ('+', &found.second)] {
                for (name, contents) in map {
                    for content in contents {
                        let name = printable(&String::from_utf8_lossy(name));
                        output::line(format_args!("{sign} {name}  {content}"))?;
                    }
                }
            }
            let lacking = if self.allowed {
                String::new()
            } else {
                format!(", {gone} in the first list only")
            };
            output::line(format_args!(
                "{} measurements in both lists; of the names, {changed} with other contents{lacking}, {new} in the second only",
                found.both
            ))?;
        }
        Ok(if found.first.is_empty() && found.second.is_empty() {
            Outcome::Good
        } else {
            Outcome::Findings
        })
    }
}

/// Print what a machine can measure that boots this kernel, initramfs and root
///
/// The list is in ASCII form: the files of the root, the keys that kernel and init put onto keyrings, and the rules that the init writes.
/// boot_aggregate is not in it, because it depends on the firmware. `imactl measurement diff --allowed` compares it with the list of a
/// boot.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl measurement predict --from root.img --kernel bzImage --initramfs initramfs.img --out predicted
  imactl measurement diff --allowed predicted binary_runtime_measurements")]
struct Predict {
    #[command(flatten)]
    booted: Booted,
    /// Template of the entries of files: ima-ng, ima-sig, ima-ngv2 or ima-sigv2
    #[arg(long, value_name = "TEMPLATE", default_value = "ima-sig", value_parser = PredictedList::TEMPLATES)]
    template: String,
    /// File to write the list to, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

impl Predict {
    fn run(self) -> Result {
        let (algo, order) = (self.booted.hash(), self.form.order());
        let list = PredictedList::new(&self.template, algo, self.form.bank, order)?;
        let (mut text, mut left_out) = (Vec::new(), 0_usize);
        self.booted.predict(&mut |measured| {
            let line = list.entry(measured).to_ascii(order);
            if line.contains(&b'\n') {
                left_out += 1;
                return Ok(());
            }
            text.extend(line);
            text.push(b'\n');
            Ok(())
        })?;
        match &self.out {
            Some(path) => file::write(path, &text, 0o644, true)?,
            None => output::raw(&text)?,
        }
        if left_out > 0 {
            output::warn(format_args!(
                "{left_out} names with a line feed are left out: the ASCII form cannot hold them"
            ));
        }
        Ok(Outcome::Good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_pcrs() {
        let (bank, value) = pcr_value(&format!("sha1,{}", "ab".repeat(20))).unwrap();
        assert_eq!((bank, value), (Bank::Sha1, vec![0xab; 20]));
        for wrong in ["", "sha1", "sha1,", "sha256,00", "x,00", "sha1,zz"] {
            assert!(pcr_value(wrong).is_err(), "{wrong}");
        }
    }
}
