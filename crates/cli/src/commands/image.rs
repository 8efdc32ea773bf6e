//! `coracle image`: docker's group for all that is done with images.

pub mod diff;
pub mod explain;
pub mod mount;
pub mod prune;
pub mod tree;
pub mod unmount;
pub mod verify;

use std::process::ExitCode;

use clap::Subcommand;
use engine::Roots;

use crate::commands::{history, images, import, inspect, load, pull, push, rmi, save, tag};
use crate::error::Error;
use crate::unshared;

/// Work on images
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Diff(diff::Arguments),
    Explain(explain::Arguments),
    History(history::Arguments),
    Import(import::Arguments),
    Inspect(inspect::OfImages),
    Load(load::Arguments),
    #[command(visible_alias = "list")]
    Ls(images::Arguments),
    Mount(mount::Arguments),
    Prune(prune::Arguments),
    Pull(pull::Arguments),
    Push(Box<push::Arguments>),
    #[command(visible_alias = "remove")]
    Rm(rmi::Arguments),
    Save(save::Arguments),
    Tag(tag::Arguments),
    Tree(tree::Arguments),
    #[command(visible_alias = "umount")]
    Unmount(unmount::Arguments),
    Verify(verify::Arguments),
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    match arguments.command {
        Command::Diff(arguments) => diff::run(roots, &arguments),
        Command::Explain(arguments) => explain::run(roots, &arguments),
        Command::History(arguments) => history::run(roots, &arguments),
        Command::Import(arguments) => unshared(|| import::run(roots, arguments)),
        Command::Inspect(arguments) => inspect::run(roots, arguments.into()),
        Command::Load(arguments) => unshared(|| load::run(roots, arguments)),
        Command::Ls(arguments) => images::run(roots, arguments),
        Command::Mount(arguments) => mount::run(roots, &arguments),
        Command::Prune(arguments) => unshared(|| prune::run(roots, &arguments)),
        Command::Pull(arguments) => unshared(|| pull::run(roots, arguments)),
        Command::Push(arguments) => unshared(|| push::run(roots, *arguments)),
        Command::Rm(arguments) => unshared(|| rmi::run(roots, arguments)),
        Command::Save(arguments) => unshared(|| save::run(roots, arguments)),
        Command::Tag(arguments) => tag::run(roots, arguments),
        Command::Tree(arguments) => tree::run(roots, &arguments),
        Command::Unmount(arguments) => unmount::run(roots, &arguments),
        Command::Verify(arguments) => unshared(|| verify::run(roots, &arguments)),
    }
}
