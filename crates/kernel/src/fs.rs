//! Files below a directory descriptor that a container's root is made of.
//!
//! Only calls that change the machine in a way `--explain` must show are here; the rest of the file calls is
//! `rustix`'s, which is safe as it is.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{FileType, Mode};

use crate::record::{Arg, act};
use crate::{Error, Result};

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
