//! A container that runs while a test asks its shell and looks at it from outside.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::coracle::Coracle;

/// The last word of each answer.
const END: &str = "end-of-answer";

/// A container whose first process is a shell that reads its commands from here.
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    errors: PathBuf,
    /// 64 digits.
    pub id: String,
    /// The shell's number on the host.
    pub pid: u32,
    /// The container's control groups: the controllers' names (none for v2), and the directory.
    pub groups: Vec<(String, PathBuf)>,
}

impl Running {
    /// `run --rm -i OPTIONS IMAGE sh`, where the image is the last of `options` (or a `--rootfs DIR`).
    #[track_caller]
    pub fn start(coracle: &Coracle, options: &[&str]) -> Self {
        Self::start_as(coracle, options, &["sh"])
    }

    /// The same with another shell.
    #[track_caller]
    pub fn start_as(coracle: &Coracle, options: &[&str], shell: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cid_file = coracle.directory().join(format!("cid-{number}"));
        let errors = coracle.directory().join(format!("errors-{number}"));
        let mut args = vec!["run", "--rm", "-i", "--cidfile", cid_file.to_str().unwrap()];
        args.extend(options.iter().chain(shell));
        let mut child = coracle
            .command(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut running =
            Self { child, input, output, errors, id: String::new(), pid: 0, groups: Vec::new() };
        running.ask("true");
        running.id = std::fs::read_to_string(&cid_file).unwrap();
        let state = std::fs::read(coracle.state().join(&running.id).join("state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        running.pid = u32::try_from(state["pid"].as_u64().unwrap()).unwrap();
        running.groups = groups_of(running.pid, &running.id);
        running
    }

    /// What a command in the container prints, standard error included.
    #[track_caller]
    pub fn ask(&mut self, command: &str) -> String {
        let input = self.input.as_mut().unwrap();
        // The shell may be gone, which the answer tells.
        let _ = writeln!(input, "{{ {command}\n}} 2>&1; echo {END}").and_then(|()| input.flush());
        let mut answer = String::new();
        loop {
            let start = answer.len();
            if self.output.read_line(&mut answer).unwrap() == 0 {
                let errors = std::fs::read_to_string(&self.errors).unwrap();
                panic!("the container ended at {command:?} after {answer:?}: {errors}");
            }
            if let Some(rest) = answer[start..].strip_suffix(&format!("{END}\n")) {
                answer.truncate(start + rest.len());
                return answer.trim_end().to_owned();
            }
        }
    }

    /// The directory of the group that has a controller; none without limits.
    pub fn group(&self, controller: &str) -> Option<&Path> {
        let is_v1 = |name: &str| name.split(',').any(|one| one == controller);
        let group = self.groups.iter().find(|(names, _)| is_v1(names));
        let unified = || self.groups.iter().find(|(names, _)| names.is_empty());
        group.or_else(unified).map(|(_, directory)| directory.as_path())
    }

    /// Ends the shell; gives its status after nothing of it is left.
    #[track_caller]
    pub fn end(mut self) -> i32 {
        drop(self.input.take());
        let status = self.child.wait().unwrap();
        assert!(!Path::new(&format!("/proc/{}", self.pid)).exists(), "its first process is still there");
        for (_, group) in &self.groups {
            assert!(!group.exists(), "{} is still there", group.display());
        }
        status.code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its shell reads the end of its input. Whatever hangs beyond that is removed by force when the roots are.
        drop(self.input.take());
        if std::thread::panicking() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// The groups of a process that are a container's own: those with its id in their path.
fn groups_of(pid: u32, id: &str) -> Vec<(String, PathBuf)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = text.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        path.contains(id).then(|| (controllers.to_owned(), directory_of(controllers, path)))
    });
    own.collect()
}

/// Where a group is in the mounted trees.
fn directory_of(controllers: &str, path: &str) -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let found = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let (kind, options) = (right.split(' ').next()?, right.split(' ').nth(2)?);
        let matches = match controllers {
            "" => kind == "cgroup2",
            _ => {
                kind == "cgroup" && controllers.split(',').all(|one| options.split(',').any(|own| own == one))
            }
        };
        let mut left = left.split(' ');
        let (root, point) = (left.nth(3)?, left.next()?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        matches.then(|| Path::new(point).join(below))
    });
    found.unwrap_or_else(|| panic!("no tree of {controllers:?} with {path}"))
}

/// The number behind a key in a control file of lines `key number`.
#[track_caller]
pub fn count(file: &Path, key: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{} has no {key}: {text}", file.display())).trim().parse().unwrap()
}
