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

/// The time now.
pub fn now_exactly() -> rustix::time::Timespec {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime)
}

/// A time as RFC 3339 has it, in UTC: `2026-11-24T10:00:00Z`, with nanoseconds where they are asked for.
pub fn timestamp(time: rustix::time::Timespec, with_nanoseconds: bool) -> String {
    let (days, second) = (time.tv_sec.div_euclid(86_400), time.tv_sec.rem_euclid(86_400));
    // The calendar repeats every 400 years, 146,097 days; counted from the first of March of the year 0, leap days end a year.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let fraction = if with_nanoseconds { format!(".{:09}", time.tv_nsec) } else { String::new() };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
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
    let value: T = from_json(&text).map_err(|error| unreadable(path, &error))?;
    match version(&value) {
        VERSION => Ok(Some(value)),
        other => Err(unreadable(path, &format!("version {other}, and this coracle knows version {VERSION}"))),
    }
}

/// Reads a value, with the place in the text of an error. All JSON that holds a configuration is read this way: each other way would be the
/// code for all of its types once more.
pub fn from_json<T: for<'a> Deserialize<'a>>(text: &[u8]) -> std::result::Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| error.to_string())
}

fn unreadable(path: &Path, reason: &str) -> Error {
    Error::Request { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_has_them() {
        let at = |tv_sec| timestamp(rustix::time::Timespec { tv_sec, tv_nsec: 5 }, false);
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_514_545), "2026-11-24T10:02:25Z");
        let exact = timestamp(rustix::time::Timespec { tv_sec: 4_107_542_400, tv_nsec: 5 }, true);
        assert_eq!(exact, "2100-03-01T00:00:00.000000005Z");
    }

    #[test]
    fn knows_a_running_process_from_one_of_the_same_number() {
        let me = State::of(std::process::id());
        assert!(me.is_running());
        assert!(!State { start_ticks: me.start_ticks + 1, ..me }.is_running());
    }
}
