//! Measures what IMA, dm-verity and both cost: the last step of `benches/cost`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ima_init_scenarios::counted::{Measured, median_and_spread, time_between};
use ima_testbed::{Disk, Machine};

type Error = Box<dyn std::error::Error>;

/// Measure what IMA, dm-verity and both cost, at boot and in the running system
///
/// Boots the same root in several forms, and prints tables of medians in Markdown.
#[derive(Debug, Parser)]
#[command(name = "bench-cost", version, max_term_width = 100)]
struct Options {
    /// The kernel, a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The directory with root.img and initramfs.cpio.gz of each form, in a directory of its name
    #[arg(long, value_name = "DIRECTORY")]
    forms: PathBuf,
    /// An initramfs that enables fs-verity on the programs of a root, says so, and switches the machine off
    #[arg(long, value_name = "FILE")]
    enable_fs_verity: PathBuf,
    /// Boot each this many times
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Parameters for the kernel command line
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        allow_hyphen_values = true
    )]
    append: String,
    /// Save the serial console of a boot that is not as it should be here
    #[arg(long, value_name = "FILE")]
    console: PathBuf,
}

/// What becomes of a program without a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsigned {
    Runs,
    Denied,
}

impl Unsigned {
    /// The word of the machine's init for it.
    const fn word(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Denied => "denied",
        }
    }
}

/// A form of the root, and what must be in force in it.
#[derive(Debug, Clone, Copy)]
struct Form {
    /// The name of its directory.
    name: &'static str,
    title: &'static str,
    /// Whether the root is on dm-verity.
    verity: bool,
    /// Whether fs-verity is to be enabled on its programs.
    fs_verity: bool,
    on_root: Unsigned,
    on_tmpfs: Unsigned,
}

const fn with_ima(name: &'static str, title: &'static str, verity: bool) -> Form {
    Form {
        name,
        title,
        verity,
        fs_verity: false,
        on_root: Unsigned::Denied,
        on_tmpfs: Unsigned::Denied,
    }
}

/// The forms. All are compared with the first.
const FORMS: [Form; 7] = [
    Form {
        name: "plain",
        title: "neither",
        verity: false,
        fs_verity: false,
        on_root: Unsigned::Runs,
        on_tmpfs: Unsigned::Runs,
    },
    with_ima("ima-rsa2048", "IMA, RSA-2048", false),
    with_ima("ima-rsa4096", "IMA, RSA-4096", false),
    with_ima("ima-p256", "IMA, P-256", false),
    Form {
        fs_verity: true,
        ..with_ima("ima-fsverity", "IMA with fs-verity, RSA-2048", false)
    },
    Form {
        name: "verity",
        title: "dm-verity, IMA elsewhere",
        verity: true,
        fs_verity: false,
        on_root: Unsigned::Runs,
        on_tmpfs: Unsigned::Denied,
    },
    with_ima("both", "dm-verity and IMA, RSA-2048", true),
];

/// The places in [`MEASURES`] of the first executions of small and of large programs.
const SMALL: usize = 1;
const LARGE: usize = 3;

/// How many small and large programs `benches/cost` makes, the length of the small ones in bytes, and how many more the
/// large ones have.
const SMALL_PROGRAMS: f64 = 100.0;
const LARGE_PROGRAMS: f64 = 10.0;
const SMALL_LENGTH: f64 = 100_000.0;
const LONGER: f64 = 1_900_000.0;

/// What is measured: its title, and the texts of the records at its beginning and end.
const MEASURES: [(&str, &str, &str); 8] = [
    (
        "boot",
        "Run /init as init process",
        "benchmark: the real init runs",
    ),
    (
        "small, first",
        "benchmark: begin small cold",
        "benchmark: end small cold",
    ),
    (
        "small, again",
        "benchmark: begin small warm",
        "benchmark: end small warm",
    ),
    (
        "large, first",
        "benchmark: begin large cold",
        "benchmark: end large cold",
    ),
    (
        "large, again",
        "benchmark: begin large warm",
        "benchmark: end large warm",
    ),
    (
        "one page, first",
        "benchmark: begin partly cold",
        "benchmark: end partly cold",
    ),
    (
        "read, first",
        "benchmark: begin read cold",
        "benchmark: end read cold",
    ),
    (
        "read, again",
        "benchmark: begin read warm",
        "benchmark: end read warm",
    ),
];

