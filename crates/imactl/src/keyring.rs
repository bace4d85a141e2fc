//! The keyrings of the running system.

use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use ima::keyring::{self, Description, KeyringName, Serial};
use ima_keyring::{Errno, Kernel, Keyring, Refused};

use crate::Result;

/// The keyrings that decide what is trusted, in the order in which trust comes down: CAs, then keys that sign files.
pub const TRUSTED: [&str; 10] = [
    ".builtin_trusted_keys",
    KeyringName::SecondaryTrusted.as_str(),
    ".machine",
    ".platform",
    ".blacklist",
    KeyringName::Ima.as_str(),
    KeyringName::Evm.as_str(),
    KeyringName::UntrustedIma.as_str(),
    "_evm",
    ".dm-verity",
];

/// A keyring and what is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// Its name.
    pub name: String,
    /// Its serial number.
    pub serial: Serial,
    /// What is on it; `None` if this user may not read it.
    pub keys: Option<Vec<Entry>>,
}

/// Something on a keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The serial number.
    pub serial: Serial,
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
                serial,
                keys,
            })
        })
        .collect())
}

fn entry(list: &str, serial: Serial) -> Entry {
    let described = ima_keyring::describe(serial).ok();
    let described = described.as_deref().and_then(Description::parse);
    let mut lines = keyring::keys(list).filter(|key| key.serial == serial);
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

/// A keyring that certificates can be put onto.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    keyring: Keyring,
    /// As it was given.
    name: String,
}

impl Target {
    /// The keyring of that name: one of the kernel's or of this user's such as `.ima` or `_ima`; `@s`, `@u` or `@us` for session,
    /// user and user session keyring; or a serial number.
    ///
    /// # Errors
    ///
    /// [`Code::NoImaKeyring`] if this kernel has no `.ima`, [`Code::KeyringUnusable`] if there is no other of that name.
    pub fn find(name: &str) -> Result<Self> {
        let keyring = match (name, number(name).and_then(Serial::new)) {
            ("@s", _) => Keyring::Session,
            ("@u", _) => Keyring::User,
            ("@us", _) => Keyring::UserSession,
            (_, Some(serial)) => Keyring::Serial(serial),
            (_, None) => {
                let name = name.strip_prefix("%keyring:").unwrap_or(name);
                let serial = named(&proc_keys()?, name).ok_or_else(|| missing(name))?;
                Keyring::Serial(serial)
            }
        };
        Ok(Self {
            keyring,
            name: name.to_owned(),
        })
    }

    /// Puts a certificate onto the keyring; gives the key's serial number. `path` is where the certificate comes from.
    ///
    /// # Errors
    ///
    /// [`Code::CertificateRefused`] with the reason for which the kernel refused it, as far as that can be worked out.
    pub fn import(&self, path: &str, certificate: &Certificate) -> Result<Serial> {
        ima_keyring::add_certificate(certificate.der(), self.keyring).map_err(|errno| {
            let refused = Refused {
                path,
                certificate,
                keyring: &self.name,
                errno,
            };
            let fault = refused.explained(&Kernel::look());
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
}

fn missing(name: &str) -> Fault {
    if name == KeyringName::Ima.as_str() {
        Fault::new(Code::NoImaKeyring, name)
    } else if name.starts_with('.') {
        Fault::new(Code::KeyringUnusable, name).because(Cause::KEYRING_NOT_BUILT_IN)
    } else {
        Fault::new(Code::KeyringUnusable, name).because(Cause::NO_SUCH_KEYRING.with(&[name]))
    }
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
    let mut next: Vec<Serial> = [Keyring::Session, Keyring::User, Keyring::UserSession]
        .into_iter()
        .flat_map(|ring| ima_keyring::content(ring).unwrap_or_default())
        .collect();
    let mut seen = Vec::new();
    while let Some(key) = next.pop() {
        if same.contains(&key) {
            return Some(key);
        }
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let is_keyring =
            keyring::keys(list).any(|entry| entry.serial == key && entry.kind == "keyring");
        if is_keyring {
            next.extend(ima_keyring::content(Keyring::Serial(key)).unwrap_or_default());
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

fn proc_keys() -> Result<String> {
    ima_keyring::list()
        .map_err(|error| crate::file::unreadable(std::path::Path::new("/proc/keys"), &error))
}
