//! The block devices there are, and which of them a name means.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use ima::cmdline::RootName;
use ima::fault::{Cause, Code, Fault, Stage};
use ima::filesystem::{self, Filesystem};
use ima::partition::{Disk, Table};

use crate::files::read_at;
use crate::kernel_files;
use crate::watch;

/// A block device of `/sys/class/block`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// Its name in `/dev`.
    name: String,
    major: u32,
    minor: u32,
    /// Its size in units of 512 bytes.
    sectors: u64,
    /// Its number on its disk, if it is a partition.
    partition: Option<u32>,
    /// Its directory in sysfs, links resolved: a partition's lies in its disk's.
    sysfs: PathBuf,
}

impl Device {
    /// Its path.
    pub(super) fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }

    /// Its name in `/dev`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its number, as the device mapper takes it.
    pub(super) fn number(&self) -> String {
        format!("{}:{}", self.major, self.minor)
    }

    /// Its length in bytes.
    pub(super) const fn length(&self) -> u64 {
        self.sectors.saturating_mul(512)
    }

    /// Whether it is a partition.
    pub(super) const fn is_partition(&self) -> bool {
        self.partition.is_some()
    }

    /// Its partition table, if it has one of a kind that is read.
    pub(super) fn table(&self, gpt_is_forced: bool) -> Option<Table> {
        let reading = format!("reading the partition table of {}", self.path());
        watch::during(Stage::Root, reading, || self.read_table(gpt_is_forced))
    }

    fn read_table(&self, gpt_is_forced: bool) -> Option<Table> {
        let file = File::open(self.path()).ok()?;
        let block_size = kernel_files::text(self.sysfs.join("queue/logical_block_size"))
            .ok()?
            .trim()
            .parse()
            .ok()
            .filter(|size| (512..=65536).contains(size))?;
        let disk = Disk {
            length: self.sectors.checked_mul(512)?,
            block_size,
            gpt_is_forced,
        };
        Table::read(disk, |offset, length| read_at(&file, offset, length).ok())
    }

    /// Those of its partitions that have one of these numbers.
    fn partitions(&self, numbers: &[u32], devices: &[Self]) -> Vec<Self> {
        let own = |device: &&Self| {
            device.sysfs.parent() == Some(self.sysfs.as_path())
                && device
                    .partition
                    .is_some_and(|number| numbers.contains(&number))
        };
        devices.iter().filter(own).cloned().collect()
    }

    /// The file systems it holds: one, or none, or those that an older one was not wiped from.
    pub(super) fn probe(&self) -> io::Result<Vec<Filesystem>> {
        let reading = format!("reading {}", self.path());
        let parts = watch::during(Stage::Root, reading, || self.read_parts())?;
        Ok(filesystem::probe_parts(parts.each_ref().map(Vec::as_slice)))
    }

    /// The parts of its beginning in which superblocks are.
    fn read_parts(&self) -> io::Result<[Vec<u8>; 2]> {
        let file = File::open(self.path())?;
        let read = |(offset, length)| read_at(&file, offset, length);
        let [start, far] = filesystem::PROBED;
        Ok([read(start)?, read(far)?])
    }

    /// The one file system that it holds.
    pub(super) fn recognise(&self) -> Result<Filesystem, Fault> {
        let path = self.path();
        let mut found = self
            .probe()
            .map_err(|error| Fault::new(Code::RootDevice, format!("{path}: {error}")))?;
        match (found.pop(), found.is_empty()) {
            (Some(filesystem), true) => Ok(filesystem),
            (None, _) => Err(Fault::new(Code::RootUnknown, path)),
            (Some(last), false) => {
                let mut kinds: Vec<&str> = found.iter().map(|other| other.kind.name()).collect();
                kinds.push(last.kind.name());
                let detail = format!("{path} looks like {}", kinds.join(" and "));
                Err(Fault::new(Code::RootUnknown, detail).because(Cause::SUPERBLOCK_LEFT_BEHIND))
            }
        }
    }
}

/// Every block device with a size, by name.
pub(super) fn all() -> Vec<Device> {
    let class = Path::new("/sys/class/block");
    // Most systems have loop devices without a size, which are not in this list (block/genhd.c, `show_partition`).
    let list = kernel_files::text("/proc/partitions").unwrap_or_default();
    let mut devices: Vec<Device> = listed(&list)
        .filter_map(|name| at(&class.join(name)))
        .collect();
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    devices
}

