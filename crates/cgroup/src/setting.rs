//! From limits to the files that enforce them.

use std::collections::BTreeMap;

use crate::hierarchy::Version;
use crate::limits::{Cpu, DeviceRate, Memory};
use crate::{Error, Hierarchy, Limits, Result, devices};

/// One write to one file of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Whose directory the file is in; empty for files that every group of version 2 has.
    pub(crate) controller: &'static str,
    /// The file, and others that do the same on other kernels: the first that exists is taken.
    pub(crate) files: Vec<String>,
    /// What is written to the file with the same index, or to all if there is but one.
    pub(crate) values: Vec<String>,
    /// As docker names it, for errors.
    pub(crate) option: &'static str,
    /// For the record.
    pub(crate) why: &'static str,
    /// What it means if no file is there: nothing, because the limit was implied, or a refusal.
    pub(crate) optional: bool,
}

/// The controllers whose names we know; a file of `unified` belongs to one of them.
const CONTROLLERS: [&str; 8] = ["cpu", "cpuset", "io", "memory", "hugetlb", "pids", "rdma", "misc"];

const SWAPPINESS: &str = "--memory-swappiness";
const OOM_KILLER: &str = "--oom-kill-disable";
const KERNEL_TCP: &str = "kernel TCP memory limit";
const USE_HIERARCHY: &str = "memory.use_hierarchy";

const SHARES: (u64, u64) = (2, 262_144);
const WEIGHTS: (u16, u16) = (10, 1000);

/// All writes that these limits need, in an order in which the kernel takes them. Devices are apart, see [`devices`].
pub(crate) fn settings(hierarchy: &Hierarchy, limits: &Limits) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    pids(limits, &mut list);
    memory(hierarchy.version("memory"), &limits.memory, &mut list)?;
    cpu(hierarchy.version("cpu"), limits, &mut list)?;
    cpuset(limits, &mut list);
    block_io(hierarchy.version("blkio"), limits, &mut list)?;
    hugepages(hierarchy.version("hugetlb"), limits, &mut list)?;
    rdma(limits, &mut list);
    network(hierarchy, limits, &mut list)?;
    if matches!(hierarchy, Hierarchy::V1 { .. }) && !limits.devices.is_empty() {
        for (file, line) in devices::v1_lines(&limits.devices)? {
            list.push(set(
                "devices",
                file,
                line,
                "device rules",
                "which devices may be used is a list that the kernel looks through at each mknod and open",
            ));
        }
    }
    unified(hierarchy, limits, &mut list)?;
    Ok(list)
}

fn set(
    controller: &'static str,
    file: impl Into<String>,
    value: impl Into<String>,
    option: &'static str,
    why: &'static str,
) -> Setting {
    Setting { controller, files: vec![file.into()], values: vec![value.into()], option, why, optional: false }
}

fn invalid(option: &'static str, value: impl ToString, reason: impl Into<String>) -> Error {
    Error::Value { option, value: value.to_string(), reason: reason.into() }
}

/// A number as version 2 writes it, where no limit is a word.
fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn pids(limits: &Limits, list: &mut Vec<Setting>) {
    if let Some(limit) = limits.pids {
        let value = or_max(if limit == 0 { -1 } else { limit });
        let why = "beyond this number of processes and threads fork and clone fail: a fork bomb ends here";
        list.push(set("pids", "pids.max", value, "--pids-limit", why));
    }
}

/// Memory and swap together: what was asked, or what a limit implies.
pub(crate) fn memory_and_swap(memory: &Memory) -> Result<Option<i64>> {
    match (memory.limit, memory.swap) {
        (Some(limit), None) if memory.leave_swap => Ok((limit < 0).then_some(-1)),
        (Some(limit), None) if limit > 0 => Ok(Some(limit.saturating_mul(2))),
        (None, Some(swap)) if swap >= 0 => Err(invalid(
            "--memory-swap",
            swap,
            "it is memory and swap together, so --memory must be given too",
        )),
        (Some(limit), Some(swap)) if swap >= 0 && (limit < 0 || swap < limit) => Err(invalid(
            "--memory-swap",
            swap,
            format!("it is memory and swap together, so it cannot be less than --memory ({limit})"),
        )),
        (_, swap) => Ok(swap),
    }
}

