//! Where the password of a private key comes from.

use ima::fault::{Code, Fault};

use crate::Result;

/// Gives the password of a key, asked for only when the key turns out to be encrypted.
pub type PasswordSource<'a> = &'a dyn Fn() -> Result<Vec<u8>>;

/// A [`PasswordSource`] for keys that must not be encrypted.
///
/// # Errors
///
/// Always [`Code::KeyPassword`].
pub fn no_password() -> Result<Vec<u8>> {
    Err(Fault::new(
        Code::KeyPassword,
        "it is encrypted, and no password was given",
    ))
}
