//! What a container shares with the machine and with others, and what it does not.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use kernel::seccomp::{FilterFlags, Instruction};
use rustix::process::{Pid, Signal, kill_process};

use crate::coracle::{Coracle, binaries, is_root};
use crate::running::Running;

const KINDS: [&str; 8] = ["uts", "pid", "mnt", "ipc", "net", "cgroup", "user", "time"];

/// The number of fsconfig(2), which is the same on all processors.
const FSCONFIG: u32 = 431;

type Namespaces = BTreeMap<&'static str, String>;

fn of_host() -> Namespaces {
    let link = |kind| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    KINDS.into_iter().map(|kind| (kind, link(kind))).collect()
}

#[track_caller]
fn of(container: &mut Running) -> Namespaces {
    KINDS.into_iter().map(|kind| (kind, container.ask(&format!("readlink /proc/self/ns/{kind}")))).collect()
}

/// The kinds that two have in common.
fn shared(one: &Namespaces, other: &Namespaces) -> Vec<&'static str> {
    KINDS.into_iter().filter(|kind| one[kind] == other[kind]).collect()
}

/// What every container of this user shares with the machine.
fn usually_shared() -> Vec<&'static str> {
    if is_root() { vec!["user", "time"] } else { vec!["time"] }
}

#[test]
fn every_namespace_is_its_own() {
    let coracle = Coracle::with_busybox();
    let mut container = Running::start(&coracle, &["busybox"]);
    assert_eq!(shared(&of_host(), &of(&mut container)), usually_shared());
    assert_eq!(container.end(), 0);
    let shifted = ["--time-offset", "boottime=+1000000s", "--time-offset", "monotonic=500", "busybox"];
    let mut container = Running::start(&coracle, &shifted);
    assert!(!shared(&of_host(), &of(&mut container)).contains(&"time"));
    let up: f64 = container.ask("cut -d' ' -f1 /proc/uptime").parse().unwrap();
    assert!(up >= 1_000_000.0, "{up} s");
    assert_eq!(container.end(), 0);
    coracle.assert_nothing_left();
}

#[test]
fn the_machines_namespaces_are_shared_one_by_one() {
    let coracle = Coracle::with_busybox();
    for (option, kind) in
        [("--pid", "pid"), ("--uts", "uts"), ("--ipc", "ipc"), ("--network", "net"), ("--cgroupns", "cgroup")]
    {
        let mut container = Running::start(&coracle, &[option, "host", "busybox"]);
        let mut expected = usually_shared();
        expected.push(kind);
        let mut found = shared(&of_host(), &of(&mut container));
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "{option} host");
        assert_eq!(container.end(), 0, "{option} host");
    }
    coracle.assert_nothing_left();
}

#[test]
fn another_containers_namespaces_are_shared() {
    let coracle = Coracle::with_busybox();
    let mut first = Running::start(&coracle, &["--name", "first", "busybox"]);
    let theirs = of(&mut first);
    for (option, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--network", "net")] {
        let mut second = Running::start(&coracle, &[option, "container:first", "busybox"]);
        let found = shared(&theirs, &of(&mut second));
        // A user's namespaces can be shared only from within the same user namespace.
        let expected: Vec<_> =
            KINDS.into_iter().filter(|one| *one == kind || matches!(*one, "user" | "time")).collect();
        assert_eq!(found, expected, "{option} container:first");
        let word = second.ask(&format!("echo {kind} > /dev/shm/word; cat /dev/shm/word"));
        assert_eq!(word, kind);
        let theirs = first.ask("cat /dev/shm/word; rm -f /dev/shm/word");
        assert_eq!(theirs == "ipc", kind == "ipc", "{option} container:first: {theirs}");
        assert_eq!(second.end(), 0);
    }
    // Mounts of its own there stay its own.
    let own = ["--ipc", "container:first", "--tmpfs", "/dev/shm", "busybox"];
    let mut second = Running::start(&coracle, &own);
    second.ask("touch /dev/shm/mine");
    assert_eq!(first.ask("ls /dev/shm"), "");
    assert_eq!(second.end(), 0);
    let ran = coracle.run(&["run", "--rm", "--network", "container:nobody", "busybox", "true"]);
    assert_eq!((ran.code, ran.err.contains("nobody")), (125, true), "{ran:?}");
    assert_eq!(first.end(), 0);
    coracle.assert_nothing_left();
}

