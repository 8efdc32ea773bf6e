//! What a person reads when something is wrong: three lines, docker's exit code, and nothing left behind.

use std::path::Path;
use std::process::Command;

use crate::coracle::{Coracle, Ran, binaries, fixture, is_root};

/// Asserts three lines: what failed, because of what, what to do; `words` are in them in this order.
#[track_caller]
fn three_lines(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{ran:?}");
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 3, "what failed, because of what, what to do: {}", ran.err);
    assert!(lines[0].starts_with("error: "), "{}", ran.err);
    assert!(lines[1].starts_with("  because: "), "{}", ran.err);
    assert!(lines[2].starts_with("  to do: "), "{}", ran.err);
    let mut rest = ran.err.as_str();
    for word in words {
        let Some((_, after)) = rest.split_once(word) else {
            panic!("no {word:?} in its place in {}", ran.err)
        };
        rest = after;
    }
    assert!(!ran.err.contains("os error"), "{}", ran.err);
}

/// Runs a shell script as root of a mount namespace of its own, which takes its mounts along when it ends. `$1` is coracle.
fn in_own_mounts(coracle: &Coracle, script: &str) -> Ran {
    let directory = coracle.directory().join("mount");
    std::fs::create_dir_all(&directory).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", script, "sh"]);
    command.arg(binaries().join("coracle")).arg(fixture("busybox.docker.tar"));
    command.current_dir(directory).output().unwrap().into()
}

#[test]
fn no_words_at_all_get_the_help() {
    let coracle = Coracle::new();
    let ran: Ran = Command::new(binaries().join("coracle")).output().unwrap().into();
    assert_eq!(ran.code, 125);
    assert!(
        ran.err.contains("Usage: coracle") && ran.err.contains("Run a program in a new container"),
        "{ran:?}"
    );
    three_lines(&coracle.run(&[]), 125, &["subcommand", "coracle --help"]);
}

