//! `save`, and `load` of what was saved: by coracle, docker, podman and skopeo.

use std::process::{Command, Stdio};

use crate::coracle::{Coracle, is_root};
use crate::dockerd::Dockerd;
use crate::push::{has, peer, refused, with_compressed};

fn id(coracle: &Coracle, name: &str) -> String {
    coracle.ok(&["inspect", "-f", "{{.Id}}", name]).trim().to_owned()
}

/// coracle with the compressed busybox image as `busybox` and `other:2`, and another one as `made:1`.
fn with_two() -> Coracle {
    let coracle = with_compressed();
    coracle.ok(&["tag", "busybox", "other:2"]);
    let tree = coracle.directory().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("here"), "here").unwrap();
    let archive = coracle.directory().join("tree.tar").display().to_string();
    peer(Command::new("tar").arg("-C").arg(&tree).args(["-cf", &archive, "."]));
    coracle.ok(&["import", &archive, "made:1"]);
    coracle
}

/// podman with roots below a directory.
fn podman(directory: &std::path::Path, args: &[&str]) -> String {
    let mut podman = Command::new("podman");
    podman.arg("--root").arg(directory.join("podman")).arg("--runroot").arg(directory.join("podman-run"));
    peer(podman.args(["--storage-driver", "vfs"]).args(args))
}

#[test]
fn one_archive_is_read_by_all_with_equal_ids() {
    let coracle = with_two();
    let file = coracle.directory().join("saved.tar").display().to_string();
    assert_eq!(coracle.ok(&["save", "-o", &file, "busybox", "other:2", "made:1"]), "");
    let (busybox, made) = (id(&coracle, "busybox"), id(&coracle, "made:1"));
    let back = Coracle::new();
    let mut loaded: Vec<String> =
        back.ok(&["load", "-i", &file]).lines().map(|line| line.replace("Loaded image: ", "")).collect();
    loaded.sort();
    assert_eq!(loaded, ["busybox:latest", "made:1", "other:2"]);
    assert_eq!(
        [id(&back, "busybox"), id(&back, "other:2"), id(&back, "made:1")],
        [&busybox, &busybox, &made].map(Clone::clone)
    );
    // The manifests, too, not only what they describe.
    let digests = ["images", "--digests", "--format", "{{.Digest}}"];
    assert_eq!(back.ok(&digests), coracle.ok(&digests));
    // As docker's form alone, and one of them.
    let old = Coracle::new();
    old.ok(&["load", &format!("docker-archive:{file}:other:2")]);
    assert_eq!(id(&old, "other:2"), busybox);

    let test = "one_archive_is_read_by_all_with_equal_ids";
    if has("skopeo", test) {
        for name in ["busybox:latest", "other:2", "made:1"] {
            let config = peer(Command::new("skopeo").args([
                "inspect",
                "--config",
                "--raw",
                &format!("docker-archive:{file}:{name}"),
            ]));
            let expected = if name == "made:1" { &made } else { &busybox };
            assert_eq!(&image::Digest::of(config.as_bytes()).to_string(), expected, "{name}");
        }
    }
    if is_root() && has("podman", test) {
        podman(coracle.directory(), &["load", "-q", "-i", &file]);
        let listed = podman(
            coracle.directory(),
            &["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"],
        );
        for (name, id) in [("busybox:latest", &busybox), ("other:2", &busybox), ("made:1", &made)] {
            assert!(listed.lines().any(|line| line == format!("docker.io/library/{name} {id}")), "{listed}");
        }
        podman(coracle.directory(), &["rmi", "-a", "-f"]);
    }
    let Some(docker) = Dockerd::start(test, coracle.directory()) else { return };
    docker.ok(&["load", "-i", &file]);
    for (name, id) in [("busybox", &busybox), ("other:2", &busybox), ("made:1", &made)] {
        assert_eq!(docker.ok(&["inspect", "-f", "{{.Id}}", name]).trim(), id);
    }
    // And what docker saves.
    let dockers = coracle.directory().join("dockers.tar").display().to_string();
    docker.ok(&["save", "-o", &dockers, "busybox", "made:1"]);
    let from_docker = Coracle::new();
    from_docker.ok(&["load", "-i", &dockers]);
    assert_eq!([id(&from_docker, "busybox"), id(&from_docker, "made:1")], [busybox, made]);
}

