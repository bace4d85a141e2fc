//! Attempts to run what must and what must not run.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use ima_testbed::attempts::{DIRECTORY, FIRMWARE_DIRECTORY, names};
use ima_testbed::report::{
    Attempt, AttemptResult, Expected, FromGuest, ToGuest, decode_hex, encode_hex,
};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use sha2::{Digest, Sha256};

use crate::below;
use crate::inspect::{self, errno_name};
use crate::map::map_executable;
use crate::port::Port;
use crate::users::{Action, User, attempt};
use crate::verity;
use crate::{fuse, kexec};

/// Exit status of `exec-memfd` when it could not execute; the error's name is on its standard output.
const NOT_EXECUTED: i32 = 99;

/// A file of the attempts.
pub fn path(name: &str) -> PathBuf {
    Path::new("/").join(DIRECTORY).join(name)
}

/// Make them all.
pub fn make(port: Option<&mut Port>) -> Vec<Attempt> {
    use Expected::{Allowed, Denied};
    let mut made = vec![
        Attempt::judge(
            "signed",
            "run a signed program",
            Allowed,
            run(&path(names::SIGNED)),
        ),
        Attempt::judge(
            "unsigned",
            "run a program without signature",
            Denied,
            run(&path(names::UNSIGNED)),
        ),
        Attempt::judge(
            "tampered",
            "run a program changed after it was signed",
            Denied,
            run(&path(names::TAMPERED)),
        ),
        Attempt::judge(
            "tmpfs-copy",
            "run a copy of a signed program on a tmpfs",
            Denied,
            on_tmpfs().map_or_else(not_made, |copy| run(&copy)),
        ),
        Attempt::judge(
            "memfd",
            "run a copy of a signed program from a memfd",
            Denied,
            memfd(),
        ),
        Attempt::judge(
            "library-signed",
            "map a signed file executable, as a shared library",
            Allowed,
            outcome(map_executable(&path(names::SIGNED_LIBRARY))),
        ),
        Attempt::judge(
            "library-unsigned",
            "map a file without signature executable, as a shared library",
            Denied,
            outcome(map_executable(&path(names::UNSIGNED_LIBRARY))),
        ),
        Attempt::judge(
            "module-unsigned",
            "load a module without signature",
            Denied,
            load_module(&path(names::UNSIGNED_MODULE)),
        ),
    ];
    if path(names::SIGNED_MODULE).exists() {
        made.push(Attempt::judge(
            "module-signed",
            "load a signed module",
            Allowed,
            load_module(&path(names::SIGNED_MODULE)),
        ));
    }
    if path(names::FIRMWARE_MODULE).exists() {
        made.extend(firmware());
    }
    made.extend([
        Attempt::judge(
            "policy-unsigned",
            "add a policy without signature",
            Denied,
            add_policy(&path(names::UNSIGNED_POLICY)),
        ),
        Attempt::judge(
            "script-unsigned",
            "run a script without signature as ./x",
            Denied,
            run(&path(names::UNSIGNED_SCRIPT)),
        ),
        Attempt::judge(
            "script-signed",
            "run a signed script as ./x",
            Allowed,
            run(&path(names::SIGNED_SCRIPT)),
        ),
    ]);
    made.extend(users());
    made.extend(kexec());
    made.extend(from_fuse());
    // Only under a policy that appraises what is read; whoever chose it says so.
    if inspect::parameter("testbed.files").as_deref() == Some("appraised") {
        let read = |name| outcome(fs::read(path(name)).map(drop));
        made.extend([
            Attempt::judge(
                "file-signed",
                "read a signed file",
                Allowed,
                read(names::SIGNED_FILE),
            ),
            Attempt::judge(
                "file-unsigned",
                "read a file without signature",
                Denied,
                read(names::UNSIGNED_FILE),
            ),
        ]);
    }
    if path(names::VERITY_SIGNED).exists() {
        made.extend(verity());
    }
    made.extend(below::attempts());
    made.extend(new_program(port));
    // A program of the root itself that was changed after it was signed.
    if let Some(file) = inspect::parameter("testbed.try") {
        made.push(Attempt::judge(
            "tampered-file",
            &format!("run {file}, changed after it was signed"),
            Denied,
            run(Path::new(&file)),
        ));
    }
    made
}

