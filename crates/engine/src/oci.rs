//! From what was asked and what the image says to what the runtime is asked: an OCI configuration.
//!
//! The defaults are docker's, so that an image behaves as its author saw it behave.

mod capabilities;
mod devices;
mod ids;
mod machine;
mod mounts;
mod name_files;
mod namespaces;

use std::path::{Path, PathBuf};

use runtime::request::{Request, RootFileSystem, SHARED_MEMORY, SeccompChoice, VERSION};
use runtime::spec::{BlockIo, Cpu, Linux, Memory, Pids, Process, Resources, Root, User};

pub(crate) use self::ids::of_images;
use self::machine::Machine;
use self::namespaces::Plan;
use crate::error::Result;
use crate::options::Error as OptionError;
use crate::spec::{Choice, Limits, Spec};

/// What runtime-spec this writes.
const OCI_VERSION: &str = "1.3.0";

/// Where programs are looked for when the image does not say.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The container that a configuration is for.
pub struct Places<'a> {
    /// Its directory, where the generated files will be.
    pub directory: &'a Path,
    /// Its id.
    pub id: &'a str,
    /// The first process of another container, by name or id.
    pub joined: &'a dyn Fn(&str) -> Result<u32>,
}

/// A configuration, and files that it mounts from the container's directory.
pub struct Made {
    /// What the monitor is asked; the caller fills in the root file system and the directories.
    pub request: Request,
    /// Names in the container's directory, and contents.
    pub files: Vec<(String, String)>,
    /// The host's ids of the container's root, where root has shifted them: it may change these files.
    pub owner: Option<(u32, u32)>,
}

/// Makes the configuration. `image` is none for `--rootfs`.
pub fn generate(spec: &Spec, image: Option<&image::Config>, places: &Places<'_>) -> Result<Made> {
    generate_on(&Machine::look(spec)?, spec, image, places)
}

fn generate_on(
    machine: &Machine,
    spec: &Spec,
    image: Option<&image::Config>,
    places: &Places<'_>,
) -> Result<Made> {
    let none = image::Config::default();
    let image = image.unwrap_or(&none);
    let plan = Plan::new(spec, machine, places)?;
    let hostname = name_files::hostname(spec, machine, places.id);
    let devices = devices::asked(spec, machine)?;
    let (masked_paths, readonly_paths) = system_paths(spec, machine);
    let linux = Linux {
        namespaces: plan.namespaces.clone(),
        uid_mappings: plan.ids.uids.clone(),
        gid_mappings: plan.ids.gids.clone(),
        time_offsets: spec.isolation.time_offsets.clone(),
        devices: devices.nodes,
        resources: Some(resources(&spec.limits, devices.rules)),
        sysctl: sysctls(spec, &plan),
        masked_paths,
        readonly_paths,
        ..Linux::default()
    };
    let configuration = runtime::spec::Spec {
        oci_version: OCI_VERSION.to_owned(),
        root: Some(Root { path: PathBuf::from("rootfs"), readonly: spec.files.read_only }),
        mounts: mounts::all(spec, machine, &plan, places.directory)?,
        process: Some(process(spec, image, &hostname)?),
        hostname: (spec.isolation.uts != Choice::Host).then(|| hostname.clone()),
        domainname: spec.names.domainname.clone(),
        linux: Some(linux),
        ..Default::default()
    };
    let mut request = Request {
        version: VERSION,
        id: places.id.to_owned(),
        spec: configuration,
        root: RootFileSystem::Overlays(Vec::new()),
        user: Some(user(spec, image, machine)),
        groups: spec.process.groups.clone(),
        shared_memory_of: shared_memory_of(spec, places)?,
        seccomp: seccomp(spec),
        init: spec.init,
        interactive: spec.interactive,
        map_with_helpers: plan.ids.with_helpers,
        cgroup_parent: spec.limits.cgroup_parent.clone(),
        oci: None,
        remove: spec.remove,
        name_file: None,
        directory: PathBuf::new(),
        state_directory: PathBuf::new(),
    };
    crate::cdi::apply(&spec.powers.cdi, &mut request)?;
    let owner = plan.ids.root().filter(|_| machine.uid == 0);
    Ok(Made { request, files: name_files::all(spec, machine, &hostname), owner })
}

/// Who shares message queues and semaphores with another container shares its `/dev/shm` too, which is where POSIX shared memory is.
fn shared_memory_of(spec: &Spec, places: &Places<'_>) -> Result<Option<PathBuf>> {
    let Choice::Container(name) = &spec.isolation.ipc else { return Ok(None) };
    if spec.files.mounts.iter().any(|mount| Path::new(SHARED_MEMORY).starts_with(mount.destination())) {
        return Ok(None);
    }
    let pid = (places.joined)(name)?;
    Ok(Some(PathBuf::from(format!("/proc/{pid}/ns/mnt"))))
}

fn process(spec: &Spec, image: &image::Config, hostname: &str) -> Result<Process> {
    let image_directory = Some(image.working_dir.as_str()).filter(|path| !path.is_empty());
    let cwd = spec.process.working_directory.clone();
    Ok(Process {
        terminal: spec.terminal,
        user: User::default(),
        args: arguments(spec, image)?,
        env: environment(spec, image, hostname),
        // An image's path may lack its slash.
        cwd: cwd.unwrap_or_else(|| Path::new("/").join(image_directory.unwrap_or("/"))),
        capabilities: Some(capabilities::sets(&spec.powers)),
        rlimits: spec.process.rlimits.clone(),
        no_new_privileges: spec.powers.no_new_privileges,
        oom_score_adj: spec.process.oom_score_adj,
        ..Process::default()
    })
}

