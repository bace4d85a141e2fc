//! The change from the initramfs to another root: what switch_root does, and the init in front of another initramfs.

use std::os::fd::{AsFd, OwnedFd};

use ima::fault::{Code, Fault};
use ima::filesystem::{RAMFS_MAGIC, TMPFS_MAGIC};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MoveMountFlags, UnmountFlags, mount_move, move_mount, unmount};

use crate::errno::{Errno, describe};
use crate::files;

/// The mounts that are moved to the new root (util-linux, sys-utils/switch_root.c).
pub const MOVED: [&str; 4] = ["dev", "proc", "sys", "run"];

/// The file systems that the kernel unpacks an initramfs to.
pub const INITRAMFS_MAGIC: [u64; 2] = [RAMFS_MAGIC, TMPFS_MAGIC];

/// Makes the root of a mounted file system the root, with the API mounts of the old one.
///
/// # Errors
///
/// What fchdir(2), mount(2) and chroot(2) say.
pub fn change_root(old: &OwnedFd, new: &OwnedFd, old_device: u64) -> Result<(), Errno> {
    for name in MOVED {
        move_or_unmount(old, new, name, old_device);
    }
    rustix::process::fchdir(new)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")
}

/// Moves a mount of the initramfs to the directory of the same name in the new root. Where there is no such directory, or
/// something is mounted on it already, the mount is unmounted instead. No link is followed on either side.
fn move_or_unmount(old: &OwnedFd, new: &OwnedFd, name: &str, old_device: u64) {
    let open = |root: &OwnedFd| {
        openat2(
            root,
            name,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    };
    let Ok(mount) = open(old) else { return };
    if device(&mount) == Ok(old_device) {
        return;
    }
    let free = |target: &OwnedFd| device(target) == device(new);
    let moved = open(new).ok().filter(free).map(|target| {
        let both =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&mount, "", &target, "", both)
    });
    if !matches!(moved, Some(Ok(()))) {
        let _ = unmount(format!("/{name}"), UnmountFlags::DETACH);
    }
}

/// Refuses a root on a file system that no initramfs is unpacked to.
///
/// # Errors
///
/// [`Code::SwitchOldRoot`].
pub fn require_initramfs(root: &OwnedFd) -> Result<(), Fault> {
    let magic = files::magic(root)
        .map_err(|errno| Fault::new(Code::SwitchOldRoot, format!("/: {}", describe(errno))))?;
    require_initramfs_magic(magic)
}

/// Refuses the magic number of a file system that no initramfs is unpacked to.
///
/// # Errors
///
/// [`Code::SwitchOldRoot`].
pub fn require_initramfs_magic(magic: u64) -> Result<(), Fault> {
    if INITRAMFS_MAGIC.contains(&magic) {
        return Ok(());
    }
    let detail = format!("/ is a file system with the magic {magic:#x}, no ramfs or tmpfs");
    Err(Fault::new(Code::SwitchOldRoot, detail))
}

/// Whether `/` is on a file system that an initramfs is unpacked to.
pub fn is_initramfs() -> bool {
    files::directory("/".as_ref())
        .and_then(files::magic)
        .is_ok_and(|magic| INITRAMFS_MAGIC.contains(&magic))
}

/// The number of the device that a file is on.
///
/// # Errors
///
/// What fstat(2) says.
pub fn device(file: impl AsFd) -> Result<u64, Errno> {
    rustix::fs::fstat(file).map(|stat| stat.st_dev)
}
