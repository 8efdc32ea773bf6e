//! Which control group file systems there are, and where.

use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{Access, Mode, OFlags};

use crate::{Error, Result};

/// The control group file systems of this mount namespace. See cgroups(7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// Version 2 only: one tree with all controllers.
    V2 {
        /// Where it is mounted.
        unified: Mount,
    },
    /// Version 1 trees with the controllers, and one of version 2 that tracks processes.
    Hybrid {
        /// Where version 2 is mounted.
        unified: Mount,
        /// The trees of version 1.
        v1: Vec<Mount>,
    },
    /// Version 1 trees only.
    V1 {
        /// The trees.
        v1: Vec<Mount>,
    },
}

/// One mounted tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Which group of the tree is seen there: `/`, unless this is a container with a part of its host's tree.
    pub root: PathBuf,
    /// Its controllers and its name (`name=systemd`); empty for version 2.
    pub controllers: Vec<String>,
}

/// Which rules the files of a controller follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

impl Hierarchy {
    /// Looks where control groups are mounted: `/proc/self/mountinfo`, proc_pid_mountinfo(5).
    ///
    /// # Errors
    /// [`Error::NoHierarchy`] if nowhere; [`Error::Read`].
    pub fn detect() -> Result<Self> {
        Self::from_mounts(&read("/proc/self/mountinfo".as_ref())?).ok_or(Error::NoHierarchy)
    }

    /// The hierarchy of a mountinfo text.
    fn from_mounts(text: &str) -> Option<Self> {
        let mut unified: Option<Mount> = None;
        let mut v1: Vec<Mount> = Vec::new();
        for line in text.lines() {
            let Some((kind, mount)) = parse(line) else { continue };
            // Mounts are listed in the order they were made: this one hides what was mounted below its point before.
            let hidden = |earlier: &Mount| earlier.point.starts_with(&mount.point);
            unified.take_if(|earlier| hidden(earlier));
            v1.retain(|earlier| !hidden(earlier));
            let known = v1.iter().any(|earlier| earlier.controllers == mount.controllers);
            match kind {
                // The first of several mounts of one tree is the one that tools expect; later ones are containers' views.
                "cgroup2" if unified.is_none() => unified = Some(mount),
                "cgroup" if !known => v1.push(mount),
                _ => {}
            }
        }
        match (unified, v1.is_empty()) {
            (Some(unified), true) => Some(Self::V2 { unified }),
            (Some(unified), false) => Some(Self::Hybrid { unified, v1 }),
            (None, false) => Some(Self::V1 { v1 }),
            (None, true) => None,
        }
    }

    /// The tree of version 2.
    pub(crate) fn unified(&self) -> Option<&Mount> {
        match self {
            Self::V2 { unified } | Self::Hybrid { unified, .. } => Some(unified),
            Self::V1 { .. } => None,
        }
    }

    /// The trees of version 1.
    pub(crate) fn v1(&self) -> &[Mount] {
        match self {
            Self::V2 { .. } => &[],
            Self::Hybrid { v1, .. } | Self::V1 { v1 } => v1,
        }
    }

    /// The tree of version 1 that a controller is in.
    pub(crate) fn v1_with(&self, controller: &str) -> Option<&Mount> {
        self.v1().iter().find(|mount| mount.controllers.iter().any(|name| name == controller))
    }

    /// Which version's files a controller has here. One that is in no tree of version 1 is looked for in version 2.
    pub(crate) fn version(&self, controller: &str) -> Version {
        match self {
            Self::V1 { .. } => Version::V1,
            _ if self.v1_with(controller).is_some() => Version::V1,
            _ => Version::V2,
        }
    }

    /// The tree of version 1 that tracks processes where there is no version 2: one that can freeze them, if there is one.
    pub(crate) fn v1_tracker(&self) -> Option<&Mount> {
        ["freezer", "pids", "name=systemd"]
            .into_iter()
            .find_map(|controller| self.v1_with(controller))
            .or(self.v1().first())
    }
}

/// The file system's kind and the mount, if it is of control groups or can hide one.
fn parse(line: &str) -> Option<(&str, Mount)> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let point = unescape(point);
    if kind != "cgroup" && kind != "cgroup2" && !Path::new("/sys/fs/cgroup").starts_with(&point) {
        return None;
    }
    // The controllers stand among the super block's options, which for cgroup2 are other things.
    let is_option = |word: &&str| {
        !matches!(*word, "rw" | "ro" | "xattr" | "clone_children" | "noprefix")
            && !word.starts_with("release_agent=")
    };
    let controllers = match kind {
        "cgroup" => options.split(',').filter(is_option).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    Some((kind, Mount { point: point.into(), root: unescape(root).into(), controllers }))
}

/// A path of mountinfo, where blanks are written in octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// The text of a file of the kernel's.
pub(crate) fn read(path: &Path) -> Result<String> {
    let text = || {
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut bytes = Vec::with_capacity(4096);
        while rustix::io::read(&file, spare_capacity(&mut bytes))? > 0 {
            bytes.reserve(4096);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    text().map_err(|errno| Error::Read { path: path.to_owned(), errno })
}

/// Whether this process may make groups in a group and move processes there.
pub(crate) fn is_writable(directory: &Path) -> bool {
    let may = |path: &Path| kernel::fs::may_access(path, Access::WRITE_OK).is_ok();
    may(directory) && may(&directory.join("cgroup.procs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn finds_hybrid_trees_and_their_controllers() {
        let hierarchy = Hierarchy::from_mounts(HYBRID).unwrap();
        assert!(matches!(hierarchy, Hierarchy::Hybrid { .. }));
        assert_eq!(hierarchy.unified().unwrap().point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(hierarchy.v1_with("cpuacct").unwrap().point, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(hierarchy.version("memory"), Version::V1);
        assert_eq!(hierarchy.version("hugetlb"), Version::V2);
    }

    #[test]
    fn a_mount_on_top_hides_what_is_below() {
        let text = format!("{HYBRID}99 31 0:38 / /sys/fs/cgroup rw - cgroup2 none rw,nsdelegate\n");
        let Hierarchy::V2 { unified } = Hierarchy::from_mounts(&text).unwrap() else { panic!("not v2") };
        assert_eq!(unified.point, Path::new("/sys/fs/cgroup"));
        assert_eq!(Hierarchy::from_mounts(&format!("{HYBRID}99 31 0:3 / /sys rw - tmpfs none rw\n")), None);
    }

    #[test]
    fn version_1_alone_is_v1() {
        let text: String =
            HYBRID.lines().filter(|line| !line.contains("cgroup2")).map(|line| format!("{line}\n")).collect();
        let hierarchy = Hierarchy::from_mounts(&text).unwrap();
        assert!(matches!(hierarchy, Hierarchy::V1 { .. }));
        assert_eq!(hierarchy.version("hugetlb"), Version::V1);
        assert_eq!(hierarchy.v1_tracker().unwrap().controllers, ["name=systemd"]);
    }
}
