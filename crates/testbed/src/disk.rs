//! Disks and how they are attached.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The bus on which a disk is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bus {
    /// A PCI device of its own with virtio-blk: `/dev/vda`, `/dev/vdb`, ...
    #[default]
    VirtioBlk,
    /// A disk on a virtio-scsi controller that is present from the start: `/dev/sda`, `/dev/sdb`, ...
    VirtioScsi,
}

/// Identifies a disk of a [`Machine`](crate::Machine), and of its clones.
///
/// [`Machine::add_disk`](crate::Machine::add_disk) and [`Machine::disks`](crate::Machine::disks) return handles;
/// [`Running::plug`](crate::Running::plug) takes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiskHandle(u64);

impl DiskHandle {
    /// Returns a handle that no other disk of this process has.
    pub(crate) fn unique() -> DiskHandle {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        DiskHandle(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A raw disk image and how the machine sees it.
///
/// By default, the disk is present from the start, and writes of the guest go to a temporary file and are lost, so that
/// machines can share an image.
#[derive(Clone, Debug)]
pub struct Disk {
    pub(crate) path: PathBuf,
    pub(crate) bus: Bus,
    pub(crate) serial: Option<String>,
    pub(crate) read_only: bool,
    pub(crate) snapshot: bool,
    pub(crate) hotplug: bool,
    pub(crate) boot: bool,
    unreadable: Vec<Range<u64>>,
    hang_after: Option<u64>,
}

impl Disk {
    /// Describes a disk with the raw image at `path`.
    pub fn new(path: impl AsRef<Path>) -> Disk {
        Disk {
            path: path.as_ref().to_owned(),
            bus: Bus::default(),
            serial: None,
            read_only: false,
            snapshot: true,
            hotplug: false,
            boot: false,
            unreadable: Vec::new(),
            hang_after: None,
        }
    }

    /// Sets the bus on which the disk is attached.
    #[must_use]
    pub fn bus(mut self, bus: Bus) -> Disk {
        self.bus = bus;
        self
    }

    /// Sets the serial number, of at most 20 bytes. The guest finds it in `/sys/block/*/serial`.
    #[must_use]
    pub fn serial(mut self, serial: impl Into<String>) -> Disk {
        self.serial = Some(serial.into());
        self
    }

    /// Makes this the only disk that UEFI firmware boots from, whatever the order of the disks.
    #[must_use]
    pub fn boot(mut self) -> Disk {
        self.boot = true;
        self
    }

    /// Makes the device refuse writes.
    #[must_use]
    pub fn read_only(mut self) -> Disk {
        self.read_only = true;
        self
    }

    /// Writes what the guest writes to the image itself. The host's own cache is not flushed: the data is lost only if the host
    /// crashes.
    #[must_use]
    pub fn keep_writes(mut self) -> Disk {
        self.snapshot = false;
        self
    }

    /// Makes reads of these sectors of 512 bytes fail, as on a bad medium. With an end of `u64::MAX`, every read fails. Further
    /// calls add more sectors.
    #[must_use]
    pub fn unreadable(mut self, sectors: Range<u64>) -> Disk {
        self.unreadable.push(sectors);
        self
    }

    /// Makes requests to the device hang forever once this many bytes have been read or written. QEMU can still end, and the
    /// guest can still reset the device.
    #[must_use]
    pub fn hang_after(mut self, bytes: u64) -> Disk {
        self.hang_after = Some(bytes);
        self
    }

    /// Leaves the disk out of the machine until [`Running::plug`](crate::Running::plug) attaches it.
    #[must_use]
    pub fn hotplug(mut self) -> Disk {
        self.hotplug = true;
        self
    }

    /// Returns the image as options of `-drive`.
    pub(crate) fn drive(&self) -> String {
        let path = escape(&self.path);
        if self.unreadable.is_empty() {
            return format!("format=raw,file={path}");
        }
        let mut text = format!(
            "driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename={path}"
        );
        // A rule applies to one sector or to all. The guest reads pages, of eight sectors.
        let sectors = self.unreadable.iter().flat_map(|range| {
            let all = range.end == u64::MAX;
            let each = range.clone().step_by(8).map(Some);
            all.then_some(None)
                .into_iter()
                .chain(each.take_while(move |_| !all))
        });
        for (number, sector) in sectors.enumerate() {
            let mut rule = |option: &str| {
                text.push_str(&format!(",file.inject-error.{number}.{option}"));
            };
            for option in ["event=none", "iotype=read", "errno=5"] {
                rule(option);
            }
            if let Some(sector) = sector {
                rule(&format!("sector={sector}"));
            }
        }
        text
    }

    /// Returns the options of `-drive` for [`Disk::hang_after`]: one byte per second after these bytes.
    pub(crate) fn throttling(&self) -> String {
        self.hang_after
            .map(|bytes| format!(",throttling.bps-total=1,throttling.bps-total-max={bytes}"))
            .unwrap_or_default()
    }
}

/// Escapes a path for an option of QEMU: commas in values are doubled.
pub(crate) fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_sectors_become_rules_of_blkdebug() {
        let disk = Disk::new("a,b.img").unreadable(8..24);
        assert_eq!(
            disk.drive(),
            "driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=a,,b.img,\
             file.inject-error.0.event=none,file.inject-error.0.iotype=read,file.inject-error.0.errno=5,\
             file.inject-error.0.sector=8,\
             file.inject-error.1.event=none,file.inject-error.1.iotype=read,file.inject-error.1.errno=5,\
             file.inject-error.1.sector=16"
        );
        let all = Disk::new("x").unreadable(0..u64::MAX).drive();
        assert!(all.ends_with("errno=5"), "{all}");
        assert_eq!(Disk::new("x").drive(), "format=raw,file=x");
    }
}
