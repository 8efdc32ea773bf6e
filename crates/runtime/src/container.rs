//! A container of runc's command line, as one command leaves it for the next: a directory `ROOT/ID` with
//!
//! - `state.json`: what was asked and which process it became;
//! - `group.json`: where its control group is;
//! - `exec.fifo`: where its first process waits for `start`, until that.
//!
//! What it does is asked of the kernel, each time.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cgroup::Group;
use kernel::process;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::request::Request;
use crate::state::{self, State};

const FIFO: &str = "exec.fifo";
const FILE: &str = "state.json";

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its process waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process is gone.
    Stopped,
}

impl Status {
    /// As the specification names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// Why a container cannot be used as asked. The texts are runc's: callers look for them.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is none of that id.
    #[error("container does not exist")]
    Missing,
    /// There is one of that id.
    #[error("container with given ID already exists")]
    Exists,
    /// The id is no name of a directory.
    #[error("invalid container ID format")]
    Id {
        /// As given.
        id: String,
    },
    /// The id is longer than the name of a directory can be.
    #[error("container id is of more than 255 bytes: file name too long")]
    LongId,
    /// The id is an empty text.
    #[error("container id cannot be empty")]
    NoId,
    /// It does not run.
    #[error("container not running")]
    NotRunning,
    /// It is not frozen.
    #[error("container not paused")]
    NotPaused,
    /// It waits for `start` no more.
    #[error("cannot start an already running container")]
    Started,
    /// Its processes are frozen.
    #[error("cannot start a container in the paused state")]
    Frozen,
    /// It has ended.
    #[error("cannot start a container that has stopped")]
    Stopped,
    /// `exec` in one that has ended.
    #[error("cannot exec in a stopped container")]
    ExecStopped,
    /// `exec` in a frozen one.
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    ExecPaused,
    /// Only what runs can be checkpointed.
    #[error("Container cannot be checkpointed in {} state", status.name())]
    NotCheckpointable {
        /// What it does.
        status: Status,
    },
    /// `delete` without `--force`.
    #[error("cannot delete container {id} that is not stopped: {}", status.name())]
    NotStopped {
        /// Which.
        id: String,
        /// What it does.
        status: Status,
    },
}

/// `state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`state::VERSION`].
    pub version: u32,
    /// What was asked.
    pub request: Request,
    /// When it was created, RFC 3339 in UTC.
    pub created: String,
    /// The first process; none until it is there.
    pub process: Option<State>,
}

/// A container.
#[derive(Debug)]
pub struct Container {
    /// `ROOT/ID`.
    pub directory: PathBuf,
    /// What is in its `state.json`.
    pub record: Record,
}

impl Container {
    /// Takes the id: makes the directory, which fails if it is there.
    ///
    /// # Errors
    /// [`Fault::Exists`], [`Fault::Id`].
    pub fn reserve(root: &Path, id: &str) -> Result<PathBuf> {
        check_id(id)?;
        make_private(root)?;
        let directory = root.join(id);
        match rustix::fs::mkdir(&directory, Mode::from_raw_mode(0o711)) {
            Ok(()) => Ok(directory),
            Err(Errno::EXIST) => Err(Fault::Exists.into()),
            Err(errno) => Err(file_error("mkdir", &directory, errno)),
        }
    }

