//! Which files a policy will have appraised.
//!
//! The kernel asks its policy at each access; on the build host only the files are there. So each file gets the accesses that
//! its kind makes possible, by every user that the policy distinguishes, and is chosen if any of them is appraised.

use std::collections::BTreeSet;

use crate::tree::Inode;
use ima::elf::Elf;
use ima::policy::{Access, Action, AppraiseType, Hook, Policy, Query, Rule};
use ima::release::Release;
use ima::verify::SIGV3_FILES;

/// Bytes of a file's beginning that [`File::head`] needs.
pub const HEAD: usize = ima::elf::SCRIPT_LENGTH;

/// The file system a root will be on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Type as in /proc/filesystems.
    pub name: String,
    /// Magic number (`include/uapi/linux/magic.h`).
    pub magic: u64,
    /// UUID, if it is known.
    pub uuid: Option<[u8; 16]>,
}

impl FileSystem {
    /// The file system types roots are commonly on, by name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let magic = match name {
            "ext2" | "ext3" | "ext4" => 0xef53,
            "squashfs" => 0x7371_7368,
            "erofs" => 0xe0f5_e1e2,
            "btrfs" => 0x9123_683e,
            "xfs" => 0x5846_5342,
            "f2fs" => 0xf2f5_2010,
            "ubifs" => 0x2405_1905,
            "9p" => 0x0102_1997,
            "nfs4" => 0x6969,
            "virtiofs" => 0x6573_5546,
            "overlay" => 0x794c_7630,
            "tmpfs" => 0x0102_1994,
            _ => return None,
        };
        Some(Self {
            name: name.to_owned(),
            magic,
            uuid: None,
        })
    }
}

impl Default for FileSystem {
    fn default() -> Self {
        Self {
            name: "ext4".to_owned(),
            magic: 0xef53,
            uuid: None,
        }
    }
}

/// A regular file as far as a policy can see it.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Path below the root, without a leading slash.
    pub path: &'a [u8],
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The first [`HEAD`] bytes, or all if there are fewer.
    pub head: &'a [u8],
}

impl<'a> File<'a> {
    /// A file of a root, by its path and its first bytes.
    #[must_use]
    pub fn of(path: &'a [u8], inode: &Inode, head: &'a [u8]) -> Self {
        Self {
            path,
            mode: u32::from(inode.mode),
            uid: inode.uid,
            gid: inode.gid,
            head,
        }
    }

    /// The hooks through which the kernel can come to this file.
    #[must_use]
    pub fn hooks(&self) -> Vec<Hook> {
        let mut hooks = vec![Hook::FileCheck];
        let below = |directories: &[&[u8]]| {
            directories
                .iter()
                .any(|directory| self.path.starts_with(directory))
        };
        let last = self
            .path
            .rsplit(|&byte| byte == b'/')
            .next()
            .unwrap_or_default();
        let elf = Elf::parse(self.head).is_some();
        if self.mode & 0o111 != 0 {
            hooks.extend([Hook::BprmCheck, Hook::CredsCheck]);
        }
        // A library is mapped executable whatever its mode; so are programs, and interpreters by the kernel.
        if elf {
            hooks.extend([Hook::MmapCheck, Hook::MmapCheckReqprot]);
        }
        if last.ends_with(b".ko") || last.windows(4).any(|window| window == b".ko.") {
            hooks.push(Hook::ModuleCheck);
        }
        if below(&[b"lib/firmware/", b"usr/lib/firmware/"]) {
            hooks.push(Hook::FirmwareCheck);
        }
        if below(&[b"etc/ima/"]) {
            hooks.push(Hook::PolicyCheck);
        }
        if last.starts_with(b"vmlinu") || last.starts_with(b"bzImage") || last.starts_with(b"Image")
        {
            hooks.push(Hook::KexecKernelCheck);
        }
        if last.starts_with(b"initr") || last.ends_with(b".cpio") || last.ends_with(b".img") {
            hooks.push(Hook::KexecInitramfsCheck);
        }
        hooks
    }
}

