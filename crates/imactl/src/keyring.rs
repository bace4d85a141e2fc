//! The keyrings of the running system.

use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use ima::keyring::{self, Description, Serial};
use ima_keyring::{Errno, Kernel, Keyring};

use crate::Result;

/// The keyrings that decide what is trusted, in the order in which trust comes down: CAs, then keys that sign files.
pub const TRUSTED: [&str; 9] = [
    ".builtin_trusted_keys",
    ".secondary_trusted_keys",
    ".machine",
    ".platform",
    ".blacklist",
    ".ima",
    ".evm",
    "_ima",
    "_evm",
];

/// A keyring and what is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// Its name.
    pub name: String,
    /// Its serial number.
    pub serial: i32,
    /// What is on it; `None` if this user may not read it.
    pub keys: Option<Vec<Entry>>,
}

/// Something on a keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The serial number.
    pub serial: i32,
    /// Its type, cut to nine characters as the kernel does; empty for a key this user may not see.
    pub kind: String,
    /// The description, for a certificate's key its name.
    pub name: String,
    /// An asymmetric key's algorithm.
    pub algorithm: Option<String>,
    /// The id by which signatures name an asymmetric key.
    pub key_id: Option<String>,
}

/// The keyrings of those names that there are, with what is on them.
///
/// # Errors
///
/// [`Code::InputUnreadable`] if /proc/keys cannot be read.
pub fn rings(names: &[&str]) -> Result<Vec<Ring>> {
    let list = proc_keys()?;
    Ok(names
        .iter()
        .filter_map(|name| {
            let serial = named(&list, name)?;
            let keys = ima_keyring::content(Keyring::Serial(serial))
                .ok()
                .map(|content| content.iter().map(|key| entry(&list, *key)).collect());
            Some(Ring {
                name: (*name).to_owned(),
                serial: serial.get(),
                keys,
            })
        })
        .collect())
}

fn entry(list: &str, serial: i32) -> Entry {
    let described = Serial::new(serial).and_then(|serial| ima_keyring::describe(serial).ok());
    let described = described.as_deref().and_then(Description::parse);
    let mut lines = keyring::keys(list).filter(|key| key.serial.get() == serial);
    // Algorithm and id are in the list alone; where two lines are of this key, one of them is another key's description.
    let key = match (lines.next(), lines.next()) {
        (Some(key), None) => Some(key),
        _ => None,
    };
    let asymmetric = key.and_then(|key| key.asymmetric());
    Entry {
        serial,
        kind: described.map_or_else(String::new, |key| {
            key.kind.get(..9).unwrap_or(key.kind).to_owned()
        }),
        name: match (asymmetric, described) {
            (Some(asymmetric), _) => asymmetric.name.to_owned(),
            (None, Some(key)) => key.name.to_owned(),
            (None, None) => String::new(),
        },
        algorithm: asymmetric.map(|key| key.algorithm.to_owned()),
        key_id: asymmetric
            .map(|key| key.key_id.to_owned())
            .filter(|id| !id.is_empty()),
    }
}

/// The keyring of that name: one of the kernel's or of this user's such as `.ima` or `_ima`; `@s`, `@u` or `@us` for session,
/// user and user session keyring; or a serial number.
///
/// # Errors
///
/// [`Code::NoImaKeyring`] if this kernel has no `.ima`, [`Code::KeyringUnusable`] if there is no other of that name.
pub fn find(name: &str) -> Result<Keyring> {
    match name {
        "@s" => return Ok(Keyring::Session),
        "@u" => return Ok(Keyring::User),
        "@us" => return Ok(Keyring::UserSession),
        _ => {}
    }
    if let Some(serial) = number(name).and_then(Serial::new) {
        return Ok(Keyring::Serial(serial));
    }
    let name = name.strip_prefix("%keyring:").unwrap_or(name);
    if let Some(serial) = named(&proc_keys()?, name) {
        return Ok(Keyring::Serial(serial));
    }
    Err(match name {
        ".ima" => Fault::new(Code::NoImaKeyring, name),
        _ if name.starts_with('.') => {
            Fault::new(Code::KeyringUnusable, name).because(Cause::KEYRING_NOT_BUILT_IN)
        }
        _ => Fault::new(Code::KeyringUnusable, name).because(Cause::NO_SUCH_KEYRING.with(&[name])),
    })
}

/// The keyring of that name. Of the kernel's there is one; of others every session may have its own, and root sees them all, so
/// one that this process's own keyrings lead to comes first.
fn named(list: &str, name: &str) -> Option<Serial> {
    let user = rustix::process::geteuid().as_raw();
    let same: Vec<Serial> = ima_keyring::named(list, name)
        .filter(|(_, owner)| *owner == 0 || *owner == user)
        .map(|(serial, _)| serial)
        .collect();
    let first = *same.first()?;
    if name.starts_with('.') {
        return Some(first);
    }
    let mut next: Vec<i32> = [Keyring::Session, Keyring::User, Keyring::UserSession]
        .into_iter()
        .flat_map(|ring| ima_keyring::content(ring).unwrap_or_default())
        .collect();
    let mut seen = Vec::new();
    while let Some(key) = next.pop() {
        if let Some(found) = same.iter().find(|serial| serial.get() == key) {
            return Some(*found);
        }
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let is_keyring =
            keyring::keys(list).any(|entry| entry.serial.get() == key && entry.kind == "keyring");
        if let (true, Some(serial)) = (is_keyring, Serial::new(key)) {
            next.extend(ima_keyring::content(Keyring::Serial(serial)).unwrap_or_default());
        }
    }
    Some(first)
}

fn number(text: &str) -> Option<i32> {
    match text.strip_prefix("0x") {
        Some(hex) => i32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Puts a certificate onto a keyring, which is called `name` in messages; gives the key's serial number. `path` is where the
/// certificate comes from.
///
/// # Errors
///
/// [`Code::CertificateRefused`] with the reason for which the kernel refused it, as far as that can be worked out.
pub fn import(path: &str, certificate: &Certificate, keyring: Keyring, name: &str) -> Result<i32> {
    let added = ima_keyring::add_certificate(certificate.der(), keyring).map(Serial::get);
    added.map_err(|errno| {
        let fault = ima_keyring::refusal(path, certificate, name, errno, &Kernel::look());
        match errno {
            // What the init says of these is about itself.
            Errno::EACCES | Errno::EPERM if !rustix::process::getuid().is_root() => {
                fault.because(Cause::ROOT_ONLY)
            }
            Errno::EACCES => fault.because(Cause::KEYRING_PERMISSIONS),
            _ => fault,
        }
    })
}

fn proc_keys() -> Result<String> {
    ima_keyring::list()
        .map_err(|error| crate::file::unreadable(std::path::Path::new("/proc/keys"), &error))
}
