//! Calls that an older kernel or an outer container's filter refuses: the runtime takes another way, or says what it
//! cannot do and leaves nothing.

use runtime::seccomp::{Filter, Seccomp};
use serde_json::json;

use crate::bundle::Bundle;

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

/// A container's whole life with calls denied: what it said where it failed. The bundle is made and removed outside of
/// the thread that denies, as what does that is not on trial.
fn life(names: &[&str], errno: u32) -> Result<(), String> {
    let bundle = bundle();
    let result = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            deny(names, errno);
            let create = bundle.run(&["create", "--bundle", "{bundle}", "{id}"]);
            let result = if create.code == 0 { rest_of_life(&bundle) } else { Err(create.err) };
            if let Err(text) = &result {
                assert!(!text.contains("panic"), "{names:?}: {text}");
                let deleted = bundle.run(&["delete", "--force", "{id}"]);
                assert_eq!(deleted.code, 0, "{names:?}, errno {errno}, after {text}: {deleted:?}");
            }
            result
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    bundle.assert_nothing_left();
    result
}

/// One that asks for something of each kind of call.
fn bundle() -> Bundle {
    let mut bundle = Bundle::new();
    let source = bundle.directory().join("source");
    std::fs::create_dir(&source).unwrap();
    bundle.mount(json!({"destination": "/ro", "type": "bind", "source": source, "options": ["bind", "ro"]}));
    bundle.mount(json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]}));
    bundle.set("/linux/maskedPaths", json!(["/proc/version"]));
    bundle.set("/linux/readonlyPaths", json!(["/proc/sys"]));
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    bundle.set("/process/noNewPrivileges", true);
    let syscalls = json!([{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]);
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls}));
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.write_config();
    bundle
}

fn rest_of_life(bundle: &Bundle) -> Result<(), String> {
    for args in [
        &["start", "{id}"][..],
        &["exec", "{id}", "/bin/sh", "-c", "! touch /ro/x && touch /t/x && ! cat /proc/version | grep ."],
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

/// What every promised kernel has: without it the container runs, or is refused with the reason and leaves nothing.
///
/// The calls of the mount interface since Linux 5.2 have no other way: mount(2) works by paths, which an image can change under the
/// runtime's hands, and shows half-made mounts. Engines' filters allow them together with mount(2) since 2020.
#[test]
fn calls_that_are_needed_are_missed_cleanly() {
    drop(bundle!());
    let calls: &[&[&str]] = &[
        &["open_tree"],
        &["move_mount"],
        &["mount_setattr"],
        &["fsopen"],
        &["fsmount"],
        &["open_tree", "move_mount", "mount_setattr", "fsopen", "fsconfig", "fsmount"],
        &["mount"],
        &["pivot_root"],
        &["setns"],
        &["unshare"],
        &["memfd_create"],
        &["prctl"],
        &["keyctl"],
    ];
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
