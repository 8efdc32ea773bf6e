//! Calls that an older kernel or an outer container's filter refuses: the runtime takes another way, or says what it
//! cannot do and leaves nothing.

use runtime::seccomp::{Filter, Seccomp};
use serde_json::json;

use crate::bundle::{Bundle, State, run_ok};

/// From now on a call of these names fails with this error, in this thread and in what it starts.
fn deny(names: &[&str], errno: u32) {
    let seccomp: Seccomp = serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno}],
    }))
    .unwrap();
    Filter::of(&seccomp).unwrap().load().unwrap();
}

const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// The calls that mounts are made with since Linux 5.2 and 5.12.
const MOUNT_CALLS: [&str; 7] =
    ["open_tree", "move_mount", "mount_setattr", "fsopen", "fsconfig", "fsmount", "fspick"];

/// Runs this with calls denied. What makes the bundle and removes it is outside, as it is not on trial.
fn denied<T: Send>(names: &[&str], errno: u32, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            deny(names, errno);
            run()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A container's whole life with calls denied: what it said where it failed.
fn life(names: &[&str], errno: u32) -> Result<(), String> {
    let bundle = bundle();
    let result = denied(names, errno, || {
        let create = bundle.run(&["create", "--bundle", "{bundle}", "{id}"]);
        let result = if create.code == 0 { rest_of_life(&bundle) } else { Err(create.err) };
        if let Err(text) = &result {
            assert!(!text.contains("panic"), "{names:?}: {text}");
            let deleted = bundle.run(&["delete", "--force", "{id}"]);
            assert_eq!(deleted.code, 0, "{names:?}, errno {errno}, after {text}: {deleted:?}");
        }
        result
    });
    unmount(&bundle);
    bundle.assert_nothing_left();
    result
}

fn unmount(bundle: &Bundle) {
    run_ok("umount", &[&bundle.path("source/sub")]);
}

/// One that asks for something of each kind of call, and for every kind of mount.
fn bundle() -> Bundle {
    let mut bundle = Bundle::new();
    let source = bundle.directory().join("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    std::fs::write(source.join("file"), "").unwrap();
    run_ok("mount", &["-t", "tmpfs", "tmpfs", source.join("sub").to_str().unwrap()]);
    std::fs::create_dir(source.join("sub/below")).unwrap();
    let file = source.join("file");
    for mount in [
        json!({"destination": "/ro", "type": "bind", "source": source, "options": ["bind", "ro"]}),
        json!({"destination": "/all", "type": "bind", "source": source, "options": ["rbind", "rslave", "noexec"]}),
        json!({"destination": "/etc/file", "type": "bind", "source": file, "options": ["bind", "ro", "nosuid"]}),
        json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]}),
        json!({"destination": "/empty", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]}),
        json!({"destination": "/empty", "options": ["remount", "size=128k"], "type": "tmpfs"}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid"]}),
    ] {
        bundle.mount(mount);
    }
    bundle.namespace("cgroup", None);
    bundle.set("/root/readonly", true);
    bundle.set("/linux/maskedPaths", json!(["/proc/version", "/proc/irq", "/../proc/interrupts"]));
    bundle.set("/linux/readonlyPaths", json!(["/proc/sys", "/all/sub"]));
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    bundle.set("/process/noNewPrivileges", true);
    let syscalls = json!([{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]);
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls}));
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.set("/process/cwd", "/made/by/../it");
    bundle.write_config();
    bundle
}

