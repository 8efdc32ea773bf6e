//! Layers in user namespaces: with a range of ids, and with one.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use image::{LoadOptions, Ownership, Store};

use crate::forge::{Layer, Tar, image};
use crate::layers::Merged;
use crate::scratch::{Scratch, describe, is_root, xattrs};

fn layers() -> Vec<Layer> {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let base = Tar::new()
        .dir_with("d", 0o700, (5, 6))
        .file("d/old", b"")
        .raw(b"owned", b'0', 0o4711, (1000, 2000), 1_000_000_000, b"", (0, 0), 1, b"x")
        .device("null", b'3', (1, 3))
        .device("pipe", b'6', (0, 0))
        .file("gone", b"")
        .pax(&[("SCHILY.xattr.trusted.note", b"n"), ("SCHILY.xattr.security.capability", capability)])
        .file("capable", b"")
        .end();
    let top = Tar::new().file("d/.wh..wh..opq", b"").file("d/new", b"").file(".wh.gone", b"").end();
    vec![Layer::gzip(&base), Layer::gzip(&top)]
}

/// Runs `test` of this binary as root of a user namespace with these ids.
fn in_namespace(scratch: &Scratch, test: &str, map: &str) {
    scratch.write("i.tar", &image("ns:1", &layers()));
    let exe = std::env::current_exe().unwrap();
    let script = format!(
        "read go && exec env CORACLE_TEST_ROOT={} {} --exact {test} --ignored --test-threads=1",
        scratch.path.display(),
        exe.display()
    );
    let mut child = Command::new("unshare")
        .args(["-U", "-m", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let own = std::fs::read_link("/proc/self/ns/user").unwrap();
    let place = PathBuf::from(format!("/proc/{}", child.id()));
    while std::fs::read_link(place.join("ns/user")).is_ok_and(|namespace| namespace == own) {
        std::thread::yield_now();
    }
    for file in ["uid_map", "gid_map"] {
        std::fs::write(place.join(file), map).unwrap();
    }
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

fn skip() -> bool {
    if !is_root() {
        eprintln!("skipped: writing id maps needs root");
    }
    !is_root()
}

#[test]
fn with_a_range_of_ids() {
    if skip() {
        return;
    }
    let scratch = Scratch::new();
    in_namespace(&scratch, "forms::load_here", "0 0 1\n1 100001 65535\n");
    let line = |name: &str| {
        let layers = scratch.join("image/layers");
        let found =
            describe(&layers).into_iter().find(|line| line.split(' ').next().unwrap().ends_with(name));
        found.unwrap_or_else(|| panic!("{name}: {:?}", describe(&layers)))
    };
    // Seen from outside: the mapped owners.
    assert!(line("-user/fs/owned").contains(" 104711 101000:102000 "), "{}", line("fs/owned"));
}

#[test]
fn with_one_id() {
    if skip() {
        return;
    }
    let scratch = Scratch::new();
    in_namespace(&scratch, "forms::load_here", "0 0 1\n");
    let manifests: Vec<_> = std::fs::read_dir(scratch.join("image/layers"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path().join("manifest")).unwrap())
        .collect();
    // The true owners are kept.
    assert!(manifests.iter().any(|text| text.contains("f owned 4711 1000 2000 ")), "{manifests:?}");
    assert!(manifests.iter().any(|text| text.contains("d d 700 5 6 ")), "{manifests:?}");
    assert!(
        manifests.iter().any(|text| text.contains("c null 600 0 0 1000000000.000000000 0 1,3")),
        "{manifests:?}"
    );
}

#[test]
#[ignore = "run by the tests above in a user namespace"]
fn load_here() {
    let root = PathBuf::from(std::env::var("CORACLE_TEST_ROOT").unwrap());
    let source = format!("oci-archive:{}", root.join("i.tar").display()).parse().unwrap();
    let store = Store::open(&root).unwrap();
    store.load(&source, &LoadOptions::default()).unwrap();
    let image = store.resolve("ns:1", None).unwrap();
    assert_eq!(store.verify(None).unwrap(), []);
    let stat = |name: &str| std::fs::symlink_metadata(image.layers[0].join(name)).unwrap();
    let owner = match store.ownership() {
        Ownership::Real => (1000, 2000),
        Ownership::Squashed => (0, 0),
    };
    assert_eq!(
        (stat("owned").uid(), stat("owned").gid(), stat("owned").mode() & 0o7777),
        (owner.0, owner.1, 0o4711)
    );
    assert!(!image.layers[0].join("null").exists(), "devices are not made here");
    let attributes = xattrs(&image.layers[0].join("capable"));
    assert_eq!(attributes.len(), 1);
    assert_eq!(attributes[0].0, "security.capability");
    assert_eq!(xattrs(&image.layers[1].join("d")), [("user.overlay.opaque".to_owned(), b"y".to_vec())]);
    let scratch = Scratch { path: root };
    let merged = Merged::in_user_namespace(&scratch, &image);
    assert_eq!(merged.names(), ["capable", "d", "d/new", "owned", "pipe"]);
    // The test that started this one removes the directory.
    std::mem::forget(scratch);
}
