//! Public areas of keys in a TPM: what they are, and the signatures by them.

use std::fmt;
use std::path::Path;

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
};
use der::Encode as _;
use der::pem::LineEnding;
use ima::fault::Cause;
use ima::hash::HashAlgorithm;
use rsa::pkcs1::EncodeRsaPublicKey as _;
use tpm2_protocol::basic::{TpmUint16, TpmUint32};
use tpm2_protocol::data::{
    Tpm2bDigest, Tpm2bEccParameter, Tpm2bPublic, Tpm2bPublicKeyRsa, TpmAlgId, TpmEccCurve,
    TpmaObject, TpmsEccParms, TpmsEccPoint, TpmsRsaParms, TpmsSchemeHash, TpmtEccScheme,
    TpmtPublic, TpmtRsaScheme, TpmtSignature, TpmtSymDefObject, TpmuAsymScheme, TpmuPublicId,
    TpmuPublicParms, TpmuSignature, TpmuSymKeyBits, TpmuSymMode,
};

use super::{hash_of, malformed};
use crate::Result;
use crate::file::{in_file, read_bounded};
use crate::key;
use crate::tpm::{decoded, encoded};
use crate::x509::public_key_info;

/// The longest public area that is read from a file, in bytes.
const MAX_FILE: u64 = 4096;

/// The public exponent of RSA keys in a TPM that says 0 (TPM 2.0 Library, part 2, `TPMS_RSA_PARMS`): 65537.
const DEFAULT_EXPONENT: u32 = 0x1_0001;

/// `PolicySecret(TPM_RH_ENDORSEMENT)`: what authorizes the use of an endorsement key (TCG EK Credential Profile 2.5, B.6.2).
const ENDORSEMENT_POLICY: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24,
    0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];

/// The kinds of keys that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// An elliptic curve, NIST P-256.
    P256,
    /// RSA with 2048 bits.
    Rsa2048,
}

/// A signature that is not one by the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// It is not the encoding of a signature.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// It is of an algorithm that is not taken, or not of the key's.
    #[error("its algorithm is not that of the key, or not one that is taken")]
    Algorithm,
    /// It is by another key or of another text.
    #[error("it is by another key, or of another text")]
    Mismatch,
}

/// The public area of a key in a TPM (`TPMT_PUBLIC`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicArea(TpmtPublic);

impl From<Tpm2bPublic> for PublicArea {
    fn from(public: Tpm2bPublic) -> Self {
        Self(public.inner)
    }
}

