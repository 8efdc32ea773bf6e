//! Where systemd is pid 1: a container's own scope, as an OCI runtime with the systemd driver has it made.
//!
//! These run in a virtual machine that systemd booted, as root and as a user with a systemd of its own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use cgroup::{Access, Description, DeviceKind, DeviceRule, Error, Group, Hierarchy, Limits, Unit};

use crate::machine::{Guarded, Process, name};

/// Whether this is such a machine; said if not.
fn is_here(test: &str) -> bool {
    let here = std::env::var_os("CORACLE_TEST_SYSTEMD").is_some();
    if !here {
        println!("SKIP: systemd::{test}: runs in the virtual machine that systemd boots");
    }
    here
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The tool of this user's systemd.
fn systemctl(arguments: &[&str]) -> String {
    let mut command = Command::new("systemctl");
    if !is_root() {
        command.arg("--user");
    }
    let output = command.args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn property(unit: &Unit, name: &str) -> String {
    systemctl(&["show", "--value", "-p", name, unit.name()])
}

fn sleeper() -> Process {
    Process(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap())
}

/// The group of a process in the tree of version 2.
fn group_of(pid: u32) -> String {
    let text = fs_err::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

fn directory(group: &Group) -> PathBuf {
    group.description().directories[""].clone()
}

fn content(group: &Group, file: &str) -> String {
    fs_err::read_to_string(directory(group).join(file)).unwrap().trim().to_owned()
}

fn limits(pids: i64, memory: i64) -> Limits {
    let mut limits = Limits { pids: Some(pids), ..Limits::default() };
    limits.memory.limit = Some(memory);
    limits.cpu.quota = Some(50_000);
    limits
}

#[test]
fn a_container_has_a_scope_of_its_own_until_it_is_removed() {
    if !is_here("a_container_has_a_scope_of_its_own_until_it_is_removed") {
        return;
    }
    let hierarchy = Hierarchy::detect().unwrap();
    let id = name("own");
    let unit = Unit::of_path(Some(&format!("outer-inner.slice:test:{id}")), &id).unwrap();
    let sleeper = sleeper();
    let pid = sleeper.0.id();
    let group = Group::create_in_unit(&hierarchy, &unit, "a test of coracle", pid, &limits(20, 1 << 26));
    let mut group = Guarded(group.unwrap());
    let expected = format!("/outer.slice/outer-inner.slice/test-{id}.scope");
    assert!(group_of(pid).ends_with(&expected), "{}", group_of(pid));
    assert!(directory(&group.0).to_string_lossy().ends_with(&expected));
    assert_eq!(group.0.processes().unwrap(), [pid]);
    for (name, value) in [
        ("Slice", "outer-inner.slice"),
        ("Description", "a test of coracle"),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("TasksMax", "20"),
        ("MemoryMax", "67108864"),
        ("CPUQuotaPerSecUSec", "500ms"),
    ] {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    assert_eq!(content(&group.0, "pids.max"), "20");
    group.0.update(&limits(30, 1 << 27)).unwrap();
    // It writes what it knows again.
    systemctl(&["daemon-reload"]);
    assert_eq!((property(&unit, "TasksMax").as_str(), content(&group.0, "pids.max").as_str()), ("30", "30"));
    assert_eq!(content(&group.0, "memory.max"), (1 << 27).to_string());
    assert_eq!(content(&group.0, "cpu.max"), "50000 100000");

    let text = serde_json::to_string(&group.0.description()).unwrap();
    let described: Description = serde_json::from_str(&text).unwrap();
    let again = Group::open_described(&hierarchy, &described).unwrap().unwrap();
    again.freeze(true).unwrap();
    assert!(group.0.is_frozen().unwrap());
    again.freeze(false).unwrap();
    again.kill().unwrap();
    again.remove().unwrap();
    assert_eq!(property(&unit, "LoadState"), "not-found");
    assert!(!directory(&group.0).exists());
    again.remove().unwrap();
}

#[test]
fn a_scope_without_limits_has_none_of_systemds_and_a_name_is_taken_once() {
    if !is_here("a_scope_without_limits_has_none_of_systemds_and_a_name_is_taken_once") {
        return;
    }
    let hierarchy = Hierarchy::detect().unwrap();
    let id = name("bare");
    let unit = Unit::of_path(None, &id).unwrap();
    let (first, second) = (sleeper(), sleeper());
    let create = |pid| Group::create_in_unit(&hierarchy, &unit, "a test", pid, &Limits::default());
    let group = Guarded(create(first.0.id()).unwrap());
    assert_eq!(content(&group.0, "pids.max"), "max");
    assert_eq!(property(&unit, "Slice"), if is_root() { "system.slice" } else { "user.slice" });
    let error = create(second.0.id()).unwrap_err();
    assert!(matches!(error, Error::Unit { act: "start", .. }), "{error}");
    assert!(!group_of(second.0.id()).contains(&id));
}

#[test]
fn no_scope_is_left_of_a_process_that_died_before() {
    if !is_here("no_scope_is_left_of_a_process_that_died_before") {
        return;
    }
    let hierarchy = Hierarchy::detect().unwrap();
    let id = name("dead");
    let unit = Unit::of_path(None, &id).unwrap();
    let mut dead = sleeper();
    dead.0.kill().unwrap();
    let stat = || fs_err::read_to_string(format!("/proc/{}/stat", dead.0.id())).unwrap();
    while !stat().contains(") Z ") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let error = Group::create_in_unit(&hierarchy, &unit, "a test", dead.0.id(), &Limits::default());
    assert!(error.unwrap_err().to_string().contains(unit.name()));
    assert_eq!(property(&unit, "LoadState"), "not-found");
    // One that is in use stays.
    let alive = sleeper();
    let group = Group::create_in_unit(&hierarchy, &unit, "a test", alive.0.id(), &Limits::default());
    let group = Guarded(group.unwrap());
    unit.stop_if_empty().unwrap();
    assert_eq!(group.0.processes().unwrap(), [alive.0.id()]);
}

#[test]
fn devices_are_denied_and_stay_so_when_systemd_is_reloaded() {
    if !is_here("devices_are_denied_and_stay_so_when_systemd_is_reloaded") || !is_root() {
        return;
    }
    let hierarchy = Hierarchy::detect().unwrap();
    let unit = Unit::of_path(None, &name("devices")).unwrap();
    let rules = |minors: &[u32]| {
        let rule = |allow, minor: Option<u32>| DeviceRule {
            allow,
            kind: if allow { DeviceKind::Character } else { DeviceKind::All },
            major: minor.map(|_| 1),
            minor,
            access: Access::ALL,
        };
        let allowed = minors.iter().map(|minor| rule(true, Some(*minor)));
        Limits { devices: [rule(false, None)].into_iter().chain(allowed).collect(), ..Limits::default() }
    };
    let sleeper = sleeper();
    let group = Group::create_in_unit(&hierarchy, &unit, "a test", sleeper.0.id(), &rules(&[3, 7]));
    let mut group = Guarded(group.unwrap());
    group.0.limit_devices(&rules(&[3, 7])).unwrap();
    let null_and_zero = |group: &Guarded| {
        let try_both = "for d in null zero; do (: < /dev/$d) 2> /dev/full && echo yes || echo no; done";
        group.shell(try_both).output().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(null_and_zero(&group), "yes no");
    assert_eq!(property(&unit, "DevicePolicy"), "strict");
    systemctl(&["daemon-reload"]);
    assert_eq!(null_and_zero(&group), "yes no");
    group.0.update(&rules(&[5, 7])).unwrap();
    assert_eq!(null_and_zero(&group), "no yes");
    systemctl(&["daemon-reload"]);
    assert_eq!(null_and_zero(&group), "no yes");
}
