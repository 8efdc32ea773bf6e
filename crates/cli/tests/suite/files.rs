//! The container's files: the image's, the machine's that are shown inside, and those in memory.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::coracle::{Coracle, Ran, binaries, fixture, is_root};
use crate::running::Running;
use crate::talk::unpacked;

fn shell(coracle: &Coracle, options: &[&str], script: &str) -> Ran {
    coracle.run(&[&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat())
}

/// A directory with a file, to be shown inside.
fn source(coracle: &Coracle) -> String {
    let directory = coracle.directory().join("source");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("file"), "of the host\n").unwrap();
    directory.to_str().unwrap().to_owned()
}

/// A kernel is known by its version, and here it says that it is an old one.
#[test]
fn layers_are_joined_in_the_way_of_older_kernels_too() {
    let coracle = Coracle::with_busybox();
    let script = "uname -r; echo changed > /bin/new; cat /bin/new; grep ' / / ' /proc/self/mountinfo";
    let whole = coracle.command(&["run", "--rm", "busybox", "sh", "-c", script]);
    let mut old = Command::new("setarch");
    old.arg("--uname-2.6").arg(whole.get_program()).args(whole.get_args());
    let ran: Ran = old.output().unwrap().into();
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with("2.6.") && lines[1] == "changed", "{ran:?}");
    assert!(lines[2].contains("lowerdir=") && !lines[2].contains("lowerdir+="), "{ran:?}");
    coracle.assert_nothing_left();
}

#[test]
fn directories_and_files_of_the_host_are_shown() {
    let coracle = Coracle::with_busybox();
    let source = source(&coracle);
    let file = format!("{source}/file");
    let ran =
        shell(&coracle, &["-v", &format!("{source}:/a/b/c")], "cat /a/b/c/file; echo new > /a/b/c/made");
    assert_eq!((ran.code, ran.out.as_str()), (0, "of the host\n"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(format!("{source}/made")).unwrap(), "new\n");
    // A file, onto one that is not there and onto one that is.
    for inside in ["/not/there", "/etc/passwd"] {
        let ran = shell(
            &coracle,
            &["-v", &format!("{file}:{inside}:ro")],
            &format!("cat {inside}; echo x >> {inside}"),
        );
        assert_eq!(ran.out, "of the host\n", "{ran:?}");
        assert!(ran.err.contains("Read-only file system"), "{ran:?}");
    }
    let mount = format!("type=bind,source={source},destination=/data,readonly");
    let ran = shell(&coracle, &["--mount", &mount], "cat /data/file; touch /data/file");
    assert!(ran.out == "of the host\n" && ran.err.contains("Read-only file system"), "{ran:?}");
    // --volume makes what is missing, --mount does not.
    let missing = coracle.directory().join("missing");
    let ran = shell(
        &coracle,
        &["--mount", &format!("type=bind,source={},destination=/x", missing.display())],
        "true",
    );
    assert!(ran.code == 125 && ran.err.contains("missing") && !missing.exists(), "{ran:?}");
    assert_eq!(shell(&coracle, &["-v", &format!("{}:/x", missing.display())], "true").code, 0);
    assert!(missing.is_dir());
    let twice = ["-v", &format!("{source}:/x"), "--tmpfs", "/x/"];
    let ran = shell(&coracle, &twice, "true");
    assert!(ran.code == 125 && ran.err.contains("/x"), "{ran:?}");
    coracle.assert_nothing_left();
}

/// Mounts that are made while the container runs are seen as its propagation says, in both directions. In a mount namespace of this
/// test's own, where the source is a shared mount.
#[test]
fn mounts_propagate_as_asked() {
    if !is_root() {
        println!("SKIP: files::mounts_propagate_as_asked: only root makes mounts that others see");
        return;
    }
    for (propagation, comes_in, goes_out) in
        [("rprivate", false, false), ("rslave", true, false), ("rshared", true, true)]
    {
        let coracle = Coracle::with_busybox();
        let place = coracle.directory().join("shared");
        std::fs::create_dir_all(&place).unwrap();
        let inside = "mkdir -p /s/inner; mount -t tmpfs none /s/inner; touch /s/inner/mark; echo ready; read go; \
                      test -e /s/outer/mark && echo came in";
        let program = format!(
            "{} --root {} --state {}",
            binaries().join("coracle").display(),
            coracle.root().display(),
            coracle.state().display()
        );
        let script = format!(
            "set -e; mount -t tmpfs none {place}; mount --make-shared {place}; mkdir {place}/outer\n\
             coproc {{ {program} run --rm -i --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
               -v {place}:/s:{propagation} busybox sh -c '{inside}'; }}\n\
             read line <&${{COPROC[0]}}; [ \"$line\" = ready ]\n\
             mount -t tmpfs none {place}/outer; touch {place}/outer/mark\n\
             if [ -e {place}/inner/mark ]; then echo went out; fi\n\
             echo go >&${{COPROC[1]}}; cat <&${{COPROC[0]}} || true",
            place = place.display()
        );
        let ran: Ran = Command::new("unshare")
            .args(["-m", "--propagation", "private", "bash", "-c", &script])
            .stdin(Stdio::null())
            .output()
            .unwrap()
            .into();
        let found = (ran.out.contains("came in"), ran.out.contains("went out"));
        assert_eq!(found, (comes_in, goes_out), "{propagation}: {ran:?}");
        coracle.assert_nothing_left();
    }
}

