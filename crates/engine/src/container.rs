//! Containers as files: a directory for each, its name taken by a file, its lock held by whoever looks after it.
//!
//! `containers/ID/` holds `lock`, `container.json` (what was asked), `request.json` (what the monitor was told), the container's changes
//! and, at the end, `exit.json`. A lock that nobody holds with no exit and no running process means that a command or a monitor was
//! killed half way; [`mend`] removes what such a container left.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::request::Request;
use runtime::state::{Exit, State};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::roots::{Roots, make_directory};

/// The version of `container.json`; another one is refused.
pub(crate) const VERSION: u32 = 1;

/// What was asked, as far as lists and reports need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this file.
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name that was given or found.
    pub name: String,
    /// The image as typed; a directory for `--rootfs`.
    pub image: String,
    /// The image's id; none for `--rootfs`.
    pub image_id: Option<String>,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Whether it is removed when it ends.
    pub remove: bool,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// How it runs, as an image of it would say; none for `--rootfs`.
    #[serde(default)]
    pub config: Option<image::Config>,
    /// The AppArmor profile that confines it, if it was given one.
    #[serde(default)]
    pub apparmor_profile: Option<String>,
    /// The signal that asks it to end: as asked, else the image's, else TERM.
    pub stop_signal: i32,
    /// Seconds from that signal to KILL, [`u32::MAX`] for ever.
    pub stop_timeout: u32,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Being made by a command that is still running.
    Starting,
    /// Its first process runs.
    Running(State),
    /// It has ended.
    Ended(Exit),
    /// Its monitor was killed, and how it ended is not known.
    Lost,
}

/// A container as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// What was asked.
    pub record: Record,
    /// Where it is in its life.
    pub status: Status,
}

/// A container that is being made: its directory and its name. Dropped before [`Taken::keep`], it is removed again.
pub(crate) struct Taken {
    pub id: String,
    pub name: String,
    pub directory: PathBuf,
    pub state_directory: PathBuf,
    pub name_file: PathBuf,
    kept: bool,
}

impl Taken {
    /// Takes a new id and the name, and gives the lock beside it. `random` is asked for a name where none is given, until one is free.
    pub(crate) fn new(
        roots: &Roots,
        id: &str,
        given: Option<&str>,
        random: impl Fn() -> String,
    ) -> Result<(Self, OwnedFd)> {
        let directory = roots.containers().join(id);
        let state_directory = roots.volatile.join(id);
        // Nobody mends while a directory is there that has no lock yet.
        let making = lock_all(roots, FlockOperation::LockShared)?;
        make_directory(&directory, 0o711)?;
        let lock = make_lock(&directory)?;
        try_lock(&lock, &directory)?;
        drop(making);
        make_directory(&state_directory, 0o711)?;
        make_directory(&state_directory.join("root"), 0o755)?;
        let mut taken = Self {
            id: id.to_owned(),
            name: String::new(),
            name_file: PathBuf::new(),
            directory,
            state_directory,
            kept: false,
        };
        loop {
            let name = given.map_or_else(&random, str::to_owned);
            match taken.take_name(roots, &name) {
                Err(Error::NameTaken { .. }) if given.is_none() => {}
                other => return other.map(|()| (taken, lock)),
            }
        }
    }

