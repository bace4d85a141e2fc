//! Any bytes as a `security.ima` value: what is taken, written again, is the same value.
#![no_main]

use ima::signature::ImaXattr;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(value) = ImaXattr::parse(data) {
        assert_eq!(ImaXattr::parse(&value.encode()), Ok(value));
    }
});
