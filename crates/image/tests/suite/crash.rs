//! A load that is killed, or whose disk is full, at each of its steps leaves nothing that a later command trusts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use image::{LoadOptions, Store};

use crate::forge::{Layer, Tar, image};
use crate::scratch::{Scratch, is_root};

/// Calls by which a load changes the disk.
const CALLS: [&str; 19] = [
    "mkdir",
    "mkdirat",
    "rename",
    "renameat2",
    "fsync",
    "fdatasync",
    "fallocate",
    "syncfs",
    "unlinkat",
    "flock",
    "openat2",
    "symlinkat",
    "linkat",
    "mknodat",
    "fchown",
    "fchmod",
    "utimensat",
    "fsetxattr",
    "write",
];

fn archive(scratch: &Scratch) -> PathBuf {
    let base = Tar::new().dir("d").file("d/a", &[1; 3000]).symlink("d/s", "a").link("d/h", "d/a").end();
    let top = Tar::new().file("d/.wh.a", b"").file("d/new", &[2; 3000]).end();
    scratch.write("i.tar", &image("crash:1", &[Layer::gzip(&base), Layer::plain(top)]))
}

/// The process that is killed: this test binary, asked for one test.
fn child(scratch: &Scratch, test: &str) -> Vec<String> {
    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let root = scratch.path.to_str().unwrap();
    ["env", &format!("CORACLE_TEST_ROOT={root}"), &exe, "--exact", test, "--ignored", "--test-threads=1"]
        .map(str::to_owned)
        .to_vec()
}

#[test]
#[ignore = "run by the tests below in a process of its own"]
fn load_here() {
    let root = PathBuf::from(std::env::var("CORACLE_TEST_ROOT").unwrap());
    let source = format!("oci-archive:{}", root.join("i.tar").display()).parse().unwrap();
    let result = Store::open(&root).and_then(|store| store.load(&source, &LoadOptions::default()));
    std::process::exit(match result {
        Ok(_) => 0,
        Err(error) => {
            eprintln!("{error}");
            100
        }
    });
}

#[test]
#[ignore = "run by the tests below in a process of its own"]
fn remove_here() {
    let root = PathBuf::from(std::env::var("CORACLE_TEST_ROOT").unwrap());
    let removed = Store::open(&root).and_then(|store| {
        store.tag("crash:1", &"crash:2".parse().unwrap())?;
        let id = store.images()?[0].id.hex();
        store.remove(&id, true, || Ok(Default::default()))
    });
    std::process::exit(if removed.is_ok() { 0 } else { 100 });
}

/// The next command finds a whole image or none, and no rubbish; then a load works.
fn assert_sound(scratch: &Scratch, step: &str) {
    Store::open(&scratch.path).unwrap_or_else(|error| panic!("{step}: {error}"));
    let store = scratch.settled();
    assert_eq!(std::fs::read_dir(store.layout().join("staging")).unwrap().count(), 0, "{step}");
    let listed = format!("{:?}", store.images().unwrap());
    for index in ["listing.json", "listing.old"] {
        let _ = std::fs::remove_file(store.layout().join(index));
    }
    assert_eq!(listed, format!("{:?}", store.images().unwrap()), "{step}: the index lied");
    let images = store.images().unwrap();
    assert!(images.iter().all(|image| image.repository.is_some()), "{step}: an image has no name");
    assert_eq!(store.verify(None).unwrap(), [], "{step}");
    if let Some(image) = images.first() {
        assert!(images.iter().all(|other| other.id == image.id), "{step}: {images:?}");
        scratch.remove(&image.id.hex(), true, &[]).unwrap();
    }
    scratch.assert_empty();
    scratch.load(scratch.join("i.tar").to_str().unwrap()).unwrap();
    assert_eq!(store.verify(None).unwrap(), [], "{step}");
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(store.layout().join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1, "{step}");
}

/// Runs a test under strace again and again, with `fault` at each occurrence of each call. Gives the number of faults.
fn at_every_step(fault: &str, test: &str, prepare: impl Fn(&Scratch)) -> usize {
    let mut faults = 0;
    for call in CALLS {
        for at in 1.. {
            let scratch = Scratch::new();
            archive(&scratch);
            prepare(&scratch);
            let log = scratch.join("strace.log");
            let status = Command::new("strace")
                .args(["-f", "-qq", "-o", log.to_str().unwrap(), "-e", &format!("trace={call}")])
                .args(["-e", &format!("inject={call}:{fault}:when={at}")])
                .args(child(&scratch, test))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap();
            let text = std::fs::read_to_string(&log).unwrap();
            let hit = text.contains("INJECTED") || text.contains("SIGKILL");
            std::fs::remove_file(&log).unwrap();
            if !hit {
                assert!(status.success(), "{call} {at}: {text}");
                break;
            }
            faults += 1;
            assert_sound(&scratch, &format!("{fault} at {call} {at}"));
            assert!(at < 500, "{call} never ends");
        }
    }
    faults
}

