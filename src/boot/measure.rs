//! What the init concluded, measured into the TPM: `measure_pcr=`. The events are those of [`ima::boot_event`].

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use ima::boot_event::{self, Event, Key, LOG};
use ima::config::Config;
use ima::fault::{Cause, Code, Fault, Stage};
use ima::offer::Source;
use ima::tpm;
use log::{info, warn};

use super::policy::PolicyInForce;
use super::preflight::Ready;
use crate::failure::Ending;
use crate::features::{self, Feature};
use crate::report::Report;
use crate::watch;

/// Where the first half leaves its record for the second half. Not in /run, because the other initramfs mounts its own there.
const FIRST_HALF: &str = "/usr/lib/ima-init/first-half.events";

/// Measures that the policy is in force. `is_front`: another initramfs follows.
///
/// # Errors
///
/// [`Code::NotMeasured`].
pub fn policy(
    policy: &PolicyInForce,
    config: &Config,
    is_front: bool,
    report: &Report,
) -> Result<(), Fault> {
    let wanted = policy.wanted();
    let log = if is_front { FIRST_HALF } else { LOG };
    measure(config.measure_pcr, Stage::Policy, log, || Event::Policy {
        enforce: wanted.enforce().name(),
        policy: wanted.text(),
        proofs: report.policy.proofs.iter().map(|it| it.name()).collect(),
        keys: keys(report, Source::Initramfs),
        lockdown: config.lockdown.name(),
        kexec: config.kexec,
    })
}

/// Measures that the root passed every check.
///
/// # Errors
///
/// [`Code::NotMeasured`].
pub fn root(ready: &Ready, report: &Report) -> Result<(), Fault> {
    let pcr = ready.settings.config.measure_pcr;
    measure(pcr, Stage::Handover, LOG, || {
        if let Ok(first) = std::fs::read(FIRST_HALF) {
            put_first(&first).unwrap_or_else(|error| warn_of_log(Stage::Handover, &error));
        }
        let policies = report.policy.additional.iter();
        Event::Root {
            slot: report.slot.as_deref(),
            verity: report.root.verity.as_deref(),
            composefs: report.root.composefs.as_deref(),
            keys: keys(report, Source::Root),
            policies: policies
                .filter(|policy| policy.accepted)
                .map(|policy| policy.path.as_str())
                .collect(),
            switch_root: &report.switch_root,
            init: &report.init,
        }
    })
}

/// Measures that the boot was refused, before a shell is started: with the events of a good boot, whoever uses the shell could
/// otherwise bring the PCR to the value of one. Where that fails there is no shell.
#[must_use]
pub fn refusal(fault: &Fault, ending: Ending) -> Ending {
    if !ending.is_shell() || ending.measure_pcr.is_none() {
        return ending;
    }
    let stage = fault.code().entry().stage;
    let measured = measure(ending.measure_pcr, stage, LOG, || {
        Event::Refused(fault.code())
    });
    match measured {
        Ok(()) => ending,
        Err(fault) => {
            warn!("no shell is started: {fault}");
            ending.without_shell()
        }
    }
}

/// The certificates from there that the kernel took.
fn keys(report: &Report, source: Source) -> Vec<Key<'_>> {
    let taken = report
        .keys
        .iter()
        .filter(|key| key.source == source && key.refused.is_none());
    taken
        .map(|key| Key {
            keyring: key.keyring,
            sha256: &key.sha256,
        })
        .collect()
}

/// Measures an event. It is made behind the check of the feature, so that an init without the feature has no code for it.
fn measure<'a>(
    pcr: Option<u8>,
    stage: Stage,
    log: &str,
    event: impl FnOnce() -> Event<'a>,
) -> Result<(), Fault> {
    let Some(pcr) = pcr else { return Ok(()) };
    features::require(Feature::MeasuredBoot)?;
    let text = event().text();
    let extended = watch::during(stage, "measuring into the TPM", || {
        let mut device = crate::tpm::open()
            .map_err(|error| Fault::new(Code::NotMeasured, error).because(Cause::NO_TPM_2))?;
        tpm::measure(text.as_bytes(), pcr, &mut |command| {
            crate::tpm::transmit(&mut device, command)
        })
        .map_err(|error| Fault::new(Code::NotMeasured, error.to_string()))
    })?;
    info!("{stage}: measured into PCR {pcr}: {text}");
    let record = boot_event::record(pcr, &extended, &text);
    append(log, record.as_bytes()).unwrap_or_else(|error| warn_of_log(stage, &error));
    Ok(())
}

/// The PCR has the event: a verifier will miss the record, and does not accept the boot.
fn warn_of_log(stage: Stage, error: &std::io::Error) {
    warn!("{stage}: {LOG}: {error}");
}

/// Puts the record of the first half before what programs of the other initramfs have measured since.
fn put_first(first: &[u8]) -> std::io::Result<()> {
    let since = std::fs::read(LOG).unwrap_or_default();
    let whole = format!("{LOG}.new");
    append(&whole, first)?;
    append(&whole, &since)?;
    std::fs::rename(&whole, LOG)
}

/// Appends to a log, as systemd does: for root alone.
fn append(log: &str, records: &[u8]) -> std::io::Result<()> {
    if let Some(directory) = Path::new(log).parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(log)?
        .write_all(records)
}
