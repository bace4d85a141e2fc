//! In front of another initramfs: its files are moved into a tmpfs with their signatures, and its own init is executed there
//! under the policy.
//!
//! A cpio archive and a ramfs hold no extended attributes, so the files of an initramfs have no signatures. The initramfs
//! therefore contains a list of signatures ([`ima::signatures`]), and a tmpfs can store them. The policy then needs no
//! exception for the initramfs, and an attacker who can write to the tmpfs or to the emptied rootfs later still cannot
//! execute unsigned files there.

mod moving;

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;

use ima::fault::{Cause, Code, Fault, Stage};
use ima::filesystem::TMPFS_MAGIC;
use ima::layout::{self, ROOT};
use ima::program::{self, FRONTED_INIT};
use ima::signatures::{MAX_LIST, Signatures};
use log::{info, warn};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::policy::{PolicyInForce, Wanted};
use super::preflight::KernelPrograms;
use crate::change_root;
use crate::errno::{Errno, describe};
use crate::files::{self, Initramfs, OpenError};
use crate::logging;
use crate::report::{Report, milliseconds};
use crate::syscalls;
use crate::watch;
use moving::{MoveError, Step};

/// Moves the initramfs into a tmpfs, sets the signatures of its list on the files, and makes the tmpfs the root.
///
/// # Errors
///
/// [`Code::InitramfsMove`], [`Code::InitramfsSignatures`], [`Code::SwitchOldRoot`].
pub fn take_over(wanted: &Wanted, report: &mut Report) -> Result<(), Fault> {
    // The watch would keep the old root as its root directory, and /dev with the console is moved away from there.
    watch::stop();
    let failed =
        |what: &str, errno| Fault::new(Code::InitramfsMove, format!("{what}: {}", describe(errno)));
    let root = |errno| failed("/", errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = openat(CWD, "/", flags, Mode::empty()).map_err(root)?;
    let device = change_root::device(&old).map_err(root)?;
    change_root::require_initramfs(&old)?;
    let signatures = signatures(wanted)?;
    let new = tmpfs().map_err(|errno| failed("a tmpfs", errno))?;
    // Shows the file system without what is mounted in it.
    let view = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let view = open_tree(CWD, "/", view).map_err(root)?;
    let open = |directory: &OwnedFd| openat(directory, ".", flags, Mode::empty()).map_err(root);
    let moved = moving::move_all(open(&view)?, open(&new)?, &signatures).map_err(move_fault)?;
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

/// Reads the list of signatures. It may be missing only if the policy appraises nothing.
fn signatures(wanted: &Wanted) -> Result<Signatures, Fault> {
    let fault = |why: String| {
        Fault::new(
            Code::InitramfsSignatures,
            format!("{}: {why}", layout::SIGNATURES),
        )
    };
    let initramfs = Initramfs::open().map_err(|errno| fault(describe(errno)))?;
    match initramfs.file(Path::new(layout::SIGNATURES)) {
        Ok(file) => {
            let text = files::read(&file, MAX_LIST).map_err(|error| fault(error.to_string()))?;
            Signatures::parse(&text).map_err(|error| fault(error.to_string()))
        }
        Err(OpenError::Missing(_)) if !wanted.policy().appraises() => Ok(Signatures::default()),
        Err(error) => Err(fault(error.to_string())),
    }
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

/// Executes the initramfs's own init, under the policy, with an environment that does not depend on the command line.
///
/// Without the proof that a policy is in force there is no value to call it with:
///
/// ```compile_fail,E0308
/// use ima_init::{boot, report::Report};
/// fn unproved(wanted: boot::policy::Wanted) {
///     let _ = boot::front::execute(&wanted, &mut Report::default());
/// }
/// ```
///
/// ```
/// use ima_init::{boot, report::Report};
/// fn proved(policy: boot::policy::PolicyInForce) {
///     let _ = boot::front::execute(&policy, &mut Report::default());
/// }
/// ```
///
/// # Errors
///
/// [`Code::FrontedInit`], [`Code::FrontedInitDenied`].
pub fn execute(policy: &PolicyInForce, report: &mut Report) -> Result<Infallible, Fault> {
    let path = Path::new(layout::FRONTED_INIT);
    let failed = |errno: Errno| {
        let code = match errno {
            Errno::ACCESS => Code::FrontedInitDenied,
            _ => Code::FrontedInit,
        };
        let detail = format!("{}: {}", path.display(), describe(errno));
        Fault::new(code, detail)
    };
    let root = files::directory(Path::new("/")).map_err(failed)?;
    let programs = KernelPrograms::new(policy, &root, TMPFS_MAGIC, "tmpfs");
    let command = program::fronted_command(&programs, layout::FRONTED_INIT)?;
    // Also the program that the other init executes last. If it were denied then, PID 1 would end and the kernel would panic.
    for path in [command.program.as_slice(), layout::PROGRAM.as_bytes()] {
        program::runs(&programs, path, &FRONTED_INIT, &FRONTED_INIT)?;
    }
    let text = format!("{} and {} may run", path.display(), layout::PROGRAM);
    report.init = layout::FRONTED_INIT.to_owned();
    report.done(Stage::Preflight, &text);
    if let Err(error) = report.keep() {
        warn!("{}: the report could not be kept: {error}", Stage::Handover);
    }
    info!("{}: executing {}", Stage::Handover, path.display());
    info!(
        "{}: after {}",
        Stage::Handover,
        milliseconds(report.elapsed())
    );
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| failed(Errno::INVAL));
    let program = text(&command.program)?;
    let arguments: Vec<CString> = command
        .arguments
        .iter()
        .map(|argument| text(argument))
        .collect::<Result<_, _>>()?;
    let environment = [
        c"HOME=/",
        c"TERM=linux",
        c"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    ];
    logging::restore_limits();
    syscalls::restore_sigpipe();
    let arguments: Vec<&CStr> = arguments.iter().map(CString::as_c_str).collect();
    let errno = syscalls::execute(&program, &arguments, &environment);
    logging::lift_limits();
    Err(failed(errno))
}
