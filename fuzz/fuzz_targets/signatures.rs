//! Any bytes as the list of an initramfs's signatures: what is taken is written back as it was.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(list) = ima::signatures::Signatures::parse(data) {
        assert_eq!(list.to_text().as_bytes(), data);
    }
});
