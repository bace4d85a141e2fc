//! `imactl keys`

use clap::Args;
use imactl::keyring::{self, Ring, TRUSTED};
use serde_json::json;

use super::options::OutputOptions;
use super::outcome::{Outcome, Result};
use super::output;

/// Show what is on the keyrings of the running system
///
/// Those that decide whom the kernel trusts: CAs on .builtin_trusted_keys, .secondary_trusted_keys, .machine and .platform, keys
/// that sign files on .ima and .evm, or on _ima and _evm where the kernel has no others. The key id is what signatures name.
/// Root sees more than others.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl keys
  imactl keys .ima
  imactl keys --json | jq '.[] | select(.name == \".ima\") | .keys[].key_id'")]
pub struct Keys {
    /// Keyrings by name; those that decide whom the kernel trusts if none is given
    keyrings: Vec<String>,
    #[command(flatten)]
    output: OutputOptions,
}

impl Keys {
    pub fn run(self) -> Result {
        let mut names: Vec<&str> = self.keyrings.iter().map(String::as_str).collect();
        if names.is_empty() {
            names = TRUSTED.to_vec();
        }
        for name in &self.keyrings {
            // One that was asked for and is not there is an error, with the reason.
            keyring::Target::find(name)?;
        }
        let rings = keyring::rings(&names)?;
        if self.output.json {
            let rings: Vec<_> = rings.iter().map(as_json).collect();
            output::json(&json!(rings))?;
            return Ok(Outcome::Good);
        }
        for ring in &rings {
            show(ring)?;
        }
        if rings.is_empty() {
            output::line(format_args!(
                "none of these keyrings is here: {}",
                names.join(", ")
            ))?;
        }
        Ok(Outcome::Good)
    }
}

fn show(ring: &Ring) -> imactl::Result<()> {
    let Some(keys) = &ring.keys else {
        return output::line(format_args!(
            "{} ({}): not readable for this user",
            ring.name, ring.serial
        ));
    };
    let count = match keys.len() {
        0 => "empty".to_owned(),
        1 => "1 key".to_owned(),
        count => format!("{count} keys"),
    };
    output::line(format_args!("{} ({}): {count}", ring.name, ring.serial))?;
    for key in keys {
        output::line(format_args!(
            "  {:<8}  {:<16}  {}",
            key.key_id.as_deref().unwrap_or("-"),
            key.algorithm.as_deref().unwrap_or(&key.kind),
            output::shown(std::path::Path::new(&key.name)),
        ))?;
    }
    Ok(())
}

fn as_json(ring: &Ring) -> serde_json::Value {
    let keys = ring.keys.as_ref().map(|keys| {
        keys.iter()
            .map(|key| {
                json!({
                    "serial": key.serial.get(),
                    "type": key.kind,
                    "name": key.name,
                    "algorithm": key.algorithm,
                    "key_id": key.key_id,
                })
            })
            .collect::<Vec<_>>()
    });
    json!({"name": ring.name, "serial": ring.serial.get(), "keys": keys})
}