/// Attempts by other users than root. A rule with `euid=0` is for none of them.
fn users() -> Vec<Attempt> {
    use Expected::{Allowed, Denied};
    let program = |user, name| attempt(user, Action::Run, &path(name));
    let mut made = vec![
        Attempt::judge(
            "user-signed",
            "run a signed program as an ordinary user",
            Allowed,
            program(User::Ordinary, names::SIGNED),
        ),
        Attempt::judge(
            "user-unsigned",
            "run a program without signature as an ordinary user",
            Denied,
            program(User::Ordinary, names::UNSIGNED),
        ),
        Attempt::judge(
            "ambient-capabilities-signed",
            "run a signed program as a user with all capabilities",
            Allowed,
            program(User::Capable, names::SIGNED),
        ),
        Attempt::judge(
            "ambient-capabilities-unsigned",
            "run a program without signature as a user with all capabilities",
            Denied,
            program(User::Capable, names::UNSIGNED),
        ),
    ];
    for (name, tried, expected, signed) in [
        (
            "file-capabilities-signed",
            "run a signed program with file capabilities as an ordinary user",
            Allowed,
            true,
        ),
        (
            "file-capabilities-unsigned",
            "run a program without signature with file capabilities as an ordinary user",
            Denied,
            false,
        ),
    ] {
        let result = with_file_capabilities(name, signed)
            .map_or_else(not_made, |copy| attempt(User::Ordinary, Action::Run, &copy));
        made.push(Attempt::judge(name, tried, expected, result));
    }
    made.extend([
        Attempt::judge(
            "ambient-capabilities-module",
            "load a module without signature as a user with all capabilities",
            Denied,
            attempt(
                User::Capable,
                Action::LoadModule,
                &path(names::UNSIGNED_MODULE),
            ),
        ),
        Attempt::judge(
            "ambient-capabilities-policy",
            "add a policy without signature as a user with all capabilities",
            Denied,
            attempt(
                User::Capable,
                Action::AddPolicy,
                &path(names::UNSIGNED_POLICY),
            ),
        ),
    ]);
    made
}

/// A copy of this program, with or without its signature, whose file gives capabilities to whoever executes it.
fn with_file_capabilities(name: &str, signed: bool) -> io::Result<PathBuf> {
    /// struct vfs_cap_data (include/uapi/linux/capability.h): VFS_CAP_REVISION_2 with VFS_CAP_FLAGS_EFFECTIVE, then the permitted and
    /// inheritable sets, 32 bits of each at a time. CAP_SYS_ADMIN (21) and CAP_SYS_MODULE (16).
    const CAPABILITIES: [u32; 5] = [0x0200_0001, 1 << 21 | 1 << 16, 0, 0, 0];
    let copy = scratch()?.join(name);
    let program = std::env::current_exe()?;
    write_program(&copy, &fs::read(&program)?)?;
    let capabilities: Vec<u8> = CAPABILITIES
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    if signed && let Some(signature) = signature(&program)? {
        rustix::fs::setxattr(&copy, c"security.ima", &signature, XattrFlags::empty())?;
    }
    rustix::fs::setxattr(
        &copy,
        c"security.capability",
        &capabilities,
        XattrFlags::empty(),
    )?;
    Ok(copy)
}

/// security.ima of a file; none where it has none, or in an initramfs, where nothing has.
fn signature(file: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 8192];
    match rustix::fs::getxattr(file, c"security.ima", &mut value[..]) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A signed program and library that a FUSE server shows; nothing where the kernel has no FUSE.
fn from_fuse() -> Vec<Attempt> {
    let served = || -> io::Result<fuse::Fuse> {
        let program = std::env::current_exe()?;
        let signature = signature(&program)?.unwrap_or_default();
        fuse::serve(&scratch()?.join("fuse"), fs::read(program)?, signature)
    };
    let results = match served() {
        Ok(fuse) => [run(&fuse.file()), outcome(map_executable(&fuse.file()))],
        Err(error) if matches!(errno_name(&error).as_str(), "ENOENT" | "ENODEV" | "ENXIO") => {
            return Vec::new();
        }
        Err(error) => {
            let why = error.to_string();
            [not_made(error), AttemptResult::NotMadeBecause(why)]
        }
    };
    let tried = [
        ("fuse", "run a signed program of a FUSE file system"),
        (
            "fuse-library",
            "map a signed file of a FUSE file system executable, as a shared library",
        ),
    ];
    tried
        .into_iter()
        .zip(results)
        .map(|((name, tried), result)| Attempt::judge(name, tried, Expected::Denied, result))
        .collect()
}

/// Firmware that a driver asks for: the kernel's module for tests, which takes the names of files in `/lib/firmware`.
fn firmware() -> [Attempt; 2] {
    /// Where the module takes the name of what to ask for (lib/test_firmware.c, `trigger_request_store`).
    const TRIGGER: &str = "/sys/devices/virtual/misc/test_firmware/trigger_request";
    let directory = Path::new(FIRMWARE_DIRECTORY)
        .strip_prefix("usr/lib/firmware")
        .unwrap_or(Path::new(""));
    let loaded = load_module(&path(names::FIRMWARE_MODULE));
    let ask = |name: &str| match &loaded {
        AttemptResult::Succeeded => {
            let file = directory.join(name);
            outcome(fs::write(TRIGGER, file.to_string_lossy().as_bytes()))
        }
        _ => AttemptResult::NotMadeBecause("the module test_firmware was not loaded".to_owned()),
    };
    [
        Attempt::judge(
            "firmware-unsigned",
            "load firmware without signature",
            Expected::Denied,
            ask(names::UNSIGNED_FIRMWARE),
        ),
        Attempt::judge(
            "firmware-signed",
            "load signed firmware",
            Expected::Allowed,
            ask(names::SIGNED_FIRMWARE),
        ),
    ]
}

