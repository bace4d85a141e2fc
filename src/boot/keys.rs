//! Certificates onto the kernel's keyrings, and EVM's keys.

mod hmac;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ima::certificate::Certificate;
use ima::config::{self, Enforce};
use ima::fault::{Code, Fault, Stage};
use ima::keyring::Serial;
use ima::layout::{self, Purpose};
use ima::revocation::Revocations;
use ima::settings::Settings;
use ima_keyring::{Kernel, Keyring, root_keyring};
use linux_keyutils::{Key, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, Permission};
use log::{info, warn};
use nix::errno::Errno;

use super::environment::EVM;
use super::policy::Wanted;
use super::root::MountedRoot;
use crate::files::{self, Initramfs, OpenError};
use crate::report::{KeyRecord, Report};

/// The largest certificate file that is read, in bytes.
const MAX_FILE: usize = 1 << 20;

/// What EVM is told (security/integrity/evm/evm.h): EVM_INIT_HMAC and EVM_INIT_X509 say which of the keys are there, and with
/// EVM_SETUP_COMPLETE nobody changes its mode any more.
const EVM_HMAC: u32 = 1;
const EVM_X509: u32 = 2;
const EVM_LOCKED: u32 = 1 << 31;

/// How many certificate files are offered to one keyring at most; a real root could have any number.
const MAX_FILES: usize = 64;

/// The keys are on their keyrings.
#[derive(Debug)]
pub struct KeysLoaded {
    certificates: Vec<Certificate>,
    evm: bool,
}

impl KeysLoaded {
    /// The certificates that the kernel took for appraisal.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Whether EVM was switched on.
    pub const fn evm(&self) -> bool {
        self.evm
    }
}

/// A file that may hold certificates.
struct Offer<'a> {
    from: Source<'a>,
    path: PathBuf,
}

impl Offer<'_> {
    /// Its path as it is told.
    fn shown(&self) -> String {
        match self.from {
            Source::Initramfs(_) => self.path.display().to_string(),
            Source::Root(root) => root.shown(&self.path),
        }
    }
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    /// The initramfs, which the boot chain covers.
    Initramfs(&'a Initramfs),
    /// The real root, which anybody may have written.
    Root(&'a MountedRoot),
}

impl<'a> Source<'a> {
    const fn name(self) -> &'static str {
        match self {
            Self::Initramfs(_) => "initramfs",
            Self::Root(_) => "root",
        }
    }

    fn open(self, path: &Path) -> Result<File, OpenError> {
        match self {
            Self::Initramfs(initramfs) => initramfs.file(path),
            Self::Root(root) => files::open_in(root.directory(), path),
        }
    }

    fn names(self, path: &Path) -> Result<Vec<OsString>, Fault> {
        match self {
            Self::Initramfs(initramfs) => initramfs.names(path).map_err(|errno| {
                let detail = format!("{}: {}", path.display(), files::describe(errno));
                Fault::new(Code::CertificateInvalid, detail)
                    .with_cause("the directory of certificates in the initramfs cannot be read, or something is mounted over it")
            }),
            Self::Root(root) => Ok(files::names_in(root.directory(), path)),
        }
    }
}

