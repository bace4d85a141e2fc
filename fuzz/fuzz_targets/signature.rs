//! Any bytes as a `security.ima` value.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ima::signature::ImaXattr::parse(data);
});
