//! Any bytes as the beginning of a block device. Superblocks lie far apart, so the input is put at each of the places
//! where one is looked for.
#![no_main]

use ima::filesystem::{PROBE_LENGTH, Uuid, probe};

/// Offsets of the superblocks' magics: xfs and vfat, ext4, erofs and f2fs, btrfs.
const PLACES: [usize; 4] = [0, 0x400, 0x438, 0x1_0000];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(uuid) = Uuid::parse(text)
    {
        assert_eq!(Uuid::parse(&uuid.to_string()), Some(uuid));
    }
    for place in PLACES {
        let mut head = vec![0; PROBE_LENGTH];
        let length = data.len().min(PROBE_LENGTH - place);
        head[place..place + length].copy_from_slice(&data[..length]);
        let _ = probe(&head);
        let _ = probe(&head[..place + length]);
    }
});
