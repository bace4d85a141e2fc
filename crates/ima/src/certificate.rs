//! X.509 certificates, as far as the integrity keyrings need them.
//!
//! Reads what the kernel's `x509_cert_parser.c` reads and says what `restrict_link_by_digsig` would object to. It explains
//! and never decides: which certificate is taken is the kernel's affair.

use core::fmt;

use der::asn1::{AnyRef, BitStringRef, UintRef};
use der::{Decode as _, Reader as _, SliceReader, Tag, TagNumber};
use sha1::{Digest as _, Sha1};
use x509_cert::time::Time;

pub use crate::asn1::DerError;
use crate::asn1::{
    algorithm, context, element, end, identifier, inner, next_is, optional, whole, with_header,
};
use crate::distinguished_name::DistinguishedName;
use crate::fault::{Cause, Code, Explanation, Fault};
use crate::oid::{
    ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE,
    ID_CE_SUBJECT_KEY_IDENTIFIER, ID_EC_PUBLIC_KEY, ML_DSA_44, ML_DSA_65, ML_DSA_87,
    ORGANIZATIONAL_UNIT, ObjectIdentifier, PRIME_192_V1, RSA_ENCRYPTION, SECP_256_R_1,
    SECP_384_R_1, SECP_521_R_1,
};
use crate::signature::KeyId;

/// The organizational unit in the subject of every sample certificate. Its private key is public knowledge.
pub const SAMPLE_MARK: &str = "SAMPLE KEY - NOT FOR PRODUCTION";

/// The longest certificate the kernel takes, in bytes of DER (`x509_akid_note_kid` and the BER decoder's 16-bit lengths:
/// EMSGSIZE above).
pub const MAX_DER_LEN: usize = 65535;

/// The longest file [`Certificate::parse_all`] reads.
const MAX_FILE_LEN: usize = 1 << 20;

const PEM_BEGIN: &[u8] = b"-----BEGIN ";
const PEM_END: &[u8] = b"-----END ";

/// A certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    tbs_der: Vec<u8>,
    signature_algorithm: ObjectIdentifier,
    signature: Vec<u8>,
    serial: Vec<u8>,
    issuer: Vec<u8>,
    subject: Vec<u8>,
    not_before: u64,
    not_after: u64,
    /// The content of the BIT STRING of the SubjectPublicKeyInfo.
    public_key: Vec<u8>,
    key: PublicKey,
    extensions: Extensions,
}

/// The extensions that matter to the kernel.
#[derive(Clone, Default, PartialEq, Eq)]
struct Extensions {
    skid: Option<Vec<u8>>,
    akid: Option<Vec<u8>>,
    key_usage: Option<KeyUsage>,
    basic_constraints: Option<Constraints>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Constraints {
    ca: bool,
    /// `CA:FALSE` written out, which the kernel takes for a malformed certificate.
    explicit_false: bool,
}

/// The kind of a certificate's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// RSA.
    Rsa {
        /// Length of the modulus in bits.
        bits: u32,
    },
    /// A key on an elliptic curve.
    Ec {
        /// The curve.
        curve: Curve,
    },
    /// ML-DSA (FIPS 204). The kernel has it for signatures of version 3, from Linux 7.2 on.
    MlDsa(MlDsa),
    /// An algorithm or curve this crate does not know.
    Other {
        /// Its object identifier.
        oid: ObjectIdentifier,
    },
}

/// The parameter sets of ML-DSA (FIPS 204, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the documentation
pub enum MlDsa {
    MlDsa44,
    MlDsa65,
    MlDsa87,
}

impl MlDsa {
    /// All of them, the smallest first.
    pub const ALL: [Self; 3] = [Self::MlDsa44, Self::MlDsa65, Self::MlDsa87];

    /// The object identifier of its keys and of its signatures.
    #[must_use]
    pub const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::MlDsa44 => ML_DSA_44,
            Self::MlDsa65 => ML_DSA_65,
            Self::MlDsa87 => ML_DSA_87,
        }
    }

    /// The set of that object identifier.
    #[must_use]
    pub fn from_oid(oid: ObjectIdentifier) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.oid() == oid)
    }
}

impl fmt::Display for MlDsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MlDsa44 => "ML-DSA-44",
            Self::MlDsa65 => "ML-DSA-65",
            Self::MlDsa87 => "ML-DSA-87",
        })
    }
}

/// A curve the kernel knows (`x509_extract_key_data`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the documentation
pub enum Curve {
    P192,
    P256,
    P384,
    P521,
}

