//! Any bytes as a Debian package.
#![no_main]

use std::io::Write as _;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(data).expect("a file");
    if let Ok(members) = imactl::deb::archive::members(&file) {
        for member in members {
            assert!(member.offset + member.len <= data.len() as u64);
        }
    }
});
