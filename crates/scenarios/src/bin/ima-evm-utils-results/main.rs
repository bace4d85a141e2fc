//! Reads what the tests of ima-evm-utils printed, and compares what failed with what is known to: the last step of
//! `tests/ima-evm-utils`.

mod log;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use log::{Log, Outcome};

type Error = Box<dyn std::error::Error>;

/// Count the results of tests of ima-evm-utils, and compare them with what is expected
///
/// Prints how many cases of each test passed, were skipped and failed. The exit status is 1 if fewer passed than did when the
/// tests were taken up, if a test did not get to its end, or if other cases failed than those in the list.
#[derive(Debug, Parser)]
#[command(name = "ima-evm-utils-results", version, max_term_width = 100)]
struct Options {
    /// The list of the cases that fail: "TEST: COMMAND" on each line; without it, any may fail
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
    /// What the tests printed with VERBOSE=2: a file with the name of the test for each
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,
}

/// The tests, and how many of their cases pass at least. Fewer mean that cases were not run.
const LEAST: [(&str, usize); 3] = [
    ("ima_hash", 12),
    ("sign_verify", 132),
    ("boot_aggregate", 1),
];

/// Returns how many cases of a test pass at least.
fn least(test: &str) -> Result<usize, Error> {
    let row = LEAST.iter().find(|(name, _)| *name == test);
    let (_, least) = row.ok_or_else(|| format!("{test}: not a test that is run here"))?;
    Ok(*least)
}

/// How many cases of a test passed, were skipped and failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: usize,
    skipped: usize,
    failed: usize,
}

impl Counts {
    fn of(log: &Log) -> Self {
        Self {
            passed: log.count(Outcome::Passed),
            skipped: log.count(Outcome::Skipped),
            failed: log.count(Outcome::Failed),
        }
    }

    /// Returns the line that the test prints at its end.
    fn summary(self) -> String {
        format!(
            "PASS: {} SKIP: {} FAIL: {}",
            self.passed, self.skipped, self.failed
        )
    }

    /// Returns the line that is printed here.
    fn shown(self, test: &str) -> String {
        format!(
            "{test:<16} {:>3} passed  {:>3} skipped  {:>3} failed",
            self.passed, self.skipped, self.failed
        )
    }
}

/// Returns what is wrong with the run of a test as a whole.
fn problems(test: &str, log: &Log, least: usize) -> Vec<String> {
    let mut problems = Vec::new();
    let counts = Counts::of(log);
    match &log.summary {
        None => problems.push(format!("{test}.test did not get to its end")),
        Some(summary) if *summary != counts.summary() => problems.push(format!(
            "{test}.test counts other cases than its output has: {summary}"
        )),
        Some(_) => {}
    }
    if counts.passed < least {
        problems.push(format!(
            "{test}.test: {} cases passed, at least {least} must",
            counts.passed
        ));
    }
    problems
}

/// Returns the cases of a list, whose comments begin with `#`.
fn known_cases(list: &str) -> BTreeSet<&str> {
    let cases = list.lines().filter(|line| !line.starts_with('#'));
    cases.filter(|line| !line.is_empty()).collect()
}

/// Returns what differs between the cases that fail and those that are known to.
fn differences(failed: &BTreeSet<String>, known: &str) -> Vec<String> {
    let failed: BTreeSet<&str> = failed.iter().map(String::as_str).collect();
    let known = known_cases(known);
    let more = failed
        .difference(&known)
        .map(|case| format!("fails, and is not in the list: {case}"));
    let fewer = known
        .difference(&failed)
        .map(|case| format!("passes; take it out of the list: {case}"));
    more.chain(fewer).collect()
}

/// Prints the results. Returns what is wrong with them.
fn run(options: &Options) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let mut failed = BTreeSet::new();
    for path in &options.logs {
        let name = path.file_stem().and_then(|name| name.to_str());
        let test = name.ok_or_else(|| format!("{}: no name of a test", path.display()))?;
        let least = least(test)?;
        let log = Log::parse(&read(path)?);
        println!("{}", Counts::of(&log).shown(test));
        found.extend(problems(test, &log, least));
        failed.extend(log.failed().map(|case| format!("{test}: {case}")));
    }
    if let Some(path) = &options.known {
        let file = path.display();
        let differences = differences(&failed, &read(path)?);
        found.extend(
            differences
                .into_iter()
                .map(|text| format!("{file}: {text}")),
        );
    }
    Ok(found)
}

