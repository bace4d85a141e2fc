//! A running system brought under IMA: what is there, and the steps from nothing to a first boot that only logs, to
//! enforcement, and back.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use ima::audit::IntegrityRecord;
use ima::certificate::{Certificate, CertificateError};
use ima::config::Keyring;
use ima::fault::{Cause, Code, Explanation, Fault};

use crate::Result;
use crate::denial;
use crate::file::{in_file, read_bounded};
use crate::kernel::check::KernelConfig;
use crate::kernel::owner::OwnerKeys;

/// The configuration, whose presence has ima-init put into the initramfs.
pub const CONFIG: &str = "etc/ima-init/ima-init.conf";
/// The keys made by set-up.
pub const PRIVATE: &str = "etc/ima-init/private";
/// Where the certificate is taken from into the initramfs.
pub const CERTIFICATE: &str = "etc/keys/ima/x509_ima_local.der";
/// The policies that may be in force, the first that is there first: this system's own, that of the users of dracut's module
/// `integrity`, and the package's.
const POLICIES: [&str; 3] = [
    "etc/ima-init/ima_policy",
    "etc/sysconfig/ima-policy",
    "usr/share/ima-init/ima_policy.default",
];
const INIT: &str = "usr/lib/ima-init/ima-init";
const SWITCH_ROOT: &str = "usr/sbin/switch_root.static";
const GRUB: &str = "etc/default/grub.d/ima-init.cfg";

/// `SecureBoot` of `EFI_GLOBAL_VARIABLE`.
const SECURE_BOOT: &str =
    "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The program that leaves requests for shim, and its option for a certificate in DER.
pub const MOKUTIL: &str = "mokutil";
/// See [`MOKUTIL`].
pub const IMPORT: &str = "--import";

const MAX_TEXT: u64 = 16 << 20;

/// What makes the initramfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// initramfs-tools.
    InitramfsTools,
    /// dracut.
    Dracut,
}

impl Tool {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InitramfsTools => "initramfs-tools",
            Self::Dracut => "dracut",
        }
    }

    /// The program that makes every initramfs again.
    const fn program(self) -> Program {
        match self {
            Self::InitramfsTools => Program {
                name: "update-initramfs",
                arguments: &["-u", "-k", "all"],
            },
            Self::Dracut => Program {
                name: "dracut",
                arguments: &["--force", "--regenerate-all"],
            },
        }
    }
}

/// Where the system is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Everything in place, nothing denied: what would be is logged.
    Log,
    /// What is not signed is denied.
    Enforce,
    /// As it was before.
    Undo,
}

/// An installed kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its release, as in `/lib/modules`.
    pub release: String,
    /// Whether it has a keyring that takes only what a trusted CA signed.
    pub trusted_keyring: bool,
    /// Which keys of the machine's owner (MOK) are among those.
    pub owner_keys: OwnerKeys,
}

/// The system that is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    root: PathBuf,
    /// What makes the initramfs.
    pub tool: Tool,
    /// The kernels that have an initramfs made for them.
    pub kernels: Vec<Kernel>,
    /// Where the keys go.
    pub keyring: Keyring,
    /// Whether GRUB writes the kernel's command line.
    pub grub: bool,
    /// Whether the firmware enforces Secure Boot.
    pub secure_boot: bool,
    /// The configuration, if the system is set up.
    pub config: Option<String>,
}

/// A program of the system that set-up runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// Its name, which is looked up in the path.
    pub name: &'static str,
    /// Its arguments.
    pub arguments: &'static [&'static str],
}

const UPDATE_GRUB: Program = Program {
    name: "update-grub",
    arguments: &[],
};

/// The files that set-up signs: those that packages brought and those that were named, as far as the policy appraises them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signatures {
    /// The policy.
    pub policy: PathBuf,
    /// The private key: a file or a `pkcs11:` URI.
    pub key: PathBuf,
    /// Its certificate.
    pub certificate: PathBuf,
    /// Files and directories that were named.
    pub named: Vec<PathBuf>,
}

/// What the next boot of a kernel is checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootCheck {
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The root file system.
    pub root: PathBuf,
    /// The configuration that the kernel was built with.
    pub kernel_config: PathBuf,
}

