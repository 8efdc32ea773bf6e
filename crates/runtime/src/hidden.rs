//! `maskedPaths` and `readonlyPaths`: what of the kernel's own files the container may not see or change.
//!
//! A path is opened once, without following any link, and what covers it is attached to what was opened: nothing can be put in its place
//! in between. The device that covers files is the host's own, opened while the host was in view and looked at: an image or a volume may
//! have anything as its `/dev/null` (CVE-2025-31133), or nothing.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use kernel::mount::{At, Change, MountAttributes, OpenTree, move_mount, open_tree, set_attributes};
use kernel::record::{Chapter, because};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, InStep as _, Result};
use crate::file_system::new_file_system;
use crate::mount_options;
use crate::place_in_proc::plain;
use crate::root::NewRoot;

const STEP: &str = "cannot hide a path";
const NULL: &str = "/dev/null";

/// What covers hidden paths.
pub struct Covers {
    /// The null device, detached until the first use.
    null: OwnedFd,
    is_null_attached: bool,
    /// An empty directory, made when needed.
    directory: Option<OwnedFd>,
}

impl Covers {
    /// Takes the host's null device. Called before the root changes.
    pub fn open() -> Result<Self> {
        let failed = |errno| kernel::Error::new("open", NULL, errno);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let null = rustix::fs::open(NULL, flags, Mode::empty()).map_err(failed).in_step(STEP)?;
        let status = rustix::fs::fstat(&null).map_err(failed).in_step(STEP)?;
        let is_null = status.st_rdev == rustix::fs::makedev(1, 3)
            && FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice;
        if !is_null {
            let reason = "the host's is not the character device 1:3, and nothing else may cover a path";
            let value = NULL.to_owned();
            return Err(Error::Configuration {
                what: "masked path's cover",
                value,
                reason: reason.to_owned(),
            });
        }
        because(Chapter::RootFileSystem, "files that are to be hidden get the null device over them");
        let null = open_tree(At::fd(null.as_fd(), NULL), OpenTree::CLONE).in_step(STEP)?;
        Ok(Self { null, is_null_attached: false, directory: None })
    }

    /// Hides paths. Called with the new root as `/`.
    pub fn mask(&mut self, paths: &[PathBuf]) -> Result<()> {
        for path in paths {
            let Some(target) = open_without_links(path)? else { continue };
            because(Chapter::RootFileSystem, "this path tells about the host or changes it, so it is hidden");
            let failed = |errno| kernel::Error::new("fstat", path.display().to_string(), errno);
            let status = rustix::fs::fstat(&target).map_err(failed).in_step(STEP)?;
            let name = path.display().to_string();
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
                let cover = empty_directory(self.directory.as_ref())?;
                move_mount(cover.as_fd(), "empty directory", At::fd(target.as_fd(), &name)).in_step(STEP)?;
                self.directory.get_or_insert(cover);
            } else {
                self.cover_file(&target, &name)?;
            }
        }
        Ok(())
    }

    /// Copied from where it is attached already: older kernels copy no detached mount.
    fn cover_file(&mut self, target: &OwnedFd, name: &str) -> Result<()> {
        let to = At::fd(target.as_fd(), name);
        if self.is_null_attached {
            let null = open_tree(At::fd(self.null.as_fd(), NULL), OpenTree::CLONE).in_step(STEP)?;
            return move_mount(null.as_fd(), NULL, to).in_step(STEP);
        }
        self.is_null_attached = true;
        move_mount(self.null.as_fd(), NULL, to).in_step(STEP)
    }
}

/// A detached mount of one empty read-only file system, which all hidden directories share. It is copied from where it
/// is `attached` already: older kernels copy no detached mount.
fn empty_directory(attached: Option<&OwnedFd>) -> Result<OwnedFd> {
    if let Some(attached) = attached {
        return open_tree(At::fd(attached.as_fd(), "empty directory"), OpenTree::CLONE).in_step(STEP);
    }
    let options = mount_options::parse(&["ro".to_owned(), "size=0k".to_owned(), "nr_inodes=1".to_owned()]);
    new_file_system("tmpfs", "tmpfs", &options)
}

/// Makes paths of the kernel's read-only. Called with the new root as `/`.
pub fn make_read_only(paths: &[PathBuf]) -> Result<()> {
    const STEP: &str = "cannot make a path read-only";
    for path in paths {
        let Some(target) = open_without_links(path)? else { continue };
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

/// A path of the container's root, if it is there.
fn open_without_links(path: &Path) -> Result<Option<OwnedFd>> {
    let root = NewRoot::of_this_process()?;
    // Without links `..` is the directory before it, and nothing else can be above the root.
    let path = &plain(path);
    match kernel::fs::open_without_links(root.directory.as_fd(), path, OFlags::PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(None),
        Err(Errno::LOOP) => Err(Error::Configuration {
            what: "masked or read-only path",
            value: path.display().to_string(),
            reason: "there is a symbolic link on the way, and it could lead elsewhere later: name the path without links"
                .to_owned(),
        }),
        Err(errno) => {
            Err(kernel::Error::new("openat2", path.display().to_string(), errno)).in_step("cannot open a path to hide")
        }
    }
}
