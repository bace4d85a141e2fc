//! Signing files where they are.

use std::path::{Path, PathBuf};

use ima::certificate::Certificate;
use ima::fault::Fault;
use ima::hash::HashAlgorithm;
use ima::signature::ImaXattr;
use rayon::prelude::*;

use crate::Result;
use crate::digest::DigestOf;
use crate::files::{Found, Skip};
use crate::identity::{Identity, Version};
use crate::select::{self, Appraisal};
use crate::verifier::Verifier;
use crate::xattr::{self, SECURITY_EVM, SECURITY_IMA};

/// Where signatures are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the extended attribute `security.ima`.
    Xattr,
    /// In a file of the same name with `.sig` after it, as `evmctl --sigfile` does.
    Sidecar,
}

impl Place {
    /// The name of the file beside `path`.
    #[must_use]
    pub fn sidecar(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".sig");
        name.into()
    }

    /// What is kept for the file at `path`, if anything.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`](ima::fault::Code::InputUnreadable).
    pub fn read(self, path: &Path) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Xattr => xattr::read(path, SECURITY_IMA),
            Self::Sidecar => match crate::file::read_bounded(&Self::sidecar(path), 65_536) {
                Ok(value) => Ok(Some(value)),
                Err(_) if !Self::sidecar(path).exists() => Ok(None),
                Err(fault) => Err(fault),
            },
        }
    }

    /// Keeps `value` for the file at `path`.
    ///
    /// # Errors
    ///
    /// [`Code::XattrUnwritable`](ima::fault::Code::XattrUnwritable) for an attribute,
    /// [`Code::OutputUnwritable`](ima::fault::Code::OutputUnwritable) for a file.
    pub fn write(self, path: &Path, value: &[u8]) -> Result<()> {
        match self {
            Self::Xattr => xattr::write(path, SECURITY_IMA, value),
            Self::Sidecar => crate::file::write(&Self::sidecar(path), value, 0o644, true),
        }
    }
}

/// What becomes the value of `security.ima`.
#[derive(Debug, Clone)]
pub enum ImaValue {
    /// A signature of the content's digest, of the identity's version.
    Signature(Identity),
    /// A signature of the fs-verity digest (version 3, type 6): good where fs-verity is enabled on the file and the policy says
    /// `digest_type=verity appraise_type=sigv3`.
    Verity(Identity),
    /// The digest alone, which anybody can make: good where the policy asks for no signature.
    Digest(HashAlgorithm),
}

impl ImaValue {
    /// The hash algorithm.
    #[must_use]
    pub fn algo(&self) -> HashAlgorithm {
        match self {
            Self::Signature(identity) | Self::Verity(identity) => identity.algo(),
            Self::Digest(algo) => *algo,
        }
    }

    /// Who signs, if anybody does.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Signature(identity) | Self::Verity(identity) => Some(identity),
            Self::Digest(_) => None,
        }
    }

    /// What the digest is over.
    #[must_use]
    pub fn over(&self) -> DigestOf {
        match self {
            Self::Verity(_) => DigestOf::Verity,
            Self::Signature(_) | Self::Digest(_) => DigestOf::Content,
        }
    }

    /// The value of `security.ima` for a file with this digest.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`](ima::fault::Code::SigningFailed).
    pub fn value(&self, digest: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Signature(identity) => identity.sign_digest(digest),
            Self::Verity(identity) => identity.sign_verity(digest),
            Self::Digest(algo) => Ok(ImaXattr::Digest {
                algo: *algo,
                digest: digest.to_vec(),
            }
            .encode()),
        }
    }

    /// Whether `value` is as good as what would be written: made by `verifier`'s key over this digest. Where signatures have
    /// chance in them, it is another one.
    fn is_made(&self, value: &[u8], digest: &[u8], verifier: Option<&Verifier<'_>>) -> bool {
        let Ok(value) = ImaXattr::parse(value) else {
            return false;
        };
        match (self, &value, verifier) {
            (Self::Signature(identity), ImaXattr::Signature(_), Some(verifier))
                if identity.version() == Version::V2 =>
            {
                self.is_by(&value, digest, verifier)
            }
            (Self::Signature(identity), ImaXattr::SignatureV3(_), Some(verifier))
                if identity.version() == Version::V3 =>
            {
                self.is_by(&value, digest, verifier)
            }
            (Self::Verity(_), ImaXattr::Verity(_), Some(verifier)) => {
                self.is_by(&value, digest, verifier)
            }
            (
                Self::Digest(wanted),
                ImaXattr::Digest {
                    algo,
                    digest: found,
                },
                _,
            ) => wanted == algo && found == digest,
            _ => false,
        }
    }

    fn is_by(&self, value: &ImaXattr, digest: &[u8], verifier: &Verifier<'_>) -> bool {
        let algo = value.signature().map(|signature| signature.algo);
        algo == Some(self.algo()) && verifier.verify_value(digest, value).is_ok()
    }
}

