//! Mounting with the kernel's own words when it refuses (fsopen(2), fsconfig(2)).

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ima::fault::{Cause, Code, Fault};
use ima::mount_options::{Attribute, MountOption, mount_options};
use ima::mountinfo;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::errno::describe;
use crate::files;
use crate::kernel_files;
use crate::report::RootRecord;

/// What was mounted.
pub(super) struct Mounted {
    pub(super) directory: OwnedFd,
    pub(super) magic: u64,
    pub(super) fstype: String,
    pub(super) options: String,
}

const fn attribute(of: Attribute) -> MountAttrFlags {
    match of {
        Attribute::NoSuid => MountAttrFlags::MOUNT_ATTR_NOSUID,
        Attribute::NoDev => MountAttrFlags::MOUNT_ATTR_NODEV,
        Attribute::NoExec => MountAttrFlags::MOUNT_ATTR_NOEXEC,
        Attribute::NoAtime => MountAttrFlags::MOUNT_ATTR_NOATIME,
        Attribute::NoDirAtime => MountAttrFlags::MOUNT_ATTR_NODIRATIME,
        Attribute::StrictAtime => MountAttrFlags::MOUNT_ATTR_STRICTATIME,
    }
}

/// What is mounted, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mount<'a> {
    /// What the driver finds the file system by.
    pub(super) source: &'a str,
    pub(super) fstype: &'a str,
    /// Mount options, separated by commas.
    pub(super) options: &'a str,
    pub(super) read_only: bool,
    /// The directory; it is made if it is not there.
    pub(super) point: &'a str,
    /// The refusal if the kernel refuses.
    pub(super) code: Code,
}

/// Mounts a file system.
pub(super) fn mount(what: &Mount<'_>) -> Result<Mounted, Fault> {
    let Mount {
        source,
        fstype,
        options: flags,
        read_only,
        point,
        code,
    } = *what;
    let refused = |step: &str, errno: Errno, context: Option<&OwnedFd>| {
        let messages = context.map(messages).unwrap_or_default();
        let detail = format!("{source} as {fstype}: {step}{}{messages}", describe(errno));
        Fault::new(code, detail)
    };
    let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| match errno {
        Errno::NODEV => {
            refused("", errno, None).because(Cause::FILE_SYSTEM_UNKNOWN.with(&[fstype]))
        }
        errno => refused("", errno, None),
    })?;
    let mut attributes = if read_only {
        MountAttrFlags::MOUNT_ATTR_RDONLY
    } else {
        MountAttrFlags::empty()
    };
    let mut options = vec![if read_only { "ro" } else { "rw" }];
    let set = |result: Result<(), Errno>, option: &str| {
        result.map_err(|errno| refused(&format!("option {option}: "), errno, Some(&context)))
    };
    set(fsconfig_set_string(&context, "source", source), "source")?;
    if read_only {
        set(fsconfig_set_flag(&context, "ro"), "ro")?;
    }
    for (option, parsed) in mount_options(flags) {
        options.push(option);
        let result = match parsed {
            MountOption::Mount(of) => {
                attributes |= attribute(of);
                continue;
            }
            MountOption::Filesystem { key, value: None } => fsconfig_set_flag(&context, key),
            MountOption::Filesystem {
                key,
                value: Some(value),
            } => fsconfig_set_string(&context, key, value),
        };
        set(result, option)?;
    }
    fsconfig_create(&context).map_err(|errno| {
        let fault = refused("", errno, Some(&context));
        match errno {
            Errno::NETUNREACH => fault.because(Cause::NETWORK_NOT_SET_UP),
            _ => fault,
        }
    })?;
    let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|errno| refused("", errno, Some(&context)))?;
    let _ = rustix::fs::mkdir(point, rustix::fs::Mode::from_raw_mode(0o755));
    move_mount(
        &mounted,
        "",
        CWD,
        point,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(|errno| refused(&format!("onto {point}: "), errno, None))?;
    let directory = files::directory(point.as_ref())
        .map_err(|errno| refused(&format!("{point}: "), errno, None))?;
    let magic =
        files::magic(&directory).map_err(|errno| refused(&format!("{point}: "), errno, None))?;
    Ok(Mounted {
        directory,
        magic,
        fstype: fstype.to_owned(),
        options: options.join(","),
    })
}

/// A root that is mounted already.
pub(super) struct Adopted {
    pub(super) directory: OwnedFd,
    pub(super) magic: u64,
    pub(super) record: RootRecord,
}

/// Looks at the root that is mounted at the path.
pub(super) fn adopt(path: &Path) -> Result<Adopted, Fault> {
    let shown = path.display();
    let fault = |why: &str| Fault::new(Code::RootNotMounted, format!("{shown}: {why}"));
    if !files::is_mount_point(path) {
        return Err(fault("nothing is mounted on it"));
    }
    let directory = files::directory(path).map_err(|errno| fault(&describe(errno)))?;
    let magic = files::magic(&directory).map_err(|errno| fault(&describe(errno)))?;
    const LIST: &str = "/proc/self/mountinfo";
    let mounts =
        kernel_files::read(LIST).map_err(|errno| fault(&format!("{LIST}: {}", describe(errno))))?;
    let record = record(path, &mounts).ok_or_else(|| fault(&format!("it is not in {LIST}")))?;
    Ok(Adopted {
        directory,
        magic,
        record,
    })
}

/// The mount that lies on top at the path.
fn record(path: &Path, mounts: &[u8]) -> Option<RootRecord> {
    // Without slashes at the end.
    let path: PathBuf = path.components().collect();
    let point = path.as_os_str().as_bytes();
    let mount = mountinfo::mounts(mounts).rfind(|mount| mount.point == point)?;
    Some(RootRecord {
        name: String::from_utf8_lossy(point).into_owned(),
        fstype: mount.fstype,
        device: mount.source,
        options: mount.options,
        verity: None,
        overlay: None,
        composefs: None,
    })
}

/// What the kernel said about the mount (fs/fsopen.c, `fscontext_read`: one message a read).
pub(super) fn messages(context: &OwnedFd) -> String {
    let mut words = String::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        if length == 0 {
            break;
        }
        let message = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        // A letter for the level and a space come first.
        let text = message.get(2..).unwrap_or_default().trim_end();
        words.push_str("; the kernel says: ");
        words.push_str(text);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_on_top_is_the_root() {
        let mounts = b"\
1 1 0:2 / / rw - rootfs rootfs rw
30 1 0:30 / /root rw - tmpfs hidden rw
31 1 253:1 / /root ro,noatime shared:1 - ext4 /dev/vda1 ro,errors=remount-ro
32 31 0:5 / /root/dev rw - devtmpfs udev rw
33 1 0:6 / /\xff rw - tmpfs tmpfs rw
34 1 0:7 / /my\\040root ro - fuse.a a\\040b rw
";
        let record = record(Path::new("/root/"), mounts).unwrap();
        assert_eq!(
            (
                record.device.as_str(),
                record.fstype.as_str(),
                record.options.as_str()
            ),
            ("/dev/vda1", "ext4", "ro,noatime")
        );
        let record = super::record(Path::new("/my root"), mounts).unwrap();
        assert_eq!(
            (record.name.as_str(), record.device.as_str()),
            ("/my root", "a b")
        );
        for broken in ["", "31 1 253:1 / /root", "31 1 253:1 / /root ro - ext4"] {
            assert_eq!(super::record(Path::new("/root"), broken.as_bytes()), None);
        }
    }
}
