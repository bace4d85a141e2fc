//! Any line as one of the kernel's log: what is taken of it must be in it.
#![no_main]

use ima::audit::{IntegrityRecord, refused_rule};

libfuzzer_sys::fuzz_target!(|line: &str| {
    if let Some(record) = IntegrityRecord::find(line) {
        assert!(line.contains(&format!("cause={}", record.cause)));
        assert!(line.contains(&format!("op={}", record.operation)));
    }
    if let Some(rule) = refused_rule(line) {
        assert!(line.contains(rule) && line.ends_with("res=0"));
    }
});
