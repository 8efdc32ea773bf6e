//! `root`, and what is said of the machine to the container: names, annotations, version.

use std::process::Command;

use serde_json::json;

use crate::bundle::{Bundle, State};

#[test]
fn path_is_relative_to_the_bundle_or_absolute() {
    let mut bundle = bundle!();
    std::fs::write(bundle.rootfs().join("mark"), "here").unwrap();
    assert_eq!(bundle.inside("cat /mark"), "here");
    let absolute = bundle.rootfs();
    bundle.set("/root/path", absolute.to_str().unwrap());
    assert_eq!(bundle.inside("cat /mark"), "here");
    std::fs::rename(bundle.rootfs(), bundle.directory().join("other")).unwrap();
    bundle.set("/root/path", "other");
    assert_eq!(bundle.inside("cat /mark"), "here");
    bundle.set("/root/path", "./other/../other");
    assert_eq!(bundle.inside("cat /mark"), "here");
}

/// A descriptor that the caller has open names a directory as well as a path does, and is not the container's.
#[test]
fn path_may_be_a_descriptor_of_the_caller() {
    let mut bundle = bundle!();
    if crate::under_test::runc().is_some() {
        skip!("runc joins the path before it is opened");
    }
    let with_seven = |bundle: &Bundle, directory: &str, args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| bundle.fill(arg)).collect();
        let inner = bundle.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "exec 7<\"$0\"; exec \"$@\"", directory])
            .arg(inner.get_program())
            .args(inner.get_args());
        bundle.finish(command)
    };
    let directory = bundle.path("elsewhere");
    std::fs::rename(bundle.rootfs(), &directory).unwrap();
    std::fs::write(format!("{directory}/mark"), "here").unwrap();
    let run = ["run", "--bundle", "{bundle}", "{id}"];
    for path in ["/proc/self/fd/7", "/dev/fd/7"] {
        bundle.set("/root/path", path);
        bundle.script("cat /mark; ls /proc/self/fd | grep -c 7");
        bundle.write_config();
        let ran = with_seven(&bundle, &directory, &run);
        assert_eq!(ran.out, "here0\n", "{ran:?}");
    }
    let ran = with_seven(&bundle, &directory, &["create", "--bundle", "{bundle}", "{id}"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // Nobody has the descriptor open now.
    assert_eq!(bundle.state()["rootfs"], directory);
    bundle.start();
    bundle.wait_for("stopped");
    bundle.ok(&["delete", "{id}"]);
    let refused = |bundle: &Bundle, directory: &str, words: &str| {
        let error = with_seven(bundle, directory, &run).errors().pop().unwrap_or_default();
        assert!(error.contains("root.path") && error.contains(words), "{error}");
        bundle.assert_nothing_left();
    };
    refused(&bundle, "/etc/passwd", "the root file system must be a directory");
    bundle.set("/root/path", "/proc/self/fd/8").write_config();
    refused(&bundle, &directory, "\"/proc/self/fd/8\": the caller has not passed on such a descriptor");
    // One of the runtime's own.
    bundle.set("/root/path", "/dev/fd/3").write_config();
    refused(&bundle, &directory, "\"/dev/fd/3\": the caller has not passed on such a descriptor");
    let gone = bundle.path("gone");
    std::fs::create_dir(&gone).unwrap();
    bundle.set("/root/path", "/dev/fd/7").write_config();
    let script = "exec 7<\"$0\"; rmdir \"$0\"; exec \"$@\"";
    let inner = bundle.command(&["run", "--bundle", bundle.directory().to_str().unwrap(), &bundle.id]);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, &gone]).arg(inner.get_program()).args(inner.get_args());
    let error = bundle.finish(command).errors().pop().unwrap_or_default();
    assert!(error.contains("has no path here: it was removed"), "{error}");
}

/// Nothing of the machine's tree is seen, by any way up.
#[test]
fn the_root_is_all_there_is() {
    let mut bundle = bundle!();
    let out = bundle.inside("ls -a /..; ls /proc/1/root; grep -c . /proc/self/mountinfo");
    assert!(!out.contains("home") && !out.contains("work"), "{out}");
    let mounts: u32 = out.lines().last().unwrap().parse().unwrap();
    assert!(mounts <= 4, "{out}");
}

#[test]
fn readonly_keeps_writes_out() {
    let mut bundle = bundle!();
    bundle.set("/root/readonly", true);
    let out = bundle.inside("touch /x 2>&1; touch /etc/x 2>&1; grep ' / / \\| /.* / ' /proc/self/mountinfo");
    assert_eq!(out.matches("Read-only file system").count(), 2, "{out}");
    bundle.set("/root/readonly", false);
    bundle.inside("touch /x");
    assert!(bundle.rootfs().join("x").exists());
}

#[test]
fn hostname_is_set_in_the_namespace() {
    let mut bundle = bundle!();
    let own = crate::bundle::run_ok("hostname", &[]);
    bundle.set("/hostname", "some-name");
    assert_eq!(bundle.inside("hostname; cat /proc/sys/kernel/hostname"), "some-name\nsome-name\n");
    assert_eq!(crate::bundle::run_ok("hostname", &[]), own);
    bundle.remove("/hostname");
    assert_eq!(bundle.inside("hostname"), own);
}

#[test]
fn domainname_is_set_in_the_namespace() {
    let mut bundle = bundle!("domainname");
    bundle.set("/domainname", "some.domain");
    assert_eq!(bundle.inside("cat /proc/sys/kernel/domainname"), "some.domain\n");
}

#[test]
fn annotations_are_in_the_state() {
    let mut bundle = bundle!();
    bundle.set("/annotations", json!({"org.example.a": "1", "b": ""}));
    bundle.bring(State::Created);
    assert_eq!(bundle.state()["annotations"], json!({"org.example.a": "1", "b": ""}));
}

/// Any version of the first major number, as the specification has it; the state says the runtime's.
#[test]
fn oci_version_of_a_minor_kind_is_accepted() {
    let mut bundle = bundle!();
    for version in ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.1", "1.3.0"] {
        bundle.set("/ociVersion", version);
        bundle.inside("true");
    }
    bundle.bring(State::Created);
    assert!(bundle.state()["ociVersion"].as_str().unwrap().starts_with("1."));
}
