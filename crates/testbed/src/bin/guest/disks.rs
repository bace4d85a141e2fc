//! Shows the kernel disk images through a loop device, and prints which partitions it makes of each.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::ioctl::{NoArg, Setter, ioctl};

use crate::{inspect, system};

/// The images, one after the other, in the initramfs.
pub const DISKS: &str = "/disks";

const LOOP: &str = "/dev/loop0";

/// struct loop_config with its struct loop_info64 (include/uapi/linux/loop.h).
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names_and_key: [u8; 64 + 64 + 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

const LOOP_CLR_FD: u32 = 0x4c01;
const LOOP_CONFIGURE: u32 = 0x4c0a;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_PARTSCAN: u32 = 8;

/// Shows the images as the parameters `testbed.disk-size` and `testbed.block-size` say.
pub fn asked() -> io::Result<()> {
    let number = |name: &str| {
        let value = inspect::parameter(name).unwrap_or_default();
        value.parse::<u32>().map_err(io::Error::other)
    };
    let size = number("testbed.disk-size")?;
    show(size.into(), number("testbed.block-size")?)
}

/// Prints for each image a line with the number, the start and the length in sectors of 512 bytes of each partition. The images have
/// `size` bytes each, and logical blocks of `block_size` bytes.
fn show(size: u64, block_size: u32) -> io::Result<()> {
    let images = File::open(DISKS)?;
    let count = images.metadata()?.len() / size;
    for image in 0..count {
        let device = OpenOptions::new().read(true).open(LOOP)?;
        let config = LoopConfig {
            fd: images.as_raw_fd().try_into().unwrap_or(u32::MAX),
            block_size,
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: image * size,
            size_limit: size,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_PARTSCAN,
            names_and_key: [0; 160],
            init: [0; 2],
            reserved: [0; 8],
        };
        // SAFETY: the operation reads the structure it is defined with and writes nothing.
        unsafe { ioctl(&device, Setter::<LOOP_CONFIGURE, _>::new(config)) }?;
        system::log(&format!("disk {image}: {}", partitions()?));
        // SAFETY: the operation takes no argument.
        unsafe { ioctl(&device, NoArg::<LOOP_CLR_FD>::new()) }?;
    }
    system::log("disks: all");
    Ok(())
}

fn partitions() -> io::Result<String> {
    let number = |path: &Path| -> io::Result<u64> {
        let text = fs::read_to_string(path)?;
        text.trim().parse().map_err(io::Error::other)
    };
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block/loop0")? {
        let path = entry?.path();
        let partition = path.join("partition");
        if partition.exists() {
            let values = [&partition, &path.join("start"), &path.join("size")];
            let [partition, start, size] = values.map(|path| number(path));
            found.push((partition?, start?, size?));
        }
    }
    found.sort_unstable();
    let shown: Vec<String> = found
        .iter()
        .map(|(number, start, size)| format!("{number}:{start}:{size}"))
        .collect();
    Ok(shown.join(" "))
}
