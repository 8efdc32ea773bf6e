//! All that the kernel counts for a group, as callers of a runtime ask for it: `runc events --stats` has these numbers.
//!
//! Both versions of control groups are told in the same terms: time in nanoseconds, swap together with memory, transfers by device.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::hierarchy::Version;
use crate::statistics::{keyed, number, optional};
use crate::{Group, Result};

/// All that the kernel counts for a group. `None` or empty where it does not: the controller is not there, or the kernel is too old.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Detailed {
    /// Processor time.
    pub cpu: CpuUse,
    /// Where it runs; version 1 only.
    pub cpuset: Option<CpusetUse>,
    /// Memory.
    pub memory: Option<MemoryUse>,
    /// Processes and threads.
    pub pids: Option<PidsUse>,
    /// Block devices.
    pub block_io: BlockIoUse,
    /// Huge pages by size, as the kernel names it: `2MB`.
    pub hugepages: BTreeMap<String, Counter>,
}

/// Processor time in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuUse {
    /// All of it.
    pub total: Option<u64>,
    /// In programs.
    pub user: Option<u64>,
    /// In the kernel.
    pub kernel: Option<u64>,
    /// On each processor; version 1 only.
    pub per_cpu: Vec<u64>,
    /// In programs, on each processor; version 1 only.
    pub per_cpu_user: Vec<u64>,
    /// In the kernel, on each processor; version 1 only.
    pub per_cpu_kernel: Vec<u64>,
    /// Periods in which the group ran and had a quota.
    pub periods: Option<u64>,
    /// Those in which the quota was used up.
    pub throttled_periods: Option<u64>,
    /// How long processes waited for the next period.
    pub throttled: Option<u64>,
    /// How long processes waited for a processor.
    pub pressure: Option<Stalls>,
}

/// Where a group runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpusetUse {
    /// Numbers of processors.
    pub cpus: Vec<u16>,
    /// Numbers of memory nodes.
    pub mems: Vec<u16>,
    /// The controller's other files: `cpu_exclusive`, `memory_migrate`, …
    pub flags: BTreeMap<String, i64>,
}

/// Something that is counted and limited, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counter {
    /// In use.
    pub usage: u64,
    /// The most that ever was, where that is kept.
    pub peak: Option<u64>,
    /// The limit as the kernel has it; the largest number where version 2 has none.
    pub limit: u64,
    /// How often the limit was met.
    pub failures: u64,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemoryUse {
    /// Memory, with the page cache.
    pub usage: Counter,
    /// Memory and swap together.
    pub swap: Option<Counter>,
    /// The kernel's own; version 1 only.
    pub kernel: Option<Counter>,
    /// Buffers of TCP connections; version 1 only.
    pub kernel_tcp: Option<Counter>,
    /// Bytes of the page cache.
    pub cache: u64,
    /// `memory.stat` as it is.
    pub raw: BTreeMap<String, u64>,
    /// `memory.events` as it is (`oom_kill`, …); on version 1 only `oom_kill`.
    pub events: BTreeMap<String, u64>,
    /// Whether memory of groups below counts.
    pub use_hierarchy: bool,
    /// How long processes waited for memory.
    pub pressure: Option<Stalls>,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PidsUse {
    /// How many there are.
    pub current: u64,
    /// How many there may be, if there is a limit.
    pub limit: Option<u64>,
}

/// Block devices; groups below are counted in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlockIoUse {
    /// Bytes.
    pub service_bytes: Vec<Transfer>,
    /// Requests.
    pub serviced: Vec<Transfer>,
    /// Requests that wait; this and what follows only by schedulers that count it.
    pub queued: Vec<Transfer>,
    /// Nanoseconds from sending a request to its end.
    pub service_time: Vec<Transfer>,
    /// Nanoseconds that requests waited.
    pub wait_time: Vec<Transfer>,
    /// Requests that became part of others.
    pub merged: Vec<Transfer>,
    /// Milliseconds of the device's time.
    pub time: Vec<Transfer>,
    /// Sectors.
    pub sectors: Vec<Transfer>,
    /// How long processes waited for block devices.
    pub pressure: Option<Stalls>,
}

/// A number about one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// `Read`, `Write` and others; empty where the number is about all.
    pub operation: String,
    /// The number.
    pub value: u64,
}

/// Pressure stall information: see the kernel's `accounting/psi`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stalls {
    /// Some processes waited.
    pub some: Stall,
    /// All that could have run waited.
    pub full: Stall,
}

