//! Names, ids, platforms, removal, verification.

use image::{Digest, Error, LoadOptions, Removed, Source};
use serde_json::json;

use crate::forge::{INDEX, Layer, MANIFEST, Tar, config, descriptor, gzip, image, manifest, oci_archive};
use crate::scratch::{Scratch, run};

fn layer(name: &str, content: &str) -> Layer {
    Layer::gzip(&Tar::new().file(name, content.as_bytes()).end())
}

/// A name without a tag would be a tag.
fn load(scratch: &Scratch, name: &str, layers: &[Layer]) -> Digest {
    let name = if name.contains(':') { name.to_owned() } else { format!("{name}:latest") };
    let file = scratch.write("i.tar", &image(&name, layers));
    scratch.load(file.to_str().unwrap()).unwrap()[0].id
}

fn count(scratch: &Scratch, directory: &str) -> usize {
    std::fs::read_dir(scratch.join("image").join(directory)).unwrap().count()
}

#[test]
fn names_and_ids_lead_to_images() {
    let scratch = Scratch::new();
    let id = load(&scratch, "app", &[layer("a", "1")]);
    let other = load(&scratch, "localhost:5000/x/app:2", &[layer("a", "2")]);
    let store = scratch.store();
    for name in ["app", "app:latest", "docker.io/library/app", &id.hex()[..12], &id.to_string(), &id.hex()] {
        assert_eq!(store.resolve(name, None).unwrap().id, id, "{name}");
    }
    assert_eq!(store.resolve("localhost:5000/x/app:2", None).unwrap().id, other);
    let images = store.images().unwrap();
    assert_eq!(images.len(), 2);
    let pinned = format!("app@{}", images[0].digest);
    assert_eq!(store.resolve(&pinned, None).unwrap().id, id);
    for name in [
        "app:2",
        "x/app:2",
        "ap",
        &"f".repeat(64),
        "app@sha256:00",
        "A",
        "",
        "../app",
        "app/..",
        &"a".repeat(999),
    ] {
        assert!(store.resolve(name, None).is_err(), "{name}");
    }
    store.tag("app", &"new/name:3".parse().unwrap()).unwrap();
    store.tag(&id.hex()[..10], &"by-id".parse().unwrap()).unwrap();
    assert_eq!(store.resolve("new/name:3", None).unwrap().id, id);
    let names: Vec<_> = store.inspect("app", None).unwrap().names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["app:latest", "by-id:latest", "new/name:3"]);
}

#[test]
fn removing_takes_only_what_nothing_else_has() {
    let scratch = Scratch::new();
    let (base, own) = (layer("base", "b"), layer("own", "o"));
    let first = load(&scratch, "first", &[base.clone(), own]);
    let second = load(&scratch, "second", &[base]);
    let store = scratch.store();
    store.tag("first", &"again".parse().unwrap()).unwrap();
    assert_eq!((count(&scratch, "layers"), count(&scratch, "blobs/sha256")), (2, 6));
    let none: &[Digest] = &[];
    assert!(matches!(scratch.remove(&first.hex(), false, none), Err(Error::SeveralNames { .. })));
    assert_eq!(
        scratch.remove("again", false, none).unwrap(),
        [Removed::Untagged("again:latest".parse().unwrap())]
    );
    assert!(matches!(scratch.remove("first", true, &[first]), Err(Error::InUse { .. })));
    assert!(store.resolve("first", None).is_ok());
    let removed = scratch.remove(&first.hex()[..8], false, none).unwrap();
    assert_eq!(removed, [Removed::Untagged("first:latest".parse().unwrap()), Removed::Deleted(first)]);
    assert_eq!((count(&scratch, "layers"), count(&scratch, "blobs/sha256")), (1, 3));
    assert!(store.resolve("second", None).unwrap().layers[0].join("base").exists());
    scratch.remove("second", false, none).unwrap();
    scratch.assert_empty();
    assert!(matches!(scratch.remove(&second.hex(), false, none), Err(Error::UnknownImage { .. })));
}

#[test]
fn a_name_that_moves_leaves_the_image() {
    let scratch = Scratch::new();
    let old = load(&scratch, "app", &[layer("a", "1")]);
    let new = load(&scratch, "app", &[layer("a", "2")]);
    let store = scratch.store();
    assert_eq!(store.resolve("app", None).unwrap().id, new);
    assert_eq!(store.resolve(&old.hex(), None).unwrap().id, old);
    let images = store.images().unwrap();
    assert_eq!(images.iter().filter(|image| image.repository.is_none()).count(), 1);
}

