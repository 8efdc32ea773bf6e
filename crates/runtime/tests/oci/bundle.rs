//! A private bundle, state root and control group for one test; all of it goes when the test ends, also when it fails.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::under_test::program;

/// No command of a runtime takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command left: its exit code (128 + signal if killed) and what it printed.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// One line of the runtime's log.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Logged {
    pub level: String,
    pub msg: String,
}

/// A container's bundle.
pub struct Bundle {
    directory: PathBuf,
    /// The container's id, the same in its group's name.
    pub id: String,
    /// What becomes config.json with the next command.
    pub config: Value,
    /// Global options of every command.
    pub options: Vec<&'static str>,
}

impl Bundle {
    /// With busybox as root file system and a configuration with nothing in it that is not needed: a program, new
    /// mount, pid, uts, ipc and network namespaces, /proc and a group.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("coracle-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = PathBuf::from(format!("/var/tmp/{id}"));
        let bundle = Self { config: minimal(&id), options: Vec::new(), directory, id };
        bundle.make_rootfs();
        bundle
    }

    fn make_rootfs(&self) {
        let root = self.rootfs();
        for name in ["bin", "dev", "etc", "mnt", "proc", "sys", "tmp"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::create_dir(self.directory.join("state")).unwrap();
        // Copied by another process: a descriptor open for writing here could be in a child that another test forks just
        // now, and a file that is being written cannot be executed.
        let busybox = static_busybox();
        run_ok("cp", &[busybox.to_str().unwrap(), root.join("bin/busybox").to_str().unwrap()]);
        for applet in applets().iter().filter(|name| *name != "busybox") {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    /// The state root.
    pub fn state_root(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// A path in the bundle's directory, as text.
    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    /// Sets what a JSON pointer (`/process/cwd`) names, making the objects on the way.
    pub fn set(&mut self, pointer: &str, value: impl Into<Value>) -> &mut Self {
        let mut place = &mut self.config;
        for part in pointer.split('/').skip(1) {
            if place.is_null() {
                *place = json!({});
            }
            place = match part.parse::<usize>() {
                Ok(index) if place.is_array() => &mut place[index],
                _ => &mut place[part],
            };
        }
        *place = value.into();
        self
    }

    /// Adds to the array that a pointer names.
    pub fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut array = self.config.pointer(pointer).cloned().unwrap_or_else(|| json!([]));
        array.as_array_mut().unwrap().push(value);
        self.set(pointer, array)
    }

    pub fn remove(&mut self, pointer: &str) -> &mut Self {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        self.config.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        self
    }

    pub fn mount(&mut self, mount: Value) -> &mut Self {
        self.push("/mounts", mount)
    }

    /// A namespace of this type, new or of a path; replaces what was asked of the type before.
    pub fn namespace(&mut self, kind: &str, path: Option<&str>) -> &mut Self {
        self.without_namespace(kind);
        let mut namespace = json!({"type": kind});
        if let Some(path) = path {
            namespace["path"] = path.into();
        }
        self.push("/linux/namespaces", namespace)
    }

    pub fn without_namespace(&mut self, kind: &str) -> &mut Self {
        let namespaces = self.config.pointer_mut("/linux/namespaces").unwrap().as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != kind);
        self
    }

    /// The container's program is this script of busybox's shell.
    pub fn script(&mut self, script: &str) -> &mut Self {
        self.set("/process/args", json!(["/bin/sh", "-c", script]))
    }

    /// Gives these capabilities in the bounding, effective and permitted sets.
    pub fn capabilities(&mut self, names: &[&str]) -> &mut Self {
        self.set("/process/capabilities", json!({"bounding": names, "effective": names, "permitted": names}))
    }

    /// Every namespace of the user's own: root of the container is 100000 of the host.
    pub fn user_namespace(&mut self) -> &mut Self {
        let mappings = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        self.set("/linux/uidMappings", mappings.clone()).set("/linux/gidMappings", mappings);
        run_ok("chown", &["-R", "100000:100000", self.rootfs().to_str().unwrap()]);
        // The way there must be open to it.
        self.namespace("user", None)
    }

    pub fn write_config(&self) {
        let text = serde_json::to_string_pretty(&self.config).unwrap();
        std::fs::write(self.directory.join("config.json"), text).unwrap();
    }

    /// A command with our state root, not started; standard input is empty, output is kept in files, since a container
    /// may hold it open for longer than the command.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("--root").arg(self.state_root()).args(&self.options).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end. `{bundle}` and `{id}` in the arguments are ours.
    pub fn run(&self, args: &[&str]) -> Ran {
        let args: Vec<String> = args.iter().map(|arg| self.fill(arg)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.finish(self.command(&args))
    }

    pub fn fill(&self, text: &str) -> String {
        text.replace("{bundle}", self.directory.to_str().unwrap()).replace("{id}", &self.id)
    }

    /// Starts a command, waits for its end and reads what it and what it left running has printed so far.
    pub fn finish(&self, mut command: Command) -> Ran {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = |kind: &str| self.directory.join(format!("{kind}-{number}"));
        let child = command
            .stdout(File::create(file("out")).unwrap())
            .stderr(File::create(file("err")).unwrap())
            .spawn()
            .unwrap();
        let status = wait(child, &format!("{command:?}"));
        let read = |kind| String::from_utf8_lossy(&std::fs::read(file(kind)).unwrap()).into_owned();
        Ran { code: code(status), out: read("out"), err: read("err") }
    }

    /// Runs a command that must succeed, and gives its output.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.out
    }

    /// Runs the whole container in the foreground.
    pub fn run_container(&self) -> Ran {
        self.write_config();
        self.run(&["run", "--bundle", "{bundle}", "{id}"])
    }

    /// What a script prints inside a container of this bundle; the script must succeed.
    #[track_caller]
    pub fn inside(&mut self, script: &str) -> String {
        self.script(script);
        let ran = self.run_container();
        assert_eq!(ran.code, 0, "{script}: {ran:?}");
        ran.out
    }

    /// Runs a container that must fail to be made, and gives the last error logged.
    #[track_caller]
    pub fn refused(&self) -> String {
        let ran = self.run_container();
        assert_ne!(ran.code, 0, "{ran:?}");
        ran.errors().pop().unwrap_or_else(|| panic!("no error is logged: {ran:?}"))
    }

    /// Makes the container, in state created.
    #[track_caller]
    pub fn create(&self) -> Ran {
        self.write_config();
        let ran = self.run(&["create", "--bundle", "{bundle}", "{id}"]);
        assert_eq!(ran.code, 0, "create: {ran:?}");
        ran
    }

    #[track_caller]
    pub fn start(&self) {
        self.ok(&["start", "{id}"]);
    }

    /// Brings a new container into a state; its program sleeps.
    #[track_caller]
    pub fn bring(&mut self, state: State) {
        if state == State::Missing {
            self.write_config();
            return;
        }
        self.set("/process/args", json!(["/bin/sleep", "1000"]));
        self.create();
        if state != State::Created {
            self.start();
        }
        match state {
            State::Paused => {
                self.ok(&["pause", "{id}"]);
            }
            State::Stopped => {
                self.ok(&["kill", "{id}", "KILL"]);
                self.wait_for("stopped");
            }
            State::Missing | State::Created | State::Running => {}
        }
    }

    /// The state as JSON.
    #[track_caller]
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", "{id}"])).unwrap()
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.state()["pid"].as_u64().unwrap().try_into().unwrap()
    }

    #[track_caller]
    pub fn wait_for(&self, status: &str) {
        eventually(&format!("status {status}"), || self.status() == status);
    }

    /// What a command prints in the running container; it must succeed.
    #[track_caller]
    pub fn exec(&self, script: &str) -> String {
        self.ok(&["exec", "{id}", "/bin/sh", "-c", script])
    }

    /// The container's directory in the v1 tree of a controller, or in the v2 tree for `unified`.
    pub fn group(&self, controller: &str) -> Option<PathBuf> {
        let tree = trees().into_iter().find(|tree| tree.controllers.iter().any(|name| name == controller))?;
        Some(tree.mount.join(&self.id))
    }

    /// Every directory that could be this container's group.
    pub fn groups(&self) -> Vec<PathBuf> {
        trees().into_iter().map(|tree| tree.mount.join(&self.id)).filter(|path| path.exists()).collect()
    }

    /// What is left of the container on this machine, by names: to be empty after delete.
    pub fn remains(&self) -> Vec<String> {
        let groups = self.groups().into_iter().map(|path| path.display().to_string());
        let state = std::fs::read_dir(self.state_root()).into_iter().flatten();
        let state = state.map(|entry| entry.unwrap().path().display().to_string());
        let mounts = mounts_under(&self.directory).into_iter().map(|path| path.display().to_string());
        groups.chain(state).chain(mounts).chain(self.processes()).collect()
    }

    /// Processes of the runtime or the container: those whose command line or group names this bundle, but for the dead
    /// that only wait for their parent, which is the machine's init.
    fn processes(&self) -> Vec<String> {
        let ours = |pid: &str| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            if status.contains("State:\tZ") {
                return None;
            }
            let named = String::from_utf8_lossy(&command).contains(&self.id) || group.contains(&self.id);
            named.then(|| format!("{pid}: {}", String::from_utf8_lossy(&command)))
        };
        let pids = std::fs::read_dir("/proc").unwrap();
        pids.filter_map(|entry| ours(entry.unwrap().file_name().to_str().unwrap())).collect()
    }

    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let start = Instant::now();
        let mut remains = self.remains();
        while !remains.is_empty() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
            remains = self.remains();
        }
        assert!(remains.is_empty(), "left behind: {remains:#?}");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.state_root()).into_iter().flatten().flatten() {
            if let Some(id) = entry.file_name().to_str() {
                let _ = self.command(&["delete", "--force", id]).output();
            }
        }
        for group in self.groups() {
            remove_group(&group);
        }
        for mount in mounts_under(&self.directory).into_iter().rev() {
            let _ = rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH);
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Ran {
    /// Every error of the log in text form on standard error.
    pub fn errors(&self) -> Vec<String> {
        let lines = self.err.lines().filter_map(Logged::of_text);
        lines.filter(|line| line.level == "error").map(|line| line.msg).collect()
    }
}

