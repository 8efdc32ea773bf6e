//! What may be asked of a group: the fields of the OCI configuration's `linux.resources`.

use std::collections::BTreeMap;

use crate::DeviceRule;

/// The limits of a group. What is `None` or empty is not touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most processes and threads; 0 and less are no limit.
    pub pids: Option<i64>,
    /// Memory.
    pub memory: Memory,
    /// Processor time and placement.
    pub cpu: Cpu,
    /// Block devices.
    pub block_io: BlockIo,
    /// Huge pages.
    pub hugepages: Vec<HugepageLimit>,
    /// InfiniBand and the like, by device name.
    pub rdma: BTreeMap<String, RdmaLimit>,
    /// Which devices may be made and opened. In order, the last rule that matches decides, each kind of access by itself; what
    /// no rule matches is denied. Without any rule nothing is restricted. Needs root: a user's containers have no devices
    /// but those the user may open anyway, so none are passed for them.
    pub devices: Vec<DeviceRule>,
    /// Marks on the network packets of the group's processes.
    pub network: Network,
    /// Files of cgroup v2, written as they are after all else.
    pub unified: BTreeMap<String, String>,
}

/// Memory, in bytes; -1 is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Beyond this processes are killed.
    pub limit: Option<i64>,
    /// Memory and swap together. `None` with a limit means twice the limit, as docker has it, unless [`Memory::leave_swap`].
    pub swap: Option<i64>,
    /// Whether a limit without one of swap leaves swap as it is, as OCI configurations mean it; only no limit is none of swap either.
    pub leave_swap: bool,
    /// What is kept for the group when memory is short: `memory.low`, on v1 the soft limit.
    pub reservation: Option<i64>,
    /// Beyond this the group is slowed down: `memory.high`.
    pub high: Option<i64>,
    /// Whether running out of memory ends the whole group and not only one process of it.
    pub oom_group: Option<bool>,
    /// Whether running out of memory stops processes until there is some, instead of killing one.
    pub disable_oom_killer: Option<bool>,
    /// How readily memory is swapped out rather than taken from the page cache: 0 to 100. `u64::MAX` is the same as none.
    pub swappiness: Option<u64>,
    /// For the buffers of TCP connections.
    pub kernel_tcp: Option<i64>,
    /// Whether memory of groups below counts for this one, as it always does since Linux 5.11.
    pub use_hierarchy: Option<bool>,
    /// Whether an update to less than what is in use is refused. Version 1 always refuses that.
    pub check_before_update: bool,
}

/// Processor time and placement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Weight among siblings as v1 counts it, 2 to 262144, where 1024 is the usual.
    pub shares: Option<u64>,
    /// Microseconds of processor time in each period; 0 and less are no limit.
    pub quota: Option<i64>,
    /// Microseconds of a period, 1,000 to 1,000,000; 100,000 if only a quota is given.
    pub period: Option<u64>,
    /// Microseconds of processor time saved up in earlier periods that may be used beyond the quota in one; at most the quota.
    pub burst: Option<u64>,
    /// 1 if the group gets time only when nobody else wants any, 0 if not.
    pub idle: Option<i64>,
    /// Microseconds for realtime processes in each realtime period.
    pub realtime_runtime: Option<i64>,
    /// Microseconds of a realtime period.
    pub realtime_period: Option<u64>,
    /// Processors, `0-3,7`.
    pub cpus: Option<String>,
    /// Memory nodes, `0`.
    pub mems: Option<String>,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// Weight among siblings, 10 to 1000.
    pub weight: Option<u16>,
    /// Weight for single devices.
    pub weight_device: Vec<DeviceWeight>,
    /// Weight of the group's own processes against the groups below it, 10 to 1000: Linux before 5.0.
    pub leaf_weight: Option<u16>,
    /// The same for single devices.
    pub leaf_weight_device: Vec<DeviceWeight>,
    /// Bytes read per second.
    pub read_bps: Vec<DeviceRate>,
    /// Bytes written per second.
    pub write_bps: Vec<DeviceRate>,
    /// Reads per second.
    pub read_iops: Vec<DeviceRate>,
    /// Writes per second.
    pub write_iops: Vec<DeviceRate>,
}

/// Marks on the network packets of a group's processes, for the machine's traffic control.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The class of outgoing packets, `0xAAAABBBB` for `AAAA:BBBB`.
    pub class_id: Option<u32>,
    /// The priority of packets that leave by an interface.
    pub priorities: Vec<NetworkPriority>,
}

/// The priority of packets that leave by one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPriority {
    /// The interface's name in the machine's network namespace.
    pub interface: String,
    /// The priority.
    pub priority: u32,
}

/// A weight for one block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceWeight {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// 10 to 1000.
    pub weight: u16,
}

/// A rate for one block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRate {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes or operations per second; 0 is no limit.
    pub rate: u64,
}

/// A limit of huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugepageLimit {
    /// As the kernel names it: `2MB`, `1GB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// A limit of one RDMA device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RdmaLimit {
    /// The most handles.
    pub handles: Option<u32>,
    /// The most objects.
    pub objects: Option<u32>,
}
