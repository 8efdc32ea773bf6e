//! ID-mapped mounts: the same files with other owners, in this mount alone. See mount_setattr(2), "ID-mapped mounts".

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use kernel::mount::{At, Change, set_attributes};
use kernel::process::{self, CloneFlags, Cloned};
use kernel::record::{Actor, Chapter, because};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, InStep as _, Result};
use crate::launch::write_maps;
use crate::mount_options::Options;
use crate::namespaces;
use crate::spec::{IdMapping, Mount, NamespaceKind, Spec};

const STEP: &str = "cannot show a mount's files with other owners";

/// Whether a mount's owners are to be mapped: by an option, or because it brings mappings.
pub fn is_asked(mount: &Mount, options: &Options) -> bool {
    options.idmap.is_some() || !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty()
}

/// Maps the owners of a detached tree, by the mount's own mappings or else by those of the container's user namespace.
pub fn apply(tree: &OwnedFd, mount: &Mount, options: &Options, spec: &Spec) -> Result<()> {
    let user_namespace = namespace_for(mount, spec)?;
    because(Chapter::RootFileSystem, "this mount shows its files with other owners; no file is changed");
    let change = Change {
        user_namespace: Some(user_namespace.as_fd()),
        recursive: options.idmap.unwrap_or(false),
        ..Change::default()
    };
    set_attributes(At::fd(tree.as_fd(), &mount.source), change).map_err(|source| match source.errno() {
        Errno::INVAL | Errno::PERM | Errno::NOSYS => refused(mount, source.errno()),
        _ => Error::Step { step: STEP, source },
    })
}

/// Why a mapping is refused.
pub fn refused(mount: &Mount, errno: Errno) -> Error {
    let reason = match errno {
        Errno::PERM => {
            "only root of the host may map the owners of its files, and only once: its file system belongs to another user \
             namespace, or this mount is mapped already"
        }
        Errno::NOSYS => {
            "a filter around this process denies the newer mount calls, and no other call maps owners"
        }
        _ => "its file system, or one below it, cannot show its files with other owners (idmap)",
    };
    let value = format!("{} at {}", mount.source, mount.destination.display());
    Error::Configuration { what: "id-mapped mount", value, reason: reason.to_owned() }
}

fn namespace_for(mount: &Mount, spec: &Spec) -> Result<OwnedFd> {
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return user_namespace(&mount.uid_mappings, &mount.gid_mappings);
    }
    let linux = spec.linux.as_ref();
    let joined = linux.and_then(|linux| linux.namespace(NamespaceKind::User)?.path.as_deref());
    match (joined, linux) {
        (Some(path), _) => namespaces::open(path),
        (None, Some(linux)) if !linux.uid_mappings.is_empty() => {
            user_namespace(&linux.uid_mappings, &linux.gid_mappings)
        }
        _ => {
            let value = mount.destination.display().to_string();
            let reason = "there are no mappings: give it uidMappings and gidMappings, or the container a user namespace";
            Err(Error::Configuration { what: "id-mapped mount", value, reason: reason.to_owned() })
        }
    }
}

/// A user namespace with these mappings. A process has to be in one while its maps are written; this one does nothing else.
fn user_namespace(users: &[IdMapping], groups: &[IdMapping]) -> Result<OwnedFd> {
    let (ours, theirs) = kernel::socket::pair().in_step(STEP)?;
    because(
        Chapter::RootFileSystem,
        "which owner is shown as which is told by a user namespace: a process holds one while its maps are written",
    );
    let holder = match process::clone3(CloneFlags::NEWUSER, None).in_step(STEP)? {
        Cloned::Child => {
            kernel::record::actor(Actor::Helper);
            drop(ours);
            // The other end closes, whatever becomes of its owner.
            let _ = kernel::socket::receive(theirs.as_fd());
            process::exit(0)
        }
        Cloned::Parent(holder) => holder,
    };
    drop(theirs);
    let directory = PathBuf::from(format!("/proc/{}", holder.pid));
    let made = write_maps(&directory, users, groups, true).and_then(|()| {
        let path = directory.join("ns/user");
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| kernel::Error::new("open", path.display().to_string(), errno))
            .in_step(STEP)
    });
    drop(ours);
    process::wait(holder.pidfd.as_fd()).in_step(STEP)?;
    made
}
