//! What to boot: the configuration, with what it lets the kernel command line say.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cmdline::{self, RootName};
use crate::composefs::Composefs;
use crate::config::{self, Config, Enforce, OnFailure, Parameter, RootWait};
use crate::dm_verity::{Corruption, RootHash, Trust};
use crate::fault::{Cause, Code, Fault};
use crate::forward::{self, Forwarded};
use crate::partition;
use crate::policy::Policy;

/// Which root is booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// The init finds it by this name and mounts it.
    Named(RootName),
    /// The same, by the partition that the signed root hash names.
    Signed,
    /// Another initramfs, which the init was started in, has mounted it there.
    Mounted(PathBuf),
    /// Another initramfs, in front of which the init was started, will mount it.
    Unmounted,
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => name.fmt(f),
            Self::Signed => f.write_str("named by the signed root hash"),
            Self::Mounted(path) => path.display().fmt(f),
            Self::Unmounted => f.write_str("mounted later"),
        }
    }
}

/// The files of EVM's in the initramfs that the command line names, as it does for dracut's modules `integrity` and
/// `masterkey`; absolute paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EvmFiles {
    /// `evmx509=`: a certificate for `.evm`, beside those that are found by their names.
    pub certificate: Option<String>,
    /// `evmkey=`: the HMAC key, in place of [`crate::layout::EVM_KEY`].
    pub key: Option<String>,
    /// `masterkey=`: what that key is sealed with, in place of [`crate::layout::master_key`].
    pub master: Option<String>,
}

/// How a root is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verity {
    /// Where the root hash is from.
    pub root_hash: RootHashSource,
    /// The device of the hash tree, if it is configured.
    tree: Option<RootName>,
    /// Where the superblock of the tree begins, in bytes, if it is configured.
    offset: Option<u64>,
    /// What the kernel does when the running system reads a wrong block.
    corruption: Corruption,
    fec: Option<Fec>,
}

/// Where the data for error correction is (forward error correction, FEC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fec {
    /// The device, if it is another one than the hash tree's.
    pub device: Option<RootName>,
    /// Where on it the data begins, in bytes.
    pub offset: u64,
    /// The number of parity bytes in each 255 bytes.
    pub roots: u8,
}

/// Where the root hash of a verity root is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootHashSource {
    /// The configuration.
    Configured(RootHash),
    /// This device, with a signature that the kernel verifies; none for the partition whose type is that of the machine's
    /// architecture ([`crate::dm_verity::signed::device`]).
    Signed(Option<RootName>),
}

/// How a root is verified whose root hash is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerityRoot {
    /// What must come out.
    pub root_hash: RootHash,
    /// The device of the hash tree, if it is another one than the root's.
    pub tree: Option<RootName>,
    /// Where its superblock begins, in bytes.
    pub offset: u64,
    /// What the kernel does when the running system reads a wrong block.
    pub corruption: Corruption,
    /// With which data it corrects such a block first.
    pub fec: Option<Fec>,
}

impl Verity {
    /// What the configuration demands.
    fn of(config: &Config) -> Option<Self> {
        let root_hash = match config.verity.as_ref()? {
            Trust::RootHash(root_hash) => RootHashSource::Configured(root_hash.clone()),
            Trust::Signed => RootHashSource::Signed(config.verity_signature.clone()),
        };
        Some(Self {
            root_hash,
            tree: config.verity_hash.clone(),
            offset: config.verity_hash_offset,
            corruption: config.verity_corruption,
            fec: match (&config.verity_fec, config.verity_fec_offset) {
                (None, None) => None,
                (device, offset) => Some(Fec {
                    device: device.clone(),
                    offset: offset.unwrap_or_default(),
                    roots: config.verity_fec_roots,
                }),
            },
        })
    }

    /// What is verified with this root hash. Where the configuration says nothing of the tree, that is the partition that the
    /// Discoverable Partitions Specification has for it.
    #[must_use]
    pub fn with(&self, root_hash: &RootHash) -> VerityRoot {
        let [_, partition] = root_hash.partitions();
        let tree = match (&self.tree, self.offset) {
            (None, None) => Some(partition),
            (name, _) => name.clone(),
        };
        VerityRoot {
            root_hash: root_hash.clone(),
            tree,
            offset: self.offset.unwrap_or_default(),
            corruption: self.corruption,
            fec: self.fec.clone(),
        }
    }

    /// The root, where the configuration does not name it: its partition, by the root hash.
    fn root(&self) -> Root {
        match &self.root_hash {
            RootHashSource::Configured(root_hash) => {
                let [data, _] = root_hash.partitions();
                Root::Named(data)
            }
            RootHashSource::Signed(_) => Root::Signed,
        }
    }
}

