//! switch_root: moves the API mounts to the new root, empties the initramfs, makes the new root the root and executes
//! the init there. Takes util-linux's command line.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use ima::fault::{Cause, Code, Fault, Stage};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, unlinkat};

use crate::change_root::{change_root, device, require_initramfs_magic};
use crate::errno::{Errno, describe};
use crate::failure::{self, Ending, VARIABLE};
use crate::files;
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

/// What the command line requests.
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

/// Runs switch_root with the program's arguments. A failure as PID 1 ends the machine, like a refusal of the init.
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
        // Not PID 1: the command fails, and the machine keeps running.
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
            let limit = std::env::var(watch::VARIABLE);
            watch::start(watch::from_text(limit.as_deref().ok()), &|fault| {
                failure::end_from_watch(fault, ending)
            });
            let what = format!("switching to {}", new_root.to_string_lossy());
            watch::begin(Stage::Handover, &what);
            let Err(fault) = switch(&new_root, &init, arguments);
            failure::end(&fault, ending)
        }
    }
    0.into()
}

fn parse(arguments: Vec<OsString>) -> Result<Request, Fault> {
    let usage = |detail: String| Err(Fault::new(Code::SwitchUsage, detail));
    let mut arguments = arguments.into_iter().peekable();
    if let Some(option) = arguments.next_if(|argument| argument.as_bytes().starts_with(b"-")) {
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
    let magic = files::magic(&old).map_err(|errno| refused("/", errno))?;
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
    require_initramfs_magic(guard.magic)?;
    if guard.same_device {
        let detail = "it is on the same file system as /";
        return Err(Fault::new(Code::SwitchNewRoot, detail));
    }
    Ok(())
}

fn not_pid_1(pid: u32) -> Fault {
    Fault::new(Code::SwitchNotPid1, format!("it is process {pid}"))
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

/// Deletes everything on the old root's own file system, to free its memory. Errors are ignored: a file that stays does no
/// harm.
fn empty(directory: OwnedFd, old_device: u64) {
    // The innermost directory is last. No recursion, because whoever made the archive chose the depth.
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
    let failed =
        |errno: Errno| Fault::new(Code::SwitchExec, format!("{shown}: {}", describe(errno)));
    let text = |text: &[u8]| CString::new(text).map_err(|_| failed(Errno::INVAL));
    let path = text(init.as_bytes())?;
    let mut vector = vec![path.clone()];
    for argument in &arguments {
        vector.push(text(argument.as_bytes())?);
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
    let vector: Vec<&CStr> = vector.iter().map(CString::as_c_str).collect();
    let environment: Vec<&CStr> = environment.iter().map(CString::as_c_str).collect();
    let errno = syscalls::execute(&path, &vector, &environment);
    logging::lift_limits();
    let fault = failed(errno);
    Err(match errno {
        Errno::NOENT => fault.because(Cause::INIT_ABSENT),
        Errno::NOEXEC => fault.because(Cause::INIT_FOREIGN),
        _ => fault,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(arguments: &[&str]) -> Vec<OsString> {
        arguments.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_command_line_is_that_of_util_linux() {
        assert_eq!(parse(arguments(&["-h"])).unwrap(), Request::Help);
        assert_eq!(parse(arguments(&["--version"])).unwrap(), Request::Version);
        assert_eq!(
            parse(arguments(&["/rootfs", "/sbin/init", "-s", "3"])).unwrap(),
            Request::Switch {
                new_root: "/rootfs".into(),
                init: "/sbin/init".into(),
                arguments: arguments(&["-s", "3"]),
            }
        );
        for bad in [&[][..], &["/rootfs"], &["-x", "/rootfs", "/sbin/init"]] {
            assert_eq!(parse(arguments(bad)).unwrap_err().code(), Code::SwitchUsage);
        }
    }

    #[test]
    fn only_pid_1_in_an_initramfs_switches_root() {
        let sound = Guard {
            pid: 1,
            magic: ima::filesystem::RAMFS_MAGIC,
            same_device: false,
        };
        assert!(guard(&sound).is_ok());
        let ext4 = Guard {
            magic: 0xef53,
            ..sound
        };
        let child = Guard { pid: 2, ..sound };
        let same = Guard {
            same_device: true,
            ..sound
        };
        for (unsound, code) in [
            (ext4, Code::SwitchOldRoot),
            (child, Code::SwitchNotPid1),
            (same, Code::SwitchNewRoot),
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
