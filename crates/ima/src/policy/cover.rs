//! Whether a policy protects a system: whether it demands a signature of everything that is executed or goes into the kernel.
//!
//! A condition narrows an appraise rule to some accesses, and whoever is not trusted chooses on which side of it an access
//! falls. The file system's type, magic number and UUID, the file's owner and group, and labels are chosen by whoever writes the
//! disk. A process with all capabilities may have any user ID (`AmbientCapabilities=`, `security.capability`). Such a rule
//! therefore does not count; only a rule without these conditions does.

use std::fmt;

use super::{Access, Action, Comparison, Hook, Line, Mask, Policy, Query, Rule};
use crate::fault::{Code, Fault};
use crate::filesystem::{RAMFS_MAGIC, TMPFS_MAGIC};

/// The hooks that must be covered before the real root is executed: whatever is not appraised through one of them leads to an
/// unsigned program, module, rule or kernel.
pub const DEMANDED: [Hook; 6] = [
    Hook::BprmCheck,
    Hook::MmapCheck,
    Hook::ModuleCheck,
    Hook::PolicyCheck,
    Hook::KexecKernelCheck,
    Hook::KexecInitramfsCheck,
];

/// Whom the policy must hold to signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every process.
    Everyone,
    /// Processes with the effective user ID 0. A process with capabilities and another user ID is not held to the policy, so this
    /// is not a boundary against root.
    Root,
}

/// A hook that the policy leaves open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The hook.
    pub hook: Hook,
    /// Why it is open.
    pub cause: Cause,
}

/// Why a hook is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No rule appraises it.
    NoRule,
    /// The rule on this line (number, text) appraises it under a condition, and no rule appraises the rest.
    Condition(usize, String),
    /// The rule on this line (number, text) exempts files from appraisal.
    Exemption(usize, String),
    /// The rule on this line (number, text) takes a digest for a signature.
    Digest(usize, String),
}

impl Gap {
    /// The line that causes it, counted from 1; nothing where a rule is missing.
    pub const fn line(&self) -> Option<usize> {
        match &self.cause {
            Cause::NoRule => None,
            Cause::Condition(line, _) | Cause::Exemption(line, _) | Cause::Digest(line, _) => {
                Some(*line)
            }
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hook = self.hook.name();
        match &self.cause {
            Cause::NoRule => write!(f, "no rule appraises {hook}"),
            Cause::Condition(line, text) => write!(
                f,
                "{hook} is appraised only under the condition of line {line}: {text}"
            ),
            Cause::Exemption(line, text) => write!(f, "line {line} exempts {hook}: {text}"),
            Cause::Digest(line, text) => write!(
                f,
                "line {line} lets {hook} pass without a signature: {text}"
            ),
        }
    }
}

/// The file systems that a policy is asked about.
#[derive(Debug, Clone, Copy)]
pub enum On<'a> {
    /// Any that can hold a real root. Exemptions of file systems that exist in memory alone are passed over.
    Any,
    /// The one with this type and magic number (`s_magic`).
    This {
        /// Type as in /proc/filesystems.
        name: &'a str,
        /// Magic number.
        magic: u64,
    },
}

impl On<'_> {
    /// Whether a rule with these conditions can apply to a file there.
    fn may_match(self, rule: &Rule) -> bool {
        match self {
            Self::This { name, magic } => {
                rule.fsname.as_deref().is_none_or(|have| have == name)
                    && rule.fsmagic.is_none_or(|have| have == magic)
            }
            Self::Any => {
                !rule
                    .fsname
                    .as_deref()
                    .is_some_and(|name| IN_MEMORY.iter().any(|(have, _)| *have == name))
                    && !rule
                        .fsmagic
                        .is_some_and(|magic| IN_MEMORY.iter().any(|(_, have)| *have == magic))
            }
        }
    }
}

