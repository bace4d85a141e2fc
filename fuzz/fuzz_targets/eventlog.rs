//! Any bytes as a firmware event log.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ima::eventlog::replay_sha1(data);
});
