//! Where systemd is pid 1: one scope that it delegates holds the groups of all of a user's containers, and nothing is written outside it.
//!
//! These run in a virtual machine that systemd booted, as root and as a user with a systemd of its own, one after the other: they share
//! the scope, and a store, since loading an image takes seconds there.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::coracle::{Coracle, Ran, is_root};
use crate::running::Running;
use crate::talk::{LIMITS, the_21st_process_fails, too_much_memory_ends_it};

const TREE: &str = "/sys/fs/cgroup";

/// What the tests share, for the one whose turn it is.
struct Turn(MutexGuard<'static, Option<Coracle>>);

impl std::ops::Deref for Turn {
    type Target = Coracle;

    fn deref(&self) -> &Coracle {
        self.0.as_ref().unwrap()
    }
}

/// Waits for this test's turn, and until systemd has no scope from before; none, and said, where no such machine is.
fn turn(test: &str) -> Option<Turn> {
    // Never dropped: what the machine's disk has goes with the machine.
    static SHARED: Mutex<Option<Coracle>> = Mutex::new(None);
    if std::env::var_os("CORACLE_TEST_SYSTEMD").is_none() {
        println!("SKIP: systemd::{test}: runs in the virtual machine that systemd boots");
        return None;
    }
    assert!(Path::new("/run/systemd/system").exists(), "systemd is not pid 1 here");
    // A test that failed has said so itself, and may have left containers.
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let coracle = shared.get_or_insert_with(Coracle::with_busybox);
    coracle.ok(&["ps", "-aq"]).lines().for_each(|id| drop(coracle.run(&["rm", "-f", id])));
    until_the_scope_is_gone();
    Some(Turn(shared))
}

/// The directory of the scope's group.
fn scope() -> PathBuf {
    let place = match rustix::process::geteuid().as_raw() {
        0 => "system.slice/coracle.scope".to_owned(),
        uid => format!("user.slice/user-{uid}.slice/user@{uid}.service/app.slice/coracle.scope"),
    };
    Path::new(TREE).join(place)
}

/// The tool of this user's systemd: `systemctl`, `systemd-run`.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    if !is_root() {
        command.arg("--user");
    }
    command
}

fn text(directory: &Path, file: &str) -> String {
    let path = directory.join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

/// Looks again until it is so; systemd removes a scope on its own time.
#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never came: {what}");
}

#[track_caller]
fn until_the_scope_is_gone() {
    until("the end of the scope", || !scope().exists());
}

fn state_of_the_unit() -> String {
    let state = tool("systemctl").args(["is-active", "coracle.scope"]).output().unwrap();
    String::from_utf8_lossy(&state.stdout).trim().to_owned()
}

/// All groups outside the scope: what each hands down, and when its list of groups changed last.
fn outside() -> BTreeMap<PathBuf, (String, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![PathBuf::from(TREE)];
    while let Some(directory) = waiting.pop() {
        if directory == scope() {
            continue;
        }
        let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        waiting.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        let handed_down = std::fs::read_to_string(directory.join("cgroup.subtree_control"));
        if let (Ok(handed_down), Ok(data)) = (handed_down, std::fs::metadata(&directory)) {
            found.insert(directory, (handed_down, data.mtime(), data.mtime_nsec()));
        }
    }
    found
}

/// What a container in the foreground was made by: the calls of the record.
#[track_caller]
fn explained(coracle: &mut Command) -> Vec<Value> {
    let ran: Ran = coracle.output().unwrap().into();
    assert_eq!(ran.code, 0, "{ran:?}");
    let record = ran.err.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{ran:?}"));
    let record: Value = serde_json::from_str(record).unwrap();
    record["events"].as_array().unwrap().clone()
}

/// What systemd was asked, in words.
fn asked(events: &[Value]) -> Vec<String> {
    let messages = events.iter().filter(|event| event["call"] == "sendmsg");
    let words = messages.map(|event| event["args"][1]["words"].as_str().unwrap().to_owned());
    words.filter(|words| !words.starts_with("who this is")).collect()
}

#[test]
fn limits_hold_in_the_scope() {
    let Some(coracle) = turn("limits_hold_in_the_scope") else { return };
    let words = [LIMITS.as_slice(), &["busybox"]].concat();
    let mut container = Running::start(&coracle, &words);
    let group = container.group("pids").unwrap().to_owned();
    assert_eq!(group, scope().join("coracle").join(&container.id));
    assert_eq!(text(&group, "pids.max"), "20");
    assert_eq!(text(&group, "memory.max"), "52428800");
    assert_eq!(text(&group, "cpu.max"), "50000 100000");
    the_21st_process_fails(&mut container);
    too_much_memory_ends_it(&coracle, &words);
    // The monitor stands beside the containers, and nobody in the scope's own group.
    assert_eq!(text(&scope(), "cgroup.procs"), "");
    assert_eq!(text(&scope().join("callers"), "cgroup.procs").lines().count(), 1);
    // systemd gives no limit of its own to all containers together.
    assert_eq!(text(&scope(), "pids.max"), "max");
    assert_eq!(state_of_the_unit(), "active");
    assert_eq!(container.end(), 0);
    coracle.assert_nothing_left();
    until_the_scope_is_gone();
    assert_eq!(state_of_the_unit(), "inactive");
}

