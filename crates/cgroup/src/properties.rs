//! Limits as properties of a unit, so that systemd knows what holds and does not undo it when it is reloaded. See
//! systemd.resource-control(5) and org.freedesktop.systemd1(5).
//!
//! They need not be exact: the files are written afterwards and the device program decides beside systemd's own. But nothing that is allowed
//! may be denied by them.

use crate::dbus::Value;
use crate::detailed::parse_list;
use crate::devices::is_everything;
use crate::setting::{memory_and_swap, stretched, weight_of_shares};
use crate::{DeviceKind, DeviceRule, Limits, Result};

type Properties = Vec<(&'static str, Value<'static>)>;

/// systemd's "no limit".
const INFINITY: u64 = u64::MAX;
/// systemd's weight of a group that runs only when no other wants to.
const IDLE: u64 = 0;
const DEFAULT_PERIOD: u64 = 100_000;

/// The properties that these limits are.
pub(crate) fn properties(limits: &Limits) -> Result<Properties> {
    let mut list = Vec::new();
    if let Some(pids) = limits.pids {
        list.push(("TasksMax", number(if pids == 0 { -1 } else { pids })));
    }
    memory(limits, &mut list)?;
    cpu(limits, &mut list);
    if let Some(weight) = limits.block_io.weight.filter(|weight| (10..=1000).contains(weight)) {
        list.push(("IOWeight", Value::Number(stretched(weight).into())));
    }
    unified(limits, &mut list);
    if !limits.devices.is_empty() {
        devices(&limits.devices, &mut list);
    }
    Ok(list)
}

fn number(value: i64) -> Value<'static> {
    Value::Number(u64::try_from(value).unwrap_or(INFINITY))
}

fn memory(limits: &Limits, list: &mut Properties) -> Result<()> {
    let memory = &limits.memory;
    for (name, value) in
        [("MemoryMax", memory.limit), ("MemoryLow", memory.reservation), ("MemoryHigh", memory.high)]
    {
        list.extend(value.map(|value| (name, number(value))));
    }
    if let Some(both) = memory_and_swap(memory)? {
        let swap = if both < 0 { both } else { both.saturating_sub(memory.limit.unwrap_or(0)) };
        list.push(("MemorySwapMax", number(swap)));
    }
    Ok(())
}

fn cpu(limits: &Limits, list: &mut Properties) {
    let cpu = &limits.cpu;
    let weight = cpu.shares.filter(|shares| *shares != 0).map(weight_of_shares);
    match cpu.idle.map(weight_of_idle) {
        Some(IDLE) => list.push(("CPUWeight", Value::Number(IDLE))),
        idle => list.extend(weight.or(idle).map(|weight| ("CPUWeight", Value::Number(weight)))),
    }
    let period = cpu.period.filter(|period| *period != 0);
    quota(cpu.quota.filter(|quota| *quota != 0), period, list);
    for (name, numbers) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
        set_of_numbers(name, numbers.as_deref().unwrap_or_default(), list);
    }
}

/// What systemd since version 252 writes to `cpu.idle` when it writes a weight, too; one before refuses this, and would undo what is asked.
fn weight_of_idle(idle: i64) -> u64 {
    if idle == 1 { IDLE } else { INFINITY }
}

fn quota(quota: Option<i64>, period: Option<u64>, list: &mut Properties) {
    if let Some(period) = period {
        list.push(("CPUQuotaPeriodUSec", Value::Number(period)));
    }
    if quota.is_none() && period.is_none() {
        return;
    }
    let per_second = |quota: u64| {
        let exact = u128::from(quota) * 1_000_000 / u128::from(period.unwrap_or(DEFAULT_PERIOD));
        // systemd counts in whole percents: a little more is allowed rather than a little less than was asked for.
        u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(INFINITY)
    };
    let quota = quota.and_then(|quota| u64::try_from(quota).ok());
    list.push(("CPUQuotaPerSecUSec", Value::Number(quota.map_or(INFINITY, per_second))));
}

/// A set as systemd takes it: one bit for each number, the lowest first.
fn set_of_numbers(name: &'static str, text: &str, list: &mut Properties) {
    let mut bytes = Vec::new();
    for number in parse_list(text) {
        let at = usize::from(number / 8);
        if bytes.len() <= at {
            bytes.resize(at + 1, 0u8);
        }
        bytes[at] |= 1 << (number % 8);
    }
    if !bytes.is_empty() {
        list.push((name, Value::Bytes(bytes)));
    }
}

/// Those files of version 2 that are properties. What cannot be read here is left to the kernel to refuse.
fn unified(limits: &Limits, list: &mut Properties) {
    let or_infinity = |text: &str| if text == "max" { Some(INFINITY) } else { text.parse().ok() };
    for (file, value) in &limits.unified {
        let value = value.trim();
        let name = match file.as_str() {
            "memory.min" => "MemoryMin",
            "memory.low" => "MemoryLow",
            "memory.high" => "MemoryHigh",
            "memory.max" => "MemoryMax",
            "memory.swap.max" => "MemorySwapMax",
            "pids.max" => "TasksMax",
            "cpu.weight" => "CPUWeight",
            "cpu.idle" => {
                list.extend(
                    value.parse().ok().map(|idle| ("CPUWeight", Value::Number(weight_of_idle(idle)))),
                );
                continue;
            }
            "io.weight" => {
                let weight = value.strip_prefix("default ").unwrap_or(value).trim().parse().ok();
                list.extend(weight.map(|weight| ("IOWeight", Value::Number(weight))));
                continue;
            }
            "cpu.max" => {
                let (limit, period) = value.split_once(' ').unwrap_or((value, ""));
                let limit = if limit == "max" { Some(-1) } else { limit.parse().ok() };
                quota(limit, period.trim().parse().ok(), list);
                continue;
            }
            "cpuset.cpus" => {
                set_of_numbers("AllowedCPUs", value, list);
                continue;
            }
            "cpuset.mems" => {
                set_of_numbers("AllowedMemoryNodes", value, list);
                continue;
            }
            _ => continue,
        };
        list.extend(or_infinity(value).map(|value| (name, Value::Number(value))));
    }
}

