//! A container's life: what each command makes and what it leaves.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::bundle::{Bundle, Ran, State, eventually};

#[test]
fn created_started_stopped_and_deleted() {
    let mut bundle = bundle!();
    bundle.script("echo started > /mark; exec sleep 1000");
    let pid_file = bundle.path("pid");
    bundle.write_config();
    bundle.ok(&["create", "--bundle", "{bundle}", "--pid-file", &pid_file, "{id}"]);

    let state = bundle.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], bundle.id);
    assert_eq!(state["bundle"], bundle.directory().to_str().unwrap());
    assert_eq!(state["rootfs"], bundle.rootfs().to_str().unwrap());
    assert!(state["ociVersion"].is_string() && state["created"].is_string(), "{state}");
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), state["pid"].to_string());
    assert!(!bundle.rootfs().join("mark").exists(), "the program must wait for start");

    bundle.start();
    assert_eq!(bundle.status(), "running");
    assert_eq!(bundle.state()["pid"], state["pid"], "the pid stays");
    eventually("the program", || bundle.rootfs().join("mark").exists());

    bundle.ok(&["kill", "{id}", "KILL"]);
    bundle.wait_for("stopped");
    assert_eq!(bundle.state()["pid"], 0, "a stopped container has no pid");
    bundle.ok(&["delete", "{id}"]);
    bundle.assert_nothing_left();
}

#[test]
fn run_ends_as_the_program_does() {
    let mut bundle = bundle!();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255)] {
        bundle.script(script);
        let ran = bundle.run_container();
        assert_eq!(ran.code, code, "{script}: {ran:?}");
        bundle.assert_nothing_left();
    }
    // The init of a pid namespace gets no signal it has no handler for from inside, so a child shows the convention.
    bundle.script("sh -c 'kill -9 $$'; exit $?");
    assert_eq!(bundle.run_container().code, 137);
}

#[test]
fn a_signal_from_outside_is_the_exit_code_of_run() {
    let mut bundle = bundle!();
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.write_config();
    let mut command = bundle.command(&["run", "--bundle", &bundle.path(""), &bundle.id]);
    let child = command.spawn().unwrap();
    eventually("running", || bundle.run(&["state", "{id}"]).out.contains("running"));
    bundle.ok(&["kill", "{id}", "KILL"]);
    assert_eq!(crate::bundle::wait(child, "run").code(), Some(137));
    bundle.assert_nothing_left();
}

#[test]
fn run_detached_keep_and_pid_file() {
    let mut bundle = bundle!();
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.write_config();
    let pid_file = bundle.path("pid");
    bundle.ok(&["run", "--detach", "--bundle", "{bundle}", "--pid-file", &pid_file, "{id}"]);
    assert_eq!(bundle.status(), "running");
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), bundle.pid().to_string());
    bundle.ok(&["delete", "--force", "{id}"]);
    bundle.assert_nothing_left();

    bundle.script("exit 3");
    bundle.write_config();
    assert_eq!(bundle.run(&["run", "--keep", "--bundle", "{bundle}", "{id}"]).code, 3);
    assert_eq!(bundle.status(), "stopped");
    bundle.ok(&["delete", "{id}"]);
    bundle.assert_nothing_left();
}

#[test]
fn standard_streams_are_passed() {
    let mut bundle = bundle!();
    bundle.script("cat; echo oops >&2");
    bundle.write_config();
    let input = bundle.path("input");
    std::fs::write(&input, "typed\n").unwrap();
    let mut command = bundle.command(&["run", "--bundle", &bundle.path(""), &bundle.id]);
    command.stdin(std::fs::File::open(&input).unwrap());
    let ran = bundle.finish(command);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("typed\n", "oops\n"));
}

#[test]
fn descriptors_are_passed_only_when_asked() {
    let mut bundle = bundle!();
    bundle.write_config();
    let list = "ls /proc/self/fd | wc -l";
    bundle.script(list);
    bundle.write_config();
    let run = |extra: &str| {
        let command = format!(
            "exec {} --root {} run {extra} --bundle {} {} 3</etc/passwd 4</etc/group",
            crate::under_test::program().display(),
            bundle.state_root().display(),
            bundle.directory().display(),
            bundle.id
        );
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &command]).stdin(std::process::Stdio::null());
        let ran = bundle.finish(shell);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out.trim().parse::<u32>().unwrap()
    };
    let without = run("");
    assert_eq!(run("--preserve-fds 2"), without + 2);
    // Standard three, and the directory that ls reads.
    assert_eq!(without, 4);
}

