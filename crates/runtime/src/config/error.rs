use std::path::PathBuf;

use crate::spec::NamespaceKind;

/// The result of a check.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a bundle's configuration cannot be used. `path` is always the place in the JSON document, as in
/// `linux.namespaces[2].type`, and `value` what stands there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none. The text is runc's, which callers look for.
    #[error("JSON specification file config.json not found")]
    NotFound {
        /// Where it should be.
        file: PathBuf,
    },
    /// It is not JSON, or a value is not of its type.
    #[error("{file}: {reason}")]
    Format {
        /// The document.
        file: String,
        /// The place; a dot is the document as a whole.
        path: String,
        /// The place, what is wrong there, and in which line.
        reason: String,
    },
    /// Something that has to be there is not.
    #[error("config.json: {path}: it is missing or empty, and {reason}")]
    Missing {
        /// The place.
        path: String,
        /// Why it is needed.
        reason: &'static str,
    },
    /// A version of the specification that this runtime does not follow.
    #[error("config.json: ociVersion {value:?}: {reason}; versions from 1.0.0 to 1.x are understood")]
    Version {
        /// The version.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A relative path where only an absolute one has a meaning.
    #[error("config.json: {path} {value:?}: it is not an absolute path")]
    NotAbsolute {
        /// The place.
        path: String,
        /// The path there.
        value: PathBuf,
    },
    /// A value that is not one of those that the specification or the kernel has.
    #[error("config.json: {path} {value:?}: not one of {known}")]
    Unknown {
        /// The place.
        path: String,
        /// The value.
        value: String,
        /// Those that there are.
        known: &'static str,
    },
    /// A number out of its range.
    #[error("config.json: {path} {value}: it is not from {least} to {most}")]
    Range {
        /// The place.
        path: String,
        /// The number.
        value: i64,
        /// The least there may be.
        least: i64,
        /// The most.
        most: i64,
    },
    /// A value that is not in the form it must have.
    #[error("config.json: {path} {value:?}: {reason}")]
    Malformed {
        /// The place.
        path: String,
        /// The value.
        value: String,
        /// What it should be.
        reason: &'static str,
    },
    /// The same thing twice.
    #[error("config.json: {path} {value:?}: it is there twice")]
    Duplicate {
        /// The place of the second.
        path: String,
        /// What both are.
        value: String,
    },
    /// Something that would change the host without a namespace of the container's.
    #[error("config.json: {path} {value:?}: it needs a {} namespace in linux.namespaces", name_of(*kind))]
    NeedsNamespace {
        /// The place.
        path: String,
        /// The value.
        value: String,
        /// The namespace.
        kind: NamespaceKind,
    },
    /// Something that needs a namespace of the container's own, not one that it joins.
    #[error("config.json: {path} {value:?}: it needs a new {} namespace, and the container joins one", name_of(*kind))]
    NeedsNewNamespace {
        /// The place.
        path: String,
        /// The value.
        value: String,
        /// The namespace.
        kind: NamespaceKind,
    },
    /// Two values that do not go together.
    #[error("config.json: {path} {value:?}: {reason}")]
    Conflict {
        /// The place.
        path: String,
        /// The value.
        value: String,
        /// With what it conflicts.
        reason: &'static str,
    },
    /// A kernel parameter that is not the container's own.
    #[error("config.json: linux.sysctl {name:?}: {reason}")]
    Sysctl {
        /// The parameter, with dots.
        name: String,
        /// Whose it is.
        reason: &'static str,
    },
    /// The namespace at a path cannot be looked at.
    #[error("config.json: {path} {value:?}: {errno}")]
    Namespace {
        /// The place.
        path: String,
        /// The path there.
        value: PathBuf,
        /// Why.
        errno: rustix::io::Errno,
    },
}

fn name_of(kind: NamespaceKind) -> String {
    format!("{kind:?}").to_lowercase()
}

/// Something in a configuration that is passed over or taken for something else, as other runtimes do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The place in the JSON document.
    pub path: String,
    /// What stands there.
    pub value: String,
    /// What is made of it.
    pub reason: &'static str,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "config.json: {} {:?}: {}", self.path, self.value, self.reason)
    }
}
