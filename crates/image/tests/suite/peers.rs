//! The same archives given to umoci and podman: what they make of them is what we make of them.

use std::path::{Path, PathBuf};

use crate::forge::{Layer, Tar};
use crate::layers::{Merged, load};
use crate::scratch::{Scratch, describe, is_root, run, try_run};

/// Layers with every kind of change, all parents given, as image builders write them.
fn layers() -> Vec<Layer> {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let long = format!("etc/{}", "long-name/".repeat(20).trim_end_matches('/'));
    let mut base = Tar::new()
        .dir_with("./", 0o755, (0, 0))
        .dir("etc/")
        .file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
        .file("etc/shadow", b"secret")
        .dir("usr/")
        .dir("usr/bin/")
        .raw(b"usr/bin/tool", b'0', 0o4755, (0, 5), 1_234_567_890, b"", (0, 0), 5, b"tool\n")
        // A link's own attributes repeat the file's; where they do not, podman and umoci differ from each other.
        .raw(b"usr/bin/tool2", b'1', 0o4755, (0, 5), 1_234_567_890, b"usr/bin/tool", (0, 0), 0, b"")
        .dir("usr/lib/")
        .file("usr/lib/a.so", &[7; 70_000])
        .symlink("lib", "usr/lib")
        .dir("dev/")
        .device("dev/null", b'3', (1, 3))
        .device("dev/sda", b'4', (8, 0))
        .device("dev/pipe", b'6', (0, 0))
        .dir_with("tmp/", 0o1777, (0, 0))
        .dir("var/")
        .dir_with("var/opaque/", 0o700, (33, 33))
        .file("var/opaque/old", b"old")
        .dir("var/gone/")
        .file("var/gone/file", b"x")
        .dir("var/becomes-file/")
        .file("var/becomes-file/x", b"x")
        .file("var/becomes-dir", b"x")
        .symlink("var/becomes-target", "nowhere")
        .pax(&[("uid", b"3000000"), ("gid", b"70000"), ("mtime", b"1700000000.5")])
        .file("etc/ids", b"ids")
        .pax(&[("SCHILY.xattr.security.capability", capability)])
        .file("usr/bin/ping", b"ping")
        .pax(&[("SCHILY.xattr.user.note", b"hello")])
        .file("etc/noted", b"");
    let mut parent = String::from("etc");
    for _ in 0..20 {
        parent.push_str("/long-name");
        base = base.pax(&[("path", format!("{parent}/").as_bytes())]).dir("d/");
    }
    base = base.pax(&[("path", format!("{long}/file").as_bytes())]).file("f", b"deep");
    let second = Tar::new()
        .dir("etc/")
        .file("etc/.wh.shadow", b"")
        .file("etc/passwd", b"changed")
        .dir("var/")
        .dir_with("var/opaque/", 0o711, (33, 34))
        .file("var/opaque/.wh..wh..opq", b"")
        .file("var/opaque/new", b"new")
        .file("var/.wh.gone", b"")
        .file("var/.wh.becomes-file", b"")
        .file("var/becomes-file", b"now a file");
    let third = Tar::new()
        .dir("var/")
        .file("var/.wh.becomes-dir", b"")
        .dir("var/becomes-dir/")
        .file("var/becomes-dir/inside", b"1")
        .file("var/becomes-target", b"no link any more")
        .dir("var/gone/")
        .file("var/gone/back", b"again");
    [base, second, third].into_iter().map(|tar| Layer::gzip(&tar.end())).collect()
}

/// Whether a peer is installed and can be used.
fn has(program: &str) -> bool {
    let found = is_root() && std::process::Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: needs root and {program}");
    }
    found
}

fn without_root(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|line| !line.starts_with(' ')).collect()
}

fn assert_same(ours: &Path, theirs: &Path, ignore: impl Fn(&str) -> String) {
    let lines = |path: &Path| -> Vec<String> {
        without_root(describe(path)).iter().map(|line| ignore(line)).collect()
    };
    let (ours, theirs) = (lines(ours), lines(theirs));
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).cloned().collect()
    };
    assert_eq!(only(&ours, &theirs), only(&theirs, &ours));
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.len() > 20);
}

/// Storage of podman's own, unmounted and removed at the end.
struct Podman {
    args: Vec<String>,
    mounted: Vec<String>,
}

impl Podman {
    fn new(scratch: &Scratch, driver: &str) -> Self {
        let path = |name: &str| scratch.join(name).to_str().unwrap().to_owned();
        let args = ["--root", &path("podman"), "--runroot", &path("podman-run"), "--storage-driver", driver];
        Self { args: args.map(str::to_owned).to_vec(), mounted: Vec::new() }
    }

    fn run(&self, args: &[&str]) -> String {
        let all: Vec<&str> = self.args.iter().map(String::as_str).chain(args.iter().copied()).collect();
        run("podman", &all)
    }

    fn mount(&mut self, name: &str) -> PathBuf {
        self.mounted.push(name.to_owned());
        self.run(&["image", "mount", name]).into()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for name in &self.mounted {
            let all: Vec<&str> =
                self.args.iter().map(String::as_str).chain(["image", "umount", "-f", name]).collect();
            try_run("podman", &all);
        }
        // The overlay driver keeps its own directory mounted.
        try_run("umount", &["-l", &format!("{}/overlay", self.args[1])]);
    }
}

