//! What configuration and command line say about the root.

use std::path::PathBuf;

use ima::certificate::Certificate;
use ima::cmdline::RootName;
use ima::composefs::Composefs;
use ima::device;
use ima::fault::{Code, Fault};
use ima::mount_options::{Attribute, MountOption};
use ima::revocation::Revocations;
use ima::settings::{self, Settings, Verity};

use crate::initramfs::{InitramfsBuilder, Place};

/// What configuration and command line say about the root.
#[derive(Debug, Clone, Default)]
pub struct RootChoice {
    /// Its name.
    pub name: Option<RootName>,
    /// The type of its file system, where the init mounts it.
    pub fstype: Option<String>,
    /// Whether the init mounts it with `noexec`.
    pub noexec: bool,
    /// [`ima::partition::gpt_is_forced`]
    pub gpt_is_forced: bool,
    /// How the init has it verified.
    pub verity: Option<Verity>,
    /// The composefs that the init mounts.
    pub composefs: Option<Composefs>,
    /// The image of the device of the hash tree, where that is not on the root's disk. Without it such a root is not verified.
    pub tree: Option<PathBuf>,
    /// The file or device of the signed root hash, where that is not on the root's disk. Without it such a root is not verified.
    pub signature: Option<PathBuf>,
    /// [`InitramfsBuilder::architecture`]: the partition of a signed root hash has a type of its own for each.
    pub architecture: Option<&'static str>,
    /// What the configuration revokes.
    pub revoked: Revocations,
    /// The CAs in the kernel, if they are known.
    pub authorities: Option<Vec<Certificate>>,
    /// The certificates on the kernel's keyring for signed root hashes: [`Inputs::verity_certificates`](super::Inputs::verity_certificates).
    pub verity_certificates: Vec<Certificate>,
    /// Why the init refuses what they say before it looks for a root, where the command line is known.
    pub refusal: Option<Fault>,
}

impl RootChoice {
    /// The certificates by which the kernel takes the signature of a root hash, if the CAs in the kernel are known.
    pub(super) fn root_hash_authorities(&self) -> Option<Vec<Certificate>> {
        let mut known = self.authorities.clone()?;
        known.extend_from_slice(&self.verity_certificates);
        Some(known)
    }

    /// Returns what the init in `initramfs` would read. Where another initramfs mounts the root, that one's programs may understand
    /// names that the init does not.
    #[must_use]
    pub fn new(initramfs: &InitramfsBuilder, command_line: Option<&str>) -> Self {
        let Ok(config) = initramfs.configuration() else {
            return Self::default();
        };
        let line = command_line.unwrap_or_default();
        let alone = initramfs.place() == Place::Alone;
        match Settings::merge(config, line, Vec::new(), &mut |_| {}) {
            Ok(settings) => Self {
                refusal: never_appears(&settings).filter(|_| alone),
                name: match settings.root {
                    settings::Root::Named(name) => Some(name),
                    settings::Root::Signed
                    | settings::Root::Mounted(_)
                    | settings::Root::Unmounted => None,
                },
                noexec: alone
                    && ima::mount_options::mount_options(&settings.rootflags)
                        .any(|(_, option)| option == MountOption::Mount(Attribute::NoExec)),
                fstype: settings.rootfstype.filter(|_| alone),
                gpt_is_forced: settings.gpt_is_forced,
                verity: settings.verity.filter(|_| alone),
                architecture: initramfs.architecture(),
                composefs: settings.composefs.filter(|_| alone),
                revoked: settings.config.revoked,
                ..Self::default()
            },
            Err(fault) => Self {
                gpt_is_forced: ima::partition::gpt_is_forced(line),
                refusal: (command_line.is_some() && alone).then_some(fault),
                ..Self::default()
            },
        }
    }
}

/// The fault of a root whose device only programs make that the initramfs does not run.
pub(super) fn never_appears(settings: &Settings) -> Option<Fault> {
    let settings::Root::Named(name) = &settings.root else {
        return None;
    };
    let RootName::Device(device) = name else {
        return None;
    };
    let cause = device::never_appears(device, settings.creates_mapped_devices)?;
    Some(Fault::new(Code::RootMissing, name.to_string()).because(cause))
}
