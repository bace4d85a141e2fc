//! Whether the policy is in force: what is asked of the kernel, in which order, and which answers are enough.

use ima::fault::{Code, Fault};

use super::Wanted;
use super::canary::Tried;
use crate::report::Report;

/// The kernel, as far as the proofs ask it.
pub(super) trait Kernel {
    /// Tries to execute a file that nobody signed.
    fn execute_unsigned(&self) -> Tried;
    /// Whether it refuses a `security.ima` that is none, as it does only if it appraises.
    fn appraises(&self) -> bool;
    /// Gives it the policy.
    fn load(&mut self, wanted: &Wanted) -> Result<(), Fault>;
    /// Whether its log says that the policy was taken; nothing if it does not say. What it says, for a message.
    fn recorded(&mut self) -> (Option<bool>, String);
    /// Whether it shows the policy; a fault if it shows another.
    fn shows(&self, wanted: &Wanted) -> Result<bool, Fault>;
}

/// What the policy, once in force, must do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// The unsigned file is appraised.
    pub(super) canary: bool,
    /// Programs are, on some file system at least.
    pub(super) programs: bool,
}

/// Loads the policy and proves that it is in force; gives the names of the proofs.
pub(super) fn prove(
    kernel: &mut impl Kernel,
    wanted: &Wanted,
    expected: Expected,
    report: &mut Report,
) -> Result<Vec<&'static str>, Fault> {
    let before = kernel.execute_unsigned();
    kernel.load(wanted)?;
    let mut proofs = Vec::new();
    match kernel.recorded() {
        (Some(true), _) => proofs.push("record"),
        (Some(false), words) => {
            let detail = format!("{}: the kernel says: {words}", wanted.path);
            return Err(Fault::new(Code::PolicyNotRecorded, detail));
        }
        (None, _) => {}
    }
    if kernel.shows(wanted)? {
        proofs.push("read-back");
    }
    if expected.canary {
        denial(kernel, before, wanted.required, &mut proofs, report)?;
    }
    if proofs.is_empty() {
        let detail = format!("{}: neither its log nor its policy shows it", wanted.path);
        return Err(Fault::new(Code::PolicyNotRecorded, detail));
    }
    // That the kernel has the rules is proved; what it does with them, where the canary cannot tell:
    if expected.programs && !expected.canary {
        report.warn(Fault::new(Code::TmpfsFree, wanted.path));
        appraisal(kernel, wanted.required, &mut proofs, report)?;
    }
    Ok(proofs)
}

