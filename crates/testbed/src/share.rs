//! Directories of the host that a machine can mount.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::TestbedError;
use crate::disk::escape;
use crate::process::spawn;

/// The program of Debian 12's package qemu-system-common.
const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";

/// A directory of the host that the machine can mount by its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Share {
    /// By virtiofs, served by virtiofsd with extended attributes; needs root.
    Virtiofs {
        /// The tag.
        tag: String,
        /// The directory.
        directory: PathBuf,
    },
    /// By 9p over virtio, served by QEMU, read-only; owners and modes are those of the host's files.
    NineP {
        /// The tag.
        tag: String,
        /// The directory.
        directory: PathBuf,
    },
}

impl Share {
    /// The socket of its server, if it has one.
    pub(crate) fn socket(&self, number: usize, directory: &Path) -> Option<PathBuf> {
        matches!(self, Share::Virtiofs { .. })
            .then(|| directory.join(format!("share{number}.socket")))
    }

    /// Returns the arguments of QEMU, without those for the memory.
    pub(crate) fn arguments(&self, number: usize, sockets: &Path) -> Vec<[String; 2]> {
        match self {
            Share::Virtiofs { tag, .. } => {
                let socket = sockets.join(format!("share{number}.socket"));
                let channel = format!("socket,id=share{number},path={}", escape(&socket));
                let device = format!("vhost-user-fs-pci,chardev=share{number},tag={tag}");
                vec![
                    ["-chardev".to_owned(), channel],
                    ["-device".to_owned(), device],
                ]
            }
            Share::NineP { tag, directory } => {
                let files = format!(
                    "local,id=share{number},path={},security_model=passthrough,readonly=on",
                    escape(directory)
                );
                let device = format!("virtio-9p-pci,fsdev=share{number},mount_tag={tag}");
                vec![["-fsdev".to_owned(), files], ["-device".to_owned(), device]]
            }
        }
    }
}

/// A virtiofsd, which ends when QEMU does.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    /// Starts the server of a share, if it has one.
    pub(crate) fn start(
        share: &Share,
        number: usize,
        sockets: &Path,
    ) -> Result<Option<Server>, TestbedError> {
        let (Share::Virtiofs { directory, .. }, Some(socket)) =
            (share, share.socket(number, sockets))
        else {
            return Ok(None);
        };
        // It inherits a listening socket, so that QEMU can connect at once.
        let listener =
            UnixListener::bind(&socket).map_err(TestbedError::io("make virtiofsd's socket"))?;
        let child = spawn(VIRTIOFSD, |command| {
            command
                .args(["--fd=0", "-f", "-o", "xattr", "-o", "sandbox=chroot", "-o"])
                .arg(format!("source={}", directory.display()))
                .stdin(Stdio::from(OwnedFd::from(listener)))
                .stdout(Stdio::null())
                .stderr(Stdio::null());
        })
        .map_err(|source| TestbedError::Spawn {
            program: VIRTIOFSD.to_owned(),
            package: "qemu-system-common",
            source,
        })?;
        Ok(Some(Server(child)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends by itself when QEMU closes the connection. If it has not yet, nobody needs it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
