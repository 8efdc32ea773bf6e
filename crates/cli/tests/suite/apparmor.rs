//! AppArmor: which profile a container gets, how coracle's own is loaded, and that it decides as docker-default does.
//!
//! What is loaded is the machine's, so a test of loading has a policy namespace of its own, which knows no profile at first.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::coracle::{Coracle, Ran, is_root};
use crate::running::Running;

const CURRENT: &str = "/proc/self/attr/apparmor/current";
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
/// All powers, and nothing but AppArmor that takes them away.
const POWERFUL: [&str; 6] =
    ["--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"];
const UNCONFINED: [&str; 2] = ["--security-opt", "apparmor=unconfined"];

fn is_on() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.starts_with('Y'))
}

/// Whether this is the place of tests that load profiles; says so if not.
fn can_load(test: &str) -> bool {
    let can = is_on() && is_root();
    if !can {
        println!("SKIP: apparmor::{test}: AppArmor is off, or not ours to ask");
    }
    can
}

/// What a container's program is confined by.
#[track_caller]
fn profile_of(coracle: &Coracle, options: &[&str]) -> String {
    coracle.ok(&[&["run", "--rm"], options, &["busybox", "cat", CURRENT]].concat()).trim().to_owned()
}

/// A refusal in three lines that name the object.
#[track_caller]
fn assert_refused(ran: &Ran, words: &[&str]) {
    assert_eq!((ran.code, ran.out.as_str(), ran.err.lines().count()), (125, "", 3), "{ran:?}");
    for word in words {
        assert!(ran.err.contains(word), "no {word:?}: {ran:?}");
    }
}

#[test]
fn where_apparmor_is_off_a_profile_is_refused() {
    if is_on() {
        println!("SKIP: apparmor::where_apparmor_is_off_a_profile_is_refused: AppArmor is on");
        return;
    }
    let coracle = Coracle::with_busybox();
    let run = |option: &str| coracle.run(&["run", "--rm", "--security-opt", option, "busybox", "true"]);
    for profile in ["docker-default", "coracle-default"] {
        let option = format!("apparmor={profile}");
        assert_refused(
            &run(&option),
            &[&option, "not enabled in this machine's kernel", "apparmor=unconfined"],
        );
    }
    assert_eq!(run("apparmor=unconfined").code, 0);
    let running = Running::start(&coracle, &["--name", "free", "busybox"]);
    assert_eq!(coracle.ok(&["inspect", "--format", "{{.AppArmorProfile}}", "free"]), "\n");
    assert!(!coracle.ok(&["anatomy", "free"]).contains("AppArmor"));
    assert_eq!(running.end(), 0);
    coracle.assert_nothing_left();
}

#[test]
fn roots_containers_are_confined_unless_asked_otherwise() {
    if !can_load("roots_containers_are_confined_unless_asked_otherwise") {
        return;
    }
    let coracle = Coracle::with_busybox();
    let default = profile_of(&coracle, &[]);
    assert!(default.starts_with("coracle-default-") && default.ends_with(" (enforce)"), "{default}");
    let name = default.trim_end_matches(" (enforce)");
    for options in [
        &["--init"][..],
        &["-u", "1000"],
        &["--userns", "private"],
        &["--security-opt", "no-new-privileges"],
        &["--security-opt", "apparmor=coracle-default"],
        &["--security-opt", &format!("apparmor={name}")],
        &["--privileged", "--security-opt", "apparmor=coracle-default"],
    ] {
        assert_eq!(profile_of(&coracle, options), default, "{options:?}");
    }
    for options in [&["--privileged"][..], &UNCONFINED] {
        assert_eq!(profile_of(&coracle, options), "unconfined", "{options:?}");
    }
    let running = Running::start(&coracle, &["--name", "confined", "busybox"]);
    assert_eq!(coracle.ok(&["inspect", "-f", "{{.AppArmorProfile}}", "confined"]).trim(), name);
    let page = coracle.ok(&["anatomy", "confined"]);
    assert!(page.lines().any(|line| line.contains("AppArmor profile") && line.ends_with(&default)), "{page}");
    assert_eq!(running.end(), 0);
    let missing = coracle.run(&["run", "--rm", "--security-opt", "apparmor=no-such", "busybox", "true"]);
    assert_refused(&missing, &["apparmor=no-such", "\"no-such\" is loaded", "apparmor_parser -r"]);
    coracle.assert_nothing_left();
}

