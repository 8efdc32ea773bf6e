//! What the cloned process does until it becomes the container's program: one straight line, top to bottom.
//!
//! It runs alone in its namespaces with a copy of the monitor's memory, talks to the monitor over one socket, and leaves by
//! `execve` or `_exit`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cgroup::Hierarchy;
use kernel::mount::by_path;
use kernel::process::{self, CloneFlags};
use kernel::record::{Actor, Chapter, because};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::attach::{self, Prepared};
use crate::error::{Error, Failure, InStep as _, PARAMETER_STEP, Result};
use crate::hidden::{self, Covers};
use crate::hooks::{self, Moment};
use crate::labels;
use crate::memory_policy;
use crate::message;
use crate::mounts;
use crate::namespaces::Plan;
use crate::private_proc::PrivateProc;
use crate::privilege::{self, Reading, Sets};
use crate::program;
use crate::reaper;
use crate::request::{Request, SeccompChoice};
use crate::root::NewRoot;
use crate::scheduling;
use crate::seccomp;
use crate::spec::{IdMapping, Linux, PersonalityDomain, Process};
use crate::streams::Streams;
use crate::terminal;
use crate::user;
use crate::working_directory::{self, Entered};

/// What the monitor tells the container's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Go {
    /// Go on: limits, maps and mounts that need the host's powers are done. Descriptors beside it are union mounts.
    On,
}

/// What the container's process tells the monitor.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromChild {
    /// The intermediate process made the container's process of this number; its descriptor comes along.
    Cloned(u32),
    /// The terminal's other end comes along.
    Terminal,
    /// The union mount that a helper made comes along.
    Joined,
    /// The mounts are made, the old root is still there: hooks may run. The child waits for [`Go::On`].
    Mounted,
    /// The descriptor of the filter's notifications comes along. The child waits for [`Go::On`].
    Listener,
    /// Nothing is left but the program, for which the child waits at its gate.
    Ready,
    /// It failed.
    Failed(Failure),
}

/// All that the process needs, from before the clone.
pub(crate) struct Child<'a> {
    pub request: &'a Request,
    pub plan: &'a Plan,
    pub hierarchy: &'a Hierarchy,
    pub streams: Streams,
    pub prepared: Prepared,
    pub socket: OwnedFd,
    pub gate: Option<OwnedFd>,
    /// What hides paths, opened while the host is in sight.
    pub covers: Option<Covers>,
}

