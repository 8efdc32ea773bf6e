//! `checkpoint` and `restore`: what is refused, and with a CRIU that works here, containers that go on where they were.

use std::process::Command;

use serde_json::json;

use crate::bundle::{Bundle, State, eventually, run_ok};
use crate::under_test::{program, runc};

/// Counts in a file, five times a second.
const COUNT: &str =
    "i=0; while :; do i=$((i + 1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; sleep 0.2; done";

/// Why no container can be checkpointed here, if so.
fn no_criu() -> Option<String> {
    match Command::new("criu").arg("check").output() {
        Err(error) => Some(format!("no criu: {error}")),
        Ok(checked) if checked.status.success() => None,
        Ok(checked) => {
            let said = String::from_utf8_lossy(&checked.stderr).trim().replace('\n', "; ");
            Some(format!("criu check fails: {said}"))
        }
    }
}

fn count(bundle: &Bundle) -> u32 {
    let text = std::fs::read_to_string(bundle.rootfs().join("tmp/count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[track_caller]
fn counts_on(bundle: &Bundle) {
    let before = count(bundle);
    eventually("the program goes on", || count(bundle) > before + 1);
}

/// A container that counts.
fn counting() -> Bundle {
    let mut bundle = Bundle::new();
    bundle.script(COUNT);
    bundle.write_config();
    bundle.ok(&["run", "--detach", "--bundle", "{bundle}", "{id}"]);
    eventually("the program counts", || count(&bundle) > 1);
    bundle
}

#[track_caller]
fn restore(bundle: &Bundle, options: &[&str]) {
    let images = bundle.path("images");
    let fixed = ["restore", "--detach", "--bundle", "{bundle}", "--image-path", &images];
    bundle.ok(&[&fixed[..], options, &["{id}"]].concat());
}

#[test]
fn what_does_not_run_is_not_checkpointed() {
    let mut bundle = bundle!();
    bundle.bring(State::Missing);
    let ran = bundle.run(&["checkpoint", "{id}"]);
    assert_eq!((ran.code, ran.errors()), (1, vec!["container does not exist".to_owned()]));
    bundle.bring(State::Created);
    let ran = bundle.run(&["checkpoint", "{id}"]);
    let expected = "Container cannot be checkpointed in created state".to_owned();
    assert_eq!((ran.code, ran.errors()), (1, vec![expected]));
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let mut bundle = bundle!();
    if runc().is_some() {
        skip!("runc asks criu by another way, which has more");
    }
    bundle.bring(State::Running);
    for (words, expected) in [
        (&["checkpoint", "--lazy-pages"][..], "--lazy-pages is not supported"),
        (&["checkpoint", "--status-fd", "5"], "--status-fd is not supported"),
        (&["checkpoint", "--empty-ns", "pid"], "namespace pid is not supported"),
        (&["checkpoint", "--page-server", "here"], "invalid page-server \"here\""),
        (&["checkpoint", "--manage-cgroups-mode", "some"], "invalid manage-cgroups-mode \"some\""),
        (&["restore", "--lazy-pages"], "--lazy-pages is not supported"),
        (&["restore", "--no-pivot"], "--no-pivot is not supported"),
        (&["restore", "--console-socket", "/x"], "--console-socket is not supported"),
        (&["restore", "--bundle", "{bundle}"], "container with given ID already exists"),
    ] {
        let ran = bundle.run(&[words, &["{id}"]].concat());
        assert_eq!(ran.code, 1, "{words:?}: {ran:?}");
        assert!(ran.errors()[0].contains(expected), "{words:?}: {ran:?}");
    }
    assert_eq!(bundle.status(), "running");
    // One line for an ordinary user, who may see the container's state.
    run_ok("chmod", &["-R", "a+rX", bundle.directory().to_str().unwrap()]);
    let own = bundle.path("own");
    run_ok("cp", &[program().to_str().unwrap(), &own]);
    let mut asked = Command::new("setpriv");
    asked.args(["--reuid=65534", "--regid=65534", "--clear-groups", &own]);
    asked.args(bundle.command(&["checkpoint", &bundle.id]).get_args()).current_dir(bundle.directory());
    let ran = bundle.finish(asked);
    assert_eq!((ran.code, ran.errors().len(), ran.err.lines().count()), (1, 1, 1), "{ran:?}");
    assert!(ran.errors()[0].contains("user \"not root\": criu needs root"), "{ran:?}");
    bundle.ok(&["delete", "--force", "{id}"]);
    let restore = ["restore", "--bundle", "{bundle}", "--image-path", "/nowhere/at/all", "{id}"];
    assert!(bundle.run(&restore).errors()[0].contains("no such directory"));
    bundle.set("/process/terminal", true).write_config();
    let ran = bundle.run(&restore);
    assert!(
        ran.errors()[0].contains("process.terminal \"true\": criu's command line cannot hand"),
        "{ran:?}"
    );
    assert_eq!((ran.code, ran.err.lines().count()), (1, 1), "{ran:?}");
    bundle.remove("/process/terminal").set("/hooks/prestart", json!([{"path": "/bin/true"}])).write_config();
    assert!(bundle.run(&restore).errors()[0].contains("hooks"));
    bundle.assert_nothing_left();
}

#[test]
fn a_missing_criu_is_said() {
    let mut bundle = bundle!();
    if runc().is_some() {
        skip!("runc has words of its own");
    }
    bundle.bring(State::Running);
    let mut command = bundle.command(&["checkpoint", "--image-path", &bundle.path("images"), &bundle.id]);
    command.env("PATH", "/nowhere");
    let ran = bundle.finish(command);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.errors()[0].starts_with("criu is not installed: "), "{ran:?}");
    assert_eq!(bundle.status(), "running");
}

#[test]
fn a_restored_container_goes_on_and_is_as_any_other() {
    let _ = bundle!();
    if let Some(reason) = no_criu() {
        skip!("{reason}");
    }
    let bundle = counting();
    let pid_file = bundle.path("pid");
    bundle.ok(&["checkpoint", "--image-path", &bundle.path("images"), "{id}"]);
    bundle.assert_nothing_left();
    let stopped_at = count(&bundle);
    restore(&bundle, &["--pid-file", &pid_file]);
    counts_on(&bundle);
    assert!(count(&bundle) > stopped_at, "it goes on where it was");
    assert_eq!(bundle.status(), "running");
    let pid = bundle.pid();
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), pid.to_string());
    for group in bundle.groups() {
        let processes = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
        assert!(processes.lines().any(|line| line == pid.to_string()), "{group:?}: {processes}");
    }
    assert_eq!(bundle.exec("cat /proc/1/comm").trim(), "sh");
    bundle.ok(&["pause", "{id}"]);
    assert_eq!(bundle.status(), "paused");
    bundle.ok(&["resume", "{id}"]);
    bundle.ok(&["kill", "{id}", "KILL"]);
    bundle.wait_for("stopped");
    bundle.ok(&["delete", "{id}"]);
    bundle.assert_nothing_left();
}