impl PublicArea {
    /// Reads a public area with its length (`TPM2B_PUBLIC`) from a file, as `imactl attest key` and tpm2-tools write it.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`](ima::fault::Code::InputUnreadable), [`Code::AttestationInput`](ima::fault::Code::AttestationInput).
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&read_bounded(path, MAX_FILE)?).map_err(|fault| in_file(fault, path))
    }

    /// Decodes a public area with its length (`TPM2B_PUBLIC`).
    ///
    /// # Errors
    ///
    /// [`Code::AttestationInput`](ima::fault::Code::AttestationInput).
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        decoded::<Tpm2bPublic>(bytes)
            .map(Self::from)
            .map_err(|error| {
                malformed("no public area of a TPM's key").with_cause(error.to_string())
            })
    }

    /// The public area with its length (`TPM2B_PUBLIC`).
    ///
    /// # Errors
    ///
    /// [`Code::AttestationInput`](ima::fault::Code::AttestationInput) if it has no encoding; none of those that were decoded.
    pub fn encode(&self) -> Result<Vec<u8>> {
        encoded(&Tpm2bPublic::from(self.0.clone())).map_err(|error| malformed(error.to_string()))
    }

    /// The structure.
    pub(super) fn inner(&self) -> &TpmtPublic {
        &self.0
    }

    /// The name, by which the TPM knows the key: the hash algorithm and the digest of the public area (TPM 2.0 Library, part 1, 16).
    ///
    /// # Errors
    ///
    /// [`Code::AttestationInput`](ima::fault::Code::AttestationInput) for a hash algorithm that is not known here.
    pub fn name(&self) -> Result<Vec<u8>> {
        let algorithm = hash_of(self.0.name_alg);
        let digest = encoded(&self.0)
            .ok()
            .and_then(|area| algorithm?.digest(&area))
            .ok_or_else(|| malformed("the key's name is of another hash algorithm than SHA-2"))?;
        Ok([&self.0.name_alg.value().to_be_bytes(), &digest[..]].concat())
    }

    /// Checks that the TPM signs nothing with this key but what it says itself, and that the key was made in this TPM and never
    /// leaves it. With another key, a quote can be forged.
    ///
    /// # Errors
    ///
    /// [`Code::AttestationInput`](ima::fault::Code::AttestationInput).
    pub fn check_attests(&self) -> Result<()> {
        let attributes = self.0.object_attributes;
        let has = |attribute| attributes.contains(attribute);
        let lacks = if !has(TpmaObject::RESTRICTED | TpmaObject::SIGN_ENCRYPT)
            || has(TpmaObject::DECRYPT)
        {
            "restricted to signing"
        } else if !has(TpmaObject::FIXED_TPM | TpmaObject::FIXED_PARENT) {
            "fixed to its TPM"
        } else if !has(TpmaObject::SENSITIVE_DATA_ORIGIN) {
            "made by the TPM"
        } else {
            return Ok(());
        };
        Err(malformed("the key cannot attest").because(Cause::KEY_WITHOUT_ATTRIBUTE.with(&[lacks])))
    }

    /// Checks that the key is an endorsement key's: restricted to decryption and fixed to its TPM.
    ///
    /// # Errors
    ///
    /// [`Code::AttestationInput`](ima::fault::Code::AttestationInput).
    pub fn check_endorses(&self) -> Result<()> {
        let required = TpmaObject::RESTRICTED
            | TpmaObject::DECRYPT
            | TpmaObject::FIXED_TPM
            | TpmaObject::FIXED_PARENT
            | TpmaObject::SENSITIVE_DATA_ORIGIN;
        if self.0.object_attributes.contains(required)
            && !self.0.object_attributes.contains(TpmaObject::SIGN_ENCRYPT)
        {
            return Ok(());
        }
        Err(malformed("the key is no endorsement key")
            .because(Cause::KEY_WITHOUT_ATTRIBUTE.with(&["restricted to decryption"])))
    }

    /// Checks that a signature in the TPM's encoding (`TPMT_SIGNATURE`) is one of `message` by this key, and returns its hash
    /// algorithm. ECDSA on P-256 with SHA-256 and on P-384 with SHA-384, and RSASSA with SHA-2, are taken.
    ///
    /// # Errors
    ///
    /// [`BadSignature`].
    pub fn verify(
        &self,
        message: &[u8],
        signature: &[u8],
    ) -> std::result::Result<HashAlgorithm, BadSignature> {
        let signature = decoded::<TpmtSignature>(signature)
            .map_err(|error| BadSignature::Malformed(error.to_string()))?;
        match (self.0.parameters, &self.0.unique, &signature.signature) {
            (
                TpmuPublicParms::Ecc(parameters),
                TpmuPublicId::Ecc(point),
                TpmuSignature::Ecdsa(signature),
            ) => {
                let algorithm = hash_of(signature.hash).ok_or(BadSignature::Algorithm)?;
                let (length, verifier) = match (parameters.curve_id, algorithm) {
                    (TpmEccCurve::NistP256, HashAlgorithm::Sha256) => {
                        (32, &ECDSA_P256_SHA256_FIXED)
                    }
                    (TpmEccCurve::NistP384, HashAlgorithm::Sha384) => {
                        (48, &ECDSA_P384_SHA384_FIXED)
                    }
                    _ => return Err(BadSignature::Algorithm),
                };
                let key = sec1(point, length).ok_or(BadSignature::Mismatch)?;
                let numbers = [&*signature.signature_r, &*signature.signature_s]
                    .map(|number| padded(number, length));
                let [Some(r), Some(s)] = numbers else {
                    return Err(BadSignature::Mismatch);
                };
                UnparsedPublicKey::new(verifier, key)
                    .verify(message, &[r, s].concat())
                    .map_err(|_| BadSignature::Mismatch)?;
                Ok(algorithm)
            }
            (
                TpmuPublicParms::Rsa(parameters),
                TpmuPublicId::Rsa(modulus),
                TpmuSignature::Rsassa(signature),
            ) => {
                let algorithm = hash_of(signature.hash).ok_or(BadSignature::Algorithm)?;
                let verifier = match algorithm {
                    HashAlgorithm::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
                    HashAlgorithm::Sha384 => &RSA_PKCS1_2048_8192_SHA384,
                    HashAlgorithm::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
                    _ => return Err(BadSignature::Algorithm),
                };
                let exponent = exponent(&parameters).to_be_bytes();
                let key = PublicKeyComponents {
                    n: without_zeros(modulus),
                    e: without_zeros(&exponent),
                };
                key.verify(verifier, message, &signature.sig)
                    .map_err(|_| BadSignature::Mismatch)?;
                Ok(algorithm)
            }
            _ => Err(BadSignature::Algorithm),
        }
    }

    /// The public key as a SubjectPublicKeyInfo in DER: RSA, and elliptic curves P-256 and P-384.
    ///
    /// # Errors
    ///
    /// [`Code::AttestationInput`](ima::fault::Code::AttestationInput) for another kind of key, or a point that is not on the curve.
    pub fn to_der(&self) -> Result<Vec<u8>> {
        let unknown = || malformed("the key is neither RSA nor on P-256 or P-384");
        let (kind, key) = match (self.0.parameters, &self.0.unique) {
            (TpmuPublicParms::Ecc(parameters), TpmuPublicId::Ecc(point)) => {
                match parameters.curve_id {
                    TpmEccCurve::NistP256 => sec1(point, 32)
                        .filter(|key| p256::PublicKey::from_sec1_bytes(key).is_ok())
                        .map(|key| (key::KeyKind::P256, key)),
                    TpmEccCurve::NistP384 => sec1(point, 48)
                        .filter(|key| p384::PublicKey::from_sec1_bytes(key).is_ok())
                        .map(|key| (key::KeyKind::P384, key)),
                    _ => None,
                }
            }
            (TpmuPublicParms::Rsa(parameters), TpmuPublicId::Rsa(modulus)) => {
                let modulus = rsa::BoxedUint::from_be_slice_vartime(modulus);
                rsa::RsaPublicKey::new(modulus, exponent(&parameters).into())
                    .ok()
                    .and_then(|key| key.to_pkcs1_der().ok())
                    .map(|key| {
                        let bits = parameters.key_bits.value().into();
                        (key::KeyKind::Rsa(bits), key.into_vec())
                    })
            }
            _ => None,
        }
        .ok_or_else(unknown)?;
        public_key_info(kind, &key)
            .and_then(|info| info.to_der())
            .map_err(|_| unknown())
    }

    /// The public key in PEM (`PUBLIC KEY`).
    ///
    /// # Errors
    ///
    /// As [`to_der`](Self::to_der).
    pub fn to_pem(&self) -> Result<String> {
        let der = self.to_der()?;
        der::pem::encode_string("PUBLIC KEY", LineEnding::LF, &der)
            .map_err(|error| malformed(error.to_string()))
    }

    /// The template of an attestation key: restricted to signing, without a password, and outside the protection against
    /// dictionary attacks, which a key without a password does not need.
    #[must_use]
    pub fn attestation_template(kind: KeyKind) -> Self {
        let scheme = TpmuAsymScheme::Hash(TpmsSchemeHash {
            hash_alg: TpmAlgId::Sha256,
        });
        let attributes = TpmaObject::FIXED_TPM
            | TpmaObject::FIXED_PARENT
            | TpmaObject::SENSITIVE_DATA_ORIGIN
            | TpmaObject::USER_WITH_AUTH
            | TpmaObject::NO_DA
            | TpmaObject::RESTRICTED
            | TpmaObject::SIGN_ENCRYPT;
        let (parameters, unique) = match kind {
            KeyKind::P256 => ecc(
                TpmtSymDefObject {
                    algorithm: TpmAlgId::Null,
                    ..TpmtSymDefObject::default()
                },
                TpmtEccScheme {
                    scheme: TpmAlgId::Ecdsa,
                    details: scheme,
                },
                &[],
            ),
            KeyKind::Rsa2048 => rsa_2048(
                TpmtSymDefObject {
                    algorithm: TpmAlgId::Null,
                    ..TpmtSymDefObject::default()
                },
                TpmtRsaScheme {
                    scheme: TpmAlgId::Rsassa,
                    details: scheme,
                },
                &[],
            ),
        };
        Self::template(kind, attributes, &[], parameters, unique)
    }

    /// The template of the endorsement key for which manufacturers make certificates: L-1 for RSA with 2048 bits, L-2 for P-256
    /// (TCG EK Credential Profile 2.5, B.3.3 and B.3.4).
    #[must_use]
    pub fn endorsement_template(kind: KeyKind) -> Self {
        let attributes = TpmaObject::FIXED_TPM
            | TpmaObject::FIXED_PARENT
            | TpmaObject::SENSITIVE_DATA_ORIGIN
            | TpmaObject::ADMIN_WITH_POLICY
            | TpmaObject::RESTRICTED
            | TpmaObject::DECRYPT;
        let symmetric = TpmtSymDefObject {
            algorithm: TpmAlgId::Aes,
            key_bits: TpmuSymKeyBits::Aes(TpmUint16::from(128)),
            mode: TpmuSymMode::Aes(TpmAlgId::Cfb),
        };
        let (parameters, unique) = match kind {
            KeyKind::P256 => ecc(symmetric, TpmtEccScheme::default(), &[0; 32]),
            KeyKind::Rsa2048 => rsa_2048(symmetric, TpmtRsaScheme::default(), &[0; 256]),
        };
        Self::template(kind, attributes, &ENDORSEMENT_POLICY, parameters, unique)
    }

    fn template(
        kind: KeyKind,
        attributes: TpmaObject,
        policy: &[u8],
        parameters: TpmuPublicParms,
        unique: TpmuPublicId,
    ) -> Self {
        Self(TpmtPublic {
            object_type: match kind {
                KeyKind::P256 => TpmAlgId::Ecc,
                KeyKind::Rsa2048 => TpmAlgId::Rsa,
            },
            name_alg: TpmAlgId::Sha256,
            object_attributes: attributes,
            auth_policy: Tpm2bDigest::try_from(policy).unwrap_or_default(),
            parameters,
            unique,
        })
    }
}