/// The entry point and its arguments. A given entry point leaves nothing of the image's command, as in docker.
fn arguments(spec: &Spec, image: &image::Config) -> Result<Vec<String>> {
    let entrypoint = spec.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    let command = match spec.command.is_empty() && spec.entrypoint.is_none() {
        true => &image.cmd,
        false => &spec.command,
    };
    let arguments: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    if arguments.is_empty() { Err(OptionError::NoCommand.into()) } else { Ok(arguments) }
}

/// The defaults, then what the image says, then what was asked. `HOME` is the runtime's, which reads the image's passwd.
fn environment(spec: &Spec, image: &image::Config, hostname: &str) -> Vec<String> {
    let mut variables = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if spec.terminal {
        variables.push("TERM=xterm".to_owned());
    }
    let name_of = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut set = |name: &str, variable: Option<String>| {
        let place = variables.iter().position(|old| name_of(old) == name);
        match (place, variable) {
            (Some(place), Some(variable)) => variables[place] = variable,
            (Some(place), None) => drop(variables.remove(place)),
            (None, Some(variable)) => variables.push(variable),
            (None, None) => {}
        }
    };
    for variable in image.env.iter().filter(|variable| variable.contains('=')) {
        set(&name_of(variable), Some(variable.clone()));
    }
    for (name, value) in &spec.process.environment {
        set(name, value.as_ref().map(|value| format!("{name}={value}")));
    }
    variables
}

/// The user as typed, else the image's; with `keep-id` the caller's own ids. Who else runs is root by name, in the groups that the image
/// gives root.
fn user(spec: &Spec, image: &image::Config, machine: &Machine) -> String {
    let kept = spec.isolation.keep_id.then(|| format!("{}:{}", machine.uid, machine.gid));
    let of_image = Some(image.user.clone()).filter(|user| !user.is_empty());
    spec.process.user.clone().or(kept).or(of_image).unwrap_or_else(|| "0".to_owned())
}

fn seccomp(spec: &Spec) -> SeccompChoice {
    match &spec.powers.seccomp_profile {
        Some(profile) => SeccompChoice::Profile(profile.clone()),
        None if spec.powers.seccomp_unconfined || spec.powers.privileged => SeccompChoice::Unconfined,
        None => SeccompChoice::Default,
    }
}

/// What docker hides and what it makes read-only. Source: moby, `daemon/pkg/oci/defaults.go`.
fn system_paths(spec: &Spec, machine: &Machine) -> (Vec<PathBuf>, Vec<PathBuf>) {
    const MASKED: [&str; 12] = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ];
    const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    if spec.powers.privileged || spec.powers.system_paths_unconfined {
        return (Vec::new(), Vec::new());
    }
    let masked = MASKED.iter().map(PathBuf::from).chain(machine.thermal_throttles.iter().cloned());
    (masked.collect(), READ_ONLY.iter().map(PathBuf::from).collect())
}

/// What was asked, and docker's two defaults for a network namespace of the container's own: low ports and ping need no privilege.
fn sysctls(spec: &Spec, plan: &Plan) -> std::collections::BTreeMap<String, String> {
    let mut all = spec.files.sysctls.clone();
    if plan.has_own_network {
        let mut default = |name: &str, value: &str| {
            all.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        };
        default("net.ipv4.ip_unprivileged_port_start", "0");
        // Every group of the range must be mapped.
        if plan.ids.gids.is_empty() {
            default("net.ipv4.ping_group_range", "0 2147483647");
        }
    }
    all
}

fn resources(limits: &Limits, devices: Vec<runtime::spec::DeviceRule>) -> Resources {
    let given = |anything: bool| anything.then_some(());
    let memory = Memory {
        limit: limits.memory,
        reservation: limits.memory_reservation,
        swap: limits.memory_swap.filter(|_| limits.memory.is_some()),
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: limits.cpu_shares,
        quota: limits.cpu_quota,
        period: limits.cpu_period,
        cpus: limits.cpuset_cpus.clone(),
        mems: limits.cpuset_mems.clone(),
        ..Cpu::default()
    };
    let block_io = BlockIo {
        weight: limits.blkio_weight,
        weight_device: limits.blkio_weight_device.clone(),
        throttle_read_bps_device: limits.device_read_bps.clone(),
        throttle_write_bps_device: limits.device_write_bps.clone(),
        throttle_read_iops_device: limits.device_read_iops.clone(),
        throttle_write_iops_device: limits.device_write_iops.clone(),
        ..BlockIo::default()
    };
    Resources {
        devices,
        memory: given(memory != Memory::default()).map(|()| memory),
        cpu: given(cpu != Cpu::default()).map(|()| cpu),
        pids: limits.pids.map(|limit| Pids { limit }),
        block_io: given(block_io != BlockIo::default()).map(|()| block_io),
        ..Resources::default()
    }
}

#[cfg(test)]
mod tests;
