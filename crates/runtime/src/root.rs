//! The container's root file system: built beside the old root, then swapped in by pivot_root(2).
//!
//! Runs in the process that becomes the container, inside its own mount namespace, so that nothing of it is ever seen outside and
//! nothing has to be unmounted. Every path below the new root is opened with openat2(2) RESOLVE_IN_ROOT: a symbolic link that an
//! image has planted leads nowhere but into the container.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use cgroup::Hierarchy;
use kernel::mount::{
    At, Change, MountAttributes, MountFlags, OpenTree, Setting, chroot, fsconfig, fsmount, fsopen, fspick,
    mount, move_mount, open_tree, pivot_root, set_attributes, unmount_detached,
};
use kernel::namespace::setns;
use kernel::process::CloneFlags;
use kernel::record::{Chapter, because};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat};
use rustix::io::Errno;

use crate::bind::{self, BIND_STEP};
use crate::copy_up;
use crate::error::{Error, InStep as _, PLACE_STEP, Result};
use crate::idmap;
use crate::labels;
use crate::mount_options::{self, Options};
use crate::overlay::mount_overlay;
use crate::request::{Request, RootFileSystem, SHARED_MEMORY};
use crate::spec::{IdMapping, Mount, NamespaceKind};

/// What fails when a file system cannot be mounted.
const MOUNT_STEP: &str = "cannot mount a file system";

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

    /// A file in an open directory, made empty where missing, to mount a node on: itself, never what a link there leads to
    /// (CVE-2025-52565).
    pub fn node_to_cover(parent: &OwnedFd, name: &Path, mode: u32) -> std::result::Result<OwnedFd, Errno> {
        let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(parent, name, create, Mode::from(mode)) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let there = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(parent, name, there, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode) {
            FileType::Symlink => Err(Errno::LOOP),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Ok(target),
        }
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
            let tree = binds.remove(&place);
            self.mount(mount, request, hierarchy, tree).map_err(|cause| bind::of_mount(mount, cause))?;
        }
        Ok(())
    }

    fn mount(
        &self,
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
            return self.remount(mount, &options);
        }
        if mount.is_bind() {
            let tree = match opened {
                Some(tree) => tree,
                None if idmap::is_asked(mount, &options) => return Err(idmap::refused(mount, Errno::PERM)),
                None => bind::open(mount, &options)?,
            };
            let linux = request.spec.linux.as_ref();
            let in_user_namespace = linux.and_then(|linux| linux.namespace(NamespaceKind::User)).is_some();
            let options = if in_user_namespace { bind::keep_locked(&tree, options)? } else { options };
            return self.attach_bind(mount, &options, &tree);
        }
        check_place_in_proc(mount, None)?;
        if mount.kind == "cgroup" {
            let is_new = has_new_cgroup_namespace(request);
            return crate::cgroup_view::mount_view(self, mount, &options, hierarchy, is_new);
        }
        let mut options = self.fitted(mount, options, request);
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
            self.copy_up(mount, &options, &tree)?;
        }
        self.attach_mount(&tree, &mount.kind, &mount.destination, &options)
    }

    /// The options of a new file system as they fit this container.
    fn fitted(&self, mount: &Mount, mut options: Options, request: &Request) -> Options {
        match mount.kind.as_str() {
            // The directory that is hidden says who may do what in the one that hides it.
            "tmpfs" if !options.data.iter().any(|(key, _)| key == "mode") => {
                let there = self.open(&mount.destination, OFlags::PATH | OFlags::DIRECTORY);
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

    fn copy_up(&self, mount: &Mount, options: &Options, tree: &OwnedFd) -> Result<()> {
        let there = match self.open(&mount.destination, OFlags::PATH | OFlags::DIRECTORY) {
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

    /// Changes a mount that is there already: its attributes, and without `bind` also its file system's settings.
    fn remount(&self, mount: &Mount, options: &Options) -> Result<()> {
        because(Chapter::RootFileSystem, "remount: what is mounted there gets other options");
        let target = self
            .open(&mount.destination, OFlags::PATH)
            .map_err(|errno| missing_target(&mount.destination, errno))?;
        let name = mount.destination.display().to_string();
        if !mount.is_bind() {
            let context = fspick(At::fd(target.as_fd(), &name)).in_step(MOUNT_STEP)?;
            let set = |setting| fsconfig(context.as_fd(), &mount.kind, setting).in_step(MOUNT_STEP);
            options.settings().try_for_each(set)?;
            if options.set.contains(MountAttributes::RDONLY) {
                set(Setting::Flag("ro"))?;
            } else if options.clear.contains(MountAttributes::RDONLY) {
                set(Setting::Flag("rw"))?;
            }
            set(Setting::Reconfigure)?;
        }
        for change in options.changes() {
            bind::change_what_is_not_locked(target.as_fd(), &name, change)?;
        }
        propagate(&target, &name, options)
    }

    fn attach_bind(&self, mount: &Mount, options: &Options, tree: &OwnedFd) -> Result<()> {
        because(Chapter::RootFileSystem, "a part of the host is made visible inside");
        let status = rustix::fs::fstat(tree)
            .map_err(|errno| kernel::Error::new("fstat", mount.source.clone(), errno))
            .in_step(BIND_STEP)?;
        check_place_in_proc(mount, Some(tree))?;
        let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
        let there = self.open(&mount.destination, OFlags::PATH | OFlags::DIRECTORY);
        // NOTDIR may also be an answer about the way to it, which making the place tells.
        let is_file =
            || matches!(there, Err(Errno::NOTDIR)) && self.open(&mount.destination, OFlags::PATH).is_ok();
        let other_kind = |is_directory| Error::OtherKind {
            mounted: format!("{} at {}", mount.source, mount.destination.display()),
            is_directory,
        };
        let target = match is_directory {
            true if is_file() => {
                return Err(other_kind(true));
            }
            true => self.make_directory(&mount.destination)?,
            false if there.is_ok() => {
                return Err(other_kind(false));
            }
            false => self.make_file(&mount.destination)?,
        };
        let name = mount.destination.display().to_string();
        check_target(&target, mount)?;
        move_mount(tree.as_fd(), &mount.source, At::fd(target.as_fd(), &name)).in_step(BIND_STEP)?;
        bind::change_attributes(tree.as_fd(), &name, options)
    }

    /// Attaches a new file system at a directory, made where missing.
    pub fn attach_mount(
        &self,
        tree: &OwnedFd,
        kind: &str,
        destination: &Path,
        options: &Options,
    ) -> Result<()> {
        let target = match kind {
            "proc" | "sysfs" => self.make_ordinary_directory(kind, destination)?,
            _ => self.make_directory(destination)?,
        };
        let name = destination.display().to_string();
        move_mount(tree.as_fd(), kind, At::fd(target.as_fd(), &name)).in_step(MOUNT_STEP)?;
        propagate(tree, &name, options)
    }

    /// A directory that no link leads to. Where `/proc` and `/sys` are is relied on later, so nothing may lead them elsewhere
    /// (CVE-2019-19921, CVE-2023-27561, CVE-2023-28642).
    fn make_ordinary_directory(&self, kind: &str, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let open = || kernel::fs::open_without_links(self.directory.as_fd(), path, flags);
        let opened = match open() {
            Err(Errno::NOENT) => {
                self.make_directory(path)?;
                open()
            }
            other => other,
        };
        opened.map_err(|errno| match errno {
            Errno::LOOP | Errno::NOTDIR => {
                let reason = format!("filesystem {kind:?} must be mounted on ordinary directory");
                Error::Configuration { what: "mount", value: path.display().to_string(), reason }
            }
            errno => missing_target(path, errno),
        })
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

    /// The same for a machine that runs from its initial file system, whose root cannot be pivoted away: `--no-pivot`. The new root is moved
    /// onto the old one and entered by chroot(2).
    ///
    /// The old root stays below. What of the host's `/proc` and `/sys` would still be in sight of the kernel is taken off first: a user
    /// namespace may mount these only where they are to be seen whole already, mount_namespaces(7).
    pub fn enter_without_pivot(&self) -> Result<()> {
        const STEP: &str = "cannot enter the root file system";
        let fail = |call, object| move |errno| kernel::Error::new(call, object, errno);
        let mountinfo = fs_err::read_to_string("/proc/self/mountinfo")?;
        let own = rustix::fs::readlink(format!("/proc/self/fd/{}", self.directory.as_raw_fd()), Vec::new())
            .map_err(fail("readlink", "the new root"))
            .in_step(STEP)?;
        let own = PathBuf::from(OsStr::from_bytes(own.as_bytes()));
        rustix::process::fchdir(&self.directory).map_err(fail("fchdir", "the new root")).in_step(STEP)?;
        for point in
            whole_kernel_file_systems(&mountinfo).into_iter().filter(|point| !point.starts_with(&own))
        {
            because(
                Chapter::RootFileSystem,
                "--no-pivot: the host's /proc and /sys do not stay below the new root",
            );
            match unmount_detached(&point) {
                // Mounts that a more privileged user namespace has made are locked: this one is covered instead.
                Err(error) if matches!(error.errno(), Errno::INVAL | Errno::PERM) => {
                    let cover = new_file_system("tmpfs", "tmpfs", &Options::default())?;
                    move_mount(cover.as_fd(), "tmpfs", At::path(&point)).in_step(STEP)?;
                }
                // It was below one that is gone.
                Err(error) if error.errno() == Errno::NOENT => {}
                other => other.in_step(STEP)?,
            }
        }
        because(Chapter::RootFileSystem, "--no-pivot: the new root is put on top of the old one");
        move_mount(self.directory.as_fd(), "the new root", At::path(Path::new("/"))).in_step(STEP)?;
        because(Chapter::RootFileSystem, "--no-pivot: and this process goes up there");
        chroot(Path::new(".")).in_step(STEP)?;
        rustix::process::chdir("/").map_err(fail("chdir", "/")).in_step(STEP)
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

/// Gives a mount the propagation that its options name, if they do.
fn propagate(tree: &OwnedFd, name: &str, options: &Options) -> Result<()> {
    let Some((propagation, recursive)) = options.propagation else { return Ok(()) };
    let change = Change { propagation: Some(propagation), recursive, ..Change::default() };
    set_attributes(At::fd(tree.as_fd(), name), change).in_step(MOUNT_STEP)
}

/// A path from the root without `.`, `..` and doubled slashes, whatever links it has.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            _ => {}
        }
    }
    plain
}

/// Files of `/proc` that may be covered, by which lxcfs shows a container's own numbers.
const COVERED_IN_PROC: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// Nothing but a proc file system may be at `/proc`, and nothing below it: the kernel's settings and the labels of processes are written
/// there (CVE-2019-16884). `bound` is the source of a bind mount.
fn check_place_in_proc(mount: &Mount, bound: Option<&OwnedFd>) -> Result<()> {
    let place = plain(&mount.destination);
    let Ok(below) = place.strip_prefix("/proc") else { return Ok(()) };
    let is_proc = match bound {
        None => mount.kind == "proc",
        Some(tree) => crate::private_proc::is_top(tree.as_fd())
            .map_err(|errno| kernel::Error::new("fstatfs", mount.source.clone(), errno))
            .in_step(BIND_STEP)?,
    };
    let shown = mount.destination.display();
    let reason = match below.to_str() {
        Some("") if is_proc => return Ok(()),
        Some("") => format!("{:?} cannot be mounted because it is not of type proc", shown.to_string()),
        Some(below) if COVERED_IN_PROC.contains(&below) && bound.is_some() => return Ok(()),
        _ => format!("{:?} cannot be mounted because it is inside /proc", shown.to_string()),
    };
    Err(unlike(mount, &reason))
}

/// The same for a place that a link has led to.
fn check_target(target: &OwnedFd, mount: &Mount) -> Result<()> {
    let is_inside = crate::private_proc::is_inside(target.as_fd()).unwrap_or(false);
    if !is_inside || plain(&mount.destination).starts_with("/proc") {
        return Ok(());
    }
    Err(unlike(mount, "a link leads there from outside of /proc"))
}

fn unlike(mount: &Mount, reason: &str) -> Error {
    let value = format!("{} at {}", mount.source, mount.destination.display());
    Error::Configuration { what: "mount", value, reason: reason.to_owned() }
}

fn missing_target(path: &Path, errno: Errno) -> Error {
    let source = kernel::Error::new("openat2", path.display().to_string(), errno);
    Error::Step { step: PLACE_STEP, source }
}

/// Where proc and sysfs are mounted as a whole, by a mountinfo text, the last first.
fn whole_kernel_file_systems(mountinfo: &str) -> Vec<PathBuf> {
    let point = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let kind = file_system.split(' ').next()?;
        (root == "/" && matches!(kind, "proc" | "sysfs")).then(|| PathBuf::from(point))
    };
    mountinfo.lines().rev().filter_map(point).collect()
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
    let context = fsopen(kind).in_step(MOUNT_STEP)?;
    let set = |setting| fsconfig(context.as_fd(), kind, setting).in_step(MOUNT_STEP);
    if !source.is_empty() {
        set(Setting::String("source", source))?;
    }
    options.settings().try_for_each(set)?;
    set(Setting::Create)?;
    fsmount(context.as_fd(), kind, options.attributes()).in_step(MOUNT_STEP)
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
