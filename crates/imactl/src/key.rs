//! Private keys: a trait for whatever can sign a digest, and one file a backend: keys in files, in tokens, behind a command.

mod command;
mod file;
mod legacy;
mod sha3;
#[cfg(feature = "pkcs11")]
mod token;
#[cfg(feature = "pkcs11")]
mod uri;
mod weak;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ima::certificate::{Certificate, Curve, LeafDefect, PublicKey, is_rsa_length};
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::oid::{ObjectIdentifier, SECP_256_R_1, SECP_384_R_1, SECP_521_R_1};

use crate::Result;

pub use command::CommandSigner;
pub use file::{FileKey, PasswordSource, no_password};
#[cfg(feature = "pkcs11")]
pub use token::TokenKey;
pub use weak::WeakKey;

/// Something that signs digests: a key in a file, in a token, behind a service.
pub trait Signer: Send + Sync + fmt::Debug {
    /// The public key as it stands in a certificate's BIT STRING: DER of RSAPublicKey, or an uncompressed SEC 1 point.
    fn public_key(&self) -> &[u8];

    /// The kind of key.
    fn kind(&self) -> KeyKind;

    /// Signs `digest`, computed with `algo`, in the form `security.ima` holds: EMSA-PKCS1-v1_5 for RSA, DER of
    /// `SEQUENCE { r, s }` for ECDSA with the digest truncated to the curve.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`] for an algorithm the key cannot sign, or a digest of the wrong length.
    fn sign_digest(&self, algo: HashAlgorithm, digest: &[u8]) -> Result<Vec<u8>>;
}

/// The kind of key on the curve of that name (RFC 5480 section 2.1.1.1).
pub(crate) fn curve_by_oid(oid: ObjectIdentifier) -> Option<KeyKind> {
    match oid {
        SECP_256_R_1 => Some(KeyKind::P256),
        SECP_384_R_1 => Some(KeyKind::P384),
        SECP_521_R_1 => Some(KeyKind::P521),
        _ => None,
    }
}

/// The kinds of key that are used, for a person.
pub(crate) const USED: &str = "RSA, P-256, P-384 and P-521";

/// The algorithms that signatures are made with. SHA-1 is only verified: whoever can choose a file's content finds another
/// with the same digest.
pub const SIGNED: [HashAlgorithm; 6] = [
    HashAlgorithm::Sha256,
    HashAlgorithm::Sha384,
    HashAlgorithm::Sha512,
    HashAlgorithm::Sha3_256,
    HashAlgorithm::Sha3_384,
    HashAlgorithm::Sha3_512,
];

/// Checks that digests of `algo` are signed and that `digest` is one.
///
/// # Errors
///
/// [`Code::SigningFailed`].
pub(crate) fn check_digest(algo: HashAlgorithm, digest: &[u8]) -> Result<()> {
    if !SIGNED.contains(&algo) {
        let cause = match algo {
            HashAlgorithm::Md5 | HashAlgorithm::Sha1 => Cause::DIGEST_TOO_WEAK,
            _ => Cause::DIGEST_NOT_COMPUTED,
        };
        return Err(Fault::new(Code::SigningFailed, format!("a digest of {algo}")).because(cause));
    }
    if digest.len() != algo.digest_len() {
        return Err(Fault::new(
            Code::SigningFailed,
            format!("{algo} digest of {} bytes", digest.len()),
        )
        .because(Cause::DIGEST_LENGTH.with(&[&algo.to_string(), &algo.digest_len().to_string()])));
    }
    Ok(())
}

/// The kinds of key that are made and used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// RSA with a modulus of so many bits.
    Rsa(u32),
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
}

impl KeyKind {
    /// The kinds `keygen` offers, by the names it takes.
    pub const OFFERED: [(&'static str, KeyKind); 6] = [
        ("rsa2048", KeyKind::Rsa(2048)),
        ("rsa3072", KeyKind::Rsa(3072)),
        ("rsa4096", KeyKind::Rsa(4096)),
        ("p256", KeyKind::P256),
        ("p384", KeyKind::P384),
        ("p521", KeyKind::P521),
    ];

    /// The kind of a certificate's key.
    ///
    /// # Errors
    ///
    /// [`Code::CertificateUnusable`] for a kind that is not used.
    pub fn of(certificate: &Certificate) -> Result<Self> {
        match certificate.key() {
            PublicKey::Rsa { bits } => Ok(Self::Rsa(*bits)),
            PublicKey::Ec { curve: Curve::P256 } => Ok(Self::P256),
            PublicKey::Ec { curve: Curve::P384 } => Ok(Self::P384),
            PublicKey::Ec { curve: Curve::P521 } => Ok(Self::P521),
            other => Err(Fault::new(
                Code::CertificateUnusable,
                format!("`{}`", certificate.subject()),
            )
            .because(Cause::KEY_KIND_UNUSED.with(&[&other.to_string(), USED]))),
        }
    }

    /// The curve; `None` for RSA.
    #[must_use]
    pub const fn curve(self) -> Option<Curve> {
        match self {
            Self::Rsa(_) => None,
            Self::P256 => Some(Curve::P256),
            Self::P384 => Some(Curve::P384),
            Self::P521 => Some(Curve::P521),
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA-{bits}"),
            Self::P256 => f.write_str("P-256"),
            Self::P384 => f.write_str("P-384"),
            Self::P521 => f.write_str("P-521"),
        }
    }
}

impl std::str::FromStr for KeyKind {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let plain = name.to_ascii_lowercase().replace(['-', ':', '_'], "");
        Self::OFFERED
            .into_iter()
            .find_map(|(offered, kind)| (offered == plain).then_some(kind))
            .ok_or_else(|| {
                format!(
                    "no such kind of key; there are {}",
                    Self::OFFERED.map(|(name, _)| name).join(", ")
                )
            })
    }
}

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

/// Checks that the kernel computes with keys of this kind.
///
/// # Errors
///
/// [`Code::CertificateUnusable`].
pub fn check_verifiable(kind: KeyKind) -> Result<()> {
    match kind {
        KeyKind::Rsa(bits) if !is_rsa_length(bits) => Err(Fault::new(
            Code::CertificateUnusable,
            format!("an {kind} key"),
        )
        .because(Cause::KEY_NOT_VERIFIABLE.with(&[&LeafDefect::RsaLength(bits).to_string()]))),
        _ => Ok(()),
    }
}

/// Checks that `signer` holds the private key of `certificate`.
///
/// # Errors
///
/// [`Code::KeyMismatch`].
pub fn check_belongs(signer: &dyn Signer, certificate: &Certificate) -> Result<()> {
    if certificate.public_key_bytes() == signer.public_key() {
        return Ok(());
    }
    Err(Fault::new(
        Code::KeyMismatch,
        format!(
            "the certificate of `{}` is for a {} key",
            certificate.subject(),
            certificate.key()
        ),
    )
    .because(Cause::KEYS_DIFFER.with(&[&signer.kind().to_string()])))
}
/// The fault of a private key that cannot be read.
fn malformed(detail: impl Into<String>) -> Fault {
    Fault::new(Code::PrivateKeyMalformed, detail)
}