/// How long it was waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stall {
    /// Hundredths of a percent of the last ten seconds.
    pub last_10s: u32,
    /// Hundredths of a percent of the last minute.
    pub last_60s: u32,
    /// Hundredths of a percent of the last five minutes.
    pub last_300s: u32,
    /// Microseconds altogether.
    pub total_usec: u64,
}

impl Group {
    /// All that the kernel counts for the group.
    pub fn detailed(&self) -> Result<Detailed> {
        let mut pids = None;
        if let Some((directory, _)) = self.directory_of("pids")
            && let Some(current) = number(directory, "pids.current")?
        {
            pids = Some(PidsUse { current, limit: number(directory, "pids.max")? });
        }
        Ok(Detailed {
            cpu: self.cpu_use()?,
            cpuset: self.cpuset_use()?,
            memory: self.memory_use()?,
            pids,
            block_io: self.block_io_use()?,
            hugepages: self.hugepages_use()?,
        })
    }

    fn cpu_use(&self) -> Result<CpuUse> {
        let mut cpu = CpuUse::default();
        if let Some((directory, Version::V1)) = self.directory_of("cpuacct") {
            cpu.total = number(directory, "cpuacct.usage")?;
            cpu.user = number(directory, "cpuacct.usage_user")?;
            cpu.kernel = number(directory, "cpuacct.usage_sys")?;
            cpu.per_cpu = numbers(directory, "cpuacct.usage_percpu")?;
            cpu.per_cpu_user = numbers(directory, "cpuacct.usage_percpu_user")?;
            cpu.per_cpu_kernel = numbers(directory, "cpuacct.usage_percpu_sys")?;
        } else if let Some(unified) = &self.unified {
            let stat = map(&unified.path, "cpu.stat")?;
            let nanoseconds = |key: &str| stat.get(key).map(|usec| usec.saturating_mul(1000));
            cpu.total = nanoseconds("usage_usec");
            cpu.user = nanoseconds("user_usec");
            cpu.kernel = nanoseconds("system_usec");
        }
        if let Some((directory, version)) = self.directory_of("cpu") {
            let stat = map(directory, "cpu.stat")?;
            cpu.periods = stat.get("nr_periods").copied();
            cpu.throttled_periods = stat.get("nr_throttled").copied();
            cpu.throttled = match version {
                Version::V1 => stat.get("throttled_time").copied(),
                Version::V2 => stat.get("throttled_usec").map(|usec| usec.saturating_mul(1000)),
            };
        }
        cpu.pressure = self.stalls("cpu.pressure")?;
        Ok(cpu)
    }

    fn cpuset_use(&self) -> Result<Option<CpusetUse>> {
        let Some((directory, Version::V1)) = self.directory_of("cpuset") else { return Ok(None) };
        let list = |file| Ok::<_, crate::Error>(parse_list(&optional(directory, file)?.unwrap_or_default()));
        let mut flags = BTreeMap::new();
        for name in [
            "cpu_exclusive",
            "mem_hardwall",
            "mem_exclusive",
            "memory_migrate",
            "memory_spread_page",
            "memory_spread_slab",
            "memory_pressure",
            "sched_load_balance",
            "sched_relax_domain_level",
        ] {
            let text = optional(directory, &format!("cpuset.{name}"))?;
            if let Some(value) = text.and_then(|text| text.trim().parse().ok()) {
                flags.insert(name.to_owned(), value);
            }
        }
        Ok(Some(CpusetUse { cpus: list("cpuset.cpus")?, mems: list("cpuset.mems")?, flags }))
    }

    fn memory_use(&self) -> Result<Option<MemoryUse>> {
        let mut memory = match self.directory_of("memory") {
            Some((directory, Version::V1)) => memory_v1(directory)?,
            Some((directory, Version::V2)) => memory_v2(directory)?,
            None => None,
        };
        if let Some(memory) = &mut memory {
            memory.pressure = self.stalls("memory.pressure")?;
        }
        Ok(memory)
    }

    fn block_io_use(&self) -> Result<BlockIoUse> {
        let mut io = match (self.directory_of("blkio"), self.directory_of("io")) {
            (Some((directory, Version::V1)), _) => block_io_v1(directory)?,
            (_, Some((directory, Version::V2))) => {
                block_io_v2(&optional(directory, "io.stat")?.unwrap_or_default())
            }
            _ => BlockIoUse::default(),
        };
        io.pressure = self.stalls("io.pressure")?;
        Ok(io)
    }

