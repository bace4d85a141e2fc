//! The command line of `evmctl` (ima-evm-utils 1.4): its commands, options, output and exit statuses, on the library of `imactl`.
//!
//! Nothing is computed here. What differs from evmctl on purpose is in docs/reference/evmctl.md.

mod evm;
mod files;
mod keys;
mod list;
mod options;
mod output;
mod sign;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use options::Options;
use output::{Done, Failed, Output};

/// The name under which a program is taken for evmctl.
pub const NAME: &str = "evmctl";

/// The release of ima-evm-utils whose command line this is.
const RELEASE: &str = "1.4";

/// A command: its name, what follows it in the usage, and what it is for.
struct Command {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    run: fn(&Options, &mut Output) -> Done,
}

impl Command {
    /// Its name and what follows it.
    fn usage(&self) -> String {
        format!("{} {}", self.name, self.arguments)
    }
}

const COMMANDS: [Command; 15] = [
    Command {
        name: "import",
        arguments: "pubkey keyring",
        about: "Import public key into the keyring.",
        run: keys::import,
    },
    Command {
        name: "convert",
        arguments: "key",
        about: "convert public key into the keyring.",
        run: keys::convert,
    },
    Command {
        name: "sign",
        arguments: "[-r] [--imahash | --imasig ] [--key key] [--pass [password] file",
        about: "Sign file metadata.",
        run: sign::sign,
    },
    Command {
        name: "verify",
        arguments: "file",
        about: "Verify EVM signature (for debugging).",
        run: verify::evm,
    },
    Command {
        name: "ima_sign",
        arguments: "[--sigfile] [--key key] [--pass [password] file",
        about: "Make file content signature.",
        run: sign::ima_sign,
    },
    Command {
        name: "ima_verify",
        arguments: "file",
        about: "Verify IMA signature (for debugging).",
        run: verify::ima,
    },
    Command {
        name: "ima_setxattr",
        arguments: "[--sigfile file]",
        about: "Set IMA signature from sigfile",
        run: files::set,
    },
    Command {
        name: "ima_hash",
        arguments: "file",
        about: "Make file content hash.",
        run: sign::ima_hash,
    },
    Command {
        name: "ima_measurement",
        arguments: "[--ignore-violations] [--verify-sig [--key key1, key2, ...]] [--pcrs [hash-algorithm,]file [--pcrs hash-algorithm,file] ...] [--verify-bank hash-algorithm] file",
        about: "Verify measurement list (experimental).",
        run: list::measurement,
    },
    Command {
        name: "ima_boot_aggregate",
        arguments: "[--pcrs hash-algorithm,file] [TPM 1.2 BIOS event log]",
        about: "Calculate per TPM bank boot_aggregate digests",
        run: list::boot_aggregate_command,
    },
    Command {
        name: "ima_fix",
        arguments: "[-t fdsxm] path",
        about: "Recursively fix IMA/EVM xattrs in fix mode.",
        run: files::fix,
    },
    Command {
        name: "ima_clear",
        arguments: "[-t fdsxm] path",
        about: "Recursively remove IMA/EVM xattrs.",
        run: files::clear,
    },
    Command {
        name: "sign_hash",
        arguments: "[--veritysig] [--key key] [--pass [password]",
        about: "Sign hashes from shaXsum output.",
        run: sign::sign_hash,
    },
    Command {
        name: "hmac",
        arguments: "[--imahash | --imasig ] file",
        about: "Sign file metadata with HMAC using symmetric key (for testing purpose).",
        run: sign::hmac,
    },
    Command {
        name: "help",
        arguments: "<command>",
        about: "",
        run: help,
    },
];

/// Runs evmctl with `arguments`, without the program's name.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let mut output = Output::default();
    let status = match run(arguments, &mut output) {
        Ok(()) => 0,
        Err(Failed(status)) => status,
    };
    output.print();
    ExitCode::from(status)
}

fn run(arguments: Vec<OsString>, output: &mut Output) -> Done {
    let mut options = Options::parse(arguments, output)?;
    if options.help {
        usage(output);
        return Ok(());
    }
    if options.version {
        output.out(format_args!(
            "evmctl {RELEASE} (imactl {})",
            env!("CARGO_PKG_VERSION")
        ));
        return Ok(());
    }
    if options.operands.is_empty() {
        usage(output);
        return Ok(());
    }
    let name = options.operands.remove(0);
    // evmctl compares without regard to case.
    let command = COMMANDS
        .iter()
        .find(|command| name.eq_ignore_ascii_case(command.name));
    let Some(command) = command else {
        output.out(format_args!("Invalid command: {}", name.to_string_lossy()));
        return Err(Failed::ERROR);
    };
    options.usage = command.usage();
    (command.run)(&options, output)
}

fn help(options: &Options, output: &mut Output) -> Done {
    let Some(name) = options.operands.first() else {
        output.out(format_args!("usage: help <command>"));
        return Ok(());
    };
    match COMMANDS.iter().find(|command| name == command.name) {
        Some(command) => {
            output.out(format_args!("usage: {}", command.usage()));
            if !command.about.is_empty() {
                output.out(format_args!("{}", command.about));
            }
            Ok(())
        }
        None => {
            output.out(format_args!("invalid command: {}", name.to_string_lossy()));
            Err(Failed::ERROR)
        }
    }
}

fn usage(output: &mut Output) {
    output.out(format_args!("Usage: evmctl [-v] <command> [OPTIONS]"));
    output.out(format_args!("commands:"));
    output.out(format_args!(" --version "));
    for command in &COMMANDS {
        output.out(format_args!(" {}", command.usage()));
    }
    output.out(format_args!("\n{}", options::HELP));
}
