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

/// Where registers are among them (struct user_regs_struct of x86-64 and RISC-V, struct user_pt_regs of arm64, struct pt_regs of arm).
struct Places {
    /// The number of the system call.
    number: usize,
    /// Its result.
    result: usize,
    /// Its first five arguments.
    arguments: [usize; 5],
    /// The program counter.
    counter: usize,
}

#[cfg(target_arch = "x86_64")]
const PLACES: Places = Places {
    number: 15,
    result: 10,
    arguments: [14, 13, 12, 7, 9],
    counter: 16,
};
#[cfg(target_arch = "aarch64")]
const PLACES: Places = Places {
    number: 8,
    result: 0,
    arguments: [0, 1, 2, 3, 4],
    counter: 32,
};
#[cfg(target_arch = "riscv64")]
const PLACES: Places = Places {
    number: 17,
    result: 10,
    arguments: [10, 11, 12, 13, 14],
    counter: 0,
};
#[cfg(target_arch = "arm")]
const PLACES: Places = Places {
    number: 7,
    result: 0,
    arguments: [0, 1, 2, 3, 4],
    counter: 15,
};

const NUMBER: usize = PLACES.number;
const RESULT: usize = PLACES.result;

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
        PLACES.arguments.map(|place| self.words[place])
    }

    /// What the call returned, to a process that stands behind it.
    pub fn result(&self) -> isize {
        self.words[RESULT] as isize
    }

    /// The address of the next instruction, and the instruction by which a program that panics ends itself, as `build/ship` has it
    /// built.
    pub fn trap(&self) -> (usize, &'static [u8]) {
        #[cfg(target_arch = "x86_64")]
        let instruction: &[u8] = &[0x0f, 0x0b]; // ud2
        #[cfg(target_arch = "aarch64")]
        let instruction: &[u8] = &[0x20, 0x00, 0x20, 0xd4]; // brk #1
        #[cfg(target_arch = "riscv64")]
        let instruction: &[u8] = &[0x00, 0x00]; // c.unimp
        #[cfg(target_arch = "arm")]
        let instruction: &[u8] = {
            // PSR_T_BIT (arch/arm/include/uapi/asm/ptrace.h) says that the instructions are Thumb's.
            let is_thumb = self.words[16] & 0x20 != 0;
            if is_thumb {
                &[0xfe, 0xde] // udf #254
            } else {
                &[0xfe, 0xde, 0xff, 0xe7] // udf #60910
            }
        };
        (self.words[PLACES.counter], instruction)
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