impl Curve {
    /// Length of a coordinate in bytes.
    #[must_use]
    pub const fn field_len(self) -> usize {
        match self {
            Self::P192 => 24,
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

/// The lengths of RSA keys that the kernel computes with, in bits (crypto/rsa.c, `rsa_check_key_length`). It takes a certificate
/// of another length onto a keyring and then refuses every signature by its key.
pub const RSA_BITS: [u32; 6] = [512, 1024, 1536, 2048, 3072, 4096];

/// Whether the kernel computes with RSA keys of this length. The kernel counts whole limbs of 64 bits (`mpi_get_size`).
#[must_use]
pub fn is_rsa_length(bits: u32) -> bool {
    bits.checked_next_multiple_of(64)
        .is_some_and(|rounded| RSA_BITS.contains(&rounded))
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P192 => "P-192",
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA-{bits}"),
            Self::Ec { curve } => write!(f, "{curve}"),
            Self::MlDsa(set) => write!(f, "{set}"),
            Self::Other { oid } => write!(f, "algorithm {oid}"),
        }
    }
}

/// The bits of a keyUsage extension that matter to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUsage {
    /// May sign data.
    pub digital_signature: bool,
    /// May sign certificates.
    pub key_cert_sign: bool,
}

/// What keeps a certificate off `.ima` and `.evm`, whoever signed it (`restrict_link_by_digsig`,
/// `x509_process_extension`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeafDefect {
    /// No keyUsage, or one without digitalSignature: ENOKEY.
    NoDigitalSignature,
    /// basicConstraints with the CA bit: ENOKEY.
    CaBit,
    /// keyUsage with keyCertSign: ENOKEY.
    KeyCertSign,
    /// basicConstraints with CA:FALSE written out instead of left to its default: EBADMSG.
    ExplicitCaFalse,
    /// No subject key identifier: no signature can name the key.
    NoSkid,
    /// An algorithm or curve the kernel has no code for: ENOPKG.
    UnsupportedKey,
    /// An RSA key of a length that is not among [`RSA_BITS`]: the kernel verifies no signature by it.
    RsaLength(u32),
}

impl LeafDefect {
    /// Whether the kernel refuses the certificate; otherwise it takes the certificate and verifies no signature with it.
    #[must_use]
    pub const fn is_refused(self) -> bool {
        !matches!(self, Self::NoSkid | Self::RsaLength(_))
    }

    /// The cause of a fault that it is.
    #[must_use]
    pub fn cause(self) -> Explanation {
        let cause = match self {
            Self::RsaLength(bits) => {
                let lengths = RSA_BITS.map(|bits| bits.to_string()).join(", ");
                return Cause::RSA_LENGTH.with(&[&bits.to_string(), &lengths]);
            }
            Self::NoDigitalSignature => Cause::NO_DIGITAL_SIGNATURE,
            Self::CaBit => Cause::CA_CERTIFICATE,
            Self::KeyCertSign => Cause::KEY_CERT_SIGN,
            Self::ExplicitCaFalse => Cause::EXPLICIT_CA_FALSE,
            Self::NoSkid => Cause::NO_SKID,
            Self::UnsupportedKey => Cause::KEY_KIND_UNSUPPORTED,
        };
        cause.into()
    }
}

impl fmt::Display for LeafDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause().fmt(f)
    }
}

/// Why bytes are not a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No byte, or nothing but white space.
    #[error("empty")]
    Empty,
    /// Longer than the kernel takes.
    #[error("{0} bytes; the kernel takes at most 65535")]
    TooLong(usize),
    /// The DER ends before its outermost SEQUENCE does.
    #[error("truncated: {found} bytes of {announced}")]
    Truncated {
        /// The length the outermost SEQUENCE announces.
        announced: usize,
        /// The length of the file.
        found: usize,
    },
    /// Bytes after the certificate.
    #[error("{0} bytes after the certificate")]
    TrailingData(usize),
    /// A PEM file without a certificate.
    #[error("PEM without a certificate, but with a {0}")]
    NoCertificate(String),
    /// A PEM block that is not well formed.
    #[error("malformed PEM: {0}")]
    Pem(String),
    /// Several certificates where one is asked for.
    #[error("{0} certificates in one file")]
    Several(usize),
    /// Not DER, or not the DER of a certificate.
    #[error("malformed certificate: {0}")]
    Der(DerError),
    /// An extension that is malformed.
    #[error("malformed {name} extension: {error}")]
    Extension {
        /// The extension's name.
        name: &'static str,
        /// What is wrong.
        error: DerError,
    },
}

impl From<der::Error> for CertificateError {
    fn from(error: der::Error) -> Self {
        Self::Der(error.into())
    }
}

