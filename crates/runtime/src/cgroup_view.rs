//! What the container sees of control groups at `/sys/fs/cgroup`: its own group as the root.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use cgroup::Hierarchy;
use kernel::mount::{At, Change, MountAttributes, MountFlags, OpenTree, open_tree, set_attributes};
use kernel::record::{Chapter, because};

use crate::bind::change_what_is_not_locked;
use crate::error::{InStep as _, Result};
use crate::file_system::{self, new_file_system};
use crate::mount_options::{self, Options};
use crate::root::{NewRoot, link_if_absent};
use crate::spec::Mount;

/// Mounts the hierarchies as the host has them: v2 alone, or a directory with one mount for each.
pub fn mount_view(
    root: &NewRoot,
    mount: &Mount,
    options: &Options,
    hierarchy: &Hierarchy,
    new_namespace: bool,
) -> Result<()> {
    let attributes = Options { data: Vec::new(), ..options.clone() };
    because(Chapter::RootFileSystem, "the container sees its own control group, and that as the root of all");
    let groups = match new_namespace {
        true => String::new(),
        false => fs_err::read_to_string("/proc/self/cgroup")?,
    };
    if let Hierarchy::V2 { unified } = hierarchy {
        let tree = match new_namespace {
            true => new_file_system("cgroup2", "cgroup", &attributes)?,
            false => own_group(unified, &groups, &attributes)?,
        };
        return file_system::attach(root, &tree, "cgroup2", &mount.destination, options);
    }
    let directory =
        mount_options::parse(&["mode=755".into(), "nosuid".into(), "nodev".into(), "noexec".into()]);
    let tree = new_file_system("tmpfs", "tmpfs", &directory)?;
    file_system::attach(root, &tree, "tmpfs", &mount.destination, &Options::default())?;
    for shown in trees(hierarchy) {
        let name = shown.point.file_name().unwrap_or_default();
        let place = mount.destination.join(name);
        if !new_namespace {
            let tree = own_group(shown, &groups, &attributes)?;
            file_system::attach(root, &tree, "cgroup", &place, &attributes)?;
            link_controllers(root, &mount.destination, shown)?;
            continue;
        }
        let mut one = attributes.clone();
        one.data = shown.controllers.iter().map(|controller| as_setting(controller)).collect();
        let kind = if shown.controllers.is_empty() { "cgroup2" } else { "cgroup" };
        let tree = new_file_system(kind, "cgroup", &one)?;
        file_system::attach(root, &tree, kind, &place, &one)?;
        link_controllers(root, &mount.destination, shown)?;
    }
    // Only now, when there is a place for each in it.
    because(Chapter::RootFileSystem, "the directory of the hierarchies is as read-only as they are");
    let change = Change { set: options.set & MountAttributes::RDONLY, ..Change::default() };
    set_attributes(At::fd(tree.as_fd(), "tmpfs"), change).in_step("cannot show the control groups")
}

fn as_setting(controller: &str) -> (String, Option<String>) {
    match controller.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (controller.to_owned(), None),
    }
}

/// Without a namespace of its own the container is shown its own group of a tree, and nothing beside it.
fn own_group(tree: &cgroup::Mount, groups: &str, options: &Options) -> Result<OwnedFd> {
    const STEP: &str = "cannot show the control groups";
    let directory = directory_of(tree, groups);
    let name = directory.display().to_string();
    let tree = open_tree(At::path(&directory), OpenTree::CLONE | OpenTree::RECURSIVE).in_step(STEP)?;
    let private = Change { propagation: Some(MountFlags::PRIVATE), recursive: true, ..Change::default() };
    set_attributes(At::fd(tree.as_fd(), &name), private).in_step(STEP)?;
    for change in options.changes() {
        change_what_is_not_locked(tree.as_fd(), &name, Change { recursive: true, ..change })?;
    }
    Ok(tree)
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}

/// Where a process's group of a tree is. `groups` is its `/proc/PID/cgroup`, cgroups(7): a line for each tree, `number:controllers:path`.
fn directory_of(tree: &cgroup::Mount, groups: &str) -> PathBuf {
    let own: Vec<&str> = sorted(tree.controllers.iter().map(String::as_str).collect());
    let path = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let names = controllers.split(',').filter(|name| !name.is_empty()).collect();
        (sorted(names) == own).then(|| Path::new(path))
    });
    let below = path.and_then(|path| path.strip_prefix(&tree.root).ok()).unwrap_or(Path::new(""));
    tree.point.join(below)
}

/// A tree of several controllers is found by the name of each: `cpu` leads to `cpu,cpuacct`.
fn link_controllers(root: &NewRoot, directory: &Path, tree: &cgroup::Mount) -> Result<()> {
    let Some(name) = tree.point.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    if !name.contains(',') {
        return Ok(());
    }
    name.split(',').try_for_each(|controller| link_if_absent(root, name, &directory.join(controller)))
}

/// The trees as the host has them, in the order of their mounts; those that are elsewhere are not shown.
fn trees(hierarchy: &Hierarchy) -> Vec<&cgroup::Mount> {
    let (v1, unified) = match hierarchy {
        Hierarchy::V2 { unified } => (&[][..], Some(unified)),
        Hierarchy::Hybrid { unified, v1 } => (v1.as_slice(), Some(unified)),
        Hierarchy::V1 { v1 } => (v1.as_slice(), None),
    };
    v1.iter().chain(unified).filter(|mount| mount.point.starts_with("/sys/fs/cgroup")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(point: &str, root: &str, controllers: &[&str]) -> cgroup::Mount {
        let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
        cgroup::Mount { point: point.into(), root: root.into(), controllers }
    }

    #[test]
    fn a_group_is_found_in_each_tree() {
        let groups = "9:cpuacct,cpu:/a/b\n1:name=systemd:/host/s\n0::/unified\n";
        let of = |tree: &cgroup::Mount| directory_of(tree, groups).display().to_string();
        assert_eq!(of(&tree("/t/cpu,cpuacct", "/", &["cpu", "cpuacct"])), "/t/cpu,cpuacct/a/b");
        assert_eq!(of(&tree("/t/systemd", "/host", &["name=systemd"])), "/t/systemd/s");
        assert_eq!(of(&tree("/t/u", "/", &[])), "/t/u/unified");
        assert_eq!(of(&tree("/t/memory", "/", &["memory"])), "/t/memory/");
    }
}
