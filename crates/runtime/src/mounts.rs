//! The mounts of the specification, in their order: each by its kind.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use cgroup::Hierarchy;
use kernel::mount::{At, MountAttributes, Setting, by_path, reconfigure};
use kernel::record::{Chapter, because};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::bind;
use crate::cgroup_view;
use crate::error::{InStep as _, Result};
use crate::file_system::{self, MOUNT_STEP};
use crate::idmap;
use crate::mount_options::{self, Options};
use crate::place_in_proc::{self, plain, unlike};
use crate::request::Request;
use crate::root::{NewRoot, missing_target};
use crate::spec::{Mount, NamespaceKind};

/// Makes the mounts of the specification, in order.
pub fn all(
    root: &NewRoot,
    request: &Request,
    hierarchy: &Hierarchy,
    binds: &mut BTreeMap<usize, OwnedFd>,
) -> Result<()> {
    for (place, mount) in request.spec.mounts.iter().enumerate() {
        let tree = binds.remove(&place);
        one(root, mount, request, hierarchy, tree).map_err(|cause| bind::of_mount(mount, cause))?;
    }
    Ok(())
}

fn one(
    root: &NewRoot,
    mount: &Mount,
    request: &Request,
    hierarchy: &Hierarchy,
    opened: Option<OwnedFd>,
) -> Result<()> {
    let options = mount_options::parse(&mount.options);
    if plain(&mount.destination) == Path::new("/") {
        return Err(unlike(
            mount,
            "nothing can be mounted over the root itself: root.path says what that is",
        ));
    }
    if options.remount {
        return remount(root, mount, &options);
    }
    if mount.is_bind() {
        let tree = match opened {
            Some(tree) => tree,
            None if idmap::is_asked(mount, &options) => {
                let errno = if by_path::is_in_use() { Errno::NOSYS } else { Errno::PERM };
                return Err(idmap::refused(mount, errno));
            }
            None => bind::open(mount, &options)?,
        };
        let linux = request.spec.linux.as_ref();
        let in_user_namespace = linux.and_then(|linux| linux.namespace(NamespaceKind::User)).is_some();
        let options = if in_user_namespace { bind::keep_locked(&tree, options)? } else { options };
        return bind::attach(root, mount, &options, &tree);
    }
    place_in_proc::check(mount, None)?;
    if mount.kind == "cgroup" {
        let is_new = has_new_cgroup_namespace(request);
        return cgroup_view::mount_view(root, mount, &options, hierarchy, is_new);
    }
    file_system::mount(root, mount, options, request)
}

/// Changes a mount that is there already: its attributes, and without `bind` also its file system's settings.
fn remount(root: &NewRoot, mount: &Mount, options: &Options) -> Result<()> {
    because(Chapter::RootFileSystem, "remount: what is mounted there gets other options");
    let target = root
        .open(&mount.destination, OFlags::PATH)
        .map_err(|errno| missing_target(&mount.destination, errno))?;
    let name = mount.destination.display().to_string();
    if !mount.is_bind() {
        let mut settings: Vec<_> = options.settings().collect();
        if options.set.contains(MountAttributes::RDONLY) {
            settings.push(Setting::Flag("ro"));
        } else if options.clear.contains(MountAttributes::RDONLY) {
            settings.push(Setting::Flag("rw"));
        }
        reconfigure(At::fd(target.as_fd(), &name), &mount.kind, &settings).in_step(MOUNT_STEP)?;
    }
    for change in options.changes() {
        bind::change_what_is_not_locked(target.as_fd(), &name, change)?;
    }
    file_system::propagate(&target, &name, options)
}

fn has_new_cgroup_namespace(request: &Request) -> bool {
    let namespaces = request.spec.linux.iter().flat_map(|linux| &linux.namespaces);
    namespaces.into_iter().any(|namespace| namespace.kind == NamespaceKind::Cgroup)
}
