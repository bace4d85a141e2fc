//! Whether the policy is in force: what the kernel is asked, in which order, and which answers are proofs.

use ima::config::Enforce;
use ima::fault::{Code, Fault};

use super::reading::Wanted;
use crate::canary::Execution;
use crate::kernel_log::PolicyUpdate;
use crate::report::{Proof, Report};

/// The kernel, as far as the proofs depend on it.
pub(super) trait Kernel {
    /// Tries to execute a file that nobody signed.
    fn execute_unsigned(&self) -> Execution;
    /// Whether it refuses a `security.ima` of an unknown type, as it does only if it appraises.
    fn appraises(&self) -> bool;
    /// Loads the policy into it.
    fn load(&mut self, wanted: &Wanted) -> Result<(), Fault>;
    /// What its log records of the policy.
    fn recorded(&mut self) -> PolicyUpdate;
    /// What IMA wrote to its log, for a message.
    fn messages(&self) -> String;
    /// Whether it shows the policy; a fault if it shows another.
    fn shows(&self, wanted: &Wanted) -> Result<bool, Fault>;
}

/// What the policy, once in force, must do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// The unsigned file is appraised.
    pub(super) canary: bool,
    /// Programs are appraised, on some file system at least.
    pub(super) programs: bool,
}

impl Expected {
    pub(super) fn of(wanted: &Wanted) -> Self {
        Self {
            canary: wanted.policy.appraises_tmpfs(),
            programs: wanted.policy.appraises_programs(),
        }
    }
}

/// Loads the policy and proves that it is in force. Returns the proofs.
pub(super) fn prove(
    kernel: &mut impl Kernel,
    wanted: &Wanted,
    expected: Expected,
    report: &mut Report,
) -> Result<Vec<Proof>, Fault> {
    let before = kernel.execute_unsigned();
    kernel.load(wanted)?;
    let mut proofs = Vec::new();
    match kernel.recorded() {
        PolicyUpdate::Completed => proofs.push(Proof::Record),
        PolicyUpdate::Failed => {
            let messages = kernel.messages();
            let detail = format!("{}: the kernel says: {messages}", wanted.path);
            return Err(Fault::new(Code::PolicyNotRecorded, detail));
        }
        PolicyUpdate::NotRecorded => {}
    }
    if kernel.shows(wanted)? {
        proofs.push(Proof::ReadBack);
    }
    if expected.canary {
        denial(kernel, before, wanted.enforce, &mut proofs, report)?;
    }
    if proofs.is_empty() {
        let detail = format!("{}: neither its log nor its policy shows it", wanted.path);
        return Err(Fault::new(Code::PolicyNotRecorded, detail));
    }
    // It is proved that the kernel has the rules. Where the canary cannot show that it enforces them:
    if expected.programs && !expected.canary {
        report.warn(Fault::new(Code::TmpfsFree, wanted.path));
        appraisal(kernel, wanted.enforce, &mut proofs, report)?;
    }
    Ok(proofs)
}

/// Proves that a policy which another process loaded is in force. Returns the proofs.
pub(super) fn prove_again(
    kernel: &mut impl Kernel,
    wanted: &Wanted,
    expected: Expected,
    report: &mut Report,
) -> Result<Vec<Proof>, Fault> {
    let missing = |detail: String| Fault::new(Code::PolicyNotLoaded, detail);
    let mut proofs = Vec::new();
    if expected.canary {
        match kernel.execute_unsigned() {
            Execution::Denied => proofs.push(Proof::Canary),
            result => {
                let detail = format!("executing an unsigned file: {result}");
                if wanted.enforce == Enforce::Required {
                    return Err(missing(detail));
                }
                report.warn(Fault::new(Code::NotEnforced, detail));
            }
        }
    }
    if kernel
        .shows(wanted)
        .map_err(|fault| missing(fault.detail().to_owned()))?
    {
        proofs.push(Proof::ReadBack);
    } else if kernel.recorded() == PolicyUpdate::Completed {
        // The record may be of another policy, so it counts only where the kernel does not show the rules.
        proofs.push(Proof::Record);
    }
    if proofs.is_empty() {
        let detail = format!(
            "{}: neither the kernel's log nor its policy shows it",
            wanted.path
        );
        return Err(missing(detail));
    }
    if expected.programs && !expected.canary {
        appraisal(kernel, wanted.enforce, &mut proofs, report)?;
    }
    Ok(proofs)
}

/// Requires that the canary is denied, once the policy is loaded.
fn denial(
    kernel: &impl Kernel,
    before: Execution,
    enforce: Enforce,
    proofs: &mut Vec<Proof>,
    report: &mut Report,
) -> Result<(), Fault> {
    match kernel.execute_unsigned() {
        Execution::Denied => {
            // If it was denied before too, this is not proof of this policy.
            if before == Execution::NotAProgram {
                proofs.push(Proof::Canary);
            }
            Ok(())
        }
        result => {
            let detail = format!("executing an unsigned file: {result}");
            if enforce == Enforce::Required {
                return Err(Fault::new(Code::PolicyNotInForce, detail));
            }
            report.warn(Fault::new(Code::NotEnforced, detail));
            Ok(())
        }
    }
}

