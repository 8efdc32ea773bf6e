//! `cargo xtask guards`: whether the security tests of the OCI runtime test what they say.
//!
//! Each of them has a patch, `crates/runtime/tests/security/guards/NAME.patch`, that takes the guard out of the sources. Here the sources
//! are copied, one patch after the other is applied to the copy, and each time the test of that name must fail on what was built of it.
//! All builds share one target directory, so each compiles only what its patch has changed.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::process::{capture, command, outcome, quiet, run};
use crate::workspace::Workspace;

const PATCHES: &str = "crates/runtime/tests/security/guards";

/// Runs the security tests as they are, and then each without its guard; with a filter, only those whose name has it.
pub(crate) fn guards(workspace: &Workspace, filter: Option<&str>) -> Result<()> {
    let names = names(&workspace.root.join(PATCHES), filter)?;
    if names.is_empty() {
        let what = format!("a patch with {:?} in its name", filter.unwrap_or_default());
        return Err(Error::Missing {
            what,
            remedy: format!("the names are those of the files in {PATCHES}"),
        });
    }
    run(&mut workspace.cargo(&["build", "--locked", "--package", "runtime", "--bins"]))?;
    let runtime = workspace.binaries("debug").join("coracle-runtime");
    let mut faults = Vec::new();
    for name in &names {
        match test(workspace, &runtime, name)? {
            (Ended::Passed, _) => {}
            (ended, _) => faults.push(format!("{name} {} with its guard", ended.as_words())),
        }
    }
    let copy = Copy::make(workspace)?;
    for name in &names {
        let unguarded = copy.build_without_guard(workspace, name)?;
        let (ended, said) = test(workspace, &unguarded, name)?;
        // For a person to see that it is the flaw that comes back, not something else that breaks.
        eprintln!("{name} {} without its guard: {said}", ended.as_words());
        if !matches!(ended, Ended::Failed) {
            faults.push(format!("{name} {} without its guard", ended.as_words()));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::Check { check: "guards", faults }) }
}

/// The names of the patches, sorted.
fn names(directory: &Path, filter: Option<&str>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "patch")
            && filter.is_none_or(|filter| name.contains(filter))
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// How one test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Passed,
    Failed,
    /// It was not run: there is none of this name, or it was left out on this machine.
    NotRun,
}

impl Ended {
    /// From what libtest printed about one test that was asked for.
    fn read(output: &str) -> Self {
        let result = output.lines().find_map(|line| line.strip_prefix("test result: "));
        let is_skipped = output.lines().any(|line| line.starts_with("SKIP: "));
        match result {
            Some(result) if result.starts_with("ok. 1 passed; ") && !is_skipped => Self::Passed,
            Some(result) if result.starts_with("FAILED. 0 passed; 1 failed; ") => Self::Failed,
            _ => Self::NotRun,
        }
    }

    fn as_words(self) -> &'static str {
        match self {
            Self::Passed => "passes",
            Self::Failed => "fails",
            Self::NotRun => "is not run",
        }
    }
}

/// Runs one security test on a runtime. Gives what it said when it failed, too.
fn test(workspace: &Workspace, runtime: &Path, name: &str) -> Result<(Ended, String)> {
    let arguments = ["test", "--locked", "--quiet", "--package", "runtime", "--test", "security", "--", name];
    let mut cargo = workspace.cargo(&arguments);
    cargo.arg("--show-output").env("RUNTIME", runtime).env("CORACLE_FIXTURES", workspace.fixtures());
    let output = outcome(&mut cargo)?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.contains("test result: ") {
        // It was not built.
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Command {
            line: crate::process::line(&cargo),
            status: output.status.to_string(),
            stderr,
        });
    }
    let said = text.lines().skip_while(|line| !line.contains("panicked at ")).nth(1).unwrap_or_default();
    Ok((Ended::read(&text), said.to_owned()))
}

/// The copy of the sources.
struct Copy {
    directory: PathBuf,
    target: PathBuf,
}

impl Copy {
    /// Copies every file that git knows or would take, so that changes of today are in it. A file that is the same stays as old as it is:
    /// cargo compiles what is newer than its last build.
    fn make(workspace: &Workspace) -> Result<Self> {
        let below = workspace.target.join("guards");
        let copy = Self { directory: below.join("tree"), target: below.join("target") };
        let mut git = command("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let list = capture(git.current_dir(&workspace.root))?;
        for name in list.split('\0').filter(|name| !name.is_empty()) {
            copy.take(&workspace.root, Path::new(name))?;
        }
        Ok(copy)
    }

    fn take(&self, root: &Path, name: &Path) -> Result<()> {
        let to = self.directory.join(name);
        // One that was removed and is not committed yet is in git's list too.
        let Ok(bytes) = fs_err::read(root.join(name)) else { return Ok(()) };
        if fs_err::read(&to).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        fs_err::create_dir_all(to.parent().unwrap_or(&self.directory))?;
        Ok(fs_err::write(&to, bytes)?)
    }

    /// Builds the runtime without the guard of a test, and gives its path. The copy is as before afterwards.
    fn build_without_guard(&self, workspace: &Workspace, name: &str) -> Result<PathBuf> {
        let patch = workspace.root.join(PATCHES).join(format!("{name}.patch"));
        let apply = |reverse: &[&str]| {
            let mut git = command("patch", ["--strip=1", "--silent", "--no-backup-if-mismatch", "--input"]);
            quiet(git.arg(&patch).args(reverse).current_dir(&self.directory))
        };
        apply(&[])?;
        let arguments = ["build", "--locked", "--quiet", "--package", "runtime", "--bins"];
        let mut cargo = command("cargo", arguments);
        let built = quiet(cargo.current_dir(&self.directory).env("CARGO_TARGET_DIR", &self.target));
        apply(&["--reverse"])?;
        built?;
        Ok(self.target.join(&workspace.triple).join("debug/coracle-runtime"))
    }
}

#[cfg(test)]
mod tests {
    use super::Ended;

    #[test]
    fn only_a_test_that_ran_has_passed_or_failed() {
        let result = |text: &str| Ended::read(&format!("running 1 test\n{text}\n"));
        assert_eq!(result("test result: ok. 1 passed; 0 failed; 0 ignored"), Ended::Passed);
        assert_eq!(result("test result: FAILED. 0 passed; 1 failed; 0 ignored"), Ended::Failed);
        assert_eq!(result("test result: ok. 0 passed; 0 failed; 0 ignored"), Ended::NotRun);
        assert_eq!(result("SKIP: a: needs root\ntest result: ok. 1 passed; 0 failed"), Ended::NotRun);
    }
}
