//! dockerd, with a containerd that it starts itself, and its swarm.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::client::Client;
use crate::place::{Limit, Place, Ran, busybox, on_a_terminal, runtime, until};

/// No bridge: nothing is asked of the machine's packet filter.
const WITHOUT_BRIDGE: &[&str] = &["--bridge=none", "--iptables=false", "--ip6tables=false"];

/// dockerd with roots and a socket of its own, our runtime as the default one, and busybox.
struct Docker {
    place: Place,
}

impl Docker {
    fn new(test: &str, options: &[&str]) -> Option<Self> {
        Self::prepared(test, options, |_| {})
    }

    /// With something done to its place before the daemon starts.
    fn prepared(test: &str, options: &[&str], prepare: impl Fn(&Place)) -> Option<Self> {
        let docker = Self { place: Place::new(test)? };
        let place = &docker.place;
        prepare(place);
        let directory = place.directory().display();
        // Nothing of the machine's own configuration is read.
        let configuration = place.write("daemon.json", "{}");
        let mut daemon = place.command("dockerd");
        daemon.arg("--config-file").arg(configuration).arg(format!("--data-root={directory}/data"));
        daemon.arg(format!("--exec-root={directory}/exec")).arg(format!("--pidfile={directory}/pid"));
        daemon.arg(format!("--host={}", docker.host()));
        daemon.arg(format!("--add-runtime=coracle={}", runtime().display())).arg("--default-runtime=coracle");
        daemon
            .arg("--exec-opt=native.cgroupdriver=cgroupfs")
            .arg(format!("--cgroup-parent=/{}", place.group()));
        daemon.args(options);
        place.daemon(&mut daemon, "dockerd.log", || docker.ask(&["version"]).code == 0);
        docker.ok(&["load", "--quiet", "--input", busybox().to_str().unwrap()]);
        Some(docker)
    }

    fn host(&self) -> String {
        format!("unix://{}/sock", self.place.directory().display())
    }

    /// How many containers of the service `sleepers` run.
    fn replicas(&self) -> usize {
        self.ok(&["ps", "-q", "--filter", "label=com.docker.swarm.service.name=sleepers"]).lines().count()
    }
}

impl Client for Docker {
    /// Debian's client, which is the daemon's age: a newer one in /usr/local builds otherwise.
    fn command(&self, arguments: &[&str]) -> Command {
        let debians = "/usr/bin/docker";
        let mut command = self.place.command(if Path::new(debians).exists() { debians } else { "docker" });
        command.args(arguments).env("DOCKER_HOST", self.host());
        command.env("DOCKER_CONFIG", self.place.directory().join("client")).env("DOCKER_BUILDKIT", "0");
        command
    }
}

