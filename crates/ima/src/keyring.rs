//! The kernel's list of keys, `/proc/keys` (security/keys/proc.c, `proc_keys_show`).

use std::fmt;

/// A key's serial number: always positive in the kernel's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Serial(i32);

impl Serial {
    /// A serial number; `None` for one that no key has.
    #[must_use]
    pub const fn new(number: i32) -> Option<Self> {
        if number > 0 { Some(Self(number)) } else { None }
    }

    /// The number that system calls take.
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A keyring of the kernel that holds certificates (security/integrity/digsig.c; certs/system_keyring.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyringName {
    /// `.ima`, for appraisal; it takes only certificates that a trusted CA signed.
    Ima,
    /// `_ima`, for appraisal by a kernel without `.ima`; it takes any certificate.
    UntrustedIma,
    /// `.evm`
    Evm,
    /// `.secondary_trusted_keys`, whose certificates are CAs for the others.
    SecondaryTrusted,
    /// `.dm-verity`, for signatures of root hashes; it takes any certificate until it is sealed.
    DmVerity,
}

impl KeyringName {
    /// The keyring's description, by which it is found in `/proc/keys`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ima => ".ima",
            Self::UntrustedIma => "_ima",
            Self::Evm => ".evm",
            Self::SecondaryTrusted => ".secondary_trusted_keys",
            Self::DmVerity => ".dm-verity",
        }
    }
}

/// One line of `/proc/keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// The serial number.
    pub serial: Serial,
    /// Who may do what, `KEY_USR_WRITE` and the like of include/linux/key.h.
    pub permissions: u32,
    /// The type, such as `keyring`; the kernel cuts it to nine characters: `asymmetri`.
    pub kind: &'a str,
    /// The description and what the type adds to it, such as `.ima: 1`.
    pub description: &'a str,
}

/// What the description of an asymmetric key says of it (crypto/asymmetric_keys/asymmetric_type.c, `asymmetric_key_describe`):
/// `NAME: X509.rsa 7b4c2d1e []`, where the name of a certificate's key is its subject's and the identifier or serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asymmetric<'a> {
    /// The name.
    pub name: &'a str,
    /// The algorithm, such as `rsa` or `ecdsa-nist-p256`.
    pub algorithm: &'a str,
    /// The end of the subject key identifier in hexadecimal, by which signatures name the key; empty if it has none.
    pub key_id: &'a str,
}

impl<'a> Key<'a> {
    /// What is said of an asymmetric key; `None` for a key of another type.
    #[must_use]
    pub fn asymmetric(&self) -> Option<Asymmetric<'a>> {
        if !self.kind.starts_with("asym") {
            return None;
        }
        // The name is the certificate's to choose, so what counts stands last.
        let (name, rest) = self.description.rsplit_once(": ")?;
        let mut words = rest.split(' ');
        let subtype = words.next()?;
        Some(Asymmetric {
            name,
            algorithm: subtype.rsplit('.').next().unwrap_or(subtype),
            key_id: words
                .next()
                .filter(|word| !word.starts_with('['))
                .unwrap_or_default(),
        })
    }
}

/// The lines of `/proc/keys` that can be understood.
pub fn keys(proc_keys: &str) -> impl Iterator<Item = Key<'_>> {
    proc_keys.lines().filter_map(|line| {
        // serial flags usage timeout permissions uid gid type description
        let mut rest = unindented(line);
        let mut word = || {
            let length = rest.bytes().position(|byte| byte == b' ')?;
            let (word, after) = rest.split_at_checked(length)?;
            rest = unindented(after);
            Some(word)
        };
        let serial = i32::from_str_radix(word()?, 16).ok()?;
        for _ in 0..3 {
            word()?;
        }
        let permissions = u32::from_str_radix(word()?, 16).ok()?;
        for _ in 0..2 {
            word()?;
        }
        let kind = word()?;
        Some(Key {
            serial: Serial(serial),
            permissions,
            kind,
            description: rest,
        })
    })
}

/// The text without the spaces that it begins with.
fn unindented(text: &str) -> &str {
    let spaces = text.bytes().take_while(|byte| *byte == b' ').count();
    text.get(spaces..).unwrap_or_default()
}

/// What KEYCTL_DESCRIBE says of a key: `TYPE;UID;GID;PERMISSIONS;DESCRIPTION` (security/keys/keyctl.c, `keyctl_describe_key`).
/// The description is everything behind the fourth `;`, whatever is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description<'a> {
    /// The type, such as `keyring`.
    pub kind: &'a str,
    /// The user that it belongs to.
    pub uid: u32,
    /// The name.
    pub name: &'a str,
}

