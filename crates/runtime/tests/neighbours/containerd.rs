//! containerd and its shim, by ctr.

use std::process::Command;
use std::time::Duration;

use crate::place::{Limit, Place, Ran, busybox, on_a_terminal, runtime, until};

pub const IMAGE: &str = "docker.io/library/busybox:latest";

/// containerd with roots and a socket of its own, and busybox.
pub struct Containerd {
    place: Place,
}

impl Containerd {
    /// Starts it; `plugins` gives the configuration of its plugins.
    pub fn new(test: &str, plugins: impl Fn(&Place) -> String) -> Option<Self> {
        let containerd = Self { place: Place::new(test)? };
        let place = &containerd.place;
        let directory = place.directory().display();
        let roots = format!("version = 2\nroot = '{directory}/root'\nstate = '{directory}/state'\n");
        let configuration = format!("{roots}[grpc]\naddress = '{}'\n{}", containerd.socket(), plugins(place));
        let configuration = place.write("config.toml", &configuration);
        let mut daemon = place.command("containerd");
        daemon.arg("--config").arg(configuration);
        place.daemon(&mut daemon, "containerd.log", || containerd.ctr(&["version"]).code == 0);
        containerd.ok(&["image", "import", busybox().to_str().unwrap()]);
        Some(containerd)
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn socket(&self) -> String {
        format!("{}/sock", self.place.directory().display())
    }

    /// ctr in a namespace whose name is our group's: that is where it puts containers.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command("ctr");
        command.args(["--address", &self.socket(), "--namespace", self.place.group()]).args(arguments);
        command
    }

    fn ctr(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.ctr(arguments).ok()
    }

    /// Runs a container: `options`, its id, the command.
    fn run(&self, options: &[&str], id_and_command: &[&str]) -> Ran {
        let runtime = runtime();
        let ours = ["run", "--runc-binary", runtime.to_str().unwrap()];
        self.ctr(&[&ours, options, &[IMAGE], id_and_command].concat())
    }

