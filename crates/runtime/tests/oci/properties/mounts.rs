//! `mounts`: every kind and every option, seen in the container's own mountinfo.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::bundle::{Bundle, State, eventually, run_ok, trees};

/// A line of mountinfo.
#[derive(Debug)]
struct Mount {
    point: String,
    root: String,
    options: Vec<String>,
    propagation: Vec<String>,
    kind: String,
    super_options: Vec<String>,
}

fn mounts(mountinfo: &str) -> Vec<Mount> {
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ").unwrap();
        let (before, after): (Vec<&str>, Vec<&str>) =
            (before.split(' ').collect(), after.split(' ').collect());
        Mount {
            point: before[4].to_owned(),
            root: before[3].to_owned(),
            options: list(before[5]),
            propagation: before[6..].iter().map(|tag| tag.split(':').next().unwrap().to_owned()).collect(),
            kind: after[0].to_owned(),
            super_options: list(after.last().unwrap()),
        }
    };
    mountinfo.lines().map(mount).collect()
}

/// The container's mounts.
#[track_caller]
fn inside(bundle: &mut Bundle) -> Vec<Mount> {
    mounts(&bundle.inside("cat /proc/self/mountinfo"))
}

#[track_caller]
fn at<'a>(mounts: &'a [Mount], point: &str) -> &'a Mount {
    mounts.iter().rfind(|mount| mount.point == point).unwrap_or_else(|| panic!("no {point} in {mounts:#?}"))
}

impl Mount {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|has| has == option)
    }
}

/// A directory of the bundle as a bind mount's source, with a file in it.
fn source(bundle: &Bundle) -> PathBuf {
    let source = bundle.directory().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "of the host").unwrap();
    source
}

/// The same with a tmpfs mounted on its directory `sub`, which has a file too.
/// The kernel's version.
fn release() -> (u32, u32) {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn source_with_mount(bundle: &Bundle) -> PathBuf {
    let source = source(bundle);
    let sub = source.join("sub");
    std::fs::create_dir(&sub).unwrap();
    run_ok("mount", &["-t", "tmpfs", "tmpfs", sub.to_str().unwrap()]);
    std::fs::write(sub.join("below"), "").unwrap();
    source
}

fn bind(source: &std::path::Path, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source.to_str().unwrap(), "options": options})
}

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options})
}

#[test]
fn bind_shows_one_mount_and_rbind_all_below() {
    let mut bundle = bundle!();
    let source = source_with_mount(&bundle);
    bundle.mount(bind(&source, "/one", &["bind"])).mount(bind(&source, "/all", &["rbind"]));
    let out = bundle.inside("cat /one/file; ls /one/sub; ls /all/sub; echo new > /all/written");
    assert_eq!(out, "of the hostbelow\n");
    assert!(source.join("written").exists());
    // The kind of mount is said by the option, whatever the type.
    bundle.set("/mounts/1/type", "none").remove("/mounts/2/type");
    assert_eq!(bundle.inside("cat /one/file; ls /all/sub"), "of the hostbelow\n");
}

#[test]
fn a_file_is_bound_on_a_file() {
    let mut bundle = bundle!();
    let source = source(&bundle);
    std::fs::write(bundle.rootfs().join("etc/there"), "old").unwrap();
    bundle.mount(bind(&source.join("file"), "/etc/there", &["bind"]));
    bundle.mount(bind(&source.join("file"), "/etc/deep/made", &["bind", "ro"]));
    let out = bundle.inside("cat /etc/there /etc/deep/made; echo x 2>&1 > /etc/deep/made || :");
    assert_eq!(out.matches("of the host").count(), 2, "{out}");
    assert_eq!(std::fs::read_to_string(bundle.rootfs().join("etc/there")).unwrap(), "old");
    assert_eq!(std::fs::read_to_string(source.join("file")).unwrap(), "of the host");
}

#[test]
fn a_source_is_relative_to_the_bundle() {
    let mut bundle = bundle!();
    source(&bundle);
    bundle.mount(bind("source".as_ref(), "/one", &["bind"]));
    assert_eq!(bundle.inside("cat /one/file"), "of the host");
}

#[test]
fn a_missing_source_is_refused() {
    let mut bundle = bundle!();
    bundle.mount(bind("/nonexistent".as_ref(), "/one", &["bind"]));
    let error = bundle.refused();
    assert!(error.contains("/nonexistent") && error.contains("no such file or directory"), "{error}");
    bundle.assert_nothing_left();
}

