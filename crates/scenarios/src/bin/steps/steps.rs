//! The steps, in their order. To add one, add a row to [`STEPS`].

use std::collections::BTreeSet;

use crate::Error;
use crate::checks;
use crate::run::Context;

/// What a step needs, and so when it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A check of the source. Not run if tests are chosen by name.
    Check,
    /// Tests that start no machine.
    Test,
    /// Tests that start machines.
    Boot,
    /// A whole system. Not run if tests are chosen by name.
    System,
}

/// What a step does.
#[derive(Debug, Clone, Copy)]
pub enum Action {
    /// Runs a command: program and arguments, and further arguments with `--all`.
    Command(&'static [&'static str], &'static [&'static str]),
    /// Calls a function.
    Call(fn(&Context) -> Result<Ended, Error>),
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It passed.
    Passed,
    /// It failed; its output says why.
    Failed,
    /// It was not run, because of this.
    Skipped(String),
}

impl Ended {
    /// Returns [`Ended::Passed`] if this is true.
    pub fn when(passed: bool) -> Self {
        if passed { Self::Passed } else { Self::Failed }
    }
}

/// A step.
#[derive(Debug)]
pub struct Step {
    /// The name for `--step`.
    pub name: &'static str,
    /// A line about it.
    pub about: &'static str,
    /// When it is run.
    pub kind: Kind,
    /// What it does.
    pub action: Action,
    /// Whether it needs root.
    pub root: bool,
    /// Whether it runs beside the steps that follow, with its output at the end. A machine keeps one processor busy: two
    /// run at a time.
    pub beside: bool,
    /// The Debian packages that it needs, other than Rust and those that its script installs.
    pub packages: &'static [&'static str],
}

impl Step {
    const fn new(name: &'static str, about: &'static str, kind: Kind, action: Action) -> Self {
        Self {
            name,
            about,
            kind,
            action,
            root: false,
            beside: false,
            packages: &[],
        }
    }

    const fn with_packages(self, packages: &'static [&'static str]) -> Self {
        Self { packages, ..self }
    }

    const fn for_root(self) -> Self {
        Self { root: true, ..self }
    }

    const fn beside(self) -> Self {
        Self {
            beside: true,
            ..self
        }
    }
}

/// The programs whose results the tests are compared with.
const REFERENCES: &[&str] = &[
    "cpio",
    "openssl",
    "ima-evm-utils",
    "fsverity",
    "softhsm2",
    "attr",
    "e2fsprogs",
    "erofs-utils",
    "keyutils",
    "squashfs-tools",
    "squashfs-tools-ng",
    "cryptsetup-bin",
    "rpm",
    "fdisk",
    "expect",
    "libarchive-tools",
    "libcap2-bin",
    "ostree",
    "rsync",
    "umoci",
    "xz-utils",
    "zstd",
    "lz4",
    "lzop",
    "bzip2",
    "swtpm",
    "swtpm-tools",
    "systemd",
    "tpm2-tools",
    "libtss2-tcti-swtpm0",
    "shellcheck",
    "binutils",
    "sbsigntool",
    "xxd",
    "systemd-boot-efi",
];

/// What the boots need beside them.
const MACHINES: &[&str] = &[
    "openssl",
    "ima-evm-utils",
    "fsverity",
    "attr",
    "e2fsprogs",
    "erofs-utils",
    "squashfs-tools",
    "squashfs-tools-ng",
    "cryptsetup-bin",
    "fdisk",
    "xz-utils",
    "zstd",
    "lz4",
    "lzop",
    "bzip2",
    "qemu-system-arm",
    "qemu-system-misc",
    "qemu-system-x86",
    "qemu-system-common",
    "swtpm",
    "swtpm-tools",
    "systemd",
    "tpm2-tools",
    "libtss2-tcti-swtpm0",
    "util-linux",
    "busybox-static",
    "rpm",
    "swupdate",
    "rauc",
    "dbus-daemon",
    "btrfs-progs",
    "xfsprogs",
    "f2fs-tools",
    "dosfstools",
    "mtools",
    "efitools",
    "uuid-runtime",
    "mtd-utils",
    "ovmf",
    "shim-unsigned",
    "systemd-boot-efi",
    "grub-common",
    "grub-pc-bin",
    "nfs-ganesha-vfs",
    "device-tree-compiler",
    "libengine-pkcs11-openssl",
    "qemu-system-arm",
    "softhsm2",
    "u-boot-qemu",
    "u-boot-tools",
    "gnutls-bin",
    "python3-alembic",
    "python3-cryptography",
    "python3-gpg",
    "python3-jinja2",
    "python3-jsonschema",
    "python3-lark",
    "python3-packaging",
    "python3-pip",
    "python3-psutil",
    "python3-pyasn1",
    "python3-pyasn1-modules",
    "python3-requests",
    "python3-sqlalchemy",
    "python3-tornado",
    "python3-typing-extensions",
    "python3-yaml",
    "python3-zmq",
];

