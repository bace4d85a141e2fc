//! What is built outside of cargo and shared through the cache: kernels, shipped programs.

use ima::certificate::Certificate;
use ima::release::Release;
use ima_testbed::Architecture;
use imactl::kernel::check::KernelConfig;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

use imactl::kernel::add_ca::Symbols;
use imactl::kernel::release::KernelRelease;

use crate::keys::CA;

/// What lives as long as the process, and is removed at its end.
static SCRATCH: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boots");
    // What an earlier process left is of keys that nobody has any more.
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("a directory for the boots");
    directory
});

/// A directory for files of this process.
pub fn scratch() -> &'static Path {
    &SCRATCH
}

pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the project.
pub fn source(path: &str) -> Vec<u8> {
    std::fs::read(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The paths that a script of the project prints.
fn paths_of(script: &str, arguments: &[&str]) -> Vec<PathBuf> {
    let output = Command::new(project().join(script))
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    assert!(
        output.status.success(),
        "{script} {arguments:?}: {}",
        output.status
    );
    let text = String::from_utf8(output.stdout).expect("paths in UTF-8");
    text.lines().map(PathBuf::from).collect()
}

fn program(paths: &[PathBuf], name: &str) -> Vec<u8> {
    let path = paths
        .iter()
        .find(|path| path.file_name().is_some_and(|have| have == name))
        .unwrap_or_else(|| panic!("{name} is not among {paths:?}"));
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The programs as they are shipped.
pub struct Programs {
    pub init: Vec<u8>,
    pub switch_root: Vec<u8>,
    pub guest: Vec<u8>,
}

impl Programs {
    fn build(arguments: &[&str]) -> Programs {
        let shipped = paths_of("build/ship", arguments);
        Programs {
            init: program(&shipped, "ima-init"),
            switch_root: program(&shipped, "switch_root"),
            guest: program(&shipped, "guest"),
        }
    }
}

pub static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| Programs::build(&["guest"]));

/// Those for 64-bit Arm.
static AARCH64_PROGRAMS: LazyLock<Programs> =
    LazyLock::new(|| Programs::build(&["--target", "aarch64", "guest"]));

/// Those for 32-bit Arm.
static ARMV7_PROGRAMS: LazyLock<Programs> =
    LazyLock::new(|| Programs::build(&["--target", "armv7", "guest"]));

/// Those for RISC-V.
static RISCV64_PROGRAMS: LazyLock<Programs> =
    LazyLock::new(|| Programs::build(&["--target", "riscv64", "guest"]));

/// An init without any of the features that can be left out. It is built after [`PROGRAMS`], whose init it replaces in the directory.
pub static PLAIN_INIT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    LazyLock::force(&PROGRAMS);
    program(&paths_of("build/ship", &["--features", ""]), "ima-init")
});

/// The device tree of a Raspberry Pi 3.
pub fn device_tree() -> PathBuf {
    let path = paths_of("tests/device-tree", &[]).pop();
    path.expect("a device tree")
}

/// The directory with virt-firmware, for `PYTHONPATH`.
pub fn virt_firmware() -> PathBuf {
    let directory = paths_of("tests/virt-firmware", &[]).pop();
    directory.expect("a directory")
}

/// util-linux's switch_root, static.
pub fn util_linux_switch_root() -> Vec<u8> {
    program(
        &paths_of("tests/util-linux-switch-root", &[]),
        "switch_root.static",
    )
}

/// Busybox, static: its applet is chosen by the name it is started under.
pub fn busybox() -> Vec<u8> {
    let path = "/bin/busybox";
    std::fs::read(path)
        .unwrap_or_else(|error| panic!("{path}: {error}; apt-get install busybox-static"))
}

/// The environment variable with the series of the default kernel, such as `7.2`, in the place of the oldest one that is tested.
const SERIES: &str = "BOOTS_SERIES";

