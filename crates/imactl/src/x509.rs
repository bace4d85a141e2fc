//! Makes certificates that the kernel accepts, and, for tests, those that it refuses.

use std::time::Duration;

use const_oid::{AssociatedOid, ObjectIdentifier};
use der::asn1::{Any, BitString, Null, OctetString};
use der::{DateTime, Decode as _, Encode, Tag};
use ima::certificate::{Certificate, SAMPLE_MARK};
use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use ima::oid;
use rsa::signature::Keypair;
use sha1::{Digest as _, Sha1};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder as _, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::ext::pkix::{
    self, AuthorityKeyIdentifier, KeyUsage, KeyUsages, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, Extensions};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq, Version};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{
    self, AlgorithmIdentifierOwned, Document, DynSignatureAlgorithmIdentifier, EncodePublicKey,
    SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef,
};
use x509_cert::time::{Time, Validity};

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
    /// CA:FALSE written as an explicit FALSE, which is not DER and which the kernel refuses with EBADMSG.
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
                (subject_of(certificate)?, signer, akid)
            }
            None => (
                subject.clone(),
                key,
                Sha1::digest(key.public_key()).to_vec(),
            ),
        };
        let issuer = Issuer::new(issuer_key, hash)?;
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
        let contents = Contents {
            subject,
            issuer: issuer_name,
            extensions: self.extensions(key, Some(akid)).map_err(unusable)?,
        };
        let mut builder = CertificateBuilder::new(
            contents,
            SerialNumber::new(&serial).map_err(unusable)?,
            Validity::new(time(self.not_before)?, time(self.not_after)?),
            public_key_info(key.kind(), key.public_key()).map_err(unusable)?,
        )
        .map_err(unusable)?;
        let signature = issuer.sign(&builder.finalize(&issuer).map_err(unusable)?)?;
        let certificate = builder.assemble(signature, &issuer).map_err(unusable)?;
        Certificate::parse_der(&certificate.to_der().map_err(unusable)?).map_err(unusable)
    }

    /// A request for such a certificate (PKCS #10, RFC 2986), in DER: subject, key and the extensions that the kernel wants,
    /// signed by the key itself. Dates and serial number are the CA's affair.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`] if it cannot be signed.
    pub fn request(&self, key: &dyn Signer) -> Result<Vec<u8>> {
        let signer = Issuer::new(key, None)?;
        let extensions = ExtensionReq(self.extensions(key, None).map_err(unusable)?);
        let mut attributes = x509_cert::attr::Attributes::new();
        attributes
            .insert(extensions.try_into().map_err(unusable)?)
            .map_err(unusable)?;
        let info = CertReqInfo {
            version: Version::V1,
            subject: self.subject()?,
            public_key: signer.public_key.clone(),
            attributes,
        };
        let signature = signer.sign(&info.to_der().map_err(unusable)?)?;
        let request = CertReq {
            info,
            algorithm: signer.algorithm,
            signature,
        };
        request.to_der().map_err(unusable)
    }

    fn subject(&self) -> Result<Name> {
        match &self.renewed {
            Some(certificate) => subject_of(certificate),
            None => self.name().map_err(unusable),
        }
    }

    fn name(&self) -> der::Result<Name> {
        let attributes = [
            (oid::ORGANIZATION, self.organization.as_str()),
            (
                oid::ORGANIZATIONAL_UNIT,
                if self.sample { SAMPLE_MARK } else { "" },
            ),
            (oid::COMMON_NAME, &self.common_name),
        ];
        let names = attributes
            .into_iter()
            .filter(|(oid, text)| *oid == oid::COMMON_NAME || !text.is_empty())
            .map(|(oid, text)| {
                let value = Any::new(Tag::Utf8String, text.as_bytes())?;
                RelativeDistinguishedName::try_from(vec![AttributeTypeAndValue { oid, value }])
            })
            .collect::<der::Result<Vec<_>>>()?;
        Ok(Name::hazmat_from_rdn_sequence(RdnSequence::from(names)))
    }

    /// The extensions, with this authority key identifier if there is one and the template gives one.
    fn extensions(&self, key: &dyn Signer, akid: Option<Vec<u8>>) -> der::Result<Extensions> {
        let mut extensions = Extensions::new();
        let ca = |ca| pkix::BasicConstraints {
            ca,
            path_len_constraint: None,
        };
        match self.basic_constraints {
            BasicConstraints::Absent => {}
            BasicConstraints::Leaf => extensions.push(extension(true, &ca(false))?),
            BasicConstraints::Ca => extensions.push(extension(true, &ca(true))?),
            BasicConstraints::ExplicitFalse => extensions.push(Extension {
                extn_value: OctetString::new([0x30, 0x03, 0x01, 0x01, 0x00])?,
                ..extension(true, &ca(false))?
            }),
        }
        if let Some(usage) = self.usage {
            let mut usages = KeyUsage(Default::default());
            if usage.digital_signature {
                usages.0 |= KeyUsages::DigitalSignature;
            }
            if usage.key_cert_sign {
                usages.0 |= KeyUsages::KeyCertSign;
            }
            extensions.push(extension(true, &usages)?);
        }
        if self.skid {
            let renewed = self.renewed.as_ref().and_then(Certificate::skid);
            let usual = Sha1::digest(key.public_key());
            let identifier = OctetString::new(renewed.unwrap_or(&usual))?;
            extensions.push(extension(false, &SubjectKeyIdentifier(identifier))?);
        }
        if let Some(akid) = akid.filter(|_| self.akid) {
            let identifier = AuthorityKeyIdentifier {
                key_identifier: Some(OctetString::new(akid)?),
                ..Default::default()
            };
            extensions.push(extension(false, &identifier)?);
        }
        Ok(extensions)
    }
}

