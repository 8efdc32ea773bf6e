//! `linux.resources` and `linux.cgroupsPath`, read in the hierarchy that has the controller.

use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::{Bundle, State, trees};

/// The files of a limit: the controller, the file of v1 with what it must show, and those of v2.
struct Limit {
    controller: &'static str,
    v1: (&'static str, &'static str),
    v2: (&'static str, &'static str),
}

/// Why the machine cannot show a limit of this controller.
fn missing(controller: &str) -> Option<String> {
    let has = trees().iter().any(|tree| tree.controllers.iter().any(|name| name == controller));
    let only_v2 = trees().len() == 1;
    let shown = has || only_v2 && is_in_v2(controller);
    (!shown).then(|| format!("no hierarchy that groups are limited by has {controller}"))
}

fn is_in_v2(controller: &str) -> bool {
    let unified = trees().into_iter().find(|tree| tree.controllers == ["unified"]);
    unified.is_some_and(|tree| {
        let list = std::fs::read_to_string(tree.mount.join("cgroup.controllers")).unwrap_or_default();
        list.split_whitespace().any(|name| name == controller)
    })
}

/// What a file of the container's group says, of v1 if that has the controller.
#[track_caller]
fn shown(bundle: &Bundle, limit: &Limit) -> (String, &'static str) {
    let (directory, (file, expected)) = match bundle.group(limit.controller) {
        Some(directory) => (directory, limit.v1),
        None => (bundle.group("unified").unwrap(), limit.v2),
    };
    let text = std::fs::read_to_string(directory.join(file));
    (
        text.unwrap_or_else(|error| panic!("{}/{file}: {error}", directory.display())).trim().to_owned(),
        expected,
    )
}

#[track_caller]
fn assert_limits(bundle: &Bundle, limits: &[Limit]) {
    for limit in limits {
        let (text, expected) = shown(bundle, limit);
        assert_eq!(text, expected, "{} {:?} {:?}", limit.controller, limit.v1.0, limit.v2.0);
    }
}

/// Asks for resources and reads them from the groups of the running container.
macro_rules! limits {
    ($bundle:expr, $resources:tt, $($controller:literal $v1:literal = $v1_value:expr, $v2:literal = $v2_value:expr;)*) => {{
        let mut bundle = $bundle;
        $(if let Some(reason) = missing($controller) {
            skip!("{reason}");
        })*
        bundle.set("/linux/resources", json!($resources));
        bundle.bring(State::Running);
        assert_limits(&bundle, &[$(Limit { controller: $controller, v1: ($v1, $v1_value), v2: ($v2, $v2_value) }),*]);
        bundle
    }};
}

#[test]
fn memory_limit_and_reservation() {
    limits!(bundle!(), {"memory": {"limit": 104_857_600, "reservation": 52_428_800}},
        "memory" "memory.limit_in_bytes" = "104857600", "memory.max" = "104857600";
        "memory" "memory.soft_limit_in_bytes" = "52428800", "memory.low" = "52428800";
    );
}

/// In the file it is memory and swap together, in v2's swap alone.
#[test]
fn memory_swap_is_with_memory() {
    limits!(bundle!(), {"memory": {"limit": 104_857_600, "swap": 157_286_400}},
        "memory" "memory.limit_in_bytes" = "104857600", "memory.max" = "104857600";
        "memory" "memory.memsw.limit_in_bytes" = "157286400", "memory.swap.max" = "52428800";
    );
    let mut bundle = Bundle::new();
    bundle.set("/linux/resources/memory", json!({"limit": 104_857_600, "swap": 52_428_800}));
    bundle.refused();
    bundle.assert_nothing_left();
}

#[test]
fn memory_swappiness_and_disable_oom_killer() {
    let bundle = bundle!();
    if bundle.group("memory").is_none() {
        skip!("v2 has neither");
    }
    let bundle = limits!(bundle, {"memory": {"swappiness": 33, "disableOOMKiller": true}},
        "memory" "memory.swappiness" = "33", "" = "";
    );
    let control =
        std::fs::read_to_string(bundle.group("memory").unwrap().join("memory.oom_control")).unwrap();
    assert!(control.contains("oom_kill_disable 1"), "{control}");
    let mut bundle = Bundle::new();
    bundle.set("/linux/resources/memory", json!({"swappiness": 101}));
    let error = bundle.refused();
    assert!(error.contains("swappiness") && error.contains("101"), "{error}");
    bundle.assert_nothing_left();
}

