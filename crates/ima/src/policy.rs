//! The IMA policy language, as `ima_parse_rule` and `ima_validate_rule` take it (security/integrity/ima/ima_policy.c,
//! Linux 6.12).
//!
//! [`Policy::parse`] accepts what that kernel accepts, as far as it can be known without the kernel's configuration:
//! whether a hash algorithm or `imasig|modsig` was built in, only the kernel knows. Three things that a kernel
//! would take silently, and that are never meant, are errors here: a NUL byte (the kernel's string ends there), a rule
//! of 4095 bytes or more (cut, and its tail read as another rule), and a carriage return.

use std::fmt;

pub mod cover;
pub mod format;
pub mod lint;
mod parse;

/// The longest rule in bytes, without its newline: one write to securityfs is cut at `PAGE_SIZE - 1`
/// (`ima_write_policy`, ima_fs.c).
pub const MAX_RULE: usize = 4094;

/// The largest policy file that is read, in bytes.
pub const MAX_POLICY: usize = 1 << 20;

/// The words with which a part of a rule begins: actions, and conditions and options before their sign.
pub const KEYWORDS: [&str; 35] = [
    "measure",
    "dont_measure",
    "appraise",
    "dont_appraise",
    "audit",
    "dont_audit",
    "hash",
    "dont_hash",
    "func",
    "mask",
    "fsmagic",
    "fsname",
    "fs_subtype",
    "fsuuid",
    "uid",
    "euid",
    "gid",
    "egid",
    "fowner",
    "fgroup",
    "obj_user",
    "obj_role",
    "obj_type",
    "subj_user",
    "subj_role",
    "subj_type",
    "digest_type",
    "appraise_type",
    "appraise_flag",
    "appraise_algos",
    "permit_directio",
    "pcr",
    "template",
    "keyrings",
    "label",
];

/// What a rule does (ima_policy.c, `policy_tokens`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Add to the measurement list and extend the PCR.
    Measure,
    /// Do not measure.
    DontMeasure,
    /// Deny unless security.ima fits.
    Appraise,
    /// Do not appraise.
    DontAppraise,
    /// Write an audit record with the file's hash.
    Audit,
    /// Do not. Since Linux 6.19.
    DontAudit,
    /// Keep the file's hash in security.ima.
    Hash,
    /// Do not.
    DontHash,
}

impl Action {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Measure, "measure"),
        (Self::DontMeasure, "dont_measure"),
        (Self::Appraise, "appraise"),
        (Self::DontAppraise, "dont_appraise"),
        (Self::Audit, "audit"),
        (Self::DontAudit, "dont_audit"),
        (Self::Hash, "hash"),
        (Self::DontHash, "dont_hash"),
    ];

    /// The keyword.
    pub fn name(self) -> &'static str {
        name_of(&Self::ALL, self)
    }
}

/// The hook a rule is for, `func=` (ima_policy.c, `ima_parse_rule`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// A file is opened.
    FileCheck,
    /// A file is mapped executable.
    MmapCheck,
    /// The same with the protection that was asked for (since 6.3).
    MmapCheckReqprot,
    /// A program, script or interpreter is executed.
    BprmCheck,
    /// A program's credentials are committed.
    CredsCheck,
    /// A kernel module is loaded.
    ModuleCheck,
    /// Firmware is loaded.
    FirmwareCheck,
    /// A kernel image is loaded for kexec.
    KexecKernelCheck,
    /// An initramfs is loaded for kexec.
    KexecInitramfsCheck,
    /// A policy is loaded by path.
    PolicyCheck,
    /// The command line of kexec.
    KexecCmdline,
    /// A key is added to a keyring.
    KeyCheck,
    /// The kernel's critical data.
    CriticalData,
    /// security.ima is set.
    SetxattrCheck,
}