#[test]
fn the_help_is_as_kept() {
    let mut help = String::new();
    for words in [
        &["--help"][..],
        &["anatomy", "--help"],
        &["commit", "--help"],
        &["diff", "--help"],
        &["export", "--help"],
        &["kill", "--help"],
        &["ps", "--help"],
        &["rm", "--help"],
        &["stop", "--help"],
    ] {
        let mut command = Command::new(binaries().join("coracle"));
        command.args(words).env_remove("COLUMNS");
        help.push_str(&format!("$ coracle {}\n", words.join(" ")));
        help.push_str(&String::from_utf8(command.output().unwrap().stdout).unwrap());
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/containers-help.txt");
    if std::env::var_os("CORACLE_UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &help).unwrap();
    }
    assert_eq!(
        help,
        include_str!("../golden/containers-help.txt"),
        "CORACLE_UPDATE_GOLDEN=1 keeps the new one"
    );
}

#[test]
fn help_is_a_command_and_needs_columns() {
    let run = |words: &[&str], columns: &str| -> Ran {
        let mut command = Command::new(binaries().join("coracle"));
        command.args(words).env("COLUMNS", columns).output().unwrap().into()
    };
    for (words, same) in [(&["help"][..], &["--help"][..]), (&["help", "run"], &["run", "--help"])] {
        let (help, same) = (run(words, "100"), run(same, "100"));
        assert_eq!((help.code, help.err.as_str()), (0, ""), "{words:?}");
        assert_eq!(help.out, same.out, "{words:?}");
        let narrow = run(words, "0").out;
        assert!(narrow.contains("Usage: coracle"), "{narrow}");
        assert!(narrow.lines().count() < 2 * same.out.lines().count(), "{narrow}");
    }
}

#[test]
fn what_docker_has_and_this_version_has_not_is_said() {
    let coracle = Coracle::new();
    for words in [&["exec", "-it", "x", "sh"][..], &["logs", "-f", "x"], &["top", "x"], &["help", "exec"]] {
        let ran = coracle.run(words);
        three_lines(&ran, 125, &["there is no command", "in this version", "to do: "]);
        assert!(!ran.err.contains("did you mean"), "{}", ran.err);
    }
    three_lines(&coracle.run(&["ps", "--filter", "x"]), 125, &["--filter cannot be honoured", "grep"]);
    let far = coracle.run(&["run", "--nothing-like-it", "busybox"]);
    three_lines(&far, 125, &["--nothing-like-it", "see coracle run --help"]);
    assert!(!far.err.contains("did you mean"), "{}", far.err);
}

#[test]
fn what_the_machine_refuses_is_said_with_a_way_out() {
    let coracle = Coracle::with_busybox();
    let run = |options: &[&str]| coracle.run(&[&["run", "--rm"], options, &["busybox", "true"]].concat());
    three_lines(&run(&["--sysctl", "net.ipv4.nope=1"]), 125, &["net/ipv4/nope", "check the name"]);
    three_lines(&run(&["-w", "/etc/passwd"]), 125, &["/etc/passwd", "name a directory"]);
    three_lines(&run(&["--device", "/dev/nope"]), 125, &["--device", "/dev/nope: No such", "ls -l /dev"]);
    let entrypoint = run(&["--entrypoint", "echo hi"]);
    three_lines(&entrypoint, 127, &["\"echo hi\": not found", "--entrypoint echo IMAGE hi"]);
    let long = "x".repeat(5000);
    let ran = coracle.run(&["run", &long]);
    assert!(ran.err.len() < 1000, "{}", ran.err);
    three_lines(&ran, 125, &["cannot run", "…", "because"]);
    let adjusted = run(&["--oom-score-adj", "-500"]);
    if adjusted.code != 0 {
        three_lines(&adjusted, 125, &["--oom-score-adj", "CAP_SYS_RESOURCE"]);
    }
    let limited = run(&["--cpus", ".5"]);
    if limited.code != 0 {
        assert!(!is_root(), "{limited:?}");
        three_lines(&limited, 125, &["because: --cpus cannot be enforced"]);
    }
    if !is_root() {
        let made = run(&["-v", "/nonexistent-coracle:/b"]);
        three_lines(&made, 125, &["--volume", "/nonexistent-coracle", "is made", "name one that is there"]);
    }
    coracle.assert_nothing_left();
}

#[test]
fn a_wrong_line_of_a_file_is_named_and_not_shown() {
    let coracle = Coracle::new();
    let file = coracle.directory().join("env");
    std::fs::write(&file, "A=1\nMY PASS=planted\n").unwrap();
    let ran = coracle.run(&["run", "--env-file", file.to_str().unwrap(), "busybox"]);
    three_lines(&ran, 125, &["line 2 of ", "env", "--env-file", "blank", "accepted"]);
    assert!(!ran.err.contains("planted"), "{}", ran.err);
}

#[test]
fn every_command_has_a_help() {
    let help = Coracle::new().ok(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let mut count = 0;
    for command in commands.map_while(|line| line.split_whitespace().next()) {
        let ran: Ran =
            Command::new(binaries().join("coracle")).args([command, "--help"]).output().unwrap().into();
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{command}");
        assert!(ran.out.contains(&format!("Usage: coracle {command}")), "{}", ran.out);
        count += 1;
    }
    assert!(count > 5, "{help}");
}

#[test]
fn typing_errors_are_met_with_a_guess() {
    let coracle = Coracle::with_busybox();
    three_lines(&coracle.run(&["runn"]), 125, &["no command \"runn\"", "did you mean run?"]);
    three_lines(
        &coracle.run(&["run", "--hostnme", "x", "busybox"]),
        125,
        &["--hostnme", "did you mean --hostname?", "coracle run --help"],
    );
    let near = &["bsybox", "did you mean busybox:latest?"];
    three_lines(&coracle.run(&["run", "--rm", "--pull=never", "bsybox"]), 125, near);
    let asked = coracle.run(&["run", "--rm", "bsybox"]);
    assert!(asked.err.contains("registry for \"bsybox\" (here is busybox:latest)"), "{asked:?}");
    three_lines(&coracle.run(&["rm"]), 125, &["<CONTAINER>", "coracle rm --help"]);
    three_lines(&coracle.run(&["run", "--rm"]), 125, &["nothing to run", "coracle run IMAGE"]);
    three_lines(
        &coracle.run(&["run", "--memory", "lots", "busybox"]),
        125,
        &["\"lots\" for --memory", "accepted are", "50m"],
    );
    three_lines(
        &coracle.run(&["run", "--cpus", "half", "busybox"]),
        125,
        &["\"half\" for --cpus", "accepted are"],
    );
    three_lines(&coracle.run(&["kill", "-s", "FOO", "x"]), 1, &["\"FOO\" for --signal", "accepted are"]);
    coracle.assert_nothing_left();
}

#[test]
fn what_is_not_there_is_said() {
    let coracle = Coracle::with_busybox();
    let never = coracle.run(&["run", "--rm", "--pull=never", "absent"]);
    three_lines(&never, 125, &["absent", "coracle images", "coracle pull"]);
    let quiet = coracle.run(&["run", "--rm", "-q", "absent"]);
    three_lines(&quiet, 125, &["cannot pull \"absent\"", "docker.io cannot be reached"]);
    three_lines(&coracle.run(&["rm", "absent"]), 1, &["cannot remove \"absent\"", "coracle ps -a"]);
    three_lines(&coracle.run(&["kill", "absent"]), 1, &["cannot signal \"absent\"", "coracle ps -a"]);
    three_lines(
        &coracle.run(&["run", "--rm", "--rootfs", "/absent", "true"]),
        125,
        &["/absent", "--rootfs", "accepted"],
    );
    three_lines(
        &coracle.run(&["run", "--rm", "-u", "stranger", "busybox", "true"]),
        125,
        &["\"stranger\"", "/etc/passwd", "a number"],
    );
    coracle.ok(&["run", "--name", "taken", "busybox", "true"]);
    three_lines(
        &coracle.run(&["run", "--name", "taken", "busybox", "true"]),
        125,
        &["\"taken\" is taken by container", "coracle rm taken"],
    );
    coracle.ok(&["rm", "taken"]);
    coracle.assert_nothing_left();
}

#[test]
fn a_bad_archive_is_told_from_a_damaged_one() {
    let coracle = Coracle::new();
    let whole = std::fs::read(fixture("busybox.docker.tar")).unwrap();
    let file = coracle.directory().join("archive.tar");
    let path = file.to_str().unwrap();
    three_lines(&coracle.run(&["load", path]), 1, &["cannot load images", "No such file", "path"]);
    std::fs::write(&file, "hello\n".repeat(1000)).unwrap();
    three_lines(&coracle.run(&["load", path]), 1, &["cannot load images", "not a tar archive"]);
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    three_lines(&coracle.run(&["load", path]), 1, &["cannot load images", "damaged", "again"]);
    // One bit in the middle of the layer, which is most of the archive.
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    std::fs::write(&file, &flipped).unwrap();
    three_lines(&coracle.run(&["load", path]), 1, &["cannot load images", "sha256:", "again"]);
    assert_eq!(coracle.ok(&["images", "-q"]), "");
    std::fs::write(&file, whole).unwrap();
    coracle.ok(&["load", path]);
}

#[test]
fn a_full_disk_is_said_and_nothing_is_left() {
    if !is_root() {
        println!("SKIP: errors::a_full_disk_is_said_and_nothing_is_left: needs root for a small disk");
        return;
    }
    let coracle = Coracle::new();
    let load =
        "mount -t tmpfs -o size=600k tmpfs \"$PWD\"; cd \"$PWD\"; exec \"$1\" --root r --state s load \"$2\"";
    let ran = in_own_mounts(&coracle, load);
    three_lines(&ran, 1, &["cannot load images", "No space left", "free space"]);
    let run = "mount -t tmpfs -o size=10m tmpfs \"$PWD\"; cd \"$PWD\"
        \"$1\" --root r --state s load \"$2\" > /dev/null
        head -c 20M /dev/zero > fill 2> /dev/null || true
        code=0; \"$1\" --root r --state s run --rm busybox true || code=$?
        ls r/containers r/names s >&2; rm fill
        \"$1\" --root r --state s run --rm busybox true
        exit $code";
    let ran = in_own_mounts(&coracle, run);
    let (error, listing) = ran.err.split_once("r/containers:").unwrap();
    assert_eq!(listing.split_whitespace().collect::<Vec<_>>(), ["r/names:", "s:"], "{ran:?}");
    three_lines(&Ran { err: error.to_owned(), ..ran }, 125, &["cannot run", "No space left", "free"]);
}

/// Room for nothing, for one file, for two and so on, until there is enough.
#[test]
fn a_disk_that_fills_at_any_step_of_run_is_said_and_nothing_is_left() {
    if !is_root() {
        println!(
            "SKIP: errors::a_disk_that_fills_at_any_step_of_run_is_said_and_nothing_is_left: needs root for a small disk"
        );
        return;
    }
    let coracle = Coracle::new();
    let script = "mount -t tmpfs -o size=10m tmpfs \"$PWD\"; cd \"$PWD\"
        \"$1\" --root r --state s load \"$2\" > /dev/null
        head -c 20M /dev/zero > fill 2> /dev/null || true
        for step in $(seq 40); do
            code=0; \"$1\" --root r --state s run --rm busybox echo hello 2> /dev/shm/$$ || code=$?
            echo \"$code $(ls r/containers r/names s r/image/staging | grep -vc ':$\\|^$') $(grep -c 'No space left' /dev/shm/$$)\"
            truncate -s -4096 fill
        done
        rm /dev/shm/$$";
    let ran = in_own_mounts(&coracle, script);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ended = |code: &str| ran.out.lines().filter(|line| line.starts_with(code)).count();
    let (failed, succeeded) = (ended("125 0 1"), ended("0 0 0"));
    assert_eq!(failed + succeeded, 40, "exit code, files left, reason told: {ran:?}");
    assert_eq!(ran.out.lines().filter(|line| *line == "hello").count(), succeeded, "{ran:?}");
    assert!(failed >= 5 && succeeded >= 1, "{failed} steps failed, {succeeded} did not");
}

#[test]
fn a_place_that_cannot_be_written_is_said() {
    let coracle = Coracle::new();
    if is_root() {
        let script =
            "mount -t tmpfs -o ro tmpfs \"$PWD\"; cd \"$PWD\"; exec \"$1\" --root r --state /run/x ps";
        three_lines(
            &in_own_mounts(&coracle, script),
            125,
            &["coracle's directories", "Read-only file system", "--root DIR"],
        );
    } else {
        let ran: Ran = Command::new(binaries().join("coracle"))
            .args(["--root", "/proc/1/x", "ps"])
            .output()
            .unwrap()
            .into();
        three_lines(&ran, 125, &["coracle's directories", "/proc/1/x", "--root DIR"]);
    }
}

#[test]
fn forbidden_user_namespaces_are_said_with_the_knob() {
    if is_root() {
        println!(
            "SKIP: errors::forbidden_user_namespaces_are_said_with_the_knob: root needs no user namespace"
        );
        return;
    }
    let coracle = Coracle::with_busybox();
    // A user namespace whose limit of further ones is none.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --inh-caps=-all --ambient-caps=-all \"$@\"";
    let run = coracle.command(&["run", "--rm", "busybox", "true"]);
    let mut outside = Command::new("unshare");
    // The same user in there: another one may have subordinate ids, and layers of another form.
    let user = format!("--map-user={}", rustix::process::geteuid().as_raw());
    outside.args(["--user", "--keep-caps", &user, "sh", "-c", script, "sh"]);
    outside.arg(run.get_program()).args(run.get_args());
    let ran: Ran = outside.output().unwrap().into();
    three_lines(&ran, 125, &["cannot start container", "clone3", "user.max_user_namespaces"]);
    coracle.assert_nothing_left();
}

#[test]
fn what_the_kernel_refuses_has_an_advice_of_its_own() {
    let coracle = Coracle::with_busybox();
    for (options, told) in [
        (["--sysctl", "net.ipv4.nope=1"], "sysctl -a lists"),
        (["--sysctl", "net.ipv4.ip_forward=many"], "check the value"),
        (["-w", "/etc/passwd"], "--workdir"),
    ] {
        let ran = coracle.run(&[&["run", "--rm"], &options[..], &["busybox", "true"]].concat());
        three_lines(&ran, 125, &["cannot start", told]);
    }
    // Below its own score no process goes without CAP_SYS_RESOURCE, which the root of a virtual machine may have.
    let ran = coracle.run(&["run", "--rm", "--oom-score-adj", "-1000", "busybox", "true"]);
    if ran.code != 0 {
        three_lines(&ran, 125, &["--oom-score-adj", "CAP_SYS_RESOURCE"]);
    }
    coracle.assert_nothing_left();
}

#[test]
fn half_an_installation_is_said() {
    let coracle = Coracle::with_busybox();
    let directory = coracle.directory().join("bin");
    std::fs::create_dir(&directory).unwrap();
    let alone = directory.join("coracle");
    // By another process: while a test beside this one forks, a file that we write is busy for whoever executes it.
    assert!(Command::new("cp").arg(binaries().join("coracle")).arg(&alone).status().unwrap().success());
    let runtime = directory.join("coracle-runtime");
    let run = |path: &Path| -> Ran {
        let whole = coracle.command(&["run", "--rm", "busybox", "true"]);
        Command::new(path).args(whole.get_args()).env("PATH", "/usr/bin:/bin").output().unwrap().into()
    };
    three_lines(&run(&alone), 125, &["cannot run", "no executable coracle-runtime", "both files"]);
    std::fs::write(&runtime, "not a program").unwrap();
    three_lines(&run(&alone), 125, &["cannot run", "no executable coracle-runtime", "both files"]);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&runtime, mode).unwrap();
    three_lines(&run(&alone), 125, &["cannot start", "coracle-runtime", "one version"]);
    coracle.ok(&["ps"]);
    coracle.assert_nothing_left();
}

#[test]
fn images_can_be_removed_from_a_full_disk() {
    if !is_root() {
        println!("SKIP: errors::images_can_be_removed_from_a_full_disk: only root can mount a small disk");
        return;
    }
    let coracle = Coracle::new();
    // With a second name, so that the first removal frees nothing but that name; without a spare inode there is no place for a
    // new directory either.
    let script = r#"mount -t tmpfs -o size=8m,nr_inodes=2000 tmpfs "$PWD"; cd "$PWD"
        run() { "$coracle" --root "$PWD/root" --state /tmp "$@"; }
        coracle=$1; shift; run load "docker-archive:$1" >&2; run tag busybox other
        cat /dev/zero > fill 2>/dev/null || true
        mkdir $(seq 3000) 2>/dev/null || true
        run rmi other; test ! -e root/image/.index.json; ls root/image/staging
        run rmi busybox; ls root/image/layers root/image/staging; ls root/image/blobs/sha256
        grep -o '"manifests":.*' root/image/index.json"#;
    let ran = in_own_mounts(&coracle, script);
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[..2] == ["Untagged: other:latest", "Untagged: busybox:latest"], "{ran:?}");
    assert!(lines[2].starts_with("Deleted: sha256:"), "{ran:?}");
    assert_eq!(
        lines[3..].join("\n"),
        "root/image/layers:\n\nroot/image/staging:\n\"manifests\":[]}",
        "{ran:?}"
    );
}

