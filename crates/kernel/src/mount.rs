//! Mounts: the descriptor-based calls of Linux 5.2 and later, and mount(2) where they do not reach or, in [`by_path`], are denied.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr;

use bitflags::bitflags;
use rustix::io::Errno;

use crate::raw::{c_string, check, owned, shown};
use crate::record::{Arg, act};
use crate::{Error, Result};

pub mod by_path;
mod context;

pub use context::{Setting, fsconfig, fsmount, fsopen, new_file_system, reconfigure};

bitflags! {
    /// Flags of mount(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct MountFlags: u64 {
        /// Read-only.
        const RDONLY = libc::MS_RDONLY;
        /// Set-user-id bits do nothing.
        const NOSUID = libc::MS_NOSUID;
        /// Device nodes do nothing.
        const NODEV = libc::MS_NODEV;
        /// Nothing can be executed.
        const NOEXEC = libc::MS_NOEXEC;
        /// Change flags of an existing mount.
        const REMOUNT = libc::MS_REMOUNT;
        /// Do not follow access times.
        const NOATIME = libc::MS_NOATIME;
        /// Make a tree visible a second time.
        const BIND = libc::MS_BIND;
        /// With everything mounted below.
        const REC = libc::MS_REC;
        /// Share mount events with nobody.
        const PRIVATE = libc::MS_PRIVATE;
        /// Get mount events, send none.
        const SLAVE = libc::MS_SLAVE;
        /// Share mount events both ways.
        const SHARED = libc::MS_SHARED;
        /// Cannot be bound elsewhere.
        const UNBINDABLE = libc::MS_UNBINDABLE;
        /// Take a mount from where it is attached to another place.
        const MOVE = libc::MS_MOVE;
        /// Access times of directories are not written.
        const NODIRATIME = libc::MS_NODIRATIME;
        /// Access times are written now and then.
        const RELATIME = libc::MS_RELATIME;
        /// Access times are always written.
        const STRICTATIME = libc::MS_STRICTATIME;
        /// Symbolic links are not followed.
        const NOSYMFOLLOW = 256;
        /// Every write goes to the disk at once.
        const SYNCHRONOUS = libc::MS_SYNCHRONOUS;
        /// Every change of a directory goes to the disk at once.
        const DIRSYNC = libc::MS_DIRSYNC;
        /// Times are written when something else is.
        const LAZYTIME = 1 << 25;
        /// Mandatory locks, which no kernel has any more.
        const MANDLOCK = libc::MS_MANDLOCK;
    }

    /// Attributes of one mount: fsmount(2), mount_setattr(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct MountAttributes: u64 {
        /// Read-only.
        const RDONLY = 0x1;
        /// Set-user-id bits do nothing.
        const NOSUID = 0x2;
        /// Device nodes do nothing.
        const NODEV = 0x4;
        /// Nothing can be executed.
        const NOEXEC = 0x8;
        /// The field that says how access times are kept. It has one of three values: zero (relatime, the kernel's own way),
        /// [`Self::NOATIME`] or [`Self::STRICTATIME`].
        const ATIME = 0x70;
        /// Access times are never written.
        const NOATIME = 0x10;
        /// Access times are always written.
        const STRICTATIME = 0x20;
        /// Access times of directories are not written.
        const NODIRATIME = 0x80;
        /// Owners are shifted by a user namespace.
        const IDMAP = 0x10_0000;
        /// Symbolic links are not followed.
        const NOSYMFOLLOW = 0x20_0000;
    }

    /// Flags of open_tree(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct OpenTree: u64 {
        /// A new detached mount of the tree.
        const CLONE = 1;
        /// Close on exec.
        const CLOEXEC = libc::O_CLOEXEC as u64;
        /// With everything mounted below.
        const RECURSIVE = libc::AT_RECURSIVE as u64;
        /// The descriptor itself, not a path below it.
        const EMPTY_PATH = libc::AT_EMPTY_PATH as u64;
        /// A symbolic link itself.
        const SYMLINK_NOFOLLOW = libc::AT_SYMLINK_NOFOLLOW as u64;
    }
}

fn words<F: bitflags::Flags>(flags: &F) -> String {
    flags.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join("|")
}

fn flags_arg<F: bitflags::Flags<Bits = u64>>(flags: &F) -> Arg {
    Arg::Flags(flags.bits(), words(flags))
}

