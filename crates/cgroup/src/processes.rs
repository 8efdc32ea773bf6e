//! The processes of a group: listed, killed, frozen, waited for, moved.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use kernel::file::{make_directory, write_control};
use kernel::record::{Chapter, because};
use kernel::{Errno, process};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use crate::group::V1Directory;
use crate::hierarchy::read;
use crate::{Error, Group, Result};

/// How long killed processes may take to end. One that waits for a dead disk or network file system cannot be killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;
/// Where the processes of a delegated group go, so that the group can hand controllers down.
pub(crate) const ASIDE: &str = "callers";

impl Group {
    /// The processes of the group and of the groups below it, as this process's pid namespace numbers them.
    pub fn processes(&self) -> Result<Vec<u32>> {
        of(self.tracker())
    }

    /// Kills every process of the group and of those below it, and waits until they are gone.
    ///
    /// # Errors
    /// [`Error::Lingering`] if one does not end within ten seconds, which is a matter of what it waits for in the kernel.
    pub fn kill(&self) -> Result<()> {
        if self.is_empty()? {
            return Ok(());
        }
        self.kill_now()?;
        if self.wait_empty(Some(KILL_TIMEOUT))? {
            return Ok(());
        }
        Err(Error::Lingering { path: self.tracker().to_owned(), processes: self.processes()? })
    }

    fn kill_now(&self) -> Result<()> {
        if let Some(unified) = &self.unified {
            because(
                Chapter::CleanUp,
                "one write kills all processes of the group, and none can escape it by forking",
            );
            match write_control(&unified.path.join("cgroup.kill"), "1") {
                // Linux before 5.14, and a group of threads.
                Err(error) if matches!(error.errno(), Errno::NOENT | Errno::OPNOTSUPP) => {}
                other => return other.map_err(Error::Kill),
            }
        }
        self.kill_each()
    }

    /// Sends a signal to every process of the group and of those below it. SIGKILL is the kernel's own kill of a whole group where it has
    /// that; for others the group is frozen meanwhile, so that none forks away. It does not wait for anything to end.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        if signal == SIGKILL {
            return self.kill_now();
        }
        because(
            Chapter::Process,
            "each process of the group gets the signal, and while they are frozen none can fork one that does not",
        );
        self.while_frozen(|| self.signal_each(signal))
    }

    fn signal_each(&self, signal: i32) -> Result<()> {
        let mut reached = BTreeSet::new();
        loop {
            let new: Vec<u32> = self.processes()?.into_iter().filter(|pid| !reached.contains(pid)).collect();
            if new.is_empty() {
                return Ok(());
            }
            for pid in new {
                match process::kill(pid as i32, signal) {
                    Err(error) if error.errno() != Errno::SRCH => return Err(Error::Kill(error)),
                    _ => {}
                }
                reached.insert(pid);
            }
        }
    }

    /// Does something while the processes of the group stand still; a group that was frozen before is left so.
    pub(crate) fn while_frozen(&self, act: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.is_frozen()? {
            return act();
        }
        self.set_frozen(true)?;
        let done = act();
        done.and(self.set_frozen(false))
    }

    /// Kills one by one, while the group is frozen so that none forks. Works without the freezer too: a killed process cannot fork, so
    /// each round leaves fewer that can.
    fn kill_each(&self) -> Result<()> {
        self.set_frozen(true)?;
        because(
            Chapter::CleanUp,
            "this kernel has no way to kill a whole group, so each of its processes is killed by itself",
        );
        self.signal_each(SIGKILL)?;
        // Frozen processes of version 1 die only when they are let go on.
        self.set_frozen(false)
    }

    /// Stops all processes of the group, or lets them go on; returns when it is so.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        because(
            Chapter::Process,
            "frozen processes get no processor time and cannot see that they were stopped",
        );
        self.set_frozen(frozen)?;
        match (&self.unified, self.v1_freezer()) {
            (Some(unified), _) => {
                let wanted = if frozen { "frozen 1" } else { "frozen 0" };
                self.wait_events(&unified.path, wanted, None).map(drop)
            }
            (None, Some(directory)) => settle(directory, frozen),
            (None, None) => Err(Error::NotInV1 { option: "freeze", reason: "the freezer is not mounted" }),
        }
    }

    /// Has processes end that were killed though the group is frozen: on version 1 alone they would wait for that, and the group
    /// goes on. Elsewhere the kernel ends them where they stand.
    pub fn let_die(&self) -> Result<()> {
        if self.unified.is_some() || !self.is_frozen()? {
            return Ok(());
        }
        because(
            Chapter::Process,
            "frozen processes of control groups of version 1 die only when they are let go on",
        );
        self.set_frozen(false)
    }

    /// Whether the group was told to stop by [`Group::freeze`] or by another program. A group above that is frozen does not count.
    pub fn is_frozen(&self) -> Result<bool> {
        for directory in self.directories() {
            if is_told_to_freeze(directory)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let (path, value) = match (&self.unified, self.v1_freezer()) {
            (Some(unified), _) => (unified.path.join("cgroup.freeze"), if frozen { "1" } else { "0" }),
            (None, Some(directory)) => {
                (directory.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
            }
            (None, None) => return Ok(()),
        };
        write_control(&path, value).map_err(Error::Freeze)
    }

    /// The directory by whose files [`Group::freeze`] stops the group; none where there is no freezer.
    pub fn freezer(&self) -> Option<&Path> {
        self.unified.as_ref().map(|unified| unified.path.as_path()).or_else(|| self.v1_freezer())
    }

    fn v1_freezer(&self) -> Option<&Path> {
        let has = |directory: &&V1Directory| directory.controllers.iter().any(|name| name == "freezer");
        self.v1.iter().find(has).map(|directory| directory.path.as_path())
    }

    /// Whether the group and those below it have no process.
    pub fn is_empty(&self) -> Result<bool> {
        match &self.unified {
            Some(unified) => match read(&unified.path.join("cgroup.events")) {
                Ok(text) => Ok(text.lines().any(|line| line == "populated 0")),
                Err(Error::Read { errno: Errno::NOENT | Errno::NODEV, .. }) => Ok(true),
                Err(error) => Err(error),
            },
            None => Ok(self.processes()?.is_empty()),
        }
    }

    /// Waits until the group and those below it have no process, at most `timeout`. Tells whether it came to that.
    ///
    /// The kernel wakes us: by `cgroup.events` where there is version 2, else by the processes' own descriptors.
    pub fn wait_empty(&self, timeout: Option<Duration>) -> Result<bool> {
        match &self.unified {
            Some(unified) => self.wait_events(&unified.path, "populated 0", timeout),
            None => self.wait_each(timeout),
        }
    }

    fn wait_events(&self, directory: &Path, wanted: &str, timeout: Option<Duration>) -> Result<bool> {
        let path = directory.join("cgroup.events");
        let unreadable = |errno| Error::Read { path: path.clone(), errno };
        let file = match rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(true),
            other => other.map_err(unreadable)?,
        };
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let mut buffer = [0; 256];
            let length = match rustix::io::pread(&file, &mut buffer, 0) {
                // Removed by another process.
                Err(Errno::NODEV) => return Ok(true),
                other => other.map_err(unreadable)?,
            };
            if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == wanted) {
                return Ok(true);
            }
            if !wait_for(&file, PollFlags::PRI, deadline, &path)? {
                return Ok(false);
            }
        }
    }

    fn wait_each(&self, timeout: Option<Duration>) -> Result<bool> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        while let Some(pid) = self.processes()?.first().copied() {
            let process = match process::pidfd_open(pid) {
                Ok(process) => process,
                Err(error) if error.errno() == Errno::SRCH => continue,
                Err(error) => return Err(Error::Wait(error)),
            };
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.map_or(u32::MAX, |left| u32::try_from(left.as_millis()).unwrap_or(u32::MAX));
            if !process::has_ended_within(process.as_fd(), left).map_err(Error::Wait)? && deadline.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Waits for an event; false if the deadline comes first.
fn wait_for(file: impl AsFd, event: PollFlags, deadline: Option<Instant>, name: &Path) -> Result<bool> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match poll(&mut [PollFd::new(&file, event)], left.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(Error::Wait(kernel::Error::new("poll", name.display().to_string(), errno)));
            }
        }
    }
}