#[test]
fn nothing_of_the_machines_root_is_reachable() {
    let coracle = Coracle::with_busybox();
    let outside = coracle.directory().join("outside");
    std::fs::write(&outside, "secret").unwrap();
    let mut container = Running::start(&coracle, &["busybox"]);
    let up = "../".repeat(40);
    for way in ["", "/proc/1/root", "/proc/self/root", &up, "/proc/1/cwd", "/dev/fd/0"] {
        let told = container.ask(&format!("cat {way}{}", outside.display()));
        assert!(!told.contains("secret"), "by {way}: {told}");
    }
    // Every mount is one of the container's: none shows a directory of the machine that nobody asked for.
    let mounts = container.ask("cat /proc/self/mountinfo");
    let place = coracle.directory().file_name().unwrap().to_str().unwrap();
    for line in mounts.lines() {
        let (root, point) = (line.split(' ').nth(3).unwrap(), line.split(' ').nth(4).unwrap());
        let is_name_file = root.contains(place) && point.starts_with("/etc/");
        let is_device = point.starts_with("/dev/");
        let is_kernels = point.starts_with("/proc") || point.starts_with("/sys");
        assert!(root == "/" || is_name_file || is_device || is_kernels, "{line}");
    }
    let roots = mounts.lines().filter(|line| line.split(' ').nth(4) == Some("/")).count();
    assert_eq!(roots, 1, "{mounts}");
    assert_eq!(container.end(), 0);
    // The list's own directory is the fourth.
    assert_eq!(coracle.ok(&["run", "--rm", "busybox", "ls", "/proc/self/fd"]), "0\n1\n2\n3\n");
    coracle.assert_nothing_left();
}

#[test]
fn it_has_names_and_a_loopback_device() {
    let coracle = Coracle::with_busybox();
    let options = [
        ["--hostname", "box"],
        ["--domainname", "example.org"],
        ["--add-host", "db:10.0.0.7"],
        ["--dns", "192.0.2.1"],
        ["--dns-search", "example.net"],
        ["--network", "none"],
    ];
    let mut container = Running::start(&coracle, &[options.as_flattened(), &["busybox"]].concat());
    assert_eq!(container.ask("hostname; cat /etc/hostname; echo $HOSTNAME"), "box\nbox\nbox");
    assert_eq!(container.ask("cat /proc/sys/kernel/domainname"), "example.org");
    let hosts = container.ask("cat /etc/hosts");
    for line in ["127.0.0.1\tlocalhost", "10.0.0.7\tdb", "box.example.org box"] {
        assert!(hosts.contains(line), "{line} is not in {hosts}");
    }
    let resolve = container.ask("cat /etc/resolv.conf");
    assert!(resolve.contains("nameserver 192.0.2.1") && resolve.contains("search example.net"), "{resolve}");
    // IFF_UP and IFF_LOOPBACK.
    assert_eq!(container.ask("ls /sys/class/net; cat /sys/class/net/lo/flags"), "lo\n0x9");
    assert_eq!(container.end(), 0);
    // Without a name it is the beginning of the id.
    let mut container = Running::start(&coracle, &["busybox"]);
    assert_eq!(container.ask("hostname"), container.id[..12]);
    assert_eq!(container.end(), 0);
    coracle.assert_nothing_left();
}

#[test]
fn its_control_group_looks_like_the_root() {
    let coracle = Coracle::with_busybox();
    let mut container = Running::start(&coracle, &["busybox"]);
    let groups = container.ask("cat /proc/self/cgroup");
    assert!(groups.lines().all(|line| line.ends_with(":/")), "{groups}");
    let tried =
        container.ask("for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do mkdir $d/mine && echo made $d; done");
    assert!(!tried.contains("made"), "{tried}");
    assert!(tried.contains("Read-only file system"), "{tried}");
    assert_eq!(container.end(), 0);
    coracle.assert_nothing_left();
}

#[test]
fn roots_user_namespace_shifts_owners() {
    if !is_root() {
        println!("SKIP: isolation::roots_user_namespace_shifts_owners: only root maps any ids it likes");
        return;
    }
    owners_are_shifted();
}

