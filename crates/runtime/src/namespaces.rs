//! Which namespaces a container gets, and in what order.
//!
//! All new ones come with one clone3, except two. A cgroup namespace takes the group that its maker is in as its root, and a cloning
//! process is not yet in the container's: so it is unshared by the child. Clock offsets can only be set while a
//! time namespace has no process, so it is unshared, its offsets are written, and then the child is cloned into
//! it. That, and entering namespaces that exist already, is done by an intermediate process, so that the monitor itself stays where it is.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use kernel::namespace::{setns, unshare};
use kernel::process::CloneFlags;
use kernel::record::{Chapter, because};
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, InStep as _, Result};
use crate::request::Request;
use crate::spec::{NamespaceKind, TimeOffset};

/// What to make and what to enter.
#[derive(Debug)]
pub struct Plan {
    /// New namespaces for clone3.
    pub new_flags: CloneFlags,
    /// Whether the child unshares a cgroup namespace.
    pub new_cgroup: bool,
    /// Clock offsets of a new time namespace.
    pub time_offsets: Option<Vec<(String, TimeOffset)>>,
    /// Namespaces to enter, the user namespace first.
    pub joined: Vec<Joined>,
    /// Whether setgroups(2) is allowed in the container's user namespace.
    pub may_set_groups: bool,
    /// Whether this process is in a user namespace, without any that the container gets.
    pub begins_in_user_namespace: bool,
}

/// A namespace that exists already.
#[derive(Debug)]
pub struct Joined {
    kind: NamespaceKind,
    path: PathBuf,
    file: OwnedFd,
}

pub(crate) fn flag(kind: NamespaceKind) -> CloneFlags {
    match kind {
        NamespaceKind::User => CloneFlags::NEWUSER,
        NamespaceKind::Pid => CloneFlags::NEWPID,
        NamespaceKind::Mount => CloneFlags::NEWNS,
        NamespaceKind::Network => CloneFlags::NEWNET,
        NamespaceKind::Uts => CloneFlags::NEWUTS,
        NamespaceKind::Ipc => CloneFlags::NEWIPC,
        NamespaceKind::Cgroup => CloneFlags::NEWCGROUP,
        NamespaceKind::Time => CloneFlags::NEWTIME,
    }
}

impl Plan {
    /// Reads the plan from a request and opens the namespaces to enter.
    pub fn new(request: &Request, privileged: bool) -> Result<Self> {
        let mut plan = Self {
            new_flags: CloneFlags::empty(),
            new_cgroup: false,
            time_offsets: None,
            joined: Vec::new(),
            may_set_groups: true,
            begins_in_user_namespace: is_in_user_namespace()?,
        };
        let Some(linux) = &request.spec.linux else { return Ok(plan) };
        for namespace in &linux.namespaces {
            match (&namespace.path, namespace.kind) {
                (Some(path), kind) => {
                    plan.joined.push(Joined { kind, path: path.clone(), file: open(path)? });
                }
                (None, NamespaceKind::Cgroup) => plan.new_cgroup = true,
                (None, NamespaceKind::Time) => {
                    let offsets = linux.time_offsets.iter().map(|(clock, offset)| (clock.clone(), *offset));
                    plan.time_offsets = Some(offsets.collect());
                }
                (None, kind) => plan.new_flags |= flag(kind),
            }
        }
        plan.joined.sort_by_key(|joined| joined.kind);
        let unprivileged_map = plan.has_user_namespace() && !privileged;
        plan.may_set_groups = !unprivileged_map || request.map_with_helpers;
        Ok(plan)
    }

    /// The plan of a process that goes into a container's namespaces of these kinds.
    pub fn to_join(request: &Request, kinds: &[NamespaceKind]) -> Result<Self> {
        let in_user_namespace = kinds.contains(&NamespaceKind::User);
        let may_set_groups = !in_user_namespace || request.map_with_helpers || may_set_groups()?;
        Ok(Self {
            new_flags: CloneFlags::empty(),
            new_cgroup: false,
            time_offsets: None,
            joined: Vec::new(),
            may_set_groups,
            begins_in_user_namespace: is_in_user_namespace()?,
        })
    }

    /// Whether the container is in a user namespace of its own or another container's.
    pub fn has_user_namespace(&self) -> bool {
        let joined = self.joined.iter().any(|joined| joined.kind == NamespaceKind::User);
        joined || self.new_flags.contains(CloneFlags::NEWUSER)
    }

    /// Whether the container's root may make no device nodes, so that those of the host are shown.
    pub fn makes_no_nodes(&self) -> bool {
        self.begins_in_user_namespace || self.has_user_namespace()
    }

