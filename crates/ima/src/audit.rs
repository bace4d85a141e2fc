//! Audit records of IMA: of a file that failed appraisal (`AUDIT_INTEGRITY_DATA`, type 1800), and of a rule of a policy
//! (`AUDIT_INTEGRITY_POLICY_RULE`, type 1807).
//!
//! Source: `integrity_audit_message` in security/integrity/integrity_audit.c, `ima_parse_rule` in security/integrity/ima/ima_policy.c,
//! and `audit_log_untrustedstring` in kernel/audit.c.

use crate::hex;

/// What precedes the record's time: in the kernel's log (kernel/audit.c, `kauditd_printk_skb`), and in auditd's log and the
/// output of `ausearch --raw`.
const HEADS: [&str; 2] = ["audit: type=1800 audit(", "type=INTEGRITY_DATA msg=audit("];

/// What precedes the time of the record of a rule in the kernel's log.
const RULE_HEAD: &str = "audit: type=1807 audit(";

/// Whether a line of the kernel's log is a record about integrity (include/uapi/linux/audit.h, `AUDIT_INTEGRITY_DATA` 1800 to
/// `AUDIT_INTEGRITY_POLICY_RULE` 1807).
#[must_use]
pub fn is_of_integrity(line: &str) -> bool {
    line.starts_with("audit: type=180")
}

/// The rule in a line of the kernel's log that records one which the kernel refused: its beginning, up to the keyword that the
/// kernel does not know, because each keyword is recorded as it is parsed.
#[must_use]
pub fn refused_rule(line: &str) -> Option<&str> {
    let (_, fields) = line.strip_prefix(RULE_HEAD)?.split_once("): ")?;
    fields.strip_suffix("res=0").map(str::trim_end)
}

/// When the audit system made a record, and its number (kernel/audit.c, `audit_log_start`): no two records of a boot have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Seconds since 1970.
    pub seconds: u64,
    /// Milliseconds of that second.
    pub milliseconds: u32,
    /// The number of the event.
    pub serial: u64,
}

impl Stamp {
    /// Parses `SECONDS.MILLISECONDS:SERIAL`.
    fn parse(text: &str) -> Option<Self> {
        let (time, serial) = text.split_once(':')?;
        let (seconds, milliseconds) = time.split_once('.')?;
        Some(Self {
            seconds: seconds.parse().ok()?,
            milliseconds: milliseconds.parse().ok()?,
            serial: serial.parse().ok()?,
        })
    }
}

/// The record of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegrityRecord {
    /// When it was made.
    pub stamp: Stamp,
    /// The process that the record is about.
    pub process: u32,
    /// The operation: `appraise_data`, `collect_data`, `mmap_file`, `set_data`.
    pub operation: String,
    /// The kernel's reason: `IMA-signature-required`, `invalid-signature` and the like.
    pub cause: String,
    /// The name of the process (comm).
    pub command: Vec<u8>,
    /// The path or the name of the file.
    pub name: Option<Vec<u8>>,
    /// The device's name, and the inode's number.
    pub inode: Option<(Vec<u8>, u64)>,
    /// Whether the operation succeeded. A denial is a failure, also where nothing is enforced and the kernel only logs it.
    pub succeeded: bool,
}

