//! `imactl image`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use ima::composefs::Digest;
use ima::dm_verity::RootHash;
use ima::fault::{Cause, Code, Fault};
use imactl::file::unwritable;
use imactl::image::{Format, ImageBuilder, Signing, Summary, composefs};
use imactl::manifest::Manifest;
use imactl::select::Pattern;
use imactl::tree::Tree;
use imactl::verity;
use serde_json::json;

use super::options::{self, AppraisalOptions, EvmOptions, KeyOptions, OutputOptions};
use super::outcome::{Outcome, Result};
use super::output::{self, Progress};

/// Make a root image from directories, tar archives and other images, or sign inside one
///
/// Needs no privilege: owners, devices, hard links, sparse files and extended attributes such as security.capability are kept
/// from a tar archive (tar --xattrs --format=pax), an image or a directory. Files are signed on the way. The result is the same
/// for the same input; ECDSA signatures alone differ from run to run.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  imactl image --from root.tar --key ima.key --cert ima.der --for-policy ima_policy --out root.img
  imactl image --from root.tar --key ima.key --cert ima.der --format squashfs --out root.squashfs
  imactl image --from rootfs --from overlay --all-root --size 1G --label root --out root.img
  imactl image --from root.img --format erofs --out root.erofs
  imactl image --from root.tar --format erofs --verity --out root.erofs
  imactl image --from root.tar --key ima.key --cert ima.der --format erofs --objects objects --out root.cfs
  imactl image --from root.tar --key ima.key --cert ima.der --verity --verity-signature root.sig --out root.img
  imactl image sign --key ima.key --cert ima.der --for-policy ima_policy root.img
  imactl image sign-root-hash 00112233445566778899aabbccddeeff0f1e2d3c4b5a69788796a5b4c3d2e1f0 \
      --key ima.key --cert ima.der --out root.sig"
)]
pub struct Image {
    #[command(subcommand)]
    command: Option<ImageCommand>,
    #[command(flatten)]
    make: Make,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    Sign(SignImage),
    SignRootHash(SignRootHash),
}

impl Image {
    pub fn run(self) -> Result {
        match self.command {
            Some(ImageCommand::Sign(sign)) => sign.run(),
            Some(ImageCommand::SignRootHash(sign)) => sign.run(),
            None => self.make.run(),
        }
    }
}

/// Sign the files inside an image
///
/// An ext4 image keeps all that it has but the signatures: inode numbers, features, journal, other attributes. squashfs and
/// erofs are made anew with the same in them, squashfs with its compressor and block size, erofs not compressed. No privilege is
/// needed. The image is replaced when all is written, checked and read back; with --out it stays as it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl image sign --key ima.key --cert ima.der --for-policy ima_policy root.img
  imactl image sign --key ima.key --cert ima.der --out signed.img root.img")]
struct SignImage {
    /// Image of ext4, squashfs or erofs
    image: PathBuf,
    #[command(flatten)]
    key: KeyOptions,
    #[command(flatten)]
    evm: EvmOptions,
    #[command(flatten)]
    appraisal: AppraisalOptions,
    #[command(flatten)]
    unsigned: UnsignedOptions,
    /// Write the signed image to this file and leave the other as it is
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: OutputOptions,
}

impl SignImage {
    fn run(self) -> Result {
        if !self.key.is_given() {
            return Err(Fault::new(Code::Usage, "image sign without a key").because(Cause::NO_KEY));
        }
        let evm = self.evm.identity(&self.key)?;
        let filesystem = imactl::image::filesystem(&self.image)?;
        let appraisal = self
            .appraisal
            .appraisal(&filesystem.name, filesystem.uuid)?;
        let identity = self.key.identity_for(appraisal.as_ref())?;
        let patterns = self.unsigned.patterns();
        let out = self.out.as_ref().unwrap_or(&self.image);
        let progress = Progress::new("signing", 0);
        let summary = imactl::image::sign_image(
            &self.image,
            out,
            |mut builder| {
                builder = builder.unsigned(patterns).sign(match appraisal {
                    Some(appraisal) => Signing::ForPolicy(identity, Box::new(appraisal)),
                    None => Signing::All(identity),
                });
                match evm {
                    Some(evm) => builder.evm(evm),
                    None => builder,
                }
            },
            &|| progress.step(),
        )?;
        progress.finish();
        report(out, &summary, self.output.json)
    }
}

