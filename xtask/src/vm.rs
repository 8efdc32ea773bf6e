//! The tests in a virtual machine with the oldest promised kernel, Debian 12's 6.1, and control groups of version 2
//! only. It runs without hardware support, so that it works inside any other virtual machine, and boots in seconds.
//!
//! The machine has two disks, neither of which keeps what is written: Debian with the fixtures (made once, by
//! `cargo xtask setup`), and one with the programs to test (made each time). `vm/guest.sh` runs the suites and reports
//! in lines that start with `@@`. A second boot of the same disk (`vm/systemd.rs`) has systemd as pid 1.

pub(crate) mod machine;
mod systemd;

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::outcome::Outcome;
use crate::process::{quiet, script};
use crate::workspace::{TestBinary, Workspace};

/// The ordinary users' places: one has subordinate ids, one has none.
const USERS_PLACES: [&str; 2] = ["vm-user", "vm-plain"];

/// Builds everything and runs the tests in the virtual machine.
pub(crate) fn test(workspace: &Workspace, only_users: bool, filter: Option<&str>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    if !filter.is_some_and(systemd::is_about_systemd) {
        outcome.add(test_without_systemd(workspace, only_users, filter)?);
    }
    outcome.add(systemd::test(workspace, only_users, filter)?);
    Ok(outcome)
}

fn test_without_systemd(workspace: &Workspace, only_users: bool, filter: Option<&str>) -> Result<Outcome> {
    let binaries = workspace.build("debug")?;
    let tests = workspace.build_tests()?;
    let scratch = Scratch::new(workspace, "vm")?;
    let plan = plan(&tests, only_users, filter);
    write_payload(workspace, &scratch, &binaries, &tests, &plan)?;
    write_initramfs(workspace, &scratch)?;
    machine::run(workspace, &scratch.0)
}

/// The directory of this run's disks and logs. What is large in it goes when we are done.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(workspace: &Workspace, name: &str) -> Result<Self> {
        let directory = workspace.target.join(name);
        quiet(&mut crate::process::command("rm", [Path::new("-rf"), &directory]))?;
        fs_err::create_dir_all(&directory)?;
        Ok(Self(directory))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The logs stay. What cannot be removed now is removed by the next run.
        let _ = fs_err::remove_dir_all(self.0.join("payload"));
        let _ = fs_err::remove_file(self.0.join("payload.ext4"));
    }
}

/// Tests that are left to this machine: suite, and how their names begin.
const LEFT_OUT: [(&str, &str); 6] = [
    // They kill and starve thousands of programs to see what stays in files, which is no matter of the kernel's version, and takes minutes
    // without hardware support.
    ("image::main", "crash::"),
    // The runtime's callers are not on the machine's disk, and would take a third of a gigabyte of it.
    ("runtime::neighbours", "containerd::"),
    ("runtime::neighbours", "cri::"),
    ("runtime::neighbours", "docker::"),
    ("runtime::neighbours", "podman::"),
    ("runtime::neighbours", "rootless::"),
];

/// The lines that suites.sh reads: PLACE SUITE DIRECTORY EXECUTABLE FILTER.
fn plan(tests: &[TestBinary], only_users: bool, filter: Option<&str>) -> String {
    let mut plan = String::new();
    let mut add = |place: &str, test: &TestBinary| {
        let (suite, directory) = (&test.suite, test.directory.display());
        let _ = write!(plan, "{place} {suite} {directory} /coracle/tests/{suite}");
        for (_, names) in LEFT_OUT.iter().filter(|(of, _)| of == suite) {
            let _ = write!(plan, " --skip {names}");
        }
        let _ = writeln!(plan, " {}", filter.unwrap_or_default());
    };
    for test in tests {
        if !only_users {
            add("vm", test);
        }
        if test.is_for_users() {
            USERS_PLACES.iter().for_each(|place| add(place, test));
        }
    }
    plan
}

