//! `cargo xtask try`: from a fresh checkout to a container.

use crate::error::{Error, Result};
use crate::process::{command, line};
use crate::setup;
use crate::workspace::Workspace;

/// The main job: a process with its own name, process tree, file system and limits.
const MAIN_JOB: &[&str] = &[
    "run",
    "--rm",
    "--network",
    "none",
    "--hostname",
    "container",
    "--pids-limit",
    "20",
    "--memory",
    "50m",
    "--cpus",
    "0.5",
    "--tmpfs",
    "/mytemp:size=100m,mode=0755",
    "host",
    "sh",
    "-c",
    "hostname; echo $$; df -m /mytemp; ls /proc",
];

/// Installs what the build needs, builds coracle, and runs the main job on the built-in image `host`.
pub(crate) fn try_out(workspace: &Workspace) -> Result<()> {
    setup::install(setup::BUILD_PACKAGES)?;
    let coracle = workspace.build("release")?.join("coracle");
    let mut job = command(&coracle.to_string_lossy(), MAIN_JOB);
    println!("\n$ {}", line(&job));
    let status =
        job.status().map_err(|source| Error::Spawn { program: coracle.display().to_string(), source })?;
    if !status.success() {
        return Err(Error::Command {
            line: "coracle run".into(),
            status: status.to_string(),
            stderr: String::new(),
        });
    }
    println!("\nThat was a container. The program is {}", coracle.display());
    Ok(())
}
