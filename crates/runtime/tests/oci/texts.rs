//! What each command says and returns in each state: runc's texts, which containerd, dockerd, CRI-O, conmon and podman
//! look into.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::bundle::{Bundle, Logged, Ran, State, eventually};
use crate::under_test::{program, runc};

/// Commands that fail and change nothing: the arguments, the exit code, the error logged.
type Failure = (&'static [&'static str], i32, &'static str);

const CREATE: &[&str] = &["create", "--bundle", "{bundle}", "{id}"];
const RUN: &[&str] = &["run", "--bundle", "{bundle}", "{id}"];
const EXEC: &[&str] = &["exec", "{id}", "/bin/true"];
const UPDATE: &[&str] = &["update", "--memory", "104857600", "{id}"];
const STATS: &[&str] = &["events", "--stats", "{id}"];
const EXISTS_CREATE: &str = "RUNTIME create failed: container with given ID already exists";
const EXISTS_RUN: &str = "RUNTIME run failed: container with given ID already exists";

const MISSING: &[Failure] = &[
    (&["start", "{id}"], 1, "container does not exist"),
    (&["state", "{id}"], 1, "container does not exist"),
    (&["kill", "{id}"], 1, "container does not exist"),
    (&["kill", "{id}", "KILL"], 1, "container does not exist"),
    (&["kill", "--all", "{id}", "KILL"], 1, "container does not exist"),
    (&["delete", "{id}"], 1, "container does not exist"),
    (&["pause", "{id}"], 1, "container does not exist"),
    (&["resume", "{id}"], 1, "container does not exist"),
    (&["ps", "{id}"], 1, "container does not exist"),
    (&["events", "{id}"], 1, "container does not exist"),
    (STATS, 1, "container does not exist"),
    (UPDATE, 1, "container does not exist"),
    (EXEC, 255, "exec failed: container does not exist"),
];

const CREATED: &[Failure] = &[
    (CREATE, 1, EXISTS_CREATE),
    (RUN, 1, EXISTS_RUN),
    (&["resume", "{id}"], 1, "container not paused"),
    (
        &["exec", "{id}", "/bin/nope"],
        255,
        "exec failed: unable to start container process: exec: \"/bin/nope\": stat /bin/nope: no such file or directory",
    ),
];

const RUNNING: &[Failure] = &[
    (CREATE, 1, EXISTS_CREATE),
    (RUN, 1, EXISTS_RUN),
    (&["start", "{id}"], 1, "cannot start an already running container"),
    (&["delete", "{id}"], 1, "cannot delete container {id} that is not stopped: running"),
    (&["resume", "{id}"], 1, "container not paused"),
    (&["kill", "{id}", "NOPE"], 1, "unknown signal \"NOPE\""),
    (&["kill", "{id}", "99"], 1, "unable to signal init: invalid argument"),
    (&["ps", "--format", "nope", "{id}"], 1, "invalid format option"),
    (&["exec", "{id}"], 255, "exec failed: process args cannot be empty"),
    (
        &["exec", "{id}", "nope"],
        255,
        "exec failed: unable to start container process: exec: \"nope\": executable file not found in $PATH",
    ),
    (
        &["exec", "{id}", "/bin/nope"],
        255,
        "exec failed: unable to start container process: exec: \"/bin/nope\": stat /bin/nope: no such file or directory",
    ),
    (
        &["exec", "{id}", "/bin"],
        255,
        "exec failed: unable to start container process: exec: \"/bin\": permission denied",
    ),
    (
        &["exec", "{id}", "/proc/version"],
        255,
        "exec failed: unable to start container process: exec: \"/proc/version\": permission denied",
    ),
    (
        &["exec", "--cwd", "/nope", "{id}", "/bin/true"],
        255,
        "exec failed: unable to start container process: chdir to cwd (\"/nope\") set in config.json failed: \
         no such file or directory",
    ),
    (&["exec", "--cwd", "nope", "{id}", "/bin/true"], 255, "exec failed: Cwd must be an absolute path"),
    (
        &["exec", "--user", "nobody", "{id}", "/bin/true"],
        255,
        "exec failed: parsing nobody as int for uid failed: strconv.Atoi: parsing \"nobody\": invalid syntax",
    ),
];

