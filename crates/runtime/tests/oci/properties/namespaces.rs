//! `linux.namespaces`, mappings and time offsets.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::bundle::{Bundle, State, eventually, run_ok};

const KINDS: [(&str, &str); 8] = [
    ("mount", "mnt"),
    ("pid", "pid"),
    ("uts", "uts"),
    ("ipc", "ipc"),
    ("network", "net"),
    ("cgroup", "cgroup"),
    ("user", "user"),
    ("time", "time"),
];

fn own(file: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap().to_str().unwrap().to_owned()
}

fn of(pid: u32, file: &str) -> String {
    std::fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap().to_str().unwrap().to_owned()
}

/// A namespace of each asked kind is new, and of each other the runtime's own.
#[track_caller]
fn assert_new(bundle: &Bundle, new: &[&str]) {
    let pid = bundle.pid();
    for (kind, file) in KINDS {
        assert_eq!(of(pid, file) != own(file), new.contains(&kind), "{kind}");
    }
}

#[test]
fn new_namespaces_are_those_asked_for() {
    let mut bundle = bundle!();
    bundle.bring(State::Running);
    assert_new(&bundle, &["mount", "pid", "uts", "ipc", "network"]);
    assert_eq!(bundle.exec("cat /proc/[0-9]*/comm; :"), "sleep\nsh\n", "nobody else");

    let mut bundle = Bundle::new();
    bundle.set("/linux/namespaces", json!([{"type": "mount"}]));
    // A new proc is of the pid namespace, which is the machine's.
    bundle.bring(State::Running);
    assert_new(&bundle, &["mount"]);

    let mut bundle = Bundle::new();
    bundle.namespace("cgroup", None).user_namespace();
    bundle.bring(State::Running);
    assert_new(&bundle, &["mount", "pid", "uts", "ipc", "network", "cgroup", "user"]);
}

/// A process with namespaces of its own, whose files are the paths to join.
struct Holder(Child);

impl Holder {
    fn new(flags: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sleep", "1000"]).stdin(Stdio::null());
        let child = command.spawn().unwrap();
        let holder = Self(child);
        eventually("the namespaces", || {
            std::fs::read_to_string(format!("/proc/{}/comm", holder.0.id()))
                .is_ok_and(|name| name == "sleep\n")
        });
        holder
    }

    fn path(&self, file: &str) -> String {
        format!("/proc/{}/ns/{file}", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn namespaces_of_a_path_are_joined() {
    let mut bundle = bundle!();
    let holder = Holder::new(&["--uts", "--ipc", "--net", "--cgroup"]);
    for (kind, file) in [("uts", "uts"), ("ipc", "ipc"), ("network", "net"), ("cgroup", "cgroup")] {
        bundle.namespace(kind, Some(&holder.path(file)));
    }
    bundle.bring(State::Running);
    for file in ["uts", "ipc", "net", "cgroup"] {
        assert_eq!(of(bundle.pid(), file), of(holder.0.id(), file));
    }
    assert_ne!(of(bundle.pid(), "mnt"), own("mnt"));
    bundle.ok(&["delete", "--force", "{id}"]);
    // What was joined outlives the container.
    assert!(Path::new(&holder.path("net")).exists());
}

#[test]
fn a_pid_namespace_of_a_path_is_joined() {
    let mut bundle = bundle!();
    let mut other = Bundle::new();
    other.bring(State::Running);
    let path = format!("/proc/{}/ns/pid", other.pid());
    bundle.namespace("pid", Some(&path));
    bundle.bring(State::Running);
    assert_eq!(of(bundle.pid(), "pid"), of(other.pid(), "pid"));
    // Each sees the other's program; the joiner is not the init.
    assert_eq!(bundle.exec("cat /proc/1/comm"), "sleep\n");
    assert_eq!(other.exec("cat /proc/[0-9]*/comm").matches("sleep").count(), 2);
    bundle.ok(&["kill", "{id}", "KILL"]);
    bundle.wait_for("stopped");
    assert_eq!(other.status(), "running");
    bundle.ok(&["delete", "{id}"]);
    bundle.assert_nothing_left();
}

#[test]
fn a_user_namespace_of_a_path_is_joined() {
    let mut bundle = bundle!();
    let mut other = Bundle::new();
    other.user_namespace().bring(State::Running);
    // The mappings are those of the namespace already; some runtimes want them said.
    bundle.user_namespace();
    bundle.namespace("user", Some(&format!("/proc/{}/ns/user", other.pid())));
    bundle.bring(State::Running);
    assert_eq!(of(bundle.pid(), "user"), of(other.pid(), "user"));
}

#[test]
fn a_path_that_is_no_namespace_is_refused() {
    let mut bundle = bundle!();
    bundle.namespace("uts", Some("/nonexistent"));
    let error = bundle.refused();
    assert!(error.contains("/nonexistent"), "{error}");
    // A namespace of another kind.
    bundle.namespace("uts", Some("/proc/self/ns/net"));
    bundle.refused();
    bundle.assert_nothing_left();
}

#[test]
fn uid_and_gid_mappings_are_written() {
    let mut bundle = bundle!();
    bundle.user_namespace();
    bundle.set(
        "/linux/uidMappings",
        json!([{"containerID": 0, "hostID": 100_000, "size": 1000}, {"containerID": 1000, "hostID": 200_000, "size": 7}]),
    );
    bundle.set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 50}]));
    let out = bundle.inside("cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /new; stat -c %u /new");
    let rows: Vec<String> =
        out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(rows, ["0 100000 1000", "1000 200000 7", "0 100000 50", "0", "0"]);
    let new = std::fs::metadata(bundle.rootfs().join("new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&new), 100_000);
    // A second user of it, on the host by the second row.
    bundle.set("/process/user/uid", 1003).set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.create();
    let status = std::fs::read_to_string(format!("/proc/{}/status", bundle.pid())).unwrap();
    assert!(status.contains("Uid:\t100000") || status.contains("Uid:\t200003"), "{status}");
    bundle.start();
    let uid = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", bundle.pid())).unwrap();
        status.contains("Uid:\t200003\t200003")
    };
    eventually("the user", uid);
}

