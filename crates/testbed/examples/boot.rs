//! Boots a kernel with an initramfs and prints how the machine ended:
//!
//! ```text
//! cargo run --example boot -- bzImage initramfs.cpio.gz [PARAMETER...]
//! ```
//!
//! The serial console appears on standard error while the machine runs.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use ima_testbed::{Ending, Machine};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(kernel), Some(initramfs)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: boot KERNEL INITRAMFS [PARAMETER...]");
        return Ok(ExitCode::from(2));
    };
    let parameters: Vec<String> = arguments.collect();

    let outcome = Machine::new(kernel)
        .initramfs(initramfs)
        .append(parameters.join(" "))
        .time_limit(Duration::from_secs(60))
        .tee()
        .start()?
        .finish();

    let seconds = outcome.duration.as_secs_f64();
    println!("The machine ended after {seconds:.1} s: {}", outcome.ending);
    Ok(match outcome.ending {
        Ending::PowerOff => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
