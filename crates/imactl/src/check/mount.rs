//! Whether the kernel would find the root's device and mount its file system, by its configuration and the modules that are loaded.

use std::collections::BTreeSet;

use ima::cmdline::{RootName, Sharing};
use ima::config::Config;
use ima::device;
use ima::dm_verity::Trust;
use ima::fault::{Cause, Code, Explanation, Fault};
use ima::filesystem::Need;
use ima::hash::HashAlgorithm;
use ima::partition::Kind;
use ima::release::Release;
use ima::settings::{self, Settings};

use super::{Findings, Inputs, Root};
use crate::initramfs::Place;
use crate::kernel::check::KernelConfig;

/// The names of the modules that are loaded, where they are known.
type Modules = BTreeSet<String>;

/// The drivers of file systems: the type, the option, and the module.
const FILE_SYSTEMS: [(&str, &str, &str); 8] = [
    ("ext4", "EXT4_FS", "ext4"),
    ("squashfs", "SQUASHFS", "squashfs"),
    ("erofs", "EROFS_FS", "erofs"),
    ("btrfs", "BTRFS_FS", "btrfs"),
    ("xfs", "XFS_FS", "xfs"),
    ("f2fs", "F2FS_FS", "f2fs"),
    ("ubifs", "UBIFS_FS", "ubifs"),
    ("nfs4", "NFS_V4", "nfsv4"),
];

impl Findings {
    /// Whether the init would find the root and the kernel would mount it.
    pub(super) fn mount(&mut self, inputs: &Inputs<'_>, config: Option<&Config>) {
        let alone = inputs
            .initramfs
            .is_none_or(|initramfs| initramfs.place() == Place::Alone);
        if let (Some(root), Some(line), true) = (inputs.root, inputs.command_line, alone) {
            self.root(root, line, config);
            self.initcalls(Some(line), &[Code::RootMissing]);
            if config.is_some_and(|config| config.verity.is_some()) {
                self.initcalls(Some(line), &[Code::VerityTarget]);
            }
            if config.is_some_and(|config| config.luks) {
                self.initcalls(Some(line), &[Code::LuksTarget]);
            }
            if config.is_some_and(|config| config.composefs.is_some()) {
                self.initcalls(Some(line), &[Code::ComposefsKernel]);
            }
        }
        if let (Some(kernel), Some(initramfs), Some(config)) =
            (inputs.kernel, inputs.initramfs, config)
        {
            let modules = initramfs.module_names(config);
            let modules = modules.as_ref();
            if alone {
                self.device(kernel, modules, inputs, config);
                if config.luks {
                    self.luks(kernel, modules);
                }
                if let Some(trust) = &config.verity {
                    self.verity(kernel, modules, inputs.root, (trust, config));
                }
                if config.composefs.is_some() {
                    self.composefs(kernel, modules);
                }
            }
            if let Some(root) = inputs.root {
                self.mountable(kernel, modules, root, inputs.number());
            }
            if config.overlay.is_some()
                && alone
                && let Some(cause) = missing(kernel, modules, "OVERLAY_FS", "overlay")
            {
                let fault = Fault::new(Code::OverlayRefused, "overlay= is set");
                self.faults.push(fault.because(cause));
            }
        }
        let unmountable = inputs.root.and_then(|root| root.unmountable.as_ref());
        // What the init refuses in the command line is reported already.
        let new = unmountable.filter(|fault| !self.faults.contains(fault));
        self.faults.extend(new.cloned());
    }

    /// Reports a missing driver for the disk that `root=` names, if the name identifies the driver, and missing support for the disk's
    /// partition table.
    pub(super) fn device(
        &mut self,
        kernel: &KernelConfig,
        modules: Option<&Modules>,
        inputs: &Inputs<'_>,
        config: &Config,
    ) {
        let line = inputs.command_line.unwrap_or_default();
        let settings = Settings::merge(config.clone(), line, Vec::new(), &mut |_| {});
        let Ok(settings::Settings {
            root: settings::Root::Named(name),
            ..
        }) = settings
        else {
            return;
        };
        // There is no device to wait for where the host shares a directory: the mount fails.
        let code = match &name {
            RootName::Shared { .. } => Code::RootMount,
            _ => Code::RootMissing,
        };
        let driver = match &name {
            RootName::Device(device) => {
                device::driver(device).map(|driver| (driver.option, driver.module))
            }
            RootName::Ubi(_) => Some(("MTD_UBI", "ubi")),
            RootName::Shared {
                by: Sharing::NineP, ..
            } => Some(("NET_9P_VIRTIO", "9pnet_virtio")),
            RootName::Shared {
                by: Sharing::Virtiofs,
                ..
            } => Some(("VIRTIO_FS", "virtiofs")),
            _ => None,
        };
        let driver = driver.and_then(|(option, module)| missing(kernel, modules, option, module));
        let table = inputs.root.and_then(|root| root.table).map(Kind::option);
        let table = table
            .filter(|option| !kernel.is_builtin(option))
            .map(|option| Cause::PARTITION_TABLE_NOT_SET.with(&[option]));
        if let Some(cause) = driver.or(table) {
            let fault = Fault::new(code, format!("root={name}"));
            self.faults.push(fault.because(cause));
        }
    }