    fn take_name(&mut self, roots: &Roots, name: &str) -> Result<()> {
        let file = roots.names().join(name);
        for _ in 0..2 {
            match fs_err::os::unix::fs::symlink(&self.id, &file) {
                Ok(()) => {
                    (self.name, self.name_file) = (name.to_owned(), file);
                    return Ok(());
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    let Ok(holder) = fs_err::read_link(&file) else { continue };
                    let id = holder.to_string_lossy().into_owned();
                    if !mend_one(roots, &id)? {
                        return Err(Error::NameTaken { name: name.to_owned(), id: short(&id).to_owned() });
                    }
                    // The one who held it is gone, its name with it or left alone by an earlier kill.
                    if !roots.containers().join(&id).exists() {
                        remove_if_there(fs_err::remove_file(&file))?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::NameTaken { name: name.to_owned(), id: "unknown".to_owned() })
    }

    /// Writes what was asked and what the monitor is told.
    pub(crate) fn write(&self, record: &Record, request: &Request) -> Result<()> {
        write_json(&self.directory.join("request.json"), request)?;
        write_json(&self.directory.join("container.json"), record)
    }

    /// From here on the monitor looks after it.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // The error that led here is reported; what cannot be removed now is removed by the next command.
        let _ = fs_err::remove_dir_all(&self.state_directory);
        if !self.name.is_empty() {
            let _ = fs_err::remove_file(&self.name_file);
        }
        let _ = fs_err::remove_dir_all(&self.directory);
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value)
        .map_err(|error| Error::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
    Ok(fs_err::write(path, text)?)
}

fn remove_if_there(outcome: std::io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The first 12 digits, as lists show them.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn make_lock(directory: &Path) -> Result<OwnedFd> {
    let path = directory.join("lock");
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::from(0o600))
        .map_err(|errno| Error::File { path, source: errno.into() })
}

/// Opens a lock to look at it; none when the container is being removed, or never got one. It is not written through, by which
/// [`wait_for_start`] knows those who look from the one who holds it.
fn open_lock(directory: &Path) -> Result<Option<OwnedFd>> {
    let path = directory.join("lock");
    match rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(lock) => Ok(Some(lock)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::File { path, source: errno.into() }),
    }
}

/// Locks the directory of all containers: shared by those who make one, exclusive for the moment in which one is judged abandoned.
fn lock_all(roots: &Roots, operation: FlockOperation) -> Result<Option<OwnedFd>> {
    let path = roots.containers();
    let failed = |errno: Errno| Error::File { path: path.clone(), source: errno.into() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&path, flags, Mode::empty()).map_err(failed)?;
    match flock(&directory, operation) {
        Ok(()) => Ok(Some(directory)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(failed(errno)),
    }
}

/// Takes the lock; false when somebody else holds it.
fn try_lock(lock: &OwnedFd, directory: &Path) -> Result<bool> {
    match flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(Error::File { path: directory.join("lock"), source: errno.into() }),
    }
}

fn read_record(directory: &Path) -> Result<Option<Record>> {
    let path = directory.join("container.json");
    let text = match fs_err::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let unreadable = |reason: String| Error::Unreadable { path: path.clone(), reason };
    // A command that was killed while writing leaves half a file, which is nobody's container.
    let Ok(record) = serde_json::from_slice::<Record>(&text) else { return Ok(None) };
    match record.version {
        VERSION => Ok(Some(record)),
        other => Err(unreadable(format!("version {other}, and this coracle knows version {VERSION}"))),
    }
}

pub(crate) fn read_request(directory: &Path) -> Option<Request> {
    let text = fs_err::read(directory.join("request.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The ids of all containers.
fn ids(roots: &Roots) -> Result<Vec<String>> {
    let entries = match fs_err::read_dir(roots.containers()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// A container's status, without taking its lock for longer than a look.
fn status(roots: &Roots, id: &str) -> Result<Status> {
    let directory = roots.containers().join(id);
    if let Some(exit) = Exit::read(&directory)? {
        return Ok(Status::Ended(exit));
    }
    if let Some(state) = State::read(&roots.volatile.join(id))?.filter(State::is_running) {
        return Ok(Status::Running(state));
    }
    let free = match open_lock(&directory)? {
        Some(lock) => try_lock(&lock, &directory)?,
        None => true,
    };
    Ok(if free { Status::Lost } else { Status::Starting })
}

/// All containers, the newest first; what killed commands left is mended on the way.
pub fn list(roots: &Roots) -> Result<Vec<Container>> {
    mend(roots)?;
    let mut containers = Vec::new();
    for id in ids(roots)? {
        if let Some(record) = read_record(&roots.containers().join(&id))? {
            containers.push(Container { status: status(roots, &id)?, record });
        }
    }
    containers.sort_by_key(|container| std::cmp::Reverse(container.record.created));
    Ok(containers)
}

/// Removes what killed commands and monitors left: containers that were never started, and those of `--rm` that have ended.
///
/// Costs one look at each container's lock.
pub fn mend(roots: &Roots) -> Result<()> {
    for id in ids(roots)? {
        mend_one(roots, &id)?;
    }
    Ok(())
}

/// Mends one container; true when it is gone afterwards.
fn mend_one(roots: &Roots, id: &str) -> Result<bool> {
    let directory = roots.containers().join(id);
    if !directory.exists() {
        return Ok(true);
    }
    let Some(judging) = lock_all(roots, FlockOperation::NonBlockingLockExclusive)? else { return Ok(false) };
    let lock = open_lock(&directory)?;
    if let Some(lock) = &lock
        && !try_lock(lock, &directory)?
    {
        return Ok(false);
    }
    drop(judging);
    let state = State::read(&roots.volatile.join(id))?;
    if state.as_ref().is_some_and(State::is_running) {
        // Its monitor was killed and it goes on; that is no reason to end it.
        return Ok(false);
    }
    let keep =
        read_record(&directory)?.is_some_and(|record| !record.remove) && directory.join("exit.json").exists();
    if keep {
        return Ok(false);
    }
    let was_kept = read_record(&directory)?.is_some_and(|record| !record.remove) && state.is_some();
    if was_kept {
        // It ran, its monitor was killed, it ended: how, nobody saw.
        if let Some(request) = read_request(&directory) {
            runtime::remains::remove_group_of(&request)?;
        }
        return Ok(false);
    }
    discard(roots, id, &directory)?;
    Ok(true)
}

/// Removes a container's group, files and name.
fn discard(roots: &Roots, id: &str, directory: &Path) -> Result<()> {
    if let Some(request) = read_request(directory) {
        runtime::remains::remove_group_of(&request)?;
        return Ok(runtime::remains::remove_files(&request, None)?);
    }
    remove_if_there(fs_err::remove_dir_all(roots.volatile.join(id)))?;
    for entry in fs_err::read_dir(roots.names())? {
        let path = entry?.path();
        if fs_err::read_link(&path).is_ok_and(|target| target == Path::new(id)) {
            remove_if_there(fs_err::remove_file(&path))?;
        }
    }
    remove_if_there(fs_err::remove_dir_all(directory))
}

/// Finds a container by its name, its id or the beginning of its id.
pub fn find(roots: &Roots, typed: &str) -> Result<Container> {
    let by_name = fs_err::read_link(roots.names().join(typed)).ok();
    let id = match by_name {
        Some(id) => id.to_string_lossy().into_owned(),
        None => by_prefix(roots, typed)?,
    };
    let missing = || Error::NoSuchContainer { name: typed.to_owned() };
    let record = read_record(&roots.containers().join(&id))?.ok_or_else(missing)?;
    Ok(Container { status: status(roots, &id)?, record })
}

fn by_prefix(roots: &Roots, typed: &str) -> Result<String> {
    let missing = || Error::NoSuchContainer { name: typed.to_owned() };
    if typed.is_empty() {
        return Err(missing());
    }
    let mut matching = ids(roots)?.into_iter().filter(|id| id.starts_with(typed));
    let first = matching.next().ok_or_else(missing)?;
    match matching.next() {
        Some(_) => Err(Error::Ambiguous { name: typed.to_owned() }),
        None => Ok(first),
    }
}

/// Sends a signal to a container's first process.
pub fn signal(roots: &Roots, typed: &str, number: i32) -> Result<()> {
    use std::os::fd::AsFd as _;
    let container = find(roots, typed)?;
    let Status::Running(state) = &container.status else {
        return Err(Error::NotRunning { name: container.record.name });
    };
    let process = kernel::process::pidfd_open(state.pid)?;
    // Between the look and the descriptor the number could have got a new owner.
    if !state.is_running() {
        return Err(Error::NotRunning { name: container.record.name });
    }
    Ok(kernel::process::send_signal(process.as_fd(), number)?)
}

/// Asks a container to end by a signal, and ends it when it has not after `timeout` seconds (for ever: [`u32::MAX`]); what is not given is
/// as the container was made. One that has ended is no error, as in docker.
pub fn stop(roots: &Roots, typed: &str, signal: Option<i32>, timeout: Option<u32>) -> Result<()> {
    use std::os::fd::AsFd as _;
    let container = find(roots, typed)?;
    let Record { id, stop_signal, stop_timeout, .. } = &container.record;
    let directory = roots.containers().join(id);
    wait_for_start(roots, id, &directory)?;
    let Status::Running(state) = status(roots, id)? else { return Ok(()) };
    let process = kernel::process::pidfd_open(state.pid)?;
    if !state.is_running() {
        return Ok(());
    }
    match kernel::process::send_signal(process.as_fd(), signal.unwrap_or(*stop_signal)) {
        Err(error) if error.errno() == Errno::SRCH => {}
        other => other?,
    }
    if !ends_within(&process, timeout.unwrap_or(*stop_timeout))? {
        return end(roots, &container, &directory);
    }
    wait_for_release(&directory)
}

/// Waits for a process to end, for `seconds` at most ([`u32::MAX`]: for ever).
fn ends_within(process: &OwnedFd, seconds: u32) -> Result<bool> {
    use rustix::event::{PollFd, PollFlags, poll};
    let deadline = Instant::now() + Duration::from_secs(seconds.into());
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        let limit = left.filter(|_| seconds != u32::MAX);
        match poll(&mut [PollFd::new(process, PollFlags::IN)], limit.as_ref()) {
            Ok(ready) => return Ok(ready == 1),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(kernel::Error::new("poll", "a container's process", errno).into()),
        }
    }
}

/// Removes a container; one that runs only by `force`, which ends it first.
pub fn remove(roots: &Roots, typed: &str, force: bool) -> Result<String> {
    let container = find(roots, typed)?;
    let Record { id, name, .. } = &container.record;
    let directory = roots.containers().join(id);
    if let Status::Running(_) | Status::Starting = container.status {
        if !force {
            return Err(Error::IsRunning { name: name.clone() });
        }
        end(roots, &container, &directory)?;
    }
    if directory.exists() {
        discard(roots, id, &directory)?;
    }
    Ok(id.clone())
}

/// Kills the first process and waits until the monitor has let go of the container.
fn end(roots: &Roots, container: &Container, directory: &Path) -> Result<()> {
    let id = &container.record.id;
    wait_for_start(roots, id, directory)?;
    match signal(roots, id, libc::SIGKILL) {
        Err(Error::NotRunning { .. } | Error::NoSuchContainer { .. }) | Ok(()) => {}
        Err(error) => return Err(error),
    }
    wait_for_release(directory)
}

/// Waits until nobody looks after a container any more: all of it is undone, or its monitor was killed.
fn wait_for_release(directory: &Path) -> Result<()> {
    match open_lock(directory)? {
        Some(lock) => flock(lock, FlockOperation::LockExclusive)
            .map_err(|errno| Error::File { path: directory.join("lock"), source: errno.into() }),
        None => Ok(()),
    }
}

/// Waits until a container that is being made runs, or is given up.
fn wait_for_start(roots: &Roots, id: &str, directory: &Path) -> Result<()> {
    use rustix::fs::inotify::{self, WatchFlags};
    let failed = |errno: Errno| Error::File { path: directory.to_owned(), source: errno.into() };
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC).map_err(failed)?;
    // state.json comes under its name, or whoever holds the lock ends: those who only look cannot write through it.
    let watched = [
        (roots.volatile.join(id), WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF),
        (directory.join("lock"), WatchFlags::CLOSE_WRITE | WatchFlags::DELETE_SELF),
    ];
    for (path, events) in watched {
        match inotify::add_watch(&changes, &path, events) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        }
    }
    let mut events = [0; 1024];
    while directory.exists() && status(roots, id)? == Status::Starting {
        match rustix::io::read(&changes, &mut events) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}

/// The ids of images that containers are made from, or that are mounted, which must not be removed.
pub fn images_in_use(roots: &Roots) -> Result<Vec<String>> {
    let mounted = crate::mounted::list(roots)?.into_iter().map(|mounted| format!("sha256:{}", mounted.id));
    Ok(list(roots)?.into_iter().filter_map(|container| container.record.image_id).chain(mounted).collect())
}
