//! From a request to a running process: the monitor's side of the clone.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroup::{Group, Hierarchy};
use kernel::process::{self, CloneFlags, Cloned, Ended};
use kernel::record::{Actor, Chapter, because};
use rustix::fs::{Mode, OFlags};

use crate::attach::Prepared;
use crate::bind;
use crate::child::{self, Child, FromChild, Go};
use crate::error::{Error, InStep as _, Result};
use crate::hooks;
use crate::intel_rdt;
use crate::labels;
use crate::limits;
use crate::message;
use crate::namespaces::{self, Plan};
use crate::net_devices;
use crate::overlay::mount_overlay;
use crate::request::{Request, RootFileSystem};
use crate::seccomp;
use crate::spec::IdMapping;
use crate::streams::Streams;

const CAP_SYS_ADMIN: u64 = 1 << 21;

/// A container to make.
#[derive(Debug)]
pub struct Job<'a> {
    /// What is asked.
    pub request: &'a Request,
    /// The container's ends of its streams; with a terminal they are what it has until then.
    pub streams: Streams,
    /// The control group file systems.
    pub hierarchy: &'a Hierarchy,
    /// A FIFO open for reading and writing: with it the process stops before its program until a byte comes.
    pub gate: Option<OwnedFd>,
}

/// A container whose program runs.
#[derive(Debug)]
pub struct Running {
    /// Its first process, a child of the caller.
    pub child: process::Child,
    /// Its control group; none where there is none to be had and no limit was asked.
    pub group: Option<Group>,
    /// The other end of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    /// Its user namespace, if it has a new one: what it left behind may belong to ids that only exist in there.
    pub user_namespace: Option<OwnedFd>,
}

/// Makes the container. On failure everything that was made is undone.
///
/// `born` is called when the process exists and has not yet done anything, so that it can be found again if this one is
/// killed. The caller must be single-threaded and ignore SIGPIPE.
pub fn launch(job: Job<'_>, born: impl FnOnce(u32) -> Result<()>) -> Result<Running> {
    let (request, hierarchy) = (job.request, job.hierarchy);
    let capabilities = kernel::identity::capabilities().in_step("cannot read this process's capabilities")?;
    let privileged = capabilities.effective & CAP_SYS_ADMIN != 0;
    let plan = Plan::new(request, privileged)?;
    labels::check(request)?;
    because(Chapter::Limits, "the group that the container's processes are counted and limited in");
    let limits = limits::of_request(request, privileged && !plan.begins_in_user_namespace)?;
    let mut group = crate::group::make(request, hierarchy, &limits)?;
    let steps = Steps {
        in_unit: |pid| crate::group::make_unit(request, hierarchy, pid, &limits),
        last: |pid, group: Option<&Group>| {
            group.map_or(Ok(()), |group| group.limit_devices(&limits))?;
            born(pid)
        },
    };
    let made = launch_in(job, &plan, privileged, &mut group, steps);
    match made {
        Ok((child, terminal, user_namespace)) => Ok(Running { child, group, terminal, user_namespace }),
        Err(error) => {
            // What failed first is what counts here too.
            let _ = intel_rdt::remove(request);
            if let Some(group) = group {
                // What failed first is what counts; a group that cannot be removed is found by the next command.
                let _ = group.kill().and_then(|()| group.remove());
            }
            Err(error)
        }
    }
}

type Made = (process::Child, Option<OwnedFd>, Option<OwnedFd>);

/// What is done when there is a process: its group by systemd, if that is asked for, which wants to know it; and the last steps.
struct Steps<U, L> {
    in_unit: U,
    last: L,
}

