//! Measures how long ima-init takes, beside other programs that make the same requests: the last step of `benches/boot`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ima_init_scenarios::counted::{Measured, median_and_spread, time_between};

mod trace;

type Error = Box<dyn std::error::Error>;

/// Measure how long ima-init takes, beside other programs that make the same requests
///
/// Boots each initramfs several times with the same kernel and root, and prints a table of medians.
#[derive(Debug, Parser)]
#[command(name = "bench-boot", version, max_term_width = 100)]
struct Options {
    /// The kernel, a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The image of the root, whose init writes the kernel's log to the console
    #[arg(long, value_name = "FILE")]
    disk: PathBuf,
    /// A column of the table and its initramfs; may be repeated
    #[arg(long, value_name = "NAME=FILE", required_unless_present = "trace", value_parser = named)]
    form: Vec<(String, PathBuf)>,
    /// A program or library in the initramfs of a column; may be repeated
    #[arg(long, value_name = "NAME=FILE", value_parser = named)]
    program: Vec<(String, PathBuf)>,
    /// A column whose init puts no policy in force; may be repeated
    #[arg(long, value_name = "NAME")]
    without_policy: Vec<String>,
    /// The column whose numbers the others are shown as multiples of
    #[arg(long, value_name = "NAME", default_value = "")]
    base: String,
    /// Print the system calls of the init in this initramfs instead, whose /init is the guest program and whose /ima-init it is
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Boot each this many times
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Parameters for the kernel command line
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        allow_hyphen_values = true
    )]
    append: String,
    /// Save the serial console of a boot that does not get to its end here
    #[arg(long, value_name = "FILE")]
    console: PathBuf,
}

/// Reads `NAME=FILE`.
fn named(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("it has no =")?;
    Ok((name.to_owned(), file.into()))
}

/// Times in microseconds, from the kernel's "Run /init".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    /// Until the policy is in force, if the init has one.
    policy: Option<u64>,
    /// Until the real root's init runs.
    init: u64,
}

/// What a boot shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Boot {
    times: Times,
    /// The most memory that PID 1 had resident, in bytes.
    memory: u64,
}

/// What the real init says of the memory of PID 1, before its number.
const MEMORY: &str = "benchmark: peak memory of PID 1 in KiB: ";

/// Returns what a console shows, of an init with a policy or of one without.
fn boot(console: &str, with_policy: bool) -> Result<Boot, String> {
    let since = |text| time_between(console, "Run /init as init process", text);
    let times = Times {
        policy: with_policy
            .then(|| since("ima: policy update completed"))
            .transpose()?,
        init: since("benchmark: the real init runs")?,
    };
    let memory = console
        .lines()
        .find_map(|line| line.split_once(MEMORY)?.1.trim().parse::<u64>().ok())
        .ok_or("the machine did not say how much memory PID 1 had")?;
    Ok(Boot {
        times,
        memory: memory * 1024,
    })
}

fn machine(options: &Options, initramfs: &Path, append: &str) -> Measured {
    Measured {
        kernel: options.kernel.clone(),
        disk: options.disk.clone(),
        initramfs: initramfs.to_owned(),
        append: format!("{} {append}", options.append),
        time_limit: Duration::from_secs(120),
    }
}

fn measure(options: &Options, name: &str, initramfs: &Path) -> Result<Vec<Boot>, Error> {
    let terminal = std::io::stderr().is_terminal();
    let machine = machine(options, initramfs, "");
    let with_policy = !options.without_policy.iter().any(|form| form == name);
    let mut measured = Vec::new();
    for run in 1..=options.runs {
        if terminal {
            eprint!("\r\x1b[K{name}: run {run} of {}", options.runs);
            let _ = std::io::stderr().flush();
        }
        measured.push(machine.boot(&options.console, |console| boot(console, with_policy))?);
    }
    if terminal {
        eprint!("\r\x1b[K");
    } else {
        eprintln!("{name}: {} runs", options.runs);
    }
    Ok(measured)
}

/// Returns the sum of the sizes of files, in bytes.
fn size(files: &[PathBuf]) -> Result<u64, Error> {
    let mut sum = 0;
    for file in files {
        let data = file
            .metadata()
            .map_err(|error| format!("{}: {error}", file.display()))?;
        sum += data.len();
    }
    Ok(sum)
}

/// Returns a line of the table.
fn line(title: &str, cells: impl Iterator<Item = String>) -> String {
    let cells: String = cells.map(|cell| format!(" {cell:>11}")).collect();
    format!("{title:<34}{cells}\n")
}

/// Returns what a cell shows of a number that a form may not have.
fn cell(number: Option<f64>, decimals: usize, unit: &str) -> String {
    number.map_or("-".to_owned(), |number| {
        format!("{number:.decimals$}{unit}")
    })
}

/// Returns a line with a number of each form, divided by 1000, with so many decimals and a unit; and one with the multiples of
/// the base.
fn compared(
    title: &str,
    numbers: &[Option<u64>],
    base: usize,
    decimals: usize,
    unit: &str,
) -> String {
    let thousands = |number: &Option<u64>| cell(number.map(|n| n as f64 / 1000.0), decimals, unit);
    let multiple = |number: &Option<u64>| {
        let both = number.zip(numbers[base]);
        cell(both.map(|(n, base)| n as f64 / base as f64), 2, "")
    };
    line(title, numbers.iter().map(thousands))
        + &line("  multiple of the base", numbers.iter().map(multiple))
}

