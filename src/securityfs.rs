//! IMA's policy file in securityfs (security/integrity/ima/ima_fs.c): a policy is written to it, or the path of a signed one,
//! and where CONFIG_IMA_READ_POLICY is set the rules in force are read from it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use ima::policy::{Line, Policy};

use crate::errno::{Errno, from_io};
use crate::files;

/// Where securityfs is mounted.
pub const SECURITYFS: &str = "/sys/kernel/security";

/// IMA's directory, which a kernel without IMA has not.
pub const IMA: &str = "/sys/kernel/security/ima";

/// Where the policy is written and read.
pub const POLICY: &str = "/sys/kernel/security/ima/policy";

/// Where EVM is switched on.
pub const EVM: &str = "/sys/kernel/security/evm";

/// Why the rules could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteError<'a> {
    /// The file could not be opened for writing.
    Open(Errno),
    /// The kernel refused this rule.
    Rule(&'a Line, Errno),
}

/// Writes the rules, one with each write, because the kernel parses only the first line of each. After a rule that it refuses
/// it takes no other, so the first error ends the writing.
///
/// # Errors
///
/// [`WriteError`].
pub fn write_rules(policy: &Policy) -> Result<(), WriteError<'_>> {
    let mut file = OpenOptions::new()
        .write(true)
        .open(POLICY)
        .map_err(|error| WriteError::Open(from_io(&error)))?;
    for line in policy.lines() {
        let rule = [&line.text, "\n"].concat();
        let written = file
            .write(rule.as_bytes())
            .map_err(|error| WriteError::Rule(line, from_io(&error)))?;
        if written < rule.len() {
            return Err(WriteError::Rule(line, Errno::TOOBIG));
        }
    }
    Ok(())
}

/// Writes the path of an open file, by which the kernel finds exactly that file and checks its signature.
///
/// # Errors
///
/// What open(2) and write(2) say: EACCES for a file without a good signature, EINVAL for a rule that the kernel does not parse.
pub fn write_path(file: &File) -> Result<(), Errno> {
    let path = format!("{}\n", files::descriptor_path(file));
    let written = OpenOptions::new()
        .write(true)
        .open(POLICY)
        .and_then(|mut policy| policy.write(path.as_bytes()));
    written.map(drop).map_err(|error| from_io(&error))
}

/// The rules in force; `None` from a kernel that does not show them.
pub fn rules() -> Option<Vec<u8>> {
    std::fs::read(POLICY).ok()
}
