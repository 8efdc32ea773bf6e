//! `diff`, `export` and `commit`.

use std::path::Path;
use std::process::Command;

use crate::coracle::{Coracle, is_root};
use crate::images::refused;
use crate::push::has;
use crate::running::Running;

/// Changes of every kind.
const SCRIPT: &str = "echo new > /etc/new; ln /etc/new /etc/same; ln -s new /etc/link; rm /etc/passwd; rm -r /home; \
                      mkdir /home; echo x > /home/x; chmod 700 /tmp; echo more >> /etc/group; mkfifo /pipe; \
                      chown 33:34 /etc/new; touch -d @86400 /home/x; mkdir /empty; echo gone > /gone; rm /gone";

fn changed(coracle: &Coracle, options: &[&str]) {
    let words = [&["run", "--name", "changed"], options, &["busybox", "sh", "-c", SCRIPT]].concat();
    coracle.ok(&words);
}

fn tar(archive: &Path, args: &[&str]) -> String {
    let out = Command::new("tar").arg("--numeric-owner").args(args).arg("-f").arg(archive).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn what_a_container_changed_is_listed() {
    let coracle = Coracle::with_busybox();
    changed(&coracle, &[]);
    let expected = "C /etc\nC /etc/group\nA /etc/link\nA /etc/new\nD /etc/passwd\nA /etc/same\nA /empty\nC /home\nD /home/alice\nA /home/x\nA /pipe\nC /tmp\n";
    let mut expected: Vec<&str> = expected.lines().collect();
    expected.sort_unstable_by_key(|line| &line[2..]);
    let listed = coracle.ok(&["diff", "changed"]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    let json: serde_json::Value =
        serde_json::from_str(&coracle.ok(&["diff", "--format", "json", "changed"])).unwrap();
    assert_eq!(json["deleted"], serde_json::json!(["/etc/passwd", "/home/alice"]));
    assert_eq!(json["changed"].as_array().unwrap().len(), 4);
    // One that changes nothing has only what its mounts need, which does not count.
    coracle.ok(&["run", "--name", "quiet", "busybox", "true"]);
    assert_eq!(coracle.ok(&["diff", "quiet"]), "");
    refused(&coracle, &["diff", "nobody"], "no container \"nobody\"");
}

#[test]
fn all_files_of_a_container_are_exported() {
    let coracle = Coracle::with_busybox();
    changed(&coracle, &[]);
    let archive = coracle.directory().join("flat.tar");
    assert_eq!(coracle.ok(&["export", "-o", archive.to_str().unwrap(), "changed"]), "");
    let list = tar(&archive, &["-t", "-v"]);
    let of = |path: &str| list.lines().find(|line| line.contains(&format!(" {path}"))).unwrap_or_default();
    assert!(list.contains(" bin/busybox\n") && list.contains(" etc/group\n"), "{list}");
    assert!(!list.contains("etc/passwd") && !list.contains(".wh.") && !list.contains(" gone"), "{list}");
    assert!(list.contains("etc/same link to etc/new") && list.contains("etc/link -> new"), "{list}");
    if is_root() {
        assert!(of("etc/new").contains("33/34"), "{list}");
    }
    assert!(of("tmp/").starts_with("drwx------") && of("pipe").starts_with('p'), "{list}");
    assert_eq!(tar(&archive, &["-x", "-O", "etc/new"]), "new\n");
    // A symbolic link stays one, and what is no file is not replaced.
    let (link, device) = (coracle.directory().join("link"), coracle.directory().join("device"));
    let other = coracle.directory().join("other.tar");
    std::fs::write(&other, "").unwrap();
    for (place, target) in [(&link, other.as_path()), (&device, Path::new("/dev/null"))] {
        std::os::unix::fs::symlink(target, place).unwrap();
        for command in ["export", "save"] {
            let what = if command == "save" { "busybox" } else { "changed" };
            coracle.ok(&[command, "-o", place.to_str().unwrap(), what]);
            assert_eq!(std::fs::read_link(place).unwrap(), target, "{command}");
        }
    }
    assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
    assert!(other.metadata().unwrap().len() > 1_000_000);
    // To a pipe it is the same, and of a running container too.
    let piped = coracle.command(&["export", "changed"]).output().unwrap().stdout;
    assert_eq!(piped, std::fs::read(&archive).unwrap());
    let imported = coracle.ok(&["import", archive.to_str().unwrap(), "flat"]);
    assert!(imported.starts_with("sha256:"));
    assert_eq!(coracle.ok(&["run", "--rm", "flat", "/bin/cat", "/etc/same"]), "new\n");
    refused(&coracle, &["export", "-o", "/nowhere/file", "changed"], "/nowhere/file");
    assert!(!coracle.directory().join("flat.tar.part").exists());
}

#[test]
fn a_container_becomes_an_image() {
    let coracle = Coracle::with_busybox();
    changed(&coracle, &["-e", "A=run", "-l", "from=run", "-w", "/home"]);
    let words = [
        "commit",
        "-m",
        "by hand",
        "-a",
        "Anna",
        "-c",
        "ENV B=2",
        "-c",
        "CMD [\"cat\", \"/etc/same\"]",
        "changed",
        "my/image:1",
    ];
    let id = coracle.ok(&words);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(coracle.ok(&["run", "--rm", "my/image:1"]), "new\n");
    let check = "test ! -e /etc/passwd && test \"$(ls /home)\" = x && test -p /pipe && test -d /empty && \
                 echo $A $B; pwd; stat -c '%u:%g %h %a' /etc/new /tmp; stat -c %Y /home/x";
    let owner = if is_root() { "33:34" } else { "" };
    let seen = coracle.ok(&["run", "--rm", "my/image:1", "sh", "-c", check]);
    assert!(
        seen.starts_with("run 2\n/home\n") && seen.contains(owner) && seen.ends_with("86400\n"),
        "{seen}"
    );
    assert!(seen.contains(" 2 644\n") && seen.contains(" 700\n"), "{seen}");
    let history = coracle.ok(&["history", "--format", "{{.Comment}}|{{.CreatedBy}}", "my/image:1"]);
    assert!(history.starts_with("by hand|sh -c echo new"), "{history}");
    let of = |field: &str| coracle.ok(&["inspect", "-f", field, "my/image:1"]);
    assert_eq!(
        (of("{{.Author}}").as_str(), of("{{json .Config.Labels}}").as_str()),
        ("Anna\n", "{\"from\":\"run\"}\n")
    );
    assert_eq!(coracle.ok(&["image", "verify"]), "");
    assert_eq!(coracle.ok(&["system", "check"]), "");
    // Once more with nothing changed in between: the same layer.
    coracle.ok(&["commit", "-q", "changed", "again"]);
    let layers = |name: &str| coracle.ok(&["inspect", "-f", "{{json .RootFS.Layers}}", name]);
    assert_eq!(layers("again"), layers("my/image:1"));
    refused(&coracle, &["commit", "changed", "Not A Name"], "not a name");
    refused(&coracle, &["commit", "-c", "RUN x", "changed"], "RUN x");
    refused(&coracle, &["commit", "nobody"], "nobody");
}

/// An image's manifest and blobs in the form that skopeo calls `dir:`, which takes docker's media types too.
fn as_directory(coracle: &Coracle, name: &str, target: &Path) -> serde_json::Value {
    std::fs::create_dir(target).unwrap();
    let digest = coracle.ok(&["images", "--format", "{{.Digest}}", name]);
    let hex = |digest: &str| digest.trim().trim_start_matches("sha256:").to_owned();
    let blobs = coracle.root().join("image/blobs/sha256");
    let manifest = std::fs::read(blobs.join(hex(&digest))).unwrap();
    std::fs::write(target.join("manifest.json"), &manifest).unwrap();
    std::fs::write(target.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    for part in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
        let hex = hex(part["digest"].as_str().unwrap());
        std::fs::copy(blobs.join(&hex), target.join(&hex)).unwrap();
    }
    manifest
}

#[test]
fn others_read_what_was_committed() {
    if !has("skopeo", "others_read_what_was_committed") {
        return;
    }
    let coracle = Coracle::with_busybox();
    changed(&coracle, &[]);
    for (format, kind) in [
        ("oci", "application/vnd.oci.image.manifest.v1+json"),
        ("docker", "application/vnd.docker.distribution.manifest.v2+json"),
    ] {
        let name = format!("by/{format}:1");
        let id = coracle.ok(&["commit", "--format", format, "changed", &name]);
        let at = |end: &str| coracle.directory().join(format!("{format}{end}")).display().to_string();
        let manifest = as_directory(&coracle, &name, Path::new(&at("")));
        assert_eq!(manifest["mediaType"], kind);
        assert!(manifest["layers"][1]["mediaType"].as_str().unwrap().contains(format), "{manifest}");
        let archive = format!("docker-archive:{}:x/y:1", at(".tar"));
        let copied = Command::new("skopeo")
            .args(["copy", "-q", &format!("dir:{}", at("")), &archive])
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let other = Coracle::new();
        other.ok(&["load", "-i", &at(".tar")]);
        assert_eq!(other.ok(&["run", "--rm", "x/y:1", "cat", "/etc/link"]), "new\n");
        if !is_root() || !Path::new("/usr/bin/podman").exists() {
            println!("SKIP: changes::others_read_what_was_committed: podman loads nothing here");
            continue;
        }
        let podman = |words: &[&str]| {
            let mut podman = Command::new("podman");
            podman.args(["--root", &at("-podman"), "--runroot", &at("-run"), "--storage-driver", "vfs"]);
            let out = podman.args(words).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap().trim().to_owned()
        };
        podman(&["load", "-q", "-i", &at(".tar")]);
        let known = podman(&["image", "inspect", "--format", "{{.Id}}", "x/y:1"]);
        assert_eq!(format!("sha256:{known}"), id.trim());
        let mounted = podman(&["image", "mount", "x/y:1"]);
        assert_eq!(std::fs::read_to_string(format!("{mounted}/etc/same")).unwrap(), "new\n");
        assert!(!Path::new(&mounted).join("etc/passwd").exists());
        podman(&["image", "unmount", "-a"]);
    }
}

#[test]
fn a_running_container_is_paused_for_it() {
    let coracle = Coracle::with_busybox();
    let mut container = Running::start(&coracle, &["--name", "runs", "busybox"]);
    container.ask("echo one > /file; echo done");
    let ran = coracle.run(&["commit", "runs", "first"]);
    if ran.code != 0 {
        assert!(!is_root(), "root's containers can be paused everywhere: {ran:?}");
        assert!(ran.err.contains("no control group") && ran.err.contains("--pause=false"), "{ran:?}");
        coracle.ok(&["commit", "--pause=false", "runs", "first"]);
    }
    coracle.ok(&["commit", "--pause=false", "runs", "second"]);
    for name in ["first", "second"] {
        assert_eq!(coracle.ok(&["run", "--rm", name, "cat", "/file"]), "one\n");
    }
    assert_eq!(container.ask("echo goes on"), "goes on");
    assert_eq!(container.end(), 0);
    refused(&coracle, &["image", "prune", "-f", "--filter", "x"], "NAME=VALUE");
}

#[test]
fn shifted_owners_are_those_inside() {
    if !is_root() {
        println!("SKIP: changes::shifted_owners_are_those_inside: only root shifts ids");
        return;
    }
    let coracle = Coracle::with_busybox();
    coracle.ok(&[
        "run",
        "--userns",
        "private",
        "--name",
        "shifted",
        "busybox",
        "sh",
        "-c",
        "touch /mine; chown 33:34 /mine; rm /etc/group",
    ]);
    assert_eq!(coracle.ok(&["diff", "shifted"]), "C /etc\nD /etc/group\nA /mine\n");
    coracle.ok(&["commit", "shifted", "shifted"]);
    assert_eq!(
        coracle.ok(&["run", "--rm", "shifted", "stat", "-c", "%u:%g", "/mine", "/bin"]),
        "33:34\n0:0\n"
    );
}

#[test]
fn without_an_image_there_is_nothing_to_compare_with() {
    let coracle = Coracle::with_busybox();
    let root = coracle.directory().join("rootfs");
    let archive = coracle.directory().join("flat.tar");
    coracle.ok(&["run", "--name", "first", "busybox", "true"]);
    coracle.ok(&["export", "-o", archive.to_str().unwrap(), "first"]);
    std::fs::create_dir(&root).unwrap();
    assert!(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&root).status().unwrap().success());
    coracle.ok(&["run", "--name", "plain", "--rootfs", root.to_str().unwrap(), "/bin/touch", "/here"]);
    refused(&coracle, &["diff", "plain"], "is the directory");
    refused(&coracle, &["commit", "plain"], "coracle import - NAME");
    let exported = coracle.directory().join("plain.tar");
    coracle.ok(&["export", "-o", exported.to_str().unwrap(), "plain"]);
    assert!(tar(&exported, &["-t"]).contains("\nhere\n"));
}