/// As systemd's socket activation has it: the third descriptor on, counted in the environment.
#[test]
fn activated_sockets_are_passed() {
    let mut bundle = bundle!();
    bundle.script("echo $LISTEN_FDS $LISTEN_PID; cat <&3");
    bundle.write_config();
    let file = bundle.path("passed");
    std::fs::write(&file, "through\n").unwrap();
    let command = format!(
        "export LISTEN_FDS=1 LISTEN_PID=$$; exec {} --root {} run --bundle {} {} 3<{file}",
        crate::under_test::program().display(),
        bundle.state_root().display(),
        bundle.directory().display(),
        bundle.id
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &command]).stdin(std::process::Stdio::null());
    let ran = bundle.finish(shell);
    assert_eq!((ran.code, ran.out.as_str()), (0, "1 1\nthrough\n"), "{ran:?}");
}

/// Flags that containerd and podman set for machines of their own kinds.
#[test]
fn run_without_pivot_and_without_keyring() {
    let mut bundle = bundle!();
    bundle.script("ls /bin/busybox");
    bundle.write_config();
    for flag in ["--no-pivot", "--no-new-keyring", "--no-subreaper"] {
        let ran = bundle.run(&["run", flag, "--bundle", "{bundle}", "{id}"]);
        assert_eq!((ran.code, ran.out.as_str()), (0, "/bin/busybox\n"), "{flag}: {ran:?}");
        bundle.assert_nothing_left();
    }
}

/// The bundle is the current directory where none is named.
#[test]
fn the_bundle_is_the_current_directory() {
    let mut bundle = bundle!();
    bundle.script("echo ran");
    bundle.write_config();
    let mut command = bundle.command(&["run", &bundle.id]);
    command.current_dir(bundle.directory());
    assert_eq!(bundle.finish(command).out, "ran\n");
    let mut command = bundle.command(&["create", "--bundle", ".", &bundle.id]);
    command.current_dir(bundle.directory());
    assert_eq!(bundle.finish(command).code, 0);
    assert_eq!(bundle.state()["bundle"], bundle.directory().to_str().unwrap());
}

#[test]
fn events_come_until_the_container_is_deleted() {
    let mut bundle = bundle!();
    bundle.bring(State::Running);
    let mut command = bundle.command(&["events", "--interval", "50ms", &bundle.id]);
    let out = bundle.path("events");
    let child = command.stdout(std::fs::File::create(&out).unwrap()).spawn().unwrap();
    let events = || std::fs::read_to_string(&out).unwrap().matches("\"type\":\"stats\"").count();
    eventually("two events", || events() >= 2);
    bundle.ok(&["kill", "{id}", "KILL"]);
    bundle.wait_for("stopped");
    bundle.ok(&["delete", "{id}"]);
    assert!(crate::bundle::wait(child, "events").success());
}

#[test]
fn paused_processes_stand_still() {
    let mut bundle = bundle!();
    bundle.script("while :; do echo >> /ticks; usleep 10000; done");
    bundle.create();
    bundle.start();
    let ticks = || std::fs::metadata(bundle.rootfs().join("ticks")).map_or(0, |file| file.len());
    eventually("ticks", || ticks() > 2);
    bundle.ok(&["pause", "{id}"]);
    assert_eq!(bundle.status(), "paused");
    let before = ticks();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(ticks(), before);
    bundle.ok(&["resume", "{id}"]);
    assert_eq!(bundle.status(), "running");
    eventually("more ticks", || ticks() > before);
}

#[test]
fn kill_sends_the_signal_named_in_any_way() {
    let mut bundle = bundle!();
    bundle.script("trap 'echo usr1 >> /got' USR1; trap 'echo term >> /got' TERM; : > /ready; while :; do usleep 5000; done");
    bundle.create();
    bundle.start();
    eventually("the traps", || bundle.rootfs().join("ready").exists());
    let got = || std::fs::read_to_string(bundle.rootfs().join("got")).unwrap_or_default();
    let mut expected = String::new();
    for signal in [&["USR1"][..], &["SIGUSR1"], &["sigusr1"], &["usr1"], &["10"], &[], &["TERM"]] {
        bundle.ok(&[&["kill", "{id}"], signal].concat());
        expected += if signal.is_empty() || signal == ["TERM"] { "term\n" } else { "usr1\n" };
        eventually(&format!("{signal:?}"), || got() == expected);
    }
}