/// `private` mounts pass nothing on, whatever a volume in them asks.
#[test]
fn propagation_that_cannot_be_is_refused() {
    if !is_root() {
        println!(
            "SKIP: files::propagation_that_cannot_be_is_refused: only root changes mounts without a user namespace"
        );
        return;
    }
    let coracle = Coracle::with_busybox();
    let place = coracle.directory().display();
    for propagation in ["shared", "rshared", "slave", "rslave"] {
        let volume = format!("{place}:/s:{propagation}");
        let whole = coracle.command(&["run", "--rm", "-v", &volume, "busybox", "true"]);
        let mut command = Command::new("unshare");
        let script = format!("mount --bind {place} {place}; mount --make-private {place}; exec \"$@\"");
        command.args(["-m", "sh", "-c", &script, "sh"]).arg(whole.get_program()).args(whole.get_args());
        let ran: Ran = command.output().unwrap().into();
        assert_eq!(ran.code, 125, "{propagation}: {ran:?}");
        let reason = format!("so {propagation} would have no effect");
        assert!(ran.err.contains(&reason) && ran.err.contains("make-rshared"), "{ran:?}");
    }
    coracle.assert_nothing_left();
}

#[test]
fn mounts_that_cannot_be_are_refused_with_the_reason() {
    let coracle = Coracle::with_busybox();
    let directory = coracle.directory().join("directory");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("file"), "").unwrap();
    let place = directory.display();
    for (volume, told) in [
        (format!("{place}:/proc"), "/proc is the kernel's"),
        (format!("{place}:/proc/sys/net"), "/proc is the kernel's"),
        (format!("{place}/file:/etc"), "a file cannot be shown at the place of a directory"),
        (format!("{place}:/etc/passwd"), "a directory cannot be shown at the place of a file"),
    ] {
        let ran = coracle.run(&["run", "--rm", "-v", &volume, "busybox", "true"]);
        assert_eq!((ran.code, ran.err.contains(told)), (125, true), "{volume}: {ran:?}");
        assert!(ran.err.contains("to do: ") && !ran.err.contains("--explain"), "{volume}: {ran:?}");
    }
    let ran = coracle.run(&["run", "--rm", "--tmpfs", "/proc", "busybox", "true"]);
    assert_eq!((ran.code, ran.err.contains("/proc is the kernel's")), (125, true), "{ran:?}");
    let file = format!("{place}/file:/proc/meminfo");
    assert_eq!(coracle.ok(&["run", "--rm", "-v", &file, "busybox", "cat", "/proc/meminfo"]), "");
    coracle.assert_nothing_left();
}

