//! The configuration to begin with: what `runc spec` writes.

use std::path::PathBuf;

use rustix::process::{getegid, geteuid};

use crate::features::VERSION;
use crate::spec::{
    Capabilities, DeviceRule, IdMapping, Linux, Mount, Namespace, NamespaceKind, Process, Resources, Rlimit,
    Root, Spec,
};

/// A configuration that runs a shell on a terminal in `rootfs`. `rootless` makes it one that this user may run without
/// privileges: as root of a user namespace, without limits and with the host's network.
pub fn default_spec(rootless: bool) -> Spec {
    let mut linux = linux();
    if rootless {
        linux.resources = None;
        linux.namespaces.retain(|namespace| namespace.kind != NamespaceKind::Network);
        linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: None });
        let only = |host_id| vec![IdMapping { container_id: 0, host_id, size: 1 }];
        linux.uid_mappings = only(geteuid().as_raw());
        linux.gid_mappings = only(getegid().as_raw());
    }
    Spec {
        oci_version: VERSION.to_owned(),
        root: Some(Root { path: PathBuf::from("rootfs"), readonly: true }),
        process: Some(process()),
        hostname: Some("runc".to_owned()),
        mounts: mounts(rootless),
        linux: Some(linux),
        ..Spec::default()
    }
}

fn process() -> Process {
    let few = || ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"].map(str::to_owned).to_vec();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    Process {
        terminal: true,
        args: vec!["sh".to_owned()],
        env: vec![path.to_owned(), "TERM=xterm".to_owned()],
        cwd: PathBuf::from("/"),
        capabilities: Some(Capabilities {
            bounding: few(),
            effective: few(),
            permitted: few(),
            inheritable: Vec::new(),
            ambient: few(),
        }),
        rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".to_owned(), hard: 1024, soft: 1024 }],
        no_new_privileges: true,
        ..Process::default()
    }
}

fn mounts(rootless: bool) -> Vec<Mount> {
    // A group that the user namespace does not have cannot own terminals, and sysfs shows the network namespace's devices.
    let (terminals, sys) = match rootless {
        false => (
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
            mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        ),
        true => (
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620",
            mount("/sys", "none", "/sys", "rbind,nosuid,noexec,nodev,ro"),
        ),
    };
    vec![
        mount("/proc", "proc", "proc", ""),
        mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        mount("/dev/pts", "devpts", "devpts", terminals),
        mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        sys,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
    ]
}

fn mount(destination: &str, kind: &str, source: &str, options: &str) -> Mount {
    Mount {
        destination: PathBuf::from(destination),
        kind: kind.to_owned(),
        source: source.to_owned(),
        options: options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect(),
        ..Mount::default()
    }
}

fn linux() -> Linux {
    use NamespaceKind::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let new = |kind| Namespace { kind, path: None };
    // Only on version 2 does a cgroup namespace hide where the container's group is.
    let cgroup = is_unified().then_some(Cgroup);
    let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect();
    let deny_all = DeviceRule { allow: false, access: Some("rwm".to_owned()), ..DeviceRule::default() };
    Linux {
        namespaces: [Pid, Network, Ipc, Uts, Mount].into_iter().chain(cgroup).map(new).collect(),
        resources: Some(Resources { devices: vec![deny_all], ..Resources::default() }),
        masked_paths: paths(&[
            "/proc/acpi",
            "/proc/asound",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/sys/firmware",
            "/proc/scsi",
        ]),
        readonly_paths: paths(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        ..Linux::default()
    }
}

/// Whether control groups of version 2 are the only ones: what is mounted at their place.
fn is_unified() -> bool {
    const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
    rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|found| found.f_type == CGROUP2_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What the installed runc writes; none without one.
    fn written_by_runc(rootless: bool) -> Option<serde_json::Value> {
        let directory =
            std::env::temp_dir().join(format!("coracle-template-{}-{rootless}", std::process::id()));
        fs_err::create_dir_all(&directory).unwrap();
        let mut command = Command::new("runc");
        command.arg("spec").args(rootless.then_some("--rootless")).current_dir(&directory);
        let ran = command.status();
        let text = fs_err::read(directory.join("config.json"));
        fs_err::remove_dir_all(&directory).unwrap();
        ran.is_ok_and(|status| status.success()).then(|| serde_json::from_slice(&text.unwrap()).unwrap())
    }

    #[test]
    fn both_are_what_runc_writes() {
        for rootless in [false, true] {
            let Some(mut theirs) = written_by_runc(rootless) else {
                println!("SKIP: template::tests::both_are_what_runc_writes: there is no runc");
                return;
            };
            theirs["ociVersion"] = VERSION.into();
            assert_eq!(serde_json::to_value(default_spec(rootless)).unwrap(), theirs);
        }
    }

    #[test]
    fn both_pass_the_checks() {
        for rootless in [false, true] {
            assert_eq!(crate::config::validate(&default_spec(rootless)).unwrap(), []);
        }
    }
}