    /// What `task ls` says of the only task: its id, its process, its state.
    #[track_caller]
    fn task(&self) -> Vec<String> {
        let listing = self.ok(&["task", "ls"]);
        let line = listing.lines().nth(1).unwrap_or_else(|| panic!("{listing}"));
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn metric(&self, name: &str) -> u64 {
        let metrics = self.ok(&["task", "metrics", "a"]);
        let line = metrics.lines().find(|line| line.split_whitespace().next() == Some(name));
        let value = line.and_then(|line| line.split_whitespace().nth(1));
        value.unwrap_or_else(|| panic!("no {name}: {metrics}")).parse().unwrap()
    }
}

fn without_plugins(_: &Place) -> String {
    String::new()
}

/// A script that stays for a moment when it is done: ctr, on a busy machine, may leave before it has shown what a program that has ended
/// said last (seen once in some hundred runs).
fn heard(script: &str) -> String {
    format!("trap 'sleep 0.2' EXIT; {script}")
}

#[test]
fn output_and_exit_code_are_the_commands() {
    let test = "containerd::output_and_exit_code_are_the_commands";
    let Some(containerd) = Containerd::new(test, without_plugins) else { return };
    let ran = containerd.run(&["--rm"], &["a", "sh", "-c", &heard("echo out; echo err >&2; exit 3")]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (3, "out\n", "err\n"));
    for (program, reason) in [("absent", "executable file not found in $PATH"), ("/etc", "permission denied")]
    {
        let failed = containerd.run(&["--rm"], &["a", program]);
        assert_eq!(failed.code, 1, "{failed:?}");
        assert!(failed.err.contains(reason), "{failed:?}");
        assert_eq!(containerd.ok(&["task", "ls", "-q"]), "", "a failure leaves no task");
        containerd.ctr(&["container", "rm", "a"]);
    }
    let host = containerd.run(&["--rm", "--net-host"], &["a", "readlink", "/proc/self/ns/net"]);
    assert_eq!(host.ok(), containerd.place.run("readlink", &["/proc/self/ns/net"]).ok());
}

#[test]
fn what_is_asked_is_inside() {
    let Some(containerd) = Containerd::new("containerd::what_is_asked_is_inside", without_plugins) else {
        return;
    };
    let inside = |options: &[&str], script: &str| {
        containerd.run(&[&["--rm"], options].concat(), &["a", "sh", "-c", &heard(script)]).ok()
    };
    let options = ["--env", "OWN=set", "--cwd", "/tmp", "--read-only"];
    assert_eq!(inside(&options, "pwd; echo $OWN; touch x || echo no"), "/tmp\nset\nno\n");
    let file = containerd.place.write("file", "from outside\n");
    let mount = format!("type=bind,src={},dst=/etc/file,options=rbind:ro", file.display());
    assert_eq!(
        inside(&["--mount", &mount], "cat /etc/file; echo x > /etc/file || echo no"),
        "from outside\nno\n"
    );
    let device = inside(&["--device", "/dev/loop-control"], "true < /dev/loop-control && echo yes");
    assert_eq!(device, "yes\n");
    let status = inside(
        &["--seccomp", "--cap-drop", "CAP_MKNOD"],
        "grep -E 'Seccomp:|NoNewPrivs|CapBnd' /proc/1/status",
    );
    // docker's 14 capabilities less one
    assert_eq!(status, "CapBnd:\t00000000a00425fb\nNoNewPrivs:\t1\nSeccomp:\t2\n");
    let mapped = ["--uidmap", "0:300000:2000", "--gidmap", "0:300000:2000"];
    assert_eq!(inside(&mapped, "id -u; stat -c %u:%g /bin/busybox"), "0\n0:0\n");
    let joined = "network:/proc/1/ns/net";
    let outside = containerd.place.run("readlink", &["/proc/self/ns/net"]).ok();
    assert_eq!(inside(&["--with-ns", joined], "readlink /proc/self/ns/net"), outside);
}

#[test]
fn a_task_is_executed_in_paused_killed_and_deleted() {
    let test = "containerd::a_task_is_executed_in_paused_killed_and_deleted";
    let Some(containerd) = Containerd::new(test, without_plugins) else { return };
    let script = "while :; do date +%N > /tick; sleep 0.05; done";
    containerd.run(&["-d"], &["a", "sh", "-c", script]).ok();
    let exec =
        |script: &str| containerd.ctr(&["task", "exec", "--exec-id", "e", "a", "sh", "-c", &heard(script)]);
    let ran = exec("cat /proc/1/comm; echo err >&2; exit 7");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (7, "sh\n", "err\n"));
    let absent = containerd.ctr(&["task", "exec", "--exec-id", "e", "a", "absent"]);
    assert!(absent.code != 0 && absent.err.contains("executable file not found in $PATH"), "{absent:?}");

    let [id, pid, state] = containerd.task().try_into().unwrap();
    assert_eq!((id.as_str(), state.as_str()), ("a", "RUNNING"));
    let processes = containerd.ok(&["task", "ps", "a"]);
    assert!(processes.lines().any(|line| line.split_whitespace().next() == Some(&pid)), "{processes}");
    containerd.ok(&["task", "pause", "a"]);
    assert_eq!(containerd.task()[2], "PAUSED");
    let ticked = || containerd.place.run("cat", &[&format!("/proc/{pid}/root/tick")]).ok();
    let before = ticked();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ticked(), before);
    containerd.ok(&["task", "resume", "a"]);
    assert_eq!(containerd.task()[2], "RUNNING");
    until("a tick", || (ticked() != before).then_some(()));

    containerd.ok(&["task", "kill", "-s", "SIGKILL", "a"]);
    until("the task's end", || (containerd.task()[2] == "STOPPED").then_some(()));
    let again = containerd.ctr(&["task", "kill", "-s", "SIGKILL", "a"]);
    assert!(again.code != 0 && again.err.contains("process already finished"), "{again:?}");
    assert!(containerd.ctr(&["task", "delete", "a"]).err.contains("137"));
    containerd.ok(&["container", "rm", "a"]);

    // What still runs is killed with it.
    containerd.run(&["-d"], &["a", "sleep", "1000"]).ok();
    containerd.ok(&["task", "pause", "a"]);
    containerd.ok(&["task", "resume", "a"]);
    containerd.ctr(&["task", "rm", "-f", "a"]);
    assert_eq!(containerd.ok(&["task", "ls", "-q"]), "");
    containerd.place.until_no_groups();
}

