//! Making certificates, byte by byte where the kernel is particular about the bytes.
//!
//! The kernel takes a basicConstraints extension that spells out CA:FALSE for a malformed certificate, so the DER is made
//! here rather than by a library that knows better. It can also make what the kernel refuses: tests need that.

use std::time::Duration;

use der::Encode as _;
use der::asn1::{GeneralizedTime, UtcTime};
use ima::certificate::{Certificate, SAMPLE_MARK};
use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use ima::oid::{self, ObjectIdentifier};
use sha1::{Digest as _, Sha1};

use crate::Result;
use crate::key::{KeyKind, Signer};

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// May sign data: what the kernel wants of a key on `.ima` and `.evm`.
    pub digital_signature: bool,
    /// May sign certificates: what the kernel refuses there.
    pub key_cert_sign: bool,
}

/// How basicConstraints is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BasicConstraints {
    /// Not at all.
    Absent,
    /// An empty SEQUENCE: not a CA. The form the kernel takes.
    Leaf,
    /// CA:TRUE.
    Ca,
    /// CA:FALSE spelled out, which the kernel refuses with EBADMSG.
    ExplicitFalse,
}

/// A certificate to be made. [`Template::leaf`] and [`Template::ca`] give what the kernel accepts; each field may be changed
/// into what it does not.
#[derive(Debug, Clone)]
pub struct Template {
    /// commonName.
    pub common_name: String,
    /// organizationName, left out if empty.
    pub organization: String,
    /// Adds [`SAMPLE_MARK`] to the subject.
    pub sample: bool,
    /// Start of validity, seconds since 1970.
    pub not_before: u64,
    /// End of validity, seconds since 1970.
    pub not_after: u64,
    /// keyUsage; `None` leaves the extension out.
    pub usage: Option<Usage>,
    /// basicConstraints.
    pub basic_constraints: BasicConstraints,
    /// Whether to give a subject key identifier.
    pub skid: bool,
    /// Whether to give an authority key identifier.
    pub akid: bool,
    /// The serial number, big-endian; random if `None`.
    pub serial: Option<Vec<u8>>,
    /// A certificate whose subject and subject key identifier are taken as they are, byte for byte: signatures made under it
    /// name the key by that identifier.
    pub renewed: Option<Certificate>,
}

impl Template {
    /// A certificate for `.ima` or `.evm`.
    #[must_use]
    pub fn leaf(common_name: impl Into<String>) -> Self {
        let now = now();
        Self {
            common_name: common_name.into(),
            organization: String::new(),
            sample: false,
            not_before: now,
            not_after: now.saturating_add(10 * YEAR),
            usage: Some(Usage {
                digital_signature: true,
                key_cert_sign: false,
            }),
            basic_constraints: BasicConstraints::Leaf,
            skid: true,
            akid: true,
            serial: None,
            renewed: None,
        }
    }

    /// A CA certificate for the kernel's built-in keyring.
    #[must_use]
    pub fn ca(common_name: impl Into<String>) -> Self {
        Self {
            usage: Some(Usage {
                digital_signature: false,
                key_cert_sign: true,
            }),
            basic_constraints: BasicConstraints::Ca,
            ..Self::leaf(common_name)
        }
    }

