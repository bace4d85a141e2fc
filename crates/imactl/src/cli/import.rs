//! `imactl import`

use std::path::PathBuf;

use clap::Args;
use ima::certificate::Certificate;
use imactl::keyring::Target;
use serde_json::json;

use super::options::{self, OutputOptions};
use super::outcome::{Outcome, Result};
use super::output;

/// Put certificates onto a keyring of the running system
///
/// The kernel decides, by the keyring's own rules: onto .ima and .evm it takes what a CA that it trusts signed. What it refuses is
/// reported with the reason. What is put there is gone with the next boot; the init puts it there again from /etc/keys.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl import ima.der
  imactl import --keyring .evm evm.der
  imactl import --keyring _ima ima.pem        where the kernel has no .ima: anybody with root can add to it")]
pub struct Import {
    /// Certificates: DER, PEM with any number of them, or directories of such files
    #[arg(required = true)]
    certificates: Vec<PathBuf>,
    /// Keyring: a name such as .ima, .evm, .secondary_trusted_keys, _ima; @s, @u, @us; or a serial number
    #[arg(long, value_name = "KEYRING", default_value = ".ima")]
    keyring: String,
    #[command(flatten)]
    output: OutputOptions,
}

impl Import {
    pub fn run(self) -> Result {
        let mut certificates: Vec<(String, Certificate)> = Vec::new();
        for path in &self.certificates {
            let found = options::certificates_in(std::slice::from_ref(path))?;
            certificates.extend(
                found
                    .into_iter()
                    .map(|certificate| (output::shown(path), certificate)),
            );
        }
        let keyring = Target::find(&self.keyring)?;
        let (mut taken, mut refused) = (Vec::new(), None);
        for (path, certificate) in &certificates {
            if certificate.is_sample() {
                output::warn(format_args!(
                    "imactl: warning: {path} is the certificate of a SAMPLE KEY, whose private half everybody has"
                ));
            }
            let serial = match keyring.import(path, certificate) {
                Ok(serial) => serial,
                Err(fault) => {
                    // The others may be taken all the same; the last refusal is the one that ends the command.
                    if let Some(before) = refused.replace(fault) {
                        output::warn(format_args!("{before}"));
                    }
                    continue;
                }
            };
            let key_id = certificate.key_id().to_string();
            if self.output.json {
                taken.push(json!({
                    "path": path,
                    "subject": certificate.subject(),
                    "key_id": key_id,
                    "serial": serial.get(),
                }));
            } else {
                output::line(format_args!(
                    "{serial}: `{}`, {}, key id {key_id}, onto {}",
                    certificate.subject(),
                    certificate.key(),
                    self.keyring
                ))?;
            }
        }
        if self.output.json {
            output::json(&json!({"keyring": self.keyring, "imported": taken}))?;
        }
        refused.map_or(Ok(Outcome::Good), Err)
    }
}
