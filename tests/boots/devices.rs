//! What is known of disks and their file systems, against a running kernel: which partitions it makes of a disk, and which mount
//! options its file systems take.

use ima::partition::{Disk, Table};
use imactl::check::mount_options::{self, refused};

use crate::asked::{Random, ask, bits};
use crate::built::Kernel;
use crate::partitions::crc32;

/// Sectors of 512 bytes that a generated disk has.
const SECTORS: usize = 256;
const SECTOR: usize = 512;

/// How many disks are generated for each kind of machine.
const DISKS: usize = 300;

/// An entry of an MBR or of an extended partition. The types are those of which the kernel makes no partitions in their turn.
fn entry(random: &mut Random, blocks: u32) -> [u8; 16] {
    let mut entry = [0; 16];
    if random.one_in(4) {
        return entry;
    }
    let odd = random.one_in(20);
    entry[0] = [0, 0x80, 0x81][random.below(if odd { 3 } else { 2 })];
    let protects = random.one_in(9);
    let types = [0x83, 0x83, 0x0c, 0, 5, 0x0f, 0x85, 0xee];
    entry[4] = types[random.below(if protects { 8 } else { 7 })];
    let number = |random: &mut Random| match random.below(12) {
        0 => 0,
        1 => u32::MAX - random.below(4) as u32,
        2 => 1 << random.below(32),
        _ => random.below(blocks as usize + 4) as u32,
    };
    entry[8..12].copy_from_slice(&number(random).to_le_bytes());
    entry[12..].copy_from_slice(&number(random).to_le_bytes());
    entry
}

fn put_entries(disk: &mut [u8], place: usize, entries: [[u8; 16]; 4]) {
    let Some(sector) = disk.get_mut(place..place + SECTOR) else {
        return;
    };
    sector[446..510].copy_from_slice(entries.as_flattened());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
}

/// An MBR, and tables where its extended partitions and those of the tables begin.
fn mbr(random: &mut Random, block: usize) -> Vec<u8> {
    let mut disk = vec![0; SECTORS * SECTOR];
    let blocks = (disk.len() / block) as u32;
    let entries = [(); 4].map(|()| entry(random, blocks));
    disk[440..444].copy_from_slice(&random.next().to_le_bytes()[..4]);
    put_entries(&mut disk, 0, entries);
    let start = |entry: &[u8; 16]| u32::from_le_bytes([entry[8], entry[9], entry[10], entry[11]]);
    for first in entries
        .iter()
        .filter(|entry| [5, 0x0f, 0x85].contains(&entry[4]))
    {
        let mut this = start(first);
        for _ in 0..random.below(6) {
            let table = [(); 4].map(|()| entry(random, blocks));
            put_entries(&mut disk, (this as usize).saturating_mul(block), table);
            let Some(link) = table
                .iter()
                .find(|entry| [5, 0x0f, 0x85].contains(&entry[4]))
            else {
                break;
            };
            this = start(first).wrapping_add(start(link));
        }
    }
    // The boot sector again, if a table went over it.
    put_entries(&mut disk, 0, entries);
    disk
}

