//! The options that name what a machine boots, for commands that say what it can measure

use std::path::PathBuf;

use clap::Args;
use ima::certificate::Certificate;
use ima::hash::HashAlgorithm;
use ima::layout::{self, Purpose};
use imactl::file::read_bounded;
use imactl::image;
use imactl::initramfs::InitramfsBuilder;
use imactl::prediction::{self, Measured};
use imactl::tree::Tree;

use super::check::{self, MAX_IMAGE};
use super::output::Progress;

/// The keyring of the CAs in the kernel.
const BUILTIN: &str = ".builtin_trusted_keys";

#[derive(Debug, Args)]
pub struct Booted {
    /// Directory, tar archive, or image (ext4, squashfs, erofs); a later one is laid over the earlier ones
    #[arg(long = "from", value_name = "SOURCE", required = true)]
    sources: Vec<PathBuf>,
    /// Initramfs, whose certificates the init puts onto keyrings
    #[arg(long, value_name = "FILE")]
    initramfs: Option<PathBuf>,
    /// Kernel, whose CAs are measured; extra-cert.json of qemu/build-kernel beside it says where they are
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Algorithm that the kernel measures files with (ima_hash=): sha1, sha256, sha384 or sha512
    #[arg(long, value_name = "ALGO", default_value = "sha256")]
    hash: HashAlgorithm,
    /// Command line that a kernel is started with by kexec; may be repeated
    #[arg(long, value_name = "TEXT")]
    kexec_command_line: Vec<String>,
    /// Directory that another initramfs mounts the root on, such as /sysroot or /root; may be repeated
    #[arg(long, value_name = "DIRECTORY", default_value = layout::ROOT)]
    mount_point: Vec<String>,
}

impl Booted {
    /// The algorithm that the kernel measures files with.
    pub const fn hash(&self) -> HashAlgorithm {
        self.hash
    }

    fn initramfs(&self) -> imactl::Result<Option<InitramfsBuilder>> {
        self.initramfs
            .as_deref()
            .map(check::read_initramfs)
            .transpose()
    }

    /// The certificates for files in the initramfs.
    pub fn certificates(&self) -> imactl::Result<Vec<Certificate>> {
        let Some(initramfs) = self.initramfs()? else {
            return Ok(Vec::new());
        };
        let certificates = initramfs.certificates(Purpose::Ima).into_iter();
        let certificates = certificates.map(|(_, certificates)| certificates);
        Ok(certificates.collect::<imactl::Result<Vec<_>>>()?.concat())
    }

    /// Calls `measured` with all that a machine can measure that boots this.
    pub fn predict(
        &self,
        measured: &mut dyn FnMut(Measured<'_>) -> imactl::Result<()>,
    ) -> imactl::Result<()> {
        if let Some(initramfs) = self.initramfs()? {
            prediction::initramfs(&initramfs, self.hash, measured)?;
        }
        if let Some(path) = &self.kernel {
            let image = read_bounded(path, MAX_IMAGE)?;
            for certificate in check::in_kernel(path, &image)? {
                measured(Measured::Key {
                    keyring: BUILTIN,
                    certificate: &certificate,
                })?;
            }
        }
        for line in &self.kexec_command_line {
            measured(Measured::Buffer {
                name: "kexec-cmdline",
                content: line.as_bytes(),
            })?;
        }
        let mut tree = Tree::new();
        for source in &self.sources {
            tree.overlay(image::read(source)?.tree)?;
        }
        let progress = Progress::new("hashing", tree.len() as u64);
        let step = || progress.step();
        prediction::files(&tree, &self.mount_point, self.hash, &step, measured)?;
        progress.finish();
        Ok(())
    }
}