fn launch_in(
    job: Job<'_>,
    plan: &Plan,
    privileged: bool,
    group: &mut Option<Group>,
    steps: Steps<impl FnOnce(u32) -> Result<Option<Group>>, impl FnOnce(u32, Option<&Group>) -> Result<()>>,
) -> Result<Made> {
    let Job { request, streams, hierarchy, gate } = job;
    let can_open = privileged && !kernel::mount::by_path::is_needed();
    let binds = if can_open { bind::open_all(&request.spec)? } else { BTreeMap::new() };
    let shared_memory_of = request.shared_memory_of.as_deref().map(namespaces::open).transpose()?;
    let prepared = Prepared { overlays: Vec::new(), binds, shared_memory_of };
    if privileged {
        give_to_mapped_root(request, &streams)?;
    }
    let (ours, theirs) = kernel::socket::pair().in_step("cannot talk to the container's process")?;
    because(
        Chapter::Namespaces,
        "one call makes the process and its namespaces, and puts it into its control group",
    );
    let first = match process::clone3(plan.first_flags(), group.as_ref().and_then(Group::v2_directory))
        .in_step("cannot make the container's process")?
    {
        Cloned::Child => {
            drop(ours);
            start_child(Child {
                request,
                plan,
                hierarchy,
                streams,
                prepared,
                socket: theirs,
                gate,
                covers: None,
            })
        }
        Cloned::Parent(first) => first,
    };
    drop((theirs, streams, prepared, gate));
    let guided = guide(request, plan, privileged, group, &first, &ours, steps);
    match guided {
        Ok((child, terminal, user_namespace)) => Ok((child.unwrap_or(first), terminal, user_namespace)),
        Err(error) => {
            because(Chapter::CleanUp, "the container could not be made, so its process ends");
            // It may have ended by itself; then there is nothing to signal, and it is reaped all the same.
            let _ = process::send_signal(first.pidfd.as_fd(), libc::SIGKILL);
            let _ = process::wait(first.pidfd.as_fd());
            Err(error)
        }
    }
}

/// Leads the new process until it is the container's program; gives the child that an intermediate process made.
fn guide(
    request: &Request,
    plan: &Plan,
    privileged: bool,
    group: &mut Option<Group>,
    first: &process::Child,
    socket: &OwnedFd,
    steps: Steps<impl FnOnce(u32) -> Result<Option<Group>>, impl FnOnce(u32, Option<&Group>) -> Result<()>>,
) -> Result<(Option<process::Child>, Option<OwnedFd>, Option<OwnedFd>)> {
    match group {
        Some(group) => {
            because(Chapter::Limits, "from here on every process of the container counts in this group");
            match first.is_in_group {
                true => group.join(first.pid)?,
                false => group.join_everywhere(first.pid)?,
            }
        }
        None => *group = (steps.in_unit)(first.pid)?,
    }
    intel_rdt::begin(request, first.pid)?;
    write_score(request, first.pid)?;
    let user_namespace = match plan.new_flags.contains(CloneFlags::NEWUSER) {
        true => map_ids(request, privileged, first.pid)?,
        false => None,
    };
    let overlays = match &user_namespace {
        Some(user_namespace) if privileged => shifted_overlays(request, user_namespace)?,
        _ => Vec::new(),
    };
    let go = |overlays: &[OwnedFd]| {
        let fds: Vec<BorrowedFd<'_>> = overlays.iter().map(AsFd::as_fd).collect();
        message::send(socket, &Go::On, &fds).in_step("cannot talk to the container's process")
    };
    let mut second = None;
    if plan.needs_intermediate() {
        go(&[])?;
        second = Some(second_process(socket, first)?);
    }
    net_devices::move_into(request, second.as_ref().unwrap_or(first).pid)?;
    go(&overlays)?;
    // While the child builds its root file system, which takes as long.
    let process = second.as_ref().unwrap_or(first);
    (steps.last)(process.pid, group.as_ref())?;
    if hooks::before_root_changes(&request.spec) {
        until_mounted(socket)?;
        hooks::run_outside(request, process.pid)?;
        go(&[])?;
    }
    child::send_filter(socket.as_fd(), request)?;
    let terminal = until_program(request, socket, process)?;
    Ok((second, terminal, user_namespace))
}

