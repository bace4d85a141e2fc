//! `imactl attest`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ima::bank::Bank;
use ima::boot_event;
use ima::certificate::Certificate;
use ima::eventlog;
use ima::fault::{Cause, Code, Fault};
use ima::hex;
use ima::measurement::ByteOrder;
use imactl::attest::credential::Challenge;
use imactl::attest::device::{DEFAULT_HANDLE, DEFAULT_PCRS, Device, Quoted};
use imactl::attest::verify::{Expected, Findings, verify};
use imactl::attest::{Evidence, KeyKind, MAX_EVIDENCE, NONCE, PublicArea, Quote, tpm2_tools_pcrs};
use imactl::chain;
use imactl::file::{self, in_file, read_bounded};
use imactl::manifest::Manifest;
use imactl::pcr::{self, Pcrs};
use imactl::tpm::Tpm;
use serde_json::json;

use super::options::{self, OutputOptions, bank, pcr_file};
use super::outcome::{Outcome, Result};
use super::output;

/// The kernel's own list.
const LIST: &str = "/sys/kernel/security/ima/binary_runtime_measurements";

/// The kernel's copy of the firmware's log.
const FIRMWARE_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";

/// The longest policy that is compared, in bytes.
const MAX_POLICY: u64 = 16 << 20;

/// Have the TPM of a machine prove elsewhere how that machine was booted
///
/// Once for each machine: `key` makes a key in its TPM, and `challenge` and `activate` show the verifier that this key is in the TPM of
/// an endorsement key. Whenever the verifier wants to know: it chooses a nonce, the machine makes evidence with `quote`, and the
/// verifier judges it with `verify`, which needs no TPM.
#[derive(Debug, Subcommand)]
pub enum Attest {
    Key(Key),
    Challenge(Box<MakeChallenge>),
    Activate(Activate),
    Quote(Box<MakeQuote>),
    Verify(Box<Verify>),
}

impl Attest {
    pub fn run(self) -> Result {
        match self {
            Self::Key(command) => command.run(),
            Self::Challenge(command) => command.run(),
            Self::Activate(command) => command.run(),
            Self::Quote(command) => command.run(),
            Self::Verify(command) => command.run(),
        }
    }
}

#[derive(Debug, Args)]
struct TpmOptions {
    /// The TPM: device:/dev/tpmrm0 or swtpm:host=HOST,port=PORT; that of this machine unless given
    #[arg(long, value_name = "TPM")]
    tpm: Option<Tpm>,
    /// Persistent handle of the attestation key
    #[arg(long, value_name = "HANDLE", default_value_t = Handle(DEFAULT_HANDLE), value_parser = handle)]
    handle: Handle,
}

impl TpmOptions {
    fn tpm(&self) -> Tpm {
        self.tpm.clone().unwrap_or_else(Tpm::of_this_machine)
    }
}

#[derive(Debug, Clone, Copy)]
struct Handle(u32);

impl std::fmt::Display for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// Handles that the owner may make objects persistent at (TPM 2.0 Library, part 3, `TPM2_EvictControl`).
fn handle(text: &str) -> std::result::Result<Handle, String> {
    text.strip_prefix("0x")
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .filter(|handle| (0x8100_0000..0x8180_0000).contains(handle))
        .map(Handle)
        .ok_or_else(|| format!("`{text}`: give a handle from 0x81000000 to 0x817fffff"))
}

fn nonce(text: &str) -> std::result::Result<Vec<u8>, String> {
    hex::decode(text)
        .filter(|nonce| NONCE.contains(&nonce.len()))
        .ok_or_else(|| {
            format!(
                "`{text}`: give {} to {} bytes in hexadecimal, such as openssl rand -hex 32 prints",
                NONCE.start(),
                NONCE.end()
            )
        })
}

