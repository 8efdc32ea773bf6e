//! Where coracle keeps things: the persistent root, the volatile one, and the places in them.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The two directories that hold everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// Images, containers: `/var/lib/coracle`, for a user `$XDG_DATA_HOME/coracle`.
    pub persistent: PathBuf,
    /// What ends with the boot: `/run/coracle`, for a user `$XDG_RUNTIME_DIR/coracle`.
    pub volatile: PathBuf,
}

impl Roots {
    /// Chooses the directories: what was asked (`--root`, `--state`), else `CORACLE_ROOT` and `CORACLE_STATE`, else the defaults.
    ///
    /// `variable` looks up an environment variable.
    pub fn choose(
        root: Option<PathBuf>,
        state: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let from = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let is_root = rustix::process::geteuid().is_root();
        let persistent = match root.or_else(|| from("CORACLE_ROOT")) {
            Some(path) => path,
            None if is_root => PathBuf::from("/var/lib/coracle"),
            None => match (from("XDG_DATA_HOME"), from("HOME")) {
                (Some(data), _) => data.join("coracle"),
                (None, Some(home)) => home.join(".local/share/coracle"),
                (None, None) => return Err(Error::NoHome),
            },
        };
        let volatile = match state.or_else(|| from("CORACLE_STATE")) {
            Some(path) => path,
            None if is_root => PathBuf::from("/run/coracle"),
            None => match from("XDG_RUNTIME_DIR") {
                Some(runtime) => runtime.join("coracle"),
                None => PathBuf::from(format!("/tmp/coracle-{}", rustix::process::geteuid().as_raw())),
            },
        };
        Ok(Self { persistent: absolute(persistent)?, volatile: absolute(volatile)? })
    }

    /// The directories of all containers.
    pub fn containers(&self) -> PathBuf {
        self.persistent.join("containers")
    }

    /// One file for each name in use, which holds the container's id.
    pub fn names(&self) -> PathBuf {
        self.persistent.join("names")
    }

    /// Makes what is missing. The persistent root is its owner's alone; the volatile one can be passed through, as a container with
    /// shifted ids has its mount point in it.
    pub fn make(&self) -> Result<()> {
        make_directory(&self.persistent, 0o700)?;
        make_directory(&self.containers(), 0o700)?;
        make_directory(&self.names(), 0o700)?;
        make_directory(&self.volatile, 0o711)?;
        refuse_strangers(&self.volatile)
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    let path = std::path::absolute(&path).map_err(|source| Error::File { path, source })?;
    if path.to_str().is_none() { Err(Error::NotText { path }) } else { Ok(path) }
}

/// Makes a directory and its parents; one that exists keeps its mode.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<()> {
    use rustix::io::Errno;
    match rustix::fs::mkdir(path, rustix::fs::Mode::from(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) if path.parent().is_some_and(|parent| parent != path) => {
            make_directory(path.parent().unwrap_or(Path::new("/")), 0o755)?;
            rustix::fs::mkdir(path, rustix::fs::Mode::from(mode)).map_err(|errno| cannot_make(path, errno))
        }
        Err(errno) => Err(cannot_make(path, errno)),
    }
}

fn cannot_make(path: &Path, errno: rustix::io::Errno) -> Error {
    Error::File { path: path.to_owned(), source: errno.into() }
}

/// A directory in /tmp could have been made by anybody.
fn refuse_strangers(path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let status = fs_err::symlink_metadata(path)?;
    let me = rustix::process::geteuid();
    if status.is_dir() && (status.uid() == me.as_raw() || me.is_root()) {
        return Ok(());
    }
    Err(Error::NotOurs { path: path.to_owned() })
}
