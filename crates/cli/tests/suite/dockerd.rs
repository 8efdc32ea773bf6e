//! A docker daemon for tests, which only has images. All of it ends with this.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::coracle::{Ran, is_root};

pub struct Dockerd {
    child: Child,
    directory: PathBuf,
}

impl Dockerd {
    /// None, and said, where there is none or the caller is not root.
    pub fn start(test: &str, directory: &Path) -> Option<Self> {
        if !is_root() || !Path::new("/usr/sbin/dockerd").exists() {
            println!("SKIP: dockerd::{test}: dockerd is not installed here, or this is not root");
            return None;
        }
        let directory = directory.join("docker");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("daemon.json"), "{}").unwrap();
        let at = |option: &str, name: &str| format!("--{option}={}", directory.join(name).display());
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        command.args(["dockerd", "--storage-driver=vfs", "--bridge=none", "--ip-forward=false"]);
        command.args(["--iptables=false", "--ip6tables=false"]);
        command.args([at("config-file", "daemon.json"), at("data-root", "data"), at("exec-root", "exec")]);
        command.args([at("pidfile", "pid"), format!("--host={}", host(&directory))]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let docker = Self { child: command.spawn().unwrap(), directory };
        let start = Instant::now();
        while docker.run(&["version"]).code != 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "dockerd does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(docker)
    }

    /// Its client.
    pub fn run(&self, args: &[&str]) -> Ran {
        let debians = "/usr/bin/docker";
        let mut command = Command::new(if Path::new(debians).exists() { debians } else { "docker" });
        command.arg("--config").arg(&self.directory).args(["--host", &host(&self.directory)]);
        command.args(args).stdin(Stdio::null()).output().unwrap().into()
    }

    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "docker {args:?}: {ran:?}");
        ran.out
    }
}

fn host(directory: &Path) -> String {
    format!("unix://{}/sock", directory.display())
}

impl Drop for Dockerd {
    /// The daemon is the first process of its namespace: with it all others end, and unshare, which waits for it.
    fn drop(&mut self) {
        let unshare = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
        for daemon in children.unwrap_or_default().split_whitespace() {
            let _ = Command::new("kill").args(["-KILL", daemon]).status();
        }
        let _ = self.child.wait();
    }
}