    /// Whether an intermediate process is needed.
    pub fn needs_intermediate(&self) -> bool {
        self.time_offsets.is_some() || !self.joined.is_empty()
    }

    /// The flags of the first clone.
    pub fn first_flags(&self) -> CloneFlags {
        if self.needs_intermediate() { self.new_flags & CloneFlags::NEWUSER } else { self.new_flags }
    }

    /// The flags of the intermediate process's own clone: the child's parent shall be the monitor.
    pub fn second_flags(&self) -> CloneFlags {
        (self.new_flags - CloneFlags::NEWUSER) | CloneFlags::PARENT
    }

    /// In the intermediate process: enters what exists, and makes the time namespace for its child.
    pub fn enter(&self) -> Result<()> {
        const CLOCKS: &str = "/proc/self/timens_offsets";
        const CLOCK_STEP: &str = "cannot set the offset of a clock";
        // Opened while the mounts are the host's: in another's mount namespace anything may be there.
        let clocks = self.time_offsets.as_ref().map(|_| {
            rustix::fs::open(CLOCKS, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| kernel::Error::new("open", CLOCKS, errno))
                .in_step(CLOCK_STEP)
        });
        let clocks = clocks.transpose()?;
        if self.new_flags.contains(CloneFlags::NEWUSER) {
            become_root()?;
        }
        for joined in &self.joined {
            because(Chapter::Namespaces, "this namespace is another process's, shared from now on");
            let name = joined.path.display().to_string();
            setns(joined.file.as_fd(), flag(joined.kind), &name).in_step("cannot enter a namespace")?;
            if joined.kind == NamespaceKind::User {
                become_root()?;
            }
        }
        if let (Some(offsets), Some(clocks)) = (&self.time_offsets, &clocks) {
            because(Chapter::Namespaces, "the child will be in a time namespace whose clocks are shifted");
            unshare(CloneFlags::NEWTIME).in_step("cannot make a time namespace")?;
            for (clock, offset) in offsets {
                because(Chapter::Namespaces, "clocks can be set only before the first process is in it");
                let line = format!("{clock} {} {}", offset.secs, offset.nanosecs);
                kernel::file::write_open_control(clocks.as_fd(), CLOCKS.as_ref(), &line)
                    .in_step(CLOCK_STEP)?;
            }
        }
        Ok(())
    }
}

pub(crate) fn become_root() -> Result<()> {
    because(Chapter::Namespaces, "root of the user namespace may make and enter the others");
    kernel::identity::set_group(0).in_step("cannot become root of the user namespace")?;
    kernel::identity::set_user(0).in_step("cannot become root of the user namespace")
}

/// Whether this process is in a user namespace below the machine's first, where even root may load no device program: user_namespaces(7).
fn is_in_user_namespace() -> Result<bool> {
    const EVERYBODY: [&str; 3] = ["0", "0", "4294967295"];
    let map = match fs_err::read_to_string("/proc/self/uid_map") {
        // A kernel without user namespaces.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    Ok(!map.split_ascii_whitespace().eq(EVERYBODY))
}

/// Whether this process is root outside, so that the container's maps were made without giving setgroups up.
fn may_set_groups() -> Result<bool> {
    const CAP_SETGID: u64 = 1 << 6;
    let held = kernel::identity::capabilities().in_step("cannot read this process's capabilities")?;
    Ok(held.effective & CAP_SETGID != 0)
}

/// The kinds of namespaces in which the process `pid` is in another one than this process.
pub(crate) fn other_than_own(pid: u32) -> Result<Vec<NamespaceKind>> {
    const KINDS: [NamespaceKind; 8] = [
        NamespaceKind::User,
        NamespaceKind::Pid,
        NamespaceKind::Mount,
        NamespaceKind::Network,
        NamespaceKind::Uts,
        NamespaceKind::Ipc,
        NamespaceKind::Cgroup,
        NamespaceKind::Time,
    ];
    let identity = |process: &str, name: &str| fs_err::read_link(format!("/proc/{process}/ns/{name}"));
    let mut kinds = Vec::new();
    for kind in KINDS {
        let name = kind.file_name();
        // A kernel without this kind has no file of it.
        let Ok(own) = identity("self", name) else { continue };
        if identity(&pid.to_string(), name)? != own {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

/// A namespace that exists, by its file.
pub(crate) fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
        let source = kernel::Error::new("open", path.display().to_string(), errno);
        Error::Step { step: "cannot enter a namespace", source }
    })
}
