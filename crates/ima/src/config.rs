//! `/etc/ima/ima-init.conf`: what may weaken or steer the boot, in the initramfs that the boot chain covers.
//!
//! Lines of `key=value`, blanks around either ignored; `#` starts a comment line. An unknown key, a bad value and a key
//! given twice are errors.

use std::fmt;
use std::time::Duration;

use crate::boot_event::is_usable;
use crate::cmdline::{Pattern, RootName};
use crate::composefs::{self, Composefs, Digest};
use crate::dm_verity::{Corruption, Trust};
use crate::keyring::KeyringName;
use crate::release::Release;
use crate::revocation::Revocations;

/// Where the file is in the initramfs.
pub const PATH: &str = "/etc/ima/ima-init.conf";

/// The largest file that is read, in bytes.
pub const MAX_CONFIG: usize = 1 << 16;

/// `enforce=`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforce {
    /// The policy must be in force before the real root is left to itself.
    Required,
    /// A policy that is loaded but not in force is a warning.
    Permissive,
}

impl Enforce {
    /// `required` or `permissive`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Permissive => "permissive",
        }
    }
}

/// `cover=`: whom the policy must hold to signatures for the boot to go on.
pub use crate::policy::cover::Scope as Cover;

/// `keyring=`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyring {
    /// `.ima`, which takes only certificates that a CA of the kernel's signed.
    Trusted,
    /// `_ima`, which takes any.
    Untrusted,
}

impl Keyring {
    /// The keyring's name in the kernel.
    pub const fn name(self) -> &'static str {
        self.in_kernel().as_str()
    }

    const fn in_kernel(self) -> KeyringName {
        match self {
            Self::Trusted => KeyringName::Ima,
            Self::Untrusted => KeyringName::UntrustedIma,
        }
    }
}

impl From<Keyring> for KeyringName {
    fn from(keyring: Keyring) -> Self {
        keyring.in_kernel()
    }
}

/// `on_failure=`: what a refusal ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Restart, so that a boot loader's counter falls back.
    Reboot,
    /// Switch off.
    Poweroff,
    /// Stop, the console left readable.
    Halt,
    /// A kernel panic, for pstore, kdump or `panic=`.
    Panic,
    /// A shell on the console; with `debug=yes` only.
    Shell,
}

impl OnFailure {
    /// The value's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::Poweroff => "poweroff",
            Self::Halt => "halt",
            Self::Panic => "panic",
            Self::Shell => "shell",
        }
    }

    /// The action of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Reboot,
            Self::Poweroff,
            Self::Halt,
            Self::Panic,
            Self::Shell,
        ]
        .into_iter()
        .find(|action| action.name() == name)
    }
}

/// `lockdown=`: what the kernel forbids root beside what IMA appraises (`man kernel_lockdown`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lockdown {
    /// Nothing.
    No,
    /// Whatever changes the running kernel.
    Integrity,
    /// The same, and whatever reads its memory.
    Confidentiality,
}

impl Lockdown {
    /// Every level, from the lowest.
    pub const ALL: [Self; 3] = [Self::No, Self::Integrity, Self::Confidentiality];

    /// The value of the key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }

    /// The level in force, from securityfs's `lockdown`: `none [integrity] confidentiality`. Nothing if no word is in brackets.
    pub fn shown(text: &str) -> Option<Self> {
        let word = text.split_ascii_whitespace().find_map(|word| {
            let inner = word.strip_prefix('[')?;
            inner.strip_suffix(']')
        })?;
        Self::ALL
            .into_iter()
            .find(|level| level.name() == word || (*level == Self::No && word == "none"))
    }
}

/// Whether a list of security modules, as in `lsm=`, `CONFIG_LSM` or securityfs's `lsm`, names lockdown. Where it is left out, the
/// kernel still takes and shows a level, and forbids nothing (security/lockdown/lockdown.c).
pub fn lists_lockdown(modules: &str) -> bool {
    modules.trim().split(',').any(|module| module == "lockdown")
}

/// `script_control=`: what the interpreters of the real system are told to refuse, from Linux 6.14
/// (Documentation/userspace-api/check_exec.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScriptControl {
    /// Files that the kernel would not let be executed.
    pub restrict_file: bool,
    /// Commands that come from no such file: typed in, or given as an argument.
    pub deny_interactive: bool,
}

impl ScriptControl {
    /// The first release whose kernel has it (include/uapi/linux/securebits.h).
    pub const SINCE: Release = Release::new(6, 14);

    /// Parses words that are separated by blanks.
    fn parse(value: &str) -> Option<Self> {
        let mut parsed = Self::default();
        for word in value.split_ascii_whitespace() {
            match word {
                "restrict-file" => parsed.restrict_file = true,
                "deny-interactive" => parsed.deny_interactive = true,
                _ => return None,
            }
        }
        Some(parsed)
    }

