//! Moves the files of one file system into another, each with its signature.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;

use ima::signatures::{Attributes, Signatures};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags, chmodat, chownat, fchmod, fchown,
    fsetxattr, linkat, mkdirat, mknodat, openat, readlinkat, sendfile, statat, symlinkat, unlinkat,
};

use crate::change_root::device;
use crate::errno::{Errno, describe, from_io};
use crate::files::each_name;

/// How many bytes of a file are copied at once.
const PIECE: usize = 1 << 24;

/// What was moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// Files of any kind, directories among them.
    pub(super) files: usize,
    /// The content of the regular files, in bytes.
    pub(super) bytes: u64,
    /// Names of regular files whose signature was set.
    pub(super) signed: usize,
}

/// What could not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Making the copy.
    Copy,
    /// Setting this attribute.
    Attribute(&'static str),
}

/// What could not be done, with which file, and why.
#[derive(Debug)]
pub(super) struct MoveError {
    pub(super) path: Vec<u8>,
    pub(super) step: Step,
    pub(super) errno: Errno,
}

impl fmt::Display for MoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = String::from_utf8_lossy(&self.path);
        let errno = describe(self.errno);
        match self.step {
            Step::Copy => write!(f, "/{path}: {errno}"),
            Step::Attribute(name) => write!(f, "/{path}: {name}: {errno}"),
        }
    }
}

/// A directory that is being moved.
struct Level {
    old: OwnedFd,
    new: OwnedFd,
    /// Its path, relative to the first one.
    path: Vec<u8>,
    /// Its name in the directory above.
    name: CString,
    stat: Stat,
    entries: Vec<CString>,
}

impl Level {
    fn new(old: OwnedFd, new: OwnedFd, path: Vec<u8>, name: CString) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(&old)?;
        let mut entries = Vec::new();
        each_name(&old, &mut |name| {
            entries.push(name.to_owned());
            Ok(())
        })?;
        Ok(Self {
            old,
            new,
            path,
            name,
            stat,
            entries,
        })
    }

    fn path_of(&self, name: &CStr) -> Vec<u8> {
        match self.path.as_slice() {
            b"" => name.to_bytes().to_vec(),
            path => [path, b"/", name.to_bytes()].concat(),
        }
    }
}

/// Moves everything in `old` to `new`, an empty directory: directories, regular files with their hard links, symbolic links,
/// devices and fifos, with their modes and owners. Each is deleted as soon as it is copied. A file of the list is given its
/// attributes; what is mounted in `old` stays, and with it the directory that it is mounted on.
pub(super) fn move_all(
    old: OwnedFd,
    new: OwnedFd,
    signatures: &Signatures,
) -> Result<Moved, MoveError> {
    let device = device(&old).map_err(|errno| copy_error(Vec::new(), errno))?;
    let mut mover = Mover {
        signatures,
        device,
        links: BTreeMap::new(),
        new_root: new
            .try_clone()
            .map_err(|error| copy_error(Vec::new(), from_io(&error)))?,
        moved: Moved::default(),
    };
    let first = Level::new(old, new, Vec::new(), CString::default())
        .map_err(|errno| copy_error(Vec::new(), errno))?;
    // The innermost directory is last. No recursion, because whoever made the archive chose the depth.
    let mut levels = vec![first];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.entries.pop() else {
            if let Some(done) = levels.pop() {
                own(&done.new, &done.stat).map_err(|errno| copy_error(done.path, errno))?;
                if let Some(above) = levels.last() {
                    // One that something is mounted on stays.
                    let _ = unlinkat(&above.old, &done.name, AtFlags::REMOVEDIR);
                }
            }
            continue;
        };
        if let Some(inner) = mover.entry(level, &name)? {
            levels.push(inner);
        }
    }
    Ok(mover.moved)
}

struct Mover<'a> {
    signatures: &'a Signatures,
    device: u64,
    /// The new paths of files with several names, by inode.
    links: BTreeMap<u64, CString>,
    new_root: OwnedFd,
    moved: Moved,
}

