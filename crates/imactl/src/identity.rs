//! Who signs: a key, the id under which the kernel finds its certificate, and a hash algorithm.

use std::collections::BTreeMap;
use std::sync::Arc;

use ima::certificate::Certificate;
use ima::evm::Layout;
use ima::fault::{Cause, Code, Fault};
use ima::hash::{HashAlgorithm, Hasher};
use ima::pkcs7::DetachedSignature;
use ima::signature::{
    ImaXattr, KeyId, SignatureV2, SignatureV3, V3_EVM, V3_FILE, V3_VERITY, file_id,
};
use sha1::{Digest as _, Sha1};

use crate::Result;
use crate::key::{KeyKind, Signer, check_belongs, check_digest, check_verifiable};

/// A key with all that is needed to make values of `security.ima`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Identity {
    signer: Arc<dyn Signer>,
    key_id: KeyId,
    algo: HashAlgorithm,
    version: Version,
    /// Of the kernel that portable signatures in `security.evm` are for.
    layout: Layout,
}

/// The version of the signatures of contents and in `security.evm`. Those of fs-verity digests are always of version 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// Over the digest: every kernel takes it, except where the rule says `appraise_type=sigv3`.
    #[default]
    V2,
    /// Over what the digest is of, too: kernels from [`SIGV3_FILES`](ima::verify::SIGV3_FILES) on take it.
    V3,
}

impl Identity {
    /// Signs with `signer`, whose certificate is `certificate`, digests of `algo`.
    ///
    /// # Errors
    ///
    /// [`Code::KeyMismatch`] if the key does not belong to the certificate; [`Code::CertificateUnusable`] if the certificate
    /// has no subject key identifier, because the kernel would never find the key, or the kernel does not compute with keys
    /// of that length; [`Code::SigningFailed`] for an algorithm that cannot be computed.
    pub fn new(
        signer: Arc<dyn Signer>,
        certificate: &Certificate,
        algo: HashAlgorithm,
    ) -> Result<Self> {
        check_belongs(&*signer, certificate)?;
        if certificate.skid().is_none() {
            return Err(Fault::new(
                Code::CertificateUnusable,
                format!("`{}`", certificate.subject()),
            )
            .because(Cause::NO_SKID));
        }
        Self {
            signer,
            key_id: certificate.key_id(),
            algo,
            version: Version::default(),
            layout: Layout::Bits64,
        }
        .with_version(Version::default())
        .checked()
    }

    /// The same without a certificate: the key id is taken from the SHA-1 of the public key, as evmctl does. It is that of the
    /// certificate only if the certificate's subject key identifier was made in this usual way.
    ///
    /// # Errors
    ///
    /// [`Code::CertificateUnusable`] for a key of a length that the kernel does not compute with; [`Code::SigningFailed`]
    /// for an algorithm that cannot be computed.
    pub fn without_certificate(signer: Arc<dyn Signer>, algo: HashAlgorithm) -> Result<Self> {
        let sha1 = Sha1::digest(signer.public_key());
        let key_id = KeyId::from_suffix(&sha1).unwrap_or(KeyId([0; 4]));
        Self {
            signer,
            key_id,
            algo,
            version: Version::default(),
            layout: Layout::Bits64,
        }
        .with_version(Version::default())
        .checked()
    }

    /// Makes portable signatures in `security.evm` for a 32-bit kernel, in the place of those for a 64-bit one.
    #[must_use]
    pub fn for_32_bit_kernel(self) -> Self {
        Self {
            layout: Layout::Bits32,
            ..self
        }
    }

    fn checked(self) -> Result<Self> {
        check_verifiable(self.signer.kind())?;
        if crate::key::SIGNED.contains(&self.algo) {
            Ok(self)
        } else {
            check_digest(self.algo, &[]).map(|()| self)
        }
    }

    /// Makes signatures of this version; with ML-DSA, which has no other, of version 3.
    #[must_use]
    pub fn with_version(self, version: Version) -> Self {
        let version = match self.signer.kind() {
            KeyKind::MlDsa(_) => Version::V3,
            _ => version,
        };
        Self { version, ..self }
    }

