//! What the engine asks of a monitor: an OCI configuration and what the specification has no words for.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::spec::Spec;

/// The version of [`Request`]; another one is refused, never guessed at.
pub const VERSION: u32 = 1;

/// Where POSIX shared memory is: shm_open(3).
pub const SHARED_MEMORY: &str = "/dev/shm";

/// One container to run, as the monitor reads it from `request.json` in the container's directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The container's id, 64 hexadecimal digits.
    pub id: String,
    /// The OCI configuration. Its `root.path` is not used: `root` below says more.
    pub spec: Spec,
    /// What the root file system is made of.
    pub root: RootFileSystem,
    /// The user as typed (`name`, `uid`, `name:group`), looked up under the container's root; none is `spec.process.user`.
    pub user: Option<String>,
    /// More groups, names or numbers, looked up there too.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The mount namespace of another container whose `/dev/shm` this one shares, as a path (`/proc/PID/ns/mnt`).
    #[serde(default)]
    pub shared_memory_of: Option<PathBuf>,
    /// Which system calls are allowed.
    pub seccomp: SeccompChoice,
    /// Whether a small first process reaps orphans and forwards signals.
    pub init: bool,
    /// Whether standard input stays open.
    pub interactive: bool,
    /// Whether uid_map needs `newuidmap` and `newgidmap`.
    pub map_with_helpers: bool,
    /// The parent control group, `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// What is different when another engine asks by runc's command line; none for coracle's own engine.
    #[serde(default)]
    pub oci: Option<Oci>,
    /// Whether the container is removed when it ends.
    pub remove: bool,
    /// The file that keeps the container's name taken.
    pub name_file: Option<PathBuf>,
    /// The container's directory in the persistent root.
    pub directory: PathBuf,
    /// The container's directory in the volatile root.
    pub state_directory: PathBuf,
}

/// What another engine asks beside its OCI configuration, by the options of runc's command line.
///
/// With it everything is as the configuration says: the group is at `linux.cgroupsPath`, in every tree, and the user's groups are those listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oci {
    /// `--systemd-cgroup`: the group is a unit that systemd is asked for.
    pub systemd_cgroup: bool,
    /// `--rootless=false`: a control group that cannot be made is an error also if no limit needs it.
    #[serde(default)]
    pub needs_group: bool,
    /// `--no-new-keyring`: the caller's session keyring stays.
    pub no_new_keyring: bool,
    /// `--no-pivot`: the root is changed by moving it onto `/`, for machines that run from their initial file system.
    pub no_pivot: bool,
    /// `--preserve-fds`: that many descriptors after the standard ones stay open.
    pub preserve_fds: u32,
    /// The bundle's directory, which hooks are told.
    pub bundle: PathBuf,
}

/// What the root file system is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootFileSystem {
    /// A directory, used as it is (`--rootfs`).
    Directory(PathBuf),
    /// Union mounts, the first on `/`, the others on directories below it.
    Overlays(Vec<Overlay>),
}

/// One union mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Where, inside the container: `/` for the root.
    pub target: PathBuf,
    /// The read-only layers, the LOWEST first.
    pub lower: Vec<PathBuf>,
    /// Where changes go; none makes the mount read-only.
    pub upper: Option<Upper>,
    /// Whether overlayfs keeps its marks in `user.overlay.*` (needed in a user namespace).
    pub userxattr: bool,
    /// Whether nothing is ever synced: the container's changes die with it.
    pub volatile: bool,
}

/// The writable part of a union mount. Both directories are on one file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upper {
    /// The directory of changes.
    pub upper: PathBuf,
    /// overlayfs' own directory.
    pub work: PathBuf,
}

/// Which system calls the container may make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompChoice {
    /// The default profile for the container's capabilities.
    Default,
    /// All.
    Unconfined,
    /// A profile in docker's or the specification's JSON form, as read from the user's file.
    Profile(String),
    /// What `linux.seccomp` of the configuration says.
    Configured,
}
