//! What an attacker who is root does by means of signed programs, for scripts that a test puts into a root.
//!
//! Each tool exits with the status of what it ran, or prints an error's name (`EACCES`) and exits with 99.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::hint::black_box;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;

use ima::keyring::Serial;
use ima_keyring::Keyring;
use nix::libc;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect};
use rustix::thread::capabilities_secure_bits;

use crate::inspect::errno_name;
use crate::{kexec, verity};

/// Exit status of a tool that failed.
pub const FAILED: u8 = 99;

/// The exit status of `guest status`: the last byte. A test changes it where this program lies on a disk or in memory, and
/// sees from the status whether what was changed is executed.
static STATUS: [u8; 26] = *b"ima-testbed exit status: 0";

/// Where the number is in the function `mov eax, NUMBER; ret` of x86-64, which `guest call` calls.
const NUMBER: usize = 1;

/// `guest tool NAME ARGUMENT...`
pub fn run(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["status"] => Ok(status()),
        ["status", "wait"] => wait_and_status(),
        ["call", file, how] => call(file, how),
        ["poke", process, address] => poke(process, address),
        ["kexec", kernel, initramfs, command_line] => start_kernel(kernel, initramfs, command_line),
        ["add-certificate", keyring, file] => add_certificate(keyring, file),
        ["restrict", keyring, kind, restriction] => restrict(keyring, kind, restriction),
        ["kexec-load"] => kexec::load_from_memory().map(|()| 0),
        ["find", device, file] => find(device, file),
        ["interpret", file] => interpret(file),
        ["verity", file] => verity::enable_verity(file.as_ref()).map(|()| 0),
        _ => Err(io::Error::other("no such tool")),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            println!("{}", errno_name(&error));
            ExitCode::from(FAILED)
        }
    }
}

/// Does what an interpreter of scripts does before it reads one: asks the kernel, if the secure bits say so, whether the file could be
/// executed (Documentation/userspace-api/check_exec.rst). The status is 0 if the script would be read.
fn interpret(file: &str) -> io::Result<u8> {
    const SECBIT_EXEC_RESTRICT_FILE: u32 = 1 << 8;
    const AT_EXECVE_CHECK: i32 = 0x10000;
    let script = File::open(file)?;
    if capabilities_secure_bits()?.bits() & SECBIT_EXEC_RESTRICT_FILE == 0 {
        return Ok(0);
    }
    let none: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: the path is a string that ends in 0, and the arrays end in a null pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            script.as_raw_fd(),
            c"".as_ptr(),
            none.as_ptr(),
            none.as_ptr(),
            libc::AT_EMPTY_PATH | AT_EXECVE_CHECK,
        )
    };
    if result == 0 {
        Ok(0)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Root's keyring of that name.
fn find_keyring(name: &str) -> io::Result<Serial> {
    let list = ima_keyring::list()?;
    ima_keyring::named(&list, name)
        .find(|(_, owner)| *owner == 0)
        .map(|(serial, _)| serial)
        .ok_or_else(|| io::Error::other("no such keyring"))
}

/// Offers a certificate to the kernel's keyring of that name, or to the user's, `@u`.
fn add_certificate(keyring: &str, file: &str) -> io::Result<u8> {
    let keyring = match keyring {
        "@u" => Keyring::User,
        name => Keyring::Serial(find_keyring(name)?),
    };
    let certificate = std::fs::read(file)?;
    ima_keyring::add_certificate(&certificate, keyring)?;
    Ok(0)
}

/// keyctl(2), KEYCTL_RESTRICT_KEYRING: from then on the keyring takes only keys of that type, and of those what the restriction
/// lets in.
fn restrict(keyring: &str, kind: &str, restriction: &str) -> io::Result<u8> {
    let keyring = find_keyring(keyring)?.get();
    let [kind, restriction] = [CString::new(kind)?, CString::new(restriction)?];
    // SAFETY: both are strings of C.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_RESTRICT_KEYRING,
            keyring,
            kind.as_ptr(),
            restriction.as_ptr(),
        )
    };
    nix::errno::Errno::result(result)?;
    Ok(0)
}

fn status() -> u8 {
    black_box(&STATUS)
        .last()
        .map_or(FAILED, |digit| digit.wrapping_sub(b'0'))
}

