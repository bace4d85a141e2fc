//! Boots a Debian system with ima-init through the initramfs of Debian, as it was signed, changed or attacked: the last step of
//! `qemu/debian`.

mod attacker;
mod cases;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use attacker::MARKER;
use cases::{Attack, Case, Change, Expected, Variant, What, cases};
use clap::{Parser, ValueEnum};
use ima_testbed::flip_last_byte;

type Error = Box<dyn std::error::Error>;

/// Boot a Debian system with ima-init through the initramfs of Debian
///
/// Boots each VARIANT by scenario-boot, one after the other; or boots each variant changed and attacked, two at a time, and prints a
/// table.
#[derive(Debug, Parser)]
#[command(
    name = "scenario-debian",
    version,
    max_term_width = 100,
    after_help = "\
Exit status:
  0  everything had the expected result
  1  something had another result, or could not be run
  2  the command line is wrong

Example:
  scenario-debian --system DIR --own-kernel bzImage --keys DIR --imactl target/release/imactl dracut"
)]
struct Options {
    /// The directory with the system: root.img, vmlinuz, initrd-VARIANT
    #[arg(long, value_name = "DIR")]
    system: PathBuf,
    /// This project's kernel
    #[arg(long, value_name = "FILE")]
    own_kernel: PathBuf,
    /// The directory with ima.key and ima.der, which sign what the system asks for
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// The program imactl
    #[arg(long, value_name = "FILE")]
    imactl: PathBuf,
    /// Change a byte of this file of the root after signing, and expect its refusal
    #[arg(long, value_name = "PATH", conflicts_with = "refusals")]
    tamper: Option<String>,
    /// Boot each variant with something changed, and under attack
    #[arg(long, value_name = "HOW-MANY", requires = "hibernated")]
    refusals: Option<HowMany>,
    /// A swap partition with the image of a machine in which an attacker's program runs
    #[arg(long, value_name = "FILE")]
    hibernated: Option<PathBuf>,
    /// Show the serial console while the machine runs
    #[arg(long)]
    verbose: bool,
    /// The variants to boot [default: all]
    #[arg(value_name = "VARIANT")]
    variants: Vec<Variant>,
}

/// How many changes and attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HowMany {
    Some,
    All,
}

/// The seconds after which a machine is ended.
const LIMIT: &str = "600";

/// Signs what the guest program asks for; `sh` expands the variables.
const SIGN: &str = r#"sign() { "$IMACTL" sign --key "$KEYS/ima.key" --cert "$KEYS/ima.der" --digest "sha256:$1"; }; sign"#;

impl Options {
    fn variants(&self) -> &[Variant] {
        if self.variants.is_empty() {
            &Variant::ALL
        } else {
            &self.variants
        }
    }

    fn image(&self) -> PathBuf {
        self.system.join("root.img")
    }

    fn initramfs(&self, variant: Variant) -> PathBuf {
        self.system.join(format!("initrd-{}", variant.name()))
    }

