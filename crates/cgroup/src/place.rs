//! Where in the trees a container's group belongs.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::hierarchy::{is_writable, read};
use crate::scope::{self, Refusal};
use crate::{Error, Hierarchy, Mount, Result};

/// The group that holds the containers' groups, unless another parent is asked for.
pub(crate) const PARENT: &str = "coracle";
/// Exists if and only if systemd is pid 1: sd_booted(3).
const SYSTEMD: &str = "/run/systemd/system";

/// Names that systemd gives to the groups of its own units.
const UNITS: [&str; 3] = [".slice", ".scope", ".service"];

/// A group's path, the same in every tree, in two parts. Whoever makes a group keeps it, since another process may choose otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The group we were given, relative to the tree's root; empty for the root itself.
    pub(crate) base: PathBuf,
    /// The container's group, relative to `base`.
    pub(crate) below: PathBuf,
}

/// Where a container's group is to be.
#[derive(Debug)]
pub enum Choice {
    /// There.
    At(Place),
    /// This user may make no groups anywhere.
    Nowhere {
        /// Whether a parent was asked for.
        with_parent: bool,
        /// Why systemd gave no scope, where it was asked for one.
        refusal: Option<Refusal>,
    },
}

impl Place {
    /// Decides where the group `parent/id` is to be; `parent` is `coracle` if not given.
    ///
    /// The tree's root where that is ours, else the group that was delegated to us. Where systemd is pid 1 and this process is in no
    /// delegated group, this process moves into the scope `coracle.scope`, which systemd is asked to make if it is not there. So only a
    /// process that stays as long as the group does may choose.
    pub fn choose(hierarchy: &Hierarchy, parent: Option<&str>, id: &str) -> Result<Choice> {
        let below = below(parent, id)?;
        let base = match (base(hierarchy)?, hierarchy.unified().filter(|_| is_systemd())) {
            (Some(base), _) => base,
            (None, None) => return Ok(Choice::Nowhere { with_parent: parent.is_some(), refusal: None }),
            (None, Some(mount)) => match scope::enter(mount) {
                Ok(base) => base,
                Err(refusal) => {
                    let with_parent = parent.is_some();
                    return Ok(Choice::Nowhere { with_parent, refusal: Some(refusal) });
                }
            },
        };
        Self::new(base, below).map(Choice::At)
    }

    /// The place that an OCI configuration's `linux.cgroupsPath` names to the file-system driver, config-linux.md "Cgroups Path".
    ///
    /// An absolute path starts at each tree's root; a user's, at the group that was delegated to that user. A relative path starts at
    /// `coracle`, and none is `coracle/id`. systemd is not asked, and any name goes: who names the group answers for what is there.
    ///
    /// # Errors
    /// [`Error::Name`] if it leads upwards or to no group of its own.
    pub fn of_path(hierarchy: &Hierarchy, path: Option<&str>, id: &str) -> Result<Choice> {
        let below = below_of_path(path.filter(|path| !path.is_empty()), id)?;
        let Some(base) = writable_base(hierarchy)? else {
            return Ok(Choice::Nowhere { with_parent: path.is_some(), refusal: None });
        };
        // A user may have given it as it is seen from the tree's root, too.
        let below = below.strip_prefix(&base).map(Path::to_owned).unwrap_or(below);
        if below.as_os_str().is_empty() {
            let name = path.unwrap_or_default().to_owned();
            return Err(Error::Name { name, reason: "that group holds others already: name one below it" });
        }
        Ok(Choice::At(Self { base, below }))
    }

    /// The place of the group `id`, without asking systemd; none where this user may make no groups.
    pub(crate) fn find(hierarchy: &Hierarchy, parent: Option<&str>, id: &str) -> Result<Option<Self>> {
        let below = below(parent, id)?;
        base(hierarchy)?.map(|base| Self::new(base, below)).transpose()
    }

    fn new(base: PathBuf, below: PathBuf) -> Result<Self> {
        // A parent may be given as it is seen from the tree's root, too.
        let below = below.strip_prefix(&base).map(Path::to_owned).unwrap_or(below);
        let is_unit = |part: &str| UNITS.iter().any(|unit| part.ends_with(unit));
        match below.parent().filter(|parent| is_systemd() && parent.to_str().is_some_and(has_part(is_unit))) {
            Some(parent) => Err(Error::Name {
                name: parent.display().to_string(),
                reason: "slices, scopes and services are systemd's to make, and a group in coracle's scope is none: give another name",
            }),
            None => Ok(Self { base, below }),
        }
    }

