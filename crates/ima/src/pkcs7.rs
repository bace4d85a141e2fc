//! Signatures of PKCS #7 (RFC 2315; CMS, RFC 5652) over content that is kept elsewhere, as the kernel takes them for root hashes
//! of dm-verity (crypto/asymmetric_keys/pkcs7_parser.c).
//!
//! Of what the standard permits, this module takes only messages in DER without content, with exactly one signer, whose
//! certificate is in the message. The kernel takes more: several signers, of whom one has to be trusted, and signers whose
//! certificates are only on a keyring. A message that is parsed here is therefore one of which it is known who signed it.

use der::asn1::AnyRef;
use der::{Decode, Encode, Reader, SliceReader, Tag, Tagged as _};

use crate::asn1::{DerError, algorithm, context, element, inner, next_is, whole};
use crate::certificate::{Certificate, CertificateError, PublicKey};
use crate::hash::HashAlgorithm;
use crate::oid::{
    DATA, ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, ID_SHA_256, ID_SHA_384,
    ID_SHA_512, ObjectIdentifier, RSA_ENCRYPTION, SIGNED_DATA,
};
use crate::verify::{VerifyDigest, VerifyError};

/// The longest message that is read, in bytes. The kernel takes as much as a key of type `user` holds: 32767 bytes
/// (security/keys/user_defined.c).
pub const MAX_LENGTH: usize = 32767;

/// The hash algorithms of signatures, with their identifiers and those of ECDSA with them.
const ALGORITHMS: [(HashAlgorithm, ObjectIdentifier, ObjectIdentifier); 3] = [
    (HashAlgorithm::Sha256, ID_SHA_256, ECDSA_WITH_SHA_256),
    (HashAlgorithm::Sha384, ID_SHA_384, ECDSA_WITH_SHA_384),
    (HashAlgorithm::Sha512, ID_SHA_512, ECDSA_WITH_SHA_512),
];

/// Why bytes are not a message of the kind that is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Pkcs7Error {
    /// Longer than [`MAX_LENGTH`].
    #[error("{0} bytes; the kernel takes at most 32767")]
    TooLong(usize),
    /// Not DER, or not the DER of such a message.
    #[error("malformed PKCS #7: {0}")]
    Der(DerError),
    /// Another content type than SignedData, or a message with content.
    #[error("not a detached signature")]
    NotDetached,
    /// A certificate in it is malformed.
    #[error("a certificate in it: {0}")]
    Certificate(CertificateError),
    /// More or fewer signers than one.
    #[error("{0} signers; exactly one is taken")]
    Signers(usize),
    /// The certificate of the signer is not in the message, or in it twice.
    #[error("the signer's certificate is not in it exactly once")]
    NoCertificate,
    /// A hash or signature algorithm that is not taken.
    #[error("algorithm {0} is not taken")]
    Algorithm(ObjectIdentifier),
}

impl From<DerError> for Pkcs7Error {
    fn from(error: DerError) -> Self {
        Self::Der(error)
    }
}

impl From<der::Error> for Pkcs7Error {
    fn from(error: der::Error) -> Self {
        Self::Der(error.into())
    }
}

/// A signature with the certificate of its signer.
#[derive(Clone, PartialEq, Eq)]
pub struct DetachedSignature {
    certificates: Vec<Certificate>,
    /// Which of them is the signer's.
    signer: Certificate,
    digest: HashAlgorithm,
    /// The signed attributes, as the SET that the signature is over.
    attributes: Option<Vec<u8>>,
    signature: Vec<u8>,
}

impl std::fmt::Debug for DetachedSignature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DetachedSignature")
            .field("signer", &self.signer.subject())
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

