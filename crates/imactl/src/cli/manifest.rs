//! `imactl manifest`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ima::hash::HashAlgorithm;
use imactl::digest::DigestOf;
use imactl::image;
use imactl::manifest::Manifest;
use imactl::sign::ImaValue;
use imactl::tree::Tree;

use super::options::{self, AppraisalOptions, KeyOptions};
use super::outcome::{Outcome, Result};
use super::output::{self, Progress};
use super::sign;

/// Sign far from the files: digests go to the key, signatures come back
///
/// `make` writes the digests of a root's files into a manifest, `sign` signs them where the key is, without the files, `apply`
/// puts the signatures onto the files; `imactl image --manifest` puts them into an image. A file that changed meanwhile is
/// refused. Whoever signs trusts the manifest: bring it there on a way that nobody else can write.
#[derive(Debug, Subcommand)]
pub enum ManifestCommand {
    Make(Make),
    Sign(Sign),
    Apply(Apply),
}

impl ManifestCommand {
    pub fn run(self) -> Result {
        match self {
            Self::Make(command) => command.run(),
            Self::Sign(command) => command.run(),
            Self::Apply(command) => command.run(),
        }
    }
}

/// Write the digests of a root's files into a manifest
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl manifest make --from rootfs --for-policy ima_policy --out root.manifest
  imactl manifest make --from root.tar --hash sha512 --verity --out root.manifest")]
pub struct Make {
    /// Directory, tar archive, or image (ext4, squashfs, erofs); a later one is laid over the earlier ones
    #[arg(long = "from", value_name = "SOURCE", required = true)]
    sources: Vec<PathBuf>,
    #[command(flatten)]
    appraisal: AppraisalOptions,
    /// Hash algorithm: sha256, sha384, sha512, sha3-256, sha3-384 or sha3-512
    #[arg(long, value_name = "ALGO", default_value = "sha256")]
    hash: HashAlgorithm,
    /// Digests that fs-verity computes, for version 3 signatures
    #[arg(long)]
    verity: bool,
    /// Manifest to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Make {
    fn run(self) -> Result {
        let mut tree = Tree::new();
        for source in &self.sources {
            tree.overlay(image::read(source)?.tree)?;
        }
        let appraisal = self.appraisal.appraisal("ext4", None)?;
        let over = if self.verity {
            DigestOf::Verity
        } else {
            DigestOf::Content
        };
        let progress = Progress::new("hashing", tree.len() as u64);
        let manifest = Manifest::of_tree(&tree, appraisal.as_ref(), over, self.hash, &|| {
            progress.step();
        })?
        .with_files()?;
        progress.finish();
        manifest.save(&self.out)?;
        said(&manifest, "files", &self.out)
    }
}

/// Sign the digests of a manifest
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl manifest sign --key ima.key --cert ima.der root.manifest --out root.signed
  imactl manifest sign --key 'pkcs11:token=signing;object=ima' --cert ima.der root.manifest --out root.signed")]
pub struct Sign {
    /// Manifest to sign
    manifest: PathBuf,
    #[command(flatten)]
    key: KeyOptions,
    /// Manifest to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Sign {
    fn run(mut self) -> Result {
        let mut manifest = Manifest::load(&self.manifest)?.with_files()?;
        // The manifest says which.
        self.key.hash = manifest.algo;
        let identity = self.key.identity()?;
        let mark = match manifest.over {
            DigestOf::Content => ImaValue::Signature(identity),
            DigestOf::Verity => ImaValue::Verity(identity),
        };
        let progress = Progress::new("signing", manifest.files.len() as u64);
        manifest.sign(&mark, &|| progress.step())?;
        progress.finish();
        manifest.save(&self.out)?;
        said(&manifest, "files signed", &self.out)
    }
}

/// Put the signatures of a manifest onto the files
///
/// Every file is hashed first, and nothing is written unless all are as they were.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl manifest apply --root rootfs --cert ima.der root.signed
  imactl manifest apply --root rootfs --sidecar root.signed")]
pub struct Apply {
    /// Signed manifest
    manifest: PathBuf,
    /// Directory where the paths of the manifest begin
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Certificates of which one must have signed: DER, PEM, or directories of such files
    #[arg(long = "cert", value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// Write signatures to FILE.sig instead of security.ima
    #[arg(long)]
    sidecar: bool,
}

impl Apply {
    fn run(self) -> Result {
        let manifest = Manifest::load(&self.manifest)?.with_files()?;
        if !self.certificates.is_empty() {
            manifest.check(&options::certificates_in(&self.certificates)?)?;
        }
        let progress = Progress::new("comparing", manifest.files.len() as u64);
        manifest.apply(&self.root, sign::place(self.sidecar), &|| progress.step())?;
        progress.finish();
        said(&manifest, "signatures applied", &self.root)
    }
}

fn said(manifest: &Manifest, what: &str, path: &std::path::Path) -> Result {
    output::line(format_args!(
        "{}: {} {what}",
        output::shown(path),
        manifest.files.len()
    ))?;
    Ok(Outcome::Good)
}