/// What is seen of it all inside.
const LOOK: &str = "! touch /x && ! touch /ro/x && touch /t/x && touch /empty/x && ! touch /etc/file && touch /all/x &&
! cat /proc/version | grep . && ! ls /proc/irq | grep . && ! cat /proc/interrupts | grep . &&
! touch /all/sub/below/x && ls -d /all/sub/below && ! ls /ro/sub/below &&
! echo 0 > /proc/sys/net/ipv4/ip_forward && grep 1 /proc/sys/net/ipv4/ip_forward &&
ls /sys/kernel && ls /sys/fs/cgroup | grep . && test -c /dev/pts/ptmx && test -c /dev/null && test -d /made/by &&
mount | grep ' /empty .*size=128k' && mount | grep ' /etc/file .*ro,.*nosuid' && mount | grep ' /dev/mqueue ' &&
mount | grep ' /sys .*ro' && mount | grep ' /all .*noexec' && ! mount | grep ' /all/sub .*noexec' &&
test $(cut -d' ' -f5 /proc/self/mountinfo | grep -c '^/$') = 1";

fn rest_of_life(bundle: &Bundle) -> Result<(), String> {
    for args in [
        &["start", "{id}"][..],
        &["exec", "{id}", "/bin/sh", "-c", LOOK],
        &["pause", "{id}"],
        &["resume", "{id}"],
        &["kill", "{id}", "KILL"],
    ] {
        let ran = bundle.run(args);
        if ran.code != 0 {
            return Err(format!("{args:?}: {ran:?}"));
        }
    }
    bundle.wait_for("stopped");
    let ran = bundle.run(&["delete", "{id}"]);
    if ran.code == 0 { Ok(()) } else { Err(format!("delete: {ran:?}")) }
}

/// Calls that filters of outer containers and older kernels do not know, each of which has another way.
#[test]
fn calls_that_are_unknown_have_another_way() {
    drop(bundle!());
    for names in [
        &["clone3"][..],
        &["openat2"],
        &["close_range"],
        &["faccessat2"],
        &["statx"],
        &["execveat"],
        &["pidfd_open"],
        &["pidfd_send_signal"],
        &["clone3", "openat2", "close_range", "faccessat2", "execveat", "pidfd_open", "pidfd_send_signal"],
    ] {
        let result = life(names, ENOSYS);
        assert_eq!(result, Ok(()), "{names:?}");
    }
}

#[test]
fn calls_that_are_forbidden_have_another_way() {
    drop(bundle!());
    for names in [
        &["openat2"][..],
        &["close_range"],
        &["faccessat2"],
        &["execveat"],
        &["pidfd_open"],
        &["pidfd_send_signal"],
    ] {
        if crate::under_test::runc().is_some() && names == ["execveat"] {
            continue; // It takes another way only where the call is unknown.
        }
        let result = life(names, EPERM);
        assert_eq!(result, Ok(()), "{names:?}");
    }
}

/// As in a container of an engine whose filter is older than the calls. mount(2) does all that they would.
#[test]
fn mounts_are_made_where_the_newer_calls_are_denied() {
    drop(bundle!());
    for errno in [ENOSYS, EPERM] {
        for name in MOUNT_CALLS {
            assert_eq!(life(&[name], errno), Ok(()), "{name}, errno {errno}");
        }
        assert_eq!(life(&MOUNT_CALLS, errno), Ok(()), "errno {errno}");
        let with_openat2 = [&MOUNT_CALLS[..], &["openat2"]].concat();
        assert_eq!(life(&with_openat2, errno), Ok(()), "openat2 too, errno {errno}");
    }
}

