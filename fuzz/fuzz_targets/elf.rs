//! Any bytes as a program: its interpreter, or that of its first line.
#![no_main]

use ima::elf::{Elf, script_interpreter};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(path) = script_interpreter(data) {
        assert!(!path.is_empty() && !path.contains(&b'\n') && !path.contains(&0));
    }
    let Some(program) = Elf::parse(data) else {
        return;
    };
    let place = program.program_headers();
    assert!(place.length <= 65536);
    let headers = usize::try_from(place.offset)
        .ok()
        .and_then(|offset| data.get(offset..)?.get(..place.length));
    if let Ok(Some(interpreter)) = program.interpreter(headers.unwrap_or(data)) {
        assert!((2..=4096).contains(&interpreter.length));
    }
});
