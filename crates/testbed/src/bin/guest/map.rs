//! Mapping a file executable, as a dynamic loader does: the one call here that Rust cannot know to be sound.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Map the first page of a file with PROT_EXEC, and unmap it again.
pub fn map_executable(path: &std::path::Path) -> io::Result<()> {
    let file = File::open(path)?;
    let length = 4096;
    // SAFETY: the kernel chooses the address, so no memory of ours is replaced; nothing refers to the mapping, and it is
    // gone before anyone could.
    unsafe {
        let address = mmap(
            std::ptr::null_mut(),
            length,
            ProtFlags::READ | ProtFlags::EXEC,
            MapFlags::PRIVATE,
            &file,
            0,
        )?;
        munmap(address, length)?;
    }
    Ok(())
}
