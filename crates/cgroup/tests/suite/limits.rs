//! Each limit holds.

use std::os::unix::process::ExitStatusExt;

use cgroup::{
    Access, BlockIo, Cpu, DeviceKind, DeviceRate, DeviceRule, Error, Group, HugepageLimit, Limits, Memory,
    RdmaLimit,
};

use crate::machine::{Guarded, hierarchies, is_v2, mount_points, name, until};

const MIB: i64 = 1 << 20;

/// The content of a file of a group, in whichever tree it is.
fn content(hierarchy: &cgroup::Hierarchy, id: &str, file: &str) -> String {
    let path = mount_points(hierarchy)
        .into_iter()
        .map(|point| point.join("coracle").join(id).join(file))
        .find(|path| path.exists());
    fs_err::read_to_string(path.unwrap_or_else(|| panic!("no {file}"))).unwrap().trim().to_owned()
}

#[test]
fn one_process_too_many_fails() {
    for hierarchy in hierarchies() {
        let group = Guarded::new(&hierarchy, "pids", &Limits { pids: Some(5), ..Limits::default() });
        let shell = group.shell("for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all; wait");
        // The shell gives up at the first fork that fails, and says nothing.
        until("the group is full", || group.0.statistics().unwrap().pids >= Some(4));
        group.0.kill().unwrap();
        assert_eq!(shell.output(), "");
    }
}

#[test]
fn memory_beyond_the_limit_kills() {
    for hierarchy in hierarchies() {
        for (swap, oom_group) in [(None, None), (Some(16 * MIB), None), (None, Some(true))] {
            if oom_group.is_some() && !is_v2(&hierarchy) {
                continue;
            }
            let memory = Memory { limit: Some(16 * MIB), swap, oom_group, ..Memory::default() };
            let group = Guarded::new(&hierarchy, "memory", &Limits { memory, ..Limits::default() });
            assert!(!group.0.oom_killed().unwrap());
            let bystander = group.shell("exec sleep 1000");
            // It keeps the whole line until its end, which never comes.
            let hungry = group.shell("exec tail /dev/zero");
            assert_eq!(hungry.status().signal(), Some(9));
            assert!(group.0.oom_killed().unwrap());
            let statistics = group.0.statistics().unwrap();
            assert_eq!(statistics.memory_limit, Some(16 * MIB as u64));
            assert!(statistics.memory_peak.is_none_or(|peak| peak <= 16 * MIB as u64));
            if oom_group.is_some() {
                assert_eq!(bystander.status().signal(), Some(9));
            } else {
                assert_eq!(group.0.processes().unwrap(), [bystander.0.id()]);
            }
        }
    }
}

#[test]
fn memory_and_swap_are_what_was_asked() {
    for hierarchy in hierarchies() {
        let id = name("swap");
        let mut limits = Limits::default();
        limits.memory.limit = Some(16 * MIB);
        let mut group = Guarded(Group::create(&hierarchy, None, &id, &limits).unwrap().unwrap());
        let both = || match is_v2(&hierarchy) {
            true => content(&hierarchy, &id, "memory.swap.max").parse::<i64>().unwrap() + 16 * MIB,
            false => content(&hierarchy, &id, "memory.memsw.limit_in_bytes").parse().unwrap(),
        };
        assert_eq!(both(), 32 * MIB);
        // Version 1 takes both changes only in the right order: both grow, both shrink.
        for limit in [64, 8] {
            limits.memory = Memory { limit: Some(limit * MIB), swap: Some(limit * MIB), ..Memory::default() };
            group.0.update(&limits).unwrap();
            assert_eq!(group.0.statistics().unwrap().memory_limit, Some((limit * MIB) as u64));
        }
    }
}

#[test]
fn soft_memory_limits_are_set() {
    for hierarchy in hierarchies() {
        let id = name("soft");
        let memory = Memory { limit: Some(16 * MIB), reservation: Some(8 * MIB), ..Memory::default() };
        let group =
            Group::create(&hierarchy, None, &id, &Limits { memory, ..Limits::default() }).unwrap().unwrap();
        let _group = Guarded(group);
        let file = if is_v2(&hierarchy) { "memory.low" } else { "memory.soft_limit_in_bytes" };
        assert_eq!(content(&hierarchy, &id, file), (8 * MIB).to_string());
    }
}

#[test]
fn memory_high_slows_down_and_does_not_kill() {
    for hierarchy in hierarchies() {
        let limits =
            Limits { memory: Memory { high: Some(4 * MIB), ..Memory::default() }, ..Limits::default() };
        if !is_v2(&hierarchy) {
            let error = Group::create(&hierarchy, None, &name("high"), &limits).unwrap_err();
            assert!(matches!(error, Error::NotInV1 { option: "memory.high", .. }), "{error}");
            continue;
        }
        let id = name("high");
        let group = Guarded(Group::create(&hierarchy, None, &id, &limits).unwrap().unwrap());
        let _hungry = group.shell("exec tail /dev/zero");
        until("it is held back", || !content(&hierarchy, &id, "memory.events").contains("high 0"));
        assert!(!group.0.oom_killed().unwrap());
    }
}

