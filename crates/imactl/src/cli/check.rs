//! `imactl check`

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use ima::certificate::Certificate;
use ima::fault::{Code, Fault, Severity};
use imactl::check::{self, BootImage, Denied, Findings, Inputs, Root, RootChoice};
use imactl::file::{in_file, read_bounded};
use imactl::initramfs::InitramfsBuilder;
use imactl::kernel::add_ca::{self, Symbols};
use imactl::kernel::check::KernelConfig;
use imactl::kernel::command_line::FixedBy;
use imactl::kernel::release::{self, KernelRelease};
use imactl::setup::BootCheck;
use imactl::uki::{UnifiedKernelImage, pe};
use serde_json::json;

use super::options::{self, FileSystemOptions, OutputOptions};
use super::outcome::{Outcome, Result};
use super::output;

pub(super) const MAX_IMAGE: u64 = 1 << 30;

/// Find on the desk what the init would refuse on the device
///
/// Goes through the boot as the init would: configuration, command line, policy, certificates up to the CA in the kernel, the
/// root, switch_root, init with its interpreter and libraries, and every file of the root that the policy appraises. What is
/// wrong is reported with the init's own codes, in the order of the boot; then what systemd starts on the way to its default target
/// and the policy would deny. What is not given is not checked. Exit status 1 if the machine would not boot, or systemd would
/// not start all of that.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl check --initramfs initramfs.img --root root.img --kernel bzImage --append 'root=LABEL=root ro'
  imactl check --initramfs initramfs.img --root rootfs/ --ca ca.der --kernel-config linux/.config
  imactl check --initramfs initramfs.img --root root.tar --ca ca.der --json | jq .boots
  imactl check --uki linux.efi --secure-boot-cert db.crt --root root.img --ca ca.der --kernel-config config-6.12")]
pub struct Check {
    /// A unified kernel image, in place of --kernel, --initramfs and --append
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initramfs", "append"])]
    uki: Option<PathBuf>,
    /// Certificates in the firmware's database (db), DER, PEM or EFI signature lists: the firmware starts the unified kernel image only
    /// with a signature by one of their keys. With shim, also the keys of the machine's owner (MOK)
    #[arg(
        long = "secure-boot-cert",
        value_name = "FILE",
        requires = "uki",
        conflicts_with_all = ["kernel", "initramfs", "append"]
    )]
    secure_boot_certificates: Vec<PathBuf>,
    /// What Secure Boot refuses whoever signed it: the firmware's dbx as EFI signature lists (as efivarfs shows it, .esl or .auth),
    /// certificates, SHA-256 digests of images in hexadecimal, or shim's list of the oldest generations (SbatLevel)
    #[arg(
        long = "secure-boot-revoked",
        value_name = "FILE",
        requires = "uki",
        conflicts_with_all = ["kernel", "initramfs", "append"]
    )]
    secure_boot_revoked: Vec<PathBuf>,
    /// The initramfs, as the boot loader will load it (plain, or compressed with gzip, zstd, xz, lzma or lz4), or the directory
    /// that it is packed from; one of initramfs-tools or dracut with ima-init in it is known as such
    #[arg(long, value_name = "FILE", required_unless_present = "uki")]
    initramfs: Option<PathBuf>,
    /// The real root: an image (ext4, squashfs, erofs), the image of a whole disk with a GPT, a directory, or a tar archive with
    /// PAX attributes
    #[arg(long, value_name = "PATH")]
    root: Option<PathBuf>,
    /// The image with the root's hash tree, where ima-init.conf has verity= and the tree is on another disk than the root
    #[arg(long, value_name = "FILE", requires = "root")]
    hash_tree: Option<PathBuf>,
    /// The file with the signed root hash, where ima-init.conf has verity=signed and that is not on the root's disk
    #[arg(long, value_name = "FILE", requires = "root")]
    verity_signature: Option<PathBuf>,
    #[command(flatten)]
    filesystem: FileSystemOptions,
    /// The kernel: bzImage, vmlinux, or its .config. Of an image the CA certificates count, which needs extra-cert.json beside
    /// it, or symbols in it; and its configuration, if it was built with CONFIG_IKCONFIG
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Certificates of CAs in the kernel, in place of those in the image
    #[arg(long = "ca", value_name = "FILE")]
    authorities: Vec<PathBuf>,
    /// Keys of the machine's owner (MOK), DER or PEM: shim gives them to the kernel, which takes those that are CAs by its
    /// configuration. Beside the CAs in the kernel, or in place of those that are not known
    #[arg(long = "mok", value_name = "FILE")]
    owner_keys: Vec<PathBuf>,
    /// Configuration of the kernel, in place of the one in the image
    #[arg(long, value_name = "FILE")]
    kernel_config: Option<PathBuf>,
    /// Kernel command line
    #[arg(long, value_name = "TEXT")]
    append: Option<String>,
    #[command(flatten)]
    output: OutputOptions,
}

