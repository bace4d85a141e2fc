//! `imactl uki`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use imactl::file::{in_file, read_bounded};
use imactl::hex;
use imactl::uki::{Builder, UnifiedKernelImage, authenticode, pe};
use serde_json::json;

use super::options::{self, KeyOptions, OutputOptions};
use super::outcome::{Outcome, Result};
use super::output;

const MAX_TEXT: u64 = 1 << 20;

/// Make, sign, verify and show unified kernel images
///
/// A unified kernel image is one program for UEFI with kernel, initramfs and command line in it. Under Secure Boot the firmware
/// starts it only with a valid signature over all of that.
#[derive(Debug, Subcommand)]
pub enum Uki {
    Build(Box<Build>),
    Sign(Sign),
    Verify(Verify),
    Show(Show),
}

impl Uki {
    pub fn run(self) -> Result {
        match self {
            Self::Build(command) => command.run(),
            Self::Sign(command) => command.run(),
            Self::Verify(command) => command.run(),
            Self::Show(command) => command.run(),
        }
    }
}

/// Make a unified kernel image from kernel, initramfs and command line, and sign it for Secure Boot
///
/// It is built on the UEFI stub of systemd that the distribution ships. The result is the same for the same input and has no time
/// stamp. The key is RSA of 2048, 3072 or 4096 bits, and signs over SHA-256.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl uki build --kernel vmlinuz --initramfs initramfs.img --cmdline 'root=LABEL=root ro' \\
      --key db.key --cert db.crt --out linux.efi
  imactl uki build --kernel vmlinuz --initramfs microcode.img --initramfs initramfs.img --cmdline 'root=/dev/sda2 ro' \\
      --os-release rootfs/etc/os-release --pcrsig pcrsig.json --pcrpkey pcr.pub --key db.key --cert db.crt --out linux.efi
  imactl uki build --stub linuxx64.efi.stub --kernel vmlinuz --initramfs initramfs.img --cmdline ro --out unsigned.efi")]
pub struct Build {
    /// UEFI stub of systemd 252 or newer; by default the one for this machine's processor in /usr/lib/systemd/boot/efi
    #[arg(long, value_name = "FILE")]
    stub: Option<PathBuf>,
    /// Kernel with CONFIG_EFI_STUB: bzImage, or arm64's Image (.linux)
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// Initramfs (.initrd); several are joined in this order
    #[arg(long = "initramfs", value_name = "FILE", required = true)]
    initramfs: Vec<PathBuf>,
    /// Kernel command line (.cmdline); without one the stub takes the one that it is started with
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// The operating system's os-release (.osrel), which systemd-boot needs to list the image
    #[arg(long, value_name = "FILE")]
    os_release: Option<PathBuf>,
    /// The kernel's release (.uname), in place of the one in the kernel
    #[arg(long, value_name = "RELEASE")]
    uname: Option<String>,
    /// Signatures of PCR values (.pcrsig), as systemd-measure makes them
    #[arg(long, value_name = "FILE")]
    pcrsig: Option<PathBuf>,
    /// Public key of these signatures (.pcrpkey)
    #[arg(long, value_name = "FILE")]
    pcrpkey: Option<PathBuf>,
    /// Another section, such as .splash:logo.bmp
    #[arg(long = "section", value_name = "NAME:FILE")]
    sections: Vec<String>,
    #[command(flatten)]
    key: KeyOptions,
    /// Image to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Build {
    fn run(&self) -> Result {
        let signer = match self.key.is_given() {
            true => Some(self.key.signer_and_certificate()?),
            false => None,
        };
        let stub = self.stub();
        let builder = self.builder(&stub)?;
        if !builder.has_uname() {
            output::warn(format_args!(
                "imactl: {}: its release is not known; give it with --uname, or the image has none",
                self.kernel.display()
            ));
        }
        let mut image = builder.build().map_err(|fault| {
            let of_stub = fault.code() == Code::UkiStub;
            in_file(fault, if of_stub { &stub } else { &self.kernel })
        })?;
        if let Some((signer, certificate)) = &signer {
            image = authenticode::sign(&image, &**signer, certificate)?;
        }
        let read = UnifiedKernelImage::parse(&image).map_err(|fault| in_file(fault, &self.out))?;
        if let Some(fault) = read.warning() {
            warn(&fault);
        }
        if read.command_line().is_none() {
            let fault = Fault::new(Code::CommandLineOpen, self.out.display().to_string());
            warn(&fault.because(Cause::UKI_WITHOUT_COMMAND_LINE));
        }
        imactl::file::write(&self.out, &image, 0o644, true)?;
        output::line(format_args!(
            "{}: {} bytes, {}",
            self.out.display(),
            image.len(),
            match &signer {
                Some((_, certificate)) => format!("signed by `{}`", certificate.subject()),
                None => "not signed".to_owned(),
            }
        ))?;
        Ok(Outcome::Good)
    }

