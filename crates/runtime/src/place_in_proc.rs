//! What may be mounted at `/proc` and below it: nothing that the kernel's settings or the labels of processes could then be written to
//! instead (CVE-2019-16884).

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use crate::bind::BIND_STEP;
use crate::error::{Error, InStep as _, Result};
use crate::private_proc;
use crate::spec::Mount;

/// A path from the root without `.`, `..` and doubled slashes, whatever links it has.
pub fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            _ => {}
        }
    }
    plain
}

/// Files of `/proc` that may be covered, by which lxcfs shows a container's own numbers.
const COVERED_IN_PROC: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// Nothing but a proc file system may be at `/proc`, and nothing below it: the kernel's settings and the labels of processes are written
/// there (CVE-2019-16884). `bound` is the source of a bind mount.
pub fn check(mount: &Mount, bound: Option<&OwnedFd>) -> Result<()> {
    let place = plain(&mount.destination);
    let Ok(below) = place.strip_prefix("/proc") else { return Ok(()) };
    let is_proc = match bound {
        None => mount.kind == "proc",
        Some(tree) => private_proc::is_top(tree.as_fd())
            .map_err(|errno| kernel::Error::new("fstatfs", mount.source.clone(), errno))
            .in_step(BIND_STEP)?,
    };
    let shown = mount.destination.display();
    let reason = match below.to_str() {
        Some("") if is_proc => return Ok(()),
        Some("") => format!("{:?} cannot be mounted because it is not of type proc", shown.to_string()),
        Some(below) if COVERED_IN_PROC.contains(&below) && bound.is_some() => return Ok(()),
        _ => format!("{:?} cannot be mounted because it is inside /proc", shown.to_string()),
    };
    Err(unlike(mount, &reason))
}

/// The same for a place that a link has led to.
pub fn check_target(target: &OwnedFd, mount: &Mount) -> Result<()> {
    let is_inside = private_proc::is_inside(target.as_fd()).unwrap_or(false);
    if !is_inside || plain(&mount.destination).starts_with("/proc") {
        return Ok(());
    }
    Err(unlike(mount, "a link leads there from outside of /proc"))
}

/// That a mount cannot be made where it is to be.
pub fn unlike(mount: &Mount, reason: &str) -> Error {
    let value = format!("{} at {}", mount.source, mount.destination.display());
    Error::Configuration { what: "mount", value, reason: reason.to_owned() }
}