impl Mover<'_> {
    /// Moves an entry of a directory; gives the directory that it is, if it is one.
    fn entry(&mut self, level: &Level, name: &CStr) -> Result<Option<Level>, MoveError> {
        let path = level.path_of(name);
        let failed = |errno| copy_error(path.clone(), errno);
        let stat = statat(&level.old, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        self.moved.files = self.moved.files.saturating_add(1);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            mkdirat(&level.new, name, Mode::RWXU).map_err(failed)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let open = |above: &OwnedFd| openat(above, name, flags, Mode::empty()).map_err(failed);
            let (old, new) = (open(&level.old)?, open(&level.new)?);
            if stat.st_dev != self.device {
                return Ok(None);
            }
            return Level::new(old, new, path.clone(), name.to_owned())
                .map(Some)
                .map_err(failed);
        }
        match kind {
            FileType::RegularFile => self.regular(level, name, &path, &stat)?,
            FileType::Symlink => {
                let target = readlinkat(&level.old, name, Vec::new()).map_err(failed)?;
                symlinkat(&target, &level.new, name).map_err(failed)?;
                let (user, group) = owner(&stat);
                chownat(&level.new, name, user, group, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed)?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                mknodat(&level.new, name, kind, Mode::RUSR, stat.st_rdev).map_err(failed)?;
                let (user, group) = owner(&stat);
                chownat(&level.new, name, user, group, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed)?;
                chmodat(&level.new, name, mode(&stat), AtFlags::empty()).map_err(failed)?;
            }
            // No process listens on a socket from an archive.
            _ => {}
        }
        unlinkat(&level.old, name, AtFlags::empty()).map_err(failed)?;
        Ok(None)
    }

    fn regular(
        &mut self,
        level: &Level,
        name: &CStr,
        path: &[u8],
        stat: &Stat,
    ) -> Result<(), MoveError> {
        let failed = |errno| copy_error(path.to_vec(), errno);
        if let Some(first) = self.links.get(&stat.st_ino) {
            linkat(&self.new_root, first, &level.new, name, AtFlags::empty()).map_err(failed)?;
        } else {
            self.copy(level, name, path, stat)?;
        }
        if let Some(attributes) = self.signatures.get(path) {
            // Not through the file that was open for writing: IMA may replace the attribute when that one is closed
            // (ima_main.c, `ima_check_last_writer`).
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&level.new, name, flags, Mode::empty()).map_err(failed)?;
            sign(&file, attributes).map_err(|(name, errno)| MoveError {
                path: path.to_vec(),
                step: Step::Attribute(name),
                errno,
            })?;
            self.moved.signed = self.moved.signed.saturating_add(1);
        }
        Ok(())
    }

    fn copy(
        &mut self,
        level: &Level,
        name: &CStr,
        path: &[u8],
        stat: &Stat,
    ) -> Result<(), MoveError> {
        let failed = |errno| copy_error(path.to_vec(), errno);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = File::from(openat(&level.old, name, flags, Mode::empty()).map_err(failed)?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let to = File::from(openat(&level.new, name, flags, Mode::RUSR).map_err(failed)?);
        let bytes = copy(&from, &to).map_err(failed)?;
        self.moved.bytes = self.moved.bytes.saturating_add(bytes);
        own(&to, stat).map_err(failed)?;
        if stat.st_nlink > 1 {
            let path = CString::new(path).map_err(|_| failed(Errno::INVAL))?;
            self.links.insert(stat.st_ino, path);
        }
        Ok(())
    }
}

/// Sets the owner and the mode, in this order: a change of the owner clears the set-user-ID bit.
fn own(file: impl std::os::fd::AsFd, stat: &Stat) -> Result<(), Errno> {
    let (user, group) = owner(stat);
    fchown(&file, user, group)?;
    fchmod(&file, mode(stat))
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode)
}

fn sign(file: &OwnedFd, attributes: &Attributes) -> Result<(), (&'static str, Errno)> {
    let values = [
        ("security.ima", Some(&attributes.ima)),
        ("security.evm", attributes.evm.as_ref()),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            fsetxattr(file, name, value, XattrFlags::empty()).map_err(|errno| (name, errno))?;
        }
    }
    Ok(())
}

