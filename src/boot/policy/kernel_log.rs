//! What the kernel says of a policy in its own log.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::OFlags;

/// How many records are read at most: between two looks there are a handful.
const MAX_RECORDS: usize = 4096;

/// The kernel's log from a moment on; empty where it cannot be read.
#[derive(Debug)]
pub(super) struct KernelLog {
    kmsg: Option<File>,
    lines: Vec<String>,
}

impl KernelLog {
    /// Remembers where the log ends now.
    pub(super) fn from_now() -> Self {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let kmsg = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open("/dev/kmsg")
            .and_then(|mut kmsg| kmsg.seek(SeekFrom::End(0)).map(|_| kmsg))
            .ok();
        Self {
            kmsg,
            lines: Vec::new(),
        }
    }

    /// Whether a policy was taken (`true`) or failed since then (ima_fs.c, `ima_release_policy`); nothing if the log
    /// does not say.
    pub(super) fn policy_update(&mut self) -> Option<bool> {
        self.read();
        self.lines.iter().rev().find_map(|line| {
            let update = line.strip_prefix("ima: policy update ")?;
            Some(update.trim_end() == "completed")
        })
    }

    /// What the kernel said of IMA since then, for a message.
    pub(super) fn words(&self) -> String {
        self.lines.join("; ")
    }

    fn read(&mut self) {
        let Some(kmsg) = &mut self.kmsg else { return };
        let mut buffer = [0; 8192];
        for _ in 0..MAX_RECORDS {
            let length = match kmsg.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => length,
                // EPIPE: records were overwritten; the next read goes on behind them.
                Err(error) if error.raw_os_error() == Some(32) => continue,
                Err(_) => return,
            };
            let record = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            if let Some(text) = kernel_text(&record).filter(|text| text.starts_with("ima: ")) {
                self.lines.push(text.to_owned());
            }
        }
    }
}

/// The text of a record if the kernel itself wrote it: `level,sequence,time,flags;text`, where the facility above the
/// three bits of the level is 0 (Documentation/ABI/testing/dev-kmsg).
fn kernel_text(record: &str) -> Option<&str> {
    let (header, text) = record.split_once(';')?;
    let priority: u32 = header.split(',').next()?.parse().ok()?;
    let text = text.lines().next()?;
    (priority < 8).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_kernels_own_records_count() {
        let kernel = "6,339,5140900,-;ima: policy update completed\n SUBSYSTEM=x\n";
        assert_eq!(kernel_text(kernel), Some("ima: policy update completed"));
        let forged = "30,340,5140900,-;ima: policy update completed\n";
        assert_eq!(kernel_text(forged), None);
    }

    #[test]
    fn the_last_word_counts() {
        let mut log = KernelLog {
            kmsg: None,
            lines: vec!["ima: policy update completed".into()],
        };
        assert_eq!(log.policy_update(), Some(true));
        log.lines.push("ima: policy update failed".into());
        assert_eq!(log.policy_update(), Some(false));
        log.lines.clear();
        assert_eq!(log.policy_update(), None);
    }

    proptest! {
        #[test]
        fn hostile_records_do_no_harm(record in "\\PC{0,100}") {
            let _ = kernel_text(&record);
        }
    }
}
