//! Limits: sizes, numbers, processor time.

use runtime::spec::Rlimit;

use super::{Result, invalid};

const SIZE: &str = "bytes with an optional suffix b, k, m, g or t, for example 50m";

/// Less than this no program starts in: its stack, page tables and the kernel's own bookkeeping are charged too.
const LEAST_MEMORY: u64 = 512 << 10;

/// A size as docker has it: a number, whole or with a fraction, and a suffix that counts in steps of 1024 (`k`, `kb`, `KiB`).
pub fn bytes(option: &'static str, text: &str) -> Result<u64> {
    let wrong = |reason: &str| invalid(option, text, reason, SIZE);
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let suffix = suffix.trim_start().to_ascii_lowercase();
    let power = match suffix.trim_end_matches('b').trim_end_matches('i') {
        "" if matches!(suffix.as_str(), "" | "b") => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong("not a size")),
    };
    let size = decimal(number, 1 << (10 * power)).ok_or_else(|| wrong("not a size"))?;
    if size > i64::MAX as u128 { Err(wrong("too large")) } else { Ok(size as u64) }
}

/// `text` as a decimal number times `unit`, rounded down. One side of the point may be left out, as docker has it: `.5` and `1.`.
fn decimal(text: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() > 19 || whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (whole, fraction) = (or_zero(whole), or_zero(fraction));
    let fraction = &fraction[..fraction.len().min(18)];
    let part = fraction.parse::<u128>().ok()? * unit / 10_u128.pow(fraction.len() as u32);
    Some(whole.parse::<u128>().ok()?.checked_mul(unit)? + part)
}

fn or_zero(digits: &str) -> &str {
    if digits.is_empty() { "0" } else { digits }
}

/// `--memory`: none for 0.
pub fn memory(text: &str) -> Result<Option<i64>> {
    let size = bytes("--memory", text)?;
    match size {
        0 => Ok(None),
        1..LEAST_MEMORY => {
            Err(invalid("--memory", text, "no program can start in that", "512k and more, or 0 for no limit"))
        }
        _ => Ok(Some(size as i64)),
    }
}

/// `--memory-swap`: memory and swap together, -1 for no limit, none for 0.
pub fn memory_swap(text: &str) -> Result<Option<i64>> {
    match text {
        "-1" => Ok(Some(-1)),
        _ => Ok(Some(bytes("--memory-swap", text)? as i64).filter(|size| *size != 0)),
    }
}

/// `--shm-size`, at least a page.
pub fn shm_size(text: &str) -> Result<u64> {
    match bytes("--shm-size", text)? {
        0 => Err(invalid("--shm-size", text, "there would be no room for anything", SIZE)),
        size => Ok(size),
    }
}

/// `--pids-limit`: 0 and -1 are no limit. The kernel's largest number of a process is the largest limit that it takes.
pub fn pids_limit(text: &str) -> Result<i64> {
    whole("--pids-limit", text, -1, 4_194_304, "whole numbers from 1 to 4194304, 0 or -1 for no limit")
}

/// A whole number between two others.
fn whole(option: &'static str, text: &str, least: i64, most: i64, accepted: &str) -> Result<i64> {
    let number: i64 = text.parse().map_err(|_| invalid(option, text, "not a whole number", accepted))?;
    if (least..=most).contains(&number) {
        Ok(number)
    } else {
        Err(invalid(option, text, "out of range", accepted))
    }
}

/// `--cpus`: a number of processors as quota in microseconds of a period of 100 ms. `most` is how many this machine has.
pub fn cpus(text: &str, most: usize) -> Result<Option<(i64, u64)>> {
    const PERIOD: u64 = 100_000;
    let accepted = format!("numbers from 0.01 to {most}, for example 0.5");
    let wrong = |reason: &str| invalid("--cpus", text, reason, &accepted);
    let quota = decimal(text, PERIOD.into()).ok_or_else(|| wrong("not a number of processors"))?;
    match quota {
        0 if text.bytes().all(|byte| matches!(byte, b'0' | b'.')) => Ok(None),
        0..1000 => Err(wrong("the kernel counts in hundredths of a processor")),
        _ if quota > most as u128 * u128::from(PERIOD) => Err(wrong("this machine has fewer")),
        _ => Ok(Some((quota as i64, PERIOD))),
    }
}

/// How many processors this machine has, whatever part of them this process may use.
pub fn processors() -> usize {
    let online = fs_err::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let count = |part: &str| match part.split_once('-') {
        Some((first, last)) => Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1),
        None => part.parse::<usize>().ok().map(|_| 1),
    };
    // Without /sys what this process may use is the best guess.
    let counted = online.trim().split(',').map(count).sum::<Option<usize>>();
    counted.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// `--cpu-period` in microseconds; none for 0.
