//! Why the root's device is probably missing: which driver or option it would need, and which controllers have no driver.

use std::path::Path;
use std::time::Duration;

use ima::cmdline::RootName;
use ima::fault::{Code, Fault};

use super::devices::{self, Device};

/// How many devices without a driver are named.
const MAX_SHOWN: usize = 4;

/// What device names begin with, the module that makes devices of that name, and its option.
const DRIVERS: [(&str, &str, &str); 8] = [
    ("vd", "virtio_blk", "CONFIG_VIRTIO_BLK"),
    ("nvme", "nvme", "CONFIG_BLK_DEV_NVME"),
    (
        "sd",
        "sd_mod and that of the controller",
        "CONFIG_BLK_DEV_SD and that of the controller: CONFIG_SATA_AHCI, CONFIG_SCSI_VIRTIO, CONFIG_USB_STORAGE",
    ),
    (
        "mmcblk",
        "mmc_block and that of the host",
        "CONFIG_MMC_BLOCK and that of the host",
    ),
    ("sr", "sr_mod", "CONFIG_BLK_DEV_SR"),
    ("xvd", "xen-blkfront", "CONFIG_XEN_BLKDEV_FRONTEND"),
    ("ubiblock", "ubi", "CONFIG_MTD_UBI_BLOCK"),
    ("mtdblock", "mtdblock", "CONFIG_MTD_BLOCK"),
];

/// Names that nothing in this initramfs makes.
const NEVER: [&str; 4] = ["dm-", "mapper/", "md", "bcache"];

/// The fault of a root that did not appear.
pub(super) fn fault(name: &RootName, waited: Duration, devices: &[Device]) -> Fault {
    let unreadable: Vec<String> = devices
        .iter()
        .filter(|device| device.probe().is_err())
        .map(Device::path)
        .collect();
    // The other names are looked up in what the devices hold.
    let named = matches!(name, RootName::Device(_) | RootName::Number { .. });
    if !unreadable.is_empty() && !named {
        let detail = format!(
            "{name} was not found, and {} cannot be read",
            unreadable.join(", ")
        );
        return Fault::new(Code::RootDevice, detail);
    }
    let detail = format!(
        "{name} after {} s; block devices: {}",
        waited.as_secs(),
        devices::list(devices)
    );
    let present: Vec<Present<'_>> = devices
        .iter()
        .map(|device| Present {
            name: device.name(),
            partition: device.is_partition(),
            table: device.has_table(),
        })
        .collect();
    let fault = Fault::new(Code::RootMissing, detail);
    match reason(name, &present, &without_driver(Path::new("/sys/bus"))) {
        (Some(cause), Some(remedy)) => fault.with_cause(cause).with_remedy(remedy),
        (Some(cause), None) => fault.with_cause(cause),
        (None, _) => fault,
    }
}

/// A block device, as far as the reason depends on it.
#[derive(Debug, Clone, Copy)]
struct Present<'a> {
    name: &'a str,
    partition: bool,
    /// Whether there is a partition table on it.
    table: bool,
}