/// A kernel of qemu/build-kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// With everything the init can use.
    #[default]
    Full,
    /// Without IMA.
    NoIma,
    /// Without securityfs, and so without IMA.
    NoSecurityfs,
    /// With IMA that measures and does not appraise.
    NoAppraise,
    /// With IMA and without `.ima`.
    NoImaKeyring,
    /// The policy can be written once and not be read.
    WriteOnce,
    /// Takes only policies that are signed files.
    RequirePolicySignatures,
    /// With the security module lockdown.
    Lockdown,
    /// With a dm-verity that has no signatures of root hashes and no error correction.
    PlainVerity,
    /// With UEFI, Secure Boot and the keyrings of the firmware's certificates.
    Efi,
    /// As `Efi`, with the kernel's own rules under Secure Boot.
    ArchPolicy,
    /// As `Efi`, with fewer keys of the machine's owner as CAs, and the drivers of disks as modules.
    Strict,
    /// With a command line that was compiled in, and takes no other.
    FixedCommandLine,
    /// With a CA that was compiled in.
    BuiltInCa,
    /// Linux 6.1, with fewer drivers.
    Older,
    /// Linux 7.2, with fewer drivers.
    Newer,
    /// Linux 7.3, with fewer drivers.
    Newest,
    /// For 64-bit Arm.
    Aarch64,
    /// For a Raspberry Pi.
    RaspberryPi,
    /// For 32-bit Arm.
    Armv7,
    /// For RISC-V.
    Riscv64,
}

impl Kernel {
    pub fn directory(self) -> PathBuf {
        static BUILT: LazyLock<Mutex<HashMap<Kernel, PathBuf>>> = LazyLock::new(Mutex::default);
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        let build = || {
            let series = std::env::var(SERIES).unwrap_or_default();
            let fragments: &[&str] = match self {
                Kernel::Full if !series.is_empty() => &["--series", &series],
                Kernel::Full => &[],
                Kernel::NoIma => &[
                    "--fragment",
                    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boots/no-ima.config"),
                ],
                Kernel::NoSecurityfs => &[
                    "--fragment",
                    concat!(
                        env!("CARGO_MANIFEST_DIR"),
                        "/tests/boots/no-securityfs.config"
                    ),
                ],
                Kernel::NoAppraise => &["--fragment", "no-appraise"],
                Kernel::NoImaKeyring => &["--fragment", "no-ima-keyring"],
                Kernel::WriteOnce => &["--fragment", "write-once"],
                Kernel::RequirePolicySignatures => &["--fragment", "require-policy-sigs"],
                Kernel::Lockdown => &["--fragment", "lockdown"],
                Kernel::PlainVerity => &["--fragment", "plain-verity"],
                Kernel::Efi => &["--fragment", "efi"],
                Kernel::ArchPolicy => &[
                    "--fragment",
                    "efi",
                    "--fragment",
                    concat!(
                        env!("CARGO_MANIFEST_DIR"),
                        "/tests/boots/arch-policy.config"
                    ),
                ],
                Kernel::Strict => &[
                    "--fragment",
                    "efi",
                    "--fragment",
                    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boots/strict.config"),
                ],
                Kernel::FixedCommandLine => &["--fragment", "fixed-command-line"],
                Kernel::BuiltInCa => &[
                    "--ca",
                    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boots/built-in-ca.pem"),
                ],
                Kernel::Older => &["--series", "6.1", "--lean"],
                Kernel::Newer => &["--series", "7.2", "--lean"],
                Kernel::Newest => &["--series", "7.3", "--lean"],
                Kernel::Aarch64 => &["--architecture", "aarch64"],
                Kernel::RaspberryPi => &[
                    "--architecture",
                    "aarch64",
                    "--fragment",
                    "board/raspberry-pi",
                ],
                Kernel::Armv7 => &["--architecture", "armv7"],
                Kernel::Riscv64 => &["--architecture", "riscv64"],
            };
            paths_of("qemu/build-kernel", fragments)
                .pop()
                .expect("the kernel's directory")
        };
        built.entry(self).or_insert_with(build).clone()
    }

    /// The architecture that it is for.
    pub fn architecture(self) -> Architecture {
        match self {
            Kernel::Aarch64 | Kernel::RaspberryPi => Architecture::Aarch64,
            Kernel::Armv7 => Architecture::Armv7,
            Kernel::Riscv64 => Architecture::Riscv64,
            _ => Architecture::X86_64,
        }
    }