/// File systems that the kernel makes up or keeps in memory: none can hold a real root that was prepared elsewhere. Types and magic
/// numbers (include/uapi/linux/magic.h).
const IN_MEMORY: [(&str, u64); 20] = [
    ("rootfs", RAMFS_MAGIC),
    ("ramfs", RAMFS_MAGIC),
    ("tmpfs", TMPFS_MAGIC),
    ("devtmpfs", TMPFS_MAGIC),
    ("proc", 0x9fa0),
    ("sysfs", 0x6265_6572),
    ("devpts", 0x1cd1),
    ("securityfs", 0x7363_6673),
    ("debugfs", 0x6462_6720),
    ("tracefs", 0x7472_6163),
    ("cgroup", 0x0027_e0eb),
    ("cgroup2", 0x6367_7270),
    ("nsfs", 0x6e73_6673),
    ("bpf", 0xcafe_4a11),
    ("pstore", 0x6165_676c),
    ("efivarfs", 0xde5e_81e4),
    ("mqueue", 0x1980_0202),
    ("hugetlbfs", 0x9584_58f6),
    ("selinuxfs", 0xf97c_ff8c),
    ("smackfs", 0x4341_5d53),
];

/// Returns what is wrong with how a policy covers these file systems: [`Code::PolicyUncovered`], or the warning
/// [`Code::Uncovered`] where enforcement is not `required`; [`Code::RootOnly`] for one that covers root's processes alone, where
/// no more is asked for.
#[must_use]
pub fn fault(policy: &Policy, on: On<'_>, scope: Scope, required: bool) -> Option<Fault> {
    if let Some(gap) = policy.gap(&DEMANDED, on, scope) {
        let code = match required {
            true => Code::PolicyUncovered,
            false => Code::Uncovered,
        };
        return Some(Fault::new(code, gap.to_string()));
    }
    let gap = policy.gap(&DEMANDED, on, Scope::Everyone)?;
    Some(Fault::new(Code::RootOnly, gap.to_string()))
}

impl Policy {
    /// Whether a program of root's on a tmpfs needs a signature: the init tries it with an unsigned one, to prove that the
    /// policy is in force.
    pub fn appraises_tmpfs(&self) -> bool {
        let query = Query::by_root(Hook::BprmCheck, TMPFS_MAGIC, "tmpfs");
        self.appraisal(&query).is_some()
    }

    /// Whether the policy appraises programs, on some file system at least.
    pub fn appraises_programs(&self) -> bool {
        self.rules().any(|rule| {
            rule.action == Action::Appraise && rule.hook.is_none_or(|hook| hook == Hook::BprmCheck)
        })
    }

    /// Returns the first of `hooks` through which something passes on these file systems without a signature, if there is one.
    ///
    /// The answer does not depend on who accesses a file, nor on anything that is written on the disk. It follows the kernel's
    /// order: the first `appraise` or `dont_appraise` rule that matches decides (`ima_match_policy`).
    pub fn gap(&self, hooks: &[Hook], on: On<'_>, scope: Scope) -> Option<Gap> {
        self.gaps(hooks, on, scope).next()
    }

    /// Returns every one of `hooks` that is open, in their order.
    pub fn gaps<'a>(
        &'a self,
        hooks: &'a [Hook],
        on: On<'a>,
        scope: Scope,
    ) -> impl Iterator<Item = Gap> + 'a {
        hooks.iter().filter_map(move |&hook| {
            let cause = self.open(hook, on, scope)?;
            Some(Gap { hook, cause })
        })
    }

    fn open(&self, hook: Hook, on: On<'_>, scope: Scope) -> Option<Cause> {
        let mut narrowed: Option<&Line> = None;
        let mut named = !needs_its_own_rule(hook);
        for line in self.lines() {
            let rule = &line.rule;
            if !is_for(rule, hook) || !on.may_match(rule) {
                continue;
            }
            let text = || line.text.clone();
            match rule.action {
                Action::DontAppraise => return Some(Cause::Exemption(line.number, text())),
                Action::Appraise if rule.appraise_type.is_none() => {
                    return Some(Cause::Digest(line.number, text()));
                }
                Action::Appraise => {
                    named |= rule.hook == Some(hook);
                    if is_for_all(rule, scope) && named {
                        return None;
                    }
                    narrowed.get_or_insert(line);
                }
                _ => {}
            }
        }
        Some(match narrowed {
            Some(line) if named => Cause::Condition(line.number, line.text.clone()),
            _ => Cause::NoRule,
        })
    }
}

