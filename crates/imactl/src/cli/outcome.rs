//! How a command ends.

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, and nothing to complain of.
    Good,
    /// Done, and something was found: an error in a policy, a missing option.
    Findings,
    /// Done, and something was found for which the command has an exit status of its own.
    Found(u8),
}

/// What a command returns.
pub type Result<T = Outcome> = imactl::Result<T>;
