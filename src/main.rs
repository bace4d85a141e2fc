//! `/init` of the initramfs.

#![cfg_attr(not(test), no_main)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use ima_init::syscalls::{Allocator, Heap};

#[global_allocator]
static ALLOCATOR: Allocator<Heap> = Allocator(Heap::new());

#[cfg(not(test))]
ima_init::define_main!(ima_init::boot::start);
