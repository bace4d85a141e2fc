//! Signatures of PE images for Secure Boot (Microsoft's "Windows Authenticode Portable Executable Signature Format"; UEFI
//! specification, section 32.2): a message of PKCS #7 over the image's digest.
//!
//! Made is what firmware commonly verifies: SHA-256 with RSA of 2048, 3072 or 4096 bits, without a time stamp, so that the same
//! input gives the same bytes. Read is the same, by any signer.

use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use der::asn1::{Null, OctetString, SetOfVec};
use der::{Any, Decode as _, Encode as _, Reader as _, Sequence, SliceReader, Tag, Tagged as _};
use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Explanation, Fault};
use ima::hash::HashAlgorithm;
use ima::oid::{ID_SHA_256, MESSAGE_DIGEST, ObjectIdentifier, RSA_ENCRYPTION, SIGNED_DATA};
use ima::verify::verify_digest;
use sha2::{Digest as _, Sha256};
use x509_cert::attr::Attribute;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::pe::{self, Image, PeError};
use crate::Result;
use crate::chain;
use crate::key::{KeyKind, Signer, check_belongs};

/// `SPC_INDIRECT_DATA_OBJID`: the content that is signed.
const INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");

/// `SPC_PE_IMAGE_DATAOBJ`: what is signed is a PE image.
const PE_IMAGE_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.15");

/// The signed attribute with the type of the content (RFC 5652, section 11.1).
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");

/// The lengths of RSA keys that firmware commonly verifies, in bits.
const RSA_BITS: [u32; 3] = [2048, 3072, 4096];

/// `SpcIndirectDataContent`.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
struct IndirectData {
    data: TypeAndValue,
    digest: DigestInfo,
}

/// `SpcAttributeTypeAndOptionalValue`.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
struct TypeAndValue {
    kind: ObjectIdentifier,
    value: Any,
}

/// `DigestInfo` (RFC 8017, section 9.2).
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
struct DigestInfo {
    algorithm: AlgorithmIdentifierOwned,
    digest: OctetString,
}

/// Why the firmware would not start an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Untrusted {
    /// It has no signature.
    Unsigned,
    /// Its signature cannot be read, or is of another kind than firmware verifies.
    Malformed(String),
    /// It is not what was signed, or not what the key signed.
    Changed,
    /// Its signer is another; the subject of the signer's certificate.
    OtherKey(String),
    /// Its digest is revoked; in hexadecimal.
    RevokedDigest(String),
    /// The certificate of its signer, or of an issuer, is revoked; the subject of that.
    RevokedCertificate(String),
    /// A component of it is of a generation that is revoked.
    RevokedGeneration {
        /// The name of the component.
        component: String,
        /// Its generation.
        generation: u32,
        /// The oldest that shim starts.
        oldest: u32,
    },
    /// It has no list of the generations of its components, which shim demands.
    NoGenerations,
}

impl Untrusted {
    /// The cause, for a fault.
    #[must_use]
    pub fn cause(&self) -> Explanation {
        match self {
            Self::Unsigned => Cause::UKI_UNSIGNED.into(),
            Self::Malformed(why) => Cause::UKI_SIGNATURE_MALFORMED.with(&[why]),
            Self::Changed => Cause::UKI_CHANGED.into(),
            Self::OtherKey(subject) => Cause::UKI_OTHER_KEY.with(&[subject]),
            Self::RevokedDigest(digest) => Cause::UKI_REVOKED.with(&[digest]),
            Self::RevokedCertificate(subject) => Cause::UKI_SIGNER_REVOKED.with(&[subject]),
            Self::RevokedGeneration {
                component,
                generation,
                oldest,
            } => Cause::UKI_GENERATION_REVOKED.with(&[
                component,
                &generation.to_string(),
                &oldest.to_string(),
            ]),
            Self::NoGenerations => Cause::UKI_NO_GENERATIONS.into(),
        }
    }
}

fn malformed(error: impl std::fmt::Display) -> Untrusted {
    Untrusted::Malformed(error.to_string())
}

/// A signature of an image, which was read.
#[derive(Debug, Clone)]
pub struct Signature {
    signer: Certificate,
    certificates: Vec<Certificate>,
    /// The digest of the image that was signed.
    digest: Vec<u8>,
    /// The signed attributes as the SET that the signature is over.
    attributes: Vec<u8>,
    signature: Vec<u8>,
}

