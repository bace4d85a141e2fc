//! Any bytes as `/etc/ld.so.cache`, and as a program with a dynamic section.
#![no_main]

use ima::elf::Dynamic;
use imactl::loader::cache::Cache;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for big_endian in [false, true] {
        if let Some(cache) = Cache::parse(data, big_endian) {
            for entry in cache.entries() {
                assert!(entry.path.len() < 4096 && !entry.path.contains(&0));
            }
        }
    }
    if let Some(dynamic) = Dynamic::parse(data) {
        assert!(dynamic.needed.iter().all(|name| name.len() < 1 << 16));
    }
});
