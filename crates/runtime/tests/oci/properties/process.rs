//! `process`: what the program is and what it may.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::bundle::{Bundle, State};
use crate::socket::{Socket, read_until};

/// A field of a file like /proc/self/status.
#[track_caller]
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

const STATUS: &str = "cat /proc/self/status";

/// /dev with a devpts of the container's own, as a terminal needs.
fn with_devpts(bundle: &mut Bundle) {
    bundle.mount(json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}));
    bundle.mount(json!({
        "destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
    }));
}

#[test]
fn terminal_goes_over_the_console_socket() {
    let mut bundle = bundle!();
    with_devpts(&mut bundle);
    bundle.set("/process/terminal", true);
    bundle.set("/process/consoleSize", json!({"height": 33, "width": 77}));
    bundle.script("tty; stty size; test -c /dev/console && test -t 0 && test -t 1 && test -t 2 && echo all; cat /proc/self/stat; read x");
    bundle.write_config();
    let path = bundle.directory().join("console");
    let socket = Socket::listen(&path);
    bundle.ok(&["create", "--bundle", "{bundle}", "--console-socket", path.to_str().unwrap(), "{id}"]);
    let message = socket.take();
    assert_eq!(message.descriptors.len(), 1);
    bundle.start();
    let text = read_until(message.descriptors.into_iter().next().unwrap(), "(cat)");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("/dev/pts/") || lines[0] == "/dev/console", "{text}");
    assert_eq!(lines[1..3], ["33 77", "all"], "{text}");
    // The seventh field: the controlling terminal.
    assert_ne!(lines[3].split(' ').nth(6).unwrap_or("0"), "0", "{text}");
}

#[test]
fn terminal_of_exec_goes_over_its_own_socket() {
    let mut bundle = bundle!();
    with_devpts(&mut bundle);
    bundle.bring(State::Running);
    let path = bundle.directory().join("console");
    let socket = Socket::listen(&path);
    let (process, pid) = (bundle.path("process.json"), bundle.path("pid"));
    let json = json!({"terminal": true, "consoleSize": {"height": 11, "width": 22}, "user": {"uid": 0, "gid": 0},
        "args": ["/bin/sh", "-c", "stty size; read x"], "env": ["PATH=/bin"], "cwd": "/"});
    std::fs::write(&process, json.to_string()).unwrap();
    let console = path.to_str().unwrap();
    let args =
        ["exec", "--detach", "--console-socket", console, "--process", &process, "--pid-file", &pid, "{id}"];
    bundle.ok(&args);
    let message = socket.take();
    let text = read_until(message.descriptors.into_iter().next().unwrap(), "22");
    assert_eq!(text.trim(), "11 22");
}

/// With a terminal and nobody to take it, or a socket and no terminal.
#[test]
fn terminal_without_a_socket_is_refused() {
    let mut bundle = bundle!();
    bundle.set("/process/terminal", true);
    bundle.write_config();
    let ran = bundle.run(&["create", "--bundle", "{bundle}", "{id}"]);
    let error = ran.errors().pop().unwrap();
    assert!(
        error.contains("cannot allocate tty if ")
            && error.contains(" will detach without setting console socket"),
        "{ran:?}"
    );
    bundle.set("/process/terminal", false);
    bundle.write_config();
    let ran = bundle.run(&["create", "--bundle", "{bundle}", "--console-socket", "/nonexistent", "{id}"]);
    let error = ran.errors().pop().unwrap();
    assert!(
        error.contains("cannot use console socket if ") && error.contains(" will not detach or allocate tty"),
        "{ran:?}"
    );
    bundle.assert_nothing_left();
}

#[test]
fn user_is_uid_gid_and_additional_gids() {
    let mut bundle = bundle!();
    bundle.set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7, 8]}));
    let status = bundle.inside(STATUS);
    assert_eq!(field(&status, "Uid"), "5\t5\t5\t5");
    assert_eq!(field(&status, "Gid"), "6\t6\t6\t6");
    assert_eq!(field(&status, "Groups"), "7 8");
    // None but those: not the groups of who started the runtime.
    bundle.set("/process/user", json!({"uid": 5, "gid": 6}));
    assert_eq!(field(&bundle.inside(STATUS), "Groups"), "");
}