fn start_child(child: Child<'_>) -> ! {
    if child.plan.needs_intermediate() {
        kernel::record::actor(Actor::Intermediate);
        let outcome = child::wait_for_go(child.socket.as_fd()).and_then(|_| {
            child.plan.enter()?;
            if !child.plan.joined.is_empty() {
                because(
                    Chapter::Namespaces,
                    "who is in a shared PID namespace already may not look into the newcomer",
                );
                kernel::identity::set_dumpable(false).in_step("cannot protect the container's process")?;
            }
            because(
                Chapter::Namespaces,
                "the container's process, in all its namespaces; the intermediate one ends",
            );
            process::clone3(child.plan.second_flags(), None).in_step("cannot make the container's process")
        });
        match outcome {
            Ok(Cloned::Child) => {}
            Ok(Cloned::Parent(second)) => {
                let told = FromChild::Cloned(second.pid);
                let sent = message::send(&child.socket, &told, &[second.pidfd.as_fd()]);
                process::exit(if sent.is_ok() { 0 } else { 125 })
            }
            Err(error) => child::fail(child.socket.as_fd(), &error),
        }
    }
    child.run()
}

/// The process that the intermediate one made, which is a child of this one; the intermediate one is reaped.
pub(crate) fn second_process(socket: &OwnedFd, first: &process::Child) -> Result<process::Child> {
    let second = match message::receive::<FromChild>(socket)? {
        Some((FromChild::Cloned(pid), mut fds)) if fds.len() == 1 => {
            process::Child { pid, pidfd: fds.remove(0), is_in_group: first.is_in_group }
        }
        Some((FromChild::Failed(failure), _)) => return Err(Error::InContainer(failure)),
        _ => return Err(ended_early(first)),
    };
    process::wait(first.pidfd.as_fd()).in_step("cannot wait for the intermediate process")?;
    Ok(second)
}

/// Waits until the child has made its mounts.
fn until_mounted(socket: &OwnedFd) -> Result<()> {
    match message::receive::<FromChild>(socket)? {
        Some((FromChild::Mounted, _)) => Ok(()),
        Some((FromChild::Failed(failure), _)) => Err(Error::InContainer(failure)),
        _ => Err(Error::EndedEarly { ended: "before its mounts were made".to_owned() }),
    }
}

/// Listens until the child is ready for its program, or the socket closes, which execve does; the terminal may come by on the way.
pub(crate) fn until_program(
    request: &Request,
    socket: &OwnedFd,
    child: &process::Child,
) -> Result<Option<OwnedFd>> {
    let mut terminal = None;
    loop {
        match message::receive::<FromChild>(socket)? {
            Some((FromChild::Terminal, mut fds)) => terminal = fds.pop(),
            Some((FromChild::Listener, mut fds)) => {
                if let Some(listener) = fds.pop() {
                    seccomp::hand_on(request, child.pid, &listener)?;
                }
                message::send(socket, &Go::On, &[]).in_step("cannot talk to the container's process")?;
            }
            Some((FromChild::Ready, _)) => return Ok(terminal),
            Some((FromChild::Failed(failure), _)) => return Err(Error::InContainer(failure)),
            Some((FromChild::Cloned(_) | FromChild::Joined | FromChild::Mounted, _)) => {}
            // A process that is killed closes the socket too; whoever waits for it finds that out.
            None => return Ok(terminal),
        }
    }
}

fn ended_early(child: &process::Child) -> Error {
    let ended = match process::wait(child.pidfd.as_fd()) {
        Ok(Ended::Exited(status)) => format!("status {status}"),
        Ok(Ended::Signaled(signal)) => format!("signal {signal}"),
        Err(error) => error.to_string(),
    };
    Error::EndedEarly { ended }
}

/// Written from outside: inside, a process that others may not look into does not own this file.
pub(crate) fn write_score(request: &Request, pid: u32) -> Result<()> {
    let Some(score) = request.spec.process.as_ref().and_then(|process| process.oom_score_adj) else {
        return Ok(());
    };
    because(Chapter::Limits, "--oom-score-adj: how early the kernel ends this process when memory runs out");
    kernel::file::write_control(&PathBuf::from(format!("/proc/{pid}/oom_score_adj")), &score.to_string())
        .in_step("cannot set --oom-score-adj")
}

/// Maps ids of the new user namespace of the process `pid` by newuidmap(1) and newgidmap(1), which may do what a plain user may not:
/// use the ranges of /etc/subuid and /etc/subgid. The caller must be single-threaded.
pub fn map_by_helpers(pid: u32, users: &[IdMapping], groups: &[IdMapping]) -> Result<()> {
    run_helper("newuidmap", pid, users)?;
    run_helper("newgidmap", pid, groups)
}

