//! What a kernel takes and its author may not have meant: rules that are never reached, exemptions that free more than they say,
//! keywords that older kernels do not know.
//!
//! A finding is a warning of the catalogue ([`crate::fault`]), with the line and what in it is meant.

use std::borrow::Cow;
use std::fmt;

use super::cover::{Cause, DEMANDED, On, Scope};
use super::{
    Access, Action, AppraiseType, Comparison, Hook, IdCondition, Line, Mask, Policy, ProcessId,
    Rule,
};
use crate::fault::Code;
use crate::filesystem::{RAMFS_MAGIC, TMPFS_MAGIC};
use crate::release::Release;

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The line, counted from 1; nothing where it is the policy as a whole.
    pub line: Option<usize>,
    /// The warning.
    pub code: Code,
    /// What in the line is meant.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{} {}", self.code.id(), self.code.entry().what)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

/// Everything to look at in a policy without errors, in the order of its lines. `kernel` is the oldest that it is for.
#[must_use]
pub fn lint(text: &[u8], policy: &Policy, kernel: Option<Release>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = policy.lines();
    for (index, line) in lines.iter().enumerate() {
        findings.extend(too_new(line, kernel));
        let mut found = |code, detail: String| {
            findings.push(Finding {
                line: Some(line.number),
                code,
                detail,
            });
        };
        let rule = &line.rule;
        let earlier = lines.get(..index).unwrap_or_default();
        if let Some(by) = earlier.iter().find(|by| covers(&by.rule, rule)) {
            found(
                Code::PolicyRuleShadowed,
                format!(
                    "line {} matches whatever this one does: {}",
                    by.number, by.text
                ),
            );
        }
        if rule.action == Action::DontAppraise
            && rule.hook.is_none()
            && (matches!(rule.fsmagic, Some(TMPFS_MAGIC))
                || rule.fsname.as_deref() == Some("tmpfs"))
        {
            found(Code::TmpfsFree, line.text.clone());
        }
        if rule.action == Action::DontAppraise
            && rule.hook.is_none()
            && rule.fsmagic == Some(RAMFS_MAGIC)
        {
            found(Code::PolicyFreesRamfs, line.text.clone());
        }
        if rule.action == Action::Appraise
            && rule.appraise_type.is_none()
            && matches!(
                rule.hook,
                None | Some(
                    Hook::BprmCheck
                        | Hook::MmapCheck
                        | Hook::MmapCheckReqprot
                        | Hook::CredsCheck
                        | Hook::ModuleCheck
                        | Hook::FirmwareCheck
                        | Hook::PolicyCheck
                        | Hook::KexecKernelCheck
                        | Hook::KexecInitramfsCheck
                )
            )
        {
            found(Code::PolicyTakesDigests, line.text.clone());
        }
    }
    if policy.appraises() {
        for gap in policy.gaps(&DEMANDED, On::Any, Scope::Everyone) {
            let (code, detail) = match &gap.cause {
                // That line has its own finding.
                Cause::Digest(..) => continue,
                Cause::NoRule if gap.hook == Hook::PolicyCheck => {
                    (Code::PoliciesUnguarded, String::new())
                }
                Cause::NoRule => (Code::PolicyHookOpen, format!("func={}", gap.hook.name())),
                Cause::Condition(_, text) | Cause::Exemption(_, text) => {
                    (Code::PolicyConditional, text.clone())
                }
            };
            let finding = Finding {
                line: gap.line(),
                code,
                detail,
            };
            // An exemption without func= is one finding, not one a hook.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    if !policy.is_empty() && !policy.appraises() {
        findings.push(Finding {
            line: None,
            code: Code::PolicyAppraisesNothing,
            detail: String::new(),
        });
    }
    if !text.is_empty() && !text.ends_with(b"\n") {
        findings.push(Finding {
            line: lines.last().map(|line| line.number),
            code: Code::PolicyWithoutNewline,
            detail: String::new(),
        });
    }
    findings.sort_by_key(|finding| finding.line.unwrap_or(usize::MAX));
    findings
}

/// A policy as a kernel of that release reads it: from Linux 7.2, a `#` after a rule starts a comment. Lines keep their numbers.
#[must_use]
pub fn as_read_by(text: &[u8], kernel: Option<Release>) -> Cow<'_, [u8]> {
    if kernel.is_none_or(|kernel| kernel < Release::new(7, 2)) {
        return Cow::Borrowed(text);
    }
    let comment = |line: &[u8]| {
        line.windows(2)
            .position(|pair| matches!(pair, [b' ' | b'\t', b'#']))
    };
    let lines: Vec<&[u8]> = text
        .split(|byte| *byte == b'\n')
        .map(|line| comment(line).and_then(|at| line.get(..at)).unwrap_or(line))
        .collect();
    Cow::Owned(lines.join(&b'\n'))
}

