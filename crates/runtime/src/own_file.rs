//! coracle-runtime's own file, as nobody can write through it.
//!
//! A process of the container can reach the file that a process of ours executes by `/proc/PID/exe`, and with it overwrite the host's
//! program (CVE-2019-5736). So whatever comes near a container executes from a read-only detached copy of the file's mount, or where this
//! may not be made, from a sealed copy in memory.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use kernel::mount::{At, Change, MountAttributes, OpenTree, open_tree, set_attributes};
use kernel::process;
use kernel::record::{Chapter, because};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;

use crate::error::{InStep as _, Result};

const STEP: &str = "cannot protect coracle-runtime's own file";

/// A copy of the program at `path` that cannot be written to, to be executed by [`process::execveat`].
pub fn copy(path: &Path) -> Result<OwnedFd> {
    because(
        Chapter::Process,
        "a read-only view of coracle's own file: through it the container cannot change the file itself",
    );
    let view = match open_tree(At::path(path), OpenTree::CLONE) {
        Ok(file) => {
            let name = path.display().to_string();
            let change = Change { set: MountAttributes::RDONLY, ..Change::default() };
            set_attributes(At::fd(file.as_fd(), &name), change).map(|()| file)
        }
        Err(error) => Err(error),
    };
    match view {
        // A user without CAP_SYS_ADMIN cannot mount, nor can root where a filter denies it; a sealed copy in memory serves as well.
        Err(error) if matches!(error.errno(), Errno::PERM | Errno::NOSYS) => sealed_copy(path),
        view => view.in_step(STEP),
    }
}

/// Executes this program anew from such a copy, unless that has been done. Comes back only if it has.
pub fn protect(arguments: &[String]) -> Result<()> {
    const OWN: &str = "/proc/self/exe";
    let failed = |call| move |errno| kernel::Error::new(call, OWN, errno);
    let own = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open"))
        .in_step(STEP)?;
    let mount = rustix::fs::fstatvfs(&own).map_err(failed("fstatvfs")).in_step(STEP)?;
    let is_sealed = || rustix::fs::fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SealFlags::WRITE));
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) || is_sealed() {
        return Ok(());
    }
    let path = fs_err::read_link(OWN)?;
    let copy = copy(&path)?;
    let environment: Vec<String> = std::env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    let error = process::execveat(copy.as_fd(), "coracle-runtime", arguments, &environment);
    if !matches!(error.errno(), Errno::NOSYS | Errno::PERM) {
        return Err(error).in_step(STEP);
    }
    // A filter around this process refuses the call; this is still the machine's own /proc.
    let path = PathBuf::from(format!("/proc/self/fd/{}", copy.as_raw_fd()));
    Err(process::execve(&path, arguments, &environment)).in_step(STEP)
}

fn sealed_copy(path: &Path) -> Result<OwnedFd> {
    let failed = |call| move |errno| kernel::Error::new(call, path.display().to_string(), errno);
    let source = fs_err::File::open(path)?;
    let length = source.metadata()?.len();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy =
        rustix::fs::memfd_create("coracle-runtime", flags).map_err(failed("memfd_create")).in_step(STEP)?;
    let mut copied = 0;
    while copied < length {
        match rustix::fs::sendfile(&copy, &source, None, (length - copied) as usize)
            .map_err(failed("sendfile"))
            .in_step(STEP)?
        {
            0 => break,
            count => copied += count as u64,
        }
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals).map_err(failed("fcntl")).in_step(STEP)?;
    Ok(copy)
}
