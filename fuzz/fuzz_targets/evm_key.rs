//! Any bytes as the blob of an encrypted key.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ima::evm_key::Blob::parse(data);
});