#[test]
fn one_whose_shim_was_killed_is_removed() {
    let Some(containerd) =
        Containerd::new("containerd::one_whose_shim_was_killed_is_removed", without_plugins)
    else {
        return;
    };
    containerd.run(&["-d"], &["a", "sleep", "1000"]).ok();
    let pid = containerd.task()[1].clone();
    // PID (COMM) STATE PARENT …, proc_pid_stat(5)
    let stat = containerd.place.run("cat", &[&format!("/proc/{pid}/stat")]).ok();
    let shim = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)).unwrap();
    let comm = containerd.place.run("cat", &[&format!("/proc/{shim}/comm")]).ok();
    assert_eq!(comm, "containerd-shim\n", "the runtime left it to who is its parent now");
    containerd.place.run("kill", &["-9", shim]).ok();
    // containerd has another one delete what is left.
    until("no task", || containerd.ok(&["task", "ls", "-q"]).is_empty().then_some(()));
    let ended = || containerd.place.run("cat", &[&format!("/proc/{pid}/cmdline")]).out.is_empty();
    until("its end", || ended().then_some(()));
    containerd.place.until_no_groups();
}

#[test]
fn limits_hold_and_are_measured() {
    let Some(containerd) = Containerd::new("containerd::limits_hold_and_are_measured", without_plugins)
    else {
        return;
    };
    let limits = ["-d", "--memory-limit", "67108864", "--cpus", "0.5"];
    containerd.run(&limits, &["a", "sh", "-c", "while :; do sleep 1; done"]).ok();
    let pid = containerd.task()[1].clone();
    assert_eq!(containerd.place.limit(&pid, Limit::Memory), "67108864");
    assert_eq!(containerd.place.limit(&pid, Limit::Processor).split(' ').next(), Some("50000"));
    // The shim measures the group that the first process stands in.
    let memory = if containerd.ok(&["task", "metrics", "a"]).contains("memory.limit_in_bytes") {
        ("memory.limit_in_bytes", "memory.usage_in_bytes")
    } else {
        ("memory.usage_limit", "memory.usage")
    };
    assert_eq!(containerd.metric(memory.0), 67_108_864);
    assert!((1..67_108_864).contains(&containerd.metric(memory.1)));
    until("a shell and what it runs", || (containerd.metric("pids.current") == 2).then_some(()));
    containerd.ctr(&["task", "rm", "-f", "a"]);
    containerd.ok(&["container", "rm", "a"]);

    // Without limits it is measured too.
    containerd.run(&["-d"], &["a", "sleep", "1000"]).ok();
    // runc's own threads go when the program starts.
    until("one process", || (containerd.metric("pids.current") == 1).then_some(()));
    assert!(containerd.metric(memory.1) < 67_108_864);

    let hungry = ["a2", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"];
    let ran = containerd.run(&["--rm", "--memory-limit", "16777216"], &hungry);
    assert_eq!(ran.code, 137, "{ran:?}");
}

#[test]
fn a_terminal_is_its_own() {
    let Some(containerd) = Containerd::new("containerd::a_terminal_is_its_own", without_plugins) else {
        return;
    };
    let runtime = runtime();
    let run = ["run", "--rm", "-t", "--runc-binary", runtime.to_str().unwrap(), IMAGE, "a", "tty"];
    // ctr wants one itself.
    let ran = Ran::from(on_a_terminal(&containerd.command(&run)).output().unwrap());
    assert!(ran.out.contains("/dev/pts/0"), "{ran:?}");
}