/// Finds what a kernel of that release does not take in the lines without errors, of a policy that has errors in others.
#[must_use]
pub fn lint_sound_lines(text: &[u8], kernel: Option<Release>) -> Vec<Finding> {
    super::parse::lines(text)
        .filter_map(Result::ok)
        .flat_map(|line| too_new(&line, kernel))
        .collect()
}

/// What in a rule a kernel of that release does not take; nothing where no kernel is given.
fn too_new(line: &Line, kernel: Option<Release>) -> Vec<Finding> {
    let Some(kernel) = kernel else {
        return Vec::new();
    };
    newer(line)
        .into_iter()
        .filter(|(release, _)| *release > kernel)
        .map(|(release, what)| Finding {
            line: Some(line.number),
            code: Code::PolicyRuleTooNew,
            detail: format!("{what} is of Linux {release}"),
        })
        .collect()
}

/// What in a rule came after Linux 4.19, and with which release: the commits that brought it are in the history of
/// Documentation/ABI/testing/ima_policy.
fn newer(line: &Line) -> Vec<(Release, String)> {
    let rule = &line.rule;
    let hook = match rule.hook {
        Some(Hook::KexecCmdline) => Some(Release::new(5, 3)),
        Some(Hook::KeyCheck) => Some(Release::new(5, 6)),
        Some(Hook::CriticalData) => Some(Release::new(5, 12)),
        Some(Hook::SetxattrCheck) => Some(Release::new(5, 15)),
        Some(Hook::MmapCheckReqprot) => Some(Release::new(6, 3)),
        _ => None,
    };
    let hook = hook
        .zip(rule.hook)
        .map(|(release, hook)| (release, format!("func={}", hook.name())));
    let is = |present: bool, major, minor, what: &str| {
        present.then(|| (Release::new(major, minor), what.to_owned()))
    };
    let gid = rule
        .gid
        .map(|gid| if gid.effective { "egid" } else { "gid" });
    let v2 = matches!(rule.template.as_deref(), Some("ima-ngv2" | "ima-sigv2"));
    let evm = rule.template.as_deref() == Some("evm-sig");
    [
        hook,
        is(rule.template.is_some() && !v2 && !evm, 5, 3, "template="),
        is(v2, 5, 19, "this template"),
        is(evm, 5, 14, "this template"),
        is(
            rule.appraise_type == Some(AppraiseType::ImasigOrModsig),
            5,
            4,
            "appraise_type=imasig|modsig",
        ),
        is(!rule.keyrings.is_empty(), 5, 6, "keyrings="),
        is(!rule.label.is_empty(), 5, 12, "label="),
        is(!rule.appraise_algos.is_empty(), 5, 15, "appraise_algos="),
        is(gid.is_some(), 5, 16, gid.unwrap_or_default()),
        is(rule.fgroup.is_some(), 5, 16, "fgroup"),
        // Before, `ima_parse_rule` looked for its one value, and `ima_validate_rule` for a signature that may be appended.
        is(
            line.text
                .split([' ', '\t'])
                .filter_map(|token| token.strip_prefix("appraise_flag="))
                .any(|flag| {
                    rule.appraise_type != Some(AppraiseType::ImasigOrModsig)
                        || !flag.contains("blacklist")
                }),
            6,
            6,
            "appraise_flag= without appraise_type=imasig|modsig or check_blacklist",
        ),
        is(
            line.text
                .split([' ', '\t'])
                .skip_while(|token| !token.starts_with("appraise_type="))
                .any(|token| token.starts_with("digest_type=")),
            7,
            1,
            "digest_type=verity after appraise_type=sigv3",
        ),
        is(rule.verity, 5, 19, "digest_type=verity"),
        is(
            rule.appraise_type == Some(AppraiseType::Sigv3),
            5,
            19,
            "appraise_type=sigv3",
        ),
        is(
            rule.appraise_type == Some(AppraiseType::Sigv3) && !rule.verity,
            7,
            1,
            "appraise_type=sigv3 without digest_type=verity",
        ),
        // In the table of hash algorithms (crypto/hash_info.c).
        is(
            rule.appraise_algos
                .iter()
                .any(|algorithm| algorithm.starts_with("sha3-")),
            6,
            7,
            "SHA-3 in appraise_algos=",
        ),
        is(rule.action == Action::DontAudit, 6, 19, "dont_audit"),
        is(rule.fs_subtype.is_some(), 6, 19, "fs_subtype="),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The rules that the kernel goes through for one question: the first that matches decides it (`ima_match_policy`).
#[derive(PartialEq, Eq)]
enum Question {
    Measure,
    Appraise,
    Audit,
    Hash,
}

impl Question {
    fn of(action: Action) -> Self {
        match action {
            Action::Measure | Action::DontMeasure => Self::Measure,
            Action::Appraise | Action::DontAppraise => Self::Appraise,
            Action::Audit | Action::DontAudit => Self::Audit,
            Action::Hash | Action::DontHash => Self::Hash,
        }
    }
}

/// Whether `earlier` decides every access that `later` would (`ima_match_rules`): the same question, and each condition of the
/// earlier rule follows from one of the later. What a rule asks of security.ima is not a condition.
fn covers(earlier: &Rule, later: &Rule) -> bool {
    // SETXATTR_CHECK is not a question of the policy's order: `ima_parse_rule` keeps its algorithms apart.
    let apart = Some(Hook::SetxattrCheck);
    if Question::of(earlier.action) != Question::of(later.action)
        || earlier.hook == apart
        || later.hook == apart
    {
        return false;
    }
    let hook = match (earlier.hook, later.hook) {
        (None, Some(Hook::KeyCheck | Hook::CriticalData)) => false,
        (None, _) => true,
        (earlier, later) => earlier == later,
    };
    let list = |earlier: &[String], later: &[String]| {
        earlier.is_empty() || (!later.is_empty() && later.iter().all(|item| earlier.contains(item)))
    };
    hook && follows(earlier.mask, later.mask, mask_follows)
        && follows(earlier.fsmagic, later.fsmagic, |a, b| a == b)
        && follows(
            earlier.fs_subtype.as_ref(),
            later.fs_subtype.as_ref(),
            |a, b| a == b,
        )
        && follows(earlier.fsname.as_ref(), later.fsname.as_ref(), |a, b| {
            a == b
        })
        && follows(earlier.fsuuid, later.fsuuid, |a, b| a == b)
        && follows(earlier.uid, later.uid, process_follows)
        && follows(earlier.gid, later.gid, process_follows)
        && follows(earlier.fowner, later.fowner, id_follows)
        && follows(earlier.fgroup, later.fgroup, id_follows)
        && earlier.lsm.iter().all(|label| later.lsm.contains(label))
        && list(&earlier.keyrings, &later.keyrings)
        && list(&earlier.label, &later.label)
}

/// Whether an optional condition follows from another: no condition always does, and one never follows from none.
fn follows<T>(earlier: Option<T>, later: Option<T>, by: impl Fn(T, T) -> bool) -> bool {
    match (earlier, later) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(later)) => by(earlier, later),
    }
}

