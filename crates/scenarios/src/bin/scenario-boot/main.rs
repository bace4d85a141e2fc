//! Boots a signed root under ima-init and shows what was enforced: the last step of `qemu/boot` and `qemu/debian`.

mod presentation;

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use ima_testbed::{Disk, Machine, Running, TestbedError, Tpm, Uefi, has_stopped};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

type Error = Box<dyn std::error::Error>;

/// Boot a signed root under ima-init, and show what was enforced
///
/// Boots the machine, waits until its guest program has reported and powered it off, and prints what ima-init, the kernel and
/// the guest program report.
#[derive(Debug, Parser)]
#[command(
    name = "scenario-boot",
    version,
    max_term_width = 100,
    after_help = "\
Exit status:
  0  everything had the expected result; with --refused, --refused-by-firmware or --tampered, this includes the refusal
  1  something had another result; the last lines say what
  2  the command line is wrong, or the machine could not be started

Examples:
  scenario-boot --kernel bzImage --initramfs initramfs.cpio.gz --disk root.img \\
      --append 'root=/dev/vda rw' --report report.json
  scenario-boot --kernel bzImage --initramfs initramfs.cpio.gz --disk changed.img \\
      --append root=/dev/vda --refused IMA-713
  scenario-boot --kernel bzImage --initramfs initramfs.cpio.gz --disk root.img \\
      --append root=/dev/vda --shell
  scenario-boot --efi-disk efi.img --secure-boot-cert db.der --disk root.img"
)]
struct Options {
    /// The kernel, a bzImage
    #[arg(long, value_name = "FILE", required_unless_present = "efi_disk")]
    kernel: Option<PathBuf>,
    /// The initramfs with ima-init
    #[arg(long, value_name = "FILE")]
    initramfs: Option<PathBuf>,
    /// In place of a kernel: a raw disk image that is an EFI system partition. UEFI firmware starts the program on it, under
    /// Secure Boot. The disk comes after the others
    #[arg(
        long,
        value_name = "FILE",
        requires = "secure_boot_cert",
        conflicts_with_all = ["kernel", "initramfs", "append"]
    )]
    efi_disk: Option<PathBuf>,
    /// The certificate (DER) of the only key whose programs the firmware starts
    #[arg(long, value_name = "FILE", requires = "efi_disk")]
    secure_boot_cert: Option<PathBuf>,
    /// Expect the firmware to refuse the program
    #[arg(long, requires = "efi_disk", conflicts_with_all = ["refused", "tampered"])]
    refused_by_firmware: bool,
    /// A raw disk image; repeat for more disks. What the system writes is lost
    #[arg(long = "disk", value_name = "FILE")]
    disks: Vec<PathBuf>,
    /// A raw disk image that keeps what the system writes; comes after those of --disk
    #[arg(long = "written-disk", value_name = "FILE")]
    written_disks: Vec<PathBuf>,
    /// Parameters for the kernel command line; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Emulate no TPM
    #[arg(long)]
    no_tpm: bool,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u32,
    /// The number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// End the machine after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,
    /// Answer signature requests of the guest program: run as `COMMAND SHA256 PATH` by a shell, it prints the value for
    /// security.ima in hexadecimal
    #[arg(long, value_name = "COMMAND")]
    sign: Option<String>,
    /// Expect a refusal of this file of the root, which was changed after it was signed
    #[arg(long, value_name = "PATH")]
    tampered: Option<String>,
    /// Expect ima-init to refuse the boot with this code before anything of the root runs, and to power the machine off
    #[arg(long, value_name = "CODE")]
    refused: Option<String>,
    /// Accept that the kernel takes no second policy
    #[arg(long)]
    one_policy: bool,
    /// Save the report of the guest program here, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Save the serial console here
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
    /// Show the serial console while the machine runs
    #[arg(long)]
    verbose: bool,
    /// Connect the serial console to this terminal; nothing is reported
    #[arg(long)]
    shell: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = if options.shell {
        shell(&options)
    } else {
        boot(&options)
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("scenario-boot: {error}");
            ExitCode::from(2)
        }
    }
}