#[test]
fn roots_of_any_name_work_or_are_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let coracle = Coracle::new();
    let source = format!("docker-archive:{}", fixture("busybox.docker.tar").display());
    let at = |name: &[u8], words: &[&str]| -> Ran {
        let base = coracle.directory().join(std::ffi::OsStr::from_bytes(name));
        let mut command = Command::new(binaries().join("coracle"));
        command.arg("--root").arg(base.join("root")).arg("--state").arg(base.join("state")).args(words);
        command.stdin(Stdio::null()).output().unwrap().into()
    };
    for name in [&b"a\\b"[..], b"a b", b"a:b,c", b"\\"] {
        assert_eq!(at(name, &["load", &source]).code, 0);
        let ran =
            at(name, &["run", "--rm", "busybox", "sh", "-c", "echo changed > /bin/new && cat /bin/new"]);
        assert_eq!((ran.code, ran.out.as_str()), (0, "changed\n"), "{name:?}: {ran:?}");
        assert_eq!(at(name, &["rmi", "busybox"]).code, 0);
    }
    let ran = at(b"a\xff", &["load", &source]);
    assert!(ran.code != 0 && ran.err.contains("not UTF-8") && ran.err.contains("--root DIR"), "{ran:?}");
    assert!(!coracle.directory().join(std::ffi::OsStr::from_bytes(b"a\xff")).exists());
}

#[test]
fn memory_takes_the_place_of_directories() {
    let coracle = Coracle::with_busybox();
    let options = [
        "--tmpfs",
        "/a:size=3m,mode=0711",
        "--tmpfs",
        "/b:exec,ro",
        "--shm-size",
        "5m",
        "--mount",
        "type=tmpfs,destination=/c,tmpfs-size=2m,tmpfs-mode=1700",
        "busybox",
    ];
    let mut container = Running::start(&coracle, &options);
    assert_eq!(
        container.ask("df -m /a /c /dev/shm | awk 'NR > 1 { print $2 }' | tr '\\n' ' '").trim(),
        "3 2 5"
    );
    assert_eq!(container.ask("stat -c %a /a /c /dev/shm | tr '\\n' ' '").trim(), "711 1700 1777");
    let options_of = |container: &mut Running, path: &str| {
        container.ask(&format!("awk '$5 == \"{path}\" {{ print $6 }}' /proc/self/mountinfo"))
    };
    let a = options_of(&mut container, "/a");
    assert!(["nosuid", "nodev", "noexec"].iter().all(|word| a.contains(word)), "{a}");
    let b = options_of(&mut container, "/b");
    assert!(b.starts_with("ro") && !b.contains("noexec") && b.contains("nosuid"), "{b}");
    assert!(container.ask("dd if=/dev/zero of=/a/x bs=1M count=4").contains("No space left"));
    assert_eq!(container.end(), 0);
    coracle.assert_nothing_left();
}

#[test]
fn a_read_only_root_cannot_be_changed() {
    let coracle = Coracle::with_busybox();
    let mut container = Running::start(&coracle, &["--read-only", "--tmpfs", "/run", "busybox"]);
    for path in ["/new", "/etc/hostname", "/bin/new", "/etc/passwd"] {
        assert!(container.ask(&format!("echo x >> {path}")).contains("Read-only file system"), "{path}");
    }
    assert_eq!(container.ask("echo x > /run/new && echo x > /dev/shm/new && echo fine"), "fine");
    assert_eq!(container.end(), 0);
    coracle.assert_nothing_left();
}

#[test]
fn what_the_image_lacks_is_made_and_what_is_removed_stays_so() {
    let coracle = Coracle::with_busybox();
    assert_eq!(shell(&coracle, &["-w", "/made/on/the/way"], "pwd").out, "/made/on/the/way\n");
    let not = shell(&coracle, &["-w", "/etc/passwd"], "pwd");
    assert!(not.code == 125 && not.err.contains("working directory"), "{not:?}");
    // A change is the container's own: the next one has the image's file again.
    let script =
        "test -e /etc/group && rm /etc/group && rm -r /home && ! test -e /home && ! ls /etc | grep group";
    for _ in 0..2 {
        let ran = shell(&coracle, &[], script);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    coracle.assert_nothing_left();
}

#[test]
fn the_kernels_paths_are_hidden_or_read_only() {
    let coracle = Coracle::with_busybox();
    let mut container = Running::start(&coracle, &["busybox"]);
    assert_eq!(
        container.ask("cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts 2>/dev/null | wc -c"),
        "0"
    );
    assert_eq!(container.ask("ls /sys/firmware /proc/scsi 2>/dev/null | grep -v :"), "");
    for path in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/profiling"] {
        let told = container.ask(&format!("echo 1 > {path}"));
        assert!(
            ["Read-only file system", "Permission denied", "nonexistent"]
                .iter()
                .any(|word| told.contains(word)),
            "{path}: {told}"
        );
    }
    assert_eq!(container.end(), 0);
    let open = shell(&coracle, &["--security-opt", "systempaths=unconfined"], "cat /proc/interrupts | wc -l");
    assert!(open.out.trim().parse::<u32>().unwrap() > 1, "{open:?}");
    coracle.assert_nothing_left();
}

