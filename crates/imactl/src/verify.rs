//! What the signatures of files are worth, by cause.

use std::collections::BTreeMap;

use ima::certificate::Certificate;
use ima::evm::{Attributes, Layout, portable_digest};
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::policy::{AppraiseType, Rule};
use ima::release::Release;
use ima::signature::{ImaXattr, KeyId};
use ima::verify::{VerifyError, too_old};
use rayon::prelude::*;

use crate::Result;
use crate::digest::DigestOf;
use crate::files::Found;
use crate::select::{self, Appraisal};
use crate::sign::Place;
use crate::tree::{Content, Inode, Kind, Tree};
use crate::verifier::verify_any;
use crate::xattr;

/// The type bits of a regular file's mode (include/uapi/linux/stat.h).
const S_IFREG: u16 = 0o100_000;

pub use ima::verify::SIGV3_FILES;

/// A kernel that takes every kind of signature: for where it is not known which kernel there will be.
pub const NEWEST: Release = Release::new(u16::MAX, 0);

/// What the signature of a file is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Signed by a key that is known, over what is there.
    Good(KeyId),
    /// The same with a signature of version 3, which the kernel takes from [`SIGV3_FILES`] on, also where the rule says
    /// `appraise_type=sigv3`.
    GoodV3(KeyId),
    /// The fs-verity digest of what is there is signed by a key that is known. The kernel takes it where fs-verity is enabled
    /// on the file and the rule asks for it.
    GoodVerity(KeyId),
    /// Signed by a key that is known, over what is there, but in a way that the kernel does not know yet: why. Without a release a
    /// signature of version 3 is one, which kernels before [`SIGV3_FILES`] refuse.
    TooNew(KeyId, String),
    /// Good, but not the kind of signature that a rule of the policy asks for: what it is worth otherwise, and what is asked for.
    OtherKind(Box<Verdict>, &'static str),
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
    /// Good, but the portable signature in `security.evm` is for a kernel of the other word size: of 32 bits, or of 64.
    OtherWordSize(KeyId, u8),
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
            Self::Good(_) | Self::GoodV3(_) | Self::GoodVerity(_) | Self::NotAppraised
        )
    }

    /// A word for scripts.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Good(_) => "good",
            Self::GoodV3(_) => "good-v3",
            Self::GoodVerity(_) => "good-verity",
            Self::TooNew(..) => "too-new",
            Self::OtherKind(..) => "other-kind",
            Self::NotAppraised => "not-appraised",
            Self::Unsigned => "unsigned",
            Self::DigestOnly { .. } => "digest-only",
            Self::UnknownKey(_) => "unknown-key",
            Self::Changed(_) => "changed",
            Self::NoEvm => "no-evm",
            Self::MetadataChanged(_) => "metadata-changed",
            Self::OtherWordSize(..) => "other-word-size",
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
            | Self::GoodV3(key)
            | Self::GoodVerity(key)
            | Self::TooNew(key, _)
            | Self::UnknownKey(key)
            | Self::Changed(key)
            | Self::MetadataChanged(key)
            | Self::OtherWordSize(key, _) => Some(*key),
            Self::OtherKind(verdict, _) => verdict.key_id(),
            _ => None,
        }
    }

    /// What is left of it where this rule appraises the file: a good signature must be of the kind that the rule asks for
    /// (ima_appraise.c, `xattr_verify`).
    #[must_use]
    pub fn under(self, rule: &Rule) -> Self {
        let wanted = match (&self, rule.appraise_type, rule.verity) {
            (Self::Good(_), Some(AppraiseType::Sigv3), false) => "a signature of version 3",
            (Self::Good(_) | Self::GoodV3(_), _, true) => "a signature of the fs-verity digest",
            (Self::GoodVerity(_), _, false) => "a signature of the content's digest",
            _ => return self,
        };
        Self::OtherKind(Box::new(self), wanted)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Good(key) => write!(f, "good signature by key {key}"),
            Self::GoodV3(key) => write!(f, "good signature of version 3 by key {key}"),
            Self::GoodVerity(key) => {
                write!(f, "good signature of the fs-verity digest by key {key}")
            }
            Self::TooNew(key, why) => {
                write!(
                    f,
                    "good signature by key {key}, which the kernel refuses: {why}"
                )
            }
            Self::OtherKind(verdict, wanted) => {
                write!(f, "{verdict}, where {wanted} is asked for")
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
            Self::OtherWordSize(key, bits) => write!(
                f,
                "key {key} signed owner, mode and attributes in security.evm for a {bits}-bit kernel, which this is not"
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

impl VerifyOptions {
    fn oldest(&self) -> Option<Release> {
        match &self.appraisal {
            Some(appraisal) => appraisal.oldest(self.kernel),
            None => self.kernel,
        }
    }
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
    let kernel = options.oldest();
    let rules = match &options.appraisal {
        None => Vec::new(),
        Some(appraisal) => {
            let rules = file.rules(appraisal, &file.content().head(select::HEAD)?);
            if rules.is_empty() {
                return Ok(Verdict::NotAppraised);
            }
            rules
        }
    };
    let value = options.place.read(&file.path)?;
    let verdict = judge(
        value.as_deref(),
        &options.certificates,
        kernel,
        &|over, algo| file.digest(over, algo),
    )?;
    let verdict = rules.into_iter().fold(verdict, Verdict::under);
    if verdict.is_good() && !options.evm.is_empty() {
        let attributes = Attributes {
            mode: file.mode as u16,
            uid: file.uid,
            gid: file.gid,
        };
        let xattrs = xattr::read_all(&file.path)?;
        let judged = judge_evm(&attributes, &xattrs, &options.evm, kernel, None);
        return Ok(judged.unwrap_or(verdict));
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
    let kernel = options.oldest();
    let mut rules = Vec::new();
    if let Some(appraisal) = &options.appraisal {
        let head = content.head(select::HEAD)?;
        let file = select::File::of(name, inode, &head);
        rules.extend(appraisal.appraised(&file).map(|appraised| appraised.rule));
        if rules.is_empty() {
            return Ok(Verdict::NotAppraised);
        }
    }
    let value = inode.xattrs.get(xattr::SECURITY_IMA.as_bytes());
    let verdict = judge(
        value.map(Vec::as_slice),
        &options.certificates,
        kernel,
        &|over, algo| content.digest(over, algo),
    )?;
    let verdict = rules.into_iter().fold(verdict, Verdict::under);
    if verdict.is_good() && !options.evm.is_empty() {
        let attributes = Attributes {
            mode: S_IFREG | inode.mode,
            uid: inode.uid,
            gid: inode.gid,
        };
        let judged = judge_evm(&attributes, &inode.xattrs, &options.evm, kernel, None);
        return Ok(judged.unwrap_or(verdict));
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
        (ImaXattr::EvmHmac(_) | ImaXattr::EvmPortable(_) | ImaXattr::EvmPortableV3(_), _) => {
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
        ImaXattr::Signature(_) | ImaXattr::SignatureV3(_) => {
            by_key(certificates, &xattr, kernel, &|| {
                digest(DigestOf::Content, algo)
            })?
        }
        ImaXattr::Verity(_) => {
            let digest = || digest(DigestOf::Verity, algo);
            match by_key(certificates, &xattr, kernel, &digest)? {
                Verdict::GoodV3(key) => Verdict::GoodVerity(key),
                other => other,
            }
        }
        ImaXattr::EvmHmac(_) | ImaXattr::EvmPortable(_) | ImaXattr::EvmPortableV3(_) => {
            Verdict::Unsigned
        }
    })
}

/// What is wrong with a portable signature in `security.evm`, if anything; `xattrs` are the file's by full name, and `layout` is that of
/// the kernel, if it is known. Otherwise a signature for either is good.
#[must_use]
pub fn judge_evm(
    attributes: &Attributes,
    xattrs: &BTreeMap<Vec<u8>, Vec<u8>>,
    certificates: &[Certificate],
    kernel: Option<Release>,
    layout: Option<Layout>,
) -> Option<Verdict> {
    let Some(value) = xattrs.get(&b"security.evm"[..]) else {
        return Some(Verdict::NoEvm);
    };
    let xattr = match ImaXattr::parse(value) {
        Ok(xattr @ (ImaXattr::EvmPortable(_) | ImaXattr::EvmPortableV3(_))) => xattr,
        Ok(_) => return Some(Verdict::NoEvm),
        Err(error) => {
            return Some(Verdict::Malformed(format!(
                "security.evm is malformed: {error}"
            )));
        }
    };
    let algo = xattr.signature()?.algo;
    let judged_for = |layout| {
        let digest = match portable_digest(algo, attributes, xattrs, layout) {
            Ok(digest) => digest,
            Err(error) => return Ok(Verdict::Unsupported(format!("security.evm: {error}"))),
        };
        by_key(certificates, &xattr, kernel, &|| Ok(digest.clone()))
    };
    let (first, other, bits) = match layout {
        Some(Layout::Bits32) => (Layout::Bits32, Layout::Bits64, 64),
        _ => (Layout::Bits64, Layout::Bits32, 32),
    };
    match judged_for(first) {
        Ok(Verdict::Good(_) | Verdict::GoodV3(_)) => None,
        Ok(Verdict::Changed(key)) => match judged_for(other) {
            Ok(Verdict::Good(_) | Verdict::GoodV3(_)) if layout.is_none() => None,
            Ok(Verdict::Good(key) | Verdict::GoodV3(key)) => {
                Some(Verdict::OtherWordSize(key, bits))
            }
            _ => Some(Verdict::MetadataChanged(key)),
        },
        Ok(other) => Some(other),
        Err(fault) => Some(Verdict::Unreadable(fault)),
    }
}

/// Tries the certificates whose key a signature names. Several may share the end of their identifiers; the kernel takes the
/// first, here any will do.
fn by_key(
    certificates: &[Certificate],
    xattr: &ImaXattr,
    kernel: Option<Release>,
    digest: &dyn Fn() -> Result<Vec<u8>>,
) -> Result<Verdict> {
    let Some(signature) = xattr.signature() else {
        return Ok(Verdict::Unsigned);
    };
    let key = signature.key_id;
    let mut verdict = Verdict::UnknownKey(key);
    for certificate in certificates
        .iter()
        .filter(|certificate| certificate.key_id() == key)
    {
        verdict = match verify_any(certificate, &digest()?, xattr) {
            Ok(()) => {
                let old = kernel
                    .and_then(|kernel| too_old(kernel, certificate.key(), signature.algo))
                    .or_else(|| version_too_new(xattr, kernel));
                return Ok(match (old, xattr.v3_kind()) {
                    (Some(why), _) => Verdict::TooNew(key, why),
                    (None, None) => Verdict::Good(key),
                    (None, Some(_)) => Verdict::GoodV3(key),
                });
            }
            Err(VerifyError::NoKernel(why)) => Verdict::Unverifiable(why),
            Err(VerifyError::Unsupported(why)) => Verdict::Unsupported(why),
            Err(_) => Verdict::Changed(key),
        };
    }
    Ok(verdict)
}

/// Why a kernel of that release (nothing: one before [`SIGV3_FILES`]) does not take a signature of this type and version.
fn version_too_new(xattr: &ImaXattr, kernel: Option<Release>) -> Option<String> {
    let place = match xattr {
        ImaXattr::SignatureV3(_) => "on files",
        ImaXattr::EvmPortableV3(_) => "in security.evm",
        _ => return None,
    };
    kernel
        .is_none_or(|kernel| kernel < SIGV3_FILES)
        .then(|| format!("{place} it takes version 3 from Linux {SIGV3_FILES} on"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::{Identity, Version};
    use crate::key::{FileKey, KeyKind};
    use crate::x509::Template;

    const ALGO: HashAlgorithm = HashAlgorithm::Sha256;

    fn identity() -> (Identity, Certificate) {
        let key = FileKey::generate(KeyKind::P256).unwrap();
        let certificate = Template::leaf("test").sign(&key, None, None).unwrap();
        let identity = Identity::new(Arc::new(key), &certificate, ALGO).unwrap();
        (identity, certificate)
    }

    fn release(text: &str) -> Option<Release> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_portable_signature_is_for_kernels_of_one_word_size() {
        let key = FileKey::generate(KeyKind::P256).unwrap();
        let certificate = Template::leaf("test").sign(&key, None, None).unwrap();
        let wide = Identity::new(Arc::new(key), &certificate, HashAlgorithm::Sha256).unwrap();
        let narrow = wide.clone().for_32_bit_kernel();
        let key = certificate.key_id();
        let attributes = Attributes {
            mode: 0o100_755,
            uid: 0,
            gid: 0,
        };
        let changed = Attributes {
            uid: 1,
            ..attributes
        };
        let (bits_32, bits_64) = (Some(Layout::Bits32), Some(Layout::Bits64));
        let certificates = [certificate];
        for (identity, attributes, layout, expected) in [
            (&wide, attributes, None, None),
            (&wide, attributes, bits_64, None),
            (
                &wide,
                attributes,
                bits_32,
                Some(Verdict::OtherWordSize(key, 64)),
            ),
            (&narrow, attributes, None, None),
            (&narrow, attributes, bits_32, None),
            (
                &narrow,
                attributes,
                bits_64,
                Some(Verdict::OtherWordSize(key, 32)),
            ),
            (&narrow, changed, None, Some(Verdict::MetadataChanged(key))),
            (
                &narrow,
                changed,
                bits_32,
                Some(Verdict::MetadataChanged(key)),
            ),
        ] {
            let mut xattrs = BTreeMap::from([(b"security.ima".to_vec(), b"ima".to_vec())]);
            let signed = Attributes {
                uid: 0,
                ..attributes
            };
            let evm = identity.sign_evm(&signed, &xattrs).unwrap();
            xattrs.insert(b"security.evm".to_vec(), evm);
            let verdict = judge_evm(&attributes, &xattrs, &certificates, None, layout);
            assert_eq!(verdict, expected, "{layout:?}");
        }
    }

    /// 6.12: `xattr_verify` says invalid-signature-version.
    #[test]
    fn version_3_on_a_file_is_good_where_the_kernel_takes_it() {
        let (identity, certificate) = identity();
        let digest = ALGO.digest(b"content").unwrap();
        let value = identity
            .with_version(Version::V3)
            .sign_digest(&digest)
            .unwrap();
        let key = certificate.key_id();
        let too_new = Verdict::TooNew(
            key,
            "on files it takes version 3 from Linux 7.1 on".to_owned(),
        );
        for (kernel, digest, expected) in [
            (None, &digest, too_new.clone()),
            (Some("6.12"), &digest, too_new.clone()),
            (Some("7.0.3"), &digest, too_new),
            (Some("7.1"), &digest, Verdict::GoodV3(key)),
            (Some("7.3"), &vec![0; 32], Verdict::Changed(key)),
            (None, &vec![0; 32], Verdict::Changed(key)),
        ] {
            let certificates = std::slice::from_ref(&certificate);
            let found = judge(
                Some(&value),
                certificates,
                kernel.and_then(release),
                &|_, _| Ok(digest.clone()),
            );
            let found = found.unwrap();
            assert_eq!(found, expected, "{kernel:?}");
            assert_eq!(found.is_good(), matches!(expected, Verdict::GoodV3(_)));
        }
    }

    /// `xattr_verify` in ima_appraise.c of 7.2: IMA-sigv3-required, verity-signature-required, IMA-signature-required.
    #[test]
    fn a_rule_takes_the_kind_of_signature_that_it_asks_for() {
        let (identity, certificate) = identity();
        let digest = ALGO.digest(b"content").unwrap();
        let version_3 = identity.clone().with_version(Version::V3);
        let values = [
            identity.sign_digest(&digest).unwrap(),
            version_3.sign_digest(&digest).unwrap(),
            identity.sign_verity(&digest).unwrap(),
        ];
        for (rule, takes) in [
            ("appraise func=BPRM_CHECK", [true, true, false]),
            (
                "appraise func=BPRM_CHECK appraise_type=imasig",
                [true, true, false],
            ),
            (
                "appraise func=MODULE_CHECK appraise_type=imasig|modsig",
                [true, true, false],
            ),
            (
                "appraise func=BPRM_CHECK appraise_type=sigv3",
                [false, true, false],
            ),
            (
                "appraise func=BPRM_CHECK digest_type=verity appraise_type=sigv3",
                [false, false, true],
            ),
        ] {
            let policy = ima::policy::Policy::parse(rule.as_bytes()).unwrap();
            for (value, takes) in values.iter().zip(takes) {
                let certificates = std::slice::from_ref(&certificate);
                let found = judge(Some(value), certificates, release("7.2"), &|_, _| {
                    Ok(digest.clone())
                })
                .unwrap();
                assert!(found.is_good(), "{found}");
                let found = found.under(&policy.lines()[0].rule);
                assert_eq!(found.is_good(), takes, "{rule}: {found}");
                assert_eq!(found.key_id(), Some(certificate.key_id()));
                assert_eq!(found.word() == "other-kind", !takes);
            }
        }
    }

    #[test]
    fn portable_signatures_of_version_3_are_good_where_the_kernel_takes_them() {
        let (identity, certificate) = identity();
        let attributes = Attributes {
            mode: 0o100_755,
            uid: 0,
            gid: 0,
        };
        let ima = identity.sign(b"content").unwrap();
        let plain: BTreeMap<Vec<u8>, Vec<u8>> = [(b"security.ima".to_vec(), ima)].into();
        for version in [Version::V2, Version::V3] {
            let identity = identity.clone().with_version(version);
            let mut xattrs = plain.clone();
            let value = identity.sign_evm(&attributes, &plain).unwrap();
            xattrs.insert(b"security.evm".to_vec(), value);
            for (kernel, good) in [
                (None, version == Version::V2),
                (release("7.0"), version == Version::V2),
                (release("7.1"), true),
            ] {
                let certificates = std::slice::from_ref(&certificate);
                let found = judge_evm(&attributes, &xattrs, certificates, kernel, None);
                match found {
                    None => assert!(good, "{version:?} {kernel:?}"),
                    Some(Verdict::TooNew(..)) => assert!(!good, "{version:?} {kernel:?}"),
                    other => panic!("{other:?}"),
                }
                let other = Attributes {
                    uid: 1,
                    ..attributes
                };
                let found = judge_evm(&other, &xattrs, certificates, kernel, None);
                assert_eq!(
                    found,
                    Some(Verdict::MetadataChanged(certificate.key_id())),
                    "{version:?}"
                );
            }
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