/// Copies the content within the kernel; how many bytes there were.
fn copy(from: &File, to: &File) -> Result<u64, Errno> {
    let mut bytes: u64 = 0;
    loop {
        match sendfile(to, from, None, PIECE) {
            Ok(0) => return Ok(bytes),
            Ok(length) => bytes = bytes.saturating_add(u64::try_from(length).unwrap_or(0)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn copy_error(path: Vec<u8>, errno: Errno) -> MoveError {
    MoveError {
        path,
        step: Step::Copy,
        errno,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    fn open(path: &std::path::Path) -> OwnedFd {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(rustix::fs::CWD, path, flags, Mode::empty()).unwrap()
    }

    #[test]
    fn a_tree_is_moved_whole_and_the_old_one_is_empty() {
        let base = tempfile::tempdir().unwrap();
        let (old, new) = (base.path().join("old"), base.path().join("new"));
        for directory in ["old/usr/bin", "old/empty", "new"] {
            std::fs::create_dir_all(base.path().join(directory)).unwrap();
        }
        let long = vec![7; 1_000_005];
        std::fs::write(old.join("usr/bin/long"), &long).unwrap();
        std::fs::hard_link(old.join("usr/bin/long"), old.join("other")).unwrap();
        std::fs::write(old.join("usr/script"), "#!/bin/sh\n").unwrap();
        for (path, mode) in [("usr/script", 0o4755), ("empty", 0o1777), ("usr", 0o711)] {
            std::fs::set_permissions(old.join(path), std::fs::Permissions::from_mode(mode))
                .unwrap();
        }
        symlink("/nowhere", old.join("usr/link")).unwrap();
        mknodat(open(&old), "fifo", FileType::Fifo, Mode::RWXU, 0).unwrap();
        let moved = move_all(open(&old), open(&new), &Signatures::default()).unwrap();
        assert_eq!(std::fs::read_dir(&old).unwrap().count(), 0);
        assert_eq!(moved.files, 8);
        assert_eq!(moved.bytes, u64::try_from(long.len()).unwrap() + 10);
        assert_eq!(moved.signed, 0);
        assert_eq!(std::fs::read(new.join("other")).unwrap(), long);
        let inode = |path: &str| std::fs::symlink_metadata(new.join(path)).unwrap();
        assert_eq!(inode("other").ino(), inode("usr/bin/long").ino());
        assert_eq!(inode("usr/script").mode() & 0o7777, 0o4755);
        assert_eq!(inode("empty").mode() & 0o7777, 0o1777);
        assert_eq!(inode("usr").mode() & 0o7777, 0o711);
        assert_eq!(
            std::fs::read_link(new.join("usr/link")).unwrap().to_str(),
            Some("/nowhere")
        );
        assert_eq!(
            FileType::from_raw_mode(inode("fifo").mode()),
            FileType::Fifo
        );
    }

    #[test]
    fn an_attribute_that_cannot_be_set_is_named_by_any_name_of_its_file() {
        let base = tempfile::tempdir().unwrap();
        for directory in ["old", "new"] {
            std::fs::create_dir(base.path().join(directory)).unwrap();
        }
        std::fs::write(base.path().join("old/a"), "x").unwrap();
        std::fs::hard_link(base.path().join("old/a"), base.path().join("old/b")).unwrap();
        let mut signatures = Signatures::default();
        // Longer than any attribute may be, so that no kernel and no privilege takes it.
        let ima = vec![3; 1 << 17];
        signatures.insert(b"b".to_vec(), Attributes { ima, evm: None });
        let (old, new) = (
            open(&base.path().join("old")),
            open(&base.path().join("new")),
        );
        let error = move_all(old, new, &signatures).unwrap_err();
        assert_eq!(
            (error.path.as_slice(), error.step),
            (&b"b"[..], Step::Attribute("security.ima"))
        );
    }
}
