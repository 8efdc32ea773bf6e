//! Devices by name: the files with which vendors say what a container needs to use a device of theirs.
//!
//! Source: Container Device Interface, `SPEC.md`, versions 0.3 to 1.0. `file` is what such a file says, `check` the rules
//! for it, `registry` finds the file that has a device, `edit` changes a container's configuration as it says.

mod check;
mod edit;
mod error;
mod file;
mod registry;

use std::path::PathBuf;

pub(crate) use edit::apply;
pub use error::Error;

/// Where files are looked for when nothing else is asked; the later directory wins.
pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// The full name of a device: `vendor.com/class=name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceName {
    /// Vendor and class, `vendor.com/class`.
    pub kind: String,
    /// Its name among those of its kind.
    pub name: String,
}

impl DeviceName {
    /// Reads a full name; none if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('=')?;
        (check::is_kind(kind) && check::is_device(name))
            .then(|| Self { kind: kind.to_owned(), name: name.to_owned() })
    }
}

impl std::fmt::Display for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.kind, self.name)
    }
}

/// The devices that a container asks for by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// In the order in which they change the configuration.
    pub devices: Vec<DeviceName>,
    /// `--cdi-spec-dir`; empty for [`DIRECTORIES`].
    pub directories: Vec<PathBuf>,
}

#[cfg(test)]
mod tests;
