//! What a container may not do, and what it cannot reach though it tries.

use std::collections::HashSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::coracle::{Coracle, Ran, binaries, is_root};
use crate::running::Running;
use crate::talk::unpacked;

/// docker's fourteen, as bits.
const DEFAULT: u64 = 0xa804_25fb;
const NET_ADMIN: u64 = 1 << 12;
const MKNOD: u64 = 1 << 27;
const KILL: u64 = 1 << 5;

/// A field of `/proc/self/status` of a program run with these options.
struct Status(String);

impl Status {
    #[track_caller]
    fn of(coracle: &Coracle, options: &[&str]) -> Self {
        let args = [&["run", "--rm"], options, &["busybox", "cat", "/proc/self/status"]].concat();
        Self(coracle.ok(&args))
    }

    #[track_caller]
    fn field(&self, name: &str) -> &str {
        let found = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("no {name} in {}", self.0)).trim()
    }

    /// The bounding, permitted, effective, inheritable and ambient sets.
    #[track_caller]
    fn sets(&self) -> [u64; 5] {
        ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"]
            .map(|name| u64::from_str_radix(self.field(name), 16).unwrap())
    }
}

/// Whether ids other than root's are mapped; if not, asking for one is refused with the way to get them.
fn has_more_ids(coracle: &Coracle) -> bool {
    let ran = coracle.run(&["run", "--rm", "-u", "1", "busybox", "true"]);
    if ran.code == 0 {
        return true;
    }
    assert!(!is_root() && ran.code == 125 && ran.err.contains("add-subuids"), "{ran:?}");
    false
}

#[test]
fn capabilities_are_dockers_and_what_was_asked() {
    let coracle = Coracle::with_busybox();
    let sets = |options: &[&str]| Status::of(&coracle, options).sets();
    let same = |bits| [bits, bits, bits, 0, 0];
    assert_eq!(sets(&[]), same(DEFAULT));
    assert_eq!(sets(&["--cap-add", "NET_ADMIN"]), same(DEFAULT | NET_ADMIN));
    assert_eq!(sets(&["--cap-drop", "mknod"]), same(DEFAULT & !MKNOD));
    assert_eq!(sets(&["--cap-drop", "ALL", "--cap-add", "CAP_KILL"]), same(KILL));
    assert_eq!(sets(&["--cap-drop", "ALL"]), same(0));
    let all = sets(&["--privileged"]);
    assert_eq!(all, sets(&["--cap-add", "ALL"]));
    assert_eq!(all, same(all[0]));
    assert!(all[0] & DEFAULT == DEFAULT && all[0] & (1 << 21) != 0, "{all:x?}");
    if has_more_ids(&coracle) {
        // As execve(2) has it for whoever is not root: nothing now, and no more than these ever.
        assert_eq!(sets(&["-u", "1000"]), [DEFAULT, 0, 0, 0, 0]);
        assert_eq!(sets(&["-u", "alice", "--cap-add", "NET_ADMIN"]), [DEFAULT | NET_ADMIN, 0, 0, 0, 0]);
    }
    coracle.assert_nothing_left();
}

#[test]
fn no_new_privileges_and_the_filter_are_set() {
    let coracle = Coracle::with_busybox();
    let state = |options: &[&str]| {
        let status = Status::of(&coracle, options);
        (status.field("NoNewPrivs").to_owned(), status.field("Seccomp").to_owned())
    };
    let is = |no_new: &str, filter: &str| (no_new.to_owned(), filter.to_owned());
    assert_eq!(state(&[]), is("0", "2"));
    assert_eq!(state(&["--security-opt", "no-new-privileges"]), is("1", "2"));
    assert_eq!(state(&["--security-opt", "seccomp=unconfined"]), is("0", "0"));
    assert_eq!(state(&["--privileged"]), is("0", "0"));
    coracle.assert_nothing_left();
}

