//! What a container leaves behind, and its removal: by its monitor when it ends, by a later command when the monitor was killed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use cgroup::Group;
use kernel::namespace::setns;
use kernel::process::{self, CloneFlags, Cloned, Ended};
use kernel::record::{Actor, Chapter, because};

use crate::error::{Error, InStep as _, Result};
use crate::launch;
use crate::request::Request;

/// Ends every process of the container's group and removes the group. Tells whether the kernel had killed one for want of memory.
pub fn remove_group(group: &Group) -> Result<bool> {
    because(Chapter::CleanUp, "whatever the container left running ends with it");
    let out_of_memory = group.oom_killed().unwrap_or(false);
    group.kill()?;
    group.remove()?;
    Ok(out_of_memory)
}

/// Removes the group of a container whose monitor is gone, if it is still there.
pub fn remove_group_of(request: &Request) -> Result<()> {
    match crate::group::find(&request.state_directory, request.cgroup_parent.as_deref(), &request.id)? {
        Some(group) => remove_group(&group).map(drop),
        None => Ok(()),
    }
}

/// Removes the container's directories and gives its name back.
///
/// In a user namespace some files belong to ids that only exist in there, so they are removed from inside: from `existing`, or from a
/// new one with the same maps. The directory goes last: as long as it is there, a later command finds all that is left.
pub fn remove_files(request: &Request, existing: Option<&OwnedFd>) -> Result<()> {
    let inside = match owns_files_of_others(request)? {
        true => from_inside(request, existing),
        false => Ok(()),
    };
    remove_tree(&request.state_directory)?;
    if let Some(name) = request.name_file.as_deref().filter(|name| leads_to(name, &request.id)) {
        ignore_missing(fs_err::remove_file(name))?;
    }
    // Where no user namespace can be made, nothing was written in one either. If something is left, what went wrong inside is why.
    remove_tree(&request.directory).or_else(|error| inside.and(Err(error)))
}

/// Whether a name is this container's: once given back, it may be another one's.
fn leads_to(name: &Path, id: &str) -> bool {
    fs_err::read_link(name).is_ok_and(|target| target == Path::new(id))
}

fn owns_files_of_others(request: &Request) -> Result<bool> {
    let capabilities = kernel::identity::capabilities().in_step("cannot read this process's capabilities")?;
    let mapped = request.spec.linux.as_ref().is_some_and(|linux| !linux.uid_mappings.is_empty());
    Ok(mapped && capabilities.effective == 0 && request.directory.exists())
}

fn remove_tree(path: &Path) -> Result<()> {
    ignore_missing(fs_err::remove_dir_all(path))
}

fn ignore_missing(outcome: std::io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::File(error)),
        _ => Ok(()),
    }
}

/// Removes the container's changes as root of its user namespace.
fn from_inside(request: &Request, existing: Option<&OwnedFd>) -> Result<()> {
    const STEP: &str = "cannot remove the container's files";
    because(
        Chapter::CleanUp,
        "files of ids that exist only in the user namespace are removed from inside it",
    );
    let (ours, theirs) = kernel::socket::pair().in_step(STEP)?;
    let flags = if existing.is_some() { CloneFlags::empty() } else { CloneFlags::NEWUSER };
    let child = match process::clone3(flags, None).in_step(STEP)? {
        Cloned::Parent(child) => child,
        Cloned::Child => {
            kernel::record::actor(Actor::Helper);
            drop(ours);
            let removed =
                crate::child::wait_for_go(theirs.as_fd()).and_then(|_| remove_as_root(request, existing));
            match removed {
                Ok(()) => process::exit(0),
                Err(error) => crate::child::fail(theirs.as_fd(), &error),
            }
        }
    };
    drop(theirs);
    if existing.is_none() {
        launch::map_ids(request, false, child.pid)?;
    }
    crate::message::send(&ours, &crate::child::Go::On, &[]).in_step(STEP)?;
    let told = crate::message::receive::<crate::child::FromChild>(&ours)?;
    match (process::wait(child.pidfd.as_fd()).in_step(STEP)?, told) {
        (Ended::Exited(0), _) => Ok(()),
        (_, Some((crate::child::FromChild::Failed(failure), _))) => Err(Error::InContainer(failure)),
        (ended, _) => Err(Error::EndedEarly { ended: format!("status {}", ended.code()) }),
    }
}

fn remove_as_root(request: &Request, existing: Option<&OwnedFd>) -> Result<()> {
    const STEP: &str = "cannot remove the container's files";
    if let Some(namespace) = existing {
        setns(namespace.as_fd(), CloneFlags::NEWUSER, "the container's user namespace").in_step(STEP)?;
    }
    kernel::identity::set_group(0).in_step(STEP)?;
    kernel::identity::set_user(0).in_step(STEP)?;
    let entries = match fs_err::read_dir(&request.directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}