    /// Returns scenario-boot, which lies beside this program, for a variant. Debian's TPM drivers are modules, which come too late
    /// for IMA; its kernel takes a policy once.
    fn scenario_boot(
        &self,
        variant: Variant,
        initramfs: &Path,
        image: &Path,
    ) -> Result<Command, Error> {
        let program = std::env::current_exe()?.with_file_name("scenario-boot");
        let mut command = Command::new(program);
        command.env("IMACTL", &self.imactl).env("KEYS", &self.keys);
        command.arg("--initramfs").arg(initramfs);
        command.arg("--disk").arg(image).arg("--kernel");
        if variant == Variant::OwnKernel {
            command.arg(&self.own_kernel);
        } else {
            command.arg(self.system.join("vmlinuz"));
            command.args(["--no-tpm", "--one-policy"]);
        }
        command.args([
            "--append",
            "root=/dev/vda rw",
            "--limit",
            LIMIT,
            "--sign",
            SIGN,
        ]);
        Ok(command)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match options.refusals {
        None => boot(&options),
        Some(how_many) => refusals(&options, how_many == HowMany::All),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("debian: error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Boots each variant. Returns whether all had the expected result.
fn boot(options: &Options) -> Result<bool, Error> {
    let work = work()?;
    let mut image = options.image();
    if let Some(path) = &options.tamper {
        image = work.path().join("tampered.img");
        attacker::copy(&options.image(), &image)?;
        flip_last_byte(&image, path)?;
    }
    let mut passed = true;
    for variant in options.variants() {
        eprintln!("debian: booting through {} ...", variant.name());
        let mut command = options.scenario_boot(*variant, &options.initramfs(*variant), &image)?;
        command.args(["--append", "quiet"]);
        if let Some(path) = &options.tamper {
            command.args(["--tampered", path]);
        }
        if options.verbose {
            command.arg("--verbose");
        }
        if !command.status()?.success() {
            eprintln!("debian: {} FAILED", variant.name());
            passed = false;
        }
    }
    Ok(passed)
}

/// Returns a directory for images, which need more room than /tmp may have.
fn work() -> Result<tempfile::TempDir, Error> {
    let place = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
    Ok(tempfile::Builder::new()
        .prefix("ima-init.")
        .tempdir_in(place)?)
}

/// Boots each variant changed and attacked, and prints the table. Returns whether all had the expected result.
fn refusals(options: &Options, all: bool) -> Result<bool, Error> {
    let cases: Vec<Case> = options
        .variants()
        .iter()
        .flat_map(|variant| cases(*variant, all))
        .collect();
    let work = work()?;
    let files: BTreeSet<&str> = cases.iter().filter_map(changed_file).collect();
    for file in files {
        let image = changed_image(work.path(), file);
        attacker::copy(&options.image(), &image)?;
        flip_last_byte(&image, file)?;
    }
    let waiting = Mutex::new(cases.iter());
    let rows = Mutex::new(Vec::new());
    // A machine keeps one processor busy.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().map(|mut waiting| waiting.next());
                    let Ok(Some(case)) = next else { break };
                    let row = row(options, work.path(), case);
                    if let Ok(mut rows) = rows.lock() {
                        rows.push(row);
                    }
                }
            });
        }
    });
    let mut rows = rows.into_inner().map_err(|_| "a boot panicked")?;
    rows.sort_by(|one, other| one.text.cmp(&other.text));
    for row in &rows {
        print!("{}", row.text);
    }
    if rows.len() != cases.len() {
        return Err(format!("{} boots were started, {} ended", cases.len(), rows.len()).into());
    }
    let wrong = rows.iter().filter(|row| !row.good).count();
    if wrong > 0 {
        eprintln!(
            "debian: {wrong} of {} boots had another result, see above",
            rows.len()
        );
        return Ok(false);
    }
    eprintln!(
        "debian: {} boots: what was changed was refused and nothing of that root ran, and what an attacker brought did not run",
        rows.len()
    );
    Ok(true)
}

/// Returns the file of the root that a case changes.
fn changed_file(case: &Case) -> Option<&'static str> {
    match case.what {
        What::Changed(Change::RootFile(path)) => Some(path),
        _ => None,
    }
}

/// Returns the path of the root with a byte of this file changed.
fn changed_image(work: &Path, file: &str) -> PathBuf {
    work.join(format!("changed{}.img", file.replace('/', "-")))
}

/// A line of the table.
#[derive(Debug)]
struct Row {
    text: String,
    good: bool,
}

/// What was seen of a boot.
#[derive(Debug, Default)]
struct Seen {
    /// Whether scenario-boot found the expected result.
    passed: bool,
    /// What it printed.
    output: String,
    /// The serial console.
    console: String,
}

/// Boots a case, and returns its line of the table. What had another result is printed.
fn row(options: &Options, work: &Path, case: &Case) -> Row {
    let start = Instant::now();
    let (wrong, seen) = match boot_case(options, work, case) {
        Ok(seen) => (wrong(case, &seen), seen),
        Err(error) => (Some(error.to_string()), Seen::default()),
    };
    if let Some(why) = &wrong {
        eprint!("{}", account(case, why, &seen));
    }
    Row {
        text: line(case, &seen, wrong.as_deref(), start.elapsed()),
        good: wrong.is_none(),
    }
}