/// What to boot and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The configuration file.
    pub config: Config,
    /// The root.
    pub root: Root,
    /// The type of its file system, if it is given and not `auto`.
    pub rootfstype: Option<String>,
    /// Mount options.
    pub rootflags: String,
    /// Whether it is mounted read-only.
    pub read_only: bool,
    /// How its device is verified; if at all, it is mounted in no other way.
    pub verity: Option<Verity>,
    /// The image that is mounted over it; if there is one, the root is mounted in no other way.
    pub composefs: Option<Composefs>,
    /// How long its device is waited for.
    pub rootwait: RootWait,
    /// Whether the kernel takes the copy of a damaged GPT: see [`partition::gpt_is_forced`].
    pub gpt_is_forced: bool,
    /// Whether the kernel makes devices of the device mapper by itself: `dm-mod.create=` (drivers/md/dm-init.c).
    pub creates_mapped_devices: bool,
    /// The real init.
    pub init: String,
    /// The arguments for the real init: of those that this init was given, the ones that the configuration forwards.
    pub arguments: Vec<OsString>,
    /// The command line that userspace sees.
    pub forwarded: Forwarded,
    /// Files of EVM's in the initramfs.
    pub evm: EvmFiles,
    /// `ima_appraise=` if it is one of those that turn appraisal off.
    pub weakened: Option<String>,
    /// `evm=fix`, with which EVM lets the attributes of any file be changed and seals them anew.
    pub evm_fix: Option<String>,
    /// A parameter that undoes a protection of the kernel.
    pub undone: Option<String>,
    /// The name of the slot whose root this is, where there are several.
    pub slot: Option<String>,
    /// The settings of the other slots, in the order in which they are tried.
    pub others: Vec<Self>,
}

/// Returns `ima_appraise=VALUE` of a command line if it turns appraisal off or has it only logged: the last value that the kernel knows
/// counts.
pub fn weakened(line: &(impl AsRef<[u8]> + ?Sized)) -> Option<String> {
    let mut weakened = None;
    for parameter in cmdline::parameters(line).filter(|parameter| parameter.is("ima_appraise")) {
        let value = parameter.value.as_deref().unwrap_or_default();
        let is_one_of = |known: &[&str]| known.iter().any(|known| value.starts_with(known));
        // Of a value that it does not know, the kernel takes no notice (ima_appraise.c, default_appraise_setup).
        if is_one_of(&["off", "log", "fix"]) {
            weakened = Some(format!("ima_appraise={value}"));
        } else if is_one_of(&["enforce"]) {
            weakened = None;
        }
    }
    weakened
}

/// Whether a parameter undoes a protection that the kernel was built with: `CONFIG_BLK_DEV_WRITE_MOUNTED` off (block/bdev.c),
/// `CONFIG_PROC_MEM_NO_FORCE` (fs/proc/base.c), `CONFIG_STRICT_DEVMEM` (kernel/resource.c).
fn undoes_protection(parameter: &cmdline::Parameter<'_>, value: &str) -> bool {
    // lib/kstrtox.c, kstrtobool: the first letter, and of `on` and `off` the second.
    let yes = |value: &str| {
        value.starts_with(['y', 'Y', 't', 'T', '1'])
            || value
                .get(..2)
                .is_some_and(|two| two.eq_ignore_ascii_case("on"))
    };
    (parameter.is("bdev_allow_write_mounted") && yes(value))
        || (parameter.is("proc_mem.force_override") && value == "always")
        || (parameter.is("iomem") && value.contains("relaxed"))
}

impl Settings {
    /// How long one step at the root's device may take: without end where the root is waited for without end.
    pub fn patience(&self) -> Option<Duration> {
        match self.rootwait {
            RootWait::AtMost(_) => Some(self.config.stall_timeout),
            RootWait::Forever => None,
        }
    }

    /// Refuses a command line that weakens what is in force, unless the configuration permits it or nothing is appraised.
    ///
    /// # Errors
    ///
    /// [`Code::AppraiseWeakened`], [`Code::KernelWeakened`].
    pub fn refuse_weakened(&self, policy: &Policy) -> Result<(), Fault> {
        if self.config.enforce != Enforce::Required || !policy.appraises() {
            return Ok(());
        }
        for (parameter, code) in [
            (&self.weakened, Code::AppraiseWeakened),
            (&self.undone, Code::KernelWeakened),
        ] {
            if let Some(parameter) = parameter {
                return Err(Fault::new(code, parameter));
            }
        }
        Ok(())
    }

    /// The configuration with what it lets the command line set; `warn` gets what is to be said of either.
    ///
    /// # Errors
    ///
    /// [`Code::CmdlineInvalid`], [`Code::CmdlineProgram`], [`Code::ResumeRequested`], [`Code::RootSyntax`],
    /// [`Code::NoRootNamed`].
    pub fn merge(
        config: Config,
        line: &(impl AsRef<[u8]> + ?Sized),
        arguments: Vec<OsString>,
        warn: &mut dyn FnMut(Fault),
    ) -> Result<Self, Fault> {
        Self::of(config, line, None, arguments, warn)
    }

    /// The same for a root that another initramfs has mounted at `root`: what names and mounts a root, on the command line
    /// or in the configuration, was for that initramfs, and is passed over.
    ///
    /// # Errors
    ///
    /// [`Code::CmdlineInvalid`], [`Code::CmdlineProgram`], [`Code::ResumeRequested`], [`Code::VerityElsewhere`],
    /// [`Code::LuksElsewhere`], [`Code::ComposefsElsewhere`].
    pub fn inside(
        config: Config,
        line: &(impl AsRef<[u8]> + ?Sized),
        root: &Path,
        arguments: Vec<OsString>,
        warn: &mut dyn FnMut(Fault),
    ) -> Result<Self, Fault> {
        let root = Root::Mounted(root.to_owned());
        Self::of(config, line, Some(root), arguments, warn)
    }