/// A policy made ready to choose files.
#[derive(Debug, Clone)]
pub struct Appraisal {
    /// The rules that appraise or do not, in their order.
    rules: Vec<Candidate>,
    /// What the kernel does with no file.
    never: Vec<Hook>,
    filesystem: FileSystem,
    /// The users and groups to try: root, and on each side of every number the policy compares with.
    users: Vec<u32>,
    groups: Vec<u32>,
}

/// A rule that appraises or does not.
#[derive(Debug, Clone)]
struct Candidate {
    /// Without the labels of security modules.
    rule: Rule,
    /// Whether it had any.
    labelled: bool,
    line: usize,
}

/// A hook through which a file is appraised, and by which rule.
#[derive(Debug, Clone, Copy)]
pub struct Appraised<'a> {
    /// The hook.
    pub hook: Hook,
    /// The rule, without labels of security modules.
    pub rule: &'a Rule,
    /// Its line in the policy.
    pub line: usize,
}

impl Appraisal {
    /// Prepares `policy` for a root on `filesystem`.
    #[must_use]
    pub fn new(policy: Policy, filesystem: FileSystem) -> Self {
        let mut users = BTreeSet::from([0]);
        let mut groups = BTreeSet::from([0]);
        for rule in policy.rules() {
            for (ids, process) in [(&mut users, &rule.uid), (&mut groups, &rule.gid)] {
                if let Some(process) = process {
                    let id = process.condition.id;
                    ids.extend([id.saturating_sub(1), id, id.saturating_add(1)]);
                }
            }
        }
        let rules = policy
            .lines()
            .iter()
            .filter(|line| matches!(line.rule.action, Action::Appraise | Action::DontAppraise))
            .map(|line| {
                let mut rule = line.rule.clone();
                let labelled = !std::mem::take(&mut rule.lsm).is_empty();
                Candidate {
                    rule,
                    labelled,
                    line: line.number,
                }
            })
            .collect();
        Self {
            rules,
            never: Vec::new(),
            filesystem,
            users: users.into_iter().collect(),
            groups: groups.into_iter().collect(),
        }
    }

    /// Leaves out hooks through which the kernel comes to no file, as those of kexec where it is disabled.
    #[must_use]
    pub fn without(mut self, hooks: &[Hook]) -> Self {
        self.never.extend(hooks);
        self
    }

    /// The hook through which this policy will have the file appraised, the first of those it can be reached by; `None` if it
    /// never will.
    #[must_use]
    pub fn appraised_by(&self, file: &File<'_>) -> Option<Hook> {
        self.appraised(file).next().map(|appraised| appraised.hook)
    }

    /// Whether a rule asks for signatures of version 3 of contents. No kernel that takes such a rule refuses them elsewhere.
    #[must_use]
    pub fn asks_for_v3(&self) -> bool {
        self.rules.iter().any(|candidate| {
            let rule = &candidate.rule;
            rule.appraise_type == Some(AppraiseType::Sigv3) && !rule.verity
        })
    }

    /// The oldest kernel that it is for, where none is given: a rule may say that it is none of the oldest.
    #[must_use]
    pub fn oldest(&self, kernel: Option<Release>) -> Option<Release> {
        kernel.or_else(|| self.asks_for_v3().then_some(SIGV3_FILES))
    }

    /// Every hook through which this policy will have the file appraised, with the rule that does. Where several do, for
    /// different users say, the one that asks for most.
    pub fn appraised<'a>(&'a self, file: &File<'_>) -> impl Iterator<Item = Appraised<'a>> {
        let file = *file;
        file.hooks()
            .into_iter()
            .filter(|hook| !self.never.contains(hook))
            .filter_map(move |hook| self.strictest(&file, hook))
    }