/// Each option with what it becomes in mountinfo: a word that is there, or one that is not (`!`).
const OPTIONS: &[(&[&str], &[&str])] = &[
    (&["ro"], &["ro"]),
    (&["rw"], &["rw", "!ro"]),
    (&["ro", "rw"], &["rw"]),
    (&["nosuid"], &["nosuid"]),
    (&["nosuid", "suid"], &["!nosuid"]),
    (&["nodev"], &["nodev"]),
    (&["nodev", "dev"], &["!nodev"]),
    (&["noexec"], &["noexec"]),
    (&["noexec", "exec"], &["!noexec"]),
    (&["noatime"], &["noatime"]),
    (&["noatime", "atime"], &["!noatime"]),
    (&["nodiratime"], &["nodiratime"]),
    (&["nodiratime", "diratime"], &["!nodiratime"]),
    (&["relatime"], &["relatime"]),
    (&["strictatime"], &["!relatime", "!noatime"]),
    (&["nosuid", "nodev", "noexec", "ro"], &["nosuid", "nodev", "noexec", "ro"]),
];

#[track_caller]
fn assert_options(mounts: &[Mount], point: &str, asked: &[&str], shown: &[&str]) {
    let mount = at(mounts, point);
    for word in shown {
        let (wanted, word) = word.strip_prefix('!').map_or((true, *word), |word| (false, word));
        assert_eq!(mount.has(word), wanted, "{asked:?} on {point} must have {shown:?}: {mount:?}");
    }
}

#[test]
fn options_are_flags_of_a_new_mount() {
    let mut bundle = bundle!();
    for (number, (asked, _)) in OPTIONS.iter().enumerate() {
        bundle.mount(tmpfs(&format!("/t{number}"), asked));
    }
    let mounts = inside(&mut bundle);
    for (number, (asked, shown)) in OPTIONS.iter().enumerate() {
        assert_options(&mounts, &format!("/t{number}"), asked, shown);
    }
}

#[test]
fn options_are_flags_of_a_bind_mount() {
    let mut bundle = bundle!();
    let source = source(&bundle);
    for (number, (asked, _)) in OPTIONS.iter().enumerate() {
        bundle.mount(bind(&source, &format!("/t{number}"), &[&["bind"], *asked].concat()));
    }
    let mounts = inside(&mut bundle);
    for (number, (asked, shown)) in OPTIONS.iter().enumerate() {
        assert_options(&mounts, &format!("/t{number}"), asked, shown);
    }
    // The host's own mount is not changed by any of it.
    std::fs::write(source.join("still"), "").unwrap();
}

#[test]
fn sync_and_dirsync_are_set() {
    let mut bundle = bundle!();
    bundle
        .mount(tmpfs("/t0", &["sync"]))
        .mount(tmpfs("/t1", &["dirsync"]))
        .mount(tmpfs("/t2", &["sync", "async"]));
    let mounts = inside(&mut bundle);
    let has = |point, word: &str| at(&mounts, point).super_options.iter().any(|option| option == word);
    assert!(has("/t0", "sync") && has("/t1", "dirsync") && !has("/t2", "sync"), "{mounts:?}");
}

/// Recursive forms, which change every mount below as well.
#[test]
fn recursive_options_reach_mounts_below() {
    let mut bundle = bundle!();
    let source = source_with_mount(&bundle);
    let options: &[(&[&str], &[&str])] = &[
        (&["rro"], &["ro"]),
        (&["rnosuid"], &["nosuid"]),
        (&["rnodev"], &["nodev"]),
        (&["rnoexec"], &["noexec"]),
        (&["rnoatime"], &["noatime"]),
        (&["rnodiratime"], &["nodiratime"]),
        (&["rnosymfollow"], &["nosymfollow"]),
        (&["rstrictatime"], &["!relatime"]),
        (&["rrelatime"], &["relatime"]),
        (&["rro", "rnosuid", "rnoexec"], &["ro", "nosuid", "noexec"]),
    ];
    for (number, (asked, _)) in options.iter().enumerate() {
        bundle.mount(bind(&source, &format!("/t{number}"), &[&["rbind"], *asked].concat()));
    }
    // The plain form reaches the top only.
    bundle.mount(bind(&source, "/plain", &["rbind", "ro"]));
    let mounts = inside(&mut bundle);
    for (number, (asked, shown)) in options.iter().enumerate() {
        assert_options(&mounts, &format!("/t{number}"), asked, shown);
        assert_options(&mounts, &format!("/t{number}/sub"), asked, shown);
    }
    assert!(at(&mounts, "/plain").has("ro") && at(&mounts, "/plain/sub").has("rw"), "{mounts:?}");
}

