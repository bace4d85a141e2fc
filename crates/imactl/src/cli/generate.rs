//! `imactl generate`

use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Subcommand};
use clap_complete::Shell;

use super::{Cli, Outcome, Result, output};

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
    pub fn run(self) -> Result {
        let (Self::Man { directory } | Self::Completions { directory }) = &self;
        let unwritable = |error: std::io::Error| imactl::file::unwritable(directory, &error);
        std::fs::create_dir_all(directory).map_err(unwritable)?;
        match &self {
            Self::Man { directory } => {
                clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory)
                    .map_err(unwritable)?;
            }
            Self::Completions { directory } => {
                for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
                    let path = clap_complete::generate_to(
                        shell,
                        &mut Cli::command(),
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
