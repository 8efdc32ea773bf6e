//! When a process gets the processor and the disk, and which processors: sched(7), ioprio_set(2).

#![allow(unsafe_code)]

use rustix::io::Errno;

use crate::raw::check;
use crate::record::{self, Arg, act};
use crate::{Error, Result};

/// What [`set_scheduler`] asks for: struct sched_attr of sched_setattr(2), whose names these are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulerAttributes {
    /// The policy's number, `SCHED_…`.
    pub policy: u32,
    /// `SCHED_FLAG_…`.
    pub flags: u64,
    /// -20 (most) to 19 (least), for the policies that are not real-time.
    pub nice: i32,
    /// 1 to 99, for `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// `SCHED_DEADLINE`: nanoseconds.
    pub runtime: u64,
    /// `SCHED_DEADLINE`: nanoseconds.
    pub deadline: u64,
    /// `SCHED_DEADLINE`: nanoseconds.
    pub period: u64,
}

/// struct sched_attr as since Linux 5.3.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// `sched_setattr(0, attr, 0)`: how this thread gets processor time. See sched_setattr(2).
///
/// More than the process has takes CAP_SYS_NICE or a limit that allows it (`RLIMIT_NICE`, `RLIMIT_RTPRIO`): else `EPERM`.
pub fn set_scheduler(attributes: SchedulerAttributes) -> Result<()> {
    let SchedulerAttributes { policy, flags, nice, priority, runtime, deadline, period } = attributes;
    let size = size_of::<SchedAttr>() as u32;
    let attr = SchedAttr {
        size,
        policy,
        flags,
        nice,
        priority,
        runtime,
        deadline,
        period,
        util_min: 0,
        util_max: 0,
    };
    let args = || {
        let nice = ("sched_nice".to_owned(), Arg::Int(nice.into()));
        let Arg::Struct(mut fields) = record::numbers(&[
            ("size", size.into()),
            ("sched_policy", policy.into()),
            ("sched_flags", flags),
            ("sched_priority", priority.into()),
            ("sched_runtime", runtime),
            ("sched_deadline", deadline),
            ("sched_period", period),
        ]) else {
            return Vec::new();
        };
        fields.insert(3, nice);
        vec![Arg::Int(0), Arg::Struct(fields), Arg::Int(0)]
    };
    let set = || {
        // SAFETY: the structure outlives the call and says its own size, which is all that the kernel reads.
        check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) })
    };
    act("sched_setattr", args, |_| 0, set)
        .map_err(|errno| Error::new("sched_setattr", format!("policy {policy}"), errno))?;
    Ok(())
}

/// `ioprio_set(IOPRIO_WHO_PROCESS, 0, class << 13 | priority)`: how this thread's requests to disks are ranked. See ioprio_set(2).
///
/// The real-time class takes CAP_SYS_ADMIN or CAP_SYS_NICE: else `EPERM`.
pub fn set_io_priority(class: u32, priority: u32) -> Result<()> {
    const WHO_PROCESS: u32 = 1;
    const CLASS_SHIFT: u32 = 13;
    const MOST: u32 = 7;
    let failed = |errno| Error::new("ioprio_set", format!("class {class}, priority {priority}"), errno);
    if priority > MOST {
        return Err(failed(Errno::INVAL));
    }
    let value = class << CLASS_SHIFT | priority;
    let args = || {
        let who = Arg::Flags(WHO_PROCESS.into(), "IOPRIO_WHO_PROCESS".to_owned());
        vec![who, Arg::Int(0), Arg::Flags(value.into(), format!("class {class}, priority {priority}"))]
    };
    let set = || {
        // SAFETY: takes three numbers.
        check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) })
    };
    act("ioprio_set", args, |_| 0, set).map_err(failed)?;
    Ok(())
}

/// `sched_setaffinity(pid, size, mask)`: the processors that a process may run on, by their numbers. See sched_setaffinity(2).
///
/// Those that the machine or the process's control group has not are left out; none left is `EINVAL`.
pub fn set_affinity(pid: u32, processors: &[u32]) -> Result<()> {
    let mask = bit_mask(processors);
    let object = || format!("processors {processors:?} of process {pid}");
    let args = || {
        let list = processors.iter().map(u32::to_string).collect();
        vec![Arg::Int(pid.into()), Arg::Int((mask.len() * 8) as i64), Arg::List(list)]
    };
    let set = || {
        // SAFETY: pointer and length in bytes describe one live slice.
        check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, mask.len() * 8, mask.as_ptr()) })
    };
    act("sched_setaffinity", args, |_| 0, set)
        .map_err(|errno| Error::new("sched_setaffinity", object(), errno))?;
    Ok(())
}

/// The words of a bit mask with these bits, at least one word.
pub(crate) fn bit_mask(bits: &[u32]) -> Vec<u64> {
    let words = bits.iter().max().map_or(1, |most| *most as usize / 64 + 1);
    let mut mask = vec![0_u64; words];
    for bit in bits {
        mask[*bit as usize / 64] |= 1 << (bit % 64);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_a_bit_for_each_number() {
        assert_eq!(bit_mask(&[]), [0]);
        assert_eq!(bit_mask(&[0, 3, 63]), [1 << 63 | 0b1001]);
        assert_eq!(bit_mask(&[64, 130]), [0, 1, 0b100]);
    }

    #[test]
    fn a_rank_that_does_not_fit_is_refused() {
        assert_eq!(set_io_priority(2, 8).unwrap_err().errno(), Errno::INVAL);
    }
}
