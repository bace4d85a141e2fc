//! Any text as a kernel command line, and each value in it as the name of a root.
#![no_main]

use ima::cmdline::{RootName, parameters};

libfuzzer_sys::fuzz_target!(|line: &str| {
    for parameter in parameters(line) {
        let _ = parameter.is("root");
        if let Some(name) = parameter.value.as_deref().and_then(RootName::parse) {
            assert_eq!(RootName::parse(&name.to_string()), Some(name));
        }
    }
    if let Some(name) = RootName::parse(line) {
        assert_eq!(RootName::parse(&name.to_string()), Some(name));
    }
});
