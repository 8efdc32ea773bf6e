//! The container's root file system: built beside the old root, then swapped in by pivot_root(2).
//!
//! Runs in the process that becomes the container, inside its own mount namespace, so that nothing of it is ever seen outside and
//! nothing has to be unmounted. Every path below the new root is opened with openat2(2) RESOLVE_IN_ROOT: a symbolic link that an
//! image has planted leads nowhere but into the container.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use cgroup::Hierarchy;
use kernel::mount::{
    At, Change, MountAttributes, MountFlags, OpenTree, Setting, chroot, fsconfig, fsmount, fsopen, mount,
    move_mount, open_tree, pivot_root, set_attributes, unmount_detached,
};
use kernel::namespace::setns;
use kernel::process::CloneFlags;
use kernel::record::{Chapter, because};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat};
use rustix::io::Errno;

use crate::error::{Error, InStep as _, PLACE_STEP, Result};
use crate::labels;
use crate::mount_options::{self, Options};
use crate::overlay::mount_overlay;
use crate::request::{Request, RootFileSystem, SHARED_MEMORY};
use crate::spec::{Mount, NamespaceKind};

/// The new root while it is built.
pub struct NewRoot {
    /// Its top directory.
    pub directory: OwnedFd,
}

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

/// Opens the sources of bind mounts as detached copies.
///
/// Done before the clone: a copy made in the host's mount namespace stays in its source's peer group, which is what makes `rshared` and
/// `rslave` volumes work. A process without CAP_SYS_ADMIN cannot; then the container's process does it, later.
pub fn open_binds(mounts: &[Mount]) -> Result<BTreeMap<usize, OwnedFd>> {
    let mut trees = BTreeMap::new();
    for (place, mount) in mounts.iter().enumerate() {
        let options = mount_options::parse(&mount.options);
        if options.bind || mount.kind == "bind" {
            because(
                Chapter::RootFileSystem,
                "a copy of the mount at this path is taken while the host is in view",
            );
            trees.insert(place, open_bind(mount, &options)?);
        }
    }
    Ok(trees)
}

fn open_bind(mount: &Mount, options: &Options) -> Result<OwnedFd> {
    let mut flags = OpenTree::CLONE;
    flags.set(OpenTree::RECURSIVE, options.recursive);
    open_tree(At::path(Path::new(&mount.source)), flags).in_step("cannot bind a path of the host")
}

