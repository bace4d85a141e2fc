//! A composefs root: an erofs image on the file system that was mounted, with overlayfs over it and the objects.
//!
//! The kernel says which fs-verity digest the image has; with another one than the configured digest nothing of it is read.
//! It is mounted by its descriptor, so that the file that was measured is the one that is mounted. From then on the kernel verifies
//! each block of the image as it is read, and overlayfs each object as it is opened.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use ima::composefs::{Composefs, Digest, WITH_FS_VERITY};
use ima::fault::{Cause, Code, Fault};
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use super::mounting::{self, Mounted};
use super::overlay;
use crate::errno::describe;
use crate::files::{self, OpenError};
use crate::syscalls;

/// Where the image is mounted while overlayfs takes it: before Linux 6.15 only what is mounted somewhere can be a layer
/// (fs/namespace.c, `clone_private_mount`).
const IMAGE: &str = "/composefs";

/// Mounts the image and its objects in the place of `backing`, the file system that they are on, at `point`. That one is then mounted
/// nowhere: it is reached through the overlay alone.
pub(super) fn over(backing: &Mounted, wanted: &Composefs, point: &str) -> Result<Mounted, Fault> {
    let image = open(backing, wanted)?;
    check(&image, backing, wanted)?;
    let objects = files::directory_in(&backing.directory, wanted.objects.as_ref())
        .map_err(|errno| missing(&wanted.objects, &describe(errno)))?;
    let layer = erofs(&image, wanted)?;
    let _ = rustix::fs::mkdir(IMAGE, Mode::from_raw_mode(0o700));
    let refused = |step: &str, errno: Errno| {
        Fault::new(Code::ComposefsMount, format!("{step}: {}", describe(errno)))
    };
    attach(&layer, IMAGE).map_err(|errno| refused(IMAGE, errno))?;
    let overlay = layers(&files::descriptor_path(&objects));
    // The overlay has mounts of its own of both.
    unmount(IMAGE, UnmountFlags::DETACH).map_err(|errno| refused(IMAGE, errno))?;
    let _ = rustix::fs::rmdir(IMAGE);
    let overlay = overlay?;
    unmount(point, UnmountFlags::DETACH).map_err(|errno| refused(point, errno))?;
    attach(&overlay, point).map_err(|errno| refused(point, errno))?;
    let directory = files::directory(point.as_ref()).map_err(|errno| refused(point, errno))?;
    let magic = files::magic(&directory).map_err(|errno| refused(point, errno))?;
    Ok(Mounted {
        directory,
        magic,
        fstype: overlay::FSTYPE.to_owned(),
        options: "ro,verity=require".to_owned(),
    })
}

fn missing(path: &str, why: &str) -> Fault {
    Fault::new(Code::ComposefsMissing, format!("{path}: {why}"))
}

/// Opens the image; the links on its path do not lead out of the file system.
fn open(backing: &Mounted, wanted: &Composefs) -> Result<File, Fault> {
    let path = &wanted.image;
    files::open_in(&backing.directory, Path::new(path)).map_err(|error| match error {
        OpenError::Missing(_) | OpenError::NotRegular(_) => missing(path, &error.to_string()),
        // fs/verity/open.c, `fsverity_file_open`: the file has fs-verity, and the kernel not.
        OpenError::Failed(Errno::OPNOTSUPP) => {
            unmeasured(path, Errno::OPNOTSUPP).because(Cause::COMPOSEFS_VERITY_UNSUPPORTED)
        }
        OpenError::Failed(errno) => unmeasured(path, errno),
    })
}

fn unmeasured(path: &str, errno: Errno) -> Fault {
    let detail = format!("{path}: {}", describe(errno));
    Fault::new(Code::ComposefsDigest, detail)
}

/// Compares the image's fs-verity digest with the one that is trusted.
fn check(image: &File, backing: &Mounted, wanted: &Composefs) -> Result<(), Fault> {
    let path = &wanted.image;
    let unsupported = |errno| unmeasured(path, errno).because(Cause::COMPOSEFS_VERITY_UNSUPPORTED);
    if !WITH_FS_VERITY.contains(&backing.magic) {
        return Err(unsupported(Errno::OPNOTSUPP));
    }
    let mut answer = [0; syscalls::VERITY_DIGEST];
    syscalls::measure_verity(image, &mut answer).map_err(|errno| match errno {
        Errno::NODATA => unmeasured(path, errno).because(Cause::COMPOSEFS_WITHOUT_VERITY),
        Errno::OPNOTSUPP | Errno::NOTTY => unsupported(errno),
        errno => unmeasured(path, errno),
    })?;
    let found = Digest::measured(&answer).ok_or_else(|| Fault::new(Code::ComposefsDigest, path))?;
    if found != wanted.digest {
        let cause = Cause::COMPOSEFS_OTHER_DIGEST.with(&[&found.to_string()]);
        return Err(Fault::new(Code::ComposefsDigest, path).because(cause));
    }
    Ok(())
}

fn attach(mount: &OwnedFd, place: &str) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, "", CWD, place, flags)
}

fn context(fstype: &str) -> Result<OwnedFd, Fault> {
    fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| match errno {
        Errno::NODEV => Fault::new(Code::ComposefsKernel, describe(errno))
            .because(Cause::COMPOSEFS_FILE_SYSTEM_UNKNOWN.with(&[fstype])),
        errno => refused(fstype, errno, None),
    })
}

fn refused(fstype: &str, errno: Errno, context: Option<&OwnedFd>) -> Fault {
    let words = context.map(mounting::messages).unwrap_or_default();
    let detail = format!("{fstype}: {}{words}", describe(errno));
    Fault::new(Code::ComposefsMount, detail)
}

fn mounted(context: &OwnedFd) -> Result<OwnedFd, Errno> {
    fsconfig_set_flag(context, "ro")?;
    fsconfig_create(context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Mounts the image that is open.
fn erofs(image: &File, wanted: &Composefs) -> Result<OwnedFd, Fault> {
    const EROFS: &str = "erofs";
    let context = context(EROFS)?;
    fsconfig_set_string(&context, "source", files::descriptor_path(image))
        .and_then(|()| mounted(&context))
        .map_err(|errno| match errno {
            // fs/erofs/super.c, `erofs_fc_get_tree`
            Errno::NOTBLK => Fault::new(Code::ComposefsKernel, &wanted.image)
                .because(Cause::COMPOSEFS_NOT_FROM_A_FILE),
            errno => refused(&wanted.image, errno, Some(&context)),
        })
}

/// Mounts overlayfs with what is at [`IMAGE`] over the objects.
fn layers(objects: &str) -> Result<OwnedFd, Fault> {
    let context = context(overlay::FSTYPE)?;
    for (option, value) in [
        ("source", "composefs"),
        ("metacopy", "on"),
        ("redirect_dir", "on"),
        // Every file with content elsewhere must have a digest, and the content that digest.
        ("verity", "require"),
        ("lowerdir+", IMAGE),
        ("datadir+", objects),
    ] {
        fsconfig_set_string(&context, option, value).map_err(|errno| {
            let fault = refused(overlay::FSTYPE, errno, Some(&context));
            match errno {
                Errno::INVAL => Fault::new(Code::ComposefsKernel, fault.detail())
                    .because(Cause::COMPOSEFS_OVERLAY_OPTION.with(&[option])),
                _ => fault,
            }
        })?;
    }
    mounted(&context).map_err(|errno| refused(overlay::FSTYPE, errno, Some(&context)))
}