impl DetachedSignature {
    /// Parses a message in DER.
    ///
    /// # Errors
    ///
    /// [`Pkcs7Error`].
    pub fn parse(message: &[u8]) -> Result<Self, Pkcs7Error> {
        if message.len() > MAX_LENGTH {
            return Err(Pkcs7Error::TooLong(message.len()));
        }
        let mut outer = whole(message, Tag::Sequence)?;
        if ObjectIdentifier::decode(&mut outer)? != SIGNED_DATA {
            return Err(Pkcs7Error::NotDetached);
        }
        let explicit = element(&mut outer, context(0))?;
        outer.finish()?;
        let mut signed = whole(explicit, Tag::Sequence)?;
        element(&mut signed, Tag::Integer)?;
        element(&mut signed, Tag::Set)?;
        let mut content = inner(&mut signed, Tag::Sequence)?;
        if ObjectIdentifier::decode(&mut content)? != DATA || !content.is_finished() {
            return Err(Pkcs7Error::NotDetached);
        }
        let certificates = match next_is(&signed, context(0)) {
            true => certificates(inner(&mut signed, context(0))?)?,
            false => Vec::new(),
        };
        // Lists of revoked certificates, which the kernel does not look at.
        if next_is(&signed, context(1)) {
            AnyRef::decode(&mut signed)?;
        }
        let mut signers = inner(&mut signed, Tag::Set)?;
        signed.finish()?;
        let mut found = Vec::new();
        while !signers.is_finished() {
            found.push(inner(&mut signers, Tag::Sequence)?);
        }
        match <[_; 1]>::try_from(found) {
            Ok([signer]) => Self::of_signer(certificates, signer),
            Err(found) => Err(Pkcs7Error::Signers(found.len())),
        }
    }

    /// `SignerInfo` (RFC 5652, section 5.3).
    fn of_signer(
        certificates: Vec<Certificate>,
        mut info: SliceReader<'_>,
    ) -> Result<Self, Pkcs7Error> {
        element(&mut info, Tag::Integer)?;
        let mut own = Vec::new();
        for certificate in &certificates {
            if names(&info, certificate)? {
                own.push(certificate.clone());
            }
        }
        let [signer] = <[_; 1]>::try_from(own).map_err(|_| Pkcs7Error::NoCertificate)?;
        AnyRef::decode(&mut info)?;
        let oid = algorithm(&mut info)?;
        let (digest, _, ecdsa) = ALGORITHMS
            .into_iter()
            .find(|(_, digest, _)| *digest == oid)
            .ok_or(Pkcs7Error::Algorithm(oid))?;
        let attributes = match next_is(&info, context(0)) {
            true => Some(AnyRef::decode(&mut info)?),
            false => None,
        };
        // What is signed has the tag of a SET (RFC 5652, section 5.4).
        let attributes = attributes
            .map(|set| AnyRef::new(Tag::Set, set.value()).and_then(|set| set.to_der()))
            .transpose()?;
        let oid = algorithm(&mut info)?;
        let expected = match signer.key() {
            PublicKey::Rsa { .. } => RSA_ENCRYPTION,
            PublicKey::Ec { .. } | PublicKey::MlDsa(_) | PublicKey::Other { .. } => ecdsa,
        };
        if oid != expected {
            return Err(Pkcs7Error::Algorithm(oid));
        }
        let signature = element(&mut info, Tag::OctetString)?;
        if next_is(&info, context(1)) {
            AnyRef::decode(&mut info)?;
        }
        info.finish()?;
        Ok(Self {
            signer,
            certificates,
            digest,
            attributes,
            signature: signature.to_vec(),
        })
    }

    /// A message of this certificate's key. The signature is over the digest of the content: raw bytes of RSA, DER of ECDSA.
    ///
    /// # Errors
    ///
    /// [`Pkcs7Error::Algorithm`] for a hash algorithm that is not taken; [`Pkcs7Error::Der`] for lengths that DER cannot express.
    pub fn encode(
        signer: &Certificate,
        digest: HashAlgorithm,
        signature: &[u8],
    ) -> Result<Vec<u8>, Pkcs7Error> {
        let (_, hash, ecdsa) = ALGORITHMS
            .into_iter()
            .find(|(known, ..)| *known == digest)
            .ok_or(Pkcs7Error::Algorithm(ID_SHA_256))?;
        let null = AnyRef::NULL.to_der()?;
        let digest = tlv(Tag::Sequence, &[&hash.to_der()?, &null])?;
        let algorithm = match signer.key() {
            PublicKey::Rsa { .. } => tlv(Tag::Sequence, &[&RSA_ENCRYPTION.to_der()?, &null])?,
            _ => tlv(Tag::Sequence, &[&ecdsa.to_der()?])?,
        };
        let serial = tlv(Tag::Integer, &[signer.serial()])?;
        let version = tlv(Tag::Integer, &[&[1]])?;
        let info = tlv(
            Tag::Sequence,
            &[
                &version,
                &tlv(Tag::Sequence, &[signer.issuer_der(), &serial])?,
                &digest,
                &algorithm,
                &tlv(Tag::OctetString, &[signature])?,
            ],
        )?;
        let signed = tlv(
            Tag::Sequence,
            &[
                &version,
                &tlv(Tag::Set, &[&digest])?,
                &tlv(Tag::Sequence, &[&DATA.to_der()?])?,
                &tlv(context(0), &[signer.der()])?,
                &tlv(Tag::Set, &[&info])?,
            ],
        )?;
        tlv(
            Tag::Sequence,
            &[&SIGNED_DATA.to_der()?, &tlv(context(0), &[&signed])?],
        )
    }

