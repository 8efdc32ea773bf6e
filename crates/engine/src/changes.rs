//! What containers have changed: the list of it, an archive of all their files, and an image of both.

use std::io::Write;
use std::path::PathBuf;

use cgroup::Group;
use image::{Change, Changes, Commit, Digest, Loaded, Store};
use runtime::request::{Request, RootFileSystem};
use runtime::spec::IdMapping;

use crate::container::{self, Container, Status, read_request};
use crate::error::{Error, Result};
use crate::roots::Roots;

/// Places that are made in each container for what is mounted there, which docker does not count either.
const MADE: [&str; 8] = [
    "/dev",
    "/dev/mqueue",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
    "/sys/fs/cgroup",
];

/// Where a container's files are.
struct Root {
    container: Container,
    request: Request,
    /// Its image, and the upper directory of its union mount; else its directory.
    image: Option<Digest>,
    directory: PathBuf,
}

impl Root {
    fn find(roots: &Roots, typed: &str) -> Result<Self> {
        let container = container::find(roots, typed)?;
        let directory = roots.containers().join(&container.record.id);
        let request = read_request(&directory).ok_or_else(|| Error::Unreadable {
            path: directory.join("request.json"),
            reason: "it says not how the container was made".to_owned(),
        })?;
        let (image, directory) = match &request.root {
            RootFileSystem::Directory(directory) => (None, directory.clone()),
            // Only the built-in image has several.
            RootFileSystem::Overlays(overlays) => match (&overlays[..], &container.record.image_id) {
                ([overlay], Some(id)) if overlay.upper.is_some() => {
                    let upper = overlay.upper.as_ref().map(|upper| upper.upper.clone());
                    (Some(id.parse::<Digest>()?), upper.unwrap_or_default())
                }
                _ => return Err(Error::OfThisMachine { name: container.record.name }),
            },
        };
        Ok(Self { container, request, image, directory })
    }

    /// The image, where there must be one.
    fn image(&self, verb: &'static str) -> Result<Digest> {
        self.image.ok_or_else(|| Error::NoLayers {
            name: self.container.record.name.clone(),
            verb,
            directory: self.directory.clone(),
        })
    }

    fn changes(&self, made: &[&str]) -> Result<Changes> {
        let owners = Owners::new(&self.request)?;
        Ok(Changes::read(&self.directory, &|id, of_user| owners.inside(id, of_user), made)?)
    }
}

/// Who the owner of a file is inside the container.
struct Owners {
    /// From ids that this process sees to ids of the machine.
    here: [Vec<IdMapping>; 2],
    /// From ids inside the container to ids of the machine; empty where it has no user namespace.
    container: [Vec<IdMapping>; 2],
}

impl Owners {
    fn new(request: &Request) -> Result<Self> {
        let container = match &request.spec.linux {
            Some(linux) => [linux.uid_mappings.clone(), linux.gid_mappings.clone()],
            None => Default::default(),
        };
        Ok(Self { here: [read_map("/proc/self/uid_map")?, read_map("/proc/self/gid_map")?], container })
    }

    fn inside(&self, id: u32, of_user: bool) -> Option<u32> {
        let which = usize::from(!of_user);
        let container = &self.container[which];
        if container.is_empty() {
            return Some(id);
        }
        let of =
            |id: u32, from: u32, to: u32, size: u32| (id.checked_sub(from)? < size).then(|| to + (id - from));
        let host = self.here[which].iter().find_map(|map| of(id, map.container_id, map.host_id, map.size))?;
        container.iter().find_map(|map| of(host, map.host_id, map.container_id, map.size))
    }
}

/// user_namespaces(7): three numbers in each line.
fn read_map(path: &str) -> Result<Vec<IdMapping>> {
    let text = fs_err::read_to_string(path)?;
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(IdMapping { container_id: next()?, host_id: next()?, size: next()? })
    };
    Ok(text.lines().filter_map(line).collect())
}

/// What a container has added, changed and deleted.
pub fn diff(roots: &Roots, store: &Store, typed: &str) -> Result<Vec<Change>> {
    let root = Root::find(roots, typed)?;
    let image = root.image("diff")?;
    Ok(store.changes(image, root.changes(&MADE)?)?)
}

/// Writes all files of a container, without what is mounted in it, as a tar archive.
pub fn export(roots: &Roots, store: &Store, typed: &str, output: &mut dyn Write) -> Result<()> {
    let root = Root::find(roots, typed)?;
    Ok(store.export(root.image, &root.changes(&[])?, output)?)
}

/// Makes an image of a container as it stands, which is paused for it where `pause` says so.
///
/// What `commit` does not say of the configuration is as the container was made.
pub fn commit(roots: &Roots, store: &Store, typed: &str, pause: bool, commit: Commit) -> Result<Loaded> {
    let root = Root::find(roots, typed)?;
    let image = root.image("commit")?;
    let record = &root.container.record;
    let commit = Commit { config: record.config.clone(), created_by: record.command.join(" "), ..commit };
    let paused = match root.container.status {
        Status::Running(_) if pause => Some(Paused::new(&root.request, &record.name)?),
        _ => None,
    };
    let made = store.commit_changes(image, root.changes(&MADE)?, &commit);
    if let Some(paused) = paused {
        paused.end()?;
    }
    Ok(made?)
}

/// A container whose processes stand still as long as this lives.
struct Paused {
    group: Group,
}

impl Paused {
    fn new(request: &Request, name: &str) -> Result<Self> {
        let parent = request.cgroup_parent.as_deref();
        let group = runtime::group::find(&request.state_directory, parent, &request.id)?;
        let group = group.ok_or_else(|| Error::NotPaused { name: name.to_owned() })?;
        // Dropped when it fails half way, too.
        let paused = Self { group };
        paused.group.freeze(true).map_err(runtime::Error::from)?;
        Ok(paused)
    }

    fn end(self) -> Result<()> {
        Ok(self.group.freeze(false).map_err(runtime::Error::from)?)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // After an error, which is the one to report.
        let _ = self.group.freeze(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_those_inside() {
        let map = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        let all = || vec![map(0, 0, u32::MAX)];
        let owners = |here: Vec<IdMapping>, container: Vec<IdMapping>| Owners {
            here: [here.clone(), here],
            container: [container.clone(), container],
        };
        let plain = owners(all(), Vec::new());
        assert_eq!(plain.inside(1000, true), Some(1000));
        let shifted = owners(all(), vec![map(0, 100_000, 65_536)]);
        assert_eq!((shifted.inside(100_033, true), shifted.inside(5, false)), (Some(33), None));
        // A user's namespace for images, and a container that keeps the user's own id.
        let own = vec![map(0, 1000, 1), map(1, 100_000, 65_536)];
        let kept =
            owners(own.clone(), vec![map(0, 100_000, 1000), map(1000, 1000, 1), map(1001, 101_000, 60_000)]);
        assert_eq!((kept.inside(0, true), kept.inside(1, true)), (Some(1000), Some(0)));
        assert_eq!(owners(own.clone(), own).inside(34, false), Some(34));
    }
}
