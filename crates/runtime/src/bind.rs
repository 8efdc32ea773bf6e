//! Bind mounts: parts of the host that the container sees.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use kernel::mount::{
    At, Change, MountAttributes, MountFlags, OpenTree, by_path, move_mount, open_tree, set_attributes,
};
use kernel::record::{Chapter, because};
use rustix::fs::{FileType, OFlags, StatVfsMountFlags};
use rustix::io::Errno;

use crate::error::{Error, InStep as _, Result};
use crate::idmap;
use crate::mount_options::{self, Options};
use crate::place_in_proc::{self, unlike};
use crate::root::NewRoot;
use crate::spec::{Mount, Spec};

/// What fails when a source cannot be had.
pub(crate) const BIND_STEP: &str = "cannot bind a path of the host";

/// Opens the sources of bind mounts as detached copies, by the mount's place in the specification.
///
/// Done before the clone: a copy made in the host's mount namespace stays in its source's peer group, which is what makes `rshared` and
/// `rslave` volumes work, and whoever shifts its owners must be privileged over its file system. A process without CAP_SYS_ADMIN cannot;
/// then the container's process does it, later.
pub fn open_all(spec: &Spec) -> Result<BTreeMap<usize, OwnedFd>> {
    let mut trees = BTreeMap::new();
    for (place, mount) in spec.mounts.iter().enumerate() {
        let options = mount_options::parse(&mount.options);
        if !mount.is_bind() || options.remount {
            continue;
        }
        let opened = open(mount, &options).and_then(|tree| {
            if idmap::is_asked(mount, &options) {
                idmap::apply(&tree, mount, &options, spec)?;
            }
            Ok(tree)
        });
        trees.insert(place, opened.map_err(|cause| of_mount(mount, cause))?);
    }
    Ok(trees)
}

/// A detached copy of one source.
pub fn open(mount: &Mount, options: &Options) -> Result<OwnedFd> {
    let mut flags = OpenTree::CLONE;
    flags.set(OpenTree::RECURSIVE, options.recursive);
    because(Chapter::RootFileSystem, "a copy of the mount at this path is taken while the host is in view");
    open_tree(At::path(Path::new(&mount.source)), flags).in_step(BIND_STEP)
}

/// Attaches one where it is to be seen, at a place of its own kind, made where missing.
pub fn attach(root: &NewRoot, mount: &Mount, options: &Options, tree: &OwnedFd) -> Result<()> {
    because(Chapter::RootFileSystem, "a part of the host is made visible inside");
    let status = rustix::fs::fstat(tree)
        .map_err(|errno| kernel::Error::new("fstat", mount.source.clone(), errno))
        .in_step(BIND_STEP)?;
    place_in_proc::check(mount, Some(tree))?;
    if by_path::is_in_use() && options.propagation.is_some_and(|(flags, _)| flags == MountFlags::SHARED) {
        let reason = "what is mounted there cannot be seen on the host without open_tree(2), which a filter denies: use slave";
        return Err(unlike(mount, reason));
    }
    let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
    let there = root.open(&mount.destination, OFlags::PATH | OFlags::DIRECTORY);
    // NOTDIR may also be an answer about the way to it, which making the place tells.
    let is_file =
        || matches!(there, Err(Errno::NOTDIR)) && root.open(&mount.destination, OFlags::PATH).is_ok();
    let other_kind = |is_directory| Error::OtherKind {
        mounted: format!("{} at {}", mount.source, mount.destination.display()),
        is_directory,
    };
    let target = match is_directory {
        true if is_file() => {
            return Err(other_kind(true));
        }
        true => root.make_directory(&mount.destination)?,
        false if there.is_ok() => {
            return Err(other_kind(false));
        }
        false => root.make_file(&mount.destination)?,
    };
    let name = mount.destination.display().to_string();
    place_in_proc::check_target(&target, mount)?;
    move_mount(tree.as_fd(), &mount.source, At::fd(target.as_fd(), &name)).in_step(BIND_STEP)?;
    change_attributes(tree.as_fd(), &name, options)
}

/// Says which mount an error is about.
pub fn of_mount(mount: &Mount, cause: Error) -> Error {
    Error::Mount {
        mounted: mount.source.clone(),
        destination: mount.destination.clone(),
        cause: Box::new(cause),
    }
}

/// Gives a bind mount its attributes and propagation.
pub fn change_attributes(tree: BorrowedFd<'_>, name: &str, options: &Options) -> Result<()> {
    for change in options.changes() {
        change_what_is_not_locked(tree, name, change)?;
    }
    let (propagation, recursive) = options.propagation.unwrap_or((MountFlags::PRIVATE, true));
    let change = Change { propagation: Some(propagation), recursive, ..Change::default() };
    set_attributes(At::fd(tree, name), change).in_step("cannot set the options of a bind mount")
}

/// The options less those that would take back what the host has set on the source: in a user namespace that is for the host to decide,
/// and the kernel would refuse it to a copy made in there, mount_namespaces(7), "Restrictions". A copy made outside is not restricted.
pub fn keep_locked(tree: &OwnedFd, mut options: Options) -> Result<Options> {
    let failed = |errno| kernel::Error::new("fstatvfs", "the source of a bind mount", errno);
    let seen = rustix::fs::fstatvfs(tree).map_err(failed).in_step(BIND_STEP)?.f_flag;
    let lockable = [
        (StatVfsMountFlags::RDONLY, MountAttributes::RDONLY),
        (StatVfsMountFlags::NOSUID, MountAttributes::NOSUID),
        (StatVfsMountFlags::NODEV, MountAttributes::NODEV),
        (StatVfsMountFlags::NOEXEC, MountAttributes::NOEXEC),
    ];
    for (flag, attribute) in lockable {
        if seen.contains(flag) {
            options.clear.remove(attribute);
        }
        // Of the mounts below nobody knows here what the host has set.
        options.clear_recursively.remove(attribute);
    }
    Ok(options)
}

/// What a more privileged user namespace has set is locked in this one (mount_namespaces(7), "Restrictions"): such attributes stay as the
/// source has them, and the rest is set.
pub fn change_what_is_not_locked(tree: BorrowedFd<'_>, name: &str, change: Change<'_>) -> Result<()> {
    const STEP: &str = "cannot set the options of a bind mount";
    let lockable = MountAttributes::ATIME | MountAttributes::NODIRATIME;
    match set_attributes(At::fd(tree, name), change) {
        Err(error) if error.errno() == Errno::PERM => {
            let rest = Change { set: change.set - lockable, clear: MountAttributes::empty(), ..change };
            if rest.set.is_empty() && change.clear.is_empty() && !change.set.intersects(lockable) {
                return Err(error).in_step(STEP);
            }
            because(Chapter::RootFileSystem, "the host has locked some of these options; the others are set");
            if rest.set.is_empty() { Ok(()) } else { set_attributes(At::fd(tree, name), rest).in_step(STEP) }
        }
        other => other.in_step(STEP),
    }
}

/// A file system that cannot be mounted here, seen where the host has it, read-only with all below it.
pub fn read_only_view(source: &Path) -> Result<OwnedFd> {
    let name = source.display().to_string();
    let tree = open_tree(At::path(source), OpenTree::CLONE | OpenTree::RECURSIVE).in_step(BIND_STEP)?;
    let change = Change {
        set: MountAttributes::RDONLY,
        propagation: Some(MountFlags::PRIVATE),
        recursive: true,
        ..Change::default()
    };
    set_attributes(At::fd(tree.as_fd(), &name), change).in_step("cannot set the options of a bind mount")?;
    Ok(tree)
}