fn memory(version: Version, memory: &Memory, list: &mut Vec<Setting>) -> Result<()> {
    for (option, value) in [("--memory", memory.limit), ("--memory-reservation", memory.reservation)] {
        if value == Some(0) {
            return Err(invalid(option, 0, "nothing can run without memory; -1 is no limit"));
        }
    }
    if let (Some(limit), Some(reservation)) = (memory.limit, memory.reservation)
        && limit > 0
        && reservation > limit
    {
        return Err(invalid(
            "--memory-reservation",
            reservation,
            format!("it must be less than --memory ({limit})"),
        ));
    }
    let both = memory_and_swap(memory)?;
    match version {
        Version::V1 => memory_v1(memory, both, list),
        Version::V2 => memory_v2(memory, both, list),
    }
}

/// What of memory's limits version 2 does not have, if it is asked for.
fn only_in_v1(memory: &Memory) -> Option<&'static str> {
    let asked = [
        (swappiness(memory).is_some(), SWAPPINESS),
        (memory.disable_oom_killer == Some(true), OOM_KILLER),
        (memory.kernel_tcp.is_some(), KERNEL_TCP),
        (memory.use_hierarchy == Some(false), USE_HIERARCHY),
    ];
    asked.into_iter().find_map(|(asked, option)| asked.then_some(option))
}

/// The swappiness that was asked for; callers write "not set" as -1, which here is the largest number.
fn swappiness(memory: &Memory) -> Option<u64> {
    memory.swappiness.filter(|value| *value != u64::MAX)
}

fn memory_v2(memory: &Memory, both: Option<i64>, list: &mut Vec<Setting>) -> Result<()> {
    if let Some(both) = both {
        let swap = if both < 0 { both } else { both - memory.limit.unwrap_or(0) };
        let why = "without a limit on swap, memory beyond the limit would be swapped out and the limit would limit nothing";
        let swap = set("memory", "memory.swap.max", or_max(swap), "--memory-swap", why);
        list.push(Setting { optional: memory.swap.is_none(), ..swap });
    }
    if let Some(limit) = memory.limit {
        let why = "beyond this the kernel takes pages back from the group, and kills one of its processes if there are none to take";
        list.push(set("memory", "memory.max", or_max(limit), "--memory", why));
    }
    if let Some(high) = memory.high {
        let why =
            "beyond this the group's processes are slowed down while the kernel takes pages back from them";
        list.push(set("memory", "memory.high", or_max(high), "memory.high", why));
    }
    if let Some(low) = memory.reservation {
        let why = "when memory is short, others have to give theirs back before this group goes below this";
        list.push(set("memory", "memory.low", or_max(low), "--memory-reservation", why));
    }
    if let Some(option) = only_in_v1(memory) {
        return Err(Error::OnlyInV1 { option, controller: "memory" });
    }
    if let Some(whole) = memory.oom_group {
        let why = "what is left when one of several processes is killed for want of memory may be of no use: all go, or one";
        list.push(set("memory", "memory.oom.group", u8::from(whole).to_string(), "memory.oom.group", why));
    }
    Ok(())
}

fn memory_v1(memory: &Memory, both: Option<i64>, list: &mut Vec<Setting>) -> Result<()> {
    let limit = memory.limit.map(|limit| {
        let why = "beyond this the kernel takes pages back from the group, and kills one of its processes if there are none to take";
        set("memory", "memory.limit_in_bytes", limit.to_string(), "--memory", why)
    });
    let both = both.map(|both| {
        let why = "without a limit on memory and swap together, memory beyond the limit would be swapped out and the limit would limit nothing";
        let setting = set("memory", "memory.memsw.limit_in_bytes", both.to_string(), "--memory-swap", why);
        Setting { optional: memory.swap.is_none(), ..setting }
    });
    list.extend(limit.into_iter().chain(both));
    if let Some(soft) = memory.reservation {
        let why = "when memory is short, the kernel takes pages first from groups beyond this";
        list.push(set("memory", "memory.soft_limit_in_bytes", soft.to_string(), "--memory-reservation", why));
    }
    if memory.high.is_some() {
        return Err(Error::NotInV1 { option: "memory.high", reason: "they have no limit that slows down" });
    }
    if memory.oom_group == Some(true) {
        return Err(Error::NotInV1 {
            option: "memory.oom.group",
            reason: "there the kernel kills single processes only",
        });
    }
    more_memory_v1(memory, list)
}