impl Check {
    /// The check of the next boot of an installed system.
    pub fn of_system(boot: &BootCheck) -> Self {
        Self {
            uki: None,
            secure_boot_certificates: Vec::new(),
            secure_boot_revoked: Vec::new(),
            initramfs: Some(boot.initramfs.clone()),
            root: Some(boot.root.clone()),
            hash_tree: None,
            verity_signature: None,
            filesystem: FileSystemOptions::default(),
            kernel: None,
            authorities: Vec::new(),
            owner_keys: Vec::new(),
            kernel_config: Some(boot.kernel_config.clone()),
            append: None,
            output: OutputOptions::default(),
        }
    }

    pub fn run(self) -> Result {
        let bytes = match &self.uki {
            Some(path) => read_bounded(path, pe::MAX_IMAGE)?,
            None => Vec::new(),
        };
        let uki = self.uki.as_deref().map(|path| {
            UnifiedKernelImage::parse(&bytes)
                .map(|uki| (path, uki))
                .map_err(|fault| in_file(fault, path))
        });
        let uki = uki.transpose()?;
        let trusted = match self.secure_boot_certificates.as_slice() {
            [] => None,
            paths => Some(options::secure_boot_certificates(paths)?),
        };
        let revoked = options::revoked(&self.secure_boot_revoked)?;
        let owner_keys = options::certificates_in(&self.owner_keys)?;
        let initramfs = self.initramfs(uki.as_ref())?;
        let (authorities, kernel, release) = self.kernel(uki.as_ref())?;
        let command_line = match &uki {
            Some((_, uki)) => uki.command_line(),
            None => self.append.as_deref(),
        };
        let inputs = Inputs {
            initramfs: Some(&initramfs),
            root: None,
            kernel: kernel.as_ref(),
            release: release.as_ref(),
            authorities: authorities.as_deref(),
            owner_keys: &owner_keys,
            command_line,
            boot_image: uki.as_ref().map(|(_, image)| BootImage {
                image,
                trusted: trusted.as_deref(),
                revoked: revoked.as_ref(),
            }),
        };
        let root = self
            .root
            .as_deref()
            .map(|path| self.read_root(path, &initramfs, &inputs))
            .transpose()?;
        let mut found = check::check(&Inputs {
            root: root.as_ref(),
            ..inputs
        });
        if let Some(inside) = self
            .root
            .as_deref()
            .and_then(|root| below(self.initramfs.as_deref()?, root))
        {
            found
                .denied
                .retain(|(name, _)| !Path::new(OsStr::from_bytes(name)).starts_with(&inside));
        }
        if self.output.json {
            output::json(&as_json(&found))?;
        } else {
            as_text(&found)?;
        }
        Ok(if found.refusal().is_some() || !found.services.is_empty() {
            Outcome::Findings
        } else {
            Outcome::Good
        })
    }

