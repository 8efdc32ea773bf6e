//! Groups as an OCI runtime's callers want them: at the path they name, in all trees, used if they are there, never their parents removed.

use cgroup::{
    Access, Choice, Cpu, Description, DeviceKind, DeviceRule, Error, Group, Hierarchy, Limits, Memory,
    Network, Place,
};

use crate::machine::{Guarded, Process, again, hierarchies, is_v2, mount_points, name, role, until};

/// The parents of a test's group, removed with it.
struct Parents(Vec<std::path::PathBuf>);

impl Parents {
    fn new(hierarchy: &Hierarchy, parent: &str) -> Self {
        Self(mount_points(hierarchy).into_iter().map(|point| point.join(parent)).collect())
    }

    fn make(self) -> Self {
        self.0.iter().for_each(|path| fs_err::create_dir(path).unwrap());
        self
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs_err::remove_dir(path);
        }
    }
}

fn create(hierarchy: &Hierarchy, path: &str, limits: &Limits) -> cgroup::Result<Group> {
    let choice = Place::of_path(hierarchy, Some(path), "unused")?;
    Ok(Group::create_everywhere(hierarchy, choice, limits)?.expect("root has groups"))
}

fn pids(limit: i64) -> Limits {
    Limits { pids: Some(limit), ..Limits::default() }
}

#[test]
fn a_container_has_a_group_in_every_tree_at_the_path_that_was_named() {
    for hierarchy in hierarchies() {
        let parent = name("every");
        let parents = Parents::new(&hierarchy, &parent);
        let group = Guarded(create(&hierarchy, &format!("/{parent}/own.slice"), &pids(9)).unwrap());
        let sleeper = group.shell("exec sleep 1000");
        for path in &parents.0 {
            let text = fs_err::read_to_string(path.join("own.slice/cgroup.procs")).unwrap();
            assert_eq!(text.trim(), sleeper.0.id().to_string(), "{}", path.display());
        }
        group.0.kill().unwrap();
        group.0.remove().unwrap();
        group.0.remove().unwrap();
        for path in &parents.0 {
            assert!(path.exists() && !path.join("own.slice").exists(), "{}", path.display());
        }
    }
}

#[test]
fn a_path_that_is_relative_or_missing_is_below_the_usual_parent() {
    for hierarchy in hierarchies() {
        let (relative, id) = (name("relative"), name("none"));
        for path in [Some(relative.as_str()), None] {
            let choice = Place::of_path(&hierarchy, path, &id).unwrap();
            let group = Group::create_everywhere(&hierarchy, choice, &Limits::default()).unwrap().unwrap();
            let group = Guarded(group);
            let own = path.unwrap_or(&id);
            for point in mount_points(&hierarchy) {
                assert!(point.join("coracle").join(own).exists(), "{}", point.display());
            }
            drop(group);
        }
    }
}

#[test]
fn paths_that_lead_upwards_are_refused() {
    for hierarchy in hierarchies() {
        for path in ["/../x", "a/../../b", "/"] {
            let error = Place::of_path(&hierarchy, Some(path), "x").unwrap_err();
            assert!(matches!(error, Error::Name { .. }), "{path}: {error}");
        }
    }
}

#[test]
fn a_group_that_is_there_is_used_unless_it_has_processes() {
    for hierarchy in hierarchies() {
        let own = name("there");
        let path = format!("/{own}");
        let made = Parents::new(&hierarchy, &own).make();
        let group = Guarded(create(&hierarchy, &path, &pids(9)).unwrap());
        let _sleeper = group.shell("exec sleep 1000");
        let error = create(&hierarchy, &path, &pids(9)).unwrap_err();
        assert_eq!(error.to_string(), "container's cgroup is not empty: 1 process(es) found");
        group.0.kill().unwrap();
        group.0.freeze(true).unwrap();
        let error = create(&hierarchy, &path, &pids(9)).unwrap_err();
        assert_eq!(error.to_string(), "container's cgroup unexpectedly frozen");
        group.0.freeze(false).unwrap();
        assert!(made.0.iter().all(|path| path.exists()));
        group.0.remove().unwrap();
        assert!(made.0.iter().all(|path| !path.exists()));
    }
}

