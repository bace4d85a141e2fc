//! Private keys: a trait for whatever can sign a digest (`signer.rs`), and one file a backend: keys in files, in tokens, behind a
//! command.

mod command;
mod ecdsa;
mod file;
mod kind;
mod legacy;
mod password;
mod pem;
mod sha3;
mod signer;
#[cfg(feature = "pkcs11")]
mod token;
#[cfg(feature = "pkcs11")]
mod uri;
mod weak;

use std::path::Path;
use std::sync::Arc;

use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};

use crate::Result;

pub use command::CommandSigner;
pub use file::FileKey;
pub use kind::{KeyKind, check_signs_digests, check_verifiable};
pub use password::{PasswordSource, no_password};
pub(crate) use signer::check_digest;
pub use signer::{SIGNED, Signer, check_belongs};
#[cfg(feature = "pkcs11")]
pub use token::TokenKey;
pub use weak::WeakKey;

/// Whether a key's name is the URI of one in a token (RFC 7512) and not a file's.
#[must_use]
pub fn is_token(name: &Path) -> bool {
    name.as_os_str().as_encoded_bytes().starts_with(b"pkcs11:")
}

/// Opens a private key by its name: a file, or a `pkcs11:` URI. With a certificate, the key must be its.
///
/// # Errors
///
/// Those of [`FileKey::load`] and [`TokenKey::open`]; [`Code::KeyMismatch`] if the key does not belong to the certificate.
pub fn open(
    name: &Path,
    password: PasswordSource<'_>,
    certificate: Option<&Certificate>,
) -> Result<Arc<dyn Signer>> {
    if is_token(name) {
        return open_token(name, password, certificate);
    }
    let key = FileKey::load(name, password)?;
    if let Some(certificate) = certificate {
        check_belongs(&key, certificate)?;
    }
    Ok(Arc::new(key))
}

#[cfg(feature = "pkcs11")]
fn open_token(
    name: &Path,
    pin: PasswordSource<'_>,
    certificate: Option<&Certificate>,
) -> Result<Arc<dyn Signer>> {
    let uri = name.to_str().ok_or_else(|| {
        Fault::new(Code::Usage, "the pkcs11: URI is not UTF-8").because(Cause::PKCS11_URI)
    })?;
    Ok(Arc::new(TokenKey::open(uri, pin, certificate)?))
}

#[cfg(not(feature = "pkcs11"))]
fn open_token(_: &Path, _: PasswordSource<'_>, _: Option<&Certificate>) -> Result<Arc<dyn Signer>> {
    Err(Fault::new(Code::TokenUnusable, "keys in tokens").because(Cause::BUILT_WITHOUT_PKCS11))
}
