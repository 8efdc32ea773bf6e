//! coracle: the command line.
//!
//! What was typed becomes an [`engine`] call; what comes back becomes text. Standard output carries data only, one
//! error is printed once, and the exit code is chosen in one place: [`main`].

// Doc comments of arguments are their help texts, where brackets mean that something may be left out.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

mod commands;
mod confirm;
mod error;
mod explain;
mod filter;
mod format;
mod list;
mod picture;
mod progress;
mod table;
mod time;
mod unknown;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
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
    args_override_self = true,
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
    Copy(Box<commands::copy::Arguments>),
    Commit(commands::commit::Arguments),
    Diff(commands::diff::Arguments),
    Export(commands::export::Arguments),
    History(commands::history::Arguments),
    Image(commands::image::Arguments),
    Images(commands::images::Arguments),
    Import(commands::import::Arguments),
    Inspect(commands::inspect::Arguments),
    Kill(commands::kill::Arguments),
    Load(commands::load::Arguments),
    Login(commands::login::Arguments),
    Logout(commands::logout::Arguments),
    Ps(commands::ps::Arguments),
    Pull(commands::pull::Arguments),
    Push(Box<commands::push::Arguments>),
    Rm(commands::rm::Arguments),
    Rmi(commands::rmi::Arguments),
    Run(Box<commands::run::Arguments>),
    Save(commands::save::Arguments),
    Stop(commands::stop::Arguments),
    System(commands::system::Arguments),
    Tag(commands::tag::Arguments),
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args_os().collect()) {
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

/// Reads the words of the command line. A switch may be given a value, as docker's may (`--rm=true`, `-i=false`), and of an option that
/// has one value the last one counts.
///
/// Switches with a value are parsed by a second definition, so that the first one's help shows switches as what they are.
fn parse(words: Vec<OsString>) -> Result<Arguments, clap::Error> {
    match Arguments::try_parse_from(&words) {
        Err(error) if is_help(&error) => parse(help(words)),
        Err(error) if error.kind() == ErrorKind::DisplayHelp && columns_are_nonsense() => {
            let command = Arguments::command().term_width(80);
            Arguments::from_arg_matches(&command.try_get_matches_from(words)?)
        }
        // What clap says of `--rm=true` and of `-i=false`.
        Err(error) if matches!(error.kind(), ErrorKind::TooManyValues | ErrorKind::UnknownArgument) => {
            let matches = take_values(Arguments::command()).try_get_matches_from(words)?;
            Arguments::from_arg_matches(&matches)
        }
        other => other,
    }
}

/// Whether the command is `help`, which is no command of its own: its definition would be made at each start.
fn is_help(error: &clap::Error) -> bool {
    let typed = error.get(ContextKind::InvalidSubcommand);
    error.kind() == ErrorKind::InvalidSubcommand
        && matches!(typed, Some(ContextValue::String(typed)) if typed == "help")
}

/// `help COMMAND` as `COMMAND --help`.
fn help(mut words: Vec<OsString>) -> Vec<OsString> {
    // What stands before it are options, and the group that its command is in.
    if let Some(at) = words.iter().position(|word| word == "help") {
        words.remove(at);
        // A command, or a group and its command.
        words.truncate(at + 2);
    }
    words.push(OsString::from("--help"));
    words
}

/// Some shells and scripts say that their terminal has no columns at all.
fn columns_are_nonsense() -> bool {
    std::env::var("COLUMNS").is_ok_and(|columns| columns.trim().parse() == Ok(0_u32))
}

/// The same command with switches that take a value behind an equals sign.
fn take_values(command: clap::Command) -> clap::Command {
    let of_switch = |arg: clap::Arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .value_parser(BoolishValueParser::new())
            .default_value("false")
            .default_missing_value("true"),
        _ => arg,
    };
    command.mut_args(of_switch).mut_subcommands(take_values)
}

