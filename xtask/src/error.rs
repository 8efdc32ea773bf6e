//! What can go wrong in the tooling.

use std::fmt;
use std::io;

/// The result of a tooling step.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a tooling step stopped.
#[derive(Debug)]
pub(crate) enum Error {
    /// The command line is not one of those that the usage lists.
    Usage { argument: String },
    /// A program could not be started.
    Spawn { program: String, source: io::Error },
    /// A program ended with a failure.
    Command { line: String, status: String, stderr: String },
    /// A file could not be read or written; the error names it.
    File(io::Error),
    /// A tool printed something else than what its manual promises.
    Output { tool: String, detail: String },
    /// Something that only the machine's owner can provide is missing.
    Missing { what: String, remedy: String },
    /// A check ran to its end and found these faults.
    Check { check: &'static str, faults: Vec<String> },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage { argument } if argument.is_empty() => write!(f, "no command given"),
            Self::Usage { argument } => write!(f, "unexpected argument `{argument}`; see `cargo xtask help`"),
            Self::Spawn { program, source } => {
                write!(f, "cannot start {program}: {source}\n`cargo xtask setup` installs what is missing")
            }
            Self::Command { line, status, stderr } => {
                write!(f, "`{line}` failed: {status}")?;
                if stderr.is_empty() { Ok(()) } else { write!(f, "\n{}", stderr.trim_end()) }
            }
            Self::File(error) => error.fmt(f),
            Self::Output { tool, detail } => write!(f, "cannot make sense of what {tool} printed: {detail}"),
            Self::Missing { what, remedy } => write!(f, "{what}\n{remedy}"),
            Self::Check { check, faults } => {
                write!(f, "{check} failed:")?;
                faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}
