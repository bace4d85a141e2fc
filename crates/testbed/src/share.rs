//! Directories of the host that a machine can mount.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::TestbedError;
use crate::disk::escape;
use crate::process::spawn;

/// The program of Debian 12's package qemu-system-common.
const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";

/// The program of Debian's package nfs-ganesha.
const GANESHA: &str = "ganesha.nfsd";

/// The longest time that the NFS server takes to start.
const START_LIMIT: Duration = Duration::from_secs(60);

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
    /// By NFSv4.2, served by NFS-Ganesha in user space, read-only; needs root, and a directory on a file system whose files can be
    /// opened by their handles, such as ext4. The machine gets a network card; for it the server is 10.0.2.2, and the directory
    /// is `/root`.
    Nfs {
        /// The port, which no other machine may use meanwhile: [`free_port`] returns one.
        port: u16,
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

/// Where QEMU connects to virtiofsd.
fn virtiofsd_socket(number: usize, sockets: &Path) -> PathBuf {
    sockets.join(format!("share{number}.socket"))
}

impl Share {
    /// Returns the arguments of QEMU, without those for the memory.
    pub(crate) fn arguments(&self, number: usize, sockets: &Path) -> Vec<[String; 2]> {
        match self {
            Share::Virtiofs { tag, .. } => {
                let socket = virtiofsd_socket(number, sockets);
                let channel = format!("socket,id=share{number},path={}", escape(&socket));
                let device = format!("vhost-user-fs-pci,chardev=share{number},tag={tag}");
                vec![
                    ["-chardev".to_owned(), channel],
                    ["-device".to_owned(), device],
                ]
            }
            // QEMU's own network: the host is 10.0.2.2, and the machine gets its address by DHCP.
            Share::Nfs { .. } => vec![
                ["-netdev".to_owned(), format!("user,id=share{number}")],
                [
                    "-device".to_owned(),
                    format!("virtio-net-pci,netdev=share{number}"),
                ],
            ],
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

/// What NFS-Ganesha's configuration says of a directory that [`Share::Nfs`] serves.
pub fn nfs_export(directory: &Path) -> String {
    format!(
        "EXPORT {{ Export_Id = 1; Path = {}; Pseudo = /root; Access_Type = RO; Squash = No_Root_Squash; SecType = sys; \
         FSAL {{ Name = VFS; }} }}",
        directory.display()
    )
}

/// A port of this machine that nothing listened on when it was asked for.
///
/// # Errors
/// No port is free.
pub fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// The server of a share, which ends with the machine.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    /// Starts the server of a share, if it has one.
    pub(crate) fn start(
        share: &Share,
        number: usize,
        sockets: &Path,
    ) -> Result<Option<Server>, TestbedError> {
        match share {
            Share::Virtiofs { directory, .. } => Self::virtiofsd(directory, number, sockets),
            Share::Nfs { port, directory } => Self::ganesha(directory, *port, number, sockets),
            Share::NineP { .. } => return Ok(None),
        }
        .map(Some)
    }

    fn ganesha(
        directory: &Path,
        port: u16,
        number: usize,
        sockets: &Path,
    ) -> Result<Server, TestbedError> {
        let at = sockets.join(format!("share{number}"));
        std::fs::create_dir_all(at.join("recovery"))
            .map_err(TestbedError::io("make the NFS server's directory"))?;
        let (at, export) = (at.display(), nfs_export(directory));
        // The services of NFSv3 need rpcbind.
        let configuration = format!(
            "NFS_CORE_PARAM {{ NFS_Port = {port}; Protocols = 4; NFS_Protocols = 4; Bind_addr = 127.0.0.1; \
             Enable_NLM = false; Enable_RQUOTA = false; }}\n\
             NFSv4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = {at}/recovery; }}\n\
             {export}\n"
        );
        let file = format!("{at}/ganesha.conf");
        std::fs::write(&file, configuration)
            .map_err(TestbedError::io("write the NFS server's configuration"))?;
        let child = spawn(GANESHA, |command| {
            command
                .args(["-F", "-f", &file, "-L", &format!("{at}/log")])
                .args(["-p", &format!("{at}/pid")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
        })
        .map_err(|source| TestbedError::Spawn {
            program: GANESHA.to_owned(),
            package: "nfs-ganesha-vfs",
            source,
        })?;
        let mut server = Server(child);
        server.wait_for(port)?;
        Ok(server)
    }

    /// Waits until something listens on the port. Nothing can be waited for but the answer to a connection.
    fn wait_for(&mut self, port: u16) -> Result<(), TestbedError> {
        let from = Instant::now();
        loop {
            let Err(error) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
                return Ok(());
            };
            let has_ended = !matches!(self.0.try_wait(), Ok(None));
            if has_ended || from.elapsed() > START_LIMIT {
                return Err(TestbedError::io("connect to the NFS server")(error));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn virtiofsd(directory: &Path, number: usize, sockets: &Path) -> Result<Server, TestbedError> {
        let socket = virtiofsd_socket(number, sockets);
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
        Ok(Server(child))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends by itself when QEMU closes the connection. If it has not yet, nobody needs it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