#[test]
fn this_machine_composed_on_a_full_disk_leaves_nothing() {
    if !is_root() {
        println!(
            "SKIP: errors::this_machine_composed_on_a_full_disk_leaves_nothing: only root can mount a small disk"
        );
        return;
    }
    let coracle = Coracle::new();
    let script = r#"mount -t tmpfs -o size=8m tmpfs "$PWD"; cd "$PWD"
        run() { "$coracle" --root "$PWD/root" --state /tmp "$@"; }
        coracle=$1; run images -q; cat /dev/zero > fill 2>/dev/null || true
        code=0; run run --rm host true || code=$?
        ls root/image/staging; ls root/image/host 2>/dev/null || true; exit $code"#;
    three_lines(&in_own_mounts(&coracle, script), 125, &["cannot run", "No space left", "free"]);
}

#[test]
fn lost_output_is_no_success() {
    let coracle = Coracle::with_busybox();
    let into = |file: &str, args: &[&str]| -> Ran {
        let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        coracle.command(args).stdout(file).output().unwrap().into()
    };
    for args in [
        &["images"][..],
        &["images", "-q"],
        &["ps"],
        &["inspect", "busybox"],
        &["--help"],
        &["run", "--help"],
        &["--version"],
    ] {
        let words = ["cannot write to standard output", "No space left", "free space"];
        three_lines(&into("/dev/full", args), 1, &words);
        assert_eq!(into("/dev/null", args).code, 0, "{args:?}");
    }
    // The container's program is told by a closed pipe; its exit code is its own.
    let words = ["not all output", "No space left", "free space"];
    three_lines(&into("/dev/full", &["run", "--rm", "busybox", "echo", "hi"]), 0, &words);
    three_lines(&into("/dev/full", &["run", "--rm", "busybox", "sh", "-c", "echo hi; exit 3"]), 3, &words);
    // Who has read enough does not want to hear of it.
    let yes = ["run", "--rm", "busybox", "sh", "-c", "yes 2>/dev/null"];
    for args in [&["images"][..], &["--help"], &yes] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran: Ran = coracle.command(args).stdout(writer).output().unwrap().into();
        assert_eq!(ran.err, "", "{args:?}");
    }
}

