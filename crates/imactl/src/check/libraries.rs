//! The libraries of the init and of what systemd starts: the dynamic loader maps them before the first instruction of the program,
//! and one that is denied ends PID 1 and with it the machine.

use std::collections::BTreeSet;

use ima::fault::{Code, Fault};

use super::program::{Examiner, shown};
use crate::loader::{Failure, Loaders};

/// The libraries of a root under a policy.
pub(super) struct Libraries<'a> {
    examiner: &'a Examiner<'a>,
    loaders: Loaders<'a>,
}

impl<'a> Libraries<'a> {
    pub(super) fn new(examiner: &'a Examiner<'a>) -> Self {
        Self {
            examiner,
            loaders: Loaders::new(examiner.tree),
        }
    }

    /// The faults in what a program's loader maps. Where that depends on the processor, which is not known here, the libraries
    /// for each kind of processor must be good.
    pub(super) fn check(&mut self, program: &[u8]) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut known: BTreeSet<String> = BTreeSet::new();
        for resolution in self.loaders.resolve(program) {
            let failures = resolution.failures.iter().map(missing);
            let denied = resolution
                .libraries
                .iter()
                .filter(|library| !library.optional)
                .filter_map(|library| self.examiner.check_library(&library.path).err());
            for fault in failures.chain(denied) {
                if !known.insert(fault.detail().to_owned()) {
                    continue;
                }
                faults.push(match &resolution.processor {
                    Some(processor) => {
                        let detail = format!("{} (on a {processor} processor)", fault.detail());
                        Fault::new(fault.code(), detail)
                    }
                    None => fault,
                });
            }
        }
        faults
    }
}

fn missing(failure: &Failure) -> Fault {
    let Failure { name, by, unusable } = failure;
    let mut detail = format!("{}, which {} needs", shown(name), shown(by));
    if let Some((path, why)) = unusable {
        detail.push_str(&format!("; the loader ends at {}: {why}", shown(path)));
    }
    Fault::new(Code::LibraryMissing, detail)
}