impl Hook {
    /// Every hook with its keyword.
    pub const ALL: [(Self, &'static str); 14] = [
        (Self::FileCheck, "FILE_CHECK"),
        (Self::MmapCheck, "MMAP_CHECK"),
        (Self::MmapCheckReqprot, "MMAP_CHECK_REQPROT"),
        (Self::BprmCheck, "BPRM_CHECK"),
        (Self::CredsCheck, "CREDS_CHECK"),
        (Self::ModuleCheck, "MODULE_CHECK"),
        (Self::FirmwareCheck, "FIRMWARE_CHECK"),
        (Self::KexecKernelCheck, "KEXEC_KERNEL_CHECK"),
        (Self::KexecInitramfsCheck, "KEXEC_INITRAMFS_CHECK"),
        (Self::PolicyCheck, "POLICY_CHECK"),
        (Self::KexecCmdline, "KEXEC_CMDLINE"),
        (Self::KeyCheck, "KEY_CHECK"),
        (Self::CriticalData, "CRITICAL_DATA"),
        (Self::SetxattrCheck, "SETXATTR_CHECK"),
    ];

    /// The keyword after `func=`.
    pub fn name(self) -> &'static str {
        name_of(&Self::ALL, self)
    }
}

/// The access of `mask=` (include/linux/fs.h, MAY_EXEC and so on).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// MAY_EXEC
    Exec,
    /// MAY_WRITE
    Write,
    /// MAY_READ
    Read,
    /// MAY_APPEND
    Append,
}

impl Access {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Exec, "MAY_EXEC"),
        (Self::Write, "MAY_WRITE"),
        (Self::Read, "MAY_READ"),
        (Self::Append, "MAY_APPEND"),
    ];

    /// The keyword after `mask=` or `mask=^`.
    pub fn name(self) -> &'static str {
        name_of(&Self::ALL, self)
    }
}

/// `mask=MAY_X` (exactly that access) or `mask=^MAY_X` (that access among others).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mask {
    /// Whether other accesses may be asked for at the same time.
    pub among_others: bool,
    /// The access.
    pub access: Access,
}

/// How an id is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `>`
    Greater,
    /// `<`
    Less,
}

impl Comparison {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Equal, "="), (Self::Greater, ">"), (Self::Less, "<")];

    fn holds(self, value: u32, limit: u32) -> bool {
        match self {
            Self::Equal => value == limit,
            Self::Greater => value > limit,
            Self::Less => value < limit,
        }
    }
}

/// A user or group id that a rule compares with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdCondition {
    /// How.
    pub comparison: Comparison,
    /// With what.
    pub id: u32,
}

impl IdCondition {
    fn holds(self, value: u32) -> bool {
        self.comparison.holds(value, self.id)
    }
}

/// The user or group of the process: `uid`/`gid`, or `euid`/`egid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// Whether the effective id is compared.
    pub effective: bool,
    /// The comparison.
    pub condition: IdCondition,
}

/// A condition on a label of a security module: `obj_user=` and its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LsmField {
    /// obj_user=
    ObjUser,
    /// obj_role=
    ObjRole,
    /// obj_type=
    ObjType,
    /// subj_user=
    SubjUser,
    /// subj_role=
    SubjRole,
    /// subj_type=
    SubjType,
}

impl LsmField {
    const ALL: [(Self, &'static str); 6] = [
        (Self::ObjUser, "obj_user"),
        (Self::ObjRole, "obj_role"),
        (Self::ObjType, "obj_type"),
        (Self::SubjUser, "subj_user"),
        (Self::SubjRole, "subj_role"),
        (Self::SubjType, "subj_type"),
    ];

    /// The keyword before `=`.
    pub fn name(self) -> &'static str {
        name_of(&Self::ALL, self)
    }
}

/// `appraise_type=`: what security.ima must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppraiseType {
    /// A signature of the file's digest, of version 2 or, from Linux 7.1 on, 3.
    Imasig,
    /// A signature of version 3: of the fs-verity digest with `digest_type=verity`, else of the file's digest (Linux 7.1).
    Sigv3,
    /// A signature in security.ima or appended to the file.
    ImasigOrModsig,
}

impl AppraiseType {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Imasig, "imasig"),
        (Self::Sigv3, "sigv3"),
        (Self::ImasigOrModsig, "imasig|modsig"),
    ];

    /// The value.
    pub fn name(self) -> &'static str {
        name_of(&Self::ALL, self)
    }
}

