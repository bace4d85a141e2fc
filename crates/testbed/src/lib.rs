//! QEMU and swtpm machines as values, for tests of Linux's integrity subsystem.
//!
//! A [`Machine`] says what the machine is made of; [`Machine::start`] gives a [`Running`] one, which ends in an
//! [`Outcome`]: how it ended ([`Ending`]: off, reboot, halt, panic), everything its console showed, and what the guest
//! program in it reported. Nothing is left running: dropping a `Running`, or the end of the process however it comes
//! about, kills the machine and its TPM.
//!
//! ```no_run
//! use std::time::Duration;
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
//! A machine can be watched while it runs; a wait ends with the event, the end of the machine or the time limit, and
//! never sleeps:
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
//! The guest program (`guest`, see [`report`]) is PID 1 of small test roots or a service of large ones. It tells over a
//! virtio-serial port what it sees and what came of [`attempts`] to run what must not run.
//!
//! What is needed on the host: `qemu-system-x86_64`, `swtpm` for machines with a TPM, `setpriv` (util-linux). Whether KVM
//! is used is found out by booting with it ([`Accel::Auto`]), because a `/dev/kvm` that opens need not work.

mod architecture;
pub mod attempts;
mod disk;
mod error;
mod machine;
mod outcome;
mod process;
mod qmp;
pub mod report;
mod running;
mod serial_console;
mod tpm;

pub use architecture::{Architecture, UnknownArchitecture};
pub use disk::{Bus, Disk, DiskHandle};
pub use error::TestbedError;
pub use machine::{Accel, Machine, SignRequest, Tpm};
pub use outcome::{Ending, Outcome};
pub use running::{MachineOutput, Running};
pub use serial_console::{CommandOutput, SerialConsole};
