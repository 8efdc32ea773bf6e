//! The rest of `linux`: devices, paths that are hidden, sysctl, propagation of the root, personality, memory policy.

use serde_json::json;

use crate::bundle::{Bundle, run_ok};

#[test]
fn devices_are_made() {
    let mut bundle = bundle!();
    for device in [
        json!({"type": "c", "path": "/dev/char", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5, "gid": 6}),
        json!({"type": "u", "path": "/dev/unbuffered", "major": 1, "minor": 5}),
        json!({"type": "b", "path": "/dev/deep/block", "major": 7, "minor": 99, "fileMode": 0o600}),
        json!({"type": "p", "path": "/dev/fifo", "fileMode": 0o622}),
        json!({"type": "c", "path": "/elsewhere", "major": 1, "minor": 3}),
    ] {
        bundle.push("/linux/devices", device);
    }
    let names = "/dev/char /dev/unbuffered /dev/deep/block /dev/fifo /elsewhere";
    let out = bundle.inside(&format!("stat -c '%F %t:%T %a %u %g' {names}"));
    let rows: Vec<&str> = out.lines().collect();
    assert_eq!(rows[0], "character special file 1:3 640 5 6");
    assert!(rows[1].starts_with("character special file 1:5 "), "{out}");
    assert_eq!(rows[2], "block special file 7:63 600 0 0");
    assert!(rows[3].starts_with("fifo ") && rows[3].contains(" 622 "), "{out}");
    assert!(rows[4].starts_with("character special file 1:3 "), "{out}");
}

#[test]
fn default_devices_and_links_are_there() {
    let mut bundle = bundle!();
    bundle.mount(json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}));
    bundle.mount(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["newinstance", "ptmxmode=0666"]}));
    let names = ["null", "zero", "full", "random", "urandom", "tty"];
    let list = names.map(|name| format!("/dev/{name}")).join(" ");
    let out = bundle.inside(&format!("stat -c '%n %t:%T %a %u %g' {list}; readlink /dev/fd /dev/stdin; readlink /dev/stdin; readlink /dev/stdout; readlink /dev/stderr; readlink /dev/ptmx"));
    for (name, numbers) in [
        ("null", "1:3"),
        ("zero", "1:5"),
        ("full", "1:7"),
        ("random", "1:8"),
        ("urandom", "1:9"),
        ("tty", "5:0"),
    ] {
        assert!(out.contains(&format!("/dev/{name} {numbers} 666 0 0\n")), "{name}: {out}");
    }
    for link in ["/proc/self/fd/0\n", "/proc/self/fd/1\n", "/proc/self/fd/2\n", "pts/ptmx\n"] {
        assert!(out.contains(link), "{link}: {out}");
    }
    // Usable by any user, and with a user namespace, where nodes cannot be made and are bound.
    bundle.user_namespace();
    assert_eq!(bundle.inside("echo lost > /dev/null; head -c 3 /dev/zero | wc -c"), "3\n");
}

#[test]
fn sysctls_of_own_namespaces_are_set() {
    let mut bundle = bundle!();
    bundle.set(
        "/linux/sysctl",
        json!({
            "net.ipv4.ip_forward": "1",
            "net.ipv4.conf.lo.accept_local": "1",
            "kernel.shm_rmid_forced": "1",
            "fs.mqueue.msg_max": "17",
        }),
    );
    let out = bundle.inside("cd /proc/sys; cat net/ipv4/ip_forward net/ipv4/conf/lo/accept_local kernel/shm_rmid_forced fs/mqueue/msg_max");
    assert_eq!(out, "1\n1\n1\n17\n");
}

