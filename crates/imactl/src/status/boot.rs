//! What started this kernel, and what is known of the command line.

use ima::{cmdline, layout};
use serde::Serialize;

use super::item::{Check, Item, State};
use super::system::System;
use crate::kernel::check::KernelConfig;
use crate::kernel::command_line::FixedBy;

const EFIVARS: &str = "/sys/firmware/efi/efivars";
/// `EFI_GLOBAL_VARIABLE` (UEFI specification, section 3.3).
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// The variables of systemd's Boot Loader Interface.
const LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// What UEFI says of Secure Boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecureBoot {
    /// The firmware verifies what it starts.
    Enabled,
    /// It does not.
    Disabled,
    /// It does not, and whoever comes first can enrol keys.
    SetupMode,
    /// There is UEFI firmware, but efivarfs is not mounted.
    Unknown,
    /// There is no UEFI firmware. Whether another boot loader verifies the kernel cannot be seen from here.
    NoUefi,
}

/// How the kernel was started.
#[derive(Debug, Clone, Serialize)]
pub struct Boot {
    /// The kernel's release.
    pub kernel: Option<String>,
    /// What started it, as far as that left its name.
    pub loader: Option<String>,
    /// Secure Boot.
    pub secure_boot: SecureBoot,
    /// The kernel's lockdown: `none`, `integrity` or `confidentiality`; nothing if the kernel has none, or does not show it.
    pub lockdown: Option<String>,
    /// What fixes the command line: an option of the kernel, `unified kernel image`, or nothing.
    pub command_line_fixed_by: Option<&'static str>,
    /// The kernel's own command line, or the filtered one if only root may read that.
    pub command_line: Option<String>,
    /// Whether `audit=0` keeps the kernel from recording denials.
    pub audit_is_off: bool,
    /// `ima_appraise=VALUE`, if that keeps the kernel from enforcing.
    pub weakened: Option<String>,
}

impl Boot {
    pub(super) fn of(system: &System) -> Self {
        let kernel = system.text("/proc/sys/kernel/osrelease");
        let uefi = system.text("/sys/firmware/efi/fw_platform_size").is_some();
        let byte =
            |name: &str| variable(system, name, GLOBAL).and_then(|value| value.first().copied());
        let secure_boot = match (uefi, byte("SecureBoot"), byte("SetupMode")) {
            (_, Some(1), _) => SecureBoot::Enabled,
            (_, _, Some(1)) => SecureBoot::SetupMode,
            (_, Some(_), _) => SecureBoot::Disabled,
            (true, None, _) => SecureBoot::Unknown,
            (false, None, _) => SecureBoot::NoUefi,
        };
        let stub = string(system, "StubInfo");
        let line = layout::command_line(|path| system.read(path)).ok();
        let config = ["/proc/config.gz".to_owned()]
            .into_iter()
            .chain(
                kernel
                    .iter()
                    .map(|release| format!("/boot/config-{release}")),
            )
            .find_map(|path| KernelConfig::parse(&system.read(&path).ok()?).ok());
        let in_image = stub.is_some() && secure_boot == SecureBoot::Enabled;
        Self {
            loader: loader(system, stub, uefi),
            secure_boot,
            lockdown: system
                .text("/sys/kernel/security/lockdown")
                .and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())),
            command_line_fixed_by: FixedBy::of(config.as_ref(), in_image).name(),
            audit_is_off: line.as_ref().is_some_and(audit_is_off),
            weakened: line.as_ref().and_then(ima::settings::weakened),
            command_line: line.map(|line| String::from_utf8_lossy(&line).trim_end().to_owned()),
            kernel,
        }
    }

    pub(super) fn kernel_check(&self) -> Check {
        let Some(kernel) = &self.kernel else {
            let text = "its release cannot be read";
            return Check::new(Item::Kernel, State::NotVisible, text);
        };
        let loader = match &self.loader {
            Some(loader) => format!("started by {loader}"),
            None => "what started it left no name".to_owned(),
        };
        Check::new(Item::Kernel, State::Good, format!("{kernel}, {loader}"))
    }

    pub(super) fn secure_boot_check(&self) -> Check {
        let (state, text) = match self.secure_boot {
            SecureBoot::Enabled => (State::Good, "enabled"),
            SecureBoot::Disabled => (
                State::Attention,
                "disabled: the firmware starts whatever lies on the disk",
            ),
            SecureBoot::SetupMode => (
                State::Attention,
                "in setup mode: the firmware starts whatever lies on the disk, and anybody can enrol keys",
            ),
            SecureBoot::Unknown => (State::NotVisible, "not known: efivarfs is not mounted"),
            SecureBoot::NoUefi => (
                State::NotVisible,
                "no UEFI: whether the boot loader verifies the kernel cannot be seen from here",
            ),
        };
        let lockdown = match &self.lockdown {
            Some(level) => format!("; lockdown {level}"),
            None => "; no lockdown".to_owned(),
        };
        let check = Check::new(Item::SecureBoot, state, format!("{text}{lockdown}"));
        if self.secure_boot != SecureBoot::Enabled {
            return check;
        }
        match self.lockdown.as_deref() {
            Some("none") => check.attention().detail(
                "root can change the kernel in memory: set lockdown=integrity in ima-init.conf",
            ),
            Some(_) => check,
            None => check.attention().detail(
                "root can change the kernel in memory: it has no lockdown (CONFIG_SECURITY_LOCKDOWN_LSM)",
            ),
        }
    }

    pub(super) fn command_line_check(&self) -> Check {
        let check = match self.command_line_fixed_by {
            Some(by @ "unified kernel image") => Check::new(
                Item::CommandLine,
                State::Good,
                format!("closed: in a {by} under Secure Boot, which imactl check --uki verifies"),
            ),
            Some(option) => Check::new(
                Item::CommandLine,
                State::Good,
                format!("closed: the kernel has {option} and takes no other"),
            ),
            None => Check::new(
                Item::CommandLine,
                State::Attention,
                "open as far as can be seen: whoever writes it can leave out the init with rdinit=",
            ),
        };
        match &self.weakened {
            Some(parameter) => check
                .failed()
                .detail(format!("{parameter}: the kernel does not enforce")),
            None => check,
        }
    }
}

