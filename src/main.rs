//! `/init` of the initramfs.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use ima_init::syscalls::{Allocator, Heap};

#[global_allocator]
static ALLOCATOR: Allocator<Heap> = Allocator(Heap::new());

fn main() -> std::process::ExitCode {
    ima_init::boot::start()
}