pub fn cpu_period(text: &str) -> Result<Option<u64>> {
    let accepted = "microseconds from 1000 to 1000000, or 0 for the usual 100000";
    match whole("--cpu-period", text, 0, 1_000_000, accepted)? {
        0 => Ok(None),
        1..1000 => Err(invalid("--cpu-period", text, "out of range", accepted)),
        number => Ok(Some(number as u64)),
    }
}

/// `--cpu-quota` in microseconds of each period; -1 is no limit, none for 0.
pub fn cpu_quota(text: &str) -> Result<Option<i64>> {
    let accepted = "microseconds, at least 1000, or -1 for no limit";
    match whole("--cpu-quota", text, -1, i64::MAX / 1000, accepted)? {
        0 => Ok(None),
        1..1000 => Err(invalid("--cpu-quota", text, "out of range", accepted)),
        number => Ok(Some(number)),
    }
}

/// `--cpu-shares`: a weight among siblings; none for 0. What the kernel does not take is brought into its range, as docker does.
pub fn cpu_shares(text: &str) -> Result<Option<u64>> {
    let accepted = "numbers from 2 to 262144, where 1024 is the usual, or 0 for the usual";
    match whole("--cpu-shares", text, 0, i64::MAX, accepted)? {
        0 => Ok(None),
        number => Ok(Some(number.clamp(2, 262_144) as u64)),
    }
}

/// `--cpuset-cpus` and `--cpuset-mems` on this machine: a list, of which there is no number that is not here.
pub fn cpuset(option: &'static str, text: &str) -> Result<String> {
    let list = cpu_list(option, text)?;
    let (path, otherwise) = match option {
        // A kernel that knows of no nodes has one.
        "--cpuset-mems" => ("/sys/devices/system/node/online", Some("0")),
        _ => ("/sys/devices/system/cpu/online", None),
    };
    let online = fs_err::read_to_string(path).ok();
    match online.as_deref().map(str::trim).filter(|online| !online.is_empty()).or(otherwise) {
        Some(online) => within(option, list, online),
        // Without /sys the kernel is the one to say.
        None => Ok(list),
    }
}

/// `list`, if all its numbers are in the list `online`.
fn within(option: &'static str, list: String, online: &str) -> Result<String> {
    let is_here = |number| ranges(online).any(|range| range.contains(&number));
    let absent = ranges(&list).flatten().find(|number| !is_here(*number));
    match absent {
        None => Ok(list),
        Some(absent) => {
            let kind = if option == "--cpuset-mems" { "memory node" } else { "processor" };
            let accepted = format!("numbers and ranges of what this machine has: {online}");
            Err(invalid(option, &list, format!("there is no {kind} {absent}"), &accepted))
        }
    }
}

/// The ranges of a list of numbers.
fn ranges(list: &str) -> impl Iterator<Item = std::ops::RangeInclusive<u16>> {
    list.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    })
}

/// `--cpuset-cpus`, `--cpuset-mems`: numbers and ranges.
pub fn cpu_list(option: &'static str, text: &str) -> Result<String> {
    let is_number = |text: &str| text.parse::<u16>().is_ok() && !text.starts_with('+');
    let is_part = |part: &str| match part.split_once('-') {
        Some((first, last)) => {
            is_number(first) && is_number(last) && first.parse::<u16>().ok() <= last.parse().ok()
        }
        None => is_number(part),
    };
    if text.split(',').all(is_part) {
        Ok(text.to_owned())
    } else {
        Err(invalid(option, text, "not a list of numbers", "numbers and ranges, for example 0-2,5"))
    }
}

/// `--blkio-weight`: none for 0.
pub fn blkio_weight(option: &'static str, text: &str) -> Result<Option<u16>> {
    let accepted = "weights from 10 to 1000, or 0 for none";
    match whole(option, text, 0, 1000, accepted)? {
        0 => Ok(None),
        1..10 => Err(invalid(option, text, "out of range", accepted)),
        number => Ok(Some(number as u16)),
    }
}

/// `--oom-score-adj`.
pub fn oom_score_adj(text: &str) -> Result<i32> {
    let accepted = "numbers from -1000 (killed last) to 1000 (killed first)";
    Ok(whole("--oom-score-adj", text, -1000, 1000, accepted)? as i32)
}

