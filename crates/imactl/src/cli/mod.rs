//! The command line: one module a command, each a thin layer over the library.

mod attest;
mod booted;
mod cert;
mod check;
mod config;
mod deb;
mod events;
mod explain;
mod generate;
mod hash;
mod image;
mod import;
mod initramfs;
mod kernel;
mod keygen;
mod keylime;
mod keys;
mod manifest;
mod measurement;
mod options;
mod outcome;
mod output;
mod policy;
mod remedies;
mod report;
mod rpm;
mod setup;
mod sign;
mod status;
mod uki;
mod verify;

pub use deb::{DPKG_DEB, dpkg_deb};
pub use options::prompt;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use outcome::Outcome;

const EXIT_STATUS: &str = "\
Exit status:
  0  done, nothing found
  1  done, something found: an error in a policy, an option missing
  2  wrong usage, or an error: three lines on standard error say what, why and what now
  3  and above: what `imactl verify` found, see its help

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
    Cert(cert::Cert),
    Sign(sign::Sign),
    Hash(hash::Hash),
    #[command(subcommand)]
    Manifest(manifest::ManifestCommand),
    #[command(subcommand)]
    Deb(deb::DebCommand),
    #[command(subcommand)]
    Rpm(rpm::RpmCommand),
    Verify(verify::Verify),
    Import(import::Import),
    Keys(keys::Keys),
    Initramfs(initramfs::Initramfs),
    Image(Box<image::Image>),
    #[command(subcommand)]
    Kernel(kernel::Kernel),
    #[command(subcommand)]
    Uki(uki::Uki),
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    Check(Box<check::Check>),
    #[command(hide = true)]
    Config(config::Config),
    Measurement(measurement::Measurement),
    Events(events::Events),
    #[command(subcommand)]
    Keylime(keylime::KeylimeCommand),
    #[command(subcommand)]
    Attest(attest::Attest),
    Explain(explain::Explain),
    Status(status::StatusCommand),
    Report(report::Report),
    Setup(setup::Setup),
    /// Take the command line of evmctl (ima-evm-utils), as a link named evmctl to this program does
    #[command(disable_help_flag = true, after_help = EVMCTL_EXAMPLES)]
    Evmctl {
        /// Its options and operands; --help shows them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    #[command(subcommand)]
    Generate(generate::Generate),
}

const EVMCTL_EXAMPLES: &str = "\
Examples:
  imactl evmctl ima_sign -r --key privkey.pem rootfs
  imactl evmctl ima_verify --key x509_evm.der /usr/bin/true";

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
        Command::Cert(command) => command.run(),
        Command::Sign(command) => command.run(),
        Command::Hash(command) => command.run(),
        Command::Manifest(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Deb(command) => command.run(),
        Command::Rpm(command) => command.run(),
        Command::Import(command) => command.run(),
        Command::Keys(command) => command.run(),
        Command::Initramfs(command) => command.run(),
        Command::Image(command) => command.run(),
        Command::Kernel(command) => command.run(),
        Command::Uki(command) => command.run(),
        Command::Policy(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Config(command) => command.run(),
        Command::Measurement(command) => command.run(),
        Command::Events(command) => command.run(),
        Command::Keylime(command) => command.run(),
        Command::Attest(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Report(command) => command.run(),
        Command::Setup(command) => command.run(),
        Command::Evmctl { arguments } => return crate::evmctl::main(arguments),
        Command::Generate(command) => command.run(Cli::command()),
    };
    match outcome {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Findings) => ExitCode::from(1),
        Ok(Outcome::Found(status)) => ExitCode::from(status),
        Err(fault) => {
            output::warn(format_args!("{}", remedies::with_options(fault)));
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines that begin with `imactl`, continued where they end in a backslash, without what follows a pipe or is set off by
    /// several blanks as a remark.
    fn command_lines(text: &str) -> Vec<String> {
        let text = text.replace("\\\n", " ");
        text.lines()
            .map(|line| line.trim().trim_start_matches("$ "))
            .filter(|line| line.starts_with("imactl "))
            .map(|line| {
                let line = line.split(" | ").next().unwrap_or_default();
                let words: Vec<&str> = line
                    .split("   ")
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .collect();
                // A remark stands last; what follows a continuation is an option.
                let remark = words
                    .iter()
                    .position(|part| !part.starts_with("imactl") && !part.starts_with('-'));
                words
                    .get(..remark.unwrap_or(words.len()))
                    .unwrap_or_default()
                    .join(" ")
            })
            .collect()
    }

    /// Words as a shell would make of them, quotes taken off.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for character in line.chars() {
            match (quote, character) {
                (Some(open), _) if character == open => quote = None,
                (None, '\'' | '"') => quote = Some(character),
                (None, ' ') => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
                _ => word.push(character),
            }
        }
        words.extend((!word.is_empty()).then_some(word));
        words
    }

    #[track_caller]
    fn must_parse(line: &str, place: &str) {
        // `sha256:e3b0c4...` and the like stand for something longer, and are words all the same.
        if let Err(error) = Cli::try_parse_from(words(line)) {
            let fine = matches!(
                error.kind(),
                clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion
            );
            assert!(fine, "{place}: `{line}`: {error}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_example_of_the_help_is_a_command() {
        let mut commands = vec![Cli::command()];
        let mut examples = 0;
        while let Some(command) = commands.pop() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            for line in command_lines(&help) {
                must_parse(&line, command.get_name());
                examples += 1;
            }
            commands.extend(command.get_subcommands().cloned());
        }
        assert!(examples >= 20, "{examples}");
    }

    #[test]
    fn every_command_that_setup_shows_is_one() {
        use imactl::setup::{BootCheck, Signatures, Step};

        for command in setup::COMMANDS {
            must_parse(command, "imactl setup");
        }
        let keys = |unencrypted| Step::MakeKeys {
            directory: "/keys".into(),
            unencrypted,
        };
        let sign = |named: &[&str]| {
            Step::Sign(Signatures {
                policy: "/ima_policy".into(),
                key: "/keys/ima.key".into(),
                certificate: "/keys/ima.der".into(),
                named: named.iter().map(Into::into).collect(),
            })
        };
        let check = Step::Check(BootCheck {
            initramfs: "/boot/initrd.img".into(),
            root: "/".into(),
            kernel_config: "/boot/config".into(),
        });
        let steps = [
            keys(false),
            keys(true),
            sign(&[]),
            sign(&["/opt", "/opt/a b"]),
            check,
        ];
        for step in steps {
            let command = step.command().unwrap();
            assert_eq!(command[0], "imactl");
            if let Err(error) = Cli::try_parse_from(&command) {
                panic!("`{step}`: {error}");
            }
            must_parse(&step.to_string(), "a step of imactl setup");
        }
    }

    #[test]
    fn every_command_in_the_documentation_is_one() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut pages = vec![
            root.join("README.md"),
            root.join("CONTRIBUTING.md"),
            root.join("crates/imactl/README.md"),
        ];
        pages.extend(
            walkdir::WalkDir::new(root.join("docs"))
                .into_iter()
                .map(|entry| entry.unwrap().into_path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "md")),
        );
        let mut found = 0;
        for page in pages {
            for line in command_lines(&std::fs::read_to_string(&page).unwrap()) {
                must_parse(&line, &page.display().to_string());
                found += 1;
            }
        }
        assert!(found >= 40, "{found}");
    }
}