/// Kernels since 5.16 have no such limits: the values are not an error, as configurations still carry them.
#[test]
fn memory_kernel_and_kernel_tcp_are_warned_of() {
    let mut bundle = bundle!();
    bundle.set(
        "/linux/resources/memory",
        json!({"kernel": 104_857_600, "kernelTCP": 104_857_600, "useHierarchy": true}),
    );
    bundle.script("true");
    if trees().len() == 1 && crate::under_test::runc().is_none() {
        // The buffers of TCP are limited by version 1 alone.
        assert!(bundle.refused().contains("kernel TCP memory"));
        bundle.set("/linux/resources/memory", json!({"kernel": 104_857_600, "useHierarchy": true}));
    }
    let ran = bundle.run_container();
    assert!(ran.code == 0 && ran.err.contains("level=warning"), "{ran:?}");
}

/// A limit that is below what is used already.
#[test]
fn memory_check_before_update_refuses() {
    let mut bundle = bundle!();
    bundle.bring(State::Running);
    let resources = bundle.path("resources.json");
    std::fs::write(&resources, r#"{"memory": {"limit": 4096, "checkBeforeUpdate": true}}"#).unwrap();
    let ran = bundle.run(&["update", "--resources", &resources, "{id}"]);
    assert_ne!(ran.code, 0, "{ran:?}");
    assert_eq!(bundle.status(), "running");
}

/// runc's older curve from shares to weights is a straight line, which gives 1024 shares less than the usual weight.
static WEIGHT_OF_512: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| if crate::under_test::runc().is_some() { "20" } else { "59" }.to_owned());

#[test]
fn cpu_shares_quota_and_period() {
    limits!(bundle!(), {"cpu": {"shares": 512, "quota": 50_000, "period": 200_000}},
        "cpu" "cpu.shares" = "512", "cpu.weight" = WEIGHT_OF_512.as_str();
        "cpu" "cpu.cfs_quota_us" = "50000", "cpu.max" = "50000 200000";
        "cpu" "cpu.cfs_period_us" = "200000", "cpu.max" = "50000 200000";
    );
}

#[test]
fn cpu_burst() {
    limits!(bundle!("linux.resources.cpu.burst"), {"cpu": {"quota": 50_000, "period": 100_000, "burst": 30_000}},
        "cpu" "cpu.cfs_burst_us" = "30000", "cpu.max.burst" = "30000";
    );
}

#[test]
fn cpu_idle() {
    limits!(bundle!("linux.resources.cpu.idle"), {"cpu": {"idle": 1}},
        "cpu" "cpu.idle" = "1", "cpu.idle" = "1";
    );
}

#[test]
fn cpu_realtime() {
    let bundle = bundle!();
    if !Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        skip!("the kernel divides no real time among groups");
    }
    limits!(bundle, {"cpu": {"realtimeRuntime": 1000, "realtimePeriod": 200_000}},
        "cpu" "cpu.rt_runtime_us" = "1000", "" = "";
        "cpu" "cpu.rt_period_us" = "200000", "" = "";
    );
}

#[test]
fn cpu_cpus_and_mems() {
    let bundle = limits!(bundle!(), {"cpu": {"cpus": "0", "mems": "0"}},
        "cpuset" "cpuset.cpus" = "0", "cpuset.cpus" = "0";
        "cpuset" "cpuset.mems" = "0", "cpuset.mems" = "0";
    );
    assert!(bundle.exec("grep Cpus_allowed_list /proc/self/status").ends_with("\t0\n"));
    let mut bundle = Bundle::new();
    bundle.set("/linux/resources/cpu", json!({"cpus": "1000"}));
    bundle.refused();
    bundle.assert_nothing_left();
}

