//! The system calls of an init, as the guest program reports them with `FAULTS=trace` (its module `faults`).

use std::fmt;
use std::str::FromStr;

/// What begins the record of a call.
const RECORD: &str = "call ";

/// A system call that was traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedCall {
    /// Its name, or its number if the guest program does not know it.
    pub name: String,
    /// How long the program ran between the call before and this one, in nanoseconds. What the tracer costs is in it.
    pub before: u64,
    /// How long the call took, in nanoseconds. What the tracer costs is in it.
    pub within: u64,
    /// What it returned.
    pub result: i64,
    /// The path or the file that it is about; empty if there is none.
    pub subject: String,
}

impl fmt::Display for TracedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            before,
            within,
            result,
            subject,
        } = self;
        write!(f, "{RECORD}{name} {before} {within} {result} {subject}")
    }
}

/// A line is not the record of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCall;

impl FromStr for TracedCall {
    type Err = NoCall;

    fn from_str(text: &str) -> Result<Self, NoCall> {
        let mut words = text.strip_prefix(RECORD).ok_or(NoCall)?.splitn(5, ' ');
        let mut word = || words.next().ok_or(NoCall);
        let (name, before, within, result) = (word()?, word()?, word()?, word()?);
        Ok(Self {
            name: name.to_owned(),
            before: before.parse().map_err(|_| NoCall)?,
            within: within.parse().map_err(|_| NoCall)?,
            result: result.parse().map_err(|_| NoCall)?,
            subject: words.next().unwrap_or_default().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for subject in ["", "/sys/kernel/security/ima/policy", "two words"] {
            let call = TracedCall {
                name: "openat".to_owned(),
                before: 1,
                within: 20,
                result: -2,
                subject: subject.to_owned(),
            };
            assert_eq!(call.to_string().parse(), Ok(call));
        }
        for text in ["", "calls 0: 1 2", "call 1 2 3", "call a b 2 3 x"] {
            assert_eq!(text.parse::<TracedCall>(), Err(NoCall), "{text}");
        }
    }
}
