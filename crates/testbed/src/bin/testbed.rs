//! The testbed on the command line: files for an image builder, and a machine with its report.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ima_testbed::report::Report;
use ima_testbed::{Accel, Architecture, Disk, Ending, Machine, Tpm, attempts};

type Error = Box<dyn std::error::Error>;

const EXIT_STATUS: &str = "\
Exit status:
  0  testbed files, testbed flip: the files were written. testbed run: the guest powered the machine off, and every
     attempt had the expected result
  1  testbed run: the machine ended otherwise, the guest program did not report, or an attempt had
     another result
  2  the command line is wrong, a file cannot be read or written, or the machine could not be started";

const EXAMPLES: &str = "\
Examples:
  testbed files --guest guest --module dummy.ko --systemd root/
  testbed run --kernel bzImage --initramfs initramfs.cpio.gz --disk root.img --append root=/dev/vda --tpm";

/// Boot kernels with IMA in QEMU, and see what they measure and deny
#[derive(Debug, Parser)]
#[command(name = "testbed", version, max_term_width = 100, after_help = format!("{EXIT_STATUS}\n\n{EXAMPLES}"))]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Files(Files),
    Run(Run),
    Flip(Flip),
}

/// Write the guest program and the files of its attempts into a directory that will be a root
///
/// Prints a line for each file that needs a signature: its path in the root, a tab, and the path of a file with the content to
/// sign. The two are the same file, except for the one that is changed after it was signed.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 if the files were written, 2 otherwise.

Example:
  testbed files --guest guest --module dummy.ko --systemd root/")]
struct Files {
    /// The guest program, statically linked
    #[arg(long, value_name = "PROGRAM")]
    guest: PathBuf,
    /// A kernel module without effect, to be loaded with and without a signature
    #[arg(long, value_name = "FILE.ko")]
    module: Option<PathBuf>,
    /// The kernel's module test_firmware, for attempts to load firmware with and without a signature
    #[arg(long, value_name = "FILE")]
    firmware_module: Option<PathBuf>,
    /// Add a systemd service that makes the attempts and reports once the system is up, then powers off
    #[arg(long)]
    systemd: bool,
    /// The directory that will be the root
    #[arg(value_name = "DIRECTORY")]
    root: PathBuf,
}

/// Change the last byte of a file in an ext4 image, as an attacker who has the disk would
///
/// The byte is changed where it lies on the disk: neither the signature nor the dates of the file change. Needs debugfs
/// (e2fsprogs).
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 if the byte was changed, 2 otherwise.

Example:
  testbed flip root.img /usr/bin/true")]
struct Flip {
    /// The image: one ext4 file system
    #[arg(value_name = "FILE")]
    image: PathBuf,
    /// The file in it
    #[arg(value_name = "PATH")]
    path: String,
}

impl Flip {
    fn flip(&self) -> Result<ExitCode, Error> {
        ima_testbed::flip_last_byte(&self.image, &self.path)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Boot a machine, wait until it ends, and print the report of its guest program
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status:
  0  the guest powered the machine off, and every attempt had the expected result
  1  the machine ended otherwise, the guest program did not report, or an attempt had another result
  2  the command line is wrong, or the machine could not be started

Examples:
  testbed run --kernel bzImage --initramfs initramfs.cpio.gz --append ima_policy=tcb --tpm
  testbed run --kernel bzImage --disk root.img --append root=/dev/vda --report report.json
  testbed run --arch aarch64 --kernel Image --initramfs initramfs.cpio.gz")]
struct Run {
    /// The kernel: bzImage, Image or zImage, depending on the architecture
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The initramfs
    #[arg(long, value_name = "FILE")]
    initramfs: Option<PathBuf>,
    /// A raw disk image; repeat for more disks. What the guest writes is lost
    #[arg(long = "disk", value_name = "FILE")]
    disks: Vec<PathBuf>,
    /// Parameters for the kernel command line; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Emulate a TPM 2.0 with swtpm
    #[arg(long)]
    tpm: bool,
    /// The architecture of the machine
    #[arg(long, value_name = "NAME", default_value_t, value_parser = architectures())]
    arch: Architecture,
    /// The accelerator
    #[arg(long, value_enum, default_value_t)]
    accel: AccelName,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    memory: u32,
    /// The number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// Answer signature requests of the guest program: run as `COMMAND SHA256 PATH` by a shell, it prints the value for
    /// security.ima in hexadecimal
    #[arg(long, value_name = "COMMAND")]
    sign: Option<String>,
    /// Save the report here, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Save the serial console here
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
    /// End the machine after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,
    /// Do not copy the serial console to standard error
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum AccelName {
    /// KVM if a kernel boots with it, otherwise TCG
    #[default]
    Auto,
    /// KVM
    Kvm,
    /// TCG, which works everywhere
    Tcg,
    /// TCG that counts instructions: times in the guest differ little between runs
    TcgCounting,
}

impl From<AccelName> for Accel {
    fn from(name: AccelName) -> Accel {
        match name {
            AccelName::Auto => Accel::Auto,
            AccelName::Kvm => Accel::Kvm,
            AccelName::Tcg => Accel::Tcg,
            AccelName::TcgCounting => Accel::TcgCounting,
        }
    }
}

fn architectures() -> impl TypedValueParser<Value = Architecture> {
    PossibleValuesParser::new(Architecture::ALL.map(Architecture::name))
        .try_map(|name| name.parse::<Architecture>())
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Files(options) => options.write(),
        Command::Run(options) => options.run(),
        Command::Flip(options) => options.flip(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("testbed: {error}");
        ExitCode::from(2)
    })
}

impl Files {
    fn write(&self) -> Result<ExitCode, Error> {
        let program = read(&self.guest)?;
        let module = self.module.as_deref().map(read).transpose()?;
        let mut files = attempts::files(&program, module.as_deref());
        if let Some(module) = &self.firmware_module {
            files.extend(attempts::firmware_files(&read(module)?));
        }
        files.push(attempts::guest_program(&program));
        // Printed last: a reader that goes away must not leave half of the files unwritten.
        let mut lines = String::new();
        for file in files {
            let path = self.root.join(&file.path);
            write(&path, &file.content, file.mode)?;
            let Some(signed) = file.signature_of else {
                continue;
            };
            // Where the two differ, the signed content is put beside the root, under the root's name.
            let content = if signed == file.content {
                path
            } else {
                let beside = self.root.with_extension("signed-content");
                write(&beside, &signed, 0o644)?;
                beside
            };
            lines.push_str(&format!("{}\t{}\n", file.path, content.display()));
        }
        if self.systemd {
            let units = self.root.join("etc/systemd/system");
            let unit = attempts::SYSTEMD_UNIT.as_bytes();
            write(&units.join("ima-testbed.service"), unit, 0o644)?;
            let wants = units.join("multi-user.target.wants");
            fs::create_dir_all(&wants)?;
            let link = wants.join("ima-testbed.service");
            if fs::symlink_metadata(&link).is_err() {
                symlink("../ima-testbed.service", link)?;
            }
        }
        std::io::stdout()
            .write_all(lines.as_bytes())
            .map_err(|error| format!("cannot write to standard output: {error}"))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()).into())
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    fs::write(path, content).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(())
}

impl Run {
    fn machine(&self) -> Machine {
        let mut machine = Machine::new(&self.kernel)
            .architecture(self.arch)
            .accel(self.accel.into())
            .memory_mib(self.memory)
            .cpus(self.cpus)
            .tpm(if self.tpm { Tpm::Swtpm } else { Tpm::None })
            .time_limit(Duration::from_secs(self.limit));
        if let Some(initramfs) = &self.initramfs {
            machine = machine.initramfs(initramfs);
        }
        for disk in &self.disks {
            machine = machine.disk(Disk::new(disk));
        }
        for parameters in &self.append {
            machine = machine.append(parameters);
        }
        if let Some(command) = &self.sign {
            machine = machine.sign_command(command);
        }
        if !self.quiet {
            machine = machine.tee();
        }
        machine
    }

