//! What the check of a boot finds.

use ima::fault::{Fault, Severity};

use super::systemd::Denied;
use crate::Result;
use crate::kernel::command_line::FixedBy;
use crate::verify::Verdict;

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// In the order of the boot: the first refusal is what the init would say.
    pub faults: Vec<Fault>,
    /// The files of the root that would be denied, and why; switch_root, init and what they need are among them.
    pub denied: Vec<(Vec<u8>, Verdict)>,
    /// The programs that systemd starts on the way to its default target and that would be denied.
    pub services: Vec<Denied>,
    /// What fixes the kernel command line, if anything is known of that.
    pub command_line: Option<FixedBy>,
}

impl Findings {
    /// What the init would refuse, if anything.
    #[must_use]
    pub fn refusal(&self) -> Option<&Fault> {
        self.faults
            .iter()
            .find(|fault| fault.code().entry().severity == Severity::Refusal)
    }

    pub(super) fn add<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|fault| self.faults.push(fault)).ok()
    }
}