impl From<DerError> for CertificateError {
    fn from(error: DerError) -> Self {
        Self::Der(error)
    }
}

impl Certificate {
    /// Reads the one certificate of `bytes`, DER or PEM.
    ///
    /// # Errors
    ///
    /// [`CertificateError`], among others for a PEM file with several certificates.
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        let mut all = Self::parse_all(bytes)?;
        match (all.pop(), all.len()) {
            (Some(certificate), 0) => Ok(certificate),
            (_, others) => Err(CertificateError::Several(others.saturating_add(1))),
        }
    }

    /// Reads every certificate of `bytes`: one in DER, or as many as a PEM file holds, at least one.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] for the first that is malformed.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<Self>, CertificateError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(CertificateError::Empty);
        }
        if bytes.len() > MAX_FILE_LEN {
            return Err(CertificateError::TooLong(bytes.len()));
        }
        if find(bytes, PEM_BEGIN).is_none() {
            return Self::parse_der(bytes).map(|certificate| vec![certificate]);
        }
        let mut certificates = Vec::new();
        let mut other = None;
        for block in PemBlocks(bytes) {
            let (label, der) = block?;
            if label == "CERTIFICATE" {
                certificates.push(Self::parse_der(&der)?);
            } else {
                other.get_or_insert(label);
            }
        }
        if certificates.is_empty() {
            return Err(CertificateError::NoCertificate(other.unwrap_or_default()));
        }
        Ok(certificates)
    }

    /// Reads a certificate in DER and nothing else.
    ///
    /// # Errors
    ///
    /// [`CertificateError`].
    pub fn parse_der(der: &[u8]) -> Result<Self, CertificateError> {
        check_length(der)?;
        let mut outer = whole(der, Tag::Sequence)?;
        let tbs_der = with_header(&mut outer)?;
        let signature_algorithm = algorithm(&mut outer)?;
        let signature = bits(&mut outer)?;
        end(outer)?;

        let mut tbs = whole(tbs_der, Tag::Sequence)?;
        optional(&mut tbs, context(0))?; // the version
        let serial = element(&mut tbs, Tag::Integer)?;
        algorithm(&mut tbs)?;
        let issuer = name(&mut tbs)?;
        let mut validity = inner(&mut tbs, Tag::Sequence)?;
        let not_before = seconds(&mut validity)?;
        let not_after = seconds(&mut validity)?;
        end(validity)?;
        let subject = name(&mut tbs)?;
        let key_info = with_header(&mut tbs)?;
        for number in [1, 2] {
            // The identifiers of version 2.
            optional(&mut tbs, unique_identifier(number))?;
        }
        let extensions = match optional(&mut tbs, context(3))? {
            Some(list) => Extensions::parse(list)?,
            None => Extensions::default(),
        };
        end(tbs)?;
        let (key, public_key) = public_key(key_info)?;
        Ok(Self {
            der: der.to_vec(),
            tbs_der: tbs_der.to_vec(),
            signature_algorithm,
            signature: signature.to_vec(),
            serial: serial.to_vec(),
            issuer: issuer.to_vec(),
            subject: subject.to_vec(),
            not_before,
            not_after,
            public_key: public_key.to_vec(),
            key,
            extensions,
        })
    }

    /// The certificate in DER, which is what `add_key` takes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The signed part in DER.
    #[must_use]
    pub fn tbs_der(&self) -> &[u8] {
        &self.tbs_der
    }

    /// The object identifier of the algorithm the issuer signed with.
    #[must_use]
    pub fn signature_algorithm(&self) -> ObjectIdentifier {
        self.signature_algorithm
    }

    /// The issuer's signature over [`tbs_der`](Self::tbs_der): raw bytes for RSA, DER for ECDSA.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The subject as RFC 4514 writes names, control characters escaped.
    #[must_use]
    pub fn subject(&self) -> String {
        printable(&self.subject)
    }

    /// The issuer as RFC 4514 writes names, control characters escaped.
    #[must_use]
    pub fn issuer(&self) -> String {
        printable(&self.issuer)
    }

    /// The issuer's name in DER.
    #[must_use]
    pub fn issuer_der(&self) -> &[u8] {
        &self.issuer
    }

    /// The subject's name in DER.
    #[must_use]
    pub fn subject_der(&self) -> &[u8] {
        &self.subject
    }

    /// The serial number, big-endian.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The subject key identifier, if the certificate has one.
    #[must_use]
    pub fn skid(&self) -> Option<&[u8]> {
        self.extensions.skid.as_deref()
    }

    /// The key identifier of the authority key identifier, if the certificate has one.
    #[must_use]
    pub fn akid(&self) -> Option<&[u8]> {
        self.extensions.akid.as_deref()
    }

    /// The id signatures by this certificate's key carry: the end of the subject key identifier or, without one, of the
    /// SHA-1 of the public key (RFC 5280 section 4.2.1.2, method 1), as evmctl does. The kernel finds a key by the former
    /// alone; [`skid`](Self::skid) shows which it is.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.extensions
            .skid
            .as_deref()
            .and_then(KeyId::from_suffix)
            .or_else(|| KeyId::from_suffix(&self.public_key_sha1()))
            .unwrap_or(KeyId([0; 4]))
    }

    /// SHA-1 of the public key's BIT STRING content.
    #[must_use]
    pub fn public_key_sha1(&self) -> [u8; 20] {
        Sha1::digest(self.public_key_bytes()).into()
    }

    /// The kind of the public key.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The content of the public key's BIT STRING: DER of RSAPublicKey, or a SEC 1 point.
    #[must_use]
    pub fn public_key_bytes(&self) -> &[u8] {
        &self.public_key
    }

    /// Whether basicConstraints has the CA bit.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.extensions
            .basic_constraints
            .is_some_and(|constraints| constraints.ca)
    }

    /// The keyUsage extension, if there is one.
    #[must_use]
    pub fn key_usage(&self) -> Option<KeyUsage> {
        self.extensions.key_usage
    }

    /// Start of validity, seconds since 1970. The kernel reads it and never enforces it.
    #[must_use]
    pub fn not_before(&self) -> u64 {
        self.not_before
    }

    /// End of validity, seconds since 1970. The kernel reads it and never enforces it.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Whether the subject carries [`SAMPLE_MARK`]: everybody has the private key.
    #[must_use]
    pub fn is_sample(&self) -> bool {
        DistinguishedName(&self.subject)
            .attributes()
            .is_ok_and(|attributes| {
                attributes.iter().any(|attribute| {
                    attribute.kind == ORGANIZATIONAL_UNIT
                        && attribute.value.value() == SAMPLE_MARK.as_bytes()
                })
            })
    }

    /// Whether subject and issuer are the same name and the key identifiers do not say otherwise. The signature is not
    /// looked at.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        self.subject == self.issuer
            && (self.extensions.akid.is_none() || self.extensions.akid == self.extensions.skid)
    }

    /// Whether the names and key identifiers say that `issuer` signed this certificate, as the kernel looks for the signer
    /// (`find_asymmetric_key`). The signature is not looked at.
    #[must_use]
    pub fn names_issuer(&self, issuer: &Certificate) -> bool {
        match (&self.extensions.akid, &issuer.extensions.skid) {
            (Some(akid), Some(skid)) => akid == skid,
            _ => self.issuer == issuer.subject,
        }
    }

    /// What makes this certificate useless on `.ima` and `.evm` even if a trusted CA signed it; empty if nothing does. Those
    /// that [keep it off the keyring](LeafDefect::is_refused) come first.
    #[must_use]
    pub fn leaf_defects(&self) -> Vec<LeafDefect> {
        let usage = self.extensions.key_usage.unwrap_or(KeyUsage {
            digital_signature: false,
            key_cert_sign: false,
        });
        let rsa_bits = match self.key {
            PublicKey::Rsa { bits } => Some(bits),
            _ => None,
        };
        [
            (
                matches!(self.key, PublicKey::Other { .. }),
                LeafDefect::UnsupportedKey,
            ),
            (
                self.extensions
                    .basic_constraints
                    .is_some_and(|constraints| constraints.explicit_false),
                LeafDefect::ExplicitCaFalse,
            ),
            (self.is_ca(), LeafDefect::CaBit),
            (usage.key_cert_sign, LeafDefect::KeyCertSign),
            (!usage.digital_signature, LeafDefect::NoDigitalSignature),
            (self.extensions.skid.is_none(), LeafDefect::NoSkid),
            (
                rsa_bits.is_some_and(|bits| !is_rsa_length(bits)),
                LeafDefect::RsaLength(rsa_bits.unwrap_or_default()),
            ),
        ]
        .into_iter()
        .filter_map(|(found, defect)| found.then_some(defect))
        .collect()
    }
}