#[test]
fn a_paused_one_goes_on_after_a_checkpoint_that_leaves_it() {
    let _ = bundle!();
    if let Some(reason) = no_criu() {
        skip!("{reason}");
    }
    let bundle = counting();
    bundle.ok(&["pause", "{id}"]);
    bundle.ok(&["checkpoint", "--leave-running", "--image-path", &bundle.path("images"), "{id}"]);
    assert_eq!(bundle.status(), "paused");
    bundle.ok(&["resume", "{id}"]);
    counts_on(&bundle);
    bundle.ok(&["delete", "--force", "{id}"]);
    restore(&bundle, &[]);
    counts_on(&bundle);
    bundle.ok(&["delete", "--force", "{id}"]);
    bundle.assert_nothing_left();
}

#[test]
fn memory_written_before_is_not_written_again() {
    let _ = bundle!();
    if let Some(reason) = no_criu() {
        skip!("{reason}");
    }
    let bundle = counting();
    bundle.ok(&["checkpoint", "--pre-dump", "--image-path", &bundle.path("before"), "{id}"]);
    counts_on(&bundle);
    let images = bundle.path("images");
    bundle.ok(&["checkpoint", "--parent-path", "../before", "--image-path", &images, "{id}"]);
    assert!(bundle.directory().join("images/parent").exists());
    restore(&bundle, &[]);
    counts_on(&bundle);
    bundle.ok(&["delete", "--force", "{id}"]);
    bundle.assert_nothing_left();
}