    /// The bits for prctl(PR_SET_SECUREBITS), each with the one that locks it; 0 if nothing is demanded. SECBIT_EXEC_RESTRICT_FILE is
    /// bit 8, SECBIT_EXEC_DENY_INTERACTIVE bit 10 (include/uapi/linux/securebits.h).
    #[must_use]
    pub const fn secure_bits(self) -> u32 {
        let restrict_file = if self.restrict_file { 0b11 << 8 } else { 0 };
        let deny_interactive = if self.deny_interactive { 0b11 << 10 } else { 0 };
        restrict_file | deny_interactive
    }
}

/// How long to wait for the root's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootWait {
    /// So long, then refuse.
    AtMost(Duration),
    /// Until it is there, saying every few seconds what is missing.
    Forever,
}

impl RootWait {
    /// Parses the value of `rootwait=`: seconds, at most a day.
    pub fn parse(text: &str) -> Option<Self> {
        seconds(text).map(Self::AtMost)
    }
}

/// `stall_timeout` where nothing says it.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(300);

/// The default of `on_failure`.
pub const ON_FAILURE: OnFailure = OnFailure::Reboot;

/// The default of `failure_delay`.
pub const FAILURE_DELAY: Duration = Duration::from_secs(10);

/// Seconds in decimal digits, at most a day.
pub fn seconds(text: &str) -> Option<Duration> {
    const DAY: u64 = 86_400;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: u64 = digits.then(|| text.parse().ok()).flatten()?;
    (seconds <= DAY).then(|| Duration::from_secs(seconds))
}

/// A parameter that the command line may set if `cmdline=` lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// `root=`
    Root,
    /// `rootfstype=`
    RootFsType,
    /// `rootflags=`
    RootFlags,
    /// `ro`
    ReadOnly,
    /// `rw`
    ReadWrite,
    /// `rootwait`, `rootwait=SECONDS`
    RootWait,
    /// `rootdelay=SECONDS`
    RootDelay,
    /// `init=`
    Init,
    /// `evmx509=`
    EvmCertificate,
    /// `evmkey=`
    EvmKey,
    /// `masterkey=`
    MasterKey,
    /// `ima_init.slot=`
    Slot,
}

impl Parameter {
    /// Whether it is about the root, which an initramfs that the init was started in has found and mounted already.
    pub const fn is_of_the_root(self) -> bool {
        !matches!(self, Self::Init) && !self.is_of_evm()
    }

    /// Whether it names a file that EVM is set up with.
    pub const fn is_of_evm(self) -> bool {
        matches!(self, Self::EvmCertificate | Self::EvmKey | Self::MasterKey)
    }

    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Root,
        Self::RootFsType,
        Self::RootFlags,
        Self::ReadOnly,
        Self::ReadWrite,
        Self::RootWait,
        Self::RootDelay,
        Self::Init,
        Self::EvmCertificate,
        Self::EvmKey,
        Self::MasterKey,
        Self::Slot,
    ];

    /// The parameter's name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::RootFsType => "rootfstype",
            Self::RootFlags => "rootflags",
            Self::ReadOnly => "ro",
            Self::ReadWrite => "rw",
            Self::RootWait => "rootwait",
            Self::RootDelay => "rootdelay",
            Self::Init => "init",
            Self::EvmCertificate => "evmx509",
            Self::EvmKey => "evmkey",
            Self::MasterKey => "masterkey",
            Self::Slot => "ima_init.slot",
        }
    }
}

/// `overlay=`: where what is written to the root goes, which stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    /// `tmpfs`: into memory.
    Tmpfs,
    /// To the file system on this device.
    Device(RootName),
}

impl Overlay {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "tmpfs" => Some(Self::Tmpfs),
            name => RootName::parse(name).map(Self::Device),
        }
    }
}

/// What stands for the name of the slot in `root`, `overlay` and the keys of a verity root.
pub const SLOT: &str = "{slot}";

/// The most slots that are taken.
const MAX_SLOTS: usize = 8;

/// The value of `slots=`: names of letters, digits, `-` and `_`, of which no two are the same.
fn slots(value: &str) -> Option<Vec<String>> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut names: Vec<String> = Vec::new();
    for name in value.split_ascii_whitespace() {
        let known = names.iter().any(|known| known == name);
        if known || name.len() > 32 || !name.bytes().all(sound) {
            return None;
        }
        names.push(name.to_owned());
    }
    (1..=MAX_SLOTS).contains(&names.len()).then_some(names)
}