impl Certificate {
    /// The warning about a certificate that the kernel takes onto a keyring and verifies no signature with; `path` is where
    /// it came from.
    #[must_use]
    pub fn useless(&self, path: &str) -> Option<Fault> {
        let defects = self.leaf_defects();
        let defect = defects.iter().find(|defect| !defect.is_refused())?;
        let detail = format!("{path}: {}", self.subject());
        Some(
            Fault::new(Code::CertificateUseless, detail)
                .because(defect.cause().and(Cause::TAKEN_IN_VAIN)),
        )
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject())
            .field("issuer", &self.issuer())
            .field("key", &self.key)
            .field("key_id", &self.key_id())
            .finish_non_exhaustive()
    }
}

/// Compares the outermost SEQUENCE's length with what is there, so that a truncated file is called truncated.
fn check_length(der: &[u8]) -> Result<(), CertificateError> {
    if der.is_empty() {
        return Err(CertificateError::Empty);
    }
    if der.len() > MAX_DER_LEN {
        return Err(CertificateError::TooLong(der.len()));
    }
    let announced = match der {
        [0x30, len, ..] if *len < 0x80 => usize::from(*len).saturating_add(2),
        [0x30, 0x81, len, ..] => usize::from(*len).saturating_add(3),
        [0x30, 0x82, high, low, ..] => {
            usize::from(u16::from_be_bytes([*high, *low])).saturating_add(4)
        }
        // Too short even for its header, or no SEQUENCE: the decoder says which.
        _ => return Ok(()),
    };
    if der.len() < announced {
        return Err(CertificateError::Truncated {
            announced,
            found: der.len(),
        });
    }
    match der.len().saturating_sub(announced) {
        0 => Ok(()),
        trailing => Err(CertificateError::TrailingData(trailing)),
    }
}