const PAUSED: &[Failure] = &[
    (CREATE, 1, EXISTS_CREATE),
    (RUN, 1, EXISTS_RUN),
    (&["start", "{id}"], 1, "cannot start a container in the paused state"),
    (&["pause", "{id}"], 1, "container not running"),
    (&["delete", "{id}"], 1, "cannot delete container {id} that is not stopped: paused"),
    (EXEC, 255, "exec failed: cannot exec in a paused container (use --ignore-paused to override)"),
];

const STOPPED: &[Failure] = &[
    (CREATE, 1, EXISTS_CREATE),
    (RUN, 1, EXISTS_RUN),
    (&["start", "{id}"], 1, "cannot start a container that has stopped"),
    (&["kill", "{id}"], 1, "container not running"),
    (&["kill", "{id}", "KILL"], 1, "container not running"),
    (&["kill", "{id}", "0"], 1, "container not running"),
    (&["pause", "{id}"], 1, "container not running"),
    (&["resume", "{id}"], 1, "container not paused"),
    (UPDATE, 1, "container not running"),
    (EXEC, 255, "exec failed: cannot exec in a stopped container"),
    (STATS, 1, "container with id {id} is not running"),
    (&["events", "{id}"], 1, "container with id {id} is not running"),
];

/// Commands that succeed: from a state, the arguments, the state after, and what the same command says once more (`None`
/// if it succeeds again).
type Effect = (State, &'static [&'static str], State, Option<&'static str>);

const EFFECTS: &[Effect] = {
    use State::*;
    &[
        (Missing, &["delete", "--force", "{id}"], Missing, None),
        (Missing, &["delete", "-f", "{id}"], Missing, None),
        (Missing, CREATE, Created, Some(EXISTS_CREATE)),
        (Created, &["start", "{id}"], Running, Some("cannot start an already running container")),
        (Created, &["state", "{id}"], Created, None),
        (Created, &["kill", "{id}", "KILL"], Stopped, Some("container not running")),
        (Created, &["kill", "{id}", "0"], Created, None),
        (Created, &["delete", "{id}"], Missing, Some("container does not exist")),
        (Created, &["delete", "--force", "{id}"], Missing, None),
        (Created, &["pause", "{id}"], Paused, Some("container not running")),
        (Created, &["ps", "{id}"], Created, None),
        (Created, UPDATE, Created, None),
        (Created, STATS, Created, None),
        (Created, EXEC, Created, None),
        (Running, &["state", "{id}"], Running, None),
        (Running, &["kill", "{id}", "KILL"], Stopped, Some("container not running")),
        (Running, &["kill", "{id}", "9"], Stopped, Some("container not running")),
        (Running, &["kill", "--all", "{id}", "SIGKILL"], Stopped, None),
        (Running, &["kill", "{id}", "0"], Running, None),
        (Running, &["kill", "{id}", "winch"], Running, None),
        (Running, &["kill", "-a", "{id}", "0"], Running, None),
        (Running, &["delete", "--force", "{id}"], Missing, None),
        (Running, &["pause", "{id}"], Paused, Some("container not running")),
        (Running, &["ps", "{id}"], Running, None),
        (Running, UPDATE, Running, None),
        (Running, STATS, Running, None),
        (Running, EXEC, Running, None),
        (Paused, &["state", "{id}"], Paused, None),
        (Paused, &["kill", "{id}", "0"], Paused, None),
        (Paused, &["kill", "{id}", "KILL"], Stopped, Some("container not running")),
        (Paused, &["delete", "--force", "{id}"], Missing, None),
        (Paused, &["resume", "{id}"], Running, Some("container not paused")),
        (Paused, &["ps", "{id}"], Paused, None),
        (Paused, UPDATE, Paused, None),
        (Paused, STATS, Paused, None),
        (Stopped, &["state", "{id}"], Stopped, None),
        (Stopped, &["kill", "--all", "{id}", "KILL"], Stopped, None),
        (Stopped, &["delete", "{id}"], Missing, Some("container does not exist")),
        (Stopped, &["delete", "--force", "{id}"], Missing, None),
        (Stopped, &["ps", "{id}"], Stopped, None),
    ]
};

