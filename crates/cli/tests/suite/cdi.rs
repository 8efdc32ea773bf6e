//! Devices by name: a CDI file in a directory of the test's own, and a container that sees what it says.

use crate::coracle::{Coracle, is_root};

/// A vendor's file, whose hooks write into the directory.
fn write_file(coracle: &Coracle) -> String {
    let directory = coracle.directory().join("cdi");
    std::fs::create_dir_all(directory.join("data")).unwrap();
    std::fs::write(directory.join("data/file"), "content\n").unwrap();
    let place = directory.display();
    let hook = |moment: &str| {
        format!(
            "    - {{ hookName: {moment}, path: /bin/sh, args: [sh, -c, 'cat >/dev/null; echo {moment} $WORD >>{place}/ran'], \
             env: [WORD=done], timeout: 10 }}\n"
        )
    };
    let groups = if is_root() { "    additionalGids: [4321]\n" } else { "" };
    let text = format!(
        "cdiVersion: 0.7.0\nkind: example.com/thing\ncontainerEdits:\n  env: [FROM_FILE=1]\ndevices:\n\
         - name: one\n  containerEdits:\n    env: [FROM_DEVICE=one]\n{groups}    deviceNodes:\n    \
         - {{ path: /dev/nothing, hostPath: /dev/null, permissions: rw, fileMode: 0640 }}\n    mounts:\n    \
         - {{ hostPath: {place}/data, containerPath: /opt/data, options: [ro, nosuid] }}\n    hooks:\n{}{}{}{}\
         - name: other\n  containerEdits: {{ env: [FROM_OTHER=1] }}\n",
        hook("createRuntime"),
        hook("createContainer"),
        hook("poststart"),
        hook("poststop")
    );
    std::fs::write(directory.join("example.yaml"), text).unwrap();
    place.to_string()
}

#[test]
fn a_device_by_name_brings_its_variables_nodes_mounts_and_hooks() {
    let coracle = Coracle::with_busybox();
    let directory = write_file(&coracle);
    let script = "env | grep FROM_ | sort; cat /opt/data/file; touch /opt/data/x 2>/dev/null || echo read-only; \
                  echo gone >/dev/nothing && test -c /dev/nothing && echo node; id -G";
    let device = "example.com/thing=one";
    let options = ["run", "--rm", "--cdi-spec-dir", &directory, "--device", device, "busybox", "sh", "-c"];
    let out = coracle.ok(&[&options[..], &[script]].concat());
    let seen: Vec<_> = out.lines().collect();
    assert_eq!(seen[..5], ["FROM_DEVICE=one", "FROM_FILE=1", "content", "read-only", "node"], "{out}");
    if is_root() {
        assert!(seen[5].split(' ').any(|group| group == "4321"), "{out}");
        let mode = coracle.ok(&[&options[..], &["stat -c '%a %t %T' /dev/nothing"]].concat());
        assert_eq!(mode, "640 1 3\n");
    }
    let ran = std::fs::read_to_string(format!("{directory}/ran")).unwrap();
    let moments = ["createRuntime done", "createContainer done", "poststart done", "poststop done"];
    assert_eq!(ran.lines().take(4).collect::<Vec<_>>(), moments);
    coracle.assert_nothing_left();
}

#[test]
fn a_hook_that_fails_after_the_start_ends_the_container() {
    let coracle = Coracle::with_busybox();
    let directory = write_file(&coracle);
    let file = format!("{directory}/example.yaml");
    let text = std::fs::read_to_string(&file).unwrap().replace("echo poststart", "exit 3; echo poststart");
    std::fs::write(&file, text).unwrap();
    let device = "example.com/thing=one";
    let ran = coracle.run(&[
        "run",
        "--rm",
        "--cdi-spec-dir",
        &directory,
        "--device",
        device,
        "busybox",
        "sleep",
        "50",
    ]);
    assert!(ran.code == 125 && ran.err.contains("poststart hook #0 (/bin/sh)"), "{ran:?}");
    assert!(std::fs::read_to_string(format!("{directory}/ran")).unwrap().ends_with("poststop done\n"));
    coracle.assert_nothing_left();
}

#[test]
fn a_device_that_no_file_has_is_told_with_those_that_there_are() {
    let coracle = Coracle::with_busybox();
    let directory = write_file(&coracle);
    let run = |device: &str| {
        coracle.run(&["run", "--rm", "--cdi-spec-dir", &directory, "--device", device, "busybox", "true"])
    };
    let ran = run("example.com/thing=two");
    assert_eq!(ran.code, 125, "{ran:?}");
    for told in
        ["there is no one device \"example.com/thing=two\"", "example.com/thing=one, example.com/thing=other"]
    {
        assert!(ran.err.contains(told), "{ran:?}");
    }
    let ran = run("thing=two");
    assert!(ran.code == 125 && ran.err.contains("invalid value \"thing=two\" for --device"), "{ran:?}");
    std::fs::write(format!("{directory}/broken.json"), r#"{"cdiVersion":"1.0.0","kind":7}"#).unwrap();
    let ran = run("example.com/thing=two");
    assert!(ran.err.contains("broken.json: kind: invalid type: integer `7`"), "{ran:?}");
    coracle.assert_nothing_left();
}