/// The next BIT STRING.
#[inline(never)]
fn bits<'a>(reader: &mut SliceReader<'a>) -> Result<&'a [u8], DerError> {
    Ok(BitStringRef::decode(reader)?.raw_bytes())
}

/// The next name in DER, which is well formed.
fn name<'a>(reader: &mut SliceReader<'a>) -> Result<&'a [u8], DerError> {
    let name = with_header(reader)?;
    DistinguishedName(name).attributes().map(|_| name)
}

/// The next time, in seconds since 1970.
fn seconds(reader: &mut SliceReader<'_>) -> Result<u64, DerError> {
    Ok(Time::decode(reader)?.to_unix_duration().as_secs())
}

/// The tag of issuerUniqueID and subjectUniqueID.
const fn unique_identifier(number: u32) -> Tag {
    Tag::ContextSpecific {
        constructed: false,
        number: TagNumber(number),
    }
}

impl Extensions {
    fn parse(list: &[u8]) -> Result<Self, CertificateError> {
        let mut list = whole(list, Tag::Sequence)?;
        let mut found = Self::default();
        while !list.is_finished() {
            let mut extension = inner(&mut list, Tag::Sequence)?;
            let kind = identifier(&mut extension)?;
            optional(&mut extension, Tag::Boolean)?; // whether it is critical
            let value = element(&mut extension, Tag::OctetString)?;
            end(extension)?;
            let (name, result) = match kind {
                ID_CE_SUBJECT_KEY_IDENTIFIER => ("subjectKeyIdentifier", found.take_skid(value)),
                ID_CE_AUTHORITY_KEY_IDENTIFIER => {
                    ("authorityKeyIdentifier", found.take_akid(value))
                }
                ID_CE_KEY_USAGE => ("keyUsage", found.take_key_usage(value)),
                ID_CE_BASIC_CONSTRAINTS => {
                    ("basicConstraints", found.take_basic_constraints(value))
                }
                _ => continue,
            };
            result.map_err(|error| CertificateError::Extension { name, error })?;
        }
        Ok(found)
    }

    // Of an extension that is there twice, the first counts.

    fn take_skid(&mut self, value: &[u8]) -> Result<(), DerError> {
        let mut reader = SliceReader::new(value)?;
        let id = element(&mut reader, Tag::OctetString)?;
        end(reader)?;
        self.skid.get_or_insert_with(|| id.to_vec());
        Ok(())
    }

    /// Takes the key identifier; the other parts are not looked at.
    fn take_akid(&mut self, value: &[u8]) -> Result<(), DerError> {
        let mut parts = whole(value, Tag::Sequence)?;
        let key_identifier = Tag::ContextSpecific {
            constructed: false,
            number: TagNumber(0),
        };
        if let Some(id) = optional(&mut parts, key_identifier)? {
            self.akid.get_or_insert_with(|| id.to_vec());
        }
        Ok(())
    }

