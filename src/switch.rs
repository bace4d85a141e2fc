//! switch_root: moves the API mounts to the new root, empties the initramfs, makes the new root the root and executes
//! the init there. Takes util-linux's command line.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use ima::fault::{Cause, Code, Fault, Stage};
use ima::filesystem::{RAMFS_MAGIC, TMPFS_MAGIC};
use nix::errno::Errno;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2, unlinkat};
use rustix::mount::{MoveMountFlags, UnmountFlags, mount_move, move_mount, unmount};

use crate::failure::{self, Ending, VARIABLE};
use crate::files::{self, describe};
use crate::logging;
use crate::syscalls;
use crate::watch;

const HELP: &str = "\
Make another file system the root of the mount tree, from an initramfs.

Usage: switch_root [options] NEWROOT INIT [ARGUMENT]...

Moves /dev, /proc, /sys and /run to NEWROOT, deletes everything in the
initramfs, makes NEWROOT the root and executes INIT there. Refuses to work
unless it is PID 1, / is a ramfs or tmpfs, and NEWROOT is another file system.

Options:
  -h, --help     print this
  -V, --version  print the version

Environment:
  IMA_INIT_ON_FAILURE=ACTION:SECONDS  what a failure ends in: reboot (default),
                                      poweroff, halt or panic
  IMA_INIT_STALL_TIMEOUT=SECONDS      how long the disk may fail to answer until
                                      that is a failure (default 300), or forever

Example:
  exec switch_root /rootfs /sbin/init
";

/// The mounts that go along (util-linux, sys-utils/switch_root.c).
pub(crate) const MOVED: [&str; 4] = ["dev", "proc", "sys", "run"];

/// What an initramfs is unpacked to.
const INITRAMFS_MAGIC: [u64; 2] = [RAMFS_MAGIC, TMPFS_MAGIC];

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Help,
    Version,
    Switch {
        new_root: OsString,
        init: OsString,
        arguments: Vec<OsString>,
    },
}

/// Runs switch_root on the program's arguments; a failure ends as the init's would.
pub fn start() -> std::process::ExitCode {
    let request = match parse(std::env::args_os().skip(1).collect()) {
        Ok(request) => request,
        Err(fault) => {
            eprintln!("switch_root: {fault}");
            return 2.into();
        }
    };
    match request {
        Request::Help => print!("{HELP}"),
        Request::Version => println!("switch_root (ima-init) {}", env!("CARGO_PKG_VERSION")),
        // Not PID 1: there is no machine to end, only a command.
        Request::Switch { .. } if std::process::id() != 1 => {
            eprintln!("switch_root: {}", not_pid_1(std::process::id()));
            return 2.into();
        }
        Request::Switch {
            new_root,
            init,
            arguments,
        } => {
            logging::start();
            logging::open();
            let ending = std::env::var(VARIABLE)
                .map(|text| Ending::from_text(&text))
                .unwrap_or_default();
            failure::catch_panics(ending);
            let patience = std::env::var(watch::VARIABLE);
            watch::start(ending, watch::from_text(patience.as_deref().ok()));
            let what = format!("switching to {}", new_root.to_string_lossy());
            watch::begin(Stage::Handover, what);
            let Err(fault) = switch(&new_root, &init, arguments);
            failure::end(&fault, ending)
        }
    }
    0.into()
}

fn parse(arguments: Vec<OsString>) -> Result<Request, Fault> {
    let usage = |detail: String| Err(Fault::new(Code::SwitchUsage, detail));
    let mut arguments = arguments.into_iter().peekable();
    if let Some(option) = arguments.next_if(|word| word.as_bytes().starts_with(b"-")) {
        match option.as_bytes() {
            b"-h" | b"--help" => return Ok(Request::Help),
            b"-V" | b"--version" => return Ok(Request::Version),
            b"--" => {}
            _ => return usage(format!("unknown option {}", option.to_string_lossy())),
        }
    }
    match (arguments.next(), arguments.next()) {
        (Some(new_root), Some(init)) => Ok(Request::Switch {
            new_root,
            init,
            arguments: arguments.collect(),
        }),
        _ => usage("NEWROOT or INIT is missing".to_owned()),
    }
}