    /// Every certificate of the message.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The certificate of the signer.
    #[must_use]
    pub const fn signer(&self) -> &Certificate {
        &self.signer
    }

    /// Checks that this is a signature of that content. Whether the signer is to be trusted is not looked at.
    ///
    /// # Errors
    ///
    /// [`VerifyError`].
    pub fn verify(&self, verify: VerifyDigest, content: &[u8]) -> Result<(), VerifyError> {
        let digest_of = |bytes| self.digest.digest(bytes).ok_or(VerifyError::Mismatch);
        let mut digest = digest_of(content)?;
        if let Some(attributes) = &self.attributes {
            let stated = message_digest(attributes).map_err(|_| VerifyError::Mismatch)?;
            if stated != digest {
                return Err(VerifyError::Mismatch);
            }
            digest = digest_of(attributes)?;
        }
        verify(&self.signer, self.digest, &digest, &self.signature)
    }
}

/// The digest that the signed attributes give for the content (RFC 5652, section 11.2).
fn message_digest(attributes: &[u8]) -> Result<Vec<u8>, DerError> {
    let mut set = whole(attributes, Tag::Set)?;
    let mut found = Vec::new();
    while !set.is_finished() {
        let mut attribute = inner(&mut set, Tag::Sequence)?;
        if ObjectIdentifier::decode(&mut attribute)? == crate::oid::MESSAGE_DIGEST {
            let mut values = inner(&mut attribute, Tag::Set)?;
            found.push(element(&mut values, Tag::OctetString)?.to_vec());
            values.finish()?;
        }
    }
    match <[_; 1]>::try_from(found) {
        Ok([digest]) => Ok(digest),
        Err(_) => Err(der::Error::from(Tag::OctetString.value_error()).into()),
    }
}

/// The certificates of a message.
fn certificates(mut set: SliceReader<'_>) -> Result<Vec<Certificate>, Pkcs7Error> {
    let mut found = Vec::new();
    while !set.is_finished() {
        let der = set.tlv_bytes()?;
        found.push(Certificate::parse_der(der).map_err(Pkcs7Error::Certificate)?);
    }
    Ok(found)
}

/// Whether the signer's identifier, which comes next, is this certificate's: issuer and serial number, or the subject key
/// identifier.
fn names(info: &SliceReader<'_>, certificate: &Certificate) -> Result<bool, Pkcs7Error> {
    let mut info = info.clone();
    let identifier = AnyRef::decode(&mut info)?;
    if identifier.tag() != Tag::Sequence {
        return Ok(certificate.skid() == Some(identifier.value()));
    }
    let mut parts = SliceReader::new(identifier.value())?;
    let issuer = parts.tlv_bytes()?;
    let serial = element(&mut parts, Tag::Integer)?;
    parts.finish()?;
    Ok(certificate.issuer_der() == issuer && certificate.serial() == serial)
}

fn tlv(tag: Tag, parts: &[&[u8]]) -> Result<Vec<u8>, Pkcs7Error> {
    Ok(AnyRef::new(tag, &parts.concat())?.to_der()?)
}

#[cfg(all(test, feature = "verify"))]
mod tests {
    use super::*;
    use crate::verify::verify_digest;
    use proptest::prelude::*;

