//! Rules of `process`: config.md, "Process", "POSIX process" and "Linux Process".

use std::collections::BTreeSet;

use super::error::{Error, Result, Warning};
use super::{absolute, range};
use crate::capability;
use crate::number_list;
use crate::spec::{Process, Rlimit, Scheduler, SchedulerPolicy};

pub(super) fn validate(process: &Process, at: &str, warnings: &mut Vec<Warning>) -> Result<()> {
    if process.args.is_empty() {
        return Err(Error::Missing { path: format!("{at}.args"), reason: "it names the program" });
    }
    absolute(&format!("{at}.cwd"), &process.cwd)?;
    if let Some(score) = process.oom_score_adj {
        range(&format!("{at}.oomScoreAdj"), score.into(), -1000, 1000)?;
    }
    capabilities(process, at, warnings);
    rlimits(&process.rlimits, at)?;
    scheduler(process.scheduler.as_ref(), at)?;
    if let Some(priority) = process.io_priority {
        range(&format!("{at}.ioPriority.priority"), priority.priority.into(), 0, 7)?;
    }
    if let Some(affinity) = &process.exec_cpu_affinity {
        for (name, list) in [("initial", &affinity.initial), ("final", &affinity.last)] {
            let path = format!("{at}.execCPUAffinity.{name}");
            if list.is_empty() {
                continue;
            }
            if !number_list::is_list(list) {
                let reason = "not a list of processors, as in 0-3,7";
                return Err(Error::Malformed { path, value: list.clone(), reason });
            }
        }
    }
    Ok(())
}

/// A name may be newer than this runtime, and a container then simply does not get it: as runc since 1.1.
fn capabilities(process: &Process, at: &str, warnings: &mut Vec<Warning>) {
    let mut told = BTreeSet::new();
    for (set, names) in process.capabilities.iter().flat_map(|capabilities| capabilities.sets()) {
        for (place, name) in names.iter().enumerate() {
            if capability::number(name).is_none() && told.insert(name) {
                let path = format!("{at}.capabilities.{set}[{place}]");
                let reason = "this capability is not known, so it is not given";
                warnings.push(Warning { path, value: name.clone(), reason });
            }
        }
    }
}

fn rlimits(limits: &[Rlimit], at: &str) -> Result<()> {
    for (place, limit) in limits.iter().enumerate() {
        let path = |name| format!("{at}.rlimits[{place}].{name}");
        if kernel::identity::rlimit_number(&limit.kind).is_none() {
            let known = "the limits of setrlimit(2), as in RLIMIT_NOFILE";
            return Err(Error::Unknown { path: path("type"), value: limit.kind.clone(), known });
        }
        if limits[..place].iter().any(|before| before.kind == limit.kind) {
            return Err(Error::Duplicate { path: path("type"), value: limit.kind.clone() });
        }
        if limit.soft > limit.hard {
            let reason = "the soft limit is more than the hard one";
            return Err(Error::Conflict { path: path("soft"), value: limit.soft.to_string(), reason });
        }
    }
    Ok(())
}

/// What sched_setattr(2) demands of the fields.
fn scheduler(scheduler: Option<&Scheduler>, at: &str) -> Result<()> {
    let Some(scheduler) = scheduler else { return Ok(()) };
    let policy = scheduler.policy;
    let path = |name: &str| format!("{at}.scheduler.{name}");
    range(&path("nice"), scheduler.nice.into(), -20, 19)?;
    match policy {
        SchedulerPolicy::Fifo | SchedulerPolicy::RoundRobin => {
            range(&path("priority"), scheduler.priority.into(), 1, 99)?;
        }
        _ if scheduler.priority != 0 => {
            let reason = "only SCHED_FIFO and SCHED_RR have priorities";
            let value = scheduler.priority.to_string();
            return Err(Error::Conflict { path: path("priority"), value, reason });
        }
        _ => {}
    }
    let times =
        [("runtime", scheduler.runtime), ("deadline", scheduler.deadline), ("period", scheduler.period)];
    for (name, time) in times {
        if time != 0 && policy != SchedulerPolicy::Deadline {
            let reason = "only SCHED_DEADLINE has it";
            return Err(Error::Conflict { path: path(name), value: time.to_string(), reason });
        }
    }
    Ok(())
}