    fn take_key_usage(&mut self, value: &[u8]) -> Result<(), DerError> {
        let first = *BitStringRef::from_der(value)?
            .raw_bytes()
            .first()
            .unwrap_or(&0);
        self.key_usage.get_or_insert(KeyUsage {
            digital_signature: first & 0x80 != 0,
            key_cert_sign: first & 0x04 != 0,
        });
        Ok(())
    }

    fn take_basic_constraints(&mut self, value: &[u8]) -> Result<(), DerError> {
        let mut parts = whole(value, Tag::Sequence)?;
        let ca = match next_is(&parts, Tag::Boolean) {
            true => bool::decode(&mut parts)?,
            false => false,
        };
        optional(&mut parts, Tag::Integer)?; // the length of the path
        end(parts)?;
        self.basic_constraints.get_or_insert(Constraints {
            ca,
            explicit_false: !ca && value.len() > 2,
        });
        Ok(())
    }
}

/// The kind of the key of a SubjectPublicKeyInfo, and the content of its BIT STRING.
fn public_key(info: &[u8]) -> Result<(PublicKey, &[u8]), DerError> {
    let mut info = whole(info, Tag::Sequence)?;
    let mut algorithm = inner(&mut info, Tag::Sequence)?;
    let oid = identifier(&mut algorithm)?;
    let parameters = match algorithm.is_finished() {
        true => None,
        false => Some(AnyRef::decode(&mut algorithm)?),
    };
    end(algorithm)?;
    let key = bits(&mut info)?;
    end(info)?;
    let kind = match (oid, parameters) {
        (RSA_ENCRYPTION, _) => {
            let mut numbers = whole(key, Tag::Sequence)?;
            let modulus = UintRef::decode(&mut numbers)?;
            UintRef::decode(&mut numbers)?;
            end(numbers)?;
            PublicKey::Rsa {
                bits: bit_len(modulus.as_bytes()),
            }
        }
        (ID_EC_PUBLIC_KEY, Some(parameters)) => match parameters.decode_as()? {
            PRIME_192_V1 => PublicKey::Ec { curve: Curve::P192 },
            SECP_256_R_1 => PublicKey::Ec { curve: Curve::P256 },
            SECP_384_R_1 => PublicKey::Ec { curve: Curve::P384 },
            SECP_521_R_1 => PublicKey::Ec { curve: Curve::P521 },
            oid => PublicKey::Other { oid },
        },
        (oid, _) => MlDsa::from_oid(oid).map_or(PublicKey::Other { oid }, PublicKey::MlDsa),
    };
    Ok((kind, key))
}

/// Bits of a big-endian number without leading zero bytes.
fn bit_len(number: &[u8]) -> u32 {
    let Some((first, rest)) = number.split_first() else {
        return 0;
    };
    let rest = u32::try_from(rest.len())
        .unwrap_or(u32::MAX)
        .saturating_mul(8);
    rest.saturating_add(8u32.saturating_sub(first.leading_zeros()))
}

/// A name fit for a log: the kernel ring buffer and a console must not get control characters out of a certificate.
fn printable(name: &[u8]) -> String {
    let name = DistinguishedName(name).to_string();
    if !name.chars().any(char::is_control) {
        return name;
    }
    let mut text = String::new();
    for character in name.chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    // The first byte is compared by itself, because most windows end there.
    haystack
        .windows(needle.len())
        .position(|window| window.first() == needle.first() && window == needle)
}

/// The blocks of a PEM file: label and content. Text between blocks is passed over (RFC 7468 section 2).
struct PemBlocks<'a>(&'a [u8]);

impl Iterator for PemBlocks<'_> {
    type Item = Result<(String, Vec<u8>), CertificateError>;

    fn next(&mut self) -> Option<Self::Item> {
        let block = self.0.get(find(self.0, PEM_BEGIN)?..)?;
        // Whatever is wrong with a block, what follows it is not read.
        self.0 = &[];
        Some(self.block(block))
    }
}

