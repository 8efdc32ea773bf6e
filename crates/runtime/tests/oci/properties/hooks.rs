//! `hooks`: each at its place in the container's life, in its namespace, with the state on standard input.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use crate::bundle::Bundle;

/// runc runs poststart at the end of `create`; the specification says after the program is started.
fn poststart_is_early() -> bool {
    crate::under_test::runc().is_some()
}

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that a script of the bundle is: `{out}` in it is a directory for what it finds.
fn hook(bundle: &Bundle, script: &str) -> Value {
    let out = bundle.path("hooks");
    std::fs::create_dir_all(&out).unwrap();
    json!({"path": "/bin/sh", "args": ["sh", "-c", script.replace("{out}", &out)]})
}

/// Makes the bundle's directory for results seen in the container at the same path, so that a hook there writes into it.
fn share_results(bundle: &mut Bundle) {
    let out = bundle.path("hooks");
    std::fs::create_dir_all(&out).unwrap();
    bundle.mount(json!({"destination": out, "type": "bind", "source": out, "options": ["bind"]}));
}

/// Whether a text tells of the first hook of a kind: since 1.2 runc names the kind.
fn tells_of(text: &str, kind: &str) -> bool {
    text.contains("error running hook #0") || text.contains(&format!("error running {kind} hook #0"))
}

fn result(bundle: &Bundle, name: &str) -> String {
    std::fs::read_to_string(bundle.directory().join("hooks").join(name)).unwrap_or_default()
}

/// Every hook notes its name, namespaces, whether it sees the container's root as its own, and its input.
fn all_hooks(bundle: &mut Bundle) {
    share_results(bundle);
    std::fs::write(bundle.rootfs().join("inside"), "").unwrap();
    for kind in KINDS {
        let script = format!(
            "echo {kind} >> {{out}}/order; cat > {{out}}/{kind}.state; \
             for n in mnt pid uts; do readlink /proc/self/ns/$n; done > {{out}}/{kind}.ns; \
             test -e /inside && echo in > {{out}}/{kind}.root; env > {{out}}/{kind}.env; pwd > {{out}}/{kind}.cwd"
        );
        let hook = hook(bundle, &script);
        bundle.push(&format!("/hooks/{kind}"), hook);
    }
}

fn states(bundle: &Bundle) -> BTreeMap<&'static str, Value> {
    let state = |kind: &&str| serde_json::from_str(&result(bundle, &format!("{kind}.state"))).unwrap();
    KINDS.iter().map(|kind| (*kind, state(kind))).collect()
}

#[test]
fn run_in_the_order_of_the_containers_life() {
    let mut bundle = bundle!();
    all_hooks(&mut bundle);
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    let order = |bundle: &Bundle| result(bundle, "order").lines().map(str::to_owned).collect::<Vec<_>>();
    bundle.create();
    let mut expected = KINDS;
    if poststart_is_early() {
        expected.swap(3, 4);
        assert_eq!(order(&bundle), expected[..4]);
    } else {
        assert_eq!(order(&bundle), expected[..3]);
    }
    bundle.start();
    assert_eq!(order(&bundle), expected[..5]);
    bundle.ok(&["kill", "{id}", "KILL"]);
    bundle.wait_for("stopped");
    assert_eq!(order(&bundle), expected[..5]);
    bundle.ok(&["delete", "{id}"]);
    assert_eq!(order(&bundle), expected);
}

#[test]
fn prestart_hook_runs_on_the_host() {
    assert_place(bundle!(), "prestart", false, "creat");
}

#[test]
fn create_runtime_hook_runs_on_the_host() {
    assert_place(bundle!(), "createRuntime", false, "creat");
}

#[test]
fn create_container_hook_runs_in_the_namespace_before_pivot() {
    assert_place(bundle!(), "createContainer", true, "creat");
}

#[test]
fn start_container_hook_runs_in_the_container() {
    assert_place(bundle!(), "startContainer", true, "creat");
}

#[test]
fn poststart_hook_runs_on_the_host_when_it_runs() {
    assert_place(bundle!(), "poststart", false, if poststart_is_early() { "created" } else { "running" });
}

#[test]
fn poststop_hook_runs_on_the_host_when_it_stopped() {
    assert_place(bundle!(), "poststop", false, "stopped");
}

