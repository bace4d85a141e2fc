//! Any bytes as a firmware event log.
#![no_main]

use ima::bank::Bank;
use ima::eventlog;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(events) = eventlog::parse(data) {
        for bank in Bank::ALL {
            let _ = eventlog::replay(&events, bank);
        }
    }
});