#[test]
fn what_is_no_image_name_is_met_with_the_way_to_one() {
    let coracle = Coracle::with_busybox();
    let digest = coracle.ok(&["images", "--format", "{{.Digest}}"]).trim().to_owned();
    let foreign = format!("foo@{digest}");
    for (name, words) in [
        ("BUSYBOX", &["is not a name", "in lower case: busybox"][..]),
        ("Busybox", &["is not a name", "in lower case: busybox"]),
        ("oci-archive:x.tar", &["oci-archive:x.tar", "load it first", "coracle pull oci-archive:x.tar"]),
        ("oci-archive:/x.tar", &["is not a name", "coracle pull oci-archive:/x.tar"]),
        ("./x", &["is not a name", "coracle load -i ./x"]),
        ("/path.tar", &["is not a name", "coracle load -i /path.tar"]),
        ("image.tar", &["no image named", "coracle load -i image.tar"]),
        ("docker://busybox", &["is not a name", "write the name alone: busybox"]),
        ("", &["is not a name", "a name is like"]),
        ("busybox:", &["is not a name", "leave it out: busybox"]),
        ("busybox@sha256:abc", &["is not a digest", "coracle images --digests"]),
        (&foreign, &["that digest is of busybox:latest", "its own name: busybox:latest"]),
        (&digest, &["that digest is of busybox:latest", "its own name: busybox:latest"]),
    ] {
        let ran = coracle.run(&["run", "--rm", name]);
        let mut all = vec!["cannot run"];
        all.extend(words);
        three_lines(&ran, 125, &all);
        assert!(!ran.err.contains("--explain"), "{name}: {}", ran.err);
    }
    // Nobody reads a line of thousands of characters.
    let long = "x".repeat(5000);
    for args in [&["run", &long][..], &["rmi", &long], &["tag", &long, &long], &["inspect", &long]] {
        let ran = coracle.run(args);
        assert!(ran.err.contains(&long[..40]) && ran.err.contains('…'), "{}: {}", args[0], ran.err);
        assert!(ran.err.len() < 1000, "{}: {}", args[0], ran.err);
    }
    coracle.assert_nothing_left();
}

