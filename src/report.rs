//! The report of the boot for the real system, `/run/ima-init/report.json`. docs/reference/report.md documents its keys.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ima::config::Enforce;
use ima::fault::{Code, Fault, Stage};
use ima::forward::Forwarded;
use ima::json::Writer;
use ima::keyring::KeyringName;
use ima::layout;
use ima::offer::Source;
use ima::signature::KeyId;
use log::{info, warn};

use crate::files;

/// Where the first half leaves its report for the second half. Not in /run, because the other initramfs mounts its own there.
const FIRST_HALF: &str = "/usr/lib/ima-init/first-half.json";

/// The longest report of a first half that is read, in bytes.
const MAX_FIRST_HALF: usize = 1 << 20;

/// A certificate that was offered to a keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The keyring.
    pub keyring: KeyringName,
    /// The file.
    pub path: String,
    /// The certificate's subject, if it could be parsed.
    pub subject: Option<String>,
    /// The SHA-256 digest of the certificate, or of the file if it could not be parsed.
    pub sha256: String,
    /// The key ID that signatures carry, if the certificate could be parsed.
    pub key_id: Option<KeyId>,
    /// The key's algorithm, if the certificate could be parsed.
    pub algorithm: Option<String>,
    /// The end of its validity in seconds since 1970, if the certificate could be parsed.
    pub not_after: Option<u64>,
    /// Where the file is.
    pub source: Source,
    /// The fault's code, if the certificate was not taken.
    pub refused: Option<Code>,
}

/// An answer of the kernel that proves the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Its log records that it took a policy.
    Record,
    /// It shows the rules.
    ReadBack,
    /// It denies the execution of an unsigned file.
    Canary,
    /// It refuses a `security.ima` of an unknown type, as it does only if it appraises.
    Appraisal,
}

impl Proof {
    /// Its name in the report and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::ReadBack => "read-back",
            Self::Canary => "canary",
            Self::Appraisal => "appraisal",
        }
    }
}

/// A policy of the real root that was offered to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdditionalPolicy {
    /// The file.
    pub path: String,
    /// Whether the kernel took it.
    pub accepted: bool,
}

/// The policy in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyRecord {
    /// The file in the initramfs.
    pub path: String,
    /// How many rules it has.
    pub rules: usize,
    /// The proofs that it is in force.
    pub proofs: Vec<Proof>,
    /// The policies of the real root that were offered to the kernel.
    pub additional: Vec<AdditionalPolicy>,
}

/// The mounted root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RootRecord {
    /// How it was named.
    pub name: String,
    /// The device's path.
    pub device: String,
    /// The type of its file system.
    pub fstype: String,
    /// The mount options.
    pub options: String,
    /// The root hash, if it is verified by dm-verity.
    pub verity: Option<String>,
    /// The device of the writable layer over it, or `tmpfs`, if there is an overlay.
    pub overlay: Option<String>,
    /// The fs-verity digest of its image, if it is a composefs.
    pub composefs: Option<String>,
}

/// The report while the boot goes on.
#[derive(Debug)]
pub struct Report {
    started: Instant,
    stage_started: Instant,
    times: Vec<(Stage, Duration)>,
    warnings: Vec<Fault>,
    /// The kernel's release.
    pub kernel: String,
    /// Whether there is a TPM.
    pub tpm: bool,
    /// Whether an unsigned program must be denied for the boot to go on.
    pub enforce: Enforce,
    /// The command line that userspace sees, and what it does not see.
    pub command_line: Forwarded,
    /// Every certificate that was offered.
    pub keys: Vec<KeyRecord>,
    /// The policy.
    pub policy: PolicyRecord,
    /// The root.
    pub root: RootRecord,
    /// The slot whose root it is, where there are several.
    pub slot: Option<String>,
    /// The slots whose roots were refused before, and why.
    refused_slots: Vec<(String, Fault)>,
    /// The switch_root that is executed.
    pub switch_root: String,
    /// The init that it executes.
    pub init: String,
    /// The report of the first half, if that was another process: JSON.
    first_half: Option<String>,
}

impl Default for Report {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            stage_started: now,
            times: Vec::new(),
            warnings: Vec::new(),
            kernel: String::new(),
            tpm: false,
            enforce: Enforce::Required,
            command_line: Forwarded::default(),
            keys: Vec::new(),
            policy: PolicyRecord::default(),
            root: RootRecord::default(),
            slot: None,
            refused_slots: Vec::new(),
            switch_root: String::new(),
            init: String::new(),
            first_half: None,
        }
    }
}

