//! Images of an ordinary user who has subordinate ids: handled as root of a user namespace, so that files have their true owners.
//!
//! The namespace has the same ids as that of the user's containers: the user is root in it, the subordinate ids are all others. Who has
//! none owns every file alone, and needs no namespace.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use image::Store;
use kernel::process::{self, CloneFlags, Cloned};
use kernel::record::{Chapter, because};
use runtime::spec::IdMapping;
use rustix::pipe::PipeFlags;

use crate::error::{Error, Result};
use crate::roots::Roots;

/// The ids of a user's namespaces: itself as root, then its subordinate ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// Users.
    pub users: Vec<IdMapping>,
    /// Groups.
    pub groups: Vec<IdMapping>,
}

/// The ids that this process can map: None for root, who needs no help, and for a user without subordinate ids or without newuidmap(1).
///
/// See subuid(5), subgid(5).
pub fn ids() -> Result<Option<Ids>> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if user.is_root() || !["newuidmap", "newgidmap"].into_iter().all(is_installed) {
        return Ok(None);
    }
    let owner = [Some(user.as_raw().to_string()), name_of(user.as_raw())?];
    let read = |path: &str, own: u32| -> Result<Option<Vec<IdMapping>>> {
        Ok(mappings(&read_if_there(Path::new(path))?, &owner, own))
    };
    let users = read("/etc/subuid", user.as_raw())?;
    let groups = read("/etc/subgid", group.as_raw())?;
    Ok(users.zip(groups).map(|(users, groups)| Ids { users, groups }))
}

/// Opens the images for a process that is in no user namespace of its own, be it root or not.
pub fn open_store(roots: &Roots) -> Result<Store> {
    if ids()?.is_none() {
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
    let Some(ids) = ids()? else { return Ok(None) };
    let (go, start) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .map_err(|errno| kernel::Error::new("pipe2", "a new process", errno))?;
    because(
        Chapter::Namespaces,
        "in a user namespace files of an image can have other owners than this user",
    );
    match process::clone3(CloneFlags::NEWUSER, None)? {
        Cloned::Child => {
            drop(start);
            wait_for_maps(&go);
            Ok(None)
        }
        Cloned::Parent(child) => {
            drop(go);
            let mapped = runtime::map_by_helpers(child.pid, &ids.users, &ids.groups);
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

/// The user alone as id 0, then every range of the file from 1 on; None where the file gives this user nothing.
fn mappings(file: &str, owner: &[Option<String>], own: u32) -> Option<Vec<IdMapping>> {
    let mut maps = vec![IdMapping { container_id: 0, host_id: own, size: 1 }];
    let mut next = 1_u32;
    for line in file.lines() {
        let mut fields = line.trim().split(':');
        let name = fields.next();
        let (Some(first), Some(count)) = (fields.next(), fields.next()) else { continue };
        if !owner.iter().flatten().any(|owner| Some(owner.as_str()) == name) {
            continue;
        }
        let (Ok(host_id), Ok(size)) = (first.parse::<u32>(), count.parse::<u32>()) else { continue };
        let Some(after) = next.checked_add(size).filter(|_| size > 0) else { continue };
        maps.push(IdMapping { container_id: next, host_id, size });
        next = after;
    }
    (maps.len() > 1).then_some(maps)
}

/// The name of a user in /etc/passwd. (getpwuid(3) would load libraries.)
fn name_of(user: u32) -> Result<Option<String>> {
    let file = read_if_there(Path::new("/etc/passwd"))?;
    let found = file.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then(|| name.to_owned())
    });
    Ok(found)
}

fn read_if_there(path: &Path) -> Result<String> {
    match fs_err::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error.into()),
    }
}

fn is_installed(program: &str) -> bool {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|directory| PathBuf::from(directory).join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_each_other() {
        let owner = [Some("1000".to_owned()), Some("ann".to_owned())];
        let file = "bob:1:2\nann:100000:65536\n\nann:bad:1\n1000:300000:10\nann:5:0\n";
        let map = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        assert_eq!(
            mappings(file, &owner, 1000),
            Some(vec![map(0, 1000, 1), map(1, 100_000, 65_536), map(65_537, 300_000, 10)])
        );
        assert_eq!(mappings("bob:1:2\n", &owner, 1000), None);
    }
}
