//! What is printed, and how a command ends.

use std::fmt;
use std::io::Write as _;

use ima::fault::Fault;

/// The exit status of a command that failed; what went wrong was output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed(pub u8);

impl Failed {
    /// What evmctl ends with where it says -1.
    pub const ERROR: Self = Self(125);
}

/// How a command ended.
pub type Done<T = ()> = Result<T, Failed>;

/// Lines for standard output and standard error, kept until they are printed, so that files that are worked on at the same time
/// do not mix theirs.
#[derive(Debug, Default)]
pub struct Output {
    out: String,
    err: String,
}

impl Output {
    /// A line for standard output.
    pub fn out(&mut self, line: fmt::Arguments<'_>) {
        push(&mut self.out, line);
        self.out.push('\n');
    }

    /// A line for standard error.
    pub fn err(&mut self, line: fmt::Arguments<'_>) {
        push(&mut self.err, line);
        self.err.push('\n');
    }

    /// The beginning of a line for standard error.
    pub fn err_part(&mut self, text: &str) {
        self.err.push_str(text);
    }

    /// A fault, and the status evmctl has for errors.
    pub fn fault(&mut self, fault: &Fault) -> Failed {
        self.err(format_args!("{fault}"));
        Failed::ERROR
    }

    /// Prints all that was output.
    pub fn print(self) {
        // An error of writing cannot be reported anywhere.
        let _ = std::io::stderr().write_all(self.err.as_bytes());
        let _ = std::io::stdout().write_all(self.out.as_bytes());
    }
}

fn push(text: &mut String, line: fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = fmt::Write::write_fmt(text, line);
}