/// A time in microseconds of each of [`MEASURES`].
type Times = [u64; MEASURES.len()];

/// Returns the times on a console, unless something failed, or something else was enforced than the form should have.
fn times(form: &Form, console: &str) -> Result<Times, String> {
    if let Some(failed) = console
        .lines()
        .find(|line| line.contains("benchmark: failed"))
    {
        return Err(failed.to_owned());
    }
    for (what, expected) in [
        ("unsigned program of the root", form.on_root.word()),
        ("unsigned program of a tmpfs", form.on_tmpfs.word()),
        (
            "root on the device mapper",
            if form.verity { "yes" } else { "no" },
        ),
    ] {
        let expected = format!("benchmark: {what}: {expected}");
        if !console
            .lines()
            .any(|line| line.trim_end().ends_with(&expected))
        {
            return Err(format!("the machine did not say \"{expected}\""));
        }
    }
    let mut times = Times::default();
    for (time, (_, begin, end)) in times.iter_mut().zip(MEASURES) {
        *time = time_between(console, begin, end)?;
    }
    Ok(times)
}

/// Has a machine enable fs-verity on the programs of the form's root.
fn enable_fs_verity(options: &Options, form: &Form) -> Result<(), Error> {
    let image = options.forms.join(form.name).join("root.img");
    let outcome = Machine::new(&options.kernel)
        .initramfs(&options.enable_fs_verity)
        .disk(Disk::new(image).keep_writes())
        .start()?
        .finish();
    if !outcome.console_contains("fs-verity is enabled") {
        std::fs::write(&options.console, &outcome.console)?;
        let console = options.console.display();
        return Err(format!("cannot enable fs-verity; the console is in {console}").into());
    }
    Ok(())
}

fn measure(options: &Options, form: &Form) -> Result<Vec<Times>, Error> {
    let directory = options.forms.join(form.name);
    let machine = Measured {
        kernel: options.kernel.clone(),
        disk: directory.join("root.img"),
        initramfs: directory.join("initramfs.cpio.gz"),
        // Otherwise the kernel drops most of what the init says.
        append: format!("printk.devkmsg=on {}", options.append),
        time_limit: Duration::from_secs(600),
    };
    (1..=options.runs)
        .map(|run| {
            eprintln!("{}: run {run} of {}", form.name, options.runs);
            machine
                .boot(&options.console, |console| times(form, console))
                .map_err(|error| format!("{}: {error}", form.name).into())
        })
        .collect()
}

/// Returns a table with a line for each form and a column for each measure.
fn table(rows: &[(Form, Times)], cell: impl Fn(u64, u64) -> String) -> String {
    let mut text = "| form |".to_owned();
    for (title, ..) in MEASURES {
        let _ = write!(text, " {title} |");
    }
    let _ = write!(text, "\n|---|{}\n", "---|".repeat(MEASURES.len()));
    let Some((_, first)) = rows.first() else {
        return text;
    };
    for (form, times) in rows {
        let _ = write!(text, "| {} |", form.title);
        for (time, first) in times.iter().zip(first) {
            let _ = write!(text, " {} |", cell(*time, *first));
        }
        text.push('\n');
    }
    text
}

/// Returns what the first execution of a program costs more than in the first form: in microseconds for each program, and in
/// nanoseconds for each byte of it. The two unknowns follow from programs of two lengths.
fn shares(times: &Times, first: &Times) -> (f64, f64) {
    let more = |place: usize| times[place] as f64 - first[place] as f64;
    let [small, large] = [more(SMALL) / SMALL_PROGRAMS, more(LARGE) / LARGE_PROGRAMS];
    let by_byte = (large - small) / LONGER;
    (small - by_byte * SMALL_LENGTH, by_byte * 1000.0)
}

/// Returns a table of the shares.
fn table_of_shares(rows: &[(Form, Times)]) -> String {
    let mut text =
        "| form | for each program, µs | for each byte, ns |\n|---|---|---|\n".to_owned();
    for (form, times) in rows.iter().skip(1) {
        let (program, byte) = shares(times, &rows[0].1);
        let _ = writeln!(text, "| {} | {program:.0} | {byte:.1} |", form.title);
    }
    text
}

