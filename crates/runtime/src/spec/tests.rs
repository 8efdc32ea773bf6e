use serde_json::{Value, json};

use super::*;

/// One configuration with every property that Linux has, in the form in which it is written again.
pub(crate) fn full() -> Value {
    let hook = json!([{ "path": "/bin/h", "args": ["h", "a"], "env": ["A=b"], "timeout": 5 }]);
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 65536 }]);
    json!({
        "ociVersion": "1.3.0",
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "name",
        "domainname": "domain",
        "annotations": { "org.example": "value" },
        "mounts": [{
            "destination": "/data", "type": "none", "source": "/srv", "options": ["rbind", "ridmap"],
            "uidMappings": map, "gidMappings": map
        }],
        "hooks": {
            "prestart": hook, "createRuntime": hook, "createContainer": hook, "startContainer": hook,
            "poststart": hook, "poststop": hook
        },
        "process": {
            "terminal": true,
            "consoleSize": { "height": 25, "width": 80 },
            "user": { "uid": 1, "gid": 2, "umask": 63, "additionalGids": [5, 6] },
            "args": ["sh"],
            "env": ["TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1000 }],
            "noNewPrivileges": true,
            "apparmorProfile": "profile",
            "oomScoreAdj": 100,
            "scheduler": {
                "policy": "SCHED_DEADLINE", "nice": 1, "priority": 2, "flags": ["SCHED_FLAG_RECLAIM"],
                "runtime": 1, "deadline": 2, "period": 3
            },
            "selinuxLabel": "a:b:c",
            "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 4 },
            "execCPUAffinity": { "initial": "7", "final": "0-3,7" }
        },
        "linux": full_linux(&map),
    })
}

fn full_linux(map: &Value) -> Value {
    let rate = json!([{ "major": 8, "minor": 0, "rate": 600 }]);
    json!({
        "namespaces": [
            { "type": "pid" }, { "type": "network", "path": "/run/netns/n" }, { "type": "mount" },
            { "type": "ipc" }, { "type": "uts" }, { "type": "user" }, { "type": "cgroup" }, { "type": "time" }
        ],
        "uidMappings": map,
        "gidMappings": map,
        "timeOffsets": { "monotonic": { "secs": 172_800, "nanosecs": 1 } },
        "devices": [{
            "type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0
        }],
        "cgroupsPath": "/pod/one",
        "resources": {
            "devices": [{ "allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm" }],
            "memory": {
                "limit": 1, "reservation": 2, "swap": 3, "kernel": -1, "kernelTCP": -1, "swappiness": 0,
                "disableOOMKiller": false, "useHierarchy": true, "checkBeforeUpdate": true
            },
            "cpu": {
                "shares": 1024, "quota": 1_000_000, "burst": 5, "period": 500_000, "realtimeRuntime": 950_000,
                "realtimePeriod": 1_000_000, "cpus": "2-3", "mems": "0-7", "idle": 0
            },
            "pids": { "limit": 32771 },
            "blockIO": {
                "weight": 10, "leafWeight": 10,
                "weightDevice": [{ "major": 8, "minor": 0, "weight": 500, "leafWeight": 300 }],
                "throttleReadBpsDevice": rate, "throttleWriteBpsDevice": rate,
                "throttleReadIOPSDevice": rate, "throttleWriteIOPSDevice": rate
            },
            "hugepageLimits": [{ "pageSize": "2MB", "limit": 9 }],
            "network": { "classID": 1_048_577, "priorities": [{ "name": "eth0", "priority": 500 }] },
            "rdma": { "mlx5_1": { "hcaHandles": 3, "hcaObjects": 10000 } },
            "unified": { "memory.high": "100000" }
        },
        "sysctl": { "net.ipv4.ip_forward": "1" },
        "seccomp": {
            "defaultAction": "SCMP_ACT_NOTIFY", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/run/l.sock", "listenerMetadata": "m",
            "syscalls": [{
                "names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2,
                "args": [{ "index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_NE" }]
            }]
        },
        "rootfsPropagation": "rslave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "a:b:d",
        "intelRdt": {
            "closID": "group", "schemata": ["L2:0=f"], "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20",
            "enableMonitoring": true
        },
        "personality": { "domain": "LINUX32", "flags": ["NONE"] },
        "netDevices": { "eth1": { "name": "inside" }, "eth2": {} },
        "memoryPolicy": { "mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"] }
    })
}

#[test]
fn every_property_is_read_and_written_as_it_was() {
    let spec: Spec = serde_json::from_value(full()).unwrap();
    assert_eq!(serde_json::to_value(spec).unwrap(), full());
}

/// `value` with each list, map and object that is not needed replaced by `null`, one at a time.
fn with_nulls(value: &Value) -> Vec<Value> {
    let children: Vec<(Value, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, child)| (json!(key), child)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(place, child)| (json!(place), child)).collect(),
        _ => Vec::new(),
    };
    let mut all = Vec::new();
    for (key, child) in children {
        let mut put = |child: Value| {
            let mut whole = value.clone();
            match (&mut whole, &key) {
                (Value::Object(map), Value::String(key)) => drop(map.insert(key.clone(), child)),
                (Value::Array(list), place) => list[place.as_u64().unwrap() as usize] = child,
                _ => unreachable!(),
            }
            all.push(whole);
        };
        let is_container = child.is_object() || child.is_array();
        // A rule is about some calls, and what a map has is objects.
        let is_needed = ["names", "eth1", "eth2", "monotonic", "mlx5_1"].iter().any(|name| key == *name);
        if value.is_object() && is_container && !is_needed {
            put(Value::Null);
        }
        with_nulls(child).into_iter().for_each(put);
    }
    all
}

#[test]
fn null_is_nothing_wherever_go_writes_it() {
    let all = with_nulls(&full());
    assert!(all.len() > 60, "{}", all.len());
    for value in all {
        if let Err(error) = serde_json::from_value::<Spec>(value.clone()) {
            panic!("{error}\n{value}");
        }
    }
}

#[test]
fn empty_texts_are_absent() {
    let text = r#"{"ociVersion":"1.0.2","hostname":"","process":{"cwd":"/","apparmorProfile":"","selinuxLabel":""},
        "linux":{"namespaces":[{"type":"pid","path":""}],"cgroupsPath":"","mountLabel":"","rootfsPropagation":""}}"#;
    let spec: Spec = serde_json::from_str(text).unwrap();
    let linux = spec.linux.unwrap();
    let process = spec.process.unwrap();
    assert_eq!(linux.namespaces[0].path, None);
    assert_eq!((spec.hostname, process.apparmor_profile, process.selinux_label), (None, None, None));
    assert_eq!((linux.cgroups_path, linux.mount_label, linux.rootfs_propagation), (None, None, None));
}

#[test]
fn what_others_have_is_ignored() {
    let text = r#"{"ociVersion":"1.0.2","windows":{"x":1},"process":{"cwd":"/","commandLine":"cmd","user":{"username":"u"}}}"#;
    let spec: Spec = serde_json::from_str(text).unwrap();
    assert_eq!(spec.process.unwrap().cwd, std::path::Path::new("/"));
}