fn line(case: &Case, seen: &Seen, wrong: Option<&str>, took: Duration) -> String {
    let mut lines = seen.output.lines();
    let action = lines.find_map(|line| Some(&line[line.find("action: ")?..]));
    format!(
        "{:<16} {:<22} {:<8} {:<5} {:>3} s  {}\n",
        case.variant.name(),
        case.name,
        case.expected,
        if wrong.is_none() { "good" } else { "WRONG" },
        took.as_secs(),
        wrong.or(action).unwrap_or_default()
    )
}

/// Returns what is printed of a boot that had another result.
fn account(case: &Case, why: &str, seen: &Seen) -> String {
    let mut text = format!(
        "debian: {}, {}: WRONG: {why}\n",
        case.variant.name(),
        case.name
    );
    let console: Vec<&str> = seen.console.lines().collect();
    let end = console.len().saturating_sub(30);
    for line in seen.output.lines().chain(console[end..].iter().copied()) {
        let _ = writeln!(text, "    {line}");
    }
    text
}

/// Returns why a boot did not have the expected result; nothing if it had.
fn wrong(case: &Case, seen: &Seen) -> Option<String> {
    // The command line itself, which the kernel and systemd print, has the marker too.
    let mut lines = seen
        .console
        .lines()
        .filter(|line| !line.contains("ommand line"));
    if let Some(line) =
        lines.find(|line| line.contains(MARKER) || line.contains("Early root shell"))
    {
        return Some(format!("the attacker's program runs: {line}"));
    }
    let good = match case.expected {
        Expected::Refused(_) | Expected::Boots => seen.passed,
        Expected::Restart => seen
            .console
            .contains("ima-init: this initramfs opens no shell"),
    };
    (!good).then(|| match case.expected {
        Expected::Refused(code) => format!("it was not refused with {code}"),
        Expected::Boots => "the system did not come up enforced".to_owned(),
        Expected::Restart => "the initramfs did not give up".to_owned(),
    })
}

fn boot_case(options: &Options, work: &Path, case: &Case) -> Result<Seen, Error> {
    let name = format!("{}-{}", case.variant.name(), case.name);
    let file = |extension: &str| work.join(format!("{name}.{extension}"));
    let (mut image, mut initramfs) = (options.image(), options.initramfs(case.variant));
    let mut disks = Vec::new();
    let mut append = Vec::new();
    match case.what {
        What::Changed(Change::RootFile(path)) => image = changed_image(work, path),
        What::Changed(Change::InitramfsFile(path, content)) => {
            let changed = file("initramfs");
            attacker::with_file(&initramfs, path, content, &changed)?;
            initramfs = changed;
        }
        What::Attacked(attack) => {
            let attacked = file("img");
            if attacker::root(attack, &image, &attacked)? {
                image = attacked;
            }
            match attack {
                Attack::FstabUsrLink => {
                    attacker::usr(&initramfs, &file("usr"))?;
                    disks.push(file("usr"));
                }
                Attack::FstabSys => {
                    attacker::hooks(&file("hooks"))?;
                    disks.push(file("hooks"));
                }
                Attack::Hibernation | Attack::ResumeParameter => {
                    disks.extend(options.hibernated.clone());
                }
                _ => {}
            }
            append.extend(parameters(attack));
        }
    }
    // So that systemd names the units that it starts.
    if case.what != What::Attacked(Attack::DebugShell) {
        append.push("quiet".to_owned());
    }
    let mut command = options.scenario_boot(case.variant, &initramfs, &image)?;
    for disk in &disks {
        command.arg("--disk").arg(disk);
    }
    for parameters in &append {
        command.args(["--append", parameters]);
    }
    if let Expected::Refused(code) = case.expected {
        command.args(["--refused", code]);
    }
    command.arg("--console").arg(file("console"));
    let output = command.stdin(Stdio::null()).output()?;
    let console = std::fs::read(file("console")).unwrap_or_default();
    for extension in ["initramfs", "img", "usr", "hooks", "console"] {
        let path = file(extension);
        if path.exists() {
            std::fs::remove_file(path)?;
        }
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Seen {
        passed: output.status.success(),
        output: text(&output.stdout) + &text(&output.stderr),
        console: text(&console),
    })
}

