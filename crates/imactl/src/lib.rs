//! The host tool of ima-init as a library: keys and certificates, signatures, initramfs and root images, kernel images.
//!
//! Nothing here needs privilege but writing `security.ima` onto files of the running system.

pub mod file;
pub mod initramfs;
pub mod key;
pub mod modules;
pub mod x509;

/// A result whose error is a fault of the catalogue: code, cause, remedy.
pub type Result<T> = std::result::Result<T, ima::fault::Fault>;