    /// The programs for its processor.
    pub fn programs(self) -> &'static Programs {
        match self {
            Kernel::Aarch64 | Kernel::RaspberryPi => &AARCH64_PROGRAMS,
            Kernel::Armv7 => &ARMV7_PROGRAMS,
            Kernel::Riscv64 => &RISCV64_PROGRAMS,
            _ => &PROGRAMS,
        }
    }

    /// Its image, with the tests' CA on `.builtin_trusted_keys`.
    pub fn with_ca(self) -> PathBuf {
        static MADE: LazyLock<Mutex<HashMap<Kernel, PathBuf>>> = LazyLock::new(Mutex::default);
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let result = scratch().join(format!("kernel-{self:?}"));
            add_ca(self, &result);
            result
        };
        made.entry(self).or_insert_with(make).clone()
    }

    /// Its image, which trusts no CA.
    pub fn without_ca(self) -> PathBuf {
        self.directory().join(self.architecture().kernel_image())
    }

    /// The CAs that were compiled into it.
    pub fn authorities(self) -> Vec<Certificate> {
        let image = std::fs::read(self.without_ca()).expect("the kernel");
        let symbols = std::fs::read(self.directory().join("extra-cert.json")).expect("a file");
        let symbols = Symbols::from_json(&symbols).expect("where the list of CAs is");
        let found = imactl::kernel::add_ca::authorities(&image, Some(&symbols));
        found.expect("the CAs of the kernel")
    }

    /// The options it was built with.
    pub fn configuration(self) -> KernelConfig {
        let text =
            std::fs::read(self.directory().join("config")).expect("the kernel's configuration");
        KernelConfig::parse(&text).expect("the kernel's configuration")
    }

    /// Which release it is.
    pub fn release(self) -> Option<KernelRelease> {
        static FOUND: LazyLock<Mutex<HashMap<Kernel, Option<KernelRelease>>>> =
            LazyLock::new(Mutex::default);
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        let find = || {
            let image = std::fs::read(self.without_ca()).expect("the kernel");
            KernelRelease::in_image(&image).expect("the kernel's release")
        };
        found.entry(self).or_insert_with(find).clone()
    }

    /// A module of it, by name.
    pub fn module(self, name: &str) -> Vec<u8> {
        let path = self.directory().join(format!("modules/{name}.ko"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A module and those it needs, as file names and contents in the order in which they are loaded.
    pub fn modules_for(self, name: &str) -> Vec<(String, Vec<u8>)> {
        let found = imactl::modules::find(&self.directory().join("modules"), &[name.to_owned()])
            .expect("modules");
        found
            .into_iter()
            .map(|module| (module.file_name, module.content))
            .collect()
    }
}

fn add_ca(kernel: Kernel, result: &Path) {
    let read = |path: &Path| std::fs::read(path).expect("a file of the kernel");
    let symbols = read(&kernel.directory().join("extra-cert.json"));
    let symbols = Symbols::from_json(&symbols).expect("where the room is");
    let made = imactl::kernel::add_ca::add_ca(
        &read(&kernel.without_ca()),
        std::slice::from_ref(&CA.certificate),
        Some(&symbols),
    );
    std::fs::write(result, made.expect("a kernel with the CA").image).expect("a kernel");
}

/// Debian's own kernel, its release and its configuration.
pub fn debian_kernel() -> (PathBuf, Release, KernelConfig) {
    let directory = paths_of("qemu/debian-kernel", &[])
        .pop()
        .expect("the kernel's directory");
    let image = directory.join("vmlinuz");
    let bytes = std::fs::read(&image).expect("the kernel");
    let release = KernelRelease::in_image(&bytes).expect("the kernel's release");
    let number = release.and_then(|release| release.number());
    let config = std::fs::read(directory.join("config")).expect("the kernel's configuration");
    let config = KernelConfig::parse(&config).expect("the kernel's configuration");
    (image, number.expect("the kernel's release"), config)
}

/// The policy parsers of newer kernels, each with its release.
pub fn policy_parsers() -> Vec<(PathBuf, Release)> {
    let directories = paths_of("qemu/policy-parsers", &[]).into_iter();
    directories
        .map(|directory| {
            let release = std::fs::read_to_string(directory.join("release")).expect("the release");
            let release = release.trim().parse().expect("the release");
            (directory.join("parser"), release)
        })
        .collect()
}
