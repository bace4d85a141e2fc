//! The real root that is checked: read from a directory, an archive, or an image as the kernel would mount it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use ima::cmdline::RootName;
use ima::config::Config;
use ima::fault::{Cause, Code, Fault};
use ima::filesystem::{self, Filesystem, Need};
use ima::hash::HashAlgorithm;
use ima::partition::Kind;
use ima::settings::{self, Settings};

use super::disk::{Disk, describe};
use super::findings::Findings;
use super::root_choice::{RootChoice, never_appears};
use super::{composefs, mount_options, verity};
use crate::Result;
use crate::file::{in_file, unreadable};
use crate::image::Source;
use crate::packed::Packing;
use crate::select::FileSystem;
use crate::tree::Tree;

/// What a LUKS container begins with, of either version.
const LUKS: &[u8] = b"LUKS\xba\xbe";

/// A real root.
#[derive(Debug, Clone)]
pub struct Root {
    /// Its files.
    pub tree: Tree,
    /// The type that it has or will have.
    pub filesystem: FileSystem,
    /// The kind of the partition table of its disk, if it is a partition.
    pub table: Option<Kind>,
    /// What its superblocks say, if it is an image.
    pub superblocks: Option<Vec<Filesystem>>,
    /// What the kernel must have to mount it, if it is an image.
    pub needs: Vec<Need>,
    /// Whether it will be mounted with `noexec`.
    pub noexec: bool,
    /// The hash algorithm of the tree that it was verified with.
    pub verified: Option<HashAlgorithm>,
    /// The type of the file system that its image and objects are on, if it is a composefs.
    pub backing: Option<FileSystem>,
    /// Why the kernel would not mount it, if it is an image of that kind; then nothing is known of its files.
    pub unmountable: Option<Fault>,
}

/// File systems that take no notice of the device, and hold no program when they are mounted.
const NODEV: [&str; 9] = [
    "cgroup",
    "cgroup2",
    "devpts",
    "devtmpfs",
    "proc",
    "ramfs",
    "securityfs",
    "sysfs",
    "tmpfs",
];

impl Root {
    /// Reads a root, as [`crate::image::read`] does, except that an image which the kernel would not mount is a root too: one
    /// whose fault is known, and nothing else. In the image of a disk with a partition table the root is the partition that
    /// `choice` names, or the only one with a file system.
    ///
    /// # Errors
    ///
    /// As [`crate::image::read`]: what is not an image, or one of a kind that is not read. [`Code::Usage`] if nothing says which
    /// partition is meant.
    pub fn read(path: &Path, otherwise: FileSystem, choice: &RootChoice) -> Result<Self> {
        let mut root = Self::read_chosen(path, otherwise, choice)?;
        if let (Some(wanted), None) = (&choice.composefs, &root.unmountable) {
            match composefs::join(&root.tree, wanted) {
                Ok((tree, filesystem)) => {
                    root.backing = Some(std::mem::replace(&mut root.filesystem, filesystem));
                    root.tree = tree;
                }
                Err(fault) => root.unmountable = Some(fault),
            }
        }
        Ok(Self {
            noexec: choice.noexec,
            ..root
        })
    }

