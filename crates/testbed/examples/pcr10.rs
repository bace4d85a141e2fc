//! Boots a machine with a TPM, and compares PCR 10 with the replayed measurement list:
//!
//! ```text
//! cargo run --example pcr10 -- bzImage initramfs.cpio.gz
//! ```
//!
//! The `/init` of the initramfs must be the guest program of this crate: it reads the TPM and the measurement list, reports
//! them to the host, and powers the machine off. The README of the crate says how to make such an initramfs.

use std::error::Error;
use std::process::ExitCode;

use ima::measurement::{Bank, ByteOrder, MeasurementList, PcrMatch};
use ima_testbed::report::{decode_hex, encode_hex};
use ima_testbed::{Machine, Tpm};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initramfs] = arguments.as_slice() else {
        eprintln!("usage: pcr10 KERNEL INITRAMFS");
        return Ok(ExitCode::from(2));
    };

    let running = Machine::new(kernel)
        .initramfs(initramfs)
        .tpm(Tpm::Swtpm)
        .append("ima_policy=tcb")
        .start()?;
    // Each wait ends with the event, with the end of the machine, or at its time limit.
    let version = running.wait_for_console("Linux version")?;
    println!("{version}");
    let report = running.wait_for_report()?;
    let outcome = running.finish();

    let pcr = report
        .pcr10
        .get("sha256")
        .ok_or("there is no SHA-256 bank")?;
    let pcr = decode_hex(pcr).ok_or("PCR 10 is not hexadecimal")?;
    println!("PCR 10 (SHA-256): {}", encode_hex(&pcr));

    let list = decode_hex(&report.measurements_binary).ok_or("the list is not hexadecimal")?;
    let list = MeasurementList::parse_binary(&list, Bank::Sha1, ByteOrder::Little)?;
    let entries = match list.match_pcr(Bank::Sha256, 10, &pcr) {
        PcrMatch::Whole => list.entries().len(),
        // The kernel measured more files after the guest program had read the PCR.
        PcrMatch::Prefix { entries } => entries,
        PcrMatch::No => {
            println!("It does not match the measurement list.");
            return Ok(ExitCode::FAILURE);
        }
    };
    println!("It matches the measurement list (entries: {entries}).");
    println!("The machine ended with: {}", outcome.ending);
    Ok(ExitCode::SUCCESS)
}