/// A step of set-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes a CA and a key that signs.
    MakeKeys {
        /// The directory that they are written to.
        directory: PathBuf,
        /// Whether the private keys are left without a password.
        unencrypted: bool,
    },
    /// Signs files.
    Sign(Signatures),
    /// Checks that the next boot is not refused.
    Check(BootCheck),
    /// Asks shim to have the machine's owner enrol this CA at the next boot.
    Enrol(PathBuf),
    /// Runs a program of the system.
    Run(Program),
    /// Copies a file.
    Copy(PathBuf, PathBuf),
    /// Copies a file, unless the copy exists.
    Keep(PathBuf, PathBuf),
    /// Writes a file that everybody may read.
    Write(PathBuf, String),
    /// Makes a directory that only root may read.
    Private(PathBuf),
    /// Removes a file.
    Remove(PathBuf),
}

impl Step {
    /// Returns the command that a person could run instead, as words; none for a change of a single file.
    #[must_use]
    pub fn command(&self) -> Option<Vec<OsString>> {
        let words = |fixed: &[&str]| fixed.iter().map(OsString::from).collect::<Vec<_>>();
        Some(match self {
            Self::MakeKeys {
                directory,
                unencrypted,
            } => {
                let mut command = words(&["imactl", "keygen", "--out"]);
                command.push(directory.into());
                command.extend(unencrypted.then(|| "--unencrypted".into()));
                command
            }
            Self::Sign(signatures) => {
                let mut command = words(&["imactl", "sign", "--incremental", "--packages"]);
                for (option, path) in [
                    ("--for-policy", &signatures.policy),
                    ("--key", &signatures.key),
                    ("--cert", &signatures.certificate),
                ] {
                    command.extend([option.into(), path.into()]);
                }
                command.extend(signatures.named.iter().map(OsString::from));
                command
            }
            Self::Check(boot) => {
                let mut command = words(&["imactl", "check"]);
                for (option, path) in [
                    ("--initramfs", &boot.initramfs),
                    ("--root", &boot.root),
                    ("--kernel-config", &boot.kernel_config),
                ] {
                    command.extend([option.into(), path.into()]);
                }
                command
            }
            Self::Enrol(certificate) => {
                let mut command = words(&[MOKUTIL, IMPORT]);
                command.push(certificate.into());
                command
            }
            Self::Run(program) => {
                let mut command = words(&[program.name]);
                command.extend(words(program.arguments));
                command
            }
            Self::Copy(..)
            | Self::Keep(..)
            | Self::Write(..)
            | Self::Private(_)
            | Self::Remove(_) => return None,
        })
    }
}

/// A word as a shell takes it.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |character: char| {
        character.is_alphanumeric() || matches!(character, '/' | '.' | '-' | '_' | '+' | '=' | ':')
    };
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy(from, to) => write!(f, "copy {} to {}", from.display(), to.display()),
            Self::Keep(from, to) => write!(f, "keep {} as {}", from.display(), to.display()),
            Self::Write(path, text) => {
                write!(f, "write {}:", path.display())?;
                text.lines()
                    .filter(|line| !line.starts_with('#') && !line.is_empty())
                    .try_for_each(|line| write!(f, " {line}"))
            }
            Self::Private(path) => write!(f, "make {}, readable by root alone", path.display()),
            Self::Remove(path) => write!(f, "remove {}", path.display()),
            Self::MakeKeys { .. }
            | Self::Sign(_)
            | Self::Check(_)
            | Self::Enrol(_)
            | Self::Run(_) => {
                let command = self.command().unwrap_or_default();
                let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
                f.write_str(&words.join(" "))
            }
        }
    }
}

/// Who signs, and what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signing {
    /// The private key and its certificate, if there are some; otherwise they are made.
    pub given: Option<(PathBuf, PathBuf)>,
    /// Whether a key that is made is left without a password.
    pub unencrypted: bool,
    /// Files and directories that are signed beside what packages brought.
    pub named: Vec<PathBuf>,
    /// Whether the CA that is made is enrolled as a machine owner key.
    pub enrol: bool,
}

