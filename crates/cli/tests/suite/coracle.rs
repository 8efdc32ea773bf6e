//! One private coracle for a test: its own roots, removed with all they hold when the test ends, also when it fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// coracle with roots of its own.
pub struct Coracle {
    directory: PathBuf,
}

/// What a command left: its exit code and what it printed.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The directory with `coracle` and `coracle-runtime`.
pub fn binaries() -> PathBuf {
    match std::env::var_os("CORACLE_TEST_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        // target/<triple>/<profile>/deps/main-… is where cargo puts this.
        None => std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned(),
    }
}

/// A fixture that `cargo xtask setup` makes.
pub fn fixture(name: &str) -> PathBuf {
    let directory = match std::env::var_os("CORACLE_FIXTURES") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fixtures"),
    };
    let path = directory.join(name);
    assert!(path.exists(), "{} is missing: make it with `cargo xtask setup`", path.display());
    path
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Coracle {
    /// Empty roots. On a disk: an overlay's upper directory needs user.* attributes, which tmpfs has only since 6.6.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = PathBuf::from(format!("/var/tmp/coracle-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        Self { directory }
    }

    /// With the small busybox image loaded as `busybox`.
    pub fn with_busybox() -> Self {
        let coracle = Self::new();
        let source = format!("docker-archive:{}", fixture("busybox.docker.tar").display());
        let loaded = coracle.run(&["load", &source]);
        assert_eq!(loaded.code, 0, "{loaded:?}");
        coracle
    }

    /// A directory of this test's own.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The persistent root.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// The volatile root.
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// A command that has not been started; standard input is empty.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binaries().join("coracle"));
        command
            .arg("--root")
            .arg(self.root())
            .arg("--state")
            .arg(self.state())
            .args(args)
            .stdin(Stdio::null());
        // No test asks anybody outside: what is not on this machine is asked of a proxy that is not there.
        for name in ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"] {
            command.env(name, "http://127.0.0.1:9");
        }
        command.env("NO_PROXY", "localhost,127.0.0.1").env("no_proxy", "localhost,127.0.0.1");
        command.env("REGISTRY_AUTH_FILE", self.directory.join("auth.json"));
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// Runs a command that must succeed, and gives its output.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "coracle {args:?}: {ran:?}");
        ran.out
    }

    /// Asserts that no container left a trace: no directory, no name, no state, no control group.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        for directory in [self.root().join("containers"), self.root().join("names"), self.state()] {
            let left: Vec<_> =
                std::fs::read_dir(&directory).into_iter().flatten().map(|e| e.unwrap().path()).collect();
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    }
}

impl Drop for Coracle {
    fn drop(&mut self) {
        let containers = self.run(&["ps", "-aq"]).out;
        for id in containers.lines() {
            self.run(&["rm", "-f", id]);
        }
        if std::fs::remove_dir_all(&self.directory).is_err() && !is_root() {
            // What belongs to subordinate ids is removed by root of a user namespace.
            let _ = Command::new("unshare")
                .args(["--map-auto", "--map-root-user", "rm", "-rf"])
                .arg(&self.directory)
                .status();
        }
    }
}
