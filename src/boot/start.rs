//! How the init was started: as the `/init` of its own initramfs, as the `/init` in front of another one, or inside that
//! one, in the place of the program that leaves it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ima::fault::{Cause, Code, Fault};
use ima::layout;

use crate::files;
use crate::switch;

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

/// What the init was started for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// As `/init`, with the arguments that the kernel had for it.
    Init(Vec<OsString>),
    /// As `/init` in front of another initramfs, whose own init is at [`layout::FRONTED_INIT`].
    Front,
    /// As PID 1 at the end of another initramfs, in the place of its run-init or switch_root.
    Inside {
        /// Where the root is mounted.
        root: PathBuf,
        /// For the real init.
        arguments: Vec<OsString>,
    },
    /// By the systemd of an initramfs, which goes on afterwards.
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

/// What the program's name and arguments ask for.
#[derive(Debug)]
pub enum Request {
    /// A boot.
    Boot(Start),
    /// Words.
    Answer(String),
    /// `run-init -n`: whether there is an init.
    Yes,
    /// A mistake on a running system: there is nothing to end.
    Refuse(Fault),
    /// A mistake of PID 1, which cannot go back.
    End(Fault),
}

/// The request that this process was started with.
pub fn request() -> Request {
    // A link too, whose target may be anything.
    let fronted = std::fs::symlink_metadata(layout::FRONTED_INIT).is_ok();
    request_of(std::env::args_os().collect(), std::process::id(), fronted)
}

/// `fronted` says whether the initramfs has an init of its own beside this one.
fn request_of(words: Vec<OsString>, pid: u32, fronted: bool) -> Request {
    let mut words = words.into_iter();
    let program = words.next().unwrap_or_default();
    let words: Vec<OsString> = words.collect();
    let name = Path::new(&program).file_name().map(OsStr::as_bytes);
    let result = match (name, pid) {
        (Some(b"run-init"), _) => run_init(words, pid),
        (Some(b"switch_root"), 1) => inside("switch_root", words).map(Request::Boot),
        (_, 1) if fronted => Ok(Request::Boot(Start::Front)),
        (_, 1) => Ok(Request::Boot(Start::Init(words))),
        _ => command(&words, pid),
    };
    result.unwrap_or_else(|fault| match pid {
        1 => Request::End(fault),
        _ => Request::Refuse(fault),
    })
}

/// klibc's command line (usr/utils/run-init.c): `[-d CAPABILITIES] [-n] [-c CONSOLE] ROOT INIT [ARGUMENT]...`
fn run_init(words: Vec<OsString>, pid: u32) -> Result<Request, Fault> {
    match words.first().map(|word| word.as_bytes()) {
        // initramfs-tools looks for /bin/sh when the answer is no. What will be executed is looked at, and explained,
        // when the policy is in force.
        Some(b"-n") if pid != 1 => Ok(Request::Yes),
        Some(b"-d") => {
            Err(Fault::new(Code::StartUsage, "run-init -d").because(Cause::CAPABILITIES_DROPPED))
        }
        _ if pid != 1 => Err(not_pid_1(pid)),
        _ => inside("run-init", words).map(Request::Boot),
    }
}

/// `ROOT INIT [ARGUMENT]...`. Which init is executed the configuration says.
fn inside(name: &str, words: Vec<OsString>) -> Result<Start, Fault> {
    let mut words = words.into_iter();
    match (words.next(), words.next()) {
        (Some(root), Some(_)) if !root.as_bytes().starts_with(b"-") => Ok(Start::Inside {
            root: root.into(),
            arguments: words.collect(),
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

/// Not as PID 1.
fn command(words: &[OsString], pid: u32) -> Result<Request, Fault> {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    match words.as_slice() {
        [b"-h" | b"--help"] => Ok(Request::Answer(HELP.to_owned())),
        [b"-V" | b"--version"] => Ok(Request::Answer(format!(
            "ima-init {}\n",
            env!("CARGO_PKG_VERSION")
        ))),
        [b"load", root] => {
            let root = PathBuf::from(OsStr::from_bytes(root));
            // A refusal ends the machine, and a policy stays until it ends: not on a running system.
            if !switch::is_initramfs() {
                let detail = "/ is no initramfs";
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

    fn asked(line: &str, pid: u32) -> Request {
        request_of(line.split(' ').map(OsString::from).collect(), pid, false)
    }

    fn started(line: &str) -> Start {
        match asked(line, 1) {
            Request::Boot(start) => start,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_name_says_which_program_s_place_it_takes() {
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
    fn in_front_of_another_initramfs_only_init_itself_is() {
        let asked = |line: &str| {
            let words = line.split(' ').map(OsString::from).collect();
            match request_of(words, 1, true) {
                Request::Boot(start) => start,
                other => panic!("{line}: {other:?}"),
            }
        };
        assert_eq!(asked("/init break=top"), Start::Front);
        assert_eq!(asked("/init break=top").arguments(), [""; 0]);
        let leaving = asked("/usr/lib/ima-init/run-init /root /sbin/init");
        assert_eq!(leaving.root(), Some(Path::new("/root")));
    }

    #[test]
    fn initramfs_tools_is_never_sent_to_look_for_a_shell() {
        assert!(matches!(
            asked("run-init -n /root /sbin/init", 77),
            Request::Yes
        ));
    }

    #[test]
    fn a_mistake_ends_the_machine_only_where_there_is_no_other_way() {
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
            let fault = match (asked(line, pid), pid) {
                (Request::End(fault), 1) => fault,
                (Request::Refuse(fault), 2..) => fault,
                (other, _) => panic!("{line}: {other:?}"),
            };
            assert_eq!(fault.code(), code, "{line}");
        }
    }
}