/// Waits until a freezer of version 1 has done what it was told. It tells nobody when, so it is asked; and since a process can
/// be at a place where it cannot be frozen, it is told again each time.
fn settle(directory: &Path, frozen: bool) -> Result<()> {
    let file = directory.join("freezer.state");
    let wanted = if frozen { "FROZEN" } else { "THAWED" };
    while read(&file)?.trim() != wanted {
        // Cut short by a signal it is asked a little earlier.
        let _ = rustix::thread::nanosleep(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 });
        write_control(&file, wanted).map_err(Error::Freeze)?;
    }
    Ok(())
}

/// Whether a group's directory was told to be frozen, in the tree of version 2 or the freezer's of version 1.
pub(crate) fn is_told_to_freeze(directory: &Path) -> Result<bool> {
    for (file, running) in [("cgroup.freeze", "0"), ("freezer.self_freezing", "0")] {
        match read(&directory.join(file)) {
            Ok(text) if text.trim() != running => return Ok(true),
            Ok(_) | Err(Error::Read { errno: Errno::NOENT | Errno::NODEV, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// The processes of a group's directory and of those below it.
pub(crate) fn of(directory: &Path) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    collect(directory, &mut found)?;
    Ok(found)
}

fn collect(directory: &Path, found: &mut Vec<u32>) -> Result<()> {
    match read(&directory.join("cgroup.procs")) {
        // Zero is a process that this pid namespace does not see.
        Ok(text) => {
            found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0))
        }
        // Removed meanwhile; a group of threads lists no processes, its parent does.
        Err(Error::Read { errno: Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP, .. }) => {}
        Err(error) => return Err(error),
    }
    for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// Moves all processes of a group into a directory of it that was made later, until none is left outside.
pub(crate) fn move_all(group: &Group, directory: &V1Directory) -> Result<()> {
    loop {
        let inside: BTreeSet<u32> = of(&directory.path)?.into_iter().collect();
        let outside: Vec<u32> = group.processes()?.into_iter().filter(|pid| !inside.contains(pid)).collect();
        if outside.is_empty() {
            return Ok(());
        }
        because(
            Chapter::Limits,
            "the container's processes come under the limit that it did not have until now",
        );
        move_to(&directory.path, &outside)?;
    }
}

/// Moves the processes of a delegated group into one below it.
pub(crate) fn move_aside(directory: &Path) -> Result<()> {
    because(
        Chapter::Limits,
        "a group that limits others may have no processes of its own: ours go into one beside the containers'",
    );
    let aside = directory.join(ASIDE);
    match make_directory(&aside) {
        Err(error) if error.errno() != Errno::EXIST => return Err(Error::Make(error)),
        _ => {}
    }
    let text = read(&directory.join("cgroup.procs"))?;
    let own: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect();
    move_to(&aside, &own)
}

fn move_to(directory: &Path, pids: &[u32]) -> Result<()> {
    for pid in pids {
        match write_control(&directory.join("cgroup.procs"), &pid.to_string()) {
            Err(error) if error.errno() != Errno::SRCH => {
                return Err(Error::Join { pid: *pid, source: error });
            }
            _ => {}
        }
    }
    Ok(())
}
