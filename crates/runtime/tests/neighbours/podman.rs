//! podman and conmon.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::client::Client;
use crate::place::{Limit, Place, Ran, busybox, on_a_terminal, runtime, until};

/// podman's default limits of a process may be more than the machine's own, which only CAP_SYS_RESOURCE raises.
const CONTAINERS_CONF: &str = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";

/// podman with storage, state and control groups of its own, and busybox.
pub struct Podman {
    place: Place,
}

impl Podman {
    pub fn new(test: &str) -> Option<Self> {
        let place = Place::new(test)?;
        place.write("containers.conf", CONTAINERS_CONF);
        let podman = Self { place };
        podman.ok(&["load", "--quiet", "--input", busybox().to_str().unwrap()]);
        Some(podman)
    }
}

impl Client for Podman {
    fn command(&self, arguments: &[&str]) -> Command {
        let directory = self.place.directory();
        let mut command = self.place.command("podman");
        for (option, path) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmpdir")] {
            command.arg(option).arg(directory.join(path));
        }
        command.arg("--runtime").arg(runtime());
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]).args(arguments);
        command.env("CONTAINERS_CONF", directory.join("containers.conf"));
        command
    }

    /// In our control group.
    fn of_run(&self) -> Vec<String> {
        vec!["--network=none".to_owned(), format!("--cgroup-parent=/{}", self.place.group())]
    }
}

#[test]
fn output_and_exit_code_are_the_commands() {
    let Some(podman) = Podman::new("podman::output_and_exit_code_are_the_commands") else { return };
    let ran = podman.run(&["--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (3, "out\n", "err\n"));
    let killed = podman.run(&["--rm", "busybox", "sh", "-c", "kill -9 $$"]);
    // The first process of a pid namespace is not killed by its own signals.
    assert_eq!(killed.code, 0, "{killed:?}");
    let absent = podman.run(&["--rm", "busybox", "absent"]);
    assert_eq!(absent.code, 127, "{absent:?}");
    let directory = podman.run(&["--rm", "busybox", "/etc"]);
    assert_eq!(directory.code, 126, "{directory:?}");
    let terminal = podman.run(&["--rm", "-t", "busybox", "tty"]);
    assert_eq!((terminal.code, terminal.out.trim_end()), (0, "/dev/pts/0"), "{terminal:?}");
    let reaper = ["--rm", "--init", "--init-path=/usr/bin/tini-static", "busybox", "cat", "/proc/1/comm"];
    assert_eq!(podman.run(&reaper).ok(), "podman-init\n");
    assert_eq!(podman.ok(&["ps", "-aq"]), "");
}

#[test]
fn input_reaches_it() {
    let Some(podman) = Podman::new("podman::input_reaches_it") else { return };
    let group = format!("--cgroup-parent=/{}", podman.place.group());
    let run =
        ["run", "--rm", "-i", "--network=none", &group, "busybox", "sh", "-c", "read a; echo got $a; cat"];
    let mut command = podman.command(&run);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"one\ntwo\n").unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (0, "got one\ntwo\n"), "{ran:?}");
}

#[test]
fn a_detached_one_is_logged_stopped_started_and_removed() {
    let Some(podman) = Podman::new("podman::a_detached_one_is_logged_stopped_started_and_removed") else {
        return;
    };
    podman.start("kind", &[], "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done");
    until("its output", || (podman.logs("kind") == "up").then_some(()));
    podman.ok(&["stop", "-t", "20", "kind"]);
    assert_eq!(podman.inspect("kind", "State.ExitCode"), "5");
    assert_eq!(podman.inspect("kind", "State.Status"), "exited");

    podman.ok(&["start", "kind"]);
    let first = podman.inspect("kind", "State.Pid");
    podman.ok(&["restart", "-t", "0", "kind"]);
    assert_ne!(podman.inspect("kind", "State.Pid"), first);
    podman.ok(&["kill", "kind"]);
    podman.ok(&["wait", "kind"]);
    assert_eq!(podman.inspect("kind", "State.ExitCode"), "137");
    assert_ne!(podman.ask(&["kill", "kind"]).code, 0, "it does not run");

    podman.start("stubborn", &[], "trap 'echo asked' TERM; echo up; while :; do sleep 0.1; done");
    until("its output", || (podman.logs("stubborn") == "up").then_some(()));
    podman.ok(&["stop", "-t", "1", "stubborn"]);
    assert_eq!(podman.inspect("stubborn", "State.ExitCode"), "137");
    assert_eq!(podman.logs("stubborn"), "up\nasked");

    podman.start("last", &[], "trap 'echo usr1' USR1; echo up; while :; do sleep 0.1; done");
    until("its output", || (podman.logs("last") == "up").then_some(()));
    podman.ok(&["kill", "-s", "USR1", "last"]);
    until("its answer", || (podman.logs("last") == "up\nusr1").then_some(()));
    podman.ok(&["rm", "-f", "-t", "0", "kind", "stubborn", "last"]);
    assert_eq!(podman.ok(&["ps", "-aq"]), "");
    podman.place.until_no_groups();
}

