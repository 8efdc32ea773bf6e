//! What a test must not leave behind on the machine: mounts, control groups, processes, network links.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::Result;

/// Where the control groups are mounted, on every kind of hierarchy.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What the names of our groups and programs hold.
pub(crate) const NAME: &str = "coracle";

/// How long what is being undone may take: the kernel frees a dead namespace in the background.
const GRACE: Duration = Duration::from_secs(5);

/// What was there before the tests.
pub(crate) struct Before {
    /// The directory whose programs must not go on running.
    programs: PathBuf,
    found: BTreeSet<String>,
}

impl Before {
    /// Notes what is there now.
    pub(crate) fn look(programs: &Path) -> Result<Self> {
        Ok(Self { found: look(programs)?, programs: programs.to_owned() })
    }

    /// What is there now and was not before. Waits a little for what is still going away.
    pub(crate) fn leaks(&self) -> Result<Vec<String>> {
        let deadline = Instant::now() + GRACE;
        loop {
            let leaks: Vec<String> = look(&self.programs)?.difference(&self.found).cloned().collect();
            if leaks.is_empty() || Instant::now() > deadline {
                return Ok(leaks);
            }
            // No event tells that several kinds of objects are gone, and nobody's test waits on this.
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn look(programs: &Path) -> Result<BTreeSet<String>> {
    let mut found = mounts()?;
    groups(Path::new(CGROUPS), &mut found);
    processes(programs, &mut found)?;
    for link in fs_err::read_dir("/sys/class/net")? {
        found.insert(format!("network link {}", link?.file_name().to_string_lossy()));
    }
    Ok(found)
}

/// The mount points of our mount namespace, from proc_pid_mountinfo(5).
fn mounts() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for line in fs_err::read_to_string("/proc/self/mountinfo")?.lines() {
        let mut fields = line.split(' ');
        if let (Some(id), Some(point)) = (fields.next(), fields.nth(3)) {
            found.insert(format!("mount {id} on {point}"));
        }
    }
    Ok(found)
}

/// Control groups with our name in theirs, and those below. A group that goes while we look is no leak.
fn groups(directory: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs_err::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if entry.file_name().to_string_lossy().contains(NAME) {
            found.insert(format!("control group {}", path.display()));
        }
        groups(&path, found);
    }
}

/// Processes that run a file of the directory `programs`, except this tool itself and what it was started by.
fn processes(programs: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs_err::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(executable) = fs_err::read_link(entry.path().join("exe")) else { continue };
        // The monitor runs from a detached clone of its file, so that path is not ours, but how it was called is.
        let ours = executable.starts_with(programs)
            || called(&entry.path()).is_some_and(|name| name.starts_with(NAME));
        if ours && pid != std::process::id() {
            found.insert(format!("process {pid} ({})", executable.display()));
        }
    }
    Ok(())
}

/// The name that a process was called by: the last part of its first argument. `process` is its directory in /proc.
pub(crate) fn called(process: &Path) -> Option<String> {
    let arguments = fs_err::read(process.join("cmdline")).ok()?;
    let first = arguments.split(|byte| *byte == 0).next()?;
    let name = first.rsplit(|byte| *byte == b'/').next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}
