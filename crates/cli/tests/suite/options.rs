//! `coracle run`: that each option has its effect inside, and that what has none is refused.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::coracle::Coracle;

/// What a shell script in a container with these options prints.
#[track_caller]
fn prints(coracle: &Coracle, options: &[&str], script: &str) -> String {
    let args = [&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat();
    coracle.ok(&args)
}

#[test]
fn run_help_is_as_kept() {
    let coracle = Coracle::new();
    let mut command = coracle.command(&["run", "--help"]);
    command.env_remove("COLUMNS");
    let help = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/run-help.txt");
    if std::env::var_os("CORACLE_UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &help).unwrap();
    }
    assert_eq!(help, include_str!("../golden/run-help.txt"), "CORACLE_UPDATE_GOLDEN=1 keeps the new one");
}

#[test]
fn switches_may_be_given_a_value() {
    let coracle = Coracle::with_busybox();
    assert_eq!(prints(&coracle, &["--read-only=true"], "touch /x 2>/dev/null || echo no"), "no\n");
    assert_eq!(prints(&coracle, &["--read-only=false"], "touch /x && echo yes"), "yes\n");
    coracle.ok(&["run", "--rm=false", "--name", "kept", "busybox", "true"]);
    coracle.ok(&["rm", "--force=0", "kept"]);
    coracle.assert_nothing_left();
}

#[test]
fn the_last_value_counts_and_an_empty_one_is_none() {
    let coracle = Coracle::with_busybox();
    let twice = ["--rm", "--hostname", "one", "--hostname", "two", "-w", "/", "-w", "/tmp"];
    assert_eq!(prints(&coracle, &twice, "hostname; pwd"), "two\n/tmp\n");
    let empty = [
        "--name",
        "",
        "--hostname",
        "",
        "-w",
        "",
        "--platform",
        "",
        "--cidfile",
        "",
        "--pid=",
        "-m",
        "",
        "-u",
        "",
    ];
    let empty = [&empty[..], &["--pids-limit", "", "--group-add", "", "--cpuset-cpus", ""]].concat();
    assert_eq!(prints(&coracle, &empty, "id -u; pwd"), "0\n/\n");
    coracle.assert_nothing_left();
}

#[test]
fn root_is_in_the_groups_that_the_image_gives_it() {
    let coracle = Coracle::with_busybox();
    let file = coracle.directory().join("group");
    std::fs::write(&file, "root:x:0:\nbin:x:1:root,bin\nwheel:x:10:root\n").unwrap();
    let volume = format!("{}:/etc/group:ro", file.display());
    // A user namespace with a single id has no such groups, and an image that names them runs all the same.
    let expected = prints(
        &coracle,
        &["-v", &volume],
        "[ $(wc -l < /proc/self/gid_map) = 1 ] && grep -qw 1$ /proc/self/gid_map && echo 0 || echo 0 1 10",
    );
    for user in [&[][..], &["-u", "root"], &["-u", "0"]] {
        let options = [&["-v", &volume], user].concat();
        assert_eq!(prints(&coracle, &options, "id -G"), expected, "{user:?}");
    }
    assert_eq!(prints(&coracle, &["-v", &volume, "-u", "0:0"], "id -G"), "0\n");
}

#[test]
fn names_are_the_containers_own() {
    let coracle = Coracle::with_busybox();
    let options = ["--hostname", "box", "--domainname", "example.org", "--add-host", "db:10.0.0.7"];
    let script = "hostname; cat /etc/hostname; echo $HOSTNAME; grep -c 'box.example.org box' /etc/hosts; grep db /etc/hosts";
    assert_eq!(prints(&coracle, &options, script), "box\nbox\nbox\n1\n10.0.0.7\tdb\n");
    let dns = ["--dns", "9.9.9.9", "--dns-search", "lan", "--dns-option", "ndots:2"];
    let written = "nameserver 9.9.9.9\nsearch lan\noptions ndots:2\n";
    assert_eq!(prints(&coracle, &dns, "cat /etc/resolv.conf"), written);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(prints(&coracle, &["--uts", "host"], "hostname"), host);
}

#[test]
fn the_process_is_as_asked() {
    let coracle = Coracle::with_busybox();
    let file = coracle.directory().join("env");
    std::fs::write(&file, "# note\nA=file\nB=file\n").unwrap();
    let options = ["--env-file", file.to_str().unwrap(), "-e", "B=typed", "-w", "/new/place"];
    assert_eq!(prints(&coracle, &options, "echo $A $B; pwd"), "file typed\n/new/place\n");
    assert_eq!(prints(&coracle, &["--ulimit", "nofile=100:200"], "ulimit -Sn; ulimit -Hn"), "100\n200\n");
    assert_eq!(prints(&coracle, &["--oom-score-adj", "300"], "cat /proc/self/oom_score_adj"), "300\n");
    assert_eq!(coracle.ok(&["run", "--rm", "--entrypoint", "echo", "busybox", "hello"]), "hello\n");
    let status =
        prints(&coracle, &["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status");
    assert_eq!(status, "NoNewPrivs:\t1\n");
}

#[test]
fn capabilities_are_added_and_dropped() {
    let coracle = Coracle::with_busybox();
    let bounding = |options: &[&str]| {
        let printed = prints(&coracle, options, "grep CapBnd /proc/self/status");
        u64::from_str_radix(printed.trim().rsplit('\t').next().unwrap(), 16).unwrap()
    };
    assert_eq!(bounding(&[]), 0xa804_25fb);
    assert_eq!(bounding(&["--cap-drop", "ALL", "--cap-add", "chown"]), 1);
    assert_eq!(bounding(&["--cap-add", "CAP_NET_ADMIN"]), 0xa804_25fb | 1 << 12);
}

#[test]
fn files_are_mounted_as_asked() {
    let coracle = Coracle::with_busybox();
    let source = coracle.directory().join("made");
    let volume = format!("{}:/data", source.display());
    assert_eq!(prints(&coracle, &["-v", &volume], "echo text > /data/file; cat /data/file"), "text\n");
    assert_eq!(std::fs::read_to_string(source.join("file")).unwrap(), "text\n");
    let read_only = format!("{volume}:ro");
    let refused = prints(&coracle, &["-v", &read_only], "echo no > /data/file || echo refused");
    assert_eq!(refused, "refused\n");
    let mount = format!("type=bind,source={},destination=/data,readonly", source.display());
    assert_eq!(prints(&coracle, &["--mount", &mount], "cat /data/file"), "text\n");
    let tmpfs = prints(&coracle, &["--tmpfs", "/t:size=1m,mode=0700"], "df -k /t | tail -1; stat -c %a /t");
    assert!(tmpfs.contains(" 1024 ") && tmpfs.ends_with("700\n"), "{tmpfs}");
    let read_only =
        prints(&coracle, &["--read-only", "--tmpfs", "/t"], "echo > /x || echo > /t/x && echo kept");
    assert_eq!(read_only, "kept\n");
    assert!(prints(&coracle, &["--shm-size", "2m"], "df -k /dev/shm | tail -1").contains(" 2048 "));
    coracle.assert_nothing_left();
}

#[test]
fn nothing_is_made_in_a_directory_of_the_host_that_is_dev() {
    let coracle = Coracle::with_busybox();
    let source = coracle.directory().join("dev");
    std::fs::create_dir(&source).unwrap();
    let volume = format!("{}:/dev", source.display());
    coracle.run(&["run", "--rm", "-v", &volume, "busybox", "true"]);
    let made: Vec<_> = std::fs::read_dir(&source).unwrap().collect();
    assert!(made.is_empty(), "{made:?}");
}

#[test]
fn clocks_and_parameters_are_of_the_container() {
    let coracle = Coracle::with_busybox();
    let boot = |options: &[&str]| {
        let printed = prints(&coracle, options, "cut -d. -f1 /proc/uptime");
        printed.trim().parse::<i64>().unwrap()
    };
    let ahead = boot(&["--time-offset", "boottime=+1000h"]) - boot(&[]);
    assert!((3_599_990..3_600_010).contains(&ahead), "{ahead}");
    let options = ["--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.shmmax=12345"];
    let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax";
    assert_eq!(prints(&coracle, &options, script), "1\n12345\n");
    let options = ["--sysctl", "kernel.domainname=example.org"];
    assert_eq!(prints(&coracle, &options, "cat /proc/sys/kernel/domainname"), "example.org\n");
}

#[test]
fn namespaces_are_shared_when_asked() {
    let coracle = Coracle::with_busybox();
    let inside =
        |options: &[&str], kind: &str| prints(&coracle, options, &format!("readlink /proc/self/ns/{kind}"));
    for kind in ["pid", "net", "ipc", "uts"] {
        let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let host = format!("{}\n", host.display());
        let option = if kind == "net" { "network" } else { kind };
        assert_eq!(inside(&[&format!("--{option}"), "host"], kind), host, "{option}");
        assert_ne!(inside(&[], kind), host, "{option}");
    }
}

#[test]
fn root_of_a_user_namespace_is_root_inside() {
    let coracle = Coracle::with_busybox();
    let script = "id -u; echo '1.2.3.4 x' >> /etc/hosts && echo written; readlink /proc/self/ns/user";
    let printed = prints(&coracle, &["--userns", "private"], script);
    assert!(printed.starts_with("0\nwritten\nuser:"), "{printed}");
    let outer = std::fs::read_link("/proc/self/ns/user").unwrap().display().to_string();
    assert!(!printed.contains(&outer), "{printed}");
    coracle.assert_nothing_left();
}

#[test]
fn containers_share_what_is_asked() {
    let coracle = Coracle::with_busybox();
    let script = "mkdir /mine; hostname; sleep 1000";
    let mut first = coracle
        .command(&["run", "--rm", "--name", "first", "--hostname", "one", "busybox", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    let shared = ["--network", "container:first", "--ipc", "container:first", "--pid", "container:first"];
    let options = [&shared[..], &["--hostname", "two"]].concat();
    let script = "for kind in net ipc pid; do
        [ $(readlink /proc/1/ns/$kind) = $(readlink /proc/self/ns/$kind) ] && echo $kind
    done; hostname; test -e /mine || echo own files";
    assert_eq!(prints(&coracle, &options, script), "net\nipc\npid\ntwo\nown files\n");
    coracle.ok(&["kill", "first"]);
    assert_eq!(first.wait().unwrap().code(), Some(137));
    let gone = coracle.run(&["run", "--rm", "--network", "container:first", "busybox", "true"]);
    assert_eq!(gone.code, 125, "{gone:?}");
    coracle.assert_nothing_left();
}

#[test]
fn everything_is_allowed_when_privileged() {
    let coracle = Coracle::with_busybox();
    let script =
        "grep Seccomp: /proc/self/status; mount | grep -c ' on /proc/'; test -c /dev/kmsg && echo device";
    assert_eq!(
        coracle.run(&["run", "--rm", "--privileged", "busybox", "sh", "-c", script]).out,
        "Seccomp:\t0\n0\ndevice\n"
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_in_three_lines() {
    let coracle = Coracle::new();
    for (options, told) in [
        (&["--memory", "50q"][..], "invalid value \"50q\" for --memory"),
        (&["--network", "bridge"], "--network bridge cannot be honoured"),
        (&["-d"], "--detach cannot be honoured"),
        (&["--uts", "host", "-h", "x"], "--hostname and --uts host do not go together"),
        (&["--cap-add", "NET_ADMN"], "invalid value \"NET_ADMN\" for --cap-add"),
        (&["-v", "data:/data"], "--volume data:/data cannot be honoured"),
        (&["--gpus", "all"], "--gpus cannot be honoured"),
        (&["--rm=true", "--health-cmd=true"], "--health-cmd cannot be honoured"),
        (&["-a", "stdin"], "-a cannot be honoured"),
        (&["-m", "-1"], "invalid value \"-1\" for --memory"),
        (&["--hostname", "-x"], "invalid value \"-x\" for --hostname"),
        (&["--cpuset-cpus", "65535"], "invalid value \"65535\" for --cpuset-cpus"),
        (&["--pids-limit", "4194305"], "invalid value \"4194305\" for --pids-limit"),
        (&["--sysctl", "kernel.hostname=x"], "--sysctl kernel.hostname=x cannot be honoured"),
        (&["--cidfile", "/nonexistent/id"], "cannot use what --cidfile names"),
        (&["--label-file", "/nonexistent"], "cannot use what --label-file names"),
    ] {
        let ran = coracle.run(&[&["run"], options, &["busybox"]].concat());
        assert_eq!((ran.code, ran.err.lines().count()), (125, 3), "{ran:?}");
        assert!(ran.err.starts_with(&format!("error: {told}\n")), "{}", ran.err);
    }
    coracle.assert_nothing_left();
}