/// Where a call with a directory descriptor and a path begins.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// The directory, or nothing for the working directory.
    pub directory: Option<BorrowedFd<'a>>,
    /// The path from there; empty for the directory itself.
    pub path: &'a Path,
    /// What it is, for errors and the record.
    pub name: &'a str,
}

impl<'a> At<'a> {
    /// An open file or directory.
    pub fn fd(fd: BorrowedFd<'a>, name: &'a str) -> Self {
        Self { directory: Some(fd), path: Path::new(""), name }
    }

    /// A path from the working directory.
    pub fn path(path: &'a Path) -> Self {
        Self { directory: None, path, name: "" }
    }

    fn number(&self) -> i32 {
        self.directory.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd())
    }

    fn shown(&self) -> String {
        match (self.path.as_os_str().is_empty(), self.name.is_empty()) {
            (true, _) => self.name.to_owned(),
            (false, true) => shown(self.path),
            (false, false) => format!("{}/{}", self.name, self.path.display()),
        }
    }

    fn args(&self) -> [Arg; 2] {
        let directory = match self.directory {
            Some(fd) => Arg::Fd(fd.as_raw_fd(), self.name.to_owned()),
            None => Arg::Fd(libc::AT_FDCWD, "working directory".to_owned()),
        };
        [directory, Arg::Str(shown(self.path))]
    }
}

/// `mount(source, target, fstype, flags, data)`; an empty kind or data is passed as NULL. See mount(2).
pub fn mount(source: &str, target: &Path, kind: &str, flags: MountFlags, data: &str) -> Result<()> {
    let failed = |errno| Error::new("mount", shown(target), errno);
    let source_c = c_string("mount", source)?;
    let target_c = c_string("mount", target)?;
    let unless_empty = |text: &str| (!text.is_empty()).then(|| c_string("mount", text)).transpose();
    let (kind_c, data_c) = (unless_empty(kind)?, unless_empty(data)?);
    let null_or_str = |text: &str| if text.is_empty() { Arg::Int(0) } else { Arg::Str(text.to_owned()) };
    let args = || {
        vec![
            Arg::Str(source.to_owned()),
            Arg::Str(shown(target)),
            null_or_str(kind),
            flags_arg(&flags),
            null_or_str(data),
        ]
    };
    act(
        "mount",
        args,
        |_| 0,
        || {
            // SAFETY: up to four strings that outlive the call; kind and data may be null.
            check(unsafe {
                libc::syscall(
                    libc::SYS_mount,
                    source_c.as_ptr(),
                    target_c.as_ptr(),
                    kind_c.as_ref().map_or(ptr::null(), |kind| kind.as_ptr()),
                    flags.bits(),
                    data_c.as_ref().map_or(ptr::null(), |data| data.as_ptr()),
                )
            })
        },
    )
    .map_err(failed)?;
    Ok(())
}

/// `umount2(target, MNT_DETACH)`: takes a tree out of sight at once. See umount(2).
pub fn unmount_detached(target: &Path) -> Result<()> {
    let target_c = c_string("umount2", target)?;
    let flags = || Arg::Flags(libc::MNT_DETACH as u64, "MNT_DETACH".to_owned());
    act(
        "umount2",
        || vec![Arg::Str(shown(target)), flags()],
        |_| 0,
        || {
            // SAFETY: one string that outlives the call.
            check(unsafe { libc::syscall(libc::SYS_umount2, target_c.as_ptr(), libc::MNT_DETACH) })
        },
    )
    .map_err(|errno| Error::new("umount2", shown(target), errno))?;
    Ok(())
}

/// `pivot_root(new_root, put_old)`. See pivot_root(2).
pub fn pivot_root(new_root: &Path, put_old: &Path) -> Result<()> {
    let (new_c, old_c) = (c_string("pivot_root", new_root)?, c_string("pivot_root", put_old)?);
    act(
        "pivot_root",
        || vec![Arg::Str(shown(new_root)), Arg::Str(shown(put_old))],
        |_| 0,
        || {
            // SAFETY: two strings that outlive the call.
            check(unsafe { libc::syscall(libc::SYS_pivot_root, new_c.as_ptr(), old_c.as_ptr()) })
        },
    )
    .map_err(|errno| Error::new("pivot_root", shown(new_root), errno))?;
    Ok(())
}

