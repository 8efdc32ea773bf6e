//! A container made again from the files of a dump.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use cgroup::{Group, Hierarchy};
use kernel::mount::{MountFlags, mount};
use kernel::process::{self, CloneFlags};
use kernel::record::{Chapter, because};
use rustix::fs::{Mode, OFlags};

use super::criu::{self, Call};
use super::{DESCRIPTORS, DEVICES, GroupsMode, Options, check, criu_names, joined};
use crate::bundle::{self, Creation};
use crate::container::{Container, Record};
use crate::error::{Error, InStep as _, Result};
use crate::limits;
use crate::request::{Oci, Request, RootFileSystem};
use crate::spec::{Hooks, Spec};
use crate::state::{self, State};
use crate::streams::Streams;

const STEP: &str = "cannot restore the container";

/// A container to make again.
#[derive(Debug)]
pub struct Restoration<'a> {
    /// Where the containers' state is.
    pub root: &'a Path,
    /// The new one's id.
    pub id: &'a str,
    /// Its configuration.
    pub spec: Spec,
    /// What is asked besides.
    pub oci: Oci,
    /// What is asked of criu.
    pub options: &'a Options,
    /// criu's options about security modules, with their values.
    pub labels: Vec<(&'static str, String)>,
}

/// Makes the container again; gives its first process, which is a child of the caller. On failure nothing of it is left.
///
/// The caller must be single-threaded.
pub fn restore(restoration: Restoration<'_>) -> Result<(Container, process::Child)> {
    let directory = Container::reserve(restoration.root, restoration.id)?;
    let restored = restore_in(restoration, directory.clone());
    if restored.is_err() {
        // The first failure is the one to tell.
        let _ = fs_err::remove_dir_all(&directory);
    }
    restored
}

fn restore_in(restoration: Restoration<'_>, directory: PathBuf) -> Result<(Container, process::Child)> {
    let Restoration { root, id, spec, oci, options, labels } = restoration;
    let request = bundle::request_of(Creation { root, id, spec, oci, gated: false }, &directory)?;
    check(&request)?;
    check_restorable(&request, options)?;
    let program = criu::find()?;
    let created = state::timestamp(state::now_exactly(), true);
    let record = Record { version: state::VERSION, request, created, process: None };
    let mut container = Container { directory, record };
    // Before there is anything: if this process is killed at any moment, delete finds what it made.
    container.write()?;
    let mut group = None;
    let made = run_criu(&container, options, labels, program, &mut group).and_then(|child| {
        container.record.process = Some(State::of(child.pid));
        container.write().map(|()| child)
    });
    match made {
        Ok(child) => Ok((container, child)),
        Err(error) => {
            if let Some(group) = group {
                // What failed first is what counts; a group that cannot be removed is the next delete's.
                let _ = group.kill().and_then(|()| group.remove());
            }
            Err(error)
        }
    }
}

/// Refuses what cannot be made again by criu's command line.
fn check_restorable(request: &Request, options: &Options) -> Result<()> {
    let refused = |what, value: String, reason: &str| {
        Err(Error::Configuration { what, value, reason: reason.to_owned() })
    };
    let early = |hooks: &Hooks| {
        [&hooks.prestart, &hooks.create_runtime, &hooks.create_container]
            .into_iter()
            .flatten()
            .map(|hook| hook.path.display().to_string())
            .next()
    };
    if let Some(path) = request.spec.hooks.as_ref().and_then(early) {
        let reason = "criu's command line has no moment for hooks that prepare a container's namespaces";
        return refused("hooks", path, reason);
    }
    if request.oci.as_ref().is_some_and(|oci| oci.systemd_cgroup) {
        let reason =
            "systemd makes a group only around a process that is there, and criu has to be told of it before";
        return refused("--systemd-cgroup", "true".to_owned(), reason);
    }
    if options.groups == GroupsMode::Strict {
        let reason = "the container's control group is made before criu is asked, with the configuration's limits: use soft or full";
        return refused("--manage-cgroups-mode", "strict".to_owned(), reason);
    }
    if !options.images.is_dir() {
        let value = options.images.display().to_string();
        return refused("--image-path", value, "there is no such directory with the images of a checkpoint");
    }
    fs_err::create_dir_all(&options.work)?;
    Ok(())
}