/// Proves that a policy which another process loaded is in force; gives the names of the proofs.
pub(super) fn prove_again(
    kernel: &mut impl Kernel,
    wanted: &Wanted,
    expected: Expected,
    report: &mut Report,
) -> Result<Vec<&'static str>, Fault> {
    let missing = |detail: String| Fault::new(Code::PolicyNotLoaded, detail);
    let mut proofs = Vec::new();
    if expected.canary {
        match kernel.execute_unsigned() {
            Tried::Denied => proofs.push("canary"),
            result => {
                let detail = format!("executing an unsigned file: {result}");
                if wanted.required {
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
        proofs.push("read-back");
    } else if let (Some(true), _) = kernel.recorded() {
        // Of any policy, and so no more than a hint where the kernel shows the rules.
        proofs.push("record");
    }
    if proofs.is_empty() {
        let detail = format!(
            "{}: neither the kernel's log nor its policy shows it",
            wanted.path
        );
        return Err(missing(detail));
    }
    if expected.programs && !expected.canary {
        appraisal(kernel, wanted.required, &mut proofs, report)?;
    }
    Ok(proofs)
}

/// The canary must be denied now.
fn denial(
    kernel: &impl Kernel,
    before: Tried,
    required: bool,
    proofs: &mut Vec<&'static str>,
    report: &mut Report,
) -> Result<(), Fault> {
    match kernel.execute_unsigned() {
        Tried::Denied => {
            // Had it been denied before, it would prove nothing of this policy.
            if before == Tried::NoProgram {
                proofs.push("canary");
            }
            Ok(())
        }
        result => {
            let detail = format!("executing an unsigned file: {result}");
            if required {
                return Err(Fault::new(Code::PolicyNotInForce, detail));
            }
            report.warn(Fault::new(Code::NotEnforced, detail));
            Ok(())
        }
    }
}

/// Where the policy frees the canary, the kernel must at least be one that appraises; that no parameter turned it off, the
/// command line has told.
fn appraisal(
    kernel: &impl Kernel,
    required: bool,
    proofs: &mut Vec<&'static str>,
    report: &mut Report,
) -> Result<(), Fault> {
    if kernel.appraises() {
        proofs.push("appraisal");
        return Ok(());
    }
    let detail = "the kernel takes any security.ima: it does not appraise";
    if required {
        return Err(Fault::new(Code::PolicyNotInForce, detail));
    }
    report.warn(Fault::new(Code::NotEnforced, detail));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ima::policy::Policy;
    use nix::errno::Errno;
    use proptest::prelude::*;

    /// A kernel that answers whatever it likes.
    #[derive(Debug, Clone)]
    struct Fake {
        before: Tried,
        loaded: Tried,
        takes: bool,
        record: Option<bool>,
        shown: Option<bool>,
        appraises: bool,
        is_loaded: bool,
    }

    impl Kernel for Fake {
        fn execute_unsigned(&self) -> Tried {
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

        fn recorded(&mut self) -> (Option<bool>, String) {
            (self.record, String::new())
        }

        fn shows(&self, _: &Wanted) -> Result<bool, Fault> {
            self.shown
                .ok_or_else(|| Fault::new(Code::PolicyReadBack, "other rules"))
        }
    }

    fn tried() -> impl Strategy<Value = Tried> {
        prop_oneof![
            Just(Tried::Denied),
            Just(Tried::NoProgram),
            Just(Tried::Failed(Errno::EIO)),
        ]
    }

    prop_compose! {
        fn kernel()(
            before in tried(),
            loaded in tried(),
            takes: bool,
            record: Option<bool>,
            shown: Option<bool>,
            appraises: bool,
        ) -> Fake {
            Fake { before, loaded, takes, record, shown, appraises, is_loaded: false }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn nothing_that_a_kernel_answers_leads_on_without_proof(
            fake in kernel(), canary: bool, programs: bool, required: bool,
        ) {
            let wanted = Wanted {
                path: "policy",
                text: Vec::new(),
                policy: Policy::default(),
                cover: ima::config::Cover::Everyone,
                required,
            };
            let mut kernel = fake.clone();
            let mut report = Report::default();
            let result = prove(&mut kernel, &wanted, Expected { canary, programs }, &mut report);
            let warned = report.warnings().iter().any(|warning| warning.code() == Code::NotEnforced);
            let Ok(proofs) = result else {
                // A kernel that does all it must is not refused.
                let sound = fake.takes
                    && fake.record == Some(true)
                    && fake.shown == Some(true)
                    && fake.loaded == Tried::Denied
                    && fake.appraises;
                prop_assert!(!sound, "{fake:?}");
                return Ok(());
            };
            prop_assert!(fake.takes && fake.record != Some(false) && fake.shown.is_some());
            prop_assert!(!proofs.is_empty());
            for proof in &proofs {
                prop_assert!(match *proof {
                    "record" => fake.record == Some(true),
                    "read-back" => fake.shown == Some(true),
                    "canary" => fake.before == Tried::NoProgram && fake.loaded == Tried::Denied,
                    "appraisal" => fake.appraises,
                    _ => false,
                }, "{proof} of {fake:?}");
            }
            // Enforced where it is required, and said where it is not.
            let enforced = match (canary, programs) {
                (true, _) => fake.loaded == Tried::Denied,
                (false, true) => fake.appraises,
                (false, false) => true,
            };
            prop_assert!(enforced || (!required && warned), "{fake:?}");
        }

        #[test]
        fn no_second_half_goes_on_under_a_policy_that_nothing_proves(
            fake in kernel(), canary: bool, programs: bool, required: bool,
        ) {
            let wanted = Wanted {
                path: "policy",
                text: Vec::new(),
                policy: Policy::default(),
                cover: ima::config::Cover::Everyone,
                required,
            };
            let mut kernel = fake.clone();
            let mut report = Report::default();
            let result = prove_again(&mut kernel, &wanted, Expected { canary, programs }, &mut report);
            prop_assert!(!kernel.is_loaded);
            let warned = report.warnings().iter().any(|warning| warning.code() == Code::NotEnforced);
            let Ok(proofs) = result else {
                let sound = fake.before == Tried::Denied && fake.shown == Some(true) && fake.appraises;
                prop_assert!(!sound, "{fake:?}");
                return Ok(());
            };
            prop_assert!(!proofs.is_empty() && fake.shown.is_some());
            for proof in &proofs {
                prop_assert!(match *proof {
                    "record" => fake.record == Some(true),
                    "read-back" => fake.shown == Some(true),
                    "canary" => fake.before == Tried::Denied,
                    "appraisal" => fake.appraises,
                    _ => false,
                }, "{proof} of {fake:?}");
            }
            let enforced = match (canary, programs) {
                (true, _) => fake.before == Tried::Denied,
                (false, true) => fake.appraises,
                (false, false) => true,
            };
            prop_assert!(enforced || (!required && warned), "{fake:?}");
        }
    }
}