#[test]
fn the_oom_group_is_refused_on_version_1() {
    for hierarchy in hierarchies().into_iter().filter(|hierarchy| !is_v2(hierarchy)) {
        let limits =
            Limits { memory: Memory { oom_group: Some(true), ..Memory::default() }, ..Limits::default() };
        let error = Group::create(&hierarchy, None, &name("oom"), &limits).unwrap_err();
        assert!(matches!(error, Error::NotInV1 { option: "memory.oom.group", .. }), "{error}");
    }
}

#[test]
fn processor_time_beyond_the_quota_waits() {
    for hierarchy in hierarchies() {
        let cpu = Cpu { quota: Some(10_000), period: Some(100_000), ..Cpu::default() };
        let group = Guarded::new(&hierarchy, "quota", &Limits { cpu, ..Limits::default() });
        let begin = std::time::Instant::now();
        let worker = group.shell("while :; do :; done");
        until("it was throttled", || group.0.statistics().unwrap().throttled_periods >= Some(8));
        assert!(group.0.statistics().unwrap().throttled_usec > Some(0));
        // A quota can be overdrawn: by a clock tick, or for as long as a virtual machine's processor is stopped. The kernel takes that off
        // the periods that follow.
        until("it used no more than its quota", || {
            let used = group.0.statistics().unwrap().cpu_usec;
            let periods = begin.elapsed().as_micros() / 100_000 + 2;
            used.is_none_or(|used| u128::from(used) < periods * 20_000)
        });
        drop(worker);
    }
}

#[test]
fn processor_time_is_shared_by_weight() {
    for hierarchy in hierarchies() {
        let limits = |shares| Limits {
            cpu: Cpu {
                shares: Some(shares),
                cpus: Some("0".to_owned()),
                mems: Some("0".to_owned()),
                ..Cpu::default()
            },
            ..Limits::default()
        };
        let heavy = Guarded::new(&hierarchy, "heavy", &limits(8192));
        let light = Guarded::new(&hierarchy, "light", &limits(128));
        let one = heavy.shell("while :; do :; done");
        let other = light.shell("while :; do :; done");
        assert!(
            fs_err::read_to_string(format!("/proc/{}/status", one.0.id()))
                .unwrap()
                .contains("Cpus_allowed_list:\t0\n")
        );
        until("both have run", || ticks(one.0.id()) > 60);
        // 64 to 1 by the weights; the machine has other work too, which takes from both alike.
        assert!(
            ticks(one.0.id()) > 5 * ticks(other.0.id()),
            "{} and {}",
            ticks(one.0.id()),
            ticks(other.0.id())
        );
    }
}

