//! `imactl deb`, and what dpkg runs as dpkg-deb.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use ima::certificate::Certificate;
use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use imactl::deb::{Package, unpack};
use imactl::file::{read_bounded, unreadable, unwritable};
use imactl::manifest::Manifest;
use imactl::select::Appraisal;
use imactl::setup;
use imactl::sign::ImaValue;

use super::options::{self, AppraisalOptions, KeyOptions, PasswordOptions};
use super::outcome::{Outcome, Result};
use super::output;

/// The name of dpkg's program for archives, under which dpkg finds this one when apt runs it.
pub const DPKG_DEB: &str = "dpkg-deb";

const MAX_REPORT: u64 = 16 << 20;

/// Debian packages that carry signatures, and packages installed under enforcement
///
/// `sign` puts signatures into packages, where they are built. On a system that imactl setup has set up, apt runs `prepare`
/// before anything is installed, and signatures go onto the files as dpkg unpacks them.
#[derive(Debug, Subcommand)]
pub enum DebCommand {
    Sign(Sign),
    Prepare(Prepare),
}

impl DebCommand {
    pub fn run(self) -> Result {
        match self {
            Self::Sign(command) => command.run(),
            Self::Prepare(command) => command.run(),
        }
    }
}

/// Put signatures into packages
///
/// Of every file and control script, or of those that a policy will have appraised. The package stays one for every dpkg: the
/// signatures are a member that it passes over. A repository's index is made after it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl deb sign --key ima.key --cert ima.der --for-policy ima_policy hello_2.10-3_amd64.deb
  imactl deb sign --key 'pkcs11:token=signing;object=ima' --cert ima.der --out signed a.deb b.deb")]
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
            output::line(format_args!(
                "{}: {} files signed",
                output::shown(&out),
                signed.files.len()
            ))?;
        }
        Ok(Outcome::Good)
    }
}

/// What becomes of packages without signatures where there is no key to sign them with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Unsigned {
    /// They are refused, before anything is changed
    Refuse,
    /// They are installed; what they bring is denied until it is signed
    Install,
}

/// Look at packages that apt is about to install, and sign those that carry no signatures
///
/// apt runs it, from /etc/apt/apt.conf.d/50ima-init, with the names of the packages on standard input. Packages that carry
/// signatures of this system's keys are left as they are; others are signed with the key that imactl setup has made, or that is
/// given. Without a key they are refused while the boot enforces, and apt changes nothing. On a system that is not set up
/// nothing is done.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl deb prepare
  imactl deb prepare --key pkcs11:token=host --cert /etc/ima-init/host.der --password-file /etc/ima-init/private/pin
  imactl deb prepare --unsigned install")]
pub struct Prepare {
    /// Private key that signs: a file or the pkcs11: URI of a key in a token; /etc/ima-init/private/ima.key if it is there
    #[arg(long, value_name = "KEY", requires = "cert")]
    key: Option<PathBuf>,
    /// Its certificate
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// What becomes of packages without signatures where there is no key
    #[arg(long, value_enum, default_value = "refuse")]
    unsigned: Unsigned,
    #[command(flatten)]
    password: PasswordOptions,
}

impl Prepare {
    fn run(self) -> Result {
        let names = names_on_stdin()?;
        if names.is_empty() || !setup::is_set_up(Path::new("/")) {
            return Ok(Outcome::Good);
        }
        let enforced = is_enforced();
        match self.prepare(&names, enforced) {
            // Nothing is denied in this boot, and apt must go on.
            Err(fault) if !enforced => {
                output::warn(format_args!("{fault}"));
                output::warn(format_args!(
                    "imactl: installed without signatures; sign them before the next boot: imactl setup --enforce"
                ));
                Ok(Outcome::Good)
            }
            other => other,
        }
    }

    fn prepare(self, names: &[PathBuf], enforced: bool) -> Result {
        let directory = fresh_directory()?;
        let root = Path::new("/");
        let certificates =
            options::certificates_in(&[setup::certificates(root)]).unwrap_or_default();
        let appraisal = AppraisalOptions {
            for_policy: Some(setup::policy(root)),
            filesystem: None,
        }
        .appraisal("ext4", None)?;
        let (mut carried, mut unsigned) = (0_u64, Vec::new());
        for name in names {
            let package = Package::open(name)?;
            match why_not(&package, appraisal.as_ref(), &certificates)? {
                None => carried += 1,
                Some(why) => unsigned.push((package, why)),
            }
        }
        if carried > 0 {
            output::warn(format_args!(
                "imactl: {carried} of {} packages carry signatures that this system takes",
                names.len()
            ));
        }
        let Some((first, why)) = unsigned.first() else {
            return Ok(Outcome::Good);
        };
        let Some((key, cert)) = self.key.zip(self.cert).or_else(|| setup::own_key(root)) else {
            if self.unsigned == Unsigned::Install || !enforced {
                for (package, why) in &unsigned {
                    output::warn(format_args!(
                        "imactl: {} is installed without signatures ({why}); what it brings is denied until it is signed",
                        output::shown(package.path())
                    ));
                }
                return Ok(Outcome::Good);
            }
            return Err(Fault::new(
                Code::PackageUnsigned,
                format!("{}: {why}", output::shown(first.path())),
            ));
        };
        terminal_for_questions();
        let key = KeyOptions::of_key(key, cert, self.password);
        let mark = ImaValue::Signature(key.identity_for(appraisal.as_ref())?);
        let mut files = 0;
        for (package, _) in &unsigned {
            let signed = package.sign(appraisal.as_ref(), &mark)?;
            files += signed.files.len();
            signed.save(&directory.join(unpack::prepared_name(package)?))?;
        }
        output::warn(format_args!(
            "imactl: {} packages signed on this system, {files} files",
            unsigned.len()
        ));
        Ok(Outcome::Good)
    }
}

