//! `/init` of the initramfs.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use dlmalloc::GlobalDlmalloc;
use ima_init::syscalls::Allocator;

/// musl's allocator maps and unmaps memory again and again, with two system calls each time. This one keeps what it has mapped.
#[global_allocator]
static ALLOCATOR: Allocator<GlobalDlmalloc> = Allocator(GlobalDlmalloc);

fn main() -> std::process::ExitCode {
    ima_init::boot::start()
}