    fn hugepages_use(&self) -> Result<BTreeMap<String, Counter>> {
        let mut found = BTreeMap::new();
        let Some((directory, version)) = self.directory_of("hugetlb") else { return Ok(found) };
        let usage = match version {
            Version::V1 => "usage_in_bytes",
            Version::V2 => "current",
        };
        for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let size =
                name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(usage)?.strip_suffix('.'));
            let Some(size) = size.filter(|size| !size.contains('.')) else { continue };
            let prefix = format!("hugetlb.{size}");
            let counter = match version {
                Version::V1 => counter_v1(directory, &prefix)?,
                Version::V2 => counter_v2(directory, &prefix)?,
            };
            found.extend(counter.map(|counter| (size.to_owned(), counter)));
        }
        Ok(found)
    }

    fn stalls(&self, file: &str) -> Result<Option<Stalls>> {
        let Some(unified) = &self.unified else { return Ok(None) };
        Ok(optional(&unified.path, file)?.and_then(|text| parse_stalls(&text)))
    }
}

fn memory_v1(directory: &Path) -> Result<Option<MemoryUse>> {
    let Some(usage) = counter_v1(directory, "memory")? else { return Ok(None) };
    let raw = map(directory, "memory.stat")?;
    let kills = keyed(directory, "memory.oom_control", "oom_kill")?;
    Ok(Some(MemoryUse {
        usage,
        swap: counter_v1(directory, "memory.memsw")?,
        kernel: counter_v1(directory, "memory.kmem")?,
        kernel_tcp: counter_v1(directory, "memory.kmem.tcp")?,
        cache: raw.get("cache").copied().unwrap_or_default(),
        raw,
        events: kills.map(|kills| ("oom_kill".to_owned(), kills)).into_iter().collect(),
        use_hierarchy: number(directory, "memory.use_hierarchy")? == Some(1),
        pressure: None,
    }))
}

fn memory_v2(directory: &Path) -> Result<Option<MemoryUse>> {
    let Some(usage) = counter_v2(directory, "memory")? else { return Ok(None) };
    let raw = map(directory, "memory.stat")?;
    // Version 2 counts swap apart. How much both were at most together is not known.
    let swap = counter_v2(directory, "memory.swap")?.map(|swap| Counter {
        usage: swap.usage.saturating_add(usage.usage),
        peak: None,
        limit: swap.limit.saturating_add(usage.limit),
        failures: swap.failures,
    });
    Ok(Some(MemoryUse {
        usage,
        swap,
        cache: raw.get("file").copied().unwrap_or_default(),
        raw,
        events: map(directory, "memory.events")?,
        use_hierarchy: true,
        ..MemoryUse::default()
    }))
}

/// A counter of version 1, if there are files of this name.
fn counter_v1(directory: &Path, prefix: &str) -> Result<Option<Counter>> {
    let Some(usage) = number(directory, &format!("{prefix}.usage_in_bytes"))? else { return Ok(None) };
    Ok(Some(Counter {
        usage,
        peak: number(directory, &format!("{prefix}.max_usage_in_bytes"))?,
        limit: number(directory, &format!("{prefix}.limit_in_bytes"))?.unwrap_or(u64::MAX),
        failures: number(directory, &format!("{prefix}.failcnt"))?.unwrap_or_default(),
    }))
}

/// A counter of version 2, if there are files of this name.
fn counter_v2(directory: &Path, prefix: &str) -> Result<Option<Counter>> {
    let Some(usage) = number(directory, &format!("{prefix}.current"))? else { return Ok(None) };
    Ok(Some(Counter {
        usage,
        peak: number(directory, &format!("{prefix}.peak"))?,
        limit: number(directory, &format!("{prefix}.max"))?.unwrap_or(u64::MAX),
        failures: keyed(directory, &format!("{prefix}.events"), "max")?.unwrap_or_default(),
    }))
}

/// What the scheduler counts, if the devices have one that does, else what counts before requests get to it.
fn block_io_v1(directory: &Path) -> Result<BlockIoUse> {
    for (prefix, suffix) in [
        ("blkio.bfq.", "_recursive"),
        ("blkio.", "_recursive"),
        ("blkio.throttle.", "_recursive"),
        ("blkio.throttle.", ""),
    ] {
        let table = |name: &str| {
            let text = optional(directory, &format!("{prefix}{name}{suffix}"))?;
            Ok::<_, crate::Error>(text.map(|text| parse_transfers(&text)).unwrap_or_default())
        };
        let service_bytes = table("io_service_bytes")?;
        if service_bytes.is_empty() {
            continue;
        }
        return Ok(BlockIoUse {
            service_bytes,
            serviced: table("io_serviced")?,
            queued: table("io_queued")?,
            service_time: table("io_service_time")?,
            wait_time: table("io_wait_time")?,
            merged: table("io_merged")?,
            time: table("time")?,
            sectors: table("sectors")?,
            pressure: None,
        });
    }
    Ok(BlockIoUse::default())
}

