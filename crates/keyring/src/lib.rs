//! The kernel's keyrings: putting certificates onto them, seeing what is there, and why the kernel refuses one.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod refusal;
mod syscalls;
mod verification;

use std::io::Read as _;

use ima::keyring::{self, Description, KeyringName, Serial};
use linux_keyutils::{Key, KeySerialId};

pub use nix::errno::Errno;
pub use refusal::{Kernel, Refused};
pub use syscalls::{Keyring, add_certificate, add_key, add_keyring, seal};
pub use verification::verify_digest;

/// What the kernel says through a buffer. It returns the length of all that there is, and writes nothing if that is more than there is
/// room for (security/keys/keyctl.c, `keyctl_read_key` and `keyctl_describe_key`). A buffer of the usual length is tried first, because
/// clearing the longest one costs more than the call.
///
/// # Errors
///
/// Those of the call; EMSGSIZE if there is more than the longest.
fn read(
    usual: usize,
    longest: usize,
    call: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    for room in [usual, longest] {
        let mut buffer = vec![0; room];
        let length = call(&mut buffer)?;
        if length <= room {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
    Err(Errno::EMSGSIZE)
}

/// The longest content of a keyring that is read, and the usual one: so many keys times four bytes.
const MAX_CONTENT: usize = 64 << 10;
const USUAL_CONTENT: usize = 256;

/// The serial numbers of what is on a keyring (keyctl(2), KEYCTL_READ).
///
/// # Errors
///
/// EACCES for a keyring this process may not read, ENOKEY for one that is not there, EMSGSIZE for more than 16384 keys.
pub fn content(keyring: Keyring) -> Result<Vec<Serial>, Errno> {
    let key = Key::from_id(KeySerialId::new(keyring.id()));
    let content = read(USUAL_CONTENT, MAX_CONTENT, |buffer| {
        key.read(buffer).map_err(errno)
    })?;
    Ok(content
        .as_chunks::<4>()
        .0
        .iter()
        .filter_map(|bytes| Serial::new(i32::from_ne_bytes(*bytes)))
        .collect())
}

/// The longest description, type and owner before it: a page, and some (security/keys/keyctl.c, KEY_MAX_DESC_SIZE).
const MAX_DESCRIPTION: usize = 8192;
const USUAL_DESCRIPTION: usize = 256;

/// What the kernel says of one key, as [`Description`] parses it.
///
/// # Errors
///
/// ENOKEY for one that is not there, EACCES for one that this process may not view.
pub fn describe(serial: Serial) -> Result<String, Errno> {
    let mut description = read(USUAL_DESCRIPTION, MAX_DESCRIPTION, |buffer| {
        syscalls::describe(serial, buffer)
    })?;
    if description.last() == Some(&0) {
        description.pop();
    }
    Ok(text(description))
}

/// The kernel's list of keys, `/proc/keys`, without what is not a line of it: any user can make a key whose description holds a
/// newline and behind it what looks like the line of another key. Each line that is returned agrees with what the kernel says of
/// the key that it names. Of the rest of the line, which only the list has, that is not proof.
///
/// # Errors
///
/// What open(2) and read(2) say.
pub fn list() -> std::io::Result<String> {
    Ok(confirmed(&listed()?, |serial| describe(serial).ok()))
}

/// `/proc/keys` as it is.
fn listed() -> std::io::Result<String> {
    // The kernel looks at all keys again for each read(2).
    let mut list = Vec::with_capacity(USUAL_LIST);
    std::fs::File::open("/proc/keys")?.read_to_end(&mut list)?;
    Ok(text(list))
}

/// The bytes as text, in which what is not UTF-8 is replaced.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The length of a list of some fifty keys.
const USUAL_LIST: usize = 4096;

fn confirmed(list: &str, describe: impl Fn(Serial) -> Option<String>) -> String {
    let is_true = |line: &&str| {
        keyring::keys(line).next().is_some_and(|key| {
            let text = describe(key.serial);
            let description = text.as_deref().and_then(Description::parse);
            description.is_some_and(|description| description.agrees_with(&key))
        })
    };
    list.lines()
        .filter(is_true)
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// The keyrings of exactly that name in a list of keys, with the users that they belong to; each confirmed by the kernel.
pub fn named<'a>(list: &'a str, name: &'a str) -> impl Iterator<Item = (Serial, u32)> + 'a {
    keyring::keyrings(list, name).filter_map(move |serial| {
        let text = describe(serial).ok()?;
        let description = Description::parse(&text)?;
        let uid = description.uid;
        description.is_keyring(name).then_some((serial, uid))
    })
}

/// The kernel's list of keys, in which keyrings are looked for.
#[derive(Debug, Default)]
pub struct Keyrings(String);

impl Keyrings {
    /// Reads the list; where it cannot be read, no keyring is found.
    pub fn read() -> Self {
        listed().map(Self).unwrap_or_default()
    }

    /// Root's keyring of that name. One whose name begins with a dot only the kernel can have made. Only the lines of that name are
    /// confirmed, because each costs a call.
    pub fn of_root(&self, name: KeyringName) -> Option<Serial> {
        named(&self.0, name.as_str())
            .find(|(_, uid)| *uid == 0)
            .map(|(serial, _)| serial)
    }
}

/// Root's keyring of that name, as [`Keyrings::of_root`] finds it.
pub fn root_keyring(name: KeyringName) -> Option<Serial> {
    Keyrings::read().of_root(name)
}

fn errno(error: linux_keyutils::KeyError) -> Errno {
    use linux_keyutils::KeyError;
    match error {
        KeyError::AccessDenied => Errno::EACCES,
        KeyError::KeyDoesNotExist => Errno::ENOKEY,
        KeyError::KeyExpired => Errno::EKEYEXPIRED,
        KeyError::KeyRevoked => Errno::EKEYREVOKED,
        KeyError::PermissionDenied => Errno::EPERM,
        _ => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_longer_than_usual_is_read_whole() {
        let say = |text: &'static [u8]| {
            move |buffer: &mut Vec<u8>| {
                if let Some(room) = buffer.get_mut(..text.len()) {
                    room.copy_from_slice(text);
                }
                Ok(text.len())
            }
        };
        for text in [&b""[..], b"1234", b"12345", b"12345678"] {
            assert_eq!(read(4, 8, say(text)).as_deref(), Ok(text));
        }
        assert_eq!(read(4, 8, say(b"123456789")), Err(Errno::EMSGSIZE));
        assert_eq!(read(4, 8, |_| Err(Errno::ENOKEY)), Err(Errno::ENOKEY));
    }

    #[test]
    fn a_line_within_a_description_is_no_line() {
        let list = "0000000a I--Q---     1 perm 3f010000  1000  1000 user      a\n\
                    0123abcd I------     1 perm 1f0f0000     0     0 keyring   .ima: empty\n\
                    0000000b I------     1 perm 1f0f0000     0     0 keyring   .ima: empty\n\
                    0b0b0b0b I------     1 perm 1f0f0000     0     0 keyring   .ima: 1\n";
        let kernel = |serial: Serial| match serial.get() {
            0x0a => Some(format!("user;1000;1000;3f010000;{}", &list[65..])),
            0x0b => Some("keyring;1000;1000;3f010000;other".to_owned()),
            0x0b0b_0b0b => Some("keyring;0;0;1f0f0000;.ima".to_owned()),
            _ => None,
        };
        let true_lines = confirmed(list, kernel);
        assert_eq!(true_lines.lines().count(), 1, "{true_lines}");
        assert!(true_lines.starts_with("0b0b0b0b"));
    }

    /// What a keyring holds stays on it when it is sealed, and nothing more is taken.
    #[test]
    fn a_sealed_keyring_takes_no_key() {
        let ring = match add_keyring(c"ima-init-test-seal", Keyring::Session) {
            Ok(serial) => serial,
            // A container without keys.
            Err(_) => return,
        };
        let sealed = Keyring::Serial(ring);
        add_key(c"user", c"first", b"x", sealed).unwrap();
        assert_eq!(seal(sealed), Ok(()));
        assert_eq!(add_key(c"user", c"second", b"x", sealed), Err(Errno::EPERM));
        assert_eq!(seal(sealed), Err(Errno::EEXIST));
        assert_eq!(content(sealed).map(|keys| keys.len()), Ok(1));
        let _ = Key::from_id(KeySerialId::new(ring.get())).invalidate();
    }

    /// A key of the running system that goes on in a second line of /proc/keys.
    #[test]
    fn a_forged_keyring_is_not_found() {
        let ring = match add_keyring(c"ima-init-test", Keyring::Session) {
            Ok(serial) => serial,
            // A container without keys.
            Err(_) => return,
        };
        let forged = format!(
            "a\n{:08x} I------     1 perm 1f0f0000     0     0 keyring   .ima: empty",
            ring.get()
        );
        let description = std::ffi::CString::new(forged).unwrap();
        let key = add_key(c"user", &description, b"x", Keyring::Session).unwrap();
        let text = std::fs::read_to_string("/proc/keys").unwrap();
        let candidates: Vec<Serial> = keyring::keyrings(&text, ".ima").collect();
        assert!(candidates.contains(&ring), "{text}");
        let list = list().unwrap();
        assert!(named(&list, ".ima").all(|(serial, _)| serial != ring));
        assert!(named(&list, "ima-init-test").any(|(serial, _)| serial == ring));
        assert_ne!(root_keyring(KeyringName::Ima), Some(ring));
        for serial in [key, ring] {
            let _ = Key::from_id(KeySerialId::new(serial.get())).invalidate();
        }
    }
}