impl Signature {
    /// Reads a message, as the table of certificates has it: zeros may follow.
    ///
    /// # Errors
    ///
    /// [`Untrusted::Malformed`]; [`Untrusted::Changed`] if the parts of the message do not agree.
    pub fn parse(message: &[u8]) -> std::result::Result<Self, Untrusted> {
        let mut reader = SliceReader::new(message).map_err(malformed)?;
        let content = ContentInfo::decode(&mut reader).map_err(malformed)?;
        let padding = reader
            .read_slice(reader.remaining_len())
            .map_err(malformed)?;
        if padding.len() >= 8 || padding.iter().any(|byte| *byte != 0) {
            return Err(malformed("something follows it"));
        }
        if content.content_type != SIGNED_DATA {
            return Err(malformed("it is not a message with signed data"));
        }
        let signed: SignedData = content.content.decode_as().map_err(malformed)?;
        let content = signed.encap_content_info;
        if content.econtent_type != INDIRECT_DATA {
            return Err(malformed("it is not one of a program"));
        }
        let content = content.econtent.unwrap_or_else(Any::null);
        let indirect: IndirectData = content.decode_as().map_err(malformed)?;
        let [info] = signed.signer_infos.0.as_slice() else {
            return Err(malformed("it has not exactly one signer"));
        };
        let algorithms = [&indirect.digest.algorithm, &info.digest_alg];
        if algorithms
            .iter()
            .any(|algorithm| algorithm.oid != ID_SHA_256)
        {
            return Err(malformed("its digest is not SHA-256"));
        }
        let certificates = signed.certificates.iter().flat_map(|set| set.0.iter());
        let certificates = certificates
            .map(|certificate| {
                let der = certificate.to_der().map_err(malformed)?;
                Certificate::parse_der(&der).map_err(malformed)
            })
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let signer = certificates
            .iter()
            .find(|certificate| is_of(&info.sid, certificate))
            .cloned()
            .ok_or_else(|| malformed("the certificate of its signer is not in it"))?;
        let attributes = info
            .signed_attrs
            .as_ref()
            .ok_or_else(|| malformed("it has no signed attributes"))?;
        let value = |oid| {
            let mut with_oid = attributes.iter().filter(|attribute| attribute.oid == oid);
            match (with_oid.next()?.values.as_slice(), with_oid.next()) {
                ([value], None) => Some(value.clone()),
                _ => None,
            }
        };
        let is_type = |value: Any| value.decode_as() == Ok(INDIRECT_DATA);
        if !value(CONTENT_TYPE).is_some_and(is_type) {
            return Err(malformed("its attributes name another content"));
        }
        let own = Sha256::digest(content.value());
        let is_own = |value: Any| value.tag() == Tag::OctetString && value.value() == &own[..];
        if !value(MESSAGE_DIGEST).is_some_and(is_own) {
            return Err(Untrusted::Changed);
        }
        Ok(Self {
            signer,
            certificates,
            digest: indirect.digest.digest.as_bytes().to_vec(),
            attributes: attributes.to_der().map_err(malformed)?,
            signature: info.signature.as_bytes().to_vec(),
        })
    }

    /// The signer's certificate.
    #[must_use]
    pub fn signer(&self) -> &Certificate {
        &self.signer
    }

    /// The certificates in it.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Whether the signer's certificate is this one, or one that this one's key signed, directly or by way of CA certificates in the
    /// message.
    #[must_use]
    pub fn leads_to(&self, certificate: &Certificate) -> bool {
        self.signer == *certificate
            || chain::leads_to(
                &self.signer,
                std::slice::from_ref(certificate),
                &self.certificates,
            )
    }

    /// Checks that it is a signature of this image by one of these certificates' keys, or by a key whose certificate one of these
    /// signed, directly or by way of CA certificates in the message. The dates of certificates do not count: firmware does not
    /// look at them (edk2, CryptoPkg/Library/BaseCryptLib/Pk/CryptPkcs7VerifyCommon.c).
    ///
    /// # Errors
    ///
    /// [`Untrusted`].
    pub fn verify(
        &self,
        image: &Image<'_>,
        trusted: &[Certificate],
    ) -> std::result::Result<(), Untrusted> {
        if self.digest != image.digest() {
            return Err(Untrusted::Changed);
        }
        let digest = Sha256::digest(&self.attributes);
        verify_digest(
            &self.signer,
            HashAlgorithm::Sha256,
            &digest,
            &self.signature,
        )
        .map_err(|_| Untrusted::Changed)?;
        match trusted.iter().any(|certificate| self.leads_to(certificate)) {
            true => Ok(()),
            false => Err(Untrusted::OtherKey(self.signer.subject())),
        }
    }
}

/// Whether the certificate is the one that a signer names.
fn is_of(signer: &SignerIdentifier, certificate: &Certificate) -> bool {
    match signer {
        SignerIdentifier::IssuerAndSerialNumber(named) => {
            named.issuer.to_der().ok().as_deref() == Some(certificate.issuer_der())
                && named.serial_number.as_bytes() == certificate.serial()
        }
        SignerIdentifier::SubjectKeyIdentifier(named) => {
            certificate.skid() == Some(named.0.as_bytes())
        }
    }
}

/// The signatures of an image.
///
/// # Errors
///
/// [`Untrusted::Unsigned`] if it has none; those of [`Signature::parse`].
pub fn signatures(image: &Image<'_>) -> std::result::Result<Vec<Signature>, Untrusted> {
    let messages = image.messages().map_err(malformed)?;
    if messages.is_empty() {
        return Err(Untrusted::Unsigned);
    }
    messages.into_iter().map(Signature::parse).collect()
}