#[test]
fn volumes_and_hidden_files_are_there_again() {
    let mut bundle = bundle!();
    if let Some(reason) = no_criu() {
        skip!("{reason}");
    }
    std::fs::create_dir(bundle.path("volume")).unwrap();
    let volume =
        json!({"destination": "/mnt", "type": "bind", "source": bundle.path("volume"), "options": ["bind"]});
    bundle.mount(volume).set("/linux/maskedPaths", json!(["/proc/kcore", "/proc/scsi", "/proc/acpi"]));
    bundle.set("/linux/readonlyPaths", json!(["/proc/sys"]));
    bundle.script(&COUNT.replace("/tmp/", "/mnt/"));
    bundle.write_config();
    bundle.ok(&["run", "--detach", "--bundle", "{bundle}", "{id}"]);
    let count = || std::fs::read_to_string(bundle.path("volume/count")).unwrap_or_default();
    eventually("the program counts", || !count().is_empty());
    bundle.ok(&["checkpoint", "--image-path", &bundle.path("images"), "{id}"]);
    let before = count();
    restore(&bundle, &[]);
    eventually("the program goes on", || count() != before);
    assert_eq!(bundle.exec("wc -c < /proc/kcore").trim(), "0");
    assert!(bundle.exec("echo 1 > /proc/sys/kernel/hostname 2>&1 || echo refused").contains("refused"));
    bundle.ok(&["delete", "--force", "{id}"]);
    bundle.assert_nothing_left();
}

#[test]
fn one_in_the_foreground_ends_as_its_program_does() {
    let mut bundle = bundle!();
    if let Some(reason) = no_criu() {
        skip!("{reason}");
    }
    bundle.script("while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 7").write_config();
    bundle.ok(&["run", "--detach", "--bundle", "{bundle}", "{id}"]);
    bundle.ok(&["checkpoint", "--image-path", &bundle.path("images"), "{id}"]);
    std::fs::write(bundle.rootfs().join("tmp/end"), "").unwrap();
    let images = bundle.path("images");
    let ran = bundle.run(&["restore", "--bundle", "{bundle}", "--image-path", &images, "{id}"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    bundle.assert_nothing_left();
}

#[test]
fn the_configuration_to_begin_with_is_restored_under_another_name() {
    let mut bundle = bundle!();
    if let Some(reason) = no_criu() {
        skip!("{reason}");
    }
    let own = bundle.config.clone();
    bundle.ok(&["spec", "--bundle", "{bundle}"]);
    let text = std::fs::read(bundle.directory().join("config.json")).unwrap();
    bundle.config = serde_json::from_slice(&text).unwrap();
    bundle.set("/process/terminal", false).set("/root/readonly", false);
    bundle.set("/linux/cgroupsPath", own["linux"]["cgroupsPath"].clone());
    bundle.set("/linux/resources/pids", json!({"limit": 50}));
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}),
    );
    bundle.script(COUNT).write_config();
    bundle.ok(&["run", "--detach", "--bundle", "{bundle}", "{id}"]);
    eventually("the program counts", || count(&bundle) > 1);
    bundle.ok(&["checkpoint", "--image-path", &bundle.path("images"), "{id}"]);
    bundle.assert_nothing_left();

    bundle.id += "-again";
    bundle.set("/linux/cgroupsPath", format!("/{}", bundle.id)).write_config();
    restore(&bundle, &[]);
    counts_on(&bundle);
    let group = bundle.group("pids").or_else(|| bundle.group("unified")).unwrap();
    assert_eq!(std::fs::read_to_string(group.join("pids.max")).unwrap().trim(), "50");
    let processes = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
    assert!(processes.lines().any(|line| line == bundle.pid().to_string()), "{processes}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", bundle.pid())).unwrap();
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapBnd:\t0000000020000420", "CapEff:\t0000000020000420"] {
        assert!(status.lines().any(|other| other == line), "{line}: {status}");
    }
    assert_eq!(bundle.exec("hostname"), "runc\n");
    if bundle.config["linux"]["namespaces"].as_array().unwrap().contains(&json!({"type": "cgroup"})) {
        assert_eq!(bundle.exec("cat /proc/self/cgroup"), "0::/\n");
    }
    assert_eq!(bundle.exec("echo x > /dev/null && wc -c < /proc/keys").trim(), "0");
    bundle.ok(&["delete", "--force", "{id}"]);
    bundle.assert_nothing_left();
}