    /// The group's path from the root of each tree.
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(&self.base).join(&self.below)
    }

    /// The place of a group below this one.
    pub fn below(&self, path: &str) -> Result<Self> {
        let path = path.trim_matches('/');
        let is_name = |part: Component<'_>| matches!(part, Component::Normal(_));
        if path.contains(['\n', '\0']) || !Path::new(path).components().all(is_name) {
            let reason = "a group below the container's is a path without `.` and `..`";
            return Err(Error::Name { name: path.to_owned(), reason });
        }
        Ok(Self { base: self.base.clone(), below: self.below.join(path) })
    }

    /// The group's directory in a tree.
    pub(crate) fn in_tree(&self, mount: &Mount) -> PathBuf {
        mount.point.join(&self.base).join(&self.below)
    }

    /// The directory of the group we were given, in a tree.
    pub(crate) fn base_in(&self, mount: &Mount) -> PathBuf {
        mount.point.join(&self.base)
    }

    /// Whether it is decided by nothing but the tree's root being ours, which is the same for all who ask.
    pub fn is_below_root(&self) -> bool {
        self.base.as_os_str().is_empty()
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

fn has_part(is_it: impl Fn(&str) -> bool) -> impl Fn(&str) -> bool {
    move |path| path.split('/').any(&is_it)
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

/// What `linux.cgroupsPath` names, relative to where groups may be made.
fn below_of_path(path: Option<&str>, id: &str) -> Result<PathBuf> {
    let Some(path) = path else { return below(None, id) };
    let name = |reason| Error::Name { name: path.to_owned(), reason };
    if path.contains(['\n', '\0']) {
        return Err(name("a path of groups has neither line ends nor zero bytes"));
    }
    let mut own = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => own.push(part),
            Component::ParentDir => return Err(name("a path of groups may not lead upwards")),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    if own.as_os_str().is_empty() {
        return Err(name("it names no group of its own"));
    }
    Ok(if path.starts_with('/') { own } else { Path::new(PARENT).join(own) })
}

/// The group that a runtime may make groups in: the root where it is writable, else the topmost of our own groups that is.
fn writable_base(hierarchy: &Hierarchy) -> Result<Option<PathBuf>> {
    let Some(mount) = hierarchy.unified().or(hierarchy.v1_tracker()) else { return Ok(None) };
    if is_writable(&mount.point) {
        return Ok(Some(PathBuf::new()));
    }
    // The topmost one, so that the same is found from all of this user's sessions.
    Ok(own_groups(mount)?.into_iter().take_while(|group| is_writable(&mount.point.join(group))).last())
}

/// The group that groups may be made in: the root where that is ours, else the one that was delegated to us.
fn base(hierarchy: &Hierarchy) -> Result<Option<PathBuf>> {
    let Some(mount) = hierarchy.unified().or(hierarchy.v1_tracker()) else { return Ok(None) };
    if is_systemd() {
        let mut own = own_groups(mount)?.into_iter();
        let delegated = own.find(|group| is_marked_delegated(&mount.point.join(group)));
        return Ok(delegated.filter(|group| !is_managers(group)));
    }
    writable_base(hierarchy)
}

/// Whether a group was delegated to a user's systemd, which manages it as pid 1 manages the whole: `user@UID.service`.
fn is_managers(group: &Path) -> bool {
    let name = group.file_name().and_then(std::ffi::OsStr::to_str);
    name.is_some_and(|name| name.starts_with("user@") && name.ends_with(".service"))
}

/// This process's group in a tree and those above it, nearest first, without the root.
pub(crate) fn own_groups(mount: &Mount) -> Result<Vec<PathBuf>> {
    groups_of("self", mount)
}

/// The group of a process in a tree and those above it, nearest first, without the root.
pub(crate) fn groups_of(process: &str, mount: &Mount) -> Result<Vec<PathBuf>> {
    let text = read(&Path::new("/proc").join(process).join("cgroup"))?;
    let own = text.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        (controllers == mount.controllers.join(",")).then_some(path)
    });
    let Some(Ok(own)) = own.map(|own| Path::new(own).strip_prefix(&mount.root)) else {
        return Ok(Vec::new());
    };
    Ok(own.ancestors().filter(|group| !group.as_os_str().is_empty()).map(Path::to_owned).collect())
}

/// systemd as pid 1 marks what it hands over (`Delegate=yes`), for all to read since its version 251. A user's systemd does not, at least in
/// version 252: its users' containers go into the scope that coracle asks it for, wherever they are started.
pub(crate) fn is_marked_delegated(directory: &Path) -> bool {
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
        for path in ["..", "/a/../../b", "/", ".", "/./", "a\0b", "a\nb"] {
            assert!(matches!(below_of_path(Some(path), "x"), Err(Error::Name { .. })), "{path:?}");
        }
        assert_eq!(below(None, "x").unwrap(), Path::new("coracle/x"));
        assert_eq!(below(Some("/foo/bar/"), "x").unwrap(), Path::new("foo/bar/x"));
    }

    #[test]
    fn a_path_is_absolute_or_below_the_usual_parent() {
        for (path, expected) in [
            (None, "coracle/x"),
            (Some("/machine.slice/libpod-1.scope//"), "machine.slice/libpod-1.scope"),
            (Some("/a/./b"), "a/b"),
            (Some("a/b"), "coracle/a/b"),
        ] {
            assert_eq!(below_of_path(path, "x").unwrap(), Path::new(expected), "{path:?}");
        }
    }
}
