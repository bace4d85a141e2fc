//! A policy alone on a root: what would be denied, by which hook and which rule.

use ima::certificate::Certificate;
use ima::policy::{Hook, Policy, Rule};
use ima::release::Release;

use super::Root;
use super::program::Examiner;
use crate::Result;
use crate::select::{self, Appraisal};
use crate::tree::Kind;
use crate::verify::Verdict;

/// A file that would be denied.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Its path below the root, without a leading slash.
    pub path: Vec<u8>,
    /// What is wrong with it.
    pub verdict: Verdict,
    /// What is denied, and the line of the rule that does.
    pub hooks: Vec<(Hook, usize)>,
}

/// What a policy makes of the files of a root.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// How many files a rule appraises.
    pub appraised: usize,
    /// Those of them that would be denied, by path.
    pub denied: Vec<Refused>,
}

/// Which files of `root` a kernel with these certificates on its keyring would deny under `policy`. Where `certificates` is empty
/// every signature is by an unknown key. `evm` are the certificates for EVM, which is on if there is one. `kernel` is the kernel's
/// release; nothing for one before [`SIGV3_FILES`](crate::verify::SIGV3_FILES).
///
/// # Errors
///
/// [`Code::InputUnreadable`](ima::fault::Code::InputUnreadable) for a file that cannot be read again.
pub fn simulate(
    root: &Root,
    policy: &Policy,
    certificates: &[Certificate],
    evm: &[Certificate],
    kernel: Option<Release>,
) -> Result<Simulation> {
    let appraisal = Appraisal::new(policy.clone(), root.filesystem.clone());
    let mut examiner = Examiner {
        noexec: false,
        tree: &root.tree,
        appraisal: &appraisal,
        certificates,
        evm,
        hmac: false,
        evm_sigv3: false,
        kernel: appraisal.oldest(kernel),
        evm_layout: None,
        machine: None,
        denied: std::collections::HashMap::new(),
    };
    let appraised = examiner.appraise();
    let mut refused = Vec::new();
    for (name, index) in root.tree.names() {
        let inode = root.tree.inode(index);
        let (Some(verdict), Kind::File(content)) = (examiner.denied.get(name), &inode.kind) else {
            continue;
        };
        let head = content.head(select::HEAD)?;
        let seen = select::File::of(name, inode, &head);
        let hooks: Vec<(Hook, usize)> = appraisal
            .appraised(&seen)
            .filter(|appraised| !takes(appraised.rule, verdict))
            .map(|appraised| (appraised.hook, appraised.line))
            .collect();
        if !hooks.is_empty() {
            refused.push(Refused {
                path: name.to_vec(),
                verdict: verdict.clone(),
                hooks,
            });
        }
    }
    refused.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Simulation {
        appraised,
        denied: refused,
    })
}

/// Whether a rule lets through what another one does not, or what is not a good signature: without `appraise_type=` the file's own
/// digest is enough (`xattr_verify`, ima_appraise.c).
fn takes(rule: &Rule, verdict: &Verdict) -> bool {
    match verdict {
        Verdict::OtherKind(good, _) => (**good).clone().under(rule).is_good(),
        Verdict::DigestOnly { matches } => *matches && rule.appraise_type.is_none(),
        _ => false,
    }
}
