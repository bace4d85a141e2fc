//! Any bytes as a certificate file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ima::certificate::Certificate::parse_all(data);
});
