//! Any text as /proc/keys.
#![no_main]

use ima::keyring::{Description, keyrings, keys};

libfuzzer_sys::fuzz_target!(|text: &str| {
    for key in keys(text) {
        let _ = key.serial.get();
    }
    for serial in keyrings(text, ".ima") {
        assert!(keys(text).any(|key| key.serial == serial && key.kind == "keyring"));
    }
    if let Some(description) = Description::parse(text) {
        assert!(text.starts_with(description.kind) && text.ends_with(description.name));
    }
});