fn name_of<T: PartialEq>(table: &[(T, &'static str)], value: T) -> &'static str {
    table
        .iter()
        .find(|(item, _)| *item == value)
        .map_or("", |(_, name)| *name)
}

/// One rule. Equality is that of meaning, so it holds between a rule written and the same rule read back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// `func=`; without one the rule is for every hook.
    pub hook: Option<Hook>,
    /// `mask=`
    pub mask: Option<Mask>,
    /// `fsmagic=`: the file system's super block magic.
    pub fsmagic: Option<u64>,
    /// `fsname=`: the name of the file system's type.
    pub fsname: Option<String>,
    /// `fs_subtype=`: what a FUSE file system calls itself. Since Linux 6.19.
    pub fs_subtype: Option<String>,
    /// `fsuuid=`
    pub fsuuid: Option<[u8; 16]>,
    /// `uid` or `euid`, which share a place.
    pub uid: Option<ProcessId>,
    /// `gid` or `egid`, which share a place.
    pub gid: Option<ProcessId>,
    /// `fowner`: the file's owner.
    pub fowner: Option<IdCondition>,
    /// `fgroup`: the file's group.
    pub fgroup: Option<IdCondition>,
    /// Labels of a security module, in the kernel's order.
    pub lsm: Vec<(LsmField, String)>,
    /// `digest_type=verity`
    pub verity: bool,
    /// `appraise_type=`
    pub appraise_type: Option<AppraiseType>,
    /// `appraise_algos=`: the hash algorithms allowed, sorted.
    pub appraise_algos: Vec<String>,
    /// `permit_directio`
    pub permit_directio: bool,
    /// `pcr=`: 0 to 63
    pub pcr: Option<u8>,
    /// `template=`
    pub template: Option<String>,
    /// `keyrings=`
    pub keyrings: Vec<String>,
    /// `label=`
    pub label: Vec<String>,
}

impl Rule {
    pub(crate) fn new(action: Action) -> Self {
        Self {
            action,
            hook: None,
            mask: None,
            fsmagic: None,
            fsname: None,
            fs_subtype: None,
            fsuuid: None,
            uid: None,
            gid: None,
            fowner: None,
            fgroup: None,
            lsm: Vec::new(),
            verity: false,
            appraise_type: None,
            appraise_algos: Vec::new(),
            permit_directio: false,
            pcr: None,
            template: None,
            keyrings: Vec::new(),
            label: Vec::new(),
        }
    }

    /// Whether the rule applies to that access (`ima_match_rules`). A rule with a condition on a security module's
    /// label never does: without that module it does not in the kernel either, and with it only the kernel knows.
    pub fn matches(&self, query: &Query<'_>) -> bool {
        if self.hook.is_some_and(|hook| hook != query.hook) {
            return false;
        }
        if matches!(query.hook, Hook::KeyCheck | Hook::CriticalData) && self.hook.is_none() {
            return false;
        }
        let mask = |mask: Mask| mask.access == query.access;
        let process = |condition: ProcessId, real: u32, effective: u32| {
            // A process that may change its ids is matched by any of them.
            let either = condition.effective && query.euid == 0 && condition.condition.holds(real);
            either
                || condition
                    .condition
                    .holds(if condition.effective { effective } else { real })
        };
        self.mask.is_none_or(mask)
            && self.fsmagic.is_none_or(|magic| magic == query.fsmagic)
            && self
                .fsname
                .as_deref()
                .is_none_or(|name| name == query.fsname)
            // No file system has one that holds a root.
            && self.fs_subtype.is_none()
            && self.fsuuid.is_none_or(|uuid| Some(uuid) == query.fsuuid)
            && self
                .uid
                .is_none_or(|uid| process(uid, query.uid, query.euid))
            && self
                .gid
                .is_none_or(|gid| process(gid, query.gid, query.egid))
            && self.fowner.is_none_or(|owner| owner.holds(query.fowner))
            && self.fgroup.is_none_or(|group| group.holds(query.fgroup))
            && self.lsm.is_empty()
    }
}

/// The rule as the kernel shows it (`ima_policy_show`).
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.name())?;
        if let Some(hook) = self.hook {
            write!(f, " func={}", hook.name())?;
        }
        if let Some(mask) = self.mask {
            let among = if mask.among_others { "^" } else { "" };
            write!(f, " mask={among}{}", mask.access.name())?;
        }
        if let Some(magic) = self.fsmagic {
            write!(f, " fsmagic=0x{magic:x}")?;
        }
        if let Some(name) = &self.fsname {
            write!(f, " fsname={name}")?;
        }
        if let Some(name) = &self.fs_subtype {
            write!(f, " fs_subtype={name}")?;
        }
        if !self.keyrings.is_empty() {
            write!(f, " keyrings={}", self.keyrings.join("|"))?;
        }
        if !self.label.is_empty() {
            write!(f, " label={}", self.label.join("|"))?;
        }
        if let Some(pcr) = self.pcr {
            write!(f, " pcr={pcr}")?;
        }
        if let Some(uuid) = &self.fsuuid {
            write!(f, " fsuuid={}", crate::filesystem::Uuid(*uuid))?;
        }
        let process = |id: &Option<ProcessId>, real: &'static str, effective: &'static str| {
            id.map(|id| (if id.effective { effective } else { real }, id.condition))
        };
        let ids = [
            process(&self.uid, "uid", "euid"),
            process(&self.gid, "gid", "egid"),
            self.fowner.map(|condition| ("fowner", condition)),
            self.fgroup.map(|condition| ("fgroup", condition)),
        ];
        for (name, condition) in ids.into_iter().flatten() {
            let comparison = name_of(&Comparison::ALL, condition.comparison);
            write!(f, " {name}{comparison}{}", condition.id)?;
        }
        if !self.appraise_algos.is_empty() {
            write!(f, " appraise_algos={}", self.appraise_algos.join(","))?;
        }
        for (field, label) in &self.lsm {
            write!(f, " {}={label}", field.name())?;
        }
        if let Some(template) = &self.template {
            write!(f, " template={template}")?;
        }
        if self.verity {
            f.write_str(" digest_type=verity")?;
        }
        if let Some(kind) = self.appraise_type {
            write!(f, " appraise_type={}", kind.name())?;
        }
        if self.permit_directio {
            f.write_str(" permit_directio")?;
        }
        Ok(())
    }
}