/// Numbers and ranges of PCRs, as a mask.
fn pcrs(text: &str) -> std::result::Result<u32, String> {
    let wrong = || format!("`{text}`: give numbers of PCRs from 0 to 23, such as 0-10,13");
    let number = |digits: &str| {
        digits
            .parse::<u32>()
            .ok()
            .filter(|number| *number < pcr::COUNT)
    };
    text.split(',').try_fold(0, |mask, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first = number(first).ok_or_else(wrong)?;
        let last = number(last)
            .filter(|last| *last >= first)
            .ok_or_else(wrong)?;
        Ok((first..=last).fold(mask, |mask, number| mask | 1_u32 << number))
    })
}

/// Make the attestation key in the TPM of this machine
///
/// The key is a restricted signing key of the endorsement hierarchy, which the TPM makes again alike each time; it stays in the TPM at
/// a persistent handle. The directory gets ak.pub and ek.pub, the public areas of this key and of the endorsement key (TPM2B_PUBLIC),
/// both also in PEM, and ek.der, the certificate of the endorsement key if the TPM has one. None of them is secret.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl attest key --directory attestation
  imactl attest key --type rsa2048 --handle 0x81018020 --directory attestation")]
pub struct Key {
    /// Where the files are written; made if it is not there
    #[arg(long, value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Kind of the attestation key: p256 or rsa2048
    #[arg(long = "type", id = "kind", value_name = "KIND", default_value_t = KeyKind::P256)]
    kind: KeyKind,
    /// Kind of the endorsement key: p256 or rsa2048
    #[arg(long, value_name = "KIND", default_value_t = KeyKind::Rsa2048)]
    ek: KeyKind,
    #[command(flatten)]
    tpm: TpmOptions,
}

impl Key {
    fn run(self) -> Result {
        let tpm = self.tpm.tpm();
        let keys = Device::open(&tpm)?.make_keys(self.kind, self.ek, self.tpm.handle.0)?;
        make_directory(&self.directory)?;
        let write = |name: &str, bytes: &[u8]| write_in(&self.directory, name, bytes);
        write("ak.pub", &keys.attestation.encode()?)?;
        write("ak.pem", keys.attestation.to_pem()?.as_bytes())?;
        write("ek.pub", &keys.endorsement.encode()?)?;
        write("ek.pem", keys.endorsement.to_pem()?.as_bytes())?;
        let certificate = match &keys.certificate {
            Some(certificate) => {
                write("ek.der", certificate)?;
                "ek.der has its certificate"
            }
            None => "the TPM has no certificate of it",
        };
        output::line(format_args!(
            "attestation key {} at {}, name {}",
            self.kind,
            self.tpm.handle,
            hex::encode(&keys.attestation.name()?)
        ))?;
        output::line(format_args!("endorsement key {}; {certificate}", self.ek))?;
        Ok(Outcome::Good)
    }
}

/// Make a challenge that only the TPM with both keys can answer
///
/// The verifier runs this with the files that `imactl attest key` wrote on the machine, and sends the challenge there. `imactl attest
/// activate` recovers the secret, which the machine sends back: if it is the same, the attestation key is in the TPM of that
/// endorsement key. Whose TPM that is, the endorsement key's certificate says: --ca verifies it; without a certificate, compare ek.pub
/// with what you recorded when you got the machine.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl attest challenge --ek ek.pub --ak ak.pub --out challenge --secret secret
  imactl attest challenge --ek ek.pub --ek-cert ek.der --ca tpm-vendor.pem --ak ak.pub --out challenge --secret secret")]
pub struct MakeChallenge {
    /// Public area of the endorsement key
    #[arg(long, value_name = "FILE")]
    ek: PathBuf,
    /// Public area of the attestation key
    #[arg(long, value_name = "FILE")]
    ak: PathBuf,
    /// Certificate of the endorsement key; it must be for that key
    #[arg(long, value_name = "FILE", requires = "authorities")]
    ek_cert: Option<PathBuf>,
    /// Certificates of the TPM's manufacturer, one of which signed the endorsement key's, directly or by way of the others
    #[arg(
        long = "ca",
        id = "authorities",
        value_name = "FILE",
        requires = "ek_cert"
    )]
    authorities: Vec<PathBuf>,
    /// Where the challenge is written; it is not secret, and tpm2_activatecredential takes it too
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Where the secret is written, which stays with the verifier
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
}