impl IntegrityRecord {
    /// Parses a line that begins with a record.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let rest = HEADS.iter().find_map(|head| line.strip_prefix(head))?;
        let (stamp, fields) = rest.split_once("): ")?;
        let stamp = Stamp::parse(stamp)?;
        // auditd's enriched format appends its own fields behind a group separator.
        let fields = fields.split('\x1d').next()?.trim_end();
        let (process, rest) = fields.strip_prefix("pid=")?.split_once(' ')?;
        // A security label, which may contain blanks, stands before `op`; no value from `op` on contains a blank.
        let (_, fields) = rest.rsplit_once(" op=")?;
        let (operation, rest) = fields.split_once(' ')?;
        let mut record = Self {
            stamp,
            process: process.parse().ok()?,
            operation: operation.to_owned(),
            cause: String::new(),
            command: Vec::new(),
            name: None,
            inode: None,
            succeeded: false,
        };
        let (mut device, mut number, mut result) = (None, None, None);
        for field in rest.split(' ') {
            let (key, value) = field.split_once('=')?;
            match key {
                "cause" => value.clone_into(&mut record.cause),
                "comm" => record.command = untrusted(value)?,
                "name" => record.name = Some(untrusted(value)?),
                "dev" => device = Some(untrusted(value)?),
                "ino" => number = Some(value.parse().ok()?),
                "res" => result = Some(value),
                _ => {}
            }
        }
        record.inode = device.zip(number);
        record.succeeded = match result? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        (!record.cause.is_empty()).then_some(record)
    }

    /// Finds the record in a line of a log that puts a time or a host's name before it.
    #[must_use]
    pub fn find(line: &str) -> Option<Self> {
        let at = HEADS.iter().find_map(|head| line.find(head))?;
        Self::parse(line.get(at..)?)
    }

    /// Whether enforcement denies access for this reason. The kernel also writes such records for files that it could not read,
    /// and for attributes that may not be set.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        let denies = match self.operation.as_str() {
            "appraise_data" | "mmap_file" => true,
            "collect_data" => {
                matches!(
                    self.cause.as_str(),
                    "denied-hash-algorithm" | "failed-mprotect"
                )
            }
            _ => false,
        };
        denies && !self.succeeded
    }
}

