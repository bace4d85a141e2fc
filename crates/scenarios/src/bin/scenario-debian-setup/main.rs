//! Sets up a Debian system over its serial console, up to enforcement and through its upkeep: the last step of
//! `qemu/debian-setup`.

mod grub;
mod session;
mod stages;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use stages::{STAGES, Stage};

type Error = Box<dyn std::error::Error>;

/// Set up a Debian system over its serial console, and check each stage
///
/// Boots the system of the disk image once for each STAGE, logs in on the serial console, runs the commands of the stage and
/// checks their results. Stages always run in the same order. What the system writes stays in the image.
#[derive(Debug, Parser)]
#[command(
    name = "scenario-debian-setup",
    version,
    max_term_width = 100,
    after_help = "\
Exit status:
  0  every check of every chosen stage passed
  1  a check failed, or the machine could not be started; later stages are not run
  2  the command line is wrong

Examples:
  scenario-debian-setup --list
  scenario-debian-setup --disk root.img --keep stages --console stages
  scenario-debian-setup --disk stages/log.img enforced packages"
)]
struct Options {
    /// The disk image: one ext4 file system with /boot in it
    #[arg(long, value_name = "FILE", required_unless_present = "list")]
    disk: Option<PathBuf>,
    /// Copy the image to DIR/STAGE.img after each stage, as a sparse file
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Save the serial console of each stage as DIR/STAGE.console
    #[arg(long, value_name = "DIR")]
    console: Option<PathBuf>,
    /// Run all stages
    #[arg(long)]
    all: bool,
    /// Show the serial console while the machine runs
    #[arg(long)]
    verbose: bool,
    /// Print the stages with what they check, and exit
    #[arg(long)]
    list: bool,
    /// The stages to run [default: install, log and enforced]
    #[arg(value_name = "STAGE", value_parser = PossibleValuesParser::new(STAGES.map(|stage| stage.name)))]
    names: Vec<String>,
}

impl Options {
    /// Returns the chosen stages in their order.
    fn stages(&self) -> impl Iterator<Item = &'static Stage> {
        STAGES.iter().filter(|stage| {
            self.all
                || self.names.iter().any(|name| name == stage.name)
                || (self.names.is_empty() && stage.default)
        })
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let disk = match &options.disk {
        Some(disk) if !options.list => disk,
        _ => {
            for stage in &STAGES {
                println!("{:<12} {}", stage.name, stage.about);
            }
            return ExitCode::SUCCESS;
        }
    };
    match stages::run(&options, disk) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scenario-debian-setup: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn stages_run_in_their_order() {
        let chosen = |arguments: &[&str]| -> Vec<&str> {
            let arguments = [&["x", "--disk", "d"], arguments].concat();
            let options = Options::try_parse_from(arguments).expect("a command line");
            options.stages().map(|stage| stage.name).collect()
        };
        assert_eq!(chosen(&[]), ["install", "log", "enforced"]);
        assert_eq!(chosen(&["undo", "log"]), ["log", "undo"]);
        assert_eq!(chosen(&["--all"]).len(), STAGES.len());
        assert!(Options::try_parse_from(["x", "--disk", "d", "nothing"]).is_err());
        assert!(Options::try_parse_from(["x"]).is_err());
    }
}
