//! `imactl initramfs`

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use ima::fault::{Cause, Code, Fault};
use imactl::file::{in_file, read_bounded};
use imactl::identity::Identity;
use imactl::initramfs::signatures::{self, Signers};
use imactl::initramfs::{Compression, InitramfsBuilder};
use imactl::modules;

use super::options::{self, EvmOptions, KeyOptions, PasswordOptions};
use super::outcome::{Outcome, Result};
use super::output;

const MAX_PROGRAM: u64 = 256 << 20;

/// Make an initramfs with the init, certificates, policy, configuration and kernel modules
///
/// The result is the same for the same input, needs no privilege, and is checked as the init will check it: what the init would
/// refuse is refused here, with the same code.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  imactl initramfs --init ima-init --cert ima.der --policy ima_policy.default --out initramfs.cpio.gz
  imactl initramfs --init ima-init --cert ima.der --policy ima_policy --config ima-init.conf \\
      --modules-dir /lib/modules/6.12.0 --load virtio_blk,ext4 --compress zstd --out initramfs.cpio.zst
  imactl initramfs --init ima-init --cert ima.der --policy ima_policy --file firmware.bin:lib/firmware/gpu.bin \\
      --key ima.key --out initramfs.cpio.gz"
)]
pub struct Initramfs {
    #[command(subcommand)]
    command: Option<InitramfsCommand>,
    /// The init program, static
    #[arg(long, value_name = "FILE", required = true)]
    init: Option<PathBuf>,
    /// Certificates for .ima, DER or PEM
    #[arg(long = "cert", value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// Certificates for .evm, DER or PEM
    #[arg(long = "evm-cert", value_name = "FILE")]
    evm_certificates: Vec<PathBuf>,
    /// Certificates for .dm-verity, DER or PEM: of those who sign root hashes, or of their CAs
    #[arg(long = "verity-cert", value_name = "FILE")]
    verity_certificates: Vec<PathBuf>,
    /// The policy; a file whose name ends in .default becomes /etc/ima/ima_policy.default, any other /etc/ima/ima_policy; FILE.sig
    /// beside it (imactl sign --sidecar) comes along, for kernels that take only a signed policy
    #[arg(long = "policy", value_name = "FILE")]
    policies: Vec<PathBuf>,
    /// The configuration, /etc/ima/ima-init.conf
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Kernel modules by file, plain or compressed; with all those they depend on, in any order
    #[arg(long = "module", value_name = "FILE")]
    modules: Vec<PathBuf>,
    /// Directory to find modules in, such as /lib/modules/VERSION
    #[arg(long, value_name = "DIR", requires = "load")]
    modules_dir: Option<PathBuf>,
    /// Kernel modules by name; what they depend on comes along
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        requires = "modules_dir"
    )]
    load: Vec<String>,
    /// Another file, as SOURCE:PATH
    #[arg(long = "file", value_name = "SOURCE:PATH")]
    files: Vec<String>,
    /// Private key that signs the programs, modules and firmware of the initramfs which the policy appraises; its certificate is the
    /// first --cert. The init then moves the initramfs into a tmpfs, which keeps signatures
    #[arg(long, value_name = "KEY", requires = "certificates")]
    key: Option<PathBuf>,
    /// Private key for portable signatures of these files; its certificate is the first --evm-cert
    #[arg(long, value_name = "KEY", requires_all = ["key", "evm_certificates"])]
    evm_key: Option<PathBuf>,
    /// Make these for a 32-bit kernel, which takes no others
    #[arg(long = "evm-32-bit", requires = "evm_key")]
    evm_32_bit: bool,
    #[command(flatten)]
    password: PasswordOptions,
    /// Compression
    #[arg(long, value_enum, default_value_t = CompressionName::Gzip)]
    compress: CompressionName,
    /// Pack even what the init would refuse; for tests
    #[arg(long)]
    unchecked: bool,
    /// Image to write
    #[arg(long, value_name = "FILE", required = true)]
    out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum InitramfsCommand {
    Signatures(Box<SignaturesCommand>),
}

