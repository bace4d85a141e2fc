//! A root that dm-verity verifies: its hash tree is found and compared as the init and the kernel would.

use std::fs::File;
use std::path::{Path, PathBuf};

use ima::certificate::Certificate;
use ima::cmdline::RootName;
use ima::device;
use ima::dm_verity::signed::{self, SignedRootHash};
use ima::dm_verity::{self, Place, SUPERBLOCK_LENGTH};
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::partition::Partition;
use ima::settings::{RootHashSource, VerityRoot};
use tempfile::NamedTempFile;

use super::disk::{self, Disk};
use super::root_choice::RootChoice;
use crate::Result;
use crate::chain::leads_to;
use crate::file::{read_at, unreadable};

/// The part of an image that is a device of its own.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    start: u64,
    pub(super) length: u64,
    pub(super) is_whole: bool,
}

impl Part {
    /// All of an image.
    pub(super) fn whole(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self {
            start: 0,
            length: file.metadata()?.len(),
            is_whole: true,
            file,
        })
    }

    /// A partition.
    pub(super) fn of(disk: &Disk, partition: &Partition) -> std::io::Result<Self> {
        Ok(Self {
            file: disk.file().try_clone()?,
            start: partition.start,
            length: partition.length,
            is_whole: false,
        })
    }

    /// So much of it as a file of its own.
    pub(super) fn extract(&self, length: u64) -> std::io::Result<NamedTempFile> {
        disk::extract(&self.file, self.start, length)
    }
}

/// The root hash that the init would use, and what it verifies.
#[derive(Debug)]
pub(super) struct Trusted {
    pub(super) root: VerityRoot,
    signature: Option<SignedRootHash>,
}

impl Trusted {
    /// The configured root hash or the signed one; nothing if the root is not verified, or the device of the signed root hash is
    /// not among those that are known.
    ///
    /// # Errors
    ///
    /// [`Code::VeritySignatureMissing`], [`Code::VeritySignature`]; [`Code::InputUnreadable`].
    pub(super) fn find(
        path: &Path,
        disk: Option<&Disk>,
        choice: &RootChoice,
    ) -> Result<Option<Self>> {
        let Some(verity) = &choice.verity else {
            return Ok(None);
        };
        let name = match &verity.root_hash {
            RootHashSource::Configured(root_hash) => {
                return Ok(Some(Self {
                    root: verity.with(root_hash),
                    signature: None,
                }));
            }
            RootHashSource::Signed(configured) => configured.as_ref(),
        };
        let (part, shown) = if let Some(given) = &choice.signature {
            let part = Part::whole(given).map_err(|error| unreadable(given, &error))?;
            (part, given.as_path())
        } else {
            let Some(disk) = disk else {
                return Ok(None);
            };
            let name = signed::device(name, choice.architecture.and_then(signed::partition_type))?;
            let partition = match disk.find(Some(&name)) {
                Ok(partition) => partition,
                Err(_) if names_a_disk(&name) => return Ok(None),
                Err(fault) => {
                    return Err(Fault::new(Code::VeritySignatureMissing, fault.detail()));
                }
            };
            let part = Part::of(disk, partition).map_err(|error| unreadable(path, &error))?;
            (part, path)
        };
        let length = usize::try_from(part.length).unwrap_or(usize::MAX);
        let bytes = read_at(&part.file, part.start, length.min(signed::MAX_LENGTH))
            .map_err(|error| unreadable(shown, &error))?;
        let signature = signed::usable(&bytes, &shown.display().to_string(), &choice.revoked)?;
        Ok(Some(Self {
            root: verity.with(signature.root_hash()),
            signature: Some(signature),
        }))
    }

    /// The partition of the root, as the Discoverable Partitions Specification names it.
    pub(super) fn partition(&self) -> RootName {
        let [data, _] = self.root.root_hash.partitions();
        data
    }

