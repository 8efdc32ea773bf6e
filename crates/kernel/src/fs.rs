//! Files below a directory descriptor that a container's root is made of.
//!
//! Only calls that change the machine in a way `--explain` must show are here, and the one that has to be repeated; the rest of the
//! file calls is `rustix`'s, which is safe as it is.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use crate::record::{Arg, act};
use crate::{Error, Result};

/// `openat2(root, path, …)` with `RESOLVE_IN_ROOT` and `RESOLVE_NO_MAGICLINKS`, close-on-exec: `root` is the root directory for the
/// path and for all links on the way. See openat2(2).
///
/// The kernel answers `EAGAIN` to a path with `..` in it when anything anywhere was renamed or mounted meanwhile, as it cannot tell then
/// whether the walk has left the root. That is asked again, and given back only where it never ends.
///
/// Where a filter around this process refuses the call or does not know it, the path is walked name by name. A link of the kernel's own
/// (`/proc/self/fd/7`) is then followed by its text, inside, instead of being refused.
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
    match attempts.find(|opened| !matches!(opened, Err(Errno::AGAIN))).unwrap_or(Err(Errno::AGAIN)) {
        Err(Errno::NOSYS | Errno::PERM) => walk_inside(root, path, flags),
        opened => opened,
    }
}

/// What [`open_inside`] does, by openat(2) of one name after the other. No name is a link when it is opened, so none leads away; the
/// directory above is the one that the walk came from, so `..` does not lead out either, whatever is renamed meanwhile.
fn walk_inside(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    /// As many as the kernel follows: path_resolution(7).
    const MOST_LINKS: u32 = 40;
    const STEP: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    let names = |path: &[u8]| -> Vec<Vec<u8>> {
        let mut names: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        // A slash at the end asks for a directory, which its own name says as well.
        if names.last().is_some_and(Vec::is_empty) {
            names.push(b".".to_vec());
        }
        names.retain(|name| !name.is_empty());
        names
    };
    if path.as_os_str().is_empty() {
        return Err(Errno::NOENT);
    }
    let mut left = VecDeque::from(names(path.as_os_str().as_bytes()));
    let mut way: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        let here = way.last().map_or(root, |directory| directory.as_fd());
        let is_last = left.is_empty();
        if name == b".." {
            way.pop();
            continue;
        }
        let step = rustix::fs::openat(here, name.as_slice(), STEP, Mode::empty())?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&step)?.st_mode);
        if kind == FileType::Symlink && !(is_last && flags.contains(OFlags::NOFOLLOW)) {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP);
            }
            let target = rustix::fs::readlinkat(&step, "", Vec::new())?;
            if target.as_bytes().first() == Some(&b'/') {
                way.clear();
            }
            for name in names(target.as_bytes()).into_iter().rev() {
                left.push_front(name);
            }
            continue;
        }
        if is_last && kind != FileType::Directory {
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return rustix::fs::openat(here, name.as_slice(), flags, Mode::empty());
        }
        if kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        if name != b"." {
            way.push(step);
        }
    }
    let here = way.last().map_or(root, |directory| directory.as_fd());
    rustix::fs::openat(here, ".", flags | OFlags::CLOEXEC, Mode::empty())
}

/// `openat2(directory, path, …)` with `RESOLVE_BENEATH`, `RESOLVE_NO_XDEV` and `RESOLVE_NO_SYMLINKS`, close-on-exec: what is opened is in the
/// directory's own mount, and no link leads to it. See openat2(2).
///
/// Where a filter around this process refuses the call, names are opened one by one and each is looked at: statx(2) tells its mount.
pub fn open_in_mount(directory: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_XDEV
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => walk_in_mount(directory, path, flags),
        opened => opened,
    }
}

fn walk_in_mount(directory: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mount = mount_of(directory)?;
    let step = |parent: BorrowedFd<'_>, name: &std::ffi::OsStr, flags: OFlags| {
        let opened =
            rustix::fs::openat(parent, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode) {
            FileType::Symlink => Err(Errno::LOOP),
            _ if mount_of(opened.as_fd())? != mount => Err(Errno::XDEV),
            _ => Ok(opened),
        }
    };
    let mut way: Option<OwnedFd> = None;
    let mut names = path.components().peekable();
    while let Some(name) = names.next() {
        let Component::Normal(name) = name else { return Err(Errno::XDEV) };
        let parent = way.as_ref().map_or(directory, |parent| parent.as_fd());
        let seen = step(parent, name, OFlags::PATH)?;
        if names.peek().is_none() {
            return step(parent, name, flags);
        }
        way = Some(seen);
    }
    Err(Errno::NOENT)
}