#[test]
fn pids_limit() {
    let bundle = limits!(bundle!(), {"pids": {"limit": 7}}, "pids" "pids.max" = "7", "pids.max" = "7";);
    let out = bundle.run(&["exec", "{id}", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"]);
    assert!(out.err.contains("can't fork"), "{out:?}");
    limits!(Bundle::new(), {"pids": {"limit": -1}}, "pids" "pids.max" = "max", "pids.max" = "max";);
}

/// The first block device of the machine.
fn block_device() -> Option<(u64, u64)> {
    let mut names: Vec<_> =
        std::fs::read_dir("/sys/block").ok()?.flatten().map(|entry| entry.path()).collect();
    names.sort();
    let text = std::fs::read_to_string(names.first()?.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn block_io_throttles() {
    let mut bundle = bundle!();
    if let Some(reason) = missing("blkio").filter(|_| missing("io").is_some()) {
        skip!("{reason}");
    }
    let Some((major, minor)) = block_device() else { skip!("no block device") };
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    bundle.set(
        "/linux/resources/blockIO",
        json!({
            "throttleReadBpsDevice": rate(1_048_576),
            "throttleWriteBpsDevice": rate(2_097_152),
            "throttleReadIOPSDevice": rate(100),
            "throttleWriteIOPSDevice": rate(200),
        }),
    );
    bundle.bring(State::Running);
    if let Some(group) = bundle.group("blkio") {
        for (file, value) in
            [("read_bps", 1_048_576), ("write_bps", 2_097_152), ("read_iops", 100), ("write_iops", 200)]
        {
            let text = std::fs::read_to_string(group.join(format!("blkio.throttle.{file}_device"))).unwrap();
            assert_eq!(text.trim(), format!("{major}:{minor} {value}"), "{file}");
        }
    } else {
        let text = std::fs::read_to_string(bundle.group("unified").unwrap().join("io.max")).unwrap();
        assert_eq!(text.trim(), format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=100 wiops=200"));
    }
}

#[test]
fn block_io_weight() {
    let bundle = bundle!();
    if missing("blkio").is_some() && missing("io").is_some() {
        skip!("no controller of block devices");
    }
    let mut bundle = bundle;
    bundle.set("/linux/resources/blockIO", json!({"weight": 500}));
    let ran = {
        bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
        bundle.write_config();
        bundle.run(&["run", "--detach", "--bundle", "{bundle}", "{id}"])
    };
    let files = bundle.groups().into_iter().flat_map(|group| {
        ["blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight"].map(|file| group.join(file))
    });
    let shown: Vec<String> = files.filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    if shown.is_empty() {
        skip!("the kernel has no weights of block devices: {}", ran.err);
    }
    assert!(
        shown.iter().any(|text| text.split_whitespace().any(|word| word == "500" || word == "4950")),
        "{shown:?}"
    );
}

/// There is no scheduler with leaf weights since 5.0, and a device's weight needs one that weighs.
#[test]
fn block_io_leaf_weight_is_refused_where_there_is_none() {
    let mut bundle = bundle!();
    if bundle.group("blkio").is_none() {
        skip!("v2 has no leaf weights");
    }
    bundle.set("/linux/resources/blockIO", json!({"leafWeight": 500}));
    assert!(bundle.refused().contains("leaf_weight"));
    bundle.assert_nothing_left();
}

#[test]
fn block_io_weight_of_a_device() {
    let mut bundle = bundle!();
    let Some((major, minor)) = block_device() else { skip!("no block device") };
    let scheduler = std::fs::read_dir("/sys/block").unwrap().flatten().any(|entry| {
        let text = std::fs::read_to_string(entry.path().join("queue/scheduler")).unwrap_or_default();
        text.contains("[bfq]")
    });
    let weight = json!([{"major": major, "minor": minor, "weight": 300}]);
    bundle.set("/linux/resources/blockIO", json!({"weightDevice": weight}));
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.write_config();
    let ran = bundle.run(&["run", "--detach", "--bundle", "{bundle}", "{id}"]);
    if !scheduler {
        // Taken or refused is the kernel's matter: never half made.
        if ran.code != 0 {
            bundle.assert_nothing_left();
        }
        skip!("no block device is weighed");
    }
    let files = bundle.groups().into_iter().flat_map(|group| {
        ["blkio.bfq.weight_device", "blkio.bfq.weight", "io.bfq.weight"].map(|file| group.join(file))
    });
    let shown: String = files.filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    assert!(shown.contains(&format!("{major}:{minor} 300")), "{shown}");
}

#[test]
fn hugepage_limits() {
    let mut bundle = bundle!();
    if let Some(reason) = missing("hugetlb") {
        // What cannot be limited is not let run without the limit.
        bundle.set("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 2_097_152}]));
        let unified = bundle.group("unified").filter(|_| is_in_v2("hugetlb"));
        if let Some(group) = unified.filter(|_| crate::under_test::runc().is_none()) {
            // Of several hierarchies the one of version 2 has it.
            bundle.bring(State::Running);
            assert_eq!(std::fs::read_to_string(group.join("hugetlb.2MB.max")).unwrap().trim(), "2097152");
            return;
        }
        let error = bundle.refused();
        assert!(error.contains("hugetlb") || error.contains("hugepage"), "{error}");
        bundle.assert_nothing_left();
        skip!("{reason}");
    }
    limits!(bundle, {"hugepageLimits": [{"pageSize": "2MB", "limit": 2_097_152}]},
        "hugetlb" "hugetlb.2MB.limit_in_bytes" = "2097152", "hugetlb.2MB.max" = "2097152";
    );
}

#[test]
fn network_class_and_priorities() {
    let mut bundle = bundle!();
    if let Some(reason) = missing("net_cls").or_else(|| missing("net_prio")) {
        bundle.set("/linux/resources/network", json!({"classID": 5}));
        if trees().len() > 1 {
            let error = bundle.refused();
            assert!(error.contains("net_cls"), "{error}");
        }
        skip!("{reason}");
    }
    let network = json!({"classID": 5, "priorities": [{"name": "lo", "priority": 3}]});
    bundle.set("/linux/resources/network", network);
    bundle.bring(State::Running);
    let read = |controller, file: &str| {
        std::fs::read_to_string(bundle.group(controller).unwrap().join(file)).unwrap()
    };
    assert_eq!(read("net_cls", "net_cls.classid").trim(), "5");
    assert!(read("net_prio", "net_prio.ifpriomap").contains("lo 3"));
}

#[test]
fn rdma_handles_and_objects() {
    let mut bundle = bundle!();
    if let Some(reason) = missing("rdma") {
        bundle.set("/linux/resources/rdma", json!({"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10_000}}));
        let error = bundle.refused();
        assert!(error.contains("rdma"), "{error}");
        bundle.assert_nothing_left();
        skip!("{reason}");
    }
    skip!("no device to limit");
}

#[test]
fn unified_is_v2s() {
    let mut bundle = bundle!();
    bundle.set("/linux/resources/unified", json!({"memory.high": "104857600", "pids.max": "9"}));
    if trees().len() > 1 {
        let error = bundle.refused();
        let words = [
            "unified cannot be enforced with control groups of version 1",
            "cannot use unified on cgroup v1",
        ];
        assert!(words.iter().any(|word| error.contains(word)), "{error}");
        bundle.assert_nothing_left();
        return;
    }
    bundle.bring(State::Running);
    let group = bundle.group("unified").unwrap();
    assert_eq!(std::fs::read_to_string(group.join("memory.high")).unwrap().trim(), "104857600");
    assert_eq!(std::fs::read_to_string(group.join("pids.max")).unwrap().trim(), "9");
}

/// /dev/kmsg, which is not among the devices that every container has.
#[test]
fn devices_are_allowed_and_denied() {
    let mut bundle = bundle!();
    bundle.capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    let open = "mknod /tmp/k c 1 11; (: < /tmp/k) 2>/dev/null && echo read; (: > /tmp/k) 2>/dev/null && echo write; rm /tmp/k";
    let mut with = |rules: Value| {
        bundle.set("/linux/resources/devices", rules);
        bundle.inside(&format!("{open}; : > /dev/null && head -c 1 /dev/zero | wc -c"))
    };
    let deny = json!({"allow": false, "access": "rwm"});
    assert_eq!(with(json!([deny])), "1\n", "but the common ones");
    assert_eq!(
        with(json!([deny, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}])),
        "read\n1\n"
    );
    let all = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"});
    assert_eq!(with(json!([deny, all])), "read\nwrite\n1\n");
    // Any minor number; and a later rule takes back.
    let any = json!({"allow": true, "type": "c", "major": 1, "access": "rw"});
    assert_eq!(with(json!([deny, any])), "read\nwrite\n1\n");
    assert_eq!(with(json!([{"allow": true, "access": "rwm"}])), "read\nwrite\n1\n");
    let back = json!({"allow": false, "type": "c", "major": 1, "minor": 11, "access": "w"});
    assert_eq!(with(json!([deny, all, back])), "read\n1\n");
}

#[test]
fn cgroups_path_is_where_every_process_is() {
    let mut bundle = bundle!();
    bundle.bring(State::Running);
    let has_v2 = bundle.group("unified").is_some();
    // The kernel names a tree of version 2 too that is mounted nowhere.
    let in_each = |text: &str, own: &str| {
        let mut lines = text.lines().filter(|line| has_v2 || !line.starts_with("0:"));
        assert!(lines.all(|line| line.ends_with(own)), "{text}");
    };
    for pid in ["1", "self"] {
        in_each(&bundle.exec(&format!("cat /proc/{pid}/cgroup")), &format!(":/{}", bundle.id));
    }
    // Deleted with the container, but what is above it.
    bundle.ok(&["delete", "--force", "{id}"]);
    bundle.assert_nothing_left();
    let nested = format!("/{}/deep/er", bundle.id);
    bundle.set("/linux/cgroupsPath", nested.as_str());
    in_each(&bundle.inside("cat /proc/self/cgroup"), &nested);
}

/// As docker and kubelet change limits of what runs.
#[test]
fn update_changes_limits_of_a_running_container() {
    let bundle = limits!(bundle!(), {"memory": {"limit": 104_857_600}, "pids": {"limit": 100}},
        "memory" "memory.limit_in_bytes" = "104857600", "memory.max" = "104857600";
        "pids" "pids.max" = "100", "pids.max" = "100";
    );
    let options = ["--memory", "209715200", "--memory-reservation", "104857600", "--pids-limit", "50"];
    bundle.ok(&[&["update"], &options[..], &["{id}"]].concat());
    let options =
        ["--cpu-share", "512", "--cpu-quota", "50000", "--cpu-period", "100000", "--cpuset-cpus", "0"];
    bundle.ok(&[&["update"], &options[..], &["{id}"]].concat());
    let limit = |controller, v1, v2| Limit { controller, v1, v2 };
    assert_limits(
        &bundle,
        &[
            limit("memory", ("memory.limit_in_bytes", "209715200"), ("memory.max", "209715200")),
            limit("memory", ("memory.soft_limit_in_bytes", "104857600"), ("memory.low", "104857600")),
            limit("pids", ("pids.max", "50"), ("pids.max", "50")),
            limit("cpu", ("cpu.shares", "512"), ("cpu.weight", WEIGHT_OF_512.as_str())),
            limit("cpu", ("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000")),
            limit("cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0")),
        ],
    );
    // From a file, and from standard input; what is not named stays.
    let resources = bundle.path("resources.json");
    std::fs::write(&resources, r#"{"pids": {"limit": 60}, "cpu": {"shares": 1024}}"#).unwrap();
    bundle.ok(&["update", "--resources", &resources, "{id}"]);
    assert_limits(
        &bundle,
        &[
            limit("pids", ("pids.max", "60"), ("pids.max", "60")),
            limit("memory", ("memory.limit_in_bytes", "209715200"), ("memory.max", "209715200")),
        ],
    );
    std::fs::write(&resources, r#"{"pids": {"limit": 70}}"#).unwrap();
    let mut command = bundle.command(&["update", "--resources", "-", &bundle.id]);
    command.stdin(std::fs::File::open(&resources).unwrap());
    let ran = bundle.finish(command);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_limits(&bundle, &[limit("pids", ("pids.max", "70"), ("pids.max", "70"))]);
}
