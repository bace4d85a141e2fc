//! One fault that happened, and the three lines that are printed of it.

use std::borrow::Cow;
use std::fmt;

use super::{Cause, Code, Explanation};

/// One fault that happened: a code, what exactly it met, and a closer cause or remedy where one is known.
///
/// It is one pointer, because nearly every function of the init returns one: each place that hands a fault on moves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(Box<Content>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    code: Code,
    detail: String,
    found: Option<Cause>,
    cause: Cow<'static, str>,
    remedy: Cow<'static, str>,
}

impl Fault {
    /// A fault with the catalogue's cause and remedy; `detail` names the file, device or value and the kernel's error.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self::made(code, detail.into())
    }

    // Not in every place where a fault is made: the init is small.
    #[inline(never)]
    fn made(code: Code, detail: String) -> Self {
        let entry = code.entry();
        Self(Box::new(Content {
            code,
            detail,
            found: None,
            cause: Cow::Borrowed(entry.cause),
            remedy: Cow::Borrowed(entry.remedy),
        }))
    }

    /// The same with the cause that was found out in place of the code's, and with that cause's remedy if it has one.
    ///
    /// # Panics
    ///
    /// In a build with debug assertions, if the catalogue does not list the cause under the code.
    #[must_use]
    #[inline(never)]
    pub fn because(self, why: impl Into<Explanation>) -> Self {
        self.explained(why.into())
    }

    #[inline(never)]
    fn explained(mut self, why: Explanation) -> Self {
        debug_assert!(
            why.cause.codes().contains(&self.0.code),
            "{}: {:?}",
            self.0.code,
            why.cause
        );
        self.0.found = Some(why.cause);
        self.0.cause = why.text;
        if let Some(remedy) = why.remedy {
            self.0.remedy = remedy;
        }
        self
    }

    /// The same with the cause of another fault, which this one follows from; the remedy stays.
    #[must_use]
    pub fn caused_by(mut self, other: &Self) -> Self {
        self.0.found = other.0.found;
        self.0.cause.clone_from(&other.0.cause);
        self
    }

    /// The same with a cause that is data from beginning to end: the words of the kernel, of another program or of a parser.
    /// What this project says itself is a [`Cause`].
    #[must_use]
    pub fn with_cause(mut self, words: impl Into<Cow<'static, str>>) -> Self {
        self.0.cause = words.into();
        self
    }

    /// The same with another remedy. This is for the command line of `imactl`, which alone knows its options; all other remedies
    /// belong to a [`Code`] or a [`Cause`].
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.0.remedy = remedy.into();
        self
    }

    /// The same with the file it was met in before the detail.
    #[must_use]
    pub fn in_file(mut self, path: &str) -> Self {
        self.0.detail = match self.0.detail.is_empty() {
            true => path.to_owned(),
            false => format!("{path}: {}", self.0.detail),
        };
        self
    }

    /// The code.
    pub const fn code(&self) -> Code {
        self.0.code
    }

    /// The cause that was found out, if any.
    pub const fn found(&self) -> Option<Cause> {
        self.0.found
    }

    /// What exactly it met.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Why, in the catalogue's words or closer ones.
    pub fn cause(&self) -> &str {
        &self.0.cause
    }

    /// What to do now, in the catalogue's words or closer ones.
    pub fn remedy(&self) -> &str {
        &self.0.remedy
    }
}

/// Three lines: what (with the code), why, what to do. In a program without explanations, the last two say so and name the
/// command that has them.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.0.code.entry();
        write!(f, "[{}] {}", entry.id, entry.what)?;
        if !self.0.detail.is_empty() {
            write!(f, ": {}", self.0.detail)?;
        }
        match self.0.cause.as_ref() {
            "" => f.write_str("\n  cause: this program was built without explanations")?,
            cause => write!(f, "\n  cause: {cause}")?,
        }
        match self.0.remedy.as_ref() {
            "" => write!(f, "\n  remedy: run imactl explain {}", entry.id),
            remedy => write!(f, "\n  remedy: {remedy}"),
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_three_lines_with_the_closer_cause() {
        let fault =
            Fault::new(Code::PolicyEmpty, "/etc/ima/ima_policy").with_cause("only comments");
        let text = fault.to_string();
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "[IMA-602] the IMA policy has no rules: /etc/ima/ima_policy",
                "  cause: only comments",
                "  remedy: write at least one rule, or take policy/ima_policy.default"
            ]
        );
    }
}
