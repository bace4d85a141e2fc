//! The kernel's keyrings: putting certificates onto them, seeing what is there, and why the kernel refuses one.

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

mod refusal;
mod syscalls;

use linux_keyutils::{Key, KeySerialId};

pub use nix::errno::Errno;
pub use refusal::{Kernel, certificate as refusal};
pub use syscalls::{Keyring, add_certificate, add_key, add_keyring};

/// The longest content of a keyring that is read: so many keys times four bytes.
const MAX_CONTENT: usize = 64 << 10;

/// The serial numbers of what is on a keyring (keyctl(2), KEYCTL_READ).
///
/// # Errors
///
/// EACCES for a keyring this process may not read, ENOKEY for one that is not there.
pub fn content(keyring: Keyring) -> Result<Vec<i32>, Errno> {
    let mut content = vec![0; MAX_CONTENT];
    let length = Key::from_id(KeySerialId::new(keyring.id()))
        .read(&mut content)
        .map_err(errno)?;
    // The length is what there is, which may be more than was room for.
    let content = content.get(..length).unwrap_or(&content);
    Ok(content
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| i32::from_ne_bytes(*bytes))
        .collect())
}

fn errno(error: linux_keyutils::KeyError) -> Errno {
    use linux_keyutils::KeyError;
    match error {
        KeyError::AccessDenied => Errno::EACCES,
        KeyError::KeyDoesNotExist => Errno::ENOKEY,
        KeyError::KeyExpired => Errno::EKEYEXPIRED,
        KeyError::KeyRevoked => Errno::EKEYREVOKED,
        KeyError::PermissionDenied => Errno::EPERM,
        _ => Errno::EIO,
    }
}