#[test]
fn output_and_exit_code_are_the_commands() {
    let Some(docker) = Docker::new("docker::output_and_exit_code_are_the_commands", WITHOUT_BRIDGE) else {
        return;
    };
    assert_eq!(docker.ok(&["info", "--format", "{{.DefaultRuntime}}"]), "coracle");
    let ran = docker.run(&["--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (3, "out\n", "err\n"));
    for (program, code) in [("absent", 127), ("/etc", 126)] {
        let failed = docker.run(&["--rm", "busybox", program]);
        assert_eq!(failed.code, code, "{failed:?}");
    }
    let terminal = docker.command(&["run", "--rm", "-it", "--network=none", "busybox", "tty"]);
    let ran = Ran::from(on_a_terminal(&terminal).output().unwrap());
    assert!(ran.out.contains("/dev/pts/0"), "{ran:?}");
    let mut child = docker.command(&["run", "--rm", "-i", "--network=none", "busybox", "cat"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    assert_eq!(Ran::from(child.wait_with_output().unwrap()).ok(), "through");
    assert_eq!(docker.run(&["--rm", "--init", "busybox", "cat", "/proc/1/comm"]).ok(), "docker-init\n");
    let host = docker.ask(&["run", "--rm", "--network=host", "busybox", "readlink", "/proc/self/ns/net"]);
    assert_eq!(host.ok(), docker.place.run("readlink", &["/proc/self/ns/net"]).ok());
    assert_eq!(docker.ok(&["ps", "-aq"]), "");
}

#[test]
fn a_detached_one_is_logged_stopped_started_and_removed() {
    let test = "docker::a_detached_one_is_logged_stopped_started_and_removed";
    let Some(docker) = Docker::new(test, WITHOUT_BRIDGE) else { return };
    docker.start(
        "kind",
        &[],
        "trap 'exit 5' TERM; trap 'echo usr1' USR1; echo up; while :; do sleep 0.1; done",
    );
    until("its output", || (docker.logs("kind") == "up").then_some(()));
    docker.ok(&["kill", "-s", "USR1", "kind"]);
    until("its answer", || (docker.logs("kind") == "up\nusr1").then_some(()));
    docker.ok(&["stop", "-t", "20", "kind"]);
    assert_eq!(docker.inspect("kind", "State.ExitCode"), "5");
    docker.ok(&["start", "kind"]);
    let first = docker.inspect("kind", "State.Pid");
    docker.ok(&["restart", "-t", "0", "kind"]);
    assert_ne!(docker.inspect("kind", "State.Pid"), first);
    let top = docker.ok(&["top", "kind"]);
    assert!(top.contains("sh -c"), "{top}");
    docker.ok(&["kill", "kind"]);
    assert_eq!(docker.ok(&["wait", "kind"]), "137");
    assert_ne!(docker.ask(&["kill", "kind"]).code, 0, "it does not run");

    // One that ends by itself is started again.
    let options = ["--restart", "on-failure:2"];
    docker.start("unlucky", &options, "echo try; exit 1");
    until("two more tries", || (docker.logs("unlucky") == "try\ntry\ntry").then_some(()));
    docker.ok(&["rm", "-f", "kind", "unlucky"]);
    assert_eq!(docker.ok(&["ps", "-aq"]), "");
    docker.place.until_no_groups();
}

#[test]
fn exec_has_its_own_user_terminal_and_exit_code() {
    let test = "docker::exec_has_its_own_user_terminal_and_exit_code";
    let Some(docker) = Docker::new(test, WITHOUT_BRIDGE) else { return };
    docker.start("box", &["--hostname", "inside"], "sleep 1000");
    let ran = docker.ask(&["exec", "box", "sh", "-c", "hostname; cat /proc/1/comm; exit 7"]);
    assert_eq!((ran.code, ran.out.as_str()), (7, "inside\nsleep\n"), "{ran:?}");
    let other =
        ["exec", "-u", "alice", "-w", "/tmp", "-e", "OWN=exec", "box", "sh", "-c", "id -u; pwd; echo $OWN"];
    assert_eq!(docker.ok(&other), "1000\n/tmp\nexec");
    assert!(docker.ok(&["exec", "-t", "box", "tty"]).starts_with("/dev/pts/"));
    for program in ["absent", "/etc"] {
        let failed = docker.ask(&["exec", "box", program]);
        assert_eq!(failed.code, 126, "{failed:?}");
    }
    docker.ok(&["exec", "-d", "box", "sh", "-c", "echo detached > /tmp/written"]);
    until("the detached one's file", || {
        (docker.ask(&["exec", "box", "cat", "/tmp/written"]).out == "detached\n").then_some(())
    });
    docker.ok(&["kill", "box"]);
    assert_ne!(docker.ask(&["exec", "box", "true"]).code, 0, "it has ended");
}

#[test]
fn a_paused_one_stands_still() {
    let Some(docker) = Docker::new("docker::a_paused_one_stands_still", WITHOUT_BRIDGE) else { return };
    docker.start("box", &[], "while :; do echo tick; sleep 0.05; done");
    until("its output", || docker.logs("box").starts_with("tick").then_some(()));
    docker.ok(&["pause", "box"]);
    assert_eq!(docker.inspect("box", "State.Status"), "paused");
    let ticks = docker.logs("box").len();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(docker.logs("box").len(), ticks);
    assert_ne!(docker.ask(&["exec", "box", "true"]).code, 0, "nothing starts in a paused one");
    docker.ok(&["unpause", "box"]);
    until("more output", || (docker.logs("box").len() > ticks).then_some(()));
    docker.ok(&["pause", "box"]);
    docker.ok(&["rm", "-f", "box"]);
    assert_eq!(docker.ok(&["ps", "-aq"]), "");
}

#[test]
fn limits_hold_are_updated_and_shown() {
    let Some(docker) = Docker::new("docker::limits_hold_are_updated_and_shown", WITHOUT_BRIDGE) else {
        return;
    };
    docker.start("box", &["--memory", "64m", "--pids-limit", "20", "--cpus", "0.5"], "sleep 1000");
    let pid = docker.inspect("box", "State.Pid");
    let limit = |limit| docker.place.limit(&pid, limit);
    assert_eq!(limit(Limit::Memory), "67108864");
    assert_eq!(limit(Limit::Processes), "20");
    assert_eq!(limit(Limit::Processor).split(' ').next(), Some("50000"));
    let stats = ["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "box"];
    until("one process", || docker.ok(&stats).ends_with("/ 64MiB 1").then_some(()));

    docker.ok(&["update", "--memory", "128m", "--memory-swap", "256m", "--pids-limit", "10", "box"]);
    assert_eq!(limit(Limit::Memory), "134217728");
    assert_eq!(limit(Limit::Processes), "10");
    assert_eq!(limit(Limit::Processor).split(' ').next(), Some("50000"), "what was not asked for stays");
    let greedy = "for i in $(seq 30); do sleep 100 & done; echo all";
    assert!(!docker.ask(&["exec", "box", "sh", "-c", greedy]).out.contains("all"));

    // Without limits it is measured too, and alone.
    docker.start("free", &[], "sleep 1000");
    let stats = ["stats", "--no-stream", "--format", "{{.PIDs}}", "free"];
    until("one process", || (docker.ok(&stats) == "1").then_some(()));

    let hungry = ["--memory=16m", "--memory-swap=16m", "--name=hungry", "busybox", "dd", "if=/dev/zero"];
    let ran = docker.run(&[&hungry[..], &["of=/dev/null", "bs=64M", "count=1"]].concat());
    assert_eq!(ran.code, 137, "{ran:?}");
    until("word of it", || (docker.inspect("hungry", "State.OOMKilled") == "true").then_some(()));
}

#[test]
fn what_is_asked_is_inside() {
    let Some(docker) = Docker::new("docker::what_is_asked_is_inside", WITHOUT_BRIDGE) else { return };
    let inside = |options: &[&str], script: &str| {
        docker.run(&[&["--rm"], options, &["busybox", "sh", "-c", script]].concat()).ok()
    };
    let user = ["--user=alice", "--group-add=staff", "--workdir=/tmp", "--env=OWN=set", "--hostname=name"];
    let expected = "uid=1000(alice) gid=1000(alice) groups=50(staff),1000(alice)\n/tmp\nset\nname\n";
    assert_eq!(inside(&user, "id; pwd; echo $OWN; hostname"), expected);
    let file = docker.place.write("file", "from outside\n");
    let volume = format!("--volume={}:/etc/file:ro", file.display());
    assert_eq!(inside(&[&volume], "cat /etc/file; echo x > /etc/file || echo no"), "from outside\nno\n");
    assert_eq!(inside(&["--volume=data:/data"], "touch /data/here"), "");
    assert_eq!(inside(&["--volume=data:/data"], "ls /data"), "here\n");
    let read_only = ["--read-only", "--tmpfs=/scratch:size=1m,mode=0700"];
    let script = "touch /x || echo no; stat -f -c %T /scratch; stat -c %a /scratch; dd if=/dev/zero of=/scratch/x bs=1M count=2 || echo full";
    assert_eq!(inside(&read_only, script), "no\ntmpfs\n700\nfull\n");
    let kernel = [
        "--sysctl=net.ipv4.ip_unprivileged_port_start=7",
        "--sysctl=kernel.msgmax=4096",
        "--ulimit=nofile=100:200",
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
    docker.start("box", &["--ipc=shareable"], "sleep 1000");
    let joined = ["--pid=container:box", "--ipc=container:box"];
    assert_eq!(inside(&joined, "cat /proc/1/comm; touch /dev/shm/shared"), "sleep\n");
    assert_eq!(docker.ok(&["exec", "box", "ls", "/dev/shm"]), "shared");
    docker.ok(&["rm", "-f", "box"]);
}

#[test]
fn ids_are_mapped_to_a_users() {
    let test = "docker::ids_are_mapped_to_a_users";
    let remapped = [WITHOUT_BRIDGE, &["--userns-remap=700000:700000"]].concat();
    let subids = |place: &Place| {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        place.bind("passwd", &(passwd + "remapped:x:700000:700000::/:/bin/sh\n"));
        let group = std::fs::read_to_string("/etc/group").unwrap();
        place.bind("group", &(group + "remapped:x:700000:\n"));
        place.bind("subuid", "remapped:700000:65536\n");
        place.bind("subgid", "remapped:700000:65536\n");
    };
    let Some(docker) = Docker::prepared(test, &remapped, subids) else { return };
    let script =
        "id -u; echo $(cat /proc/self/uid_map); stat -c %u:%g /bin/busybox; touch /root/own && echo mine";
    assert_eq!(docker.run(&["--rm", "busybox", "sh", "-c", script]).ok(), "0\n0 700000 65536\n0:0\nmine\n");
    docker.start("box", &[], "sleep 1000");
    let pid = docker.inspect("box", "State.Pid");
    assert_eq!(docker.place.run("stat", &["-c", "%u", &format!("/proc/{pid}")]).ok(), "700000\n");
    assert_eq!(docker.ok(&["exec", "-u", "alice", "box", "id", "-u"]), "1000");
    docker.ok(&["rm", "-f", "box"]);
}

#[test]
fn images_are_built_in_it() {
    let Some(docker) = Docker::new("docker::images_are_built_in_it", WITHOUT_BRIDGE) else { return };
    let lines = "FROM busybox\nENV WORD=built\nUSER alice\nRUN echo $WORD by $(id -u) > /tmp/file\nCMD cat /tmp/file\n";
    let context = docker.place.directory().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), lines).unwrap();
    docker.ok(&["build", "--network=none", "--tag=built", context.to_str().unwrap()]);
    assert_eq!(docker.run(&["--rm", "built"]).ok(), "built by 1000\n");
    std::fs::write(context.join("Dockerfile"), "FROM busybox\nRUN exit 6\n").unwrap();
    let failed = docker.ask(&["build", "--network=none", context.to_str().unwrap()]);
    assert!(failed.err.contains("returned a non-zero code: 6"), "{failed:?}");
}

#[test]
fn containers_of_a_network_reach_each_other_by_name() {
    let test = "docker::containers_of_a_network_reach_each_other_by_name";
    let Some(docker) = Docker::new(test, &["--bip=10.200.0.1/24", "--ip6tables=false"]) else { return };
    docker.ok(&["network", "create", "--subnet=10.201.0.0/24", "net"]);
    let serve = "mkdir /www; echo page > /www/index.html; httpd -f -p 80 -h /www";
    let server =
        ["run", "-d", "--name=server", "--network=net", "--publish=8080:80", "busybox", "sh", "-c", serve];
    docker.ok(&server);
    let ask = ["run", "--rm", "--network=net", "busybox", "wget", "-qO-", "http://server/"];
    until("the server by its name", || (docker.ask(&ask).out == "page\n").then_some(()));
    let published = ["wget", "-qO-", "http://127.0.0.1:8080/"];
    assert_eq!(docker.place.run("busybox", &published).ok(), "page\n");
    let other = docker.ask(&["run", "--rm", "busybox", "wget", "-qO-", "http://server/"]);
    assert!(other.err.contains("bad address"), "the default network is another: {other:?}");
    docker.ok(&["network", "connect", "bridge", "server"]);
    let devices = docker.ok(&["exec", "server", "ls", "/sys/class/net"]);
    assert_eq!(devices.split_whitespace().collect::<Vec<_>>(), ["eth0", "eth1", "lo"]);
    docker.ok(&["rm", "-f", "server"]);
    docker.ok(&["network", "rm", "net"]);
}

#[test]
fn a_swarm_keeps_as_many_running_as_are_asked() {
    let test = "docker::a_swarm_keeps_as_many_running_as_are_asked";
    let Some(docker) = Docker::new(test, WITHOUT_BRIDGE) else { return };
    docker.ok(&["swarm", "init", "--advertise-addr=127.0.0.1"]);
    let service =
        ["service", "create", "--detach", "--name=sleepers", "--network=host", "--endpoint-mode=dnsrr"];
    let limits = ["--replicas=3", "--limit-memory=32m", "--restart-delay=100ms", "--no-resolve-image"];
    docker.ok(&[&service[..], &limits, &["busybox", "sleep", "1000"]].concat());
    let become_ = |count| until(&format!("{count} replicas"), || (docker.replicas() == count).then_some(()));
    become_(3);
    docker.ok(&["service", "scale", "--detach", "sleepers=4"]);
    become_(4);
    docker.ok(&["service", "scale", "--detach", "sleepers=2"]);
    become_(2);
    let before = docker.ok(&["ps", "-q", "--no-trunc"]);
    let victim = before.lines().next().unwrap();
    let pid = docker.inspect(victim, "State.Pid");
    assert_eq!(docker.place.limit(&pid, Limit::Memory), "33554432");
    docker.ok(&["kill", victim]);
    until("another in its place", || {
        let now = docker.ok(&["ps", "-q", "--no-trunc"]);
        (now.lines().count() == 2 && !now.contains(victim)).then_some(())
    });
    docker.ok(&["service", "rm", "sleepers"]);
    become_(0);
    docker.ok(&["swarm", "leave", "--force"]);
    docker.place.until_no_groups();
}