/// Why the signatures that a package carries are not enough; none if they are, or if nothing in it is appraised.
fn why_not(
    package: &Package,
    appraisal: Option<&Appraisal>,
    certificates: &[Certificate],
) -> imactl::Result<Option<String>> {
    let carried = match package.signatures() {
        Ok(carried) => carried,
        Err(fault) => return Ok(Some(fault.to_string())),
    };
    let algo = carried
        .as_ref()
        .map_or(HashAlgorithm::Sha256, |manifest| manifest.algo);
    let digests = package.digests(appraisal, algo)?;
    if digests.files.is_empty() {
        return Ok(None);
    }
    Ok(match carried {
        None => Some("it carries no signatures".to_owned()),
        Some(carried) => match Package::covered(&digests, &carried, certificates) {
            Err(fault) => Some(format!("{} ({})", fault.detail(), fault.code())),
            Ok(()) => (appraisal.is_some_and(Appraisal::asks_for_v3) && !carried.is_version_3())
                .then(|| {
                    "its signatures are of version 2, and the policy asks for version 3".to_owned()
                }),
        },
    })
}

/// The lines that apt writes (the first version of its protocol: a path each).
fn names_on_stdin() -> imactl::Result<Vec<PathBuf>> {
    let mut text = Vec::new();
    std::io::stdin()
        .take(16 << 20)
        .read_to_end(&mut text)
        .map_err(|error| unreadable(Path::new("standard input"), &error))?;
    Ok(text
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| OsString::from_vec(line.to_vec()).into())
        .collect())
}

/// Whether this boot denies what is not signed, by the init's own report.
fn is_enforced() -> bool {
    read_bounded(Path::new(ima::layout::REPORT), MAX_REPORT)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .is_some_and(|report| report["enforce"] == "required")
}

/// The directory for the signatures, without those of an earlier run.
fn fresh_directory() -> imactl::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;
    let directory = PathBuf::from(unpack::PREPARED);
    let failed = |error: std::io::Error| unwritable(&directory, &error);
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    if let Some(above) = directory.parent() {
        std::fs::create_dir_all(above).map_err(failed)?;
    }
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .map_err(failed)?;
    Ok(directory)
}

/// Standard input had the names of packages; a password is asked for on the terminal, if there is one.
fn terminal_for_questions() {
    if let Ok(terminal) = File::options().read(true).write(true).open("/dev/tty") {
        let _ = rustix::stdio::dup2_stdin(&terminal);
    }
}

/// Runs as dpkg-deb: with signatures for what dpkg unpacks in this system, and as dpkg-deb itself for everybody else.
pub fn dpkg_deb(arguments: &[OsString]) -> ExitCode {
    match run_dpkg_deb(arguments) {
        Ok(status) => ExitCode::from(
            status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(2),
        ),
        Err(fault) => {
            output::warn(format_args!("{fault}"));
            ExitCode::from(2)
        }
    }
}

fn run_dpkg_deb(arguments: &[OsString]) -> imactl::Result<std::process::ExitStatus> {
    let root = Path::new("/");
    if !setup::is_set_up(root) || !unpack::is_for_dpkg() {
        return unpack::run(arguments);
    }
    match arguments {
        [action, package, directory] if action == "--control" => {
            let status = unpack::run(arguments)?;
            if status.success()
                && let Some(signatures) = signatures(package)?
            {
                unpack::control(Path::new(directory), &signatures)?;
            }
            Ok(status)
        }
        [action, package] if action == "--fsys-tarfile" => match signatures(package)? {
            Some(signatures) => unpack::files(arguments, &std::io::stdout(), root, &signatures),
            None => unpack::run(arguments),
        },
        _ => unpack::run(arguments),
    }
}

fn signatures(package: &OsString) -> imactl::Result<Option<Manifest>> {
    unpack::signatures(&Package::open(Path::new(package))?)
}