/// Sign the root hash of a hash tree for dm-verity
///
/// The result is for the partition from which an init with verity=signed in ima-init.conf takes the root hash: the root verity
/// signature partition of the Discoverable Partitions Specification, as systemd-repart makes it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl image sign-root-hash 00112233445566778899aabbccddeeff0f1e2d3c4b5a69788796a5b4c3d2e1f0 \
      --key ima.key --cert ima.der --out root.sig
  imactl image sign-root-hash 00112233445566778899aabbccddeeff0f1e2d3c4b5a69788796a5b4c3d2e1f0 \
      --sign-command ./sign --cert ima.der --out root.sig")]
struct SignRootHash {
    /// Root hash in hexadecimal, as imactl image --verity and veritysetup print it
    #[arg(value_name = "HEX", value_parser = root_hash)]
    root_hash: RootHash,
    #[command(flatten)]
    key: KeyOptions,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl SignRootHash {
    fn run(self) -> Result {
        sign_root_hash(&self.root_hash, &self.key, &self.out)?;
        Ok(Outcome::Good)
    }
}

fn root_hash(text: &str) -> std::result::Result<RootHash, String> {
    RootHash::parse(text).ok_or_else(|| "not 64, 96 or 128 hexadecimal digits".to_owned())
}

/// Writes the signed root hash.
fn sign_root_hash(root_hash: &RootHash, key: &KeyOptions, out: &Path) -> imactl::Result<()> {
    let certificate = key.certificate()?.ok_or_else(|| {
        Fault::new(Code::Usage, "a root hash is signed with --key and --cert")
            .because(Cause::SIGNER_WITHOUT_CERTIFICATE)
    })?;
    let signed = verity::sign(root_hash, &key.identity()?, &certificate)?;
    imactl::file::write(out, &signed.to_bytes(), 0o644, true)
}

/// What to make, and of what.
#[derive(Debug, Args)]
struct Make {
    /// Directory, tar archive (plain, gzip, zstd, xz), or image (ext4, squashfs, erofs); a later one is laid over the earlier
    /// ones, as the layers of an OCI image are
    #[arg(long = "from", value_name = "SOURCE", required = true)]
    sources: Vec<PathBuf>,
    #[command(flatten)]
    key: KeyOptions,
    /// Signed manifest whose signatures go into the image; every file must be as it was when the manifest was made
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "sign_command", "for_policy"])]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    evm: EvmOptions,
    #[command(flatten)]
    appraisal: AppraisalOptions,
    #[command(flatten)]
    unsigned: UnsignedOptions,
    /// Make root the owner of everything
    #[arg(long)]
    all_root: bool,
    /// What to make; squashfs needs the program mksquashfs. Of the options below, squashfs and tar have none, erofs --label and
    /// --uuid
    #[arg(long, value_enum, default_value_t = FormatName::Ext4)]
    format: FormatName,
    /// Size of the image, such as 512M; what the content needs and a tenth more if not given
    #[arg(long, value_parser = options::size)]
    size: Option<u64>,
    /// Volume label
    #[arg(long, default_value = "")]
    label: String,
    /// UUID; follows from the content if not given
    #[arg(long, value_parser = options::uuid)]
    uuid: Option<[u8; 16]>,
    /// Seed of directory hashes, as a UUID; follows from the UUID if not given
    #[arg(long, value_parser = options::uuid)]
    hash_seed: Option<[u8; 16]>,
    /// Number of inodes, at least
    #[arg(long)]
    inodes: Option<u32>,
    /// Make no journal
    #[arg(long)]
    no_journal: bool,
    /// Make a hash tree for dm-verity over the image, and print its root hash for ima-init.conf; the tree is written behind the
    /// image, or to --verity-out
    #[arg(long)]
    verity: bool,
    /// Write the hash tree to this file
    #[arg(long, value_name = "FILE", requires = "verity")]
    verity_out: Option<PathBuf>,
    /// Salt of the hash tree in hexadecimal, at most 256 bytes; random if not given
    #[arg(long, value_name = "HEX", value_parser = salt, requires = "verity")]
    verity_salt: Option<Salt>,
    /// UUID of the hash tree; random if not given
    #[arg(long, value_name = "UUID", value_parser = options::uuid, requires = "verity")]
    verity_uuid: Option<[u8; 16]>,
    /// Sign the root hash with the key, and write it with its signature to this file, for its own partition
    #[arg(long, value_name = "FILE", requires = "verity")]
    verity_signature: Option<PathBuf>,
    /// Make a composefs: write the content of the files below this directory, and into the image what refers to it; print the
    /// fs-verity digest of the image for ima-init.conf
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "verity")]
    objects: Option<PathBuf>,
    #[command(flatten)]
    output: OutputOptions,
    /// Image to write
    #[arg(long, value_name = "FILE", required = true)]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatName {
    Ext4,
    Squashfs,
    Erofs,
    Tar,
}

