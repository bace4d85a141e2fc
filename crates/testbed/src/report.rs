//! The report of the guest program, and the messages on the virtio-serial port.
//!
//! Each line is a JSON object. The guest sends [`FromGuest`]; the host answers a [`FromGuest::Sign`] with a [`ToGuest`].

use std::collections::BTreeMap;
use std::fmt;

pub use ima::hex::{decode as decode_hex, encode as encode_hex};
use serde::{Deserialize, Serialize};

/// Name of the virtio-serial port (`/sys/class/virtio-ports/*/name` in the guest).
pub const PORT: &str = "org.ima-init.report";

/// Prefix of the lines that the guest program prints about the system calls of another init.
pub const FAULTS: &str = "ima-testbed faults: ";

/// The line that the guest program prints to the console before anything else. Without it, no program of the root ran.
pub const GUEST_STARTED: &str = "ima-testbed guest: running";

/// The file that the guest program creates on its root before anything else if `testbed.mark=yes` is on the command line.
pub const MARK: &str = "/testbed-was-here";

/// A message from the guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FromGuest {
    /// The report.
    Report(Box<Report>),
    /// A request to sign a file that the guest program has just made.
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
#[non_exhaustive]
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

/// The state of the guest as its program saw it. A field that could not be read is empty or `None`, and `problems` has the reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Report {
    /// Process ID of the guest program: 1 if it is the init.
    pub pid: u32,
    /// Its arguments, beginning with its own name.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// /proc/cmdline.
    pub command_line: String,
    /// Settings of the kernel's log below /proc/sys/kernel: `printk_devkmsg`, `printk_ratelimit`.
    pub log_limits: BTreeMap<String, String>,
    /// Release of the kernel, as `uname -r`.
    pub kernel: String,
    /// Whether UEFI says that Secure Boot is enabled (the variable `SecureBoot`); `None` without efivarfs.
    pub secure_boot: Option<bool>,
    /// Whether there is a TPM.
    pub tpm: bool,
    /// The most memory that PID 1 had resident before the guest program took its place, in KiB (`ru_maxrss` of getrusage(2), which
    /// outlives execve(2)). It is the guest program's own if that is more.
    pub peak_memory: u64,
    /// PCR 10 by bank (`sha1`, `sha256`, ...), lower-case hexadecimal, read before the measurement list.
    pub pcr10: BTreeMap<String, String>,
    /// PCRs 0 to 23 by bank, in order.
    pub pcrs: BTreeMap<String, Vec<String>>,
    /// The firmware's event log (binary_bios_measurements), hexadecimal. Empty if the kernel has none.
    pub firmware_log: String,
    /// systemd's log of what programs measured (`/run/log/systemd/tpm2-measure.log`). Empty if there is none.
    pub programs_log: String,
    /// The mounts, in order.
    pub mounts: Vec<Mount>,
    /// The keyrings of the kernel and the keys on them.
    pub keyrings: BTreeMap<String, Keyring>,
    /// Whether securityfs has the directory `ima`.
    pub ima: bool,
    /// The IMA policy in force, if the kernel lets it be read.
    pub policy: Option<String>,
    /// The name of the error otherwise, such as `EACCES`.
    pub policy_unreadable: Option<String>,
    /// ascii_runtime_measurements.
    pub measurements_ascii: String,
    /// binary_runtime_measurements, hexadecimal.
    pub measurements_binary: String,
    /// /run/ima-init/report.json.
    pub init: Option<serde_json::Value>,
    /// Lines of the kernel's log that concern integrity, with their time.
    pub kernel_log: Vec<String>,
    /// The files that `/record` in the root names, by path, hexadecimal; of a directory the files in it. Of `/dev/kmsg` the records so
    /// far. What is not there is left out.
    pub files: BTreeMap<String, String>,
    /// The attempts with their results. Empty if none were requested.
    pub attempts: Vec<Attempt>,
    /// How far the boot got, on a system with systemd.
    pub system: Option<System>,
    /// The parts of the report that could not be read, and why.
    pub problems: Vec<String>,
}

/// A line of /proc/self/mountinfo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mount {
    /// The mount point.
    pub point: String,
    /// The type of the file system.
    pub fstype: String,
    /// The device or other source.
    pub source: String,
    /// Options of the mount.
    pub options: Vec<String>,
    /// Options of the file system.
    pub super_options: Vec<String>,
}

/// A keyring of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Keyring {
    /// Its serial, hexadecimal as in /proc/keys.
    pub serial: String,
    /// Descriptions of the keys on it, as /proc/keys shows them: `subject: X509.rsa 0a1b2c3d []`.
    pub keys: Vec<String>,
}

/// An attempt to do something that the policy should allow or deny.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attempt {
    /// Its name: stable, for tests.
    pub name: String,
    /// A description of what was tried.
    pub tried: String,
    /// The expected result.
    pub expected: Expected,
    /// The actual result.
    pub result: AttemptResult,
    /// Whether the actual result is the expected one.
    pub passed: bool,
}

/// The expected result of an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// The kernel allows it.
    Allowed,
    /// The kernel denies it.
    #[default]
    Denied,
}

/// The actual result of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "value")]
#[non_exhaustive]
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
    /// The attempt could not be made, for this reason.
    NotMadeBecause(String),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Expected::Allowed => "allowed",
            Expected::Denied => "denied",
        })
    }
}

impl fmt::Display for AttemptResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttemptResult::Exited(0) | AttemptResult::Succeeded => f.write_str("allowed"),
            AttemptResult::Exited(status) => write!(f, "run, with exit status {status}"),
            AttemptResult::Killed(signal) => write!(f, "killed by signal {signal}"),
            AttemptResult::Failed(error) if error == "EACCES" => f.write_str("denied"),
            AttemptResult::Failed(error) => write!(f, "failed with {error}"),
            AttemptResult::NotMade => f.write_str("not made"),
            AttemptResult::NotMadeBecause(reason) => write!(f, "not made: {reason}"),
        }
    }
}

impl Attempt {
    /// Compares a result with the expected one. "Allowed" means success. "Denied" means `EACCES`, the error with which IMA denies
    /// access, and nothing else: any other failure would hide that the kernel did not appraise the file.
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

/// How far the boot of a system with systemd got.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
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
