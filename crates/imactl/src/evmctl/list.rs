//! `ima_measurement` and `ima_boot_aggregate`.

use std::collections::BTreeMap;
use std::path::Path;

use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use ima::measurement::{
    Bank, ByteOrder, Digested, Entry, PcrMatch, PcrMatcher, PcrReplay, boot_aggregate,
};
use ima::signature::ImaXattr;
use imactl::file::read_bounded;
use imactl::hex;
use imactl::measurement::{ListReader, ambiguity};
use imactl::pcr::{self, Pcrs};
use imactl::tpm::Tpm;

use super::keys::Certificates;
use super::options::Options;
use super::output::{Done, Failed, Output};
use super::verify::check_2;

/// The longest event log that is read, in bytes.
const MAX_LOG: u64 = 1 << 30;

/// The banks evmctl looks at.
const BANKS: [Bank; 2] = [Bank::Sha1, Bank::Sha256];

/// PCRs from where evmctl takes them: files, this machine's TPM, or the software TPM that the environment of IBM's TSS names.
fn pcrs(options: &Options, output: &mut Output) -> Done<BTreeMap<Bank, Pcrs>> {
    let read = if options.pcr_files.is_empty() {
        let variable = |name: &str| std::env::var(name).ok();
        match variable("TPM_INTERFACE_TYPE").as_deref() {
            Some("socsim") => {
                let host = variable("TPM_SERVER_NAME").unwrap_or_else(|| "localhost".to_owned());
                let port = variable("TPM_COMMAND_PORT").unwrap_or_else(|| "2321".to_owned());
                pcr::read_tpm(&Tpm::Socket(format!("{host}:{port}")))
            }
            _ => pcr::read_system(),
        }
    } else {
        options
            .pcr_files
            .iter()
            .map(|(bank, path)| Ok((*bank, pcr::read_file(path, *bank)?)))
            .collect()
    };
    read.map_err(|fault| output.fault(&fault))
}

/// `ima_measurement`
pub fn measurement(options: &Options, output: &mut Output) -> Done {
    let Some(path) = options.operands.first().map(Path::new) else {
        return Err(options.missing(output));
    };
    // The PCRs first: what is measured meanwhile is then in the list and not in them.
    let certificates = Certificates::load(options, output);
    let banks = match pcrs(options, output) {
        Ok(banks) => banks,
        Err(failed) if !options.pcr_files.is_empty() => return Err(failed),
        Err(_) => BTreeMap::new(),
    };
    let failed = |fault: &Fault, output: &mut Output| {
        if fault.code() == Code::InputUnreadable {
            output.err(format_args!(
                "Failed to open measurement file: {}",
                path.display()
            ));
        }
        output.fault(fault)
    };
    let order = ByteOrder::default();
    let mut list =
        ListReader::open(path, Bank::Sha1, order).map_err(|fault| failed(&fault, output))?;
    let mut compared: Vec<Compared> = banks
        .iter()
        .filter(|(bank, _)| options.verify_bank.is_none_or(|wanted| wanted == **bank))
        .flat_map(|(bank, pcrs)| (0..pcr::COUNT).map(|number| Compared::new(*bank, number, pcrs)))
        .collect();
    let (mut entries, mut first_violation) = (0, None);
    let (mut changed, mut signatures) = (false, Ok(()));
    while let Some(entry) = list.read().map_err(|fault| failed(&fault, output))? {
        if entry.pcr() >= pcr::COUNT {
            output.err(format_args!("Invalid PCR {}.", entry.pcr()));
            return Err(Failed(1));
        }
        if options.verbose > 0 {
            let line = entry.to_ascii(order);
            output.err(format_args!("{}", String::from_utf8_lossy(&line)));
        }
        if options.verify_signatures {
            let checked = signature(&entry, &certificates, options, output);
            signatures = signatures.and(checked);
        }
        if entry.is_violation() {
            first_violation.get_or_insert(entries);
        }
        entries += 1;
        let mut digested = Digested::new(&entry, order);
        changed |= digested.is_wrong(Bank::Sha1);
        for item in &mut compared {
            item.extended |= item.pcr == entry.pcr();
            item.exact.extend(&mut digested);
            item.padded.extend(&mut digested);
        }
    }
    let mut end = if banks.is_empty() {
        output.err(format_args!("Failed to read any TPM PCRs"));
        Err(Failed::ERROR)
    } else {
        // Without --ignore-violations a violation is replayed as it is logged, by zeros, which no TPM was extended by.
        let last = match first_violation {
            Some(index) if !options.ignore_violations => index,
            _ => entries,
        };
        compared.retain(|item| item.extended);
        compare(&compared, entries, last, options, output)
    };
    if changed {
        output.err(format_args!("Failed to verify template data digest."));
        end = Err(Failed(1));
    }
    end.and(signatures)
}

