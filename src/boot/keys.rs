//! Certificates onto the kernel's keyrings, and EVM's keys.

mod hmac;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ima::certificate::Certificate;
use ima::config::{self, Config, Enforce};
use ima::fault::{Cause, Code, Fault, Stage};
use ima::keyring::Serial;
use ima::layout::{self, Purpose};
use ima::offer::{self, CertificateFile, MAX_FILE, MAX_FILES, Offering, Source};
use ima::settings::Settings;
use ima_keyring::{Kernel, Keyring, root_keyring};
use linux_keyutils::{Key, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, Permission};
use log::{info, warn};
use nix::errno::Errno;

use super::environment::EVM;
use super::root::MountedRoot;
use crate::files::{self, Initramfs};
use crate::report::{KeyRecord, Report};

/// What EVM is told (security/integrity/evm/evm.h): EVM_INIT_HMAC and EVM_INIT_X509 say which of the keys are there, and with
/// EVM_SETUP_COMPLETE nobody changes its mode any more.
const EVM_HMAC: u32 = 1;
const EVM_X509: u32 = 2;
const EVM_LOCKED: u32 = 1 << 31;

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

/// Where certificate files are looked for.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Initramfs(&'a Initramfs),
    Root(&'a MountedRoot),
}

impl Place<'_> {
    const fn source(self) -> Source {
        match self {
            Self::Initramfs(_) => Source::Initramfs,
            Self::Root(_) => Source::Root,
        }
    }

    fn shown(self, path: &Path) -> String {
        match self {
            Self::Initramfs(_) => path.display().to_string(),
            Self::Root(root) => root.shown(path),
        }
    }

    fn read(self, path: &Path) -> CertificateFile {
        let opened = match self {
            Self::Initramfs(initramfs) => initramfs.file(path),
            Self::Root(root) => files::open_in(root.directory(), path),
        };
        let content = opened
            .map_err(|error| error.to_string())
            .and_then(|file| files::read(&file, MAX_FILE).map_err(|error| error.to_string()));
        CertificateFile {
            path: self.shown(path),
            source: self.source(),
            content,
        }
    }

    fn names(self, path: &Path) -> Result<Vec<OsString>, Fault> {
        match self {
            Self::Initramfs(initramfs) => initramfs.names(path).map_err(|errno| {
                let detail = format!("{}: {}", path.display(), files::describe(errno));
                Fault::new(Code::CertificateInvalid, detail).because(Cause::CERTIFICATES_UNREADABLE)
            }),
            Self::Root(root) => files::names_in(root.directory(), path).map_err(|errno| {
                let detail = format!("{}: {}", root.shown(path), files::describe(errno));
                Fault::new(Code::RootCertificate, detail)
                    .because(Cause::ROOT_CERTIFICATES_UNREADABLE)
            }),
        }
    }
}

