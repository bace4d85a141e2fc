//! `imactl explain`

use clap::Args;
use ima::fault::{Cause, Code, Fault};

use super::outcome::{Outcome, Result};
use super::output;

/// Say what an error code means, why it happens and what to do
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl explain IMA-504
  imactl explain 504
  imactl explain              all codes
  imactl explain --markdown   all codes as the page docs/reference/errors.md")]
pub struct Explain {
    /// The code, with or without IMA-
    code: Option<String>,
    /// Print all codes as a page of Markdown
    #[arg(long, conflicts_with = "code")]
    markdown: bool,
}

impl Explain {
    pub fn run(self) -> Result {
        if self.markdown {
            output::line(format_args!("{}", ima::fault::markdown().trim_end()))?;
            return Ok(Outcome::Good);
        }
        let codes = match &self.code {
            None => Code::ALL.to_vec(),
            Some(text) => vec![Code::from_id(text).ok_or_else(|| {
                Fault::new(Code::Usage, format!("no code `{text}`")).because(Cause::NO_SUCH_CODE)
            })?],
        };
        for code in codes {
            let entry = code.entry();
            output::line(format_args!(
                "[{}] {} ({} of {})\n  cause: {}\n  remedy: {}",
                entry.id,
                entry.what,
                entry.severity.name(),
                entry.stage,
                entry.cause,
                entry.remedy
            ))?;
            for cause in Cause::of(code) {
                output::line(format_args!("  found out: {}", cause.text()))?;
                if let Some(remedy) = cause.remedy() {
                    output::line(format_args!("    remedy: {remedy}"))?;
                }
            }
        }
        Ok(Outcome::Good)
    }
}