/// Loads the initramfs's certificates.
///
/// # Errors
///
/// `NoImaKeyring`, `KeyringUnusable`, `NoCertificate`, `CertificateInvalid`, `CertificateRefused`, `CertificateRevoked`,
/// `EvmKeyRefused`, `EvmOff`, `EvmFix`.
pub fn load(
    settings: &Settings,
    wanted: &Wanted,
    report: &mut Report,
) -> Result<KeysLoaded, Fault> {
    let config = &settings.config;
    let initramfs = initramfs()?;
    let offers = find(Source::Initramfs(&initramfs), Purpose::Ima)?;
    let name = config.keyring.name();
    let mut loader = Loader {
        certificates: Vec::new(),
        revoked: &config.revoked,
        report,
    };
    if !offers.is_empty() || wanted.policy().appraises() {
        let ring = loader.ima_keyring(config)?;
        let before = held(ring);
        loader.required(&offers, ring, name)?;
        if offers.is_empty() && before == 0 {
            return Err(Fault::new(Code::NoCertificate, layout::KEYS));
        }
    }
    let mut offers = find(Source::Initramfs(&initramfs), Purpose::Evm)?;
    offers.extend(settings.evm.certificate.as_ref().map(|path| Offer {
        from: Source::Initramfs(&initramfs),
        path: path.into(),
    }));
    let key = hmac::load(&settings.evm, &initramfs)?;
    let required = config.enforce == Enforce::Required;
    if let (Some(parameter), true) = (&settings.evm_fix, required)
        && (key.is_some() || !offers.is_empty())
    {
        return Err(Fault::new(Code::EvmFix, parameter));
    }
    let evm = loader.evm(&offers, key, required)?;
    let certificates = loader.certificates;
    let text = format!(
        "{} on {name}{}",
        certificates.len(),
        if evm { ", EVM on" } else { "" }
    );
    report.done(Stage::Keys, &text);
    Ok(KeysLoaded { certificates, evm })
}

/// Offers the real root's certificates, which the kernel takes only if a CA it trusts signed them, where the configuration wants
/// them.
///
/// # Errors
///
/// None for what is in the root, which anybody may have written.
pub fn extend(
    keys: &mut KeysLoaded,
    settings: &Settings,
    root: &MountedRoot,
    report: &mut Report,
) -> Result<(), Fault> {
    let config = &settings.config;
    if !config.root_certificates {
        return Ok(());
    }
    let mut loader = Loader {
        certificates: std::mem::take(&mut keys.certificates),
        revoked: &config.revoked,
        report,
    };
    loader.of_the_root(config, root)?;
    keys.certificates = loader.certificates;
    Ok(())
}

/// What was loaded in front of this initramfs, as far as the second half needs it to explain a denial.
///
/// # Errors
///
/// `KeyringUnusable`.
pub fn loaded_before() -> Result<KeysLoaded, Fault> {
    let initramfs = initramfs()?;
    let mut certificates = Vec::new();
    for offer in find(Source::Initramfs(&initramfs), Purpose::Ima)? {
        let parsed = initramfs
            .file(&offer.path)
            .ok()
            .and_then(|file| files::read(&file, MAX_FILE).ok())
            .and_then(|bytes| Certificate::parse_all(&bytes).ok());
        certificates.extend(parsed.unwrap_or_default());
    }
    // Without EVM_SETUP_COMPLETE, in decimal (security/integrity/evm/evm_secfs.c, `evm_read_key`).
    let mode = std::fs::read_to_string(EVM).unwrap_or_default();
    let mode: u32 = mode.trim().parse().unwrap_or(0);
    Ok(KeysLoaded {
        certificates,
        evm: mode & (EVM_HMAC | EVM_X509) != 0,
    })
}

fn initramfs() -> Result<Initramfs, Fault> {
    Initramfs::open().map_err(|errno| {
        Fault::new(
            Code::KeyringUnusable,
            format!("/: {}", files::describe(errno)),
        )
    })
}

/// The files of `etc/keys` for that purpose, sorted; in the initramfs those of its directory too.
fn find(from: Source<'_>, purpose: Purpose) -> Result<Vec<Offer<'_>>, Fault> {
    let keys = Path::new(layout::KEYS);
    let mut names = from.names(keys)?;
    names.retain(|name| purpose.has(name.as_bytes()));
    let mut paths: Vec<PathBuf> = names.iter().map(|name| keys.join(name)).collect();
    if let (Some(directory), Source::Initramfs(_)) = (purpose.directory(), from) {
        let directory = keys.join(directory);
        let names = from.names(&directory)?;
        paths.extend(names.iter().map(|name| directory.join(name)));
    }
    if let Some(more) = paths.len().checked_sub(MAX_FILES).filter(|more| *more > 0) {
        warn!(
            "keys: {more} more files {}/{}* are not looked at: at most {MAX_FILES} are",
            keys.display(),
            purpose.prefix()
        );
    }
    Ok(paths
        .into_iter()
        .take(MAX_FILES)
        .map(|path| Offer { from, path })
        .collect())
}

/// This machine's clock, in seconds since 1970.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// How many keys are on a keyring of the kernel's: CONFIG_IMA_LOAD_X509 may have put one there.
fn held(ring: Keyring) -> usize {
    ima_keyring::content(ring).map_or(0, |content| content.len())
}

struct Loader<'a> {
    certificates: Vec<Certificate>,
    revoked: &'a Revocations,
    report: &'a mut Report,
}