/// Whether the last `audit=` turns the audit system off (kernel/audit.c, `audit_enable`).
fn audit_is_off(line: &Vec<u8>) -> bool {
    let last = cmdline::parameters(line)
        .filter(|parameter| parameter.is("audit"))
        .last();
    let value = last.and_then(|parameter| parameter.value);
    matches!(value.as_deref(), Some("0" | "off"))
}

/// The name of what started the kernel.
fn loader(system: &System, stub: Option<String>, uefi: bool) -> Option<String> {
    let loader = string(system, "LoaderInfo");
    match (loader, stub) {
        (Some(loader), Some(stub)) => {
            return Some(format!("{loader}, in a unified kernel image ({stub})"));
        }
        (None, Some(stub)) => return Some(format!("UEFI, in a unified kernel image ({stub})")),
        (Some(loader), None) => return Some(loader),
        (None, None) => {}
    }
    // U-Boot leaves its version since 2017.05 (boot/fdt_support.c, `fdt_chosen`).
    if let Some(version) = system.text("/proc/device-tree/chosen/u-boot,version") {
        return Some(version.trim_end_matches('\0').to_owned());
    }
    // The boot protocol's number of the boot loader and its version (Documentation/arch/x86/boot.rst, `type_of_loader`).
    let kind: Option<u32> = system
        .text("/proc/sys/kernel/bootloader_type")
        .and_then(|text| text.parse().ok());
    let name = match kind.map(|kind| kind >> 4) {
        Some(0x0) => "LILO",
        Some(0x3) => "Syslinux",
        Some(0x7) => "GRUB",
        Some(0x8) => "U-Boot",
        Some(0x9) => "Xen",
        Some(0xb) => "QEMU",
        Some(0xd) => "kexec",
        _ if uefi => "UEFI",
        _ => return None,
    };
    Some(name.to_owned())
}

/// The value of a UEFI variable: behind four bytes of attributes (Documentation/filesystems/efivarfs.rst).
fn variable(system: &System, name: &str, vendor: &str) -> Option<Vec<u8>> {
    let bytes = system.read(&format!("{EFIVARS}/{name}-{vendor}")).ok()?;
    Some(bytes.get(4..)?.to_vec())
}

/// A variable of the Boot Loader Interface: UTF-16 with a zero at its end.
fn string(system: &System, name: &str) -> Option<String> {
    let value = variable(system, name, LOADER)?;
    let units: Vec<u16> = value
        .as_chunks::<2>()
        .0
        .iter()
        .map(|bytes| u16::from_le_bytes(*bytes))
        .take_while(|unit| *unit != 0)
        .collect();
    Some(String::from_utf16_lossy(&units))
}