impl<'a> PemBlocks<'a> {
    fn block(&mut self, block: &'a [u8]) -> Result<(String, Vec<u8>), CertificateError> {
        let unfinished = || CertificateError::Pem("no END line".to_owned());
        let end = find(block, PEM_END).ok_or_else(unfinished)?;
        let last_line = block.get(end..).unwrap_or_default();
        let line_len = last_line
            .iter()
            .position(|&byte| byte == b'\n')
            .unwrap_or(last_line.len());
        let (block, rest) = block
            .split_at_checked(end.saturating_add(line_len))
            .ok_or_else(unfinished)?;
        let (label, der) = der::pem::decode_vec(block.trim_ascii_end())
            .map_err(|error| CertificateError::Pem(error.to_string()))?;
        self.0 = rest;
        Ok((label.to_owned(), der))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    macro_rules! data {
        ($name:literal) => {
            include_bytes!(concat!("../testdata/", $name))
        };
    }

    fn parse(bytes: &[u8]) -> Certificate {
        Certificate::parse(bytes).unwrap()
    }

    #[test]
    fn what_certificates_say() {
        for (bytes, subject, key) in [
            (
                &data!("rsa2048.der")[..],
                "CN=RSA-2048 leaf,O=Test",
                "RSA-2048",
            ),
            (data!("rsa2048.pem"), "CN=RSA-2048 leaf,O=Test", "RSA-2048"),
            (data!("rsa3072.pem"), "CN=RSA-3072 leaf,O=Test", "RSA-3072"),
            (data!("p256.der"), "CN=P-256 leaf,O=Test", "P-256"),
            (data!("p384.der"), "CN=P-384 leaf,O=Test", "P-384"),
            (data!("p521.der"), "CN=P-521 leaf", "P-521"),
            (
                data!("ed25519.der"),
                "CN=Ed25519 leaf",
                "algorithm 1.3.101.112",
            ),
        ] {
            let certificate = parse(bytes);
            assert_eq!(certificate.subject(), subject);
            assert_eq!(certificate.key().to_string(), key);
            assert!(
                !certificate.is_ca() && !certificate.is_sample() && !certificate.is_self_signed(),
                "{subject}"
            );
            assert_eq!(
                certificate.skid(),
                Some(&certificate.public_key_sha1()[..]),
                "{subject}"
            );
            assert!(certificate.not_before() < certificate.not_after());
        }
        let ca = parse(data!("rsa-ca.der"));
        assert!(ca.is_ca() && ca.is_self_signed());
        assert_eq!(
            ca.key_usage(),
            Some(KeyUsage {
                digital_signature: false,
                key_cert_sign: true
            })
        );
        assert!(parse(data!("rsa2048.der")).names_issuer(&ca));
        assert!(!parse(data!("p384.der")).names_issuer(&ca));
        assert!(parse(data!("sample.der")).is_sample());
        let expired = parse(data!("expired.der"));
        assert!(expired.not_after() < expired.not_before());
    }

    #[test]
    fn key_id_is_the_end_of_the_skid_or_of_the_public_key_hash() {
        let with = parse(data!("p256.der"));
        assert_eq!(with.key_id().0, with.skid().unwrap()[16..]);
        let without = parse(data!("no-skid.der"));
        assert_eq!(without.skid(), None);
        assert_eq!(without.key_id().0, without.public_key_sha1()[16..]);
    }

    #[test]
    fn what_the_kernel_would_object_to() {
        use LeafDefect as D;
        for (name, bytes, defects) in [
            ("a good leaf", &data!("p256.der")[..], vec![]),
            (
                "an expired one, which the kernel takes",
                data!("expired.der"),
                vec![],
            ),
            (
                "a CA",
                data!("rsa-ca.der"),
                vec![D::CaBit, D::KeyCertSign, D::NoDigitalSignature],
            ),
            (
                "a CA with digitalSignature",
                data!("cert-sign.der"),
                vec![D::CaBit, D::KeyCertSign],
            ),
            (
                "no key usage",
                data!("no-usage.der"),
                vec![D::NoDigitalSignature],
            ),
            ("no SKID", data!("no-skid.der"), vec![D::NoSkid]),
            (
                "CA:FALSE written out",
                data!("explicit-false.der"),
                vec![D::ExplicitCaFalse],
            ),
            ("Ed25519", data!("ed25519.der"), vec![D::UnsupportedKey]),
        ] {
            assert_eq!(parse(bytes).leaf_defects(), defects, "{name}");
        }
    }

    #[test]
    fn rsa_lengths_are_those_of_the_kernel() {
        for (bits, expected) in [
            (512, true),
            (1024, true),
            (1025, false),
            (1536, true),
            (2047, true),
            (2048, true),
            (2049, false),
            (2560, false),
            (3072, true),
            (4096, true),
            (5120, false),
            (8192, false),
            (0, false),
            (u32::MAX, false),
        ] {
            assert_eq!(is_rsa_length(bits), expected, "{bits}");
        }
    }

    #[test]
    fn control_characters_stay_out_of_names() {
        assert_eq!(parse(data!("newline.der")).subject(), "CN=two\\0alines");
    }

    #[test]
    fn files_that_are_no_certificate() {
        use CertificateError as E;
        let der = &data!("p256.der")[..];
        let pem = &data!("p256.pem")[..];
        let two = [pem, &data!("p384.pem")[..]].concat();
        let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (name, bytes, expected) in [
            ("empty", vec![], E::Empty),
            ("blank", b" \n\n".to_vec(), E::Empty),
            (
                "cut by one byte",
                der[..der.len() - 1].to_vec(),
                E::Truncated {
                    announced: der.len(),
                    found: der.len() - 1,
                },
            ),
            (
                "cut in half",
                der[..300].to_vec(),
                E::Truncated {
                    announced: der.len(),
                    found: 300,
                },
            ),
            ("with a newline", [der, b"\n"].concat(), E::TrailingData(1)),
            ("70000 bytes", vec![0x30; 70_000], E::TooLong(70_000)),
            (
                "a private key",
                key.to_vec(),
                E::NoCertificate("PRIVATE KEY".to_owned()),
            ),
            (
                "PEM without END",
                pem[..400].to_vec(),
                E::Pem("no END line".to_owned()),
            ),
            ("two where one is asked for", two.clone(), E::Several(2)),
        ] {
            assert_eq!(Certificate::parse(&bytes).unwrap_err(), expected, "{name}");
        }
        for (name, bytes) in [
            ("text", &b"no certificate at all"[..]),
            ("zeros", &[0; 64]),
            ("SEQUENCE of nothing", &[0x30, 0]),
            ("indefinite length", &[0x30, 0x80, 0, 0]),
        ] {
            assert!(
                matches!(Certificate::parse(bytes).unwrap_err(), E::Der(_)),
                "{name}"
            );
        }
        assert_eq!(Certificate::parse_all(&two).unwrap().len(), 2);
        let crlf = String::from_utf8(pem.to_vec())
            .unwrap()
            .replace('\n', "\r\n");
        assert_eq!(parse(crlf.as_bytes()), parse(der));
        let with_text = [b"subject=CN = P-256 leaf\n", pem, b"\nsome more text"].concat();
        assert_eq!(parse(&with_text), parse(der));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1000)) {
            let _ = Certificate::parse(&bytes);
        }

