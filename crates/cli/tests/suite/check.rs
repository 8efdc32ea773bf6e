//! `image verify` and `system check --repair`: damage is found, and only what is damaged is fetched.

use std::path::PathBuf;

use crate::coracle::{Coracle, is_root};
use crate::images::refused;
use crate::layered::{Layout, Made};
use crate::registry::Fake;

/// Changes one bit of a file, and nothing of its attributes.
fn flip(path: &std::path::Path) {
    let time = std::fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// An image of five layers from a registry; the layers' blobs.
fn pulled(coracle: &Coracle) -> (Fake, String, Vec<String>) {
    let layout = Layout::new(coracle.directory().join("layout"));
    let files: Vec<(String, String)> =
        (0..5).map(|at| (format!("file{at}"), format!("content {at}"))).collect();
    let layers: Vec<Vec<(&str, &str)>> =
        files.iter().map(|(name, text)| vec![(name.as_str(), text.as_str())]).collect();
    let layers: Vec<&[(&str, &str)]> = layers.iter().map(Vec::as_slice).collect();
    let blobs = layout.add("five", &Made { layers: &layers, ..Made::default() });
    let registry = layout.serve();
    let name = format!("{}/app:five", registry.host);
    coracle.ok(&["pull", "-q", &name]);
    (registry, name, blobs)
}

/// Where a file of one of the image's layers is.
fn place(coracle: &Coracle, name: &str, at: usize) -> PathBuf {
    let layers = coracle.ok(&["inspect", "-f", "{{json .GraphDriver.Data.Layers}}", name]);
    let layers: Vec<PathBuf> = serde_json::from_str(&layers).unwrap();
    layers[at].join(format!("file{at}"))
}

fn blob(coracle: &Coracle, digest: &str) -> PathBuf {
    coracle.root().join("image/blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

#[test]
fn damage_is_a_table() {
    let coracle = Coracle::new();
    let (_registry, name, blobs) = pulled(&coracle);
    assert_eq!(coracle.ok(&["image", "verify"]), "");
    assert_eq!(coracle.ok(&["system", "check"]), "");
    flip(&place(&coracle, &name, 2));
    flip(&blob(&coracle, &blobs[4]));
    let ran = coracle.run(&["image", "verify", &name]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!((ran.code, lines.len()), (1, 3), "{ran:?}");
    assert!(lines[0].starts_with("IMAGE ") && lines[0].ends_with("FOUND"), "{ran:?}");
    assert!(lines[1].contains("/file2") && lines[1].contains("content "), "{ran:?}");
    assert!(lines[2].contains(&format!("blob {}", &blobs[4][7..19])), "{ran:?}");
    let ran = coracle.run(&["system", "check"]);
    assert_eq!((ran.code, ran.out.lines().count()), (1, 2), "{ran:?}");
    assert!(ran.out.contains(&format!("(of {name}): /file2 has other content")), "{ran:?}");
    refused(&coracle, &["image", "verify", "nothing"], "nothing");
    coracle.ok(&["rmi", &name]);
    coracle.ok(&["image", "verify"]);
}

#[test]
fn a_flipped_bit_costs_one_blob() {
    let coracle = Coracle::new();
    let (registry, name, blobs) = pulled(&coracle);
    // The blobs are gone, so the layer comes from the registry.
    coracle.ok(&["image", "prune", "-f", "--blobs"]);
    let noted = coracle.run(&["image", "verify"]);
    assert!(
        noted.code == 0 && noted.err.lines().count() == 5 && noted.err.contains("is not here"),
        "{noted:?}"
    );
    let before = registry.asked("").len();
    use std::os::unix::fs::MetadataExt as _;
    let inodes = |coracle: &Coracle| -> Vec<u64> {
        (0..5).map(|at| std::fs::metadata(place(coracle, &name, at)).unwrap().ino()).collect()
    };
    let good = inodes(&coracle);
    flip(&place(&coracle, &name, 2));
    let repaired = coracle.ok(&["system", "check", "--repair"]);
    assert!(repaired.lines().count() == 1 && repaired.ends_with(": fetched anew\n"), "{repaired}");
    let asked: Vec<String> =
        registry.asked("").split_off(before).into_iter().map(|asked| asked.path).collect();
    let fetched: Vec<&String> = asked.iter().filter(|path| path.contains("/blobs/")).collect();
    assert!(fetched.len() == 1 && fetched[0].ends_with(&blobs[2]), "{asked:?}");
    let now = inodes(&coracle);
    assert_eq!((0..5).filter(|at| now[*at] != good[*at]).collect::<Vec<_>>(), [2], "only the bad one is new");
    assert_eq!(std::fs::read_to_string(place(&coracle, &name, 2)).unwrap(), "content 2");
    assert_eq!(coracle.ok(&["system", "check"]), "");
    // With a sound blob nobody is asked.
    flip(&place(&coracle, &name, 2));
    let before = registry.asked("").len();
    let repaired = coracle.ok(&["system", "check", "--repair"]);
    assert!(repaired.ends_with(": unpacked again from its blob\n"), "{repaired}");
    assert_eq!(registry.asked("").len(), before);
    // A damaged blob alone is fetched alone.
    flip(&blob(&coracle, &blobs[2]));
    assert!(coracle.ok(&["system", "check", "--repair"]).ends_with(": fetched anew\n"));
    assert_eq!(coracle.ok(&["system", "check"]), "");
    // Both at once, and the configuration too.
    let id = coracle.ok(&["inspect", "-f", "{{.Id}}", &name]);
    flip(&place(&coracle, &name, 2));
    flip(&blob(&coracle, &blobs[2]));
    flip(&blob(&coracle, id.trim()));
    let repaired = coracle.ok(&["system", "check", "--repair"]);
    assert_eq!(repaired.matches("fetched anew").count(), 3, "{repaired}");
    assert_eq!(coracle.ok(&["system", "check"]), "");
}

#[test]
fn what_leads_nowhere_is_told() {
    let coracle = Coracle::with_busybox();
    coracle.ok(&["run", "--name", "kept", "busybox", "true"]);
    let image = coracle.root().join("image");
    std::fs::create_dir(image.join("layers/rubbish")).unwrap();
    std::fs::write(image.join("blobs/sha256/rubbish"), "x").unwrap();
    std::fs::write(image.join("index.json"), "{}").unwrap();
    std::os::unix::fs::symlink("nobody", coracle.root().join("names/gone")).unwrap();
    let ran = coracle.run(&["system", "check"]);
    assert_eq!((ran.code, ran.out.lines().count()), (1, 4), "{ran:?}");
    for words in [
        "layer rubbish: no image has it",
        "blob rubbish: no image",
        "index.json: ",
        "container name gone: it leads to no",
    ] {
        assert!(ran.out.contains(words), "{words}: {ran:?}");
    }
    let repaired = coracle.ok(&["system", "check", "--repair"]);
    assert!(
        repaired.lines().all(|line| line.ends_with(": removed") || line.ends_with("written anew")),
        "{repaired}"
    );
    assert_eq!(coracle.ok(&["system", "check"]), "");
    // A layer that came from no registry and whose blob is damaged too cannot be made anew.
    let layers = coracle.ok(&["inspect", "-f", "{{json .GraphDriver.Data.Layers}}", "busybox"]);
    let layers: Vec<PathBuf> = serde_json::from_str(&layers).unwrap();
    let file = layers[0].join("etc/passwd");
    flip(&file);
    assert!(coracle.ok(&["system", "check", "--repair"]).ends_with(": unpacked again from its blob\n"));
    flip(&file);
    for entry in std::fs::read_dir(image.join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        if entry.metadata().unwrap().len() > 100_000 {
            flip(&entry.path());
        }
    }
    let ran = coracle.run(&["system", "check", "--repair"]);
    assert!(ran.code == 1 && ran.out.matches("it came from no registry").count() == 2, "{ran:?}");
    assert!(file.exists());
}

#[test]
fn a_lost_record_is_made_anew() {
    let coracle = Coracle::with_busybox();
    let (_registry, name, _) = pulled(&coracle);
    let images = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(coracle.root().join("image/images")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let before = coracle.ok(&["images", "--no-trunc"]);
    images().iter().for_each(|path| std::fs::write(path, "{\"version\":").unwrap());
    // The index knows better, as long as it is there.
    assert_eq!(coracle.ok(&["images", "--no-trunc"]), before);
    std::fs::remove_file(coracle.root().join("image/listing.json")).unwrap();
    assert_eq!(coracle.run(&["images"]).code, 1);
    let ran = coracle.run(&["system", "check"]);
    assert!(ran.code == 1 && ran.out.matches("image ").count() >= 2, "{ran:?}");
    let repaired = coracle.ok(&["system", "check", "--repair"]);
    assert_eq!(repaired.matches("made anew from its manifest").count(), 2, "{repaired}");
    assert_eq!(coracle.ok(&["images", "--no-trunc"]), before);
    std::fs::remove_file(&images()[0]).unwrap();
    let repaired = coracle.ok(&["system", "check", "--repair"]);
    assert!(repaired.contains("the record of its image is made anew"), "{repaired}");
    assert_eq!(coracle.ok(&["system", "check"]), "");
    assert_eq!(coracle.ok(&["images", "--no-trunc"]), before);
    assert_eq!(coracle.ok(&["history", "-q", &name]).lines().count(), 5);
    // Without its layers it cannot be: get it again.
    std::fs::remove_file(&images()[0]).unwrap();
    for entry in std::fs::read_dir(coracle.root().join("image/layers")).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    let ran = coracle.run(&["system", "check", "--repair"]);
    assert!(ran.code == 1 && ran.out.contains("get the image anew"), "{ran:?}");
}

#[test]
fn a_damaged_manifest_costs_no_sound_blob() {
    let coracle = Coracle::with_busybox();
    let (_registry, name, blobs) = pulled(&coracle);
    let manifest = coracle.ok(&["images", "--format", "{{.Digest}}", &name]);
    flip(&blob(&coracle, manifest.trim()));
    // Which blobs it names cannot be known now.
    coracle.ok(&["rmi", "busybox"]);
    let ran = coracle.run(&["system", "check"]);
    assert!(ran.code == 1 && ran.out.lines().count() == 1, "{ran:?}");
    assert!(blobs.iter().all(|digest| blob(&coracle, digest).exists()));
    assert!(coracle.ok(&["system", "check", "--repair"]).ends_with(": fetched anew\n"));
    // Now it is known that those of the other image are rubbish, and that these are not.
    let repaired = coracle.ok(&["system", "check", "--repair"]);
    assert!(repaired.lines().all(|line| line.ends_with("no image has it: removed")), "{repaired}");
    assert!(blobs.iter().all(|digest| blob(&coracle, digest).exists()));
    assert_eq!(coracle.ok(&["system", "check"]), "");
}

#[test]
fn a_layer_that_is_looked_into_is_left_alone() {
    if !is_root() {
        println!("SKIP: check::a_layer_that_is_looked_into_is_left_alone: only root mounts images");
        return;
    }
    let coracle = Coracle::new();
    let (_registry, name, _) = pulled(&coracle);
    let mounted = PathBuf::from(coracle.ok(&["image", "mount", &name]).trim());
    flip(&place(&coracle, &name, 2));
    let ran = coracle.run(&["system", "check", "--repair"]);
    assert!(ran.code == 1 && ran.out.contains("image mount uses it"), "{ran:?}");
    assert!(mounted.join("file2").exists());
    coracle.ok(&["image", "unmount", &name]);
    assert!(coracle.ok(&["system", "check", "--repair"]).ends_with(": unpacked again from its blob\n"));
}

#[test]
fn what_cannot_be_read_stops_neither_check_nor_repair() {
    let coracle = Coracle::with_busybox();
    let (_registry, name, _) = pulled(&coracle);
    let image = coracle.root().join("image");
    let id = |name: &str| coracle.ok(&["inspect", "-f", "{{.Id}}", name]).trim().replace("sha256:", "");
    let (lost, bad) = (id(&name), id("busybox"));
    // Its manifest is gone too, so that it cannot be made anew.
    let manifest = coracle.ok(&["images", "--format", "{{.Digest}}", "busybox"]);
    std::fs::remove_file(blob(&coracle, manifest.trim())).unwrap();
    for id in [&lost, &bad] {
        std::fs::write(image.join(format!("images/{id}.json")), "{").unwrap();
    }
    // Of a killed command.
    std::fs::create_dir(image.join("staging/killed")).unwrap();
    let ran = coracle.run(&["system", "check"]);
    assert!(ran.code == 1 && ran.err.is_empty(), "{ran:?}");
    let ran = coracle.run(&["system", "check", "--repair"]);
    assert!(ran.code == 1 && ran.out.contains(": made anew from its manifest\n"), "{ran:?}");
    assert_eq!(id(&name), lost);
}
