//! The system calls that rustix does not offer, and allocators: the only module with `unsafe`, and the only one that uses nix and
//! libc.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{CStr, c_char};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Mutex;
use std::time::Duration;

use nix::libc;
use rustix::time::Timespec;

use crate::errno::Errno;

mod arena;
mod heap;

pub use arena::Arena;
pub use heap::Heap;

/// An allocator that calls the function of [`on_out_of_memory`] before it fails.
#[derive(Debug)]
pub struct Allocator<Source>(pub Source);

static OUT_OF_MEMORY: Mutex<Option<fn(usize)>> = Mutex::new(None);

/// Sets the function that is called with the number of bytes for which there is no memory. If it returns, the program is
/// aborted.
pub fn on_out_of_memory(function: fn(usize)) {
    if let Ok(mut known) = OUT_OF_MEMORY.try_lock() {
        *known = Some(function);
    }
}

impl<Source> Allocator<Source> {
    fn checked(memory: *mut u8, size: usize) -> *mut u8 {
        if memory.is_null() {
            let function = OUT_OF_MEMORY.try_lock().ok().and_then(|known| *known);
            if let Some(function) = function {
                function(size);
            }
        }
        memory
    }
}

// SAFETY: every call is passed to the other allocator unchanged, and so is its result.
unsafe impl<Source: GlobalAlloc> GlobalAlloc for Allocator<Source> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the same contract.
        Self::checked(unsafe { self.0.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the same.
        Self::checked(unsafe { self.0.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the same.
        Self::checked(unsafe { self.0.realloc(memory, layout, size) }, size)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the same.
        unsafe { self.0.dealloc(memory, layout) }
    }
}

/// The signals that a program gets when it cannot go on: a panic of the programs that `build/ship` makes executes an invalid
/// instruction (SIGILL) or, on arm64, a breakpoint (SIGTRAP), and abort(3) raises SIGABRT.
const CRASHES: [libc::c_int; 3] = [libc::SIGILL, libc::SIGTRAP, libc::SIGABRT];

static ON_CRASH: Mutex<Option<fn(usize) -> !>> = Mutex::new(None);

extern "C" fn crashed(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let function = ON_CRASH.try_lock().ok().and_then(|known| *known);
    if let Some(function) = function {
        // SAFETY: the kernel passes a pointer to its own siginfo_t to a handler with SA_SIGINFO. For signals without an address,
        // the same bytes are other numbers.
        let address = unsafe { (*info).si_addr() };
        function(address.addr());
    }
}

/// Sets the function that is called when this process cannot go on, with the address of the instruction. It cannot return. A
/// second crash, in that function, kills the process.
pub fn on_crash(function: fn(usize) -> !) {
    if let Ok(mut known) = ON_CRASH.try_lock() {
        *known = Some(function);
    }
    // SAFETY: all fields are numbers, an optional pointer or an empty set of signals, for which zeros are valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = crashed as *const () as usize;
    // The signal stays unblocked, because a shell that the function executes would inherit that it is blocked.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_NODEFER;
    for signal in CRASHES {
        // SAFETY: the handler has the signature that SA_SIGINFO asks for. The signals are raised by what this only thread does
        // itself, so the handler runs where a panic would call its hook, and may do what a hook may.
        unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    }
}

/// The process in which [`fork`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The process that forked.
    Parent,
    /// The new one, which must end by itself.
    Child,
}

unsafe extern "C" {
    /// fork(2) without the handlers of pthread_atfork(3), of which these programs have none (POSIX.1-2024; musl since 1.2.2,
    /// glibc since 2.34).
    fn _Fork() -> libc::pid_t;
}

/// fork(2).
///
/// # Errors
///
/// What fork(2) says.
pub fn fork() -> Result<Forked, Errno> {
    // SAFETY: the child has only the thread that forked, and would wait forever for a lock that another one held. The programs
    // of this crate start no threads.
    match unsafe { _Fork() } {
        0 => Ok(Forked::Child),
        result => check(result.into()).map(|()| Forked::Parent),
    }
}

/// Ends this process at once, without the functions of atexit(3): those are the parent's.
pub fn exit(code: u8) -> ! {
    // SAFETY: ends the process and touches no memory.
    unsafe { libc::_exit(code.into()) }
}

/// The time since some moment before this program was started (clock_gettime(2), CLOCK_MONOTONIC). It is a system call, and not
/// the C library's function, which first looks for the kernel's code for it (vdso(7)): that pays for a program that asks often.
pub fn monotonic_time() -> Duration {
    // Where a word has 32 bits, the call of that name has numbers of 32 bits. The other one, clock_gettime64, has the same number
    // on all those processors.
    #[cfg(target_pointer_width = "64")]
    const CLOCK_GETTIME: libc::c_long = libc::SYS_clock_gettime;
    #[cfg(target_pointer_width = "32")]
    const CLOCK_GETTIME: libc::c_long = 403;
    let mut time = Timespec::default();
    // SAFETY: the kernel writes two numbers of 64 bits, which Timespec consists of, and keeps no reference to it.
    unsafe { libc::syscall(CLOCK_GETTIME, libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::try_from(time).unwrap_or_default()
}

/// The strings of a list that ends with a null pointer.
///
/// # Safety
///
/// The list and its strings must stay as they are until the program ends, like those that the kernel passes to `main`.
pub unsafe fn strings(mut list: *const *const c_char) -> Vec<&'static CStr> {
    let mut strings = Vec::new();
    // SAFETY: the list has a null pointer at its end, and no element behind that is looked at.
    while let Some(string) = unsafe { list.read().as_ref() } {
        // SAFETY: it is a string that stays.
        strings.push(unsafe { CStr::from_ptr(string) });
        // SAFETY: this element was not the last.
        list = unsafe { list.add(1) };
    }
    strings
}

/// Defines the `main` of a program with `#![no_main]`, which calls a function with the arguments and the environment. Rust's own
/// (library/std/src/rt.rs) brings with it what such a program does not use, as the state of threads and a buffer for the standard
/// output.
#[macro_export]
macro_rules! define_main {
    ($start:path) => {
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn main(
            _: std::ffi::c_int,
            arguments: *const *const std::ffi::c_char,
            environment: *const *const std::ffi::c_char,
        ) -> std::ffi::c_int {
            // SAFETY: the C library passes on what the kernel put there for this program, which changes none of it.
            let (arguments, environment) = unsafe {
                (
                    $crate::syscalls::strings(arguments),
                    $crate::syscalls::strings(environment),
                )
            };
            $start(&arguments, &environment).into()
        }
    };
}

/// Ignores SIGPIPE: to write to a pipe that nobody reads is an error then, and not the end of a process that is not PID 1.
pub fn ignore_sigpipe() {
    // SAFETY: to ignore a signal takes no handler, and no other thread sets one: the programs of this crate start none.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Restores the default action of SIGPIPE. A program that is executed would inherit the ignored signal, and so would every process
/// of the real init. To be called just before an execution.
pub fn restore_sigpipe() {
    // SAFETY: the default action is no handler, and no other thread sets one: the programs of this crate start none.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// execve(2). Returns only if it fails.
pub fn execute(program: &CStr, arguments: &[&CStr], environment: &[&CStr]) -> Errno {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both vectors are NULL-terminated arrays of C strings that live through the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    last_error()
}

/// execveat(2) of a file in a directory, or with an empty path of the open file itself (AT_EMPTY_PATH). Returns only if it
/// fails.
pub fn execute_at(
    file: impl AsFd,
    path: &CStr,
    arguments: &[&CStr],
    environment: &[&CStr],
) -> Errno {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: as in execute. There is no such function in musl.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_fd().as_raw_fd(),
            path.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_error()
}

/// The NULL-terminated array that an execution takes. It has no strings of its own.
fn pointers(strings: &[&CStr]) -> Vec<*const c_char> {
    let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
    pointers.push(std::ptr::null());
    pointers
}

/// Whether the kernel would execute a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It would.
    Allowed,
    /// It would fail with this error.
    Denied(Errno),
    /// This kernel has no such check.
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
    match check(result) {
        Ok(()) => Verdict::Allowed,
        Err(Errno::INVAL | Errno::NOSYS) => Verdict::Unknown,
        Err(errno) => Verdict::Denied(errno),
    }
}

/// The error of a system call that returned -1.
fn check(result: libc::c_long) -> Result<(), Errno> {
    match result {
        -1 => Err(last_error()),
        _ => Ok(()),
    }
}

/// The error of the last call of the C library that failed.
fn last_error() -> Errno {
    Errno::from_raw_os_error(nix::errno::Errno::last_raw())
}

/// Maps the file's first page executable and unmaps it: the kernel appraises it as when the file is loaded
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
        return Verdict::Denied(last_error());
    }
    // SAFETY: exactly the mapping made above, to which there is no reference.
    unsafe { libc::munmap(address, LENGTH) };
    Verdict::Allowed
}

/// The length of `struct dm_ioctl` (include/uapi/linux/dm-ioctl.h), which a request to the device mapper begins with.
pub const DM_HEADER: usize = 312;

/// ioctl(2) on `/dev/mapper/control`: a request of that number (`DM_*_CMD`), whose answer replaces it. The kernel reads and
/// writes as many bytes as the header's `data_size` says, which is set here.
///
/// # Errors
///
/// What the kernel says; EINVAL if the buffer has no room for the header.
pub fn device_mapper(control: &File, number: u8, buffer: &mut [u8]) -> Result<(), Errno> {
    const GROUP: u8 = 0xfd;
    // Behind the three numbers of the version.
    const DATA_SIZE: std::ops::Range<usize> = 12..16;
    let length = u32::try_from(buffer.len()).map_err(|_| Errno::INVAL)?;
    if buffer.len() < DM_HEADER {
        return Err(Errno::INVAL);
    }
    let field = buffer.get_mut(DATA_SIZE).ok_or(Errno::INVAL)?;
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
    check(result.into())
}

/// The length of `struct fsverity_digest` (include/uapi/linux/fsverity.h) with the longest digest there is.
pub const VERITY_DIGEST: usize = 4 + 64;

/// ioctl(2), FS_IOC_MEASURE_VERITY: the fs-verity digest that the kernel enforces for reads of the file, as a
/// `struct fsverity_digest`.
///
/// # Errors
///
/// What the kernel says: ENODATA if fs-verity is not enabled on the file, EOPNOTSUPP or ENOTTY if its file system or the kernel
/// has none.
pub fn measure_verity(file: &File, answer: &mut [u8; VERITY_DIGEST]) -> Result<(), Errno> {
    const GROUP: u8 = b'f';
    const NUMBER: u8 = 134;
    /// Where the structure says how much room there is for the digest.
    const SIZE: std::ops::Range<usize> = 2..4;
    const ROOM: u16 = 64;
    if let Some(size) = answer.get_mut(SIZE) {
        size.copy_from_slice(&ROOM.to_ne_bytes());
    }
    // Only the structure's head counts as its length.
    let request = rustix::ioctl::opcode::read_write::<[u8; 4]>(GROUP, NUMBER);
    // SAFETY: the kernel reads the head and writes it and at most as many bytes behind it as that says there is room for
    // (fs/verity/measure.c, `fsverity_ioctl_measure`), which is the length of the array, and keeps no reference to it.
    let result = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            request as libc::Ioctl,
            answer.as_mut_ptr(),
        )
    };
    check(result.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::ForkResult;

    #[test]
    fn a_program_may_be_mapped_and_a_directory_not() {
        let own = File::open(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(map_executable(&own), Verdict::Allowed);
        let directory = File::open("/").unwrap();
        assert_eq!(map_executable(&directory), Verdict::Denied(Errno::NODEV));
    }

    /// A program that panics as those of `build/ship` do, in a process of its own.
    #[test]
    fn a_crash_calls_its_function_once() {
        on_crash(|address| {
            // abort(3) sends the signal, and where the address would be is then the number of the process that sent it.
            let is_sender = u32::try_from(address) == Ok(std::process::id());
            let in_a_program = address > 4096;
            std::process::exit(if in_a_program || is_sender { 42 } else { 1 })
        });
        for (crash, expected) in [(Crash::Instruction, 42), (Crash::Abort, 42)] {
            // SAFETY: the child only crashes, and its handler ends it.
            match unsafe { nix::unistd::fork() }.unwrap() {
                ForkResult::Child => crash.happen(),
                ForkResult::Parent { child } => assert_eq!(
                    nix::sys::wait::waitpid(child, None),
                    Ok(nix::sys::wait::WaitStatus::Exited(child, expected)),
                    "{crash:?}"
                ),
            }
        }
    }

    #[derive(Debug)]
    enum Crash {
        Instruction,
        Abort,
    }

    impl Crash {
        fn happen(&self) -> ! {
            match self {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the instruction raises SIGILL and does nothing else.
                Self::Instruction => unsafe { std::arch::asm!("ud2", options(noreturn)) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: the instruction raises SIGTRAP and does nothing else.
                Self::Instruction => unsafe { std::arch::asm!("brk #1", options(noreturn)) },
                #[cfg(target_arch = "arm")]
                // SAFETY: the instruction raises SIGILL and does nothing else.
                Self::Instruction => unsafe { std::arch::asm!("udf #0", options(noreturn)) },
                #[cfg(target_arch = "riscv64")]
                // SAFETY: the instruction raises SIGILL and does nothing else.
                Self::Instruction => unsafe { std::arch::asm!("unimp", options(noreturn)) },
                Self::Abort => std::process::abort(),
            }
        }
    }

    #[test]
    fn a_request_to_the_device_mapper_has_room_for_its_header() {
        let null = File::open("/dev/null").unwrap();
        let request = |length| device_mapper(&null, 0, &mut vec![0; length]);
        assert_eq!(request(DM_HEADER - 1), Err(Errno::INVAL));
        assert_eq!(request(DM_HEADER), Err(Errno::NOTTY));
    }

    #[test]
    fn a_file_without_fs_verity_has_no_digest() {
        let own = File::open(std::env::current_exe().unwrap()).unwrap();
        let measured = measure_verity(&own, &mut [0; VERITY_DIGEST]);
        assert!(matches!(
            measured,
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOTTY)
        ));
    }

    #[test]
    fn the_check_of_an_execution_executes_nothing() {
        let own = File::open(std::env::current_exe().unwrap()).unwrap();
        assert!(matches!(
            execve_check(&own),
            Verdict::Allowed | Verdict::Unknown
        ));
    }
}
