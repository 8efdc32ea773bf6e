//! `tmpcopyup`: a new file system in memory begins with a copy of what it hides.
//!
//! Every file is opened by its name in a directory that is open already, and no link is followed: whatever the image has there, and whoever
//! changes it meanwhile, the copy is of the image.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kernel::record::{Chapter, because};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::error::{InStep as _, Result};

const STEP: &str = "cannot copy what a tmpfs hides (tmpcopyup)";

/// Copies all below one directory into another, with owners, modes, times, extended attributes, and links as links.
pub fn copy_tree(from: &OwnedFd, to: &OwnedFd, name: &Path) -> Result<()> {
    because(Chapter::RootFileSystem, "tmpcopyup: the new file system begins with what the image has there");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let (from, to) = (open(from.as_fd(), c".", flags), open(to.as_fd(), c".", flags));
    let mut copy = Copy { links: BTreeMap::new(), path: name.to_owned() };
    let copied = match (from, to) {
        (Ok(from), Ok(to)) => copy.directory(&from, &to, &to, Path::new("")),
        (Err(errno), _) | (_, Err(errno)) => Err(errno),
    };
    copied.map_err(|errno| kernel::Error::new("copy", copy.path.display().to_string(), errno)).in_step(STEP)
}

struct Copy {
    /// Where the first name of a file with several was copied to, by device and inode number.
    links: BTreeMap<(u64, u64), PathBuf>,
    /// What is being copied, for errors.
    path: PathBuf,
}

type Copied<T = ()> = std::result::Result<T, Errno>;

impl Copy {
    /// `top` is the copy's top directory, and `place` where `to` is below it.
    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, top: &OwnedFd, place: &Path) -> Copied {
        for entry in rustix::fs::Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.path.push(OsStr::from_bytes(name.to_bytes()));
            self.entry(from, to, top, &place.join(OsStr::from_bytes(name.to_bytes())), name)?;
            self.path.pop();
        }
        let status = rustix::fs::fstat(from)?;
        copy_attributes(from, to)?;
        own_opened(to, &status)?;
        rustix::fs::futimens(to, &times(&status))
    }

    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, top: &OwnedFd, place: &Path, name: &CStr) -> Copied {
        let status = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(status.st_mode);
        if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            rustix::fs::mkdirat(to, name, Mode::from(0o700))?;
            let (from, to) = (open(from.as_fd(), name, flags)?, open(to.as_fd(), name, flags)?);
            return self.directory(&from, &to, top, place);
        }
        if status.st_nlink > 1 {
            if let Some(first) = self.links.get(&(status.st_dev, status.st_ino)) {
                return rustix::fs::linkat(top, first, to, name, AtFlags::empty());
            }
            self.links.insert((status.st_dev, status.st_ino), place.to_owned());
        }
        match kind {
            FileType::RegularFile => return copy_file(from, to, name),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&target, to, name)?;
                copy_attributes_of_link(from, to, name)?;
            }
            kind => {
                rustix::fs::mknodat(to, name, kind, Mode::from_raw_mode(status.st_mode), status.st_rdev)?;
            }
        }
        let (uid, gid) = owner(&status);
        rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != FileType::Symlink {
            let mode = Mode::from_raw_mode(status.st_mode);
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
        }
        rustix::fs::utimensat(to, name, &times(&status), AtFlags::SYMLINK_NOFOLLOW)
    }
}

fn open(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Copied<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    rustix::fs::openat(directory, name, flags, Mode::from(0o600))
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Copied {
    let source = open(from.as_fd(), name, OFlags::RDONLY)?;
    let status = rustix::fs::fstat(&source)?;
    let copy = open(to.as_fd(), name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    while rustix::fs::sendfile(&copy, &source, None, 1 << 30)? > 0 {}
    // A change of owner takes set-user-id bits and file capabilities away, so it comes first.
    own_opened(&copy, &status)?;
    copy_attributes(&source, &copy)?;
    rustix::fs::futimens(&copy, &times(&status))
}

fn owner(status: &Stat) -> (rustix::fs::Uid, rustix::fs::Gid) {
    (rustix::fs::Uid::from_raw(status.st_uid), rustix::fs::Gid::from_raw(status.st_gid))
}

fn own_opened(file: &OwnedFd, status: &Stat) -> Copied {
    let (uid, gid) = owner(status);
    rustix::fs::fchown(file, Some(uid), Some(gid))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(status.st_mode))
}

fn times(status: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    Timestamps {
        last_access: time(status.st_atime, status.st_atime_nsec),
        last_modification: time(status.st_mtime, status.st_mtime_nsec),
    }
}

/// Names in a list of extended attributes: each ends with a zero byte.
fn names(list: &[u8]) -> impl Iterator<Item = CString> {
    list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).filter_map(|name| CString::new(name).ok())
}

/// The longest list and the longest value that the kernel gives: xattr(7), "Filesystem differences".
const MOST: usize = 64 << 10;

fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> Copied {
    let mut list = vec![0; MOST];
    let length = match rustix::fs::flistxattr(from, list.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut value = vec![0; if length == 0 { 0 } else { MOST }];
    for name in names(&list[..length]) {
        let length = rustix::fs::fgetxattr(from, &name, value.as_mut_slice())?;
        is_kept(rustix::fs::fsetxattr(to, &name, &value[..length], XattrFlags::empty()))?;
    }
    Ok(())
}

/// A file system in memory keeps `user.` attributes only since Linux 6.6; a copy without them is what there can be.
fn is_kept(set: Copied) -> Copied {
    match set {
        Err(Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// A symbolic link can be opened by nobody, so it is named through its open directory.
fn copy_attributes_of_link(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Copied {
    let path = |directory: &OwnedFd| {
        let directory = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        directory.join(OsStr::from_bytes(name.to_bytes()))
    };
    let (from, to) = (path(from), path(to));
    let mut list = vec![0; MOST];
    let length = match rustix::fs::llistxattr(&from, list.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut value = vec![0; if length == 0 { 0 } else { MOST }];
    for name in names(&list[..length]) {
        let length = rustix::fs::lgetxattr(&from, &name, value.as_mut_slice())?;
        is_kept(rustix::fs::lsetxattr(&to, &name, &value[..length], XattrFlags::empty()))?;
    }
    Ok(())
}
