//! What the runtime's own processes have open, or are, while they are near a container.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::bundle::{Bundle, Ran, eventually, run_ok};
use crate::under_test::program;

/// Loops over all processes that it can see; `$p` is one that executes something else than the image's one program.
fn watch(action: &str) -> String {
    format!(
        "while :; do for p in /proc/[0-9]*; do e=$(readlink $p/exe 2>/dev/null); \
         case $e in /bin/busybox|'') ;; *) {action} ;; esac; done; done"
    )
}

/// All ids are themselves: nothing but the process itself tells the kernel that it is not to be looked into.
fn in_own_user_namespace(bundle: &mut Bundle) {
    let all = json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
    bundle.set("/linux/uidMappings", all.clone()).set("/linux/gidMappings", all).namespace("user", None);
}

/// A process that is about to be one of the container's was seen by those inside, with the host's files open.
#[test]
fn cve_2016_9962() {
    let mut bundle = bundle!();
    in_own_user_namespace(&mut bundle);
    bundle.capabilities(&runtime::CAPABILITIES);
    let script = watch("echo $p $e >> /seen");
    bundle.script(&format!(": > /ready; {script}"));
    bundle.create();
    bundle.start();
    eventually("the watcher", || bundle.rootfs().join("ready").exists());
    for _ in 0..40 {
        bundle.ok(&["exec", "{id}", "/bin/true"]);
    }
    let seen = std::fs::read_to_string(bundle.rootfs().join("seen")).unwrap_or_default();
    assert_eq!(seen, "", "the runtime was looked into");
}

/// A copy of the program under test: it is the one that is attacked.
fn victim(bundle: &Bundle) -> PathBuf {
    let copy = bundle.directory().join("victim");
    run_ok("cp", &[program().to_str().unwrap(), copy.to_str().unwrap()]);
    copy
}

fn run_victim(bundle: &Bundle, victim: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(victim);
    command.arg("--root").arg(bundle.state_root()).args(args).stdin(std::process::Stdio::null());
    bundle.finish(command)
}

/// A container with all powers that holds on to any other program it sees, and writes to it as soon as it ends.
fn start_attacker(bundle: &mut Bundle) {
    bundle.capabilities(&runtime::CAPABILITIES);
    let write = "{ : > /tried; n=0; while [ $n -lt 400 ]; do (echo overwritten > /proc/self/fd/9) 2>/dev/null && exit; \
                 n=$((n+1)); done; } 9<$p/exe";
    let script = watch(write);
    bundle.script(&format!(": > /ready; ({script}) 2>/dev/null; sleep 1000"));
    bundle.create();
    bundle.start();
    eventually("the attacker", || bundle.rootfs().join("ready").exists());
}

#[track_caller]
fn assert_attacked_in_vain(bundle: &Bundle, victim: &Path, mut act: impl FnMut()) {
    let before = std::fs::read(victim).unwrap();
    for _ in 0..30 {
        if std::fs::read(victim).unwrap() == before {
            act();
        }
    }
    assert!(bundle.rootfs().join("tried").exists(), "nothing was ever attacked");
    // The last attack may go on.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(std::fs::read(victim).unwrap() == before, "the host's program was overwritten");
}

/// The host's runtime was overwritten through `/proc/PID/exe` of a process that it runs in the container.
#[test]
fn cve_2019_5736_exec() {
    let mut bundle = bundle!();
    let victim = victim(&bundle);
    start_attacker(&mut bundle);
    let id = bundle.id.clone();
    assert_attacked_in_vain(&bundle, &victim, || {
        run_victim(&bundle, &victim, &["exec", &id, "/proc/self/exe", "--version"]);
    });
}

/// The same by a new container, which shares the attacker's PID namespace here, as in a pod.
#[test]
fn cve_2019_5736_run() {
    let mut bundle = bundle!();
    let victim = victim(&bundle);
    start_attacker(&mut bundle);
    let mut other = Bundle::new();
    other.namespace("pid", Some(&format!("/proc/{}/ns/pid", bundle.pid())));
    other.set("/process/args", json!(["/proc/self/exe", "--version"]));
    other.write_config();
    let (id, directory) = (other.id.clone(), other.directory().to_str().unwrap().to_owned());
    assert_attacked_in_vain(&bundle, &victim, || {
        run_victim(&other, &victim, &["run", "--bundle", &directory, &id]);
    });
}

/// The command with descriptor 3 open on a directory of the host.
fn with_descriptor(bundle: &Bundle, args: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec 3< \"$0\"; exec \"$@\""]).arg(bundle.directory()).arg(program());
    command.arg("--root").arg(bundle.state_root()).args(args).stdin(std::process::Stdio::null());
    command
}

/// A descriptor of a host's directory was still open when `process.cwd` was entered, which could name it.
#[test]
fn cve_2024_21626_cwd() {
    let mut bundle = bundle!();
    bundle.script("cat config.json");
    bundle.set("/process/cwd", "/proc/self/fd/3");
    bundle.write_config();
    let directory = bundle.directory().to_str().unwrap().to_owned();
    let id = bundle.id.clone();
    // Here the descriptor is one that may stay open.
    let ran =
        bundle.finish(with_descriptor(&bundle, &["run", "--preserve-fds", "1", "--bundle", &directory, &id]));
    assert!(ran.code != 0 && !ran.out.contains("ociVersion"), "{ran:?}");
    let told = ran.errors().pop().unwrap();
    assert!(told.contains("possible container breakout detected"), "{told}");
    bundle.set("/process/cwd", "/").set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.create();
    bundle.start();
    let exec = ["exec", "--preserve-fds", "1", "--cwd", "/proc/self/fd/3", &id, "/bin/cat", "config.json"];
    let ran = bundle.finish(with_descriptor(&bundle, &exec));
    assert!(ran.code != 0 && !ran.out.contains("ociVersion"), "{ran:?}");
}

/// The same, without leave for the descriptor to stay open: the container has its three streams and no more.
#[test]
fn cve_2024_21626_descriptors() {
    let mut bundle = bundle!();
    // ls has the directory itself open, as 3.
    let list = "ls /proc/self/fd; readlink /proc/self/fd/3";
    bundle.script(list);
    bundle.write_config();
    let directory = bundle.directory().to_str().unwrap().to_owned();
    let id = bundle.id.clone();
    let ran = bundle.finish(with_descriptor(&bundle, &["run", "--bundle", &directory, &id]));
    assert_eq!(ran.out, "0\n1\n2\n3\n", "{ran:?}");
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.create();
    bundle.start();
    let ran = bundle.finish(with_descriptor(&bundle, &["exec", &id, "/bin/sh", "-c", list]));
    assert_eq!(ran.out, "0\n1\n2\n3\n", "{ran:?}");
    for number in 3..16 {
        let ran = bundle.run(&["exec", "--cwd", &format!("/proc/self/fd/{number}"), "{id}", "/bin/pwd"]);
        assert!(ran.code != 0 || ran.out.starts_with('/'), "{number}: {ran:?}");
    }
}