/// Loads the initramfs's certificates. If the policy appraises, there must be one.
///
/// # Errors
///
/// [`Code::NoImaKeyring`], [`Code::KeyringUnusable`], [`Code::NoCertificate`], [`Code::CertificateInvalid`],
/// [`Code::CertificateRefused`], [`Code::CertificateRevoked`], [`Code::EvmKeyRefused`], [`Code::EvmOff`], [`Code::EvmFix`].
pub fn load(
    settings: &Settings,
    policy_appraises: bool,
    report: &mut Report,
) -> Result<KeysLoaded, Fault> {
    let config = &settings.config;
    let initramfs = initramfs()?;
    let place = Place::Initramfs(&initramfs);
    let name = config.keyring.name();
    let mut certificates = Vec::new();
    let paths = find(place, Purpose::Ima)?;
    if !paths.is_empty() || policy_appraises {
        let ring = ima_keyring(config, report)?;
        let before = held(ring);
        let mut offering = offer(ring, name, config, report);
        offering.required(paths.iter().map(|path| place.read(path)))?;
        certificates = offering.usable();
        if paths.is_empty() && before == 0 {
            return Err(Fault::new(Code::NoCertificate, layout::KEYS));
        }
    }
    let mut paths = find(place, Purpose::Evm)?;
    paths.extend(settings.evm.certificate.as_ref().map(PathBuf::from));
    let key = hmac::load(&settings.evm, &initramfs)?;
    let required = config.enforce == Enforce::Required;
    if let (Some(parameter), true) = (&settings.evm_fix, required)
        && (key.is_some() || !paths.is_empty())
    {
        return Err(Fault::new(Code::EvmFix, parameter));
    }
    let evm = evm(place, &paths, key, config, report)?;
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
    let place = Place::Root(root);
    let read = |paths: Vec<PathBuf>| paths.into_iter().map(|path| place.read(&path));
    let shown = |paths: Vec<PathBuf>| paths.into_iter().map(|path| place.shown(&path));
    // What the secondary keyring takes vouches for others.
    let secondary = ".secondary_trusted_keys";
    let others = found(place, Purpose::Secondary, report);
    match root_keyring(secondary) {
        Some(serial) => {
            offer(Keyring::Serial(serial), secondary, config, report).optional(read(others));
        }
        None => not_offered(
            shown(others),
            &format!("the kernel has no {secondary}"),
            report,
        ),
    }
    let more = found(place, Purpose::Ima, report);
    let name = config.keyring.name();
    match (config.keyring, root_keyring(name)) {
        (config::Keyring::Trusted, Some(serial)) => {
            let mut offering = offer(Keyring::Serial(serial), name, config, report);
            offering.optional(read(more));
            keys.certificates.extend(offering.usable());
        }
        (config::Keyring::Trusted, None) => {
            not_offered(shown(more), &format!("the kernel has no {name}"), report);
        }
        // It takes any certificate: the disk would say itself whom to trust.
        (config::Keyring::Untrusted, _) => {
            let why = "on _ima nothing would check who signed it";
            not_offered(shown(more), why, report);
        }
    }
    Ok(())
}

/// Warns of certificates of the real root that are not offered to the kernel.
fn not_offered(paths: impl IntoIterator<Item = String>, why: &str, report: &mut Report) {
    for path in paths {
        let fault = Fault::new(Code::RootCertificate, format!("{path}: {why}"))
            .because(Cause::CERTIFICATE_NOT_OFFERED);
        report.warn(fault);
    }
}

