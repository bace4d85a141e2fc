//! `ima_measurement` and `ima_boot_aggregate`.

use std::collections::BTreeMap;
use std::path::Path;

use ima::hash::HashAlgorithm;
use ima::measurement::{Bank, ByteOrder, MeasurementList, PcrMatch, boot_aggregate};
use ima::signature::ImaXattr;
use imactl::file::read_bounded;
use imactl::hex;
use imactl::pcr::{self, Pcrs, Tpm};

use super::keys::Certificates;
use super::options::Options;
use super::output::{Done, Failed, Said};
use super::verify::check_2;

/// The longest list or log that is read, in bytes.
const MAX_LIST: u64 = 1 << 30;

/// The banks evmctl looks at.
const BANKS: [Bank; 2] = [Bank::Sha1, Bank::Sha256];

/// PCRs from where evmctl takes them: files, this machine's TPM, or the software TPM that IBM's TSS is told of by its environment.
fn pcrs(options: &Options, said: &mut Said) -> Done<BTreeMap<Bank, Pcrs>> {
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
    read.map_err(|fault| said.fault(&fault))
}

/// `ima_measurement`
pub fn measurement(options: &Options, said: &mut Said) -> Done {
    let Some(path) = options.operands.first().map(Path::new) else {
        return Err(super::missing("ima_measurement", said));
    };
    // The PCRs first: what is measured meanwhile is then in the list and not in them.
    let certificates = Certificates::load(options, said);
    let banks = match pcrs(options, said) {
        Ok(banks) => banks,
        Err(failed) if !options.pcr_files.is_empty() => return Err(failed),
        Err(_) => BTreeMap::new(),
    };
    let bytes = read_bounded(path, MAX_LIST).map_err(|fault| {
        said.err(format_args!(
            "Failed to open measurement file: {}",
            path.display()
        ));
        said.fault(&fault)
    })?;
    let list = MeasurementList::parse_binary(&bytes, Bank::Sha1, ByteOrder::default());
    let list = list.map_err(|error| {
        said.err(format_args!("{}: {error}", path.display()));
        Failed(1)
    })?;
    if options.verbose > 0 {
        for line in list.to_ascii().split(|byte| *byte == b'\n') {
            if !line.is_empty() {
                said.err(format_args!("{}", String::from_utf8_lossy(line)));
            }
        }
    }
    let signatures = signatures(&list, &certificates, options, said);
    let mut end = Ok(());
    if banks.is_empty() {
        said.err(format_args!("Failed to read any TPM PCRs"));
    } else {
        end = compare(&list, &banks, options, said);
    }
    if list.first_wrong_digest().is_some() {
        said.err(format_args!("Failed to verify template data digest."));
        end = Err(Failed(1));
    }
    end.and(signatures)
}

/// Compares the PCRs that the list extends with those of the TPM, as evmctl does: one bank that fits is enough.
fn compare(
    list: &MeasurementList,
    banks: &BTreeMap<Bank, Pcrs>,
    options: &Options,
    said: &mut Said,
) -> Done {
    let extended: std::collections::BTreeSet<u32> =
        list.entries().iter().map(|entry| entry.pcr()).collect();
    // Without --ignore-violations a violation is replayed as it is logged, by zeros, which no TPM was extended by.
    let first_violation = list.entries().iter().position(|entry| entry.is_violation());
    let last = match first_violation {
        Some(index) if !options.ignore_violations => index,
        _ => list.entries().len(),
    };
    let fits = |found: PcrMatch| match found {
        PcrMatch::Whole => last == list.entries().len(),
        PcrMatch::Prefix { entries } => entries > 0 && entries <= last,
        PcrMatch::No => false,
    };
    let considered: Vec<(&Bank, &Pcrs)> = banks
        .iter()
        .filter(|(bank, _)| options.verify_bank.is_none_or(|wanted| wanted == **bank))
        .collect();
    let all = |compare: &dyn Fn(Bank, u32, &[u8]) -> PcrMatch| {
        considered.iter().any(|(bank, pcrs)| {
            extended.iter().all(|number| {
                pcrs.get(number)
                    .is_some_and(|value| fits(compare(**bank, *number, value)))
            })
        })
    };
    if all(&|bank, number, value| list.match_pcr(bank, number, value)) {
        said.err(format_args!("Matched per TPM bank calculated digest(s)."));
        return Ok(());
    }
    if all(&|bank, number, value| list.match_padded_pcr(bank, number, value)) {
        said.err(format_args!("Matched SHA1 padded TPM digest(s)."));
        return Ok(());
    }
    if options.verbose > 0 {
        for (bank, pcrs) in considered {
            for number in &extended {
                let replay = list.replay(*bank, *number);
                said.err(format_args!(
                    "{bank}: PCRAgg  {number}: {}",
                    hex::encode(&replay)
                ));
                if let Some(value) = pcrs.get(number) {
                    said.err(format_args!(
                        "{bank}: TPM PCR-{number}: {}",
                        hex::encode(value)
                    ));
                }
            }
        }
    }
    said.err(format_args!(
        "Failed to match per TPM bank or SHA1 padded TPM digest(s)."
    ));
    Err(Failed(1))
}

/// With `--verify-sig` the signatures in the list, over the digests in the list.
fn signatures(
    list: &MeasurementList,
    certificates: &Certificates,
    options: &Options,
    said: &mut Said,
) -> Done {
    let mut end = Ok(());
    if !options.verify_signatures {
        return end;
    }
    for entry in list.entries() {
        let Some(value) = entry.signature().filter(|value| !value.is_empty()) else {
            continue;
        };
        let name = String::from_utf8_lossy(entry.name().unwrap_or_default()).into_owned();
        let checked = match (ImaXattr::parse(value), entry.file_digest()) {
            (Ok(ImaXattr::Signature(signature)), Some(digest))
                if HashAlgorithm::from_name(digest.algorithm) == Some(signature.algo) =>
            {
                check_2(&name, digest.digest, &signature, certificates, said)
            }
            _ => {
                said.err(format_args!("{name}: Invalid signature"));
                Err(Failed(1))
            }
        };
        match checked {
            Ok(()) if options.verbose > 0 => {
                said.err(format_args!("{name}: verification is OK"));
            }
            Ok(()) => {}
            Err(_) => end = Err(Failed(1)),
        }
    }
    end
}

/// `ima_boot_aggregate`
pub fn boot_aggregate_command(options: &Options, said: &mut Said) -> Done {
    let banks = match options.operands.first().map(Path::new) {
        Some(path) => {
            let log = read_bounded(path, MAX_LIST).map_err(|fault| said.fault(&fault))?;
            let pcrs = ima::eventlog::replay_sha1(&log).map_err(|error| {
                said.err(format_args!(
                    "Failed reading the TPM 1.2 event log {}: {error}",
                    path.display()
                ));
                Failed(super::ERROR)
            })?;
            BTreeMap::from([(Bank::Sha1, (0..).zip(pcrs).collect())])
        }
        None => pcrs(options, said)?,
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
            said.out(format_args!("{bank}:{}", hex::encode(&digest)));
            any = true;
        }
    }
    if any {
        Ok(())
    } else {
        said.err(format_args!("Failed to read any TPM PCRs"));
        Err(Failed(super::ERROR))
    }
}
