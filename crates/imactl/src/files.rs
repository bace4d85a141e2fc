//! The regular files of trees on this machine, each once.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use ima::policy::Rule;

use rayon::prelude::*;

use crate::Result;
use crate::digest::DigestOf;
use crate::packages::{self, Recorded};
use crate::select::{self, Appraisal};
use crate::tree::{Content, OpenFile};

/// A regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Path below the root that the policy will see, without a leading slash.
    pub below_root: PathBuf,
    /// Length in bytes.
    pub len: u64,
    /// Mode with its type.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The content that it must have to be signed: what its package brought.
    pub recorded: Option<Recorded>,
}

impl Found {
    /// What is in it.
    #[must_use]
    pub fn content(&self) -> Content {
        Content::Host {
            path: self.path.clone(),
            len: self.len,
        }
    }

    /// Its digest; a file that changes meanwhile is an error.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::FileChanged`], [`Code::SigningFailed`] for an algorithm that is not computed.
    pub fn digest(&self, over: DigestOf, algo: HashAlgorithm) -> Result<Vec<u8>> {
        self.content().digest(over, algo)
    }

    /// Opens it, for one pass.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::FileChanged`] if it is no longer as long as it was.
    pub fn open(&self) -> Result<OpenFile<'_>> {
        OpenFile::open(&self.path, self.len)
    }

    /// Whether `appraisal` has it appraised, if its first [`select::HEAD`] bytes are `head`.
    #[must_use]
    pub fn is_chosen(&self, appraisal: &Appraisal, head: &[u8]) -> bool {
        appraisal.appraised_by(&self.seen(head)).is_some()
    }

    /// The rules by which `appraisal` has it appraised, if its first [`select::HEAD`] bytes are `head`: one for each hook.
    #[must_use]
    pub fn rules<'a>(&self, appraisal: &'a Appraisal, head: &[u8]) -> Vec<&'a Rule> {
        let seen = self.seen(head);
        let appraised = appraisal.appraised(&seen);
        appraised.map(|appraised| appraised.rule).collect()
    }

    fn seen<'a>(&'a self, head: &'a [u8]) -> select::File<'a> {
        select::File {
            path: self.below_root.as_os_str().as_bytes(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            head,
        }
    }
}

/// Why an entry is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    /// A symbolic link, device, pipe or socket: only regular files have content to sign.
    NotRegular,
    /// Another name of a file that is taken already.
    HardLink,
    /// No rule of the policy has it appraised.
    NotAppraised,
    /// It has this key's signature over this content already.
    Unchanged,
    /// It is not what its package brought.
    Changed,
}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotRegular => "no regular file",
            Self::HardLink => "another name of a file already counted",
            Self::NotAppraised => "not appraised by the policy",
            Self::Unchanged => "signed already and unchanged",
            Self::Changed => "changed since its package brought it",
        })
    }
}

/// What a walk gave.
#[derive(Debug, Default)]
pub struct Files {
    /// The regular files, in the order of their names.
    pub files: Vec<Found>,
    /// What was passed over and why.
    pub skipped: Vec<(PathBuf, Skip)>,
}

/// Collects the regular files among `paths` and below them. A path that is given is followed if it is a symbolic link, links
/// below are not; other file systems mounted below are left out. `root` is where the paths of a policy begin.
///
/// # Errors
///
/// [`Code::InputUnreadable`] if a path is not there or a directory cannot be read.
pub fn collect(paths: &[PathBuf], root: &Path) -> Result<Files> {
    Collector::new(root)?.paths(paths).map(Collector::files)
}

/// Collects as [`collect`] does, and then what the packages of the system below `root` brought, on whatever file system.
///
/// # Errors
///
/// [`Code::InputUnreadable`], [`Code::PackageTool`], [`Code::NoPackages`].
pub fn collect_with_packages(paths: &[PathBuf], root: &Path) -> Result<Files> {
    let names = packages::names(root)?;
    let collector = Collector::new(root)?.paths(paths)?;
    Ok(collector.packages(names, root).files())
}

/// Files, each inode once.
struct Collector {
    /// Absolute.
    root: PathBuf,
    found: Files,
    inodes: HashSet<(u64, u64)>,
}

impl Collector {
    fn new(root: &Path) -> Result<Self> {
        Ok(Self {
            root: absolute(root)?,
            found: Files::default(),
            inodes: HashSet::new(),
        })
    }

    fn files(self) -> Files {
        self.found
    }

    /// Takes a regular file, if no other name of it was taken.
    fn take(
        &mut self,
        path: PathBuf,
        below_root: PathBuf,
        meta: &Metadata,
        recorded: Option<Recorded>,
    ) {
        if !self.inodes.insert((meta.dev(), meta.ino())) {
            self.found.skipped.push((path, Skip::HardLink));
            return;
        }
        self.found.files.push(Found {
            below_root,
            path,
            len: meta.len(),
            mode: meta.mode(),
            uid: meta.uid(),
            gid: meta.gid(),
            recorded,
        });
    }

    fn paths(mut self, paths: &[PathBuf]) -> Result<Self> {
        for given in paths {
            let above = absolute(given)?;
            let mut entries = Vec::new();
            for entry in walkdir::WalkDir::new(given)
                .sort_by_file_name()
                .same_file_system(true)
                .follow_root_links(true)
            {
                let entry =
                    entry.map_err(|error| Fault::new(Code::InputUnreadable, error.to_string()))?;
                if !entry.file_type().is_dir() {
                    entries.push((entry.depth(), entry.into_path()));
                }
            }
            // Asking for what the files are takes longer than finding them.
            let metas: Vec<Result<Metadata>> = entries
                .par_iter()
                .map(|(depth, path)| {
                    let meta = if *depth == 0 {
                        std::fs::metadata(path)
                    } else {
                        std::fs::symlink_metadata(path)
                    };
                    meta.map_err(|error| crate::file::unreadable(path, &error))
                })
                .collect();
            for ((_, path), meta) in entries.into_iter().zip(metas) {
                let meta = meta?;
                if !meta.is_file() {
                    self.found.skipped.push((path, Skip::NotRegular));
                    continue;
                }
                let below = path.strip_prefix(given).unwrap_or(&path);
                let absolute = if below.as_os_str().is_empty() {
                    above.clone()
                } else {
                    above.join(below)
                };
                let below_root = absolute
                    .strip_prefix(&self.root)
                    .unwrap_or(absolute.strip_prefix("/").unwrap_or(&absolute))
                    .to_owned();
                self.take(path, below_root, &meta, None);
            }
        }
        Ok(self)
    }

    /// Names of packages that are not regular files, or not there, are left out without a word: packages bring directories and
    /// links too.
    fn packages(mut self, names: packages::Names, root: &Path) -> Self {
        let entries: Vec<_> = names.into_iter().collect();
        let there: Vec<Option<(PathBuf, Metadata)>> = entries
            .par_iter()
            .map(|(name, _)| {
                let path = packages::path(root, name)?;
                let meta = std::fs::symlink_metadata(&path).ok()?;
                meta.is_file().then_some((path, meta))
            })
            .collect();
        for ((name, recorded), there) in entries.into_iter().zip(there) {
            let Some((path, meta)) = there else {
                continue;
            };
            let below_root = OsString::from_vec(name).into();
            self.take(path, below_root, &meta, recorded);
        }
        self
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| crate::file::unreadable(path, &error))
}
