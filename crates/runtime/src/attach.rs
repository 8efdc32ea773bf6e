//! How the new root comes into its place, and what comes into it that was opened before: union mounts, another container's `/dev/shm`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use kernel::mount::{
    At, Change, MountFlags, OpenTree, by_path, chroot, mount, move_mount, open_tree, set_attributes,
};
use kernel::namespace::setns;
use kernel::process::CloneFlags;
use kernel::record::{Chapter, because};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, InStep as _, Result};
use crate::overlay::mount_overlay;
use crate::request::{Request, RootFileSystem, SHARED_MEMORY};
use crate::root::NewRoot;

/// What was opened before the container's process was cloned, by the monitor, which still sees the host as it is.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Detached union mounts, in the order of the request's overlays.
    pub overlays: Vec<OwnedFd>,
    /// Detached copies of bind mount sources, by the mount's place in the specification.
    pub binds: BTreeMap<usize, OwnedFd>,
    /// The mount namespace of the container whose `/dev/shm` is shared.
    pub shared_memory_of: Option<OwnedFd>,
}

/// Mounts the root where the container's process finds it, and gives its top directory.
pub fn root(request: &Request, prepared: &mut Prepared) -> Result<NewRoot> {
    because(
        Chapter::RootFileSystem,
        "mounts made in here must not be seen by the host, but the host's may come in",
    );
    mount("", Path::new("/"), "", MountFlags::REC | MountFlags::SLAVE, "")
        .in_step("cannot detach from the host's mounts")?;
    let place = match (&request.root, &request.oci) {
        // What another engine has mounted there stays below, out of sight, as everything of the host.
        (RootFileSystem::Directory(path), Some(_)) => path.clone(),
        _ => request.state_directory.join("root"),
    };
    let covered = match by_path::is_needed() {
        true => {
            because(
                Chapter::RootFileSystem,
                "a filter around coracle denies the newer mount calls: mounts are made where no path leads, then moved",
            );
            Some(by_path::begin(&place).in_step("cannot mount without the newer mount calls")?)
        }
        false => None,
    };
    let (tree, name) = match &request.root {
        RootFileSystem::Directory(path) => {
            because(
                Chapter::RootFileSystem,
                "pivot_root wants a mount, so the directory is mounted on its own",
            );
            let step = "cannot use the directory as root file system";
            let directory = match &covered {
                Some(covered) if place == *path => At::fd(covered.as_fd(), "root directory"),
                _ => At::path(path),
            };
            (open_tree(directory, OpenTree::CLONE | OpenTree::RECURSIVE).in_step(step)?, "root directory")
        }
        RootFileSystem::Overlays(overlays) => {
            if prepared.overlays.is_empty() {
                for overlay in overlays {
                    because(
                        Chapter::RootFileSystem,
                        "the image's layers are joined, shared by all containers, never copied",
                    );
                    prepared.overlays.push(mount_overlay(overlay, None)?);
                }
            }
            (prepared.overlays.remove(0), "overlay of the image's layers")
        }
    };
    because(Chapter::RootFileSystem, "the new root needs a place in the tree before it can become the root");
    move_mount(tree.as_fd(), name, At::path(&place)).in_step("cannot place the root file system")?;
    let own = Change { propagation: Some(propagation_of(request)), recursive: true, ..Change::default() };
    set_attributes(At::fd(tree.as_fd(), name), own).in_step("cannot place the root file system")?;
    Ok(NewRoot { directory: tree })
}

/// How the root stands to the host's mounts while it is built. To be a slave afterwards it must never have been private.
fn propagation_of(request: &Request) -> MountFlags {
    let asked = request.spec.linux.as_ref().and_then(|linux| linux.rootfs_propagation.as_deref());
    match asked.filter(|_| request.oci.is_some()) {
        Some("slave" | "rslave") => MountFlags::SLAVE,
        _ => MountFlags::PRIVATE,
    }
}

/// Mounts the union mounts below the root (`/usr` of the host's own image).
pub fn lower_overlays(root: &NewRoot, request: &Request, prepared: &mut Prepared) -> Result<()> {
    let RootFileSystem::Overlays(overlays) = &request.root else { return Ok(()) };
    for (overlay, tree) in overlays.iter().skip(1).zip(prepared.overlays.drain(..)) {
        because(Chapter::RootFileSystem, "this directory of the image is a union mount of its own");
        let target = root.make_directory(&overlay.target)?;
        let name = overlay.target.display().to_string();
        move_mount(tree.as_fd(), "overlay", At::fd(target.as_fd(), &name))
            .in_step("cannot place a union mount")?;
    }
    Ok(())
}

/// Shows the `/dev/shm` of another container in this one: the mount is copied in that container's mount namespace, which is entered for
/// that moment, so that nothing in there can lead anywhere else.
pub fn share_memory(root: &NewRoot, theirs: &OwnedFd) -> Result<()> {
    const STEP: &str = "cannot share the other container's /dev/shm";
    if by_path::is_in_use() {
        let source = kernel::Error::new("open_tree", SHARED_MEMORY, Errno::NOSYS);
        return Err(Error::Step { step: STEP, source });
    }
    let failed = |call| move |errno| kernel::Error::new(call, "the mount namespace", errno);
    let open = |path: &str, flags| {
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(failed("open")).in_step(STEP)
    };
    let (own, own_root) = (open("/proc/self/ns/mnt", OFlags::RDONLY)?, open("/", OFlags::PATH)?);
    because(
        Chapter::RootFileSystem,
        "shared memory is files in the other container's /dev/shm: its mount is copied",
    );
    setns(theirs.as_fd(), CloneFlags::NEWNS, "the other container's mounts").in_step(STEP)?;
    let copied = open_tree(At::path(Path::new(SHARED_MEMORY)), OpenTree::CLONE);
    setns(own.as_fd(), CloneFlags::NEWNS, "this container's mounts").in_step(STEP)?;
    rustix::process::fchdir(&own_root).map_err(failed("fchdir")).in_step(STEP)?;
    because(
        Chapter::RootFileSystem,
        "the way back ends at the root of all mounts, which need not be the root from before",
    );
    chroot(Path::new(".")).in_step(STEP)?;
    let tree = match copied {
        // --ipc none: it has no shared memory.
        Err(error) if error.errno() == Errno::NOENT => return Ok(()),
        other => other.in_step(STEP)?,
    };
    let target = root.make_directory(Path::new(SHARED_MEMORY))?;
    move_mount(tree.as_fd(), SHARED_MEMORY, At::fd(target.as_fd(), SHARED_MEMORY)).in_step(STEP)
}
