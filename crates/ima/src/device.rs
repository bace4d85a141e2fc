//! Names and numbers of block devices, as the kernel gives them.

use crate::fault::{Cause, Explanation};

/// How the names begin of those disks whose names end in a letter: a partition's number follows it directly (drivers/scsi/sd.c,
/// drivers/block/virtio_blk.c, drivers/block/xen-blkfront.c, drivers/s390/block/dasd_genhd.c, drivers/block/mtip32xx,
/// drivers/block/ps3disk.c).
const LETTERED: [&str; 7] = ["sd", "vd", "xvd", "hd", "dasd", "rssd", "ps3d"];

/// Splits a device's name into its disk's and the number of its partition, if it is one (block/partitions/core.c,
/// `add_partition`): a disk whose name ends in a digit has a `p` before the number.
pub fn split(name: &str) -> (&str, Option<u32>) {
    let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let number = name
        .get(stem.len()..)
        .filter(|digits| !digits.starts_with('0'))
        .and_then(|digits| digits.parse().ok());
    let numbered = stem
        .strip_suffix('p')
        .filter(|disk| disk.ends_with(|letter: char| letter.is_ascii_digit()));
    let lettered = LETTERED.iter().any(|prefix| {
        stem.strip_prefix(prefix).is_some_and(|letters| {
            !letters.is_empty() && letters.bytes().all(|letter| letter.is_ascii_lowercase())
        })
    });
    match (number, numbered) {
        (Some(number), Some(disk)) => (disk, Some(number)),
        (Some(number), None) if lettered => (stem, Some(number)),
        _ => (name, None),
    }
}

/// What the number of a device says about it on any machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// A whole disk.
    Disk,
    /// The partition of this number.
    Partition(u32),
    /// Nothing: numbers with this major are assigned in the order in which devices appear.
    Unknown,
}

/// Whether a device number is a disk's or a partition's, by the number of minor numbers that the driver reserves for each disk.
pub const fn number(major: u32, minor: u32) -> Number {
    let each: u32 = match major {
        // drivers/scsi/sd.c, SD_MINORS and `sd_major`; XENVBD_MAJOR, drivers/block/xen-blkfront.c; the dynamic majors
        // (block/genhd.c, `register_blkdev`), which virtio_blk has, with PART_BITS.
        8 | 65..=71 | 128..=135 | 202 | 240..=254 => 16,
        // MMC_BLOCK_MAJOR; CONFIG_MMC_BLOCK_MINORS is 8 by default.
        179 => 8,
        // BLOCK_EXT_MAJOR: NVMe's among them.
        259 => return Number::Unknown,
        _ => return Number::Disk,
    };
    match minor.checked_rem(each) {
        Some(0) | None => Number::Disk,
        Some(partition) => Number::Partition(partition),
    }
}

/// A driver whose disks are recognised by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Driver {
    /// The beginning of their names.
    pub prefix: &'static str,
    /// The name of its module.
    pub module: &'static str,
    /// The kernel option that builds it, without `CONFIG_`.
    pub option: &'static str,
    /// What else needs a driver, if the driver needs another one below it, and options of such drivers.
    pub below: Option<(&'static str, &'static str)>,
}

const DRIVERS: [Driver; 8] = [
    driver_of("vd", "virtio_blk", "VIRTIO_BLK"),
    driver_of("nvme", "nvme", "BLK_DEV_NVME"),
    Driver {
        below: Some((
            "the controller",
            ": CONFIG_SATA_AHCI, CONFIG_SCSI_VIRTIO, CONFIG_USB_STORAGE",
        )),
        ..driver_of("sd", "sd_mod", "BLK_DEV_SD")
    },
    Driver {
        below: Some(("the host", "")),
        ..driver_of("mmcblk", "mmc_block", "MMC_BLOCK")
    },
    driver_of("sr", "sr_mod", "BLK_DEV_SR"),
    driver_of("xvd", "xen_blkfront", "XEN_BLKDEV_FRONTEND"),
    driver_of("ubiblock", "ubi", "MTD_UBI_BLOCK"),
    driver_of("mtdblock", "mtdblock", "MTD_BLOCK"),
];

const fn driver_of(prefix: &'static str, module: &'static str, option: &'static str) -> Driver {
    Driver {
        prefix,
        module,
        option,
        below: None,
    }
}

/// The driver of the disk that a device is or belongs to, if its name says which.
pub fn driver(name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| {
        name.strip_prefix(driver.prefix)
            .is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_alphanumeric()))
    })
}

/// Devices that exist only after a program has made them: how their names begin, and which program that is.
const MADE: [(&str, &str); 11] = [
    ("disk/", "udev makes the links in /dev/disk"),
    (
        "mapper/",
        "programs make the devices in /dev/mapper: LVM, cryptsetup, dmsetup",
    ),
    ("md/", "udev makes the links in /dev/md"),
    (
        "dm-",
        "programs make the devices of the device mapper: LVM, cryptsetup, dmsetup",
    ),
    ("bcache", "programs register the disks of bcache"),
    ("loop", "programs give loop devices their files"),
    ("nbd", "programs connect network block devices"),
    ("rbd", "programs connect network block devices"),
    ("drbd", "programs connect network block devices"),
    ("zram", "programs give zram its size"),
    ("ublkb", "programs serve the devices of ublk"),
];

/// Why a device of that name (the part after `/dev/`) never appears in an initramfs that runs no other program; `None`
/// if a driver may make it. `creates_mapped_devices` is
/// [`Settings::creates_mapped_devices`](crate::settings::Settings::creates_mapped_devices).
pub fn never_appears(name: &str, creates_mapped_devices: bool) -> Option<Explanation> {
    let program = made_by_programs(name, creates_mapped_devices)?;
    Some(Cause::DEVICE_OF_PROGRAMS.with(&[program]))
}

