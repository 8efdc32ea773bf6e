//! What a container sees of the kernel's file systems and of mounts that are there already, where it has not all namespaces of its own,
//! and where its root file system is not as expected.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::{Value, json};

use crate::bundle::{run_ok, trees};
use crate::under_test::runc;

fn mount(kind: &str, source: &str, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

#[test]
fn a_missing_source_is_told_with_both_ends() {
    let mut bundle = bundle!();
    bundle.mount(mount("bind", "/nowhere/at/all", "/mnt", &["bind"]));
    let told = bundle.refused();
    let text = "error mounting \"/nowhere/at/all\" to rootfs at \"/mnt\": stat /nowhere/at/all: no such file or directory";
    assert!(told.ends_with(text), "{told}");
}

#[test]
fn tmpcopyup_keeps_owners_modes_links_and_attributes() {
    let mut bundle = bundle!();
    if runc().is_some() {
        skip!("runc 1.1 makes one file of each name");
    }
    let data = bundle.rootfs().join("data");
    std::fs::create_dir_all(data.join("sub")).unwrap();
    std::fs::write(data.join("sub/file"), "text").unwrap();
    std::fs::hard_link(data.join("sub/file"), data.join("again")).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", data.join("link")).unwrap();
    std::os::unix::fs::chown(data.join("sub/file"), Some(7), Some(8)).unwrap();
    std::fs::set_permissions(data.join("sub/file"), std::fs::Permissions::from_mode(0o4750)).unwrap();
    std::fs::set_permissions(data.join("sub"), std::fs::Permissions::from_mode(0o711)).unwrap();
    rustix::fs::setxattr(data.join("sub/file"), "trusted.test", b"kept", rustix::fs::XattrFlags::empty())
        .unwrap();
    bundle.mount(mount("tmpfs", "tmpfs", "/data", &["tmpcopyup", "ro"]));
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    bundle.create();
    let inside = std::path::PathBuf::from(format!("/proc/{}/root/data", bundle.pid()));
    let file = std::fs::metadata(inside.join("sub/file")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777, file.nlink()), (7, 8, 0o4750, 2));
    assert_eq!(std::fs::metadata(inside.join("sub")).unwrap().mode() & 0o7777, 0o711);
    assert_eq!(std::fs::read_link(inside.join("link")).unwrap().to_str(), Some("/etc/shadow"));
    assert_eq!(std::fs::read_to_string(inside.join("again")).unwrap(), "text");
    let seen = std::fs::metadata(data.join("sub/file")).unwrap();
    assert_ne!(seen.dev(), file.dev());
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(inside.join("sub/file"), "trusted.test", value.as_mut_slice()).unwrap();
    assert_eq!(&value[..length], b"kept");
    assert!(std::fs::write(inside.join("new"), "").is_err(), "it is read-only");
}

#[test]
fn a_tmpfs_takes_the_mode_of_the_directory_it_hides() {
    let mut bundle = bundle!();
    if runc().is_some() {
        skip!("runc 1.1 gives it that mode whatever the options say");
    }
    let tmp = bundle.rootfs().join("tmp");
    std::fs::set_permissions(&tmp, std::fs::Permissions::from_mode(0o1777)).unwrap();
    bundle.mount(mount("tmpfs", "tmpfs", "/tmp", &[]));
    bundle.mount(mount("tmpfs", "tmpfs", "/mnt", &["mode=700"]));
    assert_eq!(bundle.inside("stat -c %a /tmp /mnt"), "1777\n700\n");
}

#[test]
fn a_mount_is_changed_by_remount() {
    let mut bundle = bundle!();
    bundle.mount(mount("tmpfs", "tmpfs", "/mnt", &["nodev"]));
    let source = bundle.rootfs().join("tmp").to_str().unwrap().to_owned();
    bundle.mount(mount("bind", &source, "/mnt", &["bind", "remount", "ro", "nodev"]));
    assert_eq!(bundle.inside("touch /mnt/a 2>/dev/null || echo read-only"), "read-only\n");
}

#[test]
fn remount_without_bind_changes_the_file_system() {
    let mut bundle = bundle!();
    bundle.mount(mount("tmpfs", "tmpfs", "/mnt", &[]));
    bundle.mount(mount("tmpfs", "tmpfs", "/mnt", &["remount", "size=64k"]));
    let line = bundle.inside("grep ' /mnt ' /proc/self/mounts");
    assert!(line.contains("size=64k"), "{line}");
}

#[test]
fn what_is_not_mounted_cannot_be_remounted() {
    let mut bundle = bundle!();
    bundle.mount(mount("bind", "/tmp", "/mnt", &["bind", "remount", "ro"]));
    let told = bundle.refused();
    assert!(told.contains("error mounting \"/tmp\" to rootfs at \"/mnt\""), "{told}");
}

#[test]
fn nothing_is_mounted_over_the_root() {
    let mut bundle = bundle!();
    for destination in ["/", "/mnt/.."] {
        bundle.set("/mounts", json!([mount("tmpfs", "tmpfs", destination, &[])]));
        bundle.refused();
    }
}

#[test]
fn sockets_and_devices_are_bound() {
    let mut bundle = bundle!();
    let socket = bundle.directory().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    bundle.mount(mount("bind", socket.to_str().unwrap(), "/run/socket", &["bind"]));
    bundle.mount(mount("tmpfs", "tmpfs", "/dev", &["mode=755"]));
    bundle.mount(mount("bind", "/dev/zero", "/dev/also", &["bind"]));
    assert_eq!(bundle.inside("test -S /run/socket && test -c /dev/also && echo both"), "both\n");
}