/// Only root loads profiles; a user goes into one that is there, as the kernel allows to who is unconfined.
#[test]
fn a_users_container_has_the_profile_that_was_asked_for() {
    if !is_on() || is_root() {
        println!(
            "SKIP: apparmor::a_users_container_has_the_profile_that_was_asked_for: not a user's, or off"
        );
        return;
    }
    let coracle = Coracle::with_busybox();
    for options in [&[][..], &UNCONFINED, &["--privileged"]] {
        assert_eq!(profile_of(&coracle, options), "unconfined", "{options:?}");
    }
    let ask = |name: &str| {
        let option = format!("apparmor={name}");
        coracle.run(&["run", "--rm", "--security-opt", &option, "busybox", "cat", CURRENT])
    };
    assert_refused(&ask("no-such"), &["no-such", "apparmor_parser -r"]);
    // Whether root has run a container before decides.
    let own = ask("coracle-default");
    match own.code {
        0 => assert!(own.out.starts_with("coracle-default-"), "{own:?}"),
        _ => assert_refused(&own, &["coracle-default-", "apparmor_parser -r"]),
    }
    coracle.assert_nothing_left();
}

/// A policy namespace: what is loaded in it is seen there alone.
struct PolicyNamespace(String);

impl PolicyNamespace {
    fn new(name: &str) -> Self {
        let namespace = Self(format!("coracle-test-{name}-{}", std::process::id()));
        std::fs::create_dir(namespace.directory()).unwrap();
        namespace
    }

    fn directory(&self) -> PathBuf {
        Path::new("/sys/kernel/security/apparmor/policy/namespaces").join(&self.0)
    }

    /// Runs a program in it. `before` is done by the shell that becomes the program, in a mount namespace of its own.
    fn run(&self, before: &str, program: &Command) -> Ran {
        let label = format!(":{}:unconfined", self.0);
        under(&label, &format!("{before}\n"), program).output().unwrap().into()
    }

    /// The names of what is loaded.
    fn profiles(&self) -> Vec<String> {
        let mut cat = Command::new("cat");
        let text = self.run("", cat.arg(LOADED)).out;
        text.lines().map(|line| line.rsplit_once(" (").unwrap().0.to_owned()).collect()
    }
}

impl Drop for PolicyNamespace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(self.directory());
    }
}

/// A program that starts under a profile, by a shell that becomes it.
fn under(label: &str, before: &str, program: &Command) -> Command {
    let mut shell = Command::new("unshare");
    let line = format!("{before} echo 'exec {label}' > /proc/self/attr/apparmor/exec && exec \"$@\"");
    shell.args(["--mount", "sh", "-c", &line, "sh"]).arg(program.get_program()).args(program.get_args());
    shell.stdin(Stdio::null());
    shell
}

#[test]
fn the_profile_is_loaded_once() {
    if !can_load("the_profile_is_loaded_once") {
        return;
    }
    let coracle = Coracle::with_busybox();
    let namespace = PolicyNamespace::new("once");
    assert_eq!(namespace.profiles(), [""; 0]);
    // Who wants none needs none.
    for options in [&UNCONFINED[..], &["--privileged"]] {
        let ran =
            namespace.run("", &coracle.command(&[&["run", "--rm"], options, &["busybox", "true"]].concat()));
        assert_eq!((ran.code, namespace.profiles()), (0, vec![]), "{options:?}: {ran:?}");
    }
    let run = || {
        let args = ["run", "--rm", "--explain", "busybox", "cat", CURRENT];
        let ran = namespace.run("", &coracle.command(&args));
        assert_eq!(ran.code, 0, "{ran:?}");
        ran
    };
    let first = run();
    let profiles = namespace.profiles();
    assert_eq!(profiles.len(), 1, "{profiles:?}");
    assert!(first.out.starts_with(&format!("{} (enforce)", profiles[0])), "{profiles:?}: {first:?}");
    assert!(first.err.contains("apparmor_parser"), "{}", first.err);
    let second = run();
    assert_eq!((&second.out, namespace.profiles()), (&first.out, profiles));
    assert!(!second.err.contains("apparmor_parser"), "{}", second.err);
    coracle.assert_nothing_left();
}

