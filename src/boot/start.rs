//! How the init was started: as `/init` of its own initramfs, as `/init` in front of another initramfs, or inside that one,
//! instead of the program that changes root.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ima::fault::{Cause, Code, Fault};
use ima::layout;

use crate::change_root;
use crate::features;
use crate::files;

const HELP: &str = "\
The init that brings Linux's integrity subsystem (IMA) into force before the
real system runs. It works in an initramfs alone; imactl is the tool for a
build host or a running system.

As PID 1, by the name it is started under:
  /init                             loads keys and policy, finds and mounts the
                                    root, executes the root's switch_root. With
                                    /usr/lib/ima-init/init in the initramfs:
                                    loads keys and policy, and executes that
                                    init, which mounts the root
  run-init ROOT INIT [ARGUMENT]...  leaves that initramfs for the mounted root,
                                    in the place of klibc's (initramfs-tools)
  switch_root ROOT INIT [ARG]...    the same in util-linux's place (dracut)

In such an initramfs whose PID 1 is systemd:
  ima-init load ROOT                checks that the init of ROOT may run, and
                                    leaves the rest to systemd; a refusal ends
                                    the machine as the configuration says

The configuration is /etc/ima/ima-init.conf in the initramfs. Which INIT is
executed it says too, not the command line above.
";

/// How the init was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// As `/init`, with the arguments that the kernel passed.
    Init(Vec<OsString>),
    /// As `/init` in front of another initramfs, whose own init is at [`layout::FRONTED_INIT`].
    Front,
    /// As PID 1 at the end of another initramfs, instead of its run-init or switch_root.
    Inside {
        /// Where the root is mounted.
        root: PathBuf,
        /// For the real init.
        arguments: Vec<OsString>,
    },
    /// By the systemd of an initramfs, which changes root afterwards.
    Load {
        /// Where the root is mounted.
        root: PathBuf,
    },
}

impl Start {
    /// Where another initramfs mounted the root.
    pub fn root(&self) -> Option<&Path> {
        match self {
            Self::Init(_) | Self::Front => None,
            Self::Inside { root, .. } | Self::Load { root } => Some(root),
        }
    }

    /// The arguments for the real init.
    pub fn arguments(&self) -> &[OsString] {
        match self {
            Self::Init(arguments) | Self::Inside { arguments, .. } => arguments,
            Self::Front | Self::Load { .. } => &[],
        }
    }
}

/// What this process is to do, by its name and arguments.
#[derive(Debug)]
pub enum Request {
    /// A boot.
    Boot(Start),
    /// A text to print: the help or the version.
    Print(String),
    /// `run-init -n`, a dry run: exit with success.
    DryRun,
    /// A wrong use on a running system: print the fault and exit.
    Refuse(Fault),
    /// A wrong use as PID 1: end the machine as after any refusal.
    End(Fault),
}

/// What this process was started for, by its name and arguments.
pub fn request(command_line: Vec<OsString>) -> Request {
    // A symbolic link counts too, wherever it leads.
    let fronted = std::fs::symlink_metadata(layout::FRONTED_INIT).is_ok();
    request_of(command_line, std::process::id(), fronted)
}

/// `fronted`: whether the initramfs has its own init besides this one.
fn request_of(command_line: Vec<OsString>, pid: u32, fronted: bool) -> Request {
    let mut arguments = command_line.into_iter();
    let program = arguments.next().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    let name = Path::new(&program).file_name().map(OsStr::as_bytes);
    let result = match (name, pid) {
        (Some(b"run-init"), _) => run_init(arguments, pid),
        (Some(b"switch_root"), 1) => inside("switch_root", arguments).map(Request::Boot),
        (_, 1) if fronted => Ok(Request::Boot(Start::Front)),
        (_, 1) => Ok(Request::Boot(Start::Init(arguments))),
        _ => command(&arguments, pid),
    };
    result.unwrap_or_else(|fault| match pid {
        1 => Request::End(fault),
        _ => Request::Refuse(fault),
    })
}

/// klibc's command line (usr/utils/run-init.c): `[-d CAPABILITIES] [-n] [-c CONSOLE] ROOT INIT [ARGUMENT]...`
fn run_init(arguments: Vec<OsString>, pid: u32) -> Result<Request, Fault> {
    match arguments.first().map(|argument| argument.as_bytes()) {
        // After a failure, initramfs-tools would run this again with /bin/sh. What will really be executed is checked by the
        // preflight stage, once the policy is in force.
        Some(b"-n") if pid != 1 => Ok(Request::DryRun),
        Some(b"-d") => {
            Err(Fault::new(Code::StartUsage, "run-init -d").because(Cause::CAPABILITIES_DROPPED))
        }
        _ if pid != 1 => Err(not_pid_1(pid)),
        _ => inside("run-init", arguments).map(Request::Boot),
    }
}