#[test]
fn kill_all_reaches_what_init_left_behind() {
    let mut bundle = bundle!();
    bundle.without_namespace("pid");
    bundle.script("sleep 1000 & sleep 1001 & sleep 1002; :");
    bundle.create();
    bundle.start();
    let count = || {
        let group = bundle.groups().into_iter().next().unwrap();
        std::fs::read_to_string(group.join("cgroup.procs")).unwrap().lines().count()
    };
    eventually("four processes", || count() == 4);
    bundle.ok(&["kill", "--all", "{id}", "KILL"]);
    eventually("none", || count() == 0);
    bundle.wait_for("stopped");
    bundle.ok(&["delete", "{id}"]);
    bundle.assert_nothing_left();
}

#[test]
fn exec_runs_beside_init() {
    let mut bundle = bundle!();
    bundle.set("/process/env", json!(["PATH=/bin", "OF=init"])).capabilities(&[]);
    bundle.bring(State::Running);
    let exec = |args: &[&str]| bundle.run(&[&["exec"], args].concat());
    assert_eq!(bundle.exec("readlink /proc/1/ns/pid"), bundle.exec("readlink /proc/self/ns/pid"));
    assert_eq!(exec(&["{id}", "sh", "-c", "exit 7"]).code, 7);
    assert_eq!(exec(&["{id}", "sh", "-c", "kill -9 $$"]).code, 137);
    assert_eq!(exec(&["{id}", "sh", "-c", "echo $OF"]).out, "init\n");
    assert_eq!(
        exec(&["--env", "OF=exec", "--env", "B=2", "{id}", "sh", "-c", "echo $OF $B"]).out,
        "exec 2\n"
    );
    assert_eq!(exec(&["--cwd", "/etc", "{id}", "pwd"]).out, "/etc\n");
    assert_eq!(exec(&["--user", "5:6", "{id}", "sh", "-c", "id -u; id -g"]).out, "5\n6\n");
    assert_eq!(exec(&["-u", "5", "-g", "7", "-g", "8", "{id}", "id", "-G"]).out, "0 7 8\n");
    assert!(exec(&["--no-new-privs", "{id}", "grep", "NoNewPrivs", "/proc/self/status"]).out.contains('1'));
    let capabilities = exec(&["--cap", "CAP_KILL", "{id}", "grep", "CapBnd", "/proc/self/status"]).out;
    assert!(capabilities.trim_end().ends_with("0000000000000020"), "{capabilities}");
    // In the container's groups.
    assert!(bundle.exec("cat /proc/self/cgroup").contains(&bundle.id));
}