/// The configuration. [`Config::default`] is that of an empty file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `enforce`
    pub enforce: Enforce,
    /// `cover`
    pub cover: Cover,
    /// `keyring`
    pub keyring: Keyring,
    /// `evm_sigv3`: signatures in `security.evm` must be of version 3.
    pub evm_sigv3: bool,
    /// `require_tpm`
    pub require_tpm: bool,
    /// `measure_pcr`: the PCR that the init extends by what it concludes.
    pub measure_pcr: Option<u8>,
    /// `on_failure`
    pub on_failure: OnFailure,
    /// `failure_delay`: between the refusal and the action.
    pub failure_delay: Duration,
    /// `debug`
    pub debug: bool,
    /// `switch_root`: absolute path in the real root.
    pub switch_root: String,
    /// `init`: absolute path in the real root.
    pub init: String,
    /// `cmdline`: what the command line may set.
    pub cmdline: Vec<Parameter>,
    /// `forward`: the parameters that userspace sees, beside those of [`crate::forward::ALWAYS`], and the arguments that the
    /// real init gets.
    pub forward: Vec<Pattern>,
    /// `root_certificates`: whether certificates of the real root are offered to the kernel.
    pub root_certificates: bool,
    /// `revoked_keys` and `revoked_serials`: whose certificates are not offered, wherever they are from.
    pub revoked: Revocations,
    /// `root`
    pub root: Option<RootName>,
    /// `rootfstype`
    pub rootfstype: Option<String>,
    /// `rootflags`
    pub rootflags: Option<String>,
    /// `rootwait`
    pub rootwait: RootWait,
    /// `stall_timeout`: the longest that one step at the root's device may take.
    pub stall_timeout: Duration,
    /// `modules`: absolute paths in the initramfs, in the order in which they are loaded.
    pub modules: Vec<String>,
    /// `lockdown`
    pub lockdown: Lockdown,
    /// `kexec`: whether another kernel may be loaded.
    pub kexec: bool,
    /// `script_control`
    pub script_control: ScriptControl,
    /// `luks`: the root's device is a LUKS2 container, which the TPM unlocks; only its content is mounted.
    pub luks: bool,
    /// `verity`: the root is mounted only through dm-verity, with this root hash.
    pub verity: Option<Trust>,
    /// `verity_signature`: the partition or disk of the signed root hash.
    pub verity_signature: Option<RootName>,
    /// `verity_hash`: the device of the hash tree, if it is another one than the root's.
    pub verity_hash: Option<RootName>,
    /// `verity_hash_offset`: where its superblock begins, in bytes.
    pub verity_hash_offset: Option<u64>,
    /// `verity_corruption`
    pub verity_corruption: Corruption,
    /// `verity_fec`: the device of the data for error correction, if it is another one than the hash tree's.
    pub verity_fec: Option<RootName>,
    /// `verity_fec_offset`: where on it the data begins, in bytes.
    pub verity_fec_offset: Option<u64>,
    /// `verity_fec_roots`: the number of parity bytes in each 255 bytes.
    pub verity_fec_roots: u8,
    /// `slots`: the names of several roots, in the order in which they are tried.
    pub slots: Vec<String>,
    /// `overlay`
    pub overlay: Option<Overlay>,
    /// `overlay_wipe`: whether what was written before is deleted at each boot.
    pub overlay_wipe: bool,
    /// `composefs`: the root is mounted only through this erofs image, a path on the file system that `root` names.
    pub composefs: Option<String>,
    /// `composefs_digest`: the image's fs-verity digest.
    pub composefs_digest: Option<Digest>,
    /// `composefs_objects`: the directory of the files' content, a path there.
    pub composefs_objects: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enforce: Enforce::Required,
            cover: Cover::Everyone,
            keyring: Keyring::Trusted,
            evm_sigv3: false,
            require_tpm: false,
            measure_pcr: None,
            on_failure: ON_FAILURE,
            failure_delay: FAILURE_DELAY,
            debug: false,
            switch_root: "/usr/sbin/switch_root.static".to_owned(),
            init: "/sbin/init".to_owned(),
            cmdline: Parameter::ALL
                .into_iter()
                .filter(|parameter| parameter.is_of_the_root())
                .collect(),
            forward: Vec::new(),
            root_certificates: false,
            revoked: Revocations::default(),
            root: None,
            rootfstype: None,
            rootflags: None,
            rootwait: RootWait::AtMost(Duration::from_secs(30)),
            stall_timeout: STALL_TIMEOUT,
            modules: Vec::new(),
            lockdown: Lockdown::No,
            kexec: false,
            script_control: ScriptControl::default(),
            luks: false,
            verity: None,
            verity_signature: None,
            verity_hash: None,
            verity_hash_offset: None,
            verity_corruption: Corruption::Restart,
            verity_fec: None,
            verity_fec_offset: None,
            verity_fec_roots: 2,
            slots: Vec::new(),
            overlay: None,
            overlay_wipe: false,
            composefs: None,
            composefs_digest: None,
            composefs_objects: composefs::OBJECTS.to_owned(),
        }
    }
}

impl Config {
    /// The composefs root that is demanded; there is no image without a digest.
    #[must_use]
    pub fn composefs_root(&self) -> Option<Composefs> {
        let (image, digest) = self
            .composefs
            .as_ref()
            .zip(self.composefs_digest.as_ref())?;
        Some(Composefs {
            image: image.clone(),
            digest: digest.clone(),
            objects: self.composefs_objects.clone(),
        })
    }