/// What another runtime says instead of runc's texts, of which no caller searches for a word: these must be in it.
const OWN_WORDS: &[(&str, &[&str])] = &[
    ("exec failed: Cwd must be an absolute path", &["exec failed: ", "cwd", "absolute path"]),
    (
        "exec failed: parsing nobody as int for uid failed: strconv.Atoi: parsing \"nobody\": invalid syntax",
        &["exec failed: ", "nobody", "uid"],
    ),
    (
        "exec failed: parsing x as int for gid failed: strconv.Atoi: parsing \"x\": invalid syntax",
        &["exec failed: ", "\"x\"", "gid"],
    ),
    ("expected cgroupsPath to be of format", &["slice:prefix:name"]),
    ("strconv.ParseBool: parsing \"nope\": invalid syntax", &["--rootless", "nope"]),
    ("unexpected EOF", &["config.json", "EOF"]),
    ("process property must not be empty", &["config.json"]),
    ("json: cannot unmarshal array into Go value of type specs.Spec", &["config.json"]),
    ("json: cannot unmarshal number into Go struct field Spec.ociVersion of type string", &["ociVersion"]),
    ("args must not be empty", &["process.args", "empty"]),
    ("Cwd must be an absolute path", &["process.cwd", "absolute path"]),
    ("Cwd property must not be empty", &["process.cwd", "absolute path"]),
    ("root must be specified", &["root.path", "missing"]),
    (
        "invalid rootfs: stat /nonexistent: no such file or directory",
        &["rootfs", "/nonexistent: no such file or directory"],
    ),
    ("rootfsPropagation=nope is not supported", &["rootfsPropagation", "nope"]),
    ("string NOPE is not a valid action for seccomp", &["seccomp.defaultAction", "NOPE"]),
    ("wrong rlimit value: RLIMIT_NOPE", &["rlimits", "RLIMIT_NOPE"]),
    ("invalid device type \"x\"", &["devices[0].type", "\"x\""]),
    (
        "sysctl \"vm.swappiness\" is not in a separate kernel namespace",
        &["sysctl \"vm.swappiness\"", "namespace"],
    ),
    (
        "sysctl \"kernel.hostname\" is not allowed as it conflicts with the OCI \"hostname\" field",
        &["sysctl \"kernel.hostname\"", "hostname"],
    ),
    ("namespace {\"nope\" \"\"} does not exist", &["namespaces", "nope"]),
    ("malformed spec file: duplicated ns {\"pid\" \"\"}", &["namespaces", "pid", "twice"]),
    ("unable to set hostname without a private UTS namespace", &["hostname", "uts namespace"]),
];

/// Whether a text is the expected one: word by word of runc, and with its words of another runtime.
fn says(text: &str, expected: &str) -> bool {
    let text = without_own_name(text);
    if text == expected || crate::under_test::runc().is_some() {
        return text == expected;
    }
    let (command, rest) = match expected.split_once(" failed: ").filter(|_| expected.starts_with("RUNTIME")) {
        Some((command, rest)) => (format!("{command} failed: "), rest),
        None => (String::new(), expected),
    };
    let own = OWN_WORDS.iter().find(|(theirs, _)| rest.starts_with(theirs));
    text.starts_with(&command) && own.is_some_and(|(_, words)| words.iter().all(|word| text.contains(word)))
}

/// With the runtime's own name at its beginning replaced, since it is not the same for each.
fn without_own_name(text: &str) -> String {
    let name = program().file_name().unwrap().to_str().unwrap().to_owned();
    for name in [name.as_str(), "runc"] {
        if let Some(rest) = text.strip_prefix(name).filter(|rest| rest.starts_with([' ', ':'])) {
            return format!("RUNTIME{rest}");
        }
    }
    text.to_owned()
}

/// Runs a failing command with the log on standard error, then with a JSON log in a file, and compares both.
#[track_caller]
fn assert_fails(bundle: &Bundle, what: &str, args: &[&str], code: i32, error: &str) {
    let expected = bundle.fill(error);
    let ran = bundle.run(args);
    let logged = ran.errors();
    assert_eq!(ran.code, code, "{what}: {args:?}: {ran:?}");
    assert!(
        logged.last().is_some_and(|text| says(text, &expected)),
        "{what}: {args:?} must say\n{expected}\nand says {ran:?}"
    );

    let log = bundle.path("log.json");
    let _ = std::fs::remove_file(&log);
    let ran = bundle.run(&[&["--log", &log, "--log-format", "json"], args].concat());
    assert_eq!(ran.code, code, "{what}: {args:?} with a log: {ran:?}");
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<Logged> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.iter().rfind(|line| line.level == "error").expect(&text);
    assert!(says(&last.msg, &expected), "{what}: {args:?} in the log: {} and not {expected}", last.msg);
    // conmon and people read standard error also when there is a log.
    assert!(ran.err.contains(&last.msg), "{what}: {args:?}: only the log says why: {ran:?}");
    let time = serde_json::from_str::<serde_json::Value>(text.lines().last().unwrap()).unwrap();
    let time = time["time"].as_str().expect("a log line has its time");
    assert!(time.len() >= 20 && time.as_bytes()[10] == b'T', "RFC 3339: {time}");
}

