//! What can go wrong with a group, and what a person can do about it.

use std::path::PathBuf;

use kernel::Errno;

use crate::Refusal;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a group cannot be made, limited, read or removed. [`Error::advice`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that says which hierarchies there are, or one of a group, cannot be read.
    #[error("cannot read {}: {}", path.display(), std::io::Error::from(*errno))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// No control groups are mounted where this process can see them.
    #[error("no control group file system is mounted")]
    NoHierarchy,
    /// A group's name or parent that cannot be one.
    #[error("{name:?} cannot name a control group: {reason}")]
    Name {
        /// As given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A limit whose value makes no sense.
    #[error("{option} {value}: {reason}")]
    Value {
        /// The option as docker names it.
        option: &'static str,
        /// As given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A limit is asked for, and this user may not make groups anywhere.
    #[error("{option} cannot be enforced: no control group is delegated to this user")]
    NotDelegated {
        /// The option as docker names it.
        option: &'static str,
        /// Whether systemd is pid 1 here.
        systemd: bool,
        /// Whether this is an ordinary user.
        user: bool,
        /// Whether groups of version 2 are to be had at all: older ones cannot be delegated.
        v2: bool,
    },
    /// A limit is asked for, and systemd gave no scope to hold it.
    #[error("{option} cannot be enforced: {source}")]
    NoScope {
        /// The option as docker names it.
        option: &'static str,
        /// Whether this is an ordinary user.
        user: bool,
        /// What systemd said.
        source: Refusal,
    },
    /// The part of the kernel that enforces a limit is not available.
    #[error("{option} cannot be enforced: {} has no {controller} controller", directory.display())]
    NoController {
        /// The option as docker names it.
        option: &'static str,
        /// `memory`, `pids`, …
        controller: &'static str,
        /// Where it is missing.
        directory: PathBuf,
        /// Whether that is a group that somebody else hands controllers to.
        delegated: bool,
    },
    /// The kernel does not offer the file that a limit is written to.
    #[error("{option} cannot be enforced: this kernel has no {}", file.display())]
    NotOffered {
        /// The option as docker names it.
        option: &'static str,
        /// The file that is not there.
        file: PathBuf,
    },
    /// The limit exists on other kinds of hierarchy only.
    #[error("{option} cannot be enforced with control groups of version 1: {reason}")]
    NotInV1 {
        /// The option as docker names it.
        option: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// The limit exists with version 1 only.
    #[error(
        "{option} cannot be enforced: only the {controller} controller of version 1 knows it, which is not in use here"
    )]
    OnlyInV1 {
        /// The option as docker names it.
        option: &'static str,
        /// `memory`, `net_cls`, …
        controller: &'static str,
    },
    /// A limit below what is in use, where that was to be checked. Callers of runtimes know this text from runc.
    #[error("rejecting {what} limit {limit} <= usage {usage}")]
    BelowUsage {
        /// `memory` or `memory+swap`.
        what: &'static str,
        /// Bytes asked for.
        limit: i64,
        /// Bytes of memory in use.
        usage: u64,
    },
    /// A limit of memory that the group's processes are beyond and cannot come below. Callers of runtimes know this text from runc.
    #[error("unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})")]
    MemoryInUse {
        /// As written.
        limit: String,
        /// Bytes in use.
        usage: u64,
        /// The most bytes that ever were in use.
        peak: u64,
    },
    /// A group with processes of its own cannot hand controllers to groups below it.
    #[error("{} has processes of its own, so the kernel lets it limit no groups below it", directory.display())]
    Occupied {
        /// The group.
        directory: PathBuf,
    },
    /// A limit cannot be set.
    #[error("cannot set {option} to {value}: {source}")]
    Set {
        /// The option as docker names it.
        option: &'static str,
        /// What was written.
        value: String,
        /// The call that failed.
        source: kernel::Error,
    },
    /// systemd did not do what was asked of it with a container's unit.
    #[error("unable to {act} unit {unit:?}: {source}")]
    Unit {
        /// What it was to do: `start`, `change`, `enter`, `stop`.
        act: &'static str,
        /// The unit.
        unit: String,
        /// What systemd said.
        source: Refusal,
    },
    /// A group with this name is there already.
    #[error("control group {} exists already", path.display())]
    Exists {
        /// The group.
        path: PathBuf,
    },
    /// A group that must exist does not.
    #[error("control group {} does not exist", path.display())]
    Missing {
        /// The group.
        path: PathBuf,
    },
    /// A group that is to be a container's has processes already. Callers of runtimes know this text from runc.
    #[error("container's cgroup is not empty: {count} process(es) found")]
    NotEmpty {
        /// The group.
        path: PathBuf,
        /// How many processes are in it and below.
        count: usize,
    },
    /// A group that is to be a container's is frozen, so nothing would ever run in it. Callers of runtimes know this text from runc.
    #[error("container's cgroup unexpectedly frozen")]
    FoundFrozen {
        /// The group.
        path: PathBuf,
    },
    /// A group cannot be made.
    #[error("cannot make a control group: {0}")]
    Make(#[source] kernel::Error),
    /// A process cannot be put into a group.
    #[error("cannot put process {pid} into its control group: {source}")]
    Join {
        /// The process.
        pid: u32,
        /// The call that failed.
        source: kernel::Error,
    },
    /// A group's processes cannot be killed.
    #[error("cannot kill the processes of a control group: {0}")]
    Kill(#[source] kernel::Error),
    /// A group's processes do not end although they were killed.
    #[error("processes of {} were killed and do not end: {processes:?}", path.display())]
    Lingering {
        /// The group.
        path: PathBuf,
        /// Those left.
        processes: Vec<u32>,
    },
    /// A group cannot be stopped or let go on.
    #[error("cannot freeze or thaw a control group: {0}")]
    Freeze(#[source] kernel::Error),
    /// Waiting for a group failed.
    #[error("cannot wait for a control group: {0}")]
    Wait(#[source] kernel::Error),
    /// A group that still has processes cannot be removed.
    #[error("control group {} still has processes: {processes:?}", path.display())]
    InUse {
        /// The group.
        path: PathBuf,
        /// Those in it.
        processes: Vec<u32>,
    },
    /// A group cannot be removed.
    #[error("cannot remove a control group: {0}")]
    Remove(#[source] kernel::Error),
}

impl Error {
    /// What a person can do about it, if anything.
    pub fn advice(&self) -> Option<String> {
        let text = match self {
            Error::NoHierarchy => "mount them: mount -t cgroup2 none /sys/fs/cgroup".to_owned(),
            Error::NotDelegated { systemd: true, user: true, v2: true, .. }
            | Error::NoScope { user: true, source: Refusal::Unreachable { .. }, .. } => {
                "have a systemd started for this user, which delegates: log in, or as root: loginctl enable-linger NAME".to_owned()
            }
            Error::NoScope { user: true, .. } => {
                "see what stands in the way of the scope that it delegates: systemctl --user status coracle.scope".to_owned()
            }
            Error::NotDelegated { systemd: true, user: false, .. } | Error::NoScope { user: false, .. } => {
                "run in a scope that systemd delegates: systemd-run --scope -p Delegate=yes coracle run …".to_owned()
            }
            Error::NotDelegated { v2: true, .. } => delegation_by_hand(),
            Error::NotDelegated { v2: false, .. } => {
                "run as root, or boot with control groups of version 2 (systemd.unified_cgroup_hierarchy=1), which can be delegated"
                    .to_owned()
            }
            Error::NoController { controller, directory, delegated: true, .. } if rustix::process::geteuid().is_root() => {
                let above: Vec<String> = directory.ancestors().skip(1).map(|group| group.display().to_string()).collect();
                let above = above.iter().filter(|group| group.starts_with("/sys/fs/cgroup")).rev().cloned();
                format!(
                    "systemd hands down what it knows: cpu, cpuset, io, memory, pids. Hand {controller} down by hand: for g in {}; do echo \
                     +{controller} > $g/cgroup.subtree_control; done",
                    above.collect::<Vec<_>>().join(" ")
                )
            }
            Error::NoController { controller, delegated: true, .. } => format!(
                "have it delegated, as root: mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate={controller} \
                 cpu memory pids\\n' > /etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload, then log in anew"
            ),
            Error::NoController { controller: "memory", .. } => {
                "boot with cgroup_enable=memory, or with a kernel that has CONFIG_MEMCG".to_owned()
            }
            Error::NoController { controller, .. } => {
                format!("see /proc/cgroups; {controller} must be in this kernel and not disabled by cgroup_disable=")
            }
            Error::NotOffered { option: "--memory-swap", .. } => {
                "leave --memory-swap out, or boot with swapaccount=1".to_owned()
            }
            Error::NotOffered { option: "--blkio-weight" | "--blkio-weight-device", .. } => {
                "leave it out, or load a scheduler that knows weights: modprobe bfq && echo bfq > /sys/block/DISK/queue/scheduler".to_owned()
            }
            Error::Set { option: "--blkio-weight" | "--blkio-weight-device", source, .. }
                if source.errno() == Errno::OPNOTSUPP =>
            {
                "leave it out, or give the disk a scheduler that knows weights: modprobe bfq && echo bfq > /sys/block/DISK/queue/scheduler"
                    .to_owned()
            }
            Error::Occupied { directory } => {
                let shown = directory.display();
                format!(
                    "move them into a group of their own: mkdir {shown}/init && for p in $(cat {shown}/cgroup.procs); \
                     do echo $p > {shown}/init/cgroup.procs; done"
                )
            }
            Error::Exists { .. } => "choose another name, or remove what is left of the container of this name".to_owned(),
            Error::InUse { .. } => "stop the container first".to_owned(),
            Error::Set { option: "device rules", source, .. } if source.errno() == Errno::PERM => {
                "run as root: only root may load device programs".to_owned()
            }
            _ => return None,
        };
        Some(text)
    }
}

fn delegation_by_hand() -> String {
    let uid = rustix::process::geteuid().as_raw();
    format!(
        "delegate a group and enter it, as root: echo '+cpu +memory +pids' > /sys/fs/cgroup/cgroup.subtree_control; \
         g=/sys/fs/cgroup/user-{uid}; mkdir -p $g/shell && chown {uid} $g $g/cgroup.procs $g/cgroup.subtree_control $g/shell \
         $g/shell/cgroup.procs && echo PID-OF-YOUR-SHELL > $g/shell/cgroup.procs"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_depends_on_who_is_asked() {
        let none = |systemd, user, v2| Error::NotDelegated { option: "--memory", systemd, user, v2 };
        for (error, expected) in [
            (none(true, true, true), "loginctl enable-linger"),
            // Version 1 cannot be delegated, whoever is asked.
            (none(true, true, false), "systemd.unified_cgroup_hierarchy=1"),
            (none(true, false, true), "systemd-run --scope -p Delegate=yes"),
            (none(false, true, true), "delegate a group"),
            (no_scope(true, Refusal::Exists), "systemctl --user status"),
            (
                no_scope(true, Refusal::Unreachable { socket: "/s".into(), errno: Errno::NOENT }),
                "enable-linger",
            ),
            (no_scope(false, Refusal::Silent { seconds: 20 }), "systemd-run --scope -p Delegate=yes"),
        ] {
            assert!(error.advice().unwrap().contains(expected), "{error}: {:?}", error.advice());
        }
    }

    #[test]
    fn a_disk_without_weights_is_met_with_a_scheduler() {
        let set = |errno| Error::Set {
            option: "--blkio-weight-device",
            value: "254:0 100".to_owned(),
            source: kernel::Error::new("write", "blkio.bfq.weight_device", errno),
        };
        assert!(set(Errno::OPNOTSUPP).advice().unwrap().contains("modprobe bfq"));
        assert_eq!(set(Errno::INVAL).advice(), None);
    }

    fn no_scope(user: bool, source: Refusal) -> Error {
        Error::NoScope { option: "--memory", user, source }
    }
}
