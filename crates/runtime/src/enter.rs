//! How the new root becomes the only root, and what it is then.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kernel::mount::{
    At, Change, MountAttributes, MountFlags, chroot, mount, move_mount, pivot_root, set_attributes,
    unmount_detached,
};
use kernel::record::{Chapter, because};
use rustix::io::Errno;

use crate::error::{Error, InStep as _, Result};
use crate::file_system::new_file_system;
use crate::mount_options::{self, Options};
use crate::request::{Request, RootFileSystem};
use crate::root::NewRoot;

impl NewRoot {
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
