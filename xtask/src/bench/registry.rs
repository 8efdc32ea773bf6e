//! A registry on the loopback interface, which says what it was asked for.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::process::{command, quiet};

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// docker-registry with a store of its own; it ends when this is dropped.
pub(super) struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub(super) host: String,
    log: PathBuf,
}

impl Registry {
    /// Starts one that keeps all it has below `directory`.
    pub(super) fn start(directory: &Path) -> Result<Self> {
        fs_err::create_dir_all(directory)?;
        // Free now, and nobody here takes it before the registry does.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let host = free.map_err(|source| Error::Spawn { program: "docker-registry".into(), source })?;
        let (configuration, log) = (directory.join("config.yml"), directory.join("log"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{host}\"}}\n",
            directory.join("data").display()
        );
        fs_err::write(&configuration, text)?;
        let mut registry = command("docker-registry", [Path::new("serve"), &configuration]);
        // It tells each request on its standard output.
        registry.stdout(fs_err::File::create(&log)?.into_parts().0).stderr(std::process::Stdio::null());
        let child = registry.spawn();
        let child = child.map_err(|source| Error::Spawn { program: "docker-registry".into(), source })?;
        let registry = Self { child, host: host.to_string(), log };
        let start = Instant::now();
        while TcpStream::connect(host).is_err() {
            if start.elapsed() > PATIENCE {
                let detail = "it does not answer".to_owned();
                return Err(Error::Output { tool: "docker-registry".into(), detail });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// Puts an image there, `from` in skopeo's words.
    pub(super) fn put(&self, from: &str, name: &str) -> Result<()> {
        let to = format!("docker://{}/{name}", self.host);
        quiet(&mut command("skopeo", ["copy", "--quiet", "--dest-tls-verify=false", from, &to]))
    }

    /// How many requests there were so far with this method for a path that has this in it.
    pub(super) fn requests(&self, method: &str, part: &str) -> Result<usize> {
        let log = fs_err::read_to_string(&self.log)?;
        let word = format!("\"{method} ");
        let asks = |line: &&str| line.split_once(&word).is_some_and(|(_, rest)| rest.contains(part));
        Ok(log.lines().filter(asks).count())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
