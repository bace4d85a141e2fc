//! Any bytes as a signature of version 1: what is taken has its header, and written again, is the same signature.
#![no_main]

use ima::signature::v1::Signature;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(signature) = Signature::parse(data) {
        let written = signature.encode();
        assert_eq!(written.get(..16), data.get(..16));
        assert_eq!(Signature::parse(&written), Ok(signature));
    }
});
