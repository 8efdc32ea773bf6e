//! Files below a directory descriptor that a container's root is made of.
//!
//! Only calls that change the machine in a way `--explain` must show are here, and the one that has to be repeated; the rest of the
//! file calls is `rustix`'s, which is safe as it is.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::record::{Arg, act};
use crate::{Error, Result};

/// `openat2(root, path, …)` with `RESOLVE_IN_ROOT` and `RESOLVE_NO_MAGICLINKS`, close-on-exec: `root` is the root directory for the
/// path and for all links on the way. See openat2(2).
///
/// The kernel answers `EAGAIN` to a path with `..` in it when anything anywhere was renamed or mounted meanwhile, as it cannot tell then
/// whether the walk has left the root. That is asked again, and given back only where it never ends.
pub fn open_inside(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    open_resolved(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// The same with `RESOLVE_NO_SYMLINKS`: a symbolic link anywhere on the way is `ELOOP`.
pub fn open_without_links(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    open_resolved(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
}

/// The same with `RESOLVE_NO_SYMLINKS`, `RESOLVE_NO_XDEV` and `RESOLVE_BENEATH`: besides links, a mount on the way is refused too, by
/// `EXDEV`. What is opened belongs to the file system of `directory` itself.
pub fn open_in_same_mount(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    open_resolved(directory, path, flags, resolve)
}

fn open_resolved(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    const MOST_ATTEMPTS: usize = 10_000;
    let open = || rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
    let mut attempts = std::iter::repeat_with(open).take(MOST_ATTEMPTS);
    attempts.find(|opened| !matches!(opened, Err(Errno::AGAIN))).unwrap_or(Err(Errno::AGAIN))
}

/// `mknodat(dirfd, name, mode | kind, makedev(major, minor))`, recorded: mknod(2).
///
/// `mode` is what the kernel gets: the process's umask is taken off it. A character device 0:0 is overlayfs's
/// whiteout, which needs no privilege. The error names `name` only; the caller knows the directory.
pub fn mknodat(
    dir: BorrowedFd<'_>,
    name: &CStr,
    kind: FileType,
    mode: u32,
    major: u32,
    minor: u32,
) -> Result<()> {
    let device = rustix::fs::makedev(major, minor);
    let args = || {
        vec![
            Arg::Fd(dir.as_raw_fd(), String::new()),
            Arg::Str(name.to_string_lossy().into_owned()),
            Arg::Flags(u64::from(kind.as_raw_mode() | mode), format!("{kind:?} {mode:#o}")),
            Arg::Int(device as i64),
        ]
    };
    act("mknodat", args, |()| 0, || rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode), device))
        .map_err(|errno| Error::new("mknodat", name.to_string_lossy(), errno))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn paths_are_opened_inside_while_others_rename() {
        let directory = std::env::temp_dir().join(format!("kernel-fs-{}", std::process::id()));
        let (mode, path) = (Mode::from_raw_mode(0o700), PathBuf::from("place/../".repeat(100)).join("place"));
        let [one, other, place] = ["one", "other", "place"].map(|name| directory.join(name));
        [&directory, &one, &place].into_iter().try_for_each(|path| rustix::fs::mkdir(path, mode)).unwrap();
        let root = rustix::fs::open(&directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    rustix::fs::rename(&one, &other).unwrap();
                    rustix::fs::rename(&other, &one).unwrap();
                }
            });
            let failed = (0..2000).find_map(|_| open_inside(root.as_fd(), &path, OFlags::PATH).err());
            is_done.store(true, Ordering::Relaxed);
            assert_eq!(failed, None);
        });
        [&place, &one, &directory].into_iter().try_for_each(rustix::fs::rmdir).unwrap();
    }
}
