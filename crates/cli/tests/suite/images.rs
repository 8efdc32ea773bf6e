//! The verbs of images: load, pull, import, images, inspect, tag, rmi.

use std::io::Write as _;
use std::process::Stdio;

use crate::coracle::{Coracle, Ran, fixture};

#[track_caller]
pub fn refused(coracle: &Coracle, args: &[&str], words: &str) {
    let ran = coracle.run(args);
    assert_eq!(ran.code, 1, "{args:?}: {ran:?}");
    assert!(ran.err.contains(words), "{args:?}: {}", ran.err);
    assert_eq!(ran.err.lines().count(), 3, "what failed, because of what, what to do: {}", ran.err);
    assert_eq!(ran.out, "", "standard output is for data");
}

#[test]
fn an_image_comes_gets_names_and_goes() {
    let coracle = Coracle::new();
    let file = fixture("busybox.docker.tar").display().to_string();
    let loaded = coracle.ok(&["load", "-i", &file]);
    let name = loaded.trim().strip_prefix("Loaded image: ").unwrap_or_else(|| panic!("{loaded}"));
    let id = coracle.ok(&["images", "-q", "--no-trunc"]);
    assert_eq!(coracle.ok(&["inspect", "-f", "{{.Id}}", name]), id);
    assert_eq!(coracle.ok(&["images", "-q"]).trim(), &id["sha256:".len()..][..12]);
    assert_eq!(coracle.ok(&["tag", name, "my/copy:2"]), "");
    let list = coracle.ok(&["images"]);
    assert!(list.starts_with("REPOSITORY "), "{list}");
    assert!(list.lines().any(|line| line.starts_with("my/copy ") && line.contains(" 2 ")), "{list}");
    assert_eq!(coracle.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}", "my/copy"]), "my/copy:2\n");
    assert_eq!(coracle.ok(&["images", "-q"]).lines().count(), 1, "one image, two names");
    refused(&coracle, &["rmi", id.trim()], "several names");
    assert_eq!(coracle.ok(&["rmi", name]), format!("Untagged: {name}\n"));
    assert_eq!(coracle.ok(&["rmi", "my/copy:2"]), format!("Untagged: my/copy:2\nDeleted: {id}"));
    assert_eq!(coracle.ok(&["images", "-q"]), "");
    let left: Vec<_> = std::fs::read_dir(coracle.root().join("image/layers")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn lists_are_the_same_without_the_index() {
    let coracle = Coracle::with_busybox();
    coracle.ok(&["tag", "busybox", "other:1"]);
    coracle.ok(&["run", "--name", "ended", "busybox", "true"]);
    let lists = || [coracle.ok(&["images", "--digests", "--no-trunc"]), coracle.ok(&["ps", "-aq"])];
    let before = lists();
    assert_eq!(before[0].lines().count(), 3);
    for file in ["listing.json", "listing.old"] {
        let _ = std::fs::remove_file(coracle.root().join("image").join(file));
    }
    assert_eq!(lists(), before);
}

#[test]
fn an_image_in_use_stays() {
    let coracle = Coracle::with_busybox();
    coracle.ok(&["run", "--name", "user", "busybox", "true"]);
    refused(&coracle, &["rmi", "busybox"], "used by a container");
    let state = coracle.ok(&["inspect", "-f", "{{.Name}} {{.State.Status}} {{.State.ExitCode}}", "user"]);
    assert_eq!(state, "/user exited 0\n");
    coracle.ok(&["rm", "user"]);
    coracle.ok(&["rmi", "busybox"]);
}

#[test]
fn standard_input_is_an_archive_too() {
    let coracle = Coracle::new();
    let load = |args: &[&str]| -> Ran {
        let file = std::fs::File::open(fixture("busybox.docker.tar")).unwrap();
        coracle.command(args).stdin(Stdio::from(file)).output().unwrap().into()
    };
    let first = load(&["load"]);
    assert!(first.out.starts_with("Loaded image: "), "{first:?}");
    assert_eq!(load(&["load", "--quiet", "-"]).out, first.out);
    assert_eq!(load(&["pull", "docker-archive:-"]).code, 0);
}

#[test]
fn a_root_file_system_becomes_an_image() {
    let coracle = Coracle::new();
    let tree = coracle.directory().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("here"), "").unwrap();
    let archive = coracle.directory().join("tree.tar").display().to_string();
    let tar = std::process::Command::new("tar").arg("-C").arg(&tree).args(["-cf", &archive, "."]).status();
    assert!(tar.unwrap().success());
    let id = coracle.ok(&[
        "import",
        "-c",
        "CMD [\"/a\", \"b\"]",
        "-c",
        "ENV A=1",
        "-m",
        "by hand",
        &archive,
        "made:1",
    ]);
    assert_eq!(
        coracle.ok(&["inspect", "-f", "{{.Id}} {{json .Config.Cmd}} {{json .RepoTags}}", "made:1"]),
        format!("{} [\"/a\",\"b\"] [\"made:1\"]\n", id.trim())
    );
    refused(&coracle, &["import", "-c", "RUN x", &archive], "RUN x");
    refused(&coracle, &["import", "--max-entries", "1", &archive], "limit of 1");
    refused(&coracle, &["load", "-i", &archive], "neither index.json nor manifest.json");
}

/// Whether files of images can have other owners than who runs the tests: root, or a user with subordinate ids.
fn has_ids() -> bool {
    let user = rustix::process::geteuid().as_raw();
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let passwd = text("/etc/passwd");
    let is_user = |line: &&str| line.split(':').nth(2) == Some(&user.to_string());
    let name = passwd.lines().find(is_user).and_then(|line| line.split(':').next());
    let is_owner = |line: &str| line.split(':').next().is_some_and(|owner| Some(owner) == name);
    user == 0
        || std::path::Path::new("/usr/bin/newuidmap").exists()
            && ["/etc/subuid", "/etc/subgid"].iter().all(|file| text(file).lines().any(is_owner))
}

/// An archive of busybox whose files have owners, without its `/root`, which only root can read.
fn owned_archive(coracle: &Coracle) -> std::path::PathBuf {
    let archive = coracle.directory().join("owned.tar");
    let mut tar = std::process::Command::new("tar");
    tar.args(["--owner=33", "--group=34", "--exclude=./root", "-C"]).arg(fixture("busybox"));
    assert!(tar.arg("-cf").arg(&archive).arg(".").status().unwrap().success());
    archive
}

#[test]
fn files_have_their_owners_where_that_can_be() {
    let coracle = Coracle::new();
    coracle.ok(&["import", &owned_archive(&coracle).display().to_string(), "owned"]);
    let owner = coracle.ok(&["run", "--rm", "owned", "stat", "-c", "%u:%g", "/bin/busybox"]);
    // With one id there is only one owner.
    assert_eq!(owner, if has_ids() { "33:34\n" } else { "0:0\n" });
    coracle.ok(&["rmi", "owned"]);
}

#[test]
fn what_a_killed_import_left_goes_with_the_next_command() {
    let coracle = Coracle::new();
    let bytes = std::fs::read(owned_archive(&coracle)).unwrap();
    let import = coracle.command(&["import", "-", "half"]);
    // As under nohup(1): what ends with the command must not depend on a signal that is ignored.
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "trap '' TERM HUP; exec \"$@\"", "sh"]).arg(import.get_program());
    let mut import = shell.args(import.get_args()).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = import.stdin.take().unwrap();
    // It has begun when it takes more than a pipe holds.
    input.write_all(&bytes[..bytes.len() / 2]).unwrap();
    let staging = coracle.root().join("image/staging");
    let left = || std::fs::read_dir(&staging).unwrap().count();
    assert_eq!(left(), 1);
    import.kill().unwrap();
    import.wait().unwrap();
    // In a user namespace a second process does the work, which ends when it learns that the first is gone.
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while left() > 0 && std::time::Instant::now() < patience {
        assert_eq!(coracle.ok(&["images", "-q"]), "");
    }
    assert_eq!(left(), 0);
    drop(input);
    assert_eq!(std::fs::read_dir(coracle.root().join("image/layers")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_done_is_said() {
    let coracle = Coracle::with_busybox();
    refused(&coracle, &["rmi", "busybxo"], "busybox");
    refused(&coracle, &["inspect", "nothing-like-it"], "nothing-like-it");
    refused(&coracle, &["inspect", "--type", "container", "busybox"], "no container");
    refused(&coracle, &["tag", "busybox", "Not A Name"], "not a name");
    refused(&coracle, &["pull", "debian"], "docker.io cannot be reached");
    refused(&coracle, &["pull", "oci:/nowhere"], "/nowhere");
    refused(&coracle, &["load", "-i", "/nowhere"], "/nowhere");
    refused(
        &coracle,
        &[
            "load",
            "--platform",
            "linux/arm64",
            &format!("docker-archive:{}", fixture("busybox.docker.tar").display()),
        ],
        "arm64",
    );
    refused(&coracle, &["images", "--format", "{{range .}}"], "range .");
    refused(&coracle, &["images", "--format", "{{.Colour}}"], "Colour");
    let wrong = coracle.run(&["load", "--max-size", "much"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("50m"), "{}", wrong.err);
}

#[test]
fn the_help_is_as_kept() {
    let coracle = Coracle::new();
    let mut help = String::new();
    let verbs = [
        "copy",
        "history",
        "image",
        "image diff",
        "image explain",
        "image mount",
        "image prune",
        "image tree",
        "image unmount",
        "image verify",
        "images",
        "import",
        "inspect",
        "load",
        "pull",
        "push",
        "rmi",
        "save",
        "system",
        "system check",
        "system df",
        "system prune",
        "tag",
    ];
    for verb in verbs {
        let words: Vec<&str> = verb.split(' ').chain(["--help"]).collect();
        let mut command = coracle.command(&words);
        command.env_remove("COLUMNS");
        help.push_str(&format!("$ coracle {verb} --help\n"));
        help.push_str(&String::from_utf8(command.output().unwrap().stdout).unwrap());
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images-help.txt");
    if std::env::var_os("CORACLE_UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &help).unwrap();
    }
    assert_eq!(help, include_str!("../golden/images-help.txt"), "CORACLE_UPDATE_GOLDEN=1 keeps the new one");
}

#[test]
fn an_image_without_a_name_is_said_to_have_none() {
    let coracle = Coracle::with_busybox();
    // The store is an OCI layout whose index calls nothing by a name when the image has none.
    let layout = coracle.root().join("image");
    let index = layout.join("index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let mut index_json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entry = &mut index_json["manifests"][0];
    let archive = coracle.directory().join("archive.tar");
    let pack = || {
        let mut tar = std::process::Command::new("tar");
        tar.arg("-C").arg(&layout).arg("-cf").arg(&archive).args(["oci-layout", "index.json", "blobs"]);
        assert!(tar.status().unwrap().success());
    };
    let read = |args: &[&str]| -> Ran {
        let other = Coracle::new();
        let file = std::fs::File::open(&archive).unwrap();
        other.command(args).stdin(Stdio::from(file)).output().unwrap().into()
    };
    entry["annotations"] = serde_json::json!({});
    std::fs::write(&index, index_json.to_string()).unwrap();
    pack();
    let file = archive.display().to_string();
    for args in [&["load"][..], &["load", &file], &["pull", &format!("oci-archive:{file}")]] {
        let ran = read(args);
        let id = ran.out.trim().rsplit("sha256:").next().unwrap()[..12].to_owned();
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.err.contains(&format!("coracle tag {id} NAME")), "{args:?}: {ran:?}");
        assert_eq!(ran.out.lines().count(), 1, "{ran:?}");
    }
    // A tag alone takes the file's name, but a stream has none.
    index_json["manifests"][0]["annotations"] =
        serde_json::json!({ "org.opencontainers.image.ref.name": "1" });
    std::fs::write(&index, index_json.to_string()).unwrap();
    pack();
    assert_eq!(read(&["load", &file]).out, "Loaded image: archive:1\n");
    for args in [&["pull", "oci-archive:/dev/stdin"], &["pull", "oci-archive:/proc/self/fd/0"]] {
        let ran = read(args);
        assert!(ran.out.starts_with("sha256:") && ran.err.contains("NAME"), "{args:?}: {ran:?}");
    }
}
