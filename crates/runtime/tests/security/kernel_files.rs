//! The kernel's own files in the container: they are where they are taken for, and what covers them is what it should be.

use std::os::unix::fs::symlink;

use serde_json::json;

use crate::bundle::Bundle;
use crate::socket::Socket;

/// A volume: a directory of the host that others may change.
fn volume(bundle: &Bundle) -> std::path::PathBuf {
    let volume = bundle.directory().join("volume");
    std::fs::create_dir_all(volume.join("proc/self/attr")).unwrap();
    std::fs::create_dir(volume.join("sys")).unwrap();
    volume
}

fn bind(bundle: &mut Bundle, source: &std::path::Path, destination: &str) {
    bundle.mount(json!({
        "destination": destination, "type": "bind", "source": source.to_str().unwrap(), "options": ["rbind"],
    }));
}

/// A volume over `/proc`, or over a part of it, took what was written for the kernel.
#[test]
fn cve_2019_16884() {
    let mut bundle = bundle!();
    let volume = volume(&bundle);
    let proc = bundle.config["mounts"].clone();
    for destination in ["/proc", "/proc/", "/mnt/../proc", "/proc/self/attr", "/proc/sys"] {
        bundle.set("/mounts", if destination.contains("proc/s") { proc.clone() } else { json!([]) });
        bind(&mut bundle, &volume, destination);
        let told = bundle.refused();
        assert!(told.contains("cannot be mounted because it is"), "{destination}: {told}");
    }
    bundle.set("/mounts", proc);
    symlink("proc/self", bundle.rootfs().join("link")).unwrap();
    bind(&mut bundle, &volume, "/link/attr");
    bundle.refused();
}

/// `/proc` of the image was a link into a volume that another container changes meanwhile.
#[test]
fn cve_2019_19921() {
    let mut bundle = bundle!();
    let (volume, proc) = (volume(&bundle), bundle.config["mounts"].clone());
    std::fs::remove_dir(bundle.rootfs().join("proc")).unwrap();
    symlink("/volume/proc", bundle.rootfs().join("proc")).unwrap();
    bundle.set("/mounts", json!([]));
    bind(&mut bundle, &volume, "/volume");
    bundle.push("/mounts", proc[0].clone());
    let told = bundle.refused();
    assert!(told.contains("must be mounted on ordinary directory"), "{told}");
}

/// The same came back: the link was followed again, inside the root.
#[test]
fn cve_2023_27561() {
    let bundle = bundle!();
    std::fs::remove_dir(bundle.rootfs().join("proc")).unwrap();
    std::fs::create_dir(bundle.rootfs().join("elsewhere")).unwrap();
    symlink("etc/../elsewhere", bundle.rootfs().join("proc")).unwrap();
    let told = bundle.refused();
    assert!(told.contains("filesystem \"proc\" must be mounted on ordinary directory"), "{told}");
}

/// `/sys` as a link, by which labels of AppArmor were not set, too.
#[test]
fn cve_2023_28642() {
    let mut bundle = bundle!();
    std::fs::remove_dir(bundle.rootfs().join("sys")).unwrap();
    std::fs::create_dir(bundle.rootfs().join("elsewhere")).unwrap();
    symlink("/elsewhere", bundle.rootfs().join("sys")).unwrap();
    bundle.mount(json!({"destination": "/sys", "type": "sysfs", "source": "sysfs"}));
    let told = bundle.refused();
    assert!(told.contains("filesystem \"sysfs\" must be mounted on ordinary directory"), "{told}");
}

/// `/dev/null` of the container, which covers hidden files, was a link to a file of the kernel's, or nothing.
#[test]
fn cve_2025_31133() {
    let mut bundle = bundle!();
    let volume = volume(&bundle);
    symlink("/proc/version", volume.join("null")).unwrap();
    bind(&mut bundle, &volume, "/dev");
    bundle.set("/linux/maskedPaths", json!(["/proc/uptime", "/proc/loadavg"]));
    let out = bundle.inside("cat /proc/uptime /proc/loadavg; stat -c %t:%T /proc/uptime /proc/loadavg");
    assert_eq!(out, "1:3\n1:3\n");
}

/// The terminal was put over whatever `/dev/console` of the container led to.
#[test]
fn cve_2025_52565() {
    let mut bundle = bundle!();
    std::fs::write(bundle.rootfs().join("etc/target"), "").unwrap();
    symlink("../etc/target", bundle.rootfs().join("dev/console")).unwrap();
    std::fs::create_dir(bundle.rootfs().join("dev/pts")).unwrap();
    bundle.mount(json!({
        "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"],
    }));
    bundle.set("/process/terminal", true).set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.write_config();
    let socket = bundle.path("console");
    let _listening = Socket::listen(socket.as_ref());
    let ran = bundle.run(&["create", "--console-socket", &socket, "--bundle", "{bundle}", "{id}"]);
    assert_ne!(ran.code, 0, "the link was followed: {ran:?}");
    assert!(ran.err.contains("/dev/console"), "{ran:?}");
}

/// What was written to `/proc` went to a file that an image or a volume had put there.
#[test]
fn cve_2025_52881() {
    let mut bundle = bundle!();
    let fake = bundle.rootfs().join("proc/sys/net/ipv4");
    std::fs::create_dir_all(&fake).unwrap();
    std::fs::write(fake.join("ip_forward"), "unchanged").unwrap();
    bundle.set("/mounts", json!([]));
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    let ran = bundle.run_container();
    assert_eq!(std::fs::read_to_string(fake.join("ip_forward")).unwrap(), "unchanged", "{ran:?}");
}