/// Mounts the root where the container's process finds it, and gives its top directory.
pub fn attach(request: &Request, prepared: &mut Prepared) -> Result<NewRoot> {
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
    let (tree, name) = match &request.root {
        RootFileSystem::Directory(path) => {
            because(
                Chapter::RootFileSystem,
                "pivot_root wants a mount, so the directory is mounted on its own",
            );
            let step = "cannot use the directory as root file system";
            (
                open_tree(At::path(path), OpenTree::CLONE | OpenTree::RECURSIVE).in_step(step)?,
                "root directory",
            )
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
    let private = Change { propagation: Some(MountFlags::PRIVATE), recursive: true, ..Change::default() };
    set_attributes(At::fd(tree.as_fd(), name), private).in_step("cannot place the root file system")?;
    Ok(NewRoot { directory: tree })
}

/// Mounts the union mounts below the root (`/usr` of the host's own image).
pub fn attach_lower_overlays(root: &NewRoot, request: &Request, prepared: &mut Prepared) -> Result<()> {
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

impl NewRoot {
    /// The root that this process has already.
    pub fn of_this_process() -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open("/", flags, Mode::empty())
            .map(|directory| Self { directory })
            .map_err(|errno| kernel::Error::new("open", "/", errno))
            .in_step("cannot use the container's root")
    }

    /// Opens a path below the new root, whatever links lie on the way.
    pub fn open(&self, path: &Path, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
        let inside = path.strip_prefix("/").unwrap_or(path);
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        kernel::fs::open_inside(self.directory.as_fd(), inside, flags)
    }

    /// A directory below the new root, made with its parents where missing. A link to what is not there gets what it names, inside.
    pub fn make_directory(&self, path: &Path) -> Result<OwnedFd> {
        /// As many as the kernel follows, see path_resolution(7).
        const MOST_LINKS: u32 = 40;
        self.make_directory_through(path, MOST_LINKS)
    }

    fn make_directory_through(&self, path: &Path, links: u32) -> Result<OwnedFd> {
        let failed = |errno| missing_target(path, errno);
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(failed),
        }
        let mut so_far = PathBuf::from("/");
        let mut directory = self.open(&so_far, OFlags::PATH).map_err(failed)?;
        let is_step = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
        for component in path.components().filter(is_step) {
            let name = component.as_os_str();
            let parent = so_far.clone();
            so_far.push(name);
            directory = match self.open(&so_far, OFlags::PATH | OFlags::DIRECTORY) {
                Err(Errno::NOENT) => match mkdirat(&directory, name, Mode::from(0o755)) {
                    Ok(()) => self.open(&so_far, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?,
                    Err(Errno::EXIST) if links > 0 => {
                        let target = rustix::fs::readlinkat(&directory, name, Vec::new()).map_err(failed)?;
                        let target = parent.join(OsStr::from_bytes(target.as_bytes()));
                        self.make_directory_through(&target, links - 1)?
                    }
                    Err(errno) => return Err(failed(errno)),
                },
                other => other.map_err(failed)?,
            };
        }
        Ok(directory)
    }

    /// A file below the new root, made empty with its parents where missing; something to mount a file on.
    fn make_file(&self, path: &Path) -> Result<OwnedFd> {
        let failed = |errno| missing_target(path, errno);
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(failed),
        }
        let (parent, name) = self.parent_of(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&parent, &name, flags, Mode::from(0o644)).map_err(failed)?;
        self.open(path, OFlags::PATH).map_err(failed)
    }

    /// The directory that holds a path, made where missing, and the path's last name.
    pub fn parent_of(&self, path: &Path) -> Result<(OwnedFd, PathBuf)> {
        let name = path.file_name().ok_or_else(|| missing_target(path, Errno::INVAL))?;
        Ok((self.make_directory(path.parent().unwrap_or(Path::new("/")))?, PathBuf::from(name)))
    }

    /// Makes the mounts of the specification, in order.
    pub fn mount_all(
        &self,
        request: &Request,
        hierarchy: &Hierarchy,
        binds: &mut BTreeMap<usize, OwnedFd>,
    ) -> Result<()> {
        for (place, mount) in request.spec.mounts.iter().enumerate() {
            let mut options = mount_options::parse(&mount.options);
            if options.bind || mount.kind == "bind" {
                let tree = match binds.remove(&place) {
                    Some(tree) => tree,
                    None => {
                        because(Chapter::RootFileSystem, "a part of the host is made visible inside");
                        open_bind(mount, &options)?
                    }
                };
                self.attach_bind(mount, &options, &tree)?;
            } else if mount.kind == "cgroup" {
                let is_new = has_new_cgroup_namespace(request);
                crate::cgroup_view::mount_view(self, mount, &options, hierarchy, is_new)?;
            } else {
                because(Chapter::RootFileSystem, reason_of(&mount.kind));
                if let Some(context) = labels::context_of(&mount.kind, &request.spec) {
                    options.data.push(("context".to_owned(), Some(context.to_owned())));
                }
                let tree = new_file_system(&mount.kind, &mount.source, &options)?;
                self.attach_mount(&tree, &mount.kind, &mount.destination, &options)?;
            }
        }
        Ok(())
    }

    fn attach_bind(&self, mount: &Mount, options: &Options, tree: &OwnedFd) -> Result<()> {
        because(Chapter::RootFileSystem, "a part of the host is made visible inside");
        let status = rustix::fs::fstat(tree)
            .map_err(|errno| kernel::Error::new("fstat", mount.source.clone(), errno))
            .in_step("cannot bind a path of the host")?;
        let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
        let there = self.open(&mount.destination, OFlags::PATH | OFlags::DIRECTORY);
        // NOTDIR may also be an answer about the way to it, which making the place tells.
        let is_file =
            || matches!(there, Err(Errno::NOTDIR)) && self.open(&mount.destination, OFlags::PATH).is_ok();
        let target = match is_directory {
            true if is_file() => {
                return Err(unlike(mount, "a directory cannot be shown at the place of a file"));
            }
            true => self.make_directory(&mount.destination)?,
            false if there.is_ok() => {
                return Err(unlike(mount, "a file cannot be shown at the place of a directory"));
            }
            false => self.make_file(&mount.destination)?,
        };
        let name = mount.destination.display().to_string();
        move_mount(tree.as_fd(), &mount.source, At::fd(target.as_fd(), &name))
            .in_step("cannot bind a path of the host")?;
        change_attributes(tree.as_fd(), &name, options)
    }

    /// Attaches a new file system at a directory, made where missing.
    pub fn attach_mount(
        &self,
        tree: &OwnedFd,
        kind: &str,
        destination: &Path,
        options: &Options,
    ) -> Result<()> {
        let target = self.make_directory(destination)?;
        let name = destination.display().to_string();
        move_mount(tree.as_fd(), kind, At::fd(target.as_fd(), &name))
            .in_step("cannot mount a file system")?;
        if let Some((propagation, recursive)) = options.propagation {
            let change = Change { propagation: Some(propagation), recursive, ..Change::default() };
            set_attributes(At::fd(tree.as_fd(), &name), change).in_step("cannot mount a file system")?;
        }
        Ok(())
    }

    /// Makes the new root the only root: pivot_root on itself, the old one taken off. Nothing of the host stays reachable.
    pub fn enter(&self) -> Result<()> {
        const STEP: &str = "cannot enter the root file system";
        let fail = |errno| kernel::Error::new("fchdir", "the new root", errno);
        rustix::process::fchdir(&self.directory).map_err(fail).in_step(STEP)?;
        because(
            Chapter::RootFileSystem,
            "the image becomes the root; the old root is stacked on it for a moment",
        );
        pivot_root(Path::new("."), Path::new(".")).in_step(STEP)?;
        because(Chapter::RootFileSystem, "the old root goes: nothing of the host is reachable any more");
        unmount_detached(Path::new(".")).in_step(STEP)?;
        rustix::process::chdir("/").map_err(|errno| kernel::Error::new("chdir", "/", errno)).in_step(STEP)
    }

    /// Gives the root the propagation that `linux.rootfsPropagation` asks for.
    pub fn propagate(&self, propagation: &str) -> Result<()> {
        let options = mount_options::parse(&[propagation.to_owned()]);
        let Some((flags, recursive)) = options.propagation else {
            let reason =
                "give private, slave, shared or unbindable, or one of these with r before it".to_owned();
            let value = propagation.to_owned();
            return Err(Error::Configuration { what: "linux.rootfsPropagation", value, reason });
        };
        because(
            Chapter::RootFileSystem,
            "rootfsPropagation: whether mounts made here and outside are seen on the other side",
        );
        let flags = if recursive { flags | MountFlags::REC } else { flags };
        mount("", Path::new("/"), "", flags, "").in_step("cannot set the root's propagation")
    }

    /// Makes the image's mounts read-only, when all else is mounted.
    pub fn make_read_only(&self, request: &Request) -> Result<()> {
        let below = match &request.root {
            RootFileSystem::Overlays(overlays) => overlays.iter().skip(1).collect(),
            RootFileSystem::Directory(_) => Vec::new(),
        };
        let targets = below.into_iter().map(|overlay| overlay.target.as_path());
        for target in targets.chain([Path::new("/")]) {
            because(Chapter::RootFileSystem, "--read-only: the image's files cannot be changed");
            let change = Change { set: MountAttributes::RDONLY, ..Change::default() };
            set_attributes(At::path(target), change).in_step("cannot make the root read-only")?;
        }
        Ok(())
    }
}

fn unlike(mount: &Mount, reason: &str) -> Error {
    let value = format!("{} at {}", mount.source, mount.destination.display());
    Error::Configuration { what: "mount", value, reason: reason.to_owned() }
}

fn missing_target(path: &Path, errno: Errno) -> Error {
    let source = kernel::Error::new("openat2", path.display().to_string(), errno);
    Error::Step { step: PLACE_STEP, source }
}

fn has_new_cgroup_namespace(request: &Request) -> bool {
    let namespaces = request.spec.linux.iter().flat_map(|linux| &linux.namespaces);
    namespaces.into_iter().any(|namespace| namespace.kind == NamespaceKind::Cgroup)
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
    const STEP: &str = "cannot mount a file system";
    let context = fsopen(kind).in_step(STEP)?;
    let set = |setting| fsconfig(context.as_fd(), kind, setting).in_step(STEP);
    if !source.is_empty() {
        set(Setting::String("source", source))?;
    }
    options.settings().try_for_each(set)?;
    set(Setting::Create)?;
    fsmount(context.as_fd(), kind, options.attributes()).in_step(STEP)
}

/// Gives a bind mount its attributes and propagation.
fn change_attributes(tree: BorrowedFd<'_>, name: &str, options: &Options) -> Result<()> {
    const STEP: &str = "cannot set the options of a bind mount";
    for change in options.changes() {
        set_attributes(At::fd(tree, name), change).in_step(STEP)?;
    }
    let (propagation, recursive) = options.propagation.unwrap_or((MountFlags::PRIVATE, true));
    let change = Change { propagation: Some(propagation), recursive, ..Change::default() };
    set_attributes(At::fd(tree, name), change).in_step(STEP)
}

/// Hides paths of the kernel's that tell or allow too much. Called with the new root as `/`.
pub fn mask(paths: &[PathBuf]) -> Result<()> {
    const STEP: &str = "cannot hide a path";
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let Some(target) = open_below_root(path)? else { continue };
        because(Chapter::RootFileSystem, "this path tells about the host or changes it, so it is hidden");
        let status = rustix::fs::fstat(&target).map_err(|errno| missing_target(path, errno))?;
        let name = path.display().to_string();
        if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            let cover = empty_directory(empty.as_ref())?;
            move_mount(cover.as_fd(), "empty directory", At::fd(target.as_fd(), &name)).in_step(STEP)?;
            empty.get_or_insert(cover);
        } else {
            let null = open_tree(At::path(Path::new("/dev/null")), OpenTree::CLONE).in_step(STEP)?;
            move_mount(null.as_fd(), "/dev/null", At::fd(target.as_fd(), &name)).in_step(STEP)?;
        }
    }
    Ok(())
}

