//! What it costs to start a container.

use std::path::Path;

use crate::error::Result;
use crate::process::{command, line, quiet};

use super::bed::{Bed, IMAGE};
use super::verdict::{Bound, Verdict};

/// The plainest container.
const RUN: [&str; 4] = ["run", "--rm", "--network", "none"];

/// The talk's three limits.
const LIMITS: [&str; 6] = ["--pids-limit", "20", "--memory", "50m", "--cpus", "0.5"];

/// podman raises these limits by default, which a root without CAP_SYS_RESOURCE may not; lower ones it may set.
const PODMAN_LIMITS: &[&str] = &["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];

/// Containers that are started at once.
const AT_ONCE: usize = 32;

/// The calls that wait for a disk.
const SYNCS: &str = "trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync";

/// The command line of a container that does nothing.
fn run_line(bed: &Bed, options: &[&str]) -> String {
    line(&bed.coracle(&bed.installed("coracle"), &[&RUN, options, &[IMAGE, "/bin/true"]].concat()))
}

/// Against the bare tool that makes the same namespaces, and against podman.
pub(super) fn start(bed: &Bed) -> Result<Vec<Verdict>> {
    let mut unshare = command("unshare", ["-mpuinC", "--fork", "chroot"]);
    unshare.arg(bed.plain_root()).arg("/bin/true");
    let podman = bed.podman(&bed.installed("podman"), &[&RUN, PODMAN_LIMITS, &[IMAGE, "/bin/true"]].concat());
    let medians = bed.medians(40, None, &[run_line(bed, &[]), line(&unshare), line(&podman)])?;
    let [ours, unshare, podman] = [medians[0], medians[1], medians[2]];
    let verdict = |peer: &str, theirs: f64, value, bound| Verdict {
        what: format!("run {:.1} ms, {peer} {:.1} ms", ours * 1e3, theirs * 1e3),
        value,
        unit: "×",
        bound,
    };
    Ok(vec![
        verdict("unshare and chroot", unshare, ours / unshare, Bound::AtMost(2.0)),
        verdict("podman with runc", podman, podman / ours, Bound::AtLeast(20.0)),
    ])
}

/// What the limits add.
pub(super) fn limits(bed: &Bed) -> Result<Vec<Verdict>> {
    let medians = bed.medians(40, None, &[run_line(bed, &LIMITS), run_line(bed, &[])])?;
    let what = format!("with three limits {:.1} ms, without {:.1} ms", medians[0] * 1e3, medians[1] * 1e3);
    Ok(vec![Verdict { what, value: medians[0] / medians[1], unit: "×", bound: Bound::AtMost(1.3) }])
}

/// A start that waits for a disk is not a quick one.
pub(super) fn fsync(bed: &Bed) -> Result<Vec<Verdict>> {
    let log = bed.scratch.join("strace");
    let run = bed.coracle(&bed.installed("coracle"), &[&RUN[..], &[IMAGE, "/bin/true"]].concat());
    let mut strace = command("strace", ["-f", "-qq", "-e", "signal=none", "-e", SYNCS, "-o"]);
    strace.arg(&log).arg(run.get_program()).args(run.get_args());
    quiet(&mut strace)?;
    let calls = fs_err::read_to_string(&log)?.lines().filter(|call| !call.contains("resumed>")).count();
    let what = "calls that wait for a disk during run".to_owned();
    Ok(vec![Verdict { what, value: calls as f64, unit: "calls", bound: Bound::AtMost(0.0) }])
}

/// Many at once must not wait for each other.
pub(super) fn parallel(bed: &Bed) -> Result<Vec<Verdict>> {
    let file = bed.scratch.join("at-once");
    let one = run_line(bed, &[]);
    fs_err::write(&file, format!("for i in $(seq {AT_ONCE}); do {one} & done; wait\n"))?;
    let at_once = line(&command("bash", [Path::new(&file)]));
    let medians = bed.medians(20, None, &[one, at_once])?;
    let ideal = medians[0] * AT_ONCE as f64 / bed.processors as f64;
    let what = format!(
        "{AT_ONCE} at once {:.0} ms, one {:.1} ms, ideal on {} processors {:.0} ms",
        medians[1] * 1e3,
        medians[0] * 1e3,
        bed.processors,
        ideal * 1e3
    );
    Ok(vec![Verdict { what, value: medians[1] / ideal, unit: "×", bound: Bound::AtMost(1.5) }])
}
