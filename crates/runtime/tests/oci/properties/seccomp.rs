//! `linux.seccomp`: what each action, comparison and flag does to a call.

use serde_json::{Value, json};

use crate::bundle::{Bundle, Ran};
use crate::socket::Socket;

/// Everything is allowed but calls of these names.
fn rule(names: &[&str], action: &str) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": names, "action": action}]})
}

#[track_caller]
fn with(filter: Value, script: &str) -> Ran {
    let mut bundle = Bundle::new();
    bundle.set("/linux/seccomp", filter).script(script);
    bundle.run_container()
}

const MKDIR: &[&str] = &["mkdir", "mkdirat"];

#[test]
fn errno_is_returned() {
    drop(bundle!());
    let ran = with(rule(MKDIR, "SCMP_ACT_ERRNO"), "mkdir /x");
    assert!(ran.code == 1 && ran.err.contains("Operation not permitted"), "{ran:?}");
    let mut filter = rule(MKDIR, "SCMP_ACT_ERRNO");
    filter["syscalls"][0]["errnoRet"] = json!(28);
    let ran = with(filter, "mkdir /x; touch /y && echo made");
    assert!(ran.out == "made\n" && ran.err.contains("No space left on device"), "{ran:?}");
}

/// A filter of what is allowed, as docker's is, and the rest is refused.
#[test]
fn default_action_and_its_errno() {
    drop(bundle!());
    let docker = runtime::seccomp::docker_default(runtime::seccomp::capability_set([]), (6, 1));
    let mut filter = serde_json::to_value(docker).unwrap();
    assert_eq!(filter["defaultAction"], "SCMP_ACT_ERRNO");
    for rule in filter["syscalls"].as_array_mut().unwrap() {
        rule["names"].as_array_mut().unwrap().retain(|name| !MKDIR.contains(&name.as_str().unwrap()));
    }
    filter.as_object_mut().unwrap().remove("defaultErrnoRet");
    let ran = with(filter.clone(), "echo ran; mkdir /x");
    assert!(ran.out == "ran\n" && ran.err.contains("Operation not permitted"), "{ran:?}");
    filter["defaultErrnoRet"] = json!(28);
    let ran = with(filter, "echo ran; mkdir /x");
    assert!(ran.out == "ran\n" && ran.err.contains("No space left on device"), "{ran:?}");
}

#[test]
fn kill_and_trap_end_the_caller_with_sigsys() {
    drop(bundle!());
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        // A child, since an init without a handler does not die of what it does itself.
        let ran = with(rule(MKDIR, action), "(mkdir /x); echo $?");
        assert_eq!(ran.out, "159\n", "{action}: {ran:?}");
    }
}

/// Without a tracer the call is as good as unknown.
#[test]
fn trace_fails_without_a_tracer() {
    drop(bundle!());
    let ran = with(rule(MKDIR, "SCMP_ACT_TRACE"), "mkdir /x");
    assert!(ran.code != 0 && ran.err.contains("Function not implemented"), "{ran:?}");
}

