//! The command line's tests as an ordinary user of this machine: one without a name, subordinate ids, or a delegated
//! group, which is the least that a user can be.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::outcome::Outcome;
use crate::process::{command, is_root, quiet, script};
use crate::test::count;
use crate::workspace::Workspace;

/// The place's name in `expected-skips.txt`.
const PLACE: &str = "here-user";

/// The user's and group's number, which nobody on a machine has by accident.
const ID: u32 = 64_123;

/// Copies programs, tests and small fixtures to where the user can read them: a checkout may be root's own.
/// `$1` is the directory to make, `$2` the programs' and `$3` the fixtures' one, `$4` the user, then come the tests.
const COPY: &str = "\
mkdir -p \"$1\"/{bin,tests,fixtures,home,run}
cp \"$2\"/coracle \"$2\"/coracle-runtime \"$1\"/bin
cp -r \"$3\"/busybox* \"$3\"/debian.oci.tar \"$1\"/fixtures
chmod -R a+rX \"$1\"/fixtures
chown \"$4:$4\" \"$1\"/{home,run}
chmod 700 \"$1\"/run
cp \"${@:5}\" \"$1\"/tests
";

/// Runs those tests. Who is not root is that user already, and has run them.
pub(crate) fn test(workspace: &Workspace, filter: Option<&str>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    if !is_root() {
        return Ok(outcome);
    }
    let binaries = workspace.build("debug")?;
    let tests: Vec<PathBuf> =
        workspace.build_tests()?.into_iter().filter(|t| t.is_for_users()).map(|t| t.executable).collect();
    if tests.is_empty() {
        return Ok(outcome);
    }
    // On a disk: an overlay's upper directory needs user.* attributes, which tmpfs has only since 6.6.
    let scratch = Scratch(Path::new("/var/tmp").join(format!("coracle-user-{}", std::process::id())));
    let mut copy = script(COPY, [scratch.0.as_path(), &binaries, &workspace.fixtures()]);
    quiet(copy.arg(ID.to_string()).args(&tests))?;
    for test in &tests {
        let program = scratch.0.join("tests").join(test.file_name().unwrap_or_default());
        let mut drop = command("setpriv", [format!("--reuid={ID}"), format!("--regid={ID}")]);
        drop.args(["--clear-groups", "--"]).arg(program).args(filter).arg("--show-output");
        drop.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("RUST_BACKTRACE", "1");
        drop.env("HOME", scratch.0.join("home")).env("XDG_RUNTIME_DIR", scratch.0.join("run"));
        drop.env("CORACLE_TEST_BIN_DIR", scratch.0.join("bin"))
            .env("CORACLE_FIXTURES", scratch.0.join("fixtures"));
        outcome.add(count(PLACE, &scratch.0, drop.current_dir(scratch.0.join("home")))?);
    }
    Ok(outcome)
}

/// The copies' directory; dropping it removes it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = quiet(&mut command("rm", [Path::new("-rf"), &self.0])) {
            eprintln!("xtask: {error}");
        }
    }
}