impl Options {
    /// Returns the time limit. With --shell, the user decides how long the machine runs.
    fn time_limit(&self) -> Duration {
        Duration::from_secs(if self.shell { 24 * 3600 } else { self.limit })
    }

    fn machine(&self) -> Result<Machine, Error> {
        let mut machine = match &self.kernel {
            Some(kernel) => Machine::new(kernel),
            None => Machine::without_kernel(),
        };
        machine = machine
            .memory_mib(self.memory)
            .cpus(self.cpus)
            .time_limit(self.time_limit())
            .tpm(if self.no_tpm { Tpm::None } else { Tpm::Swtpm });
        if let Some(initramfs) = &self.initramfs {
            machine = machine.initramfs(initramfs);
        }
        for disk in &self.disks {
            machine = machine.disk(Disk::new(disk));
        }
        for disk in &self.written_disks {
            machine = machine.disk(Disk::new(disk).keep_writes());
        }
        if let (Some(disk), Some(certificate)) = (&self.efi_disk, &self.secure_boot_cert) {
            let certificate = std::fs::read(certificate)
                .map_err(|error| format!("{}: {error}", certificate.display()))?;
            let uefi = Uefi::with_platform_key(&certificate).allow(&certificate);
            machine = machine.disk(Disk::new(disk).boot()).uefi(uefi);
        }
        for parameters in &self.append {
            machine = machine.append(parameters);
        }
        if let Some(command) = &self.sign {
            machine = machine.sign_command(command);
        }
        if self.verbose || self.shell {
            machine = machine.tee();
        }
        Ok(machine)
    }
}

/// Connects the serial console to this terminal until the machine ends.
fn shell(options: &Options) -> Result<bool, Error> {
    let terminal = std::io::stdin();
    let before = tcgetattr(&terminal).map_err(|_| "--shell needs a terminal on standard input")?;
    let running = Arc::new(options.machine()?.start()?);
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(&terminal, OptionalActions::Now, &raw)?;
    std::thread::spawn({
        let running = Arc::downgrade(&running);
        move || {
            let mut keys = [0; 256];
            while let Ok(length @ 1..) = std::io::stdin().read(&mut keys) {
                let Some(running) = running.upgrade() else {
                    break;
                };
                let text = String::from_utf8_lossy(&keys[..length]);
                if running.send_text(&text).is_err() {
                    break;
                }
            }
        }
    });
    let result = wait_for_end(&running, options, |_, _| ());
    tcsetattr(&terminal, OptionalActions::Now, &before)?;
    println!();
    result.map(|()| true).map_err(Error::from)
}

/// Waits until the machine has ended or stopped. Calls `show` every half second.
fn wait_for_end(
    running: &Running,
    options: &Options,
    mut show: impl FnMut(Duration, &str),
) -> Result<(), TestbedError> {
    while running.elapsed() < options.time_limit() {
        let stopped = running.wait_for("the end", Duration::from_millis(500), |output| {
            has_stopped(&output.console).then_some(())
        });
        match stopped {
            Ok(()) | Err(TestbedError::Ended { .. }) => break,
            Err(TestbedError::TimedOut { console, .. }) => show(running.elapsed(), &console),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn boot(options: &Options) -> Result<bool, Error> {
    let started = Instant::now();
    let running = options.machine()?.start()?;
    let show_progress = std::io::stderr().is_terminal() && !options.verbose;
    wait_for_end(&running, options, |elapsed, console| {
        if show_progress {
            let last = console.lines().last().unwrap_or_default();
            let last: String = last.chars().filter(|c| !c.is_control()).take(60).collect();
            eprint!("\r\x1b[Kbooting  {:.0} s  {last}", elapsed.as_secs_f64());
            let _ = std::io::stderr().flush();
        }
    })?;
    if show_progress {
        eprint!("\r\x1b[K");
    }
    let outcome = running.finish();
    if let Some(path) = &options.console {
        std::fs::write(path, &outcome.console)?;
    }
    if let (Some(path), Some(report)) = (&options.report, outcome.report()) {
        std::fs::write(path, serde_json::to_vec_pretty(report)?)?;
    }
    Ok(presentation::print(options, &outcome, started.elapsed()))
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