/// Makes the disk with the programs to test.
fn write_payload(
    workspace: &Workspace,
    scratch: &Scratch,
    binaries: &Path,
    tests: &[TestBinary],
    plan: &str,
) -> Result<()> {
    let payload = scratch.0.join("payload");
    for directory in ["bin", "tests", "source"] {
        fs_err::create_dir_all(payload.join(directory))?;
    }
    // A test that needs one that is not built says so itself.
    for name in ["coracle", "coracle-runtime"].into_iter().filter(|name| binaries.join(name).exists()) {
        strip(&binaries.join(name), &payload.join("bin").join(name))?;
    }
    for test in tests {
        strip(&test.executable, &payload.join("tests").join(&test.suite))?;
    }
    quiet(&mut script("cp -a \"$1\" \"$2\"", [workspace.root.join("crates"), payload.join("source")]))?;
    fs_err::write(payload.join("plan"), plan)?;
    fs_err::write(payload.join("paths"), format!("{} {}\n", workspace.root.display(), binaries.display()))?;
    write_payload_disk(scratch, include_str!("vm/suites.sh"))
}

/// Copies a program without its line tables: with them it is ten times as large.
pub(crate) fn strip(from: &Path, to: &Path) -> Result<()> {
    quiet(&mut crate::process::command("strip", [Path::new("-o"), to, from]))
}

/// Makes the disk of what is in `payload`, with `suites` as the script that says what runs.
pub(crate) fn write_payload_disk(scratch: &Scratch, suites: &str) -> Result<()> {
    let payload = scratch.0.join("payload");
    fs_err::write(payload.join("suites.sh"), suites)?;
    let guest = payload.join("guest.sh");
    fs_err::write(&guest, include_str!("vm/guest.sh"))?;
    fs_err::set_permissions(&guest, std::fs::Permissions::from_mode(0o755))?;
    let make = "mke2fs -q -t ext4 -E root_owner=0:0 -d \"$1\" \"$2\" 2G";
    quiet(&mut script(make, [payload, scratch.0.join("payload.ext4")]))
}

/// Makes the initial file system: busybox, the modules for the disks, init.sh.
pub(crate) fn write_initramfs(workspace: &Workspace, scratch: &Scratch) -> Result<()> {
    let init = scratch.0.join("init.sh");
    fs_err::write(&init, include_str!("vm/init.sh"))?;
    let make = "
        mkdir -p $1/initramfs/{bin,proc,sys,dev,disk}
        cp /bin/busybox $1/initramfs/bin/
        cp -r $2 $1/initramfs/modules
        install -m 0755 $1/init.sh $1/initramfs/init
        (cd $1/initramfs && find . | cpio --quiet -o -H newc) > $1/initramfs.cpio
        rm -rf $1/initramfs $1/init.sh";
    quiet(&mut script(make, [scratch.0.as_path(), &workspace.fixtures().join("vm/modules")]))
}

#[cfg(test)]
mod tests {
    use super::{TestBinary, plan};

    #[test]
    fn only_the_command_lines_suites_run_as_users() {
        let binary = |package: &str, integration| TestBinary {
            suite: format!("{package}-tests"),
            integration,
            package: package.into(),
            directory: "/d".into(),
            executable: "/x".into(),
        };
        let tests = [binary("coracle", true), binary("coracle", false), binary("kernel", true)];
        let places = |plan: String| {
            plan.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(places(plan(&tests, false, None)), ["vm", "vm-user", "vm-plain", "vm", "vm"]);
        assert_eq!(places(plan(&tests, true, Some("limits"))), ["vm-user", "vm-plain"]);
    }

    #[test]
    fn only_what_is_named_with_a_reason_is_left_out() {
        let binary = |suite: &str| TestBinary {
            suite: suite.into(),
            integration: true,
            package: "image".into(),
            directory: "/d".into(),
            executable: "/x".into(),
        };
        let tests = [binary("image::main"), binary("runtime::seccomp")];
        let expected = "vm image::main /d /coracle/tests/image::main --skip crash:: \n\
                        vm runtime::seccomp /d /coracle/tests/runtime::seccomp \n";
        assert_eq!(plan(&tests, false, None), expected);
    }
}
