//! The real root: found by its name, waited for, mounted.

#[cfg(feature = "composefs")]
mod composefs;
#[cfg(not(feature = "composefs"))]
#[path = "root/no_composefs.rs"]
mod composefs;
mod devices;
#[cfg(feature = "luks")]
mod luks;
#[cfg(not(feature = "luks"))]
#[path = "root/no_luks.rs"]
mod luks;
mod missing;
mod mounting;
mod overlay;
mod ubi;
#[cfg(feature = "verity")]
mod verity;
#[cfg(not(feature = "verity"))]
#[path = "root/no_verity.rs"]
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
use crate::errno::{Errno, describe};
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
    /// The fault of a boot that failed on this root: if a wrong block was read, that fault, because it caused the other.
    pub fn closer(&self, fault: Fault) -> Fault {
        match &self.0 {
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
        self.0.as_ref().map_or(Ok(()), Verified::arm)
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
/// [`Code::ComposefsMount`].
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
    let other = match &name {
        Some(RootName::Ubi(volume)) => Some(Source {
            path: ubi::wait(&RootName::Ubi(volume.clone()), volume, settings)?,
            fstype: settings.rootfstype.as_deref().unwrap_or("ubifs").to_owned(),
            option: String::new(),
        }),
        Some(RootName::Nfs { server, path }) => Some(Source {
            path: nfs_source(*server, path),
            fstype: "nfs4".to_owned(),
            // What mount.nfs(8) adds: of two addresses the last counts.
            option: format!("vers=4.2,addr={server}"),
        }),
        Some(RootName::Shared { by, tag }) => Some(Source {
            path: tag.clone(),
            fstype: by.name().to_owned(),
            // Of two transports the last counts: 9p would also take a server in a network.
            option: match by {
                Sharing::NineP => "trans=virtio".to_owned(),
                Sharing::Virtiofs => String::new(),
            },
        }),
        _ => None,
    };
    if let (Some(name), Some(source)) = (&name, other) {
        return mount_source(name, &source, &Verification(None), settings, report);
    }
    let trusted = settings.verity.as_ref();
    let trusted = trusted.map(|verity| Trusted::find(verity, settings));
    let trusted = trusted.transpose()?;
    let name = name.or_else(|| trusted.as_ref().map(Trusted::partition));
    let name = name.ok_or_else(|| Fault::new(Code::NoRootNamed, "root= is missing"))?;
    let mut device = wait(&name, settings)?;
    if settings.config.luks {
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
        #[cfg(any(feature = "luks", feature = "verity"))]
        crate::device_mapper::remove().map_err(|errno| in_use("the mapped device", errno))?;
        Ok(())
    })
}

fn in_use(what: &str, errno: Errno) -> Fault {
    let detail = format!("{what}: {}", describe(errno));
    Fault::new(Code::RootMount, detail).because(Cause::REFUSED_ROOT_IN_USE)
}

/// Mounts the device, or the one that verifies it.
fn mount_device(
    name: &RootName,
    device: &Device,
    verification: &Verification,
    settings: &Settings,
    report: &mut Report,
) -> Result<MountedRoot, Fault> {
    let device = verification.0.as_ref().map_or(device, Verified::device);
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
    let (mounted, image) = match &settings.composefs {
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
            .0
            .as_ref()
            .map(|verified| verified.root_hash().to_string()),
        overlay: layer.as_ref().map(|layer| layer.device.clone()),
        composefs: settings
            .composefs
            .as_ref()
            .map(|wanted| wanted.digest.to_string()),
    };
    let over = match &verification.0 {
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