#[test]
fn recursive_options_take_back_from_mounts_below() {
    let mut bundle = bundle!();
    let source = source_with_mount(&bundle);
    let all = "remount,bind,ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow";
    run_ok("mount", &["-o", all, source.join("sub").to_str().unwrap()]);
    let options: &[(&[&str], &[&str])] = &[
        (&["rrw"], &["rw", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"]),
        (&["rsuid"], &["!nosuid", "ro"]),
        (&["rdev"], &["!nodev", "ro"]),
        (&["rexec"], &["!noexec", "ro"]),
        (&["rdiratime"], &["!nodiratime", "ro"]),
        (&["rrelatime"], &["!noatime", "relatime", "ro"]),
        (&["rsymfollow"], &["!nosymfollow", "ro"]),
    ];
    for (number, (asked, _)) in options.iter().enumerate() {
        bundle.mount(bind(&source, &format!("/t{number}"), &[&["rbind"], *asked].concat()));
    }
    let mounts = inside(&mut bundle);
    for (number, (asked, shown)) in options.iter().enumerate() {
        assert_options(&mounts, &format!("/t{number}/sub"), asked, shown);
    }
}

#[test]
fn tmpfs_takes_its_options() {
    let mut bundle = bundle!();
    bundle.mount(tmpfs("/t", &["size=1m", "mode=1770", "nr_inodes=100", "uid=5", "gid=6"]));
    let out = bundle
        .inside("stat -c '%a %u %g' /t; df -k /t | tail -1; df -i /t | tail -1; cat /proc/self/mountinfo");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "1770 5 6");
    assert_eq!(lines[1].split_whitespace().nth(1), Some("1024"), "{out}");
    assert_eq!(lines[2].split_whitespace().nth(1), Some("100"), "{out}");
    // Without a mode, that of the directory it is mounted on.
    let mut bundle = Bundle::new();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1751);
    std::fs::set_permissions(bundle.rootfs().join("mnt"), mode).unwrap();
    bundle.mount(tmpfs("/mnt", &[]));
    assert_eq!(bundle.inside("stat -c %a /mnt"), "1751\n");
    bundle.set("/mounts/1/options", json!(["size=nonsense"]));
    bundle.refused();
}

#[test]
fn tmpcopyup_copies_what_was_there() {
    let mut bundle = bundle!();
    let etc = bundle.rootfs().join("etc");
    std::fs::create_dir(etc.join("deep")).unwrap();
    std::fs::write(etc.join("deep/file"), "content").unwrap();
    std::os::unix::fs::symlink("deep/file", etc.join("link")).unwrap();
    std::os::unix::fs::chown(etc.join("deep/file"), Some(5), Some(6)).unwrap();
    bundle.mount(tmpfs("/etc", &["tmpcopyup"]));
    let out = bundle
        .inside("cat /etc/link; stat -c ' %u %g' /etc/deep/file; readlink /etc/link; echo x > /etc/new");
    assert_eq!(out, "content 5 6\ndeep/file\n");
    assert!(!etc.join("new").exists());
}

#[test]
fn kernel_file_systems_are_mounted() {
    let mut bundle = bundle!();
    bundle.mount(
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid"]}),
    );
    bundle.mount(tmpfs("/dev", &["mode=755"]));
    let pts = json!(["newinstance", "ptmxmode=0666", "mode=0620", "gid=5", "noexec"]);
    bundle.mount(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts}));
    bundle.mount(json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"}));
    bundle.mount(tmpfs("/dev/shm", &["size=65536k"]));
    let out = bundle.inside(
        "ls /sys/class/net; ls -l /dev/ptmx; ls -l /dev/pts/; cat /proc/self/mountinfo | sed 's/^/M/'",
    );
    let table: String =
        out.lines().filter_map(|line| line.strip_prefix('M')).map(|line| format!("{line}\n")).collect();
    let mounts = mounts(&table);
    for (point, kind) in [
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev/pts", "devpts"),
        ("/dev/mqueue", "mqueue"),
        ("/dev/shm", "tmpfs"),
    ] {
        assert_eq!(at(&mounts, point).kind, kind);
    }
    assert!(at(&mounts, "/sys").has("ro") && at(&mounts, "/dev/pts").has("noexec"));
    let options = &at(&mounts, "/dev/pts").super_options;
    assert!(
        ["gid=5", "mode=620", "ptmxmode=666"].iter().all(|word| options.iter().any(|has| has == word)),
        "{options:?}"
    );
    // The network of the container's own namespace: nothing but lo.
    assert!(out.starts_with("lo\n"), "{out}");
    assert!(out.contains("/dev/ptmx -> "), "{out}");
    let unknown = json!({"destination": "/x", "type": "nofs", "source": "x"});
    bundle.set("/mounts", json!([unknown]));
    assert!(bundle.refused().contains("no such device"));
}

