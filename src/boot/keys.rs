//! The certificates and EVM's keys of the initramfs, added to the kernel's keyrings.

mod hmac;
mod verity;

use std::path::PathBuf;

use ima::certificate::Certificate;
use ima::config::{self, Config, Enforce};
use ima::fault::{Cause, Code, Fault, Stage};
use ima::keyring::KeyringName;
use ima::layout::{self, Purpose};
use ima::settings::Settings;
use ima_keyring::{Keyring, Keyrings};
use linux_keyutils::{
    Key, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, KeySerialId, Permission,
};
use log::info;

use crate::denial::AppraisalKeys;
use crate::errno::{Errno, describe, from_nix};
use crate::files::Initramfs;
use crate::kernel_files;
use crate::keyrings::{Place, offer};
use crate::report::Report;
use crate::securityfs::EVM;

/// EVM's mode (security/integrity/evm/evm.h): EVM_INIT_HMAC and EVM_INIT_X509 say which keys are loaded; with EVM_SIGV3_REQUIRED,
/// which Linux has from 7.1 on, only signatures of version 3 count; after EVM_SETUP_COMPLETE the kernel lets nobody change the mode.
const EVM_HMAC: u32 = 1;
const EVM_X509: u32 = 2;
const EVM_SIGV3: u32 = 8;
const EVM_LOCKED: u32 = 1 << 31;

/// The keys are on their keyrings.
#[derive(Debug)]
pub struct KeysLoaded(AppraisalKeys);

impl KeysLoaded {
    /// What the kernel appraises files with, as far as it was loaded by the init.
    pub(super) const fn appraisal(&self) -> &AppraisalKeys {
        &self.0
    }