    fn read_chosen(path: &Path, otherwise: FileSystem, choice: &RootChoice) -> Result<Self> {
        if path.is_dir() {
            let served = match &choice.name {
                Some(RootName::Nfs { .. }) => FileSystem::by_name("nfs4"),
                Some(RootName::Shared { by, .. }) => FileSystem::by_name(by.name()),
                _ => None,
            };
            let otherwise = served.unwrap_or(otherwise);
            return Ok(Self::new(crate::image::read(path)?, otherwise));
        }
        if let Some(name) = choice.fstype.as_deref().filter(|name| NODEV.contains(name)) {
            let filesystem = FileSystem::by_name(name).unwrap_or(otherwise);
            return Ok(Self::empty(filesystem, None));
        }
        let disk = Disk::open(path, choice.gpt_is_forced);
        let disk = disk.map_err(|error| unreadable(path, &error))?;
        let Some(disk) = disk else {
            let part = verity::Part::whole(path).map_err(|error| unreadable(path, &error))?;
            return match verity::Trusted::find(path, None, choice) {
                Ok(trusted) => Self::read_device(path, &part, None, trusted, otherwise, choice),
                Err(fault) => Ok(Self::empty(otherwise, Some(fault))),
            };
        };
        if let Some(refusal) = &choice.refusal {
            return Ok(Self::empty(otherwise, Some(refusal.clone())));
        }
        let trusted = match verity::Trusted::find(path, Some(&disk), choice) {
            Ok(trusted) => trusted,
            Err(fault) => return Ok(Self::empty(otherwise, Some(fault))),
        };
        let named = trusted.as_ref().map(verity::Trusted::partition);
        let root = match disk.find(choice.name.as_ref().or(named.as_ref())) {
            Ok(partition) => {
                let part = verity::Part::of(&disk, partition);
                let part = part.map_err(|error| unreadable(path, &error))?;
                Self::read_device(path, &part, Some(&disk), trusted, otherwise, choice)
                    .map_err(|fault| in_file(fault, path))?
            }
            Err(fault) if fault.code() == Code::Usage => return Err(in_file(fault, path)),
            Err(fault) => Self::empty(otherwise, Some(in_file(fault, path))),
        };
        Ok(Self {
            table: Some(disk.kind()),
            ..root
        })
    }

    /// Reads what the kernel would mount of a device: all of it, or what is verified.
    fn read_device(
        path: &Path,
        part: &verity::Part,
        disk: Option<&Disk>,
        trusted: Option<verity::Trusted>,
        otherwise: FileSystem,
        choice: &RootChoice,
    ) -> Result<Self> {
        let fstype = choice.fstype.as_deref();
        let tree = match trusted {
            None => None,
            Some(trusted) => {
                let given = choice.tree.as_deref();
                match verity::tree(path, part, disk, &trusted.root, given) {
                    Ok(tree) => tree.map(|tree| (trusted, tree)),
                    Err(fault) => return Ok(Self::empty(otherwise, Some(fault))),
                }
            }
        };
        let Some((trusted, tree)) = tree else {
            if part.is_whole {
                return Self::read_image(path, otherwise, fstype);
            }
            let image = part.extract(part.length);
            let image = image.map_err(|error| unreadable(path, &error))?;
            return Self::read_image(image.path(), otherwise, fstype);
        };
        let authorities = choice.root_hash_authorities();
        let authorities = authorities.as_deref();
        let (image, algorithm) = match verity::verified(path, part, &tree, &trusted, authorities) {
            Ok(verified) => verified,
            Err(fault) => return Ok(Self::empty(otherwise, Some(fault))),
        };
        Ok(Self {
            verified: Some(algorithm),
            ..Self::read_image(image.path(), otherwise, fstype)?
        })
    }

    /// A root without files.
    fn empty(filesystem: FileSystem, unmountable: Option<Fault>) -> Self {
        Self {
            tree: Tree::new(),
            filesystem,
            table: None,
            superblocks: None,
            needs: Vec::new(),
            noexec: false,
            verified: None,
            backing: None,
            unmountable,
        }
    }

    /// Reads an image or an archive, which the kernel will mount as `fstype`, or as what its superblock says.
    fn read_image(path: &Path, otherwise: FileSystem, fstype: Option<&str>) -> Result<Self> {
        let shown = path.display();
        let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let mut head = Vec::new();
        let length = file
            .metadata()
            .and_then(|metadata| {
                let most = filesystem::PROBE_LENGTH as u64;
                (&mut file).take(most).read_to_end(&mut head)?;
                Ok(metadata.len())
            })
            .map_err(|error| unreadable(path, &error))?;
        let superblocks = filesystem::probe(&head);
        let is_other = |fstype: &&str| {
            let mut found = superblocks.iter();
            !is_archive(&head) && !found.any(|found| found.kind.is_mounted_as(fstype))
        };
        let unmountable = if let Some(fstype) = fstype.filter(is_other) {
            let shown: Vec<String> = superblocks.iter().map(describe).collect();
            let holds = match shown.as_slice() {
                [] => "no file system that is recognised".to_owned(),
                shown => shown.join(" and "),
            };
            Fault::new(
                Code::RootMount,
                format!("rootfstype={fstype}; the image holds {holds}"),
            )
            .because(Cause::OTHER_TYPE)
        } else if let Some(why) = filesystem::unmountable(&head, length) {
            Fault::new(Code::RootMount, format!("{shown}: {why}")).because(Cause::DAMAGED_OR_NEWER)
        } else if superblocks.is_empty() && !is_archive(&head) {
            let fault = Fault::new(Code::RootUnknown, shown.to_string());
            match head.starts_with(LUKS) {
                true => fault.because(Cause::LUKS_CONTAINER),
                false => fault,
            }
        } else {
            let root = Self::new(crate::image::read(path)?, otherwise);
            return Ok(Self {
                needs: filesystem::needs(&head),
                ..root
            });
        };
        Ok(Self {
            superblocks: Some(superblocks),
            ..Self::empty(otherwise, Some(unmountable))
        })
    }

