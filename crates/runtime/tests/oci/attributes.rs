//! What the configuration gives the container's process, where it is a matter of safety or takes more than one command to see.

use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::bundle::{Bundle, Ran, State, run_ok};

/// Leaves the test on runc, which does otherwise: the reason says what.
macro_rules! unlike_runc {
    ($reason:literal) => {
        if $crate::under_test::runc().is_some() {
            skip!("runc {}", $reason);
        }
    };
}

/// A descriptor of a directory of the host is handed in, and the working directory is by way of it.
#[test]
fn cve_2024_21626_the_working_directory_is_below_the_root() {
    unlike_runc!("before 1.1.12 makes the directory on the host first");
    let mut bundle = bundle!();
    let host = std::fs::File::open("/usr").unwrap();
    let by_descriptor = |bundle: &Bundle, args: &[&str]| {
        let filled: Vec<String> = args.iter().map(|arg| bundle.fill(arg)).collect();
        let words: Vec<&str> = filled.iter().map(String::as_str).collect();
        let inner = bundle.command(&words);
        // The shell makes it number 3, which --preserve-fds keeps.
        let mut command = Command::new("sh");
        let open = format!("exec 3< /proc/{}/fd/{}; exec \"$@\"", std::process::id(), host.as_raw_fd());
        command.args(["-c", &open, "sh"]).arg(inner.get_program()).args(inner.get_args());
        bundle.finish(command.stdin_null())
    };
    let refused = |ran: &Ran| {
        assert_ne!(ran.code, 0, "{ran:?}");
        assert!(ran.err.contains("possible container breakout detected"), "{ran:?}");
        assert!(!ran.out.contains("share"), "{ran:?}");
    };
    bundle.script("ls; ls ..").set("/process/cwd", "/proc/self/fd/3");
    bundle.write_config();
    let run = ["run", "--preserve-fds", "1", "--bundle", "{bundle}", "{id}"];
    refused(&by_descriptor(&bundle, &run));
    // Nor is anything made there.
    let place = format!("made-by-{}", bundle.id);
    bundle.set("/process/cwd", format!("/proc/self/fd/3/{place}"));
    bundle.write_config();
    let ran = by_descriptor(&bundle, &run);
    assert!(ran.code != 0 && !Path::new("/usr").join(place).exists(), "{ran:?}");
    bundle.set("/process/cwd", "/");
    bundle.bring(State::Running);
    let exec = ["exec", "--preserve-fds", "1", "--cwd", "/proc/self/fd/3", "{id}", "/bin/ls"];
    refused(&by_descriptor(&bundle, &exec));
    // Without anything handed in there is nothing of the host open.
    for number in 0..20 {
        let ran = bundle.run(&["exec", "--cwd", &format!("/proc/self/fd/{number}"), "{id}", "/bin/ls"]);
        assert!(!ran.out.contains("config.json") && !ran.out.contains("share"), "{number}: {ran:?}");
    }
}

trait NullInput {
    fn stdin_null(self) -> Self;
}

impl NullInput for Command {
    fn stdin_null(mut self) -> Self {
        self.stdin(std::process::Stdio::null());
        self
    }
}

