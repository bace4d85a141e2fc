//! Whether a kernel, an initramfs and a root will boot together: what the init would refuse, found on the desk, with the
//! init's codes.

mod boot_parameters;
mod disk;
mod front;
mod keys;
mod libraries;
mod modules;
mod mount;
pub mod mount_options;
mod program;
mod simulate;
mod systemd;
mod verity;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ima::certificate::Certificate;
use ima::cmdline::RootName;
use ima::config::{Config, Enforce, Lockdown};
use ima::device;
use ima::fault::{Cause, Code, Fault, Severity};
use ima::filesystem::{self, Filesystem, Need};
use ima::hash::HashAlgorithm;
use ima::layout::Purpose;
use ima::mount_options::{Attribute, MountOption};
use ima::partition::Kind;
use ima::policy::cover::{self, On};
use ima::policy::lint::Release;
use ima::policy::{Hook, Policy, Query};
use ima::program::{INIT, INTERPRETER};
use ima::settings::{self, EvmFiles, Settings, Verity};

use crate::Result;
use crate::file::{in_file, unreadable};
use crate::image::Source;
use crate::initramfs::{InitramfsBuilder, Place};
use crate::kernel::check::{Finding, KernelConfig, Wanted};
use crate::kernel::hardening;
use crate::kernel::release::KernelRelease;
use crate::packed::Packing;
use crate::select::{self, Chooser, FileSystem};
use crate::tree::{Inode, Tree};
use crate::verify::Verdict;
use disk::Disk;
use libraries::Libraries;
use program::Examiner;
pub use simulate::{Refused, Simulation, simulate};
pub use systemd::Denied;
use systemd::Further;

/// What is to boot together. What is not given is not checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs<'a> {
    /// The initramfs.
    pub initramfs: Option<&'a InitramfsBuilder>,
    /// The real root.
    pub root: Option<&'a Root>,
    /// The kernel's configuration.
    pub kernel: Option<&'a KernelConfig>,
    /// Which release the kernel is.
    pub release: Option<&'a KernelRelease>,
    /// The CA certificates in the kernel.
    pub authorities: Option<&'a [Certificate]>,
    /// The kernel command line.
    pub command_line: Option<&'a str>,
}

