//! A writable layer over a root that stays as it is (Documentation/filesystems/overlayfs.rst).
//!
//! Nothing of the writable layer is trusted: on a disk it may hold anything. IMA appraises what is executed of it like
//! everything else. Features by which a layer could name files of other layers are off.

use ima::config::Overlay;
use ima::fault::{Cause, Code, Fault, Stage};
use ima::filesystem::keeps_no_xattrs;
use ima::layout::ROOT;
use ima::settings::Settings;
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::mount::{UnmountFlags, unmount};

use super::mounting::{self, Mount, Mounted};
use super::waiting;
use crate::errno::{Errno, describe};
use crate::files;
use crate::watch;

/// Where the root is mounted until the overlay is.
pub(super) const LOWER: &str = "/rootfs.lower";

/// Where the file system of the writable layer is mounted until then.
pub(super) const UPPER: &str = "/rootfs.upper";

/// The directories of that file system: for what is written, and for the kernel's own use.
const DIRECTORIES: [(&str, u32); 2] = [("upper", 0o755), ("work", 0o700)];

/// The type of the overlay's file system.
pub(super) const FSTYPE: &str = "overlay";

/// A layer that was laid over the root.
pub(super) struct Layer {
    /// The overlay.
    pub(super) mounted: Mounted,
    /// The device of the writable layer, or `tmpfs`.
    pub(super) device: String,
}

/// Lays the writable layer over the root on [`LOWER`], and mounts both together on [`ROOT`].
pub(super) fn lay(overlay: &Overlay, settings: &Settings) -> Result<Layer, Fault> {
    let (device, fstype) = match overlay {
        Overlay::Tmpfs => ("tmpfs".to_owned(), "tmpfs".to_owned()),
        Overlay::Device(name) => {
            let device = waiting::wait(name, settings).map_err(|fault| {
                Fault::new(Code::OverlayMissing, fault.detail())
                    .with_cause(fault.cause().to_owned())
                    .with_remedy(fault.remedy().to_owned())
            })?;
            let found = device.recognise().map_err(|fault| {
                Fault::new(
                    Code::OverlayRefused,
                    format!("[{}] {}", fault.code(), fault.detail()),
                )
            })?;
            (device.path(), found.kind.name().to_owned())
        }
    };
    if keeps_no_xattrs(&fstype) {
        let fault = Fault::new(Code::OverlayRefused, format!("{device} is {fstype}"));
        return Err(fault.because(Cause::OVERLAY_WITHOUT_XATTRS));
    }
    watch::during(Stage::Root, format!("mounting {device}"), || {
        mounting::mount(&Mount {
            source: &device,
            fstype: &fstype,
            options: match overlay {
                Overlay::Tmpfs => "mode=0755",
                Overlay::Device(_) => "",
            },
            read_only: false,
            point: UPPER,
            code: Code::OverlayRefused,
        })?;
        directories(&device, settings.config.overlay_wipe)?;
        let options = format!(
            "lowerdir={LOWER},upperdir={UPPER}/upper,workdir={UPPER}/work,\
             redirect_dir=nofollow,metacopy=off,index=off"
        );
        let mounted = mounting::mount(&Mount {
            source: FSTYPE,
            fstype: FSTYPE,
            options: &options,
            read_only: false,
            point: ROOT,
            code: Code::OverlayRefused,
        })?;
        // The overlay keeps both file systems; nobody needs their own names.
        for point in [UPPER, LOWER] {
            let _ = unmount(point, UnmountFlags::DETACH);
            let _ = rustix::fs::rmdir(point);
        }
        Ok(Layer {
            mounted,
            device: device.clone(),
        })
    })
}

/// Makes the directories of the writable layer where they are not there. A link in their place could lead the kernel to any directory.
fn directories(device: &str, wipe: bool) -> Result<(), Fault> {
    let refused = |name: &str, why: &str| {
        Fault::new(Code::OverlayRefused, format!("{device}: /{name}: {why}"))
    };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::PATH | OFlags::CLOEXEC;
    for (name, mode) in DIRECTORIES {
        let parent = rustix::fs::open(UPPER, flags, Mode::empty());
        let parent = parent.map_err(|errno| refused(name, &describe(errno)))?;
        if wipe {
            files::remove_tree(&parent, name).map_err(|errno| refused(name, &describe(errno)))?;
        }
        match mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(refused(name, &describe(errno))),
        }
        openat(&parent, name, flags, Mode::empty()).map_err(|errno| {
            refused(name, &describe(errno)).because(Cause::OVERLAY_WITHOUT_DIRECTORY)
        })?;
    }
    Ok(())
}
