//! What the signatures of files are worth, by cause.

use std::collections::BTreeMap;

use ima::certificate::Certificate;
use ima::evm::{Attributes, portable_digest};
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::release::Release;
use ima::signature::{ImaXattr, KeyId, SignatureV2};
use ima::verify::{
    VerifyError, too_old, verify_signature, verify_signature_v3, verify_verity_signature,
};
use rayon::prelude::*;

use crate::Result;
use crate::digest::DigestOf;
use crate::files::Found;
use crate::select::{self, Appraisal};
use crate::sign::Place;
use crate::tree::{Content, Inode, Kind, Tree};
use crate::xattr;

/// The type bits of a regular file's mode (include/uapi/linux/stat.h).
const S_IFREG: u16 = 0o100_000;

pub use ima::verify::SIGV3_FILES;

/// What the signature of a file is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Signed by a key that is known, over what is there.
    Good(KeyId),
    /// The fs-verity digest of what is there is signed by a key that is known. The kernel takes it where fs-verity is enabled
    /// on the file and the rule asks for it.
    GoodVerity(KeyId),
    /// Signed by a key that is known, over what is there, but in a way that the kernel does not know yet: why. Without a release a
    /// signature of version 3 is one, which kernels before [`SIGV3_FILES`] refuse.
    TooNew(KeyId, String),
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
    /// What is there is no signature: which attribute, and why.
    Malformed(String),
    /// A signature that no kernel verifies: why.
    Unverifiable(String),
    /// A signature that is not checked here.
    Unsupported(String),
    /// The file could not be read.
    Unreadable(Fault),
}

impl Verdict {
    /// Whether the kernel would take the file where the policy asks for a signature.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(
            self,
            Self::Good(_) | Self::GoodVerity(_) | Self::NotAppraised
        )
    }

    /// A word for scripts.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Good(_) => "good",
            Self::GoodVerity(_) => "good-verity",
            Self::TooNew(..) => "too-new",
            Self::NotAppraised => "not-appraised",
            Self::Unsigned => "unsigned",
            Self::DigestOnly { .. } => "digest-only",
            Self::UnknownKey(_) => "unknown-key",
            Self::Changed(_) => "changed",
            Self::NoEvm => "no-evm",
            Self::MetadataChanged(_) => "metadata-changed",
            Self::Malformed(_) => "malformed",
            Self::Unverifiable(_) => "unverifiable",
            Self::Unsupported(_) => "unsupported",
            Self::Unreadable(_) => "unreadable",
        }
    }

    /// The key that a signature names, if there is one.
    #[must_use]
    pub fn key_id(&self) -> Option<KeyId> {
        match self {
            Self::Good(key)
            | Self::GoodVerity(key)
            | Self::TooNew(key, _)
            | Self::UnknownKey(key)
            | Self::Changed(key)
            | Self::MetadataChanged(key) => Some(*key),
            _ => None,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Good(key) => write!(f, "good signature by key {key}"),
            Self::GoodVerity(key) => {
                write!(f, "good signature of the fs-verity digest by key {key}")
            }
            Self::TooNew(key, why) => {
                write!(
                    f,
                    "good signature by key {key}, which the kernel refuses: {why}"
                )
            }
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
            Self::Malformed(why) => f.write_str(why),
            Self::Unverifiable(why) => write!(f, "no kernel can verify it: {why}"),
            Self::Unsupported(why) => write!(f, "not checked: {why}"),
            Self::Unreadable(fault) => write!(f, "{}", fault.detail()),
        }
    }
}

/// Returns the fault of a check that had nothing to check. Were that a success, a mistyped path or policy would look like one.
#[must_use]
pub fn nothing_checked(what: impl Into<String>) -> Fault {
    Fault::new(Code::Usage, what).because(Cause::NOTHING_CHECKED)
}

/// How files are checked.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Certificates of keys whose signatures count.
    pub certificates: Vec<Certificate>,
    /// Certificates of keys whose portable signatures in `security.evm` count; where there is one, every file needs such a
    /// signature. Only with [`Place::Xattr`].
    pub evm: Vec<Certificate>,
    /// Only what this policy has appraised.
    pub appraisal: Option<Appraisal>,
    /// Where signatures are.
    pub place: Place,
    /// The oldest kernel that is to take them; nothing for one that knows every key and digest, and no version 3 on files.
    pub kernel: Option<Release>,
}

