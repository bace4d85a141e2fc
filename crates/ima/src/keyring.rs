//! The kernel's list of keys, `/proc/keys` (security/keys/proc.c, `proc_keys_show`).

/// A key's serial number: always positive in the kernel's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Serial(i32);

impl Serial {
    /// The number that system calls take.
    pub const fn get(self) -> i32 {
        self.0
    }
}

/// One line of `/proc/keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// The serial number.
    pub serial: Serial,
    /// The type, such as `keyring`; the kernel cuts it to nine characters: `asymmetri`.
    pub kind: &'a str,
    /// The description and what the type adds to it, such as `.ima: 1`.
    pub description: &'a str,
}

/// The lines of `/proc/keys` that can be understood.
pub fn keys(proc_keys: &str) -> impl Iterator<Item = Key<'_>> {
    proc_keys.lines().filter_map(|line| {
        // serial flags usage timeout permissions uid gid type description
        let mut rest = line;
        let mut word = || {
            rest = rest.trim_start_matches(' ');
            let (word, after) = rest.split_once(' ')?;
            rest = after;
            Some(word)
        };
        let serial = i32::from_str_radix(word()?, 16).ok()?;
        for _ in 0..6 {
            word()?;
        }
        let kind = word()?;
        Some(Key {
            serial: Serial(serial),
            kind,
            description: rest.trim_start_matches(' '),
        })
    })
}

/// The keyring of that name, as the kernel's own list has it: `NAME: 3` or `NAME: empty`.
///
/// Only keyrings of the kernel's may begin with a dot (security/keys/keyctl.c, `add_key` answers EPERM), so for those
/// the name cannot be forged.
pub fn keyring(proc_keys: &str, name: &str) -> Option<Serial> {
    keys(proc_keys)
        .find(|key| {
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
        assert_eq!(keyring(LIST, ".ima").map(Serial::get), Some(0x1249_ad0a));
        assert_eq!(
            keyring(LIST, ".builtin_trusted_keys").map(Serial::get),
            Some(0x0ac7_3a55)
        );
        assert_eq!(keyring(LIST, ".im"), None);
        assert_eq!(keyring(LIST, ".evm"), None);
        assert_eq!(keyring("", ".ima"), None);
    }

    #[test]
    fn a_key_that_describes_itself_as_a_keyring_is_none() {
        let forged = "0000000a I------ 1 perm 1f0f0000 0 0 user .ima: empty\n";
        assert_eq!(keyring(forged, ".ima"), None);
    }

    proptest! {
        #[test]
        fn hostile_text_does_no_harm(text in "[ 0-9a-fI.:\\n\\t\\PC]{0,300}") {
            let _ = keys(&text).count();
            let _ = keyring(&text, ".ima");
        }
    }
}
