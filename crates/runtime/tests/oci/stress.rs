//! Many containers at once, and runtimes that are killed: nothing is left behind.

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bundle::{Bundle, State, eventually};
use crate::under_test::runc;

const THREADS: usize = 16;

/// How many containers: `CORACLE_STRESS`, else a thousand, or as many as an emulated machine has time for.
fn containers() -> usize {
    let usual = if std::env::var_os("CORACLE_TEST_VM").is_some() { 200 } else { 1000 };
    std::env::var("CORACLE_STRESS").map_or(usual, |text| text.parse().unwrap())
}

/// A container's life, without a pause between the commands.
fn live(bundle: &Bundle) {
    bundle.ok(&["create", "--bundle", "{bundle}", "{id}"]);
    bundle.ok(&["start", "{id}"]);
    bundle.ok(&["kill", "{id}", "KILL"]);
    // Refused for as long as the kernel has not ended the process.
    eventually("deletion", || bundle.run(&["delete", "{id}"]).code == 0);
}

#[test]
fn many_containers_at_once_leave_nothing() {
    drop(bundle!());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut bundle = Bundle::new();
                bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
                bundle.write_config();
                while next.fetch_add(1, Ordering::Relaxed) < containers() {
                    live(&bundle);
                }
                bundle.assert_nothing_left();
            });
        }
    });
}

/// Two commands of one container at once: one wins, the other says why not.
#[test]
fn one_container_created_twice_at_once_is_made_once() {
    let mut bundle = bundle!();
    if runc().is_some() {
        skip!("two of runc can refuse each other, or take the state from who won");
    }
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.write_config();
    for _ in 0..10 {
        let create = || bundle.run(&["create", "--bundle", "{bundle}", "{id}"]);
        let (one, two) = std::thread::scope(|scope| {
            let (one, two) = (scope.spawn(create), scope.spawn(create));
            (one.join().unwrap(), two.join().unwrap())
        });
        assert!((one.code == 0) != (two.code == 0), "{one:?} {two:?}");
        if runc().is_some() && bundle.run(&["state", "{id}"]).code != 0 {
            skip!("of runc the one that fails can remove what the other has made");
        }
        assert_eq!(bundle.status(), "created");
        bundle.ok(&["delete", "--force", "{id}"]);
        bundle.assert_nothing_left();
    }
}

/// Kills the runtime at points spread over the time that a command takes, then deletes by force.
fn killed_at_every_point(from: State, args: &[&str]) {
    // runc's delete waits for the machine's init to take the dead, which it does every two seconds here.
    let points = if runc().is_some() { 3 } else { 15 };
    let mut bundle = Bundle::new();
    bundle.bring(from);
    let start = Instant::now();
    bundle.ok(args);
    let time = start.elapsed();
    bundle.ok(&["delete", "--force", "{id}"]);
    bundle.assert_nothing_left();
    for point in 0..points {
        let mut bundle = Bundle::new();
        bundle.bring(from);
        let args: Vec<String> = args.iter().map(|arg| bundle.fill(arg)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut child = bundle
            .command(&args)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(time * point / points);
        let _ = child.kill();
        let status = child.wait().unwrap();
        let what = format!("{args:?} killed after {:?} ({:?})", time * point / points, status.signal());
        let deleted = bundle.run(&["delete", "--force", "{id}"]);
        assert_eq!(deleted.code, 0, "{what}: {deleted:?}");
        let start = Instant::now();
        while !bundle.remains().is_empty() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(bundle.remains().is_empty(), "{what}: left behind: {:#?}", bundle.remains());
    }
}

/// Why this runtime is not held to it.
fn leaves_things() -> bool {
    runc().is_some()
}

#[test]
fn killed_create_leaves_nothing() {
    drop(bundle!());
    if leaves_things() {
        skip!("a killed runc leaves groups and processes that delete --force does not know");
    }
    killed_at_every_point(State::Missing, &["create", "--bundle", "{bundle}", "{id}"]);
}

#[test]
fn killed_run_leaves_nothing() {
    drop(bundle!());
    if leaves_things() {
        skip!("a killed runc leaves groups and processes that delete --force does not know");
    }
    killed_at_every_point(State::Missing, &["run", "--detach", "--bundle", "{bundle}", "{id}"]);
}

#[test]
fn killed_commands_of_a_container_leave_nothing() {
    drop(bundle!());
    for (from, args) in [
        (State::Created, &["start", "{id}"][..]),
        (State::Running, &["exec", "{id}", "/bin/true"]),
        (State::Running, &["exec", "--detach", "{id}", "/bin/sleep", "1000"]),
        (State::Running, &["pause", "{id}"]),
        (State::Paused, &["resume", "{id}"]),
        (State::Running, &["kill", "{id}", "KILL"]),
        (State::Running, &["delete", "--force", "{id}"]),
    ] {
        if leaves_things() && args[0] == "delete" {
            continue;
        }
        killed_at_every_point(from, args);
    }
}
