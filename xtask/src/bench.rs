//! `cargo xtask bench`: coracle beside its peers.
//!
//! Every comparison is one run of hyperfine on one machine, so that what counts is the ratio; each line says the target
//! and whether it holds. These are no tests: a busy machine may miss a target without anything being wrong, so only
//! `--check` fails.

mod bed;
mod dockerd;
mod images;
mod layouts;
mod load;
mod oci;
mod registry;
mod size;
mod start;
mod verdict;

use crate::error::{Error, Result};
use crate::process::{capture, command, outcome};
use crate::setup;
use crate::workspace::Workspace;

use bed::Bed;
use verdict::Verdict;

/// A benchmark's name and what it does.
type Benchmark = (&'static str, fn(&Bed) -> Result<Vec<Verdict>>);

const BENCHMARKS: &[Benchmark] = &[
    ("start", start::start),
    ("limits", start::limits),
    ("fsync", start::fsync),
    ("parallel", start::parallel),
    ("load", load::load),
    ("load-memory", load::memory),
    ("run-memory", size::run_memory),
    ("binaries", size::binaries),
    ("seccomp", size::seccomp),
    ("images-pull", images::pull),
    ("images-share", images::share),
    ("images-rmi", images::remove),
    ("images-list", images::list),
    ("images-userns", images::userns),
    ("images-memory", images::memory),
    ("runtime-run", oci::run),
    ("runtime-seccomp", oci::seccomp),
    ("runtime-steps", oci::steps),
    ("runtime-exec", oci::exec),
    ("runtime-memory", oci::memory),
];

/// Runs the benchmarks whose name starts with `name`, or all.
pub(crate) fn bench(workspace: &Workspace, check: bool, name: Option<&str>) -> Result<()> {
    let chosen: Vec<_> =
        BENCHMARKS.iter().filter(|(known, _)| known.starts_with(name.unwrap_or_default())).collect();
    if chosen.is_empty() {
        let names: Vec<_> = BENCHMARKS.iter().map(|(name, _)| *name).collect();
        let what = format!("there is no benchmark `{}`", name.unwrap_or_default());
        return Err(Error::Missing { what, remedy: format!("there are: {}", names.join(", ")) });
    }
    setup::setup(workspace)?;
    let bed = Bed::make(workspace)?;
    print_versions(&bed)?;
    let mut missed = Vec::new();
    for (name, run) in chosen {
        match run(&bed) {
            Ok(verdicts) => {
                verdicts.iter().for_each(|verdict| println!("{name:<12} {verdict}"));
                let misses = verdicts.iter().filter(|verdict| !verdict.holds());
                missed.extend(misses.map(|verdict| format!("{name}: {verdict}")));
            }
            // One that cannot be measured does not keep the others from it.
            Err(error) => {
                println!("{name:<12} MISSED: {error}");
                missed.push(format!("{name}: {error}"));
            }
        }
    }
    if check && !missed.is_empty() { Err(Error::Check { check: "bench", faults: missed }) } else { Ok(()) }
}

/// Prints what is measured on, and with: the first line of what each program says of its version.
fn print_versions(bed: &Bed) -> Result<()> {
    println!("kernel {}, {} processors", capture(&mut command("uname", ["-r"]))?.trim_end(), bed.processors);
    println!("stores on {}", bed.file_systems()?);
    let coracle = bed.coracle.display().to_string();
    for program in
        [coracle.as_str(), "podman", "skopeo", "umoci", "runc", "crun", "unshare", "tar", "hyperfine"]
    {
        let output = outcome(&mut command(program, ["--version"]))?;
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{}", text.lines().next().unwrap_or(program));
    }
    Ok(())
}
