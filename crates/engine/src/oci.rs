//! stub
#![allow(missing_docs)]
use crate::error::Result;
use runtime::request::*;
use runtime::spec::*;
use std::path::Path;
pub struct Places<'a> {
    pub directory: &'a Path,
    pub id: &'a str,
    pub name: &'a str,
    pub joined: &'a dyn Fn(&str) -> Result<u32>,
}
pub struct Made {
    pub request: Request,
    pub files: Vec<(String, String)>,
}
pub fn generate(spec: &crate::spec::Spec, image: Option<&image::Config>, places: &Places) -> Result<Made> {
    let m = |d: &str, k: &str, s: &str, o: &str| Mount {
        destination: d.into(),
        kind: k.into(),
        source: s.into(),
        options: o.split(',').filter(|x| !x.is_empty()).map(str::to_owned).collect(),
    };
    let caps: Vec<String> = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
    .iter()
    .map(|c| format!("CAP_{c}"))
    .collect();
    let rootless = !rustix::process::geteuid().is_root();
    let mut ns: Vec<Namespace> = [
        NamespaceKind::Pid,
        NamespaceKind::Network,
        NamespaceKind::Ipc,
        NamespaceKind::Uts,
        NamespaceKind::Mount,
        NamespaceKind::Cgroup,
    ]
    .into_iter()
    .map(|kind| Namespace { kind, path: None })
    .collect();
    let mut linux = Linux::default();
    if rootless || spec.isolation.user == crate::spec::Choice::Private {
        ns.push(Namespace { kind: NamespaceKind::User, path: None });
        if rootless {
            linux.uid_mappings =
                vec![IdMapping { container_id: 0, host_id: rustix::process::geteuid().as_raw(), size: 1 }];
            linux.gid_mappings =
                vec![IdMapping { container_id: 0, host_id: rustix::process::getegid().as_raw(), size: 1 }];
        } else {
            linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: 100000, size: 65536 }];
            linux.gid_mappings = linux.uid_mappings.clone();
        }
    }
    if !spec.isolation.time_offsets.is_empty() {
        ns.push(Namespace { kind: NamespaceKind::Time, path: None });
        linux.time_offsets.insert("boottime".into(), TimeOffset { secs: 100000, nanosecs: 0 });
    }
    linux.namespaces = ns;
    linux.masked_paths = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]
    .iter()
    .map(Into::into)
    .collect();
    linux.readonly_paths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        .iter()
        .map(Into::into)
        .collect();
    let cfg = image.cloned().unwrap_or_default();
    let args = if spec.command.is_empty() { cfg.cmd.clone() } else { spec.command.clone() };
    let oci = Spec {
        oci_version: "1.2.0".into(),
        hostname: Some("container".into()),
        linux: Some(linux),
        root: Some(Root { path: "".into(), readonly: false }),
        process: Some(Process {
            terminal: spec.terminal,
            args,
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
            cwd: "/".into(),
            capabilities: Some(Capabilities {
                bounding: caps.clone(),
                effective: caps.clone(),
                permitted: caps,
                inheritable: vec![],
                ambient: vec![],
            }),
            ..Default::default()
        }),
        mounts: vec![
            m("/proc", "proc", "proc", "nosuid,noexec,nodev"),
            m("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            m(
                "/dev/pts",
                "devpts",
                "devpts",
                if rootless {
                    "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"
                } else {
                    "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"
                },
            ),
            m("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),
            m("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
            m("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
            m("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,ro"),
            m(
                "/etc/hostname",
                "bind",
                &places.directory.join("hostname").display().to_string(),
                "bind,rprivate",
            ),
        ],
        ..Default::default()
    };
    Ok(Made {
        request: Request {
            version: VERSION,
            id: String::new(),
            spec: oci,
            root: RootFileSystem::Overlays(vec![]),
            user: spec.process.user.clone(),
            seccomp: SeccompChoice::Default,
            init: spec.init,
            interactive: spec.interactive,
            map_with_helpers: false,
            cgroup_parent: None,
            remove: spec.remove,
            name_file: None,
            directory: "".into(),
            state_directory: "".into(),
        },
        files: vec![("hostname".into(), "container\n".into())],
    })
}