    /// Makes the certificate of `key`, signed by `issuer`, or by itself if there is none. `hash` is what the signature is
    /// over, `None` for one that fits the issuer's key.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`] if it cannot be signed, [`Code::KeyMismatch`] if the issuer's key does not belong to its
    /// certificate, [`Code::CertificateUnusable`] for a date no certificate can have.
    pub fn sign(
        &self,
        key: &dyn Signer,
        issuer: Option<(&dyn Signer, &Certificate)>,
        hash: Option<HashAlgorithm>,
    ) -> Result<Certificate> {
        let subject = self.subject()?;
        let (issuer_name, issuer_key, akid) = match issuer {
            Some((signer, certificate)) => {
                crate::key::check_belongs(signer, certificate)?;
                let akid = certificate
                    .skid()
                    .map_or_else(|| certificate.public_key_sha1().to_vec(), <[u8]>::to_vec);
                (certificate.subject_der().map_err(unusable)?, signer, akid)
            }
            None => (
                subject.clone(),
                key,
                Sha1::digest(key.public_key()).to_vec(),
            ),
        };
        let hash = hash.unwrap_or_else(|| fitting_hash(issuer_key));
        let algorithm = signature_algorithm(issuer_key.kind(), hash)?;
        let serial = match &self.serial {
            Some(serial) => serial.clone(),
            None => {
                let mut serial = vec![0; 16];
                aws_lc_rs::rand::fill(&mut serial).map_err(|_| {
                    Fault::new(Code::SigningFailed, "the system gives no random numbers")
                })?;
                serial
            }
        };
        let tbs = sequence(&[
            &tlv(0xa0, &[&tlv(0x02, &[&[2]])]),
            &unsigned(&serial),
            &algorithm,
            &issuer_name,
            &sequence(&[&time(self.not_before)?, &time(self.not_after)?]),
            &subject,
            &public_key_info(key),
            &tlv(0xa3, &[&sequence(&[&self.extensions(key, &akid)])]),
        ]);
        let certificate = signed(issuer_key, hash, &tbs, &algorithm)?;
        Certificate::parse_der(&certificate).map_err(unusable)
    }

    /// A request for such a certificate (PKCS #10, RFC 2986), in DER: subject, key and the extensions that the kernel wants,
    /// signed by the key itself. Dates and serial number are the CA's affair.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`] if it cannot be signed.
    pub fn request(&self, key: &dyn Signer) -> Result<Vec<u8>> {
        let hash = fitting_hash(key);
        let algorithm = signature_algorithm(key.kind(), hash)?;
        // extensionRequest of PKCS #9.
        let wanted = Self {
            akid: false,
            ..self.clone()
        };
        let extensions = sequence(&[&wanted.extensions(key, &[])]);
        let attribute = sequence(&[&oid_der(oid::EXTENSION_REQUEST), &tlv(0x31, &[&extensions])]);
        let info = sequence(&[
            &tlv(0x02, &[&[0]]),
            &self.subject()?,
            &public_key_info(key),
            &tlv(0xa0, &[&attribute]),
        ]);
        signed(key, hash, &info, &algorithm)
    }

    fn subject(&self) -> Result<Vec<u8>> {
        match &self.renewed {
            Some(certificate) => certificate.subject_der().map_err(unusable),
            None => Ok(self.name()),
        }
    }

    fn name(&self) -> Vec<u8> {
        let attribute = |oid: ObjectIdentifier, value: &str| {
            tlv(
                0x31,
                &[&sequence(&[&oid_der(oid), &tlv(0x0c, &[value.as_bytes()])])],
            )
        };
        let mut attributes = Vec::new();
        if !self.organization.is_empty() {
            attributes.extend(attribute(oid::ORGANIZATION, &self.organization));
        }
        if self.sample {
            attributes.extend(attribute(oid::ORGANIZATIONAL_UNIT, SAMPLE_MARK));
        }
        attributes.extend(attribute(oid::COMMON_NAME, &self.common_name));
        sequence(&[&attributes])
    }

    fn extensions(&self, key: &dyn Signer, akid: &[u8]) -> Vec<u8> {
        let extension = |oid: ObjectIdentifier, critical: bool, value: &[u8]| {
            let critical: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
            sequence(&[&oid_der(oid), critical, &tlv(0x04, &[value])])
        };
        let mut extensions = Vec::new();
        match self.basic_constraints {
            BasicConstraints::Absent => {}
            BasicConstraints::Leaf => {
                extensions.extend(extension(oid::ID_CE_BASIC_CONSTRAINTS, true, &[0x30, 0x00]))
            }
            BasicConstraints::Ca => extensions.extend(extension(
                oid::ID_CE_BASIC_CONSTRAINTS,
                true,
                &[0x30, 0x03, 0x01, 0x01, 0xff],
            )),
            BasicConstraints::ExplicitFalse => {
                extensions.extend(extension(
                    oid::ID_CE_BASIC_CONSTRAINTS,
                    true,
                    &[0x30, 0x03, 0x01, 0x01, 0x00],
                ));
            }
        }
        if let Some(usage) = self.usage {
            let bits = if usage.digital_signature { 0x80 } else { 0 }
                | if usage.key_cert_sign { 0x04 } else { 0 };
            // DER wants the trailing zero bits left out: digitalSignature is bit 0, keyCertSign bit 5.
            let unused = if bits == 0 {
                0
            } else {
                u8::try_from(u8::trailing_zeros(bits)).unwrap_or(0)
            };
            let value = if bits == 0 {
                tlv(0x03, &[&[0]])
            } else {
                tlv(0x03, &[&[unused, bits]])
            };
            extensions.extend(extension(oid::ID_CE_KEY_USAGE, true, &value));
        }
        if self.skid {
            let renewed = self.renewed.as_ref().and_then(Certificate::skid);
            let usual = Sha1::digest(key.public_key());
            let identifier = renewed.unwrap_or(&usual);
            extensions.extend(extension(
                oid::ID_CE_SUBJECT_KEY_IDENTIFIER,
                false,
                &tlv(0x04, &[identifier]),
            ));
        }
        if self.akid {
            extensions.extend(extension(
                oid::ID_CE_AUTHORITY_KEY_IDENTIFIER,
                false,
                &sequence(&[&tlv(0x80, &[akid])]),
            ));
        }
        extensions
    }
}

