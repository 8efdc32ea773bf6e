//! `copy` between every two places, indexes and artifacts; with skopeo on the other side, and with what goes wrong on the way.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::coracle::{Coracle, fixture};
use crate::dockerd::Dockerd;
use crate::push::{digest, has, peer, raw, refused, with_compressed};
use crate::registry::{Answer, Door, Fake, Registry, layer, manifest};

fn busybox_digest() -> String {
    digest(&String::from_utf8(manifest()).unwrap())
}

fn id(coracle: &Coracle, name: &str) -> String {
    coracle.ok(&["inspect", "-f", "{{.Id}}", name]).trim().to_owned()
}

/// All files below a directory, with their bytes.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()))
        }
    }
    found.sort();
    found
}

/// An OCI layout that a test fills by hand.
struct Forge(PathBuf);

impl Forge {
    fn new(path: PathBuf) -> Self {
        std::fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        std::fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self(path)
    }

    /// Adds a blob and gives its descriptor.
    fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = image::Digest::of(bytes);
        std::fs::write(self.0.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    }

    fn document(&self, kind: &str, mut value: Value) -> Value {
        value["schemaVersion"] = json!(2);
        value["mediaType"] = json!(kind);
        self.blob(kind, value.to_string().as_bytes())
    }

    /// Writes the index: tags and what they mean.
    fn index(&self, entries: &[(&str, &Value)]) {
        let entry = |(tag, descriptor): &(&str, &Value)| {
            let mut entry = (*descriptor).clone();
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
            entry
        };
        let entries: Vec<Value> = entries.iter().map(entry).collect();
        std::fs::write(
            self.0.join("index.json"),
            json!({ "schemaVersion": 2, "manifests": entries }).to_string(),
        )
        .unwrap();
    }

    fn at(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.0.display())
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A plain archive with one file.
fn archive(coracle: &Coracle, name: &str) -> Vec<u8> {
    let tree = coracle.directory().join(format!("tree-{name}"));
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join(name), name.repeat(3000)).unwrap();
    let made = Command::new("tar").arg("-C").arg(&tree).args(["-c", name]).output().unwrap();
    std::fs::remove_dir_all(tree).unwrap();
    made.stdout
}

/// What a program makes of its input.
fn piped(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut child =
        Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    std::thread::spawn(move || stdin.write_all(&input));
    child.wait_with_output().unwrap().stdout
}

