//! Any bytes as a header of an RPM package.
#![no_main]

use imactl::rpm::header::Header;

const REGION: u32 = 62;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok((header, length)) = Header::parse(data, REGION) {
        assert!(length <= data.len());
        let encoded = header.encode(REGION);
        assert_eq!(Header::parse(&encoded, REGION), Ok((header, encoded.len())));
    }
});