    /// The same for a root that another initramfs will mount, before it is executed.
    ///
    /// # Errors
    ///
    /// [`Code::CmdlineInvalid`], [`Code::VerityElsewhere`], [`Code::LuksElsewhere`], [`Code::ComposefsElsewhere`].
    pub fn in_front(
        config: Config,
        line: &(impl AsRef<[u8]> + ?Sized),
        warn: &mut dyn FnMut(Fault),
    ) -> Result<Self, Fault> {
        Self::of(config, line, Some(Root::Unmounted), Vec::new(), warn)
    }

    /// `elsewhere` is the root that this init does not find and mount itself.
    fn of(
        config: Config,
        line: &(impl AsRef<[u8]> + ?Sized),
        elsewhere: Option<Root>,
        arguments: Vec<OsString>,
        warn: &mut dyn FnMut(Fault),
    ) -> Result<Self, Fault> {
        if config.slots.is_empty() || elsewhere.is_some() {
            return Self::of_slot(config, line, elsewhere, arguments, warn);
        }
        let mut settings = Vec::new();
        for slot in slots(&config, line)? {
            let mut quiet = |_| {};
            let warn: &mut dyn FnMut(Fault) = match settings.is_empty() {
                true => &mut *warn,
                false => &mut quiet,
            };
            let config = config.in_slot(&slot);
            let found = Self::of_slot(config, line, None, arguments.clone(), warn)?;
            let slot = Some(slot);
            settings.push(Self { slot, ..found });
        }
        let mut settings = settings.into_iter();
        let first = settings.next();
        let first = first.ok_or_else(|| Fault::new(Code::NoRootNamed, "slots= is empty"))?;
        let others = settings.collect();
        Ok(Self { others, ..first })
    }