fn has_strace() -> bool {
    let found = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: needs strace");
    }
    found
}

#[test]
fn killed_at_every_step() {
    if has_strace() {
        let faults = at_every_step("signal=KILL", "crash::load_here", |_| ());
        assert!(faults > 60, "only {faults}: strace saw nothing?");
    }
}

#[test]
fn disk_full_at_every_step() {
    if has_strace() {
        let faults = at_every_step("error=ENOSPC", "crash::load_here", |_| ());
        assert!(faults > 60, "only {faults}: strace saw nothing?");
    }
}

#[test]
fn removal_killed_or_without_space_at_every_step() {
    if has_strace() {
        for fault in ["signal=KILL", "error=ENOSPC"] {
            let load =
                |scratch: &Scratch| drop(scratch.load(scratch.join("i.tar").to_str().unwrap()).unwrap());
            let faults = at_every_step(fault, "crash::remove_here", load);
            assert!(faults > 30, "only {faults}: strace saw nothing?");
        }
    }
}

#[test]
fn killed_at_random() {
    let mut delay = Duration::from_micros(300);
    for _ in 0..40 {
        let scratch = Scratch::new();
        archive(&scratch);
        let mut args = child(&scratch, "crash::load_here").into_iter();
        let mut load = Command::new(args.next().unwrap())
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(delay);
        // Ended or not: its own pid, not yet waited for.
        let _ = load.kill();
        load.wait().unwrap();
        assert_sound(&scratch, &format!("killed after {delay:?}"));
        delay += Duration::from_micros(450);
    }
}

#[test]
fn a_disk_of_every_size() {
    if !is_root() {
        return eprintln!("skipped: mounting a small tmpfs needs root");
    }
    let mut failures = 0;
    for blocks in 4..64 {
        let scratch = Scratch::new();
        let file = archive(&scratch);
        let mount = scratch.join("small");
        std::fs::create_dir(&mount).unwrap();
        let exe = std::env::current_exe().unwrap();
        // The mount is in a namespace of its own and goes with it.
        let script = format!(
            "mount -t tmpfs -o size={}k small {mount} && cp {file} {mount}/i.tar && \
             CORACLE_TEST_ROOT={mount} {exe} --exact crash::load_on_a_small_disk --ignored --test-threads=1 --nocapture",
            blocks * 4 + 16,
            mount = mount.display(),
            file = file.display(),
            exe = exe.display(),
        );
        let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{blocks} blocks: {text}");
        failures += usize::from(text.contains("disk full"));
    }
    assert!(failures > 3, "{failures}");
}

#[test]
#[ignore = "run by the test above in a mount namespace of its own"]
fn load_on_a_small_disk() {
    let root = PathBuf::from(std::env::var("CORACLE_TEST_ROOT").unwrap());
    let source = format!("oci-archive:{}", root.join("i.tar").display()).parse().unwrap();
    let load = || Store::open(&root).and_then(|store| store.load(&source, &LoadOptions::default()));
    if let Err(error) = load() {
        println!("disk full");
        assert!(error.to_string().contains("No space left"), "{error}");
        assert!(error.advice().unwrap().contains("free space"));
        let layout = root.join("image");
        for directory in ["staging", "layers", "images", "references", "blobs/sha256"] {
            let left = std::fs::read_dir(layout.join(directory)).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{directory}");
        }
        crate::scratch::run("mount", &["-o", "remount,size=10m", root.to_str().unwrap()]);
        load().unwrap();
    }
    assert_eq!(Store::open(&root).unwrap().verify(None).unwrap(), []);
    assert!(Path::new(&root).exists());
}

#[test]
fn two_loads_at_once() {
    let scratch = Scratch::new();
    let file = archive(&scratch);
    let source = format!("oci-archive:{}", file.display());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| scratch.load(&source).unwrap());
        }
    });
    assert_sound(&scratch, "two loads");
}
