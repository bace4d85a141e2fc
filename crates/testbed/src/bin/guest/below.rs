//! What lies below the root: the file systems of an initramfs, which stay mounted under it. Root reaches them in a mount
//! namespace of its own in which it detaches `/`.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};

use ima_testbed::attempts::names;
use ima_testbed::report::{Attempt, AttemptResult, Expected};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{XattrFlags, statfs};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

use super::attempts::{path, write_program};
use super::inspect::errno_name;

/// Exit status where nothing lies so deep, or no attribute can be set there.
const NOTHING: i32 = 98;

/// include/uapi/linux/magic.h
const NULL_FS_MAGIC: u64 = 0x4e55_4c4c;

/// Exit status where it was not executed; the error's name is on standard output.
const NOT_EXECUTED: i32 = 99;

/// How deep is looked: below the root there is the tmpfs of another initramfs, and below that rootfs.
const DEPTHS: [(&str, [&str; 2]); 2] = [
    ("1", ["below-root-unsigned", "below-root-signed"]),
    ("2", ["below-initramfs-unsigned", "below-initramfs-signed"]),
];

/// Writes a program below the root and runs it, without and with a signature.
pub fn attempts() -> Vec<Attempt> {
    let mut made = Vec::new();
    for (depth, names) in DEPTHS {
        for (name, expected, what) in [
            (names[0], Expected::Denied, "without signature"),
            (names[1], Expected::Allowed, "with its signature"),
        ] {
            let tried = format!(
                "run a copy of a signed program {what}, {depth} file systems below the root"
            );
            match run(depth, expected == Expected::Allowed) {
                Ok(None) => {}
                Ok(Some(result)) => made.push(Attempt::judge(name, &tried, expected, result)),
                Err(error) => {
                    let result = AttemptResult::NotMadeBecause(error.to_string());
                    made.push(Attempt::judge(name, &tried, expected, result));
                }
            }
        }
    }
    made
}

/// In a process of its own, which loses its root.
fn run(depth: &str, signed: bool) -> io::Result<Option<AttemptResult>> {
    let how = if signed { "signed" } else { "unsigned" };
    let output = Command::new(std::env::current_exe()?)
        .args(["exec-below", depth, how])
        .output()?;
    Ok(match output.status.code() {
        Some(NOTHING) => None,
        Some(NOT_EXECUTED) => {
            let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Some(AttemptResult::Failed(name))
        }
        code => Some(AttemptResult::Exited(code.unwrap_or(-1))),
    })
}

/// `guest exec-below DEPTH signed|unsigned`
pub fn execute(depth: Option<&String>, how: Option<&String>) -> ExitCode {
    let depth = depth.and_then(|depth| depth.parse().ok()).unwrap_or(1);
    let signed = how.is_some_and(|how| how == "signed");
    match try_below(depth, signed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Nothing) => ExitCode::from(NOTHING as u8),
        Err(Error::Failed(error)) => {
            println!("{}", errno_name(&error));
            ExitCode::from(NOT_EXECUTED as u8)
        }
    }
}

enum Error {
    Nothing,
    Failed(io::Error),
}

impl<E: Into<io::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn try_below(depth: usize, signed: bool) -> Result<(), Error> {
    let original = path(names::SIGNED);
    let content = fs::read(&original)?;
    let attributes: Vec<(&str, Vec<u8>)> = ["security.ima", "security.evm"]
        .into_iter()
        .filter_map(|name| {
            let mut value = vec![0; 1 << 13];
            let length = rustix::fs::getxattr(&original, name, &mut value[..]).ok()?;
            value.truncate(length);
            Some((name, value))
        })
        .collect();
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let namespace = File::open("/proc/self/ns/mnt")?;
    for _ in 0..depth {
        // What nothing lies below cannot be detached.
        unmount("/", UnmountFlags::DETACH).map_err(|_| Error::Nothing)?;
        setns(&namespace, CloneFlags::CLONE_NEWNS)?;
    }
    // Since Linux 7.0 it lies below rootfs, and is always empty (fs/nullfs.c).
    if statfs("/")?.f_type as u64 == NULL_FS_MAGIC {
        return Err(Error::Nothing);
    }
    let program = Path::new(if signed {
        "/below-signed"
    } else {
        "/below-unsigned"
    });
    write_program(program, &content)?;
    if signed {
        for (name, value) in attributes {
            // A ramfs has none.
            rustix::fs::setxattr(program, name, &value, XattrFlags::empty())
                .map_err(|_| Error::Nothing)?;
        }
    }
    let words = [CString::from(c"program"), CString::from(c"ok")];
    let environment: [CString; 0] = [];
    let program = CString::new(program.as_os_str().as_encoded_bytes()).map_err(io::Error::from)?;
    nix::unistd::execve(&program, &words, &environment)?;
    Ok(())
}