/// A mount of type cgroup shows the container's groups, and no more than may be seen.
#[test]
fn cgroup_shows_the_containers_groups() {
    let mut bundle = bundle!();
    bundle.mount(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["ro", "nosuid", "noexec", "nodev"]}));
    bundle.namespace("cgroup", None);
    let out =
        bundle.inside("ls /sys/fs/cgroup; cat /proc/self/cgroup; cat /proc/self/mountinfo | sed 's/^/M/'");
    let table: String =
        out.lines().filter_map(|line| line.strip_prefix('M')).map(|line| format!("{line}\n")).collect();
    let mounts = mounts(&table);
    let v1: Vec<_> = trees().into_iter().filter(|tree| tree.controllers != ["unified"]).collect();
    if v1.is_empty() {
        assert_eq!(at(&mounts, "/sys/fs/cgroup").kind, "cgroup2");
    }
    for tree in v1 {
        let name = tree.mount.file_name().unwrap().to_str().unwrap();
        assert_eq!(at(&mounts, &format!("/sys/fs/cgroup/{name}")).kind, "cgroup", "{out}");
    }
    let groups = mounts.iter().filter(|mount| mount.kind.starts_with("cgroup"));
    assert!(groups.clone().all(|mount| mount.has("ro") && mount.root == "/"), "{mounts:#?}");
    // A namespace's root is all that a process of it sees.
    let paths = out
        .lines()
        .filter(|line| line.contains("::") || line.split(':').count() == 3 && !line.starts_with('M'));
    assert!(paths.clone().all(|line| line.ends_with(":/")), "{out}");
}

#[test]
fn mounts_are_made_in_order() {
    let mut bundle = bundle!();
    let source = source(&bundle);
    bundle.mount(tmpfs("/a", &[])).mount(bind(&source, "/a/b", &["bind"])).mount(tmpfs("/a/b/file2", &[]));
    let out = bundle.inside("cat /a/b/file; ls -d /a/b/file2");
    assert_eq!(out, "of the host/a/b/file2\n");
    // The other way round the later one hides the earlier.
    let mut bundle = Bundle::new();
    bundle.mount(bind(&source, "/a/b", &["bind"])).mount(tmpfs("/a", &[]));
    assert_eq!(bundle.inside("ls /a"), "");
}