/// `--ulimit name=soft[:hard]`; -1 and `unlimited` are no limit.
pub fn ulimit(text: &str) -> Result<Rlimit> {
    let accepted = "NAME=SOFT[:HARD], for example nofile=1024:2048; -1 is no limit";
    let wrong = |reason: String| invalid("--ulimit", text, reason, accepted);
    let (name, values) = text.split_once('=').ok_or_else(|| wrong("a limit has a value".to_owned()))?;
    let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
    if kernel::identity::rlimit_number(&kind).is_none() {
        return Err(wrong(format!("the kernel has no limit named {name}")));
    }
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ => text.parse::<u64>().map_err(|_| wrong(format!("{text} is not a number"))),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if soft > hard {
        return Err(wrong("the soft limit is above the hard one".to_owned()));
    }
    Ok(Rlimit { kind, hard, soft })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let size = |text: &str| bytes("--memory", text).ok();
        assert_eq!(size("50m"), Some(50 << 20));
        assert_eq!(size("1.5g"), Some(3 << 29));
        assert_eq!((size(".5g"), size("5.g")), (Some(1 << 29), Some(5 << 30)));
        assert_eq!(size("64KiB"), Some(64 << 10));
        assert_eq!(size("10 kb"), Some(10 << 10));
        assert_eq!((size("7"), size("7b"), size("7B")), (Some(7), Some(7), Some(7)));
        for wrong in ["", "m", "50q", "-1", "1,5g", "1.2.3", "50mm", "i", "9999999p", ".", ".g", "5ib"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn memory_starts_where_a_program_can() {
        assert_eq!(memory("4m").unwrap(), Some(4 << 20));
        assert_eq!(memory("0").unwrap(), None);
        assert!(memory("100k").is_err());
        assert_eq!(memory_swap("-1").unwrap(), Some(-1));
        assert_eq!(memory_swap("0").unwrap(), None);
        assert!(memory_swap("-2").is_err());
        assert!(shm_size("0").is_err());
    }

    #[test]
    fn processors() {
        assert_eq!(cpus("0.5", 2).unwrap(), Some((50_000, 100_000)));
        assert_eq!(cpus("2", 2).unwrap(), Some((200_000, 100_000)));
        assert_eq!(cpus(".5", 2).unwrap(), Some((50_000, 100_000)));
        assert_eq!(cpus("1.", 2).unwrap(), Some((100_000, 100_000)));
        assert_eq!(cpus("0", 2).unwrap(), None);
        for wrong in ["", ".", "..5", "2.01", "0.001", "-1", "half", "1e1"] {
            assert!(cpus(wrong, 2).is_err(), "{wrong}");
        }
        assert_eq!(cpu_period("50000").unwrap(), Some(50_000));
        assert!(cpu_period("10").is_err() && cpu_period("2000000").is_err());
        assert_eq!(cpu_quota("-1").unwrap(), Some(-1));
        assert!(cpu_quota("999").is_err());
        assert_eq!(cpu_shares("512").unwrap(), Some(512));
        assert_eq!((cpu_shares("1").unwrap(), cpu_shares("999999").unwrap()), (Some(2), Some(262_144)));
        assert_eq!(cpu_shares("0").unwrap(), None);
        assert!(cpu_shares("-1").is_err());
        assert_eq!(cpu_list("--cpuset-cpus", "0-2,5").unwrap(), "0-2,5");
        for wrong in ["", "2-0", "a", "1,", "1--2", "+1"] {
            assert!(cpu_list("--cpuset-cpus", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sets_are_of_what_is_here() {
        let all = |list: &str| within("--cpuset-cpus", list.to_owned(), "0-1,4");
        assert_eq!(all("0,4").unwrap(), "0,4");
        let error = all("0-2").unwrap_err();
        assert!(error.to_string().ends_with("there is no processor 2"), "{error}");
        assert!(error.advice().unwrap().ends_with("has: 0-1,4"), "{error:?}");
        assert_eq!(cpuset("--cpuset-mems", "0").unwrap(), "0");
        assert!(cpuset("--cpuset-mems", "65535").unwrap_err().to_string().contains("memory node 65535"));
        assert!(cpuset("--cpuset-cpus", "0-65535").is_err());
    }

    #[test]
    fn small_numbers() {
        assert_eq!((pids_limit("20").unwrap(), pids_limit("-1").unwrap()), (20, -1));
        assert_eq!(pids_limit("4194304").unwrap(), 4_194_304);
        let error = pids_limit("4194305").unwrap_err();
        assert!(error.advice().unwrap().contains("1 to 4194304"), "{error:?}");
        assert!(pids_limit("-2").is_err() && pids_limit("many").is_err());
        assert_eq!(oom_score_adj("-1000").unwrap(), -1000);
        assert!(oom_score_adj("1001").is_err());
        assert_eq!(blkio_weight("--blkio-weight", "0").unwrap(), None);
        assert!(blkio_weight("--blkio-weight", "9").is_err());
    }

    #[test]
    fn rlimits() {
        let limit = ulimit("nofile=1024:2048").unwrap();
        assert_eq!((limit.kind.as_str(), limit.soft, limit.hard), ("RLIMIT_NOFILE", 1024, 2048));
        assert_eq!(ulimit("core=-1").unwrap().hard, u64::MAX);
        assert_eq!(ulimit("nproc=3").unwrap(), Rlimit { kind: "RLIMIT_NPROC".to_owned(), hard: 3, soft: 3 });
        for wrong in ["nofile", "nofiles=1", "nofile=2:1", "nofile=x", "nofile=1:2:3", "=1"] {
            assert!(ulimit(wrong).is_err(), "{wrong}");
        }
    }
}