/// An access that a policy is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The hook.
    pub hook: Hook,
    /// The access: `Exec` for BPRM_CHECK and MMAP_CHECK, `Read` for the hooks that read a whole file.
    pub access: Access,
    /// The magic of the file's file system.
    pub fsmagic: u64,
    /// Its type's name, such as `ext4`.
    pub fsname: &'a str,
    /// Its UUID, where it has one.
    pub fsuuid: Option<[u8; 16]>,
    /// The process's ids.
    pub uid: u32,
    /// Effective user.
    pub euid: u32,
    /// Group.
    pub gid: u32,
    /// Effective group.
    pub egid: u32,
    /// The file's owner.
    pub fowner: u32,
    /// The file's group.
    pub fgroup: u32,
}

impl<'a> Query<'a> {
    /// The access of that hook by root to a file of root's on a file system of that magic and type.
    pub fn by_root(hook: Hook, fsmagic: u64, fsname: &'a str) -> Self {
        let access = match hook {
            Hook::BprmCheck | Hook::MmapCheck | Hook::MmapCheckReqprot | Hook::CredsCheck => {
                Access::Exec
            }
            _ => Access::Read,
        };
        Self {
            hook,
            access,
            fsmagic,
            fsname,
            fsuuid: None,
            uid: 0,
            euid: 0,
            gid: 0,
            egid: 0,
            fowner: 0,
            fgroup: 0,
        }
    }
}

/// A rule and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: usize,
    /// The rule as written, without blanks at its ends.
    pub text: String,
    /// What it means.
    pub rule: Rule,
}

/// A whole policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    lines: Vec<Line>,
}

impl Policy {
    /// The rules with their lines.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.lines.iter().map(|line| &line.rule)
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether any rule appraises.
    pub fn appraises(&self) -> bool {
        self.rules().any(|rule| rule.action == Action::Appraise)
    }

