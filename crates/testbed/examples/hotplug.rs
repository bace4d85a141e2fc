//! Attaches a disk while the kernel waits for its root device:
//!
//! ```text
//! cargo run --example hotplug -- bzImage root.img
//! ```
//!
//! The image must contain a file system that the kernel can mount, as `/dev/vda`.

use std::error::Error;
use std::process::ExitCode;

use ima_testbed::{Disk, Machine};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, image] = arguments.as_slice() else {
        eprintln!("usage: hotplug KERNEL IMAGE");
        return Ok(ExitCode::from(2));
    };

    let mut machine = Machine::new(kernel).append("root=/dev/vda rootwait panic=-1");
    let root = machine.add_disk(Disk::new(image).serial("root").hotplug());
    let running = machine.start()?;

    println!("{}", running.wait_for_console("Waiting for root device")?);
    running.plug(root)?;
    println!("{}", running.wait_for_console("VFS: Mounted root")?);

    println!("The machine ended with: {}", running.kill().ending);
    Ok(ExitCode::SUCCESS)
}
