//! Where systemd is pid 1: containers whose group is a scope of systemd's (`--systemd-cgroup`), as root and as a user with a systemd of
//! its own, in the virtual machine that systemd booted. The user's tests run in a login's session, from which the user's systemd, or the
//! machine's, has to move processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::bundle::{Bundle, Ran, State, eventually, run_ok};
use crate::under_test::is_root;

/// The user whose systemd the virtual machine has started.
const USER: u32 = 1000;

/// A bundle whose container is a scope, or leaves the test.
macro_rules! scoped {
    () => {{
        if std::env::var_os("CORACLE_TEST_SYSTEMD").is_none() {
            skip!("runs in the virtual machine that systemd boots");
        }
        scoped()
    }};
}

/// The same for what is root's affair alone: a user's run has nothing to see there.
macro_rules! roots {
    () => {{
        let bundle = scoped!();
        if !is_root() {
            return;
        }
        bundle
    }};
}

fn scoped() -> Bundle {
    let mut bundle = Bundle::new();
    bundle.options = vec!["--systemd-cgroup"];
    let path = format!("{}:test:{}", own_slice(), bundle.id);
    bundle.set("/linux/cgroupsPath", path);
    if !is_root() {
        as_the_user(&mut bundle);
    }
    bundle
}

/// What a user needs: a user namespace in which that user is root.
fn as_the_user(bundle: &mut Bundle) {
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    bundle.namespace("user", None);
}

/// A slice that root's and a user's systemd have.
fn own_slice() -> &'static str {
    if is_root() { "machine.slice" } else { "app.slice" }
}

/// The tool of this user's systemd.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    if !is_root() {
        command.arg("--user");
    }
    command.stdin(Stdio::null());
    command
}

#[track_caller]
fn systemctl(arguments: &[&str]) -> String {
    let output = tool("systemctl").args(arguments).output().unwrap();
    assert!(output.status.success(), "systemctl {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn scope_of(bundle: &Bundle) -> String {
    format!("test-{}.scope", bundle.id)
}

/// What systemd knows of a unit.
fn shown(unit: &str) -> BTreeMap<String, String> {
    let text = systemctl(&["show", unit]);
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        // Each device has a line of its own.
        let all = shown.entry(name.to_owned()).or_default();
        *all = if all.is_empty() { value.to_owned() } else { format!("{all}, {value}") };
    }
    shown
}

#[track_caller]
fn assert_shown(unit: &str, expected: &[(&str, &str)]) {
    let shown = shown(unit);
    for (name, value) in expected {
        assert_eq!(shown.get(*name).map(String::as_str), Some(*value), "{name} of {unit}");
    }
}

/// Waits until systemd has forgotten a unit: it removes what is empty in its own time.
#[track_caller]
fn until_forgotten(unit: &str) {
    eventually(&format!("the end of {unit}"), || shown(unit)["LoadState"] == "not-found");
}

/// The group of a process.
fn group_of(pid: u32) -> PathBuf {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    PathBuf::from(text.lines().find_map(|line| line.strip_prefix("0::")).unwrap())
}

fn directory_of(group: &Path) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(group.strip_prefix("/").unwrap())
}

