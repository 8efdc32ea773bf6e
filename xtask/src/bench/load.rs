//! What it costs to load an image of 230 MB and 60,000 files.

use crate::error::{Error, Result};
use crate::process::{command, line, outcome, quiet, script};

use super::bed::Bed;
use super::verdict::{Bound, Verdict};

/// The least that has to be done: every layer unpacked and its digest taken, all at once, from files that lie ready.
const TAR: &str = "\
for layer in \"$1\"/*.tar.gz; do
    mkdir -p \"$2/$(basename \"$layer\")\"
    tar -C \"$2/$(basename \"$layer\")\" -xzf \"$layer\" &
    sha256sum \"$layer\" > /dev/null &
done
wait
";

/// Copies the archive to the scratch file system and takes the layers out of it.
const PREPARE: &str = "\
mkdir -p \"$2/layers\"
cp \"$1\" \"$2/bench.oci.tar\"
tar -C \"$2/layers\" -xf \"$1\" --strip-components=2 blobs
for blob in \"$2\"/layers/*; do
    if gzip -t \"$blob\" 2> /dev/null; then mv \"$blob\" \"$blob.tar.gz\"; else rm \"$blob\"; fi
done
";

/// Against podman, and against the least that has to be done.
pub(super) fn load(bed: &Bed) -> Result<Vec<Verdict>> {
    prepare(bed)?;
    let archive = bed.scratch.join("bench.oci.tar").display().to_string();
    let tar = bed.scratch.join("tar.sh");
    fs_err::write(&tar, TAR)?;
    let mut unpack = command("bash", [&tar]);
    unpack.arg(bed.scratch.join("layers")).arg(bed.scratch.join("load-tar"));
    let commands = [
        line(&bed.coracle(&bed.scratch("load-coracle"), &["load", "-i", &archive])),
        line(&bed.podman(&bed.scratch("load-podman"), &["load", "-q", "-i", &archive])),
        line(&unpack),
    ];
    let clean =
        ["load-coracle", "load-podman", "load-tar"].map(|store| bed.removal(&bed.scratch(store))).join("; ");
    let medians = bed.medians(5, Some(&clean), &commands)?;
    quiet(&mut script(&format!("set +e; {clean}"), [""; 0]))?;
    let [ours, podman, tar] = [medians[0], medians[1], medians[2]];
    let verdict = |peer: &str, theirs: f64, value, bound| Verdict {
        what: format!("load {ours:.2} s, {peer} {theirs:.2} s"),
        value,
        unit: "×",
        bound,
    };
    Ok(vec![
        verdict("podman load", podman, podman / ours, Bound::AtLeast(3.0)),
        verdict("tar and sha256sum", tar, ours / tar, Bound::AtMost(1.5)),
    ])
}

/// The most memory that loading takes, as GNU time reports it.
pub(super) fn memory(bed: &Bed) -> Result<Vec<Verdict>> {
    prepare(bed)?;
    let archive = bed.scratch.join("bench.oci.tar").display().to_string();
    let load = bed.coracle(&bed.scratch("load-coracle"), &["load", "-i", &archive]);
    let mut time = command("/usr/bin/time", ["--format=%M"]);
    let output = outcome(time.arg(load.get_program()).args(load.get_args()))?;
    quiet(&mut script(&format!("set +e; {}", bed.removal(&bed.scratch("load-coracle"))), [""; 0]))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let kib: Option<f64> = stderr.lines().last().and_then(|line| line.trim().parse().ok());
    if !output.status.success() {
        return Err(Error::Command {
            line: line(&time),
            status: output.status.to_string(),
            stderr: stderr.into(),
        });
    }
    let value = kib
        .ok_or_else(|| Error::Output { tool: "time".into(), detail: stderr.clone().into_owned() })?
        / 1024.0;
    let what = "peak memory of load".to_owned();
    Ok(vec![Verdict { what, value, unit: "MiB", bound: Bound::AtMost(64.0) }])
}

fn prepare(bed: &Bed) -> Result<()> {
    if bed.scratch.join("layers").exists() {
        return Ok(());
    }
    quiet(&mut script(PREPARE, [bed.fixtures.join("bench.oci.tar"), bed.scratch.clone()]))
}