    /// As `Policy::appraisal` decides, but that labels are not known here: a rule that asks for one may or may not match, so one
    /// that appraises counts and one that exempts does not.
    fn deciding(&self, query: &Query<'_>) -> Option<&Candidate> {
        self.rules
            .iter()
            .filter(|candidate| {
                !(candidate.labelled && candidate.rule.action == Action::DontAppraise)
            })
            .find(|candidate| candidate.rule.matches(query))
            .filter(|candidate| candidate.rule.action == Action::Appraise)
    }

    fn strictest(&self, file: &File<'_>, hook: Hook) -> Option<Appraised<'_>> {
        let accesses: &[Access] = match hook {
            Hook::FileCheck => &[Access::Read, Access::Write, Access::Append, Access::Exec],
            Hook::BprmCheck | Hook::CredsCheck | Hook::MmapCheck | Hook::MmapCheckReqprot => {
                &[Access::Exec]
            }
            _ => &[Access::Read],
        };
        let mut found: Option<Appraised<'_>> = None;
        for &access in accesses {
            for &uid in &self.users {
                for &euid in &self.users {
                    for &gid in &self.groups {
                        for &egid in &self.groups {
                            let query = Query {
                                hook,
                                access,
                                fsmagic: self.filesystem.magic,
                                fsname: &self.filesystem.name,
                                fsuuid: self.filesystem.uuid,
                                uid,
                                euid,
                                gid,
                                egid,
                                fowner: file.uid,
                                fgroup: file.gid,
                            };
                            let Some(candidate) = self.deciding(&query) else {
                                continue;
                            };
                            let appraised = Appraised {
                                hook,
                                rule: &candidate.rule,
                                line: candidate.line,
                            };
                            if found.as_ref().is_none_or(|found| {
                                strictness(appraised.rule) > strictness(found.rule)
                            }) {
                                found = Some(appraised);
                            }
                        }
                    }
                }
            }
        }
        found
    }
}

/// How much a rule asks of security.ima: nothing signed, any signature, or one of version 3 alone.
fn strictness(rule: &Rule) -> u8 {
    match rule.appraise_type {
        None => 0,
        Some(AppraiseType::Imasig | AppraiseType::ImasigOrModsig) => 1,
        Some(AppraiseType::Sigv3) => 2,
    }
}

/// A pattern for paths: `?` and `*` stand for anything but a slash, `**` for anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<u8>);

impl Pattern {
    /// A pattern; a leading slash does not matter.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.trim_start_matches('/').as_bytes().to_vec())
    }

