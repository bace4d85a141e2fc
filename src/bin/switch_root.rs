//! The static switch_root that is installed in the real root and signed.

#![cfg_attr(not(test), no_main)]

use std::alloc::System;

use ima_init::syscalls::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator<System> = Allocator(System);

#[cfg(not(test))]
ima_init::define_main!(ima_init::switch::start);
