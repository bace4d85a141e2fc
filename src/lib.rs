//! The init for the initramfs: brings Linux's Integrity Measurement Architecture into force, then executes the real
//! root's signed switch_root. [`boot`] is the boot from top to bottom; [`switch`] is what the signed switch_root does.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod boot;
mod canary;
mod change_root;
mod denial;
mod device_mapper;
pub mod errno;
pub mod failure;
pub mod features;
pub mod files;
mod kernel_files;
mod kernel_log;
mod keyrings;
pub mod logging;
mod process;
pub mod report;
mod securityfs;
pub mod switch;
pub mod syscalls;
pub mod tpm;
mod uevent;
pub mod watch;
