//! What a user asked of a container, validated: plain data, independent of how it was typed.
//!
//! [`crate::options`] makes these values from option texts; [`crate::oci`] turns a [`Spec`] and an image's configuration into
//! what the runtime is asked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use runtime::spec::{DeviceRule, Rlimit, ThrottleDevice, TimeOffset, WeightDevice};

/// One container, as asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spec {
    /// The image's reference; none with `root_directory`.
    pub image: Option<String>,
    /// `--rootfs`: a directory used as the root file system as it is.
    pub root_directory: Option<PathBuf>,
    /// `--platform`.
    pub platform: Option<image::Platform>,
    /// The words after the image: they replace the image's command.
    pub command: Vec<String>,
    /// `--entrypoint`: none keeps the image's, an empty list clears it.
    pub entrypoint: Option<Vec<String>>,
    /// `--name`.
    pub name: Option<String>,
    /// `--rm`.
    pub remove: bool,
    /// `-i`.
    pub interactive: bool,
    /// `-t`.
    pub terminal: bool,
    /// `--init`.
    pub init: bool,
    /// `--cidfile`.
    pub cid_file: Option<PathBuf>,
    /// `--label`, `--label-file`.
    pub labels: Vec<(String, String)>,
    /// `--stop-signal`: a signal number.
    pub stop_signal: Option<i32>,
    /// `--stop-timeout` in seconds.
    pub stop_timeout: Option<u32>,
    /// The process.
    pub process: ProcessOptions,
    /// Namespaces.
    pub isolation: Isolation,
    /// Limits.
    pub limits: Limits,
    /// Mounts and the root file system.
    pub files: Files,
    /// Devices and powers.
    pub powers: Powers,
    /// Names and addresses.
    pub names: Names,
}

/// What concerns the process itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProcessOptions {
    /// `-e`, `--env-file`, in order: name and value; a value of none removes the image's variable.
    pub environment: Vec<(String, Option<String>)>,
    /// `-w`.
    pub working_directory: Option<PathBuf>,
    /// `-u` as typed.
    pub user: Option<String>,
    /// `--group-add`: names or numbers.
    pub groups: Vec<String>,
    /// `--ulimit`, by kernel name (`RLIMIT_NOFILE`).
    pub rlimits: Vec<Rlimit>,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i32>,
}

/// Which namespace a container has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one that the rest of the options and the user call for.
    #[default]
    Default,
    /// A new one.
    Private,
    /// The host's.
    Host,
    /// Another container's, by its name or id.
    Container(String),
}

/// Namespaces.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Isolation {
    /// `--pid`.
    pub pid: Choice,
    /// `--ipc`.
    pub ipc: Choice,
    /// `--ipc none`: private, and without /dev/shm.
    pub ipc_without_shm: bool,
    /// `--uts`.
    pub uts: Choice,
    /// `--userns`; `auto` is `Private`.
    pub user: Choice,
    /// `--userns keep-id`: the caller's own ids inside are its ids outside.
    pub keep_id: bool,
    /// `--cgroupns`.
    pub cgroup: Choice,
    /// `--network`; the default is `Private`, with nothing but a loopback device (`none`).
    pub network: Choice,
    /// `--time-offset` by clock (`monotonic`, `boottime`); any makes a time namespace.
    pub time_offsets: BTreeMap<String, TimeOffset>,
}

/// Limits. Numbers are as the OCI specification has them: bytes, microseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// `--pids-limit`.
    pub pids: Option<i64>,
    /// `--memory`.
    pub memory: Option<i64>,
    /// `--memory-swap`: memory and swap together, -1 for no limit.
    pub memory_swap: Option<i64>,
    /// `--memory-reservation`.
    pub memory_reservation: Option<i64>,
    /// `--cpus`, `--cpu-quota`.
    pub cpu_quota: Option<i64>,
    /// `--cpus`, `--cpu-period`.
    pub cpu_period: Option<u64>,
    /// `--cpu-shares`.
    pub cpu_shares: Option<u64>,
    /// `--cpuset-cpus`.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`.
    pub cpuset_mems: Option<String>,
    /// `--blkio-weight`.
    pub blkio_weight: Option<u16>,
    /// `--blkio-weight-device`.
    pub blkio_weight_device: Vec<WeightDevice>,
    /// `--device-read-bps`.
    pub device_read_bps: Vec<ThrottleDevice>,
    /// `--device-write-bps`.
    pub device_write_bps: Vec<ThrottleDevice>,
    /// `--device-read-iops`.
    pub device_read_iops: Vec<ThrottleDevice>,
    /// `--device-write-iops`.
    pub device_write_iops: Vec<ThrottleDevice>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
}

/// Mounts and the root file system.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Files {
    /// `--read-only`.
    pub read_only: bool,
    /// `--mount`, `--volume`, `--tmpfs`, in the order of their destinations' depth when they are mounted.
    pub mounts: Vec<MountOption>,
    /// `--shm-size` in bytes.
    pub shm_size: Option<u64>,
    /// `--sysctl`.
    pub sysctls: BTreeMap<String, String>,
}

/// One mount that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountOption {
    /// A part of the host.
    Bind {
        /// Where on the host, absolute.
        source: PathBuf,
        /// Where inside.
        destination: PathBuf,
        /// Cannot be changed from inside.
        read_only: bool,
        /// `rprivate`, `rslave` and their like.
        propagation: Option<String>,
        /// Whether the mounts below come along.
        recursive: bool,
        /// `-v` makes a directory of a source that is missing; `--mount` refuses.
        make_source: bool,
    },
    /// Memory.
    Tmpfs {
        /// Where inside.
        destination: PathBuf,
        /// Options as mount(8) has them, defaults included.
        options: Vec<String>,
    },
}

/// Devices and powers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Powers {
    /// `--privileged`.
    pub privileged: bool,
    /// `--cap-add`: kernel names (`CAP_NET_ADMIN`), or `ALL`.
    pub add: Vec<String>,
    /// `--cap-drop`.
    pub drop: Vec<String>,
    /// `--device`.
    pub devices: Vec<DeviceOption>,
    /// `--device-cgroup-rule`.
    pub device_rules: Vec<DeviceRule>,
    /// `--security-opt no-new-privileges`.
    pub no_new_privileges: bool,
    /// `--security-opt seccomp=unconfined`.
    pub seccomp_unconfined: bool,
    /// `--security-opt seccomp=FILE`: its contents.
    pub seccomp_profile: Option<String>,
    /// `--security-opt systempaths=unconfined`.
    pub system_paths_unconfined: bool,
}

/// One `--device`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceOption {
    /// Its path on the host: a node, or a directory of them.
    pub host: PathBuf,
    /// Its path inside.
    pub inside: PathBuf,
    /// Some of `rwm`.
    pub access: String,
}

/// Names and addresses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Names {
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--domainname`.
    pub domainname: Option<String>,
    /// `--add-host`: name and address.
    pub hosts: Vec<(String, String)>,
    /// `--dns`.
    pub dns: Vec<String>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--dns-option`.
    pub dns_options: Vec<String>,
}