/// Whether the kernel refuses what comes without a file (`init_module`, `kexec_load`, rules written to securityfs) only if a rule
/// names this very hook (`ima_appraise_flag` in ima_policy.c, `ima_load_data` in ima_main.c).
const fn needs_its_own_rule(hook: Hook) -> bool {
    matches!(
        hook,
        Hook::ModuleCheck | Hook::FirmwareCheck | Hook::PolicyCheck | Hook::KexecKernelCheck
    )
}

/// Whether the rule takes part in the decision for this hook at all.
fn is_for(rule: &Rule, hook: Hook) -> bool {
    let access = match hook {
        Hook::BprmCheck | Hook::MmapCheck | Hook::MmapCheckReqprot | Hook::CredsCheck => {
            Access::Exec
        }
        _ => Access::Read,
    };
    rule.hook.is_none_or(|have| have == hook)
        && rule
            .mask
            .is_none_or(|Mask { access: have, .. }| have == access)
}

/// Whether the rule has no condition but the hook's.
fn is_for_all(rule: &Rule, scope: Scope) -> bool {
    let user = rule.uid.is_none_or(|user| {
        scope == Scope::Root
            && user.effective
            && user.condition.comparison == Comparison::Equal
            && user.condition.id == 0
    });
    user && rule.gid.is_none()
        && rule.fowner.is_none()
        && rule.fgroup.is_none()
        && rule.fsmagic.is_none()
        && rule.fsname.is_none()
        && rule.fs_subtype.is_none()
        && rule.fsuuid.is_none()
        && rule.lsm.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Query;
    use proptest::prelude::*;

    const EXT4: On<'_> = On::This {
        name: "ext4",
        magic: 0xef53,
    };

    fn gap(text: &str, hook: Hook, on: On<'_>, scope: Scope) -> Option<Cause> {
        let policy = Policy::parse(text.as_bytes()).expect("a policy");
        policy.gap(&[hook], on, scope).map(|gap| gap.cause)
    }

    #[test]
    fn conditions_that_others_choose_do_not_count() {
        for condition in [
            "euid=0",
            "uid=0",
            "gid=0",
            "egid=0",
            "euid<1000",
            "fowner=0",
            "fgroup=0",
            "fsname=ext4",
            "fsmagic=0xef53",
            "fsuuid=5e1f0e4a-7c1b-4a57-9d0c-8f6f4be2a001",
            "obj_type=bin_t",
        ] {
            let rule = format!("appraise func=BPRM_CHECK {condition} appraise_type=imasig");
            for on in [EXT4, On::Any] {
                let open = gap(&rule, Hook::BprmCheck, on, Scope::Everyone);
                assert_eq!(open, Some(Cause::Condition(1, rule.clone())));
                let rest = format!("{rule}\nappraise func=BPRM_CHECK appraise_type=imasig");
                assert_eq!(gap(&rest, Hook::BprmCheck, on, Scope::Everyone), None);
                let exempt = format!(
                    "dont_appraise {condition}\nappraise func=BPRM_CHECK appraise_type=imasig"
                );
                let open = gap(&exempt, Hook::BprmCheck, on, Scope::Everyone);
                assert!(matches!(open, Some(Cause::Exemption(1, _))), "{exempt}");
            }
        }
    }

    #[test]
    fn only_euid_0_is_root() {
        for (condition, covered) in [
            ("euid=0", true),
            ("uid=0", false),
            ("euid<1", false),
            ("euid=1", false),
        ] {
            let rule = format!("appraise func=BPRM_CHECK {condition} appraise_type=imasig");
            let open = gap(&rule, Hook::BprmCheck, EXT4, Scope::Root);
            assert_eq!(open.is_none(), covered, "{condition}");
        }
    }

    #[test]
    fn exemptions_count_where_they_can_apply() {
        let rest = "appraise func=BPRM_CHECK appraise_type=imasig";
        for (exemption, on_ext4, on_any) in [
            ("dont_appraise fsname=squashfs", false, true),
            ("dont_appraise fsmagic=0x01021994", false, false),
            ("dont_appraise fsname=rootfs", false, false),
            ("dont_appraise func=FILE_CHECK", false, false),
            ("dont_appraise func=BPRM_CHECK mask=MAY_READ", false, false),
            ("dont_appraise", true, true),
        ] {
            for (on, open) in [(EXT4, on_ext4), (On::Any, on_any)] {
                let text = format!("{exemption}\n{rest}");
                let found = gap(&text, Hook::BprmCheck, on, Scope::Everyone);
                assert_eq!(found.is_some(), open, "{exemption} {on:?}");
            }
        }
    }

    #[test]
    fn what_comes_without_a_file_needs_a_rule_for_its_hook() {
        let all = "appraise appraise_type=imasig";
        assert_eq!(gap(all, Hook::BprmCheck, EXT4, Scope::Everyone), None);
        for hook in [Hook::ModuleCheck, Hook::PolicyCheck, Hook::KexecKernelCheck] {
            assert_eq!(
                gap(all, hook, EXT4, Scope::Everyone),
                Some(Cause::NoRule),
                "{hook:?}"
            );
            let named = format!(
                "{all}\nappraise func={} euid=5 appraise_type=imasig\n{all}",
                hook.name()
            );
            assert_eq!(gap(&named, hook, EXT4, Scope::Everyone), None, "{hook:?}");
        }
    }

    #[test]
    fn a_digest_is_no_signature() {
        let open = gap(
            "appraise func=BPRM_CHECK",
            Hook::BprmCheck,
            EXT4,
            Scope::Everyone,
        );
        assert!(matches!(open, Some(Cause::Digest(1, _))));
    }

    fn rule() -> impl Strategy<Value = String> {
        let id = || prop_oneof![Just("=0"), Just("=5"), Just(">4"), Just("<6")];
        (
            prop_oneof![Just("appraise"), Just("dont_appraise")],
            proptest::option::of(prop_oneof![
                Just("func=BPRM_CHECK"),
                Just("func=MMAP_CHECK"),
                Just("func=MODULE_CHECK"),
                Just("func=FILE_CHECK")
            ]),
            proptest::option::of(prop_oneof![
                Just("mask=MAY_READ"),
                Just("mask=^MAY_EXEC"),
                Just("mask=MAY_EXEC")
            ]),
            proptest::option::weighted(
                0.2,
                prop_oneof![
                    Just("fsmagic=0xef53"),
                    Just("fsname=ext4"),
                    Just("fsname=xfs")
                ],
            ),
            proptest::option::weighted(
                0.2,
                (
                    prop_oneof![Just("uid"), Just("euid"), Just("gid"), Just("egid")],
                    id(),
                ),
            ),
            proptest::option::weighted(0.2, (prop_oneof![Just("fowner"), Just("fgroup")], id())),
            any::<bool>(),
        )
            .prop_map(|(action, hook, mask, fs, process, file, signed)| {
                let mut words = vec![action.to_owned()];
                words.extend([hook, mask, fs].into_iter().flatten().map(str::to_owned));
                words.extend(
                    [process, file]
                        .into_iter()
                        .flatten()
                        .map(|(key, value)| format!("{key}{value}")),
                );
                if signed && action == "appraise" {
                    words.push("appraise_type=imasig".to_owned());
                }
                words.join(" ")
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        /// Where no gap is found, the kernel demands a signature, whoever accesses whatever file.
        #[test]
        fn without_a_gap_every_access_needs_a_signature(
            rules in proptest::collection::vec(rule(), 1..6),
            at in 0_usize..3,
            root: bool,
            any: bool,
            xfs: bool,
            ids in proptest::collection::vec(proptest::array::uniform6(0_u32..8), 1..40),
        ) {
            let hook = [Hook::BprmCheck, Hook::MmapCheck, Hook::ModuleCheck][at];
            let policy = Policy::parse(rules.join("\n").as_bytes()).expect("a policy");
            let scope = if root { Scope::Root } else { Scope::Everyone };
            let (name, magic) = if xfs { ("xfs", 0x5846_5342) } else { ("ext4", 0xef53) };
            let on = if any { On::Any } else { On::This { name, magic } };
            if policy.gap(&[hook], on, scope).is_some() {
                return Ok(());
            }
            for [uid, euid, gid, egid, fowner, fgroup] in ids {
                let euid = if root { 0 } else { euid };
                let query = Query { uid, euid, gid, egid, fowner, fgroup, ..Query::by_root(hook, magic, name) };
                let rule = policy.appraisal(&query);
                prop_assert!(rule.is_some_and(|rule| rule.appraise_type.is_some()), "{query:?}");
            }
        }
    }
}
