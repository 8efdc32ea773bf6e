//! Limits: enforced as the table in `docs/limits.md` says, or refused with what to do.

use crate::coracle::{Coracle, is_root};
use crate::running::Running;
use crate::talk::can_limit;

/// What a control file of the container's group says; none where this machine limits by another file.
#[track_caller]
fn setting(container: &Running, controller: &str, file: &str) -> Option<String> {
    let path = container.group(controller)?.join(file);
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// One option, and what the kernel says then: the controller, its file and text for version 2, and the same for version 1.
type Case<'a> = (&'a [&'a str], &'a str, (&'a str, &'a str), (&'a str, &'a str));

const CASES: [Case<'_>; 8] = [
    (&["--pids-limit", "20"], "pids", ("pids.max", "20"), ("pids.max", "20")),
    (
        &["--memory", "50m", "--memory-swap", "50m"],
        "memory",
        ("memory.max", "52428800"),
        ("memory.limit_in_bytes", "52428800"),
    ),
    (
        &["--memory", "50m", "--memory-reservation", "20m"],
        "memory",
        ("memory.low", "20971520"),
        ("memory.soft_limit_in_bytes", "20971520"),
    ),
    (&["--cpus", "0.5"], "cpu", ("cpu.max", "50000 100000"), ("cpu.cfs_quota_us", "50000")),
    (
        &["--cpu-quota", "20000", "--cpu-period", "50000"],
        "cpu",
        ("cpu.max", "20000 50000"),
        ("cpu.cfs_period_us", "50000"),
    ),
    (&["--cpu-shares", "1024"], "cpu", ("cpu.weight", "100"), ("cpu.shares", "1024")),
    (&["--cpuset-cpus", "0"], "cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0")),
    (&["--cpuset-mems", "0"], "cpuset", ("cpuset.mems", "0"), ("cpuset.mems", "0")),
];

#[test]
fn each_limit_is_what_the_kernel_holds() {
    let coracle = Coracle::with_busybox();
    if !can_limit(&coracle) {
        return;
    }
    for (options, controller, version_2, version_1) in CASES {
        if !is_root() && !is_delegated(&coracle, options) {
            continue;
        }
        let container = Running::start(&coracle, &[options, &["busybox"]].concat());
        let told = [version_2, version_1]
            .map(|(file, expected)| (setting(&container, controller, file), expected.to_owned()));
        let held = told.iter().any(|(found, expected)| found.as_ref() == Some(expected));
        assert!(held, "{options:?}: {told:?} in {:?}", container.group(controller));
        assert_eq!(container.end(), 0);
    }
    coracle.assert_nothing_left();
}

/// A user may have been given some controllers only; for another one the answer is a refusal that says how to get it.
fn is_delegated(coracle: &Coracle, options: &[&str]) -> bool {
    let ran = coracle.run(&[&["run", "--rm"], options, &["busybox", "true"]].concat());
    let refused = ran.code == 125 && ran.err.contains("to do: ") && ran.err.contains("elegat");
    assert!(ran.code == 0 || refused, "{options:?}: {ran:?}");
    ran.code == 0
}

#[test]
fn limits_hold_together() {
    let coracle = Coracle::with_busybox();
    if !can_limit(&coracle) {
        return;
    }
    let options = ["--pids-limit", "30", "--memory", "64m", "--cpus", "1", "--shm-size", "8m", "busybox"];
    let mut container = Running::start(&coracle, &options);
    assert_eq!(setting(&container, "pids", "pids.max").as_deref(), Some("30"));
    // --memory alone limits memory and swap to twice as much.
    let swap = setting(&container, "memory", "memory.swap.max")
        .or_else(|| setting(&container, "memory", "memory.memsw.limit_in_bytes"));
    if let Some(swap) = swap {
        assert!(swap == "67108864" || swap == "134217728", "{swap}");
    }
    assert_eq!(container.ask("df -m /dev/shm | awk 'END { print $2 }'"), "8");
    // A program below the first one is ended; the first one goes on.
    let ended = container.ask("dd if=/dev/zero of=/dev/null bs=300M count=1; echo ended $?");
    assert!(ended.contains("ended 137") || ended.contains("out of memory"), "{ended}");
    assert_eq!(container.end(), 0);
    coracle.assert_nothing_left();
}

#[test]
fn what_is_not_a_limit_is_refused_with_the_accepted_forms() {
    let coracle = Coracle::with_busybox();
    let wrong: [&[&str]; 10] = [
        &["--memory", "lots"],
        &["--memory", "1k"],
        &["--memory-swap", "50m"],
        &["--memory", "50m", "--memory-swap", "20m"],
        &["--cpus=-1"],
        &["--cpus", "100000"],
        &["--cpu-period", "1"],
        &["--pids-limit", "many"],
        &["--cpuset-cpus", "0-"],
        &["--blkio-weight", "5"],
    ];
    for options in wrong {
        let ran = coracle.run(&[&["run", "--rm"], options, &["busybox", "true"]].concat());
        assert_eq!(ran.code, 125, "{options:?}: {ran:?}");
        let name = options[0].split('=').next().unwrap();
        assert!(ran.err.contains(name) && ran.err.contains("to do: "), "{options:?}: {}", ran.err);
    }
    // A processor that this machine does not have.
    let ran = coracle.run(&["run", "--rm", "--cpuset-cpus", "4095", "busybox", "true"]);
    assert_eq!((ran.code, ran.err.contains("4095") || ran.err.contains("elegat")), (125, true), "{ran:?}");
    coracle.assert_nothing_left();
}

#[test]
fn resource_limits_of_processes_are_set() {
    let coracle = Coracle::with_busybox();
    let options = ["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--oom-score-adj", "500", "busybox"];
    let mut container = Running::start(&coracle, &options);
    assert_eq!(container.ask("ulimit -n; ulimit -Hn; ulimit -c"), "100\n200\n0");
    assert_eq!(container.ask("cat /proc/self/oom_score_adj"), "500");
    assert_eq!(container.end(), 0);
    if !is_root() {
        let ran = coracle.run(&["run", "--rm", "--ulimit", "nofile=2000000000", "busybox", "true"]);
        assert_eq!((ran.code, ran.err.contains("ulimit -aH")), (125, true), "{ran:?}");
    }
    coracle.assert_nothing_left();
}

#[test]
fn a_parent_group_can_be_chosen() {
    if !is_root() {
        println!("SKIP: limits::a_parent_group_can_be_chosen: groups anywhere are root's");
        return;
    }
    let coracle = Coracle::with_busybox();
    let parent = format!("coracle-test-{}", std::process::id());
    let options = ["--cgroup-parent", &parent, "--pids-limit", "9", "busybox"];
    let container = Running::start(&coracle, &options);
    let group = container.group("pids").unwrap().to_owned();
    assert!(group.parent().unwrap().ends_with(&parent), "{}", group.display());
    let parents: Vec<_> =
        container.groups.iter().map(|(_, group)| group.parent().unwrap().to_owned()).collect();
    assert_eq!(container.end(), 0);
    // It is the asker's, so it stays; this test takes it away again.
    for parent in parents {
        let _ = std::fs::remove_dir(parent);
    }
    coracle.assert_nothing_left();
}
