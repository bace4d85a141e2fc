//! A FUSE file system with one file, which carries a signature.
//!
//! Whoever serves such a file system can answer a read differently the second time, so what was appraised is not what is
//! executed. The protocol is that of include/uapi/linux/fuse.h, version 7.31; a thread serves it until the file system is unmounted.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const ROOT: u64 = 1;
const FILE: u64 = 2;
const NAME: &str = "program";

/// Operations (enum fuse_opcode).
mod operation {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const RELEASE: u32 = 18;
    pub const GETXATTR: u32 = 22;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const BATCH_FORGET: u32 = 42;
}

/// Sizes of struct fuse_in_header and struct fuse_out_header.
const REQUEST: usize = 40;
const REPLY: usize = 16;
/// More than the longest request: no file is written to.
const BUFFER: usize = 1 << 17;

/// A mounted file system.
pub struct Fuse {
    directory: PathBuf,
}

/// Mounts the file system on a new directory. Its file has this content and, in security.ima, this value.
pub fn serve(directory: &Path, content: Vec<u8>, signature: Vec<u8>) -> io::Result<Fuse> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    fs::create_dir_all(directory)?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0\0",
        device.as_raw_fd()
    );
    let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes())
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    mount("guest", directory, "fuse", MountFlags::empty(), options)?;
    std::thread::spawn(move || {
        let server = Server { content, signature };
        // It ends with ENODEV once the file system is unmounted.
        let _ = server.run(device);
    });
    Ok(Fuse {
        directory: directory.to_owned(),
    })
}

impl Fuse {
    /// The file.
    pub fn file(&self) -> PathBuf {
        self.directory.join(NAME)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let _ = unmount(&self.directory, UnmountFlags::DETACH);
    }
}

struct Server {
    content: Vec<u8>,
    signature: Vec<u8>,
}

impl Server {
    fn run(&self, mut device: File) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = device.read(&mut buffer)?;
            let request = &buffer[..length];
            let (operation, node) = (word(request, 4), long(request, 16));
            let (error, body) = match self.answer(operation, node, &request[REQUEST..]) {
                Some(Ok(body)) => (0, body),
                Some(Err(error)) => (-error.raw_os_error(), Vec::new()),
                None => continue,
            };
            let mut reply = Vec::with_capacity(REPLY + body.len());
            reply.extend(((REPLY + body.len()) as u32).to_le_bytes());
            reply.extend(error.to_le_bytes());
            reply.extend(&request[8..16]);
            reply.extend(body);
            match device.write_all(&reply) {
                // Whoever asked has gone.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }

    /// The body of the reply; `None` where there must be no reply.
    fn answer(&self, operation: u32, node: u64, body: &[u8]) -> Option<Result<Vec<u8>, Errno>> {
        Some(match operation {
            operation::INIT => Ok(Self::init()),
            operation::LOOKUP if body == [NAME.as_bytes(), b"\0"].concat() => Ok(self.entry()),
            operation::LOOKUP => Err(Errno::NOENT),
            operation::GETATTR => Ok([vec![0; 16], self.attributes(node)].concat()),
            operation::OPEN => Ok(vec![0; 16]),
            operation::READ => {
                let from = (long(body, 8) as usize).min(self.content.len());
                let to = from
                    .saturating_add(word(body, 16) as usize)
                    .min(self.content.len());
                Ok(self.content[from..to].to_vec())
            }
            operation::GETXATTR if &body[8..] == b"security.ima\0" => {
                match word(body, 0) as usize {
                    0 => Ok([self.signature.len() as u32, 0]
                        .iter()
                        .flat_map(|word| word.to_le_bytes())
                        .collect()),
                    room if room < self.signature.len() => Err(Errno::RANGE),
                    _ => Ok(self.signature.clone()),
                }
            }
            operation::GETXATTR => Err(Errno::NODATA),
            operation::RELEASE | operation::FLUSH => Ok(Vec::new()),
            operation::FORGET | operation::BATCH_FORGET | operation::INTERRUPT => return None,
            _ => Err(Errno::NOSYS),
        })
    }

    /// struct fuse_init_out.
    fn init() -> Vec<u8> {
        let mut reply = vec![0; 64];
        let fields: [(usize, u32); 4] = [(0, 7), (4, 31), (8, 1 << 16), (20, 4096)];
        for (at, value) in fields {
            reply[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        reply
    }

    /// struct fuse_entry_out: the node, and nothing kept for any time.
    fn entry(&self) -> Vec<u8> {
        let mut reply = vec![0; 40];
        reply[..8].copy_from_slice(&FILE.to_le_bytes());
        reply.extend(self.attributes(FILE));
        reply
    }

    /// struct fuse_attr.
    fn attributes(&self, node: u64) -> Vec<u8> {
        let (mode, size) = match node {
            ROOT => (0o040_755_u32, 0),
            _ => (0o100_755, self.content.len() as u64),
        };
        let mut attributes = vec![0; 88];
        attributes[..8].copy_from_slice(&node.to_le_bytes());
        attributes[8..16].copy_from_slice(&size.to_le_bytes());
        attributes[60..64].copy_from_slice(&mode.to_le_bytes());
        attributes[64..68].copy_from_slice(&1_u32.to_le_bytes());
        attributes[80..84].copy_from_slice(&4096_u32.to_le_bytes());
        attributes
    }
}

/// Words of the kernel's own requests, at places where each has one.
fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    u32::from_le_bytes(word.unwrap_or_default())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let long = bytes.get(at..at + 8).and_then(|long| long.try_into().ok());
    u64::from_le_bytes(long.unwrap_or_default())
}