impl<'a> Description<'a> {
    /// Parses it; nothing if it is none.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut fields = text.splitn(5, ';');
        let kind = fields.next()?;
        let uid = fields.next()?.parse().ok()?;
        let name = fields.nth(2)?;
        Some(Self { kind, uid, name })
    }

    /// Whether it is a keyring of that name. Only the kernel makes keyrings whose name begins with a dot (`add_key` answers
    /// EPERM).
    pub fn is_keyring(&self, name: &str) -> bool {
        self.kind == "keyring" && self.name == name
    }

    /// Whether a line of `/proc/keys` may be of this key: the list cuts the type to nine characters, and adds to the name.
    pub fn agrees_with(&self, line: &Key<'_>) -> bool {
        let kind = self.kind.get(..9).unwrap_or(self.kind);
        kind == line.kind && line.description.starts_with(self.name)
    }
}

/// The serial numbers of keyrings of that name in the kernel's list: `NAME: 3` or `NAME: empty`.
///
/// The list is not proof. A key's description may hold a newline and behind it what looks like a line of the list, and any user
/// can make such a key. Each serial number is to be confirmed with [`Description`].
pub fn keyrings<'a>(proc_keys: &'a str, name: &'a str) -> impl Iterator<Item = Serial> + 'a {
    keys(proc_keys)
        .filter(move |key| {
            let rest = key.description.strip_prefix(name);
            key.kind == "keyring"
                && rest.is_some_and(|rest| rest.starts_with(':') || rest.is_empty())
        })
        .map(|key| key.serial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIST: &str = "\
0ac73a55 I------     1 perm 1f030000     0     0 keyring   .builtin_trusted_keys: 1
1249ad0a I------     1 perm 1f0f0000     0     0 keyring   .ima: empty
2c15fb4c I------     1 perm 1f030000     0     0 asymmetri Example: CA: 01ab: X509.rsa 7b4c2d1e []
3f0a0b0c I--Q---     2 perm 3f030000     0     0 keyring   _uid.0: 1
";

    #[test]
    fn keyrings_are_found_by_their_whole_name() {
        assert_eq!(first(LIST, ".ima").map(Serial::get), Some(0x1249_ad0a));
        assert_eq!(
            first(LIST, ".builtin_trusted_keys").map(Serial::get),
            Some(0x0ac7_3a55)
        );
        assert_eq!(first(LIST, ".im"), None);
        assert_eq!(first(LIST, ".evm"), None);
        assert_eq!(first("", ".ima"), None);
    }

    #[test]
    fn what_is_said_of_asymmetric_keys() {
        let found: Vec<_> = keys(LIST).filter_map(|key| key.asymmetric()).collect();
        assert_eq!(
            found,
            [Asymmetric {
                name: "Example: CA: 01ab",
                algorithm: "rsa",
                key_id: "7b4c2d1e"
            }]
        );
        let forged = "0000000a I------ 1 perm 1f0f0000 0 0 asymmetri a: X509.rsa 00000000 []: b: X509.rsa 11111111 []\n";
        let key = keys(forged).next().and_then(|key| key.asymmetric());
        assert_eq!(key.map(|key| key.key_id), Some("11111111"));
    }

    fn first(list: &str, name: &str) -> Option<Serial> {
        keyrings(list, name).next()
    }

    /// What any user can have the kernel list: a key whose description goes on in a second line.
    const FORGED: &str = "0000000a I--Q---     1 perm 3f010000  1000  1000 user      a\n\
                          0123abcd I------     1 perm 1f0f0000     0     0 keyring   .ima: empty: 1\n\
                          0b0b0b0b I------     1 perm 1f0f0000     0     0 keyring   .ima: 1\n";

    #[test]
    fn a_forged_line_is_only_a_candidate() {
        let serials: Vec<i32> = keyrings(FORGED, ".ima").map(Serial::get).collect();
        assert_eq!(serials, [0x0123_abcd, 0x0b0b_0b0b]);
        for (text, name) in [
            ("user;1000;1000;3f010000;.ima", ".ima"),
            ("keyring;0;0;3f010000;.ima: empty", ".ima"),
            ("keyring;0;0;3f010000;x;.ima", ".ima"),
            ("keyring;0;0;.ima", ".ima"),
            ("", ""),
        ] {
            let is_one = Description::parse(text).is_some_and(|key| key.is_keyring(name));
            assert!(!is_one, "{text}");
        }
        let text = "keyring;0;0;1f0f0000;.ima";
        assert!(Description::parse(text).is_some_and(|key| key.is_keyring(".ima")));
        let ring = Description::parse(text).unwrap();
        let lines: Vec<bool> = keys(FORGED).map(|line| ring.agrees_with(&line)).collect();
        assert_eq!(lines, [false, true, true]);
        let text = "user;0;0;3f010000;a;b\nc";
        assert_eq!(Description::parse(text).unwrap().name, "a;b\nc");
    }

    #[test]
    fn a_key_that_describes_itself_as_a_keyring_is_none() {
        let forged = "0000000a I------ 1 perm 1f0f0000 0 0 user .ima: empty\n";
        assert_eq!(first(forged, ".ima"), None);
    }

    proptest! {
        #[test]
        fn hostile_text_does_no_harm(text in "[ 0-9a-fI.:\\n\\t\\PC]{0,300}") {
            let _ = keys(&text).filter_map(|key| key.asymmetric()).count();
            let _ = first(&text, ".ima");
            let _ = Description::parse(&text);
        }
    }
}