/// A PCR, as the list comes to it and as it was found: empty, if it was not.
struct Compared {
    bank: Bank,
    pcr: u32,
    found: Vec<u8>,
    /// Whether the list extends it.
    extended: bool,
    exact: PcrMatcher,
    padded: PcrMatcher,
}

impl Compared {
    fn new(bank: Bank, pcr: u32, pcrs: &Pcrs) -> Self {
        let found = pcrs.get(&pcr).cloned().unwrap_or_default();
        Self {
            bank,
            pcr,
            extended: false,
            exact: PcrMatcher::new(PcrReplay::new(bank, pcr), found.clone()),
            padded: PcrMatcher::new(PcrReplay::padded(bank, pcr), found.clone()),
            found,
        }
    }
}

/// Compares the PCRs that the list extends with those of the TPM, as evmctl does: one bank that fits is enough. `last` is how many
/// of the list's entries a PCR may hold.
fn compare(
    compared: &[Compared],
    entries: usize,
    last: usize,
    options: &Options,
    output: &mut Output,
) -> Done {
    let fits = |found: PcrMatch| match found {
        PcrMatch::Whole => last == entries,
        PcrMatch::Prefix { entries } => entries > 0 && entries <= last,
        PcrMatch::No => false,
    };
    let all = |matcher: &dyn Fn(&Compared) -> PcrMatch| {
        compared
            .chunk_by(|one, other| one.bank == other.bank)
            .any(|bank| bank.iter().all(|item| fits(matcher(item))))
    };
    if all(&|item| item.exact.found()) {
        output.err(format_args!("Matched per TPM bank calculated digest(s)."));
        return Ok(());
    }
    if all(&|item| item.padded.found()) {
        output.err(format_args!("Matched SHA1 padded TPM digest(s)."));
        return Ok(());
    }
    if options.verbose > 0 {
        for item in compared {
            let (bank, number) = (item.bank, item.pcr);
            let replay = hex::encode(item.exact.replay());
            output.err(format_args!("{bank}: PCRAgg  {number}: {replay}"));
            if !item.found.is_empty() {
                let found = hex::encode(&item.found);
                output.err(format_args!("{bank}: TPM PCR-{number}: {found}"));
            }
        }
    }
    output.err(format_args!(
        "Failed to match per TPM bank or SHA1 padded TPM digest(s)."
    ));
    Err(Failed(1))
}

/// With `--verify-sig` a signature in the list, over the digest in the list.
fn signature(
    entry: &Entry,
    certificates: &Certificates,
    options: &Options,
    output: &mut Output,
) -> Done {
    let name = String::from_utf8_lossy(entry.name().unwrap_or_default()).into_owned();
    if let Some(why) = ambiguity(entry) {
        output.err(format_args!("{name}: {why}"));
        return Err(Failed(1));
    }
    let Some(value) = entry.signature() else {
        return Ok(());
    };
    match (ImaXattr::parse(value), entry.file_digest()) {
        (Ok(ImaXattr::Signature(signature)), Some(digest))
            if HashAlgorithm::from_name(digest.algorithm) == Some(signature.algo) =>
        {
            check_2(&name, digest.digest, &signature, certificates, output)
                .map_err(|_| Failed(1))?;
        }
        _ => {
            output.err(format_args!("{name}: Invalid signature"));
            return Err(Failed(1));
        }
    }
    if options.verbose > 0 {
        output.err(format_args!("{name}: verification is OK"));
    }
    Ok(())
}

/// `ima_boot_aggregate`
pub fn boot_aggregate_command(options: &Options, output: &mut Output) -> Done {
    let banks = match options.operands.first().map(Path::new) {
        Some(path) => {
            let log = read_bounded(path, MAX_LOG).map_err(|fault| output.fault(&fault))?;
            let pcrs = ima::eventlog::replay_sha1(&log).map_err(|error| {
                output.err(format_args!(
                    "Failed reading the TPM 1.2 event log {}: {error}",
                    path.display()
                ));
                Failed::ERROR
            })?;
            BTreeMap::from([(Bank::Sha1, (0..).zip(pcrs).collect())])
        }
        None => pcrs(options, output)?,
    };
    let mut any = false;
    for bank in BANKS {
        let Some(pcrs) = banks.get(&bank) else {
            continue;
        };
        let values: Vec<Vec<u8>> = (0..pcr::COUNT)
            .map_while(|number| pcrs.get(&number).cloned())
            .collect();
        if let Some(digest) = boot_aggregate(bank, &values) {
            output.out(format_args!("{bank}:{}", hex::encode(&digest)));
            any = true;
        }
    }
    if any {
        Ok(())
    } else {
        output.err(format_args!("Failed to read any TPM PCRs"));
        Err(Failed::ERROR)
    }
}