fn contents(group: &Path, files: &[&str]) -> Vec<String> {
    let content = |file: &&str| {
        let path = directory_of(group).join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    files.iter().map(|file| content(file).trim().to_owned()).collect()
}

/// Above all slices: nothing for root, the user's systemd for a user.
fn top() -> String {
    if is_root() { String::new() } else { format!("/user.slice/user-{USER}.slice/user@{USER}.service") }
}

#[track_caller]
fn end(bundle: &Bundle, unit: &str) {
    bundle.ok(&["delete", "--force", "{id}"]);
    // The command has waited for it.
    assert_eq!(shown(unit)["LoadState"], "not-found", "{unit}");
    bundle.assert_nothing_left();
}

/// Asks the container that runs to open devices for reading; tells which of them it can.
fn opened(bundle: &Bundle, devices: &str) -> String {
    let script =
        format!("for d in {devices}; do (: < /dev/$d) 2> /tmp/err && echo -n yes, || echo -n no,; done");
    bundle.exec(&script)
}

#[test]
fn a_container_is_a_delegated_scope_with_its_limits() {
    let mut bundle = scoped!();
    bundle.set(
        "/linux/resources",
        json!({
            "pids": {"limit": 20},
            "memory": {"limit": 67_108_864, "swap": 100_663_296, "reservation": 33_554_432},
            "cpu": {"quota": 50_000, "period": 100_000, "shares": 512},
        }),
    );
    let mut expected = vec![
        ("TasksMax", "20"),
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "33554432"),
        ("MemoryLow", "33554432"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("CPUWeight", "59"),
        ("Slice", own_slice()),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("ActiveState", "active"),
    ];
    if is_root() {
        // A user has no cpuset from systemd, and device programs are root's.
        bundle.set("/linux/resources/cpu/cpus", "0").set("/linux/resources/cpu/mems", "0");
        bundle.set(
            "/linux/resources/devices",
            json!([{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]),
        );
        expected.extend([("AllowedCPUs", "0"), ("AllowedMemoryNodes", "0"), ("DevicePolicy", "strict")]);
    }
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.create();
    let unit = scope_of(&bundle);
    let description = format!("container {}", bundle.id);
    expected.push(("Description", &description));
    assert_shown(&unit, &expected);
    let group = group_of(bundle.pid());
    assert_eq!(group.display().to_string(), format!("{}/{}/{unit}", top(), own_slice()));
    assert!(group.ends_with(shown(&unit)["ControlGroup"].trim_start_matches('/')));
    if is_root() {
        assert!(shown(&unit)["DeviceAllow"].contains("/dev/char/1:11 r"), "{}", shown(&unit)["DeviceAllow"]);
        assert_eq!(contents(&group, &["cpuset.cpus", "cpuset.mems"]), ["0", "0"]);
    }
    let files = ["pids.max", "memory.max", "memory.swap.max", "memory.low", "cpu.max", "cpu.weight"];
    let values = ["20", "67108864", "33554432", "33554432", "50000 100000", "59"];
    assert_eq!(contents(&group, &files), values);

    assert_eq!(bundle.status(), "created");
    bundle.start();
    assert_eq!(bundle.status(), "running");
    let pids = |bundle: &Bundle| -> Vec<u32> {
        serde_json::from_str(&bundle.ok(&["ps", "--format", "json", "{id}"])).unwrap()
    };
    assert_eq!(pids(&bundle), [bundle.pid()]);
    bundle.ok(&["exec", "--detach", "{id}", "/bin/sleep", "1000"]);
    let both = pids(&bundle);
    assert_eq!(both.len(), 2, "exec's program is in the scope: {both:?}");
    assert!(both.iter().all(|pid| group_of(*pid) == group), "{both:?}");
    let stats: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", "{id}"])).unwrap();
    assert_eq!(stats["data"]["pids"], json!({"current": 2, "limit": 20}), "{stats}");
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 67_108_864, "{stats}");
    bundle.ok(&["pause", "{id}"]);
    assert_eq!(bundle.status(), "paused");
    assert_eq!(contents(&group, &["cgroup.freeze"]), ["1"]);
    bundle.ok(&["resume", "{id}"]);
    assert_eq!(bundle.status(), "running");
    bundle.ok(&["kill", "{id}", "KILL"]);
    bundle.wait_for("stopped");
    // Its PID namespace has ended, so the scope is empty.
    until_forgotten(&unit);
    bundle.ok(&["delete", "{id}"]);
    bundle.assert_nothing_left();
}

#[test]
fn a_path_names_slice_and_scope_and_none_is_the_usual_ones() {
    let mut bundle = scoped!();
    let usual = if is_root() { "system.slice" } else { "user.slice" };
    let id = bundle.id.clone();
    for (path, slice, unit) in [
        (Value::Null, usual, format!("coracle-{id}.scope")),
        (json!(""), usual, format!("coracle-{id}.scope")),
        (json!(format!(":other:{id}")), usual, format!("other-{id}.scope")),
        (json!(format!("outer-inner.slice:p:{id}")), "outer-inner.slice", format!("p-{id}.scope")),
    ] {
        if path.is_null() {
            bundle.remove("/linux/cgroupsPath");
        } else {
            bundle.set("/linux/cgroupsPath", path);
        }
        bundle.bring(State::Created);
        assert_shown(&unit, &[("Slice", slice), ("Delegate", "yes"), ("TasksMax", "infinity")]);
        let above = if slice == usual { slice.to_owned() } else { format!("outer.slice/{slice}") };
        assert_eq!(group_of(bundle.pid()).display().to_string(), format!("{}/{above}/{unit}", top()));
        end(&bundle, &unit);
    }
    for wrong in ["/a/path", "a.slice:b", "noslice:a:b"] {
        bundle.set("/linux/cgroupsPath", wrong);
        let error = bundle.refused();
        assert!(error.contains(wrong) && error.contains("slice"), "{error}");
    }
    bundle.assert_nothing_left();
}

#[test]
fn an_update_is_told_to_systemd_and_a_reload_changes_nothing() {
    let mut bundle = scoped!();
    // A user's systemd hands neither cpuset nor io down.
    let shared = ["pids.max", "memory.max", "memory.swap.max", "memory.low", "memory.high", "cpu.max"];
    let files: Vec<&str> = shared.into_iter().chain(is_root().then_some("cpuset.cpus")).collect();
    let resources = json!({
        "pids": {"limit": 20},
        "memory": {"limit": 67_108_864, "swap": 67_108_864},
        "cpu": {"quota": 50_000, "period": 100_000, "idle": 1},
    });
    bundle.set("/linux/resources", resources);
    if is_root() {
        // The machine's two disks: one is allowed.
        let disk =
            |minor| json!({"path": format!("/dev/disk{minor}"), "type": "b", "major": 254, "minor": minor});
        bundle.set("/linux/devices", json!([disk(0), disk(16)]));
        bundle.set("/linux/resources/devices", disks(0));
    }
    bundle.bring(State::Running);
    let unit = scope_of(&bundle);
    let group = group_of(bundle.pid());
    let look = |bundle: &Bundle| {
        let devices = if is_root() { opened(bundle, "null zero disk0 disk16") } else { String::new() };
        (contents(&group, &files), contents(&group, &["cpu.idle"]), devices)
    };
    // Another unit beside it, and a property of its own, have systemd write again what it knows.
    let reload = || {
        systemctl(&["daemon-reload"]);
        let slice = format!("--slice={}", own_slice());
        let beside =
            tool("systemd-run").args(["--quiet", "--scope", &slice, "-p", "MemoryMax=1G", "true"]).status();
        assert!(beside.unwrap().success());
        systemctl(&["set-property", "--runtime", &unit, "MemoryMin=1M", "StartupCPUWeight=100"]);
    };
    let before = look(&bundle);
    assert_eq!(before.0[..4], ["20", "67108864", "0", "0"]);
    reload();
    assert_eq!(look(&bundle), before);
    if is_root() {
        assert_eq!(before.2, "yes,yes,yes,no,");
    }

    let mut change = json!({
        "pids": {"limit": 30},
        "memory": {"limit": 134_217_728, "swap": 201_326_592, "reservation": 1_048_576},
        "cpu": {"quota": 20_000, "period": 50_000},
        "unified": {"memory.high": "100000000"},
    });
    if is_root() {
        change["devices"] = disks(16);
        change["cpu"]["cpus"] = "1".into();
    }
    let file = bundle.path("change.json");
    std::fs::write(&file, change.to_string()).unwrap();
    bundle.ok(&["update", "--resources", &file, "{id}"]);
    let after = look(&bundle);
    assert_eq!(after.0[..6], ["30", "134217728", "67108864", "1048576", "99999744", "20000 50000"]);
    let expected = [
        ("TasksMax", "30"),
        ("MemoryMax", "134217728"),
        ("MemorySwapMax", "67108864"),
        ("MemoryLow", "1048576"),
        ("CPUQuotaPerSecUSec", "400ms"),
        ("CPUQuotaPeriodUSec", "50ms"),
    ];
    assert_shown(&unit, &expected);
    reload();
    assert_eq!(look(&bundle), after);
    assert_shown(&unit, &expected);
    if is_root() {
        assert_eq!(after.2, "yes,yes,no,yes,");
        assert_shown(&unit, &[("AllowedCPUs", "1")]);
    }
    // By single options too; the others stay.
    bundle.ok(&["update", "--pids-limit", "40", "{id}"]);
    reload();
    assert_eq!(look(&bundle).0[..2], ["40", "134217728"]);
    end(&bundle, &unit);
}

/// Rules that allow one of the machine's two disks.
fn disks(minor: u32) -> Value {
    json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "b", "major": 254, "minor": minor, "access": "rw"},
    ])
}

