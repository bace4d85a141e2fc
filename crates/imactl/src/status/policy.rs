//! The policy in force.

use serde::Serialize;

use super::init_report::InitReport;
use super::item::{Check, Item, State, count};
use super::system::System;

/// The kernel's rules, where it has `CONFIG_IMA_READ_POLICY`.
const POLICY: &str = "/sys/kernel/security/ima/policy";

/// What the kernel shows of its policy.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// How many rules it has.
    pub rules: usize,
    /// Whether a rule of it appraises programs.
    pub appraises_programs: bool,
    /// The rules that are known here.
    #[serde(skip)]
    pub policy: ima::policy::Policy,
}

/// What is known of the policy.
#[derive(Debug, Clone, Serialize)]
pub struct Policy {
    /// `required` or `permissive`, as the init was configured; nothing without its report.
    pub enforce: Option<String>,
    /// The policy's file in the initramfs.
    pub path: Option<String>,
    /// How many rules that has.
    pub rules: Option<u64>,
    /// How the init proved that it is in force.
    pub proofs: Vec<String>,
    /// The rules that the kernel shows; nothing if it shows none, or not to this user.
    pub shown: Option<Shown>,
    /// Whether programs are appraised and denied, as far as is known.
    pub in_force: bool,
    #[serde(skip)]
    problem: Option<String>,
}

impl Policy {
    pub(super) fn of(system: &System, report: Option<&InitReport>, weakened: Option<&str>) -> Self {
        let shown = system.read(POLICY).ok().map(|text| {
            // A newer kernel may show a rule that is not known here.
            let policy = ima::policy::Policy::parse_known(&text);
            Shown {
                rules: text
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty())
                    .count(),
                appraises_programs: policy.appraises_programs(),
                policy,
            }
        });
        let proofs: Vec<String> = report
            .map(|report| report.proofs().into_iter().map(str::to_owned).collect())
            .unwrap_or_default();
        let problem = problem(report, shown.as_ref(), &proofs, weakened);
        Self {
            enforce: report.map(|report| report.enforce.clone()),
            path: report.map(|report| report.policy.path.clone()),
            rules: report.map(|report| report.policy.rules),
            proofs,
            shown,
            in_force: problem.is_none(),
            problem,
        }
    }

    pub(super) fn check(&self) -> Check {
        if let Some(problem) = &self.problem {
            return Check::new(Item::Policy, State::Failed, problem.as_str());
        }
        let path = self.path.as_deref().unwrap_or_default();
        let rules = count(self.rules.unwrap_or_default(), "rule");
        let proofs = self.proofs.join(", ");
        let text = format!("in force: {path}, {rules}; proved at boot by {proofs}");
        Check::new(Item::Policy, State::Good, text)
    }
}

/// Why the policy is not in force, or why that cannot be told.
fn problem(
    report: Option<&InitReport>,
    shown: Option<&Shown>,
    proofs: &[String],
    weakened: Option<&str>,
) -> Option<String> {
    if let Some(parameter) = weakened {
        return Some(format!("not enforced: {parameter} is on the command line"));
    }
    let Some(report) = report else {
        return Some(match shown {
            None => {
                "cannot tell: the init left no report, and the kernel shows no rules".to_owned()
            }
            Some(shown) if !shown.appraises_programs => {
                "not enforced: no rule that the kernel shows appraises programs".to_owned()
            }
            Some(shown) => {
                let rules = count(shown.rules as u64, "rule");
                format!(
                    "cannot tell: the kernel shows {rules} that appraise programs, and nothing has proved them"
                )
            }
        });
    };
    if report.enforce != "required" {
        return Some(format!(
            "permissive: the init booted with enforce={} and would have booted without enforcement",
            report.enforce
        ));
    }
    if proofs.is_empty() {
        return Some("cannot tell: the init recorded no proof".to_owned());
    }
    let shown = shown?;
    if !shown.appraises_programs {
        return Some("not enforced: no rule that the kernel shows appraises programs".to_owned());
    }
    if (shown.rules as u64) < report.policy.rules {
        return Some(format!(
            "the kernel shows {}, and the init loaded {}",
            count(shown.rules as u64, "rule"),
            report.policy.rules
        ));
    }
    None
}