    /// Adds certificates of the root that the kernel took.
    pub(super) fn add(&mut self, certificates: Vec<Certificate>) {
        self.0.certificates.extend(certificates);
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
    // Once, because it takes long: the kernel makes all of these keyrings when it starts.
    let keyrings = Keyrings::read();
    let name = KeyringName::from(config.keyring);
    let mut certificates = Vec::new();
    let paths = place.find(Purpose::Ima)?;
    if !paths.is_empty() || policy_appraises {
        let keyring = ima_keyring(&keyrings, config, report)?;
        let before = count(keyring);
        let mut offering = offer(keyring, name, config, report);
        offering.required(paths.iter().map(|path| place.read(path)))?;
        certificates = offering.usable();
        if paths.is_empty() && before == 0 {
            return Err(Fault::new(Code::NoCertificate, layout::KEYS));
        }
    }
    let mut paths = place.find(Purpose::Evm)?;
    paths.extend(settings.evm.certificate.as_ref().map(PathBuf::from));
    let key = hmac::load(&settings.evm, &initramfs)?;
    let required = config.enforce == Enforce::Required;
    if let (Some(parameter), true) = (&settings.evm_fix, required)
        && (key.is_some() || !paths.is_empty())
    {
        return Err(Fault::new(Code::EvmFix, parameter));
    }
    let evm = evm(place, &paths, key, &keyrings, config, report)?;
    verity::provision(place, &keyrings, config, report)?;
    let text = format!(
        "{} on {}{}",
        certificates.len(),
        name.as_str(),
        if evm { ", EVM on" } else { "" }
    );
    report.done(Stage::Keys, &text);
    Ok(KeysLoaded(AppraisalKeys { certificates, evm }))
}

/// The keys that were loaded in front of this initramfs, as far as the second half needs them to explain a denial.
///
/// # Errors
///
/// [`Code::KeyringUnusable`].
pub fn loaded_before() -> Result<KeysLoaded, Fault> {
    let initramfs = initramfs()?;
    let mut certificates = Vec::new();
    let place = Place::Initramfs(&initramfs);
    for path in place.find(Purpose::Ima)? {
        let content = place.read(&path).content.unwrap_or_default();
        certificates.extend(Certificate::parse_all(&content).unwrap_or_default());
    }
    // Without EVM_SETUP_COMPLETE, in decimal (security/integrity/evm/evm_secfs.c, `evm_read_key`).
    let mode = kernel_files::text(EVM).unwrap_or_default();
    let mode: u32 = mode.trim().parse().unwrap_or(0);
    Ok(KeysLoaded(AppraisalKeys {
        certificates,
        evm: mode & (EVM_HMAC | EVM_X509) != 0,
    }))
}

fn initramfs() -> Result<Initramfs, Fault> {
    Initramfs::open()
        .map_err(|errno| Fault::new(Code::KeyringUnusable, format!("/: {}", describe(errno))))
}

/// How many keys are on a keyring. The kernel itself may have added one (CONFIG_IMA_LOAD_X509).
fn count(keyring: Keyring) -> usize {
    ima_keyring::content(keyring).map_or(0, |content| content.len())
}

/// The keyring that appraisal looks in.
fn ima_keyring(
    keyrings: &Keyrings,
    config: &Config,
    report: &mut Report,
) -> Result<Keyring, Fault> {
    let name = config.keyring.name();
    match config.keyring {
        config::Keyring::Trusted => keyrings
            .of_root(KeyringName::Ima)
            .map(Keyring::Serial)
            .ok_or_else(|| Fault::new(Code::NoImaKeyring, name)),
        config::Keyring::Untrusted => {
            report.warn(Fault::new(Code::UntrustedKeyring, name));
            untrusted_keyring()
                .map_err(|error| Fault::new(Code::KeyringUnusable, format!("{name}: {error}")))
        }
    }
}

/// Refuses the boot where EVM is to be on and the kernel cannot switch it on; with enforce=permissive warns of it.
fn evm_off(detail: &str, config: &Config, report: &mut Report) -> Result<(), Fault> {
    if config.enforce == Enforce::Required {
        return Err(Fault::new(Code::EvmOff, detail));
    }
    report.warn(Fault::new(Code::NoEvmKeyring, detail));
    Ok(())
}

/// Adds EVM's certificates to its keyring, and switches EVM on if there is one or its HMAC key is loaded. Returns whether
/// EVM is on.
fn evm(
    place: Place<'_>,
    paths: &[PathBuf],
    key: Option<hmac::Loaded>,
    keyrings: &Keyrings,
    config: &Config,
    report: &mut Report,
) -> Result<bool, Fault> {
    let mut mode = if key.is_some() { EVM_HMAC } else { 0 };
    if !paths.is_empty() {
        let name = KeyringName::Evm;
        match keyrings.of_root(name) {
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
    if config.evm_sigv3 {
        mode |= EVM_SIGV3;
    }
    let value = format!("{:#x}", mode | EVM_LOCKED);
    if let Err(errno) = kernel_files::write(EVM, value.as_bytes()) {
        let detail = format!("{EVM}: {}", describe(errno));
        // It refuses a mode with a bit that it does not know (evm_secfs.c, `evm_write_key`).
        if config.evm_sigv3 && errno == Errno::INVAL {
            return Err(Fault::new(Code::EvmOff, detail).because(Cause::EVM_SIGV3_UNKNOWN));
        }
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

/// Makes `_ima` in the user session keyring, which the kernel searches for a process without a session keyring, such as PID 1
/// (security/integrity/digsig.c, `integrity_keyring_from_id`). The permissions let root add to it later from any session.
fn untrusted_keyring() -> Result<Keyring, String> {
    KeyRing::from_special_id(KeyRingIdentifier::UserSession, true)
        .map_err(|error| format!("the user session keyring: {error:?}"))?;
    let serial = ima_keyring::add_keyring(c"_ima", Keyring::UserSession)
        .map_err(|errno| describe(from_nix(errno)))?;
    let id = KeySerialId::new(serial.get());
    let permissions = KeyPermissionsBuilder::builder()
        .posessor(Permission::ALL)
        .user(Permission::ALL)
        .build();
    Key::from_id(id)
        .set_perms(permissions)
        .map_err(|error| format!("its permissions: {error:?}"))?;
    Ok(Keyring::Serial(serial))
}
