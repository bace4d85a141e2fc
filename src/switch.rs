//! switch_root: moves the API mounts to the new root, empties the initramfs, makes the new root the root and executes
//! the init there. Takes util-linux's command line.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use ima::fault::{Cause, Code, Fault, Stage};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use rustix::stdio::{stderr, stdout};

use crate::change_root::{change_root, device, require_initramfs_magic};
use crate::errno::{Errno, describe};
use crate::failure::{self, Ending, VARIABLE};
use crate::files;
use crate::logging;
use crate::process;
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

const VERSION: &str = concat!("switch_root (ima-init) ", env!("CARGO_PKG_VERSION"), "\n");

/// What the command line requests.
#[derive(Debug, PartialEq, Eq)]
enum Request<'a> {
    Help,
    Version,
    Switch {
        new_root: &'a CStr,
        /// The init, and behind it its arguments.
        command: &'a [&'a CStr],
    },
}

/// Runs switch_root with the program's arguments, of which the first is its own name, and its environment. Returns the status
/// that the program ends with. A failure as PID 1 ends the machine, like a refusal of the init.
pub fn start(arguments: &[&CStr], environment: &[&CStr]) -> u8 {
    process::open_standard_files();
    let refuse = |fault: &Fault| {
        logging::print(stderr(), &format!("switch_root: {fault}\n"));
        2
    };
    match parse(arguments.get(1..).unwrap_or_default()) {
        Err(fault) => return refuse(&fault),
        Ok(Request::Help) => logging::print(stdout(), HELP),
        Ok(Request::Version) => logging::print(stdout(), VERSION),
        // Not PID 1: the command fails, and the machine keeps running.
        Ok(Request::Switch { .. }) if std::process::id() != 1 => {
            return refuse(&not_pid_1(std::process::id()));
        }
        Ok(Request::Switch { new_root, command }) => {
            logging::start();
            logging::open();
            let ending = variable(environment, VARIABLE)
                .map(Ending::from_text)
                .unwrap_or_default();
            failure::catch_panics(ending);
            let limit = watch::from_text(variable(environment, watch::VARIABLE));
            watch::start(limit, &|fault| failure::end_from_watch(fault, ending));
            let what = format!("switching to {}", new_root.to_string_lossy());
            watch::begin(Stage::Handover, &what);
            let Err(fault) = switch(new_root, command, environment);
            failure::end(&fault, ending)
        }
    }
    0
}

/// The value of a variable, if it is text.
fn variable<'a>(environment: &[&'a CStr], name: &str) -> Option<&'a str> {
    environment.iter().find_map(|variable| {
        let value = value_of(variable, name)?;
        str::from_utf8(value).ok()
    })
}

/// The value, if the variable has that name.
fn value_of<'a>(variable: &'a CStr, name: &str) -> Option<&'a [u8]> {
    variable
        .to_bytes()
        .strip_prefix(name.as_bytes())?
        .strip_prefix(b"=")
}

fn parse<'a>(mut arguments: &'a [&'a CStr]) -> Result<Request<'a>, Fault> {
    let usage = |detail: String| Err(Fault::new(Code::SwitchUsage, detail));
    if let [option, rest @ ..] = arguments
        && option.to_bytes().starts_with(b"-")
    {
        match option.to_bytes() {
            b"-h" | b"--help" => return Ok(Request::Help),
            b"-V" | b"--version" => return Ok(Request::Version),
            b"--" => arguments = rest,
            _ => return usage(format!("unknown option {}", option.to_string_lossy())),
        }
    }
    match arguments {
        [new_root, command @ ..] if !command.is_empty() => {
            Ok(Request::Switch { new_root, command })
        }
        _ => usage("NEWROOT or INIT is missing".to_owned()),
    }
}

fn switch(new_root: &CStr, command: &[&CStr], environment: &[&CStr]) -> Result<Infallible, Fault> {
    let shown = new_root.to_string_lossy();
    let not_new = |why: &str| Fault::new(Code::SwitchNewRoot, format!("{shown}: {why}"));
    let refused =
        |what: &str, errno| Fault::new(Code::SwitchMove, format!("{what}: {}", describe(errno)));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = openat(CWD, c"/", flags, Mode::empty()).map_err(|errno| refused("/", errno))?;
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
    execute(command, environment)
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
    /// What could not be deleted and may be a directory.
    entries: Vec<CString>,
}

impl Level {
    /// Deletes what is no directory, as it is read: an initramfs has many more files than directories.
    fn new(directory: OwnedFd, name: CString) -> Self {
        let mut entries = Vec::new();
        let _ = files::each_name(&directory, &mut |name| {
            if unlinkat(&directory, name, AtFlags::empty()).is_err() {
                entries.push(name.to_owned());
            }
            Ok(())
        });
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
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = openat(&level.directory, &name, flags, Mode::empty());
        if let Some(inner) = inner.ok().filter(|inner| device(inner) == Ok(old_device)) {
            levels.push(Level::new(inner, name));
        }
    }
}

fn execute(command: &[&CStr], environment: &[&CStr]) -> Result<Infallible, Fault> {
    let init = command.first().copied().unwrap_or_default();
    let is_ours = |variable: &CStr| {
        [VARIABLE, watch::VARIABLE]
            .iter()
            .any(|name| value_of(variable, name).is_some())
    };
    let mut environment = environment.to_vec();
    environment.retain(|variable| !is_ours(variable));
    logging::restore_limits();
    syscalls::restore_sigpipe();
    let errno = syscalls::execute(init, command, &environment);
    logging::lift_limits();
    let detail = format!("{}: {}", init.to_string_lossy(), describe(errno));
    let fault = Fault::new(Code::SwitchExec, detail);
    Err(match errno {
        Errno::NOENT => fault.because(Cause::INIT_ABSENT),
        Errno::NOEXEC => fault.because(Cause::INIT_FOREIGN),
        _ => fault,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_that_of_util_linux() {
        assert_eq!(parse(&[c"-h"]).unwrap(), Request::Help);
        assert_eq!(parse(&[c"--version"]).unwrap(), Request::Version);
        let switch = Request::Switch {
            new_root: c"/rootfs",
            command: &[c"/sbin/init", c"-s", c"3"],
        };
        let arguments = [c"--", c"/rootfs", c"/sbin/init", c"-s", c"3"];
        assert_eq!(parse(&arguments).unwrap(), switch);
        assert_eq!(parse(&arguments[1..]).unwrap(), switch);
        for bad in [
            &[][..],
            &[c"/rootfs"],
            &[c"--", c"/rootfs"],
            &[c"-x", c"/rootfs", c"/sbin/init"],
        ] {
            assert_eq!(parse(bad).unwrap_err().code(), Code::SwitchUsage);
        }
    }

    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let environment = [c"AB=no", c"A", c"A=1=2", c"B=\xff", c"C="];
        assert_eq!(variable(&environment, "A"), Some("1=2"));
        assert_eq!(variable(&environment, "B"), None);
        assert_eq!(variable(&environment, "C"), Some(""));
        assert_eq!(variable(&environment, "D"), None);
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
