//! The virtio-serial port to the host.

use std::fs::{self, File};
use std::io::{self, Read, Write};

use ima_testbed::report::{FromGuest, PORT, ToGuest};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub struct Port(File);

/// The port of the testbed's name.
pub fn open() -> io::Result<Port> {
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT {
            let device = std::path::Path::new("/dev").join(entry.file_name());
            return Ok(Port(File::options().read(true).write(true).open(device)?));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("no virtio port named {PORT}"),
    ))
}

impl Port {
    pub fn send(&mut self, message: &FromGuest) -> io::Result<()> {
        let mut text = serde_json::to_vec(message)?;
        text.push(b'\n');
        self.0.write_all(&text)
    }

    /// The host's answer: it has half a minute.
    pub fn receive(&mut self) -> io::Result<ToGuest> {
        let mut text = Vec::new();
        while text.last() != Some(&b'\n') {
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            let limit = Timespec {
                tv_sec: 30,
                tv_nsec: 0,
            };
            if poll(&mut fds, Some(&limit))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut buffer = [0; 4096];
            match self.0.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => text.extend_from_slice(&buffer[..length]),
            }
        }
        Ok(serde_json::from_slice(&text)?)
    }
}