#[test]
fn log_and_allow_let_it_pass() {
    drop(bundle!());
    for action in ["SCMP_ACT_LOG", "SCMP_ACT_ALLOW"] {
        let mut filter = rule(MKDIR, action);
        // A rule that is the default's own would be no filter.
        filter["syscalls"]
            .as_array_mut()
            .unwrap()
            .push(json!({"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}));
        let ran = with(filter, "mkdir /x && grep -w Seccomp: /proc/self/status");
        assert_eq!(ran.out, "Seccomp:\t2\n", "{action}: {ran:?}");
    }
}

#[test]
fn names_that_are_unknown_are_passed_over() {
    drop(bundle!());
    let ran = with(rule(&["no_such_call", "mkdir", "mkdirat"], "SCMP_ACT_ERRNO"), "mkdir /x");
    assert!(ran.err.contains("Operation not permitted"), "{ran:?}");
}

/// Signals 1 to 8 sent to nobody with a filter on kill's arguments: which are refused before that is found out.
#[track_caller]
fn refused_signals(arguments: Value) -> Vec<u32> {
    let mut filter = rule(&["kill"], "SCMP_ACT_ERRNO");
    filter["syscalls"][0]["args"] = arguments;
    let ran =
        with(filter, "for s in 1 2 3 4 5 6 7 8; do kill -$s 99 2>&1 | grep -q permitted && echo $s; done; :");
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn args_are_compared() {
    drop(bundle!());
    let compare =
        |op: &str, value: u64| json!([{"index": 1, "value": value, "op": format!("SCMP_CMP_{op}")}]);
    assert_eq!(refused_signals(compare("EQ", 3)), [3]);
    assert_eq!(refused_signals(compare("NE", 3)), [1, 2, 4, 5, 6, 7, 8]);
    assert_eq!(refused_signals(compare("LT", 3)), [1, 2]);
    assert_eq!(refused_signals(compare("LE", 3)), [1, 2, 3]);
    assert_eq!(refused_signals(compare("GT", 6)), [7, 8]);
    assert_eq!(refused_signals(compare("GE", 6)), [6, 7, 8]);
    // The bits of `value` are kept, and what they make compared with `valueTwo`.
    let masked = json!([{"index": 1, "value": 6, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]);
    assert_eq!(refused_signals(masked), [2, 3]);
    // All of the comparisons of a rule must hold; of one argument twice, as runc has it, any.
    let both = json!([
        {"index": 1, "value": 2, "op": "SCMP_CMP_GT"}, {"index": 0, "value": 99, "op": "SCMP_CMP_EQ"},
    ]);
    assert_eq!(refused_signals(both), [3, 4, 5, 6, 7, 8]);
    let never = json!([
        {"index": 1, "value": 2, "op": "SCMP_CMP_GT"}, {"index": 0, "value": 77, "op": "SCMP_CMP_EQ"},
    ]);
    assert!(refused_signals(never).is_empty());
}

#[test]
fn architectures_are_taken() {
    drop(bundle!());
    let mut filter = rule(MKDIR, "SCMP_ACT_ERRNO");
    filter["architectures"] =
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"]);
    let ran = with(filter.clone(), "mkdir /x");
    assert!(ran.err.contains("Operation not permitted"), "{ran:?}");
    filter["architectures"] = json!(["SCMP_ARCH_NOPE"]);
    let ran = with(filter, "true");
    assert!(ran.code != 0 && ran.err.contains("SCMP_ARCH_NOPE"), "{ran:?}");
}

#[test]
fn flags_are_taken_or_refused() {
    drop(bundle!("linux.seccomp.flags"));
    let mut filter = rule(MKDIR, "SCMP_ACT_ERRNO");
    for flags in [
        &["SECCOMP_FILTER_FLAG_LOG"][..],
        &["SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        &["SECCOMP_FILTER_FLAG_TSYNC"],
    ] {
        filter["flags"] = json!(flags);
        let ran = with(filter.clone(), "mkdir /x");
        assert!(ran.err.contains("Operation not permitted"), "{flags:?}: {ran:?}");
    }
    filter["flags"] = json!(["SECCOMP_FILTER_FLAG_NOPE"]);
    let ran = with(filter, "true");
    assert!(ran.code != 0 && ran.err.contains("SECCOMP_FILTER_FLAG_NOPE"), "{ran:?}");
}

/// Loaded last where no_new_privs is set, and with the rights to load it where it is not.
#[test]
fn a_filter_is_loaded_for_any_user() {
    drop(bundle!());
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::new();
        bundle
            .set("/process/user", json!({"uid": 5, "gid": 5}))
            .set("/process/noNewPrivileges", no_new_privileges);
        bundle.set("/linux/seccomp", rule(MKDIR, "SCMP_ACT_ERRNO"));
        assert_eq!(bundle.inside("grep -w Seccomp: /proc/self/status"), "Seccomp:\t2\n");
    }
}

#[test]
fn exec_has_the_filter_too() {
    let mut bundle = bundle!();
    bundle.set("/linux/seccomp", rule(MKDIR, "SCMP_ACT_ERRNO"));
    bundle.bring(crate::bundle::State::Running);
    let ran = bundle.run(&["exec", "{id}", "mkdir", "/x"]);
    assert!(ran.code != 0 && ran.err.contains("Operation not permitted"), "{ran:?}");
}

/// An agent is sent the listener with the state; when it goes away, a call that waits for it fails as unknown.
#[test]
fn notify_sends_a_listener_to_the_agent() {
    let mut bundle = bundle!();
    let path = bundle.directory().join("agent");
    let socket = Socket::listen(&path);
    let mut filter = rule(MKDIR, "SCMP_ACT_NOTIFY");
    filter["listenerPath"] = json!(path);
    filter["listenerMetadata"] = json!("meta");
    bundle.set("/linux/seccomp", filter).script("mkdir /x; echo $?; exec sleep 1000");
    let ran = bundle.create();
    bundle.start();
    let message = socket.take();
    let state: Value = serde_json::from_slice(&message.bytes).unwrap();
    assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("meta")), "{state}");
    assert_eq!((&state["state"]["id"], &state["pid"]), (&json!(bundle.id), &json!(bundle.pid())), "{state}");
    assert!(state["ociVersion"].is_string() && state["state"]["status"].is_string(), "{state}");
    assert_eq!(message.descriptors.len(), 1);
    let link = rustix::fs::readlink(
        format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&message.descriptors[0])),
        Vec::new(),
    );
    assert_eq!(link.unwrap().to_str().unwrap(), "anon_inode:seccomp notify");
    drop((message, ran));
    // Nothing is made, and the program goes on.
    crate::bundle::eventually("sleep", || {
        std::fs::read_to_string(format!("/proc/{}/comm", bundle.pid())).is_ok_and(|name| name == "sleep\n")
    });
    assert!(!bundle.rootfs().join("x").exists());
}

#[test]
fn notify_waits_killably() {
    let mut bundle = bundle!("linux.seccomp.flags");
    let path = bundle.directory().join("agent");
    let socket = Socket::listen(&path);
    let mut filter = rule(MKDIR, "SCMP_ACT_NOTIFY");
    filter["listenerPath"] = json!(path);
    filter["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    bundle.set("/linux/seccomp", filter).script("exec sleep 1000");
    bundle.create();
    bundle.start();
    assert_eq!(socket.take().descriptors.len(), 1);
}

#[test]
fn notify_without_an_agent_is_refused() {
    drop(bundle!());
    let ran = with(rule(MKDIR, "SCMP_ACT_NOTIFY"), "true");
    assert_ne!(ran.code, 0, "{ran:?}");
    let mut filter = rule(MKDIR, "SCMP_ACT_NOTIFY");
    filter["listenerPath"] = json!("/nonexistent/agent");
    let ran = with(filter, "true");
    assert_ne!(ran.code, 0, "{ran:?}");
}
