//! What fixes the kernel command line, so that whoever writes the disk cannot add `rdinit=` or another parameter.

use std::fmt;

use super::check::KernelConfig;

/// What fixes the kernel command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FixedBy {
    /// The kernel has a command line of its own and takes no other; the option that says so, with `CONFIG_`.
    Kernel(&'static str),
    /// The signature of the unified kernel image that it is in, while the firmware enforces Secure Boot.
    Image,
    /// Nothing that is known here.
    Nothing,
}

impl FixedBy {
    /// What fixes it for this kernel; `in_image` says that the line is in a unified kernel image whose signature is valid.
    #[must_use]
    pub fn of(kernel: Option<&KernelConfig>, in_image: bool) -> Self {
        let is = |option| kernel.is_some_and(|kernel| kernel.is_builtin(option));
        match () {
            // x86 and MIPS (arch/x86/kernel/setup.c, `setup_arch`).
            () if is("CMDLINE_BOOL") && is("CMDLINE_OVERRIDE") => {
                Self::Kernel("CONFIG_CMDLINE_OVERRIDE")
            }
            // arm, arm64, RISC-V and PowerPC (drivers/of/fdt.c, `early_init_dt_scan_chosen`).
            () if is("CMDLINE_FORCE") => Self::Kernel("CONFIG_CMDLINE_FORCE"),
            () if in_image => Self::Image,
            () => Self::Nothing,
        }
    }

    /// A short name: the option, `unified kernel image`, or nothing.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Kernel(option) => Some(option),
            Self::Image => Some("unified kernel image"),
            Self::Nothing => None,
        }
    }
}

impl fmt::Display for FixedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(option) => {
                write!(f, "fixed by {option}: the kernel takes no other parameter")
            }
            Self::Image => f.write_str(
                "fixed by the signature of the unified kernel image, while the firmware enforces Secure Boot: rdinit= and other \
                 parameters are added only with the key, or (systemd-stub 254 and newer) in the firmware's SMBIOS strings",
            ),
            Self::Nothing => f.write_str(
                "open: whoever writes the boot loader's configuration adds rdinit= or another parameter",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fixes_the_line_of_kernels() {
        let rows = [
            ("CONFIG_X86=y", false, FixedBy::Nothing),
            ("CONFIG_X86=y", true, FixedBy::Image),
            (
                "CONFIG_CMDLINE_BOOL=y\nCONFIG_CMDLINE=\"ro\"",
                false,
                FixedBy::Nothing,
            ),
            (
                "CONFIG_CMDLINE_BOOL=y\nCONFIG_CMDLINE_OVERRIDE=y",
                false,
                FixedBy::Kernel("CONFIG_CMDLINE_OVERRIDE"),
            ),
            ("CONFIG_CMDLINE_OVERRIDE=y", false, FixedBy::Nothing),
            (
                "CONFIG_ARM64=y\nCONFIG_CMDLINE_FORCE=y",
                true,
                FixedBy::Kernel("CONFIG_CMDLINE_FORCE"),
            ),
            (
                "CONFIG_ARM64=y\nCONFIG_CMDLINE_EXTEND=y",
                false,
                FixedBy::Nothing,
            ),
        ];
        for (config, in_image, expected) in rows {
            let kernel = KernelConfig::parse(config.as_bytes()).unwrap();
            assert_eq!(FixedBy::of(Some(&kernel), in_image), expected, "{config}");
        }
        assert_eq!(FixedBy::of(None, false), FixedBy::Nothing);
    }
}
