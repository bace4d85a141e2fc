//! The testbed on the command line: the files of the attempts for an image builder, and a machine with its report.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use ima_testbed::report::{Report, decode_hex, encode_hex};
use ima_testbed::{Accel, Disk, Ending, Machine, SignRequest, Tpm, attempts};

const USAGE: &str = "\
Usage: testbed files --guest PROGRAM [--module FILE.ko] [--systemd] DIRECTORY
       testbed run --kernel BZIMAGE [OPTION]...

files   puts the guest program and the files of its attempts into a directory that will be a root, and prints for each
        file to be signed a line: its path in the root, a tab, and the path of a file with the content to sign (the same
        file, but for the one that is changed after it was signed)
  --guest PROGRAM   the guest program, static
  --module FILE     a module of the root's kernel that does nothing, to load with and without signature
  --systemd         also a service that reports and makes the attempts once systemd has settled, and switches off

run     starts a machine, waits until it ends, and shows what its guest program reported; exits with 0 if it was
        switched off and every attempt ended as it must
  --kernel FILE     a bzImage
  --initramfs FILE
  --disk FILE       a raw image; may be repeated. What the guest writes is lost
  --append TEXT     more of the kernel command line
  --tpm             with a TPM (swtpm)
  --memory MIB      512 unless told
  --cpus N          1 unless told
  --tcg, --kvm      what executes; found out by trying unless told
  --count           TCG that counts instructions: the guest's times hardly differ from run to run
  --sign COMMAND    run for the program that the guest makes: COMMAND SHA256 PATH, prints security.ima in hexadecimal
  --report FILE     keep the report, as JSON
  --console FILE    keep the console
  --limit SECONDS   end the machine after this time; 300 unless told
  --quiet           do not show the console while it runs
";

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut arguments: VecDeque<String> = std::env::args().skip(1).collect();
    let result = match arguments.pop_front().as_deref() {
        Some("files") => files(arguments),
        Some("run") => run(arguments),
        Some("-h" | "--help") => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("testbed: {error}");
        ExitCode::from(2)
    })
}

fn value(option: &str, arguments: &mut VecDeque<String>) -> Result<String, Error> {
    arguments
        .pop_front()
        .ok_or_else(|| format!("{option} needs a value; testbed --help shows the usage").into())
}

