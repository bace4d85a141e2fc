//! Any bytes as an MBR, a GPT header and a GPT's entries. The header's checksums are made right, so that what stands
//! behind them is reached.
#![no_main]

use ima::partition::{GptHeader, MAX_ENTRIES, mbr_signature};

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = mbr_signature(data);
    let _ = GptHeader::parse(data, 1);
    let _ = ima::partition::is_protective(data);
    if data.len() < 92 {
        return;
    }
    let (header, entries) = data.split_at(92);
    let mut header = header.to_vec();
    header[..8].copy_from_slice(b"EFI PART");
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    header[24..32].copy_from_slice(&1_u64.to_le_bytes());
    header[80..84].copy_from_slice(&u32::try_from(entries.len() / 128).unwrap().to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    let entries = &entries[..entries.len() / 128 * 128];
    header[88..92].copy_from_slice(&crc32(entries).to_le_bytes());
    header[16..20].fill(0);
    let checksum = crc32(&header);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    let parsed = GptHeader::parse(&header, 1).expect("a header with right checksums");
    assert!(parsed.entries_length().is_some_and(|length| length <= MAX_ENTRIES));
    for entry in parsed.entries(entries).expect("entries with a right checksum") {
        assert!(entry.number >= 1);
    }
});