impl MakeChallenge {
    fn run(self) -> Result {
        let endorsement = PublicArea::load(&self.ek)?;
        let attestation = PublicArea::load(&self.ak)?;
        if let Some(path) = &self.ek_cert {
            let certificate = endorsement_certificate(path)?;
            let authorities = options::certificates_in(&self.authorities)?;
            let refused = |cause: Cause| {
                Err(Fault::new(Code::AttestationInput, path.display().to_string()).because(cause))
            };
            let info = endorsement.to_der()?;
            // The SubjectPublicKeyInfo ends with the key, which the certificate gives without the rest.
            if !info.ends_with(certificate.public_key_bytes()) {
                return refused(Cause::CERTIFICATE_OF_OTHER_EK);
            }
            let (roots, others): (Vec<Certificate>, Vec<Certificate>) = authorities
                .into_iter()
                .partition(Certificate::is_self_signed);
            if !chain::leads_to(&certificate, &roots, &others) {
                return refused(Cause::EK_CERTIFICATE_WITHOUT_CHAIN);
            }
        }
        let (challenge, secret) = Challenge::make(&attestation, &endorsement)
            .map_err(|fault| in_file(fault, &self.ak))?;
        file::write(&self.out, &challenge.encode()?, 0o644, true)?;
        file::write(&self.secret, &secret, 0o600, true)?;
        output::line(format_args!(
            "challenge for the key of name {}",
            hex::encode(&attestation.name()?)
        ))?;
        Ok(Outcome::Good)
    }
}

/// The certificate of an endorsement key. The TPM may keep it with zeros or ones behind it.
fn endorsement_certificate(path: &Path) -> imactl::Result<Certificate> {
    let bytes = read_bounded(path, 1 << 16)?;
    let length = match bytes.get(..4) {
        Some([0x30, 0x82, high, low]) => usize::from(u16::from_be_bytes([*high, *low])) + 4,
        _ => bytes.len(),
    };
    let der = bytes.get(..length).unwrap_or(&bytes);
    Certificate::parse(der).map_err(|error| {
        Fault::new(
            Code::CertificateUnusable,
            format!("{}: {error}", path.display()),
        )
    })
}

/// Answer the challenge of a verifier
///
/// The TPM decrypts the secret only if the attestation key is the one that the challenge is for, and the endorsement key is its own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl attest activate challenge --out answer")]
pub struct Activate {
    /// The challenge
    challenge: PathBuf,
    /// Where the secret is written, for the verifier
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Kind of the endorsement key: p256 or rsa2048
    #[arg(long, value_name = "KIND", default_value_t = KeyKind::Rsa2048)]
    ek: KeyKind,
    #[command(flatten)]
    tpm: TpmOptions,
}

impl Activate {
    fn run(self) -> Result {
        let challenge = Challenge::load(&self.challenge)?;
        let tpm = self.tpm.tpm();
        let secret = Device::open(&tpm)?.activate(&challenge, self.ek, self.tpm.handle.0)?;
        file::write(&self.out, &secret, 0o600, true)?;
        Ok(Outcome::Good)
    }
}

/// Make evidence of this boot for a verifier
///
/// The TPM signs the PCRs and the nonce; then the measurement list and the logs are read, so that what is measured meanwhile is in the
/// list only. The evidence is one file. With --directory its parts are written as well, in the form that `tpm2_checkquote --public
/// ak.pem --message quote.msg --signature quote.sig --pcr quote.pcrs --qualification NONCE` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl attest quote --nonce 4b6b0ab4b2d4a1d1f0c6b9c9d25cdd4e --out evidence.json
  imactl attest quote --nonce 4b6b0ab4b2d4a1d1f0c6b9c9d25cdd4e --bank sha256 --pcrs 0-10,13 --out evidence.json --directory parts")]