/// Returns the lines about the boots.
fn table(measured: &[Vec<Boot>], base: usize) -> String {
    let mut text = String::new();
    let policy = |boot: &Boot| boot.times.policy;
    let real_init = |boot: &Boot| Some(boot.times.init);
    for (title, time) in [
        (
            "Run /init to policy in force",
            policy as fn(&Boot) -> Option<u64>,
        ),
        ("Run /init to the real init", real_init),
    ] {
        let (medians, spreads): (Vec<_>, Vec<_>) = measured
            .iter()
            .map(|boots| {
                let times: Option<Vec<u64>> = boots.iter().map(time).collect();
                times
                    .map(|times| median_and_spread(times.into_iter()))
                    .unzip()
            })
            .unzip();
        text += &compared(title, &medians, base, 2, " ms");
        let spread = |time: &Option<u64>| cell(time.map(|time| time as f64 / 1000.0), 2, " ms");
        text += &line(
            "  largest difference between runs",
            spreads.iter().map(spread),
        );
    }
    let memory: Vec<u64> = measured
        .iter()
        .map(|boots| median_and_spread(boots.iter().map(|boot| boot.memory)).0)
        .collect();
    // The kernel counts the pages of each processor apart, and adds them up now and then: the least program may show none.
    let kilobytes = |bytes: &u64| format!("{:.1} kB", *bytes as f64 / 1000.0);
    text + &line("peak memory of PID 1", memory.iter().map(kilobytes))
}

fn run(options: &Options) -> Result<(), Error> {
    if let Some(initramfs) = &options.trace {
        let machine = machine(options, initramfs, "FAULTS=trace printk.devkmsg=on");
        let calls = machine.boot(&options.console, trace::calls)?;
        print!("{}", trace::table(&calls));
        return Ok(());
    }
    let names = options.form.iter().map(|(name, _)| name);
    let base = names
        .clone()
        .position(|name| *name == options.base)
        .ok_or_else(|| format!("--base {}: there is no such form", options.base))?;
    let mut measured = Vec::new();
    let mut programs = Vec::new();
    let mut initramfs = Vec::new();
    for (name, file) in &options.form {
        measured.push(measure(options, name, file)?);
        let of_form = options.program.iter().filter(|(form, _)| form == name);
        let of_form: Vec<PathBuf> = of_form.map(|(_, file)| file.clone()).collect();
        programs.push(Some(size(&of_form)?));
        initramfs.push(Some(size(std::slice::from_ref(file))?));
    }
    print!("{}", line("", names.cloned()));
    print!("{}", table(&measured, base));
    print!(
        "{}",
        compared("programs and libraries", &programs, base, 1, " kB")
    );
    print!(
        "{}",
        compared("initramfs (gzip)", &initramfs, base, 1, " kB")
    );
    Ok(())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-boot: error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const CONSOLE: &str = "Linux\r\n6,200,1000,-;Run /init as init process\r\n\
        6,201,1250,-,caller=T1;ima: policy update completed\r\n6,202,1900,-;benchmark: the real init runs\r\n\
        6,202,1900,-;benchmark: peak memory of PID 1 in KiB: 600\r\n6,203,9000,-;ima: policy update completed\r\n";

    /// Returns the words of each line.
    fn words(text: &str) -> Vec<Vec<&str>> {
        text.lines()
            .map(|line| line.split_whitespace().collect())
            .collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn times_are_those_since_init() {
        let expected = Boot {
            times: Times {
                policy: Some(250),
                init: 900,
            },
            memory: 614_400,
        };
        assert_eq!(boot(CONSOLE, true), Ok(expected));
        for (missing, named) in [("the real init", "the real init runs"), ("KiB", "memory")] {
            let error = boot(&CONSOLE.replace(missing, "another"), true).expect_err("an error");
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn only_an_init_with_a_policy_has_to_put_it_in_force() {
        let without = CONSOLE.replace("policy update", "another");
        let error = boot(&without, true).expect_err("an error");
        assert!(error.contains("policy update"), "{error}");
        let times = Times {
            policy: None,
            init: 900,
        };
        assert_eq!(boot(&without, false).map(|boot| boot.times), Ok(times));
    }

    #[test]
    fn the_table_has_the_multiples_of_the_base() {
        let boot = |policy, init, memory| Boot {
            times: Times {
                policy: Some(policy),
                init,
            },
            memory,
        };
        let text = table(
            &[
                vec![
                    boot(2000, 4000, 3000),
                    boot(2100, 4100, 3000),
                    boot(2200, 4300, 3000),
                ],
                vec![boot(1050, 20500, 2000)],
            ],
            1,
        );
        let lines = words(&text);
        assert_eq!(lines[0][6..], ["2.10", "ms", "1.05", "ms"]);
        assert_eq!(lines[1][4..], ["2.00", "1.00"]);
        assert_eq!(lines[4][4..], ["0.20", "1.00"]);
        assert_eq!(lines[5][4..], ["0.30", "ms", "0.00", "ms"]);
        assert_eq!(lines[6][5..], ["3.0", "kB", "2.0", "kB"]);
    }

    #[test]
    fn a_form_without_a_policy_has_a_dash() {
        let boot = |policy, init| Boot {
            times: Times { policy, init },
            memory: 0,
        };
        let text = table(&[vec![boot(None, 500)], vec![boot(Some(250), 1000)]], 1);
        let lines = words(&text);
        assert_eq!(lines[0][6..], ["-", "0.25", "ms"]);
        assert_eq!(lines[1][4..], ["-", "1.00"]);
        assert_eq!(lines[2][4..], ["-", "0.00", "ms"]);
        assert_eq!(lines[3][6..], ["0.50", "ms", "1.00", "ms"]);
        assert_eq!(lines[4][4..], ["0.50", "1.00"]);
    }

    #[test]
    fn forms_have_names() {
        let expected = ("floor".to_owned(), PathBuf::from("a=b"));
        assert_eq!(named("floor=a=b"), Ok(expected));
        assert!(named("floor").is_err());
    }
}
