//! The real root: found by its name, waited for, mounted.

mod composefs;
mod devices;
mod luks;
mod missing;
mod mounting;
mod overlay;
mod ubi;
mod verity;
mod waiting;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ima::cmdline::{RootName, Sharing, nfs_source};
use ima::fault::{Cause, Code, Fault, Stage};
use ima::filesystem;
use ima::layout::ROOT;
use ima::settings::{Root, Settings};
use rustix::mount::{UnmountFlags, unmount};

use super::policy::PolicyInForce;
use crate::device_mapper;
use crate::errno::{Errno, describe};
use crate::features::{self, Feature};
use crate::report::{Report, RootRecord};
use crate::watch;
use devices::Device;
use mounting::Mount;
use verity::{Trusted, Verified};
use waiting::wait;

/// The mounted root.
#[derive(Debug)]
pub struct MountedRoot {
    path: PathBuf,
    directory: OwnedFd,
    magic: u64,
    fstype: String,
    verification: Verification,
}

/// Whether and how what is read of the root is verified.
#[derive(Debug, Clone)]
pub struct Verification(Option<Verified>);

impl Verification {
    fn verified(&self) -> Option<&Verified> {
        self.0
            .as_ref()
            .filter(|_| features::is_built_in(Feature::Verity))
    }

    /// The fault of a boot that failed on this root: if a wrong block was read, that fault, because it caused the other.
    pub fn closer(&self, fault: Fault) -> Fault {
        match self.verified() {
            Some(verified) => verified.closer(fault),
            None => fault,
        }
    }

    /// Prepares the root for the real system: from now on a wrong block has the effect that the configuration chose.
    ///
    /// # Errors
    ///
    /// [`Code::VerityCorrupted`], [`Code::VerityRootHash`]: a wrong block was read already, without an error so far;
    /// [`Code::VerityTable`].
    pub(super) fn arm(&self) -> Result<(), Fault> {
        self.verified().map_or(Ok(()), Verified::arm)
    }
}

impl MountedRoot {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file of it for messages: behind the path where the root is mounted.
    pub fn shown(&self, path: &Path) -> String {
        format!("{}{}", self.path.display(), path.display())
    }

    /// The root's directory: nothing of the root is opened but below it.
    pub const fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// How it is verified.
    pub const fn verification(&self) -> &Verification {
        &self.verification
    }

    /// The magic of its super block, for the policy's `fsmagic=`.
    pub const fn magic(&self) -> u64 {
        self.magic
    }

    /// The name of its type, for the policy's `fsname=`.
    pub fn fstype(&self) -> &str {
        &self.fstype
    }
}

/// Waits for the root's device and mounts it, or takes the root that another initramfs has mounted. It takes the proof that
/// a policy is in force: nothing of a disk is mounted before.
///
/// # Errors
///
/// [`Code::RootMissing`], [`Code::RootAmbiguous`], [`Code::RootDevice`], [`Code::RootUnknown`], [`Code::RootMount`];
/// [`Code::RootNotMounted`]. Of a root that is to be verified: [`Code::VerityTarget`], [`Code::VerityTreeMissing`],
/// [`Code::VeritySuperblock`], [`Code::VerityTable`], [`Code::VerityRootHash`], [`Code::VerityCorrupted`],
/// [`Code::VeritySignatureMissing`], [`Code::VeritySignature`], [`Code::VerityUntrusted`]. Of an encrypted one: [`Code::LuksHeader`], [`Code::LuksToken`],
/// [`Code::LuksPcr10`], [`Code::LuksTpm`], [`Code::LuksPolicy`], [`Code::LuksKeyslot`], [`Code::LuksTarget`].
/// Of one with composefs: [`Code::ComposefsKernel`], [`Code::ComposefsMissing`], [`Code::ComposefsDigest`],
/// [`Code::ComposefsMount`]. Of one that needs what this init was built without: [`Code::FeatureMissing`].
pub fn mount(
    _: &PolicyInForce,
    settings: &Settings,
    report: &mut Report,
) -> Result<MountedRoot, Fault> {
    let name = match &settings.root {
        Root::Named(name) => Some(name.clone()),
        Root::Signed => None,
        Root::Mounted(path) => return adopt(path, report),
        Root::Unmounted => {
            let detail = "nothing has mounted it yet";
            return Err(Fault::new(Code::RootNotMounted, detail));
        }
    };
    if settings.config.overlay.is_some() {
        features::require(Feature::Overlay)?;
    }
    if settings.composefs.is_some() {
        features::require(Feature::Composefs)?;
    }
    if let Some(name) = &name
        && let Some(source) = named_by_driver(name, settings)?
    {
        return mount_source(name, &source, &Verification(None), settings, report);
    }
    let trusted = match &settings.verity {
        None => None,
        Some(verity) => {
            features::require(Feature::Verity)?;
            Some(Trusted::find(verity, settings)?)
        }
    };
    let name = name.or_else(|| trusted.as_ref().map(Trusted::partition));
    let name = name.ok_or_else(|| Fault::new(Code::NoRootNamed, "root= is missing"))?;
    let mut device = wait(&name, settings)?;
    if settings.config.luks {
        features::require(Feature::Luks)?;
        let (mapped, text) = luks::unlock(&device)?;
        report.done(Stage::Root, &text);
        device = mapped;
    }
    let verification = Verification(
        trusted
            .map(|trusted| Verified::set_up(&device, trusted, settings))
            .transpose()?,
    );
    mount_device(&name, &device, &verification, settings, report)
        .map_err(|fault| verification.closer(fault))
}