#[test]
fn umask_is_set() {
    let mut bundle = bundle!();
    bundle.set("/process/user/umask", 0o027);
    assert_eq!(bundle.inside("umask; touch /f; stat -c %a /f"), "0027\n640\n");
    bundle.remove("/process/user/umask");
    assert_eq!(bundle.inside("umask"), "0022\n");
}

#[test]
fn args_are_passed_as_they_are() {
    let mut bundle = bundle!();
    bundle.set("/process/args", json!(["/bin/printf", "[%s]", "a b", "", "*", "ü", "$HOME"]));
    assert_eq!(bundle.run_container().out, "[a b][][*][ü][$HOME]");
    // Found on the container's PATH, not on the runtime's; the zeroth argument is as it was written.
    bundle.set("/process/args", json!(["sh", "-c", "echo $0; readlink /proc/self/exe"]));
    assert_eq!(bundle.run_container().out, "sh\n/bin/busybox\n");
    bundle.set("/process/env", json!(["PATH=/nonexistent"]));
    assert!(bundle.refused().contains("executable file not found in $PATH"));
}

#[test]
fn env_is_what_was_asked_and_home() {
    let mut bundle = bundle!();
    bundle.set("/process/args", json!(["/bin/env"]));
    bundle.set("/process/env", json!(["PATH=/bin", "A=1", "B=a b=c", "C=", "HOME=/h"]));
    assert_eq!(bundle.run_container().out, "PATH=/bin\nA=1\nB=a b=c\nC=\nHOME=/h\n");
    // HOME of the user, where it is not given.
    bundle.set("/process/env", json!(["PATH=/bin"]));
    assert_eq!(bundle.run_container().out, "PATH=/bin\nHOME=/\n");
    std::fs::write(
        bundle.rootfs().join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nu:x:5:5::/home/u:/bin/sh\n",
    )
    .unwrap();
    assert_eq!(bundle.run_container().out, "PATH=/bin\nHOME=/root\n");
    bundle.set("/process/user/uid", 5);
    assert_eq!(bundle.run_container().out, "PATH=/bin\nHOME=/home/u\n");
}

#[test]
fn cwd_is_where_it_starts() {
    let mut bundle = bundle!();
    bundle.set("/process/cwd", "/etc");
    assert_eq!(bundle.inside("pwd; readlink /proc/self/cwd"), "/etc\n/etc\n");
    // Made where it is missing, and entered with root's rights also for a user who may not.
    bundle.set("/process/cwd", "/new/deep");
    assert_eq!(bundle.inside("pwd"), "/new/deep\n");
    let closed = bundle.rootfs().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    bundle.set("/process/cwd", "/closed").set("/process/user", json!({"uid": 5, "gid": 5}));
    assert_eq!(bundle.inside("pwd"), "/closed\n");
}

/// The bounding, permitted, effective, inheritable and ambient sets.
#[track_caller]
fn sets(bundle: &mut Bundle) -> [u64; 5] {
    let status = bundle.inside(STATUS);
    ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"]
        .map(|name| u64::from_str_radix(field(&status, name), 16).unwrap())
}

const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const NET_RAW: u64 = 1 << 13;

#[test]
fn capabilities_of_each_set() {
    let mut bundle = bundle!();
    // As root, execve gives all that is bounding.
    bundle.capabilities(&["CAP_KILL", "CAP_CHOWN"]);
    assert_eq!(sets(&mut bundle), [KILL | CHOWN, KILL | CHOWN, KILL | CHOWN, 0, 0]);
    bundle.set("/process/capabilities/inheritable", json!(["CAP_KILL"]));
    assert_eq!(sets(&mut bundle)[3], KILL);
    bundle.capabilities(&[]);
    assert_eq!(sets(&mut bundle), [0; 5]);
    // None at all named: none.
    bundle.remove("/process/capabilities");
    assert_eq!(sets(&mut bundle), [0; 5]);
    // As another user, what is ambient.
    bundle.set("/process/user/uid", 5).set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"],
            "permitted": ["CAP_KILL", "CAP_NET_RAW"],
            "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL", "CAP_NET_RAW"],
            "ambient": ["CAP_KILL"],
        }),
    );
    assert_eq!(sets(&mut bundle), [KILL | CHOWN | NET_RAW, KILL, KILL, KILL | NET_RAW, KILL]);
    bundle.remove("/process/capabilities/ambient");
    assert_eq!(sets(&mut bundle), [KILL | CHOWN | NET_RAW, 0, 0, KILL | NET_RAW, 0]);
}

