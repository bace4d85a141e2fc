//! What the output of tests says: the results by name, and why tests failed.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

/// Lines of the output of each failed test that are kept: the reason comes first.
const LINES_OF_A_FAILURE: usize = 60;

/// What libtest printed.
#[derive(Debug, Default)]
pub struct Output {
    /// Which tests were run, and whether they passed.
    pub results: BTreeMap<String, bool>,
    /// The lines from `failures:` to the result, which say which tests failed and why.
    pub failures: Vec<String>,
    inside: bool,
    of_this_test: usize,
}

impl Output {
    /// Copies output line by line, and keeps what it says.
    pub fn copy(from: impl BufRead, to: &mut impl Write) -> io::Result<Self> {
        let mut output = Self::default();
        for line in from.split(b'\n') {
            let mut line = line?;
            output.take(&String::from_utf8_lossy(&line));
            line.push(b'\n');
            to.write_all(&line)?;
        }
        Ok(output)
    }

    /// Adds what other output said.
    pub fn extend(&mut self, other: Self) {
        self.results.extend(other.results);
        self.failures.extend(other.failures);
    }

    fn take(&mut self, line: &str) {
        if line == "failures:" {
            self.inside = true;
        } else if line.starts_with("test result: ") {
            self.inside = false;
        } else if self.inside && !line.is_empty() {
            if line.starts_with("---- ") {
                self.of_this_test = 0;
            }
            self.of_this_test += 1;
            if self.of_this_test <= LINES_OF_A_FAILURE {
                self.failures.push(line.to_owned());
            }
        } else if let Some((name, result)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
            && ["ok", "FAILED"].contains(&result)
        {
            self.results.insert(name.to_owned(), result == "ok");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_failures_are_kept_and_the_whole_output_is_copied() {
        let long = "further\n".repeat(2 * LINES_OF_A_FAILURE);
        let text = format!(
            "test a ... FAILED\ntest m::c ... ok\ntest d ... ignored, reason\n\nfailures:\n\n---- a stdout ----\nseed 7\n{long}\n\
             ---- b stdout ----\nthe reason\n\n\n\nfailures:\n    a\n    b\n\ntest result: FAILED. 0 passed\nother\n"
        );
        let mut copied = Vec::new();
        let output = Output::copy(text.as_bytes(), &mut copied).unwrap();
        assert_eq!(copied, text.as_bytes());
        let lines = output.failures;
        assert_eq!(lines[..2], ["---- a stdout ----", "seed 7"]);
        assert_eq!(
            lines[LINES_OF_A_FAILURE..],
            ["---- b stdout ----", "the reason", "    a", "    b"]
        );
        let results: Vec<_> = output.results.into_iter().collect();
        assert_eq!(
            results,
            [("a".to_owned(), false), ("m::c".to_owned(), true)]
        );
    }
}