/// The way of kernels before 6.13, on each kernel: such a one refuses a layer by descriptor.
#[test]
fn roots_user_namespace_shifts_owners_without_layers_by_descriptor() {
    if !is_root() {
        println!(
            "SKIP: isolation::roots_user_namespace_shifts_owners_without_layers_by_descriptor: only root maps any ids it likes"
        );
        return;
    }
    // The filter holds for this thread and for what it starts.
    let thread = std::thread::spawn(|| {
        refuse_settings_by_descriptor();
        owners_are_shifted();
        let coracle = Coracle::with_busybox();
        let ran = coracle.run(&["run", "--rm", "--explain", "--userns", "auto", "busybox", "true"]);
        assert_eq!((ran.code, ran.err.contains("Before Linux 6.13")), (0, true), "{ran:?}");
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// From now on `FSCONFIG_SET_FD`, and no other command of fsconfig(2), is EINVAL in this thread.
fn refuse_settings_by_descriptor() {
    const LOAD: u16 = 0x20;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const EINVAL: u32 = 0x0005_0016;
    let instruction = |code, jt, jf, k| Instruction { code, jt, jf, k };
    // struct seccomp_data: the call's number, and the lower half of its second argument.
    let program = [
        instruction(LOAD, 0, 0, 0),
        instruction(IF_EQUAL, 0, 3, FSCONFIG),
        instruction(LOAD, 0, 0, 24),
        instruction(IF_EQUAL, 0, 1, 5),
        instruction(RETURN, 0, 0, EINVAL),
        instruction(RETURN, 0, 0, ALLOW),
    ];
    kernel::seccomp::load(&program, FilterFlags::default()).unwrap();
}

#[track_caller]
fn owners_are_shifted() {
    let coracle = Coracle::with_busybox();
    let mut container = Running::start(&coracle, &["--userns", "auto", "busybox"]);
    assert_eq!(container.ask("id -u; stat -c %u:%g /bin/busybox"), "0\n0:0");
    assert_eq!(container.ask("stat -c %u /home/alice /proc/1 /dev/null").lines().nth(1), Some("0"));
    assert_eq!(container.ask("touch /made && chown 1000:1000 /made && stat -c %u:%g /made"), "1000:1000");
    let first = std::fs::metadata(format!("/proc/{}", container.pid)).unwrap().uid();
    assert!(first >= 65_536, "its root is {first} outside");
    let made = coracle.root().join("containers").join(&container.id).join("changes0/made");
    let made = std::fs::metadata(made).unwrap();
    assert_eq!((made.uid(), made.gid()), (first + 1000, first + 1000));
    // The host's root owns nothing in there: what was not mapped cannot be had.
    assert!(container.ask("chown 100000:0 /made").contains("Invalid argument"));
    assert_eq!(container.end(), 0);
    coracle.assert_nothing_left();
}

#[test]
fn init_reaps_and_passes_signals_on() {
    let coracle = Coracle::with_busybox();
    let mut container = Running::start(&coracle, &["--init", "busybox"]);
    assert!(container.ask("tr '\\0' ' ' < /proc/1/cmdline").starts_with("coracle-init "));
    // An orphan, which the shell never waits for.
    container.ask("sh -c '(sleep 0.1 &)'");
    let count = "grep -l '^Name:.sleep$' /proc/[0-9]*/status | wc -l";
    while container.ask(count) != "0" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(container.end(), 0);
    for init in [&["--init"][..], &[]] {
        let script = "trap 'echo heard; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
        let args = [&["run", "--rm"], init, &["busybox", "sh", "-c", script]].concat();
        let mut child = coracle.command(&args).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("heard\n", Some(3)), "{init:?}");
    }
    coracle.assert_nothing_left();
}

#[test]
fn a_terminal_of_its_own_follows_the_users() {
    if Command::new("script").arg("--version").output().is_err() {
        println!("SKIP: isolation::a_terminal_of_its_own_follows_the_users: no script(1)");
        return;
    }
    let coracle = Coracle::with_busybox();
    let inside = "tty; stty size; until [ \"$(stty size)\" = \"40 90\" ]; do sleep 0.05; done; echo resized";
    let line = format!(
        "tty; stty rows 33 cols 77; {} --root {} --state {} run --rm -it busybox sh -c '{inside}'",
        binaries().join("coracle").display(),
        coracle.root().display(),
        coracle.state().display()
    );
    let mut script = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Kept open: its end would be typed.
    let input = script.stdin.take();
    let mut lines = BufReader::new(script.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let users = lines.next().unwrap().trim().to_owned();
    assert_eq!(lines.next().unwrap().trim(), "/dev/pts/0");
    assert_eq!(lines.next().unwrap().trim(), "33 77");
    let resized = Command::new("stty").args(["-F", &users, "rows", "40", "cols", "90"]).status().unwrap();
    assert!(resized.success());
    assert_eq!(lines.next().unwrap().trim(), "resized");
    assert!(script.wait().unwrap().success());
    drop(input);
    coracle.assert_nothing_left();
}