#[test]
fn sysctls_of_the_machine_are_refused() {
    drop(bundle!());
    for (name, without) in [
        ("vm.swappiness", ""),
        ("kernel.pid_max", ""),
        ("net.ipv4.ip_forward", "network"),
        ("kernel.shm_rmid_forced", "ipc"),
    ] {
        let mut bundle = Bundle::new();
        bundle.without_namespace(without);
        let mut sysctl = serde_json::Map::new();
        sysctl.insert(name.to_owned(), json!("1"));
        bundle.set("/linux/sysctl", sysctl);
        let error = bundle.refused();
        assert!(error.contains(name), "{error}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn masked_paths_cannot_be_read() {
    let mut bundle = bundle!();
    std::fs::create_dir(bundle.rootfs().join("secret")).unwrap();
    std::fs::write(bundle.rootfs().join("secret/file"), "secret").unwrap();
    std::fs::write(bundle.rootfs().join("etc/key"), "secret").unwrap();
    bundle.set("/linux/maskedPaths", json!(["/secret", "/etc/key", "/proc/version", "/nonexistent"]));
    let out = bundle.inside(
        "ls -a /secret; cat /etc/key /proc/version; stat -c %F /etc/key; touch /secret/x 2>&1; ls /nonexistent 2>&1 || :",
    );
    assert!(!out.contains("secret/file") && !out.contains("Linux version"), "{out}");
    assert!(out.starts_with(".\n..\n") && out.contains("character special file"), "{out}");
    assert!(out.contains("Read-only file system"), "{out}");
}

#[test]
fn readonly_paths_cannot_be_written() {
    let mut bundle = bundle!();
    std::fs::write(bundle.rootfs().join("etc/file"), "").unwrap();
    bundle.set("/linux/readonlyPaths", json!(["/proc/sys", "/etc", "/nonexistent"]));
    let out = bundle.inside("(echo 1 > /proc/sys/net/ipv4/ip_forward) 2>&1; touch /etc/new 2>&1; (echo > /etc/file) 2>&1; touch /tmp/x && echo other");
    assert_eq!(out.matches("Read-only file system").count(), 3, "{out}");
    assert!(out.ends_with("other\n"), "{out}");
}

/// The propagation of the container's root in mountinfo, for each word asked for, where the root was shared on the host.
#[track_caller]
fn assert_propagation(mut bundle: Bundle, words: &[(&str, &[&str])]) {
    let root = bundle.rootfs().to_str().unwrap().to_owned();
    run_ok("mount", &["--bind", &root, &root]);
    run_ok("mount", &["--make-shared", &root]);
    for (word, tags) in words {
        bundle.set("/linux/rootfsPropagation", *word);
        let line = bundle.inside("grep '/rootfs / ' /proc/self/mountinfo");
        let before = line.split(" - ").next().unwrap();
        let shown: Vec<&str> = before.split(' ').skip(6).map(|tag| tag.split(':').next().unwrap()).collect();
        assert_eq!(shown, *tags, "{word}: {line}");
    }
}

#[test]
fn rootfs_propagation_keeps_the_root_from_the_host() {
    assert_propagation(bundle!(), &[("private", &[]), ("rprivate", &[]), ("rslave", &["master"])]);
}

#[test]
fn rootfs_propagation_is_that_of_the_root() {
    let words: &[(&str, &[&str])] = &[
        ("slave", &["master"]),
        ("shared", &["shared"]),
        ("rshared", &["shared"]),
        ("unbindable", &["unbindable"]),
    ];
    assert_propagation(bundle!("linux.rootfsPropagation"), words);
}

#[test]
fn personality_is_taken() {
    let mut bundle = bundle!("linux.personality");
    bundle.set("/linux/personality", json!({"domain": "LINUX32"}));
    let out = bundle.inside("cat /proc/self/personality; uname -m");
    assert!(out.starts_with("00000008\n") && !out.contains("x86_64"), "{out}");
    bundle.set("/linux/personality", json!({"domain": "LINUX"}));
    assert_eq!(bundle.inside("cat /proc/self/personality"), "00000000\n");
    bundle.set("/linux/personality", json!({"domain": "NOPE"}));
    bundle.refused();
}

#[test]
fn memory_policy_is_taken() {
    let mut bundle = bundle!("linux.memoryPolicy");
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        skip!("the kernel has no NUMA");
    }
    let policy = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    bundle.set("/linux/memoryPolicy", policy);
    let out = bundle.inside("cat /proc/self/numa_maps");
    assert!(out.lines().all(|line| line.contains(" bind=static:0 ") || line.contains(" bind")), "{out}");
    bundle.set("/linux/memoryPolicy", json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}));
    assert!(bundle.inside("cat /proc/self/numa_maps").contains(" interleave:0 "));
    bundle.set("/linux/memoryPolicy", json!({"mode": "MPOL_NOPE", "nodes": "0"}));
    bundle.refused();
}

#[test]
fn a_mount_label_is_refused_where_selinux_is_off() {
    let mut bundle = bundle!();
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        skip!("SELinux is on");
    }
    bundle.set("/linux/mountLabel", "system_u:object_r:container_file_t:s0");
    bundle.mount(json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs"}));
    bundle.refused();
    bundle.assert_nothing_left();
}
