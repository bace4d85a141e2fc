//! `imactl keylime`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ima::hash::HashAlgorithm;
use ima::layout::{self, Purpose};
use imactl::file::read_bounded;
use imactl::image;
use imactl::keylime::RuntimePolicy;
use imactl::tree::Tree;

use super::check::{self, MAX_IMAGE};
use super::options;
use super::outcome::{Outcome, Result};
use super::output::{self, Progress};

/// The keyring of the CAs in the kernel.
const BUILTIN: &str = ".builtin_trusted_keys";

/// Write what Keylime verifies devices with
#[derive(Debug, Subcommand)]
pub enum KeylimeCommand {
    Policy(Policy),
}

impl KeylimeCommand {
    pub fn run(self) -> Result {
        match self {
            Self::Policy(command) => command.run(),
        }
    }
}

/// Write a runtime policy: what the measurement list of a device that boots this root may contain
///
/// Accepted are the digests of all files of the root under their names, the keys that the kernel and the initramfs bring, and, unless
/// --digests-only is given, every file that is signed by a key of the initramfs. Keylime does not know the policy of the kernel: a file
/// of the root that is signed and older is accepted too then, under any name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl keylime policy --from root.img --kernel bzImage --initramfs initramfs.img --out policy.json
  imactl keylime policy --from rootfs --initramfs initramfs.img --digests-only --exclude '/var/lib/.*' --out policy.json
  keylime_tenant -c add -u UUID -t ADDRESS --runtime-policy policy.json")]
pub struct Policy {
    /// Directory, tar archive, or image (ext4, squashfs, erofs); a later one is laid over the earlier ones
    #[arg(long = "from", value_name = "SOURCE", required = true)]
    sources: Vec<PathBuf>,
    /// Initramfs, whose certificates the init puts onto keyrings
    #[arg(long, value_name = "FILE")]
    initramfs: Option<PathBuf>,
    /// Kernel, whose CAs are measured; extra-cert.json of qemu/build-kernel beside it says where they are
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Certificate whose signatures are accepted; may be repeated, and is added to those of the initramfs
    #[arg(long = "cert", value_name = "FILE", conflicts_with = "digests_only")]
    certificates: Vec<PathBuf>,
    /// Accept no file for its signature, and any key on a keyring: Keylime would accept what that key has signed
    #[arg(long)]
    digests_only: bool,
    /// Algorithm that the kernel measures files with (ima_hash=): sha1, sha256, sha384 or sha512
    #[arg(long, value_name = "ALGO", default_value = "sha256")]
    hash: HashAlgorithm,
    /// The first entry of the list, in hexadecimal, if Keylime does not compute it from the firmware's event log; may be repeated
    #[arg(long, value_name = "DIGEST")]
    boot_aggregate: Vec<String>,
    /// Command line that a kernel is started with by kexec; may be repeated
    #[arg(long, value_name = "TEXT")]
    kexec_command_line: Vec<String>,
    /// Names that are accepted whatever was measured: a regular expression of Python's; may be repeated
    #[arg(long, value_name = "REGEX")]
    exclude: Vec<String>,
    /// Directory that another initramfs mounts the root on, such as /sysroot or /root; may be repeated
    #[arg(long, value_name = "DIRECTORY", default_value = layout::ROOT)]
    mount_point: Vec<String>,
    /// Policy to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Policy {
    fn run(self) -> Result {
        let mut policy = RuntimePolicy::new(self.hash)?;
        if self.digests_only {
            policy = policy.with_digests_alone();
        }
        policy.accept_content(layout::CANARY, layout::CANARY_CONTENT);
        for path in &self.certificates {
            for certificate in options::certificates(path)? {
                policy.accept_signatures(&certificate)?;
            }
        }
        if let Some(path) = &self.initramfs {
            self.accept_initramfs(&mut policy, path)?;
        }
        if let Some(path) = &self.kernel {
            let image = read_bounded(path, MAX_IMAGE)?;
            for certificate in check::in_kernel(path, &image)? {
                policy.accept_key(BUILTIN, &certificate);
            }
        }
        for digest in &self.boot_aggregate {
            policy.accept_boot_aggregate(digest)?;
        }
        for line in &self.kexec_command_line {
            policy.accept_buffer("kexec-cmdline", line.as_bytes());
        }
        for expression in &self.exclude {
            policy.exclude(expression);
        }
        let mut tree = Tree::new();
        for source in &self.sources {
            tree.overlay(image::read(source)?.tree)?;
        }
        let progress = Progress::new("hashing", tree.len() as u64);
        let left_out = policy.accept_files(&tree, &self.mount_point, &|| progress.step())?;
        progress.finish();
        if left_out > 0 {
            output::warn(format_args!(
                "{left_out} names are not UTF-8 and cannot be in a policy of Keylime"
            ));
        }
        let mut text = serde_json::to_vec_pretty(&policy.to_json()?).unwrap_or_default();
        text.push(b'\n');
        imactl::file::write(&self.out, &text, 0o644, true)?;
        output::line(format_args!(
            "{}: {} names of files",
            self.out.display(),
            policy.len()
        ))?;
        Ok(Outcome::Good)
    }

    /// Accepts that the init puts the certificates of the initramfs onto their keyrings, and what those for files have signed.
    fn accept_initramfs(&self, policy: &mut RuntimePolicy, path: &Path) -> Result<()> {
        let initramfs = check::read_initramfs(path)?;
        let keyring = initramfs.configuration()?.keyring;
        for (purpose, name) in [
            (Purpose::Ima, keyring.name()),
            (Purpose::Evm, ".evm"),
            (Purpose::Verity, ".dm-verity"),
        ] {
            for (_, certificates) in initramfs.certificates(purpose) {
                for certificate in certificates? {
                    policy.accept_key(name, &certificate);
                    if matches!(purpose, Purpose::Ima) {
                        policy.accept_signatures(&certificate)?;
                    }
                }
            }
        }
        Ok(())
    }
}