/// What only version 1 has.
fn more_memory_v1(memory: &Memory, list: &mut Vec<Setting>) -> Result<()> {
    if let Some(hierarchical) = memory.use_hierarchy {
        let why = "whether memory of groups below counts for this one; newer kernels always count it";
        let setting =
            set("memory", "memory.use_hierarchy", u8::from(hierarchical).to_string(), USE_HIERARCHY, why);
        list.push(Setting { optional: hierarchical, ..setting });
    }
    if let Some(disabled) = memory.disable_oom_killer {
        let why =
            "beyond the limit processes wait until there is memory, instead of one of them being killed";
        let setting = set("memory", "memory.oom_control", u8::from(disabled).to_string(), OOM_KILLER, why);
        list.push(Setting { optional: !disabled, ..setting });
    }
    if let Some(swappiness) = swappiness(memory) {
        if swappiness > 100 {
            return Err(invalid(SWAPPINESS, swappiness, "give 0 to 100"));
        }
        let why = "how readily memory is swapped out rather than taken from the page cache";
        list.push(set("memory", "memory.swappiness", swappiness.to_string(), SWAPPINESS, why));
    }
    if let Some(limit) = memory.kernel_tcp {
        let why = "beyond this the kernel takes no more memory for buffers of TCP connections";
        list.push(set("memory", "memory.kmem.tcp.limit_in_bytes", limit.to_string(), KERNEL_TCP, why));
    }
    Ok(())
}

fn cpu(version: Version, limits: &Limits, list: &mut Vec<Setting>) -> Result<()> {
    let cpu = &limits.cpu;
    // Zero is what docker's API sends for "not set".
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        if !(SHARES.0..=SHARES.1).contains(&shares) {
            return Err(invalid("--cpu-shares", shares, "give 2 to 262144, where 1024 is the usual"));
        }
        let why = "when processors are short, time is divided among groups by their weights";
        list.push(match version {
            Version::V1 => set("cpu", "cpu.shares", shares.to_string(), "--cpu-shares", why),
            Version::V2 => {
                set("cpu", "cpu.weight", weight_of_shares(shares).to_string(), "--cpu-shares", why)
            }
        });
    }
    let quota = cpu.quota.filter(|quota| *quota != 0);
    let period = cpu.period.filter(|period| *period != 0);
    if let Some(period) = period
        && !(1_000..=1_000_000).contains(&period)
    {
        return Err(invalid("--cpu-period", period, "give 1000 to 1000000 microseconds"));
    }
    if let Some(quota) = quota
        && (1..1_000).contains(&quota)
    {
        return Err(invalid(
            "--cpu-quota",
            quota,
            "the kernel gives no less than 1000 microseconds (--cpus 0.01)",
        ));
    }
    if quota.is_some() || period.is_some() {
        quota_and_period(version, quota, period, list);
    }
    burst_and_idle(version, cpu, list)?;
    realtime(version, cpu, list)
}

fn quota_and_period(version: Version, quota: Option<i64>, period: Option<u64>, list: &mut Vec<Setting>) {
    let why =
        "once the group has used this much processor time in a period, all of it waits for the next one";
    match version {
        Version::V1 => {
            let period = period.map(|period| {
                set(
                    "cpu",
                    "cpu.cfs_period_us",
                    period.to_string(),
                    "--cpu-period",
                    "a quota is counted in periods of this length, in microseconds",
                )
            });
            let quota =
                quota.map(|quota| set("cpu", "cpu.cfs_quota_us", quota.max(-1).to_string(), "--cpus", why));
            list.extend(period.into_iter().chain(quota));
        }
        Version::V2 => {
            let value = format!("{} {}", or_max(quota.unwrap_or(-1)), period.unwrap_or(100_000));
            list.push(set("cpu", "cpu.max", value, "--cpus", why));
        }
    }
}