/// A detached mount of one empty read-only file system, which all hidden directories share. It is copied from where it
/// is `attached` already: older kernels copy no detached mount.
fn empty_directory(attached: Option<&OwnedFd>) -> Result<OwnedFd> {
    if let Some(attached) = attached {
        let copy = open_tree(At::fd(attached.as_fd(), "empty directory"), OpenTree::CLONE);
        return copy.in_step("cannot hide a path");
    }
    let options = mount_options::parse(&["ro".to_owned(), "size=0k".to_owned(), "nr_inodes=1".to_owned()]);
    new_file_system("tmpfs", "tmpfs", &options)
}

/// Makes paths of the kernel's read-only. Called with the new root as `/`.
pub fn make_paths_read_only(paths: &[PathBuf]) -> Result<()> {
    const STEP: &str = "cannot make a path read-only";
    for path in paths {
        let Some(target) = open_below_root(path)? else { continue };
        because(Chapter::RootFileSystem, "the kernel's settings can be read inside, not changed");
        let name = path.display().to_string();
        let tree =
            open_tree(At::fd(target.as_fd(), &name), OpenTree::CLONE | OpenTree::RECURSIVE).in_step(STEP)?;
        // Flags that a user namespace may not clear come along with the copy, so nothing but read-only is set.
        let change = Change { set: MountAttributes::RDONLY, recursive: true, ..Change::default() };
        set_attributes(At::fd(tree.as_fd(), &name), change).in_step(STEP)?;
        move_mount(tree.as_fd(), &name, At::fd(target.as_fd(), &name)).in_step(STEP)?;
    }
    Ok(())
}

/// A path of the container's root, if it is there. Links in it are followed only inside `/proc` and `/sys` as mounted.
fn open_below_root(path: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(None),
        Err(errno) => Err(missing_target(path, errno)),
    }
}

/// Makes a symbolic link unless something is there.
pub fn link_if_absent(root: &NewRoot, target: &str, path: &Path) -> Result<()> {
    let (parent, name) = root.parent_of(path)?;
    match rustix::fs::symlinkat(target, &parent, &name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(missing_target(path, errno)),
    }
}

/// Changes a node's owner without following links.
pub fn own(parent: &OwnedFd, name: &Path, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| missing_target(name, errno))
}
