//! podman as an ordinary user with subordinate ids, who makes user namespaces of his own.

use std::path::PathBuf;
use std::process::Command;

use crate::client::Client;
use crate::place::{Place, busybox, runtime, until};

/// The user's and group's number, which nobody on a machine has by accident.
const ID: u32 = 64_124;

/// One who may not raise limits, and has no group.
const CONTAINERS_CONF: &str = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
    [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";

/// podman of a user that only this place's mount namespace knows.
struct User {
    place: Place,
    runtime: PathBuf,
}

impl User {
    fn new(test: &str) -> Option<Self> {
        let place = Place::new(test)?;
        let home = place.directory().join("home");
        let with = |file: &str, line: &str| {
            let text = std::fs::read_to_string(format!("/etc/{file}")).unwrap_or_default();
            place.bind(file, &(text + line));
        };
        with("passwd", &format!("neighbour:x:{ID}:{ID}::{}:/bin/sh\n", home.display()));
        with("group", &format!("neighbour:x:{ID}:\n"));
        with("subuid", "neighbour:500000:65536\n");
        with("subgid", "neighbour:500000:65536\n");
        // A checkout may be root's own.
        let runtime = place.directory().join(runtime().file_name().unwrap());
        std::fs::copy(crate::place::runtime(), &runtime).unwrap();
        let archive = place.directory().join("busybox.tar");
        std::fs::copy(busybox(), &archive).unwrap();
        place.write("containers.conf", CONTAINERS_CONF);
        for directory in [home, place.directory().join("tmp"), place.directory().join("xdg")] {
            std::fs::create_dir_all(&directory).unwrap();
            std::os::unix::fs::chown(&directory, Some(ID), Some(ID)).unwrap();
        }
        let user = Self { place, runtime };
        user.ok(&["load", "--quiet", "--input", archive.to_str().unwrap()]);
        Some(user)
    }
}

impl Client for User {
    fn command(&self, arguments: &[&str]) -> Command {
        let directory = self.place.directory();
        let mut command = self.place.command("setpriv");
        let id = ID.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "podman", "--runtime"]);
        command.arg(&self.runtime).args(arguments).env("CONTAINERS_CONF", directory.join("containers.conf"));
        command.env("HOME", directory.join("home")).env("XDG_RUNTIME_DIR", directory.join("xdg"));
        command
    }
}

#[test]
fn a_users_container_has_the_users_ids() {
    let Some(user) = User::new("rootless::a_users_container_has_the_users_ids") else { return };
    let ran = user.run(&["--rm", "busybox", "sh", "-c", "id -u; echo $(cat /proc/self/uid_map); exit 3"]);
    assert_eq!((ran.code, ran.out.as_str()), (3, "0\n0 64124 1 1 500000 65536\n"), "{ran:?}");
    assert_eq!(user.run(&["--rm", "--user=alice", "busybox", "id", "-u"]).ok(), "1000\n");
    let kept =
        ["--rm", "--userns=keep-id", "busybox", "sh", "-c", "id -u; touch /tmp/file && stat -c %u /tmp/file"];
    assert_eq!(user.run(&kept).ok(), "64124\n64124\n");
    assert_eq!(user.run(&["--rm", "-t", "busybox", "tty"]).ok().trim_end(), "/dev/pts/0");
    assert_eq!(user.run(&["--rm", "busybox", "absent"]).code, 127);
    assert_eq!(user.run(&["--rm", "busybox", "/etc"]).code, 126);
    assert_eq!(user.ok(&["ps", "-aq"]), "");
}

#[test]
fn a_users_container_lives_its_life() {
    let Some(user) = User::new("rootless::a_users_container_lives_its_life") else { return };
    let script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done";
    user.run(&["-d", "--name=kind", "busybox", "sh", "-c", script]).ok();
    until("its output", || (user.ok(&["logs", "kind"]) == "up").then_some(()));
    let ran = user.ask(&["exec", "kind", "sh", "-c", "cat /proc/1/comm; exit 7"]);
    assert_eq!((ran.code, ran.out.as_str()), (7, "sh\n"), "{ran:?}");
    assert!(user.ok(&["exec", "-t", "-u", "alice", "kind", "tty"]).starts_with("/dev/pts/"));
    user.ok(&["stop", "-t", "20", "kind"]);
    assert_eq!(user.ok(&["inspect", "--format", "{{.State.ExitCode}}", "kind"]), "5");
    user.ok(&["start", "kind"]);
    user.ok(&["kill", "kind"]);
    assert_eq!(user.ok(&["wait", "kind"]), "137");
    user.ok(&["rm", "-f", "-t", "0", "kind"]);
    assert_eq!(user.ok(&["ps", "-aq"]), "");
}

#[test]
fn a_users_pod_shares_namespaces() {
    let Some(user) = User::new("rootless::a_users_pod_shares_namespaces") else { return };
    let infra = ["--infra-image=busybox", "--infra-command=sleep 1000"];
    user.ok(&[&["pod", "create", "--name=pod", "--network=none"], &infra[..]].concat());
    for name in ["a", "b"] {
        user.ok(&["run", "-d", "--pod=pod", "--name", name, "busybox", "sleep", "1000"]);
    }
    let namespace =
        |name: &str, kind: &str| user.ok(&["exec", name, "readlink", &format!("/proc/self/ns/{kind}")]);
    assert_eq!(namespace("a", "net"), namespace("b", "net"));
    assert_eq!(namespace("a", "ipc"), namespace("b", "ipc"));
    assert_ne!(namespace("a", "pid"), namespace("b", "pid"));
    user.ok(&["pod", "rm", "-f", "-t", "0", "pod"]);
    assert_eq!(user.ok(&["ps", "-aq"]), "");
}