fn burst_and_idle(version: Version, cpu: &Cpu, list: &mut Vec<Setting>) -> Result<()> {
    if let Some(burst) = cpu.burst {
        let file = match version {
            Version::V1 => "cpu.cfs_burst_us",
            Version::V2 => "cpu.max.burst",
        };
        let why = "time that was not used in earlier periods may be used beyond the quota, up to this much";
        list.push(set("cpu", file, burst.to_string(), "cpu burst", why));
    }
    if let Some(idle) = cpu.idle {
        if !(0..=1).contains(&idle) {
            return Err(invalid("cpu idle", idle, "give 0 or 1"));
        }
        let why = "an idle group gets processor time only when nobody else wants any";
        list.push(set("cpu", "cpu.idle", idle.to_string(), "cpu idle", why));
    }
    Ok(())
}

fn realtime(version: Version, cpu: &Cpu, list: &mut Vec<Setting>) -> Result<()> {
    let period = cpu.realtime_period.filter(|period| *period != 0).map(|period| period.to_string());
    let runtime = cpu.realtime_runtime.filter(|runtime| *runtime != 0).map(|runtime| runtime.to_string());
    let why = "realtime processes of the group get at most this much of each period, so that they cannot starve the others";
    for (option, file, value) in
        [("--cpu-rt-period", "cpu.rt_period_us", period), ("--cpu-rt-runtime", "cpu.rt_runtime_us", runtime)]
    {
        match (value, version) {
            (Some(value), Version::V1) => list.push(set("cpu", file, value, option, why)),
            (Some(_), Version::V2) => return Err(Error::OnlyInV1 { option, controller: "cpu" }),
            (None, _) => {}
        }
    }
    Ok(())
}

/// Weights of version 2 for shares of version 1: 1 for 2, 100 for 1024, 10000 for 262144, in between a curve through these.
///
/// The straight line that was used for years gave 39 for 1024, less than the 100 of a group without any weight. The curve is the one
/// that runc 1.3.2 and crun 1.23 took up: `10^(l²/612 + 125·l/612 − 7/34)` with `l` the binary logarithm, rounded up.
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    if shares <= SHARES.0 {
        return 1;
    }
    if shares >= SHARES.1 {
        return 10_000;
    }
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    // The three fixed points shall not be missed by the last bit of a logarithm.
    ((10f64.powf(exponent) - 1e-9).ceil() as u64).clamp(1, 10_000)
}

fn cpuset(limits: &Limits, list: &mut Vec<Setting>) {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(cpus) = given(&limits.cpu.cpus) {
        list.push(set(
            "cpuset",
            "cpuset.cpus",
            cpus,
            "--cpuset-cpus",
            "the group's processes run on these processors only",
        ));
    }
    if let Some(mems) = given(&limits.cpu.mems) {
        list.push(set(
            "cpuset",
            "cpuset.mems",
            mems,
            "--cpuset-mems",
            "the group's memory comes from these nodes only",
        ));
    }
}

fn check_weight(option: &'static str, weight: u16) -> Result<()> {
    if (WEIGHTS.0..=WEIGHTS.1).contains(&weight) {
        return Ok(());
    }
    Err(invalid(option, weight, "give 10 to 1000"))
}

fn block_io(version: Version, limits: &Limits, list: &mut Vec<Setting>) -> Result<()> {
    let io = &limits.block_io;
    let why = "when a disk is busy, its time is divided among groups by their weights";
    if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
        check_weight("--blkio-weight", weight)?;
        list.push(weight_setting(version, "--blkio-weight", "", weight, why));
    }
    for device in &io.weight_device {
        check_weight("--blkio-weight-device", device.weight)?;
        let name = format!("{}:{} ", device.major, device.minor);
        list.push(weight_setting(version, "--blkio-weight-device", &name, device.weight, why));
    }
    leaf_weights(version, limits, list)?;
    let rates = [
        (&io.read_bps, "--device-read-bps", "rbps", "blkio.throttle.read_bps_device"),
        (&io.write_bps, "--device-write-bps", "wbps", "blkio.throttle.write_bps_device"),
        (&io.read_iops, "--device-read-iops", "riops", "blkio.throttle.read_iops_device"),
        (&io.write_iops, "--device-write-iops", "wiops", "blkio.throttle.write_iops_device"),
    ];
    let why = "requests beyond this rate wait";
    for (devices, option, key, file) in rates {
        for DeviceRate { major, minor, rate } in devices {
            list.push(match version {
                Version::V1 => set("blkio", file, format!("{major}:{minor} {rate}"), option, why),
                Version::V2 if *rate == 0 => {
                    set("io", "io.max", format!("{major}:{minor} {key}=max"), option, why)
                }
                Version::V2 => set("io", "io.max", format!("{major}:{minor} {key}={rate}"), option, why),
            });
        }
    }
    Ok(())
}

