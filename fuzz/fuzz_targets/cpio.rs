//! Any bytes as an initramfs archive.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ima::cpio::entries(data).count();
});