/// Looks at the system below `root`.
///
/// # Errors
///
/// [`Code::SetupUnfit`] for one that cannot be set up.
pub fn survey(root: &Path) -> Result<System> {
    let unfit =
        |detail: &str, cause: Explanation| Err(Fault::new(Code::SetupUnfit, detail).because(cause));
    for (path, package) in [(INIT, "ima-init"), (SWITCH_ROOT, "ima-init-switch-root")] {
        if !root.join(path).is_file() {
            return unfit(
                &format!("/{path} is not there"),
                Cause::PACKAGE_NOT_INSTALLED.with(&[package]),
            );
        }
    }
    let tool = if root.join("usr/sbin/update-initramfs").exists() {
        Tool::InitramfsTools
    } else if root.join("usr/bin/dracut").exists() {
        Tool::Dracut
    } else {
        return unfit(
            "nothing here makes an initramfs",
            Cause::NO_INITRAMFS_TOOL.into(),
        );
    };
    let mut kernels = Vec::new();
    for release in names(&root.join("lib/modules")) {
        let Ok(text) = read_bounded(&root.join(format!("boot/config-{release}")), MAX_TEXT) else {
            continue;
        };
        if !root.join(format!("boot/initrd.img-{release}")).exists() {
            continue;
        }
        let config = KernelConfig::parse(&text)?;
        for option in ["SECURITYFS", "IMA", "IMA_APPRAISE"] {
            if !config.is_builtin(option) {
                return unfit(
                    &format!("the kernel {release} was built without CONFIG_{option}"),
                    Cause::NO_APPRAISAL_IN_KERNEL.into(),
                );
            }
        }
        kernels.push(Kernel {
            release,
            trusted_keyring: config.is_builtin("INTEGRITY_TRUSTED_KEYRING"),
            owner_keys: OwnerKeys::of(&config),
        });
    }
    if kernels.is_empty() {
        return unfit(
            "no kernel with an initramfs was found",
            Cause::NO_KERNEL_WITH_INITRAMFS.into(),
        );
    }
    let keyring = if kernels.iter().all(|kernel| kernel.trusted_keyring) {
        Keyring::Trusted
    } else {
        Keyring::Untrusted
    };
    let config = read_bounded(&root.join(CONFIG), MAX_TEXT)
        .ok()
        .map(|text| String::from_utf8_lossy(&text).into_owned());
    Ok(System {
        root: root.to_owned(),
        tool,
        kernels,
        keyring,
        // The package is there on systems too that another loader starts.
        grub: root.join("usr/sbin/update-grub").exists() && root.join("boot/grub").is_dir(),
        secure_boot: secure_boot(root),
        config,
    })
}

/// Whether the firmware says that it enforces Secure Boot: the variable's attributes, four bytes, and its value (UEFI specification,
/// section 3.3, `SecureBoot`).
fn secure_boot(root: &Path) -> bool {
    read_bounded(&root.join(SECURE_BOOT), 5).is_ok_and(|bytes| bytes.get(4..) == Some(&[1]))
}

/// The names in a directory, sorted; none if it cannot be read.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

/// Whether the system below `root` is set up: while its configuration is there, each initramfs has ima-init in it.
#[must_use]
pub fn is_set_up(root: &Path) -> bool {
    root.join(CONFIG).exists()
}

/// The policy of the system below `root`: the first that is there.
#[must_use]
pub fn policy(root: &Path) -> PathBuf {
    let place = POLICIES
        .iter()
        .find(|path| std::fs::metadata(root.join(path)).is_ok_and(|metadata| metadata.len() > 0));
    root.join(place.unwrap_or(&POLICIES[2]))
}

/// The directory of the certificates that the initramfs takes from the system below `root`.
#[must_use]
pub fn certificates(root: &Path) -> PathBuf {
    let file = root.join(CERTIFICATE);
    file.parent().map_or(file.clone(), Path::to_owned)
}

/// The key that set-up has made in the system below `root`, and its certificate, if they are there.
#[must_use]
pub fn own_key(root: &Path) -> Option<(PathBuf, PathBuf)> {
    let (key, certificate) = made_keys(root);
    (key.exists() && certificate.exists()).then_some((key, certificate))
}

/// The private key of the CA that set-up has made in the system below `root`, if it is still there. The system does not need it:
/// it issues further certificates.
#[must_use]
pub fn authority_key(root: &Path) -> Option<PathBuf> {
    let key = root.join(PRIVATE).join("ca.key");
    key.exists().then_some(key)
}

fn made_keys(root: &Path) -> (PathBuf, PathBuf) {
    let private = root.join(PRIVATE);
    (private.join("ima.key"), private.join("ima.der"))
}