/// The runtime may not enter it, as root on a network's file system; the container's user may.
#[test]
fn a_working_directory_only_the_user_may_enter_is_entered() {
    let mut bundle = bundle!();
    let closed = bundle.rootfs().join("closed");
    std::fs::create_dir(&closed).unwrap();
    run_ok("chown", &["5:5", closed.to_str().unwrap()]);
    run_ok("chmod", &["0700", closed.to_str().unwrap()]);
    bundle.set("/process/cwd", "/closed").set("/process/user", json!({"uid": 5, "gid": 5})).script("pwd");
    // Groups take the powers that the test takes away.
    bundle.remove("/linux/cgroupsPath");
    bundle.write_config();
    let directory = bundle.directory().to_str().unwrap();
    let inner = bundle.command(&["--rootless=true", "run", "--bundle", directory, &bundle.id]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-dac_override,-dac_read_search"]);
    command.arg(inner.get_program()).args(inner.get_args());
    let ran = bundle.finish(command.stdin_null());
    assert_eq!((ran.code, ran.out.as_str()), (0, "/closed\n"), "{ran:?}");
}

/// An image has plain files where the kernel's should be. A volume is refused there.
#[test]
fn cve_2019_16884_parameters_do_not_go_to_a_faked_proc() {
    unlike_runc!("before 1.2 needs a procfs at /proc");
    let mut bundle = bundle!();
    let fake = bundle.rootfs().join("proc/sys/net/ipv4");
    std::fs::create_dir_all(&fake).unwrap();
    std::fs::write(fake.join("ip_default_ttl"), "").unwrap();
    bundle
        .set("/mounts", json!([]))
        .set("/linux/sysctl", json!({"net.ipv4.ip_default_ttl": "77"}))
        .set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.create();
    assert_eq!(std::fs::read_to_string(fake.join("ip_default_ttl")).unwrap(), "");
    let pid = bundle.pid().to_string();
    let set = run_ok("nsenter", &["-n", "-t", &pid, "cat", "/proc/sys/net/ipv4/ip_default_ttl"]);
    assert_eq!(set, "77\n");
}

/// As in a user namespace where a part of the host's /proc is covered. Then that of the container is written to.
#[test]
fn parameters_are_set_where_the_kernel_refuses_a_private_procfs() {
    unlike_runc!("before 1.4 has no procfs of its own that could be refused");
    let mut bundle = bundle!();
    // It would be refused the container as well, which gets the host's.
    let hosts = json!([{"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]}]);
    bundle.set("/mounts", hosts).set("/linux/sysctl", json!({"net.ipv4.ip_default_ttl": "78"}));
    bundle.user_namespace().script("cat /proc/sys/net/ipv4/ip_default_ttl");
    bundle.write_config();
    let refusing = |bundle: &Bundle, place: &str| {
        let inner = bundle.command(&["run", "--bundle", bundle.directory().to_str().unwrap(), &bundle.id]);
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", place, "-e", "trace=fsopen", "-e", "inject=fsopen:error=EPERM"]);
        command.arg(inner.get_program()).args(inner.get_args());
        bundle.finish(command.stdin_null())
    };
    let calls = bundle.path("calls");
    let ran = refusing(&bundle, &calls);
    assert_eq!((ran.code, ran.out.as_str()), (0, "78\n"), "{ran:?}");
    assert!(std::fs::read_to_string(&calls).unwrap().contains("INJECTED"));
    // What is no procfs is not written to either way.
    bundle.set("/mounts", json!([]));
    bundle.write_config();
    let ran = refusing(&bundle, &calls);
    assert!(ran.code != 0 && ran.err.contains("no procfs is mounted here"), "{ran:?}");
}

#[test]
fn ids_that_are_not_mapped_are_refused_by_number() {
    unlike_runc!("does not say which id it is");
    let mut bundle = bundle!();
    bundle.user_namespace().script("id");
    for (user, words) in [
        (json!({"uid": 70_000, "gid": 0}), ["unmapped user", "user id 70000"]),
        (json!({"uid": 0, "gid": 70_001}), ["unmapped user", "group id 70001"]),
        (json!({"uid": 0, "gid": 0, "additionalGids": [5, 70_002]}), ["unmapped user", "group id 70002"]),
    ] {
        bundle.set("/process/user", user);
        let error = bundle.refused();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        bundle.assert_nothing_left();
    }
}

/// A pair of devices; one end is gone when the other is.
struct Pair([String; 2]);

impl Pair {
    fn new() -> Self {
        let number = std::process::id() % 1_000_000;
        let names = [format!("ca{number}"), format!("cb{number}")];
        run_ok("ip", &["link", "add", &names[0], "type", "veth", "peer", "name", &names[1]]);
        Self(names)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ =
            Command::new("ip").args(["link", "del", &self.0[0]]).stderr(std::process::Stdio::null()).status();
    }
}

#[test]
fn net_devices_move_with_their_lasting_addresses_and_are_up() {
    let mut bundle = bundle!("linux.netDevices");
    let pair = Pair::new();
    let [outer, inner] = &pair.0;
    for address in ["10.99.8.1/24", "fd00:99::1/64"] {
        run_ok("ip", &["addr", "add", address, "dev", inner, "nodad"]);
    }
    run_ok("ip", &["addr", "add", "10.99.9.1/24", "dev", inner, "scope", "link"]);
    run_ok("ip", &["addr", "add", "10.99.10.1/24", "dev", inner, "valid_lft", "900", "preferred_lft", "900"]);
    bundle.set("/linux/netDevices", json!({"no-such-device": {}, inner: {"name": "eth7"}}));
    let error = bundle.refused();
    assert!(error.contains("no-such-device"), "{error}");
    bundle.assert_nothing_left();
    bundle.set("/linux/netDevices", json!({inner: {"name": "lo"}}));
    let error = bundle.refused();
    assert!(error.contains("device of the name lo already"), "{error}");
    // None was moved so far.
    run_ok("ip", &["link", "show", inner]);
    bundle.without_namespace("network").set("/linux/netDevices", json!({inner: {}}));
    let error = bundle.refused();
    assert!(error.contains("needs a network namespace"), "{error}");
    bundle.namespace("network", None).set("/linux/netDevices", json!({inner: {"name": "eth7"}}));
    let out = bundle.inside("ip addr show eth7");
    assert!(out.contains("10.99.8.1/24") && out.contains("fd00:99::1/64"), "{out}");
    assert!(!out.contains("10.99.9.1") && !out.contains("10.99.10.1"), "{out}");
    assert!(out.lines().next().unwrap().contains(",UP"), "{out}");
    assert!(!Path::new("/sys/class/net").join(inner).exists());
    let _ = outer;
}

#[test]
fn net_devices_move_into_a_user_namespaces_network() {
    let mut bundle = bundle!("linux.netDevices");
    let number = std::process::id() % 1_000_000;
    let pair = Pair([format!("cc{number}"), format!("cd{number}")]);
    run_ok("ip", &["link", "add", &pair.0[0], "type", "veth", "peer", "name", &pair.0[1]]);
    run_ok("ip", &["addr", "add", "10.99.11.1/24", "dev", &pair.0[1]]);
    bundle.user_namespace().set("/linux/netDevices", json!({&pair.0[1]: {}}));
    let out = bundle.inside("ip addr");
    assert!(out.contains(&format!(" {}@", pair.0[1])) && out.contains("10.99.11.1/24"), "{out}");
}

#[test]
fn intel_rdt_is_refused_where_resctrl_is_not_mounted() {
    unlike_runc!("says it in other words");
    let mut bundle = bundle!();
    if std::fs::read_to_string("/proc/mounts").unwrap().contains(" resctrl ") {
        skip!("resctrl is mounted");
    }
    bundle.set("/linux/intelRdt", json!({"closID": "gold", "l3CacheSchema": "L3:0=f"}));
    let error = bundle.refused();
    assert!(error.contains("Intel RDT is not enabled"), "{error}");
    bundle.assert_nothing_left();
    bundle.remove("/linux/intelRdt");
    bundle.bring(State::Running);
    for flag in ["--l3-cache-schema", "--mem-bw-schema"] {
        let ran = bundle.run(&["update", "--pids-limit", "77", flag, "L3:0=f", "{id}"]);
        assert!(ran.code != 0 && ran.err.contains("not enabled"), "{ran:?}");
    }
    // Nothing else was changed either.
    let limit =
        std::fs::read_to_string(bundle.group("pids").or(bundle.group("unified")).unwrap().join("pids.max"));
    assert_ne!(limit.unwrap(), "77\n");
}

/// A group of the first version's cpu controller has no time for real-time programs unless it is given some, so this is where there is none.
#[test]
fn real_time_policies_are_set_for_the_first_program_and_for_exec() {
    const POLICY: &str = "read -r line < /proc/self/stat; set -- $line; echo ${19} ${40} ${41}";
    let mut bundle = bundle!("process.scheduler");
    bundle.remove("/linux/cgroupsPath");
    let in_view_of_v2 = |bundle: &Bundle, args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| bundle.fill(arg)).collect();
        let inner = bundle.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let mut command = Command::new("unshare");
        let is_v2 = "test $(stat -f -c %T /sys/fs/cgroup) = cgroup2fs";
        let mount = format!("{{ {is_v2} || mount -t cgroup2 none /sys/fs/cgroup; }} && exec \"$@\"");
        command.args(["--mount", "sh", "-c", &mount, "sh"]).arg(inner.get_program()).args(inner.get_args());
        bundle.finish(command.stdin_null())
    };
    let run = ["run", "--bundle", "{bundle}", "{id}"];
    let reset = json!(["SCHED_FLAG_RESET_ON_FORK"]);
    let fifo = json!({"policy": "SCHED_FIFO", "priority": 10, "flags": reset});
    bundle.set("/process/scheduler", fifo).script(&format!("{POLICY}; sh -c '{POLICY}'; :"));
    bundle.write_config();
    let ran = in_view_of_v2(&bundle, &run);
    assert_eq!((ran.code, ran.out.as_str()), (0, "0 10 1\n0 0 0\n"), "{ran:?}");
    let deadline = json!({
        "policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 30_000_000, "period": 40_000_000, "flags": reset,
    });
    bundle.set("/process/scheduler", deadline).script(POLICY);
    bundle.write_config();
    let ran = in_view_of_v2(&bundle, &run);
    assert!(ran.code == 0 && ran.out.ends_with(" 6\n"), "{ran:?}");
    let policy = json!({"policy": "SCHED_RR", "priority": 3});
    bundle.remove("/process/scheduler").set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.write_config();
    let ran = in_view_of_v2(&bundle, &["create", "--bundle", "{bundle}", "{id}"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    bundle.start();
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(["/bin/sh", "-c", POLICY]);
    process["scheduler"] = policy;
    process["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
    let file = bundle.path("process.json");
    std::fs::write(&file, process.to_string()).unwrap();
    let ran = in_view_of_v2(&bundle, &["exec", "--process", &file, "{id}"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "0 3 2\n"), "{ran:?}");
    // Elsewhere there may be no tree that its group is in.
    let ran = in_view_of_v2(&bundle, &["delete", "--force", "{id}"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn an_apparmor_profile_confines_the_first_program_and_exec() {
    const OWN: &str = "cat /proc/self/attr/apparmor/current";
    let mut bundle = bundle!();
    if !std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.starts_with('Y'))
    {
        skip!("AppArmor is off");
    }
    // One that has to be loaded, by a program that need not be there.
    bundle.set("/process/apparmorProfile", "coracle-test-missing");
    let error = bundle.refused();
    assert!(error.contains("process.apparmorProfile") && error.contains("coracle-test-missing"), "{error}");
    bundle.assert_nothing_left();
    for profile in ["unconfined", "coracle-test"] {
        let loaded = "/sys/kernel/security/apparmor/profiles";
        let has = |text: String| text.lines().any(|line| line.starts_with(&format!("{profile} (")));
        if profile != "unconfined" && !std::fs::read_to_string(loaded).is_ok_and(has) {
            continue;
        }
        bundle.set("/process/apparmorProfile", profile);
        let own = bundle.inside(OWN);
        assert!(own.starts_with(profile), "{own}");
    }
    bundle.bring(State::Running);
    let own = bundle.ok(&["exec", "--apparmor", "unconfined", "{id}", "/bin/sh", "-c", OWN]);
    assert!(own.starts_with("unconfined"), "{own}");
    let ran = bundle.run(&["exec", "--apparmor", "coracle-test-missing", "{id}", "/bin/true"]);
    assert!(ran.code != 0 && ran.err.contains("coracle-test-missing"), "{ran:?}");
}

/// Who may not map more than the own id gives setgroups(2) up for it.
#[test]
fn a_user_without_more_ids_has_no_additional_groups() {
    unlike_runc!("does not say which group it is");
    const USER: u32 = 12_345;
    let mut bundle = bundle!();
    let own = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    bundle.namespace("user", None).remove("/linux/cgroupsPath");
    bundle.set("/linux/uidMappings", own.clone()).set("/linux/gidMappings", own).script("id -u");
    let as_user = |bundle: &Bundle| {
        bundle.write_config();
        run_ok("chown", &["-R", &format!("{USER}:{USER}"), bundle.directory().to_str().unwrap()]);
        let inner = bundle.command(&["run", "--bundle", bundle.directory().to_str().unwrap(), &bundle.id]);
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()]);
        // A copy: the way to where it was built may be closed to others.
        let copy = bundle.path("runtime");
        // By another program: what forks here meanwhile would hold it open for writing.
        run_ok("cp", &[inner.get_program().to_str().unwrap(), &copy]);
        command.arg(copy).args(inner.get_args());
        bundle.finish(command.stdin_null())
    };
    let ran = as_user(&bundle);
    assert_eq!((ran.code, ran.out.as_str()), (0, "0\n"), "{ran:?}");
    bundle.set("/process/user/additionalGids", json!([5]));
    let ran = as_user(&bundle);
    let words = "cannot set any additional groups in a rootless container: group id 5";
    assert!(ran.code != 0 && ran.err.contains(words), "{ran:?}");
}