/// How files are signed.
#[derive(Debug, Clone)]
pub struct SignOptions {
    /// What is written.
    pub mark: ImaValue,
    /// Only what this policy has appraised.
    pub appraisal: Option<Appraisal>,
    /// Where to.
    pub place: Place,
    /// Leaves files alone that have what would be written already.
    pub incremental: bool,
    /// The certificate that decides that; for digests none is needed.
    pub certificate: Option<Certificate>,
    /// Writes `security.evm` too, by this identity: owner, mode and attributes are then part of what is signed. Only with
    /// [`Place::Xattr`].
    pub evm: Option<Identity>,
}

/// What became of a file.
#[derive(Debug)]
pub enum Signed {
    /// It has a new signature.
    Yes,
    /// It was left alone.
    Skipped(Skip),
    /// It could not be signed.
    Failed(Fault),
}

/// Signs files, or writes their digests, on all cores; the answer is in the order of `files`. `progress` is called once a file
/// with its length.
pub fn sign(
    files: &[Found],
    options: &SignOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Vec<Signed> {
    let verifier = options.certificate.as_ref().map(Verifier::new);
    files
        .par_iter()
        .map(|file| {
            let signed = sign_file(file, options, verifier.as_ref()).unwrap_or_else(Signed::Failed);
            progress(file.len);
            signed
        })
        .collect()
}

fn sign_file(
    file: &Found,
    options: &SignOptions,
    verifier: Option<&Verifier<'_>>,
) -> Result<Signed> {
    let open = file.open()?;
    if let Some(appraisal) = &options.appraisal
        && !file.is_chosen(appraisal, &open.head(select::HEAD)?)
    {
        return Ok(Signed::Skipped(Skip::NotAppraised));
    }
    if let Some(recorded) = &file.recorded
        && open.digest(DigestOf::Content, recorded.algo)? != recorded.digest
    {
        return Ok(Signed::Skipped(Skip::Changed));
    }
    let mark = &options.mark;
    let digest = open.digest(mark.over(), mark.algo())?;
    let present = match options.place {
        _ if !options.incremental => None,
        Place::Xattr => xattr::read_open(&open, SECURITY_IMA)?,
        Place::Sidecar => options.place.read(&file.path)?,
    };
    let is_made = |value: &[u8]| mark.is_made(value, &digest, verifier);
    let value = if mark.identity().is_some_and(Identity::is_quickly_repeated) {
        let value = mark.value(&digest)?;
        // Tokens and other programs sign with chance.
        if present.is_some_and(|present| present == value || is_made(&present)) {
            return Ok(Signed::Skipped(Skip::Unchanged));
        }
        value
    } else {
        if present.is_some_and(|present| is_made(&present)) {
            return Ok(Signed::Skipped(Skip::Unchanged));
        }
        mark.value(&digest)?
    };
    match options.place {
        Place::Xattr => xattr::write_open(&open, SECURITY_IMA, &value)?,
        Place::Sidecar => options.place.write(&file.path, &value)?,
    }
    if let (Some(evm), Place::Xattr) = (&options.evm, options.place) {
        let attributes = ima::evm::Attributes {
            mode: file.mode as u16,
            uid: file.uid,
            gid: file.gid,
        };
        let value = evm.sign_evm(&attributes, &xattr::read_all(&file.path)?)?;
        xattr::write_open(&open, SECURITY_EVM, &value)?;
    }
    Ok(Signed::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;
    use crate::key::{FileKey, KeyKind, Signer};
    use crate::x509::Template;
    use ima::signature::SignatureV2;
    use std::sync::Arc;

    const SHA256: HashAlgorithm = HashAlgorithm::Sha256;

    /// A signer whose signatures have chance in them, as those of a token.
    #[derive(Debug)]
    struct Random(FileKey, aws_lc_rs::signature::EcdsaKeyPair);

    impl Signer for Random {
        fn public_key(&self) -> &[u8] {
            self.0.public_key()
        }

        fn kind(&self) -> KeyKind {
            self.0.kind()
        }

        fn sign_digest(&self, algo: HashAlgorithm, digest: &[u8]) -> Result<Vec<u8>> {
            assert_eq!(algo, SHA256);
            let digest =
                aws_lc_rs::digest::Digest::import_less_safe(digest, &aws_lc_rs::digest::SHA256);
            Ok(self
                .1
                .sign_digest(&digest.unwrap())
                .unwrap()
                .as_ref()
                .to_vec())
        }
    }

    #[test]
    fn an_incremental_run_leaves_every_good_signature_alone() {
        let key = FileKey::generate(KeyKind::P256).unwrap();
        let certificate = Template::ca("key").sign(&key, None, None).unwrap();
        let pair = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(
            &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING,
            key.pkcs8_der(),
        );
        let random = Random(
            FileKey::from_bytes(key.pkcs8_der(), &crate::key::no_password).unwrap(),
            pair.unwrap(),
        );
        let signers: [Arc<dyn Signer>; 2] = [Arc::new(key), Arc::new(random)];
        let directory = tempfile::tempdir().unwrap();
        let names = [
            "same",
            "with-chance",
            "changed",
            "other-algorithm",
            "version-3",
            "none",
        ];
        for by in signers.clone() {
            for name in names {
                std::fs::write(directory.path().join(name), name).unwrap();
            }
            let identity = |signer: &Arc<dyn Signer>, algo| {
                Identity::new(signer.clone(), &certificate, algo).unwrap()
            };
            let place = Place::Sidecar;
            let put = |name: &str, value: &[u8]| {
                place.write(&directory.path().join(name), value).unwrap();
            };
            put("same", &identity(&by, SHA256).sign(b"same").unwrap());
            let [_, random] = &signers;
            let chance = identity(random, SHA256).sign(b"with-chance").unwrap();
            put("with-chance", &chance);
            put("changed", &identity(&by, SHA256).sign(b"before").unwrap());
            let [file, _] = &signers;
            let longer = identity(file, HashAlgorithm::Sha512);
            put("other-algorithm", &longer.sign(b"other-algorithm").unwrap());
            let version_3 = identity(&by, SHA256).with_version(Version::V3);
            put("version-3", &version_3.sign(b"version-3").unwrap());
            let _ = std::fs::remove_file(Place::sidecar(&directory.path().join("none")));

            let options = SignOptions {
                mark: ImaValue::Signature(identity(&by, SHA256)),
                appraisal: None,
                place,
                incremental: true,
                certificate: Some(certificate.clone()),
                evm: None,
            };
            let paths = names.map(|name| directory.path().join(name));
            let found = files::collect(&paths, directory.path()).unwrap();
            let signed: Vec<bool> = sign(&found.files, &options, &|_| ())
                .into_iter()
                .map(|signed| match signed {
                    Signed::Yes => true,
                    Signed::Skipped(Skip::Unchanged) => false,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(signed, [false, false, true, true, true, true], "{by:?}");
            let verifier = Verifier::new(&certificate);
            for name in names {
                let value = place.read(&directory.path().join(name)).unwrap().unwrap();
                let digest = SHA256.digest(name.as_bytes()).unwrap();
                let value = ImaXattr::parse(&value).unwrap();
                assert!(
                    matches!(value, ImaXattr::Signature(SignatureV2 { algo: SHA256, .. })),
                    "{name}"
                );
                assert_eq!(verifier.verify_value(&digest, &value), Ok(()), "{name}");
            }
        }
    }
}