/// Help and version are answers, everything else is docker's exit code for a bad command line.
fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let error = Error::from(error);
        error.print();
        return ExitCode::from(error.exit_code());
    }
    let printed = error.print().and_then(|()| std::io::Write::flush(&mut std::io::stdout()));
    match printed {
        Err(failed) if failed.kind() != std::io::ErrorKind::BrokenPipe && !error.use_stderr() => {
            Error::lost_output("cannot write to standard output", failed.to_string()).print();
            ExitCode::from(1)
        }
        // Nobody is left to tell when the stream is closed.
        _ => ExitCode::from(if error.use_stderr() { 125 } else { 0 }),
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let variable = |name: &str| std::env::var(name).ok();
    let cannot_use = |error: engine::Error| {
        Error::from(error)
            .doing("cannot use coracle's directories", "name others: --root DIR and --state DIR")
    };
    let roots = Roots::choose(arguments.root, arguments.state, variable).map_err(cannot_use)?;
    roots.make().map_err(cannot_use)?;
    let done = match arguments.command {
        Command::Anatomy(arguments) => commands::anatomy::run(&roots, &arguments),
        Command::Copy(arguments) => unshared(|| commands::copy::run(&roots, *arguments)),
        Command::Commit(arguments) => unshared(|| commands::commit::run(&roots, arguments)),
        Command::Diff(arguments) => unshared(|| commands::diff::run(&roots, &arguments)),
        Command::Export(arguments) => unshared(|| commands::export::run(&roots, &arguments)),
        Command::History(arguments) => commands::history::run(&roots, &arguments),
        Command::Image(arguments) => commands::image::run(&roots, arguments),
        Command::Images(arguments) => commands::images::run(&roots, arguments),
        Command::Import(arguments) => unshared(|| commands::import::run(&roots, arguments)),
        Command::Inspect(arguments) => commands::inspect::run(&roots, arguments),
        Command::Kill(arguments) => commands::kill::run(&roots, arguments),
        Command::Load(arguments) => unshared(|| commands::load::run(&roots, arguments)),
        Command::Login(arguments) => commands::login::run(&roots, arguments),
        Command::Logout(arguments) => commands::logout::run(&roots, arguments),
        Command::Ps(arguments) => commands::ps::run(&roots, arguments),
        Command::Pull(arguments) => unshared(|| commands::pull::run(&roots, arguments)),
        Command::Push(arguments) => unshared(|| commands::push::run(&roots, *arguments)),
        Command::Rm(arguments) => commands::rm::run(&roots, arguments),
        Command::Rmi(arguments) => unshared(|| commands::rmi::run(&roots, arguments)),
        Command::Run(arguments) => return commands::run::run(&roots, &arguments),
        Command::Save(arguments) => unshared(|| commands::save::run(&roots, arguments)),
        Command::Stop(arguments) => commands::stop::run(&roots, &arguments),
        Command::System(arguments) => commands::system::run(&roots, arguments),
        Command::Tag(arguments) => commands::tag::run(&roots, arguments),
    };
    // 125 says that it was not the container's program that failed, which only `run` has.
    done.map_err(|error| error.with_code(1))
}

/// Does work that makes or removes files of images, in a user namespace where this user needs one for that.
pub(crate) fn unshared(work: impl FnOnce() -> Result<ExitCode, Error>) -> Result<ExitCode, Error> {
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
    use clap::CommandFactory as _;

    use super::{Arguments, Command, parse, take_values};

    #[test]
    fn the_definitions_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
        take_values(Arguments::command()).debug_assert();
    }

    fn run(line: &str) -> Box<super::commands::run::Arguments> {
        match parse(line.split(' ').map(Into::into).collect()).map(|arguments| arguments.command) {
            Ok(Command::Run(arguments)) => arguments,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn switches_take_a_value_behind_an_equals_sign() {
        let arguments = run("coracle run --rm=true -it --init=false --read-only=1 x --rm=y");
        assert!(arguments.rm && arguments.interactive && arguments.tty && arguments.read_only);
        assert!(!arguments.init && !arguments.privileged);
        assert_eq!(arguments.words, ["x", "--rm=y"]);
        let arguments = run("coracle run -i=false --rm=f --tty=t x");
        assert!(!arguments.interactive && !arguments.rm && arguments.tty);
        assert!(run("coracle run --rm --rm -m 1g -m 2g x").rm);
        let arguments = run("coracle run --rm --rm=false -m 1g -m 2g --memory=3g --explain --explain=json x");
        assert_eq!((arguments.rm, arguments.memory.as_deref()), (false, Some("3g")));
        let arguments = run("coracle run -e A -e B --user 0 --user 1 x");
        assert_eq!((arguments.env.len(), arguments.user.as_deref()), (2, Some("1")));
        let error = parse("coracle run --rm=maybe x".split(' ').map(Into::into).collect()).unwrap_err();
        assert!(error.to_string().contains("--rm"), "{error}");
    }

    #[test]
    fn a_value_may_begin_with_a_dash() {
        let arguments = run("coracle run -m -1 --hostname -x -e -y --name=-z -- x");
        assert_eq!((arguments.memory.as_deref(), arguments.hostname.as_deref()), (Some("-1"), Some("-x")));
        assert_eq!((arguments.env[0].as_str(), arguments.name.as_deref()), ("-y", Some("-z")));
    }

    #[test]
    fn help_is_a_command() {
        let said = |line: &str| parse(line.split(' ').map(Into::into).collect()).unwrap_err().to_string();
        assert_eq!(said("coracle help"), said("coracle --help"));
        assert_eq!(said("coracle --root /x help run"), said("coracle run --help"));
        assert_eq!(said("coracle help help"), said("coracle --help"));
        assert_eq!(said("coracle help image ls"), said("coracle image ls --help"));
        assert_eq!(said("coracle image help ls"), said("coracle image ls --help"));
        assert_eq!(said("coracle image help"), said("coracle image --help"));
        assert!(said("coracle help nope").contains("'nope'"));
    }
}
