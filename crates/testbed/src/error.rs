use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::Architecture;

/// The reason why a machine could not be started, observed or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestbedError {
    /// A file that the machine needs cannot be read.
    #[error("{what} {path}: {source}; build it, or correct the path")]
    Missing {
        /// What the file is: `kernel`, `initramfs`, `disk` or the firmware.
        what: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A program of the host could not be started.
    #[error("cannot start {program}: {source}; install it (Debian: {package})")]
    Spawn {
        /// The name of the program.
        program: String,
        /// The Debian package that contains it.
        package: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A socket or temporary directory could not be made or used.
    #[error("cannot {what}: {source}")]
    Io {
        /// The operation that failed.
        what: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// QEMU ended before the machine started: an unknown option, too little memory, an accelerator that does not work.
    #[error("QEMU ended before the machine started ({status}): {stderr}")]
    NotStarted {
        /// The exit status of QEMU.
        status: String,
        /// The error output of QEMU.
        stderr: String,
    },
    /// QEMU refused a QMP command.
    #[error("QEMU refused {command}: {answer}")]
    Qmp {
        /// The name of the command.
        command: String,
        /// The answer of QEMU.
        answer: String,
    },
    /// There is no UEFI firmware for machines of this architecture.
    #[error("there is no UEFI firmware for {architecture} here; Machine::uefi is for x86_64")]
    NoFirmware {
        /// The architecture.
        architecture: Architecture,
    },
    /// The handle belongs to a disk of another machine.
    #[error(
        "this machine has no such disk; take the handle from Machine::add_disk or Machine::disks of this machine"
    )]
    UnknownDisk,
    /// The disk is present from the start and cannot be attached.
    #[error(
        "disk {path} is attached from the start; declare it with Disk::hotplug to attach it later"
    )]
    NotHotplug {
        /// The path of the image.
        path: PathBuf,
    },
    /// An event did not happen in time.
    #[error("{event} did not happen within {waited:?}; the console ends with:\n{console}")]
    TimedOut {
        /// The event.
        event: String,
        /// The time waited.
        waited: Duration,
        /// The last lines of the console.
        console: String,
    },
    /// The machine ended before an event happened.
    #[error("the machine ended before {event}; the console ends with:\n{console}")]
    Ended {
        /// The event.
        event: String,
        /// The last lines of the console.
        console: String,
    },
}

impl TestbedError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> TestbedError {
        move |source| TestbedError::Io { what, source }
    }
}