/// In a user namespace as well, and with the root moved instead of pivoted to.
#[test]
fn users_and_old_roots_mount_where_the_newer_calls_are_denied() {
    let mut bundle = bundle!();
    bundle
        .user_namespace()
        .set("/root/readonly", true)
        .set("/linux/maskedPaths", json!(["/proc/version", "/proc/irq"]));
    bundle.script(
        "! touch /x && ! cat /proc/version | grep . && ! ls /proc/irq | grep . && id -u && test -c /dev/null",
    );
    bundle.write_config();
    for extra in [None, Some("--no-pivot")] {
        let words = [&["run", "--bundle", "{bundle}"][..], extra.as_slice(), &["{id}"]].concat();
        let ran = denied(&MOUNT_CALLS, EPERM, || bundle.run(&words));
        assert_eq!((ran.code, ran.out.as_str()), (0, "0\n"), "{extra:?}: {ran:?}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn later_mounts_come_in_where_the_newer_calls_are_denied() {
    let mut bundle = bundle!();
    if crate::under_test::runc().is_some() {
        skip!("runc does rro by mount_setattr only");
    }
    let source = bundle.path("source");
    std::fs::create_dir_all(format!("{source}/later")).unwrap();
    run_ok("mount", &["--bind", &source, &source]);
    run_ok("mount", &["--make-shared", &source]);
    bundle.mount(
        json!({"destination": "/slave", "type": "bind", "source": source, "options": ["rbind", "rslave"]}),
    );
    bundle
        .mount(json!({"destination": "/rro", "type": "bind", "source": source, "options": ["rbind", "rro"]}));
    denied(&MOUNT_CALLS, ENOSYS, || bundle.bring(State::Running));
    run_ok("mount", &["-t", "tmpfs", "tmpfs", &format!("{source}/later")]);
    std::fs::write(format!("{source}/later/mark"), "").unwrap();
    assert_eq!(bundle.exec("ls /slave/later /rro/later"), "/rro/later:\n\n/slave/later:\nmark\n");
}

/// Of several options for the mounts below, each reaches every one; what mount(2) cannot do is refused by name.
#[test]
fn what_only_the_newer_calls_can_is_refused_by_name() {
    let mut bundle = bundle!();
    if crate::under_test::runc().is_some() {
        skip!("runc has other texts");
    }
    let source = bundle.path("source");
    std::fs::create_dir_all(format!("{source}/a b")).unwrap();
    run_ok("mount", &["-t", "tmpfs", "tmpfs", &format!("{source}/a b")]);
    let mount = |options: &[&str]| {
        json!([{"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/m", "type": "bind", "source": source, "options": options}])
    };
    bundle.set("/mounts", mount(&["rbind", "rro", "rnosuid"]));
    bundle.script("! touch /m/x && ! touch '/m/a b/x' && grep -c '/m.*ro,nosuid' /proc/self/mountinfo");
    bundle.write_config();
    let run = |bundle: &Bundle| {
        denied(&MOUNT_CALLS, EPERM, || bundle.run(&["run", "--bundle", "{bundle}", "{id}"]))
    };
    let ran = run(&bundle);
    assert_eq!((ran.code, ran.out.as_str()), (0, "2\n"), "{ran:?}");
    for (options, mappings, words) in [
        (&["rbind", "rshared"][..], json!([]), "cannot be seen on the host without open_tree(2)"),
        (
            &["bind", "idmap"],
            json!([{"containerID": 0, "hostID": 5000, "size": 10}]),
            "no other call maps owners",
        ),
    ] {
        bundle.set("/mounts", mount(options));
        bundle.set("/mounts/1/uidMappings", mappings.clone()).set("/mounts/1/gidMappings", mappings);
        bundle.write_config();
        let ran = run(&bundle);
        let error = ran.errors().pop().unwrap_or_default();
        assert!(ran.code != 0 && error.contains("/m") && error.contains(words), "{ran:?}");
        assert!(!bundle.state_root().join(&bundle.id).exists());
    }
}

/// What every promised kernel has: without it the container runs, or is refused with the reason and leaves nothing.
#[test]
fn calls_that_are_needed_are_missed_cleanly() {
    drop(bundle!());
    let calls: &[&[&str]] =
        &[&["mount"], &["pivot_root"], &["setns"], &["unshare"], &["memfd_create"], &["prctl"], &["keyctl"]];
    for names in calls {
        for errno in [ENOSYS, EPERM] {
            if let Err(text) = life(names, errno) {
                let words =
                    ["not implemented", "not permitted", "not supported", "errno", "exit status", "os error"];
                let said = words.iter().any(|word| text.to_lowercase().contains(word))
                    || text.contains("level=error");
                assert!(said, "{names:?}, errno {errno}: {text}");
                println!("{names:?}, errno {errno}: {text}");
            }
        }
    }
}
