//! The system around: file systems that must be there, the console, systemd.

use std::fs;
use std::io::Write;
use std::process::Command;

use ima_testbed::report::{GUEST_STARTED, MARK, System};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use rustix::mount::{MountFlags, mount, mount_remount};

use crate::inspect;

/// Mount what an init finds mounted, where it is not. Gives what could not be.
pub fn prepare() -> Vec<String> {
    let mut problems = Vec::new();
    for (point, fstype) in [
        ("/dev", "devtmpfs"),
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/run", "tmpfs"),
    ] {
        let there = match point {
            "/dev" => fs::exists("/dev/null").unwrap_or(false),
            "/proc" => fs::exists("/proc/self").unwrap_or(false),
            "/sys" => fs::exists("/sys/class").unwrap_or(false),
            _ => inspect::mounted(point),
        };
        if there {
            continue;
        }
        // Of a read-only root the directories are there, or the mount says that they are not.
        let _ = fs::create_dir(point);
        if let Err(error) = mount(fstype, point, fstype, MountFlags::empty(), None) {
            problems.push(format!("cannot mount {fstype} on {point}: {error}"));
        }
    }
    problems
}

/// Leave a mark on the root, writable or not: the host sees in the disk that a program of this root ran.
pub fn mark() -> Result<(), String> {
    mount_remount("/", MountFlags::empty(), "")
        .map_err(|error| format!("cannot remount /: {error}"))?;
    // With a digest of SHA-256, whichever: where EVM has its HMAC key, it adds a security.evm. Elsewhere it is no matter. Only
    // mknod makes a file that EVM takes for a new one (security/integrity/evm/evm_main.c, evm_post_path_mknod).
    let digest = [&[4, 4][..], &[0; 32]].concat();
    let mode = Mode::from_raw_mode(0o644);
    if mknodat(CWD, MARK, FileType::RegularFile, mode, 0).is_ok() {
        let _ = setxattr(MARK, "security.ima", &digest, XattrFlags::empty());
    }
    fs::write(MARK, "a program of this root ran\n").map_err(|error| format!("{MARK}: {error}"))?;
    rustix::fs::sync();
    mount_remount("/", MountFlags::RDONLY, "").map_err(|error| format!("cannot remount /: {error}"))
}

/// A line on the console: standard output is nothing in an initramfs without /dev/console.
pub fn log(text: &str) {
    let line = format!("ima-testbed guest: {text}\n");
    let console = fs::File::options().write(true).open("/dev/console");
    // Nothing is left that could report an error.
    let _ = match console {
        Ok(mut console) => console.write_all(line.as_bytes()),
        Err(_) => std::io::stdout().write_all(line.as_bytes()),
    };
}

/// The line that shows that this program ran.
pub fn announce() {
    log(GUEST_STARTED
        .strip_prefix("ima-testbed guest: ")
        .unwrap_or(GUEST_STARTED));
}

fn output(problems: &mut Vec<String>, arguments: &[&str]) -> String {
    match Command::new("systemctl").args(arguments).output() {
        // `is-system-running` exits with 1 for "degraded", which is an answer.
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => {
            problems.push(format!("systemctl {}: {error}", arguments.join(" ")));
            String::new()
        }
    }
}

/// Waits until systemd has finished the boot, and returns how far it got.
pub fn settle(problems: &mut Vec<String>) -> System {
    announce();
    let state = output(problems, &["is-system-running", "--wait"]);
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let failed = output(
        problems,
        &[
            "list-units",
            "--failed",
            "--plain",
            "--no-legend",
            "--no-pager",
        ],
    );
    let default_target = output(problems, &["get-default"]);
    let active = output(problems, &["is-active", &default_target]);
    let mut system = System::default();
    system.state = state;
    system.failed_units = failed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    system.target_reached = active == "active";
    system.default_target = default_target;
    system.seconds = uptime
        .split_whitespace()
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or_default();
    system.denials = inspect::denials(problems);
    system
}
