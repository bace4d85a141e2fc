//! `imactl config`, for the hook of initramfs-tools, the module of dracut and the packages' scripts.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ima::config::{Config as Parsed, Enforce, MAX_CONFIG};
use ima::fault::{Code, Fault};
use imactl::file::{in_file, read_bounded};
use imactl::nearest;

use super::outcome::{Outcome, Result};
use super::output;

/// Print a value of an ima-init.conf, as the init understands it
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  imactl config /etc/ima-init/ima-init.conf enforce")]
pub struct Config {
    /// The configuration
    file: PathBuf,
    /// The key
    #[arg(value_enum)]
    key: Key,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Key {
    Debug,
    Enforce,
    Init,
    #[value(name = "switch_root")]
    SwitchRoot,
}

impl Config {
    pub fn run(self) -> Result {
        let text = read_bounded(&self.file, MAX_CONFIG as u64)?;
        let parsed = Parsed::parse(&text).map_err(|error| {
            in_file(
                Fault::new(
                    Code::ConfigInvalid,
                    nearest::with(&error, nearest::in_configuration(&error)),
                ),
                &self.file,
            )
        })?;
        let value = match (self.key, parsed.debug, parsed.enforce) {
            (Key::Debug, true, _) => "yes",
            (Key::Debug, false, _) => "no",
            (Key::Enforce, _, Enforce::Required) => "required",
            (Key::Enforce, _, Enforce::Permissive) => "permissive",
            (Key::Init, ..) => &parsed.init,
            (Key::SwitchRoot, ..) => &parsed.switch_root,
        };
        output::line(format_args!("{value}"))?;
        Ok(Outcome::Good)
    }
}
