//! `imactl verify`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use ima::fault::{Code, Fault};
use imactl::files;
use imactl::sign::{Place, Verdict};
use serde_json::json;

use super::options::{self, ChooserOptions};
use super::output::{self, Progress, shown};
use super::{Outcome, Result};

/// Check the signatures of files and trees
///
/// Each file that is not good is named with the cause: no signature, a digest only, a key of which no certificate was given,
/// changed content, a malformed attribute. The exit status is 1 if there is any.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl verify --cert ima.der /usr/local/bin/program
  imactl verify --cert ima.der --for-policy ima_policy --root rootfs rootfs
  imactl verify --cert ima.der --json /usr | jq '.bad[].path'")]
pub struct Verify {
    /// Files and directories
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Certificates of keys that may have signed; DER, or PEM with any number of them
    #[arg(long = "cert", value_name = "FILE", required = true)]
    certificates: Vec<PathBuf>,
    #[command(flatten)]
    chooser: ChooserOptions,
    /// Directory that will be the root, where a policy's paths begin
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Read signatures from FILE.sig instead of security.ima
    #[arg(long)]
    sidecar: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub fn run(self) -> Result {
        let mut certificates = Vec::new();
        for path in &self.certificates {
            certificates.extend(options::certificates(path)?);
        }
        let chooser = self.chooser.chooser("ext4", None)?;
        let mut found = files::collect(&self.paths, &self.root)?;
        let place = if self.sidecar {
            Place::Sidecar
        } else {
            Place::Xattr
        };
        if self.sidecar {
            found.files.retain(|file| {
                file.path
                    .extension()
                    .is_none_or(|extension| extension != "sig")
            });
        }
        let progress = Progress::new("verifying", found.files.len() as u64);
        let verdicts = imactl::sign::verify(
            &found.files,
            &certificates,
            chooser.as_ref(),
            place,
            &|_| progress.step(),
        );
        progress.finish();
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let mut bad = Vec::new();
        for (file, verdict) in found.files.iter().zip(&verdicts) {
            *counts.entry(verdict.word()).or_default() += 1;
            if verdict.is_good() {
                continue;
            }
            if self.json {
                bad.push(json!({
                    "path": file.path.to_string_lossy(),
                    "verdict": verdict.word(),
                    "detail": verdict.to_string(),
                }));
            } else {
                output::line(format_args!("{}: {verdict}", shown(&file.path)))?;
            }
        }
        if self.json {
            output::json(&json!({"counts": counts, "bad": bad}))?;
        } else {
            let counts: Vec<String> = counts
                .iter()
                .map(|(word, count)| format!("{count} {word}"))
                .collect();
            output::line(format_args!(
                "{}",
                if counts.is_empty() {
                    "no files".to_owned()
                } else {
                    counts.join(", ")
                }
            ))?;
        }
        if verdicts.iter().all(Verdict::is_good) {
            return Ok(Outcome::Good);
        }
        let bad = verdicts.iter().filter(|verdict| !verdict.is_good()).count();
        output::warn(format_args!(
            "{}",
            Fault::new(
                Code::VerificationFailed,
                format!("{bad} of {}", verdicts.len())
            )
        ));
        Ok(Outcome::Findings)
    }
}