fn number<T: std::str::FromStr>(
    option: &str,
    arguments: &mut VecDeque<String>,
) -> Result<T, Error> {
    let text = value(option, arguments)?;
    text.parse()
        .map_err(|_| format!("{option} {text}: not a number").into())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn files(mut arguments: VecDeque<String>) -> Result<ExitCode, Error> {
    let (mut guest, mut module, mut systemd, mut root) = (None, None, false, None);
    while let Some(argument) = arguments.pop_front() {
        match argument.as_str() {
            "--guest" => guest = Some(PathBuf::from(value("--guest", &mut arguments)?)),
            "--module" => module = Some(read(Path::new(&value("--module", &mut arguments)?))?),
            "--systemd" => systemd = true,
            option if option.starts_with('-') => {
                return Err(format!("unknown option {option}").into());
            }
            _ => root = Some(PathBuf::from(argument)),
        }
    }
    let root = root.ok_or("which directory? testbed --help shows the usage")?;
    let program = read(&guest.ok_or("--guest is missing; testbed --help shows the usage")?)?;

    let mut all = attempts::files(&program, module.as_deref());
    all.push(attempts::guest_program(&program));
    for file in all {
        let path = root.join(&file.path);
        write(&path, &file.content, file.mode)?;
        let Some(signed) = file.signature_of else {
            continue;
        };
        // The one that differs: what was signed stays beside the root, under the root's name.
        let content = if signed == file.content {
            path
        } else {
            let beside = root.with_extension("signed-content");
            write(&beside, &signed, 0o644)?;
            beside
        };
        println!("{}\t{}", file.path, content.display());
    }
    if systemd {
        let units = root.join("etc/systemd/system");
        write(
            &units.join("ima-testbed.service"),
            attempts::SYSTEMD_UNIT.as_bytes(),
            0o644,
        )?;
        let wants = units.join("multi-user.target.wants");
        fs::create_dir_all(&wants)?;
        let link = wants.join("ima-testbed.service");
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink("../ima-testbed.service", link)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    fs::write(path, content).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(())
}

fn run(mut arguments: VecDeque<String>) -> Result<ExitCode, Error> {
    let mut kernel = None;
    let mut changes: Vec<Box<dyn FnOnce(Machine) -> Machine>> = Vec::new();
    let (mut report_to, mut console_to, mut quiet) = (None, None, false);
    let mut limit = Duration::from_secs(300);
    while let Some(option) = arguments.pop_front() {
        let rest = &mut arguments;
        match option.as_str() {
            "--kernel" => kernel = Some(value(&option, rest)?),
            "--report" => report_to = Some(value(&option, rest)?),
            "--console" => console_to = Some(value(&option, rest)?),
            "--limit" => limit = Duration::from_secs(number(&option, rest)?),
            "--quiet" => quiet = true,
            "--tpm" => changes.push(Box::new(|machine| machine.tpm(Tpm::Swtpm))),
            "--tcg" => changes.push(Box::new(|machine| machine.accel(Accel::Tcg))),
            "--count" => changes.push(Box::new(|machine| machine.accel(Accel::TcgCounting))),
            "--kvm" => changes.push(Box::new(|machine| machine.accel(Accel::Kvm))),
            "--initramfs" => {
                let path = value(&option, rest)?;
                changes.push(Box::new(move |machine| machine.initramfs(path)));
            }
            "--disk" => {
                let disk = Disk::new(value(&option, rest)?);
                changes.push(Box::new(move |machine| machine.disk(disk)));
            }
            "--append" => {
                let text = value(&option, rest)?;
                changes.push(Box::new(move |machine| machine.append(text)));
            }
            "--memory" => {
                let mib = number(&option, rest)?;
                changes.push(Box::new(move |machine| machine.memory_mib(mib)));
            }
            "--cpus" => {
                let cpus = number(&option, rest)?;
                changes.push(Box::new(move |machine| machine.cpus(cpus)));
            }
            "--sign" => {
                let command = value(&option, rest)?;
                changes.push(Box::new(move |machine| {
                    machine.signer(move |request| sign(&command, request))
                }));
            }
            _ => {
                return Err(
                    format!("unknown option {option}; testbed --help shows the usage").into(),
                );
            }
        }
    }
    let mut machine =
        Machine::new(kernel.ok_or("--kernel is missing; testbed --help shows the usage")?);
    for change in changes {
        machine = change(machine);
    }
    if !quiet {
        machine = machine.tee();
    }
    let outcome = machine.time_limit(limit).start()?.finish();
    if let Some(path) = console_to {
        fs::write(path, &outcome.console)?;
    }
    println!(
        "\nThe machine ended with: {} ({:.1} s)",
        outcome.ending,
        outcome.duration.as_secs_f64()
    );
    let Some(report) = outcome.report() else {
        println!("No guest program reported.");
        return Ok(ExitCode::FAILURE);
    };
    if let Some(path) = report_to {
        fs::write(path, serde_json::to_vec_pretty(report)?)?;
    }
    show(report);
    let good =
        outcome.ending == Ending::PowerOff && report.attempts.iter().all(|attempt| attempt.passed);
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn sign(command: &str, request: &SignRequest) -> Result<Vec<u8>, String> {
    let output = Command::new("sh")
        .args(["-c", &format!("{command} \"$@\""), "sh"])
        .arg(encode_hex(&request.sha256))
        .arg(&request.path)
        .output()
        .map_err(|error| format!("{command}: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    decode_hex(String::from_utf8_lossy(&output.stdout).trim())
        .ok_or_else(|| format!("{command} did not print a value in hexadecimal"))
}

fn show(report: &Report) {
    println!(
        "Kernel {}, {}",
        report.kernel,
        if report.tpm {
            "with a TPM"
        } else {
            "without a TPM"
        }
    );
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
    let width = report
        .attempts
        .iter()
        .map(|attempt| attempt.tried.len())
        .max()
        .unwrap_or(0);
    for attempt in &report.attempts {
        let (must, came) = (attempt.expected, &attempt.result);
        let verdict = if attempt.passed { "ok  " } else { "WRONG" };
        println!(
            "{verdict} {:width$}  must be {must:<7}  {came}",
            attempt.tried
        );
    }
}
