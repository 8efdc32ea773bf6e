//! What a group uses and has used.

use std::path::Path;

use crate::hierarchy::{Version, read};
use crate::{Group, Result};

/// What a group uses and has used. `None` where the kernel does not count it for this group: it is in no tree of that controller
/// because nothing of it is limited, or the kernel is too old.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Statistics {
    /// Bytes of memory in use, with the page cache.
    pub memory: Option<u64>,
    /// The most bytes of memory ever in use (version 2: since Linux 5.19).
    pub memory_peak: Option<u64>,
    /// The limit of memory in bytes, if there is one.
    pub memory_limit: Option<u64>,
    /// Bytes of swap in use.
    pub swap: Option<u64>,
    /// Bytes of the page cache that could be given back first.
    pub inactive_file: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Microseconds of processor time used.
    pub cpu_usec: Option<u64>,
    /// Microseconds of it in programs.
    pub cpu_user_usec: Option<u64>,
    /// Microseconds of it in the kernel.
    pub cpu_system_usec: Option<u64>,
    /// Periods in which the quota was used up.
    pub throttled_periods: Option<u64>,
    /// Microseconds that processes waited for the next period.
    pub throttled_usec: Option<u64>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// The most processes and threads there may be, if there is a limit.
    pub pids_limit: Option<u64>,
    /// Bytes read from block devices.
    pub read_bytes: Option<u64>,
    /// Bytes written to block devices.
    pub written_bytes: Option<u64>,
    /// Share of time in which processes waited for a processor.
    pub cpu_pressure: Option<Pressure>,
    /// Share of time in which processes waited for memory.
    pub memory_pressure: Option<Pressure>,
    /// Share of time in which processes waited for block devices.
    pub io_pressure: Option<Pressure>,
}

/// How long some of a group's processes waited for a resource: pressure stall information, see the kernel's `accounting/psi`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Pressure {
    /// Hundredths of a percent of the last ten seconds.
    pub last_10s: u32,
    /// Hundredths of a percent of the last minute.
    pub last_60s: u32,
    /// Microseconds altogether.
    pub total_usec: u64,
}

impl Group {
    /// What the group uses now and has used since it was made.
    pub fn statistics(&self) -> Result<Statistics> {
        let mut statistics = Statistics::default();
        self.read_memory(&mut statistics)?;
        self.read_cpu(&mut statistics)?;
        self.read_io(&mut statistics)?;
        if let Some((directory, _)) = self.directory_of("pids") {
            statistics.pids = number(directory, "pids.current")?;
            statistics.pids_limit = number(directory, "pids.max")?;
        }
        if let Some(unified) = &self.unified {
            statistics.cpu_pressure = pressure(&unified.path, "cpu.pressure")?;
            statistics.memory_pressure = pressure(&unified.path, "memory.pressure")?;
            statistics.io_pressure = pressure(&unified.path, "io.pressure")?;
        }
        Ok(statistics)
    }

    /// Whether the kernel has killed a process of the group because the group, or the machine, had no memory left.
    ///
    /// False for a group without the memory controller: there the kernel does not count.
    pub fn oom_killed(&self) -> Result<bool> {
        Ok(self.oom_kills()?.is_some_and(|count| count > 0))
    }

    fn oom_kills(&self) -> Result<Option<u64>> {
        match self.directory_of("memory") {
            Some((directory, Version::V1)) => keyed(directory, "memory.oom_control", "oom_kill"),
            Some((directory, Version::V2)) => keyed(directory, "memory.events", "oom_kill"),
            None => Ok(None),
        }
    }

    fn read_memory(&self, into: &mut Statistics) -> Result<()> {
        into.oom_kills = self.oom_kills()?;
        match self.directory_of("memory") {
            Some((directory, Version::V1)) => {
                into.memory = number(directory, "memory.usage_in_bytes")?;
                into.memory_peak = number(directory, "memory.max_usage_in_bytes")?;
                // No limit is the largest number of pages that fits.
                let limit = number(directory, "memory.limit_in_bytes")?;
                into.memory_limit = limit.filter(|limit| *limit < (i64::MAX as u64) >> 16 << 16);
                into.swap = keyed(directory, "memory.stat", "total_swap")?;
                into.inactive_file = keyed(directory, "memory.stat", "total_inactive_file")?;
            }
            Some((directory, Version::V2)) => {
                into.memory = number(directory, "memory.current")?;
                into.memory_peak = number(directory, "memory.peak")?;
                into.memory_limit = number(directory, "memory.max")?;
                into.swap = number(directory, "memory.swap.current")?;
                into.inactive_file = keyed(directory, "memory.stat", "inactive_file")?;
            }
            None => {}
        }
        Ok(())
    }

