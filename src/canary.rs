//! An unsigned file that is not a program. The kernel's answer to its execution shows whether programs are appraised.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use ima::fault::{Code, Fault};
use ima::layout::{CANARY, CANARY_CONTENT};
use rustix::fs::{Mode, OFlags, XattrFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::errno::{Errno, describe, from_io};
use crate::syscalls;

/// The kernel's answer to the attempt to execute the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// EACCES: it was denied.
    Denied,
    /// ENOEXEC: it was not denied, and then found not to be a program. Nothing is enforced.
    NotAProgram,
    /// Any other error.
    Failed(Errno),
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("denied (EACCES)"),
            Self::NotAProgram => f.write_str("not denied (ENOEXEC)"),
            Self::Failed(errno) => f.write_str(&describe(*errno)),
        }
    }
}

/// The file, on a tmpfs of its own that is mounted nowhere: no other process reaches it, no mount option such as noexec applies
/// to it, and a policy with an exception for the initramfs (`fsname=rootfs`) has none for it.
#[derive(Debug)]
pub struct Canary {
    tmpfs: OwnedFd,
}

impl Canary {
    /// Makes the tmpfs and the file.
    ///
    /// # Errors
    ///
    /// [`Code::ApiMount`].
    pub fn new() -> Result<Self, Fault> {
        let make = || -> Result<Self, Errno> {
            let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&context)?;
            let tmpfs = fsmount(
                &context,
                FsMountFlags::FSMOUNT_CLOEXEC,
                MountAttrFlags::empty(),
            )?;
            let canary = Self { tmpfs };
            canary.write(CANARY, CANARY_CONTENT, Mode::RWXU)?;
            Ok(canary)
        };
        make().map_err(|errno| {
            Fault::new(
                Code::ApiMount,
                format!("a tmpfs for the proof: {}", describe(errno)),
            )
        })
    }

    /// Writes a file and closes it: while it is open for writing, its execution would fail with ETXTBSY.
    fn write(&self, name: &str, content: &[u8], mode: Mode) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.tmpfs, name, flags, mode)?);
        file.write_all(content).map_err(|error| from_io(&error))
    }

    /// Tries to execute the file. It is not a program, so the attempt never replaces this process; the kernel appraises it before
    /// it looks at what it is.
    pub fn execute(&self) -> Execution {
        match syscalls::execute_at(&self.tmpfs, c"canary", &[c"canary"], &[]) {
            Errno::ACCESS => Execution::Denied,
            Errno::NOEXEC => Execution::NotAProgram,
            errno => Execution::Failed(errno),
        }
    }

    /// Whether the kernel was built to appraise: then it refuses a security.ima of an unknown type, whatever the policy is
    /// (ima_appraise.c, `ima_inode_setxattr`). For policies with an exception for this file's file system.
    ///
    /// # Errors
    ///
    /// What open(2) says.
    pub fn kernel_appraises(&self) -> Result<bool, Errno> {
        const NO_TYPE: [u8; 1] = [0xff];
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.tmpfs, "canary", flags, Mode::empty())?;
        let set = rustix::fs::fsetxattr(&file, "security.ima", &NO_TYPE, XattrFlags::empty());
        Ok(set == Err(Errno::INVAL))
    }

    /// A copy of a policy, with its signature in security.ima.
    ///
    /// # Errors
    ///
    /// What open(2), write(2) and setxattr(2) say.
    pub fn signed_copy(&self, text: &[u8], signature: &[u8]) -> Result<File, Errno> {
        self.write("policy", text, Mode::RUSR)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = File::from(openat(&self.tmpfs, "policy", flags, Mode::empty())?);
        rustix::fs::fsetxattr(&file, "security.ima", signature, XattrFlags::empty())?;
        Ok(file)
    }
}