fn mask_follows(earlier: Mask, later: Mask) -> bool {
    let same: Access = earlier.access;
    same == later.access && (earlier.among_others || !later.among_others)
}

fn process_follows(earlier: ProcessId, later: ProcessId) -> bool {
    earlier.effective == later.effective && id_follows(earlier.condition, later.condition)
}

/// Whether every id that fits `later` fits `earlier`.
fn id_follows(earlier: IdCondition, later: IdCondition) -> bool {
    match (earlier.comparison, later.comparison) {
        (_, Comparison::Equal) => earlier.holds(later.id),
        (Comparison::Greater, Comparison::Greater) => later.id >= earlier.id,
        (Comparison::Less, Comparison::Less) => later.id <= earlier.id,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Query;
    use proptest::prelude::*;

    fn codes(text: &str, kernel: Option<&str>) -> Vec<(Option<usize>, Code)> {
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let kernel = kernel.map(|kernel| kernel.parse().unwrap());
        lint(text.as_bytes(), &policy, kernel)
            .into_iter()
            .map(|finding| (finding.line, finding.code))
            .collect()
    }

    const HOOKS: [&str; 6] = [
        "BPRM_CHECK",
        "MMAP_CHECK",
        "MODULE_CHECK",
        "POLICY_CHECK",
        "KEXEC_KERNEL_CHECK",
        "KEXEC_INITRAMFS_CHECK",
    ];

    /// The rules that a policy must have to be without a finding, but those for one hook.
    fn rest(without: &str) -> String {
        HOOKS
            .into_iter()
            .filter(|hook| *hook != without)
            .map(|hook| format!("appraise func={hook} appraise_type=imasig\n"))
            .collect()
    }

    #[test]
    fn comments_after_rules_are_of_linux_7_2() {
        let text = b"measure # all\n# a line\nappraise func=BPRM_CHECK\t#x\n";
        let read = |major, minor| as_read_by(text, Some(Release::new(major, minor)));
        assert_eq!(read(7, 1), Cow::Borrowed(text));
        let newer = read(7, 2);
        assert_eq!(
            String::from_utf8_lossy(&newer),
            "measure\n# a line\nappraise func=BPRM_CHECK\n"
        );
        assert!(Policy::parse(text).is_err());
        assert_eq!(Policy::parse(&newer).unwrap().lines()[1].number, 3);
    }

    #[test]
    fn keywords_of_newer_kernels_are_named_for_older_ones() {
        for (rule, release, before) in [
            ("dont_audit func=BPRM_CHECK\n", (6, 19), (6, 18)),
            ("measure fsname=fuse fs_subtype=sshfs\n", (6, 19), (6, 12)),
            (
                "appraise func=BPRM_CHECK appraise_type=sigv3\n",
                (7, 1),
                (7, 0),
            ),
            (
                "appraise func=FILE_CHECK appraise_type=sigv3 digest_type=verity\n",
                (7, 1),
                (7, 0),
            ),
            (
                "appraise func=BPRM_CHECK appraise_flag=check_blacklist\n",
                (6, 6),
                (6, 1),
            ),
            (
                "appraise func=BPRM_CHECK appraise_algos=sha3-256\n",
                (6, 7),
                (6, 1),
            ),
            (
                "appraise func=MODULE_CHECK appraise_type=imasig|modsig appraise_flag=x\n",
                (6, 6),
                (6, 1),
            ),
        ] {
            let found = |(major, minor)| {
                lint_sound_lines(rule.as_bytes(), Some(Release::new(major, minor))).len()
            };
            assert_eq!((found(release), found(before)), (0, 1), "{rule}");
        }
    }

    #[test]
    fn traps() {
        for (rules, line, code) in [
            ("dont_appraise fsmagic=0x01021994\n", 1, Code::TmpfsFree),
            ("dont_appraise fsname=tmpfs\n", 1, Code::TmpfsFree),
            (
                "dont_appraise fsmagic=0x858458f6\n",
                1,
                Code::PolicyFreesRamfs,
            ),
            (
                "appraise func=BPRM_CHECK uid=5\n",
                1,
                Code::PolicyTakesDigests,
            ),
            (
                "appraise func=FIRMWARE_CHECK appraise_type=imasig\nappraise func=FIRMWARE_CHECK euid=0 appraise_type=imasig\n",
                2,
                Code::PolicyRuleShadowed,
            ),
            (
                "dont_appraise func=FIRMWARE_CHECK fsname=ext4\n\nappraise func=FIRMWARE_CHECK fsname=ext4 appraise_type=imasig\n",
                3,
                Code::PolicyRuleShadowed,
            ),
            (
                "dont_appraise fsname=squashfs\n",
                1,
                Code::PolicyConditional,
            ),
            (
                "dont_appraise func=MODULE_CHECK fowner=5\n",
                1,
                Code::PolicyConditional,
            ),
        ] {
            assert_eq!(
                codes(&format!("{rules}{}", rest("")), None),
                [(Some(line), code)],
                "{rules}"
            );
        }
        for fine in [
            "dont_appraise fsname=rootfs\n",
            "dont_appraise func=FILE_CHECK fsmagic=0x01021994\n",
            "appraise func=FILE_CHECK fowner=0\n",
            "appraise func=BPRM_CHECK euid=0 appraise_type=imasig\nappraise func=BPRM_CHECK uid=0 appraise_type=imasig\n",
            "appraise func=BPRM_CHECK fsname=fuse digest_type=verity appraise_type=sigv3\n",
            "measure func=BPRM_CHECK\n",
            "measure\nmeasure func=KEY_CHECK\n",
        ] {
            assert_eq!(codes(&format!("{fine}{}", rest("")), None), [], "{fine}");
        }
        assert_eq!(
            codes("measure\n", None),
            [(None, Code::PolicyAppraisesNothing)]
        );
        assert_eq!(
            codes(rest("").trim_end(), None),
            [(Some(6), Code::PolicyWithoutNewline)]
        );
    }

    #[test]
    fn what_is_left_open_is_found() {
        for hook in HOOKS {
            let code = match hook {
                "POLICY_CHECK" => Code::PoliciesUnguarded,
                _ => Code::PolicyHookOpen,
            };
            assert_eq!(codes(&rest(hook), None), [(None, code)], "{hook}");
            for condition in [
                "euid=0",
                "uid=0",
                "gid=0",
                "egid=0",
                "fowner=0",
                "fgroup=0",
                "fsname=ext4",
                "fsmagic=0xef53",
                "fsuuid=5e1f0e4a-7c1b-4a57-9d0c-8f6f4be2a001",
                "obj_type=bin_t",
            ] {
                let rule = format!("appraise func={hook} {condition} appraise_type=imasig\n");
                let found = codes(&format!("{rule}{}", rest(hook)), None);
                assert_eq!(found, [(Some(1), Code::PolicyConditional)], "{rule}");
            }
        }
    }

    #[test]
    fn rules_of_newer_kernels() {
        for (rule, release) in [
            ("measure func=KEXEC_CMDLINE", "5.3"),
            ("measure template=ima-sig", "5.3"),
            (
                "appraise func=MODULE_CHECK appraise_type=imasig|modsig",
                "5.4",
            ),
            ("measure func=KEY_CHECK", "5.6"),
            ("measure func=CRITICAL_DATA", "5.12"),
            ("measure func=FILE_CHECK gid=0", "5.16"),
            ("measure func=FILE_CHECK fgroup=0", "5.16"),
            ("appraise func=SETXATTR_CHECK appraise_algos=sha256", "5.15"),
            ("measure func=FILE_CHECK digest_type=verity", "5.19"),
            ("measure func=MMAP_CHECK_REQPROT", "6.3"),
            (
                "appraise func=MODULE_CHECK appraise_type=imasig appraise_flag=check_blacklist",
                "6.6",
            ),
        ] {
            let text = format!("{rule}\n{}", rest(""));
            let release: Release = release.parse().unwrap();
            let before = Release {
                minor: release.minor - 1,
                ..release
            };
            let policy = Policy::parse(text.as_bytes()).unwrap();
            let found = |kernel| {
                lint(text.as_bytes(), &policy, Some(kernel))
                    .iter()
                    .any(|finding| finding.code == Code::PolicyRuleTooNew)
            };
            assert!(found(before) && !found(release), "{rule}");
        }
        assert_eq!("6.1.0-32-amd64".parse(), Ok(Release::new(6, 1)));
        assert!("6".parse::<Release>().is_err() && "x.1".parse::<Release>().is_err());
    }

    fn rule() -> impl Strategy<Value = String> {
        let id = || prop_oneof![Just("=0"), Just("=5"), Just(">4"), Just("<6"), Just(">0")];
        let tokens = (
            prop_oneof![
                Just("appraise"),
                Just("dont_appraise"),
                Just("measure"),
                Just("dont_measure")
            ],
            proptest::option::of(prop_oneof![
                Just("func=BPRM_CHECK"),
                Just("func=FILE_CHECK"),
                Just("func=MMAP_CHECK")
            ]),
            proptest::option::of(prop_oneof![
                Just("mask=MAY_READ"),
                Just("mask=^MAY_READ"),
                Just("mask=MAY_EXEC")
            ]),
            proptest::option::of(prop_oneof![
                Just("fsmagic=0xef53"),
                Just("fsname=ext4"),
                Just("fsname=xfs")
            ]),
            proptest::option::of((prop_oneof![Just("uid"), Just("euid")], id())),
            proptest::option::of((prop_oneof![Just("gid"), Just("egid")], id())),
            proptest::option::of(id()),
        );
        tokens.prop_map(|(action, hook, mask, fs, uid, gid, owner)| {
            let mut words = vec![action.to_owned()];
            words.extend([hook, mask, fs].into_iter().flatten().map(str::to_owned));
            words.extend(
                [uid, gid]
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| format!("{key}{value}")),
            );
            words.extend(owner.map(|value| format!("fowner{value}")));
            words.join(" ")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// A rule that some access reaches is never said to be shadowed.
        #[test]
        fn what_is_reached_is_not_shadowed(
            rules in proptest::collection::vec(rule(), 1..8),
            queries in proptest::collection::vec(
                (0_usize..3, 0_usize..2, any::<bool>(), any::<bool>(), proptest::array::uniform6(0_u32..8)),
                1..60,
            ),
        ) {
            let text = rules.join("\n") + "\n";
            let policy = Policy::parse(text.as_bytes()).unwrap();
            let shadowed: Vec<usize> = lint(text.as_bytes(), &policy, None)
                .into_iter()
                .filter(|finding| finding.code == Code::PolicyRuleShadowed)
                .filter_map(|finding| finding.line)
                .collect();
            for (hook, access, ext4, magic, [uid, euid, gid, egid, fowner, fgroup]) in queries {
                let query = Query {
                    hook: [Hook::BprmCheck, Hook::FileCheck, Hook::MmapCheck][hook],
                    access: [Access::Read, Access::Exec][access],
                    fsmagic: if magic { 0xef53 } else { 1 },
                    fsname: if ext4 { "ext4" } else { "xfs" },
                    fsuuid: None,
                    uid, euid, gid, egid, fowner, fgroup,
                };
                for question in [Question::Appraise, Question::Measure] {
                    let deciding = policy.lines().iter().find(|line| {
                        Question::of(line.rule.action) == question && line.rule.matches(&query)
                    });
                    if let Some(line) = deciding {
                        prop_assert!(!shadowed.contains(&line.number), "line {} decides {:?}\n{}", line.number, query, text);
                    }
                    if question == Question::Appraise {
                        let appraised = deciding.map(|line| &line.rule).filter(|rule| rule.action == Action::Appraise);
                        prop_assert_eq!(appraised, policy.appraisal(&query));
                    }
                }
            }
        }

        /// Taking shadowed rules out changes no decision.
        #[test]
        fn shadowed_rules_decide_nothing(
            rules in proptest::collection::vec(rule(), 1..8),
            ids in proptest::array::uniform6(0_u32..8),
        ) {
            let text = rules.join("\n") + "\n";
            let policy = Policy::parse(text.as_bytes()).unwrap();
            let shadowed: Vec<usize> = lint(text.as_bytes(), &policy, None)
                .into_iter()
                .filter(|finding| finding.code == Code::PolicyRuleShadowed)
                .filter_map(|finding| finding.line)
                .collect();
            let rest: Vec<&str> = rules.iter().zip(1..).filter(|(_, line)| !shadowed.contains(line)).map(|(rule, _)| rule.as_str()).collect();
            let rest = Policy::parse(rest.join("\n").as_bytes()).unwrap();
            let [uid, euid, gid, egid, fowner, fgroup] = ids;
            let query = Query {
                hook: Hook::FileCheck, access: Access::Read, fsmagic: 0xef53, fsname: "ext4", fsuuid: None,
                uid, euid, gid, egid, fowner, fgroup,
            };
            prop_assert_eq!(policy.appraisal(&query), rest.appraisal(&query));
        }
    }
}
