//! The registers of a traced process that stands at a system call: which call it is, and what it gets for an answer.
#![allow(unsafe_code)]

use std::mem::size_of;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_void};
use nix::unistd::Pid;

/// PTRACE_GETREGSET and PTRACE_SETREGSET (include/uapi/linux/ptrace.h); the type of a request is another one for each C library.
const GET: u32 = 0x4204;
const SET: u32 = 0x4205;

/// NT_PRSTATUS (include/uapi/linux/elf.h): the general registers, as many as the processor has.
const GENERAL: c_int = 1;

/// The most that one of the processors has (struct user_pt_regs of arm64).
const MOST: usize = 34;

/// Where the number of the call is among them, where its result, and where its first five arguments (struct user_regs_struct of x86-64;
/// `x0` to `x8`, `a0` to `a7`, `r0` to `r7`).
#[cfg(target_arch = "x86_64")]
const PLACES: (usize, usize, [usize; 5]) = (15, 10, [14, 13, 12, 7, 9]);
#[cfg(target_arch = "aarch64")]
const PLACES: (usize, usize, [usize; 5]) = (8, 0, [0, 1, 2, 3, 4]);
#[cfg(target_arch = "riscv64")]
const PLACES: (usize, usize, [usize; 5]) = (17, 10, [10, 11, 12, 13, 14]);
#[cfg(target_arch = "arm")]
const PLACES: (usize, usize, [usize; 5]) = (7, 0, [0, 1, 2, 3, 4]);

const NUMBER: usize = PLACES.0;
const RESULT: usize = PLACES.1;

/// The general registers.
#[derive(Debug, Clone)]
pub struct Registers {
    words: [usize; MOST],
    /// How many there are, in bytes.
    length: usize,
}

impl Default for Registers {
    fn default() -> Self {
        Registers {
            words: [0; MOST],
            length: 0,
        }
    }
}

impl Registers {
    /// Those of a process that is stopped.
    ///
    /// # Errors
    ///
    /// What ptrace(2) says.
    pub fn of(process: Pid) -> Result<Registers, Errno> {
        let mut registers = Registers::default();
        registers.length = transfer(GET, process, GENERAL, &mut registers.words)?;
        Ok(registers)
    }

    /// The number of the system call.
    pub fn call(&self) -> usize {
        self.words[NUMBER]
    }

    /// The first five arguments of the call, of a process that stands before it.
    pub fn arguments(&self) -> [usize; 5] {
        PLACES.2.map(|place| self.words[place])
    }

    /// What the call returned, to a process that stands behind it.
    pub fn result(&self) -> isize {
        self.words[RESULT] as isize
    }

    /// Keeps a process that stands before a call from making it: no call has the number -1.
    ///
    /// # Errors
    ///
    /// What ptrace(2) says.
    pub fn make_none(&self, process: Pid) -> Result<(), Errno> {
        // The kernel takes the number from elsewhere than from the register, which stays (arch/arm64/kernel/ptrace.c,
        // `system_call_set`; arch/arm/kernel/ptrace.c, `arch_ptrace`).
        #[cfg(target_arch = "aarch64")]
        {
            const NT_ARM_SYSTEM_CALL: c_int = 0x404;
            let mut none = [u32::MAX];
            transfer(SET, process, NT_ARM_SYSTEM_CALL, &mut none).map(drop)
        }
        #[cfg(target_arch = "arm")]
        {
            const PTRACE_SET_SYSCALL: c_int = 23;
            // SAFETY: this request takes a number, and neither reads nor writes memory of this process.
            let result =
                unsafe { libc::ptrace(PTRACE_SET_SYSCALL, process.as_raw(), 0_usize, usize::MAX) };
            Errno::result(result).map(drop)
        }
        #[cfg(any(target_arch = "x86_64", target_arch = "riscv64"))]
        {
            let mut registers = self.clone();
            registers.words[NUMBER] = usize::MAX;
            registers.write(process)
        }
    }

    /// Has a process that stands behind a call that was not made see it fail with this error. `before` are its registers before it.
    ///
    /// # Errors
    ///
    /// What ptrace(2) says.
    pub fn fail(mut self, process: Pid, errno: i32, before: &Registers) -> Result<(), Errno> {
        self.words[NUMBER] = before.words[NUMBER];
        self.words[RESULT] = (errno as isize).wrapping_neg() as usize;
        self.write(process)
    }

    fn write(mut self, process: Pid) -> Result<(), Errno> {
        let words = self.words.get_mut(..self.length / size_of::<usize>());
        transfer(SET, process, GENERAL, words.ok_or(Errno::EINVAL)?).map(drop)
    }
}

/// Reads or writes a set of registers as far as there are words for it; how many bytes it was.
fn transfer<T>(request: u32, process: Pid, which: c_int, words: &mut [T]) -> Result<usize, Errno> {
    let mut memory = libc::iovec {
        iov_base: words.as_mut_ptr().cast::<c_void>(),
        iov_len: size_of_val(words),
    };
    // SAFETY: the kernel reads or writes at most `iov_len` bytes at the address, which are those of numbers, and the length.
    let result = unsafe {
        libc::ptrace(
            request as _,
            process.as_raw(),
            which as usize,
            &raw mut memory,
        )
    };
    Errno::result(result)?;
    Ok(memory.iov_len)
}