    /// The version of the signatures.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The id under which the kernel finds the key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The hash algorithm.
    #[must_use]
    pub fn algo(&self) -> HashAlgorithm {
        self.algo
    }

    /// As [`Signer::is_quickly_repeated`].
    #[must_use]
    pub fn is_quickly_repeated(&self) -> bool {
        self.signer.is_quickly_repeated()
    }

    /// An empty digest of this identity's algorithm.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`] for an algorithm that cannot be computed.
    pub fn hasher(&self) -> Result<Hasher> {
        Hasher::new(self.algo)
            .ok_or_else(|| Fault::new(Code::SigningFailed, format!("digests of {}", self.algo)))
    }

    /// The value of `security.ima` for a file with this digest.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`].
    pub fn sign_digest(&self, digest: &[u8]) -> Result<Vec<u8>> {
        let value = match self.version {
            Version::V2 => ImaXattr::Signature(self.signature(digest)?),
            Version::V3 => ImaXattr::SignatureV3(self.signature_v3(V3_FILE, digest)?),
        };
        Ok(value.encode())
    }

    fn signature(&self, digest: &[u8]) -> Result<SignatureV2> {
        Ok(SignatureV2 {
            algo: self.algo,
            key_id: self.key_id,
            signature: self.signer.sign_digest(self.algo, digest)?,
        })
    }

    fn signature_v3(&self, kind: u8, digest: &[u8]) -> Result<SignatureV3> {
        check_digest(self.algo, digest)?;
        let message = file_id(kind, self.algo, digest);
        Ok(SignatureV3(SignatureV2 {
            algo: self.algo,
            key_id: self.key_id,
            signature: self.signer.sign_message(self.algo, &message)?,
        }))
    }

    /// The value of `security.ima` for a file with this fs-verity digest, which must be of this identity's algorithm.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`].
    pub fn sign_verity(&self, verity_digest: &[u8]) -> Result<Vec<u8>> {
        Ok(ImaXattr::Verity(self.signature_v3(V3_VERITY, verity_digest)?).encode())
    }

    /// The value of `security.evm` for a file with these attributes: a portable signature over owner, group, mode and the
    /// protected extended attributes, `security.ima` among them.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`], also for a file without `security.ima`.
    pub fn sign_evm(
        &self,
        attributes: &ima::evm::Attributes,
        xattrs: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let digest = ima::evm::portable_digest(self.algo, attributes, xattrs, self.layout)
            .map_err(|error| {
                Fault::new(Code::SigningFailed, "security.evm").with_cause(error.to_string())
            })?;
        let value = match self.version {
            Version::V2 => ImaXattr::EvmPortable(self.signature(&digest)?),
            Version::V3 => ImaXattr::EvmPortableV3(self.signature_v3(V3_EVM, &digest)?),
        };
        Ok(value.encode())
    }

    /// A detached signature of PKCS #7 over this content, in DER, with the certificate in it, which must be the key's.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`], also for a hash algorithm that is not taken there; [`Code::KeyMismatch`].
    pub fn sign_detached(&self, certificate: &Certificate, content: &[u8]) -> Result<Vec<u8>> {
        check_belongs(&*self.signer, certificate)?;
        let mut hasher = self.hasher()?;
        hasher.update(content);
        let signature = self.signer.sign_digest(self.algo, &hasher.finish())?;
        DetachedSignature::encode(certificate, self.algo, &signature).map_err(|error| {
            Fault::new(Code::SigningFailed, format!("PKCS #7 with {}", self.algo))
                .with_cause(error.to_string())
        })
    }

    /// The value of `security.ima` for a file with this content.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`].
    pub fn sign(&self, content: &[u8]) -> Result<Vec<u8>> {
        let mut hasher = self.hasher()?;
        hasher.update(content);
        self.sign_digest(&hasher.finish())
    }
}
