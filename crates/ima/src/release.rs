//! Releases of the kernel.

use std::fmt;

/// A kernel's release, such as 6.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    /// 6
    pub major: u16,
    /// 1
    pub minor: u16,
}

impl Release {
    /// A release by its numbers.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What is not a release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a kernel release; write 6.1")]
pub struct BadRelease(pub String);

impl std::str::FromStr for Release {
    type Err = BadRelease;

    /// `6.1`, or more of it, as `uname -r` prints: `6.1.0-32-amd64`.
    fn from_str(text: &str) -> Result<Self, BadRelease> {
        let bad = || BadRelease(text.chars().take(40).collect());
        let (major, rest) = text.split_once('.').ok_or_else(bad)?;
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let minor = rest.get(..end).ok_or_else(bad)?;
        Ok(Self {
            major: major.parse().map_err(|_| bad())?,
            minor: minor.parse().map_err(|_| bad())?,
        })
    }
}