/// The lines `MAJOR:MINOR OPERATION NUMBER` or `MAJOR:MINOR NUMBER`; sums over all devices are left out.
fn parse_transfers(text: &str) -> Vec<Transfer> {
    let transfer = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (device, operation, value) = match words[..] {
            [device, operation, value] => (device, operation, value),
            [device, value] => (device, "", value),
            _ => return None,
        };
        let (major, minor) = device.split_once(':')?;
        Some(Transfer {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            operation: operation.to_owned(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(transfer).collect()
}

/// The lines `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N …` of version 2, in the terms of version 1.
fn block_io_v2(text: &str) -> BlockIoUse {
    let mut io = BlockIoUse::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|device| device.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(major, minor)| (major.parse(), minor.parse())) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            let (table, operation) = match key {
                "rbytes" => (&mut io.service_bytes, "Read"),
                "wbytes" => (&mut io.service_bytes, "Write"),
                "rios" => (&mut io.serviced, "Read"),
                "wios" => (&mut io.serviced, "Write"),
                _ => continue,
            };
            table.push(Transfer { major, minor, operation: operation.to_owned(), value });
        }
    }
    io
}

/// A file with lines of names and numbers.
fn map(directory: &Path, file: &str) -> Result<BTreeMap<String, u64>> {
    let text = optional(directory, file)?.unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    Ok(text.lines().filter_map(pair).collect())
}

/// A file with numbers side by side.
fn numbers(directory: &Path, file: &str) -> Result<Vec<u64>> {
    let text = optional(directory, file)?.unwrap_or_default();
    Ok(text.split_whitespace().filter_map(|word| word.parse().ok()).collect())
}

/// A list of numbers and ranges: `0-3,7`.
pub(crate) fn parse_list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// The lines `some avg10=0.12 avg60=… avg300=… total=…` and `full …`; the second came with Linux 5.13 for processors.
fn parse_stalls(text: &str) -> Option<Stalls> {
    let line = |kind: &str| text.lines().find_map(|line| line.strip_prefix(kind)).and_then(parse_stall);
    Some(Stalls { some: line("some ")?, full: line("full ").unwrap_or_default() })
}

fn parse_stall(line: &str) -> Option<Stall> {
    let field = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let hundredths = |key: &str| {
        let (whole, part) = field(key)?.split_once('.')?;
        Some(whole.parse::<u32>().ok()? * 100 + part.parse::<u32>().ok()?)
    };
    Some(Stall {
        last_10s: hundredths("avg10")?,
        last_60s: hundredths("avg60")?,
        last_300s: hundredths("avg300")?,
        total_usec: field("total")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_are_read_by_device() {
        let text = "8:0 Read 10\n8:0 Write 5\n8:16 7\n8:0 Total 15\nTotal 15\n";
        let read = parse_transfers(text);
        let of = |at: usize| (read[at].major, read[at].minor, read[at].operation.as_str(), read[at].value);
        assert_eq!(read.len(), 4);
        assert_eq!((of(0), of(2)), ((8, 0, "Read", 10), (8, 16, "", 7)));
        let io = block_io_v2("8:0 rbytes=10 wbytes=5 rios=2 wios=1 dbytes=0 dios=0\n(unknown) rbytes=3\n");
        assert_eq!((io.service_bytes.len(), io.serviced.len()), (2, 2));
        assert_eq!((io.service_bytes[1].operation.as_str(), io.serviced[1].value), ("Write", 1));
    }

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(parse_list("0-2,7\n"), [0, 1, 2, 7]);
        assert_eq!(parse_list("\n"), [0u16; 0]);
    }

    #[test]
    fn pressure_is_read_in_hundredths() {
        let text = "some avg10=1.25 avg60=10.07 avg300=0.50 total=123\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=4\n";
        let stalls = parse_stalls(text).unwrap();
        assert_eq!(stalls.some, Stall { last_10s: 125, last_60s: 1007, last_300s: 50, total_usec: 123 });
        assert_eq!((stalls.full.last_10s, stalls.full.total_usec), (10, 4));
        assert_eq!(parse_stalls(""), None);
    }
}
