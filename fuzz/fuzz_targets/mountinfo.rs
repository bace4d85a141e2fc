//! Any bytes as a list of mounts: no field comes out longer than the list.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for mount in ima::mountinfo::mounts(data) {
        assert!(mount.point.len() <= data.len());
    }
});
