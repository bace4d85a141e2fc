//! The host tool of ima-init as a library: keys and certificates, signatures, initramfs and root images, kernel images.
//!
//! Nothing here needs privilege but writing `security.ima` onto files of the running system.

pub mod attest;
pub mod chain;
pub mod check;
mod contained;
pub mod deb;
pub mod denial;
pub mod digest;
pub mod events;
pub mod file;
pub mod files;
pub mod identity;
pub mod image;
pub mod initramfs;
pub mod kernel;
pub mod key;
pub mod keylime;
pub mod keyring;
pub mod loader;
pub mod manifest;
pub mod measurement;
pub mod modules;
pub mod nearest;
pub mod packages;
pub mod packed;
pub mod pcr;
mod percent;
pub mod prediction;
pub mod rpm;
pub mod select;
pub mod setup;
pub mod sign;
pub mod status;
pub mod text;
pub mod tpm;
pub mod tree;
pub mod uki;
pub mod verifier;
pub mod verify;
pub mod verity;
pub mod words;
pub mod x509;
pub mod xattr;

pub use ima::hex;

/// A result whose error is a fault of the catalogue: code, cause, remedy.
pub type Result<T> = std::result::Result<T, ima::fault::Fault>;
