//! `cargo xtask fuzz TARGET [SECONDS]`: builds a fuzz target with what libFuzzer wants of the compiler, and runs it for a while.
//!
//! That is what cargo-fuzz does, without another tool to install. The corpus and what was found are kept in the build directory.

use std::path::Path;

use crate::error::{Error, Result};
use crate::process::{command, run};
use crate::workspace::{Workspace, parse};

/// Has the code tell the fuzzer which way it took and what it compared.
const FLAGS: &str = "--cfg fuzzing -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
                     -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -C llvm-args=-sanitizer-coverage-pc-table -C llvm-args=-sanitizer-coverage-trace-compares";

/// How long it runs if nothing else is said.
const SECONDS: u32 = 60;

/// Runs a target; fails if it finds something, and says in which file that is.
pub(crate) fn fuzz(workspace: &Workspace, target: &str, seconds: Option<&str>) -> Result<()> {
    let seconds = match seconds {
        None => SECONDS,
        Some(text) => text.parse().map_err(|_| Error::Usage { argument: text.to_owned() })?,
    };
    let source = workspace.root.join("fuzz");
    if !source.join("fuzz_targets").join(target).with_extension("rs").exists() {
        let remedy = "the targets are the files of fuzz/fuzz_targets".to_owned();
        return Err(Error::Missing { what: format!("fuzz target {target:?}"), remedy });
    }
    let built = workspace.target.join("fuzz");
    // The variable takes the place of what .cargo/config.toml says: a static program cannot be built so.
    let mut cargo = command("cargo", ["+nightly", "build", "--locked", "--release", "--bin", target]);
    cargo.args(["--target", &workspace.triple]).current_dir(&source);
    run(cargo.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &built))?;
    let [corpus, found] = ["corpus", "found"].map(|kind| built.join(kind).join(target));
    fs_err::create_dir_all(&corpus)?;
    fs_err::create_dir_all(&found)?;
    if target == "config" {
        seed(workspace, &corpus)?;
    }
    let program = built.join(&workspace.triple).join("release").join(target);
    let mut fuzzer = command(&program.to_string_lossy(), [corpus.as_os_str()]);
    fuzzer.arg(format!("-max_total_time={seconds}")).arg("-rss_limit_mb=2048").arg("-timeout=20");
    run(fuzzer.arg(format!("-artifact_prefix={}/", found.display())))
}

/// Begins the corpus of `config` with what the engine's tests have of configurations; the blank says that a text follows.
fn seed(workspace: &Workspace, corpus: &Path) -> Result<()> {
    for entry in fs_err::read_dir(workspace.root.join("crates/engine/tests/golden"))? {
        let entry = entry?;
        let request = parse("the engine's tests", &fs_err::read_to_string(entry.path())?)?;
        fs_err::write(corpus.join(entry.file_name()), format!(" {}", request["spec"]))?;
    }
    Ok(())
}