/// What is signed, the algorithm and the signature: the form of certificates and of requests.
fn signed(
    key: &dyn Signer,
    hash: HashAlgorithm,
    content: &[u8],
    algorithm: &[u8],
) -> Result<Vec<u8>> {
    let digest = hash.digest(content).ok_or_else(|| {
        Fault::new(
            Code::SigningFailed,
            format!("certificates signed over {hash}"),
        )
    })?;
    let signature = key.sign_digest(hash, &digest)?;
    Ok(sequence(&[
        content,
        algorithm,
        &tlv(0x03, &[&[0], &signature]),
    ]))
}

/// The hash as strong as the key.
fn fitting_hash(key: &dyn Signer) -> HashAlgorithm {
    match key.kind() {
        KeyKind::P384 => HashAlgorithm::Sha384,
        KeyKind::P521 => HashAlgorithm::Sha512,
        _ => HashAlgorithm::Sha256,
    }
}

/// A request for a certificate in PEM.
///
/// # Errors
///
/// [`Code::CertificateUnusable`] for one that cannot be encoded, which none is that was made here.
pub fn request_pem(request: &[u8]) -> Result<Vec<u8>> {
    encode_pem("CERTIFICATE REQUEST", request)
}

/// A certificate in PEM.
///
/// # Errors
///
/// [`Code::CertificateUnusable`] for one that cannot be encoded, which none is that was parsed.
pub fn pem(certificate: &Certificate) -> Result<Vec<u8>> {
    encode_pem("CERTIFICATE", certificate.der())
}

fn encode_pem(label: &str, der: &[u8]) -> Result<Vec<u8>> {
    der::pem::encode_string(label, der::pem::LineEnding::LF, der)
        .map(String::into_bytes)
        .map_err(|error| Fault::new(Code::CertificateUnusable, error.to_string()))
}

/// A year in seconds.
pub const YEAR: u64 = 365 * 86_400;

/// The time now, seconds since 1970; `SOURCE_DATE_EPOCH` if that is set (reproducible-builds.org).
#[must_use]
pub fn now() -> u64 {
    std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |now| now.as_secs())
        })
}

fn unusable(error: ima::certificate::CertificateError) -> Fault {
    Fault::new(Code::CertificateUnusable, error.to_string())
}

/// SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7).
fn public_key_info(key: &dyn Signer) -> Vec<u8> {
    let algorithm = match key.kind() {
        KeyKind::Rsa(_) => sequence(&[&oid_der(oid::RSA_ENCRYPTION), &[0x05, 0x00]]),
        KeyKind::P256 => sequence(&[&oid_der(oid::ID_EC_PUBLIC_KEY), &oid_der(oid::SECP_256_R_1)]),
        KeyKind::P384 => sequence(&[&oid_der(oid::ID_EC_PUBLIC_KEY), &oid_der(oid::SECP_384_R_1)]),
        KeyKind::P521 => sequence(&[&oid_der(oid::ID_EC_PUBLIC_KEY), &oid_der(oid::SECP_521_R_1)]),
    };
    sequence(&[&algorithm, &tlv(0x03, &[&[0], key.public_key()])])
}

