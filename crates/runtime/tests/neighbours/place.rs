//! Where a caller and all that it starts live: a directory, a control group, and namespaces that end with the test.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::geteuid;

/// What the first process of a place's pid namespace does: own /run and /dev/shm, so that neither the callers' sockets and locks nor the runtime's
/// state are the machine's; then wait for the end of its input, which is the end of the test in whatever way it ends, or for the time that no test takes. Reaps what daemons leave.
const INIT: &str = "\
set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mkdir -m 1777 /run/lock
ip link set lo up
echo ready
exec tini-static -s -- timeout 300 cat
";

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Namespaces for processes, mounts and the network, a directory, and the name of a control group for everything that is started in them. Dropping it
/// ends all of that: with its first process the kernel kills every other of a pid namespace, and frees the mounts, links and rules of the others.
pub struct Place {
    directory: PathBuf,
    group: String,
    init: Child,
}

/// What a command left: its exit code and what it printed.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// What it printed, of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

/// A limit as the kernel has it, with the file of each version of control groups.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    Memory,
    Processes,
    Processor,
}

/// The runtime to test.
pub fn runtime() -> PathBuf {
    let runtime = match (std::env::var_os("NEIGHBOUR_RUNTIME"), std::env::var_os("CORACLE_TEST_BIN_DIR")) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(directory)) => PathBuf::from(directory).join("coracle-runtime"),
        // target/<triple>/<profile>/deps/neighbours-… is where cargo puts this.
        (None, None) => std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("coracle-runtime"),
    };
    assert!(runtime.exists(), "{} is missing: build it with `cargo build`", runtime.display());
    runtime
}

/// The archive of the small busybox image, `docker.io/library/busybox:latest`.
pub fn busybox() -> PathBuf {
    let directory = match std::env::var_os("CORACLE_FIXTURES") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fixtures"),
    };
    let path = directory.join("busybox.docker.tar");
    assert!(path.exists(), "{} is missing: make it with `cargo xtask setup`", path.display());
    path
}

/// Waits until `condition` gives something.
#[track_caller]
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The command on a terminal of its own, by script(1), which types what it reads. Nothing in it needs a shell's quotes.
pub fn on_a_terminal(command: &Command) -> Command {
    let text = |word: &OsStr| word.to_str().unwrap().to_owned();
    let set = |(name, value): (&OsStr, Option<&OsStr>)| Some(format!("{}={}", text(name), text(value?)));
    let words = [command.get_program()].into_iter().chain(command.get_args()).map(text);
    let line = command.get_envs().filter_map(set).chain(words).collect::<Vec<_>>().join(" ");
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
    script
}

impl Place {
    /// A new place; none, and said, where the caller is not root, which is who starts daemons.
    pub fn new(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            println!("SKIP: {test}: namespaces for daemons are root's");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Sockets are in it, whose paths end at 108 bytes. The name is what xtask looks for when it looks for leaks.
        let group = format!("coracle-neighbour-{}-{number}", std::process::id());
        let directory = Path::new("/var/tmp").join(&group);
        std::fs::create_dir_all(directory.join("tmp")).unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", INIT]);
        let init = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut place = Self { directory, group, init };
        let mut stdout = place.init.stdout.take().unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(&mut stdout, &mut ready).expect("namespaces of its own");
        Some(place)
    }

    /// A directory of this test's own, on a disk.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The name of the control group, below each hierarchy's root, that everything belongs into.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Writes a file of the directory.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Covers a file of /etc by one with this text, for these namespaces only.
    #[track_caller]
    pub fn bind(&self, name: &str, text: &str) {
        let file = self.write(name, text);
        self.run("mount", &["--bind", file.to_str().unwrap(), &format!("/etc/{name}")]).ok();
    }

