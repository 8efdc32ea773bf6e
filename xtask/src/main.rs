//! The project's own tooling: `cargo xtask COMMAND`.
//!
//! It sets a machine up, makes the fixtures that the tests read, runs the tests here and in a virtual machine with
//! the oldest promised kernel, and measures coracle beside its peers. It calls the tools that it needs; it holds
//! nothing of the product itself.

mod bench;
mod ci;
mod crash;
mod error;
mod fixtures;
mod fuzz;
mod guards;
mod leaks;
mod outcome;
mod process;
mod random;
mod setup;
mod test;
mod try_out;
mod user;
mod v1;
mod vm;
mod workspace;

use std::process::ExitCode;

use crate::error::{Error, Result};
use crate::workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  try                      build coracle and run the main job on the built-in image `host`
  setup                    install what the tests and benchmarks need, and make their fixtures
  test [FILTER]            build everything, run all tests here and in the virtual machine, look for leaks
  vm-test [--user] [FILTER]  only the tests in the virtual machine (--user: only those as ordinary users)
  ci                       setup, formatting, lints, dependency checks, documentation, some power cuts, test
  guards [FILTER]          require each security test to fail on a runtime without what guards it
  fuzz TARGET [SECONDS]    fuzz a target of fuzz/fuzz_targets for a minute or so long; needs a nightly compiler
  crash [--points N] [--seed S]  cut the power at 200 or N points of a run: each image must be whole or absent
  bench [--check] [NAME]   measure coracle beside its peers (--check: fail where a target is missed)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let Some((command, rest)) = arguments.split_first() else {
        eprint!("{USAGE}");
        return Err(Error::Usage { argument: String::new() });
    };
    let workspace = Workspace::find()?;
    let (flags, names): (Vec<&str>, Vec<&str>) =
        rest.iter().map(String::as_str).partition(|a| a.starts_with('-'));
    let takes = |known: &[&str], most: usize| -> Result<()> {
        let stranger = flags.iter().find(|flag| !known.contains(*flag)).or(names.get(most));
        stranger.map_or(Ok(()), |argument| Err(Error::Usage { argument: (*argument).to_owned() }))
    };
    let name = names.first().copied();
    match command.as_str() {
        "try" => takes(&[], 0).and_then(|()| try_out::try_out(&workspace)),
        "setup" => takes(&[], 0).and_then(|()| setup::setup(&workspace)),
        "test" => takes(&[], 1).and_then(|()| test::test(&workspace, name)),
        "vm-test" => takes(&["--user"], 1).and_then(|()| test::vm_only(&workspace, !flags.is_empty(), name)),
        "ci" => takes(&[], 0).and_then(|()| ci::ci(&workspace)),
        "guards" => takes(&[], 1).and_then(|()| guards::guards(&workspace, name)),
        "fuzz" => takes(&[], 2)
            .and_then(|()| fuzz::fuzz(&workspace, name.unwrap_or_default(), names.get(1).copied())),
        "crash" => crash::crash(&workspace, crash::Points::parse(rest)?),
        "bench" => takes(&["--check"], 1).and_then(|()| bench::bench(&workspace, !flags.is_empty(), name)),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        unknown => {
            eprint!("{USAGE}");
            Err(Error::Usage { argument: unknown.to_owned() })
        }
    }
}