/// All steps.
pub const STEPS: [Step; 19] = [
    Step::new(
        "formatting",
        "rustfmt would change nothing",
        Kind::Check,
        Action::Command(&["cargo", "fmt", "--all", "--check"], &[]),
    ),
    Step::new(
        "scripts",
        "shellcheck finds nothing in the shell scripts",
        Kind::Check,
        Action::Call(checks::scripts),
    )
    .with_packages(&["shellcheck", "git"]),
    Step::new(
        "clippy",
        "clippy finds nothing (installed with rustup if it is missing)",
        Kind::Check,
        Action::Command(&["tests/clippy"], &[]),
    ),
    Step::new(
        "rustdoc",
        "the documentation of the code has no warning",
        Kind::Check,
        Action::Call(checks::documentation),
    ),
    Step::new(
        "dependencies",
        "licences, sources and duplicates of the dependencies (cargo-deny, built into the cache)",
        Kind::Check,
        Action::Command(&["tests/cargo-deny", "check", "licenses", "bans", "sources"], &[]),
    ),
    Step::new(
        "publication",
        "the crates can be packed for crates.io, each with the versions of the others",
        Kind::Check,
        Action::Command(
            &[
                "cargo",
                "publish",
                "--workspace",
                "--dry-run",
                "--no-verify",
                "--allow-dirty",
                "--locked",
            ],
            &[],
        ),
    ),
    Step::new(
        "advisories",
        "security advisories of the dependencies; skipped if their database cannot be fetched",
        Kind::Check,
        Action::Call(checks::advisories),
    ),
    Step::new(
        "units",
        "tests of the crates, without a machine",
        Kind::Test,
        Action::Call(checks::units),
    )
    .with_packages(REFERENCES),
    Step::new(
        "emulated",
        "the tests of crates/ima on big-endian and 32-bit processors (tests/emulated); with --all",
        Kind::Check,
        Action::Call(checks::emulated),
    )
    .with_packages(&["cryptsetup-bin"]),
    Step::new(
        "evmctl",
        "the tests of ima-evm-utils with imactl in evmctl's place",
        Kind::Check,
        Action::Command(&["tests/ima-evm-utils"], &[]),
    )
    .with_packages(REFERENCES),
    Step::new(
        "build",
        "kernels and programs for the boots",
        Kind::Boot,
        Action::Call(checks::build),
    ),
    Step::new(
        "boots",
        "machines that must boot or be refused, are killed, or whose system calls fail; with tables",
        Kind::Boot,
        Action::Call(checks::boots),
    )
    .with_packages(MACHINES),
    Step::new(
        "debian-setup",
        "a Debian system that is set up over its console (qemu/debian-setup); runs beside the next steps",
        Kind::System,
        Action::Command(&["qemu/debian-setup"], &["--all"]),
    )
    .for_root()
    .beside(),
    Step::new(
        "main-job",
        "a signed Debian root with systemd (qemu/boot)",
        Kind::System,
        Action::Command(&["qemu/boot"], &[]),
    ),
    Step::new(
        "secure-boot",
        "the same root from a signed unified kernel image under Secure Boot, and a changed one (qemu/boot --secure-boot)",
        Kind::System,
        Action::Command(&["qemu/boot", "--secure-boot"], &[]),
    ),
    Step::new(
        "packages",
        "packages are built, judged by lintian, installed and removed in a chroot (tests/packages)",
        Kind::System,
        Action::Command(&["nice", "tests/packages"], &[]),
    )
    .for_root(),
    Step::new(
        "release",
        "a release, made twice from two directories, has the same files bit for bit (tests/release); with --all",
        Kind::System,
        Action::Call(checks::release),
    ),
    Step::new(
        "debian",
        "Debian systems booted through initramfs-tools and dracut's systemd (qemu/debian; every variant, and Debian 13, with --all)",
        Kind::System,
        Action::Call(checks::debian),
    )
    .for_root(),
    Step::new(
        "debian-refusals",
        "Debian systems with something changed (qemu/debian --refusals; --all-refusals with --all)",
        Kind::System,
        Action::Call(checks::debian_refusals),
    )
    .for_root(),
];

/// Returns the Debian packages of these steps, each once.
pub fn packages(steps: &[&Step]) -> BTreeSet<&'static str> {
    steps
        .iter()
        .flat_map(|step| step.packages.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_a_name_of_its_own() {
        let names: BTreeSet<_> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), STEPS.len());
        for name in names {
            let plain = name
                .chars()
                .all(|character| character.is_ascii_lowercase() || character == '-');
            assert!(plain, "{name}");
        }
    }

    #[test]
    fn the_scripts_that_are_run_exist() {
        let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut scripts = 0;
        for step in &STEPS {
            let Action::Command(command, _) = step.action else {
                continue;
            };
            for word in command.iter().filter(|word| word.contains('/')) {
                assert!(top.join(word).is_file(), "{}: {word}", step.name);
                scripts += 1;
            }
        }
        assert!(scripts >= 7, "{scripts}");
    }
}