    fn builder(&self, stub: &Path) -> Result<Builder> {
        let read = |path: &Path| read_bounded(path, pe::MAX_IMAGE);
        let mut builder = Builder::new(read(stub)?, read(&self.kernel)?);
        for path in &self.initramfs {
            builder = builder.initramfs(read(path)?);
        }
        if let Some(path) = &self.os_release {
            builder = builder.os_release(read_bounded(path, MAX_TEXT)?);
        }
        if let Some(text) = &self.cmdline {
            builder = builder.command_line(text);
        }
        if let Some(release) = &self.uname {
            builder = builder.uname(release);
        }
        for (name, path) in [(".pcrpkey", &self.pcrpkey), (".pcrsig", &self.pcrsig)] {
            if let Some(path) = path {
                builder = builder.section(name, read_bounded(path, MAX_TEXT)?);
            }
        }
        for pair in &self.sections {
            let (name, path) = pair.split_once(':').ok_or_else(|| {
                let fault = Fault::new(Code::Usage, format!("--section {pair}"));
                fault.because(Cause::NO_SECTION_COLON)
            })?;
            builder = builder.section(name, read(Path::new(path))?);
        }
        Ok(builder)
    }

    fn stub(&self) -> PathBuf {
        let processor = match std::env::consts::ARCH {
            "aarch64" => "aa64",
            "riscv64" => "riscv64",
            _ => "x64",
        };
        let usual = || format!("/usr/lib/systemd/boot/efi/linux{processor}.efi.stub").into();
        self.stub.clone().unwrap_or_else(usual)
    }
}

/// Sign a unified kernel image, or another program for UEFI, for Secure Boot
///
/// A signature that it has is replaced.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl uki sign --key db.key --cert db.crt linux.efi
  imactl uki sign --key 'pkcs11:token=boot;object=db' --cert db.crt --out signed.efi linux.efi")]
