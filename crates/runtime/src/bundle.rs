//! From a bundle to a container: what `create` and `run` of runc's command line do.

use std::path::{Path, PathBuf};

use cgroup::Hierarchy;

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
    rustix::fs::stat(&root)
        .map_err(|errno| kernel::Error::new("stat", root.display().to_string(), errno))
        .in_step("config.json: root.path: invalid rootfs")?;
    let root = fs_err::canonicalize(&root)?;
    if !root.is_dir() {
        let reason = "the root file system must be a directory".to_owned();
        return Err(Error::Configuration { what: "root.path", value: root.display().to_string(), reason });
    }
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