/// `ROOT INIT [ARGUMENT]...`. INIT is not used: the configuration says which init is executed.
fn inside(name: &str, arguments: Vec<OsString>) -> Result<Start, Fault> {
    let mut arguments = arguments.into_iter();
    match (arguments.next(), arguments.next()) {
        (Some(root), Some(_)) if !root.as_bytes().starts_with(b"-") => Ok(Start::Inside {
            root: root.into(),
            arguments: arguments.collect(),
        }),
        (Some(root), Some(_)) => {
            let detail = format!("{name}: unknown option {}", root.to_string_lossy());
            Err(Fault::new(Code::StartUsage, detail))
        }
        _ => {
            let detail = format!("{name}: ROOT or INIT is missing");
            Err(Fault::new(Code::StartUsage, detail))
        }
    }
}

/// The command line of a process that is not PID 1.
fn command(arguments: &[OsString], pid: u32) -> Result<Request, Fault> {
    let arguments: Vec<&[u8]> = arguments
        .iter()
        .map(|argument| argument.as_bytes())
        .collect();
    match arguments.as_slice() {
        [b"-h" | b"--help"] => Ok(Request::Print(HELP.to_owned())),
        [b"-V" | b"--version"] => Ok(Request::Print(format!(
            "ima-init {}\n{}",
            env!("CARGO_PKG_VERSION"),
            features::LINES.concat()
        ))),
        [b"load", root] => {
            let root = PathBuf::from(OsStr::from_bytes(root));
            // Not on a running system, because a refusal ends the machine, and a policy stays in force until then.
            if !change_root::is_initramfs() {
                let detail = "/ is not an initramfs";
                return Err(Fault::new(Code::NotPid1, detail));
            }
            if !files::is_mount_point(&root) {
                let detail = format!("nothing is mounted on {}", root.display());
                return Err(Fault::new(Code::RootNotMounted, detail));
            }
            Ok(Request::Boot(Start::Load { root }))
        }
        _ => Err(not_pid_1(pid)),
    }
}

fn not_pid_1(pid: u32) -> Fault {
    Fault::new(Code::NotPid1, format!("it is process {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str, pid: u32) -> Request {
        request_of(line.split(' ').map(OsString::from).collect(), pid, false)
    }

    fn started(line: &str) -> Start {
        match request(line, 1) {
            Request::Boot(start) => start,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_program_name_selects_the_command_line() {
        assert_eq!(
            started("/init single load"),
            Start::Init(vec!["single".into(), "load".into()])
        );
        for program in ["run-init", "/usr/bin/run-init", "switch_root"] {
            let start = started(&format!("{program} /root /bin/sh -s splash"));
            assert_eq!(start.root(), Some(Path::new("/root")));
            assert_eq!(start.arguments(), ["-s", "splash"]);
        }
    }

    #[test]
    fn only_init_itself_runs_in_front_of_another_initramfs() {
        let started = |line: &str| {
            let command_line = line.split(' ').map(OsString::from).collect();
            match request_of(command_line, 1, true) {
                Request::Boot(start) => start,
                other => panic!("{line}: {other:?}"),
            }
        };
        assert_eq!(started("/init break=top"), Start::Front);
        assert_eq!(started("/init break=top").arguments(), [""; 0]);
        let leaving = started("/usr/lib/ima-init/run-init /root /sbin/init");
        assert_eq!(leaving.root(), Some(Path::new("/root")));
    }

    #[test]
    fn a_dry_run_of_run_init_succeeds() {
        assert!(matches!(
            request("run-init -n /root /sbin/init", 77),
            Request::DryRun
        ));
    }

    #[test]
    fn only_pid_1_ends_the_machine_after_a_wrong_use() {
        for (line, pid, code) in [
            (
                "run-init -d cap_sys_module /root /sbin/init",
                1,
                Code::StartUsage,
            ),
            ("run-init -n /root /sbin/init", 1, Code::StartUsage),
            ("run-init /root", 1, Code::StartUsage),
            ("switch_root -c /root /sbin/init", 1, Code::StartUsage),
            ("ima-init", 77, Code::NotPid1),
            ("/init single", 77, Code::NotPid1),
            ("run-init /root /sbin/init", 77, Code::NotPid1),
            // The tests run on no initramfs.
            ("ima-init load /", 77, Code::NotPid1),
        ] {
            let fault = match (request(line, pid), pid) {
                (Request::End(fault), 1) => fault,
                (Request::Refuse(fault), 2..) => fault,
                (other, _) => panic!("{line}: {other:?}"),
            };
            assert_eq!(fault.code(), code, "{line}");
        }
    }
}
