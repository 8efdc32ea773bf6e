//! Rules of `linux.seccomp`: config-linux.md, "Seccomp".

use super::error::{Error, Result};
use super::json_name;
use crate::seccomp::{Action, Flag, Seccomp};

const AT: &str = "linux.seccomp";

pub(super) fn validate(seccomp: &Seccomp) -> Result<()> {
    let default = format!("{AT}.defaultAction");
    if seccomp.default_action == Action::Notify {
        let reason = "the container could not even start; use it in rules only";
        return Err(Error::Conflict { path: default, value: json_name(&Action::Notify), reason });
    }
    errno(&format!("{AT}.defaultErrnoRet"), seccomp.default_action, seccomp.default_errno_ret)?;
    for (place, syscall) in seccomp.syscalls.iter().enumerate() {
        let path = |name: &str| format!("{AT}.syscalls[{place}].{name}");
        if syscall.names.is_empty() {
            return Err(Error::Missing { path: path("names"), reason: "a rule is about some calls" });
        }
        errno(&path("errnoRet"), syscall.action, syscall.errno_ret)?;
        if syscall.action == Action::Notify && syscall.names.iter().any(|name| name == "write") {
            let reason = "the runtime needs write to hand the listener over";
            return Err(Error::Conflict { path: path("action"), value: json_name(&syscall.action), reason });
        }
        for (number, condition) in syscall.args.iter().enumerate() {
            super::range(&path(&format!("args[{number}].index")), condition.index.into(), 0, 5)?;
        }
    }
    listener(seccomp)
}

/// Only some actions have an error number.
fn errno(path: &str, action: Action, errno: Option<u32>) -> Result<()> {
    match errno {
        Some(errno) if !matches!(action, Action::Errno | Action::Trace) => {
            let reason = "only SCMP_ACT_ERRNO and SCMP_ACT_TRACE have an error number";
            Err(Error::Conflict { path: path.to_owned(), value: errno.to_string(), reason })
        }
        _ => Ok(()),
    }
}

fn listener(seccomp: &Seccomp) -> Result<()> {
    let path = seccomp.listener_path.as_deref().filter(|path| !path.is_empty());
    if let Some(path) = path {
        super::absolute(&format!("{AT}.listenerPath"), std::path::Path::new(path))?;
    } else if seccomp.notifies() {
        let reason = "a rule has SCMP_ACT_NOTIFY";
        return Err(Error::Missing { path: format!("{AT}.listenerPath"), reason });
    } else if seccomp.listener_metadata.as_ref().is_some_and(|text| !text.is_empty()) {
        let reason = "listenerMetadata is for the listener there";
        return Err(Error::Missing { path: format!("{AT}.listenerPath"), reason });
    }
    let waits = seccomp.flags.iter().flatten().any(|flag| *flag == Flag::WaitKillableRecv);
    if waits && !seccomp.notifies() {
        let reason = "it is about listeners, and no rule has SCMP_ACT_NOTIFY";
        let (path, value) = (format!("{AT}.flags"), json_name(&Flag::WaitKillableRecv));
        return Err(Error::Conflict { path, value, reason });
    }
    Ok(())
}
