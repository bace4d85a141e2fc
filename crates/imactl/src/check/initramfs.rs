//! An initramfs with a list of signatures: whether what is executed there until the root is mounted may run.

use ima::config::Config;
use ima::fault::{Code, Fault};
use ima::layout::{self, Purpose};
use ima::policy::Policy;
use ima::program::{self, FRONTED_INIT};

use super::libraries::Libraries;
use super::program::{Examiner, shown};
use super::{Findings, Inputs};
use crate::Result;
use crate::initramfs::signatures::{appraisal, is_appraised, parsed, signed_tree};
use crate::initramfs::{InitramfsBuilder, Place};

/// How many files without a signature are named.
const NAMED: usize = 8;

impl Findings {
    /// What of an initramfs that the init moves into a tmpfs would be denied there. A file that nothing needs for sure is a warning:
    /// not all of them are executed at each boot.
    pub(super) fn initramfs(
        &mut self,
        initramfs: &InitramfsBuilder,
        policy: &Policy,
        hmac: bool,
        config: &Config,
        inputs: &Inputs<'_>,
    ) -> Result<()> {
        let tree = signed_tree(initramfs, initramfs.tree()?, policy, hmac)?;
        let appraisal = appraisal(policy.clone());
        let certificates = parsed(initramfs, Purpose::Ima);
        let evm = parsed(initramfs, Purpose::Evm);
        let mut examiner = Examiner {
            noexec: false,
            tree: &tree,
            appraisal: &appraisal,
            certificates: &certificates,
            evm: &evm,
            hmac,
            evm_sigv3: config.evm_sigv3,
            kernel: appraisal.oldest(inputs.number()),
            evm_layout: None,
            machine: initramfs.machine(),
            denied: std::collections::HashMap::new(),
        };
        examiner.appraise();
        if initramfs.place() != Place::Alone {
            self.other_init(&examiner)?;
        }
        let mut denied = Vec::new();
        for name in examiner.denied.keys() {
            let inode = tree.get(name);
            if inode.is_some_and(|inode| is_appraised(&appraisal, name, inode) == Ok(true)) {
                denied.push(name);
            }
        }
        denied.sort_unstable();
        if !denied.is_empty() {
            let names: Vec<String> = denied.iter().take(NAMED).map(|name| shown(name)).collect();
            let more = match denied.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let detail = format!("{}{more}", names.join(", "));
            self.faults.push(Fault::new(Code::FrontedUnsigned, detail));
        }
        Ok(())
    }

    /// The initramfs's own init, this init as it is started there again, and what both link to.
    fn other_init(&mut self, examiner: &Examiner<'_>) -> Result<()> {
        let command = program::fronted_command(examiner, layout::FRONTED_INIT)?;
        let mut libraries = Libraries::new(examiner);
        for program in [command.program.as_slice(), layout::PROGRAM.as_bytes()] {
            program::runs(examiner, program, &FRONTED_INIT, &FRONTED_INIT)?;
            for fault in libraries.check(program) {
                let code = if fault.code() == Code::LibraryDenied {
                    Code::FrontedInitDenied
                } else {
                    Code::FrontedInit
                };
                self.faults.push(Fault::new(code, fault.detail()));
            }
        }
        Ok(())
    }
}
