//! What is looked at, and how what was found is shown.

use serde::Serialize;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// Whether the init booted this system.
    Init,
    /// The kernel, and what started it.
    Kernel,
    /// Secure Boot and lockdown.
    SecureBoot,
    /// Whether somebody can change the command line.
    CommandLine,
    /// The TPM.
    Tpm,
    /// The keyrings.
    Keyrings,
    /// The policy.
    Policy,
    /// The root.
    Root,
    /// The measurement list.
    Measurements,
    /// What was denied.
    Denials,
    /// What the init warned of.
    Warnings,
}

impl Item {
    /// Every item, in the order in which they are shown.
    pub const ALL: [Self; 11] = [
        Self::Init,
        Self::Kernel,
        Self::SecureBoot,
        Self::CommandLine,
        Self::Tpm,
        Self::Keyrings,
        Self::Policy,
        Self::Root,
        Self::Measurements,
        Self::Denials,
        Self::Warnings,
    ];

    /// Its name, as in the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Kernel => "kernel",
            Self::SecureBoot => "secure-boot",
            Self::CommandLine => "command-line",
            Self::Tpm => "tpm",
            Self::Keyrings => "keyrings",
            Self::Policy => "policy",
            Self::Root => "root",
            Self::Measurements => "measurements",
            Self::Denials => "denials",
            Self::Warnings => "warnings",
        }
    }

    /// What it is called on a screen.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::SecureBoot => "Secure Boot",
            Self::CommandLine => "command line",
            Self::Tpm => "TPM",
            item => item.name(),
        }
    }

    /// The item of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|item| item.name() == name)
    }
}

/// What was found of an item. The worst counts last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Good,
    /// It cannot be seen on this system, or by this user.
    NotVisible,
    /// Somebody should look at it.
    Attention,
    /// It is not in force, does not hold, or it cannot be told whether it is in force.
    Failed,
}

impl State {
    /// Its name, as in the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::NotVisible => "not-visible",
            Self::Attention => "attention",
            Self::Failed => "failed",
        }
    }

    /// Its sign on a screen.
    #[must_use]
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::NotVisible => "·",
            Self::Attention => "!",
            Self::Failed => "✗",
        }
    }
}

/// What was found of an item, in words. The texts contain names of files and devices as they are: escape them for where they are
/// shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The item.
    pub item: Item,
    /// What was found.
    pub state: State,
    /// A line about it.
    pub text: String,
    /// More lines.
    pub details: Vec<String>,
}

impl Check {
    pub(super) fn new(item: Item, state: State, text: impl Into<String>) -> Self {
        Self {
            item,
            state,
            text: text.into(),
            details: Vec::new(),
        }
    }

    pub(super) fn detail(mut self, text: impl Into<String>) -> Self {
        self.details.push(text.into());
        self
    }

    /// The same, at least [`State::Attention`].
    pub(super) fn attention(mut self) -> Self {
        self.state = self.state.max(State::Attention);
        self
    }

    pub(super) fn failed(mut self) -> Self {
        self.state = State::Failed;
        self
    }
}

/// A number with its noun.
pub(super) fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

/// A day, as ISO 8601 writes it.
pub(super) fn date(seconds: u64) -> String {
    match der::DateTime::from_unix_duration(std::time::Duration::from_secs(seconds)) {
        Ok(time) => format!("{:04}-{:02}-{:02}", time.year(), time.month(), time.day()),
        Err(_) => seconds.to_string(),
    }
}
