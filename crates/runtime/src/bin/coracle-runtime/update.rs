//! `update`: other limits for a container.

use std::io::Read as _;
use std::process::ExitCode;

use runtime::Error;
use runtime::container::{Container, Fault, Status};
use runtime::intel_rdt;
use runtime::spec::{BlockIo, Cpu, Memory, Pids, Resources};

use crate::arguments::{Flag, Given, option};
use crate::{Failed, Global, Outcome};

pub const FLAGS: &[Flag] = &[
    option(
        "resources",
        Some("r"),
        "FILE",
        "linux.resources as JSON; - is standard input; other options are ignored then",
    ),
    option("blkio-weight", None, "WEIGHT", "share of block devices' time, 10 to 1000"),
    option("cpu-period", None, "MICROSECONDS", "length of a period"),
    option("cpu-quota", None, "MICROSECONDS", "processor time in each period; -1 is no limit"),
    option("cpu-share", None, "WEIGHT", "share of processor time, 2 to 262144"),
    option("cpu-rt-period", None, "MICROSECONDS", "length of a period of realtime programs (version 1)"),
    option("cpu-rt-runtime", None, "MICROSECONDS", "processor time of realtime programs in each (version 1)"),
    option("cpuset-cpus", None, "LIST", "processors, as in 0-3,7"),
    option("cpuset-mems", None, "LIST", "memory nodes"),
    option("kernel-memory", None, "BYTES", "obsolete: no kernel limits it any more"),
    option("kernel-memory-tcp", None, "BYTES", "memory of TCP sockets (version 1)"),
    option("memory", None, "BYTES", "memory; -1 is no limit"),
    option("memory-reservation", None, "BYTES", "memory that is kept when it is short"),
    option("memory-swap", None, "BYTES", "memory and swap together; -1 is no limit"),
    option("pids-limit", None, "NUMBER", "processes and threads; -1 is no limit"),
    option("l3-cache-schema", None, "SCHEMA", "Intel RDT cache"),
    option("mem-bw-schema", None, "SCHEMA", "Intel RDT memory bandwidth"),
];

pub fn run(global: &Global, given: &Given) -> Outcome {
    let mut container = Container::open(&global.root, &given.operands[0])?;
    if given.value("kernel-memory").is_some_and(|value| !value.is_empty()) {
        global.log.warning("--kernel-memory: no kernel limits it any more, so it is passed over");
    }
    let resources = match given.value("resources") {
        Some(path) => read(path)?,
        None => from_options(given)?,
    };
    let limits = runtime::limits::for_update(&resources)?;
    if container.status()? == Status::Stopped {
        return Err(Error::from(Fault::NotRunning).into());
    }
    let Some(mut group) = container.group()? else {
        return Err(Failed::new("the container has no control group, so nothing can be limited"));
    };
    let schema = |name| given.value(name).filter(|schema| !schema.is_empty());
    let (cache, bandwidth) = (schema("l3-cache-schema"), schema("mem-bw-schema"));
    if cache.is_some() || bandwidth.is_some() {
        let pid = container.pid();
        intel_rdt::update(&mut container.record.request, pid, cache, bandwidth)?;
        container.write()?;
    }
    group.update(&limits).map_err(Error::from)?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &str) -> Result<Resources, Failed> {
    let mut text = String::new();
    match path {
        "-" => drop(std::io::stdin().read_to_string(&mut text)?),
        path if !std::path::Path::new(path).exists() => {
            return Err(Failed::new(format!("open {path}: no such file or directory")));
        }
        path => text = fs_err::read_to_string(path)?,
    }
    runtime::state::from_json(text.as_bytes())
        .map_err(|error| Failed::new(format!("--resources {path}: {error}")))
}

fn from_options(given: &Given) -> Result<Resources, Failed> {
    let memory = Memory {
        limit: bytes(given, "memory")?,
        reservation: bytes(given, "memory-reservation")?,
        swap: bytes(given, "memory-swap")?,
        kernel_tcp: bytes(given, "kernel-memory-tcp")?,
        ..Memory::default()
    };
    let text = |name| given.value(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let cpu = Cpu {
        shares: given.number("cpu-share")?,
        quota: given.number("cpu-quota")?,
        period: given.number("cpu-period")?,
        realtime_runtime: given.number("cpu-rt-runtime")?,
        realtime_period: given.number("cpu-rt-period")?,
        cpus: text("cpuset-cpus"),
        mems: text("cpuset-mems"),
        ..Cpu::default()
    };
    let block_io = BlockIo { weight: given.number("blkio-weight")?, ..BlockIo::default() };
    Ok(Resources {
        memory: Some(memory),
        cpu: Some(cpu),
        block_io: Some(block_io),
        pids: given.number("pids-limit")?.map(|limit| Pids { limit }),
        ..Resources::default()
    })
}

/// A number of bytes, with a unit as docker writes it: `50m`.
fn bytes(given: &Given, name: &str) -> Result<Option<i64>, Failed> {
    let Some(text) = given.value(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(['b', 'i']);
    let shift = ["k", "m", "g", "t", "p"]
        .iter()
        .position(|unit| digits.ends_with(unit))
        .map_or(0, |at| 10 * (at + 1));
    let number: Option<i64> =
        digits.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()).parse().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .map(Some)
        .ok_or_else(|| Failed::new(format!("invalid value for {name}: invalid size: '{text}'")))
}
