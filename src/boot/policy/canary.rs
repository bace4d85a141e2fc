//! An unsigned file that is no program: what the kernel answers to its execution tells whether programs are appraised.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use ima::fault::{Code, Fault};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use rustix::fs::{Mode, OFlags, XattrFlags, openat};
use rustix::io::Errno as RustixErrno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::files::describe;

/// Printable, so that the kernel looks for no module that could run it (fs/exec.c, `search_binary_handler`).
const CONTENT: &[u8] = b"ima-init: not a program\n";

/// What the kernel answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// It was denied.
    Denied,
    /// It was let pass, and found to be no program: nothing is enforced.
    NoProgram,
    /// Something else.
    Failed(Errno),
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("denied (EACCES)"),
            Self::NoProgram => f.write_str("not denied (ENOEXEC)"),
            Self::Failed(errno) => write!(f, "{} ({errno:?})", errno.desc()),
        }
    }
}

/// The file, on a tmpfs of its own that is mounted nowhere: nobody else sees it, no option such as noexec applies to it,
/// and a policy that frees the initramfs (`fsname=rootfs`) does not free it.
#[derive(Debug)]
pub(super) struct Canary {
    tmpfs: OwnedFd,
}

impl Canary {
    pub(super) fn new() -> Result<Self, Fault> {
        let make = || -> Result<Self, RustixErrno> {
            let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&context)?;
            let tmpfs = fsmount(
                &context,
                FsMountFlags::FSMOUNT_CLOEXEC,
                MountAttrFlags::empty(),
            )?;
            let canary = Self { tmpfs };
            canary.write("canary", CONTENT, Mode::RWXU)?;
            Ok(canary)
        };
        make().map_err(|errno| {
            Fault::new(
                Code::ApiMount,
                format!("a tmpfs for the proof: {}", describe(errno)),
            )
        })
    }

    /// Closed again when this returns: an open one would be ETXTBSY.
    fn write(&self, name: &str, content: &[u8], mode: Mode) -> Result<(), RustixErrno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.tmpfs, name, flags, mode)?);
        file.write_all(content)
            .map_err(|error| RustixErrno::from_io_error(&error).unwrap_or(RustixErrno::IO))
    }

    /// Tries to execute it. It is no program, so that the attempt never replaces this one; a denial comes before the
    /// kernel looks at what it is.
    pub(super) fn execute(&self) -> Tried {
        let nothing: [&std::ffi::CStr; 0] = [];
        let Err(errno) = nix::unistd::execveat(
            &self.tmpfs,
            c"canary",
            &[c"canary"],
            &nothing,
            AtFlags::empty(),
        );
        match errno {
            Errno::EACCES => Tried::Denied,
            Errno::ENOEXEC => Tried::NoProgram,
            errno => Tried::Failed(errno),
        }
    }

    /// Whether the kernel was built to appraise: then it refuses a security.ima of a type that there is not, whatever the
    /// policy says (ima_appraise.c, `ima_inode_setxattr`). For policies that free this file's file system.
    pub(super) fn kernel_appraises(&self) -> Result<bool, RustixErrno> {
        const NO_TYPE: [u8; 1] = [0xff];
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.tmpfs, "canary", flags, Mode::empty())?;
        let set = rustix::fs::fsetxattr(&file, "security.ima", &NO_TYPE, XattrFlags::empty());
        Ok(set == Err(RustixErrno::INVAL))
    }

    /// A copy of a policy that carries its signature.
    pub(super) fn signed_copy(&self, text: &[u8], signature: &[u8]) -> Result<File, RustixErrno> {
        self.write("policy", text, Mode::RUSR)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = File::from(openat(&self.tmpfs, "policy", flags, Mode::empty())?);
        rustix::fs::fsetxattr(&file, "security.ima", signature, XattrFlags::empty())?;
        Ok(file)
    }
}