#[track_caller]
fn assert_failures(bundle: &mut Bundle, state: State, failures: &[Failure]) {
    bundle.bring(state);
    for (args, code, error) in failures {
        // Twice: the first must have changed nothing.
        for _ in 0..2 {
            assert_fails(bundle, &format!("{state:?}"), args, *code, error);
        }
        assert_is(bundle, state, &format!("after {args:?}"));
    }
}

#[track_caller]
fn assert_is(bundle: &Bundle, state: State, what: &str) {
    let of = |ran: Ran| match ran.code {
        0 => serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()["status"]
            .as_str()
            .unwrap()
            .to_owned(),
        _ => "missing".to_owned(),
    };
    let expected = format!("{state:?}").to_lowercase();
    eventually(&format!("{expected} {what}"), || of(bundle.run(&["state", "{id}"])) == expected);
}

#[test]
fn on_a_missing_container() {
    let mut bundle = bundle!();
    assert_failures(&mut bundle, State::Missing, MISSING);
    bundle.assert_nothing_left();
}

#[test]
fn on_a_created_container() {
    assert_failures(&mut bundle!(), State::Created, CREATED);
}

#[test]
fn on_a_running_container() {
    assert_failures(&mut bundle!(), State::Running, RUNNING);
}

#[test]
fn on_a_paused_container() {
    assert_failures(&mut bundle!(), State::Paused, PAUSED);
}

#[test]
fn on_a_stopped_container() {
    assert_failures(&mut bundle!(), State::Stopped, STOPPED);
}

fn effects(of: State) {
    for (from, args, to, again) in EFFECTS.iter().filter(|effect| effect.0 == of) {
        let mut bundle = Bundle::new();
        bundle.bring(*from);
        let ran = bundle.run(args);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{from:?} {args:?}: {ran:?}");
        assert_is(&bundle, *to, &format!("after {args:?} of {from:?}"));
        match again {
            Some(error) => assert_fails(&bundle, &format!("{from:?}, then again"), args, 1, error),
            None => {
                let ran = bundle.run(args);
                assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{from:?} {args:?} again: {ran:?}");
            }
        }
        assert_is(&bundle, *to, &format!("after {args:?} of {from:?}, twice"));
        bundle.ok(&["delete", "--force", "{id}"]);
        bundle.assert_nothing_left();
    }
}

#[test]
fn what_a_missing_container_can_be_asked() {
    drop(bundle!());
    effects(State::Missing);
}

#[test]
fn what_a_created_container_can_be_asked() {
    drop(bundle!());
    effects(State::Created);
}

#[test]
fn what_a_running_container_can_be_asked() {
    drop(bundle!());
    effects(State::Running);
}

#[test]
fn what_a_paused_container_can_be_asked() {
    drop(bundle!());
    effects(State::Paused);
}

#[test]
fn what_a_stopped_container_can_be_asked() {
    drop(bundle!());
    effects(State::Stopped);
}

#[test]
fn arguments_that_are_wrong() {
    let bundle = bundle!();
    bundle.write_config();
    let exactly = ["create", "run", "start", "state", "delete", "pause", "resume", "update", "events"];
    for command in exactly {
        let error = format!("RUNTIME: \"{command}\" requires exactly 1 argument(s)");
        assert_fails(&bundle, "no argument", &[command], 1, &error);
        assert_fails(&bundle, "two arguments", &[command, "a", "b"], 1, &error);
    }
    for command in ["kill", "exec", "ps"] {
        let error = format!("RUNTIME: \"{command}\" requires a minimum of 1 argument(s)");
        assert_fails(&bundle, "no argument", &[command], 1, &error);
    }
    let many: &[Failure] = &[
        (&["kill", "a", "b", "c"], 1, "RUNTIME: \"kill\" requires a maximum of 2 argument(s)"),
        (&["list", "x"], 1, "RUNTIME: \"list\" requires exactly 0 argument(s)"),
        (&["list", "--format", "nope"], 1, "invalid format option"),
        (&["create", "--nope", "x"], 1, "flag provided but not defined: -nope"),
        (&["state", "-x"], 1, "flag provided but not defined: -x"),
    ];
    for (args, code, error) in many {
        assert_fails(&bundle, "wrong", args, *code, error);
    }
    let ran = bundle.run(&["--nope"]);
    assert!(ran.code == 1 && ran.errors() == ["flag provided but not defined: -nope"], "{ran:?}");
    let ran = bundle.run(&["nosuch"]);
    assert!(ran.code == 3 && ran.err.contains("No help topic for 'nosuch'"), "{ran:?}");
}

