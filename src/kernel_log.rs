//! The kernel's own records of policy updates and of files that it denied, from `/dev/kmsg`.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::mem::MaybeUninit;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use ima::audit::{self, IntegrityRecord};
use ima::kmsg;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use crate::errno::Errno;

/// How many records are read at most. A policy update or a denial writes only a few.
const MAX_RECORDS: usize = 4096;

/// The longest record with what the kernel writes before and behind its text (CONSOLE_EXT_LOG_MAX of older kernels).
const ROOM: usize = 8192;

/// How often, and how long each time, a record of the audit system is waited for. A kernel thread writes it a moment after
/// the event (kernel/audit.c, `kauditd_thread`). Many short waits instead of a long one, because a virtual machine may be
/// paused for longer than the whole time: this process and the thread then both run on in between. Kernels without
/// CONFIG_INTEGRITY_AUDIT write no such record.
const PAUSES: usize = 30;
const PAUSE: Duration = Duration::from_millis(50);

/// What the kernel's log says of the last policy update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyUpdate {
    /// The kernel took the policy.
    Completed,
    /// The kernel refused the policy.
    Failed,
    /// The log has no such record, or cannot be read.
    NotRecorded,
}

/// The kernel's log from a moment on; empty where it cannot be read.
#[derive(Debug)]
pub struct KernelLog {
    kmsg: Option<File>,
    lines: Vec<String>,
}

impl KernelLog {
    /// Remembers where the log ends now.
    pub fn from_now() -> Self {
        Self::from(SeekFrom::End(0))
    }

    /// The whole log, as far as the kernel still has it.
    pub fn from_start() -> Self {
        Self::from(SeekFrom::Start(0))
    }

    fn from(place: SeekFrom) -> Self {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let kmsg = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open("/dev/kmsg")
            .and_then(|mut kmsg| kmsg.seek(place).map(|_| kmsg))
            .ok();
        Self {
            kmsg,
            lines: Vec::new(),
        }
    }

    /// The last policy update since then.
    pub fn policy_update(&mut self) -> PolicyUpdate {
        self.read();
        let mut updates = self.lines.iter().rev();
        match updates.find_map(|line| kmsg::policy_update(line)) {
            Some(true) => PolicyUpdate::Completed,
            Some(false) => PolicyUpdate::Failed,
            None => PolicyUpdate::NotRecorded,
        }
    }

    /// IMA's messages since then that were read.
    pub fn ima_messages(&self) -> String {
        let messages: Vec<&str> = self
            .lines
            .iter()
            .map(String::as_str)
            .filter(|line| kmsg::is_of_ima(line))
            .collect();
        messages.join("; ")
    }

    /// The kernel's messages about the device mapper since then.
    pub fn device_mapper(&mut self) -> String {
        self.read();
        let messages = self.lines.iter();
        let messages = messages.filter_map(|line| kmsg::device_mapper(line));
        messages.collect::<Vec<_>>().join("; ")
    }

    /// The cause that the kernel recorded when it denied this process a file since then, such as `IMA-signature-required` or
    /// `invalid-signature` (security/integrity/integrity_audit.c, `integrity_audit_message`).
    pub fn denial(&mut self) -> Option<String> {
        self.wait_for(|line| denial_cause(line, std::process::id()))
    }

    /// The beginning of a rule that the kernel refused since then, up to the keyword that it does not know.
    pub fn refused_rule(&mut self) -> Option<String> {
        self.wait_for(|line| audit::refused_rule(line).map(str::to_owned))
    }

    fn wait_for(&mut self, find: impl Fn(&str) -> Option<String>) -> Option<String> {
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(PAUSE.subsec_nanos()),
        };
        let mut pauses = 0..PAUSES;
        for _ in 0..MAX_RECORDS {
            self.read();
            if let Some(found) = self.lines.iter().rev().find_map(|line| find(line)) {
                return Some(found);
            }
            let kmsg = self.kmsg.as_ref()?;
            match poll(&mut [PollFd::new(kmsg, PollFlags::IN)], Some(&pause)) {
                // There is another record; it may be the one.
                Ok(1..) => {}
                Ok(0) | Err(Errno::INTR) => drop(pauses.next()?),
                Err(_) => return None,
            }
        }
        None
    }

    fn read(&mut self) {
        let Some(kmsg) = &self.kmsg else { return };
        let mut buffer = [MaybeUninit::uninit(); ROOM];
        for _ in 0..MAX_RECORDS {
            let record = match rustix::io::read(kmsg, &mut buffer) {
                Ok(([], _)) => return,
                Ok((record, _)) => record,
                // Records were overwritten; the next read goes on behind them.
                Err(Errno::PIPE) => continue,
                Err(_) => return,
            };
            // The kernel escapes what is not ASCII (kernel/printk/printk.c, `msg_add_ext_text`).
            let text = std::str::from_utf8(record).ok().and_then(kmsg::kernel_text);
            if let Some(text) = text.filter(|text| is_kept(text)) {
                self.lines.push(text.to_owned());
            }
        }
    }
}

/// Whether a record is of IMA, the device mapper, or the audit system about integrity.
fn is_kept(text: &str) -> bool {
    kmsg::is_of_ima(text) || kmsg::device_mapper(text).is_some() || audit::is_of_integrity(text)
}

/// The cause in a record about a file that was denied to that process.
fn denial_cause(text: &str, process: u32) -> Option<String> {
    let record = IntegrityRecord::parse(text)?;
    (record.process == process && !record.succeeded).then_some(record.cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_a_denial_is_taken_from_its_record() {
        let record = "audit: type=1800 audit(1.5:7): pid=1 uid=0 auid=4294967295 ses=4294967295 op=appraise_data \
                      cause=IMA-signature-required comm=\"ima-init\" name=\"/rootfs/sbin/init\" dev=\"vda\" ino=14 res=0 errno=0";
        assert!(is_kept(record));
        assert_eq!(
            denial_cause(record, 1).as_deref(),
            Some("IMA-signature-required")
        );
        assert_eq!(denial_cause(record, 2), None, "another process");
        assert_eq!(denial_cause(&record.replace("res=0", "res=1"), 1), None);
    }

    #[test]
    fn the_last_policy_update_counts() {
        let mut log = KernelLog {
            kmsg: None,
            lines: vec!["ima: policy update completed".into()],
        };
        assert_eq!(log.policy_update(), PolicyUpdate::Completed);
        log.lines.push("ima: policy update failed".into());
        assert_eq!(log.policy_update(), PolicyUpdate::Failed);
        log.lines.clear();
        assert_eq!(log.policy_update(), PolicyUpdate::NotRecorded);
    }
}
