//! What only Linux has: config-linux.md.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::absent::{empty_is_none, is_false, null_is_default};
use super::resources::Resources;
use crate::seccomp::Seccomp;

/// What only Linux has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// Namespaces the container gets or joins.
    #[serde(deserialize_with = "null_is_default")]
    pub namespaces: Vec<Namespace>,
    /// User ids inside and outside.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids inside and outside.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub gid_mappings: Vec<IdMapping>,
    /// Offsets of the clocks in a new time namespace, by clock (`monotonic`, `boottime`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
    /// Device nodes besides the default ones.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub devices: Vec<Device>,
    /// The control group's path below the hierarchy's root.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub cgroups_path: Option<String>,
    /// Limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Kernel parameters, `net.ipv4.ip_forward` and the like.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub sysctl: BTreeMap<String, String>,
    /// Paths made unreadable.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub masked_paths: Vec<PathBuf>,
    /// Paths made read-only.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub readonly_paths: Vec<PathBuf>,
    /// Which system calls the container may make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// Propagation of the root mount: `private`, `slave`, `shared`, `unbindable`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub rootfs_propagation: Option<String>,
    /// The SELinux context of the container's mounts.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub mount_label: Option<String>,
    /// Shares of processor caches and memory bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    /// Which kind of Linux uname(2) tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<Personality>,
    /// Network devices to move into the container, by their names outside.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub net_devices: BTreeMap<String, NetDevice>,
    /// Where memory comes from on a machine with several nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
}

/// One namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Which.
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    /// An existing one to join; none makes a new one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub path: Option<PathBuf>,
}

/// The eight kinds of namespaces(7), in the order of [`NamespaceKind::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// Users and capabilities.
    User,
    /// Process ids.
    Pid,
    /// Mounts.
    Mount,
    /// Network devices, addresses, ports.
    Network,
    /// Host and domain name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// The view of the control group hierarchy.
    Cgroup,
    /// Clock offsets.
    Time,
}

impl NamespaceKind {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::User, Self::Pid, Self::Mount, Self::Network, Self::Uts, Self::Ipc, Self::Cgroup, Self::Time];

    /// The file of one in a process's `/proc/PID/ns`.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Pid => "pid",
            Self::Mount => "mnt",
            Self::Network => "net",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }
}

/// A range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// First id outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// An offset of a clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeOffset {
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nanosecs: u32,
}

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// `c`, `b`, `u` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where, inside the container.
    pub path: PathBuf,
    /// Major number.
    #[serde(default)]
    pub major: i64,
    /// Minor number.
    #[serde(default)]
    pub minor: i64,
    /// Permission bits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file_mode: Option<u32>,
    /// Owner inside the container.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uid: Option<u32>,
    /// Group inside the container.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gid: Option<u32>,
}

/// Shares of processor caches and memory bandwidth: the kernel's resctrl file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntelRdt {
    /// The group's name; none is the container's id.
    #[serde(rename = "closID", skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub clos_id: Option<String>,
    /// Lines for the group's `schemata`, written as they are, before the next two.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub schemata: Vec<String>,
    /// `L3:0=f;1=f0`: which parts of which cache.
    #[serde(
        rename = "l3CacheSchema",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_is_none"
    )]
    pub l3_cache_schema: Option<String>,
    /// `MB:0=20;1=70`: how much memory bandwidth.
    #[serde(
        rename = "memBwSchema",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_is_none"
    )]
    pub mem_bw_schema: Option<String>,
    /// Whether the container is measured in a group of its own.
    #[serde(rename = "enableMonitoring", skip_serializing_if = "is_false")]
    pub enable_monitoring: bool,
}

/// What personality(2) is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Personality {
    /// Which.
    pub domain: PersonalityDomain,
    /// The specification defines none yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub flags: Vec<String>,
}

/// Domains of personality(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PersonalityDomain {
    /// As the kernel is.
    #[serde(rename = "LINUX")]
    Linux,
    /// uname(2) tells of a 32-bit machine.
    #[serde(rename = "LINUX32")]
    Linux32,
}

/// A network device that moves into the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetDevice {
    /// Its name inside; none keeps the one it has.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub name: Option<String>,
}

/// What set_mempolicy(2) is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// How nodes are chosen.
    pub mode: MemoryPolicyMode,
    /// Which nodes, `0-3,7`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub nodes: Option<String>,
    /// What becomes of them when the container's own nodes change.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub flags: Vec<MemoryPolicyFlag>,
}

/// Modes of set_mempolicy(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum MemoryPolicyMode {
    #[serde(rename = "MPOL_DEFAULT")]
    Default,
    #[serde(rename = "MPOL_BIND")]
    Bind,
    #[serde(rename = "MPOL_INTERLEAVE")]
    Interleave,
    #[serde(rename = "MPOL_WEIGHTED_INTERLEAVE")]
    WeightedInterleave,
    #[serde(rename = "MPOL_PREFERRED")]
    Preferred,
    #[serde(rename = "MPOL_PREFERRED_MANY")]
    PreferredMany,
    #[serde(rename = "MPOL_LOCAL")]
    Local,
}

impl MemoryPolicyMode {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Default,
        Self::Bind,
        Self::Interleave,
        Self::WeightedInterleave,
        Self::Preferred,
        Self::PreferredMany,
        Self::Local,
    ];
}

/// Flags of set_mempolicy(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum MemoryPolicyFlag {
    #[serde(rename = "MPOL_F_NUMA_BALANCING")]
    NumaBalancing,
    #[serde(rename = "MPOL_F_RELATIVE_NODES")]
    RelativeNodes,
    #[serde(rename = "MPOL_F_STATIC_NODES")]
    StaticNodes,
}

impl MemoryPolicyFlag {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NumaBalancing, Self::RelativeNodes, Self::StaticNodes];
}