impl Inputs<'_> {
    /// The first two numbers of the kernel's release.
    fn number(&self) -> Option<Release> {
        let release = self.release.and_then(KernelRelease::number);
        release.or_else(|| self.kernel.and_then(KernelConfig::release))
    }
}

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
    /// As [`crate::image::read`]: what is no image, or one of a kind that is not read. [`Code::Usage`] if nothing says which
    /// partition is meant.
    pub fn read(path: &Path, otherwise: FileSystem, choice: &RootChoice) -> Result<Self> {
        let root = Self::read_chosen(path, otherwise, choice)?;
        Ok(Self {
            noexec: choice.noexec,
            ..root
        })
    }

    fn read_chosen(path: &Path, otherwise: FileSystem, choice: &RootChoice) -> Result<Self> {
        if path.is_dir() {
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
            return Self::read_device(path, &part, None, otherwise, choice);
        };
        if let Some(refusal) = &choice.refusal {
            return Ok(Self::empty(otherwise, Some(refusal.clone())));
        }
        let root = match disk.find(choice.name.as_ref()) {
            Ok(partition) => {
                let part = verity::Part::of(&disk, partition);
                let part = part.map_err(|error| unreadable(path, &error))?;
                Self::read_device(path, &part, Some(&disk), otherwise, choice)
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
        otherwise: FileSystem,
        choice: &RootChoice,
    ) -> Result<Self> {
        let fstype = choice.fstype.as_deref();
        let tree = match &choice.verity {
            None => None,
            Some(wanted) => match verity::tree(path, part, disk, wanted, choice.tree.as_deref()) {
                Ok(tree) => tree.map(|tree| (wanted, tree)),
                Err(fault) => return Ok(Self::empty(otherwise, Some(fault))),
            },
        };
        let Some((wanted, tree)) = tree else {
            if part.is_whole {
                return Self::read_image(path, otherwise, fstype);
            }
            let image = part.extract(part.length);
            let image = image.map_err(|error| unreadable(path, &error))?;
            return Self::read_image(image.path(), otherwise, fstype);
        };
        let (image, algorithm) = match verity::verified(path, part, &tree, wanted) {
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
            Fault::new(Code::RootUnknown, shown.to_string())
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

    /// A root that was read; `otherwise` is the type that it will have if it is no image.
    #[must_use]
    pub fn new(source: Source, otherwise: FileSystem) -> Self {
        Self {
            filesystem: source.filesystem().unwrap_or(otherwise),
            tree: source.tree,
            table: None,
            superblocks: source.superblocks,
            needs: Vec::new(),
            noexec: false,
            verified: None,
            unmountable: None,
        }
    }
}

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
    /// The image of the device of the hash tree, where that is not on the root's disk. Without it such a root is not verified.
    pub tree: Option<PathBuf>,
    /// Why the init refuses what they say before it looks for a root, where the command line is known.
    pub refusal: Option<Fault>,
}

impl RootChoice {
    /// What an init in `initramfs` would be told. Where another initramfs mounts the root, that one's programs may understand
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
                    settings::Root::Mounted(_) | settings::Root::Unmounted => None,
                },
                noexec: alone
                    && ima::mount_options::mount_options(&settings.rootflags)
                        .any(|(_, option)| option == MountOption::Mount(Attribute::NoExec)),
                fstype: settings.rootfstype.filter(|_| alone),
                gpt_is_forced: settings.gpt_is_forced,
                verity: settings.verity.filter(|_| alone),
                tree: None,
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
fn never_appears(settings: &Settings) -> Option<Fault> {
    let settings::Root::Named(name) = &settings.root else {
        return None;
    };
    let RootName::Device(device) = name else {
        return None;
    };
    let cause = device::never_appears(device, settings.creates_mapped_devices)?;
    Some(Fault::new(Code::RootMissing, name.to_string()).because(cause))
}

/// Whether a file that begins so is a tar archive, packed or not.
fn is_archive(head: &[u8]) -> bool {
    Packing::of(head).is_some()
        || head
            .get(257..)
            .is_some_and(|rest| rest.starts_with(b"ustar"))
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// In the order of the boot: the first refusal is what the init would say.
    pub faults: Vec<Fault>,
    /// The files of the root that would be denied, and why; switch_root, init and what they need are among them.
    pub denied: Vec<(Vec<u8>, Verdict)>,
    /// The programs that systemd starts on the way to its default target and that would be denied.
    pub services: Vec<Denied>,
}

impl Findings {
    /// What the init would refuse, if anything.
    #[must_use]
    pub fn refusal(&self) -> Option<&Fault> {
        self.faults
            .iter()
            .find(|fault| fault.code().entry().severity == Severity::Refusal)
    }

    fn add<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|fault| self.faults.push(fault)).ok()
    }
}

