//! The system calls that no crate has: the only module with `unsafe`.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::ForkResult;

use crate::failure;

/// The system's allocator; but that a boot for which there is no memory is refused, where a program would die.
#[derive(Debug)]
pub struct Allocator;

impl Allocator {
    /// Comes back where nobody has said how a refusal ends.
    fn given(place: *mut u8, layout: Layout) -> *mut u8 {
        if place.is_null() {
            failure::out_of_memory(layout.size());
        }
        place
    }
}

// SAFETY: every call is handed to the system's allocator as it is, and so are its answers.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the same contract.
        Self::given(unsafe { System.alloc(layout) }, layout)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the same.
        Self::given(unsafe { System.alloc_zeroed(layout) }, layout)
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the same.
        Self::given(unsafe { System.realloc(place, layout, size) }, layout)
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the same.
        unsafe { System.dealloc(place, layout) }
    }
}

/// Who comes back from [`fork`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The process that forked.
    Parent,
    /// The new one, which must end by itself.
    Child,
}

/// fork(2).
///
/// # Errors
///
/// What fork(2) says.
pub fn fork() -> Result<Side, rustix::io::Errno> {
    // SAFETY: a child has only the thread that forked, and must not wait for what another one held. The programs of this
    // crate start no threads.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Parent { .. }) => Ok(Side::Parent),
        Ok(ForkResult::Child) => Ok(Side::Child),
        Err(errno) => Err(rustix::io::Errno::from_raw_os_error(errno as i32)),
    }
}

/// Takes back what Rust's start does to SIGPIPE (library/std/src/rt.rs): a signal that is ignored stays so for the program that
/// is executed, and the real init would start every other so. For just before that.
pub fn restore_sigpipe() {
    // SAFETY: no handler is given, and no other thread sets one: the programs of this crate start none.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// What the kernel says to executing a file, without executing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It would.
    Allowed,
    /// It would not.
    Denied(Errno),
    /// This kernel cannot be asked that way.
    Unknown,
}

/// execveat(2) with AT_EXECVE_CHECK (since 6.14): all checks of an execution, none of its effects.
pub fn execve_check(file: &File) -> Verdict {
    const AT_EXECVE_CHECK: libc::c_int = 0x10000;
    let arguments = [c"check".as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<libc::c_char>()];
    // SAFETY: both vectors are NULL-terminated arrays of C strings that live through the call. A kernel that does not
    // know the flag answers EINVAL and executes nothing (fs/exec.c, do_open_execat).
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH | AT_EXECVE_CHECK,
        )
    };
    match Errno::result(result) {
        Ok(_) => Verdict::Allowed,
        Err(Errno::EINVAL | Errno::ENOSYS) => Verdict::Unknown,
        Err(errno) => Verdict::Denied(errno),
    }
}

/// Maps the file's first page executable and unmaps it: the kernel answers as it will when the file is loaded
/// (MMAP_CHECK; security/integrity/ima/ima_main.c, `ima_file_mmap`).
pub fn map_executable(file: &File) -> Verdict {
    const LENGTH: usize = 4096;
    // SAFETY: a private mapping at an address of the kernel's choice touches no memory of this program, and nobody
    // reads from it.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            LENGTH,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Verdict::Denied(Errno::last());
    }
    // SAFETY: exactly the mapping made above, to which there is no reference.
    unsafe { libc::munmap(address, LENGTH) };
    Verdict::Allowed
}

/// The length of `struct dm_ioctl` (include/uapi/linux/dm-ioctl.h), which a request to the device mapper begins with.
#[cfg(feature = "verity")]
pub const DM_HEADER: usize = 312;

/// ioctl(2) on `/dev/mapper/control`: a request of that number (`DM_*_CMD`), whose answer takes its place. The kernel reads and
/// writes as many bytes as the header's `data_size` says, which is set here.
///
/// # Errors
///
/// What the kernel says; EINVAL if the buffer has no room for the header.
#[cfg(feature = "verity")]
pub fn device_mapper(control: &File, number: u8, buffer: &mut [u8]) -> Result<(), Errno> {
    const GROUP: u8 = 0xfd;
    // Behind the three numbers of the version.
    const DATA_SIZE: std::ops::Range<usize> = 12..16;
    let length = u32::try_from(buffer.len()).map_err(|_| Errno::EINVAL)?;
    if buffer.len() < DM_HEADER {
        return Err(Errno::EINVAL);
    }
    let field = buffer.get_mut(DATA_SIZE).ok_or(Errno::EINVAL)?;
    field.copy_from_slice(&length.to_ne_bytes());
    let request = rustix::ioctl::opcode::read_write::<[u8; DM_HEADER]>(GROUP, number);
    // SAFETY: the kernel reads and writes at most `data_size` bytes from the address (drivers/md/dm-ioctl.c, `copy_params`,
    // `ctl_ioctl`), which is the length of the buffer, and keeps no reference to it. It writes bytes, of which any are valid.
    let result = unsafe {
        libc::ioctl(
            control.as_raw_fd(),
            request as libc::Ioctl,
            buffer.as_mut_ptr(),
        )
    };
    Errno::result(result).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_mapped_and_a_directory_not() {
        let own = File::open(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(map_executable(&own), Verdict::Allowed);
        let directory = File::open("/").unwrap();
        assert_eq!(map_executable(&directory), Verdict::Denied(Errno::ENODEV));
    }

    #[cfg(feature = "verity")]
    #[test]
    fn a_request_to_the_device_mapper_has_room_for_its_header() {
        let null = File::open("/dev/null").unwrap();
        let ask = |length| device_mapper(&null, 0, &mut vec![0; length]);
        assert_eq!(ask(DM_HEADER - 1), Err(Errno::EINVAL));
        assert_eq!(ask(DM_HEADER), Err(Errno::ENOTTY));
    }

    #[test]
    fn asking_about_an_execution_executes_nothing() {
        let own = File::open(std::env::current_exe().unwrap()).unwrap();
        assert!(matches!(
            execve_check(&own),
            Verdict::Allowed | Verdict::Unknown
        ));
    }
}