/// A weight of 10 to 1000 on the kernel's scale of 1 to 10000.
pub(crate) fn stretched(weight: u16) -> u32 {
    1 + (u32::from(weight) - 10) * 9999 / 990
}

/// Weights that only the scheduler of version 1 knew which Linux 5.0 took out.
fn leaf_weights(version: Version, limits: &Limits, list: &mut Vec<Setting>) -> Result<()> {
    const OPTION: &str = "blkio leaf weight";
    let io = &limits.block_io;
    let whole = io.leaf_weight.filter(|weight| *weight != 0);
    let whole = whole.map(|weight| ("blkio.leaf_weight", String::new(), weight));
    let devices = io.leaf_weight_device.iter().map(|device| {
        ("blkio.leaf_weight_device", format!("{}:{} ", device.major, device.minor), device.weight)
    });
    for (file, device, weight) in whole.into_iter().chain(devices) {
        check_weight(OPTION, weight)?;
        if version == Version::V2 {
            return Err(Error::OnlyInV1 { option: OPTION, controller: "blkio" });
        }
        let why =
            "when a disk is busy, the group's own processes share with the groups below it by this weight";
        list.push(set("blkio", file, format!("{device}{weight}"), OPTION, why));
    }
    Ok(())
}

/// Two schedulers know weights: bfq, which counts from 1 to 1000 as docker does, and the ones before and after it.
fn weight_setting(
    version: Version,
    option: &'static str,
    device: &str,
    weight: u16,
    why: &'static str,
) -> Setting {
    let plain = format!("{device}{weight}");
    let whole = device.is_empty();
    let (controller, files, values) = match version {
        Version::V1 if whole => ("blkio", ["blkio.weight", "blkio.bfq.weight"], [plain.clone(), plain]),
        Version::V1 => ("blkio", ["blkio.weight_device", "blkio.bfq.weight_device"], [plain.clone(), plain]),
        Version::V2 => {
            let stretched = stretched(weight);
            let of_kernel =
                if whole { format!("default {stretched}") } else { format!("{device}{stretched}") };
            ("io", ["io.bfq.weight", "io.weight"], [plain, of_kernel])
        }
    };
    Setting {
        controller,
        files: files.map(str::to_owned).to_vec(),
        values: values.to_vec(),
        option,
        why,
        optional: false,
    }
}

fn hugepages(version: Version, limits: &Limits, list: &mut Vec<Setting>) -> Result<()> {
    for limit in &limits.hugepages {
        let size = &limit.page_size;
        if !size.ends_with('B') || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(invalid("hugepage limit", size, "name the size as /sys/fs/cgroup does: 2MB, 1GB"));
        }
        let suffix = match version {
            Version::V1 => "limit_in_bytes",
            Version::V2 => "max",
        };
        let why = "huge pages are few and never swapped: faults beyond this fail";
        let used = set(
            "hugetlb",
            format!("hugetlb.{size}.{suffix}"),
            limit.limit.to_string(),
            "hugepage limit",
            why,
        );
        // Reservations are counted apart since Linux 5.7; without this they could take every page of the machine.
        let reserved =
            Setting { files: vec![format!("hugetlb.{size}.rsvd.{suffix}")], optional: true, ..used.clone() };
        list.extend([used, reserved]);
    }
    Ok(())
}

fn rdma(limits: &Limits, list: &mut Vec<Setting>) {
    for (device, limit) in &limits.rdma {
        let part = |name: &str, value: Option<u32>| {
            value.map(|value| format!(" {name}={value}")).unwrap_or_default()
        };
        let value =
            format!("{device}{}{}", part("hca_handle", limit.handles), part("hca_object", limit.objects));
        list.push(set("rdma", "rdma.max", value, "rdma limit", "handles and objects of this device are few"));
    }
}