        /// What x509-cert's decoder takes of changed certificates says the same here.
        #[test]
        fn x509_cert_reads_the_same(at in any::<prop::sample::Index>(), value in any::<u8>(), which in 0usize..6) {
            use x509_cert::certificate::{CertificateInner, Raw};
            use der::Encode as _;
            let certificates: [&[u8]; 6] = [
                data!("rsa2048.der"), data!("p256.der"), data!("p384.der"), data!("rsa-ca.der"), data!("explicit-false.der"),
                data!("no-skid.der"),
            ];
            let mut bytes = certificates[which].to_vec();
            let at = at.index(bytes.len());
            bytes[at] = value;
            if let (Ok(certificate), Ok(other)) = (Certificate::parse_der(&bytes), CertificateInner::<Raw>::from_der(&bytes)) {
                let tbs = other.tbs_certificate();
                prop_assert_eq!(certificate.subject_der(), tbs.subject().to_der().unwrap());
                prop_assert_eq!(certificate.issuer_der(), tbs.issuer().to_der().unwrap());
                prop_assert_eq!(certificate.serial(), tbs.serial_number().as_bytes());
                prop_assert_eq!(certificate.not_after(), tbs.validity().not_after.to_unix_duration().as_secs());
                let info = tbs.subject_public_key_info();
                prop_assert_eq!(certificate.public_key_bytes(), info.subject_public_key.raw_bytes());
                prop_assert_eq!(certificate.signature(), other.signature().raw_bytes());
                let skid = tbs.extensions().and_then(|list| list.iter().find(|extension| extension.extn_id == ID_CE_SUBJECT_KEY_IDENTIFIER));
                // Behind the header of an OCTET STRING.
                prop_assert_eq!(certificate.skid(), skid.map(|extension| &extension.extn_value.as_bytes()[2..]));
            }
        }

        #[test]
        fn a_changed_byte_does_no_harm(at in any::<prop::sample::Index>(), value in any::<u8>(), which in 0usize..6) {
            let certificates: [&[u8]; 6] = [
                data!("rsa2048.der"), data!("p256.pem"), data!("p384.der"), data!("rsa-ca.der"), data!("explicit-false.der"),
                data!("no-skid.der"),
            ];
            let mut bytes = certificates[which].to_vec();
            let at = at.index(bytes.len());
            bytes[at] = value;
            if let Ok(certificate) = Certificate::parse(&bytes) {
                let _ = (certificate.subject(), certificate.issuer(), certificate.key_id(), certificate.leaf_defects());
                prop_assert!(!certificate.subject().contains(char::is_control));
            }
        }
    }
}
