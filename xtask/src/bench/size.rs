//! What coracle takes of the machine: memory, disk, and the time that its seccomp filter needs.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::leaks::{NAME, called};
use crate::process::capture;

use super::bed::{Bed, IMAGE};
use super::verdict::{Bound, Verdict};

/// How long a container may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// The peak of each process that a running container keeps: the command line and the monitor.
pub(super) fn run_memory(bed: &Bed) -> Result<Vec<Verdict>> {
    let run = ["run", "--rm", "-i", "--network", "none", IMAGE, "sh", "-c", "echo here; cat"];
    let mut run = bed.coracle(&bed.installed("coracle"), &run);
    // The container lives until we close its standard input.
    run.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let spawned = run.spawn();
    let mut child = spawned.map_err(|source| Error::Spawn { program: "coracle".into(), source })?;
    let mut greeting = [0; 5];
    let started = child.stdout.take().map(|mut stdout| std::io::Read::read_exact(&mut stdout, &mut greeting));
    let deadline = Instant::now() + PATIENCE;
    let mut peaks = peaks(child.id())?;
    while peaks.len() < 2 && Instant::now() < deadline && matches!(started, Some(Ok(()))) {
        std::thread::sleep(Duration::from_millis(20));
        peaks = self::peaks(child.id())?;
    }
    drop(child.stdin.take());
    child.wait()?;
    if peaks.len() < 2 {
        let detail = format!("{} of 2 processes found while a container ran", peaks.len());
        return Err(Error::Output { tool: "coracle run".into(), detail });
    }
    let verdict = |(name, kib): (String, f64)| Verdict {
        what: format!("peak memory of {name} during run"),
        value: kib / 1024.0,
        unit: "MiB",
        bound: Bound::AtMost(8.0),
    };
    Ok(peaks.into_iter().map(verdict).collect())
}

/// The peak memory, in KiB, of the command line, which has the number `pid`, and of its children with our name:
/// proc_pid_status(5), `VmHWM`.
fn peaks(pid: u32) -> Result<Vec<(String, f64)>> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir("/proc")?.flatten() {
        // Not every entry is a process, and a process may end while we look.
        let Ok(status) = fs_err::read_to_string(entry.path().join("status")) else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if ![field("Pid:"), field("PPid:")].contains(&Some(pid.to_string().as_str())) {
            continue;
        }
        let Some(name) = called(&entry.path()).filter(|name| name.starts_with(NAME)) else { continue };
        let peak = field("VmHWM:")
            .and_then(|peak| peak.strip_suffix(" kB"))
            .and_then(|peak| peak.trim().parse().ok());
        found.extend(peak.map(|kib| (name, kib)));
    }
    Ok(found)
}

/// The programs' files.
pub(super) fn binaries(bed: &Bed) -> Result<Vec<Verdict>> {
    let size = |path: &Path, most| -> Result<Verdict> {
        let value = fs_err::metadata(path)?.len() as f64 / f64::from(1 << 20);
        let what = format!("size of {}", path.file_name().unwrap_or_default().to_string_lossy());
        Ok(Verdict { what, value, unit: "MiB", bound: Bound::AtMost(most) })
    };
    Ok(vec![size(&bed.coracle, 8.0)?, size(&bed.runtime, 3.0)?])
}

/// Making the seccomp filter, the first time in a process: a container's filter is made once.
pub(super) fn seccomp(bed: &Bed) -> Result<Vec<Verdict>> {
    let arguments =
        ["run", "--quiet", "--locked", "--release", "-p", "runtime", "--example", "seccomp_compile"];
    let printed = capture(&mut bed.workspace.cargo(&arguments))?;
    let after = printed.split_once("first ").and_then(|(_, after)| after.split_once(" ns"));
    let nanoseconds: Option<f64> = after.and_then(|(number, _)| number.parse().ok());
    let value =
        nanoseconds.ok_or(Error::Output { tool: "seccomp_compile".into(), detail: printed.clone() })? / 1e6;
    let what = format!("making the seccomp filter ({})", printed.trim_end());
    Ok(vec![Verdict { what, value, unit: "ms", bound: Bound::AtMost(0.5) }])
}