#[test]
fn flags_with_values_that_are_wrong() {
    let mut bundle = bundle!();
    bundle.bring(State::Running);
    let exec: &[Failure] = &[
        (
            &["exec", "--process", "/nonexistent", "{id}"],
            255,
            "exec failed: open /nonexistent: no such file or directory",
        ),
        (
            &["exec", "--user", "0:x", "{id}", "true"],
            255,
            "exec failed: parsing x as int for gid failed: strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        (
            &["update", "--resources", "/nonexistent", "{id}"],
            1,
            "open /nonexistent: no such file or directory",
        ),
        (&["update", "--memory", "x", "{id}"], 1, "invalid value for memory: invalid size: 'x'"),
        (&["events", "--interval", "x", "{id}"], 1, "invalid value \"x\" for flag -interval: parse error"),
    ];
    for (args, code, error) in exec {
        assert_fails(&bundle, "wrong", args, *code, error);
    }
    let ran = bundle.run(&["exec", "--tty", "--detach", "{id}", "true"]);
    assert!(ran.code == 255 && ran.err.contains("will detach without setting console socket"), "{ran:?}");
    // Nothing to change is no error.
    bundle.ok(&["update", "{id}"]);
    bundle.ok(&["delete", "--force", "{id}"]);
    let create = &["create", "--bundle", "{bundle}", "{id}"][..];
    let systemd = format!(
        "RUNTIME create failed: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/{}\" \
         instead",
        bundle.id
    );
    for (flags, error) in [
        (&["--systemd-cgroup"][..], systemd.as_str()),
        (&["--rootless=nope"], "RUNTIME create failed: strconv.ParseBool: parsing \"nope\": invalid syntax"),
    ] {
        assert_fails(&bundle, "wrong", &[flags, create].concat(), 1, error);
    }
    for (flag, error) in [
        ("--log-format=nope", "invalid log-format: nope"),
        ("--log=/nonexistent/log", "open /nonexistent/log: no such file or directory"),
    ] {
        let ran = bundle.run(&[&[flag], create].concat());
        assert!(ran.code == 1 && ran.errors() == [error], "{flag}: {ran:?}");
    }
    bundle.assert_nothing_left();
}

#[test]
fn ids() {
    let bundle = bundle!();
    bundle.write_config();
    for id in ["a/b", "../x", "..", ".", "a b", "é", "a:b"] {
        let bad = "invalid container ID format";
        let create = ["create", "--bundle", "{bundle}", id];
        assert_fails(&bundle, id, &create, 1, &format!("RUNTIME create failed: {bad}"));
        for args in [&["state", id][..], &["start", id], &["kill", id], &["delete", "--force", id]] {
            assert_fails(&bundle, id, args, 1, bad);
        }
    }
    let empty = "container id cannot be empty";
    assert_fails(
        &bundle,
        "empty",
        &["create", "--bundle", "{bundle}", ""],
        1,
        &format!("RUNTIME create failed: {empty}"),
    );
    assert_fails(&bundle, "empty", &["delete", "--force", ""], 1, empty);
    let long = "a".repeat(300);
    let ran = bundle.run(&["create", "--bundle", "{bundle}", &long]);
    assert!(
        ran.code == 1 && (ran.err.contains("file name too long") || ran.err.contains("invalid container ID")),
        "{ran:?}"
    );
    for id in ["_ok", "a+b", "a.b-c_d", "0", "..."] {
        bundle.ok(&["create", "--bundle", "{bundle}", id]);
        bundle.ok(&["delete", "--force", id]);
    }
    bundle.assert_nothing_left();
}

