//! The static switch_root that is installed in the real root and signed.

use std::alloc::System;

use ima_init::syscalls::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator<System> = Allocator(System);

fn main() -> std::process::ExitCode {
    ima_init::switch::start()
}
