//! coracle: the command line.
//!
//! What was typed becomes an [`engine`] call; what comes back becomes text. Standard output carries data only, one
//! error is printed once, and the exit code is chosen in one place: [`main`].

// Doc comments of arguments are their help texts, where brackets mean that something may be left out.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

mod commands;
mod error;
mod explain;
mod format;
mod table;
mod time;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use engine::Roots;

use crate::error::Error;

/// A container engine without a daemon: run programs isolated, limited and explained.
#[derive(Debug, Parser)]
#[command(
    name = "coracle",
    version,
    about,
    max_term_width = 110,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
struct Arguments {
    /// Where images and containers are kept [default: /var/lib/coracle, or $XDG_DATA_HOME/coracle]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where the state of running containers is kept [default: /run/coracle, or $XDG_RUNTIME_DIR/coracle]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Anatomy(commands::anatomy::Arguments),
    Images(commands::images::Arguments),
    Import(commands::import::Arguments),
    Inspect(commands::inspect::Arguments),
    Kill(commands::kill::Arguments),
    Load(commands::load::Arguments),
    Ps(commands::ps::Arguments),
    Pull(commands::pull::Arguments),
    Rm(commands::rm::Arguments),
    Rmi(commands::rmi::Arguments),
    Run(Box<commands::run::Arguments>),
    Tag(commands::tag::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            error.print();
            ExitCode::from(error.exit_code())
        }
    }
}

/// Help and version are answers, everything else is docker's exit code for a bad command line.
fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let error = Error::from(error);
        error.print();
        return ExitCode::from(error.exit_code());
    }
    // Nobody is left to tell when the stream is closed.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 125 } else { 0 })
}

fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let variable = |name: &str| std::env::var(name).ok();
    let roots = Roots::choose(arguments.root, arguments.state, variable)?;
    roots.make().map_err(|error| {
        Error::from(error)
            .doing("cannot use coracle's directories", "name others: --root DIR and --state DIR")
    })?;
    let done = match arguments.command {
        Command::Anatomy(arguments) => commands::anatomy::run(&roots, &arguments),
        Command::Images(arguments) => commands::images::run(&roots, arguments),
        Command::Import(arguments) => unshared(|| commands::import::run(&roots, arguments)),
        Command::Inspect(arguments) => commands::inspect::run(&roots, arguments),
        Command::Kill(arguments) => commands::kill::run(&roots, arguments),
        Command::Load(arguments) => unshared(|| commands::load::run(&roots, arguments)),
        Command::Ps(arguments) => commands::ps::run(&roots, arguments),
        Command::Pull(arguments) => unshared(|| commands::pull::run(&roots, arguments)),
        Command::Rm(arguments) => commands::rm::run(&roots, arguments),
        Command::Rmi(arguments) => unshared(|| commands::rmi::run(&roots, arguments)),
        Command::Run(arguments) => return commands::run::run(&roots, &arguments),
        Command::Tag(arguments) => commands::tag::run(&roots, arguments),
    };
    // 125 says that it was not the container's program that failed, which only `run` has.
    done.map_err(|error| error.with_code(1))
}

/// Does work that makes or removes files of images, in a user namespace where this user needs one for that.
fn unshared(work: impl FnOnce() -> Result<ExitCode, Error>) -> Result<ExitCode, Error> {
    let entered = engine::unshared::enter().map_err(|error| {
        Error::from(error).doing(
            "cannot work on images with this user's ids",
            "see that /etc/subuid and /etc/subgid name this user, who must be in /etc/passwd",
        )
    })?;
    match entered {
        None => work(),
        Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definitions_do_not_contradict_each_other() {
        use clap::CommandFactory as _;
        super::Arguments::command().debug_assert();
    }
}
