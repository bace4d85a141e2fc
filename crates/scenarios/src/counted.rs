//! Times of boots in machines whose clock counts instructions.
//!
//! QEMU counts a nanosecond for each instruction, so that the times hardly differ between runs. The last program in the
//! machine writes the records of the kernel's log to the console; they carry the times.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ima_testbed::{Accel, Disk, Machine};

type Error = Box<dyn std::error::Error>;

/// A machine to measure.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The kernel, a bzImage.
    pub kernel: PathBuf,
    /// The image of the root, whose init writes the kernel's log to the console.
    pub disk: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// Further parameters of the kernel command line.
    pub append: String,
    /// How long the machine may take, by the host's clock.
    pub time_limit: Duration,
}

impl Measured {
    /// Boots the machine to its end, and returns what `read` finds on its console.
    ///
    /// # Errors
    /// The machine does not start; or `read` does not find what it expects. The console is saved then.
    pub fn boot<T>(
        &self,
        saved_console: &Path,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Error> {
        // There is no guest program in this root: its missing report is not a failure here. The serial line is silent until the
        // end, because each letter takes 87 microseconds. Without idle=poll the processor sleeps while the disk is waited for,
        // and the clock jumps to the next timer.
        let outcome = Machine::new(&self.kernel)
            .initramfs(&self.initramfs)
            .disk(Disk::new(&self.disk))
            .accel(Accel::TcgCounting)
            .append("root=/dev/vda ro loglevel=0 idle=poll")
            .append(&self.append)
            .time_limit(self.time_limit)
            .start()?
            .finish();
        read(&outcome.console).or_else(|problem| {
            if let Some(directory) = saved_console.parent() {
                std::fs::create_dir_all(directory)?;
            }
            std::fs::write(saved_console, &outcome.console)?;
            let console = saved_console.display();
            Err(format!("{problem}; the machine's console is in {console}").into())
        })
    }
}

/// Returns the time in microseconds of the first record of the kernel's log that has a text. The records are those of /dev/kmsg:
/// `level,sequence,time,flags;text` (`Documentation/ABI/testing/dev-kmsg`).
///
/// # Errors
/// No record has the text.
pub fn time_of(console: &str, text: &str) -> Result<u64, String> {
    let record = console.lines().find(|line| line.contains(text));
    record
        .and_then(|record| record.split(';').next()?.split(',').nth(2)?.parse().ok())
        .ok_or_else(|| format!("the machine did not say \"{text}\""))
}

/// Returns the time in microseconds between the first records with two texts.
///
/// # Errors
/// No record has one of them, or the second is before the first.
pub fn time_between(console: &str, first: &str, second: &str) -> Result<u64, String> {
    let start = time_of(console, first)?;
    time_of(console, second)?
        .checked_sub(start)
        .ok_or_else(|| format!("the machine said \"{second}\" before \"{first}\""))
}

/// Returns the median, the upper one of two, and the largest difference.
pub fn median_and_spread(numbers: impl Iterator<Item = u64>) -> (u64, u64) {
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable();
    let median = numbers.get(numbers.len() / 2).copied().unwrap_or_default();
    let spread = match numbers.as_slice() {
        [first, .., last] => last - first,
        _ => 0,
    };
    (median, spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "Linux\r\n6,200,1000,-;Run /init as init process\r\n\
        6,201,1250,-,caller=T1;ima: policy update completed\r\n6,203,9000,-;ima: policy update completed\r\n";

    #[test]
    fn times_are_those_of_the_first_records() {
        assert_eq!(time_of(CONSOLE, "Run /init"), Ok(1000));
        assert_eq!(time_of(CONSOLE, "policy update"), Ok(1250));
        assert_eq!(time_between(CONSOLE, "Run /init", "policy update"), Ok(250));
    }

    #[test]
    fn missing_and_disordered_records_are_errors() {
        for (first, second, named) in [
            ("Run /init", "the real init", "the real init"),
            ("Linux", "policy update", "Linux"),
            ("policy update", "Run /init", "before"),
        ] {
            let error = time_between(CONSOLE, first, second).expect_err("an error");
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn the_median_and_the_largest_difference() {
        for (numbers, expected) in [
            (&[3, 1, 2][..], (2, 2)),
            (&[5], (5, 0)),
            (&[4, 1, 3, 2], (3, 3)),
        ] {
            assert_eq!(median_and_spread(numbers.iter().copied()), expected);
        }
    }
}