pub struct MakeQuote {
    /// What the verifier chose, 16 to 32 bytes in hexadecimal
    #[arg(long, value_name = "HEX", value_parser = nonce)]
    nonce: std::vec::Vec<u8>,
    /// Where the evidence is written
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write the parts here as well; made if it is not there
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Bank to quote; may be repeated; all that the TPM has unless given
    #[arg(long = "bank", id = "banks", value_name = "ALGO", value_parser = bank)]
    banks: Vec<Bank>,
    /// PCRs to quote, such as 0-10,13; 0-15, which only a reset of the machine resets, unless given
    #[arg(long, value_name = "PCRS", value_parser = pcrs)]
    pcrs: Option<u32>,
    #[command(flatten)]
    tpm: TpmOptions,
    /// The measurement list, binary; the kernel's own unless given. May be repeated: first what was taken out of the kernel, in its order
    #[arg(long = "list", id = "lists", value_name = "FILE", default_value = LIST)]
    lists: Vec<PathBuf>,
    /// Bank whose template digests the list has
    #[arg(long, value_name = "ALGO", default_value = "sha1", value_parser = bank)]
    list_bank: Bank,
    /// The list is from a big-endian machine
    #[arg(long)]
    big_endian: bool,
    /// The firmware's log; the kernel's copy, if there is one, unless given
    #[arg(long, value_name = "FILE")]
    firmware_log: Option<PathBuf>,
    /// The log of what programs measured; systemd's, if there is one, unless given
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

impl MakeQuote {
    fn run(self) -> Result {
        let tpm = self.tpm.tpm();
        let mask = self.pcrs.unwrap_or(DEFAULT_PCRS);
        let quoted =
            Device::open(&tpm)?.quote(self.tpm.handle.0, &self.nonce, &self.banks, mask)?;
        let evidence = Evidence {
            quote: quoted.attest.clone(),
            signature: quoted.signature.clone(),
            key: quoted.key.encode()?,
            pcrs: quoted.pcrs.clone(),
            measurements: read_joined(&self.lists, MAX_EVIDENCE / 2)?,
            measurements_bank: self.list_bank,
            byte_order: match self.big_endian {
                true => ByteOrder::Big,
                false => ByteOrder::Little,
            },
            firmware_log: log(
                self.firmware_log.as_deref(),
                FIRMWARE_LOG,
                eventlog::MAX_LOG,
            )?,
            programs_log: log(self.log.as_deref(), boot_event::LOG, boot_event::MAX_LOG)?,
        };
        if let Some(directory) = &self.directory {
            write_parts(directory, &quoted, &evidence)?;
        }
        file::write(&self.out, &evidence.encode()?, 0o600, true)?;
        output::line(format_args!("{}", described(&quoted.quote)))?;
        Ok(Outcome::Good)
    }
}

/// The content of files one after the other.
fn read_joined(paths: &[PathBuf], limit: u64) -> imactl::Result<Vec<u8>> {
    let mut joined = Vec::new();
    for path in paths {
        joined.extend(read_bounded(
            path,
            limit.saturating_sub(joined.len() as u64),
        )?);
    }
    Ok(joined)
}

/// A log: the one that is given, else that of this machine if it has one.
fn log(given: Option<&Path>, own: &str, limit: usize) -> imactl::Result<Option<Vec<u8>>> {
    let own = Path::new(own);
    let path = match given {
        Some(path) => path,
        None if own.exists() => own,
        None => return Ok(None),
    };
    read_bounded(path, limit as u64).map(Some)
}

fn write_parts(directory: &Path, quoted: &Quoted, evidence: &Evidence) -> imactl::Result<()> {
    make_directory(directory)?;
    let write = |name: &str, bytes: &[u8]| write_in(directory, name, bytes);
    let pcrs = tpm2_tools_pcrs(&quoted.quote.selected, &quoted.pcrs).unwrap_or_default();
    write("quote.msg", &quoted.attest)?;
    write("quote.sig", &quoted.signature)?;
    write("quote.pcrs", &pcrs)?;
    write("ak.pub", &evidence.key)?;
    write("ak.pem", quoted.key.to_pem()?.as_bytes())?;
    write("measurements", &evidence.measurements)?;
    if let Some(log) = &evidence.firmware_log {
        write("firmware.log", log)?;
    }
    if let Some(log) = &evidence.programs_log {
        write("programs.log", log)?;
    }
    Ok(())
}

fn make_directory(path: &Path) -> imactl::Result<()> {
    std::fs::create_dir_all(path).map_err(|error| file::unwritable(path, &error))
}

fn write_in(directory: &Path, name: &str, bytes: &[u8]) -> imactl::Result<()> {
    file::write(&directory.join(name), bytes, 0o644, true)
}

fn described(quote: &Quote) -> String {
    let banks: Vec<String> = quote
        .selected
        .iter()
        .map(|selected| format!("{} PCRs {}", selected.bank, ranges(selected.numbers())))
        .collect();
    format!(
        "quoted {}; TPM reset {} times, restarted {} times since",
        banks.join("; "),
        quote.resets,
        quote.restarts
    )
}

/// Ascending numbers, as the option --pcrs takes them.
fn ranges(numbers: impl Iterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let ranges = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    ranges.collect::<Vec<_>>().join(",")
}

/// Judge the evidence of a machine
///
/// The quote must be signed by the machine's key over the nonce that was chosen for it, and the PCRs must be those that were signed.
/// PCR 10 must be the replay of the measurement list or of its beginning; boot_aggregate must be that of PCRs 0 to 9; the logs of the
/// firmware and of programs must explain the other PCRs; and the init must not have concluded to refuse the boot. Only entries that
/// the quote covers are judged. Anything that speaks against the evidence makes exit status 1, and is reported with its name and cause.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl attest verify --ak ak.pub --nonce 4b6b0ab4b2d4a1d1f0c6b9c9d25cdd4e evidence.json
  imactl attest verify --ak ak.pub --nonce 4b6b0ab4b2d4a1d1f0c6b9c9d25cdd4e --policy ima_policy --cert ima.der evidence.json
  imactl attest verify --ak ak.pub --nonce 4b6b0ab4b2d4a1d1f0c6b9c9d25cdd4e --manifest root.manifest --json evidence.json")]
pub struct Verify {
    /// The evidence
    evidence: PathBuf,
    /// Public area of the machine's attestation key
    #[arg(long, value_name = "FILE")]
    ak: PathBuf,
    /// The nonce that was chosen for this evidence, in hexadecimal
    #[arg(long, value_name = "HEX", value_parser = nonce)]
    nonce: std::vec::Vec<u8>,
    /// Each signature in the list must be by the key of one of these certificates
    #[arg(long = "cert", id = "certificates", value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// The init must have concluded that this policy is in force
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Each measured file must have a digest that is in one of these manifests (imactl manifest make)
    #[arg(long = "manifest", id = "manifests", value_name = "FILE")]
    manifests: Vec<PathBuf>,
    /// The TPM must have been reset so many times: evidence from the same boot
    #[arg(long, value_name = "N")]
    reset_count: Option<u32>,
    /// These PCRs must have these values, as tpm2_pcrread prints them in a boot that is trusted; may be repeated
    #[arg(long = "expect-pcrs", id = "references", value_name = "ALGO,FILE", value_parser = pcr_file)]
    references: Vec<(Bank, PathBuf)>,
    #[command(flatten)]
    output: OutputOptions,
}

impl Verify {
    fn run(self) -> Result {
        let key = PublicArea::load(&self.ak)?;
        key.check_attests()
            .map_err(|fault| in_file(fault, &self.ak))?;
        let evidence = Evidence::load(&self.evidence)?;
        let certificates = options::certificates_in(&self.certificates)?;
        let policy = self
            .policy
            .as_deref()
            .map(|path| read_bounded(path, MAX_POLICY))
            .transpose()?;
        let references: imactl::Result<BTreeMap<Bank, Pcrs>> = self
            .references
            .iter()
            .map(|(bank, path)| Ok((*bank, pcr::read_file(path, *bank)?)))
            .collect();
        let manifests: imactl::Result<Vec<Manifest>> = self
            .manifests
            .iter()
            .map(|path| Manifest::load(path))
            .collect();
        let found = verify(
            &evidence,
            &Expected {
                key: &key,
                nonce: &self.nonce,
                certificates: &certificates,
                policy: policy.as_deref(),
                manifests: &manifests?,
                resets: self.reset_count,
                pcrs: &references?,
            },
        );
        if self.output.json {
            print_json(&found)?;
        } else {
            print(&found, !certificates.is_empty())?;
        }
        Ok(match found.findings.is_empty() {
            true => Outcome::Good,
            false => Outcome::Findings,
        })
    }
}

fn print(found: &Findings, are_signatures_checked: bool) -> imactl::Result<()> {
    if let Some(quote) = &found.quote {
        output::line(format_args!("{}", described(quote)))?;
        output::line(format_args!(
            "{} entries, {} of them quoted, {} violations",
            found.entries, found.quoted, found.violations
        ))?;
        let firmware = match found.firmware_log_replayed {
            true => "was replayed",
            false => "is not in the evidence: PCRs 0 to 7 are not explained",
        };
        output::line(format_args!("the firmware's log {firmware}"))?;
        for (pcr, text) in &found.conclusions {
            output::line(format_args!("PCR {pcr} ima-init: {text}"))?;
        }
        for (name, verdict) in &found.bad_signatures {
            output::line(format_args!("{name}: {verdict}"))?;
        }
        if are_signatures_checked {
            output::line(format_args!(
                "{} signatures good, {} not",
                found.good_signatures,
                found.bad_signatures.len()
            ))?;
        }
        for name in &found.unknown_files {
            output::line(format_args!("{name}: in no manifest"))?;
        }
    }
    for finding in &found.findings {
        output::line(format_args!("{}", finding.fault()))?;
    }
    if found.findings.is_empty() {
        output::line(format_args!("the evidence is good"))?;
    }
    Ok(())
}

fn print_json(found: &Findings) -> imactl::Result<()> {
    let findings: Vec<_> = found
        .findings
        .iter()
        .map(|finding| {
            let fault = finding.fault();
            json!({ "name": finding.name(), "code": fault.code().id(), "cause": fault.cause(), "remedy": fault.remedy() })
        })
        .collect();
    let quote = found.quote.as_ref().map(|quote| {
        let selected: Vec<_> = quote
            .selected
            .iter()
            .map(|selected| {
                let numbers: Vec<u32> = selected.numbers().collect();
                json!({ "bank": selected.bank.name(), "pcrs": numbers })
            })
            .collect();
        json!({
            "selected": selected, "reset_count": quote.resets, "restart_count": quote.restarts, "clock": quote.clock,
            "clock_safe": quote.is_clock_safe, "firmware_version": format!("{:#018x}", quote.firmware_version),
        })
    });
    let conclusions: Vec<_> = found
        .conclusions
        .iter()
        .map(|(pcr, text)| json!({ "pcr": pcr, "text": text }))
        .collect();
    let signatures: Vec<_> = found
        .bad_signatures
        .iter()
        .map(|(name, verdict)| json!({ "name": name, "verdict": verdict }))
        .collect();
    output::json(&json!({
        "good": found.findings.is_empty(),
        "findings": findings,
        "quote": quote,
        "entries": found.entries,
        "quoted_entries": found.quoted,
        "violations": found.violations,
        "firmware_log": found.firmware_log_replayed,
        "conclusions": conclusions,
        "good_signatures": found.good_signatures,
        "bad_signatures": signatures,
        "unknown_files": found.unknown_files,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcrs_by_number_and_range() {
        assert_eq!(pcrs("0-10,13"), Ok(0x27ff));
        assert_eq!(pcrs("23"), Ok(1 << 23));
        assert_eq!(ranges([0, 1, 2, 5, 9, 10].into_iter()), "0-2,5,9-10");
        for bad in ["", "24", "3-2", "1-", "-1", "1,,2", "0-24"] {
            assert!(pcrs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nonces_and_handles() {
        assert!(nonce(&"ab".repeat(16)).is_ok());
        for bad in [
            String::new(),
            "ab".repeat(15),
            "ab".repeat(33),
            "x".repeat(32),
        ] {
            assert!(nonce(&bad).is_err(), "{bad}");
        }
        assert!(handle("0x81018010").is_ok());
        for bad in ["81018010", "0x81800000", "0x01c00002", ""] {
            assert!(handle(bad).is_err(), "{bad}");
        }
    }
}
