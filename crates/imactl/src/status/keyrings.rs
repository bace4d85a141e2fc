//! The keyrings that decide what is trusted, and how long the certificates on them are valid.

use ima::keyring::{self, KeyringName};
use serde::Serialize;

use super::init_report::InitReport;
use super::item::{Check, Item, State, count, date};
use super::system::System;
use crate::keyring::TRUSTED;

/// `KEY_USR_WRITE`, `KEY_GRP_WRITE` and `KEY_OTH_WRITE` (include/linux/key.h). What only its possessor may write, nobody may: no process
/// possesses a keyring of the kernel.
const WRITE: u32 = 0x0004_0404;

/// How long before its end a certificate is named, in seconds: 30 days.
const SOON: u64 = 30 * 24 * 60 * 60;

/// What can be added to a keyring of the running system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Takes {
    /// Nothing any more.
    Nothing,
    /// What a CA signed that the kernel trusts.
    Vouched,
    /// Any key, by root.
    Anything,
    /// The permissions do not show it: root may write to it, and whether it is sealed is not visible.
    Unknown,
}

/// A keyring.
#[derive(Debug, Clone, Serialize)]
pub struct Ring {
    /// Its name.
    pub name: &'static str,
    /// How many keys are on it.
    pub keys: u64,
    /// What can be added to it.
    pub takes: Takes,
}

/// The keyrings that there are and that this user may see, in the order in which trust comes down.
pub(super) fn rings(system: &System) -> Vec<Ring> {
    let list = system.keys().unwrap_or_default();
    TRUSTED
        .iter()
        .filter_map(|name| {
            let (key, count) = keyring::keys(&list).find_map(|key| {
                // `keyring_describe` in security/keys/keyring.c.
                let count = key.description.strip_prefix(name)?.strip_prefix(": ")?;
                let count = match count {
                    "empty" => 0,
                    count => count.split(' ').next()?.parse().ok()?,
                };
                (key.kind == "keyring").then_some((key, count))
            })?;
            Some(Ring {
                name,
                keys: count,
                takes: takes(name, key.permissions),
            })
        })
        .collect()
}

fn takes(name: &str, permissions: u32) -> Takes {
    if permissions & WRITE == 0 {
        return Takes::Nothing;
    }
    match name {
        ".dm-verity" => Takes::Unknown,
        // The kernel restricts each of its own (security/integrity/digsig.c, certs/system_keyring.c).
        name if name.starts_with('.') => Takes::Vouched,
        _ => Takes::Anything,
    }
}

pub(super) fn check(rings: &[Ring], report: Option<&InitReport>, now: u64) -> Check {
    if rings.is_empty() {
        let text = "none can be seen: run this as root";
        return Check::new(Item::Keyrings, State::NotVisible, text);
    }
    let words: Vec<String> = rings
        .iter()
        .map(|ring| {
            let count = match ring.keys {
                0 => "empty".to_owned(),
                keys => count(keys, "key"),
            };
            match ring.takes {
                Takes::Nothing => format!("{} {count} (closed)", ring.name),
                Takes::Anything => format!("{} {count} (open)", ring.name),
                Takes::Vouched | Takes::Unknown => format!("{} {count}", ring.name),
            }
        })
        .collect();
    let mut check = Check::new(Item::Keyrings, State::Good, words.join(", "));
    let find = |name: KeyringName| rings.iter().find(|ring| ring.name == name.as_str());
    match (find(KeyringName::Ima), find(KeyringName::UntrustedIma)) {
        (Some(ring), _) if ring.keys == 0 => {
            check = check
                .failed()
                .detail(".ima has no key: every file that must be signed is denied");
        }
        (None, Some(_)) => {
            check = check
                .attention()
                .detail("_ima takes any key that root adds");
        }
        (None, None) => {
            check = check
                .failed()
                .detail("there is no keyring with keys for appraisal");
        }
        (Some(_), _) => {}
    }
    let taken = report.into_iter().flat_map(InitReport::all_keys);
    for key in taken.filter(|key| key.accepted) {
        let Some(end) = key.not_after else { continue };
        let subject = key.subject.as_deref().unwrap_or(&key.path);
        if end < now {
            check = check.attention().detail(format!(
                "{subject} on {} expired on {}; the kernel trusts it all the same",
                key.keyring,
                date(end)
            ));
        } else if end < now.saturating_add(SOON) {
            check = check.attention().detail(format!(
                "{subject} on {} expires on {}",
                key.keyring,
                date(end)
            ));
        }
    }
    check
}