/// Kernels for kexec; nothing where the kernel has no kexec, or it is disabled.
fn kexec() -> Vec<Attempt> {
    use Expected::{Allowed, Denied};
    let disabled = fs::read_to_string("/proc/sys/kernel/kexec_load_disabled");
    if disabled.is_ok_and(|text| text.trim() == "1") {
        return Vec::new();
    }
    let load = |kernel, initramfs| kexec::load_files(&path(kernel), &path(initramfs));
    let made = [
        (
            "kexec-signed",
            "load a signed kernel and initramfs for kexec",
            Allowed,
            load(names::SIGNED_KERNEL, names::SIGNED_INITRAMFS),
        ),
        (
            "kexec-kernel-unsigned",
            "load a kernel without signature for kexec",
            Denied,
            load(names::UNSIGNED_KERNEL, names::SIGNED_INITRAMFS),
        ),
        (
            "kexec-initramfs-unsigned",
            "load an initramfs without signature for kexec",
            Denied,
            load(names::SIGNED_KERNEL, names::UNSIGNED_INITRAMFS),
        ),
        (
            "kexec-from-memory",
            "load a kernel for kexec from memory (kexec_load)",
            Denied,
            kexec::load_from_memory(),
        ),
    ];
    let is_there = |result: &io::Result<()>| {
        !result
            .as_ref()
            .is_err_and(|error| errno_name(error) == "ENOSYS")
    };
    made.into_iter()
        .filter(|(_, _, _, result)| is_there(result))
        .map(|(name, tried, expected, result)| {
            Attempt::judge(name, tried, expected, outcome(result))
        })
        .collect()
}

/// Programs whose fs-verity digest is signed, under a policy that asks for that.
fn verity() -> Vec<Attempt> {
    use Expected::{Allowed, Denied};
    let mut made = vec![Attempt::judge(
        "verity-not-enabled",
        "run a program whose fs-verity digest is signed, without fs-verity",
        Denied,
        run(&path(names::VERITY_SIGNED)),
    )];
    for (name, tried, expected) in [
        (
            names::VERITY_SIGNED,
            "run a program whose fs-verity digest is signed",
            Allowed,
        ),
        (
            names::VERITY_TAMPERED,
            "run a program with the signature of another fs-verity digest",
            Denied,
        ),
        (
            names::VERITY_PLAIN,
            "run a program with a signature of its content where fs-verity's is asked for",
            Denied,
        ),
    ] {
        let program = path(name);
        let result = verity::enable_verity(&program).map_or_else(not_made, |()| run(&program));
        made.push(Attempt::judge(name, tried, expected, result));
    }
    made
}

fn failed(error: &io::Error) -> AttemptResult {
    AttemptResult::Failed(errno_name(error))
}

pub fn not_made(error: io::Error) -> AttemptResult {
    AttemptResult::NotMadeBecause(error.to_string())
}

fn outcome(result: io::Result<()>) -> AttemptResult {
    match result {
        Ok(()) => AttemptResult::Succeeded,
        Err(error) => failed(&error),
    }
}

pub fn run(program: &Path) -> AttemptResult {
    match Command::new(program)
        .arg("ok")
        .stdin(Stdio::null())
        .status()
    {
        Ok(status) => match status.signal() {
            Some(signal) => AttemptResult::Killed(signal),
            None => AttemptResult::Exited(status.code().unwrap_or_default()),
        },
        Err(error) => failed(&error),
    }
}

/// A tmpfs of our own, on which programs may be executed as far as the mount is concerned: /run may be noexec, whose
/// EACCES would look like IMA's.
fn scratch() -> io::Result<PathBuf> {
    let directory = PathBuf::from("/run/ima-testbed");
    if !inspect::mounted("/run/ima-testbed") {
        fs::create_dir_all(&directory)?;
        mount("tmpfs", &directory, "tmpfs", MountFlags::empty(), None)?;
    }
    Ok(directory)
}

pub fn write_program(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut out = File::options()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(file)?;
    out.write_all(content)?;
    // Whatever the umask.
    out.set_permissions(fs::Permissions::from_mode(0o755))
}

fn on_tmpfs() -> io::Result<PathBuf> {
    let copy = scratch()?.join("copy");
    write_program(&copy, &fs::read(path(names::SIGNED))?)?;
    Ok(copy)
}