impl Logged {
    /// A line in the text form, `time="…" level=error msg="…"`.
    pub fn of_text(line: &str) -> Option<Self> {
        let after = line.split_once(" level=")?.1;
        let (level, msg) = after.split_once(" msg=")?;
        // Quoted as Go does, which is as JSON does for all that is printed here.
        let msg = if msg.starts_with('"') {
            let mut values = serde_json::Deserializer::from_str(msg).into_iter::<String>();
            values.next()?.ok()?
        } else {
            msg.to_owned()
        };
        Some(Self { level: level.to_owned(), msg })
    }
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Missing,
    Created,
    Running,
    Paused,
    Stopped,
}

/// A hierarchy of control groups.
pub struct Tree {
    pub mount: PathBuf,
    /// Controllers of v1, or `unified`.
    pub controllers: Vec<String>,
}

pub fn trees() -> Vec<Tree> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let tree = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let mount = PathBuf::from(fields.next()?);
        match fields.next()? {
            "cgroup2" => Some(Tree { mount, controllers: vec!["unified".to_owned()] }),
            "cgroup" => {
                let options = fields.next()?.split(',').map(str::to_owned).collect();
                Some(Tree { mount, controllers: options })
            }
            _ => None,
        }
    };
    table.lines().filter_map(tree).collect()
}