/// All that any of the rules allows. systemd knows no rule that takes something out again: that is left to the exact program beside it.
fn devices(rules: &[DeviceRule], list: &mut Properties) {
    let last = rules.iter().rposition(is_everything);
    let all = last.is_some_and(|at| rules[at].allow);
    let after = &rules[last.map_or(0, |at| at + 1)..];
    list.push(("DevicePolicy", Value::Text(if all { "auto" } else { "strict" })));
    // An empty list takes back what was in it.
    list.push(("DeviceAllow", Value::Pairs(Vec::new())));
    if !all {
        let allowed = after.iter().filter(|rule| rule.allow).flat_map(allowed_by).collect();
        list.push(("DeviceAllow", Value::Pairs(allowed)));
    }
}

/// A rule as systemd names devices: by number, by the driver's number, or all of a kind; one minor number of every driver it does not know.
fn allowed_by(rule: &DeviceRule) -> Vec<(String, String)> {
    let kinds: &[&str] = match rule.kind {
        DeviceKind::All => &["char", "block"],
        DeviceKind::Character => &["char"],
        DeviceKind::Block => &["block"],
    };
    let name = |kind: &&str| match (rule.major, rule.minor) {
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
        (Some(major), None) => format!("{kind}-{major}"),
        (None, _) => format!("{kind}-*"),
    };
    kinds.iter().map(|kind| (name(kind), rule.access.letters())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Access;

    fn of(change: impl Fn(&mut Limits)) -> Properties {
        let mut limits = Limits::default();
        change(&mut limits);
        properties(&limits).unwrap()
    }

    #[test]
    fn limits_become_properties() {
        assert_eq!(of(|_| ()), []);
        let one = of(|limits| limits.pids = Some(-1));
        assert_eq!(one, [("TasksMax", Value::Number(u64::MAX))]);
        let memory = of(|limits| {
            limits.memory.limit = Some(100);
            limits.memory.swap = Some(150);
        });
        assert_eq!(memory, [("MemoryMax", Value::Number(100)), ("MemorySwapMax", Value::Number(50))]);
        let quota = of(|limits| limits.cpu.quota = Some(12_345));
        assert_eq!(quota, [("CPUQuotaPerSecUSec", Value::Number(130_000))]);
        let period = of(|limits| limits.unified = [("cpu.max".to_owned(), "max 50000".to_owned())].into());
        let expected =
            [("CPUQuotaPeriodUSec", Value::Number(50_000)), ("CPUQuotaPerSecUSec", Value::Number(u64::MAX))];
        assert_eq!(period, expected);
        let idle = of(|limits| (limits.cpu.idle, limits.cpu.shares) = (Some(1), Some(1024)));
        assert_eq!(idle, [("CPUWeight", Value::Number(0))]);
        let not_idle = of(|limits| limits.cpu.idle = Some(0));
        assert_eq!(not_idle, [("CPUWeight", Value::Number(u64::MAX))]);
        let weight =
            of(|limits| limits.unified = [("io.weight".to_owned(), "default 200".to_owned())].into());
        assert_eq!(weight, [("IOWeight", Value::Number(200))]);
        let cpus = of(|limits| limits.cpu.cpus = Some("0-1,9".to_owned()));
        assert_eq!(cpus, [("AllowedCPUs", Value::Bytes(vec![3, 2]))]);
    }

    #[test]
    fn devices_are_allowed_at_least_as_far_as_the_rules_allow() {
        let rule = |allow, kind, major, minor| DeviceRule { allow, kind, major, minor, access: Access::ALL };
        let deny = rule(false, DeviceKind::All, None, None);
        let list = of(|limits| {
            limits.devices = vec![
                deny,
                rule(true, DeviceKind::Character, Some(1), Some(3)),
                rule(true, DeviceKind::Character, Some(136), None),
                rule(false, DeviceKind::Block, Some(8), None),
                rule(true, DeviceKind::Block, None, Some(5)),
            ];
        });
        let rwm = |name: &str| (name.to_owned(), "rwm".to_owned());
        let expected = [
            ("DevicePolicy", Value::Text("strict")),
            ("DeviceAllow", Value::Pairs(Vec::new())),
            ("DeviceAllow", Value::Pairs(vec![rwm("/dev/char/1:3"), rwm("char-136"), rwm("block-*")])),
        ];
        assert_eq!(list, expected);
        let all = of(|limits| {
            limits.devices = vec![deny, rule(true, DeviceKind::All, None, None), deny_null()];
        });
        assert_eq!(all[0], ("DevicePolicy", Value::Text("auto")));
        assert_eq!(all.len(), 2);
    }

    fn deny_null() -> DeviceRule {
        let (kind, access) = (DeviceKind::Character, Access::ALL);
        DeviceRule { allow: false, kind, major: Some(1), minor: Some(3), access }
    }
}
