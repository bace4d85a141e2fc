//! What the init concludes of a boot, as events: the text by whose digest it extends a PCR, and the log of such events.
//!
//! A text is JSON on one line and has nothing in it that differs from boot to boot, such as a time, so that the same initramfs on the
//! same kernel leaves the same value in the PCR. The log is systemd's: CEL-JSON (TCG, Canonical Event Log Format, 5.2) in the
//! framing of RFC 7464, written by systemd too (src/shared/tpm2-util.c, `tpm2_userspace_log`).

use std::ops::RangeInclusive;

use crate::fault::Code;
use crate::hash::HashAlgorithm;
use crate::hex;
use crate::json::{Value, Writer};
use crate::keyring::KeyringName;
use crate::tpm::Extended;

/// The log of the events that programs measured.
pub const LOG: &str = "/run/log/systemd/tpm2-measure.log";

/// The `content_type` of the init's records.
pub const CONTENT_TYPE: &str = "ima-init";

/// The longest log that is read, in bytes.
pub const MAX_LOG: usize = 4 << 20;

/// What a record begins with, as RFC 7464 has it.
const SEPARATOR: char = '\x1e';

/// The PCRs that a TPM has.
const PCRS: u64 = 24;

/// Whether a PCR is one that the init may extend. PCRs 0 to 7 are the firmware's; with PCR 10 the kernel's measurement list is
/// compared, in which the events are not; and programs can reset 16 to 23 (TCG PC Client Platform Firmware Profile, 2.3.4).
#[must_use]
pub const fn is_usable(pcr: u8) -> bool {
    matches!(pcr, 8 | 9 | 11..=15)
}

/// The PCRs among which the usable ones are, for messages.
pub const USABLE: RangeInclusive<u8> = 8..=15;

/// A certificate that the kernel has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key<'a> {
    /// The keyring.
    pub keyring: KeyringName,
    /// The SHA-256 digest of the certificate in DER, in hexadecimal.
    pub sha256: &'a str,
}

/// What the init concluded.
#[derive(Debug)]
pub enum Event<'a> {
    /// The policy of the initramfs is in force, and nothing of a disk has been mounted.
    Policy {
        /// `required` or `permissive`.
        enforce: &'a str,
        /// The policy's text.
        policy: &'a [u8],
        /// How it was proved to be in force.
        proofs: Vec<&'a str>,
        /// The certificates of the initramfs that the kernel took.
        keys: Vec<Key<'a>>,
        /// `no`, `integrity` or `confidentiality`.
        lockdown: &'a str,
        /// Whether another kernel can be started.
        kexec: bool,
    },
    /// The root passed every check, and its switch_root is executed next.
    Root {
        /// The slot, if there are several.
        slot: Option<&'a str>,
        /// The root hash of dm-verity.
        verity: Option<&'a str>,
        /// The fs-verity digest of the composefs image.
        composefs: Option<&'a str>,
        /// The certificates of the root that the kernel took.
        keys: Vec<Key<'a>>,
        /// The root's own policies that the kernel took, by path.
        policies: Vec<&'a str>,
        /// The path of switch_root.
        switch_root: &'a str,
        /// The path of the init that it executes.
        init: &'a str,
    },
    /// The boot was refused, and a shell is started next.
    Refused(Code),
}

impl Event<'_> {
    /// The text that is measured.
    #[must_use]
    pub fn text(&self) -> String {
        let mut json = Writer::default();
        json.object(|json| match self {
            Self::Policy {
                enforce,
                policy,
                proofs,
                keys,
                lockdown,
                kexec,
            } => {
                json.key("event").string("policy");
                json.key("enforce").string(enforce);
                let digest = HashAlgorithm::Sha256.digest(policy).unwrap_or_default();
                json.key("policy").string(&hex::encode(&digest));
                json.key("proofs")
                    .array(proofs, |json, proof| json.string(proof));
                write_keys(json, keys);
                json.key("lockdown").string(lockdown);
                json.key("kexec").boolean(*kexec);
            }
            Self::Root {
                slot,
                verity,
                composefs,
                keys,
                policies,
                switch_root,
                init,
            } => {
                json.key("event").string("root");
                json.key("slot").optional(*slot);
                json.key("verity").optional(*verity);
                json.key("composefs").optional(*composefs);
                write_keys(json, keys);
                json.key("policies")
                    .array(policies, |json, path| json.string(path));
                json.key("switch_root").string(switch_root);
                json.key("init").string(init);
            }
            Self::Refused(code) => {
                json.key("event").string("refused");
                json.key("code").string(code.id());
            }
        });
        json.into_text()
    }
}

fn write_keys(json: &mut Writer, keys: &[Key<'_>]) {
    json.key("keys").array(keys, |json, key| {
        json.object(|json| {
            json.key("keyring").string(key.keyring.as_str());
            json.key("sha256").string(key.sha256);
        });
    });
}

/// The record of a measured text, for the end of the log.
#[must_use]
pub fn record(pcr: u8, digests: &[Extended], text: &str) -> String {
    let mut json = Writer::default();
    json.object(|json| {
        json.key("pcr").number(pcr.into());
        json.key("digests").array(digests, |json, digest| {
            json.object(|json| {
                json.key("hashAlg").string(digest.algorithm.name());
                json.key("digest").string(&hex::encode(&digest.digest));
            });
        });
        json.key("content_type").string(CONTENT_TYPE);
        json.key("content")
            .object(|json| json.key("string").string(text));
    });
    format!("{SEPARATOR}{}\n", json.into_text())
}

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The PCR that was extended.
    pub pcr: u8,
    /// The digest for each bank, by the name of its hash algorithm.
    pub digests: Vec<(String, Vec<u8>)>,
    /// Who defines the content: `systemd`, [`CONTENT_TYPE`].
    pub content_type: Option<String>,
    /// The text that was measured, if the record has it.
    pub text: Option<String>,
}