#[test]
fn the_merged_root_is_umocis() {
    if !has("umoci") {
        return;
    }
    let scratch = Scratch::new();
    let (_, ours) = load(&scratch, &layers());
    let layout = scratch.join("layout");
    std::fs::create_dir(&layout).unwrap();
    run("tar", &["-C", layout.to_str().unwrap(), "-xf", scratch.join("i.tar").to_str().unwrap()]);
    let bundle = scratch.join("bundle");
    run("umoci", &["unpack", "--image", &format!("{}:test:1", layout.display()), bundle.to_str().unwrap()]);
    let merged = Merged::new(&scratch, &ours);
    assert_same(&merged.path(), &bundle.join("rootfs"), str::to_owned);
}

#[test]
fn the_merged_root_is_podmans() {
    if !has("podman") {
        return;
    }
    for driver in ["overlay", "vfs"] {
        let scratch = Scratch::new();
        let (_, ours) = load(&scratch, &layers());
        let mut podman = Podman::new(&scratch, driver);
        podman.run(&["load", "-q", "-i", scratch.join("i.tar").to_str().unwrap()]);
        let root = podman.mount("test:1");
        let merged = Merged::new(&scratch, &ours);
        assert_same(&merged.path(), &root, str::to_owned);
    }
}

#[test]
fn archives_of_podman_and_skopeo_are_the_same_image() {
    if !has("podman") || !has("skopeo") {
        return;
    }
    let scratch = Scratch::new();
    let (store, ours) = load(&scratch, &layers());
    let podman = Podman::new(&scratch, "vfs");
    podman.run(&["load", "-q", "-i", scratch.join("i.tar").to_str().unwrap()]);
    let id = podman.run(&["image", "inspect", "--format", "{{.Id}}", "test:1"]);
    assert_eq!(id, ours.id.hex());
    let path = |name: &str| scratch.join(name).to_str().unwrap().to_owned();
    for format in ["docker-archive", "oci-archive"] {
        podman.run(&["save", "-q", "--format", format, "-o", &path(format), "test:1"]);
    }
    let from = format!("oci-archive:{}", path("i.tar"));
    run("skopeo", &["copy", "-q", &from, &format!("docker-archive:{}:test:1", path("skopeo-docker"))]);
    run("skopeo", &["copy", "-q", &from, &format!("oci:{}:test:1", path("skopeo-oci"))]);
    run("gzip", &["-k", &path("docker-archive")]);
    for source in [
        format!("docker-archive:{}", path("docker-archive")),
        format!("docker-archive:{}", path("docker-archive.gz")),
        format!("oci-archive:{}", path("oci-archive")),
        format!("docker-archive:{}", path("skopeo-docker")),
        format!("docker-archive:{}:test:1", path("skopeo-docker")),
        format!("oci:{}:test:1", path("skopeo-oci")),
        path("docker-archive"),
        path("oci-archive"),
        path("skopeo-oci"),
    ] {
        let other = Scratch::new();
        let loaded = other.load(&source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let image = other.store().resolve(&loaded[0].id.hex(), None).unwrap();
        assert_eq!(image.config, ours.config, "{source}");
        assert_eq!(other.store().verify(None).unwrap(), []);
        // Writers of docker archives rewrite the configuration; the layers stay what they are.
        let keys = |image: &image::Image| -> Vec<_> {
            image.layers.iter().map(|path| path.parent().unwrap().file_name().unwrap().to_owned()).collect()
        };
        assert_eq!(keys(&image), keys(&ours), "{source}");
    }
    // Our own store is a layout that others read.
    let out = format!("docker-archive:{}:again:1", path("from-store"));
    let name = store.images().unwrap()[0].digest;
    run(
        "skopeo",
        &["copy", "-q", &format!("oci:{}:docker.io/library/test:1", store.layout().display()), &out],
    );
    assert!(store.layout().join("blobs/sha256").join(name.hex()).exists());
}

#[test]
fn an_old_docker_archive_with_links_between_layers() {
    let scratch = Scratch::new();
    let tar = Tar::new().file("a", b"x").end();
    let layer = Layer::plain(tar.clone());
    let layers = [layer.clone(), layer];
    let config = crate::forge::config(&layers, "amd64");
    let manifest =
        br#"[{"Config":"c.json","RepoTags":["old:1","old:2"],"Layers":["one/layer.tar","two/layer.tar"]}]"#;
    let archive = Tar::new()
        .dir("one/")
        .file("one/layer.tar", &tar)
        .dir("two/")
        .symlink("two/layer.tar", "../one/layer.tar")
        .file("c.json", &config)
        .file("manifest.json", manifest)
        .end();
    let file = scratch.write("old.tar", &archive);
    let loaded = scratch.load(file.to_str().unwrap()).unwrap();
    assert_eq!(loaded[0].id, image::Digest::of(&config));
    assert_eq!(loaded[0].names.len(), 2);
    assert_eq!(scratch.store().verify(None).unwrap(), []);
}
