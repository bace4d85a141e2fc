//! The programs that the init and switch_root will execute, found in the root as the kernel will find them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use ima::certificate::Certificate;
use ima::evm::{Attributes, Layout};
use ima::fault::{Cause, Code, Fault};
use ima::program::{Denial, OpenFailure, Opened, Programs};
use ima::release::Release;
use ima::signature::ImaXattr;
use rayon::prelude::*;

use crate::select::{self, Appraisal};
use crate::tree::{Content, Inode, Kind, Tree};
use crate::verify::{self, Verdict};

/// The type bits of a regular file's mode (include/uapi/linux/stat.h).
const S_IFREG: u16 = 0o100_000;

/// A root under a policy, with the keys that will be loaded.
pub(super) struct Examiner<'a> {
    pub(super) tree: &'a Tree,
    pub(super) appraisal: &'a Appraisal,
    pub(super) certificates: &'a [Certificate],
    /// Those for EVM, which is on if there is one.
    pub(super) evm: &'a [Certificate],
    /// Whether EVM has its HMAC key, which switches it on too.
    pub(super) hmac: bool,
    /// Whether EVM takes signatures of version 3 alone.
    pub(super) evm_sigv3: bool,
    /// The release of the kernel, if it is known.
    pub(super) kernel: Option<Release>,
    /// Whether that is a 64-bit kernel or a 32-bit one, for portable EVM signatures, if it is known.
    pub(super) evm_layout: Option<Layout>,
    /// What the init is made for.
    pub(super) machine: Option<ima::elf::Machine>,
    /// Whether the root is mounted with `noexec`.
    pub(super) noexec: bool,
    /// What is wrong with which file, once all were looked at.
    pub(super) denied: HashMap<Vec<u8>, Verdict>,
}

/// The first bytes of a program that are looked at: program headers lie behind the header, an interpreter's name near them.
const HEAD: usize = 1 << 17;

/// A file of the root: its name in the tree, without links.
pub(super) struct Found<'a> {
    pub(super) name: Vec<u8>,
    content: &'a Content,
}

impl<'a> Programs for Examiner<'a> {
    type File = Found<'a>;

    fn machine(&self) -> Option<ima::elf::Machine> {
        self.machine
    }

    fn open(&self, path: &[u8]) -> Result<Opened<Found<'a>>, OpenFailure> {
        let missing = || OpenFailure::Missing("not in the root".to_owned());
        let (name, inode) = self.tree.resolve(path).ok_or_else(missing)?;
        let Kind::File(content) = &inode.kind else {
            return Err(OpenFailure::NotRegular("not a regular file".to_owned()));
        };
        Ok(Opened {
            mode: inode.mode.into(),
            length: content.len(),
            file: Found { name, content },
        })
    }

    fn read(&self, file: &Found<'a>, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        let head = file.content.head(HEAD).map_err(|fault| fault.to_string())?;
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(head.len());
        let part = head.get(start..).unwrap_or_default();
        Ok(part.get(..length).unwrap_or(part).to_vec())
    }

    fn may_run(&self, file: &Found<'a>) -> Result<(), Denial> {
        if self.noexec {
            return Err(Denial {
                detail: "the root is mounted with noexec".to_owned(),
                cause: Some(Cause::ROOT_NOEXEC.into()),
            });
        }
        match self.denied.get(&file.name) {
            Some(verdict) => Err(Denial {
                detail: verdict.to_string(),
                cause: None,
            }),
            None => Ok(()),
        }
    }
}

impl Examiner<'_> {
    /// Whether a library, which needs no execute permission, is there and may be mapped.
    pub(super) fn check_library(&self, path: &[u8]) -> crate::Result<()> {
        let detail = |why: &str| format!("{}: {why}", shown(path));
        let opened = self.open(path).map_err(|failure| {
            let (OpenFailure::Missing(why)
            | OpenFailure::NotRegular(why)
            | OpenFailure::Denied(why)
            | OpenFailure::Failed(why)) = failure;
            Fault::new(Code::LibraryMissing, detail(&why))
        })?;
        self.may_run(&opened.file)
            .map_err(|denial| Fault::new(Code::LibraryDenied, detail(&denial.detail)))
    }

    /// Judges every file of the root that a rule appraises, and returns how many those are.
    pub(super) fn appraise(&mut self) -> usize {
        let names: Vec<(&[u8], &Inode)> = self
            .tree
            .names()
            .map(|(name, index)| (name, self.tree.inode(index)))
            .collect();
        let appraised = AtomicUsize::new(0);
        let denied = names
            .into_par_iter()
            .filter_map(|(name, inode)| {
                let verdict = self.verdict(name, inode)?;
                appraised.fetch_add(1, Ordering::Relaxed);
                (!verdict.is_good()).then(|| (name.to_vec(), verdict))
            })
            .collect();
        self.denied = denied;
        appraised.into_inner()
    }

    /// What appraisal makes of a file; nothing if it is none, or no rule appraises it.
    fn verdict(&self, name: &[u8], inode: &Inode) -> Option<Verdict> {
        let Kind::File(content) = &inode.kind else {
            return None;
        };
        let head = match content.head(select::HEAD) {
            Ok(head) => head,
            Err(fault) => return Some(Verdict::Unreadable(fault)),
        };
        let seen = select::File::of(name, inode, &head);
        let mut rules = self.appraisal.appraised(&seen).peekable();
        rules.peek()?;
        let verdict = self.appraised(inode, content);
        Some(rules.fold(verdict, |verdict, appraised| verdict.under(appraised.rule)))
    }

    /// What appraisal makes of a file that a rule appraises.
    pub(super) fn appraised(&self, inode: &Inode, content: &Content) -> Verdict {
        let judge = || -> crate::Result<Verdict> {
            let value = inode.xattrs.get(&b"security.ima"[..]).map(Vec::as_slice);
            let verdict =
                match verify::judge(value, self.certificates, self.kernel, &|over, algo| {
                    content.digest(over, algo)
                })? {
                    Verdict::GoodVerity(_) => Verdict::Unsupported(
                        "a signature of the fs-verity digest, which an image cannot have enabled"
                            .to_owned(),
                    ),
                    verdict => verdict,
                };
            if verdict.is_good() && (self.hmac || !self.evm.is_empty()) {
                return Ok(self.metadata(inode).unwrap_or(verdict));
            }
            Ok(verdict)
        };
        judge().unwrap_or_else(Verdict::Unreadable)
    }
}

impl Examiner<'_> {
    /// What is wrong with a file's portable EVM signature, if anything. An HMAC only the kernel can judge, which has the key.
    fn metadata(&self, inode: &Inode) -> Option<Verdict> {
        let value = inode.xattrs.get(&b"security.evm"[..]);
        if self.hmac
            && value.is_some_and(|value| matches!(ImaXattr::parse(value), Ok(ImaXattr::EvmHmac(_))))
        {
            return None;
        }
        let attributes = Attributes {
            mode: S_IFREG | inode.mode,
            uid: inode.uid,
            gid: inode.gid,
        };
        let layout = self.evm_layout;
        let verdict = verify::judge_evm(&attributes, &inode.xattrs, self.evm, self.kernel, layout);
        match value.map(|value| ImaXattr::parse(value)) {
            Some(Ok(ImaXattr::EvmPortable(signature))) if self.evm_sigv3 && verdict.is_none() => {
                let good = Box::new(Verdict::Good(signature.key_id));
                Some(Verdict::OtherKind(good, "version 3 in security.evm"))
            }
            _ => verdict,
        }
    }
}

/// A path for a message.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}
