//! The TPM emulator swtpm.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::process::spawn;
use crate::{TestbedError, Tpm};

/// An emulator of a TPM with its state in `directory`: all PCRs zero, banks as libtpms allocates them, and what is not volatile as
/// in the state that it is started with, if any.
#[derive(Debug)]
pub(crate) struct Emulator {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Emulator {
    pub(crate) fn start(
        directory: &Path,
        version: Tpm,
        initial: Option<&Path>,
    ) -> Result<Emulator, TestbedError> {
        let socket = directory.join("tpm.socket");
        // swtpm inherits a listening socket, so that QEMU can connect at once.
        let listener =
            UnixListener::bind(&socket).map_err(TestbedError::io("make the TPM's socket"))?;
        let state = directory.join("tpm");
        std::fs::create_dir(&state).map_err(TestbedError::io("make the TPM's state directory"))?;
        if let Some(initial) = initial {
            copy_files(initial, &state).map_err(TestbedError::io("copy the TPM's state"))?;
        }
        let child = spawn("swtpm", |command| {
            command
                .args(["socket", "--terminate", "--flags", "not-need-init"])
                .args((version == Tpm::Swtpm).then_some("--tpm2"))
                .args(["--ctrl", "type=unixio,fd=0"])
                .arg("--tpmstate")
                .arg(format!("dir={}", state.display()))
                .stdin(Stdio::from(OwnedFd::from(listener)))
                .stdout(Stdio::null())
                .stderr(Stdio::null());
        })
        .map_err(|source| TestbedError::Spawn {
            program: "swtpm".to_owned(),
            package: "swtpm",
            source,
        })?;
        Ok(Emulator { child, socket })
    }
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // swtpm ends by itself when QEMU closes the connection. If it has not yet, its state is no longer needed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