#[test]
fn the_filter_forbids_what_the_profile_says() {
    let coracle = Coracle::with_busybox();
    let unshare = ["busybox", "unshare", "-U", "true"];
    let try_it = |options: &[&str], what: &[&str]| coracle.run(&[&["run", "--rm"], options, what].concat());
    let refused = try_it(&[], &unshare);
    assert!(refused.code != 0 && refused.err.contains("Operation not permitted"), "{refused:?}");
    let allowed = try_it(&["--security-opt", "seccomp=unconfined"], &unshare);
    assert_eq!(allowed.code, 0, "{allowed:?}");
    let profile = coracle.directory().join("profile.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    std::fs::write(&profile, text).unwrap();
    let option = format!("seccomp={}", profile.display());
    let own = try_it(&["--security-opt", &option], &["busybox", "mkdir", "/new"]);
    assert!(own.code != 0 && own.err.contains("No space left on device"), "{own:?}");
    assert_eq!(try_it(&["--security-opt", &option], &unshare).code, 0);
    coracle.assert_nothing_left();
}

/// Both programs' files: contents and modes.
fn programs() -> [(Vec<u8>, u32); 2] {
    ["coracle", "coracle-runtime"].map(|name| {
        let path = binaries().join(name);
        (std::fs::read(&path).unwrap(), std::fs::metadata(&path).unwrap().permissions().mode())
    })
}

/// CVE-2019-5736: a container overwrote the runtime through `/proc/self/exe`.
#[test]
fn the_programs_own_file_cannot_be_changed_from_inside() {
    let coracle = Coracle::with_busybox();
    let before = programs();
    let root = unpacked(&coracle);
    script(&root.join("entry"), "#!/proc/self/exe\n");
    // What the file names as its interpreter is our program, which has no use for these words.
    let ran = coracle.run(&["run", "--rm", "--rootfs", root.to_str().unwrap(), "/entry", "monitor"]);
    assert_ne!(ran.code, 0, "{ran:?}");
    // The same with the door held open from another process.
    script(
        &root.join("hold"),
        "#!/bin/sh\nfor try in $(seq 5); do for p in /proc/[0-9]*/exe; do (echo bad > $p) 2>/dev/null; done; done &\n\
         exec /entry\n",
    );
    coracle.run(&["run", "--rm", "--init", "--rootfs", root.to_str().unwrap(), "/hold"]);
    for powers in [&[][..], &["--cap-add", "ALL", "--security-opt", "seccomp=unconfined"]] {
        let mut container = Running::start(&coracle, &[powers, &["--init", "busybox"]].concat());
        assert!(container.ask("tr '\\0' ' ' < /proc/1/cmdline").contains("coracle-init"));
        for way in [
            "echo bad > /proc/1/exe",
            "exec 9< /proc/1/exe; echo bad > /proc/self/fd/9",
            "mount -o remount,rw /proc/1/exe",
        ] {
            let told = container.ask(&format!("if {way}; then echo done it; fi"));
            assert!(!told.contains("done it"), "{way}: {told}");
        }
        // A user's copy is in memory, where it may take any mode.
        container.ask("chmod 4777 /proc/1/exe");
        assert_eq!(container.end(), 0);
    }
    assert!(programs() == before, "a program was changed");
    coracle.assert_nothing_left();
}

fn script(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn descriptors_of_the_caller_do_not_leak_in() {
    let coracle = Coracle::with_busybox();
    let line = format!(
        "exec 5</etc/passwd 7</ 9>&1; exec {} --root {} --state {} run --rm busybox ls /proc/self/fd",
        binaries().join("coracle").display(),
        coracle.root().display(),
        coracle.state().display()
    );
    let ran: Ran = Command::new("bash").args(["-c", &line]).stdin(Stdio::null()).output().unwrap().into();
    assert_eq!(ran.out, "0\n1\n2\n3\n", "{ran:?}");
    coracle.assert_nothing_left();
}

/// The filter that a process has, as the kernel gives it to who may trace: the program of the tests that compare filters with runc's.
fn loaded_filter(probe: &Path, pid: u32) -> Option<Vec<u8>> {
    let output = Command::new(probe).args(["filter", &pid.to_string()]).output().unwrap();
    output.status.success().then_some(output.stdout)
}

/// What runs in a container has the very filter that crate `runtime`'s tests compare with runc's, for each set of capabilities.
#[test]
fn run_loads_the_filter_that_is_compared_with_runcs() {
    let is_there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !is_root() || !is_there("gcc") {
        println!(
            "SKIP: security::run_loads_the_filter_that_is_compared_with_runcs: needs root and a compiler"
        );
        return;
    }
    let coracle = Coracle::with_busybox();
    let probe = coracle.directory().join("probe");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/tests/seccomp/probe.c");
    let gcc = Command::new("gcc").args(["-static", "-mno-red-zone", "-o"]).arg(&probe).arg(source).status();
    assert!(gcc.unwrap().success());
    let mut programs = HashSet::new();
    for added in [None].into_iter().chain(runtime::CAPABILITIES.map(Some)) {
        let number = added.and_then(|name| runtime::CAPABILITIES.iter().position(|known| *known == name));
        let set = DEFAULT | number.map_or(0, |number| 1 << number);
        let options = added.map_or(vec!["busybox"], |name| vec!["--cap-add", name, "busybox"]);
        let container = Running::start(&coracle, &options);
        let compiled = runtime::seccomp::Filter::docker_default(set).unwrap().program;
        let compiled: Vec<u8> = compiled.iter().flat_map(|instruction| instruction.to_bytes()).collect();
        assert!(loaded_filter(&probe, container.pid).unwrap() == compiled, "with {added:?}");
        assert_eq!(container.end(), 0);
        programs.insert(compiled);
    }
    assert!(programs.len() > 10, "capabilities open calls: {} filters", programs.len());
    let container = Running::start(&coracle, &["--privileged", "busybox"]);
    assert_eq!(loaded_filter(&probe, container.pid), None);
    assert_eq!(container.end(), 0);
    coracle.assert_nothing_left();
}

/// Its standard input is the machine's /dev/null where none is passed on: giving it to the container's user would be felt by everybody.
#[test]
fn the_machines_null_device_keeps_its_owner() {
    use std::os::unix::fs::MetadataExt as _;
    let owner = || std::fs::metadata("/dev/null").map(|null| (null.uid(), null.gid())).unwrap();
    let coracle = Coracle::with_busybox();
    let before = owner();
    coracle.ok(&["run", "--rm", "busybox", "true"]);
    if is_root() {
        coracle.ok(&["run", "--rm", "-u", "7", "busybox", "true"]);
        coracle.ok(&["run", "--rm", "--userns", "private", "busybox", "true"]);
    }
    assert_eq!(owner(), before);
    coracle.assert_nothing_left();
}

/// Such a number means "leave it as it is" to setresuid(2): whoever ran as it would stay root.
#[test]
fn a_number_that_is_nobodys_is_not_roots() {
    let coracle = Coracle::with_busybox();
    for options in [["-u", "4294967295"], ["-u", "0:4294967295"], ["--group-add", "4294967295"]] {
        let ran = coracle.run(&[&["run", "--rm"], &options[..], &["busybox", "id"]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (125, ""), "{options:?}: {ran:?}");
        assert!(ran.err.contains("4294967295 is out of range") && ran.err.contains("to do: "), "{ran:?}");
    }
    coracle.assert_nothing_left();
}

#[test]
fn users_and_groups_are_those_of_the_image() {
    let coracle = Coracle::with_busybox();
    let id = |options: &[&str]| coracle.run(&[&["run", "--rm"], options, &["busybox", "id"]].concat());
    let unknown = id(&["-u", "nobody-here"]);
    assert_eq!(unknown.code, 125, "{unknown:?}");
    assert!(
        unknown.err.contains("user \"nobody-here\" is not in the container's /etc/passwd"),
        "{unknown:?}"
    );
    assert_eq!(id(&["-u", "root:no-group"]).code, 125);
    if has_more_ids(&coracle) {
        let is =
            |options: &[&str], expected: &str| assert_eq!(id(options).out.trim(), expected, "{options:?}");
        is(&["-u", "alice"], "uid=1000(alice) gid=1000(alice) groups=50(staff),1000(alice)");
        is(&["-u", "1000:staff"], "uid=1000(alice) gid=50(staff) groups=50(staff)");
        is(&["-u", "2000"], "uid=2000 gid=0(root) groups=0(root)");
        is(
            &["-u", "2000:7", "--group-add", "staff", "--group-add", "9"],
            "uid=2000 gid=7 groups=7,9,50(staff)",
        );
        // None of the caller's groups come in.
        assert_eq!(Status::of(&coracle, &["-u", "2000"]).field("Groups"), "0");
        let home = coracle.ok(&["run", "--rm", "-u", "alice", "busybox", "sh", "-c", "echo $HOME"]);
        assert_eq!(home, "/home/alice\n");
    }
    coracle.assert_nothing_left();
}

#[test]
fn an_image_with_traps_for_files_does_no_harm() {
    let coracle = Coracle::with_busybox();
    let root = unpacked(&coracle);
    let directory = root.to_str().unwrap();
    let run_as =
        |user: &str| coracle.run(&["run", "--rm", "--rootfs", directory, "-u", user, "echo", "here"]);
    let secret = coracle.directory().join("passwd");
    std::fs::write(&secret, "mallory:x:0:0::/:/bin/sh\n").unwrap();
    let passwd = root.join("etc/passwd");
    // Nobody ever writes into it, so reading it would wait for ever.
    std::fs::remove_file(&passwd).unwrap();
    assert!(Command::new("mkfifo").arg(&passwd).status().unwrap().success());
    assert_eq!((run_as("0").out.as_str(), run_as("alice").code), ("here\n", 125));
    // A link out of the container leads nowhere.
    std::fs::remove_file(&passwd).unwrap();
    symlink(&secret, &passwd).unwrap();
    assert_eq!((run_as("0").out.as_str(), run_as("mallory").code), ("here\n", 125));
    std::fs::remove_file(&passwd).unwrap();
    std::fs::create_dir(&passwd).unwrap();
    assert_eq!((run_as("0").out.as_str(), run_as("alice").code), ("here\n", 125));
    std::fs::remove_dir(&passwd).unwrap();
    symlink("passwd", &passwd).unwrap();
    assert_eq!((run_as("0").out.as_str(), run_as("alice").code), ("here\n", 125));
    // Longer than any honest one, and empty.
    std::fs::remove_file(&passwd).unwrap();
    std::fs::File::create(&passwd).unwrap().set_len(1 << 40).unwrap();
    assert_eq!((run_as("0").out.as_str(), run_as("alice").code), ("here\n", 125));
    coracle.assert_nothing_left();
}

/// Names are looked up by us: the C library would load modules of the machine into a process inside the container.
#[test]
fn no_lookups_of_the_c_library_are_linked() {
    for program in ["coracle", "coracle-runtime"] {
        let symbols = Command::new("nm").arg(binaries().join(program)).output();
        let symbols =
            symbols.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let words: HashSet<&str> = symbols.lines().filter_map(|line| line.split(' ').next_back()).collect();
        let has = |name: &str| words.contains(name);
        if !has("main") {
            println!("SKIP: security::no_lookups_of_the_c_library_are_linked: {program} has no symbols");
            return;
        }
        for name in [
            "getpwnam",
            "getpwnam_r",
            "getpwuid",
            "getpwuid_r",
            "getgrnam",
            "getgrnam_r",
            "getgrgid",
            "getgrgid_r",
            "getgrouplist",
            "initgroups",
            "getaddrinfo",
            "gethostbyname",
            "gethostbyname_r",
            "getservbyname_r",
            "__nss_lookup_function",
            "iconv_open",
        ] {
            assert!(!has(name), "{program} has {name}");
        }
    }
}