    const CONTENT: &[u8] = include_bytes!("../testdata/content");
    const SIGNED: [(&[u8], &[u8]); 7] = [
        (
            include_bytes!("../testdata/rsa2048.p7"),
            include_bytes!("../testdata/rsa2048.der"),
        ),
        (
            include_bytes!("../testdata/p256.p7"),
            include_bytes!("../testdata/p256.der"),
        ),
        (
            include_bytes!("../testdata/p384.p7"),
            include_bytes!("../testdata/p384.der"),
        ),
        (
            include_bytes!("../testdata/rsa2048.attributes.p7"),
            include_bytes!("../testdata/rsa2048.der"),
        ),
        (
            include_bytes!("../testdata/p256.attributes.p7"),
            include_bytes!("../testdata/p256.der"),
        ),
        (
            include_bytes!("../testdata/p384.attributes.p7"),
            include_bytes!("../testdata/p384.der"),
        ),
        (
            include_bytes!("../testdata/keyid.p7"),
            include_bytes!("../testdata/p384.der"),
        ),
    ];

    #[test]
    fn messages_of_openssl() {
        for (message, certificate) in SIGNED {
            let signature = DetachedSignature::parse(message).unwrap();
            assert_eq!(signature.signer().der(), certificate);
            assert_eq!(signature.certificates().len(), 1);
            assert_eq!(signature.verify(verify_digest, CONTENT), Ok(()));
            let other = signature.verify(verify_digest, b"what is not signed\n");
            assert_eq!(other, Err(VerifyError::Mismatch));
        }
    }

    #[test]
    fn messages_that_are_not_taken() {
        let cases: [(&[u8], Pkcs7Error); 4] = [
            (
                include_bytes!("../testdata/no-certificate.p7"),
                Pkcs7Error::NoCertificate,
            ),
            (
                include_bytes!("../testdata/attached.p7"),
                Pkcs7Error::NotDetached,
            ),
            (
                include_bytes!("../testdata/two-signers.p7"),
                Pkcs7Error::Signers(2),
            ),
            (&[0; MAX_LENGTH + 1], Pkcs7Error::TooLong(MAX_LENGTH + 1)),
        ];
        for (message, expected) in cases {
            assert_eq!(DetachedSignature::parse(message), Err(expected));
        }
        let sha1 = include_bytes!("../testdata/sha1.p7");
        let error = DetachedSignature::parse(sha1).unwrap_err();
        assert!(matches!(error, Pkcs7Error::Algorithm(_)), "{error}");
        let (message, _) = SIGNED[0];
        for length in 0..message.len() {
            let error = DetachedSignature::parse(&message[..length]).unwrap_err();
            assert!(matches!(error, Pkcs7Error::Der(_)), "{length}: {error}");
        }
        let longer = [message, &[0]].concat();
        assert!(DetachedSignature::parse(&longer).is_err());
    }

    #[test]
    fn a_message_is_made_as_openssl_makes_it() {
        for (message, _) in &SIGNED[..3] {
            let parsed = DetachedSignature::parse(message).unwrap();
            let made = DetachedSignature::encode(parsed.signer(), parsed.digest, &parsed.signature);
            assert_eq!(DetachedSignature::parse(&made.unwrap()), Ok(parsed));
        }
        let signer = Certificate::parse(SIGNED[0].1).unwrap();
        assert!(DetachedSignature::encode(&signer, HashAlgorithm::Sha1, &[]).is_err());
    }

    proptest! {
        /// Whatever is changed in a message, it verifies no other content, and what it names as the signer is in it.
        #[test]
        fn changed_messages(
            which in 0..SIGNED.len(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut message = SIGNED[which].0.to_vec();
            for (at, byte) in changes {
                let at = at.index(message.len());
                message[at] = byte;
            }
            if let Ok(parsed) = DetachedSignature::parse(&message) {
                prop_assert!(parsed.certificates().contains(parsed.signer()));
                prop_assert!(parsed.verify(verify_digest, b"other").is_err());
            }
        }

        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(DetachedSignature::parse(&bytes).is_err());
        }
    }
}