fn extension<T: AssociatedOid + Encode>(critical: bool, value: &T) -> der::Result<Extension> {
    Ok(Extension {
        extn_id: T::OID,
        critical,
        extn_value: OctetString::new(value.to_der()?)?,
    })
}

fn subject_of(certificate: &Certificate) -> Result<Name> {
    Name::from_der(certificate.subject_der()).map_err(unusable)
}

/// The names and extensions of a certificate.
struct Contents {
    subject: Name,
    issuer: Name,
    extensions: Extensions,
}

impl BuilderProfile for Contents {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _key: SubjectPublicKeyInfoRef<'_>,
        _issuer_key: SubjectPublicKeyInfoRef<'_>,
        _certificate: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
}

/// The key that signs a certificate or a request, as the builder wants it.
struct Issuer<'a> {
    key: &'a dyn Signer,
    hash: HashAlgorithm,
    algorithm: AlgorithmIdentifierOwned,
    public_key: SubjectPublicKeyInfoOwned,
}

impl<'a> Issuer<'a> {
    /// `hash` is what the signature is over, `None` for one that fits the key.
    fn new(key: &'a dyn Signer, hash: Option<HashAlgorithm>) -> Result<Self> {
        let hash = hash.unwrap_or_else(|| fitting_hash(key));
        Ok(Self {
            key,
            hash,
            algorithm: signature_algorithm(key.kind(), hash)?,
            public_key: public_key_info(key.kind(), key.public_key()).map_err(unusable)?,
        })
    }

    fn sign(&self, content: &[u8]) -> Result<BitString> {
        let signature = self.key.sign_message(self.hash, content)?;
        BitString::from_bytes(&signature).map_err(unusable)
    }
}

/// A public key, as the builder wants it.
#[derive(Clone)]
struct PublicKey(SubjectPublicKeyInfoOwned);

impl EncodePublicKey for PublicKey {
    fn to_public_key_der(&self) -> spki::Result<Document> {
        Ok(Document::encode_msg(&self.0)?)
    }
}

impl Keypair for Issuer<'_> {
    type VerifyingKey = PublicKey;

    fn verifying_key(&self) -> PublicKey {
        PublicKey(self.public_key.clone())
    }
}

impl DynSignatureAlgorithmIdentifier for Issuer<'_> {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        Ok(self.algorithm.clone())
    }
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

fn unusable(error: impl std::fmt::Display) -> Fault {
    Fault::new(Code::CertificateUnusable, error.to_string())
}

/// SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7).
pub(crate) fn public_key_info(
    kind: KeyKind,
    public_key: &[u8],
) -> der::Result<SubjectPublicKeyInfoOwned> {
    let curve = |oid: ObjectIdentifier| (oid::ID_EC_PUBLIC_KEY, Some(Any::from(oid)));
    let (oid, parameters) = match kind {
        KeyKind::Rsa(_) => (oid::RSA_ENCRYPTION, Some(Any::from(Null))),
        // RFC 9881 section 4 wants no parameters.
        KeyKind::MlDsa(set) => (set.oid(), None),
        KeyKind::P256 => curve(oid::SECP_256_R_1),
        KeyKind::P384 => curve(oid::SECP_384_R_1),
        KeyKind::P521 => curve(oid::SECP_521_R_1),
    };
    Ok(SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned { oid, parameters },
        subject_public_key: BitString::from_bytes(public_key)?,
    })
}

fn signature_algorithm(kind: KeyKind, hash: HashAlgorithm) -> Result<AlgorithmIdentifierOwned> {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    if let KeyKind::MlDsa(set) = kind {
        return Ok(AlgorithmIdentifierOwned {
            oid: set.oid(),
            parameters: None,
        });
    }
    let is_rsa = matches!(kind, KeyKind::Rsa(_));
    let oid = match (is_rsa, hash) {
        (true, Sha256) => oid::SHA_256_WITH_RSA_ENCRYPTION,
        (true, Sha384) => oid::SHA_384_WITH_RSA_ENCRYPTION,
        (true, Sha512) => oid::SHA_512_WITH_RSA_ENCRYPTION,
        (false, Sha256) => oid::ECDSA_WITH_SHA_256,
        (false, Sha384) => oid::ECDSA_WITH_SHA_384,
        (false, Sha512) => oid::ECDSA_WITH_SHA_512,
        _ => {
            return Err(Fault::new(
                Code::SigningFailed,
                format!("certificates signed with {kind} over {hash}"),
            ));
        }
    };
    Ok(AlgorithmIdentifierOwned {
        oid,
        // RFC 4055 section 5 wants NULL, RFC 5758 section 3.2 nothing.
        parameters: is_rsa.then(|| Null.into()),
    })
}

/// UTCTime through 2049, GeneralizedTime from 2050 (RFC 5280 section 4.1.2.5).
fn time(seconds: u64) -> Result<Time> {
    DateTime::from_unix_duration(Duration::from_secs(seconds))
        .map(Time::from)
        .map_err(|_| {
            Fault::new(
                Code::CertificateUnusable,
                format!("no certificate can be dated {seconds} seconds after 1970"),
            )
        })
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