    /// Finds a container.
    ///
    /// # Errors
    /// [`Fault::Missing`], [`Fault::Id`].
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let directory = root.join(id);
        match state::read(&directory.join(FILE), |record: &Record| record.version)? {
            Some(record) => Ok(Self { directory, record }),
            None => Err(Fault::Missing.into()),
        }
    }

    /// Whether there is a directory of that name, with or without a container in it: `create` may have been killed at any moment.
    pub fn remains(root: &Path, id: &str) -> Option<PathBuf> {
        Some(root.join(id)).filter(|directory| check_id(id).is_ok() && directory.is_dir())
    }

    /// All containers below a root, in order of their ids.
    pub fn all(root: &Path) -> Result<Vec<Self>> {
        let entries = match fs_err::read_dir(root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        let open = |name: &String| match Self::open(root, name) {
            // Just being made, or just removed.
            Err(Error::Container(Fault::Missing)) => None,
            other => Some(other),
        };
        names.iter().filter_map(open).collect()
    }

    /// Writes `state.json`.
    pub fn write(&self) -> Result<()> {
        state::write(&self.directory.join(FILE), &self.record)
    }

    /// The first process's number; 0 when it is gone.
    pub fn pid(&self) -> u32 {
        self.running_process().map_or(0, |process| process.pid)
    }

    fn running_process(&self) -> Option<&State> {
        self.record.process.as_ref().filter(|process| process.is_running())
    }

    /// A descriptor of the first process; none when it is gone.
    pub fn process(&self) -> Result<Option<OwnedFd>> {
        let Some(process) = self.running_process() else { return Ok(None) };
        match process::pidfd_open(process.pid) {
            // It may have ended, and the number may be another's: what is open now is what is asked again.
            Ok(descriptor) => Ok(process.is_running().then_some(descriptor)),
            Err(error) if error.errno() == Errno::SRCH => Ok(None),
            Err(source) => Err(Error::Step { step: "cannot find the container's process", source }),
        }
    }

    /// What the container does now.
    pub fn status(&self) -> Result<Status> {
        if self.running_process().is_none() {
            return Ok(Status::Stopped);
        }
        if self.group()?.map_or(Ok(false), |group| group.is_frozen())? {
            return Ok(Status::Paused);
        }
        Ok(if self.gate()?.is_some() { Status::Created } else { Status::Running })
    }

    /// The name of the user that the container's directory belongs to, `#` and the number where the machine has no name for it.
    pub fn owner(&self) -> Result<String> {
        use std::os::unix::fs::MetadataExt as _;
        let uid = fs_err::metadata(&self.directory)?.uid();
        Ok(crate::user::name_of(uid)?.unwrap_or_else(|| format!("#{uid}")))
    }

    /// The container's control group.
    pub fn group(&self) -> Result<Option<Group>> {
        crate::group::find_written(&self.directory)
    }

    /// The FIFO at which the first process waits, to write to; none when it waits no more.
    pub fn gate(&self) -> Result<Option<OwnedFd>> {
        let path = self.directory.join(FIFO);
        match rustix::fs::open(&path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fifo) => Ok(Some(fifo)),
            // Nobody reads it: the process has become its program, or has ended.
            Err(Errno::NXIO | Errno::NOENT) => Ok(None),
            Err(errno) => Err(file_error("open", &path, errno)),
        }
    }

    /// Lets the first process become its program.
    ///
    /// # Errors
    /// [`Fault::Started`], [`Fault::Stopped`], [`Fault::Frozen`].
    pub fn start(&self) -> Result<()> {
        let hooks = self.record.request.spec.hooks.as_ref();
        let order_counts =
            hooks.is_some_and(|hooks| !hooks.start_container.is_empty() && !hooks.poststart.is_empty());
        if self.status()? == Status::Paused {
            return Err(Fault::Frozen.into());
        }
        let Some(gate) = self.gate()? else {
            return Err(match self.running_process() {
                Some(_) => Fault::Started.into(),
                None => Fault::Stopped.into(),
            });
        };
        let path = self.directory.join(FIFO);
        rustix::io::write(&gate, b"0").map_err(|errno| file_error("write", &path, errno))?;
        if order_counts {
            wait_until_unread(&gate, &path)?;
        }
        match fs_err::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Makes the FIFO at which a container's first process will wait, and opens it so that a read waits for a writer and never ends.
pub fn make_gate(directory: &Path) -> Result<OwnedFd> {
    let path = directory.join(FIFO);
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .map_err(|errno| file_error("mkfifo", &path, errno))?;
    rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| file_error("open", &path, errno))
}

/// Waits until no process has a FIFO open for reading: the container's has become its program, or has ended.
fn wait_until_unread(gate: &OwnedFd, path: &Path) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        // Of a pipe's writing end the kernel tells nothing but that its last reader has left: poll(2), POLLERR.
        match poll(&mut [PollFd::new(gate, PollFlags::empty())], None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(file_error("poll", path, errno)),
        }
    }
}

fn make_private(root: &Path) -> Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    fs_err::create_dir_all(root)?;
    rustix::fs::chmod(root, Mode::from_raw_mode(0o700)).map_err(|errno| file_error("chmod", root, errno))
}

fn check_id(id: &str) -> Result<()> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() {
        return Err(Fault::NoId.into());
    }
    if id.len() > 255 {
        return Err(Fault::LongId.into());
    }
    if matches!(id, "." | "..") || !id.bytes().all(is_allowed) {
        return Err(Fault::Id { id: id.to_owned() }.into());
    }
    Ok(())
}

fn file_error(call: &'static str, path: &Path, errno: Errno) -> Error {
    Error::File(std::io::Error::other(
        kernel::Error::new(call, path.display().to_string(), errno).to_string(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_of_directories() {
        for id in ["a", "0123-x_y+z.w", "..."] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        assert!(matches!(check_id(""), Err(Error::Container(Fault::NoId))));
        assert!(matches!(check_id(&"a".repeat(256)), Err(Error::Container(Fault::LongId))));
        for id in [".", "..", "a/b", "a b", "é", "../x", "a\n"] {
            assert!(matches!(check_id(id), Err(Error::Container(Fault::Id { .. }))), "{id}");
        }
    }
}