/// The names in a text of `/proc/partitions` as sysfs has them: `!` for each `/`. A line is `MAJOR MINOR KIBIBYTES NAME`; the first
/// says so.
fn listed(partitions: &str) -> impl Iterator<Item = String> {
    let names = partitions
        .lines()
        .skip(1)
        .filter_map(|line| line.split_ascii_whitespace().nth(3));
    names.map(|name| name.replace('/', "!"))
}

/// The device of a directory in sysfs, or of a link to it, if it has a size.
pub(super) fn at(path: &Path) -> Option<Device> {
    let size = kernel_files::text(path.join("size")).ok()?;
    let sectors = size.trim().parse().ok().filter(|sectors| *sectors > 0)?;
    let uevent = kernel_files::text(path.join("uevent")).ok()?;
    let field = |key: &str| {
        uevent
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    Some(Device {
        name: field("DEVNAME")?.to_owned(),
        major: field("MAJOR")?.parse().ok()?,
        minor: field("MINOR")?.parse().ok()?,
        sectors,
        partition: field("PARTN").and_then(|number| number.parse().ok()),
        sysfs: kernel_files::directory(path),
    })
}

/// The devices with that name. The kernel has made the partitions; their names are read from each disk's table.
pub(super) fn named(name: &RootName, devices: &[Device], gpt_is_forced: bool) -> Vec<Device> {
    let filter = |holds: &dyn Fn(&Device) -> bool| -> Vec<Device> {
        devices
            .iter()
            .filter(|device| holds(device))
            .cloned()
            .collect()
    };
    match name {
        RootName::Device(name) => filter(&|device| device.name == *name),
        RootName::Number { major, minor } => {
            filter(&|device| device.major == *major && device.minor == *minor)
        }
        RootName::Uuid(uuid) => filter(&|device| {
            holds(device, |found| {
                found
                    .uuid
                    .as_ref()
                    .is_some_and(|found| found.eq_ignore_ascii_case(uuid))
            })
        }),
        RootName::Label(label) => {
            filter(&|device| holds(device, |found| found.label.as_ref() == Some(label)))
        }
        RootName::PartUuid { .. } | RootName::PartLabel(_) | RootName::PartType(_) => {
            let disks = devices.iter().filter(|device| !device.is_partition());
            disks
                .filter_map(|disk| Some((disk, disk.table(gpt_is_forced)?)))
                .flat_map(|(disk, table)| disk.partitions(&table.named(name), devices))
                .collect()
        }
        // These are not block devices.
        RootName::Ubi(_) | RootName::Shared { .. } | RootName::Nfs { .. } => Vec::new(),
    }
}

fn holds(device: &Device, matches: impl Fn(&Filesystem) -> bool) -> bool {
    device.probe().is_ok_and(|found| found.iter().any(matches))
}

/// The devices for a person: name, size, and what they hold.
pub(super) fn list(devices: &[Device]) -> String {
    if devices.is_empty() {
        return "none".to_owned();
    }
    let describe = |device: &Device| {
        let size = device.sectors.checked_div(2048).unwrap_or(0);
        let content = match device.probe() {
            Err(error) => error.to_string(),
            Ok(found) => match found.first() {
                None => "no file system".to_owned(),
                Some(found) => [
                    Some(found.kind.name().to_owned()),
                    found.label.as_ref().map(|label| format!("LABEL={label}")),
                    found.uuid.as_ref().map(|uuid| format!("UUID={uuid}")),
                ]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" "),
            },
        };
        format!("{} ({size} MiB, {content})", device.name)
    };
    let shown: Vec<String> = devices.iter().take(16).map(describe).collect();
    match devices.len().checked_sub(16) {
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_sysfs() {
        let list = "major minor  #blocks  name\n\n 254        0       2048 vda\n 104        1         17 cciss/c0d0p1\n";
        assert_eq!(listed(list).collect::<Vec<_>>(), ["vda", "cciss!c0d0p1"]);
        assert_eq!(listed("").count(), 0);
        // What this machine lists is what it has.
        let partitions = kernel_files::text("/proc/partitions").unwrap();
        for name in listed(&partitions) {
            let size = kernel_files::text(Path::new("/sys/class/block").join(name).join("size"));
            assert_ne!(size.unwrap(), "0\n");
        }
    }
}
