//! `imactl rpm`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use imactl::rpm::Package;
use imactl::sign::ImaValue;

use super::options::{self, AppraisalOptions, KeyOptions};
use super::outcome::{Outcome, Result};
use super::output;

/// RPM packages that carry signatures of their files
///
/// rpm's plugin `ima` (package rpm-plugin-ima on Fedora) puts them onto the files as it installs them. Only what rpm unpacks is signed, so
/// rpm2archive must be there, which comes with rpm.
#[derive(Debug, Subcommand)]
pub enum RpmCommand {
    Sign(Sign),
    Verify(Verify),
}

impl RpmCommand {
    pub fn run(self) -> Result {
        match self {
            Self::Sign(command) => command.run(),
            Self::Verify(command) => command.run(),
        }
    }
}

/// Put signatures of the files into packages
///
/// Of every file, or of those that a policy will have appraised; the owner of a file counts as root then. They go into the signature header,
/// where `rpm -qp --qf '[%{FILENAMES} %{FILESIGNATURES}\\n]'` shows them. An OpenPGP signature that a package has stays good. A file whose
/// digest in the header is not that of its content is refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl rpm sign --key ima.key --cert ima.der hello-2.12-1.x86_64.rpm
  imactl rpm sign --key 'pkcs11:token=signing;object=ima' --cert ima.der --for-policy ima_policy --out signed a.rpm b.rpm")]
pub struct Sign {
    /// Packages
    #[arg(required = true)]
    packages: Vec<PathBuf>,
    #[command(flatten)]
    key: KeyOptions,
    #[command(flatten)]
    appraisal: AppraisalOptions,
    /// Directory for the signed packages; otherwise they are replaced
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Sign {
    fn run(self) -> Result {
        let appraisal = self.appraisal.appraisal("ext4", None)?;
        let mark = ImaValue::Signature(self.key.identity_for(appraisal.as_ref())?);
        for path in &self.packages {
            let package = Package::open(path)?;
            let signed = package.sign(appraisal.as_ref(), &mark)?;
            let name = path.file_name().unwrap_or_default();
            let out = self.out.as_ref().map_or(path.clone(), |dir| dir.join(name));
            package.write(&signed, &out)?;
            if !signed.has_one_length() {
                output::warn(format_args!(
                    "{}: its signatures have several lengths, which rpm before 4.18 does not install rightly: for such systems sign with an RSA key",
                    output::shown(&out)
                ));
            }
            output::line(format_args!(
                "{}: {} files signed",
                output::shown(&out),
                signed.count()
            ))?;
        }
        Ok(Outcome::Good)
    }
}

/// Verify the signatures of the files in packages
///
/// Every file, or every one that a policy will have appraised, must have a signature over what rpm unpacks by the key of one of the
/// certificates.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl rpm verify --cert ima.der hello-2.12-1.x86_64.rpm
  imactl rpm verify --cert ima.der --for-policy ima_policy *.rpm")]
pub struct Verify {
    /// Packages
    #[arg(required = true)]
    packages: Vec<PathBuf>,
    /// Certificate of a key; may be repeated
    #[arg(
        long = "cert",
        id = "certificates",
        value_name = "FILE",
        required = true
    )]
    certificates: Vec<PathBuf>,
    #[command(flatten)]
    appraisal: AppraisalOptions,
}

impl Verify {
    fn run(self) -> Result {
        let certificates = options::certificates_in(&self.certificates)?;
        let appraisal = self.appraisal.appraisal("ext4", None)?;
        for path in &self.packages {
            let count = Package::open(path)?.verify(appraisal.as_ref(), &certificates)?;
            output::line(format_args!(
                "{}: the signatures of {count} files are good",
                output::shown(path)
            ))?;
        }
        Ok(Outcome::Good)
    }
}