fn run_criu(
    container: &Container,
    options: &Options,
    labels: Vec<(&'static str, String)>,
    program: PathBuf,
    group: &mut Option<Group>,
) -> Result<process::Child> {
    let request = &container.record.request;
    let hierarchy = Hierarchy::detect()?;
    let limits = limits::of_request(request, true)?;
    *group = crate::group::make(request, &hierarchy, &limits)?;
    let (root, pid_file) = (container.directory.join("root"), container.directory.join("criu.pid"));
    fs_err::create_dir(&root)?;
    let (mut arguments, passed) = arguments(request, options, &root, &pid_file)?;
    if let Some(group) = group.as_ref() {
        let path = group.description().place().path();
        arguments.extend(["--cgroup-root".to_owned(), path.display().to_string()]);
    }
    arguments.extend(labels.into_iter().flat_map(|(option, value)| [option.to_owned(), value]));
    let call = Call { program, verb: "restore", arguments, passed, work: &options.work };
    let enter = |pid: u32| {
        because(Chapter::Limits, "from here on every process of the container counts in this group");
        let Some(group) = group.as_ref() else { return Ok(()) };
        group.join_everywhere(pid)?;
        Ok(group.limit_devices(&limits)?)
    };
    let prepare = || {
        attach_root(request, &root)?;
        give_privileges_up(request)
    };
    call.run(CloneFlags::NEWNS, prepare, enter)?;
    let text = fs_err::read_to_string(&pid_file)?;
    let pid = text.trim().parse().map_err(|_| Error::Request {
        path: pid_file.clone(),
        reason: format!("criu has written {text:?} there, which is no process's number"),
    })?;
    fs_err::remove_file(&pid_file)?;
    fs_err::remove_dir(&root)?;
    let pidfd = process::pidfd_open(pid).in_step(STEP)?;
    Ok(process::Child { pid, pidfd, is_in_group: true })
}

/// In criu's process, which has a mount namespace of its own: the root must be a mount that nobody shares.
fn attach_root(request: &Request, root: &Path) -> Result<()> {
    let RootFileSystem::Directory(directory) = &request.root else { return Ok(()) };
    because(Chapter::RootFileSystem, "criu takes a mount of its own as the container's root");
    let change = |target: &Path, flags| mount("none", target, "", flags, "").in_step(STEP);
    change(Path::new("/"), MountFlags::REC | MountFlags::SLAVE)?;
    let source = directory.display().to_string();
    mount(&source, root, "", MountFlags::BIND | MountFlags::REC, "").in_step(STEP)?;
    change(root, MountFlags::REC | MountFlags::PRIVATE)
}

/// In criu's process, from which all of the container's inherit it: before version 3.19 criu does not keep it.
fn give_privileges_up(request: &Request) -> Result<()> {
    if request.spec.process.as_ref().is_some_and(|process| process.no_new_privileges) {
        because(Chapter::Process, "no_new_privs: set-user-id programs raise nothing in this container");
        kernel::identity::set_no_new_privileges().in_step(STEP)?;
    }
    Ok(())
}

/// criu's options, and the descriptors that they name.
fn arguments(
    request: &Request,
    options: &Options,
    root: &Path,
    pid_file: &Path,
) -> Result<(Vec<String>, Vec<OwnedFd>)> {
    let mut arguments = options.arguments();
    // A sibling of criu's is a child of ours, whose end can be waited for.
    arguments.extend(["--restore-detached", "--restore-sibling"].map(str::to_owned));
    arguments.extend(["--root".to_owned(), root.display().to_string()]);
    arguments.extend(["--pidfile".to_owned(), pid_file.display().to_string()]);
    for (destination, source) in sources(request) {
        arguments.extend(["--external".to_owned(), format!("mnt[{}]:{source}", destination.display())]);
    }
    let mut passed = streams(&options.images)?;
    for (kind, path) in joined(request) {
        let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| kernel::Error::new("open", path.display().to_string(), errno))
            .in_step(STEP)?;
        passed.push((namespace, criu_names(kind).1.to_owned()));
    }
    for (descriptor, name) in &passed {
        let number = descriptor.as_fd().as_raw_fd();
        arguments.extend(["--inherit-fd".to_owned(), format!("fd[{number}]:{name}")]);
    }
    Ok((arguments, passed.into_iter().map(|(descriptor, _)| descriptor).collect()))
}

/// What of the host's is mounted where.
fn sources(request: &Request) -> Vec<(PathBuf, String)> {
    let binds = request.spec.mounts.iter().filter(|mount| mount.is_bind());
    let binds = binds.map(|mount| (mount.destination.clone(), mount.source.clone()));
    let devices = DEVICES.map(|device| (PathBuf::from(device), device.to_owned()));
    let masked = request.spec.linux.iter().flat_map(|linux| &linux.masked_paths);
    let masked = masked.map(|path| (path.clone(), "/dev/null".to_owned()));
    binds.chain(devices).chain(masked).collect()
}

/// This process's own streams, for those that were pipes or files of the outside, by the name they had.
fn streams(images: &Path) -> Result<Vec<(OwnedFd, String)>> {
    let path = images.join(DESCRIPTORS);
    let text = fs_err::read(&path)?;
    let names: Vec<String> =
        serde_json::from_slice(&text).map_err(|error| Error::Request { path, reason: error.to_string() })?;
    let Streams::Pipes { input, output, error } = Streams::inherited()? else { return Ok(Vec::new()) };
    let mut passed: Vec<(OwnedFd, String)> = Vec::new();
    for (stream, name) in [input, output, error].into_iter().zip(names) {
        if ["pipe:", "file["].iter().any(|kind| name.starts_with(kind))
            && passed.iter().all(|(_, other)| *other != name)
        {
            passed.push((stream, name));
        }
    }
    Ok(passed)
}