/// Goes through the boot, stage by stage, as the init would.
#[must_use]
pub fn check(inputs: &Inputs<'_>) -> Findings {
    let mut found = Findings::default();
    let boot = inputs.initramfs.map(|initramfs| {
        if let Some(kernel) = inputs.kernel {
            found.faults.extend(packing(initramfs, kernel));
        }
        found.add(initramfs.check_init());
        found.add(initramfs.check_place());
        let config = found.add(initramfs.configuration()).unwrap_or_default();
        if let Some(kernel) = inputs.kernel {
            found.faults.extend(kernel_basics(kernel));
        }
        found.initcalls(inputs.command_line, &[Code::NoSecurityfs, Code::NoIma]);
        let place = initramfs.place();
        let merged = found.settings(&config, inputs.command_line, place);
        let policy = found.add(initramfs.chosen_policy());
        if let (Some(policy), Some(line)) = (&policy, inputs.command_line) {
            found.weakened(&config, policy, line, place);
        }
        found.faults.extend(initramfs.missing_modules(&config));
        if place == Place::Alone {
            let modules = initramfs.modules(&config);
            let refused = modules::refused(modules, inputs.kernel, inputs.release);
            found.faults.extend(refused);
        }
        let required = config.enforce == Enforce::Required;
        if let (Some(policy), Place::Front | Place::FrontOfSystemd) = (&policy, place) {
            found
                .faults
                .extend(cover::fault(policy, On::Any, config.cover, required));
        }
        let scripts = found.add(initramfs.script_faults());
        found.faults.extend(scripts.unwrap_or_default());
        (initramfs, config, merged, policy)
    });
    let Some((initramfs, config, merged, policy)) = boot else {
        found.mount(inputs, None);
        return found;
    };
    let init = merged.init;
    let appraises = policy.as_ref().is_some_and(Policy::appraises);
    if appraises {
        let keys = [Code::NoImaKeyring, Code::CertificateRefused];
        found.initcalls(inputs.command_line, &keys);
    }
    let certificates = found.keys(initramfs, inputs, &config, appraises);
    let mut offers = initramfs.certificate_files(Purpose::Evm);
    let named = merged.evm.certificate.iter();
    offers.extend(named.map(|path| initramfs.certificate_file(path)));
    let wants_certificates = !offers.is_empty();
    let evm = found.required(offers, inputs, inputs.authorities, true, &config.revoked);
    let evm_key = found.add(initramfs.evm_key(&merged.evm)).flatten();
    let required = config.enforce == Enforce::Required;
    if let (Some(parameter), true) = (merged.evm_fix, required)
        && (wants_certificates || evm_key.is_some())
    {
        found.faults.push(Fault::new(Code::EvmFix, parameter));
    }
    let no_evm = if inputs
        .kernel
        .is_some_and(|kernel| !kernel.is_builtin("EVM"))
    {
        Some("this kernel was built without CONFIG_EVM")
    } else {
        boot_parameters::is_left_out(boot_parameters::EVM, inputs.command_line)
            .then_some("initcall_blacklist=init_evm")
    };
    if let Some(detail) = no_evm.filter(|_| wants_certificates) {
        let code = match required {
            true => Code::EvmOff,
            false => Code::NoEvmKeyring,
        };
        found.faults.push(Fault::new(code, detail));
    }
    if let (Some(_), Some(kernel)) = (&evm_key, inputs.kernel) {
        for option in ["EVM", "ENCRYPTED_KEYS"] {
            if !kernel.is_builtin(option) {
                let detail = format!("this kernel was built without CONFIG_{option}");
                found.faults.push(Fault::new(Code::EvmKeyRefused, detail));
            }
        }
    }
    found.lockdown(&config, inputs.kernel, inputs.command_line);
    let Some(policy) = policy else { return found };
    if policy.appraises_programs() && !policy.appraises_tmpfs() {
        found
            .faults
            .push(Fault::new(Code::TmpfsFree, initramfs.policy_path()));
    }
    let signed = initramfs.check_policy_signature();
    if let (Some(line), Ok(false) | Err(_)) = (inputs.command_line, &signed) {
        found.builtin_policy(line, inputs.kernel);
    }
    if let Some(kernel) = inputs.kernel {
        let signed = found.add(signed).unwrap_or(false);
        found.kernel(kernel, &policy, signed, &config, &certificates, inputs.root);
    }
    if initramfs.place() != Place::Alone {
        let result = found.front(initramfs, &policy, evm_key.is_some());
        found.add(result);
    }
    found.mount(inputs, Some(&config));
    if let Some(root) = inputs.root.filter(|root| root.unmountable.is_none()) {
        let on = On::This {
            name: &root.filesystem.name,
            magic: root.filesystem.magic,
        };
        found
            .faults
            .extend(cover::fault(&policy, on, config.cover, required));
        let guard = Query::by_root(
            Hook::PolicyCheck,
            root.filesystem.magic,
            &root.filesystem.name,
        );
        let further = match inputs.kernel {
            Some(kernel) if !kernel.is_builtin("IMA_WRITE_POLICY") => Further::None,
            _ if policy.appraisal(&guard).is_some() => Further::Signed,
            _ => Further::Any,
        };
        let mut chooser = Chooser::new(policy, root.filesystem.clone());
        if !config.kexec {
            chooser = chooser.without(&[Hook::KexecKernelCheck, Hook::KexecInitramfsCheck]);
        }
        let examiner = Examiner {
            tree: &root.tree,
            chooser: &chooser,
            certificates: &certificates,
            evm: &evm,
            hmac: evm_key.is_some(),
            kernel: inputs.number(),
            machine: initramfs.machine(),
            noexec: root.noexec,
            denied: HashMap::new(),
        };
        let switch_root =
            (initramfs.place() != Place::FrontOfSystemd).then_some(config.switch_root.as_str());
        found.programs(examiner, switch_root, &init, further);
    }
    found
}

/// What configuration and command line say together, as far as it matters here.
#[derive(Default)]
struct Merged {
    /// The init that will be executed.
    init: String,
    evm: EvmFiles,
    evm_fix: Option<String>,
}

/// What the init would make of configuration and command line where it stands.
fn merge(
    config: &Config,
    line: &str,
    place: Place,
    warn: &mut dyn FnMut(Fault),
) -> Result<Settings> {
    match place {
        Place::Alone => Settings::merge(config.clone(), line, Vec::new(), warn),
        Place::Front | Place::FrontOfSystemd => Settings::in_front(config.clone(), line, warn),
    }
}