impl Loader<'_> {
    /// The keyring that appraisal looks in.
    fn ima_keyring(&mut self, config: &config::Config) -> Result<Keyring, Fault> {
        let name = config.keyring.name();
        match config.keyring {
            config::Keyring::Trusted => root_keyring(name)
                .map(Keyring::Serial)
                .ok_or_else(|| Fault::new(Code::NoImaKeyring, name)),
            config::Keyring::Untrusted => {
                self.report.warn(Fault::new(Code::UntrustedKeyring, name));
                untrusted_keyring()
                    .map_err(|error| Fault::new(Code::KeyringUnusable, format!("{name}: {error}")))
            }
        }
    }

    /// Offers certificates of which one at least must be taken, if there are any.
    fn required(&mut self, offers: &[Offer<'_>], ring: Keyring, name: &str) -> Result<(), Fault> {
        let mut refused = Vec::new();
        let mut taken: usize = 0;
        for offer in offers {
            match self.offer(offer, ring, name) {
                Ok(count) => taken = taken.saturating_add(count),
                Err(fault) if fault.code() == Code::CertificateRevoked => return Err(fault),
                Err(fault) => refused.push((offer.from, fault)),
            }
        }
        let mut refused = refused.into_iter();
        if taken == 0 {
            return refused.next().map_or(Ok(()), |(_, fault)| Err(fault));
        }
        for (from, fault) in refused {
            self.skip(from, &fault);
        }
        Ok(())
    }

    /// Offers the real root's certificates: what the secondary keyring takes vouches for others.
    fn of_the_root(&mut self, config: &config::Config, root: &MountedRoot) -> Result<(), Fault> {
        let secondary = ".secondary_trusted_keys";
        let others = find(Source::Root(root), Purpose::Secondary)?;
        if let Some(serial) = root_keyring(secondary) {
            self.optional(&others, Keyring::Serial(serial), secondary);
        } else {
            self.leave(&others, &format!("the kernel has no {secondary}"));
        }
        let more = find(Source::Root(root), Purpose::Ima)?;
        let name = config.keyring.name();
        match (config.keyring, root_keyring(name)) {
            (config::Keyring::Trusted, Some(serial)) => {
                self.optional(&more, Keyring::Serial(serial), name);
            }
            (config::Keyring::Trusted, None) => {
                self.leave(&more, &format!("the kernel has no {name}"));
            }
            // It takes any certificate: the disk would say itself whom to trust.
            (config::Keyring::Untrusted, _) => {
                self.leave(&more, "on _ima nothing would check who signed it");
            }
        }
        Ok(())
    }

    /// Offers certificates whose refusal is only a warning.
    fn optional(&mut self, offers: &[Offer<'_>], ring: Keyring, name: &str) {
        for offer in offers {
            if let Err(fault) = self.offer(offer, ring, name) {
                self.skip(offer.from, &fault);
            }
        }
    }

    /// Tells of certificates of the real root that are not offered.
    fn leave(&mut self, offers: &[Offer<'_>], why: &str) {
        for offer in offers {
            let detail = format!("{}: {why}", offer.shown());
            self.report.warn(
                Fault::new(Code::RootCertificate, detail)
                    .with_cause("it was not offered to the kernel"),
            );
        }
    }

    /// The refusal as a warning, with the cause that was found.
    fn skip(&mut self, from: Source<'_>, fault: &Fault) {
        let code = match (from, fault.code()) {
            (Source::Initramfs(_), _) => Code::CertificateSkipped,
            (Source::Root(_), Code::CertificateRevoked) => Code::RootCertificateRevoked,
            (Source::Root(_), _) => Code::RootCertificate,
        };
        self.report
            .warn(Fault::new(code, fault.detail()).with_cause(fault.cause().to_owned()));
    }

    /// Offers all certificates of one file to the kernel, which decides; how many it took.
    fn offer(&mut self, offer: &Offer<'_>, ring: Keyring, name: &str) -> Result<usize, Fault> {
        let path = offer.shown();
        let invalid = |why: String| Fault::new(Code::CertificateInvalid, format!("{path}: {why}"));
        let file = offer
            .from
            .open(&offer.path)
            .map_err(|e| invalid(e.to_string()))?;
        let bytes = files::read(&file, MAX_FILE).map_err(|e| invalid(e.to_string()))?;
        let parsed = match Certificate::parse_all(&bytes) {
            Ok(certificates) => certificates,
            // What this parser does not understand, the kernel's may. Of the real root it is not offered, nor where
            // something is revoked: it could be that.
            Err(error) if self.is_checked(offer) => return Err(invalid(error.to_string())),
            Err(error) => {
                let result = ima_keyring::add_certificate(&bytes, ring);
                let fault = result.is_err().then(|| invalid(error.to_string()));
                self.record(offer, &path, name, None, fault.as_ref());
                return fault.map_or(Ok(1), Err);
            }
        };
        let mut taken: usize = 0;
        let mut first = None;
        for certificate in parsed {
            let fault = self.objection(offer, &path, &certificate).or_else(|| {
                let result = ima_keyring::add_certificate(certificate.der(), ring);
                result.err().map(|errno| {
                    ima_keyring::refusal(&path, &certificate, name, errno, &Kernel::look())
                })
            });
            self.record(offer, &path, name, Some(&certificate), fault.as_ref());
            if let Some(fault) = fault {
                // A revoked one in the initramfs refuses the boot, whatever else is in the file.
                if fault.code() == Code::CertificateRevoked
                    && matches!(offer.from, Source::Initramfs(_))
                {
                    return Err(fault);
                }
                first.get_or_insert(fault);
                continue;
            }
            taken = taken.saturating_add(1);
            self.remark(&path, &certificate);
            // Without the identifier no signature finds it.
            if (name == ".ima" || name == "_ima") && certificate.skid().is_some() {
                self.certificates.push(certificate);
            }
        }
        match first {
            Some(fault) if taken == 0 => Err(fault),
            Some(fault) => {
                self.skip(offer.from, &fault);
                Ok(taken)
            }
            None => Ok(taken),
        }
    }

    /// Whether only a certificate that was looked at here is offered to the kernel.
    fn is_checked(&self, offer: &Offer<'_>) -> bool {
        matches!(offer.from, Source::Root(_)) || !self.revoked.is_empty()
    }

    /// Why a certificate is not offered to the kernel, which looks neither at dates nor at who was revoked. A date counts for
    /// one of the real root: whoever writes the disk may have kept it since.
    fn objection(&self, offer: &Offer<'_>, path: &str, certificate: &Certificate) -> Option<Fault> {
        let revoked = self.revoked.refusal(path, certificate);
        let expired = matches!(offer.from, Source::Root(_)) && now() > certificate.not_after();
        revoked.or_else(|| {
            if !expired {
                return None;
            }
            let detail = format!("{path}: {}", certificate.subject());
            let fault = Fault::new(Code::CertificateExpired, detail)
                .with_cause("by this machine's clock it has expired; of the real root such a one is not offered to the kernel");
            Some(fault)
        })
    }

    fn record(
        &mut self,
        offer: &Offer<'_>,
        path: &str,
        name: &str,
        certificate: Option<&Certificate>,
        fault: Option<&Fault>,
    ) {
        if fault.is_none() {
            let what = certificate.map_or_else(
                || "a certificate of a kind unknown here".to_owned(),
                |certificate| {
                    let key = certificate.key();
                    format!(
                        "{}, key id {}, {key}",
                        certificate.subject(),
                        certificate.key_id()
                    )
                },
            );
            info!("keys: {name}: {what} ({path})");
        }
        self.report.keys.push(KeyRecord {
            keyring: name.to_owned(),
            path: path.to_owned(),
            subject: certificate.map(Certificate::subject),
            key_id: certificate.map(|certificate| certificate.key_id().to_string()),
            algorithm: certificate.map(|certificate| certificate.key().to_string()),
            source: offer.from.name(),
            refused: fault.map(|fault| fault.code().id()),
        });
    }

    /// What is to be said of a certificate that was taken.
    fn remark(&mut self, path: &str, certificate: &Certificate) {
        if let Some(fault) = certificate.useless(path) {
            self.report.warn(fault);
        }
        if certificate.is_sample() {
            let detail = format!("{path}: {}", certificate.subject());
            self.report.warn(Fault::new(Code::SampleKey, detail));
        }
        let now = now();
        if now > certificate.not_after() || now < certificate.not_before() {
            let detail = format!("{path}: {}", certificate.subject());
            self.report
                .warn(Fault::new(Code::CertificateExpired, detail));
        }
    }

    /// Refuses the boot where EVM is wanted and the kernel has none; with enforce=permissive warns of it.
    fn evm_off(&mut self, detail: &str, required: bool) -> Result<(), Fault> {
        if required {
            return Err(Fault::new(Code::EvmOff, detail));
        }
        self.report.warn(Fault::new(Code::NoEvmKeyring, detail));
        Ok(())
    }

    /// EVM's certificates; with one on the keyring, or with its HMAC key, EVM is switched on, and `true` returned.
    fn evm(
        &mut self,
        offers: &[Offer<'_>],
        key: Option<hmac::Loaded>,
        required: bool,
    ) -> Result<bool, Fault> {
        let mut mode = if key.is_some() { EVM_HMAC } else { 0 };
        if !offers.is_empty() {
            match root_keyring(".evm") {
                Some(serial) => {
                    self.required(offers, Keyring::Serial(serial), ".evm")?;
                    mode |= EVM_X509;
                }
                None => self.evm_off("the kernel has no .evm keyring", required)?,
            }
        }
        if mode == 0 {
            return Ok(false);
        }
        if let Err(error) = std::fs::write(EVM, format!("{:#x}", mode | EVM_LOCKED)) {
            let detail = format!("{EVM}: {error}");
            if key.is_some() {
                return Err(Fault::new(Code::EvmKeyRefused, detail)
                    .with_cause("the kernel has no EVM (CONFIG_EVM), or did not find the key"));
            }
            self.evm_off(&detail, required)?;
            return Ok(false);
        }
        if let Some(key) = key {
            info!("keys: EVM: HMAC key loaded ({})", key.path());
        }
        Ok(true)
    }
}

/// Makes `_ima` in the user session keyring, where the kernel finds it (security/integrity/digsig.c,
/// `integrity_keyring_from_id`; request_key searches it for a process that has no session keyring, as PID 1 has none),
/// and lets root add to it later from any session.
fn untrusted_keyring() -> Result<Keyring, String> {
    KeyRing::from_special_id(KeyRingIdentifier::UserSession, true)
        .map_err(|error| format!("the user session keyring: {error:?}"))?;
    let serial = ima_keyring::add_keyring(c"_ima", Keyring::UserSession)
        .map_err(|errno: Errno| errno.to_string())?;
    let id = linux_keyutils::KeySerialId::new(serial);
    let permissions = KeyPermissionsBuilder::builder()
        .posessor(Permission::ALL)
        .user(Permission::ALL)
        .build();
    Key::from_id(id)
        .set_perms(permissions)
        .map_err(|error| format!("its permissions: {error:?}"))?;
    Serial::new(serial)
        .map(Keyring::Serial)
        .ok_or_else(|| "it has no serial number".to_owned())
}