#[test]
fn a_user_namespace_without_mappings_is_refused() {
    let mut bundle = bundle!();
    bundle.namespace("user", None);
    let error = bundle.refused();
    assert!(error.to_lowercase().contains("mapping"), "{error}");
    bundle.assert_nothing_left();
}

/// The mounts would be made in the host's.
#[test]
fn a_container_without_a_mount_namespace_is_refused() {
    let mut bundle = bundle!();
    if crate::under_test::runc().is_some() {
        skip!("runc makes the container's mounts in the host's namespace");
    }
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    bundle.without_namespace("mount");
    let error = bundle.refused();
    assert!(error.contains("mount namespace"), "{error}");
    bundle.remove("/linux");
    let error = bundle.refused();
    assert!(error.contains("mount namespace"), "{error}");
    let ours = |table: &str| table.lines().filter(|line| line.contains(&bundle.id)).count();
    let after = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!((ours(&before), ours(&after)), (0, 0));
    bundle.assert_nothing_left();
}

/// The root of those in it becomes the container's.
#[test]
fn a_mount_namespace_of_a_path_is_joined() {
    let mut bundle = bundle!();
    let holder = Holder::new(&["--mount", "--propagation", "private"]);
    bundle.namespace("mount", Some(&holder.path("mnt")));
    bundle.bring(State::Running);
    assert_eq!(of(bundle.pid(), "mnt"), of(holder.0.id(), "mnt"));
    assert!(bundle.exec("cat /proc/1/comm; ls /").contains("sleep\n"));
    bundle.ok(&["delete", "--force", "{id}"]);
    drop(holder);
    bundle.assert_nothing_left();
}

#[test]
fn time_offsets_move_the_clocks() {
    let mut bundle = bundle!("linux.timeOffsets");
    bundle.namespace("time", None);
    bundle.set(
        "/linux/timeOffsets",
        json!({"monotonic": {"secs": 7}, "boottime": {"secs": 1_000_000, "nanosecs": 5}}),
    );
    let out = bundle.inside("cat /proc/self/timens_offsets; cat /proc/uptime");
    let rows: Vec<String> =
        out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(rows[..2], ["monotonic 7 0", "boottime 1000000 5"]);
    let uptime: f64 = rows[2].split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 1_000_000.0, "{out}");
    // Offsets ask for a namespace to set them in.
    bundle.without_namespace("time");
    bundle.refused();
}

/// A network namespace of its own has a loopback that is up, as callers expect of a new one.
#[test]
fn a_new_network_namespace_has_its_loopback_up() {
    let mut bundle = bundle!();
    let out = bundle.inside("ip addr show lo");
    assert!(out.contains("LOOPBACK,UP") && out.contains("127.0.0.1/8"), "{out}");
}

#[test]
fn net_devices_are_moved_and_named() {
    let mut bundle = bundle!("linux.netDevices");
    let name = format!("ct{}", std::process::id() % 1_000_000);
    let renamed = format!("cu{}", std::process::id() % 1_000_000);
    // Two ends of a cable, which more kernels have than devices of nothing.
    run_ok("ip", &["link", "add", &name, "type", "veth", "peer", "name", &renamed]);
    struct Links([String; 2]);
    impl Drop for Links {
        fn drop(&mut self) {
            for name in &self.0 {
                let _ = Command::new("ip").args(["link", "del", name]).stderr(Stdio::null()).status();
            }
        }
    }
    let _links = Links([name.clone(), renamed.clone()]);
    run_ok("ip", &["addr", "add", "10.99.7.1/24", "dev", &renamed]);
    bundle.set(&format!("/linux/netDevices/{name}"), json!({}));
    bundle.set(&format!("/linux/netDevices/{renamed}"), json!({"name": "eth7"}));
    let out = bundle.inside("ip addr");
    assert!(
        out.contains(&format!(" {name}@")) && out.contains(" eth7@") && out.contains("10.99.7.1/24"),
        "{out}"
    );
    let mut bundle = Bundle::new();
    bundle.set("/linux/netDevices/nonexistent0", json!({}));
    assert!(bundle.refused().contains("nonexistent0"));
}
