//! Any bytes as a disk with a partition table. The checksums of a GPT are made right, so that what stands behind them is reached.
#![no_main]

use ima::partition::{Disk, Table};

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

fn read(bytes: &[u8], gpt_is_forced: bool) {
    let disk = Disk {
        length: bytes.len() as u64,
        block_size: 512,
        gpt_is_forced,
    };
    let table = Table::read(disk, |offset, length| {
        let from = usize::try_from(offset).ok()?.min(bytes.len());
        let to = from.saturating_add(length).min(bytes.len());
        Some(bytes[from..to].to_vec())
    });
    let partitions = table.map(|table| table.partitions).unwrap_or_default();
    assert!(partitions.is_sorted_by_key(|partition| partition.number));
    for partition in partitions {
        assert!((1..256).contains(&partition.number));
        assert!(
            partition
                .start
                .checked_add(partition.length)
                .is_some_and(|end| end <= disk.length)
        );
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut disk = data.to_vec();
    if disk.len() >= 512 {
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    }
    read(&disk, false);
    if disk.len() < 2048 {
        return;
    }
    let count = (disk.len() - 1024) / 128;
    let entries = crc32(&disk[1024..1024 + count * 128]);
    let header = &mut disk[512..604];
    header[..8].copy_from_slice(b"EFI PART");
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    header[24..32].copy_from_slice(&1_u64.to_le_bytes());
    header[40..56].fill(0);
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&u32::try_from(count).unwrap().to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    header[88..92].copy_from_slice(&entries.to_le_bytes());
    header[16..20].fill(0);
    let checksum = crc32(header);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    read(&disk, true);
});