    /// Whether it matches a path below the root, given without a leading slash, whole.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        // The patterns still possible after each byte of the path: a set of places in the pattern, so that no pattern takes
        // longer than its length times the path's.
        let pattern = &self.0;
        let close = |places: &mut BTreeSet<usize>| {
            let mut todo: Vec<usize> = places.iter().copied().collect();
            while let Some(place) = todo.pop() {
                if pattern.get(place) == Some(&b'*') && places.insert(place + 1) {
                    todo.push(place + 1);
                }
            }
        };
        let mut places = BTreeSet::from([0]);
        close(&mut places);
        for byte in path {
            let mut next = BTreeSet::new();
            for &place in &places {
                match pattern.get(place) {
                    Some(b'*') => {
                        let double = pattern.get(place + 1) == Some(&b'*')
                            || (place > 0 && pattern.get(place - 1) == Some(&b'*'));
                        if double || *byte != b'/' {
                            next.insert(place);
                        }
                    }
                    Some(b'?') if *byte != b'/' => {
                        next.insert(place + 1);
                    }
                    Some(literal) if literal == byte => {
                        next.insert(place + 1);
                    }
                    _ => {}
                }
            }
            close(&mut next);
            places = next;
        }
        places.contains(&pattern.len())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("/usr/lib/a*", "usr/lib/abc", true),
            ("usr/lib/a*", "usr/lib/abc/d", false),
            ("usr/lib/**", "usr/lib/abc/d", true),
            ("**/*.py", "usr/lib/a/b.py", true),
            ("*.py", "usr/b.py", false),
            ("usr/?in/true", "usr/bin/true", true),
            ("usr?bin", "usr/bin", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("", "", true),
            (
                "***************************b",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                false,
            ),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(path.as_bytes()),
                expected,
                "{pattern} {path}"
            );
        }
    }

    use super::*;

    const ELF: &[u8] = &{
        let mut head = [0; 64];
        (head[0], head[1], head[2], head[3]) = (0x7f, b'E', b'L', b'F');
        (head[4], head[5], head[6], head[16], head[18]) = (2, 1, 1, 3, 62);
        (head[32], head[54], head[56]) = (64, 56, 1);
        head
    };

    #[test]
    fn what_is_chosen() {
        let default = include_str!("../../../policy/ima_policy.default");
        let by_owner = "appraise func=FILE_CHECK mask=MAY_READ fowner=0 appraise_type=imasig\n";
        let on_tmpfs = "dont_appraise fsname=ext4\nappraise func=BPRM_CHECK\n";
        let for_users = "appraise func=BPRM_CHECK uid>999\n";
        let labelled = "dont_appraise obj_type=bin_t\nappraise func=BPRM_CHECK\nappraise func=FILE_CHECK obj_type=etc_t fowner=0\n";
        for (policy, path, mode, uid, head, hook) in [
            (
                default,
                "usr/bin/true",
                0o755,
                0,
                ELF,
                Some(Hook::BprmCheck),
            ),
            (
                default,
                "usr/bin/script",
                0o755,
                0,
                b"#!/bin/sh",
                Some(Hook::BprmCheck),
            ),
            (
                default,
                "usr/lib/libc.so.6",
                0o644,
                0,
                ELF,
                Some(Hook::MmapCheck),
            ),
            (
                default,
                "usr/lib/ext4.ko.xz",
                0o644,
                0,
                b"\xfd7zXZ",
                Some(Hook::ModuleCheck),
            ),
            (
                default,
                "usr/lib/firmware/a.bin",
                0o644,
                0,
                b"fw",
                Some(Hook::FirmwareCheck),
            ),
            (
                default,
                "etc/ima/ima_policy",
                0o644,
                0,
                b"# rules",
                Some(Hook::PolicyCheck),
            ),
            (default, "etc/passwd", 0o644, 0, b"root:", None),
            (default, "usr/share/koala", 0o644, 0, b"text", None),
            (
                by_owner,
                "etc/passwd",
                0o644,
                0,
                b"root:",
                Some(Hook::FileCheck),
            ),
            (by_owner, "home/file", 0o644, 1000, b"text", None),
            (on_tmpfs, "usr/bin/true", 0o755, 0, ELF, None),
            (
                for_users,
                "usr/bin/true",
                0o755,
                0,
                ELF,
                Some(Hook::BprmCheck),
            ),
            (for_users, "usr/lib/libc.so.6", 0o644, 0, ELF, None),
            (
                labelled,
                "usr/bin/true",
                0o755,
                0,
                ELF,
                Some(Hook::FileCheck),
            ),
            (
                labelled,
                "usr/bin/true",
                0o755,
                1,
                ELF,
                Some(Hook::BprmCheck),
            ),
            (
                labelled,
                "etc/passwd",
                0o644,
                0,
                b"root:",
                Some(Hook::FileCheck),
            ),
            (labelled, "home/file", 0o644, 1000, b"text", None),
        ] {
            let appraisal = Appraisal::new(
                Policy::parse(policy.as_bytes()).unwrap(),
                FileSystem::default(),
            );
            let file = File {
                path: path.as_bytes(),
                mode,
                uid,
                gid: 0,
                head,
            };
            assert_eq!(appraisal.appraised_by(&file), hook, "{path} under {policy}");
        }
    }
}
