//! The tests of control groups where there is nothing but version 1: on this machine, in a mount namespace of their own in which the tree
//! of version 2 is unmounted. Whether there is one is asked of the mounts alone, by the tests as by what they test.

use std::path::Path;

use crate::error::Result;
use crate::outcome::Outcome;
use crate::process::{command, is_root};
use crate::test::count;
use crate::workspace::Workspace;

/// The place's name in `expected-skips.txt`.
const PLACE: &str = "here-v1";

/// The suites, and which modules of them are about control groups: all, where none is named.
const SUITES: [(&str, &[&str]); 3] =
    [("cgroup::suite", &[]), ("coracle::main", &["limits::", "talk::"]), ("runtime::oci", &[])];

/// Takes version 2 away and becomes the tests, `$@`. Nothing is unmounted before it is sure that nobody else will see it.
const ALONE: &str = r#"
trees() { awk '/ - cgroup2 / { print $5 }' /proc/self/mountinfo; }
if grep -E '^[^-]* (shared|master):' /proc/self/mountinfo; then exit 1; fi
trees | while read -r tree; do umount "$tree"; done
test -z "$(trees)"
exec "$@"
"#;

/// Runs those tests, or says why not.
pub(crate) fn test(workspace: &Workspace, filter: Option<&str>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    if !is_root() || !has_trees()? {
        outcome
            .read_line(PLACE, "SKIP: v1::tests: needs root, and a machine with control groups of version 1");
        return Ok(outcome);
    }
    let binaries = workspace.build("debug")?;
    for test in workspace.build_tests()? {
        let Some((_, modules)) = SUITES.iter().find(|(suite, _)| *suite == test.suite) else { continue };
        let Some(filters) = filters(modules, filter) else { continue };
        let mut tests =
            command("unshare", ["--mount", "--propagation=private", "bash", "-euo", "pipefail", "-c"]);
        tests.args([ALONE, "script"]).arg(&test.executable).args(filters).arg("--show-output");
        tests.env("CORACLE_TEST_BIN_DIR", &binaries).env("CORACLE_FIXTURES", workspace.fixtures());
        outcome.add(count(PLACE, &workspace.target, tests.current_dir(&test.directory))?);
    }
    Ok(outcome)
}

/// Whether a tree of version 1 is mounted: proc_pid_mountinfo(5).
fn has_trees() -> Result<bool> {
    let mounts = fs_err::read_to_string(Path::new("/proc/self/mountinfo"))?;
    Ok(mounts.lines().any(|line| line.contains(" - cgroup ")))
}

/// What libtest is to look for, when only some modules of a suite are wanted and a filter was given; none if that leaves nothing.
fn filters<'a>(modules: &[&'a str], filter: Option<&'a str>) -> Option<Vec<&'a str>> {
    match filter {
        None => Some(modules.to_vec()),
        Some(filter) => (modules.is_empty() || modules.iter().any(|module| filter.starts_with(module)))
            .then(|| vec![filter]),
    }
}

#[cfg(test)]
mod tests {
    use super::filters;

    #[test]
    fn a_filter_leaves_what_is_about_control_groups() {
        let some = ["limits::", "talk::"];
        assert_eq!(filters(&some, None), Some(vec!["limits::", "talk::"]));
        assert_eq!(filters(&some, Some("limits::cpu")), Some(vec!["limits::cpu"]));
        assert_eq!(filters(&some, Some("errors::")), None);
        assert_eq!(filters(&[], None), Some(Vec::new()));
        assert_eq!(filters(&[], Some("life::")), Some(vec!["life::"]));
    }
}
