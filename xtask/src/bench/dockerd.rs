//! A dockerd to measure against.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::process::{command, outcome};

/// Debian's client, which is the daemon's age: another one in /usr/local may be newer.
pub(super) const CLIENT: &str = "/usr/bin/docker";

/// How long it may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A dockerd with roots and a socket of its own, which ends when this is dropped.
pub(super) struct Dockerd {
    child: Child,
    directory: PathBuf,
}

impl Dockerd {
    /// Starts one that keeps its images below `data` and everything else below `directory`.
    pub(super) fn start(directory: &Path, data: &Path) -> Result<Self> {
        fs_err::create_dir_all(directory)?;
        let configuration = directory.join("daemon.json");
        fs_err::write(&configuration, "{}")?;
        let at = |name: &str| directory.join(name).display().to_string();
        let mut daemon = command("dockerd", ["--config-file", &configuration.display().to_string()]);
        daemon.arg(format!("--data-root={}", data.display())).arg(format!("--exec-root={}", at("exec")));
        daemon.arg(format!("--pidfile={}", at("pid"))).arg(format!("--host=unix://{}", at("sock")));
        // Nothing is asked of the machine's packet filter.
        daemon.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--log-level=fatal"]);
        let child = daemon.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.map_err(|source| Error::Spawn { program: "dockerd".into(), source })?;
        let daemon = Self { child, directory: directory.to_owned() };
        let start = Instant::now();
        while !outcome(&mut daemon.client(&["version"]))?.status.success() {
            if start.elapsed() > PATIENCE {
                return Err(Error::Output { tool: "dockerd".into(), detail: "it does not answer".into() });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(daemon)
    }

    /// A command for it.
    pub(super) fn client(&self, arguments: &[&str]) -> Command {
        let host = format!("--host=unix://{}", self.directory.join("sock").display());
        let config = format!("--config={}", self.directory.join("client").display());
        let mut client = command(CLIENT, [host, config]);
        client.args(arguments);
        client
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // SIGTERM: its containerd ends with it, and its mounts.
        let _ = outcome(&mut command("kill", [self.child.id().to_string()]));
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
