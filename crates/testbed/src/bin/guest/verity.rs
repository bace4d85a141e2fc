//! Enabling fs-verity on a file: one ioctl that no crate has.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use rustix::ioctl::{Setter, ioctl, opcode};

use crate::system;

/// struct fsverity_enable_arg (include/uapi/linux/fsverity.h).
#[repr(C)]
struct EnableArgument {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved: u32,
    signature: u64,
    reserved_too: [u64; 11],
}

/// FS_IOC_ENABLE_VERITY.
const ENABLE: u32 = opcode::write::<EnableArgument>(b'f', 133);

/// Enable fs-verity with SHA-256, blocks of 4096 bytes and no salt. From then on the file cannot be written.
pub fn enable_verity(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let argument = EnableArgument {
        version: 1,
        hash_algorithm: 1,
        block_size: 4096,
        salt_size: 0,
        salt: 0,
        signature_size: 0,
        reserved: 0,
        signature: 0,
        reserved_too: [0; 11],
    };
    // SAFETY: the operation reads the structure it is defined with and writes nothing; both pointers in it are null with a
    // length of 0.
    unsafe { ioctl(&file, Setter::<ENABLE, _>::new(argument)) }?;
    Ok(())
}

/// Enables it on each file, and on each below a directory.
pub fn enable_below(paths: &[String]) -> ExitCode {
    let result = paths.iter().try_for_each(|path| below(Path::new(path)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            system::log(&format!("cannot enable fs-verity: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn below(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        return enable_verity(path);
    }
    for entry in std::fs::read_dir(path)? {
        below(&entry?.path())?;
    }
    Ok(())
}
