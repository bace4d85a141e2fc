//! Any bytes as ima-init.conf: nothing but the words themselves may weaken the boot.
#![no_main]

use ima::config::{Config, Enforce, Keyring, OnFailure};

fn says(data: &[u8], key: &str, value: &str) -> bool {
    data.split(|byte| *byte == b'\n').any(|line| {
        let line = String::from_utf8_lossy(line);
        line.split_once('=')
            .is_some_and(|(k, v)| k.trim() == key && v.trim() == value)
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(config) = Config::parse(data) else {
        return;
    };
    if config.enforce == Enforce::Permissive {
        assert!(says(data, "enforce", "permissive"));
    }
    if config.keyring == Keyring::Untrusted {
        assert!(says(data, "keyring", "_ima"));
    }
    if config.on_failure == OnFailure::Shell {
        assert!(says(data, "on_failure", "shell") && says(data, "debug", "yes"));
    }
});