/// Checks files on all cores; the answer is in the order of `files`. `progress` is called once a file with its length.
pub fn verify(
    files: &[Found],
    options: &VerifyOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Vec<Verdict> {
    files
        .par_iter()
        .map(|file| {
            let verdict = verify_file(file, options).unwrap_or_else(Verdict::Unreadable);
            progress(file.len);
            verdict
        })
        .collect()
}

fn verify_file(file: &Found, options: &VerifyOptions) -> Result<Verdict> {
    if !file.is_appraised(options.appraisal.as_ref())? {
        return Ok(Verdict::NotAppraised);
    }
    let value = options.place.read(&file.path)?;
    let verdict = judge(
        value.as_deref(),
        &options.certificates,
        options.kernel,
        &|over, algo| file.digest(over, algo),
    )?;
    if verdict.is_good() && !options.evm.is_empty() {
        let attributes = Attributes {
            mode: file.mode as u16,
            uid: file.uid,
            gid: file.gid,
        };
        let xattrs = xattr::read_all(&file.path)?;
        return Ok(
            judge_evm(&attributes, &xattrs, &options.evm, options.kernel).unwrap_or(verdict),
        );
    }
    Ok(verdict)
}

/// Checks the regular files of a tree on all cores; the answer has their names, sorted. `progress` is called once a name with
/// its length.
pub fn verify_tree<'a>(
    tree: &'a Tree,
    options: &VerifyOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Vec<(&'a [u8], Verdict)> {
    let files: Vec<(&[u8], &Inode, &Content)> = tree
        .names()
        .filter_map(|(name, index)| {
            let inode = tree.inode(index);
            match &inode.kind {
                Kind::File(content) => Some((name, inode, content)),
                _ => None,
            }
        })
        .collect();
    files
        .into_par_iter()
        .map(|(name, inode, content)| {
            let verdict = verify_inode(name, inode, content, options);
            progress(content.len());
            (name, verdict.unwrap_or_else(Verdict::Unreadable))
        })
        .collect()
}

fn verify_inode(
    name: &[u8],
    inode: &Inode,
    content: &Content,
    options: &VerifyOptions,
) -> Result<Verdict> {
    if let Some(appraisal) = &options.appraisal {
        let head = content.head(select::HEAD)?;
        let file = select::File::of(name, inode, &head);
        if appraisal.appraised_by(&file).is_none() {
            return Ok(Verdict::NotAppraised);
        }
    }
    let value = inode.xattrs.get(xattr::SECURITY_IMA.as_bytes());
    let verdict = judge(
        value.map(Vec::as_slice),
        &options.certificates,
        options.kernel,
        &|over, algo| content.digest(over, algo),
    )?;
    if verdict.is_good() && !options.evm.is_empty() {
        let attributes = Attributes {
            mode: S_IFREG | inode.mode,
            uid: inode.uid,
            gid: inode.gid,
        };
        return Ok(
            judge_evm(&attributes, &inode.xattrs, &options.evm, options.kernel).unwrap_or(verdict),
        );
    }
    Ok(verdict)
}

/// What a value of `security.ima` is worth to a kernel of that release (nothing: one before [`SIGV3_FILES`]), with the digests of
/// what it is on.
///
/// # Errors
///
/// Those of `digest`.
pub fn judge(
    value: Option<&[u8]>,
    certificates: &[Certificate],
    kernel: Option<Release>,
    digest: &dyn Fn(DigestOf, HashAlgorithm) -> Result<Vec<u8>>,
) -> Result<Verdict> {
    let Some(value) = value else {
        return Ok(Verdict::Unsigned);
    };
    let xattr = match ImaXattr::parse(value) {
        Ok(xattr) => xattr,
        Err(error) => {
            return Ok(Verdict::Malformed(format!(
                "security.ima is malformed: {error}"
            )));
        }
    };
    let algo = match (&xattr, xattr.signature()) {
        (ImaXattr::EvmHmac(_) | ImaXattr::EvmPortable(_), _) => {
            return Ok(Verdict::Malformed(
                "security.ima holds a value of security.evm".to_owned(),
            ));
        }
        (ImaXattr::Digest { algo, .. }, _) => *algo,
        (_, signature) => signature.map_or(HashAlgorithm::Sha256, |signature| signature.algo),
    };
    if !algo.is_computable() {
        return Ok(Verdict::Unsupported(format!("{algo} digests")));
    }
    Ok(match &xattr {
        ImaXattr::Digest {
            digest: expected, ..
        } => Verdict::DigestOnly {
            matches: digest(DigestOf::Content, algo)? == *expected,
        },
        ImaXattr::Signature(signature) => by_key(certificates, signature, kernel, |certificate| {
            let digest = digest(DigestOf::Content, algo)?;
            Ok(verify_signature(certificate, &digest, signature))
        })?,
        ImaXattr::SignatureV3(signature) => {
            let verdict = by_key(certificates, &signature.0, kernel, |certificate| {
                let digest = digest(DigestOf::Content, algo)?;
                Ok(verify_signature_v3(certificate, &digest, signature))
            })?;
            match verdict {
                Verdict::Good(key) if kernel.is_none_or(|kernel| kernel < SIGV3_FILES) => {
                    let why = format!("on files it takes version 3 from Linux {SIGV3_FILES} on");
                    Verdict::TooNew(key, why)
                }
                other => other,
            }
        }
        ImaXattr::Verity(signature) => {
            let verdict = by_key(certificates, &signature.0, kernel, |certificate| {
                let digest = digest(DigestOf::Verity, algo)?;
                Ok(verify_verity_signature(certificate, &digest, signature))
            })?;
            match verdict {
                Verdict::Good(key) => Verdict::GoodVerity(key),
                other => other,
            }
        }
        ImaXattr::EvmHmac(_) | ImaXattr::EvmPortable(_) => Verdict::Unsigned,
    })
}

/// What is wrong with a portable signature in `security.evm`, if anything; `xattrs` are the file's by full name.
#[must_use]
pub fn judge_evm(
    attributes: &Attributes,
    xattrs: &BTreeMap<Vec<u8>, Vec<u8>>,
    certificates: &[Certificate],
    kernel: Option<Release>,
) -> Option<Verdict> {
    let Some(value) = xattrs.get(&b"security.evm"[..]) else {
        return Some(Verdict::NoEvm);
    };
    let signature = match ImaXattr::parse(value) {
        Ok(ImaXattr::EvmPortable(signature)) => signature,
        Ok(_) => return Some(Verdict::NoEvm),
        Err(error) => {
            return Some(Verdict::Malformed(format!(
                "security.evm is malformed: {error}"
            )));
        }
    };
    let digest = match portable_digest(signature.algo, attributes, xattrs) {
        Ok(digest) => digest,
        Err(error) => return Some(Verdict::Unsupported(format!("security.evm: {error}"))),
    };
    let verdict = by_key(certificates, &signature, kernel, |certificate| {
        Ok(verify_signature(certificate, &digest, &signature))
    });
    match verdict {
        Ok(Verdict::Good(_)) => None,
        Ok(Verdict::Changed(key)) => Some(Verdict::MetadataChanged(key)),
        Ok(other) => Some(other),
        Err(fault) => Some(Verdict::Unreadable(fault)),
    }
}

/// Tries the certificates whose key a signature names. Several may share the end of their identifiers; the kernel takes the
/// first, here any will do.
fn by_key(
    certificates: &[Certificate],
    signature: &SignatureV2,
    kernel: Option<Release>,
    holds: impl Fn(&Certificate) -> Result<std::result::Result<(), VerifyError>>,
) -> Result<Verdict> {
    let key = signature.key_id;
    let mut verdict = Verdict::UnknownKey(key);
    for certificate in certificates
        .iter()
        .filter(|certificate| certificate.key_id() == key)
    {
        verdict = match holds(certificate)? {
            Ok(()) => {
                let old =
                    kernel.and_then(|kernel| too_old(kernel, certificate.key(), signature.algo));
                return Ok(match old {
                    Some(why) => Verdict::TooNew(key, why),
                    None => Verdict::Good(key),
                });
            }
            Err(VerifyError::NoKernel(why)) => Verdict::Unverifiable(why),
            Err(VerifyError::Unsupported(why)) => Verdict::Unsupported(why),
            Err(_) => Verdict::Changed(key),
        };
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ima::signature::{V3_FILE, v3_digest};

    use super::*;
    use crate::identity::Identity;
    use crate::key::{FileKey, KeyKind};
    use crate::x509::Template;

    /// 6.12: `xattr_verify` says invalid-signature-version.
    #[test]
    fn version_3_on_a_file_is_good_where_the_kernel_takes_it() {
        let key = FileKey::generate(KeyKind::P256).unwrap();
        let certificate = Template::leaf("test").sign(&key, None, None).unwrap();
        let algo = HashAlgorithm::Sha256;
        let identity = Identity::new(Arc::new(key), &certificate, algo).unwrap();
        let digest = algo.digest(b"content").unwrap();
        let mut value = identity
            .sign_digest(&v3_digest(V3_FILE, algo, &digest).unwrap())
            .unwrap();
        value[1] = 3;
        let key = certificate.key_id();
        let too_new = Verdict::TooNew(
            key,
            "on files it takes version 3 from Linux 7.1 on".to_owned(),
        );
        for (kernel, digest, expected) in [
            (None, &digest, too_new.clone()),
            (Some("6.12"), &digest, too_new.clone()),
            (Some("7.0.3"), &digest, too_new),
            (Some("7.1"), &digest, Verdict::Good(key)),
            (Some("7.3"), &vec![0; 32], Verdict::Changed(key)),
            (None, &vec![0; 32], Verdict::Changed(key)),
        ] {
            let kernel = kernel.map(|release| release.parse().unwrap());
            let certificates = std::slice::from_ref(&certificate);
            let found = judge(Some(&value), certificates, kernel, &|_, _| {
                Ok(digest.clone())
            });
            let found = found.unwrap();
            assert_eq!(found, expected, "{kernel:?}");
            assert_eq!(found.is_good(), matches!(expected, Verdict::Good(_)));
        }
    }

    /// include/uapi/linux/hash_info.h and the curves of `x509_extract_key_data`, 6.1 beside 6.12.
    #[test]
    fn keys_and_digests_are_good_from_their_kernel_on() {
        for (kind, algo, first) in [
            (KeyKind::P256, HashAlgorithm::Sha256, "5.13"),
            (KeyKind::P384, HashAlgorithm::Sha384, "5.13"),
            (KeyKind::P384, HashAlgorithm::Sha3_384, "6.7"),
            (KeyKind::P521, HashAlgorithm::Sha512, "6.10"),
            (KeyKind::P521, HashAlgorithm::Sha3_512, "6.10"),
            (KeyKind::Rsa(2048), HashAlgorithm::Sha512, ""),
            (KeyKind::Rsa(2048), HashAlgorithm::Sha3_256, "6.7"),
        ] {
            let key = FileKey::generate(kind).unwrap();
            let certificate = Template::leaf("test").sign(&key, None, None).unwrap();
            let digest = algo.digest(b"content").unwrap();
            let identity = Identity::new(Arc::new(key), &certificate, algo).unwrap();
            let value = identity.sign_digest(&digest).unwrap();
            let certificates = std::slice::from_ref(&certificate);
            for release in [
                "5.12",
                "5.13",
                "6.1.0-56-amd64",
                "6.6",
                "6.7",
                "6.9.9",
                "6.10",
                "6.12",
            ] {
                let kernel: Release = release.parse().unwrap();
                let found = judge(Some(&value), certificates, Some(kernel), &|_, _| {
                    Ok(digest.clone())
                });
                let first = first.parse::<Release>().ok();
                let good = first.is_none_or(|first| first <= kernel);
                assert_eq!(found.unwrap().is_good(), good, "{kind} {algo} {release}");
            }
            let found = judge(Some(&value), certificates, None, &|_, _| Ok(digest.clone()));
            assert!(found.unwrap().is_good(), "{kind} {algo}");
        }
    }
}