/// Requires that the kernel appraises, for a policy with an exception for the canary. That no parameter of the command line
/// turns appraisal off was checked before.
fn appraisal(
    kernel: &impl Kernel,
    enforce: Enforce,
    proofs: &mut Vec<Proof>,
    report: &mut Report,
) -> Result<(), Fault> {
    if kernel.appraises() {
        proofs.push(Proof::Appraisal);
        return Ok(());
    }
    let detail = "the kernel takes any security.ima: it does not appraise";
    if enforce == Enforce::Required {
        return Err(Fault::new(Code::PolicyNotInForce, detail));
    }
    report.warn(Fault::new(Code::NotEnforced, detail));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno::Errno;
    use ima::policy::Policy;

    use proptest::prelude::*;

    /// A kernel with any answers.
    #[derive(Debug, Clone)]
    struct Fake {
        before: Execution,
        loaded: Execution,
        takes: bool,
        record: PolicyUpdate,
        shown: Result<bool, ()>,
        appraises: bool,
        is_loaded: bool,
    }

    impl Kernel for Fake {
        fn execute_unsigned(&self) -> Execution {
            if self.is_loaded {
                self.loaded
            } else {
                self.before
            }
        }

        fn appraises(&self) -> bool {
            self.appraises
        }

        fn load(&mut self, _: &Wanted) -> Result<(), Fault> {
            self.is_loaded = self.takes;
            if self.takes {
                Ok(())
            } else {
                Err(Fault::new(Code::PolicyRefused, "a rule"))
            }
        }

        fn recorded(&mut self) -> PolicyUpdate {
            self.record
        }

        fn messages(&self) -> String {
            String::new()
        }

        fn shows(&self, _: &Wanted) -> Result<bool, Fault> {
            self.shown
                .map_err(|()| Fault::new(Code::PolicyReadBack, "other rules"))
        }
    }

    fn execution() -> impl Strategy<Value = Execution> {
        prop_oneof![
            Just(Execution::Denied),
            Just(Execution::NotAProgram),
            Just(Execution::Failed(Errno::IO)),
        ]
    }

    fn update() -> impl Strategy<Value = PolicyUpdate> {
        prop_oneof![
            Just(PolicyUpdate::Completed),
            Just(PolicyUpdate::Failed),
            Just(PolicyUpdate::NotRecorded),
        ]
    }

    prop_compose! {
        fn kernel()(
            before in execution(),
            loaded in execution(),
            takes: bool,
            record in update(),
            shown: Result<bool, ()>,
            appraises: bool,
        ) -> Fake {
            Fake { before, loaded, takes, record, shown, appraises, is_loaded: false }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn no_answer_of_a_kernel_lets_the_boot_go_on_without_proof(
            fake in kernel(), canary: bool, programs: bool, required: bool,
        ) {
            let enforce = if required { Enforce::Required } else { Enforce::Permissive };
            let wanted = Wanted {
                path: "policy",
                text: Vec::new(),
                policy: Policy::default(),
                cover: ima::config::Cover::Everyone,
                enforce,
            };
            let mut kernel = fake.clone();
            let mut report = Report::default();
            let result = prove(&mut kernel, &wanted, Expected { canary, programs }, &mut report);
            let warned = report.warnings().iter().any(|warning| warning.code() == Code::NotEnforced);
            let Ok(proofs) = result else {
                // A kernel that enforces the policy is not refused.
                let sound = fake.takes
                    && fake.record == PolicyUpdate::Completed
                    && fake.shown == Ok(true)
                    && fake.loaded == Execution::Denied
                    && fake.appraises;
                prop_assert!(!sound, "{fake:?}");
                return Ok(());
            };
            prop_assert!(fake.takes && fake.record != PolicyUpdate::Failed && fake.shown.is_ok());
            prop_assert!(!proofs.is_empty());
            for proof in &proofs {
                prop_assert!(match *proof {
                    Proof::Record => fake.record == PolicyUpdate::Completed,
                    Proof::ReadBack => fake.shown == Ok(true),
                    Proof::Canary => fake.before == Execution::NotAProgram && fake.loaded == Execution::Denied,
                    Proof::Appraisal => fake.appraises,
                }, "{proof:?} of {fake:?}");
            }
            // Enforced where that is required, and a warning where it is not.
            let enforced = match (canary, programs) {
                (true, _) => fake.loaded == Execution::Denied,
                (false, true) => fake.appraises,
                (false, false) => true,
            };
            prop_assert!(enforced || (!required && warned), "{fake:?}");
        }

        #[test]
        fn the_second_half_does_not_go_on_without_proof(
            fake in kernel(), canary: bool, programs: bool, required: bool,
        ) {
            let enforce = if required { Enforce::Required } else { Enforce::Permissive };
            let wanted = Wanted {
                path: "policy",
                text: Vec::new(),
                policy: Policy::default(),
                cover: ima::config::Cover::Everyone,
                enforce,
            };
            let mut kernel = fake.clone();
            let mut report = Report::default();
            let result = prove_again(&mut kernel, &wanted, Expected { canary, programs }, &mut report);
            prop_assert!(!kernel.is_loaded);
            let warned = report.warnings().iter().any(|warning| warning.code() == Code::NotEnforced);
            let Ok(proofs) = result else {
                let sound = fake.before == Execution::Denied && fake.shown == Ok(true) && fake.appraises;
                prop_assert!(!sound, "{fake:?}");
                return Ok(());
            };
            prop_assert!(!proofs.is_empty() && fake.shown.is_ok());
            for proof in &proofs {
                prop_assert!(match *proof {
                    Proof::Record => fake.record == PolicyUpdate::Completed,
                    Proof::ReadBack => fake.shown == Ok(true),
                    Proof::Canary => fake.before == Execution::Denied,
                    Proof::Appraisal => fake.appraises,
                }, "{proof:?} of {fake:?}");
            }
            let enforced = match (canary, programs) {
                (true, _) => fake.before == Execution::Denied,
                (false, true) => fake.appraises,
                (false, false) => true,
            };
            prop_assert!(enforced || (!required && warned), "{fake:?}");
        }
    }
}
