//! Any text as /proc/keys.
#![no_main]

use ima::keyring::{keyring, keys};

libfuzzer_sys::fuzz_target!(|text: &str| {
    for key in keys(text) {
        let _ = key.serial.get();
    }
    if let Some(serial) = keyring(text, ".ima") {
        assert!(keys(text).any(|key| key.serial == serial && key.kind == "keyring"));
    }
});