#[test]
fn a_platform_is_chosen_and_the_index_kept() {
    let scratch = Scratch::new();
    let layers: Vec<_> = ["amd64", "arm64"].map(|name| layer("arch", name)).into();
    let mut blobs = Vec::new();
    let mut entries = Vec::new();
    for (layer, architecture) in layers.iter().zip(["amd64", "arm64"]) {
        let layers = std::slice::from_ref(layer);
        let (bytes, more) = manifest(layers, &config(layers, architecture));
        let mut entry = descriptor(MANIFEST, &bytes);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entries.push(entry);
        blobs.extend(more);
    }
    let index =
        serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})).unwrap();
    blobs.push(index.clone());
    let mut entry = descriptor(INDEX, &index);
    entry["annotations"] = json!({"io.containerd.image.name": "docker.io/library/multi:1", "org.opencontainers.image.ref.name": "1"});
    let archive = oci_archive(&json!({"schemaVersion": 2, "manifests": [entry]}), &blobs);
    let source: Source = scratch.write("m.tar", &archive).to_str().unwrap().parse().unwrap();
    let store = scratch.store();
    let options =
        |platform: &str| LoadOptions { platform: Some(platform.parse().unwrap()), ..LoadOptions::default() };
    let amd = store.load(&source, &options("amd64")).unwrap()[0].id;
    let arm = store.load(&source, &options("linux/arm64/v8")).unwrap()[0].id;
    assert_ne!(amd, arm);
    let at = |platform: &str| store.resolve("multi:1", Some(&platform.parse().unwrap()));
    assert_eq!(at("amd64").unwrap().id, amd);
    assert_eq!(at("arm64").unwrap().id, arm);
    assert!(matches!(at("riscv64"), Err(Error::PlatformMissing { available, .. }) if available.len() == 2));
    assert!(matches!(store.load(&source, &options("s390x")), Err(Error::PlatformNotInSource { .. })));
    assert_eq!(store.images().unwrap()[0].digest, Digest::of(&index));
    assert!(store.layout().join("blobs/sha256").join(Digest::of(&index).hex()).exists());
    let removed = scratch.remove("multi:1", false, &[]).unwrap();
    assert_eq!(removed.len(), 3);
    scratch.assert_empty();
}

#[test]
fn one_flipped_bit_is_found() {
    let scratch = Scratch::new();
    let tar = Tar::new().dir("d").file("d/file", b"some content").symlink("d/link", "file").end();
    load(&scratch, "app", &[Layer::gzip(&tar)]);
    let store = scratch.store();
    assert_eq!(store.verify(None).unwrap(), []);
    let root = store.resolve("app", None).unwrap().layers[0].clone();
    let flip = |path: &std::path::Path| {
        let meta = std::fs::metadata(path).unwrap();
        let mut bytes = std::fs::read(path).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 4;
        std::fs::write(path, bytes).unwrap();
        let time = std::fs::File::options().write(true).open(path).unwrap();
        time.set_times(std::fs::FileTimes::new().set_modified(meta.modified().unwrap())).unwrap();
    };
    let found = || {
        let damage = store.verify(Some("app")).unwrap();
        damage
            .iter()
            .map(|one| format!("{}: {} -> {}", one.path.display(), one.expected, one.found))
            .collect::<Vec<_>>()
    };
    let mut objects = vec![root.join("d/file"), root.parent().unwrap().join("manifest")];
    for blob in std::fs::read_dir(store.layout().join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        // A flip in the configuration may make it unreadable, which `resolve` reports before.
        if !std::fs::read(&path).unwrap().starts_with(b"{") {
            objects.push(path);
        }
    }
    assert_eq!(objects.len(), 3);
    for path in objects {
        flip(&path);
        let damage = found();
        assert!(damage.len() == 1 && damage[0].starts_with(path.to_str().unwrap()), "{damage:?}");
        flip(&path);
        assert_eq!(found(), Vec::<String>::new());
    }
    // Everything else that can change.
    let file = root.join("d/file");
    let check =
        |words: &str| assert!(found().iter().any(|line| line.contains(words)), "{words}: {:?}", found());
    run("chmod", &["600", file.to_str().unwrap()]);
    check("mode 644 -> mode 600");
    run("touch", &[file.to_str().unwrap()]);
    check("time 1000000000 ->");
    std::fs::write(root.join("d/new"), b"").unwrap();
    check("d/new: nothing -> a file");
    std::fs::remove_file(root.join("d/link")).unwrap();
    check("d/link: a symbolic link -> nothing");
    std::os::unix::fs::symlink("other", root.join("d/link")).unwrap();
    check("target file -> target other");
    rustix::fs::setxattr(&file, "user.x", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    check("attributes  -> attributes user.x=79");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    check("a file -> a directory");
}

#[test]
fn a_root_file_system_is_imported() {
    let scratch = Scratch::new();
    let tar = Tar::new().dir("bin").file("bin/sh", b"#!").end();
    let store = scratch.store();
    let options = LoadOptions { name: Some("imported".parse().unwrap()), ..LoadOptions::default() };
    let changes = ["CMD [\"/bin/sh\"]".to_owned(), "ENV A=b".to_owned()];
    for (at, bytes) in [tar.clone(), gzip(&tar), crate::forge::zstd(&tar)].iter().enumerate() {
        let file = scratch.write("root.tar", bytes);
        let loaded = store.import(&file, &changes, &options).unwrap();
        let image = store.resolve("imported", None).unwrap();
        assert_eq!((image.id, image.config.cmd.clone()), (loaded.id, vec!["/bin/sh".to_owned()]), "{at}");
        assert_eq!(std::fs::read(image.layers[0].join("bin/sh")).unwrap(), b"#!");
    }
    // One content, one layer, three images.
    assert_eq!(count(&scratch, "layers"), 1);
    assert_eq!(store.verify(None).unwrap(), []);
    let bad = scratch.write("bad.tar", b"not an archive");
    assert!(store.import(&bad, &[], &options).is_err());
    assert_eq!(count(&scratch, "staging"), 0);
}

#[test]
fn loading_twice_changes_nothing() {
    let scratch = Scratch::new();
    let layers = [layer("a", "1"), Layer::plain(Tar::new().file("b", b"2").end())];
    let id = load(&scratch, "app", &layers);
    let before = std::fs::metadata(scratch.store().resolve("app", None).unwrap().layers[0].clone()).unwrap();
    assert_eq!(load(&scratch, "app", &layers), id);
    let after = std::fs::metadata(scratch.store().resolve("app", None).unwrap().layers[0].clone()).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&before), std::os::unix::fs::MetadataExt::ino(&after));
    assert_eq!(scratch.store().verify(None).unwrap(), []);
}