#[test]
fn bundles_that_are_wrong() {
    let bundle = bundle!();
    let error = "RUNTIME create failed: chdir /nonexistent: no such file or directory";
    assert_fails(&bundle, "no bundle", &["create", "--bundle", "/nonexistent", "{id}"], 1, error);
    let no_file = "RUNTIME create failed: JSON specification file config.json not found";
    assert_fails(&bundle, "no config.json", CREATE, 1, no_file);
    let texts = [
        ("{", "unexpected EOF"),
        ("{}", "process property must not be empty"),
        ("[]", "json: cannot unmarshal array into Go value of type specs.Spec"),
        (
            r#"{"ociVersion":5}"#,
            "json: cannot unmarshal number into Go struct field Spec.ociVersion of type string",
        ),
    ];
    for (text, error) in texts {
        std::fs::write(bundle.path("config.json"), text).unwrap();
        // How a parser puts it is its own matter.
        if runc().is_some() {
            assert_fails(&bundle, text, CREATE, 1, &format!("RUNTIME create failed: {error}"));
        } else {
            let ran = bundle.run(CREATE);
            assert!(
                ran.code == 1 && ran.errors().len() == 1 && ran.err.contains("config.json"),
                "{text}: {ran:?}"
            );
        }
    }
    bundle.assert_nothing_left();
}

/// What a changed configuration makes `run` say.
type Configuration = (&'static str, serde_json::Value, &'static str);

fn wrong_configurations() -> Vec<Configuration> {
    vec![
        ("/process/args", json!([]), "args must not be empty"),
        ("/process/cwd", json!("nope"), "Cwd must be an absolute path"),
        ("/process/cwd", json!(""), "Cwd property must not be empty"),
        ("/process", json!(null), "process property must not be empty"),
        ("/root", json!(null), "root must be specified"),
        ("/root/path", json!("/nonexistent"), "invalid rootfs: stat /nonexistent: no such file or directory"),
        ("/linux/rootfsPropagation", json!("nope"), "rootfsPropagation=nope is not supported"),
        ("/linux/seccomp", json!({"defaultAction": "NOPE"}), "string NOPE is not a valid action for seccomp"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}]),
            "wrong rlimit value: RLIMIT_NOPE",
        ),
        ("/linux/devices", json!([{"type": "x", "path": "/dev/x"}]), "invalid device type \"x\""),
        (
            "/linux/sysctl",
            json!({"vm.swappiness": "1"}),
            "sysctl \"vm.swappiness\" is not in a separate kernel namespace",
        ),
        (
            "/linux/sysctl",
            json!({"kernel.hostname": "a"}),
            "sysctl \"kernel.hostname\" is not allowed as it conflicts with the OCI \"hostname\" field",
        ),
    ]
}

#[test]
fn configurations_that_are_wrong() {
    drop(bundle!());
    for (pointer, value, error) in wrong_configurations() {
        let mut bundle = Bundle::new();
        bundle.set(pointer, value);
        bundle.write_config();
        if runc().is_some() {
            assert_fails(&bundle, pointer, RUN, 1, &format!("RUNTIME run failed: {error}"));
            assert_fails(&bundle, pointer, CREATE, 1, &format!("RUNTIME create failed: {error}"));
        } else {
            // Nobody searches for these: what helps is where in the file it is.
            let path = pointer[1..].replace('/', ".");
            for command in [RUN, CREATE] {
                let ran = bundle.run(command);
                assert!(ran.code == 1 && ran.err.contains(&path), "{pointer}: {ran:?}");
            }
        }
        bundle.assert_nothing_left();
    }
    let mut bundle = Bundle::new();
    bundle.namespace("nope", None);
    bundle.write_config();
    assert_fails(&bundle, "nope", RUN, 1, "RUNTIME run failed: namespace {\"nope\" \"\"} does not exist");
    let mut bundle = Bundle::new();
    bundle.push("/linux/namespaces", json!({"type": "pid"}));
    bundle.write_config();
    assert_fails(
        &bundle,
        "two",
        RUN,
        1,
        "RUNTIME run failed: malformed spec file: duplicated ns {\"pid\" \"\"}",
    );
    let mut bundle = Bundle::new();
    bundle.set("/hostname", "a").without_namespace("uts");
    bundle.write_config();
    let error = "RUNTIME run failed: unable to set hostname without a private UTS namespace";
    assert_fails(&bundle, "hostname", RUN, 1, error);
}

