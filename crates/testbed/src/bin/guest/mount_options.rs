//! Offers mount options to file systems: whether each takes it, without a device.

use std::fs;
use std::io;

use ima_testbed::report::encode_hex;
use rustix::mount::{FsOpenFlags, fsconfig_set_flag, fsconfig_set_string, fsopen};

use crate::system;

/// A file system's type and an option, with a blank between them, on each line; in the initramfs.
pub const OPTIONS: &str = "/mount-options";

/// Prints a bit for each line of the file, the first in the highest bit of the first byte.
pub fn offer() -> io::Result<()> {
    let text = fs::read_to_string(OPTIONS)?;
    let lines: Vec<&str> = text.lines().collect();
    for lines in lines.chunks(512) {
        let mut answers = vec![0_u8; lines.len().div_ceil(8)];
        for (number, line) in lines.iter().enumerate() {
            if takes(line)? {
                answers[number / 8] |= 0x80 >> (number % 8);
            }
        }
        system::log(&format!("mount options: {}", encode_hex(&answers)));
    }
    Ok(())
}

fn takes(line: &str) -> io::Result<bool> {
    let (fstype, option) = line
        .split_once(' ')
        .ok_or_else(|| io::Error::other(format!("no blank in {line}")))?;
    let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let taken = match option.split_once('=') {
        Some((key, value)) => fsconfig_set_string(&context, key, value),
        None => fsconfig_set_flag(&context, option),
    };
    Ok(taken.is_ok())
}