/// What the kernel would not unpack the initramfs for.
fn packing(initramfs: &InitramfsBuilder, kernel: &KernelConfig) -> Vec<Fault> {
    let lacking = initramfs
        .packings()
        .filter(|packing| !kernel.is_builtin(packing.initramfs_option()));
    lacking
        .map(|packing| {
            let (name, option) = (packing.name(), packing.initramfs_option());
            let detail = format!("it is compressed with {name}, and CONFIG_{option} is not set");
            Fault::new(Code::InitramfsPacking, detail)
        })
        .collect()
}

/// What the environment stage would miss.
fn kernel_basics(kernel: &KernelConfig) -> Vec<Fault> {
    [("SECURITYFS", Code::NoSecurityfs), ("IMA", Code::NoIma)]
        .into_iter()
        .filter(|(option, _)| !kernel.is_builtin(option))
        .map(|(option, code)| Fault::new(code, format!("CONFIG_{option} is not set")))
        .collect()
}

impl Findings {
    /// The init that will be executed.
    fn settings(&mut self, config: &Config, command_line: Option<&str>, place: Place) -> Merged {
        let mut warnings = Vec::new();
        let merged = merge(
            config,
            command_line.unwrap_or_default(),
            place,
            &mut |fault| {
                warnings.push(fault);
            },
        );
        self.faults.append(&mut warnings);
        match merged {
            Ok(settings) => Merged {
                init: settings.init,
                evm: settings.evm,
                evm_fix: settings.evm_fix,
            },
            Err(fault) => {
                // Without a command line nothing is known of the root's name.
                if command_line.is_some() || fault.code() != Code::NoRootNamed {
                    self.faults.push(fault);
                }
                Merged {
                    init: config.init.clone(),
                    ..Merged::default()
                }
            }
        }
    }

    fn weakened(&mut self, config: &Config, policy: &Policy, line: &str, place: Place) {
        if let Ok(settings) = merge(config, line, place, &mut |_| {}) {
            self.add(settings.refuse_weakened(policy));
        }
    }

    /// Whether the init would find the root and the kernel would mount it.
    fn mount(&mut self, inputs: &Inputs<'_>, config: Option<&Config>) {
        let alone = inputs
            .initramfs
            .is_none_or(|initramfs| initramfs.place() == Place::Alone);
        if let (Some(root), Some(line), true) = (inputs.root, inputs.command_line, alone) {
            self.root(root, line, config);
            self.initcalls(Some(line), &[Code::RootMissing]);
            if config.is_some_and(|config| config.verity.is_some()) {
                self.initcalls(Some(line), &[Code::VerityTarget]);
            }
        }
        if let (Some(kernel), Some(initramfs), Some(config)) =
            (inputs.kernel, inputs.initramfs, config)
        {
            let modules = initramfs.module_names(config);
            let modules = modules.as_ref();
            if alone {
                self.device(kernel, modules, inputs, config);
                if config.verity.is_some() {
                    self.verity(kernel, modules, inputs.root);
                }
            }
            if let Some(root) = inputs.root {
                self.mountable(kernel, modules, root, inputs.number());
            }
        }
        let unmountable = inputs.root.and_then(|root| root.unmountable.as_ref());
        // What the init refuses in the command line is reported already.
        let new = unmountable.filter(|fault| !self.faults.contains(fault));
        self.faults.extend(new.cloned());
    }