#[test]
fn options_that_the_host_has_locked_stay() {
    let mut bundle = bundle!();
    if runc().is_some() {
        skip!("runc 1.1 keeps them only where it is told none of their opposites");
    }
    bundle.user_namespace();
    let source = bundle.directory().join("source");
    std::fs::create_dir(&source).unwrap();
    run_ok("mount", &["-t", "tmpfs", "-o", "nodev,nosuid,noexec,noatime", "tmpfs", source.to_str().unwrap()]);
    bundle.mount(mount("bind", source.to_str().unwrap(), "/mnt", &["bind", "ro", "dev", "suid", "exec"]));
    let line = bundle.inside("grep ' /mnt ' /proc/self/mounts");
    let options: Vec<&str> = line.split(' ').nth(3).unwrap().split(',').collect();
    for option in ["ro", "nodev", "nosuid", "noexec"] {
        assert!(options.contains(&option), "{option}: {line}");
    }
}

#[test]
fn sysfs_is_the_hosts_read_only_without_a_network_namespace_of_its_own() {
    let mut bundle = bundle!();
    if runc().is_some() {
        skip!("runc refuses it: its callers write a bind mount into the configuration");
    }
    bundle.user_namespace();
    bundle.without_namespace("network");
    bundle.mount(mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]));
    let all = bundle.inside("grep ' /sys' /proc/self/mounts");
    assert!(all.lines().next().unwrap().starts_with("sysfs /sys sysfs ro"), "{all}");
    let writable = |line: &&str| !line.split(' ').nth(3).unwrap().split(',').any(|option| option == "ro");
    assert_eq!(all.lines().filter(writable).collect::<Vec<_>>(), [""; 0], "CVE-2023-25809");
}

#[test]
fn devpts_goes_without_a_group_that_is_not_mapped() {
    let mut bundle = bundle!();
    if runc().is_some() {
        skip!("runc refuses it: its callers leave the option out");
    }
    bundle.user_namespace();
    let one = json!([{"containerID": 0, "hostID": 100_000, "size": 1}]);
    bundle.set("/linux/uidMappings", one.clone()).set("/linux/gidMappings", one);
    bundle.mount(mount("tmpfs", "tmpfs", "/dev", &["mode=755"]));
    bundle.mount(mount(
        "devpts",
        "devpts",
        "/dev/pts",
        &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ));
    assert_eq!(bundle.inside("test -c /dev/pts/ptmx && echo there"), "there\n");
}

#[test]
fn without_a_cgroup_namespace_the_container_sees_its_own_group() {
    let mut bundle = bundle!();
    bundle.mount(mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "ro"]));
    let old = trees().into_iter().find(|tree| tree.controllers != ["unified"]);
    let name = old.map_or(String::new(), |tree| tree.mount.file_name().unwrap().to_str().unwrap().to_owned());
    let directory = format!("/sys/fs/cgroup/{name}");
    let inside = bundle
        .inside(&format!("cat {directory}/cgroup.procs; mkdir {directory}/x 2>/dev/null || echo read-only"));
    let lines: Vec<&str> = inside.lines().collect();
    // Itself and cat, as numbers of its own PID namespace; the root group would show zeros for those outside.
    assert!(lines[0] == "1" && lines.len() <= 3 && lines.last() == Some(&"read-only"), "{inside}");
}

#[test]
fn paths_are_hidden_without_a_null_device_in_the_container() {
    let mut bundle = bundle!();
    std::fs::write(bundle.rootfs().join("etc/secret"), "secret").unwrap();
    let empty = bundle.directory().join("empty");
    std::fs::create_dir(&empty).unwrap();
    // With somebody's own /dev no nodes are made in it.
    bundle.mount(mount("bind", empty.to_str().unwrap(), "/dev", &["bind"]));
    bundle.set("/linux/maskedPaths", json!(["/etc/secret", "/proc/uptime", "/proc/bus", "/nowhere"]));
    if runc().is_some() {
        skip!("runc 1.1 cannot");
    }
    let script = "ls /dev | wc -l; cat /etc/secret; stat -c %t:%T /etc/secret /proc/uptime";
    assert_eq!(bundle.inside(script).replace(' ', ""), "0\n1:3\n1:3\n");
}

#[test]
fn the_root_is_moved_where_it_cannot_be_pivoted() {
    let mut bundle = bundle!();
    bundle.script("cat /proc/self/mountinfo; ls /");
    bundle.write_config();
    let ran = bundle.run(&["run", "--no-pivot", "--bundle", "{bundle}", "{id}"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.lines().any(|line| line == "bin") && !ran.out.lines().any(|line| line == "boot"),
        "{ran:?}"
    );
    let proc = ran.out.lines().filter(|line| line.contains(" - proc ")).count();
    assert_eq!(proc, 1, "{ran:?}");
}

#[test]
fn the_root_is_read_only_without_pivot_too() {
    let mut bundle = bundle!();
    bundle.set("/root/readonly", true);
    bundle.script("touch /x 2>/dev/null || echo read-only");
    bundle.write_config();
    let ran = bundle.run(&["run", "--no-pivot", "--bundle", "{bundle}", "{id}"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "read-only\n"), "{ran:?}");
}

#[test]
fn links_lead_to_no_hidden_path() {
    let mut bundle = bundle!();
    if runc().is_some() {
        skip!("runc 1.1 follows them");
    }
    std::os::unix::fs::symlink("/etc/hostname", bundle.rootfs().join("etc/link")).unwrap();
    std::fs::write(bundle.rootfs().join("etc/hostname"), "x").unwrap();
    for property in ["/linux/maskedPaths", "/linux/readonlyPaths"] {
        bundle.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
        bundle.set(property, json!(["/etc/link"]));
        let told = bundle.refused();
        assert!(told.contains("symbolic link"), "{told}");
    }
}
