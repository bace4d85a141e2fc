//! A policy in plain words: what a kernel does at each hook, rule by rule.

use ima::policy::{
    Access, Action, AppraiseType, Comparison, Hook, IdCondition, LsmField, Policy, Rule,
};

/// What the kernel asks its policy about, in the order in which a reader wants to know.
pub const HOOKS: [(Hook, &str); 14] = [
    (
        Hook::BprmCheck,
        "a program, script or interpreter is executed",
    ),
    (
        Hook::MmapCheck,
        "a file is mapped executable: a library, a program's interpreter",
    ),
    (
        Hook::MmapCheckReqprot,
        "a file is mapped and asks to be executable",
    ),
    (
        Hook::CredsCheck,
        "a program's credentials are settled before it runs",
    ),
    (Hook::ModuleCheck, "a kernel module is loaded"),
    (Hook::FirmwareCheck, "firmware is loaded"),
    (Hook::FileCheck, "a file is opened"),
    (Hook::PolicyCheck, "a policy is loaded by its path"),
    (Hook::KexecKernelCheck, "a kernel is loaded for kexec"),
    (
        Hook::KexecInitramfsCheck,
        "an initramfs is loaded for kexec",
    ),
    (Hook::KexecCmdline, "kexec is given a command line"),
    (Hook::KeyCheck, "a key is added to a keyring"),
    (
        Hook::CriticalData,
        "a part of the kernel measures its own state",
    ),
    (Hook::SetxattrCheck, "security.ima is written"),
];

/// A rule at a hook.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its line in the file.
    pub line: usize,
    /// What happens, and to what.
    pub text: String,
    /// Whether anything happens: it does not where a rule exempts.
    pub acts: bool,
}

/// What happens at a hook: the steps are tried in order, and the first that fits decides. Nothing where no rule is for it.
#[must_use]
pub fn steps(policy: &Policy, hook: Hook, appraisal: bool) -> Vec<Step> {
    policy
        .lines()
        .iter()
        .filter(|line| {
            let of_hook = match line.rule.hook {
                Some(own) => own == hook,
                // A rule without func= is for no keys and no data (`ima_match_rules`).
                None => !matches!(
                    hook,
                    Hook::KeyCheck | Hook::CriticalData | Hook::SetxattrCheck
                ),
            };
            let appraises = matches!(line.rule.action, Action::Appraise | Action::DontAppraise);
            of_hook && appraises == appraisal
        })
        .map(|line| Step {
            line: line.number,
            text: rule(&line.rule),
            acts: !matches!(
                line.rule.action,
                Action::DontMeasure | Action::DontAppraise | Action::DontHash
            ),
        })
        .collect()
}

/// What happens at a hook, in words.
#[derive(Debug, Clone)]
pub struct Section {
    /// The hook.
    pub hook: Hook,
    /// When the kernel asks its policy there.
    pub when: &'static str,
    /// Whether this is about appraisal; else about measuring, auditing and hashing.
    pub appraisal: bool,
    /// The rules in order.
    pub steps: Vec<Step>,
    /// What happens if none of them fits; nothing if the last one always does.
    pub otherwise: Option<&'static str>,
}

/// What is said of everything that no section is about.
pub const EVERYTHING_ELSE: &str = "Everything else is let through unchecked and is not measured.";

/// A whole policy in words: a section for each hook at which something happens.
#[must_use]
pub fn sections(policy: &Policy) -> Vec<Section> {
    let mut sections = Vec::new();
    for (hook, when) in HOOKS {
        for appraisal in [true, false] {
            let steps = steps(policy, hook, appraisal);
            // Exemptions from nothing are not worth a word.
            if !steps.iter().any(|step| step.acts) {
                continue;
            }
            let conditional = steps.last().is_some_and(|step| step.text.contains(", if "));
            let otherwise = if appraisal {
                "let through unchecked"
            } else {
                "nothing"
            };
            sections.push(Section {
                hook,
                when,
                appraisal,
                steps,
                otherwise: conditional.then_some(otherwise),
            });
        }
    }
    sections
}

/// A rule as a sentence without its hook.
#[must_use]
pub fn rule(rule: &Rule) -> String {
    let mut text = match rule.action {
        Action::Measure => "measured".to_owned(),
        Action::DontMeasure => "not measured".to_owned(),
        Action::Audit => "written to the audit log".to_owned(),
        Action::DontAudit => "not written to the audit log".to_owned(),
        Action::Hash => "given its digest in security.ima".to_owned(),
        Action::DontHash => "given no digest".to_owned(),
        Action::DontAppraise => "let through unchecked".to_owned(),
        Action::Appraise if rule.hook == Some(Hook::SetxattrCheck) => format!(
            "only digests of {} may be written",
            rule.appraise_algos.join(", ")
        ),
        Action::Appraise => format!("denied without {}", wanted(rule)),
    };
    if let Some(pcr) = rule.pcr {
        text.push_str(&format!(" into PCR {pcr}"));
    }
    if let Some(template) = &rule.template {
        text.push_str(&format!(" with the template {template}"));
    }
    if rule.verity && rule.action == Action::Measure {
        text.push_str(" by its fs-verity digest");
    }
    let conditions = conditions(rule);
    if !conditions.is_empty() {
        text.push_str(", if ");
        text.push_str(&conditions.join(" and "));
    }
    text
}