#[test]
fn a_name_is_taken_once_and_free_again_at_once() {
    let mut bundle = scoped!();
    let unit = scope_of(&bundle);
    bundle.bring(State::Running);
    let mut second = scoped();
    second.set("/linux/cgroupsPath", bundle.config["linux"]["cgroupsPath"].clone());
    let error = second.refused();
    assert!(error.contains(&unit) && error.contains("a unit of this name already"), "{error}");
    second.assert_nothing_left();
    assert_eq!(bundle.status(), "running");
    for _ in 0..3 {
        end(&bundle, &unit);
        bundle.bring(State::Running);
    }
    // What has a limit that the kernel refuses is gone when that is told.
    end(&bundle, &unit);
    bundle.set("/linux/resources/unified", json!({"memory.no_such_file": "1"}));
    for _ in 0..3 {
        let error = bundle.refused();
        assert!(error.contains("memory.no_such_file"), "{error}");
        assert_eq!(shown(&unit)["LoadState"], "not-found", "{unit}");
    }
    bundle.remove("/linux/resources");
    bundle.bring(State::Created);
    end(&bundle, &unit);
}

#[test]
fn a_failed_scope_is_no_obstacle() {
    let mut bundle = scoped!();
    let unit = scope_of(&bundle);
    // One that ran out of memory.
    bundle.set("/linux/resources", json!({"memory": {"limit": 8_388_608, "swap": 8_388_608}}));
    bundle.script("tail /dev/zero");
    assert_eq!(bundle.run_container().code, 137);
    bundle.assert_nothing_left();
    // One that failed, and that systemd shall not forget by itself.
    let failed = format!("--unit={unit}");
    let _ = tool("systemd-run")
        .args(["--quiet", "--scope", &failed, "-p", "RuntimeMaxSec=200ms", "sleep", "1000"])
        .output();
    eventually("a failed scope", || shown(&unit)["ActiveState"] == "failed");
    bundle.bring(State::Created);
    assert_shown(&unit, &[("ActiveState", "active")]);
    end(&bundle, &unit);
}

