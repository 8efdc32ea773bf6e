//! What a user asked of a container, validated: plain data, independent of how it was typed.
//!
//! [`crate::options`] makes these values from option texts; `oci` turns a [`Spec`] and an image's configuration into
//! what the runtime is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use runtime::config::{is_ipc_parameter, is_network_parameter};
use runtime::spec::{DeviceRule, Rlimit, ThrottleDevice, TimeOffset, WeightDevice};

use crate::options::Error;

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
        /// Whether `read_only` is for the topmost mount alone.
        writable_below: bool,
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
    /// `--device` by name.
    pub cdi: crate::cdi::Asked,
    /// `--device-cgroup-rule`.
    pub device_rules: Vec<DeviceRule>,
    /// `--security-opt no-new-privileges`.
    pub no_new_privileges: bool,
    /// `--security-opt seccomp=unconfined`.
    pub seccomp_unconfined: bool,
    /// `--security-opt seccomp=FILE`: its contents.
    pub seccomp_profile: Option<String>,
    /// `--security-opt apparmor=PROFILE`, where `unconfined` is none.
    pub apparmor: Option<String>,
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

impl MountOption {
    /// Where inside.
    pub fn destination(&self) -> &Path {
        match self {
            MountOption::Bind { destination, .. } | MountOption::Tmpfs { destination, .. } => destination,
        }
    }
}

impl Spec {
    /// Checks that what was asked fits together.
    pub fn validate(&self) -> Result<(), Error> {
        if self.image.is_none() && self.root_directory.is_none() {
            return Err(Error::NoImage);
        }
        self.limits.validate()?;
        self.isolation.validate(self)?;
        let mut seen = BTreeSet::new();
        match self.files.mounts.iter().find(|mount| !seen.insert(mount.destination())) {
            Some(twice) => {
                let destination = twice.destination().display().to_string();
                Err(Error::SameDestination { destination })
            }
            None => Ok(()),
        }
    }
}

fn conflict(first: &'static str, second: &'static str, reason: &str) -> Error {
    Error::Conflict { first, second, reason: reason.to_owned() }
}

impl Limits {
    fn validate(&self) -> Result<(), Error> {
        let value = |option, value: i64, reason: &str, accepted: &str| {
            let (reason, accepted) = (reason.to_owned(), Some(accepted.to_owned()));
            Err(Error::Value { option, value: value.to_string(), reason, accepted })
        };
        match (self.memory, self.memory_swap) {
            (None, Some(swap)) if swap != -1 => {
                let reason = "it counts memory and swap together, so it needs --memory too";
                value("--memory-swap", swap, reason, "--memory-swap together with --memory")?;
            }
            (Some(memory), Some(swap)) if swap != -1 && swap < memory => {
                let reason = "it counts memory and swap together, so it is not less than --memory";
                value("--memory-swap", swap, reason, "sizes from that of --memory on, and -1 for no limit")?;
            }
            _ => {}
        }
        match (self.memory, self.memory_reservation) {
            (Some(memory), Some(reserved)) if reserved > memory => {
                value("--memory-reservation", reserved, "more than --memory", "sizes up to that of --memory")
            }
            _ => Ok(()),
        }
    }
}

impl Isolation {
    fn validate(&self, spec: &Spec) -> Result<(), Error> {
        let of_host = "the name would be the host's own";
        if self.uts == Choice::Host && spec.names.hostname.is_some() {
            return Err(conflict("--hostname", "--uts host", of_host));
        }
        if self.uts == Choice::Host && spec.names.domainname.is_some() {
            return Err(conflict("--domainname", "--uts host", of_host));
        }
        if self.ipc != Choice::Default && self.ipc != Choice::Private && spec.files.shm_size.is_some() {
            return Err(conflict("--shm-size", "--ipc", "/dev/shm is the one of the shared namespace"));
        }
        if self.ipc_without_shm && spec.files.shm_size.is_some() {
            return Err(conflict("--shm-size", "--ipc none", "there is no /dev/shm"));
        }
        let shared = |choice: &Choice| matches!(choice, Choice::Host);
        for name in spec.files.sysctls.keys() {
            let reason = format!("{name} would be changed for the whole machine");
            if shared(&self.network) && is_network_parameter(name) {
                return Err(conflict("--sysctl", "--network host", &reason));
            }
            if shared(&self.ipc) && is_ipc_parameter(name) {
                return Err(conflict("--sysctl", "--ipc host", &reason));
            }
        }
        Ok(())
    }
}