/// `chroot(path)`. See chroot(2). It confines nobody, as root leaves it again; that is pivot_root's business.
pub fn chroot(path: &Path) -> Result<()> {
    let path_c = c_string("chroot", path)?;
    act(
        "chroot",
        || vec![Arg::Str(shown(path))],
        |_| 0,
        || {
            // SAFETY: one string that outlives the call.
            check(unsafe { libc::syscall(libc::SYS_chroot, path_c.as_ptr()) })
        },
    )
    .map_err(|errno| Error::new("chroot", shown(path), errno))?;
    Ok(())
}

/// `open_tree(dfd, path, flags)`: a descriptor of a tree of mounts, or of a detached copy of it. See open_tree(2).
pub fn open_tree(at: At<'_>, flags: OpenTree) -> Result<OwnedFd> {
    let mut flags = flags | OpenTree::CLOEXEC;
    if at.path.as_os_str().is_empty() {
        flags |= OpenTree::EMPTY_PATH;
    }
    if let Some(stage) = by_path::stage() {
        return stage.copy(at, flags);
    }
    let path = c_string("open_tree", at.path)?;
    let args = || [&at.args()[..], &[flags_arg(&flags)]].concat();
    act(
        "open_tree",
        args,
        |fd: &OwnedFd| fd.as_raw_fd().into(),
        || {
            // SAFETY: one string that outlives the call.
            check(unsafe { libc::syscall(libc::SYS_open_tree, at.number(), path.as_ptr(), flags.bits()) })
                .map(owned)
        },
    )
    .map_err(|errno| Error::new("open_tree", at.shown(), errno))
}

/// `move_mount(from, "", to_dfd, to_path, …)`: attaches a detached mount. See move_mount(2).
pub fn move_mount(from: BorrowedFd<'_>, from_name: &str, to: At<'_>) -> Result<()> {
    const F_EMPTY_PATH: u64 = 0x4;
    const T_EMPTY_PATH: u64 = 0x40;
    let mut flags = (F_EMPTY_PATH, "F_EMPTY_PATH".to_owned());
    if to.path.as_os_str().is_empty() {
        flags = (F_EMPTY_PATH | T_EMPTY_PATH, "F_EMPTY_PATH|T_EMPTY_PATH".to_owned());
    }
    if let Some(stage) = by_path::stage() {
        return stage.attach(from, to);
    }
    let path = c_string("move_mount", to.path)?;
    let args = || {
        let [directory, target] = to.args();
        let from = Arg::Fd(from.as_raw_fd(), from_name.to_owned());
        vec![from, Arg::Str(String::new()), directory, target, Arg::Flags(flags.0, flags.1.clone())]
    };
    act(
        "move_mount",
        args,
        |_| 0,
        || {
            // SAFETY: two strings that outlive the call.
            check(unsafe {
                libc::syscall(
                    libc::SYS_move_mount,
                    from.as_raw_fd(),
                    c"".as_ptr(),
                    to.number(),
                    path.as_ptr(),
                    flags.0,
                )
            })
        },
    )
    .map_err(|errno| Error::new("move_mount", to.shown(), errno))?;
    Ok(())
}

/// What [`set_attributes`] changes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// Attributes to set.
    pub set: MountAttributes,
    /// Attributes to clear.
    pub clear: MountAttributes,
    /// A new propagation type.
    pub propagation: Option<MountFlags>,
    /// The user namespace of an id-mapped mount; sets IDMAP.
    pub user_namespace: Option<BorrowedFd<'a>>,
    /// Whether all mounts below change too.
    pub recursive: bool,
}