/// List the signatures of the programs of another initramfs, for the init in front of it
///
/// An archive keeps no extended attributes, so the init sets them from this list when it has moved the initramfs into a tmpfs.
/// The list has each file that the initramfs's policy appraises: programs, libraries, kernel modules, firmware. The signature is
/// taken from a file of the system: the one at the same path, else any with the same content. It must be by a key whose
/// certificate is in the initramfs. With an EVM certificate there, the file needs a portable signature in security.evm too.
/// What has no such signature is signed, if a key is given; otherwise it is named, and the kernel will deny it: exit status 1 if
/// one of them is a program or a library, no kernel module or firmware.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl initramfs signatures --tree /var/tmp/mkinitramfs_a1b2c3
  imactl initramfs signatures --tree initramfs --system rootfs --key ima.key --cert ima.der")]
struct SignaturesCommand {
    /// Directory that the initramfs is packed from, with the init, its policy and certificates in place
    #[arg(long, value_name = "DIR")]
    tree: PathBuf,
    /// System whose files are signed
    #[arg(long, value_name = "DIR", default_value = "/")]
    system: PathBuf,
    #[command(flatten)]
    key: KeyOptions,
    #[command(flatten)]
    evm: EvmOptions,
    /// List to write, in place of etc/ima/initramfs.signatures in the tree
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl SignaturesCommand {
    fn run(&self) -> Result {
        let initramfs = InitramfsBuilder::from_directory(&self.tree)?;
        let identity = self
            .key
            .is_given()
            .then(|| self.key.identity())
            .transpose()?;
        let evm = self.evm.identity(&self.key)?;
        let signers = Signers {
            identity: identity.as_ref(),
            evm: evm.as_ref(),
        };
        let collected =
            signatures::collect(&initramfs, &initramfs.tree()?, Some(&self.system), signers)?;
        let out = self.out.clone().unwrap_or_else(|| {
            self.tree
                .join(ima::layout::SIGNATURES.trim_start_matches('/'))
        });
        imactl::file::write(&out, collected.list.to_text().as_bytes(), 0o644, true)?;
        for path in &collected.unsigned {
            output::warn(format_args!(
                "imactl: no signature: /{}",
                output::shown(Path::new(OsStr::from_bytes(path)))
            ));
        }
        let count = |number: usize| match number {
            1 => "1 file".to_owned(),
            number => format!("{number} files"),
        };
        output::line(format_args!(
            "{}: {} signed, {} of them now; {} without a signature",
            out.display(),
            count(collected.list.len()),
            collected.made,
            count(collected.unsigned.len())
        ))?;
        Ok(if collected.lacks_programs() {
            Outcome::Findings
        } else {
            Outcome::Good
        })
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CompressionName {
    Gzip,
    Zstd,
    None,
}

impl Initramfs {
    pub fn run(self) -> Result {
        if let Some(InitramfsCommand::Signatures(command)) = &self.command {
            return command.run();
        }
        let missing = || Fault::new(Code::Usage, "--init and --out are needed");
        let init = self.init.as_ref().ok_or_else(missing)?;
        let out = self.out.as_ref().ok_or_else(missing)?;
        let mut builder = InitramfsBuilder::new().init(read_bounded(init, MAX_PROGRAM)?);
        if let Some(seconds) = options::source_date_epoch()? {
            builder = builder.mtime(seconds);
        }
        for (kind, paths) in [
            ("ima", &self.certificates),
            ("evm", &self.evm_certificates),
            ("verity", &self.verity_certificates),
        ] {
            for (index, path) in paths.iter().enumerate() {
                builder = builder.certificate(
                    &certificate_name(kind, index, path),
                    read_bounded(path, 1 << 20)?,
                );
                if let Ok(certificate) = options::certificate(path)
                    && certificate.is_sample()
                {
                    output::warn(format_args!(
                        "imactl: warning: {} is the SAMPLE KEY, whose private half everybody has",
                        path.display()
                    ));
                }
            }
        }
        for path in &self.policies {
            let text = read_bounded(path, 4 << 20)?;
            let default = path
                .extension()
                .is_some_and(|extension| extension == "default");
            let (packed, with_policy) = if default {
                (ima::layout::DEFAULT_POLICY, builder.default_policy(text))
            } else {
                (ima::layout::POLICY, builder.policy(text))
            };
            builder = with_policy;
            let mut beside = path.as_os_str().to_owned();
            beside.push(ima::layout::SIGNATURE);
            let beside = PathBuf::from(beside);
            if beside.exists() {
                let signature = read_bounded(&beside, 1 << 16)?;
                builder = builder.file(
                    format!("{packed}{}", ima::layout::SIGNATURE),
                    0o644,
                    signature,
                );
            }
        }
        if let Some(path) = &self.config {
            builder = builder.config(read_bounded(path, 1 << 20)?);
        }
        let mut loaded = Vec::new();
        if let Some(directory) = &self.modules_dir {
            loaded.extend(modules::find(directory, &self.load)?);
        }
        let given = self
            .modules
            .iter()
            .map(|path| modules::read(path))
            .collect::<Result<Vec<_>>>()?;
        loaded.extend(given);
        for module in modules::in_order(loaded)? {
            builder = builder.module(&module.file_name, module.content);
        }
        for pair in &self.files {
            let (source, path) = pair.split_once(':').ok_or_else(|| {
                Fault::new(Code::Usage, format!("--file {pair}")).because(Cause::NO_COLON)
            })?;
            let source = Path::new(source);
            let mode = std::os::unix::fs::MetadataExt::mode(
                &std::fs::metadata(source)
                    .map_err(|error| imactl::file::unreadable(source, &error))?,
            );
            builder = builder.file(path, mode & 0o777, read_bounded(source, MAX_PROGRAM)?);
        }
        builder = builder.compression(match self.compress {
            CompressionName::Gzip => Compression::Gzip,
            CompressionName::Zstd => Compression::Zstd,
            CompressionName::None => Compression::None,
        });
        if self.unchecked {
            builder = builder.unchecked();
        }
        let identity = self.identity(self.key.as_ref(), &self.certificates)?;
        let evm = self.identity(self.evm_key.as_ref(), &self.evm_certificates)?;
        let evm = match self.evm_32_bit {
            true => evm.map(Identity::for_32_bit_kernel),
            false => evm,
        };
        if identity.is_some() {
            let (signed, collected) = builder.sign(Signers {
                identity: identity.as_ref(),
                evm: evm.as_ref(),
            })?;
            if let [first, ..] = collected.unsigned.as_slice() {
                let path = output::shown(Path::new(OsStr::from_bytes(first))).to_string();
                return Err(Fault::new(Code::Usage, format!("/{path}"))
                    .because(Cause::INITRAMFS_WITHOUT_EVM_SIGNATURES));
            }
            builder = signed;
        }
        let image = builder.build().map_err(|fault| in_file(fault, out))?;
        imactl::file::write(out, &image, 0o644, true)?;
        output::line(format_args!("{}: {} bytes", out.display(), image.len()))?;
        Ok(Outcome::Good)
    }
}

impl Initramfs {
    /// The key, with the first of the certificates.
    fn identity(
        &self,
        key: Option<&PathBuf>,
        certificates: &[PathBuf],
    ) -> Result<Option<Identity>> {
        let (Some(key), Some(certificate)) = (key, certificates.first()) else {
            return Ok(None);
        };
        KeyOptions::of_key(key.clone(), certificate.clone(), self.password.clone())
            .identity()
            .map(Some)
    }
}

/// The name the init looks for, in the order given: x509_ima.der, x509_ima-2.der.
fn certificate_name(kind: &str, index: usize, path: &Path) -> String {
    let pem = std::fs::read(path)
        .is_ok_and(|bytes| bytes.windows(11).any(|window| window == b"-----BEGIN "));
    let suffix = if pem { "pem" } else { "der" };
    match index {
        0 => format!("x509_{kind}.{suffix}"),
        index => format!("x509_{kind}-{}.{suffix}", index + 1),
    }
}