    fn read_cpu(&self, into: &mut Statistics) -> Result<()> {
        // Version 2 counts time for every group, with or without the controller.
        if let Some(unified) = &self.unified {
            into.cpu_usec = keyed(&unified.path, "cpu.stat", "usage_usec")?;
            into.cpu_user_usec = keyed(&unified.path, "cpu.stat", "user_usec")?;
            into.cpu_system_usec = keyed(&unified.path, "cpu.stat", "system_usec")?;
        } else if let Some((directory, Version::V1)) = self.directory_of("cpuacct") {
            let usec =
                |file| Ok::<_, crate::Error>(number(directory, file)?.map(|nanoseconds| nanoseconds / 1000));
            into.cpu_usec = usec("cpuacct.usage")?;
            into.cpu_user_usec = usec("cpuacct.usage_user")?;
            into.cpu_system_usec = usec("cpuacct.usage_sys")?;
        }
        match self.directory_of("cpu") {
            Some((directory, Version::V1)) => {
                into.throttled_periods = keyed(directory, "cpu.stat", "nr_throttled")?;
                into.throttled_usec =
                    keyed(directory, "cpu.stat", "throttled_time")?.map(|nanoseconds| nanoseconds / 1000);
            }
            Some((directory, Version::V2)) => {
                into.throttled_periods = keyed(directory, "cpu.stat", "nr_throttled")?;
                into.throttled_usec = keyed(directory, "cpu.stat", "throttled_usec")?;
            }
            None => {}
        }
        Ok(())
    }

    fn read_io(&self, into: &mut Statistics) -> Result<()> {
        match (self.directory_of("blkio"), self.directory_of("io")) {
            (Some((directory, Version::V1)), _) => {
                let Some(text) = optional(directory, "blkio.throttle.io_service_bytes_recursive")? else {
                    return Ok(());
                };
                let sum = |kind: &str| {
                    let value = |line: &str| line.split(' ').nth(2)?.parse::<u64>().ok();
                    text.lines().filter(|line| line.split(' ').nth(1) == Some(kind)).filter_map(value).sum()
                };
                (into.read_bytes, into.written_bytes) = (Some(sum("Read")), Some(sum("Write")));
            }
            (_, Some((directory, Version::V2))) => {
                let Some(text) = optional(directory, "io.stat")? else { return Ok(()) };
                let sum = |key: &str| {
                    text.split_whitespace()
                        .filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
                        .sum()
                };
                (into.read_bytes, into.written_bytes) = (Some(sum("rbytes=")), Some(sum("wbytes=")));
            }
            _ => {}
        }
        Ok(())
    }
}

/// A file's text; none if the kernel does not have the file, or has it and will not answer (PSI that is off).
pub(crate) fn optional(directory: &Path, file: &str) -> Result<Option<String>> {
    use kernel::Errno;
    match read(&directory.join(file)) {
        Err(crate::Error::Read { errno: Errno::NOENT | Errno::OPNOTSUPP | Errno::NODEV, .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// A file with one number; none for `max`.
pub(crate) fn number(directory: &Path, file: &str) -> Result<Option<u64>> {
    Ok(optional(directory, file)?.and_then(|text| text.trim().parse().ok()))
}

/// A number of a file with lines of names and numbers.
pub(crate) fn keyed(directory: &Path, file: &str, key: &str) -> Result<Option<u64>> {
    let Some(text) = optional(directory, file)? else { return Ok(None) };
    Ok(text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok()))
}

fn pressure(directory: &Path, file: &str) -> Result<Option<Pressure>> {
    Ok(optional(directory, file)?.and_then(|text| parse_pressure(&text)))
}

/// The line `some avg10=0.12 avg60=… avg300=… total=…`.
fn parse_pressure(text: &str) -> Option<Pressure> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let field = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let hundredths = |key: &str| {
        let (whole, part) = field(key)?.split_once('.')?;
        Some(whole.parse::<u32>().ok()? * 100 + part.parse::<u32>().ok()?)
    };
    Some(Pressure {
        last_10s: hundredths("avg10")?,
        last_60s: hundredths("avg60")?,
        total_usec: field("total")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_in_hundredths() {
        let text = "some avg10=1.25 avg60=10.07 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(parse_pressure(text), Some(Pressure { last_10s: 125, last_60s: 1007, total_usec: 123 }));
        assert_eq!(parse_pressure(""), None);
    }
}