    /// The rule that has that access appraised: the first `appraise` or `dont_appraise` that matches, if it is an
    /// `appraise` (`ima_match_policy`).
    pub fn appraisal(&self, query: &Query<'_>) -> Option<&Rule> {
        self.rules()
            .find(|rule| {
                matches!(rule.action, Action::Appraise | Action::DontAppraise)
                    && rule.matches(query)
            })
            .filter(|rule| rule.action == Action::Appraise)
    }
}

/// Why a line of a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The line, counted from 1.
    pub line: usize,
    /// The word that is wrong, or nothing where it is the rule as a whole; control characters escaped.
    pub token: String,
    /// The rule of the grammar.
    pub kind: PolicyErrorKind,
}

/// The rule of the grammar that a line breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyErrorKind {
    /// Not a keyword.
    UnknownKeyword,
    /// `#` inside a rule, which kernels before Linux 7.2 do not take for the start of a comment.
    CommentInRule,
    /// The line starts with `/`.
    Path,
    /// A carriage return.
    CarriageReturn,
    /// A NUL byte.
    Nul,
    /// Not printable text.
    NotText,
    /// The line is longer than [`MAX_RULE`].
    TooLong,
    /// The file is larger than [`MAX_POLICY`].
    FileTooLarge,
    /// `key=` with nothing behind it.
    EmptyValue,
    /// The value is none of the keyword's.
    BadValue,
    /// The keyword may be given once.
    Duplicate,
    /// A second action.
    SecondAction,
    /// No action.
    NoAction,
    /// `template=` before `measure`, or without it.
    TemplateBeforeMeasure,
    /// `pcr=` without `measure`.
    PcrWithoutMeasure,
    /// `appraise_type=` or `appraise_algos=` without `appraise`.
    AppraiseOption,
    /// `digest_type=verity` with another `appraise_type=` than `sigv3`.
    VerityNeedsSigv3,
    /// The condition does not go with this `func=`.
    NotForHook,
    /// The action does not go with this `func=`.
    ActionNotForHook,
    /// `func=SETXATTR_CHECK` without `appraise_algos=`.
    SetxattrNeedsAlgos,
}

impl PolicyErrorKind {
    /// The rule of the grammar, as a phrase.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::UnknownKeyword => "no keyword of the policy language",
            Self::CommentInRule => "a comment must stand on a line of its own",
            Self::Path => {
                "a line that starts with / would be taken as a path to load a policy from"
            }
            Self::CarriageReturn => {
                "the line ends in a carriage return; policies have Unix line ends"
            }
            Self::Nul => "there is a NUL byte, where the kernel would stop reading the line",
            Self::NotText => "there are bytes that are not printable text",
            Self::TooLong => {
                "the rule has 4095 bytes or more; the kernel would cut it and read its tail as another rule"
            }
            Self::FileTooLarge => {
                "the file is larger than 1 MiB, the most that ima-init and imactl read; the kernel has no such limit"
            }
            Self::EmptyValue => "the value is missing",
            Self::BadValue => "not a value that this keyword takes",
            Self::Duplicate => "this may be given only once in a rule",
            Self::SecondAction => "a rule has exactly one action",
            Self::NoAction => {
                "the rule has no action (measure, appraise, audit, hash or their dont_ forms)"
            }
            Self::TemplateBeforeMeasure => {
                "template= goes with measure only, and must stand after it"
            }
            Self::PcrWithoutMeasure => "pcr= goes with measure only",
            Self::AppraiseOption => "appraise_type= and appraise_algos= go with appraise only",
            Self::VerityNeedsSigv3 => "digest_type=verity with appraise needs appraise_type=sigv3",
            Self::NotForHook => "the kernel does not take this together with this func=",
            Self::ActionNotForHook => "the kernel does not take this action for this func=",
            Self::SetxattrNeedsAlgos => {
                "func=SETXATTR_CHECK needs appraise_algos= and nothing else"
            }
        }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if !self.token.is_empty() {
            write!(f, ", `{}`", self.token)?;
        }
        write!(f, ": {}", self.kind.explanation())
    }
}

impl std::error::Error for PolicyError {}

#[cfg(test)]
mod tests;
