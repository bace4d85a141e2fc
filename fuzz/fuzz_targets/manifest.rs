//! Any bytes as a manifest; what is taken must be written as it was read.
#![no_main]

use imactl::manifest::Manifest;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = Manifest::parse(data) {
        let written = manifest.encode().expect("JSON");
        assert_eq!(
            Manifest::parse(&written).expect("what was written"),
            manifest
        );
    }
});