fn remove_group(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_group(&entry.path());
        }
    }
    let _ = std::fs::write(group.join("freezer.state"), "THAWED");
    for _ in 0..50 {
        for pid in std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
            let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
            let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
        if std::fs::remove_dir(group).is_ok() || !group.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Mounts at or below a directory, in the order they were made.
pub fn mounts_under(directory: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    // A blank in a name stands there as its number.
    let points =
        table.lines().filter_map(|line| line.split(' ').nth(1)).map(|name| name.replace("\\040", " "));
    points.map(PathBuf::from).filter(|point| point.starts_with(directory)).collect()
}

/// Waits until something holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for a child of ours, which is killed when it takes too long.
#[track_caller]
pub fn wait(mut child: Child, what: &str) -> ExitStatus {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("takes too long: {what}");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

/// Runs a program of the machine that must succeed, and gives its output.
#[track_caller]
pub fn run_ok(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn static_busybox() -> PathBuf {
    let fixtures = match std::env::var_os("CORACLE_FIXTURES") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fixtures"),
    };
    let fixture = fixtures.join("busybox/bin/busybox");
    if fixture.exists() { fixture } else { PathBuf::from("/bin/busybox") }
}

fn applets() -> &'static [String] {
    static APPLETS: OnceLock<Vec<String>> = OnceLock::new();
    APPLETS.get_or_init(|| {
        let list = run_ok(static_busybox().to_str().unwrap(), &["--list"]);
        list.lines().map(str::to_owned).collect()
    })
}

fn minimal(id: &str) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
        },
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "namespaces": [
                {"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"},
            ],
        },
    })
}
