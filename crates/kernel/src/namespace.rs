//! Namespaces of the calling process: unshare, setns, names.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::process::CloneFlags;
use crate::raw::check;
use crate::record::{Arg, act};
use crate::{Error, Result};

/// `unshare(flags)`: leaves namespaces for new ones. See unshare(2).
pub fn unshare(flags: CloneFlags) -> Result<()> {
    act(
        "unshare",
        || vec![flags.arg()],
        |_| 0,
        || {
            // SAFETY: takes one number.
            check(unsafe { libc::syscall(libc::SYS_unshare, flags.bits()) })
        },
    )
    .map_err(|errno| Error::new("unshare", format!("{flags:?}"), errno))?;
    Ok(())
}

/// `setns(fd, nstype)`: enters an existing namespace. `name` is shown. See setns(2).
pub fn setns(namespace: BorrowedFd<'_>, kind: CloneFlags, name: &str) -> Result<()> {
    act(
        "setns",
        || vec![Arg::Fd(namespace.as_raw_fd(), name.to_owned()), kind.arg()],
        |_| 0,
        || {
            // SAFETY: takes two numbers.
            check(unsafe { libc::syscall(libc::SYS_setns, namespace.as_raw_fd(), kind.bits()) })
        },
    )
    .map_err(|errno| Error::new("setns", name, errno))?;
    Ok(())
}

/// `sethostname(name, len)`. See sethostname(2).
pub fn sethostname(name: &str) -> Result<()> {
    act(
        "sethostname",
        || vec![Arg::Str(name.to_owned()), Arg::Int(name.len() as i64)],
        |_| 0,
        || {
            // SAFETY: pointer and length describe one live string.
            check(unsafe { libc::syscall(libc::SYS_sethostname, name.as_ptr(), name.len()) })
        },
    )
    .map_err(|errno| Error::new("sethostname", name, errno))?;
    Ok(())
}

/// `setdomainname(name, len)`. See setdomainname(2).
pub fn setdomainname(name: &str) -> Result<()> {
    act(
        "setdomainname",
        || vec![Arg::Str(name.to_owned()), Arg::Int(name.len() as i64)],
        |_| 0,
        || {
            // SAFETY: pointer and length describe one live string.
            check(unsafe { libc::syscall(libc::SYS_setdomainname, name.as_ptr(), name.len()) })
        },
    )
    .map_err(|errno| Error::new("setdomainname", name, errno))?;
    Ok(())
}
