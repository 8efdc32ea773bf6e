//! What a running container is made of, asked of the kernel at this moment: nothing here is remembered.

use std::path::PathBuf;

use cgroup::{Group, Statistics};

use crate::container::{self, Record, Status};
use crate::error::{Error, Result};
use crate::roots::Roots;

/// The kinds of namespaces by their names in `/proc/PID/ns`.
const KINDS: [&str; 8] = ["user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time"];

/// A running container, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Anatomy {
    /// What was asked.
    pub record: Record,
    /// Its first process's number, here.
    pub pid: u32,
    /// The namespaces of that process.
    pub namespaces: Vec<Namespace>,
    /// Its control groups.
    pub groups: Vec<Membership>,
    /// What these count and limit; none without a group.
    pub statistics: Option<Statistics>,
    /// All that it sees mounted.
    pub mounts: Vec<Mount>,
    /// What its first process may do.
    pub privileges: Privileges,
    /// What AppArmor confines it by, and how: `NAME (enforce)`, or `unconfined`. None where AppArmor is off.
    pub apparmor_profile: Option<String>,
    /// All processes of the container's group, or the first alone where there is no group.
    pub processes: Vec<Process>,
}

/// One namespace of a process: namespaces(7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// `pid`, `mnt`, …
    pub kind: &'static str,
    /// Its inode number, which is its identity.
    pub inode: u64,
    /// Whether this process is in it too.
    pub is_shared: bool,
}

/// One line of `/proc/PID/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The controllers of a version 1 hierarchy, with commas; empty for version 2.
    pub controllers: String,
    /// The group below the hierarchy's root.
    pub path: String,
}

/// One mount: proc_pid_mountinfo(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is, as the container sees it.
    pub target: PathBuf,
    /// The part of the file system that is seen; `/` for all of it.
    pub root: String,
    /// The file system.
    pub kind: String,
    /// Options of the mount: `ro`, `nosuid`.
    pub options: Vec<String>,
    /// Options of the file system: `size=65536k`, `lowerdir+=…`.
    pub super_options: Vec<String>,
}

/// Who a process is and what the kernel lets it do: the lines of proc_pid_status(5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Privileges {
    /// Effective user, as numbered here.
    pub user: u32,
    /// Effective group, as numbered here.
    pub group: u32,
    /// What counts when the kernel asks, a bit for each capability.
    pub effective: u64,
    /// What it and its children can ever have.
    pub bounding: u64,
    /// Whether execve raises nothing.
    pub no_new_privileges: bool,
    /// 0: every system call, 1: strict, 2: a filter decides.
    pub seccomp: u32,
    /// How many filters decide.
    pub filters: u32,
}

/// A process, here and inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number here.
    pub pid: u32,
    /// Its number in the container's own PID namespace.
    pub pid_inside: u32,
    /// Its arguments; its short name in brackets for a process without.
    pub command: String,
}

/// Takes a running container apart. `typed` is its name or the beginning of its id.
pub fn of(roots: &Roots, typed: &str) -> Result<Anatomy> {
    let found = container::find(roots, typed)?;
    let Status::Running(state) = &found.status else {
        return Err(Error::NotRunning { name: typed.to_owned() });
    };
    let group = open_group(roots, &found.record.id)?;
    let processes = match &group {
        Some(group) => group.processes().map_err(runtime::Error::from)?,
        None => vec![state.pid],
    };
    let taken_apart = || -> std::io::Result<Anatomy> {
        Ok(Anatomy {
            pid: state.pid,
            namespaces: namespaces(state.pid)?,
            groups: memberships(&read(state.pid, "cgroup")?),
            statistics: None,
            mounts: read(state.pid, "mountinfo")?.lines().filter_map(mount).collect(),
            privileges: privileges(&read(state.pid, "status")?),
            apparmor_profile: runtime::has_apparmor()
                .then(|| crate::apparmor::profile_of(&state.pid.to_string()))
                .transpose()?,
            // One that has ended since is not there any more.
            processes: processes.into_iter().filter_map(|pid| process(pid).ok()).collect(),
            record: found.record.clone(),
        })
    };
    let mut anatomy = taken_apart().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NotRunning { name: typed.to_owned() },
        _ => error.into(),
    })?;
    let statistics = group.map(|group| group.statistics()).transpose();
    anatomy.statistics = statistics.map_err(runtime::Error::from)?;
    Ok(anatomy)
}

