//! `events`: what a container uses, as runc's callers read it, and when it runs out of memory.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use cgroup::{Counter, Detailed, Stalls, Transfer};
use runtime::Error;
use runtime::container::{Container, Fault, Status};
use serde_json::{Map, Value, json};

use crate::arguments::{Flag, Given, option, switch};
use crate::{Failed, Global, Outcome};

pub const FLAGS: &[Flag] = &[
    option("interval", None, "DURATION", "how often, as in 500ms, 5s or 1m [5s]"),
    switch("stats", None, "once"),
];

pub fn run(global: &Global, given: &Given) -> Outcome {
    let container = Container::open(&global.root, &given.operands[0])?;
    let interval = given.value("interval").map_or(Ok(5_000), milliseconds)?;
    if container.status()? == Status::Stopped {
        return Err(Failed::new(format!("container with id {} is not running", given.operands[0])));
    }
    let id = &container.record.request.id;
    let mut oom_kills = None;
    loop {
        let Some(process) = container.process()? else { return Ok(ExitCode::SUCCESS) };
        let Some(group) = container.group()? else { return Err(Error::from(Fault::NotRunning).into()) };
        let detailed = group.detailed().map_err(Error::from)?;
        let kills = detailed.memory.as_ref().and_then(|memory| memory.events.get("oom_kill").copied());
        if oom_kills.is_some_and(|before| kills > Some(before)) {
            println!("{}", json!({ "type": "oom", "id": id }));
        }
        oom_kills = Some(kills.unwrap_or(0));
        println!("{}", json!({ "type": "stats", "id": id, "data": data(&detailed) }));
        if given.is_on("stats") {
            return Ok(ExitCode::SUCCESS);
        }
        // It ends with the container.
        let ended = kernel::process::has_ended_within(process.as_fd(), interval);
        if ended.map_err(|error| Failed::new(error.to_string()))? {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// A duration as Go writes it, of one unit.
fn milliseconds(text: &str) -> Result<u32, Failed> {
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let number: Option<u32> = text[..text.len() - unit.len()].parse().ok();
    let factor = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let all = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    match all {
        None => Err(Failed::new(format!("invalid value {text:?} for flag -interval: parse error"))),
        Some(0) => Err(Failed::new("duration interval must be greater than 0")),
        Some(all) => Ok(all),
    }
}

fn data(detailed: &Detailed) -> Value {
    let mut data = json!({
        "cpu": cpu(detailed),
        "pids": detailed.pids.map_or(json!({}), |pids| without_nothing(json!({ "current": pids.current, "limit": pids.limit }))),
        "blkio": block_io(detailed),
        "hugetlb": detailed.hugepages.iter().map(|(size, used)| (size.clone(), counter(used))).collect::<Map<_, _>>(),
        "intel_rdt": {},
        "network_interfaces": null,
        "memory": memory(detailed),
    });
    if let Some(cpuset) = &detailed.cpuset {
        let mut shown = json!({ "cpus": cpuset.cpus, "mems": cpuset.mems });
        for (name, value) in &cpuset.flags {
            shown[name] = json!(value);
        }
        data["cpuset"] = shown;
    }
    data
}

fn cpu(detailed: &Detailed) -> Value {
    let cpu = &detailed.cpu;
    let usage = without_nothing(json!({
        "total": cpu.total,
        "percpu": cpu.per_cpu,
        "percpu_kernel": cpu.per_cpu_kernel,
        "percpu_user": cpu.per_cpu_user,
        "kernel": cpu.kernel.unwrap_or(0),
        "user": cpu.user.unwrap_or(0),
    }));
    let throttling = without_nothing(json!({
        "periods": cpu.periods,
        "throttledPeriods": cpu.throttled_periods,
        "throttledTime": cpu.throttled,
    }));
    without_nothing(
        json!({ "usage": usage, "throttling": throttling, "psi": cpu.pressure.as_ref().map(pressure) }),
    )
}

fn memory(detailed: &Detailed) -> Value {
    let Some(memory) = &detailed.memory else { return json!({}) };
    without_nothing(json!({
        "cache": memory.cache,
        "usage": counter(&memory.usage),
        "swap": memory.swap.as_ref().map(counter),
        "kernel": memory.kernel.as_ref().map(counter),
        "kernelTCP": memory.kernel_tcp.as_ref().map(counter),
        "raw": memory.raw,
        "psi": memory.pressure.as_ref().map(pressure),
    }))
}

fn block_io(detailed: &Detailed) -> Value {
    let io = &detailed.block_io;
    let lists: BTreeMap<&str, &Vec<Transfer>> = [
        ("ioServiceBytesRecursive", &io.service_bytes),
        ("ioServicedRecursive", &io.serviced),
        ("ioQueueRecursive", &io.queued),
        ("ioServiceTimeRecursive", &io.service_time),
        ("ioWaitTimeRecursive", &io.wait_time),
        ("ioMergedRecursive", &io.merged),
        ("ioTimeRecursive", &io.time),
        ("sectorsRecursive", &io.sectors),
    ]
    .into();
    let mut shown: Map<String, Value> = lists
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| (name.to_owned(), list.iter().map(transfer).collect()))
        .collect();
    if let Some(stalls) = &io.pressure {
        shown.insert("psi".to_owned(), pressure(stalls));
    }
    shown.into()
}

fn transfer(transfer: &Transfer) -> Value {
    let Transfer { major, minor, operation, value } = transfer;
    json!({ "major": major, "minor": minor, "op": operation, "value": value })
}

fn counter(counter: &Counter) -> Value {
    without_nothing(json!({
        "limit": counter.limit,
        "usage": counter.usage,
        "max": counter.peak,
        "failcnt": counter.failures,
    }))
}

fn pressure(stalls: &Stalls) -> Value {
    let line = |stall: &cgroup::Stall| {
        let share = |hundredths: u32| f64::from(hundredths) / 100.0;
        json!({
            "avg10": share(stall.last_10s),
            "avg60": share(stall.last_60s),
            "avg300": share(stall.last_300s),
            "total": stall.total_usec,
        })
    };
    json!({ "some": line(&stalls.some), "full": line(&stalls.full) })
}

/// Without the fields that nothing is known of.
fn without_nothing(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null() && field.as_array().is_none_or(|list| !list.is_empty()));
    }
    value
}
