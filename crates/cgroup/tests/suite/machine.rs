//! What the tests stand on: the machine's hierarchies, groups and processes that are cleaned up by drop.

use std::io::Write as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use cgroup::{Group, Hierarchy, Limits};

/// The hierarchies to test on.
pub fn hierarchies() -> Vec<Hierarchy> {
    let detected = Hierarchy::detect().unwrap();
    match &detected {
        Hierarchy::Hybrid { v1, .. } => vec![detected.clone(), Hierarchy::V1 { v1: v1.clone() }],
        _ => vec![detected],
    }
}

/// Whether a controller's files are of version 2 here.
pub fn is_v2(hierarchy: &Hierarchy) -> bool {
    matches!(hierarchy, Hierarchy::V2 { .. })
}

/// Where trees are mounted.
pub fn mount_points(hierarchy: &Hierarchy) -> Vec<std::path::PathBuf> {
    match hierarchy {
        Hierarchy::V2 { unified } => vec![unified.point.clone()],
        Hierarchy::Hybrid { unified, v1 } => {
            v1.iter().chain([unified]).map(|mount| mount.point.clone()).collect()
        }
        Hierarchy::V1 { v1 } => v1.iter().map(|mount| mount.point.clone()).collect(),
    }
}

/// A name that no other test uses.
pub fn name(test: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}-{test}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A group that is killed and removed with the test.
pub struct Guarded(pub Group);

impl Guarded {
    pub fn new(hierarchy: &Hierarchy, test: &str, limits: &Limits) -> Self {
        Self(Group::create(hierarchy, None, &name(test), limits).unwrap().expect("root has groups"))
    }

    /// Starts a shell in the group; it runs `script` once it is inside.
    pub fn shell(&self, script: &str) -> Process {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read _; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.0.join_everywhere(child.id()).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        Process(child)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let undone = self.0.kill().and_then(|()| self.0.remove());
        if !std::thread::panicking() {
            undone.unwrap();
        }
    }
}

/// A process that is killed and reaped with the test.
pub struct Process(pub Child);

impl Process {
    pub fn status(mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }

    /// What it printed, once it and all that have its output are gone.
    pub fn output(mut self) -> String {
        let mut text = String::new();
        use std::io::Read as _;
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks again until it is so; for things that come without an event. Fails after a time that no healthy machine needs.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("never came: {what}");
}

/// Runs one test of this binary again, in another situation. `command` ends with where the binary's path is to be put.
pub fn again(test: &str, role: &str, command: &[&str]) -> String {
    let own = std::env::temp_dir().join(name(role));
    // By another process: a descriptor of ours that writes would be in what other tests start meanwhile, and the file busy.
    let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&own).status().unwrap();
    assert!(copied.success());
    let (program, arguments) = command.split_first().unwrap();
    let output = Command::new(program)
        .args(arguments)
        .arg(&own)
        .args(["--exact", test, "--nocapture"])
        .env("CORACLE_TEST_ROLE", role)
        .output();
    fs_err::remove_file(&own).unwrap();
    let output = output.unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{role}: {text}");
    text
}

/// The situation this binary was started again for.
pub fn role() -> Option<String> {
    std::env::var("CORACLE_TEST_ROLE").ok()
}