fn open_group(roots: &Roots, id: &str) -> Result<Option<Group>> {
    let request = container::read_request(&roots.containers().join(id));
    let parent = request.as_ref().and_then(|request| request.cgroup_parent.as_deref());
    Ok(runtime::group::find(&roots.volatile.join(id), parent, id)?)
}

fn read(pid: u32, file: &str) -> std::io::Result<String> {
    let text = fs_err::read(format!("/proc/{pid}/{file}"))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn namespaces(pid: u32) -> std::io::Result<Vec<Namespace>> {
    let inode = |who: &str, kind: &str| -> std::io::Result<u64> {
        let link = fs_err::read_link(format!("/proc/{who}/ns/{kind}"))?;
        let text = link.to_string_lossy().into_owned();
        let number = text.split(['[', ']']).nth(1).and_then(|number| number.parse().ok());
        number.ok_or_else(|| std::io::Error::other(format!("/proc/{who}/ns/{kind} is {text}")))
    };
    let one = |kind: &'static str| -> std::io::Result<Namespace> {
        let number = inode(&pid.to_string(), kind)?;
        Ok(Namespace { kind, inode: number, is_shared: inode("self", kind)? == number })
    };
    KINDS.into_iter().map(one).collect()
}

fn memberships(text: &str) -> Vec<Membership> {
    let line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        Some(Membership { controllers: controllers.to_owned(), path: path.to_owned() })
    };
    text.lines().filter_map(line).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let mut right = right.split(' ');
    let list = |text: &str| text.split(',').map(unescape).collect();
    Some(Mount {
        root: unescape(left.get(3)?),
        target: PathBuf::from(unescape(left.get(4)?)),
        options: list(left.get(5)?),
        kind: right.next()?.to_owned(),
        super_options: right.nth(1).map(list).unwrap_or_default(),
    })
}

/// `\\040` is a space: the kernel writes space, tab, newline and backslash as octal numbers.
pub(crate) fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn privileges(status: &str) -> Privileges {
    let line = |key: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        found.unwrap_or("").trim()
    };
    let number = |text: &str| text.parse().unwrap_or(0);
    let set = |key: &str| u64::from_str_radix(line(key), 16).unwrap_or(0);
    let effective = |key: &str| line(key).split_ascii_whitespace().nth(1).map_or(0, number);
    Privileges {
        user: effective("Uid"),
        group: effective("Gid"),
        effective: set("CapEff"),
        bounding: set("CapBnd"),
        no_new_privileges: line("NoNewPrivs") == "1",
        seccomp: number(line("Seccomp")),
        filters: number(line("Seccomp_filters")),
    }
}

fn process(pid: u32) -> std::io::Result<Process> {
    let status = read(pid, "status")?;
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
    let inside = line("NSpid:").and_then(|numbers| numbers.split_ascii_whitespace().last()?.parse().ok());
    let arguments = read(pid, "cmdline")?;
    let command = match arguments.trim_end_matches('\0') {
        "" => format!("[{}]", line("Name:").unwrap_or("").trim()),
        arguments => arguments.replace('\0', " "),
    };
    Ok(Process { pid, pid_inside: inside.unwrap_or(pid), command })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_lines() {
        let line =
            "31 24 0:45 /a\\040b /etc/hosts ro,nosuid shared:1 - overlay overlay rw,lowerdir=/x:/y,volatile";
        let mount = mount(line).unwrap();
        assert_eq!((mount.root.as_str(), mount.kind.as_str()), ("/a b", "overlay"));
        assert_eq!(mount.options, ["ro", "nosuid"]);
        assert_eq!(mount.super_options, ["rw", "lowerdir=/x:/y", "volatile"]);
        let groups = memberships("3:cpu,cpuacct:/coracle/x\n0::/coracle/x\n");
        assert_eq!(groups[0].controllers, "cpu,cpuacct");
        assert_eq!((groups[1].controllers.as_str(), groups[1].path.as_str()), ("", "/coracle/x"));
        let status = "Name:\tsh\nUid:\t0\t7\t0\t0\nCapEff:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let read = privileges(status);
        assert_eq!((read.user, read.effective, read.no_new_privileges), (7, 0xa804_25fb, true));
        assert_eq!((read.seccomp, read.filters), (2, 1));
    }
}
