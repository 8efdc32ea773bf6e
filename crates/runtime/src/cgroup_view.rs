//! What the container sees of control groups at `/sys/fs/cgroup`: its own group as the root.

use std::os::fd::AsFd as _;
use std::path::Path;

use cgroup::Hierarchy;
use kernel::mount::{At, Change, MountAttributes, OpenTree, move_mount, open_tree, set_attributes};
use kernel::record::{Chapter, because};

use crate::error::{InStep as _, Result};
use crate::mount_options::{self, Options};
use crate::root::{NewRoot, new_file_system};
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
    if !new_namespace {
        return bind_view(root, mount, &attributes);
    }
    if let Hierarchy::V2 { .. } = hierarchy {
        let tree = new_file_system("cgroup2", "cgroup", &attributes)?;
        return root.attach_mount(&tree, "cgroup2", &mount.destination, options);
    }
    let directory =
        mount_options::parse(&["mode=755".into(), "nosuid".into(), "nodev".into(), "noexec".into()]);
    let tree = new_file_system("tmpfs", "tmpfs", &directory)?;
    root.attach_mount(&tree, "tmpfs", &mount.destination, &Options::default())?;
    for shown in trees(hierarchy) {
        let name = shown.point.file_name().unwrap_or_default();
        let place = mount.destination.join(name);
        let mut one = attributes.clone();
        one.data = shown.controllers.iter().map(|controller| as_setting(controller)).collect();
        let kind = if shown.controllers.is_empty() { "cgroup2" } else { "cgroup" };
        let tree = new_file_system(kind, "cgroup", &one)?;
        root.attach_mount(&tree, kind, &place, &one)?;
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

/// Without a namespace of its own the container sees the host's groups, read-only as the options say.
fn bind_view(root: &NewRoot, mount: &Mount, options: &Options) -> Result<()> {
    const STEP: &str = "cannot show the control groups";
    let source = Path::new("/sys/fs/cgroup");
    let tree = open_tree(At::path(source), OpenTree::CLONE | OpenTree::RECURSIVE).in_step(STEP)?;
    let change = Change { set: options.set, recursive: true, ..Change::default() };
    set_attributes(At::fd(tree.as_fd(), "/sys/fs/cgroup"), change).in_step(STEP)?;
    let target = root.make_directory(&mount.destination)?;
    let name = mount.destination.display().to_string();
    move_mount(tree.as_fd(), "/sys/fs/cgroup", At::fd(target.as_fd(), &name)).in_step(STEP)
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
