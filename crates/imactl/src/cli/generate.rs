//! `imactl generate`

use std::path::{Path, PathBuf};

use clap::{Command, Subcommand};
use clap_complete::Shell;

use super::outcome::{Outcome, Result};
use super::output;

/// Write man pages or shell completions, for packages
#[derive(Debug, Subcommand)]
pub enum Generate {
    /// Write a man page for each command
    Man {
        /// Directory to write to; made if it is not there
        directory: PathBuf,
    },
    /// Write completions for bash, zsh and fish
    Completions {
        /// Directory to write to; made if it is not there
        directory: PathBuf,
    },
}

impl Generate {
    /// Writes them for this command line.
    pub fn run(self, mut command_line: Command) -> Result {
        let (Self::Man { directory } | Self::Completions { directory }) = &self;
        let unwritable = |error: std::io::Error| imactl::file::unwritable(directory, &error);
        std::fs::create_dir_all(directory).map_err(unwritable)?;
        match &self {
            Self::Man { directory } => {
                clap_mangen::generate_to(command_line.disable_help_subcommand(true), directory)
                    .map_err(unwritable)?;
            }
            Self::Completions { directory } => {
                for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
                    let path = clap_complete::generate_to(
                        shell,
                        &mut command_line,
                        "imactl",
                        Path::new(directory),
                    )
                    .map_err(unwritable)?;
                    output::line(format_args!("{}", path.display()))?;
                }
            }
        }
        Ok(Outcome::Good)
    }
}
