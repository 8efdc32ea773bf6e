//! What the container sees of control groups at `/sys/fs/cgroup`: its own group as the root.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use kernel::mount::{At, Change, MountAttributes, OpenTree, move_mount, open_tree, set_attributes};
use kernel::record::{Chapter, because};

use crate::error::{Error, InStep as _, Result};
use crate::mount_options::{self, Options};
use crate::root::{NewRoot, new_file_system};
use crate::spec::Mount;

/// One hierarchy of the host's: its mount point's last name and its v1 controllers (none for v2).
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    name: String,
    v1: Option<Vec<String>>,
}

/// Mounts the hierarchies as the host has them: v2 alone, or a directory with one mount for each.
pub fn mount_view(root: &NewRoot, mount: &Mount, options: &Options, new_namespace: bool) -> Result<()> {
    let hierarchies = hierarchies(&read_mounts()?);
    let attributes = Options { data: Vec::new(), ..options.clone() };
    because(Chapter::RootFileSystem, "the container sees its own control group, and that as the root of all");
    if !new_namespace {
        return bind_view(root, mount, &attributes);
    }
    if let [Hierarchy { v1: None, .. }] = hierarchies.as_slice() {
        let tree = new_file_system("cgroup2", "cgroup", &attributes)?;
        return root.attach_mount(&tree, "cgroup2", &mount.destination, options);
    }
    let directory =
        mount_options::parse(&["mode=755".into(), "nosuid".into(), "nodev".into(), "noexec".into()]);
    let tree = new_file_system("tmpfs", "tmpfs", &directory)?;
    root.attach_mount(&tree, "tmpfs", &mount.destination, &Options::default())?;
    for hierarchy in hierarchies {
        let place = mount.destination.join(&hierarchy.name);
        let mut one = attributes.clone();
        let kind = match &hierarchy.v1 {
            None => "cgroup2",
            Some(controllers) => {
                one.data = controllers.iter().map(|controller| as_setting(controller)).collect();
                "cgroup"
            }
        };
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

fn read_mounts() -> Result<String> {
    fs_err::read_to_string("/proc/self/mountinfo").map_err(Error::File)
}

/// The cgroup mounts below `/sys/fs/cgroup` in a mountinfo text, see proc_pid_mountinfo(5).
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
        let point = PathBuf::from(left.split(' ').nth(4).unwrap_or(""));
        let inside = point.starts_with("/sys/fs/cgroup");
        let name = point.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
        match kind {
            "cgroup2" if inside => found.push(Hierarchy { name, v1: None }),
            "cgroup" if inside => {
                let skip =
                    |option: &&str| !matches!(*option, "rw" | "ro" | "xattr" | "noprefix" | "clone_children");
                let controllers = options.split(',').filter(skip).filter(|o| !o.starts_with("release_agent"));
                found.push(Hierarchy { name, v1: Some(controllers.map(str::to_owned).collect()) });
            }
            _ => {}
        }
    }
    // A v2 mount over everything hides what was below it.
    if let Some(cover) = found.iter().rposition(|hierarchy| hierarchy.name == "cgroup") {
        return vec![found.swap_remove(cover)];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn reads_hybrid_and_pure_hierarchies() {
        let found = hierarchies(HYBRID);
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["cpu,cpuacct", "systemd", "unified"]);
        assert_eq!(found[0].v1.as_deref().unwrap(), ["cpu", "cpuacct"]);
        assert_eq!(found[1].v1.as_deref().unwrap(), ["name=systemd"]);
        let pure = hierarchies("30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(pure, [Hierarchy { name: "cgroup".to_owned(), v1: None }]);
    }
}
