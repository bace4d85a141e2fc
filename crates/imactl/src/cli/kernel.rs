//! `imactl kernel`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ima::config::Config;
use ima::fault::{Cause, Code, Fault};
use imactl::file::{in_file, read_bounded};
use imactl::kernel::add_ca::{Symbols, add_ca};
use imactl::kernel::check::{KernelConfig, Wanted, check};
use imactl::kernel::command_line::FixedBy;
use imactl::kernel::hardening;
use imactl::nearest;
use imactl::uki::{UnifiedKernelImage, authenticode, pe};
use serde_json::json;

use super::options::{self, OutputOptions};
use super::outcome::{Outcome, Result};
use super::output;

const MAX_KERNEL: u64 = 2 << 30;

/// Put a CA into a kernel image, or check a kernel's configuration
#[derive(Debug, Subcommand)]
pub enum Kernel {
    AddCa(AddCa),
    Check(Check),
}

impl Kernel {
    pub fn run(self) -> Result {
        match self {
            Self::AddCa(command) => command.run(),
            Self::Check(command) => command.run(),
        }
    }
}

/// Put CA certificates into the room that CONFIG_SYSTEM_EXTRA_CERTIFICATE reserved
///
/// Works on a finished bzImage, Image, Image.gz or zImage, without the build tree, and on vmlinux. Certificates that were put there
/// before are replaced. A bzImage or zImage must have been built with CONFIG_KERNEL_GZIP and with the room filled with noise, as
/// qemu/build-kernel does.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl kernel add-ca --image bzImage --cert ca.der --out bzImage.ca
  imactl kernel add-ca --image Image --symbols extra-cert.json --cert ca.der --out Image.ca
  imactl kernel add-ca --image vmlinux --cert ca.der --cert other.pem --out vmlinux")]
pub struct AddCa {
    /// bzImage, Image, Image.gz, zImage or vmlinux
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// Where the room is; extra-cert.json beside the image if that is there, otherwise the image's symbol table
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
    /// CA certificates, DER or PEM
    #[arg(long = "cert", value_name = "FILE", required = true)]
    certificates: Vec<PathBuf>,
    /// Image to write; may be the one that is read
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl AddCa {
    fn run(self) -> Result {
        let mut certificates = Vec::new();
        for path in &self.certificates {
            certificates.extend(options::certificates(path)?);
        }
        let beside = self.image.with_file_name("extra-cert.json");
        let symbols = match &self.symbols {
            Some(path) => Some(path.clone()),
            None => beside.exists().then_some(beside),
        };
        let symbols = symbols
            .map(|path| Symbols::from_json(&read_bounded(&path, 1 << 16)?))
            .transpose()?;
        let image = read_bounded(&self.image, MAX_KERNEL)?;
        let outcome = add_ca(&image, &certificates, symbols.as_ref())
            .map_err(|fault| in_file(fault, &self.image))?;
        imactl::file::write(&self.out, &outcome.image, 0o644, true)?;
        if outcome.secure_boot_signature_broken {
            output::warn(format_args!(
                "imactl: warning: the image's Secure Boot signature does not hold any more: sign it again"
            ));
        }
        for certificate in &certificates {
            output::line(format_args!(
                "{}: `{}`",
                self.out.display(),
                certificate.subject()
            ))?;
        }
        if outcome.replaced > 0 {
            output::line(format_args!(
                "{} bytes of certificates replaced",
                outcome.replaced
            ))?;
        }
        Ok(Outcome::Good)
    }
}

/// Check a kernel's configuration against what the policy and the init's configuration need
///
/// Names each option that is not as it should be and why, and says what fixes the kernel command line: an option of the kernel, a
/// signed unified kernel image, or nothing. Exit status 1 if one is missing without which the init refuses to boot
/// or the policy does not hold; what is merely advised does not count.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl kernel check --policy ima_policy                       the running kernel
  imactl kernel check --config linux/.config --policy ima_policy --init-config ima-init.conf --cert ima.der")]
pub struct Check {
    /// Kernel configuration; the running kernel's if not given
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Policies that will be loaded; FILE.sig beside one counts as its signature
    #[arg(long = "policy", value_name = "FILE")]
    policies: Vec<PathBuf>,
    /// The init's configuration
    #[arg(long, value_name = "FILE")]
    init_config: Option<PathBuf>,
    /// Certificates for .ima and .evm
    #[arg(long = "cert", value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// Type of the root's file system
    #[arg(long, value_name = "TYPE")]
    filesystem: Option<String>,
    /// Unified kernel image that the kernel is started from, for what fixes the command line
    #[arg(long, value_name = "FILE", requires = "certificates_of_db")]
    uki: Option<PathBuf>,
    /// Certificates in the firmware's database (db), DER, PEM or EFI signature lists, by which it verifies that image
    #[arg(
        id = "certificates_of_db",
        long = "secure-boot-cert",
        value_name = "FILE",
        requires = "uki"
    )]
    secure_boot_certificates: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputOptions,
}

