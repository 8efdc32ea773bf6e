//! Another program in a container that runs: into its namespaces and its control group, then the same last steps as its first program.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use cgroup::{Group, Hierarchy};
use kernel::namespace::setns;
use kernel::process::{self, CloneFlags, Cloned};
use kernel::record::{Actor, Chapter, because};

use crate::attach::Prepared;
use crate::child::{self, Child, FromChild, Go};
use crate::container::{Container, Fault};
use crate::error::{InStep as _, Result};
use crate::intel_rdt;
use crate::labels;
use crate::launch;
use crate::message;
use crate::namespaces::{self, Plan};
use crate::scheduling::Affinity;
use crate::spec::{NamespaceKind, Process};
use crate::streams::Streams;

/// A program to run.
#[derive(Debug)]
pub struct Exec<'a> {
    /// Where.
    pub container: &'a Container,
    /// What, and as whom.
    pub process: Process,
    /// What it reads, and where it writes.
    pub streams: Streams,
    /// That many descriptors after the standard ones stay open.
    pub preserve_fds: u32,
    /// The container's control group, or one below it for this program.
    pub group: Option<Group>,
}

/// A program that runs in a container.
#[derive(Debug)]
pub struct Executed {
    /// Its process, a child of the caller.
    pub child: process::Child,
    /// The other end of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

/// Runs another program in a container.
///
/// The caller must be single-threaded and ignore SIGPIPE.
///
/// # Errors
/// [`Fault::ExecStopped`]; what [`launch()`](crate::launch()) fails with.
pub fn exec(exec: Exec<'_>) -> Result<Executed> {
    let container = exec.container;
    let Some(init) = container.process()? else { return Err(Fault::ExecStopped.into()) };
    let mut request = container.record.request.clone();
    request.spec.process = Some(exec.process);
    request.spec.hooks = None;
    if let Some(oci) = &mut request.oci {
        oci.preserve_fds = exec.preserve_fds;
        // It stays in the keyring of whoever asks: keys are found by session, and this is another one.
        oci.no_new_keyring = true;
    }
    labels::check(&request)?;
    let group = exec.group;
    let kinds = namespaces::other_than_own(container.pid())?;
    let plan = Plan::to_join(&request, &kinds)?;
    let hierarchy = Hierarchy::detect()?;
    let affinity = Affinity::of(request.spec.process.as_ref().unwrap_or(&Process::default()))?;
    let born_into = group.as_ref().filter(|_| !affinity.begins_outside()).and_then(Group::v2_directory);
    let (ours, theirs) = kernel::socket::pair().in_step("cannot talk to the new process")?;
    because(
        Chapter::Namespaces,
        "a process that is born into the container's group goes into its namespaces and makes the new one there",
    );
    let first = match clone_into(born_into).in_step("cannot make the new process")? {
        Cloned::Child => {
            drop(ours);
            let child = Child {
                request: &request,
                plan: &plan,
                hierarchy: &hierarchy,
                streams: exec.streams,
                prepared: Prepared::default(),
                socket: theirs,
                gate: None,
                covers: None,
            };
            enter(child, &init, &kinds)
        }
        Cloned::Parent(first) => first,
    };
    drop((theirs, exec.streams));
    let guided = guide(&request, group.as_ref(), &affinity, &first, &ours);
    if guided.is_err() {
        // It may have ended by itself; then there is nothing to signal, and it is reaped all the same.
        let _ = process::send_signal(first.pidfd.as_fd(), libc::SIGKILL);
        let _ = process::wait(first.pidfd.as_fd());
    }
    guided
}

/// A new process, outside the group where only systemd may put it there.
fn clone_into(group: Option<BorrowedFd<'_>>) -> kernel::Result<Cloned> {
    match process::clone3(CloneFlags::empty(), group) {
        Err(error) if error.errno() == kernel::Errno::ACCESS && group.is_some() => {
            process::clone3(CloneFlags::empty(), None)
        }
        other => other,
    }
}

fn guide(
    request: &crate::request::Request,
    group: Option<&Group>,
    affinity: &Affinity,
    first: &process::Child,
    socket: &OwnedFd,
) -> Result<Executed> {
    affinity.begin(first.pid)?;
    if let Some(group) = group {
        because(Chapter::Limits, "from here on the new process counts in the container's group");
        match first.is_in_group {
            true => group.join(first.pid)?,
            false => group.join_everywhere(first.pid)?,
        }
    }
    affinity.end(first.pid)?;
    intel_rdt::join(request, first.pid)?;
    launch::write_score(request, first.pid)?;
    let go = || message::send(socket, &Go::On, &[]).in_step("cannot talk to the new process");
    go()?;
    let child = launch::second_process(socket, first)?;
    child::send_filter(socket.as_fd(), request)?;
    match launch::until_program(request, socket, &child) {
        Ok(terminal) => Ok(Executed { child, terminal }),
        Err(error) => {
            // It failed, and ends; it is reaped.
            let _ = process::send_signal(child.pidfd.as_fd(), libc::SIGKILL);
            let _ = process::wait(child.pidfd.as_fd());
            Err(error)
        }
    }
}

/// In the first process: into the container's namespaces, where the second is made. A PID namespace holds only who is born in it.
fn enter(child: Child<'_>, init: &OwnedFd, kinds: &[NamespaceKind]) -> ! {
    kernel::record::actor(Actor::Intermediate);
    let made = child::wait_for_go(child.socket.as_fd()).and_then(|_| {
        // Before anybody inside can see this process: it still has the host's files open (CVE-2016-9962).
        kernel::identity::set_dumpable(false).in_step("cannot protect the new process")?;
        join(init.as_fd(), kinds)?;
        process::clone3(CloneFlags::PARENT, None).in_step("cannot make the new process")
    });
    match made {
        Ok(Cloned::Child) => child.run_beside(),
        Ok(Cloned::Parent(second)) => {
            let sent = message::send(&child.socket, &FromChild::Cloned(second.pid), &[second.pidfd.as_fd()]);
            process::exit(if sent.is_ok() { 0 } else { 125 })
        }
        Err(error) => child::fail(child.socket.as_fd(), &error),
    }
}

fn join(init: BorrowedFd<'_>, kinds: &[NamespaceKind]) -> Result<()> {
    let flags = kinds.iter().fold(CloneFlags::empty(), |flags, kind| flags | namespaces::flag(*kind));
    because(Chapter::Namespaces, "one call enters all of the container's namespaces, by its first process");
    enter_all(init, flags, kinds).in_step("cannot enter the container's namespaces")?;
    if kinds.contains(&NamespaceKind::User) {
        namespaces::become_root()?;
    }
    Ok(())
}

fn enter_all(init: BorrowedFd<'_>, flags: CloneFlags, kinds: &[NamespaceKind]) -> kernel::Result<()> {
    const INIT: &str = "the container's first process";
    let file = |kind: &NamespaceKind| process::namespace_of(init, kind.file_name());
    // All are opened before the first is entered, as afterwards the others may not be there to be seen.
    match kinds.iter().map(file).collect::<kernel::Result<Option<Vec<_>>>>()? {
        _ if flags.is_empty() => Ok(()),
        None => setns(init, flags, INIT),
        Some(files) => {
            let mut each = files.iter().zip(kinds);
            each.try_for_each(|(file, kind)| setns(file.as_fd(), namespaces::flag(*kind), INIT))
        }
    }
}
