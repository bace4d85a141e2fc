//! What a test of ima-evm-utils prints with `VERBOSE=2` (its `tests/functions.sh`).

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Something that it needs is not there.
    Skipped,
    /// Otherwise.
    Failed,
}

impl Outcome {
    /// Returns the outcome of a case with an exit status (`expect_pass`, `expect_fail`).
    fn of(status: &str, positive: bool) -> Self {
        match status {
            // SKIP, and HARDFAIL: a failure also where one is expected.
            "77" => Self::Skipped,
            "99" => Self::Failed,
            _ if (status == "0") == positive => Self::Passed,
            _ => Self::Failed,
        }
    }
}

/// A case, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Case {
    /// The last command of evmctl in it, behind `+` if it should succeed and `-` if it should fail; without one, what the test
    /// calls the case.
    name: String,
    outcome: Outcome,
}

/// The cases in what a test printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    cases: Vec<Case>,
    /// The line with the counts that the test prints at its end (`_report_exit_and_cleanup`).
    pub summary: Option<String>,
}

impl Log {
    /// Reads what a test printed. Lines that say nothing of a case are passed over.
    pub fn parse(text: &str) -> Self {
        let mut log = Self::default();
        let mut name = String::new();
        for line in text.lines() {
            if let Some(start) = line.strip_prefix("____ START ") {
                let (_, case) = start.split_once(" test: ").unwrap_or(("", start));
                name = case.to_owned();
            } else if line.starts_with("+ evmctl ") || line.starts_with("- evmctl ") {
                name = command(line);
            } else if let Some(outcome) = stop(line) {
                let name = name.clone();
                log.cases.push(Case { name, outcome });
            } else if line.starts_with("PASS: ") {
                log.summary = Some(line.to_owned());
            }
        }
        log
    }

    /// Returns how many cases ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        let cases = self.cases.iter();
        cases.filter(|case| case.outcome == outcome).count()
    }

    /// Returns the names of the cases that failed.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        let failed = self.cases.iter();
        failed
            .filter(|case| case.outcome == Outcome::Failed)
            .map(|case| case.name.as_str())
    }
}

/// Returns a command without what says nothing of the case: how much evmctl prints, and the names of files that the test makes.
fn command(line: &str) -> String {
    let is_verbose =
        |word: &str| word.starts_with("-v") && word.bytes().skip(1).all(|it| it == b'v');
    let mut words: Vec<&str> = line.split_ascii_whitespace().collect();
    words.retain(|word| !is_verbose(word));
    let is_made = |word: &&str| word.starts_with("ima-") && word.ends_with(".txt");
    if words.last().is_some_and(is_made) {
        words.pop();
    }
    words.join(" ")
}

/// Returns the outcome of the case that ends with this line, `^^^^ STOP (0) positive test: ...`.
fn stop(line: &str) -> Option<Outcome> {
    let rest = line.strip_prefix("^^^^ STOP (")?;
    let (status, rest) = rest.split_once(") ")?;
    let (kind, _) = rest.split_once(" test: ")?;
    match kind {
        "positive" => Some(Outcome::of(status, true)),
        "negative" => Some(Outcome::of(status, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_those_that_the_tests_count() {
        for (status, positive, negative) in [
            ("0", Outcome::Passed, Outcome::Failed),
            ("1", Outcome::Failed, Outcome::Passed),
            ("10", Outcome::Failed, Outcome::Passed),
            ("77", Outcome::Skipped, Outcome::Skipped),
            ("99", Outcome::Failed, Outcome::Failed),
        ] {
            let line = format!("^^^^ STOP ({status}) positive test: check_sign");
            assert_eq!(stop(&line), Some(positive), "{line}");
            let line = line.replace("positive", "negative");
            assert_eq!(stop(&line), Some(negative), "{line}");
        }
        for line in [
            "^^^^ STOP (0) other test: x",
            "^^^^ STOP 0",
            "  ^^^^ STOP (0) positive test: x",
        ] {
            assert_eq!(stop(line), None, "{line}");
        }
    }

    #[test]
    fn a_case_is_named_by_its_last_command() {
        let text = "\
____ START positive test: check_sign TYPE=ima
- openssl dgst
+ evmctl -vv ima_sign  --sigfile --key k.key -v sha1.txt
  output + evmctl is not at the beginning
+ evmctl -vv ima_verify --key k.pub sha1.txt ima-sha1.txt
^^^^ STOP (1) positive test: check_sign TYPE=ima
____ START positive test: check_boot_aggregate
^^^^ STOP (99) positive test: check_boot_aggregate
____ START negative test: check_hash sha1
- evmctl -vv ima_hash --hashalgo sha1
^^^^ STOP (0) negative test: check_hash sha1
____ START negative test: check_hash sha2
- evmctl -vv ima_hash --hashalgo sha2
^^^^ STOP (1) negative test: check_hash sha2
PASS: 1 SKIP: 0 FAIL: 3
";
        let log = Log::parse(text);
        let failed: Vec<&str> = log.failed().collect();
        assert_eq!(
            failed,
            [
                "+ evmctl ima_verify --key k.pub sha1.txt",
                "check_boot_aggregate",
                "- evmctl ima_hash --hashalgo sha1",
            ]
        );
        assert_eq!(log.count(Outcome::Passed), 1);
        assert_eq!(log.count(Outcome::Skipped), 0);
        assert_eq!(log.summary.as_deref(), Some("PASS: 1 SKIP: 0 FAIL: 3"));
    }

    #[test]
    fn options_that_are_no_verbosity_stay() {
        assert_eq!(
            command("+ evmctl -vv  sign -v --key -verify ima-x.txt file"),
            "+ evmctl sign --key -verify ima-x.txt file"
        );
    }
}
