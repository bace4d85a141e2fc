//! A recorded tree of a system on which everything is as it should be, for tests to change.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::path::{Path, PathBuf};

use crate::common::{MeasurementList, measurement_list};
use serde_json::{Value, json};

pub const KERNEL: &str = "6.12.117-ima";
pub const REPORT: &str = "run/ima-init/report.json";
pub const KMSG: &str = "dev/kmsg";
pub const CMDLINE: &str = "run/ima-init/private/proc/cmdline";
pub const KEYS: &str = "proc/keys";
pub const MOUNTS: &str = "proc/self/mountinfo";
pub const POLICY: &str = "sys/kernel/security/ima/policy";
pub const LIST: &str = "sys/kernel/security/ima/binary_runtime_measurements";
pub const AUDIT_LOG: &str = "var/log/audit/audit.log";
pub const TPM: &str = "sys/class/tpm/tpm0";
pub const SECURE_BOOT: &str =
    "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
pub const SETUP_MODE: &str =
    "sys/firmware/efi/efivars/SetupMode-8be4df61-93ca-11d2-aa0d-00e098032b8c";
pub const STUB: &str = "sys/firmware/efi/efivars/StubInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
pub const LOCKDOWN: &str = "sys/kernel/security/lockdown";

/// A directory with the files of a system.
pub struct Recorded {
    directory: tempfile::TempDir,
}

impl Recorded {
    /// The good system.
    pub fn new() -> Self {
        let tree = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let MeasurementList {
            list, sha1, sha256, ..
        } = measurement_list();
        let text = |path: &str, text: &str| tree.put(path, text.as_bytes());
        text("proc/sys/kernel/osrelease", &format!("{KERNEL}\n"));
        text("proc/stat", "cpu 1 2\nbtime 1800000000\n");
        text(CMDLINE, "root=/dev/vda quiet\n");
        text(
            KEYS,
            "0ac73a55 I------     1 perm 1f0b0000     0     0 keyring   .builtin_trusted_keys: 1\n\
             1249ad0a I------     1 perm 1f0f0000     0     0 keyring   .ima: 1\n\
             1249ad0b I------     1 perm 1f0f0000     0     0 keyring   .evm: empty\n",
        );
        text(
            MOUNTS,
            "1 1 0:2 / / rw - rootfs rootfs rw\n31 1 253:0 / / ro,relatime - ext4 /dev/vda ro\n",
        );
        text("sys/firmware/efi/fw_platform_size", "64\n");
        tree.put(SECURE_BOOT, &[6, 0, 0, 0, 1]);
        tree.put(SETUP_MODE, &[6, 0, 0, 0, 0]);
        let stub: Vec<u8> = "systemd-stub 252\0"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        tree.put(STUB, &[&[6, 0, 0, 0][..], &stub].concat());
        text(LOCKDOWN, "none [integrity] confidentiality\n");
        text(
            POLICY,
            "appraise func=BPRM_CHECK appraise_type=imasig\nappraise func=MMAP_CHECK appraise_type=imasig\n",
        );
        tree.put(LIST, &list);
        text(&format!("{TPM}/tpm_version_major"), "2\n");
        for (bank, ten) in [("sha1", sha1), ("sha256", sha256)] {
            for number in 0..24_u8 {
                let value = match number {
                    10 => ten.clone(),
                    number => vec![number; ten.len()],
                };
                let path = format!("{TPM}/pcr-{bank}/{number}");
                text(&path, &format!("{}\n", imactl::hex::encode(&value)));
            }
        }
        text(
            KMSG,
            "5,0,0,-;Linux version 6.12.117-ima\n6,339,5140900,-;ima: policy update completed\n SUBSYSTEM=x\n",
        );
        tree.denial(340, 1, "canary", "IMA-signature-required", "ima-init");
        text(REPORT, &report().to_string());
        tree
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    pub fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.at(path)).unwrap()
    }

    pub fn remove(&self, path: &str) {
        let path = self.at(path);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }

    /// Replaces a piece of a text, which must be there.
    #[track_caller]
    pub fn replace(&self, path: &str, from: &str, to: &str) {
        let text = String::from_utf8(self.read(path)).unwrap();
        assert!(text.contains(from), "{path}: {text}");
        self.put(path, text.replace(from, to).as_bytes());
    }

    /// Changes the init's report.
    pub fn change_report(&self, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&self.read(REPORT)).unwrap();
        change(&mut value);
        self.put(REPORT, value.to_string().as_bytes());
    }

    /// Appends the record of a denial to the kernel's log.
    pub fn denial(&self, number: u32, process: u32, file: &str, cause: &str, command: &str) {
        let record = record(number, process, file, cause, command);
        let mut log = self.read(KMSG);
        log.extend(format!("5,{number},6000000,-;audit: type=1800 {record}\n").into_bytes());
        self.put(KMSG, &log);
    }
}

/// A record of the audit system, of the second after boot that has this number.
pub fn record(number: u32, process: u32, file: &str, cause: &str, command: &str) -> String {
    let plain = |text: &str| {
        text.bytes()
            .all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'"')
    };
    let written = |text: &str| match plain(text) {
        true => format!("\"{text}\""),
        false => imactl::hex::encode(text.as_bytes()).to_uppercase(),
    };
    format!(
        "audit({}.5:{number}): pid={process} uid=0 auid=4294967295 ses=4294967295 op=appraise_data cause={cause} comm={} name={} \
         dev=\"vda\" ino=14 res=0 errno=0",
        1_800_000_000 + u64::from(number),
        written(command),
        written(file)
    )
}

fn report() -> Value {
    json!({
        "version": 1,
        "kernel": KERNEL,
        "tpm": true,
        "enforce": "required",
        "command_line": {"forwarded": "root=/dev/vda quiet", "withheld": []},
        "keys": [{
            "keyring": ".ima", "path": "/etc/keys/x509_ima.der", "subject": "CN=Local IMA", "sha256": "5feceb66", "key_id": "703856a8",
            "algorithm": "RSA-2048", "not_after": 4_102_444_800_u64, "source": "initramfs", "accepted": true, "code": null,
        }],
        "policy": {
            "path": "/etc/ima/ima_policy.default", "rules": 2, "proofs": ["record", "read-back", "canary"], "additional": [],
        },
        "root": {
            "name": "/dev/vda", "device": "/dev/vda", "fstype": "ext4", "options": "ro", "verity": null, "overlay": null,
            "composefs": null,
        },
        "slot": null, "refused_slots": [], "switch_root": "/usr/sbin/switch_root.static", "init": "/sbin/init", "warnings": [],
        "times_us": {
            "environment": 1480, "configuration": 310, "root": 5120, "keys": 1930, "policy": 4210, "preflight": 2940, "total": 16020,
        },
        "first_half": null,
    })
}
