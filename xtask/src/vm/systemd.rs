//! The second boot of the virtual machine: the same disk with systemd as pid 1, where coracle's groups are in a scope that systemd
//! delegates. Only the tests of that run here, as root and as a user with a systemd of its own.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Scratch, machine, write_initramfs, write_payload};
use crate::error::Result;
use crate::outcome::Outcome;
use crate::workspace::{TestBinary, Workspace};

/// Root's and the user's places in `expected-skips.txt`.
const PLACES: [&str; 2] = ["vm-systemd", "vm-systemd-user"];
/// The module of the tests that need systemd; elsewhere they skip.
const MODULE: &str = "systemd::";
/// Runs those tests of systemd that `filter` leaves.
pub(super) fn test(workspace: &Workspace, only_users: bool, filter: Option<&str>) -> Result<Outcome> {
    let Some(filter) = own_filter(filter) else { return Ok(Outcome::default()) };
    let binaries = workspace.build("debug")?;
    let tests: Vec<TestBinary> =
        workspace.build_tests()?.into_iter().filter(TestBinary::is_about_systemd).collect();
    let scratch = Scratch::new(workspace, "vm-systemd")?;
    add_units(&scratch.0.join("payload"))?;
    write_payload(workspace, &scratch, &binaries, &tests, &plan(&tests, only_users, filter))?;
    write_initramfs(workspace, &scratch)?;
    machine::run(workspace, &scratch.0)
}

/// Whether a filter leaves only tests that run in this boot.
pub(super) fn is_about_systemd(filter: &str) -> bool {
    filter.starts_with(MODULE)
}

/// The filter for this boot: what was asked, if it is about systemd, else all of it; none if it is about something else.
fn own_filter(filter: Option<&str>) -> Option<&str> {
    match filter {
        None => Some(MODULE),
        Some(filter) => filter.contains("systemd").then_some(filter),
    }
}

/// The lines that suites.sh reads: PLACE SUITE DIRECTORY EXECUTABLE FILTER.
fn plan(tests: &[TestBinary], only_users: bool, filter: &str) -> String {
    let mut plan = String::new();
    for place in PLACES.iter().skip(usize::from(only_users)) {
        for TestBinary { suite, directory, .. } in tests {
            let _ = writeln!(plan, "{place} {suite} {} /coracle/tests/{suite} {filter}", directory.display());
        }
    }
    plan
}

/// Puts what init.sh hands over to systemd with on the disk: the goal of the boot, the unit that runs the tests, its script, and the names
/// of units that are not needed.
fn add_units(payload: &Path) -> Result<()> {
    let directory = payload.join("systemd");
    fs_err::create_dir_all(&directory)?;
    for (name, text) in [
        ("default.target", include_str!("systemd/default.target")),
        ("coracle-tests.service", include_str!("systemd/coracle-tests.service")),
        ("masked", include_str!("systemd/masked")),
        ("tests.sh", include_str!("systemd/tests.sh")),
    ] {
        fs_err::write(directory.join(name), text)?;
    }
    Ok(fs_err::set_permissions(directory.join("tests.sh"), std::fs::Permissions::from_mode(0o755))?)
}

#[cfg(test)]
mod tests {
    use super::own_filter;

    #[test]
    fn a_filter_for_something_else_needs_no_boot() {
        assert_eq!(own_filter(None), Some("systemd::"));
        assert_eq!(own_filter(Some("systemd::limits")), Some("systemd::limits"));
        assert_eq!(own_filter(Some("run::")), None);
    }
}
