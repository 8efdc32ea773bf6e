//! The container's root file system: built beside the old root, then swapped in by pivot_root(2).
//!
//! It is built by the process that becomes the container, inside its own mount namespace, so that nothing of it is ever seen outside and
//! nothing has to be unmounted. Every path below the new root is opened here, with openat2(2) RESOLVE_IN_ROOT: a symbolic link that an
//! image has planted leads nowhere but into the container. How it comes into its place is in `attach.rs`, what is mounted in it in
//! `mounts.rs`, and how it becomes the root in `enter.rs`.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat};
use rustix::io::Errno;

use crate::error::{Error, InStep as _, PLACE_STEP, Result};

/// The new root while it is built.
pub struct NewRoot {
    /// Its top directory.
    pub directory: OwnedFd,
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
    pub fn make_file(&self, path: &Path) -> Result<OwnedFd> {
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

    /// A directory that no link leads to. Where `/proc` and `/sys` are is relied on later, so nothing may lead them elsewhere
    /// (CVE-2019-19921, CVE-2023-27561, CVE-2023-28642).
    pub fn make_ordinary_directory(&self, kind: &str, path: &Path) -> Result<OwnedFd> {
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
}

/// That a path of the container cannot be had.
pub fn missing_target(path: &Path, errno: Errno) -> Error {
    let source = kernel::Error::new("openat2", path.display().to_string(), errno);
    Error::Step { step: PLACE_STEP, source }
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
