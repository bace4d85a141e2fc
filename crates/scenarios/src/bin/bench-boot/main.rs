//! Measures how long ima-init takes, beside a shell script that makes the same requests: the last step of `benches/boot`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ima_init_scenarios::counted::{Measured, median_and_spread, time_between};

type Error = Box<dyn std::error::Error>;

/// Measure how long ima-init takes, beside a shell script that makes the same requests
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
    /// The initramfs with ima-init
    #[arg(long, value_name = "FILE")]
    init: PathBuf,
    /// The initramfs with the shell script
    #[arg(long, value_name = "FILE")]
    shell: PathBuf,
    /// A program or library of ima-init's; may be repeated
    #[arg(long, value_name = "FILE")]
    init_program: Vec<PathBuf>,
    /// A program or library of the shell script's; may be repeated
    #[arg(long, value_name = "FILE")]
    shell_program: Vec<PathBuf>,
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

/// Times in microseconds, from the kernel's "Run /init".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    /// Until the policy is in force.
    policy: u64,
    /// Until the real root's init runs.
    init: u64,
}

/// Returns the times in a console.
fn times(console: &str) -> Result<Times, String> {
    let since = |text| time_between(console, "Run /init as init process", text);
    Ok(Times {
        policy: since("ima: policy update completed")?,
        init: since("benchmark: the real init runs")?,
    })
}

fn measure(options: &Options, name: &str, initramfs: &Path) -> Result<Vec<Times>, Error> {
    let terminal = std::io::stderr().is_terminal();
    let machine = Measured {
        kernel: options.kernel.clone(),
        disk: options.disk.clone(),
        initramfs: initramfs.to_owned(),
        append: options.append.clone(),
        time_limit: Duration::from_secs(120),
    };
    let mut measured = Vec::new();
    for run in 1..=options.runs {
        if terminal {
            eprint!("\r\x1b[K{name}: run {run} of {}", options.runs);
            let _ = std::io::stderr().flush();
        }
        measured.push(machine.boot(&options.console, times)?);
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

fn line(title: &str, init: &str, shell: &str, ratio: &str) -> String {
    format!("{title:<36} {init:>12} {shell:>12} {ratio:>10}\n")
}

/// Returns a line with a ratio of two numbers, divided by 1000, with so many decimals and a unit.
fn compared(title: &str, init: u64, shell: u64, decimals: usize, unit: &str) -> String {
    let shown = |number: u64| format!("{:.decimals$} {unit}", number as f64 / 1000.0);
    let ratio = format!("{:.1}", shell as f64 / init as f64);
    line(title, &shown(init), &shown(shell), &ratio)
}

/// Returns the lines about the times.
fn table(init: &[Times], shell: &[Times]) -> String {
    let mut text = line("", "ima-init", "shell", "shell/init");
    let policy = |times: &Times| times.policy;
    let real_init = |times: &Times| times.init;
    for (title, time) in [
        ("Run /init to policy in force", policy as fn(&Times) -> u64),
        ("Run /init to the real init", real_init),
    ] {
        let (init_median, init_spread) = median_and_spread(init.iter().map(time));
        let (shell_median, shell_spread) = median_and_spread(shell.iter().map(time));
        text += &compared(title, init_median, shell_median, 1, "ms");
        let spread = |time: u64| format!("{:.1} ms", time as f64 / 1000.0);
        let title = "  largest difference between runs";
        text += &line(title, &spread(init_spread), &spread(shell_spread), "");
    }
    text
}

fn run(options: &Options) -> Result<(), Error> {
    let init = measure(options, "ima-init", &options.init)?;
    let shell = measure(options, "shell", &options.shell)?;
    print!("{}", table(&init, &shell));
    let [init, shell] = [&options.init_program, &options.shell_program].map(|files| size(files));
    print!(
        "{}",
        compared("programs and libraries", init?, shell?, 0, "KB")
    );
    let [init, shell] =
        [&options.init, &options.shell].map(|file| size(std::slice::from_ref(file)));
    print!("{}", compared("initramfs (gzip)", init?, shell?, 0, "KB"));
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
        6,203,9000,-;ima: policy update completed\r\n";

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn times_are_those_since_init() {
        let expected = Times {
            policy: 250,
            init: 900,
        };
        assert_eq!(times(CONSOLE), Ok(expected));
        let without = CONSOLE.replace("benchmark", "another");
        let error = times(&without).expect_err("an error");
        assert!(error.contains("the real init runs"), "{error}");
    }

    #[test]
    fn the_table_has_both() {
        let times = |policy, init| Times { policy, init };
        let text = table(
            &[times(2000, 4000), times(2100, 4100), times(2200, 4300)],
            &[times(8400, 20500)],
        );
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1][6..], ["2.1", "ms", "8.4", "ms", "4.0"]);
        assert_eq!(lines[4][4..], ["0.3", "ms", "0.0", "ms"]);
    }
}
