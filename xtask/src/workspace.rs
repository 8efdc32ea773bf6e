//! Where things are, and building them.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::process::{capture, command, line, outcome, run};

/// The checkout and its build directory.
#[derive(Clone)]
pub(crate) struct Workspace {
    /// The directory of the workspace's Cargo.toml.
    pub(crate) root: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
    /// The target triple that everything is built for: `.cargo/config.toml` always names it.
    pub(crate) triple: String,
}

/// A test binary that cargo built.
pub(crate) struct TestBinary {
    /// `package` for unit tests, `package::target` for integration tests.
    pub(crate) suite: String,
    /// Whether it is an integration test (a file of `tests/`).
    pub(crate) integration: bool,
    /// The package's name.
    pub(crate) package: String,
    /// The directory of the package's Cargo.toml, which is where cargo runs its tests.
    pub(crate) directory: PathBuf,
    pub(crate) executable: PathBuf,
}

impl TestBinary {
    /// Whether it runs as ordinary users too: the integration tests of the command line do.
    pub(crate) fn is_for_users(&self) -> bool {
        self.integration && self.package == "coracle"
    }

    /// Whether it has tests that need systemd: what asks it, the runtime with its driver, and the command line over all.
    pub(crate) fn is_about_systemd(&self) -> bool {
        self.is_for_users() || self.integration && self.package == "cgroup" || self.suite == "runtime::oci"
    }
}

impl Workspace {
    /// Finds the checkout from the place where cargo runs us, or from the current directory.
    pub(crate) fn find() -> Result<Self> {
        let cargo = || command("cargo", ["metadata", "--format-version=1", "--no-deps"]);
        let metadata = parse("cargo metadata", &capture(&mut cargo())?)?;
        let path = |key: &str| metadata[key].as_str().map(PathBuf::from);
        let missing =
            |key: &str| Error::Output { tool: "cargo metadata".into(), detail: format!("no {key}") };
        let versions = capture(&mut command("rustc", ["-vV"]))?;
        let triple = versions.lines().find_map(|line| line.strip_prefix("host: "));
        Ok(Self {
            root: path("workspace_root").ok_or_else(|| missing("workspace_root"))?,
            target: path("target_directory").ok_or_else(|| missing("target_directory"))?,
            triple: triple.ok_or_else(|| missing("host triple"))?.to_owned(),
        })
    }

    /// The directory of the built binaries of a profile: `debug` or `release`.
    pub(crate) fn binaries(&self, profile: &str) -> PathBuf {
        self.target.join(&self.triple).join(profile)
    }

    /// The directory of the fixtures; `CORACLE_FIXTURES` overrides it, so that several checkouts can share one.
    pub(crate) fn fixtures(&self) -> PathBuf {
        std::env::var_os("CORACLE_FIXTURES").map_or_else(|| self.target.join("fixtures"), PathBuf::from)
    }

    /// A cargo command in the checkout.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = command("cargo", arguments);
        cargo.current_dir(&self.root);
        cargo
    }

    /// Builds `coracle` and `coracle-runtime`, and returns their directory.
    pub(crate) fn build(&self, profile: &str) -> Result<PathBuf> {
        let mut arguments = vec!["build", "--locked", "--bins"];
        if profile == "release" {
            arguments.push("--release");
        }
        run(&mut self.cargo(&arguments))?;
        Ok(self.binaries(profile))
    }

    /// Builds the test binaries of every crate of the product.
    pub(crate) fn build_tests(&self) -> Result<Vec<TestBinary>> {
        let arguments = ["test", "--locked", "--no-run", "--message-format=json-render-diagnostics"];
        let mut cargo = self.cargo(&arguments);
        cargo.stderr(std::process::Stdio::inherit());
        let output = outcome(&mut cargo)?;
        if !output.status.success() {
            // What is wrong was shown while it came.
            let status = output.status.to_string();
            return Err(Error::Command { line: line(&cargo), status, stderr: String::new() });
        }
        let mut found = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            found.extend(test_binary(&parse("cargo test", line)?));
        }
        found.sort_by(|a: &TestBinary, b| a.suite.cmp(&b.suite));
        Ok(found)
    }
}

/// The test binary that one of cargo's messages announces, if it announces one.
/// The format is described in the Cargo book, "External tools".
fn test_binary(message: &Value) -> Option<TestBinary> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let executable = PathBuf::from(message["executable"].as_str()?);
    let directory = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_owned();
    let target = &message["target"];
    let name = target["name"].as_str()?;
    let integration = target["kind"].as_array()?.iter().any(|kind| kind == "test");
    // path+file:///checkout/crates/kernel#0.1.0, or …/crates/cli#coracle@0.1.0 where the names differ
    let id = message["package_id"].as_str()?;
    let (place, version) = id.rsplit_once('#')?;
    let package =
        version.split_once('@').map_or_else(|| place.rsplit('/').next(), |(name, _)| Some(name))?.to_owned();
    let binary = target["kind"].as_array()?.iter().any(|kind| kind == "bin");
    let suite = if integration || (binary && name != package) {
        format!("{package}::{name}")
    } else {
        package.clone()
    };
    Some(TestBinary { suite, integration, package, directory, executable })
}

/// Reads JSON that `tool` printed.
pub(crate) fn parse(tool: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text)
        .map_err(|error| Error::Output { tool: tool.to_owned(), detail: error.to_string() })
}