impl System {
    /// The policy that will be in force.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        policy(&self.root)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Whether a CA that is enrolled as a machine owner key vouches for keys here: under Secure Boot, where every kernel takes such CAs
    /// from shim.
    #[must_use]
    pub fn takes_owner_keys(&self) -> bool {
        let takes = |kernel: &Kernel| {
            kernel.trusted_keyring && !matches!(kernel.owner_keys, OwnerKeys::None(_))
        };
        self.secure_boot && self.kernels.iter().all(takes)
    }

    /// Checks that each kernel takes the CA that is to be enrolled. One that is yet to be made has what the kernel wants of a CA.
    ///
    /// # Errors
    ///
    /// [`Code::SetupUnfit`] with the kernel that does not; those of reading the certificate.
    pub fn check_owner_key(&self) -> Result<()> {
        let path = self.authority();
        let parse = || {
            let unusable = |error: CertificateError| {
                in_file(
                    Fault::new(Code::CertificateUnusable, error.to_string()),
                    &path,
                )
            };
            Certificate::parse(&read_bounded(&path, MAX_TEXT)?).map_err(unusable)
        };
        let certificate = path.exists().then(parse).transpose()?;
        for kernel in &self.kernels {
            if let Some(cause) = kernel.owner_keys.refusal(certificate.as_ref()) {
                let detail = format!("{}: the kernel {}", path.display(), kernel.release);
                return Err(Fault::new(Code::SetupUnfit, detail).because(cause));
            }
        }
        Ok(())
    }

    /// The certificate of the CA that set-up has made or will make.
    fn authority(&self) -> PathBuf {
        self.path(PRIVATE).join("ca.der")
    }

    /// Where key and certificate are, or will be once they are made.
    #[must_use]
    pub fn keys(&self, signing: &Signing) -> (PathBuf, PathBuf) {
        signing
            .given
            .clone()
            .unwrap_or_else(|| made_keys(&self.root))
    }

    /// The steps to the goal, in an order in which the system boots as it did before whichever is the last that is taken.
    #[must_use]
    pub fn steps(&self, goal: Goal, signing: &Signing) -> Vec<Step> {
        match goal {
            Goal::Log | Goal::Enforce => self.forward(goal, signing),
            Goal::Undo => self.back(),
        }
    }

    fn forward(&self, goal: Goal, signing: &Signing) -> Vec<Step> {
        let mut steps = Vec::new();
        let (key, certificate) = self.keys(signing);
        if signing.given.is_none() && !key.exists() {
            let private = self.path(PRIVATE);
            steps.push(Step::Private(private.clone()));
            steps.push(Step::MakeKeys {
                directory: private,
                unencrypted: signing.unencrypted,
            });
        }
        if signing.enrol {
            steps.push(Step::Enrol(self.authority()));
        }
        steps.push(Step::Copy(certificate.clone(), self.path(CERTIFICATE)));
        steps.push(Step::Sign(Signatures {
            policy: self.policy(),
            key,
            certificate,
            named: signing.named.clone(),
        }));
        for kernel in &self.kernels {
            let initramfs = self.initramfs(kernel);
            let mut kept = initramfs.clone().into_os_string();
            kept.push(".before-ima-init");
            steps.push(Step::Keep(initramfs, kept.into()));
        }
        steps.push(Step::Write(self.path(CONFIG), self.configuration(goal)));
        if self.grub {
            match goal {
                Goal::Log => steps.push(Step::Write(self.path(GRUB), GRUB_LOG.to_owned())),
                Goal::Enforce | Goal::Undo => steps.push(Step::Remove(self.path(GRUB))),
            }
            steps.push(Step::Run(UPDATE_GRUB));
        }
        steps.push(self.rebuild());
        for kernel in &self.kernels {
            steps.push(Step::Check(BootCheck {
                initramfs: self.initramfs(kernel),
                root: self.root.clone(),
                kernel_config: self.path(&format!("boot/config-{}", kernel.release)),
            }));
        }
        steps
    }

    fn back(&self) -> Vec<Step> {
        let mut steps = vec![Step::Remove(self.path(CONFIG))];
        if self.grub {
            steps.push(Step::Remove(self.path(GRUB)));
            steps.push(Step::Run(UPDATE_GRUB));
        }
        steps.push(self.rebuild());
        steps
    }

