//! From option texts to values: each function takes what stands after the option's name.

/// An option's value that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value \"{value}\" for {option}: {reason}")]
pub struct Error {
    /// The option, with its dashes.
    pub option: &'static str,
    /// The value as typed.
    pub value: String,
    /// What is wrong with it.
    pub reason: String,
    /// Forms that are accepted.
    pub accepted: Option<String>,
}

impl Error {
    /// What to type instead.
    pub fn advice(&self) -> Option<String> {
        self.accepted.clone()
    }
}
