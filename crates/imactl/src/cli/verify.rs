//! `imactl verify`

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use ima::release::Release;
use imactl::sign::Place;
use imactl::verify::{Verdict, VerifyOptions, nothing_checked};
use imactl::{chain, files};
use serde_json::json;

use super::options::{self, AppraisalOptions, OutputOptions, TreeOptions};
use super::outcome::{Outcome, Result};
use super::output::{self, Progress, shown};
use super::sign;

/// Check the signatures of files, trees and images
///
/// Each file that is not good is named with the cause: no signature, a digest only, a key of which no certificate was given,
/// changed content, a malformed attribute; with --evm-cert also owner, mode or attributes that changed. With --ca only
/// certificates count that one of these CAs signed, directly or by way of the CA certificates among those given.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl verify --cert ima.der /usr/local/bin/program
  imactl verify --cert ima.der --for-policy ima_policy --root rootfs rootfs
  imactl verify --cert ima.der --for-policy ima_policy --image root.img
  imactl verify --cert /etc/keys --ca ca.der /usr
  imactl verify --cert ima.der --evm-cert evm.der /usr
  imactl verify --cert ima.der --json /usr | jq '.bad[].path'

Exit status, by the gravest cause found:
  0  every file is good
  2  a file or certificate could not be read, no file was checked, or wrong usage
  3  files without a signature, or without one in security.evm
  4  files signed by keys of which no certificate was given
  5  attributes that are not a signature, or one that is not checked here or that the kernel refuses
  6  content, owner, mode or attributes changed after signing")]
pub struct Verify {
    /// Files and directories
    #[arg(required_unless_present = "image", conflicts_with = "image")]
    paths: Vec<PathBuf>,
    /// Check the files inside this image (ext4, squashfs, erofs) or tar archive
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sidecar", "root"])]
    image: Option<PathBuf>,
    /// Certificates of keys that may have signed: DER, PEM with any number of them, or a directory of such files
    #[arg(long = "cert", value_name = "FILE", required = true)]
    certificates: Vec<PathBuf>,
    /// CA certificates; only what they signed counts
    #[arg(long = "ca", value_name = "FILE")]
    authorities: Vec<PathBuf>,
    /// Certificates of keys for security.evm; every file must have a portable signature by one of them
    #[arg(long = "evm-cert", value_name = "FILE", conflicts_with = "sidecar")]
    evm: Vec<PathBuf>,
    #[command(flatten)]
    appraisal: AppraisalOptions,
    #[command(flatten)]
    tree: TreeOptions,
    /// Read signatures from FILE.sig instead of security.ima
    #[arg(long)]
    sidecar: bool,
    /// Release of the oldest kernel that will appraise the files, such as 6.12; P-521 is known from 6.10 on, SHA-3
    /// from 6.7, signatures of version 3 on files from 7.1
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<Release>,
    #[command(flatten)]
    output: OutputOptions,
}

impl Verify {
    pub fn run(self) -> Result {
        let authorities = options::certificates_in(&self.authorities)?;
        let source = self.image.as_deref().map(imactl::image::read).transpose()?;
        let filesystem = source.as_ref().and_then(imactl::image::Source::filesystem);
        let (name, uuid) = filesystem
            .as_ref()
            .map_or(("ext4", None), |found| (found.name.as_str(), found.uuid));
        let options = VerifyOptions {
            certificates: usable(options::certificates_in(&self.certificates)?, &authorities)?,
            evm: usable(options::certificates_in(&self.evm)?, &authorities)?,
            appraisal: self.appraisal.appraisal(name, uuid)?,
            place: sign::place(self.sidecar),
            kernel: self.kernel,
        };
        let found = match &source {
            Some(source) => {
                let progress = Progress::new("verifying", source.tree.len() as u64);
                let found: Vec<(PathBuf, Verdict)> =
                    imactl::verify::verify_tree(&source.tree, &options, &|_| progress.step())
                        .into_iter()
                        .map(|(name, verdict)| {
                            let path = Path::new("/").join(OsStr::from_bytes(name));
                            (path, verdict)
                        })
                        .collect();
                progress.finish();
                found
            }
            None => self.files(&options)?,
        };
        self.report(&found)
    }