fn read(path: &Path) -> Result<String, Error> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    // The tests print what programs print, which need not be UTF-8.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            for problem in problems {
                eprintln!("ima-evm-utils-results: {problem}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("ima-evm-utils-results: error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const GOOD: &str = "+ evmctl -vv ima_hash a\n^^^^ STOP (0) positive test: a\n\
        + evmctl -vv ima_hash b\n^^^^ STOP (77) positive test: b\n\
        + evmctl -vv ima_hash c\n^^^^ STOP (1) positive test: c\nPASS: 1 SKIP: 1 FAIL: 1\n";

    const KNOWN: &str = "# Reasons.\n\nboot_aggregate: + evmctl ima_hash c\n";

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn a_test_that_did_not_run_its_cases_is_noticed() {
        let with = |text: &str, least| problems("x", &Log::parse(text), least);
        assert_eq!(with(GOOD, 1), [""; 0]);
        assert_eq!(with(GOOD, 2), ["x.test: 1 cases passed, at least 2 must"]);
        let aborted = GOOD.replace("PASS: ", "");
        assert_eq!(with(&aborted, 1), ["x.test did not get to its end"]);
        let other = GOOD.replace("FAIL: 1", "FAIL: 2");
        assert_eq!(
            with(&other, 1),
            ["x.test counts other cases than its output has: PASS: 1 SKIP: 1 FAIL: 2"]
        );
        assert_eq!(with("", 1).len(), 2);
    }

    #[test]
    fn the_line_of_a_test_has_its_counts() {
        assert_eq!(
            Counts::of(&Log::parse(GOOD)).shown("ima_hash"),
            "ima_hash           1 passed    1 skipped    1 failed"
        );
    }

    /// Runs the program on the logs, and returns the problems without the path of the list.
    fn run_with(logs: &[(&str, &str)], known: Option<&str>) -> Result<Vec<String>, Error> {
        let directory = tempfile::tempdir()?;
        let put = |name: &str, text: &str| -> Result<PathBuf, Error> {
            let path = directory.path().join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        let options = Options {
            known: known.map(|text| put("known", text)).transpose()?,
            logs: logs
                .iter()
                .map(|(name, text)| put(name, text))
                .collect::<Result<_, _>>()?,
        };
        let list = format!("{}: ", directory.path().join("known").display());
        let problems = run(&options)?;
        Ok(problems
            .iter()
            .map(|problem| problem.replace(&list, ""))
            .collect())
    }

    #[test]
    fn what_fails_is_compared_with_the_list() {
        let log = [("boot_aggregate.log", GOOD)];
        assert_eq!(run_with(&log, Some(KNOWN)).unwrap(), [""; 0]);
        assert_eq!(run_with(&log, None).unwrap(), [""; 0]);
        assert_eq!(
            run_with(&log, Some(&KNOWN.replace("c\n", "d\n"))).unwrap(),
            [
                "fails, and is not in the list: boot_aggregate: + evmctl ima_hash c",
                "passes; take it out of the list: boot_aggregate: + evmctl ima_hash d",
            ]
        );
    }

    #[test]
    fn a_case_that_fails_twice_is_one_in_the_list() {
        let twice = format!(
            "{}+ evmctl ima_hash c\n^^^^ STOP (1) positive test: c\nPASS: 1 SKIP: 1 FAIL: 2\n",
            GOOD.replace("PASS: 1 SKIP: 1 FAIL: 1\n", "")
        );
        let log = [("boot_aggregate.log", twice.as_str())];
        assert_eq!(run_with(&log, Some(KNOWN)).unwrap(), [""; 0]);
    }

    #[test]
    fn logs_of_other_tests_are_an_error() {
        let error = run_with(&[("other.log", GOOD)], None).unwrap_err();
        assert_eq!(error.to_string(), "other: not a test that is run here");
    }
}