fn network(hierarchy: &Hierarchy, limits: &Limits, list: &mut Vec<Setting>) -> Result<()> {
    let network = &limits.network;
    let class = network.class_id.map(|class| {
        let why = "the machine's traffic control sorts packets of the group's processes by this class";
        set("net_cls", "net_cls.classid", class.to_string(), "network class", why)
    });
    let priorities = network.priorities.iter().map(|one| {
        let why = "packets of the group's processes leave by this interface with this priority";
        let value = format!("{} {}", one.interface, one.priority);
        set("net_prio", "net_prio.ifpriomap", value, "network priority", why)
    });
    for setting in class.into_iter().chain(priorities) {
        let Setting { option, controller, .. } = setting;
        if hierarchy.v1_with(controller).is_none() {
            return Err(Error::OnlyInV1 { option, controller });
        }
        list.push(setting);
    }
    Ok(())
}

fn unified(hierarchy: &Hierarchy, limits: &Limits, list: &mut Vec<Setting>) -> Result<()> {
    const OPTION: &str = "unified";
    let files: &BTreeMap<String, String> = &limits.unified;
    for (file, value) in files {
        let prefix = file.split('.').next().unwrap_or_default();
        let known = CONTROLLERS.into_iter().find(|controller| *controller == prefix);
        let controller = match (known, prefix) {
            _ if file.contains(['/', '\0']) => None,
            (None, "cgroup") => Some(""),
            (known, _) => known,
        };
        let controller =
            controller.ok_or_else(|| invalid(OPTION, file, "it is no file of a cgroup v2 controller"))?;
        let v1 = if controller == "io" { "blkio" } else { controller };
        if hierarchy.version(v1) == Version::V1 {
            let reason = "it names a file of version 2";
            return Err(Error::NotInV1 { option: OPTION, reason });
        }
        list.push(set(controller, file.clone(), value.clone(), OPTION, "asked for by the file's own name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2() -> Hierarchy {
        let unified = crate::Mount { point: "/x".into(), root: "/".into(), controllers: Vec::new() };
        Hierarchy::V2 { unified }
    }

    fn lines(hierarchy: &Hierarchy, limits: &Limits) -> Vec<String> {
        let text = |one: Setting| format!("{} {}", one.files[0], one.values[0]);
        settings(hierarchy, limits).unwrap().into_iter().map(text).collect()
    }

    #[test]
    fn memory_alone_sets_swap_to_as_much_again() {
        let memory =
            |limit, swap| Limits { memory: Memory { limit, swap, ..Memory::default() }, ..Limits::default() };
        assert_eq!(lines(&v2(), &memory(Some(50), None)), ["memory.swap.max 50", "memory.max 50"]);
        assert_eq!(lines(&v2(), &memory(Some(50), Some(50))), ["memory.swap.max 0", "memory.max 50"]);
        assert_eq!(lines(&v2(), &memory(Some(50), Some(-1))), ["memory.swap.max max", "memory.max 50"]);
        assert_eq!(
            lines(&Hierarchy::V1 { v1: Vec::new() }, &memory(Some(50), None)),
            ["memory.limit_in_bytes 50", "memory.memsw.limit_in_bytes 100"]
        );
        for (limit, swap) in [(Some(50), Some(49)), (None, Some(50)), (Some(0), None)] {
            assert!(matches!(settings(&v2(), &memory(limit, swap)), Err(Error::Value { .. })));
        }
    }

    #[test]
    fn a_limit_of_an_oci_configuration_leaves_swap_alone() {
        let memory = |limit| {
            let memory = Memory { limit: Some(limit), leave_swap: true, ..Memory::default() };
            Limits { memory, ..Limits::default() }
        };
        assert_eq!(lines(&v2(), &memory(50)), ["memory.max 50"]);
        assert_eq!(lines(&v2(), &memory(-1)), ["memory.swap.max max", "memory.max max"]);
    }

    #[test]
    fn what_only_version_1_has_is_written_there_and_refused_elsewhere() {
        let v1 = |controller: &str| crate::Mount {
            point: format!("/{controller}").into(),
            root: "/".into(),
            controllers: vec![controller.to_owned()],
        };
        let all = Hierarchy::V1 { v1: ["memory", "cpu", "blkio", "net_cls", "net_prio"].map(v1).to_vec() };
        let is = |change: fn(&mut Limits), expected: &str| {
            let mut limits = Limits::default();
            change(&mut limits);
            assert_eq!(lines(&all, &limits), [expected]);
            let error = settings(&v2(), &limits).unwrap_err();
            assert!(matches!(error, Error::OnlyInV1 { .. }), "{expected}: {error}");
        };
        is(|limits| limits.memory.swappiness = Some(7), "memory.swappiness 7");
        is(|limits| limits.memory.disable_oom_killer = Some(true), "memory.oom_control 1");
        is(|limits| limits.memory.kernel_tcp = Some(9), "memory.kmem.tcp.limit_in_bytes 9");
        is(|limits| limits.memory.use_hierarchy = Some(false), "memory.use_hierarchy 0");
        is(|limits| limits.cpu.realtime_runtime = Some(5), "cpu.rt_runtime_us 5");
        is(|limits| limits.cpu.realtime_period = Some(5), "cpu.rt_period_us 5");
        is(|limits| limits.block_io.leaf_weight = Some(10), "blkio.leaf_weight 10");
        let leaf = |limits: &mut Limits| {
            limits.block_io.leaf_weight_device = vec![crate::DeviceWeight { major: 8, minor: 0, weight: 10 }];
        };
        is(leaf, "blkio.leaf_weight_device 8:0 10");
        is(|limits| limits.network.class_id = Some(0x10_0001), "net_cls.classid 1048577");
        let priority = |limits: &mut Limits| {
            limits.network.priorities =
                vec![crate::NetworkPriority { interface: "lo".to_owned(), priority: 3 }];
        };
        is(priority, "net_prio.ifpriomap lo 3");
        // What callers send for "not set" or "no" asks for nothing.
        let mut limits = Limits::default();
        limits.memory.swappiness = Some(u64::MAX);
        limits.memory.disable_oom_killer = Some(false);
        assert_eq!(lines(&v2(), &limits), [""; 0]);
        assert_eq!(lines(&all, &limits), ["memory.oom_control 0"]);
    }

    #[test]
    fn shares_become_weights_on_the_curve() {
        let of = [2, 3, 100, 512, 1024, 2048, 262_143, 262_144].map(weight_of_shares);
        assert_eq!((of[0], of[4], of[7]), (1, 100, 10_000));
        assert!(of.is_sorted(), "{of:?}");
    }

    #[test]
    fn v2_values_are_written_as_the_kernel_reads_them() {
        let mut limits = Limits { pids: Some(-1), ..Limits::default() };
        limits.cpu.quota = Some(50_000);
        limits.block_io.weight = Some(1000);
        limits.block_io.read_bps =
            vec![DeviceRate { major: 8, minor: 0, rate: 1 }, DeviceRate { major: 8, minor: 16, rate: 0 }];
        limits.unified.insert("memory.high".to_owned(), "max".to_owned());
        let expected = [
            "pids.max max",
            "cpu.max 50000 100000",
            "io.bfq.weight 1000",
            "io.max 8:0 rbps=1",
            "io.max 8:16 rbps=max",
            "memory.high max",
        ];
        assert_eq!(lines(&v2(), &limits), expected);
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        let refused = |change: fn(&mut Limits)| {
            let mut limits = Limits::default();
            change(&mut limits);
            assert!(matches!(settings(&v2(), &limits), Err(Error::Value { .. })), "{limits:?}");
        };
        refused(|limits| limits.cpu.shares = Some(1));
        refused(|limits| limits.cpu.period = Some(999));
        refused(|limits| limits.cpu.quota = Some(999));
        refused(|limits| limits.block_io.weight = Some(9));
        refused(|limits| limits.block_io.leaf_weight = Some(9));
        refused(|limits| limits.cpu.idle = Some(2));
        refused(|limits| limits.unified = [("../x".to_owned(), "1".to_owned())].into());
        refused(|limits| limits.unified = [("nothing.max".to_owned(), "1".to_owned())].into());
        refused(|limits| {
            limits.memory = Memory { limit: Some(5), reservation: Some(6), ..Memory::default() }
        });
    }
}
