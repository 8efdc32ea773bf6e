//! New file systems, described step by step: fsopen(2), fsconfig(2), fsmount(2), fspick(2).

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr;

use super::{At, MountAttributes, by_path, flags_arg};
use crate::raw::{c_string, check, owned};
use crate::record::{Arg, act};
use crate::{Error, Result};

/// A new file system as a detached mount.
pub fn new_file_system(
    kind: &str,
    source: &str,
    settings: &[Setting<'_>],
    attributes: MountAttributes,
) -> Result<OwnedFd> {
    if let Some(stage) = by_path::stage() {
        return stage.new_file_system(kind, source, settings, attributes);
    }
    let context = fsopen(kind)?;
    let set = |setting| fsconfig(context.as_fd(), kind, setting);
    if !source.is_empty() {
        set(Setting::String("source", source))?;
    }
    settings.iter().try_for_each(|setting| set(*setting))?;
    set(Setting::Create)?;
    fsmount(context.as_fd(), kind, attributes)
}

/// Changes the superblock of a mount that is there.
pub fn reconfigure(at: At<'_>, kind: &str, settings: &[Setting<'_>]) -> Result<()> {
    if let Some(stage) = by_path::stage() {
        return stage.reconfigure(at, settings);
    }
    let context = fspick(at)?;
    let set = |setting| fsconfig(context.as_fd(), kind, setting);
    settings.iter().try_for_each(|setting| set(*setting))?;
    set(Setting::Reconfigure)
}

/// `fsopen(fsname, FSOPEN_CLOEXEC)`: begins a new file system instance. See fsopen(2).
pub fn fsopen(kind: &str) -> Result<OwnedFd> {
    let kind_c = c_string("fsopen", kind)?;
    let args = || vec![Arg::Str(kind.to_owned()), Arg::Flags(1, "FSOPEN_CLOEXEC".to_owned())];
    act(
        "fsopen",
        args,
        |fd: &OwnedFd| fd.as_raw_fd().into(),
        || {
            // SAFETY: one string that outlives the call.
            check(unsafe { libc::syscall(libc::SYS_fsopen, kind_c.as_ptr(), 1) }).map(owned)
        },
    )
    .map_err(|errno| Error::new("fsopen", kind, errno))
}

/// `fspick(dfd, path, FSPICK_CLOEXEC | …)`: begins to change the superblock of a mount that is there. See fspick(2).
fn fspick(at: At<'_>) -> Result<OwnedFd> {
    const EMPTY_PATH: u64 = 0x8;
    let flags = if at.path.as_os_str().is_empty() {
        (1 | EMPTY_PATH, "FSPICK_CLOEXEC|FSPICK_EMPTY_PATH")
    } else {
        (1, "FSPICK_CLOEXEC")
    };
    let path = c_string("fspick", at.path)?;
    let args = || [&at.args()[..], &[Arg::Flags(flags.0, flags.1.to_owned())]].concat();
    act(
        "fspick",
        args,
        |fd: &OwnedFd| fd.as_raw_fd().into(),
        || {
            // SAFETY: one string that outlives the call.
            check(unsafe { libc::syscall(libc::SYS_fspick, at.number(), path.as_ptr(), flags.0) }).map(owned)
        },
    )
    .map_err(|errno| Error::new("fspick", at.shown(), errno))
}

/// One setting of fsconfig(2).
#[derive(Debug, Clone, Copy)]
pub enum Setting<'a> {
    /// A word: `ro`, `userxattr`.
    Flag(&'a str),
    /// A key with a value.
    String(&'a str, &'a str),
    /// A key with a descriptor, and what that is.
    Fd(&'a str, BorrowedFd<'a>, &'a str),
    /// All is said: make the superblock.
    Create,
    /// All is said: change the superblock of fspick(2).
    Reconfigure,
}

/// `fsconfig(fd, cmd, key, value, aux)`: describes the file system begun by [`fsopen`]. See fsconfig(2).
///
/// On failure the kernel's own message, when it left one, is part of the error's object.
pub fn fsconfig(context: BorrowedFd<'_>, kind: &str, setting: Setting<'_>) -> Result<()> {
    let (command, name, key, value, aux) = match setting {
        Setting::Flag(key) => (0, "FSCONFIG_SET_FLAG", Some(key), None, 0),
        Setting::String(key, value) => (1, "FSCONFIG_SET_STRING", Some(key), Some(value), 0),
        Setting::Fd(key, fd, _) => (5, "FSCONFIG_SET_FD", Some(key), None, fd.as_raw_fd()),
        Setting::Create => (6, "FSCONFIG_CMD_CREATE", None, None, 0),
        Setting::Reconfigure => (7, "FSCONFIG_CMD_RECONFIGURE", None, None, 0),
    };
    let key_c = key.map(|key| c_string("fsconfig", key)).transpose()?;
    let value_c = value.map(|value| c_string("fsconfig", value)).transpose()?;
    let null_or_str = |text: Option<&str>| text.map_or(Arg::Int(0), |text| Arg::Str(text.to_owned()));
    let args = || {
        let aux = match setting {
            Setting::Fd(_, fd, name) => Arg::Fd(fd.as_raw_fd(), name.to_owned()),
            _ => Arg::Int(0),
        };
        let context = Arg::Fd(context.as_raw_fd(), kind.to_owned());
        vec![context, Arg::Flags(command, name.to_owned()), null_or_str(key), null_or_str(value), aux]
    };
    act(
        "fsconfig",
        args,
        |_| 0,
        || {
            // SAFETY: up to two strings that outlive the call; none is a null pointer, as this call allows for these commands.
            check(unsafe {
                libc::syscall(
                    libc::SYS_fsconfig,
                    context.as_raw_fd(),
                    command,
                    key_c.as_ref().map_or(ptr::null(), |key| key.as_ptr()),
                    value_c.as_ref().map_or(ptr::null(), |value| value.as_ptr()),
                    aux,
                )
            })
        },
    )
    .map_err(|errno| Error::new("fsconfig", config_object(context, kind, setting), errno))?;
    Ok(())
}

/// `overlay lowerdir+=/a: overlay: No such file or directory`: the setting and the kernel's message about it.
fn config_object(context: BorrowedFd<'_>, kind: &str, setting: Setting<'_>) -> String {
    let mut object = match setting {
        Setting::Flag(key) => format!("{kind} {key}"),
        Setting::String(key, value) => format!("{kind} {key}={value}"),
        Setting::Fd(key, _, name) => format!("{kind} {key}={name}"),
        Setting::Create | Setting::Reconfigure => kind.to_owned(),
    };
    let mut message = [0_u8; 512];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut message) {
        let text = String::from_utf8_lossy(&message[..length]);
        object.push_str(" (");
        object.push_str(text.trim_start_matches("e ").trim());
        object.push(')');
    }
    object
}

/// `fsmount(fd, FSMOUNT_CLOEXEC, attr)`: a detached mount of the file system made by [`fsconfig`]. See fsmount(2).
pub fn fsmount(context: BorrowedFd<'_>, kind: &str, attributes: MountAttributes) -> Result<OwnedFd> {
    let args = || {
        vec![
            Arg::Fd(context.as_raw_fd(), kind.to_owned()),
            Arg::Flags(1, "FSMOUNT_CLOEXEC".to_owned()),
            flags_arg(&attributes),
        ]
    };
    act(
        "fsmount",
        args,
        |fd: &OwnedFd| fd.as_raw_fd().into(),
        || {
            // SAFETY: takes three numbers.
            check(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, attributes.bits()) })
                .map(owned)
        },
    )
    .map_err(|errno| Error::new("fsmount", kind, errno))
}