/// Prints where the status is in memory, and ends when a line comes.
fn wait_and_status() -> io::Result<u8> {
    println!(
        "{}",
        black_box(&STATUS).as_ptr() as usize + STATUS.len() - 1
    );
    io::stdin().read_line(&mut String::new())?;
    Ok(status())
}

/// Maps the first page of a file executable, as a dynamic loader does, or in one of the other ways; and calls what is at its
/// start as a function that returns a number.
fn call(file: &str, how: &str) -> io::Result<u8> {
    const PAGE: usize = 4096;
    let file = File::options()
        .read(true)
        .write(how == "shared")
        .open(file)?;
    let executable = ProtFlags::READ | ProtFlags::EXEC;
    let (protection, flags) = match how {
        "mmap" => (executable, MapFlags::PRIVATE),
        "shared" => (executable | ProtFlags::WRITE, MapFlags::SHARED),
        "mprotect" | "personality" => (ProtFlags::READ, MapFlags::PRIVATE),
        "remap" => (ProtFlags::READ, MapFlags::SHARED),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let read_implies_exec = || -> io::Result<()> {
        use nix::sys::personality::{Persona, set};
        set(Persona::READ_IMPLIES_EXEC)?;
        Ok(())
    };
    if how == "personality" {
        read_implies_exec()?;
    }
    // SAFETY: the kernel chooses the address, so no memory of ours is replaced. What is called is code that the test
    // wrote for this; should it not be, this process ends, and does nothing else.
    unsafe {
        let page = mmap(std::ptr::null_mut(), PAGE, protection, flags, &file, 0)?;
        match how {
            "mprotect" => mprotect(page, PAGE, MprotectFlags::READ | MprotectFlags::EXEC)?,
            "remap" => {
                read_implies_exec()?;
                if libc::remap_file_pages(page, PAGE, 0, 0, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            _ => {}
        }
        let function: extern "C" fn() -> u8 = std::mem::transmute(page);
        Ok(function())
    }
}

/// Writes `7` to a byte of another process with ptrace(2).
fn poke(process: &str, address: &str) -> io::Result<u8> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let process = nix::unistd::Pid::from_raw(process.parse().map_err(invalid)?);
    let address: usize = address.parse().map_err(invalid)?;
    nix::sys::ptrace::attach(process)?;
    nix::sys::wait::waitpid(process, None)?;
    let at = address as *mut libc::c_void;
    let word = nix::sys::ptrace::read(process, at)?;
    let changed = word & !0xff | libc::c_long::from(b'7');
    nix::sys::ptrace::write(process, at, changed)?;
    nix::sys::ptrace::detach(process, None)?;
    Ok(0)
}

/// Loads a kernel with an initramfs or none (`-`), and starts it.
fn start_kernel(kernel: &str, initramfs: &str, command_line: &str) -> io::Result<u8> {
    let initramfs = (initramfs != "-").then_some(Path::new(initramfs));
    let line = CString::new(command_line)?;
    kexec::load(Path::new(kernel), initramfs, &line)?;
    rustix::fs::sync();
    let Err(error) = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_KEXEC);
    Err(error.into())
}

/// Finds the content of a file on a device, or in a file that holds a file system, and prints where the byte is that makes the
/// difference: the status of `guest status`, else the number that `guest call` gives.
fn find(device: &str, file: &str) -> io::Result<u8> {
    const SECTOR: usize = 512;
    const PIECE: usize = 1 << 20;
    let content = std::fs::read(file)?;
    let missing = || io::Error::other("its content is not there in one piece");
    let start = content.get(..SECTOR).ok_or_else(missing)?;
    let device = File::open(device)?;
    let mut whole = vec![0; content.len()];
    let mut piece = vec![0; PIECE];
    for position in (0..).step_by(PIECE) {
        let length = device.read_at(&mut piece, position)?;
        if length == 0 {
            break;
        }
        for (sector, at) in piece[..length]
            .chunks(SECTOR)
            .zip((position..).step_by(SECTOR))
        {
            if sector == start && device.read_exact_at(&mut whole, at).is_ok() && whole == content {
                let status = content
                    .windows(STATUS.len())
                    .position(|window| window == black_box(&STATUS));
                let offset = status.map_or(NUMBER, |found| found + STATUS.len() - 1);
                println!("{}", at + offset as u64);
                return Ok(0);
            }
        }
    }
    Err(missing())
}