fn signature_algorithm(kind: KeyKind, hash: HashAlgorithm) -> Result<Vec<u8>> {
    let unsupported = || {
        Fault::new(
            Code::SigningFailed,
            format!("certificates signed with {kind} over {hash}"),
        )
    };
    Ok(match kind {
        KeyKind::Rsa(_) => {
            let oid = match hash {
                HashAlgorithm::Sha256 => oid::SHA_256_WITH_RSA_ENCRYPTION,
                HashAlgorithm::Sha384 => oid::SHA_384_WITH_RSA_ENCRYPTION,
                HashAlgorithm::Sha512 => oid::SHA_512_WITH_RSA_ENCRYPTION,
                _ => return Err(unsupported()),
            };
            sequence(&[&oid_der(oid), &[0x05, 0x00]])
        }
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
            let oid = match hash {
                HashAlgorithm::Sha256 => oid::ECDSA_WITH_SHA_256,
                HashAlgorithm::Sha384 => oid::ECDSA_WITH_SHA_384,
                HashAlgorithm::Sha512 => oid::ECDSA_WITH_SHA_512,
                _ => return Err(unsupported()),
            };
            sequence(&[&oid_der(oid)])
        }
    })
}

/// UTCTime through 2049, GeneralizedTime from 2050 (RFC 5280 section 4.1.2.5).
fn time(seconds: u64) -> Result<Vec<u8>> {
    let since = Duration::from_secs(seconds);
    UtcTime::from_unix_duration(since)
        .and_then(|time| time.to_der())
        .or_else(|_| GeneralizedTime::from_unix_duration(since).and_then(|time| time.to_der()))
        .map_err(|_| {
            Fault::new(
                Code::CertificateUnusable,
                format!("no certificate can be dated {seconds} seconds after 1970"),
            )
        })
}

fn oid_der(oid: ObjectIdentifier) -> Vec<u8> {
    tlv(0x06, &[oid.as_bytes()])
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

/// A positive INTEGER from big-endian bytes.
pub(crate) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let start = bytes
        .iter()
        .position(|&byte| byte != 0)
        .unwrap_or(bytes.len());
    let bytes = bytes.get(start..).unwrap_or_default();
    match bytes.first() {
        None => tlv(0x02, &[&[0]]),
        Some(first) if first & 0x80 != 0 => tlv(0x02, &[&[0], bytes]),
        Some(_) => tlv(0x02, &[bytes]),
    }
}

