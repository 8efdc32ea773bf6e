//! Where things are, and building them.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::process::{capture, command, run};

/// The checkout and its build directory.
pub(crate) struct Workspace {
    /// The directory of the workspace's Cargo.toml.
    pub(crate) root: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
    /// The target triple that everything is built for: `.cargo/config.toml` always names it.
    pub(crate) triple: String,
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
}

/// Reads JSON that `tool` printed.
pub(crate) fn parse(tool: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text)
        .map_err(|error| Error::Output { tool: tool.to_owned(), detail: error.to_string() })
}