/// In one group of all trees below the container's, or in another for each controller of version 1.
#[test]
fn exec_goes_into_groups_below_the_containers() {
    let mut bundle = bundle!();
    bundle.bring(State::Running);
    for group in bundle.groups() {
        for name in ["sub", "other"] {
            std::fs::create_dir_all(group.join(name)).unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|file| group.join(file).exists()) {
                let _ = std::fs::copy(group.join(file), group.join(name).join(file));
            }
        }
    }
    let exec = |options: &[&str]| {
        let words = [&["exec"], options, &["{id}", "cat", "/proc/self/cgroup"]].concat();
        bundle.run(&words)
    };
    let path_of = |ran: &Ran, controller: &str| {
        let of = |line: &&str| line.split(':').nth(1).unwrap().split(',').any(|name| name == controller);
        ran.out
            .lines()
            .find(of)
            .unwrap_or_else(|| panic!("{controller}: {ran:?}"))
            .rsplit(':')
            .next()
            .unwrap()
            .to_owned()
    };
    for path in ["sub", "/sub", ":sub"] {
        let ran = exec(&["--cgroup", path]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let inside = ran.out.lines().filter(|line| line.ends_with(&format!("/{}/sub", bundle.id))).count();
        assert_eq!(inside, bundle.groups().len(), "{ran:?}");
    }
    let has_v1 = bundle.group("pids").is_some() && bundle.group("cpu").is_some();
    if has_v1 {
        let ran = exec(&["--cgroup", "cpu,cpuacct:sub", "--cgroup", "pids:/other"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(path_of(&ran, "cpu"), format!("/{}/sub", bundle.id));
        assert_eq!(path_of(&ran, "pids"), format!("/{}/other", bundle.id));
        assert_eq!(path_of(&ran, "memory"), format!("/{}", bundle.id));
    }
    // runc takes an empty controller for all of them, and one that is named twice.
    let is_runc = crate::under_test::runc().is_some();
    for (options, words) in [
        (&["--cgroup", "sub", "--cgroup", "other"][..], "sub (missing <controller>: prefix)"),
        (&["--cgroup", ",cpu:sub"], ",cpu:sub (empty <controller> prefix)"),
        (&["--cgroup", "cpu:sub", "--cgroup", "pids,cpu:sub"], "cpu"),
        (&["--cgroup", "a:b:c"], "invalid --cgroup argument: a:b:c"),
        (&["--cgroup", "nothing:sub"], "nothing"),
        (&["--cgroup", "missing"], "missing"),
    ] {
        let ran = exec(options);
        let said = ran.errors().pop().unwrap_or_default();
        if is_runc && options.iter().any(|option| option.contains(',')) {
            assert_eq!(ran.code, 0, "{options:?}: {ran:?}");
        } else {
            assert!(ran.code == 255 && (is_runc || said.contains(words)), "{options:?}: {ran:?}");
        }
    }
    if !is_runc {
        let ran = exec(&["--cgroup", "../.."]);
        assert!(ran.code == 255 && ran.errors().pop().unwrap().contains("without `.` and `..`"), "{ran:?}");
    }
}

#[test]
fn exec_detached_with_pid_file_and_process_file() {
    let mut bundle = bundle!();
    bundle.bring(State::Running);
    let (process, pid_file) = (bundle.path("process.json"), bundle.path("exec.pid"));
    let json = json!({
        "user": {"uid": 3, "gid": 4, "additionalGids": [9]},
        "args": ["/bin/sh", "-c", "echo $X $(id -u) $(id -g) $(pwd) > /tmp/out; exec sleep 1000"],
        "env": ["PATH=/bin", "X=1"],
        "cwd": "/etc",
    });
    std::fs::write(&process, json.to_string()).unwrap();
    run_open(&bundle, "tmp");
    bundle.ok(&["exec", "--detach", "--process", &process, "--pid-file", &pid_file, "{id}"]);
    let pid: u32 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    let out = || std::fs::read_to_string(bundle.rootfs().join("tmp/out")).unwrap_or_default();
    eventually("output", || out() == "1 3 4 /etc\n");
    let listed: Vec<u32> = serde_json::from_str(&bundle.ok(&["ps", "--format", "json", "{id}"])).unwrap();
    assert!(listed.len() == 2 && listed.contains(&pid) && listed.contains(&bundle.pid()), "{listed:?}");
    let table = bundle.ok(&["ps", "{id}"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.starts_with("UID ") && table.contains("sleep 1000"), "{table}");
    let table = bundle.ok(&["ps", "{id}", "-eo", "pid"]);
    assert_eq!(table.lines().count(), 3, "{table}");
}

fn run_open(bundle: &Bundle, directory: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = bundle.rootfs().join(directory);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

#[test]
fn list_shows_every_container_of_the_root() {
    let mut bundle = bundle!();
    assert_eq!(bundle.ok(&["list", "--quiet"]), "");
    bundle.set("/annotations", json!({"org.example.key": "value"}));
    bundle.bring(State::Created);
    assert_eq!(bundle.ok(&["list", "-q"]), format!("{}\n", bundle.id));
    let table = bundle.ok(&["list"]);
    let (head, row) = table.split_once('\n').unwrap();
    let head: Vec<_> = head.split_whitespace().collect();
    assert_eq!(head, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let row: Vec<_> = row.split_whitespace().collect();
    let pid = bundle.pid().to_string();
    assert_eq!(row[..4], [bundle.id.as_str(), &pid, "created", bundle.directory().to_str().unwrap()]);
    assert_eq!(row[5], "root");
    let json: Value = serde_json::from_str(&bundle.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!(json[0]["id"], bundle.id);
    assert_eq!(json[0]["status"], "created");
    assert_eq!(json[0]["owner"], "root");
    assert_eq!(json[0]["annotations"]["org.example.key"], "value");
}

#[test]
fn events_show_the_groups_numbers() {
    let mut bundle = bundle!();
    bundle.set("/linux/resources", json!({"memory": {"limit": 104_857_600}, "pids": {"limit": 33}}));
    bundle.bring(State::Running);
    let stats: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", "{id}"])).unwrap();
    assert_eq!((&stats["type"], &stats["id"]), (&json!("stats"), &json!(bundle.id)));
    let data = &stats["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 104_857_600);
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{stats}");
    assert!(data["memory"]["raw"].as_object().unwrap().len() > 5, "{stats}");
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{stats}");
    assert_eq!((&data["pids"]["current"], &data["pids"]["limit"]), (&json!(1), &json!(33)));
}

#[test]
fn debug_logs_what_is_done() {
    let mut bundle = bundle!();
    bundle.script("exit 0");
    bundle.write_config();
    let log = bundle.path("log.json");
    let ran = bundle.run(&[
        "--debug",
        "--log",
        &log,
        "--log-format",
        "json",
        "run",
        "--bundle",
        "{bundle}",
        "{id}",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<Value> = std::fs::read_to_string(log)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let said = |words: &str| {
        lines.iter().any(|line| line["level"] == "debug" && line["msg"].as_str().unwrap().contains(words))
    };
    let words = if crate::under_test::runc().is_some() { "stage-1" } else { "pivot_root" };
    assert!(said(words), "{lines:?}");
}

#[test]
fn features_are_said() {
    let bundle = bundle!();
    let features: Value = serde_json::from_str(&bundle.ok(&["features"])).unwrap();
    assert!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string(), "{features}");
    let hooks =
        json!(["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]);
    assert_eq!(features["hooks"], hooks);
    let has =
        |list: &str, name: &str| features.pointer(list).unwrap().as_array().unwrap().contains(&json!(name));
    assert!(has("/mountOptions", "rro") && has("/mountOptions", "rbind"), "{features}");
    assert!(has("/linux/namespaces", "cgroup") && has("/linux/capabilities", "CAP_KILL"), "{features}");
    assert!(features["linux"]["cgroup"]["v1"] == true && features["linux"]["seccomp"]["enabled"] == true);
}

#[test]
fn spec_writes_a_configuration_that_runs() {
    let mut bundle = bundle!();
    bundle.ok(&["spec", "--bundle", "{bundle}"]);
    let text = std::fs::read_to_string(bundle.path("config.json")).unwrap();
    bundle.config = serde_json::from_str(&text).unwrap();
    assert_eq!(bundle.config["process"]["args"], json!(["sh"]));
    let again = bundle.run(&["spec", "--bundle", "{bundle}"]);
    assert!(again.code == 1 && again.err.contains("exists. Remove it first"), "{again:?}");
    let group = format!("/{}", bundle.id);
    bundle.set("/process/terminal", false).set("/linux/cgroupsPath", group);
    assert_eq!(bundle.inside("hostname"), "runc\n");
}

#[test]
fn version_is_said_in_lines() {
    let bundle = bundle!();
    let text = bundle.ok(&["--version"]);
    assert!(text.lines().next().unwrap().contains(" version "), "{text}");
    assert!(text.lines().any(|line| line.starts_with("spec: ")), "{text}");
}

/// What CRI-O, containerd and podman have in each call.
#[test]
fn global_flags() {
    let mut bundle = bundle!();
    bundle.bring(State::Created);
    let log = bundle.path("log");
    for flags in [
        &["--debug"][..],
        &["--log", &log, "--log-format", "text"],
        &["--log=/dev/null", "--log-format=json", "--rootless=false"],
        &["--rootless", "auto", "--criu", "criu"],
    ] {
        let out = bundle.ok(&[flags, &["state", "{id}"]].concat());
        assert!(out.contains("\"status\": \"created\""), "{flags:?}: {out}");
    }
}

/// Callers remove the bundle's directory, in which they stand, and the log's before the container.
#[test]
fn commands_work_where_the_working_directory_and_the_log_are_gone() {
    let mut bundle = bundle!();
    bundle.bring(State::Running);
    let (gone, log) = (bundle.directory().join("gone"), bundle.path("gone/log"));
    let stand_in = |args: &[&str]| {
        std::fs::create_dir(&gone).unwrap();
        let script = "cd \"$0\" && rmdir \"$0\" && exec \"$@\"";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).arg(&gone).arg(crate::under_test::program());
        command.arg("--root").arg(bundle.state_root()).args(args).stdin(Stdio::null());
        let ran = bundle.finish(command);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.out
    };
    let id = bundle.id.as_str();
    assert!(stand_in(&["state", id]).contains("running"));
    assert!(stand_in(&["list"]).contains(id));
    assert!(stand_in(&["ps", id]).contains("sleep"));
    stand_in(&["kill", id, "KILL"]);
    bundle.wait_for("stopped");
    if crate::under_test::runc().is_some() {
        stand_in(&["delete", id]);
    } else {
        stand_in(&["--log", &log, "delete", id]);
        let ran = bundle.run(&["--log", &log, "state", "{id}"]);
        assert!(ran.code == 1 && ran.err.contains("container does not exist"), "{ran:?}");
    }
    bundle.assert_nothing_left();
}