    /// A command in these namespaces that has not been started; standard input is empty.
    pub fn command(&self, program: &str) -> Command {
        let namespaces = format!("/proc/{}/ns", self.init.id());
        let mut command = Command::new("prlimit");
        // No file is large: a container that writes without end must not fill the disk with its log.
        command.args(["--fsize=268435456", "nsenter"]);
        command.arg(format!("--mount={namespaces}/mnt")).arg(format!("--net={namespaces}/net"));
        command.arg(format!("--pid={namespaces}/pid_for_children")).args(["--", program]);
        command.env("TMPDIR", self.directory.join("tmp")).current_dir(&self.directory).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        self.command(program).args(arguments).output().unwrap().into()
    }

    /// Starts a daemon, whose log goes to the file `log` of the directory, and waits until `answers`.
    #[track_caller]
    pub fn daemon(&self, command: &mut Command, log: &str, mut answers: impl FnMut() -> bool) {
        let path = self.directory.join(log);
        let file = std::fs::File::create(&path).unwrap();
        // It ends with the namespaces, and nsenter, whose child it is, with it.
        let mut child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        until(log, || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", std::fs::read_to_string(&path).unwrap());
            answers().then_some(())
        });
        std::thread::spawn(move || child.wait());
    }

    /// A limit of the control group that the process `pid` of these namespaces stands in, as the kernel has it.
    #[track_caller]
    pub fn limit(&self, pid: &str, limit: Limit) -> String {
        let (controller, v1, v2) = match limit {
            Limit::Memory => ("memory", "memory.limit_in_bytes", "memory.max"),
            Limit::Processes => ("pids", "pids.max", "pids.max"),
            Limit::Processor => ("cpu", "cpu.cfs_quota_us", "cpu.max"),
        };
        let groups = self.run("cat", &[&format!("/proc/{pid}/cgroup")]).ok();
        // ID:CONTROLLERS:PATH, cgroups(7)
        let path = |wanted: &str| {
            let mut lines = groups.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
            lines.find(|line| line[1].split(',').any(|name| name == wanted)).map(|line| line[2].to_owned())
        };
        let file = match path(controller) {
            Some(path) => format!("/sys/fs/cgroup/{controller}{path}/{v1}"),
            None => format!("/sys/fs/cgroup{}/{v2}", path("").unwrap()),
        };
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}")).trim().to_owned()
    }

    /// Waits until no control group is left below ours: the runtime removes those of its containers. podman's own for its monitors stays.
    #[track_caller]
    pub fn until_no_groups(&self) {
        let below = |group: &PathBuf| groups_in(group).iter().any(|below| !below.ends_with("conmon"));
        until("no groups", || (!self.groups().iter().any(below)).then_some(()));
    }

    /// Shows how the daemons' logs end.
    fn tell(&self) {
        let files =
            std::fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.path());
        for log in files.filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
            let text = std::fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            println!("{} ends:", log.display());
            lines.iter().skip(lines.len().saturating_sub(20)).for_each(|line| println!("  {line}"));
        }
    }

    /// The directories of our control group that there are now, one for each hierarchy.
    fn groups(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let trees = std::fs::read_dir(root).into_iter().flatten().map(|entry| entry.unwrap().path());
        let groups = trees.chain([root.to_owned()]).map(|tree| tree.join(&self.group));
        groups.filter(|group| group.is_dir()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        // What is frozen does not die, and keeps its namespace from ending.
        self.groups().iter().for_each(|group| thaw(group));
        drop(self.init.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.init.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.init.kill();
        let _ = self.init.wait();
        while self.groups().iter().filter(|group| !remove(group)).count() > 0 {
            if Instant::now() > deadline {
                eprintln!("left behind: {:?}", self.groups());
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("left behind: {}: {error}", self.directory.display());
        }
    }
}

fn groups_in(group: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).collect()
}

/// Lets run what is frozen in a group and those below it, by either version.
fn thaw(group: &Path) {
    groups_in(group).iter().for_each(|below| thaw(below));
    for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        if group.join(file).exists() {
            let _ = std::fs::write(group.join(file), value);
        }
    }
}

/// Removes a group and those below it. Tells whether it is gone.
fn remove(group: &Path) -> bool {
    groups_in(group).iter().for_each(|below| {
        remove(below);
    });
    std::fs::remove_dir(group).is_ok()
}
