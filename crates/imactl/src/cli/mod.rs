//! The command line: one module a command, each a thin layer over the library.

mod check;
mod explain;
mod generate;
mod image;
mod initramfs;
mod kernel;
mod keygen;
mod options;
mod output;
mod policy;
mod sign;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Done, and nothing to complain of.
    Good,
    /// Done, and something was found: a bad signature, an error in a policy, a missing option.
    Findings,
}

type Result<T = Outcome> = imactl::Result<T>;

const EXIT_STATUS: &str = "\
Exit status:
  0  done, nothing found
  1  done, something found: a bad signature, an error in a policy, an option missing
  2  wrong usage, or an error: three lines on standard error say what, why and what now

Environment:
  EVMCTL_KEY_PASSWORD  password of private keys
  SOURCE_DATE_EPOCH    the time now, for certificates and images that can be made again byte for byte";

/// Keys, signatures, initramfs and root images for Linux's integrity subsystem (IMA).
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_STATUS, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Keygen(keygen::Keygen),
    Sign(sign::Sign),
    Verify(verify::Verify),
    Initramfs(initramfs::Initramfs),
    Image(image::Image),
    #[command(subcommand)]
    Kernel(kernel::Kernel),
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    Check(Box<check::Check>),
    Explain(explain::Explain),
    #[command(subcommand)]
    Generate(generate::Generate),
}

/// Reads the command line, does what it says and gives the exit status.
pub fn main() -> ExitCode {
    // A reader that goes away (`imactl ... | head`) ends this program as it does others, not with a panic.
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let wrong = error.use_stderr();
            let _ = error.print();
            return if wrong {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let outcome = match cli.command {
        Command::Keygen(command) => command.run(),
        Command::Sign(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Initramfs(command) => command.run(),
        Command::Image(command) => command.run(),
        Command::Kernel(command) => command.run(),
        Command::Policy(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Generate(command) => command.run(),
    };
    match outcome {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Findings) => ExitCode::from(1),
        Err(fault) => {
            output::warn(format_args!("{fault}"));
            ExitCode::from(2)
        }
    }
}