/// Returns the parameters of the kernel command line by which it is attacked.
fn parameters(attack: Attack) -> Option<String> {
    Some(match attack {
        Attack::ResumeParameter => "resume=/dev/vdb".to_owned(),
        Attack::BootIsCmdline => format!("boot=../proc/cmdline ; echo '<2>{MARKER}' >/dev/kmsg"),
        Attack::SystemdRun => format!("systemd.run=\"/bin/sh -c 'echo {MARKER} >/dev/console'\""),
        Attack::SystemdUnit => "systemd.unit=emergency.target".to_owned(),
        Attack::MaskImaInit => "rd.systemd.mask=ima-init.service".to_owned(),
        Attack::DebugShell => "rd.systemd.debug_shell systemd.debug_shell".to_owned(),
        Attack::Emergency => {
            "rd.systemd.unit=emergency.target emergency rd.break rd.shell".to_owned()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn case(expected: Expected) -> Case {
        Case {
            variant: Variant::Dracut,
            name: "name",
            what: What::Attacked(Attack::Emergency),
            expected,
        }
    }

    fn seen(passed: bool, console: &str) -> Seen {
        Seen {
            passed,
            output: "text\n  action: poweroff\n".to_owned(),
            console: console.to_owned(),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn a_boot_is_good_if_what_was_expected_came_and_the_attacker_did_not_run() {
        const GAVE_UP: &str = "ima-init: this initramfs opens no shell\n";
        const ATTACKED: &str = "[ 1.0] attack-succeeded\n";
        const COMMAND_LINE: &str = "[ 0.0] Kernel command line: systemd.run=attack-succeeded\n";
        let refused = Expected::Refused("IMA-713");
        for (expected, passed, console, reason) in [
            (refused, true, "", None),
            (refused, true, COMMAND_LINE, None),
            (refused, false, "", Some("it was not refused with IMA-713")),
            (
                refused,
                true,
                ATTACKED,
                Some("the attacker's program runs: [ 1.0] attack-succeeded"),
            ),
            (Expected::Boots, true, "", None),
            (
                Expected::Boots,
                false,
                "",
                Some("the system did not come up enforced"),
            ),
            (
                Expected::Boots,
                true,
                "Early root shell on /dev/tty9",
                Some("the attacker's program runs: Early root shell on /dev/tty9"),
            ),
            (Expected::Restart, false, GAVE_UP, None),
            (
                Expected::Restart,
                false,
                "",
                Some("the initramfs did not give up"),
            ),
            (
                Expected::Restart,
                true,
                "",
                Some("the initramfs did not give up"),
            ),
        ] {
            let found = wrong(&case(expected), &seen(passed, console));
            assert_eq!(found.as_deref(), reason, "{expected:?} {passed} {console}");
        }
    }

    #[test]
    fn a_line_has_the_result_and_the_reason() {
        let case = case(Expected::Restart);
        let took = Duration::from_secs(7);
        assert_eq!(
            line(&case, &seen(true, ""), None, took),
            "dracut           name                   restart  good    7 s  action: poweroff\n"
        );
        assert_eq!(
            line(&case, &seen(true, ""), Some("why"), took),
            "dracut           name                   restart  WRONG   7 s  why\n"
        );
    }

    #[test]
    fn the_end_of_the_console_is_printed() {
        let console: String = (0..40).map(|number| format!("line {number}\n")).collect();
        let text = account(&case(Expected::Boots), "why", &seen(false, &console));
        assert!(
            text.starts_with("debian: dracut, name: WRONG: why\n    text\n"),
            "{text}"
        );
        assert!(
            text.contains("    line 10\n") && !text.contains("    line 9\n"),
            "{text}"
        );
    }
}