    /// A root that was read; `otherwise` is the type that it will have if it is not an image.
    #[must_use]
    pub fn new(source: Source, otherwise: FileSystem) -> Self {
        let filesystem = source.filesystem().unwrap_or(otherwise);
        let mut tree = source.tree;
        // A directory of this machine may have them, but the machine that mounts it will not see them.
        if filesystem::keeps_no_xattrs(&filesystem.name) {
            for inode in tree.inodes_mut() {
                inode.xattrs.clear();
            }
        }
        Self {
            filesystem,
            tree,
            table: None,
            superblocks: source.superblocks,
            needs: Vec::new(),
            noexec: false,
            verified: None,
            backing: None,
            unmountable: None,
        }
    }
}

/// Whether a file that begins so is a tar archive, packed or not.
fn is_archive(head: &[u8]) -> bool {
    Packing::of(head).is_some()
        || head
            .get(257..)
            .is_some_and(|rest| rest.starts_with(b"ustar"))
}

impl Findings {
    /// The root by its name, type and mount options.
    pub(super) fn root(&mut self, root: &Root, line: &str, config: Option<&Config>) {
        use settings::Root::Named;
        let config = config.cloned().unwrap_or_default();
        let Ok(settings) = Settings::merge(config, line, Vec::new(), &mut |_| {}) else {
            return;
        };
        self.faults.extend(never_appears(&settings));
        self.root_initcalls(line, &settings.root);
        self.network(line, &settings.root);
        let Some(superblocks) = &root.superblocks else {
            return;
        };
        let shown: Vec<String> = superblocks.iter().map(describe).collect();
        let answers = |matches: &dyn Fn(&Filesystem) -> bool| superblocks.iter().any(matches);
        let found = match &settings.root {
            Named(RootName::Uuid(wanted)) => answers(&|found| {
                let uuid = found.uuid.as_ref();
                uuid.is_some_and(|uuid| uuid.eq_ignore_ascii_case(wanted))
            }),
            Named(RootName::Label(wanted)) => {
                answers(&|found| found.label.as_ref() == Some(wanted))
            }
            // These name a place on a disk, of which an image of a file system says nothing.
            _ => true,
        };
        if !found {
            let detail = format!("{}; the image is {}", settings.root, shown.join(" and "));
            self.faults.push(Fault::new(Code::RootMissing, detail));
        }
        if settings.rootfstype.is_none() {
            match superblocks.as_slice() {
                [_] => {}
                [] => self.faults.push(Fault::new(Code::RootUnknown, "the image")),
                _ => {
                    let detail = format!("the image looks like {}", shown.join(" and "));
                    self.faults.push(
                        Fault::new(Code::RootUnknown, detail)
                            .because(Cause::SUPERBLOCK_LEFT_BEHIND),
                    );
                }
            }
        }
        let fstype = &root.backing.as_ref().unwrap_or(&root.filesystem).name;
        if root.unmountable.is_none()
            && let Some((option, cause)) = mount_options::refused(fstype, &settings.rootflags)
        {
            let detail = format!("rootflags: {option}");
            self.faults.push(
                Fault::new(Code::RootMount, detail).because(Cause::MOUNT_OPTION.with(&[&cause])),
            );
        }
        if filesystem::keeps_no_xattrs(fstype) {
            let detail = format!("the image is {fstype}");
            self.faults.push(Fault::new(Code::RootNoXattrs, detail));
        }
    }
}
