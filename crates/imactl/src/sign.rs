//! Signing files where they are, and checking the signatures of files.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ima::certificate::Certificate;
use ima::fault::{Code, Fault};
use ima::hash::{HashAlgorithm, Hasher};
use ima::signature::{ImaXattr, KeyId};
use ima::verify::{VerifyError, verify_signature};
use rayon::prelude::*;

use crate::Result;
use crate::files::{Found, Skip};
use crate::identity::Identity;
use crate::select::{self, Chooser};
use crate::tree::{Content, Piece};
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
    fn sidecar(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".sig");
        name.into()
    }

    fn read(self, path: &Path) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Xattr => xattr::read(path, SECURITY_IMA),
            Self::Sidecar => match crate::file::read_bounded(&Self::sidecar(path), 65_536) {
                Ok(value) => Ok(Some(value)),
                Err(_) if !Self::sidecar(path).exists() => Ok(None),
                Err(fault) => Err(fault),
            },
        }
    }

    fn write(self, path: &Path, value: &[u8]) -> Result<()> {
        match self {
            Self::Xattr => xattr::write(path, SECURITY_IMA, value),
            Self::Sidecar => crate::file::write(&Self::sidecar(path), value, 0o644, true),
        }
    }
}

/// How files are signed.
#[derive(Debug, Clone)]
pub struct SignOptions {
    /// Who signs.
    pub identity: Identity,
    /// Only what this policy has appraised.
    pub chooser: Option<Chooser>,
    /// Where to.
    pub place: Place,
    /// Leaves alone what this certificate's key has signed already.
    pub unchanged: Option<Certificate>,
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

/// Signs files on all cores; the answer is in the order of `files`. `progress` is called once a file with its length.
pub fn sign(
    files: &[Found],
    options: &SignOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Vec<Signed> {
    files
        .par_iter()
        .map(|file| {
            let signed = sign_file(file, options).unwrap_or_else(Signed::Failed);
            progress(file.len);
            signed
        })
        .collect()
}

fn sign_file(file: &Found, options: &SignOptions) -> Result<Signed> {
    if !is_wanted(file, options.chooser.as_ref())? {
        return Ok(Signed::Skipped(Skip::NotAppraised));
    }
    let digest = digest(file, options.identity.algo())?;
    if let Some(certificate) = &options.unchanged
        && let Some(value) = options.place.read(&file.path)?
        && let Ok(ImaXattr::Signature(signature)) = ImaXattr::parse(&value)
        && signature.algo == options.identity.algo()
        && verify_signature(certificate, &digest, &signature).is_ok()
    {
        return Ok(Signed::Skipped(Skip::Unchanged));
    }
    options
        .place
        .write(&file.path, &options.identity.sign_digest(&digest)?)?;
    if let (Some(evm), Place::Xattr) = (&options.evm, options.place) {
        let attributes = ima::evm::Attributes {
            mode: file.mode as u16,
            uid: file.uid,
            gid: file.gid,
        };
        let value = evm.sign_evm(&attributes, &xattr::read_all(&file.path)?)?;
        xattr::write(&file.path, SECURITY_EVM, &value)?;
    }
    Ok(Signed::Yes)
}

fn is_wanted(file: &Found, chooser: Option<&Chooser>) -> Result<bool> {
    let Some(chooser) = chooser else {
        return Ok(true);
    };
    let head = content(file).head(select::HEAD)?;
    let seen = select::File {
        path: file.below_root.as_os_str().as_bytes(),
        mode: file.mode,
        uid: file.uid,
        gid: file.gid,
        head: &head,
    };
    Ok(chooser.appraised_by(&seen).is_some())
}

fn content(file: &Found) -> Content {
    Content::Host {
        path: file.path.clone(),
        len: file.len,
    }
}

/// The digest of a file; a file that changes meanwhile is an error.
///
/// # Errors
///
/// `IMA-901`, `IMA-909`, `IMA-907` for an algorithm that is not computed.
pub fn digest(file: &Found, algo: HashAlgorithm) -> Result<Vec<u8>> {
    let mut hasher = Hasher::new(algo)
        .ok_or_else(|| Fault::new(Code::SigningFailed, format!("digests of {algo}")))?;
    content(file).read(&mut |piece| {
        match piece {
            Piece::Data(data) => hasher.update(data),
            Piece::Hole(len) => crate::image::hash_zeros(&mut hasher, len),
        }
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// What the signature of a file is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Signed by a key that is known, over what is there.
    Good(KeyId),
    /// No rule of the policy has it appraised.
    NotAppraised,
    /// No `security.ima`.
    Unsigned,
    /// A digest instead of a signature; whether it is that of the content.
    DigestOnly {
        /// It is.
        matches: bool,
    },
    /// Signed by a key of which no certificate was given.
    UnknownKey(KeyId),
    /// Signed by a key that is known, over something else.
    Changed(KeyId),
    /// Good, but EVM is on and there is no portable signature in `security.evm`.
    NoEvm,
    /// Good, but owner, mode or attributes are not those that `security.evm` was made for.
    MetadataChanged(KeyId),
    /// What is there is no signature.
    Malformed(String),
    /// A signature that is not checked here.
    Unsupported(String),
    /// The file could not be read.
    Unreadable(Fault),
}

impl Verdict {
    /// Whether the kernel would take the file where the policy asks for a signature.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Good(_) | Self::NotAppraised)
    }

    /// A word for scripts.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Good(_) => "good",
            Self::NotAppraised => "not-appraised",
            Self::Unsigned => "unsigned",
            Self::DigestOnly { .. } => "digest-only",
            Self::UnknownKey(_) => "unknown-key",
            Self::Changed(_) => "changed",
            Self::NoEvm => "no-evm",
            Self::MetadataChanged(_) => "metadata-changed",
            Self::Malformed(_) => "malformed",
            Self::Unsupported(_) => "unsupported",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Good(key) => write!(f, "good signature by key {key}"),
            Self::NotAppraised => f.write_str("not appraised by the policy"),
            Self::Unsigned => f.write_str("no signature"),
            Self::DigestOnly { matches: true } => f.write_str("a digest, no signature"),
            Self::DigestOnly { matches: false } => {
                f.write_str("a digest of other content, no signature")
            }
            Self::UnknownKey(key) => {
                write!(f, "signed by key {key}, of which no certificate was given")
            }
            Self::Changed(key) => write!(f, "changed since key {key} signed it"),
            Self::NoEvm => f.write_str("no portable signature in security.evm, and EVM is on"),
            Self::MetadataChanged(key) => write!(
                f,
                "owner, mode or attributes changed since key {key} signed them in security.evm"
            ),
            Self::Malformed(why) => write!(f, "security.ima is malformed: {why}"),
            Self::Unsupported(why) => write!(f, "not checked: {why}"),
            Self::Unreadable(fault) => write!(f, "{}", fault.detail()),
        }
    }
}

/// Checks files on all cores; the answer is in the order of `files`. `progress` is called once a file with its length.
pub fn verify(
    files: &[Found],
    certificates: &[Certificate],
    chooser: Option<&Chooser>,
    place: Place,
    progress: &(dyn Fn(u64) + Sync),
) -> Vec<Verdict> {
    files
        .par_iter()
        .map(|file| {
            let verdict =
                verify_file(file, certificates, chooser, place).unwrap_or_else(Verdict::Unreadable);
            progress(file.len);
            verdict
        })
        .collect()
}

fn verify_file(
    file: &Found,
    certificates: &[Certificate],
    chooser: Option<&Chooser>,
    place: Place,
) -> Result<Verdict> {
    if !is_wanted(file, chooser)? {
        return Ok(Verdict::NotAppraised);
    }
    let value = place.read(&file.path)?;
    judge(value.as_deref(), certificates, &|algo| digest(file, algo))
}

/// What a value of `security.ima` is worth, with the digest of what it is on.
///
/// # Errors
///
/// Those of `digest`.
pub fn judge(
    value: Option<&[u8]>,
    certificates: &[Certificate],
    digest: &dyn Fn(HashAlgorithm) -> Result<Vec<u8>>,
) -> Result<Verdict> {
    let Some(value) = value else {
        return Ok(Verdict::Unsigned);
    };
    Ok(match ImaXattr::parse(value) {
        Err(error) => Verdict::Malformed(error.to_string()),
        Ok(ImaXattr::Digest { algo, .. }) if !algo.is_computable() => {
            Verdict::Unsupported(format!("{algo} digests"))
        }
        Ok(ImaXattr::Digest {
            algo,
            digest: expected,
        }) => Verdict::DigestOnly {
            matches: digest(algo)? == expected,
        },
        Ok(ImaXattr::Signature(signature)) => {
            let key = signature.key_id;
            if !signature.algo.is_computable() {
                return Ok(Verdict::Unsupported(format!(
                    "signatures of {} digests",
                    signature.algo
                )));
            }
            let digest = digest(signature.algo)?;
            let mut verdict = Verdict::UnknownKey(key);
            // Two certificates may share the end of their identifiers; the kernel takes the first, here either will do.
            for certificate in certificates
                .iter()
                .filter(|certificate| certificate.key_id() == key)
            {
                verdict = match verify_signature(certificate, &digest, &signature) {
                    Ok(()) => return Ok(Verdict::Good(key)),
                    Err(VerifyError::Unsupported(why)) => Verdict::Unsupported(why),
                    Err(_) => Verdict::Changed(key),
                };
            }
            verdict
        }
        Ok(ImaXattr::Verity(_) | ImaXattr::SignatureV3(_)) => {
            Verdict::Unsupported("version 3 signatures".to_owned())
        }
        Ok(ImaXattr::EvmHmac(_) | ImaXattr::EvmPortable(_)) => {
            Verdict::Malformed("it is a value of security.evm".to_owned())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_file_of_another_length_than_seen_has_changed() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"content").unwrap();
        let found = |len| Found {
            path: file.path().to_owned(),
            below_root: PathBuf::new(),
            len,
            mode: 0o100_644,
            uid: 0,
            gid: 0,
        };
        let whole = HashAlgorithm::Sha256.digest(b"content").unwrap();
        assert_eq!(digest(&found(7), HashAlgorithm::Sha256).unwrap(), whole);
        for len in [0, 6, 8] {
            let fault = digest(&found(len), HashAlgorithm::Sha256).unwrap_err();
            assert_eq!(fault.code(), Code::FileChanged, "{len}");
        }
        let fault = digest(&found(7), HashAlgorithm::Sm3).unwrap_err();
        assert_eq!(fault.code(), Code::SigningFailed);
    }

    #[test]
    fn a_file_that_is_written_to_while_it_is_read_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![1; 2 << 20]).unwrap();
        let content = Content::Host {
            path: path.clone(),
            len: 2 << 20,
        };
        let mut pieces = 0;
        let read = content.read(&mut |_| {
            pieces += 1;
            if pieces == 2 {
                let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all(b"other").unwrap();
                // The kernel's clock for file times is coarse: without this the change could fall into the tick of the first.
                file.set_modified(std::time::SystemTime::now()).unwrap();
            }
            Ok(())
        });
        assert_eq!(read.unwrap_err().code(), Code::FileChanged);
    }
}