    /// The initramfs: a directory, an archive, or that of a unified kernel image.
    fn initramfs(&self, uki: Option<&(&Path, UnifiedKernelImage<'_>)>) -> Result<InitramfsBuilder> {
        if let Some((path, uki)) = uki {
            let read = uki.initramfs().and_then(InitramfsBuilder::from_image);
            return read.map_err(|fault| in_file(fault, path));
        }
        let Some(path) = &self.initramfs else {
            return Err(Fault::new(Code::Usage, "--initramfs or --uki is needed"));
        };
        read_initramfs(path)
    }

    /// The CAs in the kernel, its configuration, and which release it is.
    #[allow(
        clippy::type_complexity,
        reason = "three answers of one file, taken apart where they are used"
    )]
    fn kernel(
        &self,
        uki: Option<&(&Path, UnifiedKernelImage<'_>)>,
    ) -> Result<(
        Option<Vec<Certificate>>,
        Option<KernelConfig>,
        Option<KernelRelease>,
    )> {
        let mut authorities = None;
        let mut release = None;
        let mut config = None;
        let given = match (&self.kernel, uki) {
            (Some(path), _) => Some((path.as_path(), Cow::Owned(read_bounded(path, MAX_IMAGE)?))),
            (None, Some((path, uki))) => Some((*path, Cow::Borrowed(uki.kernel()))),
            (None, None) => None,
        };
        if let Some((path, image)) = given {
            if uki.is_some() && !add_ca::is_image(&image) {
                // That of another processor than x86, of which only the release is read.
                release = release::name(&image).map(|name| KernelRelease {
                    name,
                    vermagic: None,
                });
            } else if add_ca::is_image(&image) {
                // Of a kernel that is packed in a way which is not read here, what is given counts.
                config = match KernelConfig::in_image(&image) {
                    Err(_) if uki.is_some() || self.kernel_config.is_some() => None,
                    read => read.map_err(|fault| in_file(fault, path))?,
                };
                release = KernelRelease::in_image(&image).map_err(|fault| in_file(fault, path))?;
                if self.authorities.is_empty() {
                    authorities = match in_kernel(path, &image) {
                        Err(_) if !self.owner_keys.is_empty() => None,
                        found => Some(found?),
                    };
                }
            } else {
                let parsed = KernelConfig::parse(&image).map_err(|fault| in_file(fault, path))?;
                config = Some(parsed);
            }
        }
        if !self.authorities.is_empty() {
            let mut given = Vec::new();
            for path in &self.authorities {
                given.extend(options::certificates(path)?);
            }
            authorities = Some(given);
        }
        if let Some(path) = &self.kernel_config {
            let parsed = KernelConfig::parse(&read_bounded(path, 16 << 20)?)
                .map_err(|fault| in_file(fault, path))?;
            config = Some(parsed);
        }
        Ok((authorities, config, release))
    }

    fn read_root(
        &self,
        path: &Path,
        initramfs: &InitramfsBuilder,
        inputs: &Inputs<'_>,
    ) -> Result<Root> {
        let filesystem = self.filesystem.filesystem()?;
        let choice = RootChoice {
            tree: self.hash_tree.clone(),
            signature: self.verity_signature.clone(),
            authorities: inputs.vouching(),
            verity_certificates: inputs.verity_certificates(),
            ..RootChoice::new(initramfs, inputs.command_line)
        };
        Root::read(path, filesystem, &choice)
    }
}

/// Where an initramfs that is still a directory lies in the root that it is checked against: while it is made on the system
/// itself. Its files are not the root's, and nothing executes them there.
fn below(initramfs: &Path, root: &Path) -> Option<PathBuf> {
    let initramfs = initramfs
        .is_dir()
        .then(|| initramfs.canonicalize().ok())??;
    let inside = initramfs.strip_prefix(root.canonicalize().ok()?).ok()?;
    (inside != Path::new("")).then(|| inside.to_owned())
}

/// An initramfs: a directory or an archive.
pub(super) fn read_initramfs(path: &Path) -> Result<InitramfsBuilder> {
    if path.is_dir() {
        return InitramfsBuilder::from_directory(path);
    }
    InitramfsBuilder::from_image(&read_bounded(path, MAX_IMAGE)?)
        .map_err(|fault| in_file(fault, path))
}

