//! Any text as the log of what programs measured.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| {
    let _ = ima::boot_event::parse(data);
});
