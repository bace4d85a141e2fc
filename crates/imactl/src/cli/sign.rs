//! `imactl sign`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use imactl::files::{self, Files, Skip};
use imactl::hex;
use imactl::sign::{ImaValue, Place, SignOptions, Signed};
use serde_json::json;

use super::options::{AppraisalOptions, EvmOptions, KeyOptions, OutputOptions, TreeOptions};
use super::outcome::{Outcome, Result};
use super::output::{self, Progress, shown};

/// Sign files and trees
///
/// Writes security.ima onto each regular file, on all cores. A tree that will be a root elsewhere is given with --root, so
/// that the policy sees its paths. Symbolic links below a path are not followed, hard links are signed once. With --packages the
/// files that packages brought are signed too, of all owners, as far as they are what the package brought.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl sign --key ima.key --cert ima.der /usr/local/bin/program
  imactl sign --key ima.key --cert ima.der --for-policy ima_policy --root rootfs rootfs
  imactl sign --key ima.key --cert ima.der --for-policy ima_policy --packages /usr/local/bin
  imactl sign --key ima.key --cert ima.der --sidecar image.bin            writes image.bin.sig
  imactl sign --key ima.key --cert ima.der --verity /usr/lib/app          for digest_type=verity appraise_type=sigv3
  imactl sign --sign-command 'sign-service --token 3' --cert ima.der --for-policy ima_policy --root rootfs rootfs
  imactl sign --key ima.key --cert ima.der --digest sha256:e3b0c4...      prints the value of security.ima")]
pub struct Sign {
    /// Files and directories
    #[arg(required_unless_present_any = ["digest", "packages"], conflicts_with = "digest")]
    paths: Vec<PathBuf>,
    /// Sign the files that installed packages brought: those in the records of dpkg or rpm below --root, unless their content has
    /// changed since
    #[arg(long, conflicts_with_all = ["digest", "sidecar"])]
    packages: bool,
    #[command(flatten)]
    key: KeyOptions,
    #[command(flatten)]
    evm: EvmOptions,
    #[command(flatten)]
    appraisal: AppraisalOptions,
    #[command(flatten)]
    tree: TreeOptions,
    /// Write signatures to FILE.sig instead of security.ima
    #[arg(long, conflicts_with = "evm_key")]
    sidecar: bool,
    /// Leave files alone that this key has signed and that have not changed since
    #[arg(long, requires = "cert", conflicts_with = "evm_key")]
    incremental: bool,
    /// Sign the digest that fs-verity computes (version 3 signatures), with sha256 or sha512; enable fs-verity on the files
    /// without a salt and with blocks of 4096 bytes
    #[arg(long)]
    verity: bool,
    /// Sign this digest and print the value of security.ima in hexadecimal
    #[arg(long, value_name = "ALGO:HEX", conflicts_with = "verity")]
    digest: Option<String>,
    #[command(flatten)]
    output: OutputOptions,
}

impl Sign {
    pub fn run(mut self) -> Result {
        if let Some(digest) = self.digest.take() {
            return self.sign_digest(&digest);
        }
        let evm = self.evm.identity(&self.key)?;
        let appraisal = self.appraisal.appraisal("ext4", None)?;
        let identity = self.key.identity_for(appraisal.as_ref())?;
        let options = SignOptions {
            mark: if self.verity {
                ImaValue::Verity(identity)
            } else {
                ImaValue::Signature(identity)
            },
            appraisal,
            place: place(self.sidecar),
            incremental: self.incremental,
            certificate: self.key.certificate()?,
            evm,
        };
        let found = if self.packages {
            files::collect_with_packages(&self.paths, &self.tree.root)?
        } else {
            files::collect(&self.paths, &self.tree.root)?
        };
        mark(found, &self.paths, &options, self.output.json)
    }

    fn sign_digest(mut self, digest: &str) -> Result {
        let usage = |why: &str| {
            Fault::new(Code::Usage, format!("--digest {digest}: {why}")).because(Cause::DIGEST_FORM)
        };
        let (algo, hex) = digest
            .split_once(':')
            .ok_or_else(|| usage("there is no colon in it"))?;
        let algo: HashAlgorithm = algo
            .parse()
            .map_err(|_| usage("there is no such hash algorithm"))?;
        let bytes =
            hex::decode(hex).ok_or_else(|| usage("what follows the colon is not hexadecimal"))?;
        if bytes.len() != algo.digest_len() {
            return Err(usage("a digest of this algorithm has another length"));
        }
        self.key.hash = algo;
        let value = self.key.identity()?.sign_digest(&bytes)?;
        let hex = hex::encode(&value);
        if self.output.json {
            output::json(&json!({"security.ima": hex}))?;
        } else {
            output::line(format_args!("{hex}"))?;
        }
        Ok(Outcome::Good)
    }
}

/// Where signatures are to be.
pub fn place(sidecar: bool) -> Place {
    if sidecar {
        Place::Sidecar
    } else {
        Place::Xattr
    }
}

/// Signs the files that were found in `paths`, or writes their digests, and reports what became of them.
pub fn mark(mut found: Files, paths: &[PathBuf], options: &SignOptions, json: bool) -> Result {
    if options.place == Place::Sidecar {
        found.files.retain(|file| {
            file.path
                .extension()
                .is_none_or(|extension| extension != "sig")
        });
    }
    let progress = Progress::new("signing", found.files.len() as u64);
    let results = imactl::sign::sign(&found.files, options, &|_| progress.step());
    progress.finish();
    let mut skipped: BTreeMap<Skip, u64> = BTreeMap::new();
    for (_, skip) in &found.skipped {
        *skipped.entry(*skip).or_default() += 1;
    }
    let (mut signed, mut failed) = (0_u64, 0_u64);
    let mut last = None;
    for (file, result) in found.files.iter().zip(results) {
        match result {
            Signed::Yes => signed += 1,
            Signed::Skipped(skip) => {
                *skipped.entry(skip).or_default() += 1;
                if skip == Skip::Changed {
                    output::warn(format_args!(
                        "imactl: {}: skipped: {skip}; name it to sign it as it is",
                        shown(&file.path)
                    ));
                }
            }
            Signed::Failed(fault) => {
                failed += 1;
                // Ten are enough to see what is wrong; the last one is reported in full.
                if failed <= 10 {
                    output::warn(format_args!(
                        "imactl: {}: {}",
                        fault.code().id(),
                        fault.detail()
                    ));
                }
                last = Some(fault);
            }
        }
    }
    if json {
        let skipped: BTreeMap<String, u64> = skipped
            .iter()
            .map(|(skip, count)| (skip.to_string(), *count))
            .collect();
        let key_id = options
            .mark
            .identity()
            .map(|identity| identity.key_id().to_string());
        output::json(
            &json!({"signed": signed, "failed": failed, "skipped": skipped, "key_id": key_id}),
        )?;
    } else {
        match options.mark.identity() {
            Some(identity) => output::line(format_args!(
                "signed {signed} files with key {}",
                identity.key_id()
            ))?,
            None => output::line(format_args!(
                "wrote the {} digests of {signed} files",
                options.mark.algo()
            ))?,
        }
        for (skip, count) in &skipped {
            output::line(format_args!("skipped {count}: {skip}"))?;
        }
        for (path, skip) in found
            .skipped
            .iter()
            .filter(|(path, _)| paths.contains(path))
        {
            output::warn(format_args!("imactl: {}: skipped: {skip}", shown(path)));
        }
    }
    match last {
        Some(fault) => Err(fault),
        None => Ok(Outcome::Good),
    }
}