#[test]
fn a_create_that_is_killed_leaves_no_scope() {
    let mut bundle = scoped!();
    let unit = scope_of(&bundle);
    bundle.bring(State::Missing);
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.write_config();
    for milliseconds in [20, 60, 100, 150, 200, 300] {
        let args = ["create", "--bundle", &bundle.path(""), &bundle.id];
        let mut command = bundle.command(&args);
        let mut create = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        // It may be done.
        let _ = create.kill();
        create.wait().unwrap();
        bundle.ok(&["delete", "--force", "{id}"]);
        until_forgotten(&unit);
        bundle.assert_nothing_left();
    }
}

#[test]
fn what_systemd_refuses_is_told() {
    let mut bundle = scoped!();
    let unit = scope_of(&bundle);
    bundle.set("/linux/resources/unified", json!({"memory.max": "0"}));
    let told = |error: &str, words: &[&str]| {
        assert!([unit.as_str()].iter().chain(words).all(|word| error.contains(word)), "{error}");
    };
    told(&bundle.refused(), &["start", "MemoryMax", "out of range"]);
    bundle.assert_nothing_left();
    bundle.set("/linux/resources", json!({"pids": {"limit": 20}}));
    bundle.bring(State::Running);
    let file = bundle.path("change.json");
    std::fs::write(&file, json!({"unified": {"memory.max": "0", "pids.max": "30"}}).to_string()).unwrap();
    let ran = bundle.run(&["update", "--resources", &file, "{id}"]);
    told(&ran.errors().pop().unwrap(), &["change", "MemoryMax", "out of range"]);
    assert_eq!(contents(&group_of(bundle.pid()), &["pids.max", "memory.max"]), ["20", "max"]);
    assert_shown(&unit, &[("TasksMax", "20")]);
    end(&bundle, &unit);
}

