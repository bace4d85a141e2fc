//! What the guest program tells the host, and the conversation over the virtio-serial port.
//!
//! One JSON object a line. The guest sends [`FromGuest`]; the host answers a [`FromGuest::Sign`] with a [`ToGuest`].

use std::collections::BTreeMap;

pub use ima::hex::{decode as decode_hex, encode as encode_hex};
use serde::{Deserialize, Serialize};

/// Name of the virtio-serial port (`/sys/class/virtio-ports/*/name` in the guest).
pub const PORT: &str = "org.ima-init.report";

/// How lines about calls that it has fail begin.
pub const FAULTS: &str = "ima-testbed faults: ";

/// What the guest program writes to the console before anything else: where it is missing, no program of the root ran.
pub const HELLO: &str = "ima-testbed guest: running";

/// The file that the guest program makes on its root before it does anything else, where `testbed.mark=yes` is on the command line.
pub const MARK: &str = "/testbed-was-here";

/// A message of the guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum FromGuest {
    /// All that it saw.
    Report(Box<Report>),
    /// A request to sign a file it has just made.
    Sign {
        /// Its path in the guest.
        path: String,
        /// SHA-256 of its content, hexadecimal.
        sha256: String,
    },
}

/// The host's answer to [`FromGuest::Sign`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum ToGuest {
    /// The value for security.ima, hexadecimal.
    Signed {
        /// The value.
        xattr: String,
    },
    /// There is none.
    Refused {
        /// Why.
        reason: String,
    },
}

/// What the guest program saw. What could not be read is empty or `None`, and says why in `problems`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Process number: 1 where it is the init.
    pub pid: u32,
    /// Its arguments, its own name first.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// /proc/cmdline.
    pub command_line: String,
    /// Settings of the kernel's log below /proc/sys/kernel: `printk_devkmsg`, `printk_ratelimit`.
    pub log_limits: BTreeMap<String, String>,
    /// Release of the kernel, as `uname -r`.
    pub kernel: String,
    /// Whether there is a TPM.
    pub tpm: bool,
    /// PCR 10 by bank (`sha1`, `sha256`, ...), lower-case hexadecimal, read before the measurement list.
    pub pcr10: BTreeMap<String, String>,
    /// PCRs 0 to 9 by bank, in order.
    pub pcrs: BTreeMap<String, Vec<String>>,
    /// What is mounted, in order.
    pub mounts: Vec<Mount>,
    /// The keyrings of the kernel and what is on them.
    pub keyrings: BTreeMap<String, Keyring>,
    /// Whether `ima` is there in securityfs.
    pub ima: bool,
    /// The policy in force, if the kernel lets it be read.
    pub policy: Option<String>,
    /// Why not, otherwise: the name of the error.
    pub policy_unreadable: Option<String>,
    /// ascii_runtime_measurements.
    pub measurements_ascii: String,
    /// binary_runtime_measurements, hexadecimal.
    pub measurements_binary: String,
    /// /run/ima-init/report.json.
    pub init: Option<serde_json::Value>,
    /// Lines of the kernel's log that concern integrity, with their time.
    pub kernel_log: Vec<String>,
    /// What came of the attempts; empty if none were asked for.
    pub attempts: Vec<Attempt>,
    /// Of a system with systemd: how far it came.
    pub system: Option<System>,
    /// What could not be found out, and why.
    pub problems: Vec<String>,
}

/// A line of /proc/self/mountinfo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where.
    pub point: String,
    /// Type of the file system.
    pub fstype: String,
    /// What is mounted.
    pub source: String,
    /// Options of the mount.
    pub options: Vec<String>,
    /// Options of the file system.
    pub super_options: Vec<String>,
}

/// A keyring of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    /// Its serial, hexadecimal as in /proc/keys.
    pub serial: String,
    /// Descriptions of the keys on it, as /proc/keys shows them: `subject: X509.rsa 0a1b2c3d []`.
    pub keys: Vec<String>,
}

/// An attempt to run what may or must not run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its name: stable, for tests.
    pub name: String,
    /// What was tried, in words.
    pub tried: String,
    /// What should come of it.
    pub expected: Expected,
    /// What came of it.
    pub result: AttemptResult,
    /// Whether that is what should.
    pub passed: bool,
}

/// What should come of an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// The kernel allows it.
    Allowed,
    /// The kernel denies it.
    #[default]
    Denied,
}

/// What came of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "value")]
pub enum AttemptResult {
    /// The program ran and ended with this status.
    Exited(i32),
    /// The program was killed by this signal.
    Killed(i32),
    /// The system call failed with this error, by name: `EACCES`.
    Failed(String),
    /// The system call succeeded.
    Succeeded,
    /// The attempt could not be made: a file is missing, the host did not answer.
    #[default]
    NotMade,
    /// As above, with the reason.
    NotMadeBecause(String),
}

impl Attempt {
    /// Judge a result. Allowed means that it worked; denied means the error IMA denies with, EACCES, and nothing else: any
    /// other failure would hide that the kernel did not look.
    #[must_use]
    pub fn judge(name: &str, tried: &str, expected: Expected, result: AttemptResult) -> Attempt {
        let passed = match expected {
            Expected::Allowed => {
                matches!(result, AttemptResult::Exited(0) | AttemptResult::Succeeded)
            }
            Expected::Denied => {
                matches!(&result, AttemptResult::Failed(error) if error == "EACCES")
            }
        };
        Attempt {
            name: name.to_owned(),
            tried: tried.to_owned(),
            expected,
            result,
            passed,
        }
    }
}

/// How far a system with systemd came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct System {
    /// `systemctl is-system-running`.
    pub state: String,
    /// Units that failed.
    pub failed_units: Vec<String>,
    /// The default target and whether it was reached.
    pub default_target: String,
    /// Whether it is active.
    pub target_reached: bool,
    /// Seconds from power-on to this state, by the guest's clock.
    pub seconds: f64,
    /// Denials in the kernel's log before the attempts were made.
    pub denials: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_means_eacces() {
        let rows = [
            (
                Expected::Denied,
                AttemptResult::Failed("EACCES".into()),
                true,
            ),
            (
                Expected::Denied,
                AttemptResult::Failed("ENOENT".into()),
                false,
            ),
            (Expected::Denied, AttemptResult::Exited(0), false),
            (Expected::Denied, AttemptResult::Exited(126), false),
            (Expected::Denied, AttemptResult::NotMade, false),
            (Expected::Allowed, AttemptResult::Exited(0), true),
            (Expected::Allowed, AttemptResult::Exited(1), false),
            (Expected::Allowed, AttemptResult::Killed(9), false),
            (
                Expected::Allowed,
                AttemptResult::Failed("EACCES".into()),
                false,
            ),
        ];
        for (expected, result, passed) in rows {
            assert_eq!(
                Attempt::judge("", "", expected, result.clone()).passed,
                passed,
                "{result:?}"
            );
        }
    }

    #[test]
    fn messages_round_trip() {
        let attempt = Attempt::judge(
            "memfd",
            "x",
            Expected::Denied,
            AttemptResult::Failed("EACCES".into()),
        );
        let report = Report {
            attempts: vec![attempt],
            ..Report::default()
        };
        let text = serde_json::to_string(&FromGuest::Report(Box::new(report.clone()))).unwrap();
        match serde_json::from_str(&text).unwrap() {
            FromGuest::Report(read) => assert_eq!(*read, report),
            FromGuest::Sign { .. } => panic!("{text}"),
        }
    }
}
