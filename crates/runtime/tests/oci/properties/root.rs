//! `root`, and what is said of the machine to the container: names, annotations, version.

use serde_json::json;

use crate::bundle::State;

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