/// One that the kernel does not know is said, and does not keep the container from running.
#[test]
fn capabilities_that_are_unknown_are_warned_of() {
    let mut bundle = bundle!();
    bundle.capabilities(&["CAP_KILL", "CAP_NOPE"]).script("true");
    let ran = bundle.run_container();
    assert!(ran.code == 0 && ran.err.contains("level=warning") && ran.err.contains("CAP_NOPE"), "{ran:?}");
}

#[test]
fn rlimits_of_each_type() {
    let mut bundle = bundle!();
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    // The kernel's name in the file, and a soft and hard limit to lower to.
    let wanted: [(&str, &str, u64, u64); 16] = [
        ("AS", "Max address space", 1 << 41, 1 << 42),
        ("CORE", "Max core file size", 1, 2),
        ("CPU", "Max cpu time", 1000, 1001),
        ("DATA", "Max data size", 1 << 40, 1 << 41),
        ("FSIZE", "Max file size", 1 << 30, 1 << 31),
        ("LOCKS", "Max file locks", 20, 21),
        ("MEMLOCK", "Max locked memory", 4096, 8192),
        ("MSGQUEUE", "Max msgqueue size", 1000, 2000),
        ("NICE", "Max nice priority", 0, 0),
        ("NOFILE", "Max open files", 100, 200),
        ("NPROC", "Max processes", 4000, 5000),
        ("RSS", "Max resident set", 1 << 30, 1 << 31),
        ("RTPRIO", "Max realtime priority", 0, 0),
        ("RTTIME", "Max realtime timeout", 1_000_000, 2_000_000),
        ("SIGPENDING", "Max pending signals", 100, 200),
        ("STACK", "Max stack size", 1 << 20, 1 << 21),
    ];
    let limits: Vec<Value> = wanted
        .iter()
        .map(|(name, _, soft, hard)| json!({"type": format!("RLIMIT_{name}"), "soft": soft, "hard": hard}))
        .collect();
    bundle.set("/process/rlimits", limits);
    let limits = bundle.inside("cat /proc/self/limits");
    for (_, name, soft, hard) in wanted {
        let row = |text: &str| -> Vec<String> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().take(2).map(str::to_owned).collect()
        };
        assert_eq!(row(&limits), [soft.to_string(), hard.to_string()], "{name}; ours was {:?}", row(&own));
    }
    // A type that is named twice is an error by the specification; runc takes the last.
    if crate::under_test::runc().is_none() {
        let core = json!({"type": "RLIMIT_CORE", "soft": 1, "hard": 1});
        bundle.set("/process/rlimits", json!([core, core]));
        assert!(bundle.refused().contains("RLIMIT_CORE"));
    }
    // A soft limit above the hard one.
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]));
    bundle.refused();
    bundle.assert_nothing_left();
}

#[test]
fn no_new_privileges_is_set_or_not() {
    let mut bundle = bundle!();
    bundle.set("/process/noNewPrivileges", true);
    assert_eq!(field(&bundle.inside(STATUS), "NoNewPrivs"), "1");
    bundle.set("/process/noNewPrivileges", false);
    assert_eq!(field(&bundle.inside(STATUS), "NoNewPrivs"), "0");
}