/// Tag, length and content in DER.
pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    let be = len.to_be_bytes();
    let digits = be.iter().skip_while(|&&byte| byte == 0);
    if len < 0x80 {
        out.push(len as u8);
    } else {
        out.push(0x80 | digits.clone().count() as u8);
        out.extend(digits);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::FileKey;
    use ima::certificate::LeafDefect;
    use ima::verify::verify_certificate;

    #[test]
    fn every_kind_under_every_kind_of_ca() {
        for (_, ca_kind) in [
            KeyKind::OFFERED[0],
            KeyKind::OFFERED[3],
            KeyKind::OFFERED[4],
            KeyKind::OFFERED[5],
        ] {
            let ca_key = FileKey::generate(ca_kind).unwrap();
            let ca = Template::ca("CA").sign(&ca_key, None, None).unwrap();
            assert!(ca.is_ca() && ca.is_self_signed(), "{ca_kind}");
            assert_eq!(verify_certificate(&ca, &ca), Ok(()), "{ca_kind}");
            for (_, kind) in [
                KeyKind::OFFERED[0],
                KeyKind::OFFERED[3],
                KeyKind::OFFERED[4],
                KeyKind::OFFERED[5],
            ] {
                let key = FileKey::generate(kind).unwrap();
                let leaf = Template::leaf("leaf")
                    .sign(&key, Some((&ca_key, &ca)), None)
                    .unwrap();
                assert_eq!(leaf.leaf_defects(), [], "{kind}");
                assert_eq!(leaf.key().to_string(), kind.to_string());
                assert_eq!(leaf.akid(), ca.skid());
                assert_eq!(leaf.skid(), Some(&leaf.public_key_sha1()[..]));
                assert_eq!(
                    verify_certificate(&leaf, &ca),
                    Ok(()),
                    "{kind} under {ca_kind}"
                );
                let digest = HashAlgorithm::Sha256.digest(b"content").unwrap();
                let signature = key.sign_digest(HashAlgorithm::Sha256, &digest).unwrap();
                let held =
                    ima::verify::verify_digest(&leaf, HashAlgorithm::Sha256, &digest, &signature);
                assert_eq!(held, Ok(()), "{kind}");
            }
        }
    }

    #[test]
    fn what_the_kernel_refuses_can_be_made() {
        let key = FileKey::generate(KeyKind::P256).unwrap();
        let make = |change: &dyn Fn(&mut Template)| {
            let mut template = Template::leaf("test");
            change(&mut template);
            template.sign(&key, None, None).unwrap()
        };
        use LeafDefect as D;
        type Change = fn(&mut Template);
        let table: [(&str, Change, Vec<LeafDefect>); 5] = [
            (
                "CA bit",
                |template| template.basic_constraints = BasicConstraints::Ca,
                vec![D::CaBit],
            ),
            (
                "explicit",
                |template| template.basic_constraints = BasicConstraints::ExplicitFalse,
                vec![D::ExplicitCaFalse],
            ),
            (
                "no usage",
                |template| template.usage = None,
                vec![D::NoDigitalSignature],
            ),
            (
                "certificate signing",
                |template| {
                    template.usage = Some(Usage {
                        digital_signature: true,
                        key_cert_sign: true,
                    })
                },
                vec![D::KeyCertSign],
            ),
            ("no SKID", |template| template.skid = false, vec![D::NoSkid]),
        ];
        for (name, change, defects) in table {
            assert_eq!(make(&change).leaf_defects(), defects, "{name}");
        }
        let old = make(&|template| {
            (template.not_before, template.not_after) = (1_000_000_000, 1_000_086_400)
        });
        assert_eq!(
            (old.not_before(), old.not_after()),
            (1_000_000_000, 1_000_086_400)
        );
        let far = make(&|template| template.not_after = 4_000_000_000);
        assert_eq!(far.not_after(), 4_000_000_000);
        assert!(make(&|template| template.sample = true).is_sample());
        assert!(!make(&|_| ()).is_sample());
    }

    #[test]
    fn a_renewal_keeps_subject_and_identifier() {
        let ca_key = FileKey::generate(KeyKind::P256).unwrap();
        let ca = Template::ca("CA").sign(&ca_key, None, None).unwrap();
        let key = FileKey::generate(KeyKind::P256).unwrap();
        let issuer = Some((&ca_key as &dyn Signer, &ca));
        let mut old = Template::leaf("old");
        old.organization = "Ünïon & Co".to_owned();
        let old = old.sign(&key, issuer, None).unwrap();
        // One with an identifier that is not the SHA-1 of the key, by changing it after the fact.
        let mut der = old.der().to_vec();
        let skid = old.skid().unwrap().to_vec();
        let at = der.windows(20).position(|window| window == skid).unwrap();
        der[at] ^= 0xff;
        let odd = Certificate::parse_der(&der).unwrap();
        for before in [old, odd] {
            let renewed = Template {
                renewed: Some(before.clone()),
                ..Template::leaf("not used")
            }
            .sign(&key, issuer, None)
            .unwrap();
            assert_eq!(renewed.subject(), before.subject());
            assert_eq!(renewed.skid(), before.skid());
            assert_eq!(renewed.key_id(), before.key_id());
            assert_ne!(renewed.serial(), before.serial());
            assert_eq!(renewed.leaf_defects(), []);
            assert_eq!(verify_certificate(&renewed, &ca), Ok(()));
        }
    }

    #[test]
    fn an_issuer_without_its_key() {
        let (one, other) = (
            FileKey::generate(KeyKind::P256).unwrap(),
            FileKey::generate(KeyKind::P256).unwrap(),
        );
        let ca = Template::ca("CA").sign(&one, None, None).unwrap();
        let fault = Template::leaf("leaf")
            .sign(&other, Some((&other, &ca)), None)
            .unwrap_err();
        assert_eq!(fault.code(), Code::KeyMismatch);
    }
}
