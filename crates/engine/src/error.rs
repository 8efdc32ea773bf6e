use std::path::PathBuf;

use runtime::Failure;

/// The result of a call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a container's life did not go as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nowhere to keep anything.
    #[error("there is no place for images and containers: neither $XDG_DATA_HOME nor $HOME is set")]
    NoHome,
    /// A directory of coracle's has a name that is no text, which its files could not hold.
    #[error("the path {} is not UTF-8 text", .path.display())]
    NotText {
        /// The directory.
        path: PathBuf,
    },
    /// The volatile directory belongs to somebody else.
    #[error("{path} belongs to another user")]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The same, where the error itself names the path.
    #[error("{0}")]
    NamedFile(#[from] std::io::Error),
    /// A file of coracle's has contents that this version cannot read.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A system call failed.
    #[error("{0}")]
    Kernel(#[from] kernel::Error),
    /// The runtime failed on this side of the monitor.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The images cannot answer.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// An option's value is not one that can be honoured.
    #[error(transparent)]
    Option(#[from] crate::options::Error),
    /// AppArmor is on, and the profile for containers cannot be loaded.
    #[error("{reason}")]
    ProfileNotLoaded {
        /// Why not.
        reason: String,
        /// What makes it possible.
        repair: &'static str,
    },
    /// A device cannot be used by its name.
    #[error(transparent)]
    Cdi(#[from] crate::cdi::Error),
    /// The name belongs to another container.
    #[error("the name \"{name}\" is taken by container {id}")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// `--cidfile` names a file that exists.
    #[error("the file {path} of --cidfile exists already")]
    CidFileExists {
        /// The file.
        path: PathBuf,
    },
    /// `-it` without a terminal to type in.
    #[error("standard input is not a terminal")]
    NotATerminal,
    /// No such container.
    #[error("there is no container \"{name}\"")]
    NoSuchContainer {
        /// As typed.
        name: String,
    },
    /// A prefix of several ids.
    #[error("\"{name}\" is the beginning of more than one container's id")]
    Ambiguous {
        /// As typed.
        name: String,
    },
    /// The container runs, and what was asked needs it not to.
    #[error("container \"{name}\" is running")]
    IsRunning {
        /// Its name.
        name: String,
    },
    /// The container does not run, and what was asked needs it to.
    #[error("container \"{name}\" is not running")]
    NotRunning {
        /// Its name.
        name: String,
    },
    /// The container's image is this machine, whose files are no layers.
    #[error("the image of container \"{name}\" is this machine itself, of which there are no layers")]
    OfThisMachine {
        /// Its name.
        name: String,
    },
    /// The container was made of a directory, not of an image.
    #[error("the root of container \"{name}\" is the directory {}, not an image", .directory.display())]
    NoLayers {
        /// Its name.
        name: String,
        /// What was asked.
        verb: &'static str,
        /// The directory.
        directory: PathBuf,
    },
    /// The container has no control group by which it could be stopped for a moment.
    #[error("container \"{name}\" has no control group, so its processes cannot be stopped for the time")]
    NotPaused {
        /// Its name.
        name: String,
    },
    /// Only root can mount for all to see.
    #[error("only root can mount it: what a user mounts is seen in that user's own namespaces only")]
    MountNeedsRoot {
        /// The image.
        name: String,
    },
    /// coracle-runtime is nowhere.
    #[error("there is no executable coracle-runtime beside {beside} or in $PATH")]
    NoRuntime {
        /// coracle's own file.
        beside: PathBuf,
    },
    /// The process that works on images in a user namespace did not do what it should.
    #[error("the process in a user namespace that cleans the images ended with status {status}")]
    Unshared {
        /// Its exit status.
        status: i32,
    },
    /// The monitor reported a failure.
    #[error("{}", .failure.cause)]
    Container {
        /// The container's name.
        name: String,
        /// What it said.
        failure: Failure,
    },
    /// The monitor ended before there was a container.
    #[error(
        "coracle-runtime, the process that looks after a container, ended before it had started anything"
    )]
    MonitorNotStarted {
        /// The container's name.
        name: String,
    },
    /// The monitor ended without a word.
    #[error(
        "the process that looks after it ended without saying why (was it killed?); its program may still run"
    )]
    MonitorLost {
        /// The container's name.
        name: String,
    },
}