impl Report {
    /// Leaves this report, of the first half, for the second half.
    ///
    /// # Errors
    ///
    /// What mkdir(2), open(2) and write(2) say.
    pub fn keep(&self) -> std::io::Result<()> {
        self.write(FIRST_HALF)
    }

    /// Includes the report that the first half left, if there is one and it is whole. Nothing depends on it.
    pub fn continue_from_first_half(&mut self) {
        self.first_half = std::fs::File::open(FIRST_HALF)
            .and_then(|file| files::read(&file, MAX_FIRST_HALF))
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .filter(|text| text.starts_with('{') && text.ends_with('}'));
    }

    /// Writes the report for the real system.
    ///
    /// # Errors
    ///
    /// What mkdir(2), open(2) and write(2) say.
    pub fn publish(&self) -> std::io::Result<()> {
        self.write(layout::REPORT)
    }

    fn write(&self, path: &str) -> std::io::Result<()> {
        let path = Path::new(path);
        if let Some(directory) = path.parent() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(directory)?;
        }
        std::fs::write(path, self.json())
    }

    /// The warnings so far.
    pub fn warnings(&self) -> &[Fault] {
        &self.warnings
    }

    /// Logs a warning and keeps it.
    pub fn warn(&mut self, fault: Fault) {
        warn!("{}: {fault}", fault.code().entry().stage);
        self.warnings.push(fault);
    }

    /// Logs why the root of a slot is refused, and keeps it: the next slot is tried.
    pub fn refuse_slot(&mut self, slot: &str, fault: &Fault) {
        warn!("{}: slot {slot} is refused: {fault}", Stage::Root);
        self.refused_slots.push((slot.to_owned(), fault.clone()));
    }

    /// Whether a root has added a key or rules to the kernel, which stay there.
    pub fn root_left_traces(&self) -> bool {
        let mut keys = self.keys.iter();
        let mut policies = self.policy.additional.iter();
        keys.any(|key| key.source == Source::Root && key.refused.is_none())
            || policies.any(|policy| policy.accepted)
    }

    /// Ends a stage: its one line in the log, with the time since the stage before it ended.
    pub fn done(&mut self, stage: Stage, text: &str) {
        let now = Instant::now();
        let time = now.duration_since(self.stage_started);
        self.stage_started = now;
        match self.times.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, total)) => *total = total.saturating_add(time),
            None => self.times.push((stage, time)),
        }
        info!("{stage}: {text} ({})", milliseconds(time));
    }

    /// The time since the init began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The report as JSON (RFC 8259), one line.
    pub fn json(&self) -> String {
        let mut json = Writer::default();
        json.object(|json| {
            json.key("version").number(1);
            json.key("kernel").string(&self.kernel);
            json.key("tpm").boolean(self.tpm);
            json.key("enforce").string(self.enforce.name());
            json.key("command_line").object(|json| {
                json.key("forwarded").string(&self.command_line.line);
                json.key("withheld")
                    .array(&self.command_line.withheld, |json, word| json.string(word));
            });
            json.key("keys").array(&self.keys, |json, key| {
                json.object(|json| {
                    json.key("keyring").string(key.keyring.as_str());
                    json.key("path").string(&key.path);
                    json.key("subject").optional(key.subject.as_deref());
                    json.key("sha256").string(&key.sha256);
                    let key_id = key.key_id.map(|id| id.to_string());
                    json.key("key_id").optional(key_id.as_deref());
                    json.key("algorithm").optional(key.algorithm.as_deref());
                    match key.not_after {
                        Some(time) => json.key("not_after").number(time.into()),
                        None => json.key("not_after").bare("null"),
                    }
                    json.key("source").string(key.source.name());
                    json.key("accepted").boolean(key.refused.is_none());
                    json.key("code").optional(key.refused.map(Code::id));
                });
            });
            json.key("policy").object(|json| {
                json.key("path").string(&self.policy.path);
                json.key("rules").number(self.policy.rules as u128);
                json.key("proofs")
                    .array(&self.policy.proofs, |json, proof| json.string(proof.name()));
                json.key("additional")
                    .array(&self.policy.additional, |json, policy| {
                        json.object(|json| {
                            json.key("path").string(&policy.path);
                            json.key("accepted").boolean(policy.accepted);
                        });
                    });
            });
            json.key("root").object(|json| {
                json.key("name").string(&self.root.name);
                json.key("device").string(&self.root.device);
                json.key("fstype").string(&self.root.fstype);
                json.key("options").string(&self.root.options);
                json.key("verity").optional(self.root.verity.as_deref());
                json.key("overlay").optional(self.root.overlay.as_deref());
                json.key("composefs")
                    .optional(self.root.composefs.as_deref());
            });
            json.key("slot").optional(self.slot.as_deref());
            json.key("refused_slots")
                .array(&self.refused_slots, |json, (slot, fault)| {
                    json.object(|json| {
                        json.key("slot").string(slot);
                        describe(json, fault);
                    });
                });
            json.key("switch_root").string(&self.switch_root);
            json.key("init").string(&self.init);
            json.key("warnings").array(&self.warnings, |json, fault| {
                json.object(|json| describe(json, fault));
            });
            json.key("times_us").object(|json| {
                for (stage, time) in &self.times {
                    json.key(stage.name()).number(time.as_micros());
                }
                json.key("total").number(self.elapsed().as_micros());
            });
            match &self.first_half {
                Some(text) => json.key("first_half").bare(text),
                None => json.key("first_half").bare("null"),
            }
        });
        json.into_text()
    }
}

