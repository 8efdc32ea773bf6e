//! The way from a raw system call's return value to a `Result`.

#![allow(unsafe_code)]

use std::ffi::{CString, c_long};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use crate::{Error, Result};

/// Turns the return value of `libc::syscall` and of the wrappers that set errno into a result.
pub(crate) fn check(value: c_long) -> std::result::Result<i64, Errno> {
    if value >= 0 {
        return Ok(value);
    }
    // SAFETY: __errno_location always returns the address of this thread's own errno.
    Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
}

/// Takes a descriptor that a system call has just made.
pub(crate) fn owned(value: i64) -> OwnedFd {
    // SAFETY: callers pass what a system call that makes descriptors returned on success: open, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(value as i32) }
}

/// A C string from a path or a text; one with a NUL byte inside is refused as the kernel could not see it whole.
pub(crate) fn c_string(call: &'static str, text: &(impl AsRef<std::ffi::OsStr> + ?Sized)) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    let text = text.as_ref();
    CString::new(text.as_bytes()).map_err(|_| Error::new(call, text.to_string_lossy(), Errno::INVAL))
}

/// A path as it is shown in an error.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}