/// execveat() replaces the caller, so a process of its own makes it and says how it failed.
fn memfd() -> AttemptResult {
    let us = match std::env::current_exe() {
        Ok(us) => us,
        Err(error) => return not_made(error),
    };
    let child = Command::new(us)
        .arg("exec-memfd")
        .arg(path(names::SIGNED))
        .output();
    match child {
        Ok(output) if output.status.code() == Some(NOT_EXECUTED) => {
            AttemptResult::Failed(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(output) => match output.status.signal() {
            Some(signal) => AttemptResult::Killed(signal),
            None => AttemptResult::Exited(output.status.code().unwrap_or_default()),
        },
        Err(error) => not_made(error),
    }
}

/// `guest exec-memfd PROGRAM`
pub fn exec_memfd(program: Option<&String>) -> ExitCode {
    let executed = || -> io::Result<()> {
        let content = fs::read(program.ok_or(io::ErrorKind::InvalidInput)?)?;
        let memfd = rustix::fs::memfd_create("program", rustix::fs::MemfdFlags::CLOEXEC)?;
        File::from(memfd.try_clone()?).write_all(&content)?;
        let words = [CString::from(c"program"), CString::from(c"ok")];
        let environment: [CString; 0] = [];
        nix::unistd::execveat(
            &memfd,
            c"",
            &words,
            &environment,
            nix::fcntl::AtFlags::AT_EMPTY_PATH,
        )?;
        Ok(())
    };
    if let Err(error) = executed() {
        println!("{}", errno_name(&error));
    }
    ExitCode::from(NOT_EXECUTED as u8)
}

pub fn load_module(file: &Path) -> AttemptResult {
    let load =
        || -> io::Result<()> { Ok(rustix::system::finit_module(File::open(file)?, c"", 0)?) };
    outcome(load())
}

pub fn add_policy(file: &Path) -> AttemptResult {
    let Some(ima) = inspect::ima_directory(&mut Vec::new()) else {
        return AttemptResult::NotMadeBecause("there is no IMA".to_owned());
    };
    let add = || -> io::Result<()> {
        let mut policy = File::options().write(true).open(ima.join("policy"))?;
        policy.write_all(file.to_string_lossy().as_bytes())
    };
    match add() {
        // A kernel that takes one policy and no more removes the file, or refuses to open it.
        Err(error) if matches!(errno_name(&error).as_str(), "ENOENT" | "EBUSY") => {
            AttemptResult::NotMadeBecause(format!(
                "the kernel takes no further policy: {}",
                errno_name(&error)
            ))
        }
        result => outcome(result),
    }
}

/// A program that nobody has seen before: denied, and after the host has signed it allowed.
fn new_program(port: Option<&mut Port>) -> [Attempt; 2] {
    let tried = [
        "run a program that was made just now",
        "run it after the host has signed it",
    ];
    let judge = |unsigned, signed| {
        [
            Attempt::judge("new", tried[0], Expected::Denied, unsigned),
            Attempt::judge("new-signed", tried[1], Expected::Allowed, signed),
        ]
    };
    let (file, digest) = match make_new() {
        Ok(made) => made,
        Err(error) => return judge(not_made(error), AttemptResult::NotMade),
    };
    let unsigned = run(&file);
    let signed = match sign(&file, digest, port) {
        Ok(()) => run(&file),
        Err(error) => not_made(error),
    };
    judge(unsigned, signed)
}

/// In the root if it can be written to, else on our tmpfs.
fn make_new() -> io::Result<(PathBuf, [u8; 32])> {
    let mut content = fs::read(path(names::SIGNED))?;
    // New to the kernel and to the host: bytes after the end of an ELF image change nothing but its digest.
    content.extend_from_slice(fs::read_to_string("/proc/sys/kernel/random/uuid")?.as_bytes());
    let mut file = path("new");
    if write_program(&file, &content).is_err() {
        file = scratch()?.join("new");
        write_program(&file, &content)?;
    }
    Ok((file, Sha256::digest(&content).into()))
}

fn sign(file: &Path, sha256: [u8; 32], port: Option<&mut Port>) -> io::Result<()> {
    let port = port.ok_or_else(|| io::Error::other("there is no port to the host"))?;
    port.send(&FromGuest::Sign {
        path: file.display().to_string(),
        sha256: encode_hex(&sha256),
    })?;
    match port.receive()? {
        ToGuest::Signed { xattr } => {
            let value = decode_hex(&xattr).ok_or(io::ErrorKind::InvalidData)?;
            Ok(rustix::fs::setxattr(
                file,
                c"security.ima",
                &value,
                XattrFlags::empty(),
            )?)
        }
        ToGuest::Refused { reason } => Err(io::Error::other(reason)),
        _ => Err(io::Error::other("the host sent an unknown answer")),
    }
}