    /// The settings for one root.
    fn of_slot(
        config: Config,
        line: &(impl AsRef<[u8]> + ?Sized),
        elsewhere: Option<Root>,
        arguments: Vec<OsString>,
        warn: &mut dyn FnMut(Fault),
    ) -> Result<Self, Fault> {
        if config.enforce == Enforce::Permissive {
            warn(Fault::new(Code::Permissive, config::PATH));
        }
        if config.on_failure == OnFailure::Shell {
            warn(Fault::new(Code::DebugShell, config::PATH));
        }
        let verity = Verity::of(&config);
        if verity.is_some()
            && let Some(other) = &elsewhere
        {
            return Err(Fault::new(Code::VerityElsewhere, format!("root: {other}")));
        }
        if (config.overlay.is_some() || !config.slots.is_empty())
            && let Some(other) = &elsewhere
        {
            let fault = Fault::new(Code::VerityElsewhere, format!("root: {other}"));
            return Err(fault.because(Cause::OVERLAY_ELSEWHERE));
        }
        if config.luks
            && let Some(other) = &elsewhere
        {
            return Err(Fault::new(Code::LuksElsewhere, format!("root: {other}")));
        }
        let composefs = config.composefs_root();
        if let (Some(composefs), Some(other)) = (&composefs, &elsewhere) {
            let detail = format!("composefs={}, root: {other}", composefs.image);
            return Err(Fault::new(Code::ComposefsElsewhere, detail));
        }
        let mut root = match &config.root {
            Some(name) => Some(Root::Named(name.clone())),
            None => verity.as_ref().map(Verity::root),
        };
        let mut rootfstype = config.rootfstype.clone();
        let mut rootflags = config.rootflags.clone().unwrap_or_default();
        let mut rootwait = config.rootwait;
        let mut rootdelay = Duration::ZERO;
        let mut init = config.init.clone();
        let mut read_only = true;
        let mut evm = EvmFiles::default();
        let mut evm_fix = None;
        if config.enforce == Enforce::Required
            && let Some(parameter) = resume(line)
        {
            return Err(Fault::new(Code::ResumeRequested, parameter));
        }
        if config.enforce == Enforce::Required
            && let Some(parameter) = program(line, &config)
        {
            return Err(Fault::new(Code::CmdlineProgram, parameter));
        }
        let forwarded = forward::filter(line, &config);
        let powerful: Vec<&str> = forwarded.powerful().collect();
        if !powerful.is_empty() {
            warn(Fault::new(Code::CmdlineWithheld, powerful.join(" ")));
        }
        let mut undone = None;
        for parameter in cmdline::parameters(line) {
            let value = parameter.value.as_deref();
            if let Some(value) = value.filter(|value| undoes_protection(&parameter, value)) {
                undone = Some(format!("{}={value}", parameter.name));
                continue;
            }
            // evm_main.c, `evm_set_fixmode`: nothing behind it takes it back.
            if let Some(value) = value.filter(|value| value.starts_with("fix"))
                && parameter.is("evm")
            {
                evm_fix = Some(format!("evm={value}"));
                continue;
            }
            let Some(known) = Parameter::ALL
                .into_iter()
                .find(|known| parameter.is(known.name()))
            else {
                continue;
            };
            if elsewhere.is_some() && known.is_of_the_root() {
                continue;
            }
            let shown = value.map_or_else(
                || known.name().to_owned(),
                |value| format!("{}={value}", known.name()),
            );
            if !config.cmdline.contains(&known) {
                warn(Fault::new(Code::CmdlineIgnored, shown));
                continue;
            }
            let invalid = || Fault::new(Code::CmdlineInvalid, shown.clone());
            match known {
                // The slot names it.
                Parameter::Root if !config.slots.is_empty() => {
                    let fault = Fault::new(Code::CmdlineIgnored, shown);
                    warn(fault.because(Cause::ROOT_OF_A_SLOT));
                }
                Parameter::Slot => {}
                Parameter::Root => {
                    let name = RootName::parse(value.unwrap_or_default())
                        .ok_or_else(|| cmdline::unknown_root(&shown, value.unwrap_or_default()))?;
                    // Who shares it may answer each read differently: only the configuration can trust a host so far.
                    if name.is_served() && config.root.as_ref() != Some(&name) {
                        let fault = Fault::new(Code::RootSyntax, shown);
                        return Err(fault.because(Cause::SHARED_ROOT_ON_COMMAND_LINE));
                    }
                    root = Some(Root::Named(name));
                }
                // That device is read-only.
                Parameter::ReadWrite if verity.is_some() => {
                    let fault = Fault::new(Code::CmdlineIgnored, shown);
                    warn(fault.because(Cause::ROOT_IS_VERIFIED));
                }
                // A type or an option may have the kernel mount something else than the device that is verified or encrypted
                // (tmpfs; btrfs and erofs, device=).
                Parameter::RootFsType | Parameter::RootFlags if verity.is_some() || config.luks => {
                    let fault = Fault::new(Code::CmdlineIgnored, shown);
                    warn(fault.because(Cause::ROOT_IS_VERIFIED));
                }
                Parameter::RootFsType => {
                    rootfstype = value.and_then(config::fstype).ok_or_else(invalid)?;
                }
                Parameter::RootFlags => rootflags = value.ok_or_else(invalid)?.to_owned(),
                Parameter::ReadOnly => read_only = true,
                // What is written goes to the overlay.
                Parameter::ReadWrite if config.overlay.is_some() => {}
                Parameter::ReadWrite => read_only = false,
                Parameter::RootWait => {
                    rootwait = match value {
                        None => RootWait::Forever,
                        Some(value) => RootWait::parse(value).ok_or_else(invalid)?,
                    };
                }
                // The kernel pauses so long before it looks; here it is how long the device may take at least, whatever
                // rootwait= says before or behind it.
                Parameter::RootDelay => {
                    rootdelay = value.and_then(config::seconds).ok_or_else(invalid)?;
                }
                Parameter::Init => {
                    let path = value
                        .filter(|path| path.starts_with('/'))
                        .ok_or_else(invalid)?;
                    init = path.to_owned();
                }
                Parameter::EvmCertificate | Parameter::EvmKey | Parameter::MasterKey => {
                    let path = value.and_then(config::absolute).ok_or_else(invalid)?;
                    let place = match known {
                        Parameter::EvmKey => &mut evm.key,
                        Parameter::MasterKey => &mut evm.master,
                        _ => &mut evm.certificate,
                    };
                    *place = Some(path);
                }
            }
        }
        Ok(Self {
            root: match (elsewhere, root) {
                (Some(root), _) => root,
                (None, Some(Root::Named(name)))
                    if name.is_no_block_device() && (verity.is_some() || config.luks) =>
                {
                    let fault = Fault::new(Code::RootSyntax, format!("root={name}"));
                    return Err(fault.because(Cause::ROOT_NOT_VERIFIED));
                }
                (None, Some(root)) => root,
                (None, None) => return Err(Fault::new(Code::NoRootNamed, "root= is missing")),
            },
            rootfstype,
            rootflags,
            read_only,
            verity,
            composefs,
            rootwait: match rootwait {
                RootWait::AtMost(time) => RootWait::AtMost(time.max(rootdelay)),
                RootWait::Forever => RootWait::Forever,
            },
            gpt_is_forced: partition::gpt_is_forced(line),
            creates_mapped_devices: cmdline::parameters(line)
                .any(|parameter| parameter.is("dm-mod.create")),
            init,
            arguments: forward::arguments(arguments, &config),
            forwarded,
            evm,
            weakened: weakened(line),
            evm_fix,
            undone,
            slot: None,
            others: Vec::new(),
            config,
        })
    }
}