#[test]
fn each_format_is_read_by_others_and_loaded_again() {
    let coracle = with_two();
    let place = |name: &str| coracle.directory().join(name).display().to_string();
    let busybox = id(&coracle, "busybox");
    let has_skopeo = has("skopeo", "each_format_is_read_by_others_and_loaded_again");
    for (format, names, skopeos) in [
        ("oci-archive", &["busybox", "made:1"][..], "oci-archive:FILE:docker.io/library/busybox:latest"),
        ("oci-dir", &["busybox", "made:1"], "oci:FILE:docker.io/library/busybox:latest"),
        ("docker-dir", &["busybox"], "dir:FILE"),
    ] {
        let file = place(format);
        let args = [&["save", "--format", format, "-q", "-o", &file], names].concat();
        assert_eq!(coracle.run(&args).err, "");
        if has_skopeo {
            let config = peer(Command::new("skopeo").args([
                "inspect",
                "--config",
                "--raw",
                &skopeos.replace("FILE", &file),
            ]));
            assert_eq!(image::Digest::of(config.as_bytes()).to_string(), busybox, "{format}");
        }
        let back = Coracle::new();
        let source = if format == "docker-dir" { format!("dir:{file}") } else { file };
        let said = back.ok(&["load", &source]);
        assert_eq!(said.lines().count(), names.len(), "{format}: {said}");
        assert!(back.ok(&["images", "-q", "--no-trunc"]).contains(&busybox), "{format}");
    }
    let manifest = std::fs::read_to_string(coracle.directory().join("docker-dir/manifest.json")).unwrap();
    assert!(
        manifest.contains("vnd.docker.distribution.manifest.v2+json") && !manifest.contains("oci"),
        "{manifest}"
    );
}

#[test]
fn what_is_saved_goes_where_standard_output_leads() {
    let coracle = with_two();
    let back = Coracle::new();
    let mut save = coracle.command(&["save", "busybox"]).stdout(Stdio::piped()).spawn().unwrap();
    let load = back.command(&["load"]).stdin(save.stdout.take().unwrap()).status().unwrap();
    assert!(load.success() && save.wait().unwrap().success());
    assert_eq!(id(&back, "busybox"), id(&coracle, "busybox"));
    let device = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    assert!(coracle.command(&["save", "-q", "busybox"]).stdout(device).status().unwrap().success());
    coracle.ok(&["save", "-q", "-o", "/dev/null", "busybox"]);
    assert!(std::fs::metadata("/dev/null").is_ok_and(|null| !null.is_file()));
    // By script(1) it is a terminal.
    let command = coracle.command(&["save", "busybox"]);
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let line: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
    let said =
        Command::new("script").args(["-qec", &line.join(" "), "/dev/null"]).stdin(Stdio::null()).output();
    let said = String::from_utf8(said.unwrap().stdout).unwrap();
    assert!(said.contains("it is a terminal") && said.lines().count() == 3, "{said}");
    refused(
        &coracle,
        &["save", "--format", "oci-dir", "busybox"],
        &["a directory cannot be written there", "-o FILE"],
    );
    refused(&coracle, &["save", "--format", "zip", "busybox"], &["zip", "docker-archive, oci-archive"]);
    refused(&coracle, &["save", "-o", "/nowhere/x.tar", "busybox"], &["cannot save \"busybox\"", "/nowhere"]);
    refused(&coracle, &["save", "-o", "/var/tmp", "busybox"], &["it is a directory"]);
    refused(&coracle, &["save", "-o", "x.tar", "nosuch"], &["no image named"]);
}

#[test]
fn a_save_that_fails_leaves_what_was_there() {
    let coracle = with_compressed();
    let (digest, _) = crate::registry::layer();
    let blob = coracle.root().join("image/blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let place = coracle.directory().join("place");
    std::fs::create_dir(&place).unwrap();
    let file = place.join("saved.tar");
    std::fs::write(&file, "old").unwrap();
    refused(&coracle, &["save", "-o", &file.display().to_string(), "busybox"], &["has digest", &digest]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
    for format in ["oci-dir", "docker-dir"] {
        let new = place.join("a/b").display().to_string();
        refused(&coracle, &["save", "--format", format, "-o", &new, "busybox"], &["has digest"]);
        // A directory with other things is not ours to fill.
        let other = place.display().to_string();
        refused(&coracle, &["save", "--format", format, "-o", &other, "busybox"], &["but has other files"]);
    }
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(coracle.root().join("image/staging")).unwrap().count(), 0);
}
