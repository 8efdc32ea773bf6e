//! `cargo xtask ci`: all that a change has to pass.

use crate::crash::{self, Points};
use crate::error::Result;
use crate::process::{command, run};
use crate::workspace::Workspace;
use crate::{setup, test};

/// Runs every check, the quick ones first, and stops at the first that fails.
pub(crate) fn ci(workspace: &Workspace) -> Result<()> {
    setup::setup(workspace)?;
    run(&mut workspace.cargo(&["fmt", "--all", "--check"]))?;
    deny(workspace)?;
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    run(&mut workspace.cargo(&clippy))?;
    let doc = ["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"];
    run(workspace.cargo(&doc).env("RUSTDOCFLAGS", "--deny warnings"))?;
    crash::crash(workspace, Points::SOME)?;
    test::test(workspace, None)
}

/// What `cargo deny` is installed as. Debian has no package of it.
const CARGO_DENY: [&str; 3] = ["cargo-deny", "--version", "0.20.2"];

/// Checks that the dependencies keep to deny.toml. Known vulnerabilities are not looked up: their list is on a server,
/// and the checks have to pass on a machine that reaches only the package registries.
fn deny(workspace: &Workspace) -> Result<()> {
    let tools = workspace.target.join("tools");
    let program = tools.join("bin/cargo-deny");
    if !program.exists() {
        // Unoptimised: it is built more slowly than it runs. From the root directory, where our own cargo
        // configuration (a static target) is not in force.
        let build = tools.join("build");
        let mut install =
            command("cargo", ["install", "--quiet", "--locked", "--debug", "--no-default-features"]);
        install.args(CARGO_DENY).arg("--root").arg(&tools).arg("--target-dir").arg(&build).current_dir("/");
        run(&mut install)?;
        fs_err::remove_dir_all(build)?;
    }
    let check = ["--all-features", "--locked", "check", "bans", "licenses", "sources"];
    run(command(&program.to_string_lossy(), check).current_dir(&workspace.root))
}
