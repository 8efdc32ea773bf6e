//! `cargo xtask test`: every test, here and in the virtual machine.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::leaks::Before;
use crate::outcome::{ExpectedSkips, Outcome};
use crate::process::line;
use crate::workspace::Workspace;
use crate::{setup, user, v1, vm};

/// The place's name in `expected-skips.txt` for tests on this machine.
const HERE: &str = "here";

/// Sets up, builds everything, runs the tests here, looks for leaks, runs the tests in the virtual machine.
pub(crate) fn test(workspace: &Workspace, filter: Option<&str>) -> Result<()> {
    setup::setup(workspace)?;
    let mut outcome = here(workspace, filter)?;
    outcome.add(v1::test(workspace, filter)?);
    outcome.add(user::test(workspace, filter)?);
    outcome.add(vm::test(workspace, false, filter)?);
    outcome.conclude(&expected_skips(workspace)?)
}

/// Runs only the tests in the virtual machine.
pub(crate) fn vm_only(workspace: &Workspace, only_users: bool, filter: Option<&str>) -> Result<()> {
    setup::setup(workspace)?;
    vm::test(workspace, only_users, filter)?.conclude(&expected_skips(workspace)?)
}

fn expected_skips(workspace: &Workspace) -> Result<ExpectedSkips> {
    Ok(ExpectedSkips::parse(&fs_err::read_to_string(workspace.root.join("xtask/expected-skips.txt"))?))
}

/// Runs the tests on this machine.
fn here(workspace: &Workspace, filter: Option<&str>) -> Result<Outcome> {
    let binaries = workspace.build("debug")?;
    // --show-output: a test that passes has its output kept back otherwise, and with it why it skipped.
    let mut cargo = workspace.cargo(&["test", "--locked", "--workspace", "--no-fail-fast", "--"]);
    cargo.args(filter).arg("--show-output");
    cargo.env("CORACLE_TEST_BIN_DIR", binaries).env("CORACLE_FIXTURES", workspace.fixtures());
    count(HERE, &workspace.target, &mut cargo)
}

/// Runs tests, shows their output as it comes, counts them, and looks for what they left behind; `programs` is the
/// directory that their programs are in.
pub(crate) fn count(place: &str, programs: &Path, tests: &mut Command) -> Result<Outcome> {
    let before = Before::look(programs)?;
    eprintln!("+ {}", line(tests));
    let spawned = tests.stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|source| Error::Spawn { program: line(tests), source })?;
    let mut outcome = Outcome::default();
    for output in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).split(b'\n')) {
        let output = output?;
        let text = String::from_utf8_lossy(&output);
        println!("{text}");
        outcome.read_line(place, &text);
    }
    let status = child.wait()?;
    // A binary that crashes, or does not build, has no line of its own for it.
    if !status.success() && outcome.faults.is_empty() {
        outcome.faults.push(format!("{place}: the tests ended with {status}"));
    }
    outcome.faults.extend(before.leaks()?.into_iter().map(|leak| format!("{place}: left behind: {leak}")));
    Ok(outcome)
}