    /// Parses the file.
    ///
    /// # Errors
    ///
    /// The first line that is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, ConfigError> {
        let error = |line, token: &str, kind| ConfigError {
            line,
            token: token
                .chars()
                .take(80)
                .flat_map(char::escape_debug)
                .collect(),
            kind,
        };
        if text.len() > MAX_CONFIG {
            return Err(error(1, "", ConfigErrorKind::TooLarge));
        }
        let mut config = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        let mut lines: Vec<(usize, &str, &str)> = Vec::new();
        for (line, number) in text.split(|byte| *byte == b'\n').zip(1_usize..) {
            let line = std::str::from_utf8(line)
                .ok()
                .filter(|line| !line.chars().any(|c| c != '\t' && c.is_control()))
                .ok_or_else(|| error(number, "", ConfigErrorKind::NotText))?
                .trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line
                .split_once('=')
                .ok_or_else(|| error(number, line, ConfigErrorKind::NoEquals))?;
            let (key, value) = (key.trim(), value.trim());
            if seen.contains(&key) {
                return Err(error(number, key, ConfigErrorKind::Duplicate));
            }
            seen.push(key);
            match config.set(key, value) {
                Assignment::Done => {}
                Assignment::BadValue => {
                    return Err(error(number, value, ConfigErrorKind::BadValue));
                }
                Assignment::UnknownKey => {
                    return Err(error(number, key, ConfigErrorKind::UnknownKey));
                }
            }
            lines.push((number, key, value));
        }
        for (number, key, value) in lines {
            if let Some((token, kind)) = config.out_of_place(key, value) {
                return Err(error(number, token, kind));
            }
        }
        Ok(config)
    }

    /// The configuration for one of its slots: with its name in the names of devices.
    #[must_use]
    pub fn in_slot(&self, slot: &str) -> Self {
        let named = |name: &Option<RootName>| name.as_ref().map(|name| name.replace(SLOT, slot));
        Self {
            root: named(&self.root),
            verity_signature: named(&self.verity_signature),
            verity_hash: named(&self.verity_hash),
            verity_fec: named(&self.verity_fec),
            overlay: self.overlay.as_ref().map(|overlay| match overlay {
                Overlay::Device(name) => Overlay::Device(name.replace(SLOT, slot)),
                Overlay::Tmpfs => Overlay::Tmpfs,
            }),
            ..self.clone()
        }
    }

    /// What is wrong with a key that is taken only together with others, and the word that is named.
    fn out_of_place<'a>(&self, key: &'a str, value: &'a str) -> Option<(&'a str, ConfigErrorKind)> {
        let has_slot = value.contains(SLOT);
        let of_a_slot = key.starts_with("verity") || matches!(key, "root" | "overlay");
        let names_a_slot = |name: &Option<RootName>| {
            let name = name.as_ref().map(RootName::to_string);
            name.is_some_and(|name| name.contains(SLOT))
        };
        match key {
            "on_failure" if value == "shell" && !self.debug => {
                Some((value, ConfigErrorKind::ShellNeedsDebug))
            }
            _ if key.starts_with("verity_") && self.verity.is_none() => {
                Some((key, ConfigErrorKind::WithoutVerity))
            }
            "verity_signature" if self.verity != Some(Trust::Signed) => {
                Some((key, ConfigErrorKind::WithoutSigned))
            }
            "verity_fec_roots" if self.verity_fec.is_none() && self.verity_fec_offset.is_none() => {
                Some((key, ConfigErrorKind::WithoutFec))
            }
            "luks" if self.luks && self.verity.is_some() => {
                Some((key, ConfigErrorKind::WithVerity))
            }
            _ if key.starts_with("composefs_") && self.composefs.is_none() => {
                Some((key, ConfigErrorKind::WithoutComposefs))
            }
            "composefs" if self.composefs_digest.is_none() => {
                Some((key, ConfigErrorKind::WithoutDigest))
            }
            "overlay_wipe" if !matches!(self.overlay, Some(Overlay::Device(_))) => {
                Some((key, ConfigErrorKind::WithoutOverlay))
            }
            "slots" if !names_a_slot(&self.root) && !names_a_slot(&self.verity_signature) => {
                Some((key, ConfigErrorKind::SlotsWithoutName))
            }
            _ if has_slot && (!of_a_slot || self.slots.is_empty()) => {
                Some((value, ConfigErrorKind::NameWithoutSlots))
            }
            _ => None,
        }
    }

    /// Sets the value of one key.
    fn set(&mut self, key: &str, value: &str) -> Assignment {
        match key {
            "enforce" => assign(
                &mut self.enforce,
                match value {
                    "required" => Some(Enforce::Required),
                    "permissive" => Some(Enforce::Permissive),
                    _ => None,
                },
            ),
            "cover" => assign(
                &mut self.cover,
                match value {
                    "everyone" => Some(Cover::Everyone),
                    "root" => Some(Cover::Root),
                    _ => None,
                },
            ),
            "keyring" => assign(
                &mut self.keyring,
                [Keyring::Trusted, Keyring::Untrusted]
                    .into_iter()
                    .find(|keyring| keyring.name() == value),
            ),
            "evm_sigv3" => assign(&mut self.evm_sigv3, yes_or_no(value)),
            "require_tpm" => assign(&mut self.require_tpm, yes_or_no(value)),
            "measure_pcr" => assign(
                &mut self.measure_pcr,
                value.parse().ok().filter(|pcr| is_usable(*pcr)).map(Some),
            ),
            "on_failure" => assign(&mut self.on_failure, OnFailure::from_name(value)),
            "failure_delay" => assign(&mut self.failure_delay, seconds(value)),
            "debug" => assign(&mut self.debug, yes_or_no(value)),
            "switch_root" => assign(&mut self.switch_root, absolute(value)),
            "init" => assign(&mut self.init, absolute(value)),
            "cmdline" => assign(
                &mut self.cmdline,
                value
                    .split_ascii_whitespace()
                    .map(|name| {
                        Parameter::ALL
                            .into_iter()
                            .find(|known| known.name() == name)
                    })
                    .collect(),
            ),
            "forward" => assign(
                &mut self.forward,
                value.split_ascii_whitespace().map(Pattern::parse).collect(),
            ),
            "root_certificates" => assign(&mut self.root_certificates, yes_or_no(value)),
            "revoked_keys" => Assignment::of(self.revoked.set_keys(value)),
            "revoked_serials" => Assignment::of(self.revoked.set_serials(value)),
            "root" => assign(&mut self.root, RootName::parse(value).map(Some)),
            "rootfstype" => assign(&mut self.rootfstype, fstype(value)),
            "rootflags" => assign(&mut self.rootflags, Some(Some(value.to_owned()))),
            "rootwait" => assign(
                &mut self.rootwait,
                match value {
                    "forever" => Some(RootWait::Forever),
                    seconds => RootWait::parse(seconds),
                },
            ),
            "stall_timeout" => assign(
                &mut self.stall_timeout,
                seconds(value).filter(|time| !time.is_zero()),
            ),
            "modules" => assign(
                &mut self.modules,
                value.split_ascii_whitespace().map(absolute).collect(),
            ),
            "lockdown" => assign(
                &mut self.lockdown,
                Lockdown::ALL
                    .into_iter()
                    .find(|level| level.name() == value),
            ),
            "kexec" => assign(&mut self.kexec, yes_or_no(value)),
            "script_control" => assign(&mut self.script_control, ScriptControl::parse(value)),
            "luks" => assign(&mut self.luks, yes_or_no(value)),
            "verity" => assign(&mut self.verity, Trust::parse(value).map(Some)),
            "verity_signature" => {
                assign(&mut self.verity_signature, RootName::parse(value).map(Some))
            }
            "verity_hash" => assign(&mut self.verity_hash, RootName::parse(value).map(Some)),
            "verity_hash_offset" => assign(&mut self.verity_hash_offset, offset(value).map(Some)),
            "verity_corruption" => assign(
                &mut self.verity_corruption,
                Corruption::ALL
                    .into_iter()
                    .find(|corruption| corruption.name() == value),
            ),
            "verity_fec" => assign(&mut self.verity_fec, RootName::parse(value).map(Some)),
            "verity_fec_offset" => assign(&mut self.verity_fec_offset, offset(value).map(Some)),
            // drivers/md/dm-verity-fec.c, DM_VERITY_FEC_MIN_RSN, DM_VERITY_FEC_MAX_RSN
            "verity_fec_roots" => assign(
                &mut self.verity_fec_roots,
                value.parse().ok().filter(|roots| (2..=24).contains(roots)),
            ),
            "slots" => assign(&mut self.slots, slots(value)),
            "overlay" => assign(&mut self.overlay, Overlay::parse(value).map(Some)),
            "overlay_wipe" => assign(&mut self.overlay_wipe, yes_or_no(value)),
            "composefs" => assign(&mut self.composefs, absolute(value).map(Some)),
            "composefs_digest" => {
                assign(&mut self.composefs_digest, Digest::parse(value).map(Some))
            }
            "composefs_objects" => assign(&mut self.composefs_objects, absolute(value)),
            _ => Assignment::UnknownKey,
        }
    }
}