fn switch(
    new_root: &OsString,
    init: &OsString,
    arguments: Vec<OsString>,
) -> Result<Infallible, Fault> {
    let shown = new_root.to_string_lossy();
    let not_new = |why: &str| Fault::new(Code::SwitchNewRoot, format!("{shown}: {why}"));
    let refused =
        |what: &str, errno| Fault::new(Code::SwitchMove, format!("{what}: {}", describe(errno)));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = openat(CWD, "/", flags, Mode::empty()).map_err(|errno| refused("/", errno))?;
    let new =
        openat(CWD, new_root, flags, Mode::empty()).map_err(|errno| not_new(&describe(errno)))?;
    let magic = magic(&old).map_err(|errno| refused("/", errno))?;
    let old_device = device(&old).map_err(|errno| refused("/", errno))?;
    let new_device = device(&new).map_err(|errno| not_new(&describe(errno)))?;
    guard(&Guard {
        pid: std::process::id(),
        magic,
        same_device: new_device == old_device,
    })?;
    change_root(&old, &new, old_device).map_err(|errno| refused(&shown, errno))?;
    drop(new);
    empty(old, old_device);
    execute(init, arguments)
}

/// Makes the root of a mounted file system the root, with the API mounts of the old one.
pub(crate) fn change_root(
    old: &OwnedFd,
    new: &OwnedFd,
    old_device: u64,
) -> Result<(), rustix::io::Errno> {
    for name in MOVED {
        take_along(old, new, name, old_device);
    }
    rustix::process::fchdir(new)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")
}

/// What must hold before anything is moved or deleted.
#[derive(Debug, Clone, Copy)]
struct Guard {
    pid: u32,
    /// Of the old root's file system.
    magic: u64,
    /// Whether the old and the new root are on the same one.
    same_device: bool,
}

fn guard(guard: &Guard) -> Result<(), Fault> {
    if guard.pid != 1 {
        return Err(not_pid_1(guard.pid));
    }
    initramfs_magic(guard.magic)?;
    if guard.same_device {
        let detail = "it is on the same file system as /";
        return Err(Fault::new(Code::SwitchNewRoot, detail));
    }
    Ok(())
}

fn initramfs_magic(magic: u64) -> Result<(), Fault> {
    if INITRAMFS_MAGIC.contains(&magic) {
        return Ok(());
    }
    let detail = format!("/ is a file system with the magic {magic:#x}, no ramfs or tmpfs");
    Err(Fault::new(Code::SwitchOldRoot, detail))
}

/// Refuses a root that is not what an initramfs is unpacked to.
///
/// # Errors
///
/// [`Code::SwitchOldRoot`].
pub(crate) fn require_initramfs(root: &OwnedFd) -> Result<(), Fault> {
    let magic = magic(root)
        .map_err(|errno| Fault::new(Code::SwitchOldRoot, format!("/: {}", describe(errno))))?;
    initramfs_magic(magic)
}

fn not_pid_1(pid: u32) -> Fault {
    Fault::new(Code::SwitchNotPid1, format!("it is process {pid}"))
}

/// The magic of the file system that a file is on.
fn magic(file: impl AsFd) -> Result<u64, rustix::io::Errno> {
    rustix::fs::fstatfs(file).map(|status| u64::try_from(status.f_type).unwrap_or_default())
}

/// Whether `/` is what an initramfs is unpacked to.
pub fn is_initramfs() -> bool {
    files::directory("/".as_ref())
        .and_then(magic)
        .is_ok_and(|magic| INITRAMFS_MAGIC.contains(&magic))
}

/// The device that a file is on.
pub(crate) fn device(file: impl AsFd) -> Result<u64, rustix::io::Errno> {
    rustix::fs::fstat(file).map(|stat| stat.st_dev)
}