impl Check {
    fn run(self) -> Result {
        let path = match &self.config {
            Some(path) => path.clone(),
            None => running_config()?,
        };
        let kernel = KernelConfig::parse(&read_bounded(&path, 16 << 20)?)
            .map_err(|fault| in_file(fault, &path))?;
        // One that the firmware would not start is an error.
        let secure_boot = self.uki.is_some();
        let line_in_image = match &self.uki {
            Some(path) => has_signed_line(path, &self.secure_boot_certificates)?,
            None => false,
        };
        let policies = self
            .policies
            .iter()
            .map(|path| options::policy(path))
            .collect::<Result<Vec<_>>>()?;
        let mut certificates = Vec::new();
        for path in &self.certificates {
            certificates.extend(options::certificates(path)?);
        }
        let config = match &self.init_config {
            Some(path) => Config::parse(&read_bounded(path, 1 << 20)?).map_err(|error| {
                let error = nearest::with(&error, nearest::in_configuration(&error));
                Fault::new(Code::ConfigInvalid, format!("{}: {error}", path.display()))
            })?,
            None => Config::default(),
        };
        let wanted = Wanted {
            policies: policies.iter().collect(),
            policies_signed: self
                .policies
                .iter()
                .all(|path| signature_beside(path).exists()),
            config,
            certificates: certificates.iter().collect(),
            filesystem: self.filesystem.as_deref(),
            secure_boot,
            line_in_image,
        };
        let fixed = FixedBy::of(Some(&kernel), line_in_image);
        let mut findings = check(&kernel, &wanted);
        findings.extend(hardening::check(&kernel, &wanted));
        if self.output.json {
            output::json(&json!({
                "config": path.to_string_lossy(),
                "findings": findings,
                "command_line_fixed_by": fixed.name(),
            }))?;
        } else {
            for finding in &findings {
                let level = if finding.required {
                    "required"
                } else {
                    "advised"
                };
                output::line(format_args!(
                    "{level}: {}={} (is {}): {}",
                    finding.option, finding.wanted, finding.found, finding.reason
                ))?;
            }
            if findings.is_empty() {
                output::line(format_args!("{}: nothing is missing", path.display()))?;
            }
            output::line(format_args!("kernel command line: {fixed}"))?;
        }
        let required = findings.iter().filter(|finding| finding.required).count();
        if required == 0 {
            return Ok(Outcome::Good);
        }
        output::warn(format_args!(
            "{}",
            Fault::new(
                Code::KernelConfiguration,
                format!("{}: {required} options", path.display())
            )
        ));
        Ok(Outcome::Findings)
    }
}

/// Whether firmware with these certificates starts this unified kernel image, and the image has a command line.
fn has_signed_line(path: &Path, certificates: &[PathBuf]) -> Result<bool> {
    let trusted = options::secure_boot_certificates(certificates)?;
    let bytes = read_bounded(path, pe::MAX_IMAGE)?;
    let uki = UnifiedKernelImage::parse(&bytes).map_err(|fault| in_file(fault, path))?;
    match authenticode::verify(uki.image(), &trusted) {
        Ok(_) => Ok(uki.command_line().is_some()),
        Err(why) => {
            let fault = Fault::new(Code::UkiUntrusted, path.display().to_string());
            Err(fault.because(why.cause()))
        }
    }
}

/// The file with the signature of a policy, as `imactl sign --sidecar` writes it.
fn signature_beside(policy: &Path) -> PathBuf {
    let mut path = policy.as_os_str().to_owned();
    path.push(ima::layout::SIGNATURE);
    path.into()
}

/// Where the running kernel's configuration is.
fn running_config() -> Result<PathBuf> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let candidates = [
        PathBuf::from("/proc/config.gz"),
        Path::new("/boot").join(format!("config-{release}")),
    ];
    candidates
        .into_iter()
        .find(|path| path.exists())
        .ok_or_else(|| {
            Fault::new(Code::InputUnreadable, "the running kernel's configuration")
                .because(Cause::NO_RUNNING_CONFIGURATION)
        })
}