#[test]
fn it_has_the_usual_devices_and_those_asked_for() {
    let coracle = Coracle::with_busybox();
    let mut container = Running::start(&coracle, &["--device", "/dev/zero:/dev/mine:r", "busybox"]);
    for (path, numbers) in [
        ("null", "1 3"),
        ("zero", "1 5"),
        ("full", "1 7"),
        ("random", "1 8"),
        ("urandom", "1 9"),
        ("tty", "5 0"),
        ("mine", "1 5"),
    ] {
        assert_eq!(container.ask(&format!("stat -c '%t %T' /dev/{path}")), numbers, "{path}");
    }
    assert_eq!(
        container.ask("head -c 3 /dev/mine | wc -c; echo x > /dev/null && echo written"),
        "3\nwritten"
    );
    assert!(container.ask("echo x > /dev/full").contains("No space left"));
    assert_eq!(
        container.ask("for f in fd stdin ptmx; do readlink /dev/$f; done | tr '\\n' ' '").trim(),
        "/proc/self/fd /proc/self/fd/0 pts/ptmx"
    );
    if is_root() {
        // A node can be made, and says nothing to whoever may not use the device: this is /dev/kmsg.
        let told = container.ask("mknod /tmp/messages c 1 11 && head -c 1 /tmp/messages");
        assert!(told.contains("Operation not permitted"), "{told}");
    }
    assert_eq!(container.end(), 0);
    let none = shell(&coracle, &["--device", "/dev/no-such-device"], "true");
    assert!(none.code == 125 && none.err.contains("/dev/no-such-device"), "{none:?}");
    coracle.assert_nothing_left();
}

/// An image that has links where mounts go: whatever they point at, the mount is made inside.
#[test]
fn links_in_an_image_lead_nowhere_outside() {
    let coracle = Coracle::with_busybox();
    let root = unpacked(&coracle);
    let victim = coracle.directory().join("victim");
    std::fs::create_dir(&victim).unwrap();
    let source = source(&coracle);
    let run = |options: &[&str], script: &str| {
        let rootfs = ["--rootfs", root.to_str().unwrap(), "/bin/sh", "-c", script];
        coracle.run(&[&["run", "--rm"], options, &rootfs].concat())
    };
    let up = format!("{}{}", "../".repeat(30), victim.strip_prefix("/").unwrap().display());
    symlink(&up, root.join("up")).unwrap();
    symlink(&victim, root.join("absolute")).unwrap();
    for link in ["up", "absolute"] {
        let ran = run(&["-v", &format!("{source}:/{link}/below")], &format!("cat /{link}/below/file"));
        assert_eq!((ran.code, ran.out.as_str()), (0, "of the host\n"), "{link}: {ran:?}");
        let ran = run(&["--tmpfs", &format!("/{link}/tmp"), "-w", &format!("/{link}/work")], "pwd");
        assert_eq!(ran.code, 0, "{link}: {ran:?}");
    }
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0, "the victim was touched");
    // The kernel's own places as links, first to what is outside, then to what is inside.
    for name in ["proc", "sys", "dev", "etc"] {
        let (place, aside) = (root.join(name), root.join(format!("{name}-aside")));
        std::fs::rename(&place, &aside).unwrap();
        for target in [victim.as_path(), Path::new("/home")] {
            symlink(target, &place).unwrap();
            // Refused or made inside; but never outside, and never with hidden paths in view.
            let ran = run(&[], "test -s /proc/keys || test -s /proc/timer_list; echo $?");
            assert!(ran.code != 0 || ran.out.trim() == "1", "/{name} -> {}: {ran:?}", target.display());
            std::fs::remove_file(&place).unwrap();
        }
        std::fs::rename(&aside, &place).unwrap();
    }
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0, "the victim was touched");
    coracle.assert_nothing_left();
}
