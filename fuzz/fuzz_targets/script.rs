//! Any bytes as a script of another initramfs; one that sources a file of the real root is found whatever follows it.
#![no_main]

use imactl::initramfs::InitramfsBuilder;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let faults = |script: Vec<u8>| {
        InitramfsBuilder::new()
            .file("usr/lib/ima-init/init", 0o755, &b"#!/bin/sh\n"[..])
            .file("scripts/x", 0o755, script)
            .script_faults()
            .expect("files in memory")
            .len()
    };
    assert!(faults(data.to_vec()) <= 1);
    let text = !data.iter().take(900).any(|&byte| byte == 0);
    if text {
        assert_eq!(faults([b". \"$NEWROOT\"/etc/x\n", data].concat()), 1);
    }
});
