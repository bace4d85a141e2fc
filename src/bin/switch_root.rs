//! The static switch_root that is installed in the real root and signed.

#![cfg_attr(not(test), no_main)]

use ima_init::syscalls::{Allocator, Arena};

#[global_allocator]
static ALLOCATOR: Allocator<Arena> = Allocator(Arena::new());

#[cfg(not(test))]
ima_init::define_main!(ima_init::switch::start);