/// Links at a destination lead inside the root, never out of it.
#[test]
fn links_of_a_destination_stay_in_the_root() {
    let mut bundle = bundle!();
    let source = source(&bundle);
    let root = bundle.rootfs();
    let outside = bundle.directory().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink("mnt", root.join("relative")).unwrap();
    std::os::unix::fs::symlink(&outside, root.join("absolute")).unwrap();
    std::os::unix::fs::symlink("../../../../../../tmp", root.join("up")).unwrap();
    bundle.mount(bind(&source, "/relative/in", &["bind"]));
    bundle.mount(bind(&source, "/absolute", &["bind"]));
    bundle.mount(bind(&source, "/up/in", &["bind"]));
    let out =
        bundle.inside("cat /mnt/in/file; cat /tmp/in/file; cat /absolute/file; cat /proc/self/mountinfo");
    assert_eq!(out.matches("of the host").count(), 3, "{out}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "a mount or a file is outside");
    let mounted =
        at(&mounts(out.rsplit_once("of the host").unwrap().1), outside.to_str().unwrap()).kind.clone();
    assert!(!mounted.is_empty());
}

/// A source directory that is a mount of its own and shared with the host.
fn shared_source(bundle: &Bundle) -> PathBuf {
    let source = source(bundle);
    let text = source.to_str().unwrap();
    run_ok("mount", &["--bind", text, text]);
    run_ok("mount", &["--make-shared", text]);
    source
}

#[test]
fn rslave_receives_mounts_made_after_start() {
    let mut bundle = bundle!();
    let source = shared_source(&bundle);
    bundle.mount(bind(&source, "/slave", &["rbind", "rslave"]));
    bundle.mount(bind(&source, "/private", &["rbind", "rprivate"]));
    std::fs::create_dir(source.join("later")).unwrap();
    bundle.capabilities(&["CAP_SYS_ADMIN"]);
    bundle.bring(State::Running);
    run_ok("mount", &["-t", "tmpfs", "tmpfs", source.join("later").to_str().unwrap()]);
    std::fs::write(source.join("later/mark"), "").unwrap();
    assert_eq!(bundle.exec("ls /slave/later"), "mark\n");
    assert_eq!(bundle.exec("ls /private/later"), "");
    let table = mounts(&bundle.exec("cat /proc/self/mountinfo"));
    assert_eq!(at(&table, "/slave").propagation, ["master"]);
    assert!(at(&table, "/private").propagation.is_empty());
    // Nothing goes the other way.
    bundle.exec("mkdir /slave/inner && mount -t tmpfs tmpfs /slave/inner && : > /slave/inner/mark");
    assert!(!source.join("inner/mark").exists());
}

#[test]
fn rshared_passes_mounts_both_ways() {
    let mut bundle = bundle!();
    let source = shared_source(&bundle);
    bundle.mount(bind(&source, "/shared", &["rbind", "rshared"]));
    bundle.set("/linux/rootfsPropagation", "rshared");
    std::fs::create_dir(source.join("later")).unwrap();
    std::fs::create_dir(source.join("inner")).unwrap();
    bundle.capabilities(&["CAP_SYS_ADMIN"]);
    bundle.bring(State::Running);
    run_ok("mount", &["-t", "tmpfs", "tmpfs", source.join("later").to_str().unwrap()]);
    std::fs::write(source.join("later/mark"), "").unwrap();
    assert_eq!(bundle.exec("ls /shared/later"), "mark\n");
    bundle.exec("mount -t tmpfs tmpfs /shared/inner && : > /shared/inner/mark");
    assert!(source.join("inner/mark").exists(), "what the container mounts is not on the host");
    bundle.exec("umount /shared/inner");
    eventually("the unmount", || !source.join("inner/mark").exists());
    bundle.ok(&["delete", "--force", "{id}"]);
    assert!(source.join("later/mark").exists(), "the host's mount must outlive the container");
}

#[test]
fn propagation_words_are_seen_in_mountinfo() {
    let mut bundle = bundle!();
    let source = shared_source(&bundle);
    for word in ["private", "slave", "unbindable", "rprivate", "rslave", "runbindable"] {
        bundle.mount(bind(&source, &format!("/{word}"), &["rbind", word]));
    }
    let table = inside(&mut bundle);
    for (point, tags) in [
        ("/private", &[][..]),
        ("/rprivate", &[]),
        ("/slave", &["master"]),
        ("/rslave", &["master"]),
        ("/unbindable", &["unbindable"]),
        ("/runbindable", &["unbindable"]),
    ] {
        assert_eq!(at(&table, point).propagation, tags, "{point}");
    }
}

/// Owners are shifted by the mount, not on disk.
#[test]
fn idmap_shifts_owners_of_a_mount() {
    let mut bundle = bundle!("mounts.idmap");
    let source = source(&bundle);
    let mapping = json!([{"containerID": 0, "hostID": 5000, "size": 10}]);
    let mut mount = bind(&source, "/one", &["bind", "idmap"]);
    mount["uidMappings"] = mapping.clone();
    mount["gidMappings"] = mapping;
    bundle.mount(mount);
    let out = bundle.inside("stat -c '%u %g' /one/file");
    assert_eq!(out, "5000 5000\n");
    assert_eq!(std::fs::metadata(source.join("file")).unwrap().uid(), 0);
}

#[test]
fn ridmap_shifts_owners_of_mounts_below() {
    let mut bundle = bundle!("mounts.idmap");
    let source = source_with_mount(&bundle);
    if release() < (6, 3) {
        skip!("tmpfs shows its files with other owners since Linux 6.3");
    }
    let mapping = json!([{"containerID": 0, "hostID": 5000, "size": 10}]);
    for (point, word) in [("/one", "idmap"), ("/all", "ridmap")] {
        let mut mount = bind(&source, point, &["rbind", word]);
        mount["uidMappings"] = mapping.clone();
        mount["gidMappings"] = mapping.clone();
        bundle.mount(mount);
    }
    let out = bundle.inside("stat -c %u /one/file /one/sub/below /all/file /all/sub/below");
    assert_eq!(out, "5000\n0\n5000\n5000\n");
}

/// With a user namespace and `idmap` without mappings of its own, those of the namespace are taken: files of root are
/// of the container's root.
#[test]
fn idmap_without_mappings_takes_the_user_namespaces() {
    let mut bundle = bundle!("mounts.idmap");
    let source = source(&bundle);
    bundle.user_namespace().mount(bind(&source, "/one", &["bind", "idmap"]));
    assert_eq!(bundle.inside("stat -c '%u %g' /one/file"), "0 0\n");
}