/// The slots in the order in which they are tried: first the one that the command line names.
fn slots(config: &Config, line: &(impl AsRef<[u8]> + ?Sized)) -> Result<Vec<String>, Fault> {
    let mut slots = config.slots.clone();
    if !config.cmdline.contains(&Parameter::Slot) {
        return Ok(slots);
    }
    for parameter in cmdline::parameters(line).filter(|it| it.is(Parameter::Slot.name())) {
        let name = parameter.value.unwrap_or_default();
        let position = slots.iter().position(|slot| *slot == *name);
        let position = position.ok_or_else(|| {
            let detail = format!("{}={name}", parameter.name);
            let known = config.slots.join(", ");
            Fault::new(Code::CmdlineInvalid, detail).because(Cause::UNKNOWN_SLOT.with(&[&known]))
        })?;
        if let Some(slots) = slots.get_mut(..=position) {
            slots.rotate_right(1);
        }
    }
    Ok(slots)
}

/// The parameter that has a hibernation image resumed, unless another one turns that off (kernel/power/hibernate.c,
/// `resume_setup`, `noresume_setup`, `hibernate_setup`).
fn resume(line: &(impl AsRef<[u8]> + ?Sized)) -> Option<String> {
    let mut found = None;
    for parameter in cmdline::parameters(line) {
        let value = parameter.value.as_deref().unwrap_or_default();
        let off = parameter.is("hibernate") && ["noresume", "no"].contains(&value);
        if parameter.is("noresume") || off {
            return None;
        }
        if parameter.is("resume") || parameter.is("resume_offset") {
            found.get_or_insert_with(|| format!("{}={value}", parameter.name));
        }
    }
    found
}

/// The settings of the kernel that name a program which it executes by itself, as root, below `/proc/sys`. `core_pattern` and
/// `poweroff_cmd` give it arguments too.
const PROGRAMS: [[&str; 2]; 4] = [
    ["kernel", "core_pattern"],
    ["kernel", "hotplug"],
    ["kernel", "modprobe"],
    ["kernel", "poweroff_cmd"],
];