    fn run(&self) -> Result<ExitCode, Error> {
        let outcome = self.machine().start()?.finish();
        if let Some(path) = &self.console {
            write(path, outcome.console.as_bytes(), 0o644)?;
        }
        println!(
            "\nThe machine ended with: {} ({:.1} s)",
            outcome.ending,
            outcome.duration.as_secs_f64()
        );
        let Some(report) = outcome.report() else {
            println!("The guest program did not report.");
            return Ok(ExitCode::FAILURE);
        };
        if let Some(path) = &self.report {
            write(path, &serde_json::to_vec_pretty(report)?, 0o644)?;
        }
        print_report(report);
        let passed = outcome.ending == Ending::PowerOff
            && report.attempts.iter().all(|attempt| attempt.passed);
        Ok(if passed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn print_report(report: &Report) {
    let tpm = if report.tpm { "with" } else { "without" };
    println!("Kernel {}, {tpm} a TPM", report.kernel);
    for (name, keyring) in &report.keyrings {
        for key in &keyring.keys {
            println!("Key on {name}: {key}");
        }
    }
    if let Some(system) = &report.system {
        let reached = if system.target_reached {
            "reached"
        } else {
            "not reached"
        };
        println!(
            "systemd is {} after {:.1} s, {} {reached}, {} denials before the attempts",
            system.state,
            system.seconds,
            system.default_target,
            system.denials.len()
        );
        for line in system.failed_units.iter().chain(&system.denials) {
            println!("  {line}");
        }
    }
    for problem in &report.problems {
        println!("Problem: {problem}");
    }
    if report.attempts.is_empty() {
        return;
    }
    println!();
    let widths = report.attempts.iter().map(|attempt| attempt.tried.len());
    let width = widths.max().unwrap_or_default();
    for attempt in &report.attempts {
        println!(
            "{:<5} {:width$}  expected: {:<7}  result: {}",
            if attempt.passed { "ok" } else { "WRONG" },
            attempt.tried,
            attempt.expected,
            attempt.result
        );
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn repeated_options_keep_their_order() {
        let arguments = Arguments::parse_from([
            "testbed",
            "run",
            "--kernel",
            "k",
            "--disk",
            "a",
            "--append",
            "x=1 -- y",
            "--disk",
            "b",
            "--append",
            "-z",
            "--arch",
            "riscv64",
            "--accel",
            "tcg-counting",
        ]);
        let Command::Run(run) = arguments.command else {
            panic!("{arguments:?}");
        };
        assert_eq!(run.disks, [Path::new("a"), Path::new("b")]);
        assert_eq!(run.append, ["x=1 -- y", "-z"]);
        assert_eq!(run.arch, Architecture::Riscv64);
        assert_eq!(Accel::from(run.accel), Accel::TcgCounting);
    }
}
