//! Any bytes as a tar archive, packed or not.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = imactl::tree::Tree::from_tar(data);
});
