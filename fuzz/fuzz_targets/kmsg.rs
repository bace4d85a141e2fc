//! Any record as one of `/dev/kmsg`: what is taken of it must be in it, and on one line.
#![no_main]

use ima::kmsg::{device_mapper, is_of_ima, kernel_text, policy_update};

libfuzzer_sys::fuzz_target!(|record: &str| {
    let Some(text) = kernel_text(record) else {
        return;
    };
    assert!(record.contains(text) && !text.contains('\n'));
    assert!(policy_update(text).is_none() || is_of_ima(text));
    if let Some(message) = device_mapper(text) {
        assert!(text.contains(message) && !is_of_ima(text));
    }
});