#[test]
fn a_profile_that_cannot_be_loaded_is_said_with_the_way_out() {
    if !can_load("a_profile_that_cannot_be_loaded_is_said_with_the_way_out") {
        return;
    }
    let coracle = Coracle::with_busybox();
    let namespace = PolicyNamespace::new("broken");
    let run = |before: &str, options: &[&str]| {
        let args = [&["run", "--rm"], options, &["busybox", "echo", "ran"]].concat();
        namespace.run(before, &coracle.command(&args))
    };
    let without = "mount -t tmpfs none /usr/sbin &&";
    let headline = "cannot load coracle's AppArmor profile";
    let ways = ["package apparmor", "apparmor=unconfined"];
    assert_refused(&run(without, &[]), &[headline, "apparmor_parser", "not installed", ways[0], ways[1]]);
    assert_eq!(run(without, &UNCONFINED).out, "ran\n");
    let bad = coracle.directory().join("base");
    std::fs::write(&bad, "  capability no_such,\n").unwrap();
    let broken = format!("mount --bind {} /etc/apparmor.d/abstractions/base &&", bad.display());
    assert_refused(&run(&broken, &[]), &[headline, "status 1: AppArmor parser error", "no_such", ways[1]]);
    // Nor is one that needs what is not there.
    let bare = "mount -t tmpfs none /etc/apparmor.d &&";
    assert_eq!(run(bare, &[]).out, "ran\n");
    coracle.assert_nothing_left();
}

/// Commands of a shell in a container that docker-default denies, or that it lets through; by the rule of its that decides. Sources: moby,
/// profiles/apparmor/template.go, of version 20.10 to 28; abstractions/base of AppArmor for what that includes.
///
/// At /sys is a tree of plain files, as AppArmor goes by names.
const DENIED: &[(&str, &[&str])] = &[
    (
        "deny mount",
        &[
            "mkdir /m; mount -t tmpfs none /m",
            "mount -o bind /etc /m",
            "mount -o remount,ro /dev/shm",
            "mount --make-private /dev/shm",
            "mount --move /dev/mqueue /m",
        ],
    ),
    ("deny @{PROC}/* w", &[": >> /proc/meminfo", ": >> /proc/cmdline", ": >> /proc/filesystems"]),
    ("deny @{PROC}/{two letters}/** w", &["set -- /proc/fs/*/*/*; : >> $1"]),
    ("deny @{PROC}/{three letters}/** w", &[": >> /proc/irq/default_smp_affinity", ": >> /proc/tty/drivers"]),
    ("deny @{PROC}/{more letters}/** w", &[": >> /proc/sysvipc/msg", ": >> /proc/pressure/cpu"]),
    (
        "deny @{PROC}/sys/[^k]** w",
        &[": >> /proc/sys/vm/swappiness", ": >> /proc/sys/net/ipv4/ip_forward", ": >> /proc/sys/fs/file-max"],
    ),
    (
        "deny @{PROC}/sys/kernel/{...} w",
        &[
            ": >> /proc/sys/kernel/core_pattern",
            ": >> /proc/sys/kernel/hostname",
            ": >> /proc/sys/kernel/modprobe",
            ": >> /proc/sys/kernel/printk",
            ": >> /proc/sys/kernel/msgmax",
        ],
    ),
    ("deny @{PROC}/sysrq-trigger rwklx", &[": >> /proc/sysrq-trigger"]),
    ("deny @{PROC}/kcore rwklx", &[": < /proc/kcore"]),
    (
        "deny /sys/[^f]*/** wklx",
        &[
            ": >> /sys/kernel/file",
            ": > /sys/kernel/new",
            "ln /sys/kernel/file /sys/kernel/link",
            "/sys/kernel/file",
            ": >> /sys/class/net/file",
        ],
    ),
    ("deny /sys/f[^s]*/** wklx", &[": >> /sys/fx/file"]),
    ("deny /sys/fs/[^c]*/** wklx", &[": >> /sys/fs/ext4/file"]),
    ("deny /sys/fs/c[^g]*/** wklx", &[": >> /sys/fs/cx/file"]),
    ("deny /sys/fs/cg[^r]*/** wklx", &[": >> /sys/fs/cgx/file"]),
    ("deny /sys/firmware/** rwklx", &[": < /sys/firmware/efi/file", ": >> /sys/firmware/efi/file"]),
    ("deny /sys/devices/virtual/powercap/** rwklx", &[": < /sys/devices/virtual/powercap/file"]),
    ("deny /sys/kernel/security/** rwklx", &[": < /sys/kernel/security/apparmor/file"]),
    ("no rule for change_profile", &["echo 'exec unconfined' > /proc/self/attr/exec"]),
];
const ALLOWED: &[(&str, &[&str])] = &[
    ("umount", &["umount /dev/shm", "umount -l /dev/pts"]),
    ("capability", &["touch /f && chown 7:7 /f && rm /f", "hostname other", "mknod /tmp/null c 1 3"]),
    ("network", &["ping -c 1 127.0.0.1", "ip link set lo up"]),
    (
        "file",
        &[
            "cp /bin/busybox /b && chmod 700 /b && ln /b /echo && /echo run && rm /b /echo",
            "mkfifo /fifo && rm /fifo",
            ": < /proc/meminfo",
            ": < /proc/sys/vm/swappiness",
            ": < /sys/kernel/file",
            ": >> /proc/self/oom_score_adj",
            "echo name > /proc/self/comm",
        ],
    ),
    // What the patterns do not reach.
    ("deny @{PROC}/{three letters}/** w", &[": >> /proc/bus/pci/devices"]),
    (
        "deny @{PROC}/sys/kernel/{...} w",
        &[
            ": >> /proc/sys/kernel/shmmax",
            ": >> /proc/sys/kernel/shm_rmid_forced",
            ": >> /proc/sys/kernel/sem",
            ": >> /proc/sys/kernel/threads-max",
        ],
    ),
    ("deny /sys/[^f]*/** wklx", &[": >> /sys/file"]),
    ("deny /sys/fs/cg[^r]*/** wklx", &[": >> /sys/fs/cgroups/file"]),
    ("no rule for userns: its ABI has none", &["unshare -U true"]),
    ("abstractions/base: signal set=(exists)", &["kill -0 1"]),
    ("signal (send,receive) peer=docker-default", &["sleep 100 & kill $!"]),
    ("ptrace (read) peer=docker-default", &["cat /proc/1/environ > /f"]),
];