/// Which programs make a device of that name.
fn made_by_programs(name: &str, creates_mapped_devices: bool) -> Option<&'static str> {
    if creates_mapped_devices && name.starts_with("dm-") {
        return None;
    }
    match name {
        "root" => {
            return Some("it is not a device: programs show the mounted root under this name");
        }
        "nfs" | "cifs" => return Some("it is not a device: the kernel means a network root by it"),
        _ => {}
    }
    let made = MADE.iter().find(|(prefix, _)| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            prefix.ends_with(['/', '-']) || rest.starts_with(|letter: char| letter.is_ascii_digit())
        })
    });
    if let Some((_, why)) = made {
        return Some(why);
    }
    // The only drivers whose devices have directories (drivers/block/aoe/aoeblk.c, drivers/block/pktcdvd.c; formerly cciss.c,
    // cpqarray.c, DAC960.c).
    let of_the_kernel = ["etherd", "pktcdvd", "cciss", "ida", "rd"];
    let (directory, _) = name.split_once('/')?;
    (!of_the_kernel.contains(&directory)).then_some(
        "no driver makes devices in a directory of that name; LVM's links have such names",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn partitions_and_disks_are_told_apart_by_name() {
        for (name, disk, number) in [
            ("vda", "vda", None),
            ("vda2", "vda", Some(2)),
            ("sdaa11", "sdaa", Some(11)),
            ("xvda1", "xvda", Some(1)),
            ("hda4", "hda", Some(4)),
            ("dasda1", "dasda", Some(1)),
            ("nvme0n1", "nvme0n1", None),
            ("nvme0n1p2", "nvme0n1", Some(2)),
            ("mmcblk0", "mmcblk0", None),
            ("mmcblk0p1", "mmcblk0", Some(1)),
            ("mmcblk0boot1", "mmcblk0boot1", None),
            ("loop7", "loop7", None),
            ("loop7p3", "loop7", Some(3)),
            ("nbd0p1", "nbd0", Some(1)),
            ("md127", "md127", None),
            ("md127p1", "md127", Some(1)),
            ("ubiblock0_1", "ubiblock0_1", None),
            ("etherd/e0.1p2", "etherd/e0.1", Some(2)),
            ("sr0", "sr0", None),
            ("ram0", "ram0", None),
            ("dm-0", "dm-0", None),
            ("vda0", "vda0", None),
            ("vda02", "vda02", None),
            ("sd1", "sd1", None),
            ("sda4294967296", "sda4294967296", None),
            ("1p1", "1", Some(1)),
            ("", "", None),
        ] {
            assert_eq!(split(name), (disk, number), "{name}");
        }
    }

    proptest! {
        /// The kernel's own rule gives the name back.
        #[test]
        fn a_name_that_is_split_is_put_together_again(name in "\\PC{0,12}|(sd|vd|nvme0n|mmcblk|loop)[a-z0-9p]{0,6}") {
            let (disk, partition) = split(&name);
            let separator = if disk.ends_with(|letter: char| letter.is_ascii_digit()) { "p" } else { "" };
            let again = match partition {
                Some(number) => format!("{disk}{separator}{number}"),
                None => disk.to_owned(),
            };
            prop_assert_eq!(again, name);
        }
    }

    #[test]
    fn numbers_tell_the_partition_where_drivers_count_in_blocks() {
        for (major, minor, expected) in [
            (8, 0, Number::Disk),
            (8, 19, Number::Partition(3)),
            (65, 1, Number::Partition(1)),
            (254, 16, Number::Disk),
            (254, 2, Number::Partition(2)),
            (202, 1, Number::Partition(1)),
            (179, 10, Number::Partition(2)),
            (179, 8, Number::Disk),
            (259, 2, Number::Unknown),
            (7, 1, Number::Disk),
            (9, 127, Number::Disk),
        ] {
            assert_eq!(number(major, minor), expected, "{major}:{minor}");
        }
    }

    #[test]
    fn each_driver_has_its_devices() {
        for (name, option) in [
            ("vda2", Some("VIRTIO_BLK")),
            ("nvme0n1p2", Some("BLK_DEV_NVME")),
            ("sdaa", Some("BLK_DEV_SD")),
            ("sr0", Some("BLK_DEV_SR")),
            ("xvda", Some("XEN_BLKDEV_FRONTEND")),
            ("mmcblk0p1", Some("MMC_BLOCK")),
            ("ubiblock0_1", Some("MTD_UBI_BLOCK")),
            ("vd", None),
            ("md0", None),
        ] {
            assert_eq!(driver(name).map(|driver| driver.option), option, "{name}");
        }
    }

    #[test]
    fn names_that_no_kernel_makes() {
        for name in [
            "root",
            "nfs",
            "disk/by-id/x",
            "disk/by-path/x",
            "mapper/root",
            "vg/root",
            "md/root",
            "dm-0",
            "loop0",
            "loop0p2",
            "nbd0p1",
            "bcache0",
        ] {
            assert!(made_by_programs(name, false).is_some(), "{name}");
        }
        for name in [
            "vda2",
            "sda",
            "md0",
            "ubiblock0_1",
            "etherd/e0.1",
            "rootfs",
            "ram0",
            "loopy",
        ] {
            assert_eq!(made_by_programs(name, false), None, "{name}");
        }
        assert_eq!(made_by_programs("dm-0", true), None);
    }
}
