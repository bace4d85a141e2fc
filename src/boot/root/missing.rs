//! Why the root's device is probably missing: which driver or option it would need, and which controllers have no driver.

use std::path::Path;
use std::time::Duration;

use ima::cmdline::RootName;
use ima::device::{self, Driver};
use ima::fault::{Cause, Code, Explanation, Fault};
use ima::partition::Kind;
use ima::settings::Settings;

use super::devices::{self, Device};

use crate::kernel_files;

/// How many devices without a driver are named.
const MAX_SHOWN: usize = 4;

/// The fault of a root that did not appear.
pub(super) fn fault(
    name: &RootName,
    waited: Duration,
    devices: &[Device],
    settings: &Settings,
) -> Fault {
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
            table: device.table(settings.gpt_is_forced).map_or(
                TableFound::None,
                |table| match table.kind {
                    Kind::Gpt if table.partitions.is_empty() => TableFound::Unusable,
                    _ => TableFound::Sound,
                },
            ),
        })
        .collect();
    let creates_mapped_devices = settings.creates_mapped_devices;
    let fault = Fault::new(Code::RootMissing, detail);
    let idle = without_driver(Path::new("/sys/bus"));
    match reason(name, &present, &idle, creates_mapped_devices) {
        Some(cause) => fault.because(cause),
        None => fault,
    }
}

/// A block device, as far as the reason depends on it.
#[derive(Debug, Clone, Copy)]
struct Present<'a> {
    name: &'a str,
    partition: bool,
    table: TableFound,
}

/// The partition table of a disk, as far as the reason depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TableFound {
    None,
    /// A GPT of which the kernel makes no partitions: it is empty, or damaged.
    Unusable,
    Sound,
}

/// The cause, if more is known than that the device is not there.
fn reason(
    name: &RootName,
    present: &[Present<'_>],
    idle: &[String],
    creates_mapped_devices: bool,
) -> Option<Explanation> {
    let controllers = (!idle.is_empty()).then(|| {
        let shown: Vec<&str> = idle.iter().take(MAX_SHOWN).map(String::as_str).collect();
        Cause::WITHOUT_DRIVER.with(&[&shown.join(", ")])
    });
    let joined = |cause: Explanation| match &controllers {
        Some(controllers) => cause.and(controllers.clone()),
        None => cause,
    };
    if let RootName::Device(device) = name {
        if let Some(cause) = device::never_appears(device, creates_mapped_devices) {
            return Some(cause);
        }
        let (disk, partition) = device::split(device);
        if let Some(found) = present.iter().find(|found| found.name == disk)
            && partition.is_some()
        {
            return Some(no_partition(disk, found.table));
        }
        if let Some(driver) = device::driver(device)
            && !present
                .iter()
                .any(|found| found.name.starts_with(driver.prefix))
        {
            let (modules, options) = names(driver);
            let values = [driver.prefix, &modules, &options];
            return Some(joined(Cause::DEVICE_KIND_ABSENT.with(&values)));
        }
    }
    if matches!(
        name,
        RootName::PartUuid { .. } | RootName::PartLabel(_) | RootName::PartType(_)
    ) && let Some(disk) = present.iter().find(|found| found.table != TableFound::None)
        && !present.iter().any(|found| found.partition)
    {
        return Some(no_partition(disk.name, disk.table));
    }
    if present.is_empty() {
        return Some(joined(Cause::NO_BLOCK_DEVICE.into()));
    }
    controllers.map(|controllers| Explanation::from(Cause::NO_DEVICE_OF_THIS_NAME).and(controllers))
}

fn no_partition(disk: &str, table: TableFound) -> Explanation {
    let cause = match table {
        TableFound::Sound => Cause::PARTITION_ABSENT,
        TableFound::Unusable => Cause::PARTITION_TABLE_UNUSABLE,
        TableFound::None => Cause::PARTITION_TABLE_ABSENT,
    };
    cause.with(&[disk])
}

/// The modules and the options that a disk of this kind needs.
fn names(driver: &Driver) -> (String, String) {
    let (module, option) = (driver.module, driver.option);
    match driver.below {
        None => (module.to_owned(), format!("CONFIG_{option}")),
        Some((below, options)) => (
            format!("{module} and that of {below}"),
            format!("CONFIG_{option} and that of {below}{options}"),
        ),
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
        let devices = buses.join(bus).join("devices");
        for name in kernel_files::names(&devices) {
            let device = devices.join(&name);
            let read = |file: &str| kernel_files::text(device.join(file)).ok();
            let is_storage = read(field)
                .is_some_and(|value| storage.iter().any(|wanted| value.starts_with(wanted)));
            if is_storage && !device.join("driver").exists() {
                let alias = read("modalias").unwrap_or_default();
                found.push(format!("{bus} {name} ({})", alias.trim()));
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(name: &str, present: &[(&str, bool, TableFound)], idle: &[&str]) -> String {
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
        match reason(&name, &present, &idle, false) {
            Some(cause) => format!("{cause}\n{}", cause.remedy().unwrap_or_default()),
            None => "\n".to_owned(),
        }
    }

    #[test]
    fn the_driver_or_option_that_is_probably_missing_is_named() {
        let disk = ("vda", false, TableFound::Sound);
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
                &[("vda", false, TableFound::None)],
                &[],
                vec!["no partition table", "root=/dev/vda"],
            ),
            (
                "PARTLABEL=root",
                &[("vda", false, TableFound::Unusable)],
                &[],
                vec!["checksums", "gpt on its command line"],
            ),
            ("/dev/disk/by-id/x", &[disk], &[], vec!["udev", "UUID="]),
            ("/dev/vg/root", &[disk], &[], vec!["LVM"]),
            (
                "/dev/mmcblk0p1",
                &[("mmcblk0", false, TableFound::Sound)],
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
            cause(
                "PARTLABEL=x",
                &[disk, ("vda1", true, TableFound::None)],
                &[]
            ),
            "\n"
        );
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