/// A string of a user's as `audit_log_untrustedstring` writes it: in quotation marks, or in hexadecimal if it contains one, a
/// blank, or a byte that is not a printable ASCII character.
fn untrusted(value: &str) -> Option<Vec<u8>> {
    match value.strip_prefix('"') {
        Some(quoted) => {
            let text = quoted
                .strip_suffix('"')
                .filter(|text| !text.contains('"'))?;
            Some(text.as_bytes().to_vec())
        }
        None => hex::decode(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DENIED: &str = "audit: type=1800 audit(1.5:7): pid=1 uid=0 auid=4294967295 ses=4294967295 op=appraise_data \
                          cause=IMA-signature-required comm=\"ima-init\" name=\"/rootfs/sbin/init\" dev=\"vda\" ino=14 res=0 errno=0";

    /// As the kernel writes a string.
    fn written(bytes: &[u8]) -> String {
        let plain = |byte: &u8| (0x21..=0x7e).contains(byte) && *byte != b'"';
        match std::str::from_utf8(bytes) {
            Ok(text) if bytes.iter().all(plain) => format!("\"{text}\""),
            _ => hex::encode(bytes).to_uppercase(),
        }
    }

    #[test]
    fn a_denial_in_the_kernels_log() {
        let expected = IntegrityRecord {
            stamp: Stamp {
                seconds: 1,
                milliseconds: 5,
                serial: 7,
            },
            process: 1,
            operation: "appraise_data".to_owned(),
            cause: "IMA-signature-required".to_owned(),
            command: b"ima-init".to_vec(),
            name: Some(b"/rootfs/sbin/init".to_vec()),
            inode: Some((b"vda".to_vec(), 14)),
            succeeded: false,
        };
        assert!(expected.is_denial());
        assert_eq!(IntegrityRecord::parse(DENIED), Some(expected.clone()));
        let dmesg = format!("[    5.140900] {DENIED}\n");
        assert_eq!(IntegrityRecord::parse(&dmesg), None);
        assert_eq!(IntegrityRecord::find(&dmesg), Some(expected.clone()));
        // The same from auditd, with an AppArmor label and what the enriched format appends.
        let head = "node=host type=INTEGRITY_DATA msg=audit(1700000000.123:45): ";
        let (_, fields) = DENIED.split_once("): ").unwrap();
        let fields = fields.replace(" op=", " subj=fire fox (complain) op=");
        let raw = format!("{head}{fields}\x1dUID=\"root\" AUID=\"unset\"");
        let stamp = Stamp {
            seconds: 1_700_000_000,
            milliseconds: 123,
            serial: 45,
        };
        let expected = IntegrityRecord { stamp, ..expected };
        assert_eq!(IntegrityRecord::find(&raw), Some(expected));
    }

    #[test]
    fn what_is_no_record_or_no_denial() {
        for bad in [
            "",
            "audit: type=1800 ",
            "audit: type=1800 audit(1.5:7): ",
            &DENIED.replace("1800", "1802"),
            &DENIED.replace("1.5:7", "1.5"),
            &DENIED.replace("1.5:7", "15:7"),
            &DENIED.replace("1.5:7", "1.5:-7"),
            &DENIED.replace("pid=1 ", "pid=x "),
            &DENIED.replace(" res=0", ""),
            &DENIED.replace("res=0", "res=2"),
            &DENIED.replace("cause=IMA-signature-required ", ""),
            &DENIED.replace("/sbin/init\"", "/sbin/init"),
            &DENIED.replace("\"/rootfs/sbin/init\"", "ABC"),
        ] {
            assert_eq!(IntegrityRecord::parse(bad), None, "{bad}");
        }
        for (from, to, denial) in [
            ("res=0", "res=1", false),
            ("op=appraise_data", "op=set_data", false),
            ("op=appraise_data", "op=collect_data", false),
            (
                "op=appraise_data cause=IMA-signature-required",
                "op=collect_data cause=denied-hash-algorithm",
                true,
            ),
        ] {
            let record = IntegrityRecord::parse(&DENIED.replace(from, to)).unwrap();
            assert_eq!(record.is_denial(), denial, "{to}");
        }
    }

    #[test]
    fn a_refused_rule_ends_with_the_keyword_that_the_kernel_does_not_know() {
        let record =
            "audit: type=1807 audit(1.5:7): action=appraise func=BPRM_CHECK fsname=ext4 res=0";
        let rule = "action=appraise func=BPRM_CHECK fsname=ext4";
        assert_eq!(refused_rule(record), Some(rule));
        for other in [
            "audit: type=1807 audit(1.5:7): action=appraise res=1",
            "audit: type=1806 audit(1.5:7): action=appraise res=0",
            "audit: type=1807 action=appraise res=0",
        ] {
            assert_eq!(refused_rule(other), None, "{other}");
        }
        assert!(is_of_integrity(record) && is_of_integrity(DENIED));
        assert!(!is_of_integrity("audit: type=1400 audit(1.5:7): x"));
    }

    proptest! {
        #[test]
        fn refused_rules_round_trip(rule in "[!-~][ -~]{0,80}[!-~]") {
            let line = format!("audit: type=1807 audit(1700000000.123:45): {rule} res=0");
            prop_assert_eq!(refused_rule(&line), Some(&rule[..]));
        }

        #[test]
        fn hostile_records_of_rules_add_nothing(rest in "\\PC{0,100}") {
            let line = format!("audit: type=1807 audit({rest}");
            if let Some(rule) = refused_rule(&line) {
                prop_assert!(rest.contains(rule) && rest.ends_with("res=0"));
            }
        }

        /// Whatever a file and a process are called, neither adds nor changes another field.
        #[test]
        fn names_round_trip(
            name in proptest::collection::vec(1_u8.., 1..40),
            command in proptest::collection::vec(1_u8.., 1..16),
        ) {
            let line = DENIED
                .replace("\"/rootfs/sbin/init\"", &written(&name))
                .replace("\"ima-init\"", &written(&command));
            let record = IntegrityRecord::parse(&line).unwrap();
            prop_assert_eq!(record.name, Some(name));
            prop_assert_eq!(record.command, command);
            prop_assert_eq!(record.cause, "IMA-signature-required");
            prop_assert_eq!(record.inode, Some((b"vda".to_vec(), 14)));
        }

        /// Of a line that only looks like a record nothing is taken that the line does not contain.
        #[test]
        fn hostile_lines_add_nothing(rest in "[ -~\\x1d]{0,80}") {
            let line = format!("audit: type=1800 audit(1.5:7): pid=1 uid=0 op=appraise_data cause={rest}");
            if let Some(record) = IntegrityRecord::parse(&line) {
                let (operation, cause) = (format!("op={}", record.operation), format!("cause={}", record.cause));
                prop_assert!(line.contains(&operation) && line.contains(&cause), "{:?}", record);
            }
        }
    }
}
