//! Virtual machines in QEMU, with swtpm as their TPM, for tests of Linux IMA and EVM.
//!
//! A [`Machine`] describes a machine: kernel, initramfs, disks, TPM, command line. [`Machine::start`] returns a [`Running`]
//! machine, which ends in an [`Outcome`]: how it ended ([`Ending`]), everything that its console showed, and what the guest
//! program reported. QEMU and swtpm never outlive the test: dropping a [`Running`], or the end of the process in any way, kills
//! them.
//!
//! ```no_run
//! use ima_testbed::{Disk, Ending, Machine, Tpm};
//!
//! # fn main() -> Result<(), ima_testbed::TestbedError> {
//! let outcome = Machine::new("bzImage")
//!     .initramfs("initramfs.cpio.gz")
//!     .disk(Disk::new("root.ext4").serial("root"))
//!     .tpm(Tpm::Swtpm)
//!     .append("root=/dev/vda ima_policy=tcb")
//!     .start()?
//!     .finish();
//! assert_eq!(outcome.ending, Ending::PowerOff, "{}", outcome.console);
//! let report = outcome.report().expect("the guest program reported");
//! assert!(report.tpm);
//! # Ok(())
//! # }
//! ```
//!
//! Tests can wait for events while the machine runs. A wait ends with the event, with the end of the machine, or at the time
//! limit; tests need no sleeps:
//!
//! ```no_run
//! # use ima_testbed::{Disk, Machine};
//! # fn main() -> Result<(), ima_testbed::TestbedError> {
//! let mut machine = Machine::new("bzImage").initramfs("initramfs.cpio.gz");
//! let root = machine.add_disk(Disk::new("root.ext4").hotplug());
//! let running = machine.start()?;
//! running.wait_for_console("waiting for the root")?;
//! running.plug(root)?;
//! let outcome = running.finish();
//! # Ok(())
//! # }
//! ```
//!
//! [`SerialConsole`] logs in on the console and runs commands:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use ima_testbed::{Machine, SerialConsole};
//! # fn main() -> Result<(), ima_testbed::TestbedError> {
//! # let machine = Machine::new("bzImage");
//! let limit = Duration::from_secs(60);
//! let mut console = SerialConsole::log_in(machine.start()?, "root", "secret", limit)?;
//! let output = console.run("cat /sys/kernel/security/ima/policy", limit)?;
//! assert!(output.success() && output.contains("appraise"));
//! let outcome = console.finish("poweroff")?;
//! # Ok(())
//! # }
//! ```
//!
//! With [`Machine::uefi`] the firmware is UEFI, with or without Secure Boot. It starts `/EFI/BOOT/BOOTX64.EFI` of a disk's EFI
//! system partition, or the kernel if that is a program for UEFI:
//!
//! ```no_run
//! # use ima_testbed::{Disk, Ending, Machine, Uefi};
//! # fn main() -> Result<(), ima_testbed::TestbedError> {
//! # let (platform_key, certificate) = ([0], [0]);
//! let firmware = Uefi::with_platform_key(&platform_key).allow(&certificate);
//! let outcome = Machine::from_disk(Disk::new("disk-with-unsigned-kernel.img"))
//!     .uefi(firmware)
//!     .start()?
//!     .finish();
//! assert_eq!(outcome.ending, Ending::NothingToBoot, "{}", outcome.console);
//! assert!(outcome.console_contains("Access Denied"));
//! # Ok(())
//! # }
//! ```
//!
//! The guest program (`guest`, see [`report`]) is PID 1 of small test roots, or a systemd service of large ones. It reports over
//! a virtio-serial port what it sees, and the results of its [`attempts`] to run what must not run.
//!
//! The host needs QEMU for the [`Architecture`] of the machine, `swtpm` for machines with a TPM, OVMF for machines with UEFI, and
//! `setpriv` (util-linux).
//! [`Accel::Auto`] boots a kernel to find out whether KVM works, because a `/dev/kvm` that can be opened need not work.

mod architecture;
pub mod attempts;
mod disk;
mod error;
mod firmware;
mod machine;
mod outcome;
mod process;
mod qmp;
pub mod report;
mod running;
mod serial_console;
mod share;
mod tamper;
mod tpm;
pub mod trace;

pub use architecture::{Architecture, UnknownArchitecture};
pub use disk::{Bus, Disk, DiskHandle};
pub use error::TestbedError;
pub use firmware::Uefi;
pub use machine::{Accel, Machine, SignRequest, Tpm};
pub use outcome::{Ending, Outcome, has_stopped};
pub use running::{MachineOutput, Running};
pub use serial_console::{CommandOutput, SerialConsole};
pub use share::{Share, free_port, nfs_export};
pub use tamper::flip_last_byte;

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