/// The parameter that sets one of them (fs/proc/proc_sysctl.c, `process_sysctl_arg`: the path of a setting may be written with
/// dots or with slashes, and with several of them), unless the configuration lists it under `forward=`.
fn program(line: &(impl AsRef<[u8]> + ?Sized), config: &Config) -> Option<String> {
    let sets_one = |name: &str| {
        name.strip_prefix("sysctl").is_some_and(|path| {
            let mut path = path.split(['.', '/']).filter(|part| !part.is_empty());
            let path = [path.next(), path.next()].map(Option::unwrap_or_default);
            PROGRAMS.contains(&path)
        })
    };
    cmdline::parameters(line)
        .find(|parameter| {
            let name = &parameter.name;
            sets_one(name) && !config.forward.iter().any(|listed| listed.matches(name))
        })
        .map(|parameter| {
            let value = parameter.value.unwrap_or_default();
            format!("{}={value}", parameter.name)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The settings, and the details of the warnings.
    fn settings(config: &str, line: &str) -> Result<(Settings, Vec<String>), Fault> {
        let mut warnings = Vec::new();
        let config = Config::parse(config.as_bytes()).unwrap();
        let mut warn = |fault: Fault| warnings.push(format!("{} {}", fault.code(), fault.detail()));
        Settings::merge(config, line, Vec::new(), &mut warn).map(|settings| (settings, warnings))
    }

    #[test]
    fn the_command_line_chooses_what_is_booted() {
        let line = "quiet root=LABEL=a root=UUID=b rootflags=noatime ro rw rootwait=7 rootdelay=9";
        let (settings, _) = settings("", line).unwrap();
        assert_eq!(settings.root, Root::Named(RootName::Uuid("b".into())));
        assert_eq!(settings.rootflags, "noatime");
        assert!(!settings.read_only);
        assert_eq!(settings.rootwait, RootWait::AtMost(Duration::from_secs(9)));
        assert_eq!(settings.init, "/sbin/init");
    }

    #[test]
    fn the_slot_that_the_line_names_is_the_first() {
        let config = "slots=a b c\nroot=PARTLABEL=root-{slot}\noverlay=LABEL=data-{slot}";
        let order = |line: &str| {
            let (settings, warnings) = settings(config, line).unwrap();
            let mut found = vec![settings.clone()];
            found.extend(settings.others.clone());
            for one in &found {
                let slot = one.slot.as_deref().unwrap();
                let root = RootName::PartLabel(format!("root-{slot}"));
                assert_eq!(one.root, Root::Named(root));
                let data = RootName::Label(format!("data-{slot}"));
                assert_eq!(one.config.overlay, Some(config::Overlay::Device(data)));
            }
            let names: Vec<_> = found.into_iter().filter_map(|one| one.slot).collect();
            (names.concat(), warnings.len())
        };
        assert_eq!(order(""), ("abc".to_owned(), 0));
        assert_eq!(order("ima_init.slot=b"), ("bac".to_owned(), 0));
        assert_eq!(
            order("ima_init.slot=b ima_init.slot=c"),
            ("cba".to_owned(), 0)
        );
        assert_eq!(order("root=/dev/vdb"), ("abc".to_owned(), 1));
        let fault = settings(config, "ima_init.slot=d").unwrap_err();
        assert_eq!(fault.code(), Code::CmdlineInvalid);
        assert!(fault.cause().contains("a, b, c"), "{fault}");
    }

    #[test]
    fn an_encrypted_root_is_decrypted_whatever_the_line_says() {
        let line = "root=/dev/vda rw rootfstype=tmpfs rootflags=device=/dev/vdb";
        let (found, warnings) = settings("luks=yes", line).unwrap();
        assert!(found.config.luks && found.rootfstype.is_none() && !found.read_only);
        assert_eq!(found.rootflags, "");
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        let fault = settings("luks=yes", "root=ubi0:root").unwrap_err();
        assert_eq!(fault.code(), Code::RootSyntax);
    }

    #[test]
    fn rootdelay_is_the_least_that_is_waited() {
        for (line, expected) in [
            ("rootdelay=9 rootwait=7", 9),
            ("rootwait=7 rootdelay=9", 9),
            ("rootwait=12 rootdelay=9", 12),
            ("rootdelay=9", 30),
        ] {
            let (settings, _) = settings("", &format!("root=/dev/vda {line}")).unwrap();
            let expected = RootWait::AtMost(Duration::from_secs(expected));
            assert_eq!(settings.rootwait, expected, "{line}");
        }
        let (settings, _) = settings("", "root=/dev/vda rootwait rootdelay=9").unwrap();
        assert_eq!(settings.rootwait, RootWait::Forever);
    }

    #[test]
    fn but_not_the_init_unless_it_may() {
        let line = "root=/dev/vda init=/bin/sh";
        let (refused, warnings) = settings("", line).unwrap();
        assert_eq!(refused.init, "/sbin/init");
        assert_eq!(warnings, ["IMA-251 init=/bin/sh"]);
        let (allowed, _) = settings("cmdline=root init", line).unwrap();
        assert_eq!(allowed.init, "/bin/sh");
    }

    #[test]
    fn a_configuration_that_lets_nothing_be_set() {
        let (settings, warnings) = settings("cmdline=\nroot=/dev/vda", "root=/dev/vdb rw").unwrap();
        assert_eq!(settings.root, Root::Named(RootName::Device("vda".into())));
        assert!(settings.read_only);
        assert_eq!(warnings, ["IMA-251 root=/dev/vdb", "IMA-251 rw"]);
    }

    #[test]
    fn a_verity_root_is_verified_whatever_the_line_says() {
        let hash = "00112233445566778899aabbccddeeff0f1e2d3c4b5a69788796a5b4c3d2e1f0";
        let root_hash = RootHash::parse(hash).unwrap();
        let verity = |tree: Option<&str>, offset| VerityRoot {
            root_hash: root_hash.clone(),
            tree: tree.map(|name| RootName::parse(name).unwrap()),
            offset,
            corruption: Corruption::Restart,
            fec: None,
        };
        let line = "root=/dev/vda rw verity= verity=no rootfstype=tmpfs rootflags=device=/dev/vdb";
        let discovered = "PARTUUID=0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
        for (keys, expected) in [
            ("", verity(Some(discovered), 0)),
            ("verity_hash_offset=8192", verity(None, 8192)),
            ("verity_hash=/dev/vdb", verity(Some("/dev/vdb"), 0)),
            (
                "verity_hash=/dev/vdb\nverity_hash_offset=512",
                verity(Some("/dev/vdb"), 512),
            ),
        ] {
            let (settings, warnings) = settings(&format!("verity={hash}\n{keys}"), line).unwrap();
            let found = settings.verity.unwrap().with(&root_hash);
            assert_eq!(found, expected, "{keys}");
            assert!(settings.read_only && settings.rootfstype.is_none());
            assert_eq!(settings.rootflags, "");
            assert_eq!(
                warnings,
                [
                    "IMA-251 rw",
                    "IMA-251 rootfstype=tmpfs",
                    "IMA-251 rootflags=device=/dev/vdb"
                ]
            );
        }
        let (found, _) = settings(&format!("verity={hash}"), "").unwrap();
        let data = "PARTUUID=00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(found.root, Root::Named(RootName::parse(data).unwrap()));
        let (found, _) = settings("verity=signed\nverity_signature=/dev/vdb", "").unwrap();
        assert_eq!(found.root, Root::Signed);
        let device = RootHashSource::Signed(Some(RootName::Device("vdb".into())));
        assert_eq!(found.verity.unwrap().root_hash, device);
        let (found, _) = settings("verity=signed", "root=/dev/vda").unwrap();
        assert_eq!(found.root, Root::Named(RootName::Device("vda".into())));
        let device = RootHashSource::Signed(None);
        assert_eq!(found.verity.unwrap().root_hash, device);
        let config = Config::parse(format!("verity={hash}").as_bytes()).unwrap();
        let root = Path::new("/root");
        let inside = Settings::inside(config.clone(), line, root, Vec::new(), &mut |_| {});
        assert_eq!(inside.unwrap_err().code(), Code::VerityElsewhere);
        let front = Settings::in_front(config, line, &mut |_| {});
        assert_eq!(front.unwrap_err().code(), Code::VerityElsewhere);
    }

    #[test]
    fn an_encrypted_root_is_mounted_by_nobody_else() {
        let config = Config::parse(b"luks=yes").unwrap();
        let line = "root=/dev/vda rw";
        let root = Path::new("/root");
        let inside = Settings::inside(config.clone(), line, root, Vec::new(), &mut |_| {});
        assert_eq!(inside.unwrap_err().code(), Code::LuksElsewhere);
        let front = Settings::in_front(config, line, &mut |_| {});
        assert_eq!(front.unwrap_err().code(), Code::LuksElsewhere);
    }

    #[test]
    fn a_composefs_root_needs_its_digest_and_this_init() {
        let digest = "5a".repeat(32);
        let config = format!("composefs=/images/root.cfs\ncomposefs_digest={digest}");
        let (found, warnings) = settings(&config, "root=/dev/vda composefs=/other").unwrap();
        let composefs = found.composefs.unwrap();
        assert_eq!(composefs.image, "/images/root.cfs");
        assert_eq!(composefs.digest.to_string(), digest);
        assert_eq!(composefs.objects, crate::composefs::OBJECTS);
        assert_eq!(warnings, [""; 0]);
        let config = Config::parse(config.as_bytes()).unwrap();
        let root = Path::new("/root");
        let inside = Settings::inside(config.clone(), "", root, Vec::new(), &mut |_| {});
        assert_eq!(inside.unwrap_err().code(), Code::ComposefsElsewhere);
        let front = Settings::in_front(config, "", &mut |_| {});
        assert_eq!(front.unwrap_err().code(), Code::ComposefsElsewhere);
    }

    #[test]
    fn the_files_of_evm_may_be_elsewhere_where_the_configuration_says_so() {
        let line = "root=/dev/vda evmkey=/k masterkey=/m evmx509=/c";
        let expected = EvmFiles {
            certificate: Some("/c".into()),
            key: Some("/k".into()),
            master: Some("/m".into()),
        };
        let config = "cmdline=root evmx509 evmkey masterkey";
        assert_eq!(settings(config, line).unwrap().0.evm, expected);
        let mut warn = |_| ();
        let inside = Settings::inside(
            Config::parse(config.as_bytes()).unwrap(),
            line,
            Path::new("/root"),
            Vec::new(),
            &mut warn,
        );
        assert_eq!(inside.unwrap().evm, expected);
        let (none, warnings) = settings("", line).unwrap();
        assert_eq!(none.evm, EvmFiles::default());
        assert_eq!(warnings.len(), 3);
    }

    #[test]
    fn a_hibernation_image_is_not_resumed() {
        for line in [
            "root=/dev/vda resume=/dev/vdb",
            "root=/dev/vda \"resume=UUID=1\"",
            "root=/dev/vda resume-offset=1",
            "root=/dev/vda resume=/dev/vdb -- noresume",
            "root=/dev/vda resume=/dev/vdb hibernate=nocompress",
        ] {
            let fault = settings("", line).unwrap_err();
            assert_eq!(fault.code(), Code::ResumeRequested, "{line}");
            assert!(settings("enforce=permissive", line).is_ok(), "{line}");
        }
        for line in [
            "root=/dev/vda resume=/dev/vdb noresume",
            "root=/dev/vda hibernate=no resume=/dev/vdb",
            "root=/dev/vda noresume",
        ] {
            assert!(settings("", line).is_ok(), "{line}");
        }
    }

    #[test]
    fn the_line_names_no_program_that_the_kernel_executes() {
        for parameter in [
            "sysctl.kernel.core_pattern=|/bin/sh",
            "sysctl.kernel.modprobe=/rootfs/x",
            "sysctl/kernel/poweroff_cmd=x",
            "\"sysctl.kernel..//core_pattern=|/bin/sh -c x\"",
        ] {
            let line = format!("root=/dev/vda {parameter}");
            let fault = settings("", &line).unwrap_err();
            assert_eq!(fault.code(), Code::CmdlineProgram, "{line}");
        }
        let line = "root=/dev/vda sysctl.kernel.core_pattern=core";
        assert!(settings("forward=sysctl.kernel.*", line).is_ok());
        for line in [
            "root=/dev/vda sysctl.kernel.printk=3 sysctl.vm.swappiness=1",
            "root=/dev/vda xsysctl.kernel.modprobe=x -- sysctl.kernel.modprobe=x",
        ] {
            assert!(settings("", line).is_ok(), "{line}");
        }
    }

    #[test]
    fn evm_s_fix_mode_is_seen() {
        for (line, expected) in [
            ("evm=fix", Some("evm=fix")),
            ("\"evm=fixed\" evm=no", Some("evm=fixed")),
            ("evm=fi evm", None),
            ("-- evm=fix", None),
        ] {
            let (settings, _) = settings("", &format!("root=/dev/vda {line}")).unwrap();
            assert_eq!(settings.evm_fix.as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn parameters_that_undo_a_protection_are_refused() {
        let policy = Policy::parse(b"appraise func=BPRM_CHECK\n").unwrap();
        let measures = Policy::parse(b"measure func=BPRM_CHECK\n").unwrap();
        for (parameter, refused) in [
            ("bdev_allow_write_mounted=1", true),
            ("bdev-allow-write-mounted=on", true),
            ("bdev_allow_write_mounted=0", false),
            ("bdev_allow_write_mounted=off", false),
            ("bdev_allow_write_mounted", false),
            ("proc_mem.force_override=always", true),
            ("proc_mem.force_override=ptrace", false),
            ("iomem=relaxed", true),
            ("iomem=strict", false),
            ("other.iomem=relaxed", false),
        ] {
            let line = format!("root=/dev/vda {parameter}");
            let code = |config: &str, policy: &Policy| {
                let settings = settings(config, &line).unwrap().0;
                let refused = settings.refuse_weakened(policy);
                refused.err().map(|fault| fault.code())
            };
            let expected = refused.then_some(Code::KernelWeakened);
            assert_eq!(code("", &policy), expected, "{parameter}");
            assert_eq!(code("enforce=permissive", &policy), None, "{parameter}");
            assert_eq!(code("", &measures), None, "{parameter}");
        }
    }

    #[test]
    fn userspace_and_the_real_init_get_what_is_forwarded() {
        let line = "root=/dev/vda systemd.run=/x quiet single";
        let arguments = vec!["single".into(), "3".into()];
        let made = |config: &str| {
            let mut warnings = Vec::new();
            let config = Config::parse(config.as_bytes()).unwrap();
            let mut warn = |fault: Fault| warnings.push(fault.code());
            let settings = Settings::merge(config, line, arguments.clone(), &mut warn).unwrap();
            (settings.forwarded.line, settings.arguments, warnings)
        };
        assert_eq!(
            made(""),
            (
                "root=/dev/vda quiet".to_owned(),
                vec![],
                vec![Code::CmdlineWithheld]
            )
        );
        let listed = made("forward=systemd.* single");
        assert_eq!(listed, (line.to_owned(), vec!["single".into()], vec![]));
    }

    #[test]
    fn bad_values_are_refused_by_code() {
        for (line, code) in [
            ("", Code::NoRootNamed),
            ("root=vda", Code::RootSyntax),
            ("root", Code::RootSyntax),
            ("root=/dev/vda rootwait=soon", Code::CmdlineInvalid),
            ("root=/dev/vda rootdelay", Code::CmdlineInvalid),
            ("root=/dev/vda rootfstype=../x", Code::CmdlineInvalid),
            ("root=/dev/vda rootflags", Code::CmdlineInvalid),
            ("root=/dev/vda evmkey", Code::CmdlineInvalid),
            ("root=/dev/vda evmx509=relative", Code::CmdlineInvalid),
        ] {
            let config = "cmdline=root rootfstype rootflags rootwait rootdelay evmx509 evmkey";
            assert_eq!(settings(config, line).unwrap_err().code(), code, "{line}");
        }
    }

    #[test]
    fn parameters_that_turn_appraisal_off_are_seen() {
        for (line, expected) in [
            ("root=/dev/a ima_appraise=off", Some("ima_appraise=off")),
            ("root=/dev/a ima-appraise=log", Some("ima_appraise=log")),
            ("root=/dev/a \"ima_appraise=fix\"", Some("ima_appraise=fix")),
            ("root=/dev/a ima_appraise=off ima_appraise=enforce", None),
            (
                "root=/dev/a ima_appraise=off ima_appraise=on",
                Some("ima_appraise=off"),
            ),
            (
                "root=/dev/a quiet\u{b}ima_appraise=off",
                Some("ima_appraise=off"),
            ),
            ("root=/dev/a xàima_appraise=off", Some("ima_appraise=off")),
            ("root=/dev/a -- ima_appraise=off", None),
            // What the kernel does not take for `enforce`, it passes over.
            (
                "root=/dev/a ima_appraise=off ima_appraise=en\"force\"",
                Some("ima_appraise=off"),
            ),
            (
                "root=/dev/a ima_appraise=off \"--\" ima_appraise=enforce",
                Some("ima_appraise=off"),
            ),
        ] {
            let (settings, _) = settings("", line).unwrap();
            assert_eq!(settings.weakened.as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn inside_another_initramfs_the_root_is_not_this_init_s_to_find() {
        let line = "root=ZFS=pool/root rootdelay=x rw init=/bin/sh ima_appraise=log";
        let mut warnings = Vec::new();
        let mut warn = |fault: Fault| warnings.push(fault.detail().to_owned());
        let settings = Settings::inside(
            Config::default(),
            line,
            Path::new("/root"),
            Vec::new(),
            &mut warn,
        )
        .unwrap();
        assert_eq!(settings.root, Root::Mounted("/root".into()));
        assert_eq!(settings.init, "/sbin/init");
        assert_eq!(settings.weakened.as_deref(), Some("ima_appraise=log"));
        assert_eq!(warnings, ["init=/bin/sh"]);
    }

    proptest! {
        #[test]
        fn no_line_changes_the_configuration_or_the_init(line in "(root=/dev/vda )?\\PC{0,80}( init=/bin/sh)?( enforce=permissive)?") {
            if let Ok((settings, _)) = settings("", &line) {
                prop_assert_eq!(settings.config, Config::default());
                prop_assert_eq!(settings.init, "/sbin/init");
            }
        }
    }
}
