//! Where the benchmarks run: stores of coracle and podman on a scratch file system, with the same image in each.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::process::{capture, command, line, quiet, script};
use crate::workspace::{Workspace, parse};

/// What the stores and unpacked images need at most, in KiB.
const ROOM: u64 = 6 << 20;

/// The image in both stores, as `docker save` writes it.
const ARCHIVE: &str = "busybox.docker.tar";

/// Its name.
pub(super) const IMAGE: &str = "busybox";

/// A store, as a program has it: what stays, and what ends with the boot.
pub(super) struct Store {
    persistent: PathBuf,
    volatile: PathBuf,
}

impl Store {
    /// One that has its parts there.
    pub(super) fn at(persistent: PathBuf, volatile: PathBuf) -> Self {
        Self { persistent, volatile }
    }

    /// The directory of what stays.
    pub(super) fn persistent(&self) -> &Path {
        &self.persistent
    }
}

/// The stores and programs that are measured. Dropping it removes the stores.
pub(super) struct Bed {
    pub(super) coracle: PathBuf,
    pub(super) runtime: PathBuf,
    pub(super) fixtures: PathBuf,
    pub(super) workspace: Workspace,
    /// In memory where there is room, because a disk's own mood is none of ours.
    pub(super) scratch: PathBuf,
    /// Where installed programs have their stores: on a disk.
    pub(super) disk: PathBuf,
    pub(super) processors: usize,
}

impl Bed {
    /// Builds coracle, loads the image into both stores, and sees that coracle can run it: what does not work is
    /// quick.
    pub(super) fn make(workspace: &Workspace) -> Result<Self> {
        let binaries = workspace.build("release")?;
        let name = format!("coracle-bench-{}", std::process::id());
        let bed = Self {
            coracle: binaries.join("coracle"),
            runtime: binaries.join("coracle-runtime"),
            fixtures: workspace.fixtures(),
            workspace: workspace.clone(),
            scratch: scratch(workspace)?.join(&name),
            disk: Path::new("/var/tmp").join(&name),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        };
        fs_err::create_dir_all(&bed.scratch)?;
        fs_err::create_dir_all(&bed.disk)?;
        let archive = bed.fixtures.join(ARCHIVE).display().to_string();
        quiet(&mut bed.coracle(&bed.installed("coracle"), &["load", "-i", &archive]))?;
        quiet(&mut bed.podman(&bed.installed("podman"), &["load", "-q", "-i", &archive]))?;
        quiet(&mut script("cp -a \"$1\" \"$2\"", [bed.fixtures.join("busybox"), bed.plain_root()]))?;
        let hello = ["run", "--rm", "--network", "none", IMAGE, "echo", "hello"];
        let printed = capture(&mut bed.coracle(&bed.installed("coracle"), &hello))?;
        if printed.trim_end() == "hello" {
            return Ok(bed);
        }
        Err(Error::Output { tool: "coracle run".into(), detail: format!("{printed:?} instead of \"hello\"") })
    }

    /// The store of this name, as an installed program has it.
    pub(super) fn installed(&self, name: &str) -> Store {
        Store { persistent: self.disk.join(name), volatile: self.scratch.join(name) }
    }

    /// A store of this name that is wholly on the scratch file system.
    pub(super) fn scratch(&self, name: &str) -> Store {
        Store { persistent: self.scratch.join(name).join("persistent"), volatile: self.scratch.join(name) }
    }

    /// The image as a plain directory, beside the installed stores.
    pub(super) fn plain_root(&self) -> PathBuf {
        self.disk.join("plain")
    }

    /// A coracle command on this store.
    pub(super) fn coracle(&self, store: &Store, arguments: &[&str]) -> Command {
        let mut coracle = command(&self.coracle.to_string_lossy(), ["--root"]);
        coracle
            .arg(store.persistent.join("root"))
            .arg("--state")
            .arg(store.volatile.join("state"))
            .args(arguments);
        coracle
    }

    /// Builds an example of the crate `image`; its path.
    pub(super) fn example(&self, name: &str) -> Result<PathBuf> {
        let arguments = ["build", "--locked", "--release", "--package", "image", "--example", name];
        quiet(&mut self.workspace.cargo(&arguments))?;
        Ok(self.workspace.binaries("release").join("examples").join(name))
    }