#[test]
fn advice_about_images_can_be_followed() {
    let coracle = Coracle::with_busybox();
    let layout = format!("oci:{}", coracle.root().join("image").display());
    let platform = |args: &[&str]| coracle.run(&[args, &["--platform", "linux/s390x"]].concat());
    let directory = coracle.directory().display().to_string();
    let docker = format!("docker-archive:{}", fixture("busybox.docker.tar").display());
    let cases: &[(&[&str], &[&str])] = &[
        (&["pull", &format!("{layout}:nope")], &["cannot pull", "nope", "busybox", "give one of those"]),
        (&["import", "-c", "RUN ls", "-"], &["cannot import", "RUN ls", "as in a Dockerfile"]),
        (&["import", "http://x/y"], &["cannot import", "does not fetch", "curl -fL http://x/y"]),
        (&["import", &directory], &["cannot import", "a directory", "tar -C", "--rootfs"]),
        (&["import", "-", "Imp:4"], &["cannot import", "is not a name", "in lower case: imp:4"]),
        (&["images", "Busybox"], &["cannot list", "is not a name", "in lower case: busybox"]),
        (&["anatomy", "nope"], &["cannot show", "no container \"nope\"", "coracle ps"]),
        (&["load", "--platform", "a/b/c/d", &docker], &["a/b/c/d", "os/architecture"]),
    ];
    for (args, words) in cases {
        three_lines(&coracle.run(args), 1, words);
    }
    three_lines(
        &platform(&["pull", &layout]),
        1,
        &["cannot pull", "linux/s390x", "choose one", "--platform linux/"],
    );
    three_lines(&platform(&["load", &docker]), 1, &["cannot load", "linux/s390x", "choose one"]);
    let host = coracle.run(&["run", "--platform", "linux/s390x", "host"]);
    three_lines(&host, 125, &["cannot run", "this machine", "leave --platform out"]);
    // docker: this machine's architecture.
    coracle.ok(&["run", "--rm", "--platform", "linux", "busybox", "true"]);
}