impl Child<'_> {
    /// Becomes the container's program. A failure is told to the monitor.
    pub(crate) fn run(mut self) -> ! {
        kernel::record::actor(Actor::Container);
        let error = match self.become_program() {
            Ok(never) => match never {},
            Err(error) => error,
        };
        fail(self.socket.as_fd(), &error)
    }

    /// Becomes another program of a container, in whose namespaces this process is already.
    pub(crate) fn run_beside(mut self) -> ! {
        kernel::record::actor(Actor::Container);
        let error = match self.become_program_beside() {
            Ok(never) => match never {},
            Err(error) => error,
        };
        fail(self.socket.as_fd(), &error)
    }

    fn become_program_beside(&mut self) -> Result<std::convert::Infallible> {
        self.close_what_is_not_ours()?;
        kernel::identity::new_session().in_step("cannot leave the terminal's session")?;
        let size = self.process()?.console_size;
        if self.process()?.terminal {
            let terminal = terminal::open(&NewRoot::of_this_process()?, size)?;
            self.use_terminal(terminal)?;
        }
        let proc = labels::has_any(self.process()?).then(PrivateProc::open).transpose()?;
        self.finish(proc.as_ref())
    }

    fn become_program(&mut self) -> Result<std::convert::Infallible> {
        self.close_what_is_not_ours()?;
        self.wait_for_monitor()?;
        self.enter_namespaces()?;
        let root = attach::root(self.request, &mut self.prepared)?;
        // A user namespace gets one only as long as the host's is in sight.
        let proc = if self.writes_below_proc() { PrivateProc::detached()? } else { None };
        self.fill_root(&root)?;
        self.run_hooks_before_root_changes()?;
        self.make_working_directory(&root)?;
        self.enter_root(&root)?;
        let proc = match proc {
            None if self.writes_below_proc() => Some(PrivateProc::open()?),
            other => other,
        };
        self.set_parameters(proc.as_ref())?;
        self.hide_paths()?;
        self.settle_root(&root)?;
        self.finish(proc.as_ref())
    }

    fn writes_below_proc(&self) -> bool {
        let has_sysctl = self.linux().is_some_and(|linux| !linux.sysctl.is_empty());
        has_sysctl || self.request.spec.process.as_ref().is_some_and(labels::has_any)
    }

    /// In all namespaces and the container's root: from streams and limits to the program.
    fn finish(&mut self, proc: Option<&PrivateProc>) -> Result<std::convert::Infallible> {
        let process = self.process()?;
        let mut who = user::identify(self.request.user.as_deref(), &process.user)?;
        if self.request.oci.is_none() {
            who.user.additional_gids.retain(|group| *group == who.user.gid || self.may_join(*group));
        }
        who.user.additional_gids.extend(user::group_ids(&self.request.groups)?);
        // As runc, which tells each of them once.
        let mut told = std::collections::BTreeSet::new();
        who.user.additional_gids.retain(|group| told.insert(*group));
        let mut environment = process.env.clone();
        if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
            environment.push(format!("HOME={}", who.home));
        }
        self.give_streams(who.user.uid)?;
        self.set_limits(process)?;
        self.set_execution(process)?;
        proc.map_or(Ok(()), |proc| labels::apply(process, proc))?;
        // With the runtime's powers first: the directory may be closed to the user. Tried again as the user where it is not open to these.
        let entered = working_directory::enter(&process.cwd)?;
        // The device rules are in force, the container can be found again, and its filter is compiled.
        let filter = wait_for_filter(self.socket.as_fd())?;
        self.drop_privileges(process, &who.user, &environment, filter.as_ref(), entered)
    }

    /// Whether the container's user namespace has a group. An image's own /etc/group may well name some that it has not; who asks for one by
    /// name is told instead.
    fn may_join(&self, group: u32) -> bool {
        let maps = self.linux().map_or(&[][..], |linux| &linux.gid_mappings);
        let has = |map: &IdMapping| group >= map.container_id && group - map.container_id < map.size;
        self.plan.may_set_groups && (maps.is_empty() || maps.iter().any(has))
    }

    fn process(&self) -> Result<&Process> {
        self.request.spec.process.as_ref().ok_or_else(|| Error::Configuration {
            what: "process",
            value: String::new(),
            reason: "the configuration has none".to_owned(),
        })
    }

    fn linux(&self) -> Option<&Linux> {
        self.request.spec.linux.as_ref()
    }

    /// A clone shares every open file. A lock of the monitor's would live on in here, so only these stay open.
    fn close_what_is_not_ours(&self) -> Result<()> {
        let mut keep: Vec<BorrowedFd<'_>> = vec![self.socket.as_fd()];
        keep.extend(self.streams.all());
        keep.extend(self.prepared.overlays.iter().map(AsFd::as_fd));
        keep.extend(self.prepared.binds.values().map(AsFd::as_fd));
        keep.extend(self.prepared.shared_memory_of.as_ref().map(AsFd::as_fd));
        keep.extend(self.gate.as_ref().map(AsFd::as_fd));
        // The modes that the steps below give are meant as they are.
        kernel::identity::umask(0);
        process::close_all_but(&keep, self.first_own_descriptor()).in_step("cannot close the monitor's files")
    }

    /// Descriptors below this one are the program's.
    fn first_own_descriptor(&self) -> u32 {
        3 + self.request.oci.as_ref().map_or(0, |oci| oci.preserve_fds)
    }

    /// While both roots are in sight: the monitor runs those outside, then this process those inside.
    fn run_hooks_before_root_changes(&self) -> Result<()> {
        if !hooks::before_root_changes(&self.request.spec) {
            return Ok(());
        }
        message::send(&self.socket, &FromChild::Mounted, &[]).in_step("cannot talk to the monitor")?;
        wait_for_go(self.socket.as_fd())?;
        hooks::run_inside(self.request, Moment::CreateContainer)
    }

    fn wait_for_monitor(&mut self) -> Result<()> {
        let overlays = wait_for_go(self.socket.as_fd())?;
        self.prepared.overlays.extend(overlays);
        Ok(())
    }

    fn enter_namespaces(&self) -> Result<()> {
        if self.plan.has_user_namespace() {
            because(Chapter::Namespaces, "root of the new user namespace, nobody special outside");
            kernel::identity::set_group(0).in_step("cannot become root of the user namespace")?;
            kernel::identity::set_user(0).in_step("cannot become root of the user namespace")?;
        }
        kernel::identity::new_session().in_step("cannot leave the terminal's session")?;
        if self.request.oci.as_ref().is_some_and(|oci| !oci.no_new_keyring) {
            because(Chapter::Namespaces, "keys are in no namespace: the caller's are left behind");
            let make = || {
                kernel::identity::new_session_keyring(&format!("_ses.{}", self.request.id))
                    .in_step("cannot make a session keyring")
            };
            labels::on_keys(self.request.spec.process.as_ref(), make)?;
        }
        if self.plan.new_cgroup {
            because(Chapter::Namespaces, "its control group looks like the root of all groups from inside");
            kernel::namespace::unshare(CloneFlags::NEWCGROUP).in_step("cannot make a cgroup namespace")?;
        }
        if self.plan.new_flags.contains(CloneFlags::NEWNET) {
            because(
                Chapter::Namespaces,
                "a new network namespace has only a loopback device, and that is down",
            );
            kernel::netlink::loopback_up().in_step("cannot bring the loopback device up")?;
        }
        if let Some(name) = &self.request.spec.hostname {
            because(
                Chapter::Namespaces,
                "the new UTS namespace holds a copy of the host's name; this one is its own",
            );
            kernel::namespace::sethostname(name).in_step("cannot set the host name")?;
        }
        if let Some(name) = &self.request.spec.domainname {
            because(Chapter::Namespaces, "the NIS domain name belongs to the UTS namespace too");
            kernel::namespace::setdomainname(name).in_step("cannot set the domain name")?;
        }
        Ok(())
    }

    fn fill_root(&mut self, root: &NewRoot) -> Result<()> {
        attach::lower_overlays(root, self.request, &mut self.prepared)?;
        mounts::all(root, self.request, self.hierarchy, &mut self.prepared.binds)?;
        if let Some(theirs) = self.prepared.shared_memory_of.take() {
            attach::share_memory(root, &theirs)?;
        }
        if self.request.spec.mounts.iter().any(is_foreign_dev) {
            return Ok(());
        }
        let devices = self.linux().map_or(&[][..], |linux| &linux.devices);
        crate::device::make_all(root, devices, self.plan.makes_no_nodes())
    }

    fn enter_root(&mut self, root: &NewRoot) -> Result<()> {
        if let Some(process) = self.request.spec.process.as_ref().filter(|process| process.terminal) {
            let terminal = terminal::open(root, process.console_size)?;
            terminal::bind_console(root, &terminal)?;
            self.use_terminal(terminal)?;
        }
        by_path::move_to(root.directory.as_fd()).in_step("cannot mount without the newer mount calls")?;
        let is_hiding = self.linux().is_some_and(|linux| !linux.masked_paths.is_empty());
        self.covers = is_hiding.then(Covers::open).transpose()?;
        match &self.request.oci {
            Some(oci) if oci.no_pivot => root.enter_without_pivot(),
            _ => root.enter(),
        }
    }

    fn set_parameters(&self, proc: Option<&PrivateProc>) -> Result<()> {
        let (Some(linux), Some(proc)) = (self.linux(), proc) else { return Ok(()) };
        for (name, value) in &linux.sysctl {
            because(Chapter::RootFileSystem, "--sysctl: a kernel setting of the container's own namespaces");
            let path = crate::config::sysctl_file(name);
            let inside = path.strip_prefix("/proc").unwrap_or(&path);
            proc.write(inside, value).in_step(PARAMETER_STEP)?;
        }
        Ok(())
    }

    /// Makes what is the kernel's own in the root safe. Nothing is mounted afterwards.
    fn hide_paths(&mut self) -> Result<()> {
        let mut covers = self.covers.take();
        if let Some(linux) = self.linux() {
            hidden::make_read_only(&linux.readonly_paths)?;
            if let Some(covers) = &mut covers {
                covers.mask(&linux.masked_paths)?;
            }
        }
        by_path::end().in_step("cannot mount without the newer mount calls")
    }

    /// Makes the root what it is to be.
    fn settle_root(&self, root: &NewRoot) -> Result<()> {
        let Some(linux) = self.linux() else { return Ok(()) };
        if let Some(propagation) = linux.rootfs_propagation.as_deref().filter(|_| self.request.oci.is_some())
        {
            root.propagate(propagation)?;
        }
        if self.request.spec.root.as_ref().is_some_and(|root| root.readonly) {
            root.make_read_only(self.request)?;
        }
        Ok(())
    }

    fn use_terminal(&mut self, terminal: terminal::Terminal) -> Result<()> {
        message::send(&self.socket, &FromChild::Terminal, &[terminal.controller.as_fd()])
            .in_step("cannot hand the terminal to the monitor")?;
        self.streams = Streams::Terminal(terminal.container);
        Ok(())
    }

    fn give_streams(&self, uid: u32) -> Result<()> {
        match &self.streams {
            Streams::Terminal(container) => terminal::take(container, uid),
            Streams::Pipes { .. } => {
                self.streams.give_to(uid, None)?;
                for (number, stream) in self.streams.all().into_iter().enumerate() {
                    process::set_standard_stream(stream, number as i32)
                        .in_step("cannot set the standard streams")?;
                }
                Ok(())
            }
        }
    }

    fn set_limits(&self, process: &Process) -> Result<()> {
        for limit in &process.rlimits {
            kernel::identity::set_rlimit(&limit.kind, limit.soft, limit.hard)
                .in_step("cannot set --ulimit")?;
        }
        kernel::identity::umask(process.user.umask.unwrap_or(0o022));
        Ok(())
    }

    /// How it runs and what it sees of the machine, while it has the powers to raise what it has.
    fn set_execution(&self, process: &Process) -> Result<()> {
        scheduling::apply(process)?;
        let Some(linux) = self.linux() else { return Ok(()) };
        if let Some(policy) = &linux.memory_policy {
            memory_policy::apply(policy)?;
        }
        let Some(personality) = &linux.personality else { return Ok(()) };
        let (number, name) = match personality.domain {
            PersonalityDomain::Linux => (0, "PER_LINUX"),
            PersonalityDomain::Linux32 => (8, "PER_LINUX32"),
        };
        because(Chapter::Process, "linux.personality: which kind of machine uname tells the program of");
        kernel::identity::set_personality(number, name).in_step("cannot set linux.personality")
    }

    /// docker and runc make the working directory when the image has none. Not by way of an open descriptor: that may lead outside.
    fn make_working_directory(&self, root: &NewRoot) -> Result<()> {
        let Some(process) = &self.request.spec.process else { return Ok(()) };
        match root.open(&process.cwd, OFlags::PATH).and_then(rustix::fs::fstat) {
            Err(Errno::NOENT) => root.make_directory(&process.cwd).map(drop),
            Ok(status) if FileType::from_raw_mode(status.st_mode) != FileType::Directory => {
                Err(working_directory::cannot_make(&process.cwd, Errno::NOTDIR))
            }
            _ => Ok(()),
        }
    }

    /// Gives up what the container must not have, and becomes its program.
    fn drop_privileges(
        &self,
        process: &Process,
        user: &crate::spec::User,
        environment: &[String],
        filter: Option<&seccomp::Filter>,
        entered: Entered,
    ) -> Result<std::convert::Infallible> {
        let sets = Sets::new(process.capabilities.as_ref(), Reading::of(self.request))?;
        let init = self.request.init.then(reaper::own_file).transpose()?;
        kernel::signal::unblock_all();
        if !process.no_new_privileges {
            self.load_filter(
                filter,
                "loading a filter needs CAP_SYS_ADMIN or no_new_privs, so it comes before that goes",
            )?;
        }
        privilege::drop_bounding(&sets)?;
        privilege::become_user(user, self.plan.may_set_groups)?;
        if entered == Entered::NotYet {
            working_directory::enter_as_user(&process.cwd)?;
        }
        working_directory::verify()?;
        privilege::set(&sets)?;
        if process.no_new_privileges {
            because(Chapter::Process, "no_new_privs: set-user-id programs raise nothing in this container");
            kernel::identity::set_no_new_privileges().in_step("cannot set no_new_privs")?;
        }
        let name = process.args.first().cloned().unwrap_or_default();
        let path = program::find(&name, environment)?;
        self.wait_at_gate()?;
        if process.no_new_privileges {
            self.load_filter(
                filter,
                "the last thing before the program: from here on only these system calls",
            )?;
        }
        hooks::run_inside(self.request, Moment::StartContainer)?;
        process::cloexec_from(self.first_own_descriptor()).in_step("cannot close coracle's files")?;
        because(Chapter::Process, "the process becomes the container's program");
        let failed = match &init {
            Some(own) => reaper::become_init(own.as_fd(), &path, &process.args, environment),
            None => process::execve(&path, &process.args, environment),
        };
        Err(program::cannot_execute(&name, &path, failed.errno()))
    }

    /// Where another command decides when the program starts: says that all is ready, and waits for a byte.
    fn wait_at_gate(&self) -> Result<()> {
        let Some(gate) = &self.gate else { return Ok(()) };
        message::send(&self.socket, &FromChild::Ready, &[]).in_step("cannot talk to the runtime")?;
        loop {
            match rustix::io::read(gate, &mut [0; 1]) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let source = kernel::Error::new("read", "the FIFO that start writes to", errno);
                    return Err(Error::Step { step: "cannot wait for the start", source });
                }
            }
        }
    }

    fn load_filter(&self, filter: Option<&seccomp::Filter>, why: &'static str) -> Result<()> {
        let Some(filter) = filter else { return Ok(()) };
        because(Chapter::Process, why);
        let listener = filter.load().in_step("cannot load the system call filter")?;
        if let Some(listener) = listener {
            message::send(&self.socket, &FromChild::Listener, &[listener.as_fd()])
                .in_step("cannot hand the filter's listener on")?;
            wait_for_go(self.socket.as_fd())?;
        }
        Ok(())
    }
}

