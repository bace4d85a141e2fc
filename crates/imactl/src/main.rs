//! `imactl`: keys, signatures, initramfs and root images for Linux's integrity subsystem.
//!
//! Started under the name `evmctl`, it takes evmctl's command line; under the name `dpkg-deb`, dpkg's.

mod cli;
mod evmctl;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    match Path::new(&name).file_name() {
        Some(name) if name == evmctl::NAME => evmctl::main(arguments.collect()),
        Some(name) if name == cli::DPKG_DEB => cli::dpkg_deb(&arguments.collect::<Vec<_>>()),
        _ => cli::main(),
    }
}
