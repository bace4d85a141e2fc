//! The signatures of another initramfs's programs ([`ima::signatures`]): collected from the files of the system that the
//! initramfs is made on, and checked as the kernel will check them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use ima::certificate::Certificate;
use ima::evm::Attributes as Owned;
use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use ima::layout::{self, Purpose};
use ima::policy::{Hook, Policy};
use ima::settings::EvmFiles;
use ima::signature::ImaXattr;
use ima::signatures::{Attributes, Signatures};
use rayon::prelude::*;

use super::{InitramfsBuilder, relative};
use crate::Result;
use crate::digest::DigestOf;
use crate::identity::{Identity, Version};
use crate::select::{self, Appraisal, FileSystem};
use crate::tree::{Content, Inode, Kind, Tree};
use crate::verify::{NEWEST, Verdict, judge, judge_evm};
use crate::xattr;

/// The type bits of a regular file's mode (include/uapi/linux/stat.h).
const S_IFREG: u16 = 0o100_000;

/// The directories of a system in which a file of an initramfs may come from.
const PLACES: [&str; 7] = ["usr", "etc", "lib", "lib64", "bin", "sbin", "opt"];

/// Who must have signed, and who signs what nobody has.
#[derive(Debug, Clone, Copy)]
pub struct Signers<'a> {
    /// Signs the files for which the system has no signature.
    pub identity: Option<&'a Identity>,
    /// Signs their owner and mode.
    pub evm: Option<&'a Identity>,
}

/// The signatures that were found or made.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// By path.
    pub list: Signatures,
    /// How many of them were made.
    pub made: usize,
    /// The files that the policy appraises and that have none.
    pub unsigned: Vec<Vec<u8>>,
}

impl Collected {
    /// Whether a program or library is among the files without a signature: one that the initramfs may not get on without.
    #[must_use]
    pub fn lacks_programs(&self) -> bool {
        let is_loaded_by_the_kernel = |path: &[u8]| {
            let path = path.strip_prefix(b"usr/").unwrap_or(path);
            path.starts_with(b"lib/modules/") || path.starts_with(b"lib/firmware/")
        };
        self.unsigned
            .iter()
            .any(|path| !is_loaded_by_the_kernel(path))
    }
}

/// The policy, made ready for the tmpfs that the init moves the initramfs to. Policies and kexec images are no part of it.
pub(crate) fn appraisal(policy: Policy) -> Appraisal {
    Appraisal::new(policy, FileSystem::by_name("tmpfs").unwrap_or_default()).without(&[
        Hook::PolicyCheck,
        Hook::KexecKernelCheck,
        Hook::KexecInitramfsCheck,
    ])
}

/// Whether the policy appraises a file of the initramfs. The init in front of the other one runs before the policy does, and
/// the other one's, if it is a script, is only read.
pub(crate) fn is_appraised(appraisal: &Appraisal, path: &[u8], inode: &Inode) -> Result<bool> {
    let Kind::File(content) = &inode.kind else {
        return Ok(false);
    };
    let head = content.head(select::HEAD)?;
    let script = ima::elf::script_interpreter(&head).is_some();
    if path == b"init" || path == relative(layout::FRONTED_INIT.as_bytes()) && script {
        return Ok(false);
    }
    let file = select::File::of(path, inode, &head);
    Ok(appraisal.appraised_by(&file).is_some())
}

impl InitramfsBuilder {
    /// Adds the list of signatures of the files that the policy appraises ([`ima::signatures`]), which the init sets on them. Add
    /// everything else before.
    ///
    /// # Errors
    ///
    /// As [`collect`].
    pub fn sign(mut self, signers: Signers<'_>) -> Result<(Self, Collected)> {
        self.list_modules();
        let collected = collect(&self, &self.tree()?, None, signers)?;
        let text = collected.list.to_text();
        Ok((self.file(layout::SIGNATURES, 0o644, text), collected))
    }
}

