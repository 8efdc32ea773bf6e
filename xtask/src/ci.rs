//! `cargo xtask ci`: all that a change has to pass.

use crate::error::Result;
use crate::process::run;
use crate::workspace::Workspace;
use crate::{deny, setup, test};

/// Runs every check, the quick ones first, and stops at the first that fails.
pub(crate) fn ci(workspace: &Workspace) -> Result<()> {
    setup::setup(workspace)?;
    run(&mut workspace.cargo(&["fmt", "--all", "--check"]))?;
    deny::deny(workspace)?;
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    run(&mut workspace.cargo(&clippy))?;
    let doc = ["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"];
    run(workspace.cargo(&doc).env("RUSTDOCFLAGS", "--deny warnings"))?;
    test::test(workspace, None)
}
