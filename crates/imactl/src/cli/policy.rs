//! `imactl policy`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ima::policy::Policy;
use imactl::file::read_bounded;
use serde_json::json;

use super::{Outcome, Result, output};

/// Check policies
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    Check(Check),
}

impl PolicyCommand {
    pub fn run(self) -> Result {
        match self {
            Self::Check(command) => command.run(),
        }
    }
}

/// Find what the kernel would refuse in a policy, by line and word
///
/// All errors are named, not the first alone. A policy without rules is an error: the init refuses it. Exit status 1 if there is
/// any.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl policy check policy/ima_policy.default
  imactl policy check --json ima_policy | jq '.errors[].line'")]
pub struct Check {
    /// Policy files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    fn run(self) -> Result {
        let mut errors = Vec::new();
        let mut lines = Vec::new();
        for path in &self.files {
            let text = read_bounded(path, 4 << 20)?;
            for error in Policy::errors(&text) {
                lines.push(format!("{}: {error}", path.display()));
                errors.push(json!({
                    "file": path.to_string_lossy(), "line": error.line, "token": error.token, "error": error.to_string(),
                }));
            }
            match Policy::parse(&text) {
                Ok(policy) if policy.is_empty() => {
                    lines.push(format!(
                        "{}: no rules; the init refuses to boot with it",
                        path.display()
                    ));
                    errors.push(json!({"file": path.to_string_lossy(), "error": "no rules"}));
                }
                Ok(policy) if !policy.appraises() => {
                    output::warn(format_args!(
                        "imactl: warning: {}: no rule appraises anything",
                        path.display()
                    ));
                }
                _ => {}
            }
        }
        if self.json {
            output::json(&json!({"errors": errors}))?;
        } else {
            for line in &lines {
                output::line(format_args!("{line}"))?;
            }
        }
        Ok(if errors.is_empty() {
            Outcome::Good
        } else {
            Outcome::Findings
        })
    }
}
