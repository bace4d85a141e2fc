//! `imactl`: keys, signatures, initramfs and root images for Linux's integrity subsystem.
//!
//! Started under the name `evmctl`, it takes evmctl's command line.

mod cli;
mod evmctl;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if Path::new(&name).file_name() == Some(evmctl::NAME.as_ref()) {
        return evmctl::main(arguments.collect());
    }
    cli::main()
}