/// Whether a mount is somebody's own directory as `/dev`. Nodes and links made in it would be made on the host, so it is left as it is,
/// as runc does.
fn is_foreign_dev(mount: &crate::spec::Mount) -> bool {
    let is_bind = || mount.kind == "bind" || mount.options.iter().any(|o| o == "bind" || o == "rbind");
    mount.destination == Path::new("/dev") && is_bind()
}

/// The filter that a request asks for; none where all calls are allowed.
fn compile_filter(request: &Request) -> Result<Option<seccomp::Filter>> {
    let process = request.spec.process.as_ref();
    let sets = Sets::new(process.and_then(|process| process.capabilities.as_ref()), Reading::of(request))?;
    match &request.seccomp {
        SeccompChoice::Unconfined => Ok(None),
        SeccompChoice::Configured => {
            let rules = request.spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
            Ok(rules.map(seccomp::Filter::of).transpose()?)
        }
        SeccompChoice::Default => Ok(Some(seccomp::Filter::docker_default(sets.bounding())?)),
        SeccompChoice::Profile(text) => {
            let profile = seccomp::Profile::parse(text.as_bytes())?;
            let rules = profile.rules_for(sets.bounding(), seccomp::kernel_version())?;
            if rules.as_ref().is_some_and(seccomp::Seccomp::notifies) {
                return Err(seccomp::Error::NotifyUnheard.into());
            }
            Ok(rules.map(|rules| seccomp::Filter::of(&rules)).transpose()?)
        }
    }
}