/// Where a hook of a kind runs and what state it is told: the status begins with a word, which leaves `creating` and
/// `created` to the runtime.
#[track_caller]
fn assert_place(mut bundle: Bundle, kind: &str, in_namespace: bool, status: &str) {
    all_hooks(&mut bundle);
    bundle.set("/annotations", json!({"a": "b"})).set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.create();
    let pid = bundle.pid();
    bundle.start();
    let of = |pid: &str| {
        ["mnt", "pid", "uts"].map(|file| {
            let link = std::fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
            link.to_str().unwrap().to_owned()
        })
    };
    let (host, container) = (of("self"), of(&pid.to_string()));
    bundle.ok(&["delete", "--force", "{id}"]);
    let namespaces = result(&bundle, &format!("{kind}.ns"));
    let namespaces: Vec<&str> = namespaces.lines().collect();
    let expected = if in_namespace { container } else { host };
    assert_eq!(namespaces, expected, "{kind}");
    let root = result(&bundle, &format!("{kind}.root"));
    assert_eq!(root, if kind == "startContainer" { "in\n" } else { "" }, "{kind}");

    let state = &states(&bundle)[kind];
    assert_eq!((&state["id"], &state["bundle"]), (&json!(bundle.id), &json!(bundle.directory())), "{kind}");
    assert_eq!(state["annotations"]["a"], "b", "{kind}: {state}");
    assert!(state["ociVersion"].is_string(), "{kind}: {state}");
    assert!(state["status"].as_str().unwrap().starts_with(status), "{kind}: {state}");
    match kind {
        "prestart" | "createRuntime" | "poststart" => assert_eq!(state["pid"], pid, "{kind}: {state}"),
        "poststop" => assert!(state["pid"].is_null() || state["pid"] == 0, "{state}"),
        // In the container's own eyes.
        _ => assert!(state["pid"].is_number(), "{kind}: {state}"),
    }
}

#[test]
fn path_args_env_are_as_written() {
    let mut bundle = bundle!();
    let mut written = hook(&bundle, "echo $0 $1 > {out}/args; env > {out}/env");
    written["args"].as_array_mut().unwrap().extend([json!("zeroth"), json!("first")]);
    written["env"] = json!(["A=1", "PATH=/usr/bin:/bin"]);
    bundle.push("/hooks/createRuntime", written);
    bundle.inside("true");
    assert_eq!(result(&bundle, "args"), "zeroth first\n");
    let env = result(&bundle, "env");
    assert!(env.contains("A=1\n") && env.contains("PATH=/usr/bin:/bin\n"), "{env}");
    assert!(
        !env.contains("HOME=") && !env.contains("CARGO"),
        "the runtime's own environment is passed: {env}"
    );
}

#[test]
fn several_of_a_kind_run_in_order() {
    let mut bundle = bundle!();
    for word in ["one", "two", "three"] {
        let hook =
            hook(&bundle, &format!("sleep 0.0$(( 3 - {} )); echo {word} >> {{out}}/order", word.len() % 3));
        bundle.push("/hooks/createRuntime", hook);
    }
    bundle.inside("true");
    assert_eq!(result(&bundle, "order"), "one\ntwo\nthree\n");
}

#[test]
fn failure_before_the_start_ends_the_container() {
    drop(bundle!());
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = Bundle::new();
        let failing = hook(&bundle, "echo said-why >&2; exit 3");
        bundle.push(&format!("/hooks/{kind}"), failing);
        let error = bundle.refused();
        assert!(tells_of(&error, kind) && error.contains("exit status 3"), "{kind}: {error}");
        assert!(error.contains("said-why"), "{kind}: {error}");
        bundle.assert_nothing_left();
    }
    let mut bundle = Bundle::new();
    bundle.push("/hooks/createRuntime", json!({"path": "/nonexistent"}));
    let error = bundle.refused();
    assert!(error.contains("/nonexistent: no such file or directory"), "{error}");
    bundle.assert_nothing_left();
}

#[test]
fn failure_at_the_start_keeps_the_program_from_running() {
    let mut bundle = bundle!();
    bundle.push("/hooks/startContainer", json!({"path": "/bin/false"}));
    bundle.script("echo ran");
    let ran = bundle.run_container();
    assert!(ran.code != 0 && ran.out.is_empty(), "{ran:?}");
}

#[test]
fn failure_of_poststart_ends_the_container() {
    let mut bundle = bundle!();
    bundle.push("/hooks/poststart", json!({"path": "/bin/false"}));
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    let error = bundle.refused();
    assert!(tells_of(&error, "poststart"), "{error}");
    bundle.assert_nothing_left();
}

/// What happens after a container is only warned of, and the next hook runs.
#[test]
fn failure_of_poststop_is_logged() {
    let mut bundle = bundle!();
    bundle.push("/hooks/poststop", json!({"path": "/bin/false"}));
    let next = hook(&bundle, "echo ran > {out}/next");
    bundle.push("/hooks/poststop", next);
    bundle.script("exit 0");
    let ran = bundle.run_container();
    assert!(ran.code == 0 && tells_of(&ran.err, "poststop"), "{ran:?}");
    // runc 1.1 leaves the others out, which the specification does not.
    if crate::under_test::runc().is_none() {
        assert_eq!(result(&bundle, "next"), "ran\n");
    }
    bundle.assert_nothing_left();
}

#[test]
fn timeout_ends_a_hook_that_takes_longer() {
    let mut bundle = bundle!();
    bundle
        .push("/hooks/createRuntime", json!({"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}));
    let start = Instant::now();
    let error = bundle.refused();
    assert!(error.contains("hook ran past specified timeout of 1"), "{error}");
    assert!(start.elapsed().as_secs() < 30);
    bundle.assert_nothing_left();
}