/// A command line in a new login's session, to its end, which ends the session.
#[track_caller]
fn in_a_session(user: &str, script: &str) -> Ran {
    let output = Command::new("systemd-run")
        .args(["--quiet", "--wait", "--pipe", "--collect", "--property=PAMName=login", "--uid", user, "--"])
        .args(["/bin/sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Makes a container and one more program in it from a session that ends, and looks for both afterwards.
#[track_caller]
fn survives_the_end_of_its_session(bundle: &mut Bundle, user: &str) {
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.write_config();
    let line = |args: &[&str]| {
        let command = bundle.command(&[]);
        let words = command.get_args().map(|word| word.to_str().unwrap().to_owned());
        let words = [command.get_program().to_str().unwrap().to_owned()].into_iter().chain(words);
        let quiet = " < /dev/null > /dev/null 2>&1";
        words.chain(args.iter().map(|word| bundle.fill(word))).collect::<Vec<_>>().join(" ") + quiet
    };
    let script = format!(
        "cat /proc/self/cgroup; setsid sleep 12345 < /dev/null > /dev/null 2>&1 & echo $!; {} && {} && {}",
        line(&["create", "--bundle", "{bundle}", "{id}"]),
        line(&["start", "{id}"]),
        line(&["exec", "--detach", "{id}", "/bin/sleep", "1000"]),
    );
    let ran = in_a_session(user, &script);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("/session-"), "no session was made: {ran:?}");
    let other = ran.out.lines().find_map(|line| line.parse::<u32>().ok()).unwrap();
    // What stays in a session is killed with it here (KillUserProcesses=yes), but for root's, which logind spares.
    if user == "root" {
        let session = ran.out.lines().find_map(|line| line.rsplit_once('/')).unwrap().1;
        systemctl(&["stop", session]);
    }
    eventually("the end of the session", || {
        let command = std::fs::read(format!("/proc/{other}/cmdline")).unwrap_or_default();
        !String::from_utf8_lossy(&command).contains("12345")
    });
    let in_it = run_ok("find", &["/sys/fs/cgroup", "-name", &scope_of(bundle)]);
    let group = Path::new(in_it.trim()).to_owned();
    let processes = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
    assert_eq!(processes.lines().count(), 2, "{processes}");
    assert!(!in_it.contains("session-"), "{in_it}");
    let ran = in_a_session(user, &line(&["exec", "{id}", "/bin/true"]));
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = in_a_session(user, &line(&["delete", "--force", "{id}"]));
    assert_eq!(ran.code, 0, "{ran:?}");
    eventually("the end of the scope", || !group.exists());
    bundle.assert_nothing_left();
}

#[test]
fn a_container_goes_on_when_the_session_ends_it_was_made_in() {
    let mut bundle = roots!();
    survives_the_end_of_its_session(&mut bundle, "root");
}

#[test]
fn a_lingering_users_container_goes_on_when_the_session_ends() {
    let mut bundle = roots!();
    bundle.set("/linux/cgroupsPath", format!("app.slice:test:{}", bundle.id));
    as_the_user(&mut bundle);
    let owner = format!("{USER}:{USER}");
    run_ok("chown", &["-R", &owner, bundle.directory().to_str().unwrap()]);
    survives_the_end_of_its_session(&mut bundle, "user");
}