/// A duration in milliseconds with one decimal.
pub fn milliseconds(time: Duration) -> String {
    let tenths = time.as_micros().checked_div(100).unwrap_or(0);
    let whole = tenths.checked_div(10).unwrap_or(0);
    let rest = tenths.checked_rem(10).unwrap_or(0);
    format!("{whole}.{rest} ms")
}

/// The members of an object that describe a fault.
fn describe(json: &mut Writer, fault: &Fault) {
    json.key("code").string(fault.code().id());
    json.key("detail").string(fault.detail());
    json.key("cause").string(fault.cause());
    json.key("remedy").string(fault.remedy());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_report_is_json_with_its_values() {
        let mut report = Report {
            kernel: "6.12\"\\\n".to_owned(),
            tpm: true,
            ..Report::default()
        };
        report.keys.push(KeyRecord {
            keyring: KeyringName::Ima,
            path: "/etc/keys/x509_ima.der".into(),
            subject: Some("CN=x".into()),
            sha256: "ab".to_owned(),
            key_id: None,
            algorithm: None,
            not_after: Some(1_900_000_000),
            source: Source::Initramfs,
            refused: Some(Code::CertificateRefused),
        });
        for (path, accepted) in [("a", false), ("b", true)] {
            let path = path.to_owned();
            let policy = AdditionalPolicy { path, accepted };
            report.policy.additional.push(policy);
        }
        report.policy.proofs.push(Proof::ReadBack);
        report.warn(Fault::new(Code::SampleKey, "x"));
        report.done(Stage::Keys, "done");
        let value: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(value["kernel"], "6.12\"\\\n");
        assert_eq!(value["keys"][0]["code"], "IMA-504");
        assert_eq!(value["keys"][0]["accepted"], false);
        assert_eq!(value["keys"][0]["not_after"], 1_900_000_000);
        assert!(value["keys"][0]["key_id"].is_null());
        assert_eq!(value["keys"][0]["keyring"], ".ima");
        assert_eq!(value["keys"][0]["source"], "initramfs");
        assert_eq!(value["enforce"], "required");
        assert_eq!(value["policy"]["proofs"][0], "read-back");
        assert_eq!(value["policy"]["additional"][1]["accepted"], true);
        assert_eq!(value["warnings"][0]["code"], "IMA-551");
        assert!(value["times_us"]["keys"].is_u64() && value["times_us"]["total"].is_u64());
    }

    proptest! {
        #[test]
        fn any_text_round_trips(text in "\\PC{0,20}[\\x00-\\x1f]{0,3}\\PC{0,20}") {
            let report = Report { init: text.clone(), ..Report::default() };
            let value: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
            prop_assert_eq!(value["init"].as_str(), Some(text.as_str()));
        }
    }

    #[test]
    fn milliseconds_have_one_decimal() {
        assert_eq!(milliseconds(Duration::from_micros(12_345)), "12.3 ms");
    }
}