impl Error {
    /// docker's exit codes: 127 for a program that is not there, 126 for one that cannot be run, 125 for all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Container { failure, .. } => failure.exit_code,
            _ => 125,
        }
    }

    /// What failed, as the first line of a report.
    pub fn headline(&self) -> Option<String> {
        match self {
            Error::Container { name, .. } => Some(format!("cannot start container \"{name}\"")),
            Error::MonitorNotStarted { name } => Some(format!("cannot start container \"{name}\"")),
            Error::MonitorLost { name } => Some(format!("container \"{name}\" has lost its monitor")),
            Error::Option(error) => Some(error.parts().0),
            Error::Cdi(error) => Some(error.headline()),
            Error::ProfileNotLoaded { .. } => Some("cannot load coracle's AppArmor profile".to_owned()),
            _ => None,
        }
    }

    /// Because of what, as the second line, where there is a headline.
    pub fn cause(&self) -> Option<String> {
        match self {
            Error::Container { .. }
            | Error::MonitorNotStarted { .. }
            | Error::MonitorLost { .. }
            | Error::ProfileNotLoaded { .. } => Some(self.to_string()),
            Error::Option(error) => error.parts().1,
            Error::Cdi(_) => Some(self.to_string()),
            _ => None,
        }
    }

    /// Whether a registry could be asked for the image, and those that are here of a like name.
    pub fn missing_image(&self) -> Option<&[String]> {
        match self {
            Error::Image(error @ image::Error::UnknownImage { nearest, .. }) if error.is_missing_name() => {
                Some(nearest)
            }
            _ => None,
        }
    }

    /// What to do, when there is something.
    pub fn advice(&self) -> Option<String> {
        let text = match self {
            Error::NoHome => "set HOME, or give --root DIR".to_owned(),
            Error::NotText { .. } => "give another place: --root DIR and --state DIR".to_owned(),
            Error::NotOurs { .. } => "set XDG_RUNTIME_DIR, or give --state DIR".to_owned(),
            Error::NameTaken { name, .. } => {
                format!("choose another --name, or remove that one: coracle rm {name}")
            }
            Error::CidFileExists { path } => format!("remove it, or name another: rm {}", path.display()),
            Error::NotATerminal => "for input from a pipe or a file give -i without -t".to_owned(),
            Error::NoSuchContainer { .. } | Error::Ambiguous { .. } => {
                "see all containers: coracle ps -a".to_owned()
            }
            Error::IsRunning { name } => {
                format!("end it first: coracle kill {name}, or remove it by force: coracle rm -f {name}")
            }
            Error::NotRunning { .. } => "see which ones run: coracle ps".to_owned(),
            Error::MonitorNotStarted { .. } => {
                "if nobody killed it, see that coracle and coracle-runtime are of one version and executable"
                    .to_owned()
            }
            Error::OfThisMachine { .. } => "run an image that was pulled, loaded or imported".to_owned(),
            Error::MountNeedsRoot { name } => {
                format!(
                    "look into it from inside: coracle run --rm -it {name} sh; or unpack it: coracle export"
                )
            }
            Error::NoLayers { verb: "commit", directory, .. } => {
                format!("pack it: tar -C {} -c . | coracle import - NAME", directory.display())
            }
            Error::NoLayers { .. } => "compare the directory with what it was made from".to_owned(),
            Error::NotPaused { .. } => "do without: --pause=false".to_owned(),
            Error::NoRuntime { .. } => "install both files of coracle into one directory".to_owned(),
            Error::Container { failure, .. } => return failure.advice.clone(),
            Error::MonitorLost { name } => {
                format!("end what runs and remove what is left: coracle rm -f {name}")
            }
            Error::ProfileNotLoaded { repair, .. } => {
                format!("{repair}, or run without: --security-opt apparmor=unconfined")
            }
            Error::Runtime(error) => return Failure::from(error).advice,
            Error::NamedFile(error) | Error::File { source: error, .. } => match error.kind() {
                std::io::ErrorKind::StorageFull => {
                    "free some disk space: coracle rmi removes images that are not needed".to_owned()
                }
                std::io::ErrorKind::PermissionDenied => {
                    "run as the owner of that directory, or give --root DIR and --state DIR".to_owned()
                }
                _ => return None,
            },
            Error::Image(error) => return error.advice(),
            Error::Option(error) => return error.advice(),
            Error::Cdi(error) => error.advice(),
            _ => return None,
        };
        Some(text)
    }
}