    fn rebuild(&self) -> Step {
        Step::Run(self.tool.program())
    }

    fn initramfs(&self, kernel: &Kernel) -> PathBuf {
        self.path(&format!("boot/initrd.img-{}", kernel.release))
    }

    /// The configuration for the goal: that which is there, but for the two keys that set-up decides.
    fn configuration(&self, goal: Goal) -> String {
        let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
        let mut text: String = match &self.config {
            None => "# Documented in ima-init.conf(5). While this file is there, ima-init is put into every initramfs.\n".to_owned(),
            Some(text) => text
                .lines()
                .filter(|line| !["enforce", "keyring"].contains(&key(line).as_str()))
                .map(|line| format!("{line}\n"))
                .collect(),
        };
        text.push_str("keyring=");
        text.push_str(self.keyring.name());
        text.push_str(match goal {
            Goal::Enforce => "\nenforce=required\n",
            Goal::Log | Goal::Undo => "\nenforce=permissive\n",
        });
        text
    }
}

/// Returns the files that records in a log say were denied, or would have been, each once and with the kernel's cause. The
/// canary of ima-init, which is denied on purpose, is left out.
#[must_use]
pub fn denials(log: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for record in log.lines().filter_map(IntegrityRecord::find) {
        if !record.is_denial() || denial::is_canary(&record) {
            continue;
        }
        let Some(name) = record.name.as_deref() else {
            continue;
        };
        let entry = (String::from_utf8_lossy(name).into_owned(), record.cause);
        if !found.contains(&entry) {
            found.push(entry);
        }
    }
    found
}

