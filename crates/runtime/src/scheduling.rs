//! How the container's process gets processors and disks: `process.scheduler`, `process.ioPriority`, `process.execCPUAffinity`.

use kernel::record::{Chapter, because};
use kernel::scheduling::{SchedulerAttributes, set_affinity, set_io_priority, set_scheduler};

use crate::error::{InStep as _, Result};
use crate::number_list;
use crate::spec::{IoPriority, IoPriorityClass, Process, Scheduler, SchedulerFlag, SchedulerPolicy};

/// In the process itself, while it may raise what it has: sets what its configuration asks for.
pub(crate) fn apply(process: &Process) -> Result<()> {
    if let Some(scheduler) = &process.scheduler {
        because(Chapter::Limits, "process.scheduler: when its threads get a processor");
        set_scheduler(attributes(scheduler)).in_step(SCHEDULER_STEP)?;
    }
    if let Some(IoPriority { class, priority }) = process.io_priority {
        because(Chapter::Limits, "process.ioPriority: how its requests to disks are ranked");
        let class = match class {
            IoPriorityClass::RealTime => 1,
            IoPriorityClass::BestEffort => 2,
            IoPriorityClass::Idle => 3,
        };
        // What is negative is too large as well.
        set_io_priority(class, priority as u32).in_step("cannot set process.ioPriority")?;
    }
    Ok(())
}

/// The step of `process.scheduler`, which has an advice of its own.
pub(crate) const SCHEDULER_STEP: &str = "cannot set process.scheduler";

fn attributes(scheduler: &Scheduler) -> SchedulerAttributes {
    let policy = match scheduler.policy {
        SchedulerPolicy::Other => libc::SCHED_OTHER,
        SchedulerPolicy::Fifo => libc::SCHED_FIFO,
        SchedulerPolicy::RoundRobin => libc::SCHED_RR,
        SchedulerPolicy::Batch => libc::SCHED_BATCH,
        // Reserved in <linux/sched.h>; no kernel has it, and so it is refused there.
        SchedulerPolicy::Iso => 4,
        SchedulerPolicy::Idle => libc::SCHED_IDLE,
        SchedulerPolicy::Deadline => libc::SCHED_DEADLINE,
    };
    let flag = |flag: &SchedulerFlag| match flag {
        SchedulerFlag::ResetOnFork => libc::SCHED_FLAG_RESET_ON_FORK,
        SchedulerFlag::Reclaim => libc::SCHED_FLAG_RECLAIM,
        SchedulerFlag::DeadlineOverrun => libc::SCHED_FLAG_DL_OVERRUN,
        SchedulerFlag::KeepPolicy => libc::SCHED_FLAG_KEEP_POLICY,
        SchedulerFlag::KeepParameters => libc::SCHED_FLAG_KEEP_PARAMS,
        SchedulerFlag::UtilizationClampMin => libc::SCHED_FLAG_UTIL_CLAMP_MIN,
        SchedulerFlag::UtilizationClampMax => libc::SCHED_FLAG_UTIL_CLAMP_MAX,
    };
    SchedulerAttributes {
        policy: policy as u32,
        flags: scheduler.flags.iter().map(flag).fold(0, |sum, bit| sum | bit as u64),
        nice: scheduler.nice,
        priority: scheduler.priority as u32,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    }
}

/// Processors of a process that joins a running container; empty where nothing is asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Affinity {
    initial: Vec<u32>,
    last: Vec<u32>,
}

impl Affinity {
    pub(crate) fn of(process: &Process) -> Result<Self> {
        let Some(asked) = &process.exec_cpu_affinity else { return Ok(Self::default()) };
        let list = |what, text: &str| match text {
            "" => Ok(Vec::new()),
            text => number_list::parse(what, text),
        };
        Ok(Self {
            initial: list("process.execCPUAffinity.initial", &asked.initial)?,
            last: list("process.execCPUAffinity.final", &asked.last)?,
        })
    }

    /// Whether the process must not be born into the container's group, where it would run elsewhere for a moment.
    pub(crate) fn begins_outside(&self) -> bool {
        !self.initial.is_empty()
    }

    /// Before the process is in the container's group.
    pub(crate) fn begin(&self, pid: u32) -> Result<()> {
        because(
            Chapter::Limits,
            "execCPUAffinity.initial: where it runs until it is in the container's control group",
        );
        set(pid, &self.initial, "cannot set process.execCPUAffinity.initial")
    }

    /// When it is.
    pub(crate) fn end(&self, pid: u32) -> Result<()> {
        because(Chapter::Limits, "execCPUAffinity.final: where it runs in the container's control group");
        set(pid, &self.last, "cannot set process.execCPUAffinity.final")
    }
}

fn set(pid: u32, processors: &[u32], step: &'static str) -> Result<()> {
    if processors.is_empty() { Ok(()) } else { set_affinity(pid, processors).in_step(step) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::CpuAffinity;

    #[test]
    fn each_field_goes_where_the_kernel_has_it() {
        let text = r#"{"policy": "SCHED_DEADLINE", "nice": -5, "priority": 7, "runtime": 1, "deadline": 2, "period": 3,
            "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_UTIL_CLAMP_MAX"]}"#;
        let scheduler: Scheduler = serde_json::from_str(text).unwrap();
        let expected = SchedulerAttributes {
            policy: 6,
            flags: 0x01 | 0x04 | 0x40,
            nice: -5,
            priority: 7,
            runtime: 1,
            deadline: 2,
            period: 3,
        };
        assert_eq!(attributes(&scheduler), expected);
        let numbers = ["OTHER", "FIFO", "RR", "BATCH", "ISO", "IDLE", "DEADLINE"].map(|name| {
            let text = format!(r#"{{"policy": "SCHED_{name}"}}"#);
            attributes(&serde_json::from_str(&text).unwrap()).policy
        });
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn affinity_is_two_lists_either_of_which_may_be_absent() {
        let of = |initial: &str, last: &str| {
            let asked = CpuAffinity { initial: initial.to_owned(), last: last.to_owned() };
            Affinity::of(&Process { exec_cpu_affinity: Some(asked), ..Process::default() })
        };
        assert_eq!(of("", "1-2").unwrap(), Affinity { initial: vec![], last: vec![1, 2] });
        assert!(of("0", "").unwrap().begins_outside() && !of("", "0").unwrap().begins_outside());
        let told = of("0", "x").unwrap_err().to_string();
        assert!(told.starts_with("process.execCPUAffinity.final \"x\""), "{told}");
        assert_eq!(Affinity::of(&Process::default()).unwrap(), Affinity::default());
    }
}
