//! Questions to a running kernel: a machine that only answers, and generated questions.

use std::path::Path;
use std::time::Duration;

use ima_testbed::report::decode_hex;
use ima_testbed::{Ending, Machine};
use imactl::initramfs::InitramfsBuilder;

use crate::built::{PROGRAMS, scratch};

/// Has a machine answer the questions in a file of its initramfs, which the guest program knows by its name. Gives the console.
pub fn ask(kernel: &Path, file: &str, questions: impl Into<Vec<u8>>, append: &str) -> String {
    let initramfs = InitramfsBuilder::new()
        .file("init", 0o755, PROGRAMS.guest.clone())
        .file(file, 0o644, questions)
        .unchecked()
        .build()
        .expect("an initramfs");
    let (_, path) = tempfile::NamedTempFile::new_in(scratch())
        .and_then(|file| Ok(file.keep()?))
        .expect("an initramfs");
    std::fs::write(&path, initramfs).expect("the initramfs");
    let outcome = Machine::new(kernel)
        .initramfs(&path)
        .append(format!("audit=0 quiet loglevel=0 {append}"))
        .time_limit(Duration::from_secs(300))
        .start()
        .expect("the machine starts")
        .finish();
    std::fs::remove_file(&path).expect("the initramfs");
    assert_eq!(outcome.ending, Ending::PowerOff, "{}", outcome.console);
    outcome.console
}

/// The answers behind a word on the console, a bit each.
pub fn bits(console: &str, word: &str) -> Vec<u8> {
    let start = format!("guest: {word}: ");
    let answers = console
        .lines()
        .filter_map(|line| line.split_once(&start)?.1.trim().into());
    answers.filter_map(decode_hex).flatten().collect()
}

/// A pseudorandom sequence (xorshift64), the same in each run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    pub fn of<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.below(items.len())]
    }
}