const GRUB_LOG: &str = "\
# Written by imactl setup: nothing is denied, what would be is logged. imactl setup --enforce removes it.
GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX ima_appraise=log\"
";

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with these options in its kernel.
    fn system(options: &str, files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for path in [
            INIT,
            SWITCH_ROOT,
            POLICIES[1],
            "lib/modules/6.1/x",
            "boot/initrd.img-6.1",
        ] {
            put(path, "x");
        }
        put("boot/config-6.1", options);
        for path in files {
            put(path, "x");
        }
        directory
    }

    const STOCK: &str = "CONFIG_SECURITYFS=y\nCONFIG_IMA=y\nCONFIG_IMA_APPRAISE=y\n";
    const TOOLS: &str = "usr/sbin/update-initramfs";

    fn shown(system: &System, goal: Goal) -> Vec<String> {
        let root = format!("{}/", system.root.display());
        let steps = system.steps(goal, &Signing::default());
        steps
            .iter()
            .map(|step| step.to_string().replace(&root, "/"))
            .collect()
    }

    #[test]
    fn what_cannot_be_set_up_is_refused_with_the_remedy() {
        let without_appraisal = "CONFIG_SECURITYFS=y\nCONFIG_IMA=y\n";
        for (options, files, remedy) in [
            (STOCK, &[][..], "apt install initramfs-tools"),
            (without_appraisal, &[TOOLS], "install a kernel that has it"),
        ] {
            let directory = system(options, files);
            let fault = survey(directory.path()).unwrap_err();
            assert_eq!(fault.code(), Code::SetupUnfit);
            assert!(fault.to_string().contains(remedy), "{fault}");
        }
        for (missing, package) in [(INIT, "ima-init"), (SWITCH_ROOT, "ima-init-switch-root")] {
            let directory = system(STOCK, &[TOOLS]);
            std::fs::remove_file(directory.path().join(missing)).unwrap();
            let fault = survey(directory.path()).unwrap_err();
            assert!(
                fault
                    .to_string()
                    .contains(&format!("apt install {package}"))
            );
        }
    }

    #[test]
    fn the_initramfs_is_made_after_all_it_needs() {
        let directory = system(
            STOCK,
            &[TOOLS, "usr/sbin/update-grub", "boot/grub/grub.cfg"],
        );
        let found = survey(directory.path()).unwrap();
        assert_eq!(
            (found.tool, found.keyring),
            (Tool::InitramfsTools, Keyring::Untrusted)
        );
        let steps = shown(&found, Goal::Log);
        let place = |beginning: &str| {
            steps
                .iter()
                .position(|step| step.starts_with(beginning))
                .unwrap_or_else(|| panic!("{beginning}: {steps:#?}"))
        };
        let order = [
            "imactl keygen",
            "copy /etc/ima-init/private/ima.der",
            "imactl sign --incremental",
            "keep /boot/initrd.img-6.1 as /boot/initrd.img-6.1.before-ima-init",
            "write /etc/ima-init/ima-init.conf: keyring=_ima enforce=permissive",
            "write /etc/default/grub.d/ima-init.cfg",
            "update-grub",
            "update-initramfs",
            "imactl check",
        ]
        .map(place);
        assert!(order.is_sorted(), "{steps:#?}");
        let enforce = shown(&found, Goal::Enforce);
        assert!(enforce.contains(&"remove /etc/default/grub.d/ima-init.cfg".to_owned()));
        assert_eq!(
            shown(&found, Goal::Undo),
            [
                "remove /etc/ima-init/ima-init.conf",
                "remove /etc/default/grub.d/ima-init.cfg",
                "update-grub",
                "update-initramfs -u -k all"
            ]
        );
    }

    /// A program in /home or /usr/local that nobody names is not signed: whoever put it there is not known.
    #[test]
    fn what_packages_brought_is_signed_and_what_is_named() {
        let directory = system(STOCK, &[TOOLS, "home/user/program", "usr/local/bin/tool"]);
        let found = survey(directory.path()).unwrap();
        let signing = Signing {
            named: vec!["/usr/local/bin".into()],
            ..Signing::default()
        };
        for (signing, named) in [
            (Signing::default(), None),
            (signing, Some("/usr/local/bin")),
        ] {
            let steps = found.steps(Goal::Log, &signing);
            let (step, sign) = steps
                .iter()
                .find_map(|step| match step {
                    Step::Sign(sign) => Some((step, sign)),
                    _ => None,
                })
                .expect("a step that signs");
            assert_eq!(sign.named, named.map(PathBuf::from).as_slice());
            let command = step.command().unwrap();
            assert!(command.iter().any(|word| word == "--packages"));
            assert_eq!(
                command.last().unwrap(),
                named.map_or(sign.certificate.as_os_str(), OsStr::new)
            );
        }
    }

    #[test]
    fn a_command_that_is_shown_is_one_for_a_shell() {
        for (word, shown) in [
            ("--key", "--key"),
            ("/boot/initrd.img-6.1", "/boot/initrd.img-6.1"),
            ("/opt/a b", "'/opt/a b'"),
            ("pkcs11:token=ca;object=ca", "'pkcs11:token=ca;object=ca'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(OsStr::new(word)), shown);
        }
    }

    #[test]
    fn a_second_time_makes_no_second_keys_and_keeps_the_configuration() {
        let directory = system(STOCK, &[TOOLS, "etc/ima-init/private/ima.key"]);
        std::fs::write(
            directory.path().join(CONFIG),
            "# mine\non_failure=poweroff\n enforce = permissive\n",
        )
        .unwrap();
        let found = survey(directory.path()).unwrap();
        let steps = shown(&found, Goal::Enforce);
        assert!(!steps.iter().any(|step| step.contains("keygen")));
        assert_eq!(
            found.configuration(Goal::Enforce),
            "# mine\non_failure=poweroff\nkeyring=_ima\nenforce=required\n"
        );
    }

    #[test]
    fn denials_are_told_once_and_not_the_canary() {
        // The kernel writes a name with a blank in hexadecimal.
        let record = |head: &str, name: &str| {
            format!(
                "{head}(1.2:3): pid=1 uid=0 auid=0 ses=1 op=appraise_data cause=IMA-signature-required comm=\"sh\" name={name} dev=\"vda\" ino=2 res=0 errno=0\n"
            )
        };
        let kernel = ["\"canary\"", "2F7573722F62696E2F612062", "\"/opt/c\""]
            .map(|name| record("[ 1.2] audit: type=1800 audit", name))
            .concat();
        let auditd = ["2F7573722F62696E2F612062", "\"/opt/d\""]
            .map(|name| record("type=INTEGRITY_DATA msg=audit", name))
            .concat();
        let log = format!("{kernel}----\n{auditd}");
        let names: Vec<String> = denials(&log).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["/usr/bin/a b", "/opt/c", "/opt/d"]);
        assert_eq!(denials("audit: type=1800 \naudit: type=1800 name=\"\n"), []);
    }

    #[test]
    fn keys_of_the_owner_are_taken_under_secure_boot_by_kernels_that_have_them() {
        let owner = "CONFIG_INTEGRITY_TRUSTED_KEYRING=y\nCONFIG_INTEGRITY_MACHINE_KEYRING=y\n\
                     CONFIG_IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY=y\n";
        for (options, variable, taken) in [
            (owner, Some(&[6, 0, 0, 0, 1][..]), true),
            (owner, Some(&[6, 0, 0, 0, 0]), false),
            (owner, Some(&[6, 0, 0, 0, 1, 1]), false),
            (owner, Some(&[6, 0, 0, 0]), false),
            (owner, None, false),
            ("", Some(&[6, 0, 0, 0, 1]), false),
        ] {
            let directory = system(&format!("{STOCK}{options}"), &[TOOLS]);
            if let Some(variable) = variable {
                let path = directory.path().join(SECURE_BOOT);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, variable).unwrap();
            }
            let found = survey(directory.path()).unwrap();
            assert_eq!(found.takes_owner_keys(), taken, "{options}{variable:?}");
        }
    }

    #[test]
    fn a_ca_is_enrolled_only_where_every_kernel_takes_it() {
        use crate::key::{FileKey, KeyKind};
        use crate::x509::{Template, Usage};
        let key = FileKey::generate(KeyKind::P256).unwrap();
        let made = Template::ca("made").sign(&key, None, None).unwrap();
        let usage = Some(Usage {
            digital_signature: true,
            key_cert_sign: true,
        });
        let both = Template {
            usage,
            ..Template::ca("both")
        };
        let both = both.sign(&key, None, None).unwrap();
        let machine = "CONFIG_INTEGRITY_MACHINE_KEYRING=y\n\
                       CONFIG_IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY=y\n\
                       CONFIG_INTEGRITY_CA_MACHINE_KEYRING=y\n";
        let strict = format!("{machine}CONFIG_INTEGRITY_CA_MACHINE_KEYRING_MAX=y\n");
        for (options, certificate, taken) in [
            ("", None, false),
            (machine, None, true),
            (machine, Some(&both), true),
            (&strict, None, true),
            (&strict, Some(&made), true),
            (&strict, Some(&both), false),
        ] {
            let directory = system(&format!("{STOCK}{options}"), &[TOOLS]);
            if let Some(certificate) = certificate {
                let private = directory.path().join(PRIVATE);
                std::fs::create_dir_all(&private).unwrap();
                std::fs::write(private.join("ca.der"), certificate.der()).unwrap();
            }
            let found = survey(directory.path()).unwrap().check_owner_key();
            assert_eq!(found.is_ok(), taken, "{options}{certificate:?}: {found:?}");
            if let Err(fault) = found {
                assert_eq!(fault.code(), Code::SetupUnfit);
                assert!(fault.cause().contains("(MOK)"), "{fault}");
            }
        }
    }

    #[test]
    fn the_ca_is_enrolled_when_it_is_made_and_before_anything_else_changes() {
        let directory = system(STOCK, &[TOOLS]);
        let found = survey(directory.path()).unwrap();
        let signing = Signing {
            enrol: true,
            ..Signing::default()
        };
        let steps = found.steps(Goal::Log, &signing);
        let ca = directory.path().join("etc/ima-init/private/ca.der");
        assert!(matches!(&steps[1], Step::MakeKeys { .. }), "{steps:?}");
        assert_eq!(steps[2], Step::Enrol(ca.clone()));
        assert_eq!(
            steps[2].command().unwrap(),
            ["mokutil".into(), "--import".into(), ca.into_os_string()]
        );
    }

    #[test]
    fn the_trusted_keyring_is_used_where_every_kernel_has_it() {
        let options = format!("{STOCK}CONFIG_INTEGRITY_TRUSTED_KEYRING=y\n");
        let directory = system(&options, &["usr/bin/dracut"]);
        let found = survey(directory.path()).unwrap();
        assert_eq!(
            (found.tool, found.keyring),
            (Tool::Dracut, Keyring::Trusted)
        );
        assert!(shown(&found, Goal::Undo).contains(&"dracut --force --regenerate-all".to_owned()));
    }
}
