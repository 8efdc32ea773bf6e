//! Where in the trees a container's group belongs.

use std::path::{Component, Path, PathBuf};

use crate::hierarchy::{is_writable, read};
use crate::{Error, Hierarchy, Mount, Result};

/// The group that holds the containers' groups, unless another parent is asked for.
const PARENT: &str = "coracle";
/// Exists if and only if systemd is pid 1: sd_booted(3).
const SYSTEMD: &str = "/run/systemd/system";

/// A group's path, the same in every tree, in two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The group we were given, relative to the tree's root; empty for the root itself.
    pub(crate) base: PathBuf,
    /// The container's group, relative to `base`.
    pub(crate) below: PathBuf,
}

impl Place {
    /// The place of the group `id`; none where this user may make no groups.
    pub(crate) fn find(hierarchy: &Hierarchy, parent: Option<&str>, id: &str) -> Result<Option<Self>> {
        let below = below(parent, id)?;
        Ok(base(hierarchy)?.map(|base| {
            // A parent may be given as it is seen from the tree's root, too.
            let below = below.strip_prefix(&base).map(Path::to_owned).unwrap_or(below);
            Self { base, below }
        }))
    }

    /// The group's directory in a tree.
    pub(crate) fn in_tree(&self, mount: &Mount) -> PathBuf {
        mount.point.join(&self.base).join(&self.below)
    }

    /// The directory of the group we were given, in a tree.
    pub(crate) fn base_in(&self, mount: &Mount) -> PathBuf {
        mount.point.join(&self.base)
    }

    /// Whether the group is in the one that is shared by all containers without another parent.
    pub(crate) fn has_usual_parent(&self) -> bool {
        self.below.parent() == Some(Path::new(PARENT))
    }
}

/// Whether systemd looks after the groups of this machine.
pub(crate) fn is_systemd() -> bool {
    rustix::fs::access(SYSTEMD, rustix::fs::Access::EXISTS).is_ok()
}

fn below(parent: Option<&str>, id: &str) -> Result<PathBuf> {
    let name = |name: &str, reason| Error::Name { name: name.to_owned(), reason };
    if id.is_empty()
        || id.contains(['/', '\n', '\0'])
        || id.starts_with('.')
        || id.starts_with("cgroup.")
        || id.len() > 255
    {
        return Err(name(
            id,
            "it must be one name of at most 255 bytes, without a slash, that starts neither with a dot nor with \"cgroup.\"",
        ));
    }
    let parent = parent.unwrap_or(PARENT).trim_matches('/');
    if parent.contains(['\n', '\0'])
        || !Path::new(parent).components().all(|part| matches!(part, Component::Normal(_)))
    {
        return Err(name(parent, "a parent is a path of groups without `.` and `..`"));
    }
    Ok(Path::new(parent).join(id))
}

/// The group that groups may be made in: the root where that is ours, else the one that was delegated to us.
fn base(hierarchy: &Hierarchy) -> Result<Option<PathBuf>> {
    let Some(mount) = hierarchy.unified().or(hierarchy.v1_tracker()) else { return Ok(None) };
    if is_systemd() {
        return Ok(own_groups(mount)?
            .into_iter()
            .find(|group| is_marked_delegated(&mount.point.join(group))));
    }
    if is_writable(&mount.point) {
        return Ok(Some(PathBuf::new()));
    }
    // The topmost one, so that the same is found from all of this user's sessions.
    Ok(own_groups(mount)?.into_iter().take_while(|group| is_writable(&mount.point.join(group))).last())
}

/// This process's group in a tree and those above it, nearest first, without the root.
fn own_groups(mount: &Mount) -> Result<Vec<PathBuf>> {
    let text = read("/proc/self/cgroup".as_ref())?;
    let own = text.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        (controllers == mount.controllers.join(",")).then_some(path)
    });
    let Some(Ok(own)) = own.map(|own| Path::new(own).strip_prefix(&mount.root)) else {
        return Ok(Vec::new());
    };
    Ok(own.ancestors().filter(|group| !group.as_os_str().is_empty()).map(Path::to_owned).collect())
}

/// systemd marks what it hands over (`Delegate=yes`), for all to read since its version 251.
fn is_marked_delegated(directory: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].into_iter().any(|name| {
        let mut value = [0u8; 1];
        matches!(rustix::fs::getxattr(directory, name, &mut value), Ok(1) if value == *b"1")
    }) && is_writable(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_tree_are_refused() {
        for (parent, id) in [
            (None, ""),
            (None, ".."),
            (None, "a/b"),
            (Some("a/../b"), "c"),
            (None, "cgroup.procs"),
            (Some("a\n"), "c"),
        ] {
            assert!(matches!(below(parent, id), Err(Error::Name { .. })), "{parent:?} {id:?}");
        }
        assert_eq!(below(None, "x").unwrap(), Path::new("coracle/x"));
        assert_eq!(below(Some("/foo/bar/"), "x").unwrap(), Path::new("foo/bar/x"));
    }
}
