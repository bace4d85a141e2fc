//! The program behind `qemu/lib.sh`: what the shell scripts need before anything else of the project is built.

mod cache;
mod configuration_page;
mod progress;
mod reserved_room;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

type Error = Box<dyn std::error::Error>;

/// What the shell scripts of ima-init need before anything else is built
#[derive(Debug, Parser)]
#[command(name = "script-helper", max_term_width = 100)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Make(cache::Options),
    Progress(progress::Options),
    FillReservedRoom(reserved_room::Fill),
    DescribeReservedRoom(reserved_room::Describe),
    ConfigurationPage(configuration_page::Options),
}

fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::Make(options) => cache::main(&options),
        Command::Progress(options) => progress::main(&options),
        Command::FillReservedRoom(options) => reserved_room::fill(&options),
        Command::DescribeReservedRoom(options) => reserved_room::describe(&options),
        Command::ConfigurationPage(options) => configuration_page::main(&options),
    };
    result.unwrap_or_else(|error| {
        progress::say(&format!("script-helper: error: {error}"));
        ExitCode::from(127)
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }
}