#[test]
fn containers_that_start_at_once_share_one_scope() {
    let Some(coracle) = turn("containers_that_start_at_once_share_one_scope") else { return };
    let start = || Running::start(&coracle, &["--pids-limit", "20", "busybox"]);
    let containers: Vec<Running> = std::thread::scope(|threads| {
        let started: Vec<_> = (0..4).map(|_| threads.spawn(start)).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for container in &containers {
        assert_eq!(container.group("pids").unwrap(), scope().join("coracle").join(&container.id));
        assert_eq!(text(container.group("pids").unwrap(), "pids.max"), "20");
    }
    let scopes = outside().into_keys().filter(|group| group.to_string_lossy().contains("coracle")).count();
    // The unit that runs these tests has a group of that name, too, which only root's own tests are in.
    assert!(scopes <= 1, "{scopes}");
    // Each leaves alone; the scope stays for the others, and is the same one.
    let inode = std::fs::metadata(scope()).unwrap().ino();
    for container in containers {
        assert_eq!(std::fs::metadata(scope()).unwrap().ino(), inode);
        assert_eq!(container.end(), 0);
    }
    coracle.assert_nothing_left();
    until_the_scope_is_gone();
}

#[test]
fn a_scope_that_is_just_ending_is_no_obstacle() {
    let Some(coracle) = turn("a_scope_that_is_just_ending_is_no_obstacle") else { return };
    for round in 0..3 {
        let ran = coracle.run(&["run", "--rm", "--pids-limit", "20", "busybox", "cat", "/proc/self/cgroup"]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "round {round}: {ran:?}");
    }
    coracle.assert_nothing_left();
    until_the_scope_is_gone();
}

#[test]
fn systemd_is_asked_when_the_scope_is_made_and_not_again() {
    let Some(coracle) = turn("systemd_is_asked_when_the_scope_is_made_and_not_again") else { return };
    let run = ["run", "--rm", "--explain=json", "--pids-limit", "20", "busybox", "true"];
    let first = asked(&explained(&mut coracle.command(&run)));
    assert!(first[0].starts_with("StartTransientUnit coracle.scope"), "{first:?}");
    assert_eq!(first.len(), 1, "{first:?}");
    until_the_scope_is_gone();
    let container = Running::start(&coracle, &["busybox"]);
    let again = asked(&explained(&mut coracle.command(&run)));
    if is_root() {
        assert_eq!(again, [""; 0]);
    } else {
        // From a login's session only systemd may move a user's process under the user's systemd.
        assert_eq!(
            again.last().map(String::as_str),
            Some("AttachProcessesToUnit coracle.scope, this process")
        );
        // Who is there already needs nobody.
        let inside = coracle.command(&run);
        let mut command = tool("systemd-run");
        command.args(["--quiet", "--scope"]).arg(inside.get_program()).args(inside.get_args());
        assert_eq!(asked(&explained(&mut command)), [""; 0]);
    }
    assert_eq!(container.end(), 0);
    coracle.assert_nothing_left();
    until_the_scope_is_gone();
}

#[test]
fn nothing_outside_the_scope_is_written() {
    let Some(coracle) = turn("nothing_outside_the_scope_is_written") else { return };
    // What systemd does to make the scope is done then.
    let holder = Running::start(&coracle, &["busybox"]);
    let before = outside();
    let container = Running::start(&coracle, &LIMITS.iter().copied().chain(["busybox"]).collect::<Vec<_>>());
    let run = [&["run", "--rm", "--explain=json"], LIMITS.as_slice(), &["busybox", "true"]].concat();
    let events = explained(&mut coracle.command(&run));
    assert_eq!(container.end(), 0);
    assert_eq!(outside(), before);
    let scope = scope().display().to_string();
    let mut written = 0;
    for event in events {
        let place = match event["call"].as_str().unwrap() {
            "write" => &event["args"][0]["fd"][1],
            "mkdirat" | "unlinkat" => &event["args"][1]["str"],
            _ => continue,
        };
        let place = place.as_str().unwrap();
        if place.starts_with(TREE) {
            assert!(place.starts_with(&scope), "{event}");
            written += 1;
        }
    }
    assert!(written > 4, "{written}");
    assert_eq!(holder.end(), 0);
    coracle.assert_nothing_left();
    until_the_scope_is_gone();
}

#[test]
fn a_killed_monitors_container_goes_on_and_is_removed() {
    let Some(coracle) = turn("a_killed_monitors_container_goes_on_and_is_removed") else { return };
    // Its input ends with the command line, which cannot go on without the monitor.
    let shell = ["sh", "-c", "sh; exec sleep 1000"];
    let container = Running::start_as(&coracle, &["--pids-limit", "20", "busybox"], &shell);
    let group = container.group("pids").unwrap().to_owned();
    let monitor = text(&scope().join("callers"), "cgroup.procs");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(monitor.parse().unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    until("the monitor's end", || text(&scope().join("callers"), "cgroup.procs").is_empty());
    // The scope is held by the container alone now, and another one can come and go.
    assert_eq!(coracle.run(&["run", "--rm", "--pids-limit", "20", "busybox", "true"]).code, 0);
    assert_eq!(text(&group, "pids.max"), "20");
    assert_eq!(text(&group, "cgroup.events").lines().next(), Some("populated 1"));
    let inside: Ran = if is_root() {
        coracle.run(&["rm", "-f", &container.id])
    } else {
        // From elsewhere than where it was made, the group would be looked for elsewhere.
        let remove = coracle.command(&["rm", "-f", &container.id]);
        let mut command = tool("systemd-run");
        command.args(["--quiet", "--scope", "-p", "Delegate=yes"]);
        command.arg(remove.get_program()).args(remove.get_args()).output().unwrap().into()
    };
    assert_eq!(inside.code, 0, "{inside:?}");
    assert!(!group.exists());
    drop(container);
    coracle.assert_nothing_left();
    until_the_scope_is_gone();
}

#[test]
fn a_parent_is_in_the_scope_or_refused() {
    let Some(coracle) = turn("a_parent_is_in_the_scope_or_refused") else { return };
    let container =
        Running::start(&coracle, &["--cgroup-parent", "/mine/too", "--pids-limit", "20", "busybox"]);
    let group = container.group("pids").unwrap();
    assert_eq!(group, scope().join("mine/too").join(&container.id));
    assert_eq!(text(group, "pids.max"), "20");
    assert_eq!(container.end(), 0);
    for parent in ["/system.slice", "user.slice/user@1000.service/mine"] {
        let ran = coracle.run(&["run", "--rm", "--cgroup-parent", parent, "busybox", "true"]);
        assert_eq!(ran.code, 125, "{ran:?}");
        let name = parent.trim_matches('/');
        assert!(ran.err.contains(name) && ran.err.contains("systemd's"), "{}", ran.err);
    }
    coracle.assert_nothing_left();
    until_the_scope_is_gone();
}

#[test]
fn a_reload_of_systemd_changes_nothing() {
    let Some(coracle) = turn("a_reload_of_systemd_changes_nothing") else { return };
    let mut container = Running::start(&coracle, &[LIMITS.as_slice(), &["busybox"]].concat());
    let group = container.group("pids").unwrap().to_owned();
    let mut look = || {
        let limits = ["pids.max", "memory.max", "memory.swap.max", "cpu.max"].map(|file| text(&group, file));
        // The machine's disk: root has the capability to make the node, and the device program says no.
        let disk = container.ask("mknod /disk b 254 0 && dd if=/disk of=/dev/null count=1; rm -f /disk");
        (limits, disk)
    };
    let before = look();
    assert!(before.1.contains("Operation not permitted") && !before.1.contains("copied"), "{before:?}");
    assert!(tool("systemctl").arg("daemon-reload").status().unwrap().success());
    // What systemd writes again, it writes when something in the slice changes.
    assert_eq!(coracle.run(&["run", "--rm", "--memory", "20m", "busybox", "true"]).code, 0);
    let started = tool("systemd-run").args(["--quiet", "--scope", "-p", "MemoryMax=1G", "true"]).status();
    assert!(started.unwrap().success());
    assert_eq!(look(), before);
    assert_eq!(container.end(), 0);
    coracle.assert_nothing_left();
    until_the_scope_is_gone();
}

#[test]
fn a_scope_that_was_delegated_to_the_caller_is_used() {
    let Some(coracle) = turn("a_scope_that_was_delegated_to_the_caller_is_used") else { return };
    let run = coracle.command(&["run", "--rm", "--explain=json", "--pids-limit", "20", "busybox", "true"]);
    let mut command = tool("systemd-run");
    command.args(["--quiet", "--scope", "--unit=own.scope", "-p", "Delegate=yes"]);
    let events = explained(command.arg(run.get_program()).args(run.get_args()));
    let limit = events.iter().find(|event| event["args"][1]["str"] == "20").unwrap();
    let file = limit["args"][0]["fd"][1].as_str().unwrap();
    assert!(file.ends_with("/pids.max"), "{file}");
    if is_root() {
        assert!(file.contains("/own.scope/coracle/"), "{file}");
        assert_eq!(asked(&events), [""; 0]);
    } else {
        // A user's systemd of Debian 12 leaves no mark that it was delegated, and what is not is not written to.
        assert!(file.starts_with(scope().join("coracle").to_str().unwrap()), "{file}");
    }
    coracle.assert_nothing_left();
}

#[test]
fn a_unit_of_that_name_that_is_not_delegated_is_named() {
    let Some(coracle) = turn("a_unit_of_that_name_that_is_not_delegated_is_named") else { return };
    let mut command = tool("systemd-run");
    command.args(["--quiet", "--scope", "--unit=coracle.scope", "sleep", "1000"]);
    let mut other = command.spawn().unwrap();
    until("the other unit", || scope().exists());
    let ran = coracle.run(&["run", "--rm", "--pids-limit", "20", "busybox", "true"]);
    let way_out = if is_root() { "-p Delegate=yes" } else { "systemctl --user status coracle.scope" };
    let _ = other.kill();
    other.wait().unwrap();
    let told = ["--pids-limit cannot be enforced", "non-delegated", "to do: ", way_out];
    assert!(ran.code == 125 && told.iter().all(|told| ran.err.contains(told)), "{ran:?}");
    coracle.assert_nothing_left();
    until_the_scope_is_gone();
}

#[test]
fn a_scope_of_that_name_that_is_delegated_is_joined() {
    let Some(coracle) = turn("a_scope_of_that_name_that_is_delegated_is_joined") else { return };
    let mut command = tool("systemd-run");
    command.args(["--quiet", "--scope", "--unit=coracle.scope", "-p", "Delegate=yes", "sleep", "1000"]);
    let mut other = command.spawn().unwrap();
    until("the other unit", || scope().exists());
    let container = Running::start(&coracle, &["--pids-limit", "20", "busybox"]);
    let group = container.group("pids").unwrap().to_owned();
    assert_eq!(text(&group, "pids.max"), "20");
    assert_eq!(group, scope().join("coracle").join(&container.id));
    assert_eq!(container.end(), 0);
    let _ = other.kill();
    other.wait().unwrap();
    coracle.assert_nothing_left();
    until_the_scope_is_gone();
}

#[test]
fn a_user_gets_what_systemd_hands_down_and_no_more() {
    let Some(coracle) = turn("a_user_gets_what_systemd_hands_down_and_no_more") else { return };
    let ran = coracle.run(&["run", "--rm", "--cpuset-cpus", "0", "busybox", "true"]);
    if is_root() {
        assert_eq!(ran.code, 0, "{ran:?}");
    } else {
        // Debian 12 hands cpu, memory and pids down to users.
        assert_eq!(ran.code, 125, "{ran:?}");
        assert!(ran.err.contains("cpuset") && ran.err.contains("Delegate="), "{}", ran.err);
    }
    coracle.assert_nothing_left();
    until_the_scope_is_gone();
}

#[test]
fn a_user_without_a_systemd_has_containers_without_limits() {
    let Some(coracle) = turn("a_user_without_a_systemd_has_containers_without_limits") else { return };
    if !is_root() {
        // The other user's place is root's to take.
        return;
    }
    let roots = coracle.directory().join("plain");
    std::fs::create_dir(&roots).unwrap();
    std::os::unix::fs::chown(&roots, Some(1001), Some(1001)).unwrap();
    let as_plain = |args: &[&str]| -> Ran {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=1001", "--regid=1001", "--clear-groups", "--"]);
        command.arg(crate::coracle::binaries().join("coracle")).arg("--root").arg(roots.join("root"));
        command.arg("--state").arg(roots.join("state")).args(args).stdin(std::process::Stdio::null());
        command.output().unwrap().into()
    };
    let source = format!("docker-archive:{}", crate::coracle::fixture("busybox.docker.tar").display());
    assert_eq!(as_plain(&["load", &source]).code, 0);
    let ran = as_plain(&["run", "--rm", "busybox", "echo", "here"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "here\n", ""), "{ran:?}");
    let ran = as_plain(&["run", "--rm", "--pids-limit", "20", "busybox", "true"]);
    assert_eq!(ran.code, 125, "{ran:?}");
    let told =
        ["--pids-limit cannot be enforced", "/run/user/1001/systemd/private", "to do: ", "enable-linger"];
    assert!(told.iter().all(|told| ran.err.contains(told)), "{}", ran.err);
}