    /// A podman command on this store, with runc, as docker has it.
    pub(super) fn podman(&self, store: &Store, arguments: &[&str]) -> Command {
        let mut podman = command("podman", ["--runtime", "runc", "--cgroup-manager", "cgroupfs"]);
        podman.args(["--storage-driver", "overlay", "--root"]).arg(store.persistent.join("root"));
        podman.arg("--runroot").arg(store.volatile.join("run"));
        podman.arg("--tmpdir").arg(store.volatile.join("tmp")).args(arguments);
        podman
    }

    /// The line that removes a store. podman leaves a bind mount in its own.
    pub(super) fn removal(&self, store: &Store) -> String {
        let (persistent, volatile) = (store.persistent.display(), store.volatile.display());
        format!("umount -q {persistent}/root/overlay; rm -rf {persistent} {volatile}")
    }

    /// Runs hyperfine once on all the commands, and returns the median of each in seconds. `prepare` is run before
    /// each run of a command.
    pub(super) fn medians(&self, runs: u32, prepare: Option<&str>, commands: &[String]) -> Result<Vec<f64>> {
        let export = self.scratch.join("hyperfine.json");
        let mut hyperfine =
            command("hyperfine", ["--style", "none", "--warmup", if runs < 10 { "1" } else { "5" }]);
        hyperfine.args(["--runs", &runs.to_string(), "--export-json"]).arg(&export);
        match prepare {
            Some(line) => hyperfine.args(["--prepare", line]),
            // A shell between would be measured too.
            None => hyperfine.arg("--shell=none"),
        };
        hyperfine.args(commands);
        eprintln!("+ {}", line(&hyperfine));
        quiet(&mut hyperfine)?;
        Self::read_medians(&export, commands.len())
    }

    /// The same without a shell in a mount namespace where control groups are version 2 only; each command has its own preparation, or
    /// none has one.
    pub(super) fn medians_in_v2(
        &self,
        runs: u32,
        prepare: &[String],
        commands: &[String],
    ) -> Result<Vec<f64>> {
        let export = self.scratch.join("hyperfine.json");
        let mut hyperfine =
            command("hyperfine", ["--style", "none", "--shell=none", "--warmup", "5", "--runs"]);
        hyperfine.arg(runs.to_string()).arg("--export-json").arg(&export);
        for line in prepare {
            hyperfine.args(["--prepare", line]);
        }
        hyperfine.args(commands);
        eprintln!("+ {}", line(&hyperfine));
        quiet(&mut self.in_v2(&line(&hyperfine)))?;
        Self::read_medians(&export, commands.len())
    }

    /// A command in a mount namespace where control groups are version 2 only.
    pub(super) fn in_v2(&self, line: &str) -> Command {
        const VIEW: &str = "mount --make-rprivate / && mount -t cgroup2 none /sys/fs/cgroup && exec ";
        command("unshare", ["-m", "bash", "-c", &format!("{VIEW}{line}")])
    }

    /// The medians in a report of hyperfine's, in seconds.
    pub(super) fn read_medians(report: &Path, count: usize) -> Result<Vec<f64>> {
        let report = parse("hyperfine", &fs_err::read_to_string(report)?)?;
        let results = report["results"].as_array().into_iter().flatten();
        let medians: Vec<f64> = results.filter_map(|result| result["median"].as_f64()).collect();
        if medians.len() == count {
            return Ok(medians);
        }
        Err(Error::Output { tool: "hyperfine".into(), detail: format!("{} medians", medians.len()) })
    }

    /// The kinds of file system that the installed stores and the scratch ones are on.
    pub(super) fn file_systems(&self) -> Result<String> {
        let kinds =
            capture(command("stat", ["--file-system", "--format=%T"]).args([&self.disk, &self.scratch]))?;
        Ok(kinds.split_whitespace().collect::<Vec<_>>().join(", scratch on "))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // podman tidies up after a container in the background, and mounts its store again for it.
        let again = format!(
            "set +e; for try in 1 2 3 4 5; do {}; sleep 0.2; done",
            self.removal(&self.installed("podman"))
        );
        for command in
            [&mut script(&again, [""; 0]), &mut command("rm", [Path::new("-rf"), &self.scratch, &self.disk])]
        {
            if let Err(error) = quiet(command) {
                eprintln!("xtask: {error}");
            }
        }
    }
}

/// The directory for what is to be in memory.
fn scratch(workspace: &Workspace) -> Result<PathBuf> {
    let free = capture(&mut command("df", ["--output=avail", "/dev/shm"]))?;
    let free: u64 = free.lines().nth(1).and_then(|line| line.trim().parse().ok()).unwrap_or(0);
    Ok(if free >= ROOM { PathBuf::from("/dev/shm") } else { workspace.target.clone() })
}
