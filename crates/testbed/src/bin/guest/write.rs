//! Writing files without end, in all the ways that leave a file system something to do when the power fails.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

const DIRECTORY: &str = "/testbed-writes";

/// How many files there are at a time.
const FILES: u64 = 64;

/// Writes until something fails; gives what.
pub fn forever() -> io::Error {
    let Err(error) = write();
    error
}

fn write() -> io::Result<Infallible> {
    fs::create_dir_all(DIRECTORY)?;
    let mut number: u64 = 0;
    loop {
        number += 1;
        let name = |number: u64| PathBuf::from(format!("{DIRECTORY}/{}", number % FILES));
        let half = PathBuf::from(format!("{DIRECTORY}/half"));
        let mut file = File::create(&half)?;
        // From a few bytes to a few blocks, in a pattern that changes.
        let length = usize::try_from(number * 7919 % 40_000).unwrap_or_default();
        file.write_all(&vec![number.to_le_bytes()[0]; length])?;
        if number.is_multiple_of(3) {
            file.sync_all()?;
        }
        drop(file);
        fs::rename(&half, name(number))?;
        match number % 5 {
            0 => fs::remove_file(name(number))?,
            1 => {
                let directory = PathBuf::from(format!("{DIRECTORY}/directory-{}", number % FILES));
                if fs::create_dir(&directory).is_err() {
                    fs::remove_dir(&directory)?;
                }
            }
            2 => File::options()
                .write(true)
                .open(name(number))?
                .set_len(100)?,
            _ => {}
        }
    }
}
