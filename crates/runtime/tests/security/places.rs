//! Places to mount on: whatever links an image or a volume has, and whoever changes them meanwhile, they are below the container's root.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags};
use serde_json::json;

use crate::bundle::Bundle;

/// A directory of the host.
fn outside(bundle: &Bundle) -> PathBuf {
    let outside = bundle.directory().join("outside");
    std::fs::create_dir(&outside).unwrap();
    outside
}

/// A place in a volume was changed for a link while mounts were made, and the mount came where that led on the host.
#[test]
fn cve_2021_30465() {
    let mut bundle = bundle!();
    let outside = outside(&bundle);
    let volume = bundle.directory().join("volume");
    std::fs::create_dir_all(volume.join("place")).unwrap();
    symlink(&outside, volume.join("other")).unwrap();
    bundle.mount(json!({
        "destination": "/volume", "type": "bind", "source": volume.to_str().unwrap(), "options": ["bind"],
    }));
    bundle.mount(json!({"destination": "/volume/place", "type": "tmpfs", "source": "swapped"}));
    bundle.script("grep -c '^swapped ' /proc/self/mounts");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                let (one, other) = (volume.join("place"), volume.join("other"));
                rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let outputs: Vec<String> = (0..40).map(|_| bundle.run_container().out).collect();
        // Before anything is checked: the thread would go on for ever.
        is_done.store(true, Ordering::Relaxed);
        assert!(outputs.iter().any(|output| output == "1\n"), "none was made: {outputs:?}");
        assert!(outputs.iter().all(|output| output != "0\n"), "a mount is not in the container: {outputs:?}");
    });
}

/// Places were made, with all directories on the way, where links led on the host.
#[test]
fn cve_2024_45310() {
    let mut bundle = bundle!();
    let outside = outside(&bundle);
    symlink(&outside, bundle.rootfs().join("link")).unwrap();
    symlink(outside.join("not/yet"), bundle.rootfs().join("dangling")).unwrap();
    let file = bundle.directory().join("file");
    std::fs::write(&file, "").unwrap();
    bundle.mount(json!({"destination": "/link/a/b", "type": "tmpfs", "source": "tmpfs"}));
    bundle.mount(json!({"destination": "/dangling/c", "type": "tmpfs", "source": "tmpfs"}));
    bundle.mount(json!({
        "destination": "/link/d/file", "type": "bind", "source": file.to_str().unwrap(), "options": ["bind"],
    }));
    bundle.run_container();
    let made: Vec<_> = std::fs::read_dir(&outside).unwrap().collect();
    assert!(made.is_empty(), "made on the host: {made:?}");
}

/// `/dev` of an image led to a directory of the host, in which nodes and links were made and removed.
#[test]
fn cve_2026_41579() {
    let bundle = bundle!();
    let outside = outside(&bundle);
    std::fs::write(outside.join("ptmx"), "of the host").unwrap();
    std::fs::remove_dir(bundle.rootfs().join("dev")).unwrap();
    symlink(&outside, bundle.rootfs().join("dev")).unwrap();
    bundle.run_container();
    let left: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["ptmx"]);
    assert_eq!(std::fs::read_to_string(outside.join("ptmx")).unwrap(), "of the host");
}
