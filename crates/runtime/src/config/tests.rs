use serde_json::{Value, json};

use super::*;

/// The configuration to begin with, changed at one place.
fn with(pointer: &str, value: Value) -> Result<Vec<Warning>> {
    let mut document = serde_json::to_value(crate::template::default_spec(false)).unwrap();
    put(&mut document, pointer, value);
    check(&parse("config.json", document.to_string().as_bytes())?)
}

fn put(document: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
    match parent {
        Value::Array(list) => list.push(value),
        parent => parent[key] = value,
    }
}

#[track_caller]
fn refused(pointer: &str, value: Value, text: &str) {
    match with(pointer, value.clone()) {
        Ok(warnings) => panic!("{pointer} {value} is accepted: {warnings:?}"),
        Err(error) => assert_eq!(error.to_string(), format!("config.json: {text}")),
    }
}

#[track_caller]
fn accepted(pointer: &str, value: Value) {
    assert_eq!(with(pointer, value).unwrap(), [], "{pointer}");
}

#[test]
fn a_missing_file_is_told_in_runcs_words() {
    let error = read(Path::new("/nowhere")).unwrap_err();
    assert_eq!(error.to_string(), "JSON specification file config.json not found");
}

#[test]
fn a_bundle_is_read() {
    let directory = std::env::temp_dir().join(format!("coracle-config-{}", std::process::id()));
    fs_err::create_dir_all(&directory).unwrap();
    let spec = crate::template::default_spec(false);
    fs_err::write(directory.join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    let found = read(&directory);
    fs_err::write(directory.join("config.json"), "{\"ociVersion\":1}").unwrap();
    let wrong = read(&directory);
    fs_err::remove_dir_all(&directory).unwrap();
    assert_eq!(found.unwrap(), spec);
    let text = "config.json: ociVersion: invalid type: integer `1`, expected a string at line 1 column 15";
    assert_eq!(wrong.unwrap_err().to_string(), text);
}

#[test]
fn errors_of_form_name_the_place() {
    let of = |text: &str| parse::<Spec>("config.json", text.as_bytes()).unwrap_err().to_string();
    let text = of(r#"{"linux":{"namespaces":[{"type":"pid"},{"type":"ipc"},{"type":"net"}]}}"#);
    let start = "config.json: linux.namespaces[2].type: unknown variant `net`, expected one of `user`";
    assert!(text.starts_with(start), "{text}");
    let text = of(r#"{"linux":{"uidMappings":[{"hostID":1,"size":1}]}}"#);
    assert!(text.starts_with("config.json: linux.uidMappings[0]: missing field `containerID`"), "{text}");
    assert!(of("{} x").starts_with("config.json: trailing characters"), "{}", of("{} x"));
    assert!(of("").starts_with("config.json: EOF"), "{}", of(""));
    let text = of(r#"{"process":{"scheduler":{"policy":"SCHED_FAIR"}}}"#);
    assert!(
        text.starts_with("config.json: process.scheduler.policy: unknown variant `SCHED_FAIR`"),
        "{text}"
    );
}

#[test]
fn versions_of_the_same_major_are_taken() {
    for version in ["1.0.0", "1.0.2-dev", "1.3.0", "1.9.1+build"] {
        accepted("/ociVersion", json!(version));
    }
    let end = "; versions from 1.0.0 to 1.x are understood";
    for version in ["", "1", "1.0", "a.b.c", "1.0.0.0", "01.0.0", "1.0.-1"] {
        let text = format!("ociVersion {version:?}: not a semantic version, as in 1.2.0{end}");
        refused("/ociVersion", json!(version), &text);
    }
    refused("/ociVersion", json!("2.0.0"), &format!("ociVersion \"2.0.0\": another major version{end}"));
}

#[test]
fn what_is_needed_is_missed() {
    let text = "root.path: it is missing or empty, and a container has a root file system";
    refused("/root", Value::Null, text);
    refused("/root/path", json!(""), text);
    refused("/process", Value::Null, "process: it is missing or empty, and it is what the container runs");
    let text = "process.args: it is missing or empty, and it names the program";
    refused("/process/args", json!([]), text);
    refused("/process/args", Value::Null, text);
    // No program has this name, which is said as of any other.
    accepted("/process/args", json!([""]));
}

#[test]
fn rules_of_the_process() {
    refused("/process/cwd", json!("tmp"), "process.cwd \"tmp\": it is not an absolute path");
    refused("/process/cwd", json!(""), "process.cwd \"\": it is not an absolute path");
    accepted("/process/oomScoreAdj", json!(-1000));
    refused("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj 1001: it is not from -1000 to 1000");
    let twice = "process.rlimits[1].type \"RLIMIT_NOFILE\": it is there twice";
    refused("/process/rlimits/-", json!({ "type": "RLIMIT_NOFILE", "hard": 1, "soft": 1 }), twice);
    let unknown =
        "process.rlimits[1].type \"NOFILE\": not one of the limits of setrlimit(2), as in RLIMIT_NOFILE";
    refused("/process/rlimits/-", json!({ "type": "NOFILE", "hard": 1, "soft": 1 }), unknown);
    let more = "process.rlimits[1].soft \"2\": the soft limit is more than the hard one";
    refused("/process/rlimits/-", json!({ "type": "RLIMIT_CORE", "hard": 1, "soft": 2 }), more);
}

#[test]
fn unknown_capabilities_are_told_once_and_passed_over() {
    let document = json!({ "bounding": ["CAP_NEW", "CAP_KILL"], "permitted": ["CAP_NEW"] });
    let warnings = with("/process/capabilities", document).unwrap();
    let text = "config.json: process.capabilities.bounding[0] \"CAP_NEW\": this capability is not known, so it is not given";
    assert_eq!(warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
}

#[test]
fn rules_of_scheduling() {
    let at = "/process/scheduler";
    let nice = "process.scheduler.nice 20: it is not from -20 to 19";
    refused(at, json!({ "policy": "SCHED_OTHER", "nice": 20 }), nice);
    let priority = "process.scheduler.priority 0: it is not from 1 to 99";
    refused(at, json!({ "policy": "SCHED_FIFO" }), priority);
    let none = "process.scheduler.priority \"5\": only SCHED_FIFO and SCHED_RR have priorities";
    refused(at, json!({ "policy": "SCHED_BATCH", "priority": 5 }), none);
    let time = "process.scheduler.period \"7\": only SCHED_DEADLINE has it";
    refused(at, json!({ "policy": "SCHED_RR", "priority": 5, "period": 7 }), time);
    let rank = "process.ioPriority.priority 8: it is not from 0 to 7";
    refused("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_RT", "priority": 8 }), rank);
    let list = "process.execCPUAffinity.final \"3-1\": not a list of processors, as in 0-3,7";
    refused("/process/execCPUAffinity", json!({ "final": "3-1" }), list);
}

#[test]
fn rules_of_hooks() {
    let hook = |path: &str, timeout: i64| json!({ "poststop": [{ "path": path, "timeout": timeout }] });
    let text = "hooks.poststop[0].path \"bin/h\": it is not an absolute path";
    refused("/hooks", hook("bin/h", 1), text);
    let text = "hooks.poststop[0].timeout 0: it is not from 1 to 9223372036854775807";
    refused("/hooks", hook("/bin/h", 0), text);
}

#[test]
fn rules_of_namespaces() {
    let at = "/linux/namespaces";
    // On version 2 there is one of control groups too.
    let next = crate::template::default_spec(false).linux.unwrap().namespaces.len();
    let text = format!("linux.namespaces[{next}].type \"pid\": it is there twice");
    refused(&format!("{at}/-"), json!({ "type": "pid" }), &text);
    let text = format!("linux.namespaces[{next}].path \"ns\": it is not an absolute path");
    refused(&format!("{at}/-"), json!({ "type": "time", "path": "ns" }), &text);
    let bare = json!([{ "type": "mount" }]);
    refused(at, bare.clone(), "hostname \"runc\": it needs a uts namespace in linux.namespaces");
    let mount = "linux.namespaces[].type \"mount\": it is missing or empty, and without a mount namespace the container's root and \
                 mounts would be made in the host's";
    refused(at, json!([{ "type": "uts" }]), mount);
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    let text = "linux.uidMappings \"0 1000 1\": it needs a user namespace in linux.namespaces";
    refused("/linux/uidMappings", map, text);
    let user = "linux.uidMappings: it is missing or empty, and without it nobody could be anybody in the new user namespace";
    refused(&format!("{at}/-"), json!({ "type": "user" }), user);
    accepted("/domainname", json!("d"));
    let mut document = serde_json::to_value(crate::template::default_spec(false)).unwrap();
    put(&mut document, at, bare);
    put(&mut document, "/hostname", Value::Null);
    put(&mut document, "/domainname", json!("d"));
    let error = validate(&serde_json::from_value(document).unwrap()).unwrap_err().to_string();
    assert_eq!(error, "config.json: domainname \"d\": it needs a uts namespace in linux.namespaces");
}

#[test]
fn rules_of_mappings() {
    let with_maps = |map: Value| {
        let mut document = serde_json::to_value(crate::template::default_spec(true)).unwrap();
        put(&mut document, "/linux/gidMappings", map);
        validate(&serde_json::from_value(document).unwrap()).map(drop).map_err(|error| error.to_string())
    };
    let map = |inside: u32, outside: u32, size: u32| json!({ "containerID": inside, "hostID": outside, "size": size });
    assert_eq!(with_maps(json!([map(0, 0, u32::MAX)])), Ok(()));
    assert_eq!(with_maps(json!([map(0, 1000, 10), map(10, 2000, 5)])), Ok(()));
    for (maps, text) in [
        (json!([map(0, 1, 0)]), "[0] \"0 1 0\": the range is empty"),
        (json!([map(0, 2, u32::MAX)]), "[0] \"0 2 4294967295\": the range goes past the last id, 4294967294"),
        (json!([map(0, 5, 9), map(8, 50, 1)]), "[1] \"8 50 1\": the range has ids of one before it"),
        (json!([map(0, 5, 9), map(9, 13, 1)]), "[1] \"9 13 1\": the range has ids of one before it"),
    ] {
        assert_eq!(with_maps(maps), Err(format!("config.json: linux.gidMappings{text}")));
    }
}

#[test]
fn rules_of_time_offsets() {
    let offsets = json!({ "monotonic": { "secs": 5 } });
    let text = "linux.timeOffsets.monotonic \"5s 0ns\": it needs a time namespace in linux.namespaces";
    refused("/linux/timeOffsets", offsets.clone(), text);
    let text = "linux.timeOffsets \"realtime\": not one of monotonic and boottime";
    refused("/linux/timeOffsets", json!({ "realtime": {} }), text);
    let mut spec = crate::template::default_spec(false);
    let linux = spec.linux.as_mut().unwrap();
    linux.time_offsets = serde_json::from_value(offsets).unwrap();
    linux.namespaces.push(serde_json::from_value(json!({ "type": "time" })).unwrap());
    assert_eq!(validate(&spec).unwrap(), []);
    let last = spec.linux.as_mut().and_then(|linux| linux.namespaces.last_mut()).unwrap();
    last.path = Some("/proc/self/ns/time".into());
    let text = "config.json: linux.timeOffsets.monotonic \"5s 0ns\": it needs a new time namespace, and the container joins one";
    assert_eq!(validate(&spec).unwrap_err().to_string(), text);
}

#[test]
fn rules_of_kernel_parameters() {
    for name in [
        "kernel.shmmax",
        "fs.mqueue.msg_max",
        "net.ipv4.ip_forward",
        "net/ipv4/ip_forward",
        "kernel.domainname",
    ] {
        accepted("/linux/sysctl", json!({ name: "1" }));
    }
    let global = "it belongs to no namespace, so it would be set for the whole machine";
    for (name, reason) in [
        ("kernel.hostname", "use the configuration's hostname for it"),
        ("kernel.panic", global),
        ("vm.swappiness", global),
        ("net", global),
        ("net.ipv4/../../kernel/panic", "not the name of a parameter"),
        ("net..x", "not the name of a parameter"),
    ] {
        refused("/linux/sysctl", json!({ name: "1" }), &format!("linux.sysctl {name:?}: {reason}"));
    }
    let without = |namespaces: Value, name: &str| {
        let mut document = serde_json::to_value(crate::template::default_spec(false)).unwrap();
        put(&mut document, "/hostname", Value::Null);
        put(&mut document, "/linux/namespaces", namespaces);
        put(&mut document, "/linux/sysctl", json!({ name: "1" }));
        validate(&serde_json::from_value(document).unwrap()).unwrap_err().to_string()
    };
    let bare = json!([{ "type": "mount" }]);
    assert!(without(bare.clone(), "kernel.sem").ends_with("as the container has no ipc namespace"));
    assert!(without(bare.clone(), "kernel.domainname").ends_with("as the container has no uts namespace"));
    let network = "as the container has no network namespace of its own";
    assert!(without(bare, "net.core.somaxconn").ends_with(network));
    let hosts = json!([{ "type": "mount" }, { "type": "network", "path": "/proc/self/ns/net" }]);
    assert!(without(hosts, "net.core.somaxconn").ends_with(network));
    let nowhere = json!([{ "type": "mount" }, { "type": "network", "path": "/nowhere" }]);
    assert!(
        without(nowhere, "net.core.somaxconn").starts_with("config.json: linux.namespaces \"/nowhere\": ")
    );
}

#[test]
fn rules_of_mounts() {
    let at = "/mounts/-";
    let warnings = with(at, json!({ "destination": "data", "type": "tmpfs" })).unwrap();
    let text = "config.json: mounts[7].destination \"data\": a relative path, taken as one from /; write it as absolute path";
    assert_eq!(warnings[0].to_string(), text);
    let text = "mounts[7].destination: it is missing or empty, and it is where the mount appears";
    refused(at, json!({ "type": "tmpfs" }), text);
    let text = "mounts[7].source: it is missing or empty, and it is what a bind mount shows";
    refused(at, json!({ "destination": "/d", "options": ["rbind"] }), text);
    let copy = json!({ "destination": "/d", "type": "proc", "options": ["tmpcopyup"] });
    let text = "mounts[7].options \"tmpcopyup\": only a tmpfs can begin with a copy of what it hides";
    refused(at, copy, text);
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    let one = json!({ "destination": "/d", "source": "/s", "options": ["bind"], "uidMappings": map });
    let text = "mounts[7].gidMappings: it is missing or empty, and a mount is mapped by both, uidMappings and gidMappings";
    refused(at, one, text);
    let unlike = json!({ "destination": "/d", "type": "tmpfs", "uidMappings": map, "gidMappings": map });
    let text = "mounts[7].uidMappings \"/d\": only bind mounts can show their files with other owners";
    refused(at, unlike, text);
    let none = json!({ "destination": "/d", "source": "/s", "options": ["bind", "idmap"] });
    let text = "mounts[7].options \"idmap\": it needs a user namespace in linux.namespaces";
    refused(at, none, text);
}

#[test]
fn rules_of_devices_and_paths() {
    let device = |kind: &str, path: &str, major: i64| json!([{ "type": kind, "path": path, "major": major, "minor": 1 }]);
    accepted("/linux/devices", device("u", "/dev/x", 10));
    accepted("/linux/devices", json!([{ "type": "p", "path": "/dev/pipe" }]));
    let text = "linux.devices[0].type \"x\": not one of c, u, b and p";
    refused("/linux/devices", device("x", "/dev/x", 1), text);
    let text = "linux.devices[0].path \"x\": it is not an absolute path";
    refused("/linux/devices", device("c", "x", 1), text);
    let text = "linux.devices[0].major -1: it is not from 0 to 4095";
    refused("/linux/devices", device("c", "/dev/x", -1), text);
    for name in ["maskedPaths", "readonlyPaths"] {
        let text = format!("linux.{name}[0] \"proc\": it is not an absolute path");
        refused(&format!("/linux/{name}"), json!(["proc"]), &text);
    }
    let text = "linux.rootfsPropagation \"rw\": not one of private, slave, shared, unbindable, and these with an r before them";
    refused("/linux/rootfsPropagation", json!("rw"), text);
    accepted("/linux/rootfsPropagation", json!("rshared"));
    accepted("/linux/rootfsPropagation", json!(""));
    let text = "linux.resources.unified \"../cgroup.procs\": not the name of a file of a control group";
    refused("/linux/resources/unified", json!({ "../cgroup.procs": "1" }), text);
}

#[test]
fn rules_of_memory_policies() {
    let policy =
        |mode: &str, nodes: &str, flag: &str| json!({ "mode": mode, "nodes": nodes, "flags": [flag] });
    let at = "/linux/memoryPolicy";
    for (value, text) in [
        (json!({ "mode": "MPOL_BIND" }), "nodes: it is missing or empty, and this mode is about some nodes"),
        (json!({ "mode": "MPOL_LOCAL", "nodes": "1" }), "nodes \"1\": this mode takes no nodes"),
        (
            json!({ "mode": "MPOL_BIND", "nodes": "x" }),
            "nodes \"x\": not a list of memory nodes, as in 0-3,7",
        ),
        (
            policy("MPOL_INTERLEAVE", "0", "MPOL_F_NUMA_BALANCING"),
            "flags \"MPOL_F_NUMA_BALANCING\": only MPOL_BIND and MPOL_PREFERRED_MANY have it",
        ),
        (
            policy("MPOL_PREFERRED", "", "MPOL_F_STATIC_NODES"),
            "flags \"MPOL_F_STATIC_NODES\": it is about nodes, and there are none",
        ),
        (
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"] }),
            "flags \"MPOL_F_STATIC_NODES\": it excludes MPOL_F_RELATIVE_NODES",
        ),
    ] {
        refused(at, value, &format!("linux.memoryPolicy.{text}"));
    }
}

#[test]
fn rules_of_what_is_seldom_asked() {
    let flags = "linux.personality.flags \"X\": the specification has no such flags";
    refused("/linux/personality", json!({ "domain": "LINUX32", "flags": ["X"] }), flags);
    let id = "linux.intelRdt.closID \"..\": it is the name of a directory";
    refused("/linux/intelRdt", json!({ "closID": ".." }), id);
    let name = "linux.netDevices \"a/b\": not a name that a network device can have";
    refused("/linux/netDevices", json!({ "eth0": { "name": "a/b" } }), name);
    let twice = "linux.netDevices.eth1.name \"x\": it is there twice";
    let both = json!({ "eth0": { "name": "x" }, "eth1": { "name": "x" } });
    refused("/linux/netDevices", both, twice);
    for pointer in ["/process/apparmorProfile", "/process/selinuxLabel", "/linux/mountLabel"] {
        accepted(pointer, json!("label"));
        accepted(pointer, json!(""));
    }
}

#[test]
fn rules_of_system_call_filters() {
    let at = "/linux/seccomp";
    let rule = |action: &str| json!([{ "names": ["read", "write"], "action": action }]);
    let notify = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]);
    let filter = |syscalls: Value, path: &str| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls, "listenerPath": path });
    accepted(at, filter(rule("SCMP_ACT_ERRNO"), ""));
    accepted(at, filter(notify.clone(), "/run/listener.sock"));
    for (value, text) in [
        (
            json!({ "defaultAction": "SCMP_ACT_NOTIFY" }),
            "defaultAction \"SCMP_ACT_NOTIFY\": the container could not even start; use it in rules only",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1 }),
            "defaultErrnoRet \"1\": only SCMP_ACT_ERRNO and SCMP_ACT_TRACE have an error number",
        ),
        (
            filter(json!([{ "names": [], "action": "SCMP_ACT_LOG" }]), ""),
            "syscalls[0].names: it is missing or empty, and a rule is about some calls",
        ),
        (
            filter(json!([{ "names": ["read"], "action": "SCMP_ACT_LOG", "errnoRet": 5 }]), ""),
            "syscalls[0].errnoRet \"5\": only SCMP_ACT_ERRNO and SCMP_ACT_TRACE have an error number",
        ),
        (
            filter(rule("SCMP_ACT_NOTIFY"), "/run/l.sock"),
            "syscalls[0].action \"SCMP_ACT_NOTIFY\": the runtime needs write to hand the listener over",
        ),
        (filter(notify.clone(), ""), "listenerPath: it is missing or empty, and a rule has SCMP_ACT_NOTIFY"),
        (filter(notify, "l.sock"), "listenerPath \"l.sock\": it is not an absolute path"),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "m" }),
            "listenerPath: it is missing or empty, and listenerMetadata is for the listener there",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] }),
            "flags \"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV\": it is about listeners, and no rule has SCMP_ACT_NOTIFY",
        ),
        (
            filter(
                json!([{ "names": ["read"], "action": "SCMP_ACT_LOG",
                "args": [{ "index": 6, "value": 1, "op": "SCMP_CMP_EQ" }] }]),
                "",
            ),
            "syscalls[0].args[0].index 6: it is not from 0 to 5",
        ),
    ] {
        refused(at, value, &format!("linux.seccomp.{text}"));
    }
}

#[test]
fn the_process_of_an_exec_is_checked_alone() {
    let process = parse("process.json", br#"{"args":["sh"],"cwd":"tmp"}"#).unwrap();
    assert_eq!(
        validate_process(&process).unwrap_err().to_string(),
        "config.json: process.cwd \"tmp\": it is not an absolute path"
    );
}
