//! Any bytes as the superblock of dm-verity's hash tree. The beginning is made right, so that what stands behind it is reached.
#![no_main]

use ima::dm_verity::{
    Corruption, Devices, Place, RootHash, SUPERBLOCK_LENGTH, Superblock, TableOptions, superblock,
};

fn read(bytes: &[u8], offset: u64) {
    let Ok(parsed) = Superblock::parse(bytes) else {
        return;
    };
    assert_eq!(Superblock::parse(&parsed.to_bytes()).as_ref(), Ok(&parsed));
    let mut end = None;
    for level in parsed.levels(offset) {
        assert!(level.blocks > 0 && end.is_none_or(|end| end == level.start));
        end = level.start.checked_add(level.blocks);
        assert!(end.is_some());
    }
    assert!(parsed.tree_end(offset) >= offset + SUPERBLOCK_LENGTH as u64);
    let hash = RootHash::new(vec![0; parsed.algorithm().digest_len()]).expect("a root hash");
    let devices = Devices {
        data: "254:0".to_owned(),
        tree: "254:0".to_owned(),
    };
    let fec = parsed.fec("254:1".to_owned(), 2, (offset, parsed.tree_end(offset), 0));
    let options = TableOptions {
        corruption: Corruption::Panic,
        signature_key: None,
        fec: fec.as_ref(),
    };
    let table = parsed.table(&devices, offset, &hash, &options);
    assert_eq!(
        table.split(' ').count(),
        if fec.is_some() { 20 } else { 12 }
    );
    for is_data in [false, true] {
        let place = Place {
            device: "/dev/vda",
            length: offset.saturating_mul(2),
            offset,
            data_length: offset,
            is_data,
        };
        if let Ok(taken) = superblock(bytes, &place, &hash) {
            assert!(taken.data_length() <= offset);
            assert!(taken.tree_end(offset) <= place.length);
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((offset, bytes)) = data.split_first_chunk() else {
        return;
    };
    let offset = u64::from_le_bytes(*offset) & ((1 << 60) - 1);
    read(bytes, offset);
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().max(SUPERBLOCK_LENGTH), 0);
    bytes[..16].copy_from_slice(b"verity\0\0\x01\0\0\0\x01\0\0\0");
    read(&bytes, offset);
    let names: [&[u8]; 3] = [b"sha256\0", b"sha512\0", b"sha3-384\0"];
    let name = names[usize::from(bytes[32]) % 3];
    bytes[32..32 + name.len()].copy_from_slice(name);
    for at in [64, 68] {
        let length = 512_u32 << (bytes[at] % 11);
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
    bytes[77..80].fill(0);
    bytes[81] = 0;
    read(&bytes, offset);
});