#[test]
fn images_on_a_file_system_that_is_read_only_are_said_so() {
    if !is_root() {
        println!(
            "SKIP: errors::images_on_a_file_system_that_is_read_only_are_said_so: needs root for a mount"
        );
        return;
    }
    let coracle = Coracle::new();
    let read_only = |command: &str| {
        let script = format!(
            r#"mount -t tmpfs tmpfs "$PWD"; cd "$PWD"; run() {{ "$coracle" --root "$PWD/r" --state /run/x-$$ "$@"; }}
            coracle=$1; run load "docker-archive:$2" >/dev/null; mount -o remount,ro "$PWD"
            code=0; {command} || code=$?; rmdir /run/x-$$; exit $code"#
        );
        in_own_mounts(&coracle, &script)
    };
    for (command, code, headline) in [
        ("run load \"docker-archive:$2\"", 1, "cannot load images"),
        ("run rmi busybox", 1, "cannot remove image"),
        ("run tag busybox other", 1, "cannot name"),
        ("run import \"$2\" other", 1, "cannot import"),
        ("run run --rm busybox true", 125, "cannot run"),
    ] {
        three_lines(&read_only(command), code, &[headline, "Read-only file system", "--root DIR"]);
    }
}

#[test]
fn naming_on_a_full_disk_is_said() {
    if !is_root() {
        println!("SKIP: errors::naming_on_a_full_disk_is_said: needs root for a small disk");
        return;
    }
    let coracle = Coracle::new();
    let full = |command: &str| {
        let script = format!(
            r#"mount -t tmpfs -o size=8m,nr_inodes=2000 tmpfs "$PWD"; cd "$PWD"
            run() {{ "$coracle" --root "$PWD/root" --state /tmp "$@"; }}
            coracle=$1; run load "docker-archive:$2" >/dev/null; cat /dev/zero > fill 2>/dev/null || true
            code=0; {command} || code=$?; ls root/image/staging; test ! -e root/image/.index.json; exit $code"#
        );
        in_own_mounts(&coracle, &script)
    };
    three_lines(&full("run tag busybox other"), 1, &["cannot name", "No space left", "free space"]);
    three_lines(&full("run import \"$2\" other"), 1, &["cannot import", "No space left", "free space"]);
    // Not even a directory more.
    let none = "mkdir $(seq 3000) 2>/dev/null || true; run tag busybox other";
    three_lines(&full(none), 1, &["cannot name", "No space left", "free space"]);
}

#[test]
fn an_environment_without_a_home_is_said() {
    if is_root() {
        println!(
            "SKIP: errors::an_environment_without_a_home_is_said: root's directories do not depend on it"
        );
        return;
    }
    let mut command = Command::new(binaries().join("coracle"));
    command.arg("ps").env_remove("HOME").env_remove("XDG_DATA_HOME").env_remove("CORACLE_ROOT");
    three_lines(&command.output().unwrap().into(), 125, &["coracle's directories", "$HOME", "--root DIR"]);
}