    fn files(&self, options: &VerifyOptions) -> imactl::Result<Vec<(PathBuf, Verdict)>> {
        let mut found = files::collect(&self.paths, &self.tree.root)?;
        if options.place == Place::Sidecar {
            found.files.retain(|file| {
                file.path
                    .extension()
                    .is_none_or(|extension| extension != "sig")
            });
        }
        let progress = Progress::new("verifying", found.files.len() as u64);
        let verdicts = imactl::verify::verify(&found.files, options, &|_| progress.step());
        progress.finish();
        let paths = found.files.into_iter().map(|file| file.path);
        Ok(paths.zip(verdicts).collect())
    }

    fn report(&self, found: &[(PathBuf, Verdict)]) -> Result {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let mut bad = Vec::new();
        for (path, verdict) in found {
            *counts.entry(verdict.word()).or_default() += 1;
            if verdict.is_good() {
                continue;
            }
            if self.output.json {
                bad.push(json!({
                    "path": path.to_string_lossy(),
                    "verdict": verdict.word(),
                    "key_id": verdict.key_id().map(|key| key.to_string()),
                    "detail": verdict.to_string(),
                }));
            } else {
                output::line(format_args!("{}: {verdict}", shown(path)))?;
            }
        }
        if self.output.json {
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
        let checked = found
            .iter()
            .filter(|(_, verdict)| *verdict != Verdict::NotAppraised)
            .count();
        if checked == 0 {
            return Err(nothing_checked(match found.len() {
                0 => "there is no regular file".to_owned(),
                count => format!("the policy appraises none of the files, {count} in number"),
            }));
        }
        let verdicts: Vec<&Verdict> = found.iter().map(|(_, verdict)| verdict).collect();
        let Some(status) = verdicts.iter().filter_map(|verdict| status(verdict)).max() else {
            return Ok(Outcome::Good);
        };
        let bad = verdicts.iter().filter(|verdict| !verdict.is_good()).count();
        output::warn(format_args!(
            "{}",
            Fault::new(
                Code::VerificationFailed,
                format!("{bad} of {} files", verdicts.len())
            )
        ));
        let unreadable = verdicts.iter().find_map(|verdict| match verdict {
            Verdict::Unreadable(fault) => Some(fault.clone()),
            _ => None,
        });
        match unreadable {
            Some(fault) => Err(fault),
            None => Ok(Outcome::Found(status)),
        }
    }
}

/// The exit status that a verdict asks for; the higher, the graver.
fn status(verdict: &Verdict) -> Option<u8> {
    match verdict {
        Verdict::Good(_) | Verdict::GoodV3(_) | Verdict::GoodVerity(_) | Verdict::NotAppraised => {
            None
        }
        Verdict::Unreadable(_) => Some(2),
        Verdict::Unsigned | Verdict::DigestOnly { matches: true } | Verdict::NoEvm => Some(3),
        Verdict::UnknownKey(_) => Some(4),
        Verdict::Malformed(_)
        | Verdict::Unverifiable(_)
        | Verdict::Unsupported(_)
        | Verdict::TooNew(..)
        | Verdict::OtherKind(..) => Some(5),
        Verdict::Changed(_)
        | Verdict::MetadataChanged(_)
        | Verdict::OtherWordSize(..)
        | Verdict::DigestOnly { matches: false } => Some(6),
    }
}

/// Of the certificates given, those that count under `authorities`: all, if there are none.
fn usable(
    certificates: Vec<Certificate>,
    authorities: &[Certificate],
) -> imactl::Result<Vec<Certificate>> {
    if authorities.is_empty() || certificates.is_empty() {
        return Ok(certificates);
    }
    let (mut usable, mut last) = (Vec::new(), None);
    for certificate in &certificates {
        match chain::check(certificate, authorities, &certificates) {
            Ok(()) => usable.push(certificate.clone()),
            // An intermediate CA is there for the chain, and signs no file.
            Err(_) if certificate.is_ca() => {}
            Err(why) => {
                output::warn(format_args!(
                    "imactl: `{}` does not count: {why}",
                    certificate.subject()
                ));
                last = Some(why);
            }
        }
    }
    if usable.is_empty() {
        let cause = last.map_or_else(
            || Cause::ONLY_CAS.into(),
            |why| Cause::NO_CHAIN.with(&[&why.to_string()]),
        );
        return Err(
            Fault::new(Code::CertificateUnusable, "none of those given counts").because(cause),
        );
    }
    Ok(usable)
}