#[test]
fn failed_creation_leaves_what_was_there() {
    for hierarchy in hierarchies() {
        let parent = name("stays");
        let made = Parents::new(&hierarchy, &parent).make();
        let mut limits = pids(9);
        limits.cpu.cpus = Some("99999".to_owned());
        let error = create(&hierarchy, &format!("/{parent}/a/b"), &limits).unwrap_err();
        assert!(
            matches!(error, Error::Set { option: "--cpuset-cpus", .. } | Error::NoController { .. }),
            "{error}"
        );
        for path in &made.0 {
            assert!(path.exists() && !path.join("a").exists(), "{}", path.display());
        }
    }
}

#[test]
fn a_group_is_opened_again_by_its_description() {
    for hierarchy in hierarchies() {
        let parent = name("described");
        let _parents = Parents::new(&hierarchy, &parent);
        let group = Guarded(create(&hierarchy, &format!("/{parent}/x"), &pids(9)).unwrap());
        let description = group.0.description();
        let unified = matches!(hierarchy, Hierarchy::V1 { .. }).then_some("pids").unwrap_or_default();
        assert!(description.directories[unified].ends_with(format!("{parent}/x")));
        let text = serde_json::to_string(&description).unwrap();
        let read: Description = serde_json::from_str(&text).unwrap();
        assert_eq!(read, description);
        let again = Group::open_described(&hierarchy, &read).unwrap().unwrap();
        assert_eq!(again.description(), description);
        let sleeper = group.shell("exec sleep 1000");
        assert_eq!(again.processes().unwrap(), [sleeper.0.id()]);
        again.kill().unwrap();
        again.remove().unwrap();
        assert!(Group::open_described(&hierarchy, &read).unwrap().is_none());
    }
}

/// Who makes a container may be killed between two trees: its process is in the first of them only, and must not be overlooked.
#[test]
fn a_process_that_joined_only_the_first_tree_is_found() {
    for hierarchy in hierarchies() {
        let own = Own::new(&hierarchy, "first", &Limits::default());
        let description = own.group.0.description();
        let mut sleeper = Process(std::process::Command::new("sleep").arg("1000").spawn().unwrap());
        let first = own.group.0.freezer().unwrap().join("cgroup.procs");
        fs_err::write(first, sleeper.0.id().to_string()).unwrap();
        let found = Group::open_described(&hierarchy, &description).unwrap().unwrap();
        assert_eq!(found.processes().unwrap(), [sleeper.0.id()]);
        found.kill().unwrap();
        assert!(!sleeper.0.wait().unwrap().success());
        found.remove().unwrap();
    }
}

/// The same from the other side: what is entered first is where processes are looked for. A tree that lets nobody in stands for being killed.
#[test]
fn a_process_joins_first_where_it_is_looked_for() {
    for hierarchy in hierarchies().iter().filter(|hierarchy| !is_v2(hierarchy)) {
        let own = Own::new(hierarchy, "joins", &Limits::default());
        let description = own.group.0.description();
        let Some(cpuset) = description.directories.get("cpuset") else { continue };
        fs_err::write(cpuset.join("cpuset.cpus"), "\n").unwrap();
        let found = Group::open_described(hierarchy, &description).unwrap().unwrap();
        let sleeper = Process(std::process::Command::new("sleep").arg("1000").spawn().unwrap());
        found.join_everywhere(sleeper.0.id()).unwrap_err();
        assert_eq!(found.processes().unwrap(), [sleeper.0.id()]);
    }
}

#[test]
fn a_killed_process_of_a_frozen_group_ends_when_it_is_let() {
    for hierarchy in hierarchies() {
        let own = Own::new(&hierarchy, "let", &Limits::default());
        let mut sleeper = own.group.shell("exec sleep 1000");
        own.group.0.freeze(true).unwrap();
        sleeper.0.kill().unwrap();
        own.group.0.let_die().unwrap();
        assert!(!sleeper.0.wait().unwrap().success());
        assert!(own.group.0.is_empty().unwrap());
    }
}

