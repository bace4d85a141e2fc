//! `/init` of the initramfs.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[global_allocator]
static ALLOCATOR: ima_init::syscalls::Allocator = ima_init::syscalls::Allocator;

fn main() -> std::process::ExitCode {
    ima_init::boot::start()
}