/// An image with these layers, plain bytes and stored ones with their kinds.
fn image_of(forge: &Forge, layers: &[(Vec<u8>, Vec<u8>, &str)], architecture: &str) -> Value {
    let diff_ids: Vec<_> = layers.iter().map(|(plain, _, _)| image::Digest::of(plain)).collect();
    let config = json!({ "architecture": architecture, "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = forge.blob(CONFIG, config.to_string().as_bytes());
    let layers: Vec<Value> = layers.iter().map(|(_, stored, kind)| forge.blob(kind, stored)).collect();
    forge.document(MANIFEST, json!({ "config": config, "layers": layers }))
}

/// An index of one image for this machine and one for another, and the images.
fn two_platforms(coracle: &Coracle, forge: &Forge) -> (Value, [Value; 2]) {
    let host = image::Platform::host().architecture;
    let images = [host.as_str(), "s390x"].map(|architecture| {
        let tar = archive(coracle, architecture);
        let stored = piped("gzip", &["-nc"], &tar);
        let mut image =
            image_of(forge, &[(tar, stored, "application/vnd.oci.image.layer.v1.tar+gzip")], architecture);
        image["platform"] = json!({ "architecture": architecture, "os": "linux" });
        image
    });
    let index = forge.document(INDEX, json!({ "manifests": images, "annotations": { "kept": "as it is" } }));
    forge.index(&[("both", &index)]);
    (index, images)
}

#[test]
fn every_way_between_two_places_keeps_the_digest() {
    let coracle = with_compressed();
    let test = "every_way_between_two_places_keeps_the_digest";
    let Some(registry) = Registry::start(test, coracle.directory(), Door::Open) else { return };
    let at = |name: &str| coracle.directory().join(name).display().to_string();
    let places = |end: &str| {
        [
            format!("docker://{}/copied/{end}", registry.host),
            format!("oci:{}:tag", at(&format!("layout-{end}"))),
            format!("oci-archive:{}:tag", at(&format!("oci-{end}.tar"))),
            format!("docker-archive:{}:some/name:tag", at(&format!("docker-{end}.tar"))),
            format!("dir:{}", at(&format!("dir-{end}"))),
            format!("coracle:copied-{end}"),
        ]
    };
    let (expected, config) = (busybox_digest(), id(&coracle, "busybox"));
    let sources = places("from");
    for to in &sources {
        assert_eq!(coracle.ok(&["copy", "-q", "busybox", to]), "");
    }
    for from in &sources {
        for to in places("to") {
            let said = coracle.ok(&["copy", from, &to]);
            // A docker archive says nothing of manifests: what comes of it has a new one.
            if !from.starts_with("docker-archive:") {
                assert_eq!(said.trim(), expected, "{from} {to}");
            }
            if to.starts_with("coracle:") {
                assert_eq!(id(&coracle, "copied-to"), config, "{from}");
                coracle.ok(&["rmi", "copied-to"]);
                continue;
            }
            // skopeo makes the manifest of a docker archive up.
            let tls: &[&str] = if to.starts_with("docker:") { &["--tls-verify=false"] } else { &[] };
            if !to.starts_with("docker-archive:") {
                assert_eq!(
                    digest(&peer(Command::new("skopeo").args(["inspect", "--raw"]).args(tls).arg(&to))),
                    said.trim()
                );
            }
            let read = peer(Command::new("skopeo").args(["inspect", "--raw", "--config"]).args(tls).arg(&to));
            assert_eq!(digest(&read), config, "{from} {to}");
            for path in ["layout-to", "oci-to.tar", "docker-to.tar", "dir-to"].map(at) {
                let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
            }
        }
    }
}

#[test]
fn what_skopeo_wrote_is_copied_and_loaded() {
    let coracle = Coracle::new();
    let test = "what_skopeo_wrote_is_copied_and_loaded";
    let Some(registry) = Registry::start(test, coracle.directory(), Door::Open) else { return };
    let at = |name: &str| coracle.directory().join(name).display().to_string();
    let config = digest(&peer(Command::new("skopeo").args([
        "inspect",
        "--raw",
        "--config",
        &format!("oci:{}", fixture("busybox.oci").display()),
    ])));
    for (options, place) in [
        (&[][..], format!("oci:{}:x", at("o"))),
        (&[], format!("oci-archive:{}:x", at("o.tar"))),
        (&[], format!("dir:{}", at("d"))),
        (&["--format", "v2s2"], format!("dir:{}", at("v2s2"))),
    ] {
        let source = format!("oci:{}", fixture("busybox.oci").display());
        peer(Command::new("skopeo").args(["copy", "-q"]).args(options).args([&source, &place]));
        let wrote = peer(Command::new("skopeo").args(["inspect", "--raw", &place]));
        let to = format!("docker://{}/skopeo/copy", registry.host);
        assert_eq!(coracle.ok(&["copy", "-q", &place, &to]), "");
        assert_eq!(raw(&to), wrote, "{place}");
        coracle.ok(&["pull", "-q", &place]);
        coracle.ok(&["copy", "-q", &to, "copied"]);
        // skopeo changes the configuration where it changes the form.
        assert!(id(&coracle, "copied") == config || !options.is_empty(), "{place}");
    }
}

#[test]
fn an_index_goes_as_a_whole_or_in_part() {
    let coracle = Coracle::new();
    let test = "an_index_goes_as_a_whole_or_in_part";
    let forge = Forge::new(coracle.directory().join("layout"));
    let (index, [own, other]) = two_platforms(&coracle, &forge);
    let digest_of = |value: &Value| value["digest"].as_str().unwrap().to_owned();
    let Some(registry) = Registry::start(test, coracle.directory(), Door::Open) else { return };
    let to = |name: &str| format!("docker://{}/index/{name}", registry.host);
    let dir = format!("dir:{}", coracle.directory().join("dir").display());
    // As a whole, from place to place.
    let mut from = forge.at("both");
    for place in
        [to("all"), dir, format!("oci-archive:{}", coracle.directory().join("x.tar").display()), to("again")]
    {
        assert_eq!(coracle.ok(&["copy", "--all", &from, &place]).trim(), digest_of(&index), "{place}");
        from = place;
    }
    for one in [&own, &other] {
        assert_eq!(digest(&raw(&format!("{}@{}", to("again"), digest_of(one)))), digest_of(one));
    }
    // One image of it.
    assert_eq!(coracle.ok(&["copy", &to("all"), &to("one")]).trim(), digest_of(&own));
    assert_eq!(
        coracle.ok(&["copy", "--platform", "linux/s390x", &to("all"), &to("one")]).trim(),
        digest_of(&other)
    );
    // The store: with one of both, an index of one can be made; with both, it is whole.
    let name = format!("{}/index/all", registry.host);
    coracle.ok(&["pull", "-q", &name]);
    let push = |args: &[&str]| {
        coracle
            .ok(&[&["push"], args, &[&name, &to("pushed")[..]]].concat())
            .split(' ')
            .nth(2)
            .unwrap()
            .to_owned()
    };
    assert_eq!(push(&[]), digest_of(&own));
    let part = push(&["--all-platforms"]);
    let read: Value = serde_json::from_str(&raw(&to("pushed"))).unwrap();
    assert_eq!(
        (read["manifests"].as_array().unwrap().len(), &read["manifests"][0]["digest"]),
        (1, &own["digest"])
    );
    assert_eq!(read["annotations"]["kept"], "as it is");
    assert_ne!(part, digest_of(&index));
    coracle.ok(&["copy", "-q", "--all", &to("all"), &name]);
    assert_eq!(push(&[]), digest_of(&index));
    assert_eq!(push(&["--all-platforms"]), digest_of(&index));
    assert_eq!(push(&["--platform", "linux/s390x"]), digest_of(&other));
    let file = coracle.directory().join("saved.tar").display().to_string();
    coracle.ok(&["save", "-q", "-o", &file, &name]);
    let back = Coracle::new();
    back.ok(&["load", "-i", &file]);
    assert_eq!(back.ok(&["images", "--digests", "--format", "{{.Digest}}"]).trim(), digest_of(&index));
    refused(&coracle, &["copy", &forge.at("nosuch"), &to("x")], &["no image tagged \"nosuch\"", "both"]);
    refused(
        &coracle,
        &["copy", "--platform", "linux/ppc64le", &forge.at("both"), &to("x")],
        &["has no image for linux/ppc64le"],
    );
}

/// An artifact about an image: no configuration, one blob of its own kind.
fn artifact(forge: &Forge, subject: Option<&Value>) -> Value {
    let config = forge.blob("application/vnd.oci.empty.v1+json", b"{}");
    let layers = [forge.blob("text/spdx", b"what is in it")];
    let kind = "application/vnd.test.sbom";
    let mut value =
        json!({ "artifactType": kind, "config": config, "layers": layers, "annotations": { "a": "b" } });
    if let Some(subject) = subject {
        value["subject"] = subject.clone();
    }
    forge.document(MANIFEST, value)
}

#[test]
fn artifacts_go_where_images_go_and_are_found_by_what_they_are_about() {
    let coracle = with_compressed();
    let forge = Forge::new(coracle.directory().join("layout"));
    let bytes = manifest();
    let subject = json!({ "mediaType": MANIFEST, "digest": busybox_digest(), "size": bytes.len() });
    let about = artifact(&forge, Some(&subject));
    let mut second = about.clone();
    second["digest"] = artifact(&forge, None)["digest"].clone();
    forge.index(&[("sbom", &about), ("alone", &artifact(&forge, None))]);
    let tag = busybox_digest().replace(':', "-");

    // A registry that knows of referrers says so.
    let knows = Fake::start(|asked| match (asked.method.as_str(), asked.path.contains("/manifests/")) {
        ("PUT", true) => Answer::Other(201, vec![("OCI-Subject", busybox_digest())], Vec::new()),
        _ => Answer::Honest,
    });
    coracle.ok(&["copy", "-q", &forge.at("sbom"), &format!("docker://{}", knows.image())]);
    assert!(knows.asked(&tag).is_empty());
    // One that does not gets the index under the tag that the specification has for it, from each who refers.
    let old = Fake::start(|_| Answer::Honest);
    let image = format!("docker://{}", old.image());
    for _ in 0..2 {
        coracle.ok(&["copy", "-q", &forge.at("sbom"), &image]);
    }
    coracle.ok(&["copy", "-q", &forge.at("alone"), &image]);
    let index: Value = serde_json::from_slice(&old.pushed(&tag).unwrap()).unwrap();
    let expected = json!([{
        "mediaType": MANIFEST, "digest": about["digest"], "size": about["size"],
        "artifactType": "application/vnd.test.sbom", "annotations": { "a": "b" },
    }]);
    assert_eq!((&index["manifests"], &index["mediaType"]), (&expected, &json!(INDEX)));

    let test = "artifacts_go_where_images_go_and_are_found_by_what_they_are_about";
    let Some(registry) = Registry::start(test, coracle.directory(), Door::Open) else { return };
    let to = format!("docker://{}/artifacts/a", registry.host);
    coracle.ok(&["push", "-q", "busybox", &to]);
    let dir = format!("dir:{}", coracle.directory().join("dir").display());
    for (from, to) in [
        (forge.at("sbom"), format!("{to}:sbom")),
        (format!("{to}:sbom"), dir.clone()),
        (dir, format!("{to}:x")),
    ] {
        assert_eq!(json!(coracle.ok(&["copy", &from, &to]).trim()), about["digest"]);
    }
    let index: Value = serde_json::from_str(&raw(&format!("{to}:{tag}"))).unwrap();
    assert_eq!(index["manifests"], expected);
    refused(&coracle, &["copy", &forge.at("alone"), "name"], &["a layer is no tar archive"]);
    refused(
        &coracle,
        &["copy", "--format", "v2s2", &forge.at("alone"), &to],
        &["nothing but images", "--format oci"],
    );
    let archive = format!("docker-archive:{}", coracle.directory().join("x.tar").display());
    refused(&coracle, &["copy", &forge.at("alone"), &archive], &["nothing but images"]);
}

#[test]
fn layers_with_tables_for_lazy_pulls_are_read_as_plain() {
    if !has("zstd", "layers_with_tables_for_lazy_pulls_are_read_as_plain") {
        return;
    }
    let coracle = Coracle::new();
    let forge = Forge::new(coracle.directory().join("layout"));
    let [first, second] = ["one", "two"].map(|name| archive(&coracle, name));
    // As eStargz is: a gzip member for each file, the table of contents as a file, and at the end an empty member which says in its
    // header where that table is.
    let footer = [
        &[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0, b'S', b'G', 22, 0][..],
        b"00000000000002b0STARGZ",
        &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let gzip = |bytes: &[u8]| piped("gzip", &["-nc"], bytes);
    let stargz = [gzip(&first[..512]), gzip(&first[512..3000]), gzip(&first[3000..]), footer].concat();
    // As zstd:chunked is: a frame for each file, and the table in a frame that decoders skip.
    let zstd = |bytes: &[u8]| piped("zstd", &["-qc"], bytes);
    let skipped =
        |bytes: &[u8]| [&[0x50, 0x2a, 0x4d, 0x18][..], &(bytes.len() as u32).to_le_bytes(), bytes].concat();
    let chunked =
        [zstd(&second[..512]), zstd(&second[512..]), skipped(&zstd(b"{\"version\":1}")), skipped(&[0; 40])]
            .concat();
    let layers = [
        (first, stargz, "application/vnd.oci.image.layer.v1.tar+gzip"),
        (second, chunked, "application/vnd.oci.image.layer.v1.tar+zstd"),
    ];
    let image = image_of(&forge, &layers, &image::Platform::host().architecture);
    forge.index(&[("lazy", &image)]);
    coracle.ok(&["copy", "-q", &forge.at("lazy"), "lazy"]);
    let listed = coracle.ok(&["inspect", "-f", "{{json .RootFS.Layers}}", "lazy"]);
    assert_eq!(listed.matches("sha256:").count(), 2, "{listed}");
    let unpacked: Vec<PathBuf> =
        files(&coracle.root().join("image/layers")).into_iter().map(|(path, _)| path).collect();
    for name in ["fs/one", "fs/two"] {
        assert!(unpacked.iter().any(|path| path.ends_with(name)), "{unpacked:?}");
    }
    // They go on as they are, and compressed anew where that is wanted.
    let registry = Fake::start(|_| Answer::Honest);
    coracle.ok(&["push", "-q", "lazy", &registry.image()]);
    for (_, stored, _) in &layers {
        assert_eq!(registry.pushed(&image::Digest::of(stored).to_string()).as_ref(), Some(stored));
    }
    let again = Fake::start(|_| Answer::Honest);
    coracle.ok(&["push", "-q", "--compression-format", "gzip", "lazy", &again.image()]);
    let pushed: Value = serde_json::from_slice(&again.pushed("latest").unwrap()).unwrap();
    assert_eq!(pushed["layers"][0]["digest"], json!(image::Digest::of(&layers[0].1)));
    let anew = again.pushed(pushed["layers"][1]["digest"].as_str().unwrap()).unwrap();
    assert_eq!(piped("gzip", &["-dc"], &anew), layers[1].0);
}

#[test]
fn manifests_change_their_form_and_back() {
    let coracle = with_compressed();
    let registry = Fake::start(|_| Answer::Honest);
    let image = format!("docker://{}", registry.image());
    let dir = format!("dir:{}", coracle.directory().join("dir").display());
    coracle.ok(&["copy", "-q", "--format", "v2s2", "busybox", &dir]);
    let read = std::fs::read(coracle.directory().join("dir/manifest.json")).unwrap();
    let read: Value = serde_json::from_slice(&read).unwrap();
    assert_eq!(read["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(read["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
    assert_eq!(read["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
    coracle.ok(&["copy", "-q", &dir, "docker-form"]);
    assert_eq!(id(&coracle, "docker-form"), id(&coracle, "busybox"));
    coracle.ok(&["copy", "-q", "--format", "oci", &dir, &image]);
    let back: Value = serde_json::from_slice(&registry.pushed("latest").unwrap()).unwrap();
    assert_eq!((&back["mediaType"], &back["config"]["mediaType"]), (&json!(MANIFEST), &json!(CONFIG)));
    refused(
        &coracle,
        &["copy", "--format", "v2s2", "--dest-compress-format", "zstd", "busybox", &image],
        &["no layers compressed by zstd"],
    );
    refused(&coracle, &["copy", "--format", "v1", "busybox", &image], &["oci or v2s2"]);
    // Plain layers are compressed on their way to a registry, unless no digest may change.
    let plain = Coracle::with_busybox();
    let own = plain.ok(&["images", "--digests", "--format", "{{.Digest}}"]);
    assert_ne!(plain.ok(&["copy", "busybox", &image]), own);
    assert_eq!(plain.ok(&["copy", "--preserve-digests", "busybox", &image]), own);
    let both = plain.run(&["copy", "--preserve-digests", "--format", "oci", "busybox", &image]);
    assert!(both.code == 125 && both.err.contains("cannot be used with"), "{both:?}");
}

#[test]
fn a_copy_that_fails_leaves_nothing() {
    let coracle = Coracle::new();
    let forge = Forge::new(coracle.directory().join("layout"));
    let tar = archive(&coracle, "file");
    let image = image_of(&forge, &[(tar.clone(), tar.clone(), LAYER)], &image::Platform::host().architecture);
    let good = image_of(&forge, &[], "good");
    forge.index(&[("bad", &image), ("good", &good)]);
    let place = coracle.directory().join("place");
    std::fs::create_dir(&place).unwrap();
    let at = |name: &str| place.join(name).display().to_string();
    let existing = at("existing");
    coracle.ok(&["copy", "-q", &forge.at("good"), &format!("oci:{existing}:kept")]);
    coracle.ok(&["copy", "-q", &forge.at("good"), &format!("dir:{}", at("dir"))]);
    std::fs::write(at("old.tar"), "old").unwrap();
    let before = files(&place);
    let blob = forge.0.join("blobs/sha256").join(image::Digest::of(&tar).hex());
    let mut wrong = tar.clone();
    wrong[600] ^= 1;
    let registry = Fake::start(|_| Answer::Honest);
    for (bytes, words) in
        [(&wrong[..], "has digest"), (&tar[..1000], "1000 bytes, not"), (&[][..], "0 bytes, not")]
    {
        std::fs::write(&blob, bytes).unwrap();
        for to in [
            format!("oci:{existing}:new"),
            format!("oci:{}", at("new/layout")),
            format!("oci-archive:{}", at("old.tar")),
            format!("docker-archive:{}", at("new.tar")),
            format!("dir:{}", at("dir")),
            format!("dir:{}", at("new")),
            format!("docker://{}", registry.image()),
        ] {
            let headline = format!("cannot copy \"{}\" to \"{to}\"", forge.at("bad"));
            refused(&coracle, &["copy", &forge.at("bad"), &to], &[&headline, words]);
            assert_eq!(files(&place), before, "{to}");
        }
        assert!(!place.join("new").exists());
        assert_eq!((registry.pushed("latest"), registry.open_uploads()), (None, 0));
        assert_eq!(std::fs::read_dir(coracle.root().join("image/staging")).unwrap().count(), 0);
    }
    std::fs::remove_file(&blob).unwrap();
    refused(&coracle, &["copy", &forge.at("bad"), &format!("oci:{existing}:new")], &["lacks blob sha256:"]);
    refused(&coracle, &["copy", &forge.at("good"), "oci:/dev/null/x"], &["/dev/null"]);
    refused(&coracle, &["copy", "oci:/nowhere", "dir:/var/tmp/x"], &["/nowhere"]);
    std::fs::write(&blob, &tar).unwrap();
    let layout = format!("oci:{}", forge.0.display());
    refused(&coracle, &["copy", &layout, &format!("dir:{}", at("x"))], &["has 2 images", "oci:DIR:TAG"]);
    std::fs::write(at("stranger"), "").unwrap();
    refused(
        &coracle,
        &["copy", &forge.at("good"), &format!("dir:{}", place.display())],
        &["but has other files"],
    );
}

#[test]
fn what_comes_from_a_registry_that_cuts_goes_on_and_is_checked() {
    let cutting = Fake::start(|asked| match asked.before {
        0 if asked.path.ends_with(&layer().0) => Answer::Cut(300_000),
        _ => Answer::Honest,
    });
    let (coracle, target) = (Coracle::new(), Fake::start(|_| Answer::Honest));
    let from = format!("docker://{}", cutting.image());
    coracle.ok(&["copy", "-q", &from, &format!("docker://{}", target.image())]);
    assert_eq!(target.pushed("latest").unwrap(), manifest());
    let begins: Vec<Option<u64>> = cutting.asked(&layer().0).iter().map(|asked| asked.range).collect();
    assert_eq!(begins, [None, Some(300_000)]);
    // Nothing was unpacked or kept.
    assert!(
        files(&coracle.root().join("image/blobs")).is_empty()
            && files(&coracle.root().join("image/layers")).is_empty()
    );
    let wrong = Fake::start(|asked| match asked.path.ends_with(&layer().0) {
        true => Answer::Other(200, Vec::new(), vec![0; layer().1]),
        false => Answer::Honest,
    });
    let target = Fake::start(|_| Answer::Honest);
    let from = format!("docker://{}", wrong.image());
    refused(&coracle, &["copy", &from, &format!("docker://{}", target.image())], &["has digest", &layer().0]);
    assert_eq!((target.pushed("latest"), target.open_uploads()), (None, 0));
}

#[test]
fn a_killed_copy_leaves_no_half_archive() {
    let registry = Fake::start(|asked| match asked.path.ends_with(&layer().0) {
        true => Answer::Stall(600_000),
        false => Answer::Honest,
    });
    let coracle = Coracle::new();
    let place = coracle.directory().join("place");
    std::fs::create_dir(&place).unwrap();
    let from = format!("docker://{}", registry.image());
    let to = format!("oci-archive:{}", place.join("x.tar").display());
    let mut copy = coracle.command(&["copy", "-q", &from, &to]).spawn().unwrap();
    let start = Instant::now();
    while registry.asked(&layer().0).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing was asked for");
        std::thread::sleep(Duration::from_millis(10));
    }
    copy.kill().unwrap();
    copy.wait().unwrap();
    assert_eq!(files(&place), []);
}

#[test]
fn docker_reads_what_was_pushed_and_its_pushes_are_read() {
    let coracle = Coracle::with_busybox();
    let test = "docker_reads_what_was_pushed_and_its_pushes_are_read";
    let Some(registry) = Registry::start(test, coracle.directory(), Door::Open) else { return };
    let Some(docker) = Dockerd::start(test, coracle.directory()) else { return };
    // One layer that was compressed here in one member, one from elsewhere.
    let image = format!("{}/team/ours", registry.host);
    coracle.ok(&["push", "-q", "busybox", &image]);
    docker.ok(&["pull", "-q", &image]);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.Id}}", &image]).trim(), id(&coracle, "busybox"));
    let dockers = format!("{}/team/dockers", registry.host);
    docker.ok(&["tag", &image, &dockers]);
    docker.ok(&["push", &dockers]);
    coracle.ok(&["pull", "-q", &dockers]);
    assert_eq!(id(&coracle, &dockers), id(&coracle, "busybox"));
    let moved = format!("docker://{}/team/moved", registry.host);
    coracle.ok(&["copy", "-q", &format!("docker://{dockers}"), &moved]);
    assert_eq!(raw(&moved), raw(&format!("docker://{dockers}")));
}

#[test]
fn a_directory_with_files_of_others_is_left_alone() {
    let coracle = Coracle::with_busybox();
    let place = coracle.directory().join("place");
    std::fs::create_dir(&place).unwrap();
    for (name, text) in [("version", "1.0"), ("thesis.txt", "years of work")] {
        std::fs::write(place.join(name), text).unwrap();
    }
    let target = format!("dir:{}", place.display());
    refused(&coracle, &["copy", "-q", "busybox", &target], &["it is no dir:"]);
    // It is one, and has something of its owner's beside.
    std::fs::remove_file(place.join("version")).unwrap();
    std::fs::remove_file(place.join("thesis.txt")).unwrap();
    coracle.ok(&["copy", "-q", "busybox", &target]);
    std::fs::write(place.join("thesis.txt"), "years of work").unwrap();
    let old = place.join("0".repeat(64));
    std::fs::write(&old, "of another image").unwrap();
    coracle.ok(&["copy", "-q", "busybox", &target]);
    assert!(place.join("thesis.txt").exists() && !old.exists());
}

#[test]
fn documents_that_are_lists_are_refused() {
    let coracle = Coracle::with_busybox();
    let layout = coracle.directory().join("layout");
    let target = format!("oci:{}", layout.display());
    coracle.ok(&["copy", "-q", "busybox", &target]);
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let blobs = layout.join("blobs/sha256");
    let manifest = std::fs::read(blobs.join(digest.trim_start_matches("sha256:"))).unwrap();
    let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layer = manifest["layers"][0].clone();
    manifest["layers"][0] = json!([layer["mediaType"], layer["digest"], layer["size"], null, {}]);
    let bytes = manifest.to_string();
    let hex =
        peer(Command::new("sh").args(["-c", "printf %s \"$1\" | sha256sum | cut -c1-64", "sh", &bytes]));
    std::fs::write(blobs.join(hex.trim()), &bytes).unwrap();
    let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": format!("sha256:{}", hex.trim()), "size": bytes.len()});
    std::fs::write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string())
        .unwrap();
    let other = format!("oci:{}", coracle.directory().join("other").display());
    refused(&coracle, &["copy", "-q", "--format", "v2s2", &target, &other], &["no object"]);
    for text in ["[]", "{}"] {
        std::fs::write(layout.join("index.json"), text).unwrap();
        refused(&coracle, &["copy", "-q", "busybox", &target], &["not an index of images"]);
    }
}

#[test]
fn a_name_means_what_it_meant_when_its_image_comes_in_another_form() {
    let coracle = with_compressed();
    coracle.ok(&["tag", "busybox", "first:1"]);
    let meant = coracle.ok(&["images", "--format", "{{.Digest}}", "first:1"]);
    let archive = format!("docker-archive:{}", fixture("busybox.docker.tar").display());
    coracle.ok(&["load", &archive]);
    assert_ne!(coracle.ok(&["images", "--format", "{{.Digest}}", "busybox"]), meant);
    for words in [&["copy", "-q"][..], &["copy", "-q", "--all"]] {
        let place = coracle.directory().join(format!("place{}", words.len()));
        let target = format!("dir:{}", place.display());
        coracle.ok(&[words, &["first:1", &target]].concat());
        let sent = peer(Command::new("sha256sum").arg(place.join("manifest.json")));
        assert!(sent.starts_with(meant.trim().trim_start_matches("sha256:")), "{sent}");
    }
}
