//! `coracle system`: docker's group for what is kept as a whole.

pub mod check;
pub mod df;
pub mod prune;

use std::process::ExitCode;

use clap::Subcommand;
use engine::Roots;

use crate::error::Error;
use crate::unshared;

/// Work on all that is kept
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Arguments),
    Df(df::Arguments),
    Prune(prune::Arguments),
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    match arguments.command {
        Command::Check(arguments) => unshared(|| check::run(roots, &arguments)),
        Command::Df(arguments) => unshared(|| df::run(roots, &arguments)),
        Command::Prune(arguments) => unshared(|| prune::run(roots, &arguments)),
    }
}
