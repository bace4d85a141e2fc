//! The kinds of key that are made and used.

use std::fmt;

use ima::certificate::{Certificate, Curve, LeafDefect, MlDsa, PublicKey, is_rsa_length};
use ima::fault::{Cause, Code, Fault};
use ima::oid::{ObjectIdentifier, SECP_256_R_1, SECP_384_R_1, SECP_521_R_1};

use crate::Result;

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
    /// ML-DSA.
    MlDsa(MlDsa),
}

impl KeyKind {
    /// The kinds `keygen` offers, by the names it takes.
    pub const OFFERED: [(&'static str, KeyKind); 9] = [
        ("rsa2048", KeyKind::Rsa(2048)),
        ("rsa3072", KeyKind::Rsa(3072)),
        ("rsa4096", KeyKind::Rsa(4096)),
        ("p256", KeyKind::P256),
        ("p384", KeyKind::P384),
        ("p521", KeyKind::P521),
        ("mldsa44", KeyKind::MlDsa(MlDsa::MlDsa44)),
        ("mldsa65", KeyKind::MlDsa(MlDsa::MlDsa65)),
        ("mldsa87", KeyKind::MlDsa(MlDsa::MlDsa87)),
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
            PublicKey::MlDsa(set) => Ok(Self::MlDsa(*set)),
            other => Err(Fault::new(
                Code::CertificateUnusable,
                format!("`{}`", certificate.subject()),
            )
            .because(Cause::KEY_KIND_UNUSED.with(&[&other.to_string(), USED]))),
        }
    }

    /// The curve, if it is on one.
    #[must_use]
    pub const fn curve(self) -> Option<Curve> {
        match self {
            Self::Rsa(_) | Self::MlDsa(_) => None,
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
            Self::MlDsa(set) => write!(f, "{set}"),
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

/// The kind of key on the curve of that name (RFC 5480 section 2.1.1.1).
pub(super) fn curve_by_oid(oid: ObjectIdentifier) -> Option<KeyKind> {
    match oid {
        SECP_256_R_1 => Some(KeyKind::P256),
        SECP_384_R_1 => Some(KeyKind::P384),
        SECP_521_R_1 => Some(KeyKind::P521),
        _ => None,
    }
}

/// The kinds of key that are used, for a person.
pub(super) const USED: &str = "RSA, P-256, P-384, P-521 and ML-DSA";

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

/// Checks that a key of this kind signs digests. ML-DSA signs messages, and only a key in a file is used for that.
///
/// # Errors
///
/// [`Code::SigningFailed`].
pub fn check_signs_digests(kind: KeyKind) -> Result<()> {
    match kind {
        KeyKind::MlDsa(_) => Err(no_digests(kind)),
        _ => Ok(()),
    }
}

/// That a key of this kind signs no digests.
pub(super) fn no_digests(kind: KeyKind) -> Fault {
    Fault::new(Code::SigningFailed, format!("a digest with {kind}")).because(Cause::ML_DSA_DIGEST)
}
