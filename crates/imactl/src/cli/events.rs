//! `imactl events`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use ima::boot_event;
use ima::fault::{Cause, Code, Fault};
use ima::measurement::Bank;
use imactl::events::Logs;
use imactl::file::{in_file, read_bounded};
use imactl::hex;
use imactl::pcr;
use imactl::tpm::Tpm;
use imactl::uki::{UnifiedKernelImage, pe};
use serde_json::json;

use super::options::{OutputOptions, pcr_file};
use super::outcome::{Outcome, Result};
use super::output;

/// The kernel's copy of the firmware's log.
const FIRMWARE_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";

/// Verify the event logs of a boot with the PCRs of a TPM
///
/// The firmware's log says what the firmware, the boot loader and the UEFI stub measured; systemd's log says what programs measured
/// afterwards, such as ima-init with `measure_pcr=`. Both are replayed and compared with the PCRs, except PCR 10, which is IMA's
/// (`imactl measurement`), and those that programs can reset. A PCR that the logs do not explain, a record of ima-init whose text
/// was changed, or, with --uki, a section of the image that is not the one which was measured, makes exit status 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl events                                       this machine's logs and TPM
  imactl events --uki /boot/efi/EFI/BOOT/BOOTX64.EFI
  imactl events --firmware-log binary_bios_measurements --log tpm2-measure.log --pcrs sha256,pcrs.txt --json")]
pub struct Events {
    /// The firmware's log; the kernel's copy if no log is given
    #[arg(long, value_name = "FILE")]
    firmware_log: Option<PathBuf>,
    /// The log of what programs measured; systemd's if no log is given
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// PCRs from a file, as tpm2_pcrread, tsspcrread or the kernel print them; may be repeated
    #[arg(long = "pcrs", value_name = "ALGO,FILE", value_parser = pcr_file, conflicts_with = "tpm")]
    pcrs: Vec<(Bank, PathBuf)>,
    /// PCRs from this TPM: device:/dev/tpmrm0 or swtpm:host=HOST,port=PORT; that of this machine if neither is given
    #[arg(long, value_name = "TPM")]
    tpm: Option<Tpm>,
    /// Compare what systemd's UEFI stub measured with the sections of this unified kernel image
    #[arg(long, value_name = "FILE")]
    uki: Option<PathBuf>,
    #[command(flatten)]
    output: OutputOptions,
}

impl Events {
    pub fn run(self) -> Result {
        let logs = self.logs()?;
        if logs.firmware.is_empty() && logs.programs.is_empty() {
            return Err(Fault::new(Code::EventLogMalformed, "no log has an event"));
        }
        let sections = match &self.uki {
            Some(path) => {
                let bytes = read_bounded(path, pe::MAX_IMAGE)?;
                let image =
                    UnifiedKernelImage::parse(&bytes).map_err(|fault| in_file(fault, path))?;
                logs.stub_sections(image.sections())?
            }
            None => Vec::new(),
        };
        let compared = logs.compare(&pcr::read(self.tpm.as_ref(), &self.pcrs)?);
        if compared.is_empty() {
            return Err(
                Fault::new(Code::PcrsUnreadable, "PCRs 0 to 15").because(Cause::NO_PCR_COMPARED)
            );
        }
        let wrong = logs.wrong();
        if self.output.json {
            let records = logs.programs.iter().enumerate().map(|(number, record)| {
                json!({ "pcr": record.pcr, "content_type": record.content_type, "text": record.text,
                        "changed": wrong.contains(&number) })
            });
            let pcrs = compared.iter().map(|pcr| {
                json!({ "pcr": pcr.pcr, "bank": pcr.bank.name(), "value": hex::encode(&pcr.found),
                        "replay": hex::encode(&pcr.replay), "matches": pcr.matches() })
            });
            let sections: BTreeMap<_, _> = sections.iter().cloned().collect();
            output::json(&json!({
                "firmware_events": logs.firmware.len(),
                "records": records.collect::<Vec<_>>(),
                "pcrs": pcrs.collect::<Vec<_>>(),
                "sections": sections,
            }))?;
        } else {
            output::line(format_args!(
                "{} events of the firmware, {} of programs",
                logs.firmware.len(),
                logs.programs.len()
            ))?;
            for (number, record) in logs.programs.iter().enumerate() {
                let text = record.text.as_deref().unwrap_or("-");
                let by = record.content_type.as_deref().unwrap_or("-");
                output::line(format_args!("PCR {} {by}: {text}", record.pcr))?;
                if wrong.contains(&number) {
                    output::line(format_args!("  was changed: the digest is of another text"))?;
                }
            }
            for (name, matches) in &sections {
                let verdict = if *matches { "is" } else { "is not" };
                output::line(format_args!("section {name}: {verdict} what was measured"))?;
            }
            for pcr in &compared {
                if pcr.matches() {
                    continue;
                }
                output::line(format_args!(
                    "PCR {} {}: is not the replay of the logs",
                    pcr.pcr, pcr.bank
                ))?;
                output::line(format_args!("  TPM    {}", hex::encode(&pcr.found)))?;
                output::line(format_args!("  replay {}", hex::encode(&pcr.replay)))?;
            }
            let good = compared.iter().filter(|pcr| pcr.matches()).count();
            output::line(format_args!(
                "{good} of {} PCRs are the replay of the logs",
                compared.len()
            ))?;
        }
        let good = wrong.is_empty()
            && compared.iter().all(|pcr| pcr.matches())
            && sections.iter().all(|(_, matches)| *matches);
        Ok(if good {
            Outcome::Good
        } else {
            Outcome::Findings
        })
    }

    /// The logs that are given; those of this machine, as far as it has them, if none is.
    fn logs(&self) -> imactl::Result<Logs> {
        if self.firmware_log.is_some() || self.log.is_some() {
            return Logs::read(self.firmware_log.as_deref(), self.log.as_deref());
        }
        let existing = |path: &'static str| Some(Path::new(path)).filter(|path| path.exists());
        Logs::read(existing(FIRMWARE_LOG), existing(boot_event::LOG))
    }
}