/// In the monitor: compiles the filter, and sends it as the last word before the container's program.
pub(crate) fn send_filter(socket: BorrowedFd<'_>, request: &Request) -> Result<()> {
    // A packet must not be empty, that is what the end of the socket looks like; no filter is one byte.
    let bytes = compile_filter(request)?.map_or(vec![0], |filter| filter.to_bytes());
    // A child that has failed meanwhile no longer listens; what it said is read next.
    let _ = kernel::socket::send(socket, &bytes, &[]);
    Ok(())
}

fn wait_for_filter(socket: BorrowedFd<'_>) -> Result<Option<seccomp::Filter>> {
    let heard = kernel::socket::receive(socket).in_step("cannot hear from the monitor")?;
    let Some((bytes, _)) = heard else { process::exit(125) };
    match bytes.as_slice() {
        [0] => Ok(None),
        bytes => seccomp::Filter::from_bytes(bytes).map(Some).ok_or_else(|| Error::Configuration {
            what: "system call filter",
            value: format!("{} bytes", bytes.len()),
            reason: "not what the monitor sends".to_owned(),
        }),
    }
}

/// Waits for the monitor's word; the descriptors are union mounts it made. The monitor's end is this process's end too.
pub(crate) fn wait_for_go(socket: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    match message::receive::<Go>(socket)? {
        Some((Go::On, overlays)) => Ok(overlays),
        None => process::exit(125),
    }
}

/// Tells the monitor what failed, and ends.
pub(crate) fn fail(socket: BorrowedFd<'_>, error: &Error) -> ! {
    // When the monitor is gone there is nobody to tell and nothing to undo here: the namespaces go with this process.
    let _ = message::send(socket, &FromChild::Failed(Failure::from(error)), &[]);
    process::exit(125)
}