/// What an appraised file must have.
fn wanted(rule: &Rule) -> String {
    let mut wanted = match rule.appraise_type {
        Some(AppraiseType::Imasig) => "a good signature",
        Some(AppraiseType::Sigv3) if rule.verity => "a good signature of its fs-verity digest",
        Some(AppraiseType::Sigv3) => "a good signature of version 3",
        Some(AppraiseType::ImasigOrModsig) => "a good signature in security.ima or appended to it",
        None => "a good signature, or its own digest in security.ima",
    }
    .to_owned();
    if !rule.appraise_algos.is_empty() {
        wanted.push_str(&format!(" ({})", rule.appraise_algos.join(", ")));
    }
    wanted
}

fn conditions(rule: &Rule) -> Vec<String> {
    let mut conditions = Vec::new();
    if let Some(mask) = rule.mask {
        let access = match mask.access {
            Access::Exec => "executing",
            Access::Write => "writing",
            Access::Read => "reading",
            Access::Append => "appending",
        };
        let only = if mask.among_others {
            ""
        } else {
            " and nothing else"
        };
        conditions.push(format!("it is for {access}{only}"));
    }
    if let Some(magic) = rule.fsmagic {
        let name = match magic {
            0x0102_1994 => " (tmpfs, memfd, /dev)",
            0x8584_58f6 => " (ramfs)",
            0xef53 => " (ext4)",
            0x9fa0 => " (proc)",
            0x6265_6572 => " (sysfs)",
            0x7371_7368 => " (squashfs)",
            0xe0f5_e1e2 => " (erofs)",
            0x794c_7630 => " (overlay)",
            _ => "",
        };
        conditions.push(format!("its file system's magic is 0x{magic:x}{name}"));
    }
    if let Some(name) = &rule.fsname {
        let initramfs = if name == "rootfs" {
            ", the initramfs"
        } else {
            ""
        };
        conditions.push(format!("its file system is {name}{initramfs}"));
    }
    if let Some(name) = &rule.fs_subtype {
        conditions.push(format!("its file system's subtype is {name}"));
    }
    if let Some(uuid) = rule.fsuuid {
        conditions.push(format!(
            "its file system is {}",
            ima::filesystem::Uuid(uuid)
        ));
    }
    let process = |effective: bool| {
        if effective {
            "process acts as"
        } else {
            "process is of"
        }
    };
    if let Some(uid) = rule.uid {
        let who = user(uid.condition, "user");
        conditions.push(format!("the {} {who}", process(uid.effective)));
    }
    if let Some(gid) = rule.gid {
        let who = user(gid.condition, "group");
        conditions.push(format!("the {} {who}", process(gid.effective)));
    }
    if let Some(owner) = rule.fowner {
        conditions.push(format!("the file is of {}", user(owner, "user")));
    }
    if let Some(group) = rule.fgroup {
        conditions.push(format!("the file is of {}", user(group, "group")));
    }
    for (field, label) in &rule.lsm {
        let whose = match field {
            LsmField::ObjUser | LsmField::ObjRole | LsmField::ObjType => "file",
            LsmField::SubjUser | LsmField::SubjRole | LsmField::SubjType => "process",
        };
        conditions.push(format!("the {whose} is labelled {label}"));
    }
    if !rule.keyrings.is_empty() {
        conditions.push(format!("the keyring is {}", rule.keyrings.join(" or ")));
    }
    if !rule.label.is_empty() {
        conditions.push(format!("the data are {}", rule.label.join(" or ")));
    }
    conditions
}

fn user(condition: IdCondition, kind: &str) -> String {
    match (condition.comparison, condition.id, kind) {
        (Comparison::Equal, 0, "user") => "root".to_owned(),
        (Comparison::Equal, id, _) => format!("{kind} {id}"),
        (Comparison::Greater, id, _) => format!("a {kind} above {id}"),
        (Comparison::Less, id, _) => format!("a {kind} below {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences() {
        for (text, sentence) in [
            (
                "appraise func=BPRM_CHECK euid=0 appraise_type=imasig",
                "denied without a good signature, if the process acts as root",
            ),
            (
                "dont_appraise fsname=rootfs",
                "let through unchecked, if its file system is rootfs, the initramfs",
            ),
            (
                "measure func=FILE_CHECK mask=^MAY_READ uid>999 pcr=11 template=ima-sig",
                "measured into PCR 11 with the template ima-sig, if it is for reading and the process is of a user above 999",
            ),
            (
                "appraise func=SETXATTR_CHECK appraise_algos=sha256,sha512",
                "only digests of sha256, sha512 may be written",
            ),
            (
                "appraise fowner=0",
                "denied without a good signature, or its own digest in security.ima, if the file is of root",
            ),
        ] {
            let policy = Policy::parse(text.as_bytes()).unwrap();
            assert_eq!(rule(policy.rules().next().unwrap()), sentence);
        }
    }

    #[test]
    fn every_rule_is_explained_at_its_hooks() {
        let text = "dont_appraise fsmagic=0x9fa0\nappraise func=BPRM_CHECK appraise_type=imasig\nmeasure func=KEY_CHECK\nmeasure\n";
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let lines = |hook, appraisal| -> Vec<usize> {
            steps(&policy, hook, appraisal)
                .iter()
                .map(|step| step.line)
                .collect()
        };
        assert_eq!(lines(Hook::BprmCheck, true), [1, 2]);
        assert_eq!(lines(Hook::ModuleCheck, true), [1]);
        assert_eq!(lines(Hook::KeyCheck, false), [3]);
        assert_eq!(lines(Hook::BprmCheck, false), [4]);
        assert_eq!(HOOKS.map(|(hook, _)| hook).len(), 14);
    }
}
