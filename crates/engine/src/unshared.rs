//! Images of an ordinary user who has subordinate ids: handled as root of a user namespace, so that files have their true owners.
//!
//! The namespace has the same ids as that of the user's containers: the user is root in it, the subordinate ids are all others. Who has
//! none owns every file alone, and needs no namespace.

use std::os::fd::{AsFd as _, OwnedFd};

use image::Store;
use kernel::process::{self, CloneFlags, Cloned};
use kernel::record::{Chapter, because};
use rustix::pipe::PipeFlags;

use crate::error::{Error, Result};
use crate::oci::of_images;
use crate::roots::Roots;

/// Opens the images for a process that is in no user namespace of its own, be it root or not.
pub fn open_store(roots: &Roots) -> Result<Store> {
    if of_images().is_none() {
        return Ok(Store::open(&roots.persistent)?);
    }
    match Store::open_for_range(&roots.persistent) {
        // A killed load left files of subordinate ids, which only root of the namespace can remove.
        Err(image::Error::File(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            match enter()? {
                Some(0) => Ok(Store::open_for_range(&roots.persistent)?),
                Some(status) => Err(Error::Unshared { status }),
                None => process::exit(i32::from(Store::open(&roots.persistent).is_err())),
            }
        }
        other => Ok(other?),
    }
}

/// Goes on as root of a user namespace, in a process of its own, where this user has subordinate ids.
///
/// None: go on and do the work. Some: the other process did it, and this is its exit code. The caller must be single-threaded.
pub fn enter() -> Result<Option<i32>> {
    let Some(maps) = of_images() else { return Ok(None) };
    let (go, start) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .map_err(|errno| kernel::Error::new("pipe2", "a new process", errno))?;
    because(
        Chapter::Namespaces,
        "in a user namespace files of an image can have other owners than this user",
    );
    match process::clone3(CloneFlags::NEWUSER, None)? {
        Cloned::Child => {
            // Whoever ends the command means the work, also where other signals are ignored, as under nohup(1).
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
                .map_err(|errno| kernel::Error::new("prctl", "PR_SET_PDEATHSIG", errno))?;
            drop(start);
            wait_for_maps(&go);
            Ok(None)
        }
        Cloned::Parent(child) => {
            drop(go);
            let mapped = runtime::map_by_helpers(child.pid, &maps.uids, &maps.gids);
            if mapped.is_ok() {
                rustix::io::write(&start, b"!")
                    .map_err(|errno| kernel::Error::new("write", "the new process", errno))?;
            }
            drop(start);
            let ended = process::wait(child.pidfd.as_fd())?;
            mapped?;
            Ok(Some(ended.code()))
        }
    }
}

/// Returns when this process is root; ends it when the other one could not make it so, and reports why.
fn wait_for_maps(go: &OwnedFd) {
    loop {
        match rustix::io::read(go, &mut [0; 1]) {
            Ok(1) => return,
            Err(rustix::io::Errno::INTR) => {}
            _ => process::exit(125),
        }
    }
}