    /// What unlocks a root: the TPM, dm-crypt and its cipher.
    fn luks(&mut self, kernel: &KernelConfig, modules: Option<&Modules>) {
        if !kernel.is_builtin("TCG_TPM") {
            let detail = "luks=yes is set, and CONFIG_TCG_TPM is not y";
            self.faults.push(Fault::new(Code::LuksTpm, detail));
        }
        let drivers = [
            ("BLK_DEV_DM", "dm_mod"),
            ("DM_CRYPT", "dm_crypt"),
            ("CRYPTO_XTS", "xts"),
            ("CRYPTO_AES", "aes_generic"),
        ];
        let mut missing = drivers
            .iter()
            .filter_map(|(option, module)| missing(kernel, modules, option, module));
        if let Some(cause) = missing.next() {
            let fault = Fault::new(Code::LuksTarget, "luks=yes is set");
            self.faults.push(fault.because(cause));
        }
    }

    /// dm-verity, and the hash algorithm of the root's tree.
    pub(super) fn verity(
        &mut self,
        kernel: &KernelConfig,
        modules: Option<&Modules>,
        root: Option<&Root>,
        (trust, config): (&Trust, &Config),
    ) {
        let drivers = [("BLK_DEV_DM", "dm_mod"), ("DM_VERITY", "dm_verity")];
        let mut missing = drivers
            .iter()
            .filter_map(|(option, module)| missing(kernel, modules, option, module));
        if let Some(cause) = missing.next() {
            let fault = Fault::new(Code::VerityTarget, "verity= is set");
            self.faults.push(fault.because(cause));
            return;
        }
        let signed = *trust == Trust::Signed;
        let corrected = config.verity_fec.is_some() || config.verity_fec_offset.is_some();
        for (wanted, option, cause) in [
            (
                signed,
                "DM_VERITY_VERIFY_ROOTHASH_SIG",
                Cause::SIGNATURES_NOT_IN_KERNEL,
            ),
            (corrected, "DM_VERITY_FEC", Cause::FEC_NOT_IN_KERNEL),
        ] {
            if wanted && !kernel.is_builtin(option) {
                let fault = Fault::new(Code::VerityTarget, format!("CONFIG_{option}"));
                self.faults.push(fault.because(cause));
                return;
            }
        }
        let algorithm = root.and_then(|root| root.verified);
        let option = match algorithm {
            Some(HashAlgorithm::Sha256) => "CRYPTO_SHA256",
            Some(HashAlgorithm::Sha384 | HashAlgorithm::Sha512) => "CRYPTO_SHA512",
            Some(_) => "CRYPTO_SHA3",
            None => return,
        };
        if !kernel.is_available(option) {
            let fault = Fault::new(Code::VerityTable, "the kernel lacks the hash algorithm");
            self.faults
                .push(fault.because(Cause::VERITY_HASH_NOT_SET.with(&[option])));
        }
    }

    /// What of a kernel mounts a composefs and verifies it.
    fn composefs(&mut self, kernel: &KernelConfig, modules: Option<&Modules>) {
        let drivers = [("EROFS_FS", "erofs"), ("OVERLAY_FS", "overlay")];
        let driver = drivers
            .iter()
            .find_map(|(option, module)| missing(kernel, modules, option, module));
        let option = ["EROFS_FS_XATTR", "EROFS_FS_BACKED_BY_FILE", "FS_VERITY"]
            .into_iter()
            .find(|option| !kernel.is_builtin(option));
        let option = option.map(|option| Cause::DRIVER_NOT_SET.with(&[option]));
        if let Some(cause) = driver.or(option) {
            let fault = Fault::new(Code::ComposefsKernel, "composefs= is set");
            self.faults.push(fault.because(cause));
        }
    }

    /// The driver of the root's file system, and what its superblock asks for.
    pub(super) fn mountable(
        &mut self,
        kernel: &KernelConfig,
        modules: Option<&Modules>,
        root: &Root,
        release: Option<Release>,
    ) {
        let name = &root.backing.as_ref().unwrap_or(&root.filesystem).name;
        let refused =
            |cause: Explanation| Fault::new(Code::RootMount, format!("{name} root")).because(cause);
        let driver = FILE_SYSTEMS.iter().find(|(own, ..)| own == name);
        if let Some((_, option, module)) = driver
            && let Some(cause) = missing(kernel, modules, option, module)
        {
            self.faults.push(refused(cause));
            return;
        }
        for need in &root.needs {
            let cause = match *need {
                Need::Option(option, what) if !kernel.is_available(option) => {
                    Cause::FEATURE_NOT_SET.with(&[what, option])
                }
                Need::PageSize(size, since)
                    if size > kernel.page_size()
                        && since.is_none_or(|since| release.is_none_or(|own| own < since)) =>
                {
                    let page = kernel.page_size().to_string();
                    Cause::BLOCKS_LARGER_THAN_PAGES.with(&[&size.to_string(), &page])
                }
                _ => continue,
            };
            self.faults.push(refused(cause));
        }
    }
}

/// Why the kernel has no driver, if so.
fn missing(
    kernel: &KernelConfig,
    modules: Option<&Modules>,
    option: &str,
    module: &str,
) -> Option<Explanation> {
    match kernel.value(option) {
        "y" => None,
        "m" if modules.is_none_or(|modules| modules.contains(module)) => None,
        "m" => Some(Cause::DRIVER_NOT_LOADED.with(&[option, module])),
        _ => Some(Cause::DRIVER_NOT_SET.with(&[option])),
    }
}

/// Whether an option is the driver of a file system, which [`Findings::mountable`] looks for.
pub(super) fn is_driver(option: &str) -> bool {
    FILE_SYSTEMS.iter().any(|(_, own, _)| *own == option)
}
