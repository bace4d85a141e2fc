//! The kernel's announcements of devices, so that a root that appears late is found at once.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with,
};

use crate::errno::Errno;

/// A socket on which the kernel announces devices (lib/kobject_uevent.c).
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Starts to listen. A device that appears from now on is announced or found by reading `/proc/partitions` after this.
    ///
    /// # Errors
    ///
    /// What socket(2) and bind(2) say: a kernel without CONFIG_NET has no such socket.
    pub fn listen() -> Result<Self, Errno> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::KOBJECT_UEVENT),
        )?;
        // Group 1 is the kernel's own; 2 would be udev's.
        bind(&socket, &netlink::SocketAddrNetlink::new(0, 1))?;
        Ok(Self { socket })
    }

    /// Waits until a block device or a UBI volume is announced, at most `limit`.
    pub fn wait(&self, limit: Duration) {
        let mut left = limit;
        loop {
            let start = std::time::Instant::now();
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut waiting = [PollFd::new(&self.socket, PollFlags::IN)];
            let announced = poll(&mut waiting, Some(&timeout)).is_ok_and(|ready| ready > 0);
            if announced && self.drain() {
                return;
            }
            left = left.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
        }
    }

    /// Reads all announcements. Returns whether one of them is of such a device, or some were lost.
    fn drain(&self) -> bool {
        let mut buffer = [0_u8; 8192];
        let mut found = false;
        loop {
            match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => found |= may_be_root(buffer.get(..length).unwrap_or_default()),
                Err(Errno::NOBUFS) => found = true,
                Err(Errno::INTR) => {}
                Err(_) => return found,
            }
        }
    }
}

/// Whether an announcement is of a block device or of UBI. It has a first line, then NUL-terminated `KEY=value`.
fn may_be_root(message: &[u8]) -> bool {
    message
        .split(|byte| *byte == 0)
        .any(|field| matches!(field, b"SUBSYSTEM=block" | b"SUBSYSTEM=ubi"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_may_be_the_root_are_recognised() {
        assert!(may_be_root(
            b"add@/devices/x\0ACTION=add\0SUBSYSTEM=block\0"
        ));
        assert!(may_be_root(b"add@/devices/x\0SUBSYSTEM=ubi\0"));
        assert!(!may_be_root(b"add@/devices/x\0SUBSYSTEM=blockx\0"));
        assert!(!may_be_root(b""));
    }

    #[test]
    fn waiting_ends_at_the_limit() {
        let uevents = Uevents::listen().unwrap();
        let start = std::time::Instant::now();
        uevents.wait(Duration::from_millis(20));
        assert!(start.elapsed() >= Duration::from_millis(19));
    }
}
