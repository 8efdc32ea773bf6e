//! New file systems: proc, sysfs, tmpfs and their like, each made for this container alone.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use kernel::mount::{At, Change, MountAttributes, move_mount, set_attributes};
use kernel::record::{Chapter, because};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::bind;
use crate::copy_up;
use crate::error::{Error, InStep as _, Result};
use crate::labels;
use crate::mount_options::Options;
use crate::request::Request;
use crate::root::{NewRoot, missing_target};
use crate::spec::{IdMapping, Mount};

/// What fails when a file system cannot be mounted.
pub(crate) const MOUNT_STEP: &str = "cannot mount a file system";

/// Makes one and attaches it.
pub fn mount(root: &NewRoot, mount: &Mount, options: Options, request: &Request) -> Result<()> {
    let mut options = fitted(root, mount, options, request);
    if let Some(context) = labels::context_of(&mount.kind, &request.spec) {
        options.data.push(("context".to_owned(), Some(context.to_owned())));
    }
    because(Chapter::RootFileSystem, reason_of(&mount.kind));
    let tree = match new_file_system(&mount.kind, &mount.source, &options) {
        Err(Error::Step { source, .. }) if mount.kind == "sysfs" && source.errno() == Errno::PERM => {
            because(
                Chapter::RootFileSystem,
                "who has no network namespace of its own may not mount /sys, and sees the host's, read-only",
            );
            bind::read_only_view(Path::new("/sys"))?
        }
        other => other?,
    };
    if options.copy_up {
        copy_up(root, mount, &options, &tree)?;
    }
    attach(root, &tree, &mount.kind, &mount.destination, &options)
}

/// The options of a new file system as they fit this container.
fn fitted(root: &NewRoot, mount: &Mount, mut options: Options, request: &Request) -> Options {
    match mount.kind.as_str() {
        // The directory that is hidden says who may do what in the one that hides it.
        "tmpfs" if !options.data.iter().any(|(key, _)| key == "mode") => {
            let there = root.open(&mount.destination, OFlags::PATH | OFlags::DIRECTORY);
            if let Some(status) = there.ok().and_then(|there| rustix::fs::fstat(there).ok()) {
                options.data.push(("mode".to_owned(), Some(format!("{:o}", status.st_mode & 0o7777))));
            }
        }
        // Terminals belong to the group tty, 5, where there is one: a user's user namespace may have only that user.
        "devpts" => {
            let maps = request.spec.linux.as_ref().map_or(&[][..], |linux| &linux.gid_mappings);
            let has = |group: u32| {
                let is_in =
                    |map: &IdMapping| group.checked_sub(map.container_id).is_some_and(|at| at < map.size);
                maps.is_empty() || maps.iter().any(is_in)
            };
            let group = |value: &Option<String>| value.as_ref().and_then(|value| value.parse().ok());
            options.data.retain(|(key, value)| key != "gid" || group(value).is_none_or(has));
        }
        _ => {}
    }
    options
}

fn copy_up(root: &NewRoot, mount: &Mount, options: &Options, tree: &OwnedFd) -> Result<()> {
    let there = match root.open(&mount.destination, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(|errno| missing_target(&mount.destination, errno))?,
    };
    let name = mount.destination.display().to_string();
    let read_only = |set, clear| Change { set, clear, ..Change::default() };
    let is_read_only = options.attributes().contains(MountAttributes::RDONLY);
    let (none, ro) = (MountAttributes::empty(), MountAttributes::RDONLY);
    if is_read_only {
        set_attributes(At::fd(tree.as_fd(), &name), read_only(none, ro)).in_step(MOUNT_STEP)?;
    }
    copy_up::copy_tree(&there, tree, &mount.destination)?;
    if is_read_only {
        set_attributes(At::fd(tree.as_fd(), &name), read_only(ro, none)).in_step(MOUNT_STEP)?;
    }
    Ok(())
}

/// Attaches a new file system at a directory, made where missing.
pub fn attach(
    root: &NewRoot,
    tree: &OwnedFd,
    kind: &str,
    destination: &Path,
    options: &Options,
) -> Result<()> {
    let target = match kind {
        "proc" | "sysfs" => root.make_ordinary_directory(kind, destination)?,
        _ => root.make_directory(destination)?,
    };
    let name = destination.display().to_string();
    move_mount(tree.as_fd(), kind, At::fd(target.as_fd(), &name)).in_step(MOUNT_STEP)?;
    propagate(tree, &name, options)
}

/// Gives a mount the propagation that its options name, if they do.
pub fn propagate(tree: &OwnedFd, name: &str, options: &Options) -> Result<()> {
    let Some((propagation, recursive)) = options.propagation else { return Ok(()) };
    let change = Change { propagation: Some(propagation), recursive, ..Change::default() };
    set_attributes(At::fd(tree.as_fd(), name), change).in_step(MOUNT_STEP)
}

fn reason_of(kind: &str) -> &'static str {
    match kind {
        "proc" => "programs like ps read /proc, and this one shows only the container's processes",
        "sysfs" => "programs look for devices and network cards in /sys",
        "devpts" => "the container gets pseudo-terminals of its own",
        "mqueue" => "POSIX message queues of the container's own IPC namespace",
        _ => "a file system in memory that goes with the container",
    }
}

/// A new file system as a detached mount.
pub fn new_file_system(kind: &str, source: &str, options: &Options) -> Result<OwnedFd> {
    let settings: Vec<_> = options.settings().collect();
    kernel::mount::new_file_system(kind, source, &settings, options.attributes()).in_step(MOUNT_STEP)
}