/// Checks that firmware with these certificates in its database (db) would start the image, and gives the certificate of the
/// signer.
///
/// # Errors
///
/// [`Untrusted`]; of several signatures, that of the last.
pub fn verify(
    image: &Image<'_>,
    trusted: &[Certificate],
) -> std::result::Result<Certificate, Untrusted> {
    let mut found = Err(Untrusted::Unsigned);
    for signature in signatures(image)? {
        found = signature
            .verify(image, trusted)
            .map(|()| signature.signer.clone());
        if found.is_ok() {
            break;
        }
    }
    found
}

/// Signs an image; a signature that it has is replaced. The same input gives the same bytes, if the signer's do.
///
/// # Errors
///
/// [`Code::UkiMalformed`] if it is not an image that can be signed; [`Code::KeyMismatch`]; [`Code::SigningFailed`], also for
/// another key than RSA of 2048, 3072 or 4096 bits.
pub fn sign(image: &[u8], signer: &dyn Signer, certificate: &Certificate) -> Result<Vec<u8>> {
    check_belongs(signer, certificate)?;
    if !matches!(signer.kind(), KeyKind::Rsa(bits) if RSA_BITS.contains(&bits)) {
        let fault = Fault::new(Code::SigningFailed, format!("{} key", signer.kind()));
        return Err(fault.because(Cause::SECURE_BOOT_KEY));
    }
    let unusable = |error: PeError| Fault::new(Code::UkiMalformed, "").because(error.cause());
    let image = pe::without_signature(image).map_err(unusable)?;
    let digest = Image::parse(&image).map_err(unusable)?.digest();
    let message = message(&digest, signer, certificate)?;
    pe::with_signature(image, &message).map_err(unusable)
}

fn message(digest: &[u8], signer: &dyn Signer, certificate: &Certificate) -> Result<Vec<u8>> {
    let content = content(digest).map_err(not_encoded)?;
    let attributes = attributes(&content).map_err(not_encoded)?;
    let signed = Sha256::digest(attributes.to_der().map_err(not_encoded)?);
    let signature = signer.sign_digest(HashAlgorithm::Sha256, &signed)?;
    signed_data(content, attributes, &signature, certificate).map_err(not_encoded)
}

fn not_encoded(error: der::Error) -> Fault {
    Fault::new(Code::SigningFailed, "PKCS #7").with_cause(error.to_string())
}

fn content(digest: &[u8]) -> der::Result<Any> {
    // SpcPeImageData without flags; its file, which nobody reads, is the text that Microsoft's documentation gives.
    let mut file = b"\x03\x01\x00\xa0\x20\xa2\x1e\x80\x1c".to_vec();
    file.extend("<<<Obsolete>>>".encode_utf16().flat_map(u16::to_be_bytes));
    Any::encode_from(&IndirectData {
        data: TypeAndValue {
            kind: PE_IMAGE_DATA,
            value: Any::new(Tag::Sequence, file)?,
        },
        digest: DigestInfo {
            algorithm: with_null(ID_SHA_256),
            digest: OctetString::new(digest)?,
        },
    })
}

fn attributes(content: &Any) -> der::Result<SetOfVec<Attribute>> {
    let attribute = |oid, value: Any| -> der::Result<Attribute> {
        Ok(Attribute {
            oid,
            values: SetOfVec::try_from(vec![value])?,
        })
    };
    let digest = OctetString::new(Sha256::digest(content.value()).to_vec())?;
    SetOfVec::try_from(vec![
        attribute(CONTENT_TYPE, Any::from(INDIRECT_DATA))?,
        attribute(MESSAGE_DIGEST, Any::encode_from(&digest)?)?,
    ])
}

fn signed_data(
    content: Any,
    attributes: SetOfVec<Attribute>,
    signature: &[u8],
    certificate: &Certificate,
) -> der::Result<Vec<u8>> {
    let certificate = x509_cert::Certificate::from_der(certificate.der())?;
    let names = certificate.tbs_certificate();
    let signer = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: names.issuer().clone(),
            serial_number: names.serial_number().clone(),
        }),
        digest_alg: with_null(ID_SHA_256),
        signed_attrs: Some(attributes),
        signature_algorithm: with_null(RSA_ENCRYPTION),
        signature: OctetString::new(signature)?,
        unsigned_attrs: None,
    };
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::try_from(vec![with_null(ID_SHA_256)])?,
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: INDIRECT_DATA,
            econtent: Some(content),
        },
        certificates: Some(CertificateSet::try_from(vec![
            CertificateChoices::Certificate(certificate),
        ])?),
        crls: None,
        signer_infos: SignerInfos::try_from(vec![signer])?,
    };
    ContentInfo {
        content_type: SIGNED_DATA,
        content: Any::encode_from(&signed)?,
    }
    .to_der()
}

/// The identifier of an algorithm whose parameters are NULL (RFC 4055, RFC 5754).
fn with_null(oid: ObjectIdentifier) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned {
        oid,
        parameters: Some(Null.into()),
    }
}