pub struct Sign {
    /// The image
    #[arg(value_name = "FILE")]
    image: PathBuf,
    #[command(flatten)]
    key: KeyOptions,
    /// Image to write, in place of the one that is read
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Sign {
    fn run(&self) -> Result {
        let (signer, certificate) = self.key.signer_and_certificate()?;
        let image = read_bounded(&self.image, pe::MAX_IMAGE)?;
        let image = authenticode::sign(&image, &*signer, &certificate)
            .map_err(|fault| in_file(fault, &self.image))?;
        let out = self.out.as_ref().unwrap_or(&self.image);
        imactl::file::write(out, &image, 0o644, true)?;
        let subject = certificate.subject();
        output::line(format_args!("{}: signed by `{subject}`", out.display()))?;
        Ok(Outcome::Good)
    }
}

/// Verify that firmware with these certificates in its database would start a unified kernel image
///
/// The dates of certificates do not count, as for most firmware. Exit status 1 if the image is unsigned, was changed after it was
/// signed, is signed with another key, or is revoked.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl uki verify --cert db.crt linux.efi
  imactl uki verify --cert db.crt --json linux.efi
  imactl uki verify --cert db.esl --revoked dbx.esl linux.efi")]
pub struct Verify {
    /// The image
    #[arg(value_name = "FILE")]
    image: PathBuf,
    /// Certificates in the firmware's database (db), DER, PEM or EFI signature lists
    #[arg(long = "cert", value_name = "FILE", required = true)]
    certificates: Vec<PathBuf>,
    /// What the firmware (dbx) or shim (SBAT) refuses whoever signed it; see imactl check --secure-boot-revoked
    #[arg(long, value_name = "FILE")]
    revoked: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputOptions,
}

impl Verify {
    fn run(&self) -> Result {
        let trusted = options::secure_boot_certificates(&self.certificates)?;
        let revoked = options::revoked(&self.revoked)?.unwrap_or_default();
        let bytes = read_bounded(&self.image, pe::MAX_IMAGE)?;
        let uki = UnifiedKernelImage::parse(&bytes).map_err(|fault| in_file(fault, &self.image))?;
        let verified = authenticode::verify(uki.image(), &trusted)
            .and_then(|signer| revoked.check_not_revoked(&uki).map(|()| signer));
        let fault = verified.as_ref().err().map(|why| {
            let fault = Fault::new(Code::UkiUntrusted, self.image.display().to_string());
            fault.because(why.cause())
        });
        if self.output.json {
            output::json(&json!({
                "verified": verified.is_ok(),
                "signer": verified.as_ref().ok().map(Certificate::subject),
                "fault": fault.as_ref().map(|fault| fault.code().id()),
                "cause": fault.as_ref().map(Fault::cause),
            }))?;
        } else if let Ok(signer) = &verified {
            let name = self.image.display();
            output::line(format_args!("{name}: signed by `{}`", signer.subject()))?;
        }
        match fault {
            None => Ok(Outcome::Good),
            Some(fault) => {
                warn(&fault);
                Ok(Outcome::Findings)
            }
        }
    }
}

/// Show what is in a unified kernel image
///
/// Its sections with their lengths and SHA-256 digests, the command line, os-release, the kernel's release, the versions of the
/// stub's parts (SBAT), and who signed it. Whether the signature is valid, imactl uki verify says.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl uki show linux.efi
  imactl uki show --json linux.efi | jq -r .command_line")]
pub struct Show {
    /// The image
    #[arg(value_name = "FILE")]
    image: PathBuf,
    #[command(flatten)]
    output: OutputOptions,
}

impl Show {
    fn run(&self) -> Result {
        let bytes = read_bounded(&self.image, pe::MAX_IMAGE)?;
        let uki = UnifiedKernelImage::parse(&bytes).map_err(|fault| in_file(fault, &self.image))?;
        let signatures = match authenticode::signatures(uki.image()) {
            Ok(signatures) => signatures,
            Err(authenticode::Untrusted::Unsigned) => Vec::new(),
            Err(why) => {
                let fault = Fault::new(Code::UkiUntrusted, self.image.display().to_string());
                warn(&fault.because(why.cause()));
                Vec::new()
            }
        };
        let signers: Vec<String> = signatures
            .iter()
            .map(|signature| signature.signer().subject())
            .collect();
        if let Some(fault) = uki.warning() {
            warn(&fault);
        }
        match self.output.json {
            true => as_json(&uki, &signers)?,
            false => as_text(&uki, &signers)?,
        }
        Ok(Outcome::Good)
    }
}

fn sha256(content: &[u8]) -> String {
    let digest = HashAlgorithm::Sha256.digest(content);
    hex::encode(&digest.unwrap_or_default())
}

fn as_json(uki: &UnifiedKernelImage<'_>, signers: &[String]) -> Result<()> {
    let sections: Vec<_> = uki
        .sections()
        .iter()
        .map(|section| {
            json!({
                "name": section.name,
                "address": section.address,
                "size": section.size,
                "bytes": section.content.len(),
                "sha256": sha256(section.content),
            })
        })
        .collect();
    output::json(&json!({
        "sections": sections,
        "command_line": uki.command_line(),
        "os_release": uki.os_release(),
        "uname": uki.uname(),
        "sbat": uki.sbat(),
        "stub": uki.stub_version(),
        "authenticode_sha256": hex::encode(&uki.image().digest()),
        "signers": signers,
    }))
}

fn as_text(uki: &UnifiedKernelImage<'_>, signers: &[String]) -> Result<()> {
    for section in uki.sections() {
        let (name, size) = (
            output::shown(Path::new(&section.name)),
            section.content.len(),
        );
        let digest = sha256(section.content);
        output::line(format_args!("{name:8} {size:>10} {digest}"))?;
    }
    let shown = |text: Option<&str>| output::shown(Path::new(text.unwrap_or("none")));
    output::line(format_args!("command line: {}", shown(uki.command_line())))?;
    output::line(format_args!("kernel: {}", shown(uki.uname().as_deref())))?;
    output::line(format_args!(
        "systemd-stub: {}",
        shown(uki.stub_version().as_deref())
    ))?;
    for (name, text) in [("os-release", uki.os_release()), ("SBAT", uki.sbat())] {
        output::line(format_args!(
            "{name}:{}",
            if text.is_some() { "" } else { " none" }
        ))?;
        for line in text.unwrap_or_default().lines() {
            output::line(format_args!("  {}", output::shown(Path::new(line))))?;
        }
    }
    match signers {
        [] => output::line(format_args!("not signed")),
        signers => output::line(format_args!("signed by `{}`", signers.join("`, `"))),
    }
}

fn warn(fault: &Fault) {
    let severity = fault.code().entry().severity.name();
    output::warn(format_args!("{severity}: {fault}"));
}