    /// Sees whether the kernel would take the signature, if there is one and the CAs in the kernel are known.
    fn verify(&self, authorities: Option<&[Certificate]>) -> Result<()> {
        let Some(signature) = &self.signature else {
            return Ok(());
        };
        let fault = || Fault::new(Code::VerityUntrusted, self.root.root_hash.to_string());
        signature
            .verify(ima::verify::verify_digest)
            .map_err(|error| {
                fault().because(Cause::SIGNATURE_OF_ANOTHER_ROOT_HASH.with(&[&error.to_string()]))
            })?;
        let signer = signature.signer();
        let trusted = authorities.is_none_or(|known| {
            known.contains(signer) || leads_to(signer, known, signature.certificates())
        });
        match trusted {
            true => Ok(()),
            false => Err(fault().because(Cause::SIGNER_UNKNOWN.with(&[&signer.subject()]))),
        }
    }
}

/// Where a hash tree is.
#[derive(Debug)]
pub(super) struct Tree {
    /// Nothing if it is on the root's own device.
    part: Option<Part>,
    path: PathBuf,
}

/// The device of the tree; nothing if it is none of those that are known.
///
/// # Errors
///
/// [`Code::VerityTreeMissing`]; [`Code::InputUnreadable`].
pub(super) fn tree(
    path: &Path,
    root: &Part,
    disk: Option<&Disk>,
    wanted: &VerityRoot,
    given: Option<&Path>,
) -> Result<Option<Tree>> {
    let Some(name) = &wanted.tree else {
        return Ok(Some(Tree {
            part: None,
            path: path.to_owned(),
        }));
    };
    if let Some(given) = given {
        let part = Part::whole(given).map_err(|error| unreadable(given, &error))?;
        return Ok(Some(Tree {
            part: Some(part),
            path: given.to_owned(),
        }));
    }
    let Some(disk) = disk.filter(|_| !root.is_whole) else {
        return Ok(None);
    };
    match disk.find(Some(name)) {
        Ok(partition) => Ok(Some(Tree {
            part: Some(Part::of(disk, partition).map_err(|error| unreadable(path, &error))?),
            path: path.to_owned(),
        })),
        // A disk, which is another one than the root's.
        Err(_) if names_a_disk(name) => Ok(None),
        Err(fault) => {
            Err(Fault::new(Code::VerityTreeMissing, fault.detail())
                .because(Cause::VERITY_PARTITION))
        }
    }
}

fn names_a_disk(name: &RootName) -> bool {
    match name {
        RootName::Device(device) => device::split(device).1.is_none(),
        RootName::Number { major, minor } => {
            !matches!(device::number(*major, *minor), device::Number::Partition(_))
        }
        _ => false,
    }
}

/// What the kernel would show of the root, and the algorithm with which it would verify it.
///
/// # Errors
///
/// [`Code::VeritySuperblock`], [`Code::VerityUntrusted`], [`Code::VerityRootHash`], [`Code::VerityCorrupted`];
/// [`Code::InputUnreadable`].
pub(super) fn verified(
    path: &Path,
    root: &Part,
    tree: &Tree,
    trusted: &Trusted,
    authorities: Option<&[Certificate]>,
) -> Result<(NamedTempFile, HashAlgorithm)> {
    let wanted = &trusted.root;
    let part = tree.part.as_ref().unwrap_or(root);
    let shown = tree.path.display().to_string();
    let room = part.length.saturating_sub(wanted.offset);
    let length = SUPERBLOCK_LENGTH.min(usize::try_from(room).unwrap_or(SUPERBLOCK_LENGTH));
    let bytes = read_at(&part.file, part.start.saturating_add(wanted.offset), length)
        .map_err(|error| unreadable(&tree.path, &error))?;
    let place = Place {
        device: &shown,
        length: part.length,
        offset: wanted.offset,
        data_length: root.length,
        is_data: tree.part.is_none(),
    };
    let superblock = dm_verity::superblock(&bytes, &place, &wanted.root_hash)?;
    trusted.verify(authorities)?;
    let image = root
        .extract(superblock.data_length())
        .map_err(|error| unreadable(path, &error))?;
    // The tree lies in blocks of its own from the beginning of its device, not of the disk.
    let end = superblock.tree_end(wanted.offset).min(part.length);
    let own = part
        .extract(end)
        .map_err(|error| unreadable(&tree.path, &error))?;
    crate::verity::compare(
        (image.as_file(), path),
        (own.as_file(), &tree.path),
        &superblock,
        wanted.offset,
        &wanted.root_hash,
    )?;
    Ok((image, superblock.algorithm()))
}