/// A GPT with its copy, of which a part was changed, often with right checksums.
fn gpt(random: &mut Random, block: usize) -> Vec<u8> {
    let mut disk = vec![0; SECTORS * SECTOR];
    let blocks = (disk.len() / block) as u64;
    let mut protective = [0; 16];
    protective[4] = 0xee;
    protective[8] = 1;
    protective[12] = 0xff;
    put_entries(&mut disk, 0, [protective, [0; 16], [0; 16], [0; 16]]);
    if random.one_in(8) {
        let entries = [(); 4].map(|()| entry(random, blocks as u32));
        put_entries(&mut disk, 0, entries);
    }
    let count = 16_u32;
    for (position, place) in [
        (1_u64, 2_u64),
        (blocks - 1, blocks - 1 - (2048 / block as u64).max(1)),
    ] {
        let mut entries = vec![0; count as usize * 128];
        for entry in entries.chunks_exact_mut(128) {
            if random.one_in(3) {
                continue;
            }
            entry[..16].fill(if random.one_in(8) { 0 } else { 7 });
            entry[16..32].copy_from_slice(&[random.below(256) as u8; 16]);
            let near = |random: &mut Random| match random.below(10) {
                0 => random.next(),
                1 => 0,
                _ => random.below(blocks as usize + 2) as u64,
            };
            let (first, last) = (near(random), near(random));
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
        }
        let mut header = [0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        let mut values = [1_u64, position, 6, blocks - 7, place];
        let (mut count, mut size, mut length) = (count, 128_u32, 92_u32);
        match random.below(24) {
            0 => values[random.below(5)] = random.below(blocks as usize + 9) as u64,
            1 => values[random.below(5)] = random.next(),
            2 => count = random.below(40) as u32,
            3 => size = 128 << random.below(3),
            4 => length = random.below(700) as u32,
            5 => header[random.below(8)] ^= 1,
            _ => {}
        }
        header[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
        header[12..16].copy_from_slice(&length.to_le_bytes());
        for (at, value) in [24, 40, 48, 72].into_iter().zip(values.into_iter().skip(1)) {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        header[80..84].copy_from_slice(&count.to_le_bytes());
        header[84..88].copy_from_slice(&size.to_le_bytes());
        let covered = (count as usize)
            .saturating_mul(size as usize)
            .min(entries.len());
        header[88..92].copy_from_slice(&crc32(&entries[..covered]).to_le_bytes());
        let mut sector = vec![0; block];
        sector[..92].copy_from_slice(&header);
        let checksum = crc32(&sector[..(length as usize).min(block)]);
        sector[16..20].copy_from_slice(&checksum.to_le_bytes());
        if random.one_in(12) {
            sector[random.below(92)] ^= 1 << random.below(8);
        }
        let at = position as usize * block;
        disk[at..at + block].copy_from_slice(&sector);
        let at = place as usize * block;
        disk[at..at + entries.len()].copy_from_slice(&entries);
    }
    disk
}

/// What this project makes of a disk, in the words of the guest program.
fn expected(disk: &[u8], block_size: u64, gpt_is_forced: bool) -> String {
    let length = disk.len() as u64;
    let table = Table::read(
        Disk {
            length,
            block_size,
            gpt_is_forced,
        },
        |offset, length| {
            let from = usize::try_from(offset).ok()?.min(disk.len());
            let to = from.saturating_add(length).min(disk.len());
            Some(disk[from..to].to_vec())
        },
    );
    let partitions = table.map(|table| table.partitions).unwrap_or_default();
    let shown: Vec<String> = partitions
        .iter()
        .map(|it| format!("{}:{}:{}", it.number, it.start / 512, it.length / 512))
        .collect();
    shown.join(" ")
}

fn compare(seed: u64, block: usize, forced: bool) {
    let mut random = Random(seed);
    let disks: Vec<Vec<u8>> = (0..DISKS)
        .map(|_| match random.one_in(2) {
            true => mbr(&mut random, block),
            false => gpt(&mut random, block),
        })
        .collect();
    let append = format!(
        "testbed.disk-size={} testbed.block-size={block}{}",
        SECTORS * SECTOR,
        if forced { " gpt" } else { "" }
    );
    let console = ask(&Kernel::Full.without_ca(), "disks", disks.concat(), &append);
    assert!(console.contains("guest: disks: all"), "{console}");
    let mut with_partitions = 0;
    let mut wrong = Vec::new();
    for (number, disk) in disks.iter().enumerate() {
        let start = format!("guest: disk {number}:");
        let mut lines = console.lines();
        let made = lines
            .find_map(|line| line.split_once(&start))
            .map(|(_, made)| made.trim());
        let made = made.unwrap_or_else(|| panic!("no answer of disk {number}: {console}"));
        // A length that is negative.
        let length = |size: &str| match size.parse::<u64>() {
            Ok(sectors) if sectors > u64::MAX / 2 => "0".to_owned(),
            _ => size.to_owned(),
        };
        let made = made
            .split_whitespace()
            .filter_map(|partition| {
                let (place, size) = partition.rsplit_once(':')?;
                Some(format!("{place}:{}", length(size)))
            })
            .collect::<Vec<_>>()
            .join(" ");
        with_partitions += usize::from(!made.is_empty());
        let expected = expected(disk, block as u64, forced);
        if made != expected {
            let path = crate::built::scratch().join(format!("disk-{seed:x}-{number}"));
            std::fs::write(&path, disk).expect("the disk");
            wrong.push(format!(
                "{}: the kernel makes {made:?}, here it is {expected:?}",
                path.display()
            ));
        }
    }
    println!(
        "blocks of {block}, gpt {forced}: of {with_partitions} of {DISKS} disks the kernel makes partitions"
    );
    assert!(
        with_partitions > DISKS / 5 && with_partitions < DISKS,
        "{with_partitions}"
    );
    assert!(
        wrong.is_empty(),
        "{} answers differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn partitions_as_the_kernel_makes_them() {
    compare(0x1357_9bdf_0246_8ace, 512, false);
}

#[test]
fn partitions_as_the_kernel_makes_them_with_gpt_forced() {
    compare(0x2468_ace0_1357_9bdf, 512, true);
}

#[test]
fn partitions_as_the_kernel_makes_them_of_large_blocks() {
    compare(0xfdb9_7531_eca8_6420, 4096, false);
}

/// Reasons for which a kernel may think otherwise of an option, and the options.
const EXCUSES: [(&str, &str); 4] = [
    ("the device is given by root= alone", "source"),
    (
        "the kernel has no security module with this option",
        "context fscontext defcontext rootcontext seclabel smackfsdef smackfsdefault smackfsfloor smackfshat smackfsroot \
         smackfstransmute",
    ),
    (
        "the option depends on the kernel's configuration or release, or names a device",
        "threads dax test_dummy_encryption journal_path fsoffset inode_share fc_debug_max_replay fc_debug_force nouser_xattr noacl",
    ),
    (
        "the file system limits the value",
        "commit resgid resuid debug_want_extra_isize mb_optimize_scan journal_ioprio inode_readahead_blks",
    ),
];

#[test]
fn mount_options_as_the_kernel_takes_them() {
    let values = [
        None,
        Some(""),
        Some("0"),
        Some("1"),
        Some("-1"),
        Some("+7"),
        Some("0x1f"),
        Some("010"),
        Some("08"),
        Some("4294967295"),
        Some("4294967296"),
        Some("18446744073709551616"),
        Some("panic"),
        Some("remount-ro"),
        Some("journal"),
        Some("vfsv1"),
        Some("always"),
        Some("readahead"),
        Some("word"),
    ];
    let mut names: Vec<&str> = mount_options::names().collect();
    names.extend([
        "source",
        "nosource",
        "unknown",
        "Errors",
        "error",
        "nodax",
        "nonouser_xattr",
    ]);
    names.sort_unstable();
    names.dedup();
    let mut lines = Vec::new();
    for fstype in ["ext4", "squashfs", "erofs"] {
        for name in &names {
            for value in values {
                let value = value.map(|value| format!("={value}")).unwrap_or_default();
                lines.push(format!("{fstype} {name}{value}"));
            }
        }
    }
    let console = ask(
        &Kernel::Full.without_ca(),
        "mount-options",
        lines.join("\n"),
        "",
    );
    let answers = bits(&console, "mount options");
    assert_eq!(answers.len(), lines.len().div_ceil(8), "{console}");
    let mut wrong = Vec::new();
    let mut known = [0; EXCUSES.len()];
    for (number, line) in lines.iter().enumerate() {
        let takes = answers[number / 8] & 0x80 >> (number % 8) != 0;
        let (fstype, option) = line.split_once(' ').expect("a blank");
        let refused = refused(fstype, option);
        // Only what begins otherwise is offered to the file system: ro and rw, and attributes of the mount.
        let ours = ima::mount_options::mount_options(option).next();
        let is_offered = matches!(
            ours,
            Some((_, ima::mount_options::MountOption::Filesystem { .. }))
        );
        if !is_offered || takes != refused.is_some() {
            continue;
        }
        let name = option.split('=').next().unwrap_or_default();
        let mut excuses = EXCUSES.iter();
        match excuses.position(|(_, names)| names.split(' ').any(|excused| excused == name)) {
            Some(reason) => known[reason] += 1,
            None => wrong.push(format!(
                "{line}: {}",
                if takes { "taken" } else { "refused" }
            )),
        }
    }
    for ((reason, _), count) in EXCUSES.iter().zip(known) {
        println!("  {count} more: {reason}");
        assert!(count > 0, "{reason}");
    }
    println!("{} options, {} answers differ", lines.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