/// Leaves the root of a slot that was refused, so that another root can take its place.
///
/// # Errors
///
/// [`Code::RootMount`] if something of it is still in use.
pub fn leave() -> Result<(), Fault> {
    watch::during(Stage::Root, "unmounting the refused root", || {
        for point in [ROOT, overlay::UPPER, overlay::LOWER] {
            match unmount(point, UnmountFlags::empty()) {
                // Nothing is mounted there, or the directory does not exist.
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
                Err(errno) => return Err(in_use(point, errno)),
            }
        }
        if features::is_built_in(Feature::Luks) || features::is_built_in(Feature::Verity) {
            device_mapper::remove().map_err(|errno| in_use("the mapped device", errno))?;
        }
        Ok(())
    })
}

fn in_use(what: &str, errno: Errno) -> Fault {
    let detail = format!("{what}: {}", describe(errno));
    Fault::new(Code::RootMount, detail).because(Cause::REFUSED_ROOT_IN_USE)
}

/// A root that is not a block device, and that the file system's driver finds by its name.
fn named_by_driver(name: &RootName, settings: &Settings) -> Result<Option<Source>, Fault> {
    Ok(Some(match name {
        RootName::Ubi(volume) => {
            features::require(Feature::Ubi)?;
            Source {
                path: ubi::wait(name, volume, settings)?,
                fstype: settings.rootfstype.as_deref().unwrap_or("ubifs").to_owned(),
                option: String::new(),
            }
        }
        RootName::Nfs { server, path } => {
            features::require(Feature::NetworkRoots)?;
            Source {
                path: nfs_source(*server, path),
                fstype: "nfs4".to_owned(),
                // What mount.nfs(8) adds: of two addresses the last counts.
                option: format!("vers=4.2,addr={server}"),
            }
        }
        RootName::Shared { by, tag } => {
            features::require(Feature::NetworkRoots)?;
            Source {
                path: tag.clone(),
                fstype: by.name().to_owned(),
                // Of two transports the last counts: 9p would also take a server in a network.
                option: match by {
                    Sharing::NineP => "trans=virtio".to_owned(),
                    Sharing::Virtiofs => String::new(),
                },
            }
        }
        _ => return Ok(None),
    }))
}

/// Mounts the device, or the one that verifies it.
fn mount_device(
    name: &RootName,
    device: &Device,
    verification: &Verification,
    settings: &Settings,
    report: &mut Report,
) -> Result<MountedRoot, Fault> {
    let device = verification.verified().map_or(device, Verified::device);
    let source = Source {
        path: device.path(),
        fstype: match &settings.rootfstype {
            Some(name) => name.clone(),
            None => device.recognise()?.kind.name().to_owned(),
        },
        option: String::new(),
    };
    mount_source(name, &source, verification, settings, report)
}

