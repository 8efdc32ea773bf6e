//! From a bundle to a container: what `create` and `run` of runc's command line do.

use std::path::{Path, PathBuf};

use cgroup::Hierarchy;
use rustix::fs::FileType;

use crate::container::{self, Container, Record};
use crate::error::{Error, InStep as _, Result};
use crate::launch::{Job, Running, launch};
use crate::request::{self, Oci, Request, RootFileSystem, SeccompChoice};
use crate::spec::Spec;
use crate::state::{self, State};
use crate::streams::Streams;

/// A container to make.
#[derive(Debug)]
pub struct Creation<'a> {
    /// Where the containers' state is.
    pub root: &'a Path,
    /// The new one's id.
    pub id: &'a str,
    /// Its configuration.
    pub spec: Spec,
    /// What is asked besides.
    pub oci: Oci,
    /// Whether its process waits for `start`.
    pub gated: bool,
}

/// Makes the container; on failure nothing of it is left.
///
/// The caller must be single-threaded and ignore SIGPIPE.
pub fn create(creation: Creation<'_>) -> Result<(Container, Running)> {
    let (root, id) = (creation.root, creation.id);
    let directory = Container::reserve(root, id)?;
    let made = create_in(creation, directory.clone());
    if made.is_err() {
        // The first failure is the one to tell.
        let _ = fs_err::remove_dir_all(&directory);
    }
    made
}

fn create_in(creation: Creation<'_>, directory: PathBuf) -> Result<(Container, Running)> {
    let gate = creation.gated.then(|| container::make_gate(&directory)).transpose()?;
    let created = state::timestamp(state::now_exactly(), true);
    let request = request_of(creation, &directory)?;
    let mut container =
        Container { directory, record: Record { version: state::VERSION, request, created, process: None } };
    // Before there is anything: if this process is killed at any moment, delete finds what it made.
    container.write()?;
    let request = container.record.request.clone();
    let hierarchy = Hierarchy::detect()?;
    let job = Job { request: &request, streams: Streams::inherited()?, hierarchy: &hierarchy, gate };
    let running = launch(job, |pid| {
        container.record.process = Some(State::of(pid));
        container.write()
    })?;
    Ok((container, running))
}

pub(crate) fn request_of(creation: Creation<'_>, directory: &Path) -> Result<Request> {
    let Creation { id, mut spec, oci, .. } = creation;
    for mount in spec.mounts.iter_mut().filter(|mount| mount.is_bind()) {
        // config.md, "Mounts": a relative source is one from the bundle.
        mount.source = oci.bundle.join(&mount.source).to_string_lossy().into_owned();
    }
    let root = spec.root.as_ref().map(|root| oci.bundle.join(&root.path)).unwrap_or_default();
    let root = root_of(&root)?;
    let map_with_helpers = needs_helpers(&spec);
    Ok(Request {
        version: request::VERSION,
        id: id.to_owned(),
        spec,
        root: RootFileSystem::Directory(root),
        user: None,
        groups: Vec::new(),
        shared_memory_of: None,
        seccomp: SeccompChoice::Configured,
        init: false,
        interactive: true,
        map_with_helpers,
        cgroup_parent: None,
        directory: oci.bundle.clone(),
        oci: Some(oci),
        remove: false,
        name_file: None,
        state_directory: directory.to_owned(),
    })
}

/// The directory of `root.path`, which may also be a descriptor that the caller passes on: `/proc/self/fd/7`.
fn root_of(given: &Path) -> Result<PathBuf> {
    let refuse = |reason: &str| {
        let value = given.display().to_string();
        Err(Error::Configuration { what: "root.path", value, reason: reason.to_owned() })
    };
    let number = ["/proc/self/fd", "/dev/fd"].iter().find_map(|all| given.strip_prefix(all).ok());
    if number.is_some_and(|number| !is_passed_on(number)) {
        return refuse("the caller has not passed on such a descriptor");
    }
    let status = rustix::fs::stat(given)
        .map_err(|errno| kernel::Error::new("stat", given.display().to_string(), errno))
        .in_step("config.json: root.path: invalid rootfs")?;
    if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
        return refuse("the root file system must be a directory");
    }
    let is_same = |path: &PathBuf| {
        rustix::fs::stat(path)
            .is_ok_and(|there| (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino))
    };
    match fs_err::canonicalize(given) {
        Ok(path) if is_same(&path) => Ok(path),
        _ if number.is_some() => {
            refuse("the descriptor's directory has no path here: it was removed, or something covers it")
        }
        other => Ok(other?),
    }
}

/// Whether a descriptor was open when this program began: its own are closed by execve, and none of the caller's is.
fn is_passed_on(number: &Path) -> bool {
    let Ok(text) = fs_err::read_to_string(Path::new("/proc/self/fdinfo").join(number)) else { return false };
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_CLOEXEC as u32 == 0)
}

/// Whether a user maps more than the own id, which takes newuidmap and newgidmap.
fn needs_helpers(spec: &Spec) -> bool {
    let Some(linux) = &spec.linux else { return false };
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let own = |maps: &[crate::spec::IdMapping], id: u32| {
        matches!(maps, [] | [crate::spec::IdMapping { size: 1, .. }])
            && maps.iter().all(|map| map.host_id == id)
    };
    let is_simple = own(&linux.uid_mappings, uid.as_raw()) && own(&linux.gid_mappings, gid.as_raw());
    !uid.is_root() && !is_simple
}
