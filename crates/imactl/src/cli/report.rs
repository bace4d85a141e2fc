//! `imactl report`

use std::path::PathBuf;

use clap::Args;
use imactl::status::Status;

use super::outcome::{Outcome, Result};
use super::status;

/// Write a page of HTML about this boot: what is in force, times, keys, policy, measurements, denials
///
/// The file needs nothing else: it has no scripts and loads nothing. It shows what `imactl status` shows, and the policy in words where
/// the kernel lets it be read.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl report --out boot.html
  imactl report --root bundle --out boot.html     of what imactl status --record has written")]
pub struct Report {
    /// The file; written beside it first and then renamed
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Read the files of a system from this directory, as imactl status --root does
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

impl Report {
    pub fn run(self) -> Result {
        let status = Status::of(&status::system(self.root.as_ref())?, status::now());
        imactl::file::write(&self.out, status.html().as_bytes(), 0o644, true)?;
        Ok(Outcome::Good)
    }
}