    /// The root by its name, type and mount options.
    fn root(&mut self, root: &Root, line: &str, config: Option<&Config>) {
        use settings::Root::Named;
        let config = config.cloned().unwrap_or_default();
        let Ok(settings) = Settings::merge(config, line, Vec::new(), &mut |_| {}) else {
            return;
        };
        self.faults.extend(never_appears(&settings));
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
        let fstype = &root.filesystem.name;
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

    /// Options beyond those that a stage of the init names by a code of its own.
    fn kernel(
        &mut self,
        kernel: &KernelConfig,
        policy: &Policy,
        policy_signed: bool,
        config: &Config,
        certificates: &[Certificate],
        root: Option<&Root>,
    ) {
        let wanted = Wanted {
            policies: vec![policy],
            policies_signed: policy_signed,
            config: config.clone(),
            certificates: certificates.iter().collect(),
            filesystem: root.map(|root| root.filesystem.name.as_str()),
        };
        for finding in crate::kernel::check::check(kernel, &wanted) {
            if let Some(code) = code_of(&finding).filter(|_| finding.required) {
                let detail = format!("{}={} is wanted", finding.option, finding.wanted);
                self.faults
                    .push(Fault::new(code, detail).with_cause(finding.reason));
            }
        }
        let open: Vec<String> = hardening::check(kernel, &wanted)
            .into_iter()
            .map(|finding| format!("{}={}", finding.option, finding.found))
            .collect();
        if !open.is_empty() {
            self.faults
                .push(Fault::new(Code::KernelOpen, open.join(", ")));
        }
    }

    /// Whether lockdown will be in force, where the configuration demands it.
    fn lockdown(&mut self, config: &Config, kernel: Option<&KernelConfig>, line: Option<&str>) {
        let Some(kernel) = kernel.filter(|_| config.lockdown > Lockdown::No) else {
            return;
        };
        if !kernel.is_builtin("SECURITY_LOCKDOWN_LSM") {
            let detail = "CONFIG_SECURITY_LOCKDOWN_LSM is not set";
            self.faults.push(Fault::new(Code::NoLockdown, detail));
            return;
        }
        let lsm = ima::cmdline::parameters(line.unwrap_or_default())
            .filter(|parameter| parameter.is("lsm"))
            .filter_map(|parameter| parameter.value)
            .last();
        if !hardening::names_lockdown(kernel, lsm.as_deref()) {
            let detail = match lsm {
                Some(modules) => format!("lsm={modules} is on the command line"),
                None => "CONFIG_LSM does not name lockdown".to_owned(),
            };
            self.faults
                .push(Fault::new(Code::LockdownNotInForce, detail));
        }
    }

    /// switch_root if it will be executed, init, its interpreter and libraries, what systemd starts, then everything that the
    /// policy appraises.
    fn programs(
        &mut self,
        mut examiner: Examiner<'_>,
        switch_root: Option<&str>,
        init: &str,
        further: Further,
    ) {
        examiner.appraise();
        if let Some(path) = switch_root {
            self.add(ima::program::switch_root(&examiner, path).map(drop));
        }
        let mut libraries = Libraries::new(&examiner);
        let runs = ima::program::runs(&examiner, init.as_bytes(), &INIT, &INTERPRETER);
        if let Some(program) = self.add(runs) {
            self.faults.extend(libraries.check(&program));
            let policy = systemd::policy(&examiner, init.as_bytes(), further);
            self.faults.extend(policy);
            self.services = systemd::check(&examiner, &mut libraries);
        }
        self.denied = examiner.denied.into_iter().collect();
        self.denied.sort_by(|one, other| one.0.cmp(&other.0));
    }
}

/// With which code a missing option ends the boot; nothing where another stage names it already, or where the kernel takes
/// the rule and merely never applies it.
fn code_of(finding: &Finding) -> Option<Code> {
    Some(match finding.option.trim_start_matches("CONFIG_") {
        "SECURITYFS" | "IMA" | "INTEGRITY_TRUSTED_KEYRING" => return None,
        "FS_VERITY" | "AUDIT" => return None,
        // What the policy must cover is asked of the policy.
        "KEXEC" | "KEXEC_FILE" => return None,
        option if mount::is_driver(option) => return None,
        "IMA_APPRAISE" => Code::PolicyNotInForce,
        "IMA_APPRAISE_REQUIRE_POLICY_SIGS" => Code::PolicySignature,
        "CRYPTO_RSA" | "CRYPTO_ECDSA" => Code::CertificateRefused,
        _ if finding.reason.starts_with("policy line") => Code::PolicyRefused,
        _ => Code::KernelConfiguration,
    })
}

fn describe(found: &Filesystem) -> String {
    let label = found.label.as_ref().map(|label| format!(" LABEL={label}"));
    let uuid = found.uuid.as_ref().map(|uuid| format!(" UUID={uuid}"));
    format!(
        "{}{}{}",
        found.kind,
        label.unwrap_or_default(),
        uuid.unwrap_or_default()
    )
}

/// What the policy makes of a file; nothing if it is none, or never appraised.
fn seen<'a>(name: &'a [u8], inode: &Inode, head: &'a [u8]) -> select::File<'a> {
    select::File {
        path: name,
        mode: u32::from(inode.mode),
        uid: inode.uid,
        gid: inode.gid,
        head,
    }
}

#[cfg(test)]
mod tests;