/// The CAs in a kernel image.
pub(super) fn in_kernel(path: &Path, image: &[u8]) -> Result<Vec<Certificate>> {
    let beside = path.with_file_name("extra-cert.json");
    let symbols = beside
        .exists()
        .then(|| Symbols::from_json(&read_bounded(&beside, 1 << 16)?))
        .transpose()?;
    add_ca::authorities(image, symbols.as_ref()).map_err(|fault| {
        in_file(fault, path)
            .with_remedy("name the CAs that were built into this kernel: --ca FILE; or keep extra-cert.json beside the image")
    })
}

/// How many denied files are named one by one.
const MAX_SHOWN: usize = 20;

fn as_text(found: &Findings) -> Result<()> {
    for fault in &found.faults {
        let severity = fault.code().entry().severity.name();
        output::line(format_args!("{severity}: {fault}"))?;
    }
    if !found.denied.is_empty() {
        let count = found.denied.len();
        let fault = Fault::new(Code::FilesDenied, format!("{count} files"));
        output::line(format_args!("warning: {fault}"))?;
        for (name, verdict) in found.denied.iter().take(MAX_SHOWN) {
            let name = String::from_utf8_lossy(name);
            output::line(format_args!("  /{}: {verdict}", name.escape_debug()))?;
        }
        if let Some(more) = count.checked_sub(MAX_SHOWN).filter(|more| *more > 0) {
            output::line(format_args!("  and {more} more (--json names them all)"))?;
        }
    }
    if !found.services.is_empty() {
        let count = found.services.len();
        let fault = Fault::new(Code::ServiceDenied, format!("{count} programs"));
        output::line(format_args!("warning: {fault}"))?;
        for denied in &found.services {
            let Denied {
                unit,
                program,
                cause,
            } = denied;
            output::line(format_args!("  {unit}: {program}: {cause}"))?;
        }
    }
    if let Some(fixed) = found.command_line.filter(|by| *by != FixedBy::Nothing) {
        output::line(format_args!("kernel command line: {fixed}"))?;
    }
    match found.refusal() {
        Some(fault) => output::line(format_args!("will not boot: {}", fault.code())),
        None => output::line(format_args!("nothing found that the init would refuse")),
    }
}

fn as_json(found: &Findings) -> serde_json::Value {
    let faults: Vec<_> = found
        .faults
        .iter()
        .map(|fault| {
            let entry = fault.code().entry();
            json!({
                "code": entry.id,
                "refusal": entry.severity == Severity::Refusal,
                "stage": entry.stage.name(),
                "what": entry.what,
                "detail": fault.detail(),
                "cause": fault.cause(),
                "remedy": fault.remedy(),
                "text": fault.to_string(),
            })
        })
        .collect();
    let denied: Vec<_> = found
        .denied
        .iter()
        .map(|(name, verdict)| {
            json!({
                "path": format!("/{}", String::from_utf8_lossy(name)),
                "verdict": verdict.word(),
                "detail": verdict.to_string(),
            })
        })
        .collect();
    let services: Vec<_> = found
        .services
        .iter()
        .map(
            |denied| json!({"unit": denied.unit, "program": denied.program, "cause": denied.cause}),
        )
        .collect();
    json!({
        "boots": found.refusal().is_none(),
        "refusal": found.refusal().map(|fault| fault.code().id()),
        "faults": faults,
        "denied": denied,
        "services": services,
        "command_line_fixed_by": found.command_line.and_then(FixedBy::name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initramfs_that_is_made_in_the_root() {
        let root = tempfile::tempdir().unwrap();
        let initramfs = root.path().join("var/tmp/mkinitramfs_1");
        std::fs::create_dir_all(&initramfs).unwrap();
        std::fs::write(root.path().join("image"), "").unwrap();
        let rows = [
            (
                initramfs.clone(),
                root.path().to_owned(),
                Some("var/tmp/mkinitramfs_1"),
            ),
            (
                initramfs.join("../mkinitramfs_1"),
                root.path().to_owned(),
                Some("var/tmp/mkinitramfs_1"),
            ),
            (root.path().join("image"), root.path().to_owned(), None),
            (root.path().to_owned(), root.path().to_owned(), None),
            (root.path().to_owned(), initramfs, None),
        ];
        for (initramfs, root, expected) in rows {
            assert_eq!(below(&initramfs, &root).as_deref(), expected.map(Path::new));
        }
    }
}
