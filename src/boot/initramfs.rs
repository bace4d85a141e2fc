//! The initramfs, moved into a tmpfs with the signatures of its files.
//!
//! A cpio archive and a ramfs hold no extended attributes, so the files of an initramfs have no signatures. The initramfs
//! therefore contains a list of signatures ([`ima::signatures`]), and a tmpfs can store them. The policy then needs no
//! exception for the initramfs, and an attacker who can write to the tmpfs or to the emptied rootfs later still cannot
//! execute unsigned files there.

mod moving;

use std::os::fd::OwnedFd;
use std::path::Path;

use ima::fault::{Cause, Code, Fault, Stage};
use ima::layout::{self, ROOT};
use ima::signatures::{MAX_LIST, Signatures};
use log::warn;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::change_root;
use crate::errno::{Errno, describe};
use crate::features::{self, Feature};
use crate::files::{self, Initramfs, OpenError};
use crate::report::Report;
use crate::watch;
use moving::{MoveError, Step};

/// Moves the initramfs into a tmpfs, sets the signatures of its list on the files, and makes the tmpfs the root. This ends the
/// watch, which would keep the old root as its root directory.
///
/// # Errors
///
/// [`Code::InitramfsMove`], [`Code::InitramfsSignatures`], [`Code::SwitchOldRoot`].
pub fn take_over(signatures: &Signatures, report: &mut Report) -> Result<(), Fault> {
    // /dev with the console is moved away from its root directory.
    watch::stop();
    let failed =
        |what: &str, errno| Fault::new(Code::InitramfsMove, format!("{what}: {}", describe(errno)));
    let root = |errno| failed("/", errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = openat(CWD, "/", flags, Mode::empty()).map_err(root)?;
    let device = change_root::device(&old).map_err(root)?;
    change_root::require_initramfs(&old)?;
    let new = tmpfs().map_err(|errno| failed("a tmpfs", errno))?;
    // Shows the file system without what is mounted in it.
    let view = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let view = open_tree(CWD, "/", view).map_err(root)?;
    let open = |directory: &OwnedFd| openat(directory, ".", flags, Mode::empty()).map_err(root);
    let moved = moving::move_all(open(&view)?, open(&new)?, signatures).map_err(move_fault)?;
    match rustix::fs::mkdir(ROOT, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed(ROOT, errno)),
    }
    let attach = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&new, "", CWD, ROOT, attach).map_err(|errno| failed(ROOT, errno))?;
    change_root::change_root(&old, &new, device).map_err(root)?;
    // If one were missing, the other init would mount a new one; in a new /proc the whole command line is visible.
    for name in change_root::MOVED {
        let path = Path::new("/").join(name);
        if !files::is_mount_point(&path) {
            let detail = format!("{} was not moved", path.display());
            return Err(Fault::new(Code::InitramfsMove, detail));
        }
    }
    let text = format!(
        "the initramfs is in a tmpfs: {} files, {} KiB, {} of them signed",
        moved.files,
        moved.bytes >> 10,
        moved.signed
    );
    if let Some(lacking) = signatures
        .len()
        .checked_sub(moved.signed)
        .filter(|lacking| *lacking > 0)
    {
        warn!(
            "{}: {lacking} files that are listed in {} are not in the initramfs",
            Stage::Environment,
            layout::SIGNATURES
        );
    }
    report.done(Stage::Environment, &text);
    Ok(())
}

/// Reads the list of signatures; nothing if there is none and none is `required`.
///
/// # Errors
///
/// [`Code::InitramfsSignatures`], [`Code::FeatureMissing`].
pub fn signatures(required: bool) -> Result<Option<Signatures>, Fault> {
    let fault = |why: String| {
        Fault::new(
            Code::InitramfsSignatures,
            format!("{}: {why}", layout::SIGNATURES),
        )
    };
    let initramfs = Initramfs::open().map_err(|errno| fault(describe(errno)))?;
    let file = match initramfs.file(Path::new(layout::SIGNATURES)) {
        Err(OpenError::Missing(_)) if !required => return Ok(None),
        found => {
            features::require(Feature::InitramfsSignatures)?;
            found.map_err(|error| fault(error.to_string()))?
        }
    };
    let text = files::read(&file, MAX_LIST).map_err(|error| fault(error.to_string()))?;
    let list = Signatures::parse(&text).map_err(|error| fault(error.to_string()))?;
    Ok(Some(list))
}

/// Makes a tmpfs without a limit on its size, as a ramfs has none.
fn tmpfs() -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("mode", "0755"), ("size", "100%"), ("nr_inodes", "0")] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
}

fn move_fault(error: MoveError) -> Fault {
    match (error.step, error.errno) {
        (Step::Attribute(_), Errno::OPNOTSUPP) => {
            Fault::new(Code::InitramfsSignatures, error.to_string())
                .because(Cause::TMPFS_WITHOUT_XATTRS)
        }
        (Step::Attribute(_), _) => Fault::new(Code::InitramfsSignatures, error.to_string())
            .because(Cause::ATTRIBUTE_NOT_TAKEN),
        (Step::Copy, _) => Fault::new(Code::InitramfsMove, error.to_string()),
    }
}
