//! Writes to the kernel's own files: control groups, `/proc`.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::record::{Arg, act};
use crate::{Error, Result};

/// Writes `value` to a kernel file (`/sys/fs/cgroup/…`, `/proc/…`) in one write(2), recorded.
///
/// The file must exist; it is neither created nor truncated. The error names the path.
pub fn write_control(path: &Path, value: &str) -> Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::new("open", path.display().to_string(), errno))?;
    write_open_control(file.as_fd(), path, value)
}

/// Writes `value` to a kernel file that is open for writing, as [`write_control`] does. `path` is shown.
pub fn write_open_control(file: BorrowedFd<'_>, path: &Path, value: &str) -> Result<()> {
    let args = || {
        vec![
            Arg::Fd(file.as_raw_fd(), path.display().to_string()),
            Arg::Str(value.to_owned()),
            Arg::Int(value.len() as i64),
        ]
    };
    act("write", args, |written| *written as i64, || rustix::io::write(file, value.as_bytes()))
        .map_err(|errno| Error::new("write", path.display().to_string(), errno))?;
    Ok(())
}

/// `mkdirat(AT_FDCWD, path, 0755)`, recorded; for control groups, which are made that way. See mkdir(2).
///
/// The error names the path.
pub fn make_directory(path: &Path) -> Result<()> {
    let args = || {
        let mode = Arg::Flags(0o755, "0755".to_owned());
        vec![working_directory(), Arg::Str(path.display().to_string()), mode]
    };
    let make = || rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755));
    act("mkdirat", args, |()| 0, make).map_err(|errno| Error::new("mkdir", path.display().to_string(), errno))
}

/// `unlinkat(AT_FDCWD, path, AT_REMOVEDIR)`, which is rmdir(path), recorded; for control groups, which are removed that way.
/// See rmdir(2).
///
/// The error names the path. A control group gives `EBUSY` while it has processes or groups below.
pub fn remove_directory(path: &Path) -> Result<()> {
    let args = || {
        let flags = Arg::Flags(AtFlags::REMOVEDIR.bits().into(), "AT_REMOVEDIR".to_owned());
        vec![working_directory(), Arg::Str(path.display().to_string()), flags]
    };
    act("unlinkat", args, |()| 0, || rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR))
        .map_err(|errno| Error::new("rmdir", path.display().to_string(), errno))
}

fn working_directory() -> Arg {
    Arg::Fd(CWD.as_raw_fd(), "working directory".to_owned())
}
