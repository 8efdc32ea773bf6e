use std::path::{Path, PathBuf};

use super::DeviceName;

/// The result of using a device by its name.
pub(super) type Result<T> = std::result::Result<T, Error>;

/// Why a device cannot be used by its name.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No file has it.
    #[error("no file in {} has it", listed(directories))]
    NotFound {
        /// The device.
        device: DeviceName,
        /// Where its file was looked for.
        directories: Vec<PathBuf>,
        /// The devices that there are.
        known: Vec<String>,
    },
    /// Two files of one directory have it.
    #[error("both {first} and {second} have it", first = first.display(), second = second.display())]
    Conflict {
        /// The device.
        device: DeviceName,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A file or a directory cannot be read.
    #[error("{source}")]
    File {
        /// Why; it names the path.
        source: std::io::Error,
    },
    /// A file breaks a rule.
    #[error("{}: {}{field}: {reason}", file.display(), of(device.as_deref()))]
    Field {
        /// The file.
        file: PathBuf,
        /// The device that the field belongs to, if it belongs to one.
        device: Option<String>,
        /// The place in the document, as in `devices[0].containerEdits.mounts[1].hostPath`.
        field: String,
        /// What is wrong there.
        reason: String,
    },
}

impl Error {
    /// What failed, as the first line of a report.
    pub fn headline(&self) -> String {
        match self {
            Error::NotFound { device, .. } | Error::Conflict { device, .. } => {
                format!("there is no one device \"{device}\" for --device")
            }
            Error::File { .. } | Error::Field { .. } => "cannot use the devices of --device".to_owned(),
        }
    }

    /// What to do.
    pub fn advice(&self) -> String {
        match self {
            Error::NotFound { known, .. } if known.is_empty() => {
                "let the vendor's tool write its file there, or name another directory: --cdi-spec-dir DIR"
                    .to_owned()
            }
            Error::NotFound { known, .. } => format!("use one that there is: {}", known.join(", ")),
            Error::Conflict { second, .. } => {
                format!("remove the device from one of them, for example: rm {}", second.display())
            }
            Error::File { .. } => {
                "make it readable, or name another directory: --cdi-spec-dir DIR".to_owned()
            }
            Error::Field { file, .. } => {
                format!("mend {}, or let the vendor's tool write it again", file.display())
            }
        }
    }
}

fn listed(directories: &[PathBuf]) -> String {
    let names: Vec<_> = directories.iter().map(|path: &PathBuf| Path::display(path).to_string()).collect();
    names.join(" or ")
}

fn of(device: Option<&str>) -> String {
    device.map_or(String::new(), |device| format!("device \"{device}\": "))
}