/// What was loaded in front of this initramfs, as far as the second half needs it to explain a denial.
///
/// # Errors
///
/// [`Code::KeyringUnusable`].
pub fn loaded_before() -> Result<KeysLoaded, Fault> {
    let initramfs = initramfs()?;
    let mut certificates = Vec::new();
    let place = Place::Initramfs(&initramfs);
    for path in find(place, Purpose::Ima)? {
        let content = place.read(&path).content.unwrap_or_default();
        certificates.extend(Certificate::parse_all(&content).unwrap_or_default());
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
fn find(place: Place<'_>, purpose: Purpose) -> Result<Vec<PathBuf>, Fault> {
    let keys = Path::new(layout::KEYS);
    let mut names = place.names(keys)?;
    names.retain(|name| purpose.has(name.as_bytes()));
    let mut paths: Vec<PathBuf> = names.iter().map(|name| keys.join(name)).collect();
    if let (Some(directory), Place::Initramfs(_)) = (purpose.directory(), place) {
        let directory = keys.join(directory);
        let names = place.names(&directory)?;
        paths.extend(names.iter().map(|name| directory.join(name)));
    }
    if let Some(more) = paths.len().checked_sub(MAX_FILES).filter(|more| *more > 0) {
        warn!(
            "keys: {more} more files {}/{}* are not looked at: at most {MAX_FILES} are",
            keys.display(),
            purpose.prefix()
        );
    }
    paths.truncate(MAX_FILES);
    Ok(paths)
}

/// The same in the real root, where a directory that cannot be read is warned of.
fn found(root: Place<'_>, purpose: Purpose, report: &mut Report) -> Vec<PathBuf> {
    find(root, purpose).unwrap_or_else(|fault| {
        report.warn(fault);
        Vec::new()
    })
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

/// The keyring that appraisal looks in.
fn ima_keyring(config: &Config, report: &mut Report) -> Result<Keyring, Fault> {
    let name = config.keyring.name();
    match config.keyring {
        config::Keyring::Trusted => root_keyring(name)
            .map(Keyring::Serial)
            .ok_or_else(|| Fault::new(Code::NoImaKeyring, name)),
        config::Keyring::Untrusted => {
            report.warn(Fault::new(Code::UntrustedKeyring, name));
            untrusted_keyring()
                .map_err(|error| Fault::new(Code::KeyringUnusable, format!("{name}: {error}")))
        }
    }
}

/// A keyring of the running kernel.
struct Running<'a> {
    ring: Keyring,
    name: &'static str,
    report: &'a mut Report,
}

fn offer<'a>(
    ring: Keyring,
    name: &'static str,
    config: &'a Config,
    report: &'a mut Report,
) -> Offering<'a, Running<'a>> {
    Offering::new(Running { ring, name, report }, &config.revoked, now())
}

impl offer::Keyring for Running<'_> {
    fn add(&mut self, path: &str, certificate: &Certificate) -> Result<(), Fault> {
        ima_keyring::add_certificate(certificate.der(), self.ring)
            .map(drop)
            .map_err(|errno| {
                ima_keyring::refusal(path, certificate, self.name, errno, &Kernel::look())
            })
    }

    fn add_unparsed(&mut self, bytes: &[u8]) -> bool {
        ima_keyring::add_certificate(bytes, self.ring).is_ok()
    }

    fn record(
        &mut self,
        file: &CertificateFile,
        certificate: Option<&Certificate>,
        refusal: Option<&Fault>,
    ) {
        let (name, path) = (self.name, &file.path);
        if refusal.is_none() {
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
            source: file.source.name(),
            refused: refusal.map(|fault| fault.code().id()),
        });
    }

    fn warn(&mut self, warning: Fault) {
        self.report.warn(warning);
    }
}

/// Refuses the boot where EVM is wanted and the kernel has none; with enforce=permissive warns of it.
fn evm_off(detail: &str, config: &Config, report: &mut Report) -> Result<(), Fault> {
    if config.enforce == Enforce::Required {
        return Err(Fault::new(Code::EvmOff, detail));
    }
    report.warn(Fault::new(Code::NoEvmKeyring, detail));
    Ok(())
}

/// EVM's certificates; with one on the keyring, or with its HMAC key, EVM is switched on, and `true` returned.
fn evm(
    place: Place<'_>,
    paths: &[PathBuf],
    key: Option<hmac::Loaded>,
    config: &Config,
    report: &mut Report,
) -> Result<bool, Fault> {
    let mut mode = if key.is_some() { EVM_HMAC } else { 0 };
    if !paths.is_empty() {
        let name = ".evm";
        match root_keyring(name) {
            Some(serial) => {
                let mut offering = offer(Keyring::Serial(serial), name, config, report);
                offering.required(paths.iter().map(|path| place.read(path)))?;
                mode |= EVM_X509;
            }
            None => evm_off("the kernel has no .evm keyring", config, report)?,
        }
    }
    if mode == 0 {
        return Ok(false);
    }
    if let Err(error) = std::fs::write(EVM, format!("{:#x}", mode | EVM_LOCKED)) {
        let detail = format!("{EVM}: {error}");
        if key.is_some() {
            return Err(Fault::new(Code::EvmKeyRefused, detail).because(Cause::EVM_NOT_ENABLED));
        }
        evm_off(&detail, config, report)?;
        return Ok(false);
    }
    if let Some(key) = key {
        info!("keys: EVM: HMAC key loaded ({})", key.path());
    }
    Ok(true)
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
