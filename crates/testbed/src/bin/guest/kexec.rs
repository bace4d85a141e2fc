//! Loading a kernel for kexec: two system calls that no crate has.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::ptr;

use nix::errno::Errno;
use nix::libc::{SYS_kexec_load, c_char, c_long, c_ulong, c_void, syscall};

/// The number of kexec_file_load(2), which libc does not have for musl on every architecture (arch/x86/entry/syscalls/syscall_64.tbl,
/// arch/arm/tools/syscall.tbl, include/uapi/asm-generic/unistd.h).
const KEXEC_FILE_LOAD: c_long = if cfg!(target_arch = "x86_64") {
    320
} else if cfg!(target_arch = "arm") {
    401
} else {
    294
};

/// KEXEC_FILE_UNLOAD (include/uapi/linux/kexec.h).
const UNLOAD: c_ulong = 1;

/// KEXEC_FILE_NO_INITRAMFS.
const NO_INITRAMFS: c_ulong = 4;

/// Load a kernel by kexec_file_load(2), with an initramfs or none.
pub fn load(kernel: &Path, initramfs: Option<&Path>, command_line: &CStr) -> io::Result<()> {
    let kernel = File::open(kernel)?;
    let initramfs = initramfs.map(File::open).transpose()?;
    let line = command_line.to_bytes_with_nul();
    // SAFETY: the kernel reads the command line, of the length given with its NUL, and writes nothing of ours.
    Errno::result(unsafe {
        syscall(
            KEXEC_FILE_LOAD,
            kernel.as_raw_fd(),
            initramfs.as_ref().map_or(-1, |file| file.as_raw_fd()),
            line.len() as c_ulong,
            line.as_ptr(),
            if initramfs.is_some() { 0 } else { NO_INITRAMFS },
        )
    })?;
    Ok(())
}

/// Load a kernel and its initramfs, and take them out again.
pub fn load_files(kernel: &Path, initramfs: &Path) -> io::Result<()> {
    load(kernel, Some(initramfs), c"")?;
    // SAFETY: with this flag the kernel passes over the other arguments.
    Errno::result(unsafe {
        syscall(
            KEXEC_FILE_LOAD,
            -1,
            -1,
            0 as c_ulong,
            ptr::null::<c_char>(),
            UNLOAD,
        )
    })?;
    Ok(())
}

/// Call kexec_load(2), which takes a kernel from memory, without any segment: it is asked whether it may before the segments are
/// looked at (kernel/kexec.c, `kexec_load_check`).
pub fn load_from_memory() -> io::Result<()> {
    // SAFETY: with no segments the kernel reads none.
    Errno::result(unsafe {
        syscall(
            SYS_kexec_load,
            0 as c_ulong,
            0 as c_ulong,
            ptr::null::<c_void>(),
            0 as c_ulong,
        )
    })?;
    Ok(())
}