/// struct mount_attr of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `mount_setattr(dfd, path, flags, attr, size)`: changes attributes of a mount. See mount_setattr(2).
///
/// How access times are kept is one field: who sets or clears any of it gets all of it cleared first, as the call demands. So
/// clearing [`MountAttributes::NOATIME`] without setting anything means relatime.
pub fn set_attributes(at: At<'_>, change: Change<'_>) -> Result<()> {
    if let Some(stage) = by_path::stage() {
        return stage.change(at, change);
    }
    let mut set = change.set;
    set.set(MountAttributes::IDMAP, change.user_namespace.is_some());
    let mut clear = change.clear;
    if (set | clear).intersects(MountAttributes::ATIME) {
        clear |= MountAttributes::ATIME;
    }
    let attr = MountAttr {
        set: set.bits(),
        clear: clear.bits(),
        propagation: change.propagation.map_or(0, |flags| flags.bits()),
        user_namespace: change.user_namespace.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let empty = at.path.as_os_str().is_empty();
    let flag_list = [
        (empty, libc::AT_EMPTY_PATH, "AT_EMPTY_PATH"),
        (change.recursive, libc::AT_RECURSIVE, "AT_RECURSIVE"),
    ];
    let flags = flag_list.iter().filter(|(on, ..)| *on).fold(0, |sum, (_, bit, _)| sum | bit);
    let path = c_string("mount_setattr", at.path)?;
    let args = || {
        let names: Vec<&str> = flag_list.iter().filter(|(on, ..)| *on).map(|(.., name)| *name).collect();
        let propagation = change.propagation.map_or(Arg::Int(0), |flags| flags_arg(&flags));
        let user_namespace = change
            .user_namespace
            .map_or(Arg::Int(0), |fd| Arg::Fd(fd.as_raw_fd(), "the container's user namespace".to_owned()));
        let fields = [
            ("attr_set", flags_arg(&set)),
            ("attr_clr", flags_arg(&clear)),
            ("propagation", propagation),
            ("userns_fd", user_namespace),
        ];
        let rest = [
            Arg::Flags(flags as u64, names.join("|")),
            Arg::Struct(fields.map(|(name, value)| (name.to_owned(), value)).into()),
            Arg::Int(size_of::<MountAttr>() as i64),
        ];
        [&at.args()[..], &rest].concat()
    };
    act(
        "mount_setattr",
        args,
        |_| 0,
        || {
            // SAFETY: a string and a structure that outlive the call, the structure with its size.
            check(unsafe {
                libc::syscall(
                    libc::SYS_mount_setattr,
                    at.number(),
                    path.as_ptr(),
                    flags,
                    &raw const attr,
                    size_of::<MountAttr>(),
                )
            })
        },
    )
    .map_err(|errno| Error::new("mount_setattr", at.shown(), errno))?;
    Ok(())
}

/// Whether an error says that this kernel does not know a call or a key, so that a fallback should be tried.
pub fn is_unsupported(error: &Error) -> bool {
    matches!(error.errno(), Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::fs::StatVfsMountFlags as Seen;

    use super::*;

    /// A file system in memory that is attached nowhere: it goes with its descriptor.
    fn file_system(attributes: MountAttributes) -> OwnedFd {
        let context = fsopen("tmpfs").unwrap();
        fsconfig(context.as_fd(), "tmpfs", Setting::Create).unwrap();
        fsmount(context.as_fd(), "tmpfs", attributes).unwrap()
    }

    fn way_of_access_times(tree: &OwnedFd) -> Seen {
        rustix::fs::fstatvfs(tree).unwrap().f_flag & (Seen::NOATIME | Seen::RELATIME)
    }

    #[test]
    fn the_way_of_access_times_changes_to_each_other_one() {
        if !rustix::process::geteuid().is_root() {
            println!(
                "SKIP: mount::tests::the_way_of_access_times_changes_to_each_other_one: only root mounts"
            );
            return;
        }
        let ways = [
            (MountAttributes::empty(), Seen::RELATIME),
            (MountAttributes::NOATIME, Seen::NOATIME),
            (MountAttributes::STRICTATIME, Seen::empty()),
        ];
        for (from, before) in ways {
            for (to, after) in ways {
                let tree = file_system(from | MountAttributes::NODEV);
                assert_eq!(way_of_access_times(&tree), before);
                let change = Change { set: to, clear: from, ..Change::default() };
                set_attributes(At::fd(tree.as_fd(), "tree"), change).unwrap();
                assert_eq!(
                    way_of_access_times(&tree),
                    if from == to { before } else { after },
                    "{from:?} to {to:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_about_access_times_leaves_them() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: mount::tests::what_is_not_about_access_times_leaves_them: only root mounts");
            return;
        }
        let tree = file_system(MountAttributes::NOATIME);
        let change = Change { set: MountAttributes::RDONLY, ..Change::default() };
        set_attributes(At::fd(tree.as_fd(), "tree"), change).unwrap();
        assert_eq!(way_of_access_times(&tree), Seen::NOATIME);
        assert_eq!(words(&(MountAttributes::ATIME | MountAttributes::RDONLY)), "RDONLY|ATIME");
        assert_eq!(words(&MountAttributes::NOATIME), "NOATIME");
    }
}