fn ecc(
    symmetric: TpmtSymDefObject,
    scheme: TpmtEccScheme,
    coordinate: &[u8],
) -> (TpmuPublicParms, TpmuPublicId) {
    let coordinate = Tpm2bEccParameter::try_from(coordinate).unwrap_or_default();
    (
        TpmuPublicParms::Ecc(TpmsEccParms {
            symmetric,
            scheme,
            curve_id: TpmEccCurve::NistP256,
            ..TpmsEccParms::default()
        }),
        TpmuPublicId::Ecc(TpmsEccPoint {
            x: coordinate,
            y: coordinate,
        }),
    )
}

fn rsa_2048(
    symmetric: TpmtSymDefObject,
    scheme: TpmtRsaScheme,
    modulus: &[u8],
) -> (TpmuPublicParms, TpmuPublicId) {
    (
        TpmuPublicParms::Rsa(TpmsRsaParms {
            symmetric,
            scheme,
            key_bits: TpmUint16::from(2048),
            exponent: TpmUint32::from(0),
        }),
        TpmuPublicId::Rsa(Tpm2bPublicKeyRsa::try_from(modulus).unwrap_or_default()),
    )
}

fn exponent(parameters: &TpmsRsaParms) -> u32 {
    match parameters.exponent.value() {
        0 => DEFAULT_EXPONENT,
        exponent => exponent,
    }
}

/// An uncompressed point with coordinates of `length` bytes (SEC 1, 2.3.3).
pub(super) fn sec1(point: &TpmsEccPoint, length: usize) -> Option<Vec<u8>> {
    Some(
        [
            vec![4],
            padded(&point.x, length)?,
            padded(&point.y, length)?,
        ]
        .concat(),
    )
}

/// A number of at most `length` bytes with zeros in front.
fn padded(number: &[u8], length: usize) -> Option<Vec<u8>> {
    let zeros = length.checked_sub(number.len())?;
    Some([&vec![0; zeros], number].concat())
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "p256",
            Self::Rsa2048 => "rsa2048",
        })
    }
}

impl std::str::FromStr for KeyKind {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        [Self::P256, Self::Rsa2048]
            .into_iter()
            .find(|kind| kind.to_string() == name)
            .ok_or_else(|| format!("`{name}`: give p256 or rsa2048"))
    }
}