/// What became of a line `KEY=VALUE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Assignment {
    Done,
    BadValue,
    UnknownKey,
}

impl Assignment {
    const fn of(is_valid: bool) -> Self {
        if is_valid { Self::Done } else { Self::BadValue }
    }
}

/// Assigns the value that was parsed; `None` stands for one that is not valid.
fn assign<T>(field: &mut T, value: Option<T>) -> Assignment {
    let Some(value) = value else {
        return Assignment::BadValue;
    };
    *field = value;
    Assignment::Done
}

fn yes_or_no(value: &str) -> Option<bool> {
    match value {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// A number of bytes in whole sectors, on a device that Linux can have.
fn offset(value: &str) -> Option<u64> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let bytes: u64 = digits.then(|| value.parse().ok()).flatten()?;
    (bytes.is_multiple_of(512) && bytes <= 1 << 60).then_some(bytes)
}

/// An absolute path, as configuration and command line may give it.
pub fn absolute(path: &str) -> Option<String> {
    (path.starts_with('/') && path.len() < 4096).then(|| path.to_owned())
}

/// The type of a file system as the command line and the configuration may give it; `Some(None)` is `auto`: the type that the
/// superblock says.
pub fn fstype(name: &str) -> Option<Option<String>> {
    let sound = !name.is_empty()
        && name.len() < 64
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    sound.then(|| (name != "auto").then(|| name.to_owned()))
}

/// The keys of the configuration.
pub const KEYS: [&str; 40] = [
    "enforce",
    "cover",
    "keyring",
    "evm_sigv3",
    "require_tpm",
    "measure_pcr",
    "on_failure",
    "failure_delay",
    "debug",
    "switch_root",
    "init",
    "cmdline",
    "forward",
    "root_certificates",
    "revoked_keys",
    "revoked_serials",
    "root",
    "rootfstype",
    "rootflags",
    "rootwait",
    "stall_timeout",
    "modules",
    "lockdown",
    "kexec",
    "script_control",
    "luks",
    "verity",
    "verity_signature",
    "verity_hash",
    "verity_hash_offset",
    "verity_corruption",
    "verity_fec",
    "verity_fec_offset",
    "verity_fec_roots",
    "slots",
    "overlay",
    "overlay_wipe",
    "composefs",
    "composefs_digest",
    "composefs_objects",
];

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The line, counted from 1.
    pub line: usize,
    /// The word that is wrong.
    pub token: String,
    /// What is wrong with it.
    pub kind: ConfigErrorKind,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigErrorKind {
    /// No `=`.
    NoEquals,
    /// No such key.
    UnknownKey,
    /// Not a value of this key.
    BadValue,
    /// The key stands there twice.
    Duplicate,
    /// No printable text.
    NotText,
    /// Larger than [`MAX_CONFIG`].
    TooLarge,
    /// `on_failure=shell` without `debug=yes`.
    ShellNeedsDebug,
    /// A key about a verity root, and no `verity=`: the root would not be verified.
    WithoutVerity,
    /// `verity_signature=` without `verity=signed`: no signature would be verified.
    WithoutSigned,
    /// `overlay_wipe=` without a device that could be wiped.
    WithoutOverlay,
    /// `slots=`, and nothing names a root by its slot.
    SlotsWithoutName,
    /// A name with a slot, and no `slots=`; or the slot in another key's value.
    NameWithoutSlots,
    /// `verity_fec_roots=` without `verity_fec=` and `verity_fec_offset=`: nothing would be corrected.
    WithoutFec,
    /// `luks=yes` and `verity=`: a root that dm-verity verifies is public, and its partitions are found by what is not encrypted.
    WithVerity,
    /// A key about a composefs root, and no `composefs=`: the root would be another one.
    WithoutComposefs,
    /// `composefs=` without `composefs_digest=`: any image would do.
    WithoutDigest,
}

impl ConfigErrorKind {
    /// What is wrong, as a phrase.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::NoEquals => "not of the form key=value",
            Self::UnknownKey => "no such key",
            Self::BadValue => "not a value that this key takes",
            Self::Duplicate => "this key is given twice",
            Self::NotText => "there are bytes that are not printable text",
            Self::TooLarge => "the file is larger than 64 KiB",
            Self::ShellNeedsDebug => "on_failure=shell is taken only with debug=yes",
            Self::WithoutVerity => "this key says how the root is verified, and verity= is missing",
            Self::WithoutSigned => "this key is taken only with verity=signed",
            Self::WithoutOverlay => "this key is taken only with overlay= and a device",
            Self::SlotsWithoutName => {
                "slots= is set, and neither root= nor verity_signature= has {slot} in it"
            }
            Self::NameWithoutSlots => {
                "{slot} is taken only with slots=, and only in names of devices"
            }
            Self::WithVerity => "a root is either encrypted (luks=) or verified (verity=)",
            Self::WithoutComposefs => {
                "this key is about a composefs root, and composefs= is missing"
            }
            Self::WithoutDigest => "composefs_digest= is missing",
            Self::WithoutFec => "this key is taken only with verity_fec= or verity_fec_offset=",
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if !self.token.is_empty() {
            write!(f, ", `{}`", self.token)?;
        }
        write!(f, ": {}", self.kind.explanation())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dm_verity::RootHash;
    use proptest::prelude::*;

    #[test]
    fn an_empty_file_is_the_default_and_the_default_is_safe() {
        let config = Config::parse(b"# nothing\n\n").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.enforce, Enforce::Required);
        assert_eq!(config.keyring, Keyring::Trusted);
        assert_eq!(config.on_failure, OnFailure::Reboot);
        assert!(!config.debug && !config.root_certificates);
        assert!(
            config
                .cmdline
                .iter()
                .all(|parameter| parameter.is_of_the_root())
        );
    }

    #[test]
    fn every_key() {
        let config = Config::parse(
            b"enforce=permissive\ncover=root\nkeyring = _ima\nevm_sigv3=yes\nrequire_tpm=yes\nmeasure_pcr=13\non_failure=shell\nfailure_delay=0\ndebug=yes\n\
              switch_root=/sbin/sr\ninit=/bin/busybox\ncmdline=root init\nforward=single systemd.*\n\
              root_certificates=yes\nrevoked_keys=0123abcd\nrevoked_serials=01 0123abcd/02\nroot=LABEL=a b {slot}\nrootfstype=ext4\n\
              rootflags=noatime,data=ordered\nrootwait=forever\nstall_timeout=60\nmodules=/lib/modules/a.ko /lib/modules/b.ko\n\
              lockdown=integrity\nkexec=yes\nscript_control=restrict-file\nluks=no\nverity=ABababababababababababababababababababababababababababababababab\n\
              verity_hash=PARTLABEL=root-verity\nverity_hash_offset=4096\nverity_corruption=panic\n\
              verity_fec=/dev/vdc\nverity_fec_offset=8192\nverity_fec_roots=24\n\
              slots=a b\noverlay=LABEL=data-{slot}\noverlay_wipe=yes\n\
              composefs=/root.cfs\ncomposefs_digest=CDcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd\n\
              composefs_objects=/objects",
        )
        .unwrap();
        assert_eq!(
            config,
            Config {
                enforce: Enforce::Permissive,
                cover: Cover::Root,
                keyring: Keyring::Untrusted,
                evm_sigv3: true,
                require_tpm: true,
                measure_pcr: Some(13),
                on_failure: OnFailure::Shell,
                failure_delay: Duration::ZERO,
                debug: true,
                switch_root: "/sbin/sr".into(),
                init: "/bin/busybox".into(),
                cmdline: vec![Parameter::Root, Parameter::Init],
                forward: ["single", "systemd.*"]
                    .map(|name| Pattern::parse(name).unwrap())
                    .to_vec(),
                root_certificates: true,
                revoked: {
                    let mut revoked = Revocations::default();
                    assert!(revoked.set_keys("0123abcd"));
                    assert!(revoked.set_serials("01 0123abcd/02"));
                    revoked
                },
                root: Some(RootName::Label("a b {slot}".into())),
                rootfstype: Some("ext4".into()),
                rootflags: Some("noatime,data=ordered".into()),
                rootwait: RootWait::Forever,
                stall_timeout: Duration::from_secs(60),
                modules: vec!["/lib/modules/a.ko".into(), "/lib/modules/b.ko".into()],
                lockdown: Lockdown::Integrity,
                kexec: true,
                script_control: ScriptControl {
                    restrict_file: true,
                    deny_interactive: false,
                },
                luks: false,
                verity: RootHash::new(vec![0xab; 32]).map(Trust::RootHash),
                verity_signature: None,
                verity_hash: Some(RootName::PartLabel("root-verity".into())),
                verity_hash_offset: Some(4096),
                verity_corruption: Corruption::Panic,
                verity_fec: Some(RootName::Device("vdc".into())),
                verity_fec_offset: Some(8192),
                verity_fec_roots: 24,
                slots: vec!["a".into(), "b".into()],
                overlay: Some(Overlay::Device(RootName::Label("data-{slot}".into()))),
                overlay_wipe: true,
                composefs: Some("/root.cfs".into()),
                composefs_digest: Digest::new(vec![0xcd; 32]),
                composefs_objects: "/objects".into(),
            }
        );
    }

    #[test]
    fn errors_name_line_and_word() {
        let cases: [(&[u8], &str); 31] = [
            (b"\n\nfoo=bar\n", "line 3, `foo`: no such key"),
            (b"enforce", "line 1, `enforce`: not of the form key=value"),
            (
                b"enforce=no",
                "line 1, `no`: not a value that this key takes",
            ),
            (b"debug=1", "line 1, `1`: not a value that this key takes"),
            (
                b"debug=no\ndebug=yes",
                "line 2, `debug`: this key is given twice",
            ),
            (
                b"on_failure=shell",
                "line 1, `shell`: on_failure=shell is taken only with debug=yes",
            ),
            (
                b"init=sbin/init",
                "line 1, `sbin/init`: not a value that this key takes",
            ),
            (
                b"cmdline=root quiet",
                "line 1, `root quiet`: not a value that this key takes",
            ),
            (
                b"forward=quiet *",
                "line 1, `quiet *`: not a value that this key takes",
            ),
            (
                b"revoked_keys=0123ab",
                "line 1, `0123ab`: not a value that this key takes",
            ),
            (
                b"rootwait=-1",
                "line 1, `-1`: not a value that this key takes",
            ),
            (
                b"rootwait=86401",
                "line 1, `86401`: not a value that this key takes",
            ),
            (
                b"root=vda",
                "line 1, `vda`: not a value that this key takes",
            ),
            (
                b"rootfstype=ext4,vfat",
                "line 1, `ext4,vfat`: not a value that this key takes",
            ),
            (
                b"verity=abcd",
                "line 1, `abcd`: not a value that this key takes",
            ),
            (b"verity=", "line 1: not a value that this key takes"),
            (
                b"luks=yes\nverity=ABababababababababababababababababababababababababababababababab",
                "line 1, `luks`: a root is either encrypted (luks=) or verified (verity=)",
            ),
            (
                b"root=/dev/vda\nverity_hash=/dev/vdb\n",
                "line 2, `verity_hash`: this key says how the root is verified, and verity= is missing",
            ),
            (
                b"verity_signature=/dev/vdb\nverity=ABababababababababababababababababababababababababababababababab",
                "line 1, `verity_signature`: this key is taken only with verity=signed",
            ),
            (
                b"root=LABEL=a\nslots=a b",
                "line 2, `slots`: slots= is set, and neither root= nor verity_signature= has {slot} in it",
            ),
            (
                b"root=LABEL={slot}",
                "line 1, `LABEL={slot}`: {slot} is taken only with slots=, and only in names of devices",
            ),
            (
                b"root=LABEL={slot}\nslots=a\ninit=/{slot}",
                "line 3, `/{slot}`: {slot} is taken only with slots=, and only in names of devices",
            ),
            (
                b"slots=a a",
                "line 1, `a a`: not a value that this key takes",
            ),
            (
                b"overlay=tmpfs\noverlay_wipe=yes",
                "line 2, `overlay_wipe`: this key is taken only with overlay= and a device",
            ),
            (
                b"verity_hash_offset=100",
                "line 1, `100`: not a value that this key takes",
            ),
            (
                b"verity_corruption=ignore",
                "line 1, `ignore`: not a value that this key takes",
            ),
            (
                b"root=/dev/vda\ncomposefs=/root.cfs\n",
                "line 2, `composefs`: composefs_digest= is missing",
            ),
            (
                b"composefs_objects=/objects",
                "line 1, `composefs_objects`: this key is about a composefs root, and composefs= is missing",
            ),
            (
                b"composefs_digest=abcd",
                "line 1, `abcd`: not a value that this key takes",
            ),
            (
                b"enforce=required\0",
                "line 1: there are bytes that are not printable text",
            ),
            (
                b"\xff",
                "line 1: there are bytes that are not printable text",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(Config::parse(text).unwrap_err().to_string(), message);
        }
        let large = vec![b'#'; MAX_CONFIG + 1];
        assert_eq!(
            Config::parse(&large).unwrap_err().kind,
            ConfigErrorKind::TooLarge
        );
    }

    #[test]
    fn bits_of_script_control() {
        for (value, bits) in [
            ("", Some(0)),
            ("restrict-file", Some(0x300)),
            ("deny-interactive", Some(0xc00)),
            ("restrict-file  deny-interactive", Some(0xf00)),
            ("restrict-file,deny-interactive", None),
            ("yes", None),
        ] {
            let parsed = ScriptControl::parse(value);
            assert_eq!(parsed.map(ScriptControl::secure_bits), bits, "{value}");
        }
    }

    #[test]
    fn levels_of_lockdown() {
        for (text, level) in [
            ("[none] integrity confidentiality\n", Some(Lockdown::No)),
            (
                "none [integrity] confidentiality\n",
                Some(Lockdown::Integrity),
            ),
            (
                "none integrity [confidentiality]\n",
                Some(Lockdown::Confidentiality),
            ),
            ("none integrity confidentiality\n", None),
            ("[no]", Some(Lockdown::No)),
            ("[other] [integrity]", None),
            ("", None),
        ] {
            assert_eq!(Lockdown::shown(text), level, "{text}");
        }
        assert!(
            Lockdown::No < Lockdown::Integrity && Lockdown::Integrity < Lockdown::Confidentiality
        );
        for (list, named) in [
            ("capability,lockdown,yama,ima,evm\n", true),
            ("lockdown", true),
            ("capability,lockdownx,ima", false),
            ("", false),
        ] {
            assert_eq!(lists_lockdown(list), named, "{list}");
        }
    }

    #[test]
    fn every_key_that_is_listed_is_one() {
        for key in KEYS {
            let kind = Config::parse(format!("{key}=?").as_bytes()).map_err(|error| error.kind);
            assert_ne!(kind.err(), Some(ConfigErrorKind::UnknownKey), "{key}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Config::parse(&bytes);
        }

        #[test]
        fn no_text_weakens_without_saying_so(text in "([a-z_]{1,12}=?[a-z0-9/]{0,8}\n){0,6}") {
            if let Ok(config) = Config::parse(text.as_bytes()) {
                prop_assert_eq!(config.enforce == Enforce::Permissive, text.contains("enforce=permissive"));
                prop_assert_eq!(config.debug, text.contains("debug=yes"));
            }
        }
    }
}