/// A directory for /sys with a file at each place that a rule is about.
fn files_for_sys(coracle: &Coracle, name: &str) -> String {
    let root = coracle.directory().join(name);
    for directory in [
        "",
        "class/net",
        "devices/virtual/powercap",
        "firmware/efi",
        "fs/cgroups",
        "fs/cgx",
        "fs/cx",
        "fs/ext4",
        "fx",
        "kernel",
        "kernel/security/apparmor",
    ] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
        let file = root.join(directory).join("file");
        std::fs::write(&file, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    format!("{}:/sys", root.display())
}

/// What each command comes to: whether it succeeds, and what it says if not.
fn verdicts(coracle: &Coracle, volume: &str, options: &[&str]) -> Vec<(bool, String)> {
    let commands = DENIED.iter().chain(ALLOWED).flat_map(|(_, commands)| *commands);
    let mut container = Running::start(coracle, &[&POWERFUL, options, &["-v", volume, "busybox"]].concat());
    // In a shell of its own: what fails must not end the one that is asked.
    let mut ask = |command: &&str| {
        let answer = container.ask(&format!("sh -c '{}'; echo \"=$?\"", command.replace('\'', "'\\''")));
        let (said, status) = answer.rsplit_once('=').unwrap();
        (status == "0", said.trim().to_owned())
    };
    let verdicts = commands.map(&mut ask).collect();
    assert_eq!(container.end(), 0);
    verdicts
}

#[test]
fn the_profile_decides_as_docker_default() {
    if !can_load("the_profile_decides_as_docker_default") {
        return;
    }
    let coracle = Coracle::with_busybox();
    let free = verdicts(&coracle, &files_for_sys(&coracle, "free"), &UNCONFINED);
    let confined = verdicts(&coracle, &files_for_sys(&coracle, "confined"), &[]);
    let expected = [(DENIED, true), (ALLOWED, false)].into_iter().flat_map(|(rules, is_denied)| {
        rules.iter().flat_map(move |(rule, commands)| commands.iter().map(move |one| (rule, one, is_denied)))
    });
    let mut wrong = Vec::new();
    for ((rule, command, is_denied), (free, confined)) in expected.zip(free.into_iter().zip(confined)) {
        // Without the profile all of it is possible, so that the profile is what decides.
        let is_right = match is_denied {
            true => !confined.0 && confined.1.contains("Permission denied"),
            false => confined.0,
        };
        if !free.0 || !is_right {
            wrong.push(format!("{rule}: {command}: free {free:?}, confined {confined:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    coracle.assert_nothing_left();
}

/// A process outside, under a profile or none.
struct Outside(Child);

impl Outside {
    fn start() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_container_reaches_processes_of_containers_only() {
    if !can_load("a_container_reaches_processes_of_containers_only") {
        return;
    }
    let coracle = Coracle::with_busybox();
    let outside = Outside::start();
    let other = Running::start(&coracle, &["busybox"]);
    for (confinement, is_free) in [(&UNCONFINED[..], true), (&[], false)] {
        let options = [&POWERFUL, confinement, &["--pid", "host", "busybox"]].concat();
        let mut container = Running::start(&coracle, &options);
        for (pid, is_container) in [(outside.0.id(), false), (other.pid, true)] {
            // Reading a process's variables takes the right to read it, opening its memory that to trace it.
            for (command, rule) in [
                (format!("kill -CONT {pid}"), "signal"),
                (format!("cat /proc/{pid}/environ > /dev/null"), "ptrace (read)"),
                (format!(": < /proc/{pid}/mem"), "ptrace (trace)"),
            ] {
                let told = container.ask(&format!("sh -c '{command}' && echo done it"));
                let may = is_free || is_container;
                assert_eq!(told.ends_with("done it"), may, "{rule}: {confinement:?}: {command}: {told}");
                assert!(may || told.contains("Permission denied"), "{rule}: {told}");
            }
            // abstractions/base: whether there is a process may be asked of any.
            assert!(container.ask(&format!("kill -0 {pid} && echo done it")).ends_with("done it"));
        }
        assert_eq!(container.end(), 0);
    }
    assert_eq!(other.end(), 0);
    coracle.assert_nothing_left();
}

#[test]
fn signals_come_from_runtimes_and_the_unconfined() {
    if !can_load("signals_come_from_runtimes_and_the_unconfined") {
        return;
    }
    const STRANGER: &str = "coracle-test-stranger";
    const RUNTIMES: [&str; 4] = ["coracle", "coracle-runtime", "crun", "runc"];
    let coracle = Coracle::with_busybox();
    let names = RUNTIMES.iter().chain([&STRANGER]);
    let text: String = names
        .map(|name| format!("profile {name} {{ file, signal, ptrace, capability, mount, umount, }}\n"))
        .collect();
    let file = coracle.directory().join("profiles");
    std::fs::write(&file, text).unwrap();
    let parser =
        |action: &str| Command::new("apparmor_parser").args(["-K", action]).arg(&file).status().unwrap();
    assert!(parser("-r").success());
    let container = Running::start(&coracle, &["busybox"]);
    let signal = |label: &str| -> Ran {
        let mut kill = Command::new("sh");
        kill.args(["-c", &format!("cat {CURRENT}; kill -CONT {}", container.pid)]);
        under(label, "", &kill).output().unwrap().into()
    };
    let answers: Vec<Ran> =
        RUNTIMES.iter().chain(&["unconfined", STRANGER]).map(|label| signal(label)).collect();
    assert_eq!(container.end(), 0);
    assert!(parser("-R").success());
    for (ran, label) in answers.iter().zip(RUNTIMES.iter().chain(&["unconfined"])) {
        assert!(ran.code == 0 && ran.out.starts_with(label), "{label}: {ran:?}");
    }
    let stranger = answers.last().unwrap();
    assert!(stranger.code != 0 && stranger.err.contains("Permission denied"), "{stranger:?}");
    coracle.assert_nothing_left();
}

/// Who is confined and runs containers stays able to end them: their profile names the caller's, and so is another one.
#[test]
fn a_confined_caller_ends_its_containers() {
    if !can_load("a_confined_caller_ends_its_containers") {
        return;
    }
    const CALLER: &str = "coracle-test-caller";
    let coracle = Coracle::with_busybox();
    let file = coracle.directory().join("profile");
    let rules = "capability, file, network, mount, umount, remount, pivot_root, signal, ptrace, unix, dbus, change_profile,";
    std::fs::write(&file, format!("profile {CALLER} flags=(attach_disconnected) {{ {rules} }}\n")).unwrap();
    let parser =
        |action: &str| Command::new("apparmor_parser").args(["-K", action]).arg(&file).status().unwrap();
    assert!(parser("-r").success());
    let program = coracle.command(&["run", "--rm", "busybox", "cat", CURRENT]);
    let ran: Ran = under(CALLER, "", &program).output().unwrap().into();
    let default = profile_of(&coracle, &[]);
    assert!(ran.code == 0 && ran.out.starts_with("coracle-default-"), "{ran:?}");
    assert_ne!(ran.out.trim(), default);
    // A signal to the command line is passed on to the program, which ends by it.
    let program = coracle.command(&["run", "--rm", "--init", "busybox", "sleep", "1000"]);
    let mut timed = Command::new("timeout");
    timed.args(["--preserve-status", "--kill-after=60", "--signal=TERM", "20"]);
    timed.arg(program.get_program()).args(program.get_args());
    let ran: Ran = under(CALLER, "", &timed).output().unwrap().into();
    assert!(parser("-R").success());
    assert_eq!(ran.code, 143, "{ran:?}");
    coracle.assert_nothing_left();
}