#[test]
fn a_joined_network_is_joined_again() {
    let mut bundle = bundle!();
    if let Some(reason) = no_criu() {
        skip!("{reason}");
    }
    let network = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
    let network = Kept(network);
    let path = format!("/proc/{}/ns/net", network.0.id());
    eventually("a network", || {
        std::fs::read_link(&path).ok() != std::fs::read_link("/proc/self/ns/net").ok()
    });
    bundle.namespace("network", Some(&path)).script(COUNT).write_config();
    bundle.ok(&["run", "--detach", "--bundle", "{bundle}", "{id}"]);
    eventually("the program counts", || count(&bundle) > 1);
    bundle.ok(&["checkpoint", "--image-path", &bundle.path("images"), "{id}"]);
    restore(&bundle, &[]);
    counts_on(&bundle);
    let theirs = std::fs::read_link(format!("/proc/{}/ns/net", bundle.pid())).unwrap();
    assert_eq!(theirs, std::fs::read_link(&path).unwrap());
    bundle.ok(&["delete", "--force", "{id}"]);
    bundle.assert_nothing_left();
}

/// A process that ends with the test.
struct Kept(std::process::Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn output_goes_to_the_pipe_of_who_restores() {
    use std::io::Read as _;
    let mut bundle = bundle!();
    if let Some(reason) = no_criu() {
        skip!("{reason}");
    }
    bundle.script("i=0; while [ $i -lt 1000 ]; do i=$((i + 1)); echo line; sleep 0.1; done").write_config();
    let images = bundle.path("images");
    let directory = bundle.path("");
    let commands: [&[&str]; 2] = [
        &["run", "--detach", "--bundle", &directory, &bundle.id],
        &["restore", "--detach", "--bundle", &directory, "--image-path", &images, &bundle.id],
    ];
    for command in commands {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut command = bundle.command(command);
        command.stdout(writer).stderr(std::process::Stdio::null());
        let child = command.spawn().unwrap();
        drop(command);
        assert!(crate::bundle::wait(child, "a container with a pipe").success());
        let mut lines = [0; 10];
        reader.read_exact(&mut lines).unwrap();
        assert_eq!(&lines, b"line\nline\n");
        bundle.ok(&["checkpoint", "--leave-running", "--image-path", &images, "{id}"]);
        bundle.ok(&["delete", "--force", "{id}"]);
    }
    bundle.assert_nothing_left();
}

#[test]
fn what_a_failing_criu_says_is_told_and_nothing_is_left() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut bundle = bundle!();
    if runc().is_some() {
        skip!("runc asks criu by another way");
    }
    // Written by another process: one that is open for writing in a child of another test cannot be executed.
    let fake = bundle.path("criu");
    let script = "#!/bin/sh\necho \"(00.1) Error (criu/x.c:1): no $1 on this kernel\" >&2\nexit 3\n";
    std::fs::write(bundle.path("text"), script).unwrap();
    assert!(Command::new("cp").args([&bundle.path("text"), &fake]).status().unwrap().success());
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", bundle.directory().display());
    bundle.bring(State::Running);
    let images = bundle.path("images");
    let directory = bundle.path("");
    let commands: [(&str, &[&str]); 2] = [
        ("dump", &["checkpoint", "--image-path", &images, &bundle.id]),
        ("restore", &["restore", "--bundle", &directory, "--image-path", &images, &bundle.id]),
    ];
    for (verb, words) in commands {
        let mut command = bundle.command(words);
        command.env("PATH", &path);
        let ran = bundle.finish(command);
        let expected = format!(
            "criu {verb} failed (status 3): no {verb} on this kernel; criu check fails on this machine, too: no check on this kernel (log file: {images}/{verb}.log)"
        );
        assert_eq!((ran.code, ran.errors()), (1, vec![expected]));
        if verb == "dump" {
            assert_eq!(bundle.status(), "running");
            bundle.ok(&["delete", "--force", "{id}"]);
        }
        bundle.assert_nothing_left();
    }
}