/// A log that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// It does not begin with a record.
    #[error("it does not begin with the separator of records (byte 0x1e)")]
    NoSeparator,
    /// A record that is malformed, counted from 1.
    #[error("record {0} is malformed")]
    Malformed(usize),
}

/// Parses a log.
///
/// # Errors
///
/// The first fault.
pub fn parse(log: &str) -> Result<Vec<Record>, LogError> {
    let mut records = log.split(SEPARATOR);
    if records.next() != Some("") {
        return Err(LogError::NoSeparator);
    }
    records
        .enumerate()
        .map(|(index, text)| parse_record(text).ok_or(LogError::Malformed(index.saturating_add(1))))
        .collect()
}

fn parse_record(text: &str) -> Option<Record> {
    let value = Value::parse(text).ok()?;
    let pcr = value.get("pcr")?.number().filter(|pcr| *pcr < PCRS)?;
    let digest = |value: &Value| {
        let name = value.get("hashAlg")?.string()?;
        let digest = hex::decode(value.get("digest")?.string()?)?;
        Some((name.to_owned(), digest))
    };
    let string = |value: Option<&Value>| Some(value?.string()?.to_owned());
    let content = value.get("content");
    Some(Record {
        pcr: u8::try_from(pcr).ok()?,
        digests: value
            .get("digests")?
            .elements()?
            .iter()
            .map(digest)
            .collect::<Option<_>>()?,
        content_type: string(value.get("content_type")),
        text: string(content.and_then(|content| content.get("string"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_of_events() {
        let policy = Event::Policy {
            enforce: "required",
            policy: b"",
            proofs: vec!["record", "canary"],
            keys: vec![Key {
                keyring: KeyringName::Ima,
                sha256: "abab",
            }],
            lockdown: "no",
            kexec: false,
        };
        let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(
            policy.text(),
            format!(
                r#"{{"event":"policy","enforce":"required","policy":"{digest}","proofs":["record","canary"],"keys":[{{"keyring":".ima","sha256":"abab"}}],"lockdown":"no","kexec":false}}"#
            )
        );
        let root = Event::Root {
            slot: None,
            verity: Some("00"),
            composefs: None,
            keys: Vec::new(),
            policies: vec!["etc/ima/ima_policy"],
            switch_root: "/s",
            init: "/i",
        };
        assert_eq!(
            root.text(),
            r#"{"event":"root","slot":null,"verity":"00","composefs":null,"keys":[],"policies":["etc/ima/ima_policy"],"switch_root":"/s","init":"/i"}"#
        );
        assert_eq!(
            Event::Refused(Code::InitDenied).text(),
            r#"{"event":"refused","code":"IMA-713"}"#
        );
    }

    /// As systemd 252 writes it, and what follows it.
    #[test]
    fn records_of_systemd_and_of_the_init() {
        let systemd = "\x1e{\"pcr\":11,\"digests\":[{\"hashAlg\":\"sha256\",\"digest\":\"0a0b\"}],\"content_type\":\"systemd\",\
                       \"content\":{\"string\":\"enter-initrd\",\"bootId\":\"x\",\"timestamp\":1700000000000000,\"eventType\":\"phase\"}}\n";
        let log = systemd.to_owned() + &record(13, &[], "text");
        let records = parse(&log).unwrap();
        assert_eq!(
            records[0],
            Record {
                pcr: 11,
                digests: vec![("sha256".to_owned(), vec![10, 11])],
                content_type: Some("systemd".to_owned()),
                text: Some("enter-initrd".to_owned()),
            }
        );
        assert_eq!(records[1].content_type.as_deref(), Some(CONTENT_TYPE));
        assert_eq!(parse(&format!("x{log}")), Err(LogError::NoSeparator));
        assert_eq!(parse(&format!("{log}\x1e")), Err(LogError::Malformed(3)));
        let no_pcr = systemd.replace("11", "24");
        assert_eq!(parse(&no_pcr), Err(LogError::Malformed(1)));
    }

    #[test]
    fn usable_pcrs() {
        let usable: Vec<u8> = (0..=u8::MAX).filter(|pcr| is_usable(*pcr)).collect();
        assert_eq!(usable, [8, 9, 11, 12, 13, 14, 15]);
        assert!(usable.iter().all(|pcr| USABLE.contains(pcr)));
    }

    proptest! {
        #[test]
        fn any_text(log: String) {
            let _ = parse(&log);
        }

        #[test]
        fn records_are_parsed_as_they_were_written(
            records in proptest::collection::vec((0..24_u8, "\\PC{0,30}", any::<[u8; 32]>()), 1..4),
        ) {
            let log: String = records
                .iter()
                .map(|(pcr, text, digest)| {
                    let digests = [Extended { algorithm: HashAlgorithm::Sha256, digest: digest.to_vec() }];
                    record(*pcr, &digests, text)
                })
                .collect();
            let parsed = parse(&log).unwrap();
            prop_assert_eq!(parsed.len(), records.len());
            for (parsed, (pcr, text, digest)) in parsed.into_iter().zip(records) {
                prop_assert_eq!(parsed.pcr, pcr);
                prop_assert_eq!(parsed.text, Some(text));
                prop_assert_eq!(parsed.digests, vec![("sha256".to_owned(), digest.to_vec())]);
            }
        }
    }
}
