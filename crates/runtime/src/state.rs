//! What is known of a container that runs: `state.json` in its volatile directory, and how it ended: `exit.json` in the persistent one.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The version of these files; another one is refused.
pub const VERSION: u32 = 1;

/// A container that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`VERSION`].
    pub version: u32,
    /// The first process's number on the host.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of proc_pid_stat(5)): a number can be reused, both cannot.
    pub start_ticks: u64,
    /// When it started, in seconds since 1970.
    pub started: u64,
}

/// A container that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// [`VERSION`].
    pub version: u32,
    /// Its exit status, 128 + n for signal n.
    pub code: i32,
    /// Whether the kernel killed a process of it for want of memory.
    pub out_of_memory: bool,
    /// When it ended, in seconds since 1970.
    pub ended: u64,
}

/// Seconds since 1970.
pub fn now() -> u64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec as u64
}

/// When a process started, in clock ticks since boot; none when it is gone or only waits to be reaped.
pub fn start_ticks(pid: u32) -> Option<u64> {
    let text = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold spaces and parentheses.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

impl State {
    /// The state of a process that has just been made.
    pub fn of(pid: u32) -> Self {
        Self { version: VERSION, pid, start_ticks: start_ticks(pid).unwrap_or(0), started: now() }
    }

    /// Whether that very process still runs.
    pub fn is_running(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Writes `state.json` into the container's volatile directory.
    pub fn write(&self, directory: &Path) -> Result<()> {
        write(&directory.join("state.json"), self)
    }

    /// Reads it; none when there is none.
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        read(&directory.join("state.json"), |state: &Self| state.version)
    }
}

impl Exit {
    /// Writes `exit.json` into the container's persistent directory.
    pub fn write(&self, directory: &Path) -> Result<()> {
        write(&directory.join("exit.json"), self)
    }

    /// Reads it; none when there is none.
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        read(&directory.join("exit.json"), |exit: &Self| exit.version)
    }
}

/// Written under another name first, so that nobody reads half of it.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|error| unreadable(path, &error.to_string()))?;
    let temporary = path.with_extension("new");
    fs_err::write(&temporary, text)?;
    Ok(fs_err::rename(&temporary, path)?)
}

/// Reads what [`write()`] wrote; none where there is no such file. Another version than [`VERSION`] is refused.
pub(crate) fn read<T: for<'a> Deserialize<'a>>(
    path: &Path,
    version: impl Fn(&T) -> u32,
) -> Result<Option<T>> {
    let text = match fs_err::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let value: T = serde_json::from_slice(&text).map_err(|error| unreadable(path, &error.to_string()))?;
    match version(&value) {
        VERSION => Ok(Some(value)),
        other => Err(unreadable(path, &format!("version {other}, and this coracle knows version {VERSION}"))),
    }
}

fn unreadable(path: &Path, reason: &str) -> Error {
    Error::Request { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_a_running_process_from_one_of_the_same_number() {
        let me = State::of(std::process::id());
        assert!(me.is_running());
        assert!(!State { start_ticks: me.start_ticks + 1, ..me }.is_running());
    }
}