/// What is mounted.
struct Source {
    /// The name by which the file system's driver finds it: a device's path, a UBI volume's name, a shared directory's tag, or a
    /// server and a path of it.
    path: String,
    fstype: String,
    /// A mount option behind those of the settings.
    option: String,
}

fn mount_source(
    name: &RootName,
    source: &Source,
    verification: &Verification,
    settings: &Settings,
    report: &mut Report,
) -> Result<MountedRoot, Fault> {
    let Source {
        path,
        fstype,
        option,
    } = source;
    let flags = [settings.rootflags.as_str(), option.as_str()].join(",");
    let overlay = settings.config.overlay.as_ref();
    let overlay = overlay.filter(|_| features::is_built_in(Feature::Overlay));
    let point = match overlay {
        Some(_) => overlay::LOWER,
        None => ROOT,
    };
    let mounted = watch::during(Stage::Root, format!("mounting {path}"), || {
        mounting::mount(&Mount {
            source: path,
            fstype,
            options: flags.trim_matches(','),
            read_only: settings.read_only,
            point,
            code: Code::RootMount,
        })
    })?;
    let composefs = settings.composefs.as_ref();
    let composefs = composefs.filter(|_| features::is_built_in(Feature::Composefs));
    let (mounted, image) = match composefs {
        None => (mounted, String::new()),
        Some(wanted) => {
            let mounting = format!("mounting {} of {path}", wanted.image);
            let over = watch::during(Stage::Root, mounting, || {
                composefs::over(&mounted, wanted, point)
            });
            (over?, format!(", composefs {}", wanted.image))
        }
    };
    let fstype = &mounted.fstype;
    warn_of_xattrs(path, fstype, Path::new(point), report);
    let layer = overlay.map(|overlay| overlay::lay(overlay, settings));
    let layer = layer.transpose()?;
    report.root = RootRecord {
        name: name.to_string(),
        device: path.clone(),
        fstype: fstype.clone(),
        options: mounted.options.clone(),
        verity: verification
            .verified()
            .map(|verified| verified.root_hash().to_string()),
        overlay: layer.as_ref().map(|layer| layer.device.clone()),
        composefs: composefs.map(|wanted| wanted.digest.to_string()),
    };
    let over = match verification.verified() {
        Some(verified) => format!(" ({})", verified.text()),
        None => String::new(),
    };
    let under = match &layer {
        Some(layer) => format!(", under an overlay on {}", layer.device),
        None => String::new(),
    };
    let text = format!(
        "{name} is {path}{over}{image}, {fstype} ({}){under}, mounted on {ROOT}",
        mounted.options
    );
    report.done(Stage::Root, &text);
    let mounted = layer.map_or(mounted, |layer| layer.mounted);
    Ok(MountedRoot {
        path: ROOT.into(),
        directory: mounted.directory,
        magic: mounted.magic,
        fstype: mounted.fstype,
        verification: verification.clone(),
    })
}

/// Takes the root that is mounted there.
fn adopt(path: &Path, report: &mut Report) -> Result<MountedRoot, Fault> {
    let looking = format!("looking at {}", path.display());
    let adopted = watch::during(Stage::Root, looking, || mounting::adopt(path))?;
    let record = &adopted.record;
    warn_of_xattrs(&record.device, &record.fstype, path, report);
    let text = format!(
        "{} is {}, {} ({})",
        path.display(),
        adopted.record.device,
        adopted.record.fstype,
        adopted.record.options
    );
    let fstype = adopted.record.fstype.clone();
    report.root = adopted.record;
    report.done(Stage::Root, &text);
    Ok(MountedRoot {
        path: path.to_owned(),
        directory: adopted.directory,
        magic: adopted.magic,
        fstype,
        verification: Verification(None),
    })
}

fn warn_of_xattrs(device: &str, fstype: &str, root: &Path, report: &mut Report) {
    let mut nothing: [u8; 0] = [];
    let answer = rustix::fs::getxattr(root, "security.ima", &mut nothing[..]);
    if filesystem::keeps_no_xattrs(fstype) || answer == Err(Errno::NOTSUP) {
        let detail = format!("{device} is {fstype}");
        report.warn(Fault::new(Code::RootNoXattrs, detail));
    }
}