/// Cause and remedy, as far as more can be said than that the device is not there.
fn reason(
    name: &RootName,
    present: &[Present<'_>],
    idle: &[String],
) -> (Option<String>, Option<String>) {
    let controllers = (!idle.is_empty()).then(|| {
        let shown: Vec<&str> = idle.iter().take(MAX_SHOWN).map(String::as_str).collect();
        format!("these have no driver: {}", shown.join(", "))
    });
    let resolve = controllers.is_some().then(|| {
        "pack the driver: imactl initramfs --module; modprobe --resolve-alias ALIAS names the module of each device without driver".to_owned()
    });
    let joined = |cause: String| match &controllers {
        Some(controllers) => format!("{cause}; {controllers}"),
        None => cause,
    };
    if let RootName::Device(device) = name {
        if let Some(prefix) = NEVER.iter().find(|prefix| device.starts_with(**prefix)) {
            return (
                Some(format!(
                    "devices of the name {prefix}... are made by programs (LVM, RAID, encryption) that this init does not have"
                )),
                Some("put the root on a disk or partition of its own, or use an initramfs with those programs (dracut, initramfs-tools)".to_owned()),
            );
        }
        let disk = disk_of(device);
        if let Some(found) = present.iter().find(|found| found.name == disk)
            && disk != device
        {
            return no_partition(disk, found.table);
        }
        let driver = DRIVERS
            .iter()
            .find(|(prefix, ..)| device.starts_with(prefix));
        if let Some((prefix, module, option)) = driver
            && !present.iter().any(|found| found.name.starts_with(prefix))
        {
            return (
                Some(joined(format!(
                    "there is no device of the kind {prefix}... at all: its driver, {module}, is not in the kernel or the initramfs, or the disk is not connected"
                ))),
                Some(format!(
                    "build {option} into the kernel, or pack the module: imactl initramfs --module"
                )),
            );
        }
    }
    if matches!(name, RootName::PartUuid { .. } | RootName::PartLabel(_))
        && let Some(disk) = present.iter().find(|found| found.table)
        && !present.iter().any(|found| found.partition)
    {
        return no_partition(disk.name, true);
    }
    if present.is_empty() {
        return (
            Some(joined("the kernel shows no block device at all: the driver of the disk's controller is not in the kernel or the initramfs".to_owned())),
            resolve,
        );
    }
    match controllers {
        Some(_) => (
            Some(joined("no device that is there has this name".to_owned())),
            resolve,
        ),
        None => (None, None),
    }
}

fn no_partition(disk: &str, table: bool) -> (Option<String>, Option<String>) {
    if table {
        (
            Some(format!(
                "the disk {disk} is there, with a partition table, but the kernel made no such partition of it: it was built without support for the table, or the table has no entry of that number"
            )),
            Some("set CONFIG_EFI_PARTITION=y (GPT) or CONFIG_MSDOS_PARTITION=y (MBR) in the kernel; compare with the table (sfdisk -d)".to_owned()),
        )
    } else {
        (
            Some(format!(
                "the disk {disk} is there, but has no partition table"
            )),
            Some(format!(
                "name the whole disk, root=/dev/{disk}, or write the partitioned image to it"
            )),
        )
    }
}

/// The disk that a device of that name is a partition of; itself if it is a disk (block/partitions/core.c: a disk whose name
/// ends with a digit has a `p` before the number).
fn disk_of(name: &str) -> &str {
    let stem = name.trim_end_matches(|byte: char| byte.is_ascii_digit());
    if stem.len() == name.len() {
        return name;
    }
    match stem.strip_suffix('p') {
        Some(disk) if disk.ends_with(|byte: char| byte.is_ascii_digit()) => disk,
        _ if stem.ends_with(|byte: char| byte.is_ascii_lowercase())
            && ["sd", "vd", "xvd", "hd"]
                .iter()
                .any(|prefix| stem.starts_with(prefix)) =>
        {
            stem
        }
        _ => name,
    }
}

/// Devices that may hold a disk and have no driver: where they are, and the alias by which modules are found.
fn without_driver(buses: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (bus, field, storage) in [
        // PCI's class of mass storage; virtio's block and SCSI devices; USB interfaces of mass storage.
        ("pci", "class", &["0x01"][..]),
        ("virtio", "device", &["0x0002", "0x0008"]),
        ("usb", "bInterfaceClass", &["08"]),
        ("mmc", "type", &["MMC", "SD"]),
    ] {
        let Ok(entries) = std::fs::read_dir(buses.join(bus).join("devices")) else {
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).ok();
            let is_storage = read(field)
                .is_some_and(|value| storage.iter().any(|wanted| value.starts_with(wanted)));
            if is_storage && !entry.path().join("driver").exists() {
                let alias = read("modalias").unwrap_or_default();
                let name = entry.file_name();
                found.push(format!("{bus} {} ({})", name.display(), alias.trim()));
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(name: &str, present: &[(&str, bool, bool)], idle: &[&str]) -> String {
        let name = RootName::parse(name).unwrap();
        let present: Vec<Present<'_>> = present
            .iter()
            .map(|&(name, partition, table)| Present {
                name,
                partition,
                table,
            })
            .collect();
        let idle: Vec<String> = idle.iter().map(|text| (*text).to_owned()).collect();
        let (cause, remedy) = reason(&name, &present, &idle);
        format!(
            "{}\n{}",
            cause.unwrap_or_default(),
            remedy.unwrap_or_default()
        )
    }

    #[test]
    fn the_driver_or_option_that_is_probably_missing_is_named() {
        let disk = ("vda", false, true);
        let controller = "pci 0000:00:04.0 (pci:v00008086)";
        for (name, present, idle, words) in [
            (
                "/dev/nvme0n1p2",
                &[disk][..],
                &[][..],
                vec!["CONFIG_BLK_DEV_NVME", "nvme"],
            ),
            (
                "/dev/sda1",
                &[],
                &[controller],
                vec!["CONFIG_BLK_DEV_SD", "pci:v00008086"],
            ),
            ("/dev/vdb", &[], &[], vec!["CONFIG_VIRTIO_BLK"]),
            ("/dev/mapper/root", &[disk], &[], vec!["LVM"]),
            (
                "/dev/vda2",
                &[disk],
                &[],
                vec!["CONFIG_EFI_PARTITION", "the disk vda"],
            ),
            (
                "/dev/vda2",
                &[("vda", false, false)],
                &[],
                vec!["no partition table", "root=/dev/vda"],
            ),
            (
                "/dev/mmcblk0p1",
                &[("mmcblk0", false, true)],
                &[],
                vec!["the disk mmcblk0"],
            ),
            ("PARTLABEL=root", &[disk], &[], vec!["CONFIG_EFI_PARTITION"]),
            (
                "UUID=1234",
                &[],
                &[controller],
                vec![
                    "no block device at all",
                    "pci 0000:00:04.0",
                    "--resolve-alias",
                ],
            ),
            ("LABEL=x", &[disk], &[controller], vec!["have no driver"]),
        ] {
            let said = cause(name, present, idle);
            for word in words {
                assert!(said.contains(word), "{name}: {word} is not in: {said}");
            }
        }
        // Nothing more is known than that none has the name.
        assert_eq!(cause("LABEL=x", &[disk], &[]), "\n");
        assert_eq!(cause("/dev/vdb", &[disk], &[]), "\n");
        assert_eq!(
            cause("PARTLABEL=x", &[disk, ("vda1", true, false)], &[]),
            "\n"
        );
    }

    #[test]
    fn disks_and_partitions_are_told_apart_by_name() {
        for (name, disk) in [
            ("vda", "vda"),
            ("vda2", "vda"),
            ("sdaa11", "sdaa"),
            ("nvme0n1", "nvme0n1"),
            ("nvme0n1p2", "nvme0n1"),
            ("mmcblk0p1", "mmcblk0"),
            ("mmcblk0", "mmcblk0"),
            ("sr0", "sr0"),
            ("", ""),
        ] {
            assert_eq!(disk_of(name), disk, "{name}");
        }
    }

    #[test]
    fn controllers_without_a_driver_are_found_in_sysfs() {
        let buses = tempfile::tempdir().unwrap();
        let device = |bus: &str, name: &str, field: &str, value: &str, driver: bool| {
            let directory = buses.path().join(bus).join("devices").join(name);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(field), value).unwrap();
            std::fs::write(directory.join("modalias"), format!("{bus}:alias\n")).unwrap();
            if driver {
                std::fs::create_dir(directory.join("driver")).unwrap();
            }
        };
        device("pci", "0000:00:04.0", "class", "0x010802\n", false);
        device("pci", "0000:00:05.0", "class", "0x010601\n", true);
        device("pci", "0000:00:06.0", "class", "0x020000\n", false);
        device("virtio", "virtio0", "device", "0x0002\n", false);
        device("virtio", "virtio1", "device", "0x0001\n", false);
        assert_eq!(
            without_driver(buses.path()),
            [
                "pci 0000:00:04.0 (pci:alias)",
                "virtio virtio0 (virtio:alias)"
            ]
        );
        assert!(without_driver(Path::new("/nonexistent")).is_empty());
    }
}
