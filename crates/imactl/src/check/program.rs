//! The programs that the init and switch_root will execute, found in the root as the kernel will find them.

use std::collections::HashMap;

use ima::certificate::Certificate;
use ima::evm::Attributes;
use ima::fault::{Code, Fault};
use ima::policy::lint::Release;
use ima::program::{
    self, Codes, Format, INIT, INTERPRETER, MAX_INTERPRETERS, Program, SWITCH_ROOT,
};
use ima::signature::ImaXattr;
use rayon::prelude::*;

use crate::Result;
use crate::select::{self, Chooser};
use crate::tree::{Content, Inode, Kind, Tree};
use crate::verify::{self, Verdict};

/// The type bits of a regular file's mode (include/uapi/linux/stat.h).
const S_IFREG: u16 = 0o100_000;

/// Libraries: the init does not look at them, but the machine would panic without.
pub(super) const LIBRARY: Codes = Codes {
    missing: Code::LibraryMissing,
    invalid: Code::LibraryMissing,
    denied: Code::LibraryDenied,
};

/// A root under a policy, with the keys that will be loaded.
pub(super) struct Examiner<'a> {
    pub(super) tree: &'a Tree,
    pub(super) chooser: &'a Chooser,
    pub(super) certificates: &'a [Certificate],
    /// Those for EVM, which is on if there is one.
    pub(super) evm: &'a [Certificate],
    /// Whether EVM has its HMAC key, which switches it on too.
    pub(super) hmac: bool,
    /// The release of the kernel, if it is known.
    pub(super) kernel: Option<Release>,
    /// What the init is made for.
    pub(super) machine: Option<ima::elf::Machine>,
    /// What is wrong with which file, once all were looked at.
    pub(super) denied: HashMap<Vec<u8>, Verdict>,
}

impl<'a> Examiner<'a> {
    pub(super) fn switch_root(&self, path: &str) -> Result<()> {
        let (name, content) = self.find(path.as_bytes(), &SWITCH_ROOT)?;
        let format = self.program(path.as_bytes(), content, &SWITCH_ROOT, |program| {
            program.format()
        })?;
        program::require_static(path, &format)?;
        self.allowed(&name, path.as_bytes(), &SWITCH_ROOT)
    }

    /// Whether the init runs, as [`runs`](Self::runs) has it.
    pub(super) fn init(&self, path: &str) -> Result<Vec<u8>> {
        self.runs(path.as_bytes(), &INIT, &INTERPRETER)
    }

    /// Whether a program runs: itself, then what interprets it, and what interprets that. Gives the program that is executed in
    /// the end: itself, or the interpreter of a script.
    pub(super) fn runs(
        &self,
        path: &[u8],
        first: &'static Codes,
        interpreter: &'static Codes,
    ) -> Result<Vec<u8>> {
        let mut path = path.to_vec();
        let mut codes = first;
        for _ in 0..MAX_INTERPRETERS {
            let (name, content) = self.find(&path, codes)?;
            let format = self.program(&path, content, codes, |program| program.format())?;
            self.allowed(&name, &path, codes)?;
            match format {
                Format::Static => return Ok(path),
                Format::Interpreted(loader) => {
                    let (name, content) = self.find(&loader, interpreter)?;
                    self.program(&loader, content, interpreter, |program| {
                        program.check_loader()
                    })?;
                    self.allowed(&name, &loader, interpreter)?;
                    return Ok(path);
                }
                Format::Script(program) => path = program,
            }
            codes = interpreter;
        }
        let detail = format!("{} is one script too many", shown(&path));
        Err(Fault::new(interpreter.invalid, detail)
            .cause(program::TOO_MANY_SCRIPTS)
            .remedy(program::NO_SCRIPT))
    }

    /// Finds a file that is to be executed or mapped: its real name in the tree, and its content.
    pub(super) fn find(&self, path: &[u8], codes: &Codes) -> Result<(Vec<u8>, &'a Content)> {
        let shown = shown(path);
        let (name, inode) = self
            .tree
            .resolve(path)
            .ok_or_else(|| Fault::new(codes.missing, format!("{shown}: not in the root")))?;
        let Kind::File(content) = &inode.kind else {
            let detail = format!("{shown} is not a regular file");
            return Err(Fault::new(codes.invalid, detail));
        };
        let library = codes.missing == LIBRARY.missing;
        if inode.mode & 0o111 == 0 && !library {
            return Err(
                Fault::new(codes.invalid, format!("{shown} is not executable"))
                    .cause("it has no execute permission for anybody"),
            );
        }
        program::check_length(&shown, codes, content.len())?;
        Ok((name, content))
    }

    /// Looks into a program.
    fn program<T>(
        &self,
        path: &[u8],
        content: &Content,
        codes: &Codes,
        look: impl FnOnce(&mut Program<'_>) -> Result<T>,
    ) -> Result<T> {
        /// Program headers lie behind the header; an interpreter's name near them.
        const HEAD: usize = 1 << 17;
        let head = content.head(HEAD)?;
        let mut read = |offset: u64, length: usize| {
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(head.len());
            let part = head.get(start..).unwrap_or_default();
            Ok(part.get(..length).unwrap_or(part).to_vec())
        };
        look(&mut Program {
            path: &shown(path),
            codes,
            machine: self.machine,
            read: &mut read,
        })
    }

    /// Whether appraisal would let it run.
    pub(super) fn allowed(&self, name: &[u8], path: &[u8], codes: &Codes) -> Result<()> {
        match self.denied.get(name) {
            Some(verdict) => {
                let detail = format!("{}: {verdict}", shown(path));
                Err(Fault::new(codes.denied, detail))
            }
            None => Ok(()),
        }
    }

    /// Looks at every file of the root.
    pub(super) fn appraise(&mut self) {
        let names: Vec<(&[u8], &Inode)> = self
            .tree
            .names()
            .map(|(name, index)| (name, self.tree.inode(index)))
            .collect();
        let denied = names
            .into_par_iter()
            .filter_map(|(name, inode)| {
                let verdict = self.verdict(name, inode)?;
                (!verdict.is_good()).then(|| (name.to_vec(), verdict))
            })
            .collect();
        self.denied = denied;
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
        let seen = super::seen(name, inode, &head);
        self.chooser.appraised_by(&seen)?;
        Some(self.appraised(inode, content))
    }

    /// What appraisal makes of a file that a rule appraises.
    pub(super) fn appraised(&self, inode: &Inode, content: &Content) -> Verdict {
        let judge = || -> Result<Verdict> {
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
        verify::judge_evm(&attributes, &inode.xattrs, self.evm)
    }
}

/// A path for a message.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}