/// Collects the signatures of what an initramfs's policy appraises, from the files of `system` if there is one: a file at the same
/// path, else any of the same length. What counts is that the signature is one of the initramfs's file, by a key whose certificate is in the
/// initramfs. With an EVM certificate in it and no HMAC key, a portable signature of owner and mode must be there too.
///
/// # Errors
///
/// [`Code::InputUnreadable`], [`Code::SigningFailed`], and what is wrong with the initramfs's policy or EVM key.
pub fn collect(
    initramfs: &InitramfsBuilder,
    tree: &Tree,
    system: Option<&Path>,
    signers: Signers<'_>,
) -> Result<Collected> {
    let appraisal = appraisal(initramfs.chosen_policy()?);
    let collector = Collector {
        ima: parsed(initramfs, Purpose::Ima),
        evm: parsed(initramfs, Purpose::Evm),
        hmac: initramfs.evm_key(&EvmFiles::default())?.is_some(),
        signers,
        asks_for_v3: appraisal.asks_for_v3(),
    };
    let mut wanted: Vec<(&[u8], &Inode, &Content)> = Vec::new();
    for (path, index) in tree.names() {
        let inode = tree.inode(index);
        if let Kind::File(content) = &inode.kind
            && is_appraised(&appraisal, path, inode)?
        {
            wanted.push((path, inode, content));
        }
    }
    let direct = wanted
        .into_par_iter()
        .map(|(path, inode, content)| {
            let same = system.map(|system| system.join(os(path)));
            let found = collector.taken_from(inode, content, same.as_slice())?;
            Ok((path, inode, content, found))
        })
        .collect::<Result<Vec<_>>>()?;
    let lengths = direct
        .iter()
        .filter(|(.., found)| found.is_none())
        .map(|(_, _, content, _)| content.len());
    let others = system.map_or_else(HashMap::new, |system| files_by_length(system, lengths));
    let results = direct
        .into_par_iter()
        .map(|(path, inode, content, found)| {
            let known = others.get(&content.len()).map_or(&[][..], Vec::as_slice);
            let found = match found {
                None => collector.taken_from(inode, content, known)?,
                found => found,
            };
            Ok(match found {
                Some(attributes) => (path, Some(attributes), false),
                None => (path, collector.make(inode, content)?, true),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut collected = Collected::default();
    for (path, attributes, made) in results {
        match attributes {
            Some(attributes) => {
                collected.made += usize::from(made);
                collected.list.insert(path.to_vec(), attributes);
            }
            None => collected.unsigned.push(path.to_vec()),
        }
    }
    Ok(collected)
}

struct Collector<'a> {
    ima: Vec<Certificate>,
    evm: Vec<Certificate>,
    /// Whether the kernel has EVM's HMAC key, and seals itself what has no portable signature.
    hmac: bool,
    signers: Signers<'a>,
    /// Whether the policy asks for signatures of version 3.
    asks_for_v3: bool,
}

impl Collector<'_> {
    /// The attributes of one of these files of the system, if they hold for the file of the initramfs.
    fn taken_from(
        &self,
        inode: &Inode,
        content: &Content,
        files: &[PathBuf],
    ) -> Result<Option<Attributes>> {
        let mut digests: HashMap<HashAlgorithm, Vec<u8>> = HashMap::new();
        for path in files {
            // What cannot be read has no signature that could be taken.
            let Ok(Some(ima)) = xattr::read(path, xattr::SECURITY_IMA) else {
                continue;
            };
            let digests = std::sync::Mutex::new(&mut digests);
            let verdict = judge(Some(&ima), &self.ima, Some(NEWEST), &|over, algo| {
                if over == DigestOf::Verity {
                    return content.digest(over, algo);
                }
                let mut digests = digests
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                if let Some(digest) = digests.get(&algo) {
                    return Ok(digest.clone());
                }
                let digest = content.digest(over, algo)?;
                digests.insert(algo, digest.clone());
                Ok(digest)
            })?;
            let version = match verdict {
                Verdict::Good(_) => Version::V2,
                Verdict::GoodV3(_) => Version::V3,
                _ => continue,
            };
            if self.version().is_some_and(|wanted| wanted != version) {
                continue;
            }
            if self.evm.is_empty() {
                return Ok(Some(Attributes { ima, evm: None }));
            }
            let evm = xattr::read(path, xattr::SECURITY_EVM).unwrap_or_default();
            let evm = self.portable(inode, &ima, evm)?;
            if evm.is_some() || self.hmac {
                return Ok(Some(Attributes { ima, evm }));
            }
        }
        Ok(None)
    }

    /// A portable signature of the file's owner and mode in the initramfs: the given one if it holds, else a new one.
    fn portable(
        &self,
        inode: &Inode,
        ima: &[u8],
        given: Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        let owned = Owned {
            mode: S_IFREG | inode.mode,
            uid: inode.uid,
            gid: inode.gid,
        };
        let mut xattrs: BTreeMap<Vec<u8>, Vec<u8>> =
            [(xattr::SECURITY_IMA.into(), ima.to_vec())].into();
        if let Some(evm) = given {
            xattrs.insert(xattr::SECURITY_EVM.into(), evm.clone());
            if judge_evm(&owned, &xattrs, &self.evm, Some(NEWEST), None).is_none() {
                return Ok(Some(evm));
            }
            xattrs.remove(xattr::SECURITY_EVM.as_bytes());
        }
        self.signers
            .evm
            .map(|identity| identity.sign_evm(&owned, &xattrs))
            .transpose()
    }

    /// The version that signatures must have; either will do where there is no key and the policy does not say.
    fn version(&self) -> Option<Version> {
        match self.asks_for_v3 {
            true => Some(Version::V3),
            false => self.signers.identity.map(Identity::version),
        }
    }

    /// New attributes, if there is a key.
    fn make(&self, inode: &Inode, content: &Content) -> Result<Option<Attributes>> {
        let Some(identity) = self.signers.identity else {
            return Ok(None);
        };
        let identity = match self.asks_for_v3 {
            true => identity.clone().with_version(Version::V3),
            false => identity.clone(),
        };
        let ima = identity.sign_digest(&content.digest(DigestOf::Content, identity.algo())?)?;
        if self.evm.is_empty() {
            return Ok(Some(Attributes { ima, evm: None }));
        }
        let evm = self.portable(inode, &ima, None)?;
        Ok((evm.is_some() || self.hmac).then_some(Attributes { ima, evm }))
    }
}

/// The regular files of the system that have one of these lengths, by length.
fn files_by_length(
    system: &Path,
    lengths: impl Iterator<Item = u64>,
) -> HashMap<u64, Vec<PathBuf>> {
    let mut files: HashMap<u64, Vec<PathBuf>> =
        lengths.map(|length| (length, Vec::new())).collect();
    if files.is_empty() {
        return files;
    }
    for place in PLACES.map(|place| system.join(place)) {
        // On a merged /usr these are links to directories that are looked at anyway.
        if place.is_symlink() {
            continue;
        }
        for entry in walkdir::WalkDir::new(place).sort_by_file_name() {
            let Ok(entry) = entry else { continue };
            if let Ok(metadata) = entry.metadata()
                && metadata.is_file()
                && let Some(known) = files.get_mut(&metadata.len())
            {
                known.push(entry.into_path());
            }
        }
    }
    files
}

/// The certificates of an initramfs for that purpose which can be parsed.
pub(crate) fn parsed(initramfs: &InitramfsBuilder, purpose: Purpose) -> Vec<Certificate> {
    let files = initramfs.certificates(purpose).into_iter();
    files
        .filter_map(|(_, parsed)| parsed.ok())
        .flatten()
        .collect()
}

/// The tree of an initramfs with the attributes that the init will put onto its files; with `hmac`, the kernel adds an HMAC.
///
/// # Errors
///
/// [`Code::InitramfsSignatures`] for a list that is missing where the policy appraises, or malformed.
pub(crate) fn signed_tree(
    initramfs: &InitramfsBuilder,
    mut tree: Tree,
    policy: &Policy,
    hmac: bool,
) -> Result<Tree> {
    let refused = |why: String| {
        Fault::new(
            Code::InitramfsSignatures,
            format!("{}: {why}", layout::SIGNATURES),
        )
    };
    let list = match initramfs.data(layout::SIGNATURES) {
        Some(text) => Signatures::parse(text).map_err(|error| refused(error.to_string()))?,
        None if policy.appraises() => return Err(refused("not in the initramfs".to_owned())),
        None => Signatures::default(),
    };
    for (path, attributes) in list.files() {
        if let Some(inode) = tree.get_mut(path) {
            let values = [
                (xattr::SECURITY_IMA, Some(&attributes.ima)),
                (xattr::SECURITY_EVM, attributes.evm.as_ref()),
            ];
            for (name, value) in values {
                if let Some(value) = value {
                    inode.xattrs.insert(name.into(), value.clone());
                }
            }
            if hmac && attributes.evm.is_none() {
                // Which one, only the kernel knows.
                let value = ImaXattr::EvmHmac([0; 20]).encode();
                inode.xattrs.insert(xattr::SECURITY_EVM.into(), value);
            }
        }
    }
    Ok(tree)
}

fn os(path: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initramfs::Compression;
    use crate::key::{FileKey, KeyKind};
    use crate::x509::Template;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    const POLICY: &[u8] = include_bytes!("../../../../policy/ima_policy.default");

    struct Desk {
        identity: Identity,
        certificate: Certificate,
        directory: tempfile::TempDir,
    }

    impl Desk {
        fn new() -> Self {
            let key = FileKey::generate(KeyKind::P256).unwrap();
            let certificate = Template::leaf("leaf").sign(&key, None, None).unwrap();
            let identity =
                Identity::new(Arc::new(key), &certificate, HashAlgorithm::Sha256).unwrap();
            let desk = Self {
                identity,
                certificate,
                directory: tempfile::tempdir().unwrap(),
            };
            desk.put("tree/init", 0o755, b"\x7fELF init");
            desk.put("tree/usr/lib/ima-init/init", 0o755, b"#!/bin/sh\n");
            desk.put("tree/etc/ima/ima_policy", 0o644, POLICY);
            desk.put("tree/etc/keys/x509_ima.der", 0o644, desk.certificate.der());
            std::fs::create_dir_all(desk.path("system/usr")).unwrap();
            desk
        }

        fn path(&self, path: &str) -> PathBuf {
            self.directory.path().join(path)
        }

        fn put(&self, path: &str, mode: u32, content: &[u8]) {
            let path = self.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }

        /// A file of the system with the signature of a content.
        fn sign(&self, path: &str, content: &[u8], signed: &[u8]) {
            let path = format!("system/{path}");
            self.put(&path, 0o755, content);
            let value = self.identity.sign(signed).unwrap();
            xattr::write(&self.path(&path), xattr::SECURITY_IMA, &value)
                .expect("security.ima onto a file: this test needs root, on a file system with extended attributes");
        }

        fn collect(&self, identity: Option<&Identity>) -> Collected {
            let initramfs = InitramfsBuilder::from_directory(&self.path("tree")).unwrap();
            let signers = Signers {
                identity,
                evm: None,
            };
            collect(
                &initramfs,
                &initramfs.tree().unwrap(),
                Some(&self.path("system")),
                signers,
            )
            .unwrap()
        }
    }

    fn names(collected: &Collected) -> (Vec<String>, Vec<String>) {
        let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
        (
            collected.list.files().map(|(name, _)| text(name)).collect(),
            collected.unsigned.iter().map(|name| text(name)).collect(),
        )
    }

    #[test]
    fn signatures_are_taken_from_files_with_the_same_content() {
        let desk = Desk::new();
        desk.put("tree/usr/bin/same", 0o755, b"same");
        desk.sign("usr/bin/same", b"same", b"same");
        desk.put("tree/usr/bin/moved", 0o755, b"elsewhere");
        desk.sign("usr/share/elsewhere", b"elsewhere", b"elsewhere");
        // A signature of the same path's file, which is another in the initramfs.
        desk.put("tree/usr/bin/changed", 0o755, b"changed here");
        desk.sign("usr/bin/changed", b"original", b"original");
        desk.put("tree/usr/lib/library.so", 0o644, b"\x7fELF\x02\x01 short");
        desk.put("tree/usr/lib/modules/a.ko", 0o644, b"module");
        desk.put("tree/usr/share/data", 0o644, b"data");
        let (signed, unsigned) = names(&desk.collect(None));
        assert_eq!(signed, ["usr/bin/moved", "usr/bin/same"]);
        assert_eq!(unsigned, ["usr/bin/changed", "usr/lib/modules/a.ko"]);
        let collected = desk.collect(Some(&desk.identity));
        assert_eq!((collected.made, collected.unsigned.len()), (2, 0));
        let text = collected.list.to_text();
        assert_eq!(Signatures::parse(text.as_bytes()), Ok(collected.list));
    }

    #[test]
    fn a_signature_by_a_key_that_the_initramfs_does_not_have_is_not_taken() {
        let (desk, stranger) = (Desk::new(), Desk::new());
        desk.put("tree/usr/bin/a", 0o755, b"a");
        desk.put("system/usr/bin/a", 0o755, b"a");
        let value = stranger.identity.sign(b"a").unwrap();
        let path = desk.path("system/usr/bin/a");
        xattr::write(&path, xattr::SECURITY_IMA, &value).expect("this test needs root");
        let (signed, unsigned) = names(&desk.collect(None));
        assert_eq!(signed, [""; 0]);
        assert_eq!(unsigned, ["usr/bin/a"]);
    }

    #[test]
    fn with_an_evm_certificate_owner_and_mode_are_signed_too() {
        let desk = Desk::new();
        desk.put("tree/etc/keys/x509_evm.der", 0o644, desk.certificate.der());
        desk.put("tree/usr/bin/a", 0o755, b"a");
        desk.sign("usr/bin/a", b"a", b"a");
        assert_eq!(names(&desk.collect(None)).1, ["usr/bin/a"]);
        let initramfs = InitramfsBuilder::from_directory(&desk.path("tree")).unwrap();
        let signers = Signers {
            identity: None,
            evm: Some(&desk.identity),
        };
        let tree = initramfs.tree().unwrap();
        let collected = collect(&initramfs, &tree, Some(&desk.path("system")), signers).unwrap();
        assert!(collected.list.get(b"usr/bin/a").unwrap().evm.is_some());
    }

    #[test]
    fn every_name_of_a_file_in_an_archive_has_its_content() {
        let plain = InitramfsBuilder::new()
            .file("a", 0o755, &b"content"[..])
            .file("b", 0o755, &b""[..])
            .file("c", 0o755, &b""[..])
            .compression(Compression::None)
            .unchecked()
            .build()
            .unwrap();
        // The inode numbers that the writer gives, made one for the first two.
        let mut linked = plain.clone();
        let inode_of = |name: &[u8]| {
            let at = plain
                .windows(name.len() + 1)
                .position(|part| part[..name.len()] == *name && part[name.len()] == 0);
            at.unwrap() - 110 + 6
        };
        let first = plain[inode_of(b"a")..][..8].to_vec();
        linked[inode_of(b"b")..][..8].copy_from_slice(&first);
        let read = InitramfsBuilder::from_image(&linked).unwrap();
        assert_eq!(read.data("b"), Some(&b"content"[..]));
        assert_eq!(read.data("c"), Some(&b""[..]));
    }

    #[test]
    fn a_program_is_missed_and_a_module_is_not() {
        let lacking = |path: &str| {
            let unsigned = vec![path.as_bytes().to_vec()];
            let collected = Collected {
                unsigned,
                ..Collected::default()
            };
            collected.lacks_programs()
        };
        assert!(!Collected::default().lacks_programs());
        for (path, missed) in [
            ("usr/bin/mount", true),
            ("lib/udev/ata_id", true),
            ("usr/lib/modules/6.1/extra/x.ko", false),
            ("lib/firmware/x.bin", false),
        ] {
            assert_eq!(lacking(path), missed, "{path}");
        }
    }
}
