//! Unified kernel images: kernel, initramfs and command line in one program for UEFI, which Secure Boot verifies as a whole.
//!
//! [`Builder`] makes one on systemd's stub, [`authenticode::sign`] signs it, [`UnifiedKernelImage`] reads one, whoever made it,
//! and [`Database`] what firmware and shim decide by. The format is that of the UAPI group's specification "Unified Kernel Image" and of systemd-stub(7).

pub mod authenticode;
mod builder;
pub mod database;
mod image;
pub mod pe;
mod section;

pub use builder::Builder;
pub use database::Database;
pub use image::UnifiedKernelImage;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