impl Make {
    fn run(self) -> Result {
        let (format, filesystem) = match self.format {
            FormatName::Ext4 => (Format::Ext4, "ext4"),
            FormatName::Squashfs => (Format::Squashfs, "squashfs"),
            FormatName::Erofs => (Format::Erofs, "erofs"),
            FormatName::Tar => (Format::Tar, "ext4"),
        };
        if self.verity && matches!(self.format, FormatName::Tar) {
            return Err(Fault::new(Code::Usage, "--verity with --format tar")
                .with_cause("a hash tree is made over a file system, and an archive is none")
                .with_remedy("choose --format ext4, squashfs or erofs"));
        }
        if self.objects.is_some() && !matches!(self.format, FormatName::Erofs) {
            return Err(Fault::new(Code::Usage, "--objects")
                .with_cause("the image of a composefs is an erofs")
                .with_remedy("add --format erofs"));
        }
        let mut tree = Tree::new();
        for (index, source) in self.sources.iter().enumerate() {
            let read = imactl::image::read(source)?.tree;
            if index == 0 {
                tree = read;
            } else {
                tree.overlay(read)?;
            }
        }
        if self.all_root {
            tree.all_root();
        }
        let files = tree.len() as u64;
        if let Some(path) = &self.manifest {
            let manifest = Manifest::load(path)?.with_files()?;
            let progress = Progress::new("comparing", manifest.files.len() as u64);
            manifest.apply_to_tree(&mut tree, &|| progress.step())?;
            progress.finish();
        }
        let mut builder = ImageBuilder::new(tree)
            .format(format)
            .label(&self.label)
            .journal(!self.no_journal);
        if self.key.is_given() {
            let appraisal = self.appraisal.appraisal(filesystem, self.uuid)?;
            let identity = self.key.identity_for(appraisal.as_ref())?;
            builder = builder.sign(match appraisal {
                Some(appraisal) => Signing::ForPolicy(identity, Box::new(appraisal)),
                None => Signing::All(identity),
            });
        } else if self.appraisal.for_policy.is_some() {
            return Err(
                Fault::new(Code::Usage, "--for-policy without --key").because(Cause::NO_KEY)
            );
        }
        if let Some(identity) = self.evm.identity(&self.key)? {
            builder = builder.evm(identity);
        }
        builder = builder.unsigned(self.unsigned.patterns());
        if let Some(size) = self.size {
            builder = builder.size(size);
        }
        if let Some(uuid) = self.uuid {
            builder = builder.uuid(uuid);
        }
        if let Some(seed) = self.hash_seed {
            builder = builder.hash_seed(seed);
        }
        if let Some(directory) = &self.objects {
            builder = builder.objects(directory);
        }
        if let Some(inodes) = self.inodes {
            builder = builder.inodes(inodes);
        }
        if let Some(epoch) = options::source_date_epoch()? {
            builder = builder.time(epoch.into());
        }
        let progress = Progress::new("reading", files);
        // Without one only `sign` is parsed.
        let out = self.out.unwrap_or_default();
        // The name is not given to an image whose tree is not whole.
        let beside = self.verity.then(|| beside(&out)).transpose()?;
        let image = beside.as_deref().unwrap_or(&out);
        let summary = builder.build_with(image, &|| progress.step())?;
        progress.finish();
        let made = match self.verity {
            false => None,
            true => {
                let random = verity::Parameters::random()?;
                let parameters = verity::Parameters {
                    salt: self.verity_salt.map_or(random.salt, |salt| salt.0),
                    uuid: self.verity_uuid.unwrap_or(random.uuid),
                };
                Some(verity::make(
                    image,
                    self.verity_out.as_deref(),
                    &parameters,
                )?)
            }
        };
        if let (Some(made), Some(path)) = (&made, &self.verity_signature) {
            sign_root_hash(&made.root_hash, &self.key, path)?;
        }
        if let Some(whole) = beside {
            whole
                .persist(&out)
                .map_err(|error| unwritable(&out, &error.error))?;
        }
        let composefs = self.objects.as_ref().map(|_| composefs::digest(&out));
        let composefs = composefs.transpose()?;
        if self.output.json {
            return report_json(&summary, made.as_ref(), composefs.as_ref());
        }
        report(&out, &summary, false)?;
        if let Some(digest) = composefs {
            output::line(format_args!("composefs_digest={digest}"))?;
        }
        if let Some(made) = made {
            match self.verity_signature {
                None => output::line(format_args!("verity={}", made.root_hash))?,
                Some(path) => {
                    output::line(format_args!("# signed root hash: {}", path.display()))?;
                    output::line(format_args!("verity=signed"))?;
                }
            }
            match self.verity_out {
                None => output::line(format_args!("verity_hash_offset={}", made.offset))?,
                Some(path) => output::line(format_args!("# hash tree: {}", path.display()))?,
            }
        }
        Ok(Outcome::Good)
    }
}