/// Programs that cannot be started are said by `run` and already by `create`.
#[test]
fn programs_that_cannot_be_started() {
    drop(bundle!());
    let programs = [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        ("", "exec: \"\": executable file not found in $PATH"),
        ("/bin/nope", "exec: \"/bin/nope\": stat /bin/nope: no such file or directory"),
        ("/proc", "exec: \"/proc\": permission denied"),
        ("/etc/file", "exec: \"/etc/file\": permission denied"),
        ("/link", "exec: \"/link\": stat /link: no such file or directory"),
    ];
    for (program, error) in programs {
        // An empty name is a program not found for runc, and for others may be a wrong configuration.
        if program.is_empty() && runc().is_none() {
            continue;
        }
        let mut bundle = Bundle::new();
        let file = bundle.rootfs().join("etc/file");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink("nowhere", bundle.rootfs().join("link")).unwrap();
        bundle.set("/process/args", json!([program]));
        bundle.write_config();
        for (args, command) in [(RUN, "run"), (CREATE, "create")] {
            let error = format!("RUNTIME {command} failed: unable to start container process: {error}");
            assert_fails(&bundle, program, args, 1, &error);
        }
        bundle.assert_nothing_left();
    }
}

/// What passes the look at the file and fails in execve is only known after start, and then said by the container.
#[test]
fn programs_that_execve_refuses() {
    let mut bundle = bundle!();
    let file = bundle.rootfs().join("garbage");
    std::fs::write(&file, "\x7fELFgarbage").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    bundle.set("/process/args", json!(["/garbage"]));
    let ran = bundle.run_container();
    assert!(ran.code != 0 && ran.err.contains("exec format error"), "{ran:?}");
    bundle.ok(&["delete", "--force", "{id}"]);
    bundle.assert_nothing_left();
}

/// The working directory is made where it is missing, and what cannot be one is said.
#[test]
fn working_directories() {
    let mut bundle = bundle!();
    bundle.set("/process/cwd", "/new/deep");
    assert_eq!(bundle.inside("pwd"), "/new/deep\n");
    bundle.set("/process/cwd", "/proc/version");
    let error = bundle.refused();
    assert!(error.ends_with("/proc/version: not a directory"), "{error}");
    bundle.assert_nothing_left();
}

/// The words that callers search for in an error, each with who does; whatever else the texts above are, these must
/// stay in them.
#[test]
fn what_callers_search_for() {
    let mut bundle = bundle!();
    bundle.write_config();
    let says = |bundle: &Bundle, args: &[&str]| bundle.run(args).err;
    // containerd: pkg/process (delete and kill of what is gone); podman and conmon: state of what is gone.
    for command in ["kill", "delete", "state", "start"] {
        assert!(says(&bundle, &[command, "{id}"]).contains("container does not exist"), "{command}");
    }
    bundle.bring(State::Stopped);
    // containerd: checkKillError; CRI-O the same in KillContainer: one of three.
    let kill = says(&bundle, &["kill", "{id}", "KILL"]).to_lowercase();
    let words = ["os: process already finished", "container not running", "no such process"];
    assert!(words.iter().any(|word| kill.contains(word)), "{kill}");
    // dockerd and `docker exec`'s users.
    assert!(says(&bundle, EXEC).contains("cannot exec in a stopped container"));
    bundle.ok(&["delete", "{id}"]);
    // dockerd's exit codes 127 and 126; podman's ErrOCIRuntimeNotFound and ErrOCIRuntimePermissionDenied.
    for (program, words) in [
        ("nope", &["executable file not found in $PATH"][..]),
        ("/nope", &["no such file or directory"]),
        ("/bin", &["permission denied"]),
    ] {
        bundle.set("/process/args", json!([program]));
        bundle.write_config();
        let error = says(&bundle, CREATE);
        assert!(words.iter().all(|word| error.contains(word)), "{program}: {error}");
    }
    // dockerd: a directory on a file is the user's fault, code 127 and a hint.
    bundle.set("/process/args", json!(["/bin/true"]));
    bundle
        .mount(json!({"destination": "/bin/busybox", "type": "bind", "source": "/tmp", "options": ["bind"]}));
    bundle.write_config();
    assert!(says(&bundle, CREATE).contains("not a directory"));
}
