//! Any bytes as a measurement list, binary and ASCII.
#![no_main]

use ima::measurement::{Bank, ByteOrder, MeasurementList};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(list) = MeasurementList::parse_binary(data, Bank::Sha256, ByteOrder::Little) {
        assert_eq!(list.to_binary(), data);
        let _ = list.replay(Bank::Sha1, 10);
        let _ = MeasurementList::parse_ascii(&list.to_ascii(), ByteOrder::Little);
    }
    let _ = MeasurementList::parse_ascii(data, ByteOrder::Little);
});