/// A file beside another, removed unless it gets its name.
fn beside(path: &Path) -> Result<tempfile::TempPath> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let file = tempfile::Builder::new()
        .prefix(".imactl-")
        .tempfile_in(directory.unwrap_or(Path::new(".")));
    let file = file.map_err(|error| unwritable(path, &error))?;
    Ok(file.into_temp_path())
}

/// A salt: one value, where clap would take the elements of a vector for many.
#[derive(Debug, Clone)]
struct Salt(Vec<u8>);

fn salt(text: &str) -> std::result::Result<Salt, String> {
    imactl::hex::decode(text)
        .filter(|salt| salt.len() <= ima::dm_verity::MAX_SALT)
        .map(Salt)
        .ok_or_else(|| "not an even number of at most 512 hexadecimal digits".to_owned())
}

fn report_json(
    summary: &Summary,
    made: Option<&verity::Made>,
    composefs: Option<&Digest>,
) -> Result {
    let mut object = json!({
        "bytes": summary.size,
        "inodes": summary.inodes,
        "signed": summary.signed,
        "unsigned": summary.unsigned,
    });
    if let Some(made) = made {
        object["verity"] = json!({
            "root_hash": made.root_hash.to_string(),
            "offset": made.offset,
        });
    }
    if let Some(digest) = composefs {
        object["composefs_digest"] = digest.to_string().into();
    }
    output::json(&object)?;
    Ok(Outcome::Good)
}

fn report(out: &Path, summary: &Summary, json: bool) -> Result {
    if json {
        return report_json(summary, None, None);
    }
    output::line(format_args!(
        "{}: {} MiB, {} inodes, {} files signed, {} left unsigned",
        out.display(),
        summary.size >> 20,
        summary.inodes,
        summary.signed,
        summary.unsigned
    ))?;
    Ok(Outcome::Good)
}

/// The files that are not signed.
#[derive(Debug, Args)]
struct UnsignedOptions {
    /// Leave files whose path matches as they are; * and ? match within a directory, ** across
    #[arg(long, value_name = "PATTERN")]
    unsigned: Vec<String>,
}

impl UnsignedOptions {
    fn patterns(&self) -> Vec<Pattern> {
        let patterns = self.unsigned.iter();
        patterns.map(|pattern| Pattern::new(pattern)).collect()
    }
}