/// The number of the mount that an open file is reached by.
fn mount_of(file: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    let status = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    match StatxFlags::from_bits_retain(status.stx_mask).contains(StatxFlags::MNT_ID) {
        true => Ok(status.stx_mnt_id),
        false => Err(Errno::NOSYS),
    }
}

/// `faccessat2(AT_FDCWD, path, access, AT_EACCESS)`: whether this process may, with the rights it has now. See access(2).
///
/// Where a filter around this process refuses the call it is faccessat(2), which asks for the real user: the same one in programs that are
/// not set-user-id.
pub fn may_access(path: &Path, access: Access) -> rustix::io::Result<()> {
    match rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS) {
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::accessat(CWD, path, access, AtFlags::empty()),
        other => other,
    }
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
    fn a_walk_by_names_ends_where_the_kernels_own_does() {
        let directory = std::env::temp_dir().join(format!("kernel-walk-{}", std::process::id()));
        let mode = Mode::from_raw_mode(0o700);
        let at = |name: &str| directory.join(name);
        for name in ["", "root", "root/a", "root/a/b", "outside"] {
            rustix::fs::mkdir(at(name), mode).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        for name in ["root/file", "root/a/b/deep", "secret"] {
            rustix::fs::open(at(name), flags, mode).unwrap();
        }
        let links = [
            ("up", "../../../secret"),
            ("absolute", "/a/b/deep"),
            ("host", "/etc/passwd"),
            ("directory", "a/b/"),
            ("dangling", "nowhere"),
            ("loop", "loop"),
            ("a/up", "../file"),
            ("file-as-directory", "file/"),
        ];
        for (name, target) in links {
            rustix::fs::symlink(target, at("root").join(name)).unwrap();
        }
        let root = rustix::fs::open(at("root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let identity = |opened: rustix::io::Result<OwnedFd>| {
            opened.map(|file| {
                let status = rustix::fs::fstat(&file).unwrap();
                (status.st_dev, status.st_ino)
            })
        };
        let own = [
            "..",
            "../..",
            "a/../..",
            ".",
            "/",
            "a/b/..",
            "a/b/deep",
            "/a/b/deep/",
            "file/x",
            "a/",
            "/a/./b/../../file",
        ];
        let paths = links.iter().map(|(name, _)| *name).chain(own).chain([
            "up/x",
            "directory/deep",
            "loop/x",
            "",
            "nowhere/x",
        ]);
        for path in paths {
            for more in [
                OFlags::PATH,
                OFlags::PATH | OFlags::DIRECTORY,
                OFlags::PATH | OFlags::NOFOLLOW,
                OFlags::RDONLY,
            ] {
                let expected = identity(open_inside(root.as_fd(), Path::new(path), more));
                let walked = identity(walk_inside(root.as_fd(), Path::new(path), more));
                assert_eq!(walked, expected, "{path:?} {more:?}");
            }
        }
        for (name, _) in links {
            rustix::fs::unlink(at("root").join(name)).unwrap();
        }
        for name in ["root/file", "root/a/b/deep", "secret"] {
            rustix::fs::unlink(at(name)).unwrap();
        }
        for name in ["outside", "root/a/b", "root/a", "root", ""] {
            rustix::fs::rmdir(at(name)).unwrap();
        }
    }

    #[test]
    fn a_walk_in_a_mount_ends_where_the_kernels_own_does() {
        for top in ["/proc", "/"] {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let top = rustix::fs::open(top, flags, Mode::empty()).unwrap();
            for path in [
                "sys/kernel/hostname",
                "self/comm",
                "proc/version",
                "..",
                "nowhere/x",
                "version",
                "version/x",
                "etc/passwd",
            ] {
                let opened = open_in_mount(top.as_fd(), Path::new(path), OFlags::RDONLY).map(drop);
                let walked = walk_in_mount(top.as_fd(), Path::new(path), OFlags::RDONLY).map(drop);
                assert_eq!(walked, opened, "{path}");
            }
        }
    }

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