/// Clock ticks that a process has run: proc_pid_stat(5).
fn ticks(pid: u32) -> u64 {
    let text = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn devices_that_no_rule_allows_are_denied() {
    for hierarchy in hierarchies() {
        let rule = |allow, minor, access| DeviceRule {
            allow,
            kind: if allow { DeviceKind::Character } else { DeviceKind::All },
            major: if allow { Some(1) } else { None },
            minor,
            access: Access::parse(access).unwrap(),
        };
        let devices = vec![rule(false, None, "rwm"), rule(true, Some(3), "rwm"), rule(true, Some(5), "r")];
        let group = Guarded::new(&hierarchy, "devices", &Limits { devices, ..Limits::default() });
        let directory = std::env::temp_dir().join(name("devices"));
        fs_err::create_dir(&directory).unwrap();
        let script = format!(
            "cd {}; try() {{ \"$@\" 2> /dev/null && echo yes || echo no; }}
             try sh -c ': < /dev/null'; try sh -c ': > /dev/null'; try mknod null c 1 3
             try sh -c ': < /dev/zero'; try sh -c ': > /dev/zero'; try mknod zero c 1 5
             try sh -c ': < /dev/full'; try mknod full c 1 7; try mknod disk b 7 0",
            directory.display()
        );
        let answers = group.shell(&script).output();
        fs_err::remove_dir_all(&directory).unwrap();
        assert_eq!(
            answers.split_whitespace().collect::<Vec<_>>(),
            ["yes", "yes", "yes", "yes", "no", "no", "no", "no", "no"]
        );
    }
}

/// A whole block device of this machine, as the kernel numbers it.
fn disk() -> Option<(u32, u32)> {
    let entries = fs_err::read_dir("/sys/block").ok()?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    names.sort();
    names.into_iter().find_map(|path| {
        let text = fs_err::read_to_string(path.join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

#[test]
fn rates_of_block_devices_are_set() {
    let Some((major, minor)) = disk() else {
        println!("SKIP: rates_of_block_devices_are_set: this machine has no block device");
        return;
    };
    for hierarchy in hierarchies() {
        let rates = |rate| vec![DeviceRate { major, minor, rate }];
        let block_io = BlockIo {
            read_bps: rates(1_048_576),
            write_bps: rates(2_097_152),
            read_iops: rates(10),
            write_iops: rates(20),
            ..BlockIo::default()
        };
        let id = name("rates");
        let group =
            Group::create(&hierarchy, None, &id, &Limits { block_io, ..Limits::default() }).unwrap().unwrap();
        let _group = Guarded(group);
        if is_v2(&hierarchy) {
            let expected = format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=10 wiops=20");
            assert_eq!(content(&hierarchy, &id, "io.max"), expected);
            continue;
        }
        for (file, rate) in
            [("read_bps", 1_048_576), ("write_bps", 2_097_152), ("read_iops", 10), ("write_iops", 20)]
        {
            assert_eq!(
                content(&hierarchy, &id, &format!("blkio.throttle.{file}_device")),
                format!("{major}:{minor} {rate}")
            );
        }
    }
}

#[test]
fn weights_of_block_devices_are_set_or_refused() {
    for hierarchy in hierarchies() {
        let id = name("weight");
        let limits =
            Limits { block_io: BlockIo { weight: Some(500), ..BlockIo::default() }, ..Limits::default() };
        match Group::create(&hierarchy, None, &id, &limits) {
            Ok(group) => {
                let _group = Guarded(group.unwrap());
                let points = mount_points(&hierarchy);
                let files = ["blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight"];
                let found = files.into_iter().find(|file| {
                    points.iter().any(|point| point.join("coracle").join(&id).join(file).exists())
                });
                let text = content(&hierarchy, &id, found.unwrap());
                let expected = if found == Some("io.weight") { "4950" } else { "500" };
                assert!(text.ends_with(expected), "{found:?} {text}");
            }
            Err(error) => {
                assert!(matches!(error, Error::NotOffered { option: "--blkio-weight", .. }), "{error}");
                assert!(error.advice().unwrap().contains("bfq"));
            }
        }
    }
}

#[test]
fn huge_pages_are_limited_or_refused() {
    for hierarchy in hierarchies() {
        let limits = |size: &str| Limits {
            hugepages: vec![HugepageLimit { page_size: size.to_owned(), limit: 4 << 20 }],
            ..Limits::default()
        };
        let id = name("huge");
        match Group::create(&hierarchy, None, &id, &limits("2MB")) {
            Ok(group) => {
                let _group = Guarded(group.unwrap());
                let file = mount_points(&hierarchy)
                    .iter()
                    .any(|point| point.join("coracle").join(&id).join("hugetlb.2MB.max").exists());
                let file = if file { "hugetlb.2MB.max" } else { "hugetlb.2MB.limit_in_bytes" };
                assert_eq!(content(&hierarchy, &id, file), (4 << 20).to_string());
            }
            Err(error) => {
                assert!(matches!(error, Error::NoController { controller: "hugetlb", .. }), "{error}")
            }
        }
        let error = Group::create(&hierarchy, None, &name("huge"), &limits("3MB")).unwrap_err();
        assert!(matches!(error, Error::NotOffered { .. } | Error::NoController { .. }), "{error}");
    }
}

#[test]
fn rdma_devices_that_are_not_there_are_refused() {
    for hierarchy in hierarchies() {
        let limit = RdmaLimit { handles: Some(2), objects: None };
        let limits = Limits { rdma: [("none0".to_owned(), limit)].into(), ..Limits::default() };
        let error = Group::create(&hierarchy, None, &name("rdma"), &limits).unwrap_err();
        let known = matches!(error, Error::NoController { controller: "rdma", .. })
            || matches!(error, Error::Set { option: "rdma limit", .. } | Error::NotOffered { .. });
        assert!(known, "{error}");
    }
}

#[test]
fn files_can_be_named_on_version_2() {
    for hierarchy in hierarchies() {
        let limits = Limits {
            unified: [("memory.high".to_owned(), "1048576".to_owned())].into(),
            ..Limits::default()
        };
        let id = name("unified");
        match Group::create(&hierarchy, None, &id, &limits) {
            Ok(group) => {
                let _group = Guarded(group.unwrap());
                assert_eq!(content(&hierarchy, &id, "memory.high"), "1048576");
            }
            Err(error) => assert!(!is_v2(&hierarchy) && matches!(error, Error::NotInV1 { .. }), "{error}"),
        }
    }
}

#[test]
fn limits_of_a_running_group_change() {
    for hierarchy in hierarchies() {
        let mut group = Guarded::new(&hierarchy, "update", &Limits::default());
        let shell = group.shell("exec sleep 1000");
        let mut limits = Limits { pids: Some(7), ..Limits::default() };
        limits.memory.limit = Some(32 * MIB);
        limits.cpu.quota = Some(50_000);
        group.0.update(&limits).unwrap();
        let statistics = group.0.statistics().unwrap();
        assert_eq!((statistics.pids, statistics.pids_limit), (Some(1), Some(7)));
        assert_eq!(statistics.memory_limit, Some(32 * MIB as u64));
        limits = Limits { pids: Some(-1), ..Limits::default() };
        group.0.update(&limits).unwrap();
        let statistics = group.0.statistics().unwrap();
        assert_eq!((statistics.pids_limit, statistics.memory_limit), (None, Some(32 * MIB as u64)));
        drop(shell);
    }
}