#[test]
fn exec_has_its_own_user_terminal_and_exit_code() {
    let Some(podman) = Podman::new("podman::exec_has_its_own_user_terminal_and_exit_code") else { return };
    podman.start("a", &["--hostname", "inside", "--env", "FROM=run"], "sleep 1000");
    let ran = podman.ask(&["exec", "a", "sh", "-c", "hostname; cat /proc/1/comm; echo $FROM; exit 7"]);
    assert_eq!((ran.code, ran.out.as_str()), (7, "inside\nsleep\nrun\n"), "{ran:?}");
    let other =
        ["exec", "-u", "alice", "-w", "/tmp", "-e", "OWN=exec", "a", "sh", "-c", "id -u; pwd; echo $OWN"];
    assert_eq!(podman.ok(&other), "1000\n/tmp\nexec");
    assert!(podman.ok(&["exec", "-t", "a", "tty"]).starts_with("/dev/pts/"));
    assert_eq!(podman.ask(&["exec", "-t", "a", "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(podman.ask(&["exec", "a", "absent"]).code, 127);
    assert_eq!(podman.ask(&["exec", "a", "/etc"]).code, 126);
    let mut child = podman.command(&["exec", "-i", "a", "cat"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    assert_eq!(Ran::from(child.wait_with_output().unwrap()).ok(), "through");
    podman.ok(&["exec", "-d", "a", "sh", "-c", "echo detached > /tmp/written"]);
    until("the detached one's file", || {
        (podman.ask(&["exec", "a", "cat", "/tmp/written"]).out == "detached\n").then_some(())
    });
    podman.ok(&["kill", "a"]);
    assert_ne!(podman.ask(&["exec", "a", "true"]).code, 0, "it has ended");
}

#[test]
fn a_paused_one_stands_still() {
    let Some(podman) = Podman::new("podman::a_paused_one_stands_still") else { return };
    podman.start("a", &[], "while :; do echo tick; sleep 0.05; done");
    until("its output", || podman.logs("a").starts_with("tick").then_some(()));
    podman.ok(&["pause", "a"]);
    assert_eq!(podman.inspect("a", "State.Status"), "paused");
    let ticks = podman.logs("a").len();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(podman.logs("a").len(), ticks);
    assert_ne!(podman.ask(&["exec", "a", "true"]).code, 0, "nothing starts in a paused one");
    podman.ok(&["unpause", "a"]);
    assert_eq!(podman.inspect("a", "State.Status"), "running");
    until("more output", || (podman.logs("a").len() > ticks).then_some(()));
    podman.ok(&["pause", "a"]);
    podman.ok(&["rm", "-f", "-t", "0", "a"]);
    assert_eq!(podman.ok(&["ps", "-aq"]), "");
}

#[test]
fn limits_hold_are_updated_and_shown() {
    let Some(podman) = Podman::new("podman::limits_hold_are_updated_and_shown") else { return };
    let limits = ["--memory", "64m", "--pids-limit", "20", "--cpus", "0.5"];
    podman.start("a", &limits, "sleep 1000");
    let pid = podman.inspect("a", "State.Pid");
    let limit = |limit| podman.place.limit(&pid, limit);
    assert_eq!(limit(Limit::Memory), "67108864");
    assert_eq!(limit(Limit::Processes), "20");
    assert_eq!(limit(Limit::Processor).split(' ').next(), Some("50000"));
    let stats = ["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "a"];
    until("one process", || podman.ok(&stats).ends_with("/ 67.11MB 1").then_some(()));

    podman.ok(&["update", "--memory", "128m", "--cpus", "0.25", "a"]);
    assert_eq!(limit(Limit::Memory), "134217728");
    assert_eq!(limit(Limit::Processor).split(' ').next(), Some("25000"));
    assert_eq!(limit(Limit::Processes), "20", "what was not asked for stays");

    let greedy = "for i in $(seq 30); do sleep 100 & done; echo all";
    assert!(!podman.ask(&["exec", "a", "sh", "-c", greedy]).out.contains("all"));
    let hungry =
        ["--rm", "--memory", "16m", "--memory-swap", "16m", "busybox", "dd", "if=/dev/zero", "of=/dev/null"];
    let ran = podman.run(&[&hungry[..], &["bs=64M", "count=1"]].concat());
    assert_eq!(ran.code, 137, "{ran:?}");
}

#[test]
fn what_is_asked_is_inside() {
    let Some(podman) = Podman::new("podman::what_is_asked_is_inside") else { return };
    let inside = |options: &[&str], script: &str| {
        podman.run(&[&["--rm"], options, &["busybox", "sh", "-c", script]].concat()).ok()
    };
    let user = ["--user=alice", "--group-add=staff", "--workdir=/tmp", "--env=OWN=set", "--umask=0077"];
    assert_eq!(
        inside(&user, "id; pwd; echo $OWN; umask"),
        "uid=1000(alice) gid=1000(alice) groups=50(staff),1000(alice)\n/tmp\nset\n0077\n"
    );
    let file = podman.place.write("file", "from outside\n");
    let volume = format!("--volume={}:/etc/file:ro", file.display());
    assert_eq!(inside(&[&volume], "cat /etc/file; echo x > /etc/file || echo no"), "from outside\nno\n");
    let read_only = ["--read-only", "--tmpfs=/scratch:size=1m,mode=0700"];
    let script = "touch /x || echo no; stat -f -c %T /scratch; stat -c %a /scratch; dd if=/dev/zero of=/scratch/x bs=1M count=2 || echo full";
    assert_eq!(inside(&read_only, script), "no\ntmpfs\n700\nfull\n");
    let kernel = [
        "--sysctl=net.ipv4.ip_unprivileged_port_start=7",
        "--sysctl=kernel.msgmax=4096",
        "--ulimit=nofile=100:200",
        "--ulimit=nproc=1024:1024",
    ];
    let script =
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax; ulimit -n; ulimit -Hn";
    assert_eq!(inside(&kernel, script), "7\n4096\n100\n200\n");
    let status = "grep -E 'CapBnd|CapEff|NoNewPrivs|Seccomp:' /proc/self/status";
    let dropped = ["--cap-drop=all", "--cap-add=chown", "--security-opt=no-new-privileges"];
    assert_eq!(
        inside(&dropped, status),
        "CapEff:\t0000000000000001\nCapBnd:\t0000000000000001\nNoNewPrivs:\t1\nSeccomp:\t2\n"
    );
    assert!(
        inside(&["--security-opt=seccomp=unconfined"], status).ends_with("NoNewPrivs:\t0\nSeccomp:\t0\n")
    );
    // Only opened: nothing is read of a device.
    let device = ["--device=/dev/loop-control:/dev/own"];
    assert_eq!(inside(&device, "true < /dev/own && stat -c %t:%T /dev/own"), "a:ed\n");
    assert_eq!(inside(&[], "mknod /own c 10 237; true < /own || echo no"), "no\n", "only what was allowed");
    assert_eq!(
        inside(&[], "echo x > /proc/sys/kernel/msgmax || ls /proc/acpi /sys/firmware"),
        "/proc/acpi:\n\n/sys/firmware:\n"
    );
    let score = ["--oom-score-adj=100", "--hostname=name"];
    assert_eq!(inside(&score, "cat /proc/self/oom_score_adj; hostname"), "100\nname\n");
}

#[test]
fn one_whose_monitor_was_killed_is_removed() {
    let Some(podman) = Podman::new("podman::one_whose_monitor_was_killed_is_removed") else { return };
    podman.start("a", &[], "sleep 1000");
    let (pid, conmon) = (podman.inspect("a", "State.Pid"), podman.inspect("a", "State.ConmonPid"));
    podman.place.run("kill", &["-9", &conmon]).ok();
    // podman has it killed, and forgets it without having it deleted: the groups stay.
    podman.ok(&["rm", "-f", "-t", "0", "a"]);
    assert_eq!(podman.ok(&["ps", "-aq"]), "");
    // A process that ended and was not waited for still has its directory.
    let ended = || podman.place.run("cat", &[&format!("/proc/{pid}/cmdline")]).out.is_empty();
    until("its end", || ended().then_some(()));
}

#[test]
fn health_is_asked_by_exec() {
    let Some(podman) = Podman::new("podman::health_is_asked_by_exec") else { return };
    // Without an interval nothing is asked of systemd.
    podman.start("a", &["--health-cmd", "test -e /well", "--health-interval", "disable"], "sleep 1000");
    assert_eq!(podman.ask(&["healthcheck", "run", "a"]).code, 1);
    podman.ok(&["exec", "a", "touch", "/well"]);
    podman.ok(&["healthcheck", "run", "a"]);
    assert_eq!(podman.inspect("a", "State.Healthcheck.Status"), "healthy");
}

#[test]
fn containers_of_a_pod_share_namespaces() {
    let Some(podman) = Podman::new("podman::containers_of_a_pod_share_namespaces") else { return };
    let group = format!("--cgroup-parent=/{}", podman.place.group());
    let infra = ["--infra-image=busybox", "--infra-command=sleep 1000", "--share=net,ipc,uts"];
    podman.ok(&[&["pod", "create", "--name=pod", "--network=none", &group], &infra[..]].concat());
    let member = |name: &str, script: &str| {
        podman.ok(&["run", "-d", "--pod=pod", "--name", name, "busybox", "sh", "-c", script]);
    };
    member("server", "mkdir /www; echo page > /www/index.html; httpd -f -p 127.0.0.1:80 -h /www");
    member("client", "sleep 1000");
    until("the server", || {
        (podman.ask(&["exec", "client", "wget", "-qO-", "http://127.0.0.1/"]).out == "page\n").then_some(())
    });
    let namespace =
        |name: &str, kind: &str| podman.ok(&["exec", name, "readlink", &format!("/proc/self/ns/{kind}")]);
    for shared in ["net", "ipc", "uts"] {
        assert_eq!(namespace("server", shared), namespace("client", shared));
    }
    for own in ["pid", "mnt"] {
        assert_ne!(namespace("server", own), namespace("client", own));
    }
    podman.ok(&["pod", "pause", "pod"]);
    assert_eq!(podman.inspect("client", "State.Status"), "paused");
    podman.ok(&["pod", "unpause", "pod"]);
    podman.ok(&["pod", "rm", "-f", "-t", "0", "pod"]);
    assert_eq!(podman.ok(&["ps", "-aq"]), "");
}

#[test]
fn namespaces_of_other_containers_are_joined() {
    let Some(podman) = Podman::new("podman::namespaces_of_other_containers_are_joined") else { return };
    podman.start("a", &["--ipc=shareable"], "sleep 1000");
    let group = format!("--cgroup-parent=/{}", podman.place.group());
    let joined = ["--pid=container:a", "--network=container:a", "--ipc=container:a"];
    let ran =
        podman.ask(&[&["run", "--rm", &group], &joined[..], &["busybox", "cat", "/proc/1/comm"]].concat());
    assert_eq!((ran.code, ran.out.as_str()), (0, "sleep\n"), "{ran:?}");
    let comm = podman.run(&["--rm", "--pid=host", "busybox", "cat", "/proc/1/comm"]);
    assert_eq!(comm.ok(), "tini-static\n");
}

#[test]
fn each_users_namespace_has_ids_of_its_own() {
    let Some(podman) = Podman::new("podman::each_users_namespace_has_ids_of_its_own") else { return };
    for file in ["subuid", "subgid"] {
        podman.place.bind(file, "containers:200000:1000000\n");
    }
    podman.start("a", &["--userns=auto:size=2048"], "sleep 1000");
    podman.start("b", &["--userns=auto:size=2048"], "sleep 1000");
    let map = |name: &str| {
        let map = podman.ok(&["exec", name, "cat", "/proc/self/uid_map"]);
        map.split_whitespace().map(|number| number.parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(map("a"), [0, 200_000, 2048]);
    assert_eq!(map("b"), [0, 202_048, 2048]);
    assert_eq!(podman.ok(&["exec", "a", "stat", "-c", "%u:%g", "/bin/busybox"]), "0:0");
    podman.ok(&["exec", "a", "sh", "-c", "mkdir /new && chown 1000 /new && su alice -c 'touch /new/file'"]);
}

#[test]
fn attach_relays_a_terminal() {
    let Some(podman) = Podman::new("podman::attach_relays_a_terminal") else { return };
    podman.start("a", &["-it"], "read line; stty size; echo got $line; exit 4");
    let mut attach = on_a_terminal(&podman.command(&["attach", "a"]));
    let mut child = attach.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"word\n").unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert!(ran.out.contains("got word"), "{ran:?}");
    assert_eq!(podman.ok(&["wait", "a"]), "4");
}
