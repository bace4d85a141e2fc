use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a machine could not be started, watched or changed.
#[derive(Debug, thiserror::Error)]
pub enum TestbedError {
    /// A file the machine is made of is not there: said before QEMU says it less clearly.
    #[error("{what} {path}: {source}; build it, or correct the path")]
    Missing {
        /// What it is to the machine.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {source}; install it (Debian: {package})")]
    Spawn {
        /// The program.
        program: String,
        /// The Debian package it comes in.
        package: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A socket, thread or temporary directory could not be made.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was to be done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// QEMU ended before it had connected to its sockets: an option it does not know, memory it does not get.
    #[error("QEMU ended before the machine started ({status}): {stderr}")]
    NotStarted {
        /// How it ended.
        status: String,
        /// What it wrote.
        stderr: String,
    },
    /// QEMU refused a request.
    #[error("QEMU refuses {command}: {answer}")]
    Qmp {
        /// The request.
        command: String,
        /// Its answer.
        answer: String,
    },
    /// The machine has no late disk of that number.
    #[error("the machine has no late disk {0}")]
    NoSuchDisk(usize),
    /// What was waited for did not come in time.
    #[error("waited {waited:?} for {event}; the console ends with:\n{console}")]
    Late {
        /// What was waited for.
        event: String,
        /// For how long.
        waited: Duration,
        /// The last lines of the console.
        console: String,
    },
    /// The machine ended before what was waited for came.
    #[error("the machine ended before {event}; the console ends with:\n{console}")]
    Ended {
        /// What was waited for.
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