/// Returns the times in milliseconds, each with its ratio to that of the first form, and the spread of the runs.
fn report(measured: &[(Form, Vec<Times>)]) -> String {
    let (mut medians, mut largest) = (Vec::new(), (0.0, String::new()));
    for (form, runs) in measured {
        let mut row = Times::default();
        for (place, median) in row.iter_mut().enumerate() {
            let column = runs.iter().filter_map(|times| times.get(place).copied());
            let (middle, spread) = median_and_spread(column);
            *median = middle;
            let ratio = spread as f64 / middle.max(1) as f64;
            if ratio > largest.0 {
                largest = (ratio, format!("{}, {}", form.title, MEASURES[place].0));
            }
        }
        medians.push((*form, row));
    }
    format!(
        "{}\n{}\n{}\nLargest difference between runs: {:.0} % ({})\n",
        table(&medians, |time, _| format!("{:.1}", time as f64 / 1000.0)),
        table(&medians, |time, first| format!(
            "{:.2}",
            time as f64 / first.max(1) as f64
        )),
        table_of_shares(&medians),
        largest.0 * 100.0,
        largest.1
    )
}

fn run(options: &Options) -> Result<(), Error> {
    let mut measured = Vec::new();
    for form in FORMS {
        if form.fs_verity {
            enable_fs_verity(options, &form)?;
        }
        measured.push((form, measure(options, &form)?));
    }
    print!("{}", report(&measured));
    Ok(())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-cost: error: {error}");
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

    /// The console of a boot in which each measure takes a microsecond more than the one before.
    fn console(form: &Form) -> String {
        let mut text = format!(
            "6,1,1,-;benchmark: unsigned program of the root: {}\r\n\
             6,1,1,-;benchmark: unsigned program of a tmpfs: {}\r\n\
             6,1,1,-;benchmark: root on the device mapper: {}\r\n",
            form.on_root.word(),
            form.on_tmpfs.word(),
            if form.verity { "yes" } else { "no" },
        );
        for (place, (_, begin, end)) in MEASURES.iter().enumerate() {
            let _ = write!(text, "6,2,100,-;{begin}\r\n6,3,{},-;{end}\r\n", 101 + place);
        }
        text
    }

    #[test]
    fn times_are_those_between_the_records() {
        for form in &FORMS {
            assert_eq!(times(form, &console(form)), Ok([1, 2, 3, 4, 5, 6, 7, 8]));
        }
    }

    /// A form that does not enforce what it should is an error, as is one that enforces more.
    #[test]
    fn another_enforcement_is_an_error() {
        for form in &FORMS {
            for other in &FORMS {
                let same = (form.on_root, form.on_tmpfs, form.verity)
                    == (other.on_root, other.on_tmpfs, other.verity);
                assert_eq!(times(form, &console(other)).is_ok(), same);
            }
        }
    }

    #[test]
    fn what_failed_and_what_is_missing_are_errors() {
        let [form, ..] = FORMS;
        let failed = console(&form) + "6,9,9,-;benchmark: failed /cost/small/007\r\n";
        let unfinished = console(&form).replace("benchmark: end read warm", "");
        for (console, named) in [(failed, "/cost/small/007"), (unfinished, "read warm")] {
            let error = times(&form, &console).expect_err("an error");
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn shares_are_those_of_programs_of_two_lengths() {
        let first = [0, 1000, 0, 500, 0, 0, 0, 0];
        // 300 µs for each program, and 50 ns for each byte.
        let small = 1000 + 100 * (300 + 5_000);
        let large = 500 + 10 * (300 + 100_000);
        let (program, byte) = shares(&[0, small, 0, large, 0, 0, 0, 0], &first);
        assert!((program - 300.0).abs() < 1e-6, "{program}");
        assert!((byte - 50.0).abs() < 1e-6, "{byte}");
    }

    #[test]
    fn the_tables_have_times_and_ratios() {
        let [plain, ima, ..] = FORMS;
        let text = report(&[
            (plain, vec![[1000; 8], [2000; 8], [2000; 8]]),
            (ima, vec![[5000; 8]]),
        ]);
        assert!(text.contains("| neither | 2.0 |"), "{text}");
        assert!(text.contains("| IMA, RSA-2048 | 5.0 |"), "{text}");
        assert!(text.contains("| IMA, RSA-2048 | 2.50 |"), "{text}");
        assert!(
            text.contains("between runs: 50 % (neither, boot)"),
            "{text}"
        );
    }
}
