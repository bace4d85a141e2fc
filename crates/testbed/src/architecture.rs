use std::fmt;
use std::str::FromStr;

/// The architecture of a machine, with what QEMU and the kernel call its parts.
///
/// Machines of all of them are covered by tests of ima-init, most of x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// 64-bit x86: the machine type `q35`.
    X86_64,
    /// 64-bit Arm: the machine type `virt`.
    Aarch64,
    /// 32-bit Arm (ARMv7-A): the machine type `virt`, with all devices below 4 GiB.
    Armv7,
    /// 64-bit RISC-V: the machine type `virt`.
    Riscv64,
}

impl Architecture {
    /// All architectures.
    pub const ALL: [Architecture; 4] = [
        Architecture::X86_64,
        Architecture::Aarch64,
        Architecture::Armv7,
        Architecture::Riscv64,
    ];

    /// Returns the architecture of the host, if it is one of these.
    #[must_use]
    pub fn host() -> Option<Architecture> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Architecture::X86_64),
            "aarch64" => Some(Architecture::Aarch64),
            "arm" => Some(Architecture::Armv7),
            "riscv64" => Some(Architecture::Riscv64),
            _ => None,
        }
    }

    /// Returns the name: `x86_64`, `aarch64`, `armv7` or `riscv64`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Architecture::X86_64 => "x86_64",
            Architecture::Aarch64 => "aarch64",
            Architecture::Armv7 => "armv7",
            Architecture::Riscv64 => "riscv64",
        }
    }

    /// Returns the program of QEMU that emulates the machine.
    #[must_use]
    pub const fn qemu_program(self) -> &'static str {
        match self {
            Architecture::X86_64 => "qemu-system-x86_64",
            Architecture::Aarch64 => "qemu-system-aarch64",
            Architecture::Armv7 => "qemu-system-arm",
            Architecture::Riscv64 => "qemu-system-riscv64",
        }
    }

    /// Returns the Debian 12 package that contains the program.
    pub(crate) const fn qemu_package(self) -> &'static str {
        match self {
            Architecture::X86_64 => "qemu-system-x86",
            Architecture::Aarch64 | Architecture::Armv7 => "qemu-system-arm",
            Architecture::Riscv64 => "qemu-system-misc",
        }
    }

    /// Returns the value of `-machine`.
    #[must_use]
    pub const fn machine_type(self) -> &'static str {
        match self {
            Architecture::X86_64 => "q35",
            // A kernel without LPAE reaches no PCI configuration space above 4 GiB.
            Architecture::Armv7 => "virt,highmem=off",
            Architecture::Aarch64 | Architecture::Riscv64 => "virt",
        }
    }

    /// Returns the value of `-cpu` where the processor is emulated.
    pub(crate) const fn cpu(self) -> &'static str {
        match self {
            Architecture::X86_64 => "max",
            // As in many boards. `max` has virtual addresses of 52 bits, with which kexec_file_load() of Linux 6.12 makes the kernel
            // panic (`trans_pgd_create_copy`).
            Architecture::Aarch64 => "cortex-a72",
            Architecture::Armv7 => "cortex-a15",
            Architecture::Riscv64 => "rv64",
        }
    }

    /// Returns the name of the serial console in the guest, as in `console=ttyS0`.
    #[must_use]
    pub const fn console(self) -> &'static str {
        match self {
            Architecture::X86_64 | Architecture::Riscv64 => "ttyS0",
            Architecture::Aarch64 | Architecture::Armv7 => "ttyAMA0",
        }
    }

    /// Returns the device of QEMU that presents a TPM. The kernel of a RISC-V machine does not find it in QEMU 7.2, which leaves it out
    /// of the device tree.
    #[must_use]
    pub const fn tpm_device(self) -> &'static str {
        match self {
            Architecture::X86_64 => "tpm-tis",
            Architecture::Aarch64 | Architecture::Armv7 | Architecture::Riscv64 => "tpm-tis-device",
        }
    }

    /// Returns the file name of the kernel image that QEMU boots, below `arch/*/boot` of a kernel build.
    #[must_use]
    pub const fn kernel_image(self) -> &'static str {
        match self {
            Architecture::X86_64 => "bzImage",
            Architecture::Aarch64 | Architecture::Riscv64 => "Image",
            Architecture::Armv7 => "zImage",
        }
    }

    /// Returns the parameters with which the kernel command line begins.
    pub(crate) fn command_line(self) -> String {
        let console = format!("console={}", self.console());
        match self {
            // The kernel tests in a timed loop whether timer interrupts arrive, and panics ("IO-APIC + timer doesn't work!") if
            // the host gives the machine no CPU meanwhile (arch/x86/kernel/apic/io_apic.c, `check_timer`).
            Architecture::X86_64 => console + " no_timer_check",
            _ => console,
        }
    }

    /// Returns the parameter with which the kernel prints before it has set up its console.
    pub(crate) const fn early_console(self) -> &'static str {
        match self {
            Architecture::X86_64 => "earlyprintk=ttyS0",
            _ => "earlycon",
        }
    }
}

impl Default for Architecture {
    /// Returns the architecture of the host, or x86-64 if it is none of these.
    fn default() -> Architecture {
        Architecture::host().unwrap_or(Architecture::X86_64)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error of parsing an [`Architecture`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown architecture \"{0}\" (valid: x86_64, aarch64, armv7, riscv64)")]
pub struct UnknownArchitecture(String);

impl FromStr for Architecture {
    type Err = UnknownArchitecture;

    fn from_str(name: &str) -> Result<Architecture, UnknownArchitecture> {
        Architecture::ALL
            .into_iter()
            .find(|architecture| architecture.name() == name)
            .ok_or_else(|| UnknownArchitecture(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for architecture in Architecture::ALL {
            assert_eq!(architecture.name().parse(), Ok(architecture));
        }
        let error = "sparc".parse::<Architecture>().unwrap_err().to_string();
        for architecture in Architecture::ALL {
            assert!(error.contains(architecture.name()), "{error}");
        }
    }
}