#[test]
fn a_newer_version_is_refused_and_kept() {
    let scratch = Scratch::new();
    let id = load(&scratch, "app", &[layer("a", "1")]);
    let path = scratch.join(format!("image/images/{}.json", id.hex()));
    let text = std::fs::read_to_string(&path).unwrap().replace("\"version\":1", "\"version\":2");
    std::fs::write(&path, &text).unwrap();
    let error = scratch.store().resolve("app", None).unwrap_err();
    assert!(error.to_string().contains("its version is 2"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn resolving_makes_nothing_durable_and_reads_little() {
    let scratch = Scratch::new();
    load(&scratch, "app", &[layer("a", "1")]);
    let log = scratch.join("strace.log");
    let exe = std::env::current_exe().unwrap();
    let output = std::process::Command::new("strace")
        .args([
            "-f",
            "-o",
            log.to_str().unwrap(),
            "-e",
            "trace=%file,%desc,syncfs,sync",
            exe.to_str().unwrap(),
        ])
        .args(["--exact", "store::resolve_here", "--ignored", "--test-threads=1"])
        .env("CORACLE_TEST_ROOT", &scratch.path)
        .output();
    let Ok(output) = output else { return eprintln!("skipped: needs strace") };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = std::fs::read_to_string(&log).unwrap();
    let ours: Vec<_> = text.lines().filter(|line| line.contains(scratch.path.to_str().unwrap())).collect();
    for call in ["fsync", "fdatasync", "syncfs", "rename", "O_CREAT", "mkdir", "unlink"] {
        assert!(!ours.iter().any(|line| line.contains(call)), "{call}: {ours:#?}");
    }
    assert!(!text.contains("sync("), "{text}");
    // The staging directory, the name, the image, the configuration.
    assert_eq!(ours.iter().filter(|line| line.contains("open")).count(), 4, "{ours:#?}");
}

#[test]
#[ignore = "run by the test above under strace"]
fn resolve_here() {
    let root = std::env::var("CORACLE_TEST_ROOT").unwrap();
    image::Store::open(root.as_ref()).unwrap().resolve("app", None).unwrap();
}

#[test]
fn devices_are_no_sources() {
    let scratch = Scratch::new();
    for path in ["/dev/zero", "/dev/null"] {
        assert!(scratch.load(path).unwrap_err().to_string().contains("it is a device"));
    }
    scratch.assert_empty();
}