/// Moves a mount of the initramfs to the directory of the same name in the new root; where there is none, or something
/// is mounted on it already, it is unmounted. No link is followed on either side.
fn take_along(old: &OwnedFd, new: &OwnedFd, name: &str, old_device: u64) {
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

/// A directory that is being emptied.
struct Level {
    directory: OwnedFd,
    /// Its name in the directory above.
    name: CString,
    entries: Vec<CString>,
}

impl Level {
    fn new(directory: OwnedFd, name: CString) -> Self {
        let entries = Dir::read_from(&directory)
            .map(|entries| {
                entries
                    .filter_map(Result::ok)
                    .map(|entry| entry.file_name().to_owned())
                    .filter(|name| name.as_c_str() != c"." && name.as_c_str() != c"..")
                    .collect()
            })
            .unwrap_or_default();
        Self {
            directory,
            name,
            entries,
        }
    }
}

/// Deletes everything on the old root's own file system, to free its memory. Nothing follows from a file that stays.
fn empty(directory: OwnedFd, old_device: u64) {
    // The innermost directory last: no recursion, whose depth the archive would choose.
    let mut levels = vec![Level::new(directory, CString::default())];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.entries.pop() else {
            if let (Some(done), Some(above)) = (levels.pop(), levels.last()) {
                let _ = unlinkat(&above.directory, &done.name, AtFlags::REMOVEDIR);
            }
            continue;
        };
        if unlinkat(&level.directory, &name, AtFlags::empty()).is_ok() {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = openat(&level.directory, &name, flags, Mode::empty());
        if let Some(inner) = inner.ok().filter(|inner| device(inner) == Ok(old_device)) {
            levels.push(Level::new(inner, name));
        }
    }
}

fn execute(init: &OsString, arguments: Vec<OsString>) -> Result<Infallible, Fault> {
    let shown = init.to_string_lossy();
    let failed = |errno: Errno| {
        Fault::new(
            Code::SwitchExec,
            format!("{shown}: {} ({errno:?})", errno.desc()),
        )
    };
    let text = |text: &[u8]| CString::new(text).map_err(|_| failed(Errno::EINVAL));
    let path = text(init.as_bytes())?;
    let mut words = vec![path.clone()];
    for argument in &arguments {
        words.push(text(argument.as_bytes())?);
    }
    let mut environment = Vec::new();
    for (name, value) in
        std::env::vars_os().filter(|(name, _)| name != VARIABLE && name != watch::VARIABLE)
    {
        let pair = [name.as_bytes(), b"=", value.as_bytes()].concat();
        environment.push(text(&pair)?);
    }
    logging::restore_limits();
    syscalls::restore_sigpipe();
    let Err(errno) = nix::unistd::execve(&path, &words, &environment);
    logging::lift_limits();
    let fault = failed(errno);
    Err(match errno {
        Errno::ENOENT => fault.because(Cause::INIT_ABSENT),
        Errno::ENOEXEC => fault.because(Cause::INIT_FOREIGN),
        _ => fault,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_command_line_is_util_linux_s() {
        assert_eq!(parse(words(&["-h"])).unwrap(), Request::Help);
        assert_eq!(parse(words(&["--version"])).unwrap(), Request::Version);
        assert_eq!(
            parse(words(&["/rootfs", "/sbin/init", "-s", "3"])).unwrap(),
            Request::Switch {
                new_root: "/rootfs".into(),
                init: "/sbin/init".into(),
                arguments: words(&["-s", "3"]),
            }
        );
        for bad in [&[][..], &["/rootfs"], &["-x", "/rootfs", "/sbin/init"]] {
            assert_eq!(parse(words(bad)).unwrap_err().code(), Code::SwitchUsage);
        }
    }

    #[test]
    fn nothing_but_an_initramfs_is_emptied_and_by_nobody_but_pid_1() {
        let sound = Guard {
            pid: 1,
            magic: INITRAMFS_MAGIC[0],
            same_device: false,
        };
        assert!(guard(&sound).is_ok());
        let ext4 = Guard {
            magic: 0xef53,
            ..sound
        };
        let child = Guard { pid: 2, ..sound };
        let itself = Guard {
            same_device: true,
            ..sound
        };
        for (unsound, code) in [
            (ext4, Code::SwitchOldRoot),
            (child, Code::SwitchNotPid1),
            (itself, Code::SwitchNewRoot),
        ] {
            assert_eq!(guard(&unsound).unwrap_err().code(), code);
        }
    }

    #[test]
    fn emptying_stays_on_its_file_system_and_follows_no_link() {
        let base = std::env::temp_dir().join(format!("switch-empty-{}", std::process::id()));
        let tree = base.join("tree");
        std::fs::create_dir_all(tree.join("a/b/c")).unwrap();
        std::fs::write(tree.join("a/b/file"), "x").unwrap();
        std::fs::create_dir_all(base.join("outside")).unwrap();
        std::fs::write(base.join("outside/file"), "x").unwrap();
        std::os::unix::fs::symlink(base.join("outside"), tree.join("a/link")).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || openat(CWD, &tree, flags, Mode::empty()).unwrap();
        let other = device(open()).unwrap().wrapping_add(1);
        empty(open(), other);
        assert!(tree.join("a/b/file").exists(), "another file system");
        empty(open(), device(open()).unwrap());
        assert_eq!(std::fs::read_dir(&tree).unwrap().count(), 0);
        assert!(base.join("outside/file").exists());
        std::fs::remove_dir_all(base).unwrap();
    }
}