/// Writes which ids inside are which outside, and opens the namespace.
pub(crate) fn map_ids(request: &Request, privileged: bool, pid: u32) -> Result<Option<OwnedFd>> {
    let Some(linux) = &request.spec.linux else { return Ok(None) };
    let process = PathBuf::from(format!("/proc/{pid}"));
    if request.map_with_helpers {
        map_by_helpers(pid, &linux.uid_mappings, &linux.gid_mappings)?;
    } else {
        write_maps(&process, &linux.uid_mappings, &linux.gid_mappings, privileged)?;
    }
    let path = process.join("ns/user");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map(Some)
        .map_err(|errno| kernel::Error::new("open", path.display().to_string(), errno))
        .in_step("cannot map users")
}

/// Writes the maps of a process's user namespace. `process` is its directory in `/proc`.
pub(crate) fn write_maps(
    process: &Path,
    users: &[IdMapping],
    groups: &[IdMapping],
    privileged: bool,
) -> Result<()> {
    const STEP: &str = "cannot map users";
    if !privileged {
        because(Chapter::Namespaces, "a user without rights may map groups only after giving setgroups up");
        kernel::file::write_control(&process.join("setgroups"), "deny").in_step(STEP)?;
    }
    for (file, mappings) in [("uid_map", users), ("gid_map", groups)] {
        because(Chapter::Namespaces, "which ids inside the user namespace are which outside");
        let line = |map: &IdMapping| format!("{} {} {}\n", map.container_id, map.host_id, map.size);
        let lines: String = mappings.iter().map(line).collect();
        kernel::file::write_control(&process.join(file), &lines).in_step(STEP)?;
    }
    Ok(())
}

/// newuidmap(1) and newgidmap(1) may map the ranges of /etc/subuid and /etc/subgid, which a plain user may not.
fn run_helper(name: &'static str, pid: u32, mappings: &[IdMapping]) -> Result<()> {
    because(
        Chapter::Namespaces,
        "the set-user-id helper maps the ranges that the administrator gave this user",
    );
    let mut argv = vec![name.to_owned(), pid.to_string()];
    for map in mappings {
        argv.extend([map.container_id, map.host_id, map.size].map(|number| number.to_string()));
    }
    let environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    let path = crate::program::find(name, &environment)?;
    let child = match process::clone3(CloneFlags::empty(), None).in_step("cannot start newuidmap")? {
        Cloned::Child => {
            kernel::record::actor(Actor::Helper);
            kernel::signal::unblock_all();
            // Nothing is left to say to anybody: the exit status tells.
            let _ = process::execve(&path, &argv, &environment);
            process::exit(127)
        }
        Cloned::Parent(child) => child,
    };
    match process::wait(child.pidfd.as_fd()).in_step("cannot wait for newuidmap")? {
        Ended::Exited(0) => Ok(()),
        other => Err(Error::Configuration {
            what: name,
            value: argv[2..].join(" "),
            reason: format!(
                "refused (status {}); are these ids yours in /etc/subuid and /etc/subgid?",
                other.code()
            ),
        }),
    }
}

/// With shifted ids the container's root is somebody else on the host; the streams shall be its own.
fn give_to_mapped_root(request: &Request, streams: &Streams) -> Result<()> {
    let Some(linux) = &request.spec.linux else { return Ok(()) };
    let root_of = |maps: &[IdMapping]| maps.iter().find(|map| map.container_id == 0).map(|map| map.host_id);
    match (root_of(&linux.uid_mappings), root_of(&linux.gid_mappings)) {
        (Some(uid), Some(gid)) => streams.give_to(uid, Some(gid)),
        _ => Ok(()),
    }
}

/// Union mounts whose lower layers show their owners shifted into the container's user namespace.
fn shifted_overlays(request: &Request, user_namespace: &OwnedFd) -> Result<Vec<OwnedFd>> {
    let RootFileSystem::Overlays(overlays) = &request.root else { return Ok(Vec::new()) };
    because(
        Chapter::RootFileSystem,
        "the layers are shown with shifted owners: no file is copied or changed",
    );
    overlays.iter().map(|overlay| mount_overlay(overlay, Some(user_namespace))).collect()
}
