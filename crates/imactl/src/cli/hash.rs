//! `imactl hash`

use std::path::PathBuf;

use clap::Args;
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use imactl::files;
use imactl::sign::{ImaValue, SignOptions};

use super::options::{AppraisalOptions, OutputOptions, TreeOptions};
use super::outcome::Result;
use super::sign;

/// Write digests instead of signatures into security.ima
///
/// For files that the policy appraises without asking for a signature (no appraise_type=): anybody can make a digest, so it shows
/// damage and no attack. What is signed and immutable stays with `imactl sign`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl hash --for-policy ima_policy --root rootfs rootfs
  imactl hash --algorithm sha512 /etc/app.conf")]
pub struct Hash {
    /// Files and directories
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Hash algorithm: sha256, sha384, sha512, sha3-256, sha3-384 or sha3-512
    #[arg(
        long,
        visible_alias = "hash",
        value_name = "ALGO",
        default_value = "sha256"
    )]
    algorithm: HashAlgorithm,
    #[command(flatten)]
    appraisal: AppraisalOptions,
    #[command(flatten)]
    tree: TreeOptions,
    /// Write to FILE.sig instead of security.ima
    #[arg(long)]
    sidecar: bool,
    /// Leave files alone whose digest is there already
    #[arg(long)]
    incremental: bool,
    #[command(flatten)]
    output: OutputOptions,
}

impl Hash {
    pub fn run(self) -> Result {
        if !imactl::key::SIGNED.contains(&self.algorithm) {
            return Err(
                Fault::new(Code::Usage, format!("--algorithm {}", self.algorithm))
                    .because(Cause::ALGORITHM_UNFIT),
            );
        }
        let options = SignOptions {
            mark: ImaValue::Digest(self.algorithm),
            appraisal: self.appraisal.appraisal("ext4", None)?,
            place: sign::place(self.sidecar),
            incremental: self.incremental,
            certificate: None,
            evm: None,
        };
        let found = files::collect(&self.paths, &self.tree.root)?;
        sign::mark(found, &self.paths, &options, self.output.json)
    }
}