#[test]
fn oom_score_adj_is_set_or_inherited() {
    let mut bundle = bundle!();
    bundle.set("/process/oomScoreAdj", 321);
    assert_eq!(bundle.inside("cat /proc/self/oom_score_adj"), "321\n");
    bundle.remove("/process/oomScoreAdj");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(bundle.inside("cat /proc/self/oom_score_adj"), own);
    bundle.set("/process/oomScoreAdj", 5000);
    bundle.refused();
    bundle.assert_nothing_left();
}

/// Numbers of /proc/self/stat: nice, real-time priority and policy, of the shell and of a child of it.
const SCHEDULING: &str = "read -r line < /proc/self/stat; set -- $line; echo ${19} ${40} ${41}";

#[test]
fn scheduler_is_set() {
    let mut bundle = bundle!("process.scheduler");
    bundle.set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 5}));
    assert_eq!(bundle.inside(SCHEDULING), "5 0 3\n");
    bundle.set("/process/scheduler", json!({"policy": "SCHED_IDLE"}));
    assert_eq!(bundle.inside(SCHEDULING), "0 0 5\n");
    bundle.set("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 7}));
    assert_eq!(bundle.inside(SCHEDULING), "7 0 0\n");
    bundle.set("/process/scheduler", json!({"policy": "SCHED_NOPE"}));
    bundle.refused();
}

#[test]
fn scheduler_of_real_time_with_flags() {
    let mut bundle = bundle!("process.scheduler");
    if std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        skip!("groups of version 1 have no time for realtime programs");
    }
    let fifo = json!({"policy": "SCHED_FIFO", "priority": 10, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    bundle.set("/process/scheduler", fifo);
    let child = format!("sh -c '{SCHEDULING}'; :");
    assert_eq!(bundle.inside(&format!("{SCHEDULING}; {child}")), "0 10 1\n0 0 0\n");
    let deadline = json!({
        "policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 30_000_000, "period": 40_000_000,
        "flags": ["SCHED_FLAG_RESET_ON_FORK"],
    });
    bundle.set("/process/scheduler", deadline);
    assert!(bundle.inside(SCHEDULING).ends_with(" 6\n"));
}

#[test]
fn io_priority_is_set() {
    let mut bundle = bundle!("process.ioPriority");
    for (class, priority, says) in [
        ("IOPRIO_CLASS_BE", 5, "best-effort: prio 5\n"),
        ("IOPRIO_CLASS_RT", 2, "realtime: prio 2\n"),
        ("IOPRIO_CLASS_IDLE", 0, "idle\n"),
    ] {
        bundle.set("/process/ioPriority", json!({"class": class, "priority": priority}));
        let out = bundle.inside("ionice -p $$");
        assert!(out == says || out == says.replace('\n', ": prio 0\n"), "{class}: {out}");
    }
}

#[test]
fn exec_cpu_affinity_is_set_for_exec() {
    let mut bundle = bundle!("process.execCPUAffinity");
    if std::thread::available_parallelism().unwrap().get() < 2 {
        skip!("one CPU");
    }
    bundle.set("/process/execCPUAffinity", json!({"initial": "0", "final": "1"}));
    bundle.bring(State::Running);
    assert!(bundle.exec("grep Cpus_allowed_list /proc/self/status").ends_with("\t1\n"));
    // Init's own is not touched.
    assert!(!bundle.exec("grep Cpus_allowed_list /proc/1/status").ends_with("\t1\n"));
}

#[test]
fn a_selinux_label_is_refused_where_selinux_is_off() {
    let mut bundle = bundle!();
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        skip!("SELinux is on");
    }
    bundle.set("/process/selinuxLabel", "system_u:system_r:container_t:s0");
    let error = bundle.refused();
    assert!(error.to_lowercase().contains("selinux"), "{error}");
    bundle.assert_nothing_left();
}

#[test]
fn an_apparmor_profile_is_refused_where_apparmor_is_off() {
    let mut bundle = bundle!();
    if std::path::Path::new("/sys/module/apparmor/parameters/enabled").exists() {
        skip!("AppArmor is on");
    }
    bundle.set("/process/apparmorProfile", "docker-default");
    let error = bundle.refused();
    assert!(error.to_lowercase().contains("apparmor"), "{error}");
    bundle.assert_nothing_left();
}
