//! `imactl`: keys, signatures, initramfs and root images for Linux's integrity subsystem.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
