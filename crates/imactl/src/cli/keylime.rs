//! `imactl keylime`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use imactl::keylime::RuntimePolicy;

use super::booted::Booted;
use super::options;
use super::outcome::{Outcome, Result};
use super::output;

/// Write what Keylime verifies devices with
#[derive(Debug, Subcommand)]
pub enum KeylimeCommand {
    Policy(Policy),
}

impl KeylimeCommand {
    pub fn run(self) -> Result {
        match self {
            Self::Policy(command) => command.run(),
        }
    }
}

/// Write a runtime policy: what the measurement list of a device that boots this root may contain
///
/// Accepted are the digests of all files of the root under their names, the keys that the kernel and the initramfs bring, and, unless
/// --digests-only is given, every file that is signed by a key of the initramfs. Keylime does not know the policy of the kernel: a file
/// of the root that is signed and older is accepted too then, under any name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl keylime policy --from root.img --kernel bzImage --initramfs initramfs.img --out policy.json
  imactl keylime policy --from rootfs --initramfs initramfs.img --digests-only --exclude '/var/lib/.*' --out policy.json
  keylime_tenant -c add -u UUID -t ADDRESS --runtime-policy policy.json")]
pub struct Policy {
    #[command(flatten)]
    booted: Booted,
    /// Certificate whose signatures are accepted; may be repeated, and is added to those of the initramfs
    #[arg(long = "cert", value_name = "FILE", conflicts_with = "digests_only")]
    certificates: Vec<PathBuf>,
    /// Accept no file for its signature, and any key on a keyring: Keylime would accept what that key has signed
    #[arg(long)]
    digests_only: bool,
    /// The first entry of the list, in hexadecimal, if Keylime does not compute it from the firmware's event log; may be repeated
    #[arg(long, value_name = "DIGEST")]
    boot_aggregate: Vec<String>,
    /// Names that are accepted whatever was measured: a regular expression of Python's; may be repeated
    #[arg(long, value_name = "REGEX")]
    exclude: Vec<String>,
    /// Policy to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Policy {
    fn run(self) -> Result {
        let mut policy = RuntimePolicy::new(self.booted.hash())?;
        if self.digests_only {
            policy = policy.with_digests_alone();
        }
        for path in &self.certificates {
            for certificate in options::certificates(path)? {
                policy.accept_signatures(&certificate)?;
            }
        }
        for certificate in self.booted.certificates()? {
            policy.accept_signatures(&certificate)?;
        }
        self.booted.predict(&mut |measured| {
            policy.accept(measured);
            Ok(())
        })?;
        for digest in &self.boot_aggregate {
            policy.accept_boot_aggregate(digest)?;
        }
        for expression in &self.exclude {
            policy.exclude(expression);
        }
        if policy.left_out() > 0 {
            output::warn(format_args!(
                "{} names are not UTF-8 and cannot be in a policy of Keylime",
                policy.left_out()
            ));
        }
        let mut text = serde_json::to_vec_pretty(&policy.to_json()?).unwrap_or_default();
        text.push(b'\n');
        imactl::file::write(&self.out, &text, 0o644, true)?;
        output::line(format_args!(
            "{}: {} names of files",
            self.out.display(),
            policy.len()
        ))?;
        Ok(Outcome::Good)
    }
}