#[test]
fn version_2_alone_has_one_directory() {
    const OWN: &str = "runtime::version_2_alone_has_one_directory";
    if role().is_none() && !is_v2(&Hierarchy::detect().unwrap()) {
        let private =
            ["unshare", "-m", "sh", "-c", "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"", "sh"];
        again(OWN, "v2", &private);
        return;
    }
    let hierarchy = Hierarchy::detect().unwrap();
    assert!(is_v2(&hierarchy), "{hierarchy:?}");
    let own = Own::new(&hierarchy, "alone", &Limits::default());
    let directories = own.group.0.description().directories;
    assert_eq!(directories.keys().collect::<Vec<_>>(), [""]);
    let sleeper = own.group.shell("exec sleep 1000");
    assert_eq!(own.content("cgroup.procs"), sleeper.0.id().to_string());
    own.group.0.freeze(true).unwrap();
    own.group.0.kill_all(9).unwrap();
    assert!(!sleeper.status().success());
    assert!(own.group.0.detailed().unwrap().cpu.total.is_some());
}

#[test]
fn where_no_group_can_be_made_there_is_none_or_a_refusal() {
    const OWN: &str = "runtime::where_no_group_can_be_made_there_is_none_or_a_refusal";
    if role().is_none() {
        let command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
        again(OWN, "nobody", &command);
        return;
    }
    let hierarchy = Hierarchy::detect().unwrap();
    let choice = || Place::of_path(&hierarchy, Some("/x/y"), "y").unwrap();
    assert!(matches!(choice(), Choice::Nowhere { with_parent: true, .. }));
    let error = Group::create_everywhere(&hierarchy, choice(), &pids(9)).unwrap_err();
    assert!(matches!(error, Error::NotDelegated { option: "--pids-limit", .. }), "{error}");
    let choice = Place::of_path(&hierarchy, None, "y").unwrap();
    assert!(Group::create_everywhere(&hierarchy, choice, &Limits::default()).unwrap().is_none());
}

/// A group of its own, below a parent that is removed with the test, and the directory of a file of it.
struct Own {
    group: Guarded,
    parents: Parents,
}

impl Own {
    fn new(hierarchy: &Hierarchy, test: &str, limits: &Limits) -> Self {
        let parent = name(test);
        let parents = Parents::new(hierarchy, &parent);
        Self { group: Guarded(create(hierarchy, &format!("/{parent}/x"), limits).unwrap()), parents }
    }

    fn content(&self, file: &str) -> String {
        let path = self.parents.0.iter().map(|parent| parent.join("x").join(file)).find(|path| path.exists());
        fs_err::read_to_string(path.unwrap_or_else(|| panic!("no {file}"))).unwrap().trim().to_owned()
    }
}

#[test]
fn every_controller_of_version_2_is_there_to_be_read() {
    for hierarchy in hierarchies() {
        let Hierarchy::V2 { unified } = &hierarchy else { continue };
        let own = Own::new(&hierarchy, "controllers", &Limits::default());
        let root = fs_err::read_to_string(unified.point.join("cgroup.controllers")).unwrap();
        assert_eq!(own.content("cgroup.controllers"), root.trim());
        assert!(root.contains("memory") && own.content("memory.current").parse::<u64>().is_ok());
    }
}

#[test]
fn a_parent_with_processes_lets_nothing_be_limited_and_says_so() {
    for hierarchy in hierarchies().into_iter().filter(is_v2) {
        let own = Own::new(&hierarchy, "occupied", &Limits::default());
        let _sleeper = own.group.shell("exec sleep 1000");
        let below = format!("{}/below", own.group.0.description().directories[""].display());
        let path = below.strip_prefix("/sys/fs/cgroup").unwrap();
        let error = create(&hierarchy, path, &pids(9)).unwrap_err();
        assert!(matches!(error, Error::Occupied { .. }), "{error}");
        assert!(!std::path::Path::new(&below).exists());
        // Without a limit there is nothing that the parent would have to hand down.
        let unlimited = create(&hierarchy, path, &Limits::default()).unwrap();
        assert_eq!(fs_err::read_to_string(format!("{below}/cgroup.type")).unwrap().trim(), "domain");
        unlimited.remove().unwrap();
    }
}

#[test]
fn a_signal_reaches_every_process_and_a_frozen_group_stays_frozen() {
    const TERM: u32 = 15;
    for hierarchy in hierarchies() {
        let own = Own::new(&hierarchy, "signal", &Limits::default());
        let group = &own.group.0;
        let shell = own.group.shell("sleep 1000 & sleep 1000 & trap 'exit 3' TERM; wait");
        until("the shell waits for the signal", || catches(shell.0.id(), TERM));
        assert_eq!(group.processes().unwrap().len(), 3);
        assert!(!group.is_frozen().unwrap());
        group.freeze(true).unwrap();
        assert!(group.is_frozen().unwrap());
        // Whoever has a handler waits until it goes on. Version 2 lets those without one die at once.
        group.kill_all(TERM as i32).unwrap();
        assert!(group.is_frozen().unwrap());
        assert!(group.processes().unwrap().contains(&shell.0.id()));
        group.freeze(false).unwrap();
        assert!(!group.is_frozen().unwrap());
        assert_eq!(shell.status().code(), Some(3));
        until("all are gone", || group.is_empty().unwrap());
        group.kill_all(TERM as i32).unwrap();

        let sleeper = own.group.shell("exec sleep 1000");
        group.kill_all(TERM as i32).unwrap();
        assert!(!sleeper.status().success());
        let sleeper = own.group.shell("exec sleep 1000");
        group.freeze(true).unwrap();
        group.kill_all(9).unwrap();
        assert!(!sleeper.status().success());
    }
}

/// Whether a process has a handler for a signal: proc_pid_status(5).
fn catches(pid: u32, signal: u32) -> bool {
    let text = fs_err::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << (signal - 1) != 0
}

#[test]
fn device_rules_are_replaced() {
    let rule = |minor| DeviceRule {
        allow: true,
        kind: DeviceKind::Character,
        major: Some(1),
        minor: Some(minor),
        access: Access::ALL,
    };
    let rules = |minors: &[u32]| Limits {
        devices: minors.iter().map(|minor| rule(*minor)).collect(),
        ..Limits::default()
    };
    for hierarchy in hierarchies() {
        let mut own = Own::new(&hierarchy, "devices", &Limits::default());
        let null_and_zero = |own: &Own| {
            let try_both = "for d in null zero; do (: < /dev/$d) 2> /dev/full && echo yes || echo no; done";
            let text = own.group.shell(try_both).output();
            text.split_whitespace().map(|answer| answer == "yes").collect::<Vec<bool>>()
        };
        own.group.0.limit_devices(&rules(&[3, 7])).unwrap();
        // Those of a group that had none, then those that widen, then those that narrow.
        for (minors, expected) in
            [(&[3, 7][..], [true, false]), (&[3, 5, 7], [true, true]), (&[5, 7], [false, true])]
        {
            own.group.0.update(&rules(minors)).unwrap();
            assert_eq!(null_and_zero(&own), expected, "{minors:?}");
            own.group.0.update(&pids(100)).unwrap();
            assert!(!own.group.0.is_frozen().unwrap());
        }
    }
}

#[test]
fn bursts_and_idleness_are_set_whichever_way_round_the_kernel_wants_them() {
    for hierarchy in hierarchies() {
        let cpu = |quota, burst| Limits {
            cpu: Cpu { quota: Some(quota), burst: Some(burst), ..Cpu::default() },
            ..Limits::default()
        };
        let mut own = Own::new(&hierarchy, "burst", &cpu(20_000, 10_000));
        let (burst, weight) = match is_v2(&hierarchy) {
            true => ("cpu.max.burst", "cpu.weight"),
            false => ("cpu.cfs_burst_us", "cpu.shares"),
        };
        for (quota, new) in [(50_000, 40_000), (5_000, 4_000)] {
            own.group.0.update(&cpu(quota, new)).unwrap();
            assert_eq!(own.content(burst), new.to_string());
        }
        let error = own.group.0.update(&cpu(5_000, 6_000)).unwrap_err();
        assert!(matches!(error, Error::Set { option: "cpu burst", .. }), "{error}");

        let idle = |idle, shares| Limits {
            cpu: Cpu { idle: Some(idle), shares, ..Cpu::default() },
            ..Limits::default()
        };
        own.group.0.update(&idle(1, Some(512))).unwrap();
        assert_eq!(own.content("cpu.idle"), "1");
        own.group.0.update(&idle(0, Some(1024))).unwrap();
        assert_eq!(own.content("cpu.idle"), "0");
        assert_eq!(own.content(weight), if is_v2(&hierarchy) { "100" } else { "1024" });
    }
}

#[test]
fn what_only_version_1_has_holds_there_and_is_refused_on_version_2() {
    for hierarchy in hierarchies() {
        let memory = Memory {
            swappiness: Some(7),
            disable_oom_killer: Some(true),
            kernel_tcp: Some(1 << 24),
            use_hierarchy: Some(true),
            ..Memory::default()
        };
        let limits = Limits { memory, ..Limits::default() };
        if is_v2(&hierarchy) {
            let error = create(&hierarchy, "/coracle-only-v1", &limits).unwrap_err();
            assert!(matches!(error, Error::OnlyInV1 { controller: "memory", .. }), "{error}");
        } else {
            let own = Own::new(&hierarchy, "only-v1", &limits);
            assert_eq!(own.content("memory.swappiness"), "7");
            assert!(own.content("memory.oom_control").starts_with("oom_kill_disable 1"));
            assert_eq!(own.content("memory.kmem.tcp.limit_in_bytes"), (1 << 24).to_string());
            let memory = Memory { use_hierarchy: Some(false), ..Memory::default() };
            let error = create(&hierarchy, "/coracle-hierarchy", &Limits { memory, ..Limits::default() });
            assert!(matches!(error.unwrap_err(), Error::Set { option: "memory.use_hierarchy", .. }));
        }
        let cpu = Cpu { realtime_runtime: Some(1000), ..Cpu::default() };
        let error = create(&hierarchy, "/coracle-realtime", &Limits { cpu, ..Limits::default() });
        match error {
            // This kernel has groups for realtime.
            Ok(group) => group.remove().unwrap(),
            Err(error) => assert!(
                matches!(&error, Error::OnlyInV1 { .. } | Error::NotOffered { .. } | Error::Set { .. }),
                "{error}"
            ),
        }
        let network = Network { class_id: Some(0x10_0001), ..Network::default() };
        match create(&hierarchy, "/coracle-class", &Limits { network, ..Limits::default() }) {
            Ok(group) => group.remove().unwrap(),
            Err(error) => assert!(matches!(error, Error::OnlyInV1 { controller: "net_cls", .. }), "{error}"),
        }
    }
}

#[test]
fn less_memory_than_is_in_use_is_refused() {
    const MIB: i64 = 1 << 20;
    for hierarchy in hierarchies() {
        let mut own = Own::new(&hierarchy, "in-use", &Limits::default());
        let _hungry = own.group.shell("x=$(head -c 16777216 /dev/zero | tr '\\0' x); sleep 1000");
        until("it has its memory", || own.group.0.statistics().unwrap().memory >= Some(16 << 20));
        let limit = |limit, check_before_update| {
            let memory =
                Memory { limit: Some(limit), swap: Some(limit), check_before_update, ..Memory::default() };
            Limits { memory, ..Limits::default() }
        };
        let error = own.group.0.update(&limit(MIB, true)).unwrap_err().to_string();
        let expected = match is_v2(&hierarchy) {
            true => "rejecting memory+swap limit 1048576 <= usage ",
            false => "unable to set memory limit to 1048576 (current usage: ",
        };
        assert!(error.starts_with(expected), "{error}");
        own.group.0.update(&limit(64 * MIB, true)).unwrap();
    }
}

#[test]
fn all_that_the_kernel_counts_is_told() {
    for hierarchy in hierarchies() {
        let mut limits = pids(50);
        limits.memory.limit = Some(64 << 20);
        limits.cpu.quota = Some(10_000);
        let own = Own::new(&hierarchy, "detailed", &limits);
        let _worker = own.group.shell("x=$(head -c 8388608 /dev/zero | tr '\\0' x); while :; do :; done");
        // What is judged is what was waited for: the next look may find some memory given back. So may the second of two files that one
        // look reads: it is taken when the program has come to rest, and two looks in a row find the same.
        let mut seen: Option<cgroup::Detailed> = None;
        until("it has its memory and was throttled", || {
            let use_of = |all: &cgroup::Detailed| all.memory.as_ref().map(|memory| memory.usage.usage);
            let before = seen.as_ref().and_then(use_of);
            let now = seen.insert(own.group.0.detailed().unwrap());
            now.cpu.throttled > Some(0) && use_of(now) > Some(8 << 20) && use_of(now) == before
        });
        let all = seen.unwrap();
        let cpu = &all.cpu;
        assert!(cpu.total > Some(1_000_000) && cpu.user.is_some() && cpu.kernel.is_some(), "{cpu:?}");
        assert!(cpu.periods >= cpu.throttled_periods && cpu.throttled_periods > Some(0), "{cpu:?}");
        let memory = all.memory.as_ref().unwrap();
        assert_eq!(memory.usage.limit, 64 << 20);
        assert!(memory.usage.usage > 8 << 20 && memory.use_hierarchy, "{memory:?}");
        assert!(memory.swap.is_none_or(|swap| swap.usage >= memory.usage.usage), "{memory:?}");
        assert_eq!(memory.events["oom_kill"], 0);
        let pids = all.pids.unwrap();
        assert!(pids.current >= 1 && pids.limit == Some(50), "{pids:?}");
        if is_v2(&hierarchy) {
            // The kernel sums these up now and then only.
            assert!(memory.raw.contains_key("anon") && cpu.per_cpu.is_empty(), "{memory:?}");
        } else {
            let processors = std::thread::available_parallelism().unwrap().get();
            assert!(cpu.per_cpu.len() >= processors && cpu.per_cpu.iter().sum::<u64>() > 1_000_000);
            assert_eq!(cpu.per_cpu_user.len(), cpu.per_cpu_kernel.len());
            assert!(memory.raw.contains_key("total_rss"), "{memory:?}");
            assert!(memory.kernel.is_some() && memory.kernel_tcp.is_some(), "{memory:?}");
            let cpuset = all.cpuset.as_ref().unwrap();
            assert!(!cpuset.cpus.is_empty() && !cpuset.mems.is_empty());
            assert!(cpuset.flags.contains_key("sched_relax_domain_level"), "{cpuset:?}");
        }
        // The short form tells the same.
        let short = own.group.0.statistics().unwrap();
        assert_eq!((short.memory_limit, short.pids_limit), (Some(64 << 20), Some(50)));
    }
}

#[test]
fn transfers_are_told_by_device() {
    for hierarchy in hierarchies() {
        let own = Own::new(&hierarchy, "transfers", &Limits::default());
        let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name("transfer"));
        fs_err::create_dir_all(file.parent().unwrap()).unwrap();
        let script = format!("dd if=/dev/zero of={} bs=64k count=4 oflag=direct 2>&1", file.display());
        let said = own.group.shell(&script).output();
        fs_err::remove_file(&file).unwrap();
        if said.contains("Invalid argument") {
            println!("SKIP: runtime::transfers_are_told_by_device: its directory is not on a disk");
            return;
        }
        let io = own.group.0.detailed().unwrap().block_io;
        let written = io.service_bytes.iter().filter(|one| one.operation == "Write");
        assert!(written.map(|one| one.value).sum::<u64>() >= 256 << 10, "{said} {io:?}");
        assert!(io.serviced.iter().any(|one| one.operation == "Write" && one.value >= 4), "{io:?}");
    }
}
