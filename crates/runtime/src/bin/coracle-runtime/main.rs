//! coracle-runtime: the small program that makes containers and looks after them.
//!
//! It is three programs in one file: an OCI runtime with runc's command line, the monitor that `coracle run` starts, and the first process
//! of containers with `--init`.

mod arguments;
mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod log;
mod message;
mod pause;
mod ps;
mod relay;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::path::PathBuf;
use std::process::ExitCode;

use arguments::{Flag, Given, option, switch};
use kernel::record::Log as Record;
use log::Log;
use runtime::{monitor, reaper};

const GLOBAL_FLAGS: &[Flag] = &[
    switch("debug", None, "log each system call that changes the machine, with its reason"),
    option("log", None, "FILE", "write errors to this file too"),
    option("log-format", None, "FORMAT", "text (the default) or json"),
    option(
        "root",
        None,
        "DIR",
        "where the containers' state is kept [/run/coracle-runtime; a user: $XDG_RUNTIME_DIR/coracle-runtime]",
    ),
    option("criu", None, "PATH", "accepted for old callers; criu is looked for in $PATH"),
    switch("systemd-cgroup", None, "ask systemd for the control group: cgroupsPath is slice:prefix:name"),
    option(
        "rootless",
        None,
        "true|false|auto",
        "whether control groups that cannot be made are no error [auto]",
    ),
    switch("help", Some("h"), "show this help"),
    switch("version", Some("v"), "show the version"),
];

const HELP_FLAG: &[Flag] = &[switch("help", Some("h"), "show this help")];

/// What stands before the command.
pub struct Global {
    /// `--root`.
    pub root: PathBuf,
    /// Where errors are written to.
    pub log: Log,
    /// `--systemd-cgroup`.
    pub systemd_cgroup: bool,
    /// `--rootless`, none is for us to find out.
    pub rootless: Option<bool>,
    /// All words this program was called with.
    pub arguments: Vec<String>,
}

/// What a command did not do, and with which exit status it ends.
pub struct Failed {
    message: String,
    status: u8,
}

impl Failed {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: 1 }
    }

    fn with_status(self, status: u8) -> Self {
        Self { status, ..self }
    }

    fn before(self, words: &str) -> Self {
        Self { message: format!("{words}{}", self.message), ..self }
    }
}

impl From<runtime::Error> for Failed {
    fn from(error: runtime::Error) -> Self {
        Self::new(message::of(&error))
    }
}

impl From<String> for Failed {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// How a command ends.
pub type Outcome = Result<ExitCode, Failed>;

/// A command of runc's.
struct Command {
    name: &'static str,
    /// Its operands, for the help.
    operands: &'static str,
    /// The fewest and the most operands.
    count: (usize, usize),
    about: &'static str,
    flags: &'static [Flag],
    run: fn(&Global, &Given) -> Outcome,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "create",
        operands: "ID",
        count: (1, 1),
        about: "Make a container from a bundle; its program waits for start",
        flags: create::FLAGS,
        run: create::run,
    },
    Command {
        name: "start",
        operands: "ID",
        count: (1, 1),
        about: "Start the program of a container that was created",
        flags: &[],
        run: start::run,
    },
    Command {
        name: "run",
        operands: "ID",
        count: (1, 1),
        about: "Make a container from a bundle and start its program",
        flags: run::FLAGS,
        run: run::run,
    },
    Command {
        name: "exec",
        operands: "ID [COMMAND [ARGUMENT...]]",
        count: (1, usize::MAX),
        about: "Run another program in a container",
        flags: exec::FLAGS,
        run: exec::run,
    },
    Command {
        name: "kill",
        operands: "ID [SIGNAL]",
        count: (1, 2),
        about: "Send a signal to a container's first process",
        flags: kill::FLAGS,
        run: kill::run,
    },
    Command {
        name: "delete",
        operands: "ID",
        count: (1, 1),
        about: "Remove a container that has stopped, and all that is left of it",
        flags: delete::FLAGS,
        run: delete::run,
    },
    Command {
        name: "state",
        operands: "ID",
        count: (1, 1),
        about: "Show the state of a container",
        flags: &[],
        run: state::run,
    },
    Command {
        name: "list",
        operands: "",
        count: (0, 0),
        about: "List the containers",
        flags: list::FLAGS,
        run: list::run,
    },
    Command {
        name: "ps",
        operands: "ID [PS-OPTION...]",
        count: (1, usize::MAX),
        about: "Show the processes of a container",
        flags: ps::FLAGS,
        run: ps::run,
    },
    Command {
        name: "pause",
        operands: "ID",
        count: (1, 1),
        about: "Freeze the processes of a container",
        flags: &[],
        run: pause::pause,
    },
    Command {
        name: "resume",
        operands: "ID",
        count: (1, 1),
        about: "Let the processes of a frozen container go on",
        flags: &[],
        run: pause::resume,
    },
    Command {
        name: "update",
        operands: "ID",
        count: (1, 1),
        about: "Change the limits of a container",
        flags: update::FLAGS,
        run: update::run,
    },
    Command {
        name: "checkpoint",
        operands: "ID",
        count: (1, 1),
        about: "Write the processes of a container to files, by criu",
        flags: checkpoint::FLAGS,
        run: checkpoint::run,
    },
    Command {
        name: "restore",
        operands: "ID",
        count: (1, 1),
        about: "Make a container again from what checkpoint has written, by criu",
        flags: restore::FLAGS,
        run: restore::run,
    },
    Command {
        name: "spec",
        operands: "",
        count: (0, 0),
        about: "Write a configuration to begin with",
        flags: spec::FLAGS,
        run: spec::run,
    },
    Command {
        name: "features",
        operands: "",
        count: (0, 0),
        about: "Show what this runtime can do, as JSON",
        flags: &[],
        run: features::run,
    },
    Command {
        name: "events",
        operands: "ID",
        count: (1, 1),
        about: "Show what a container uses",
        flags: events::FLAGS,
        run: events::run,
    },
];

fn main() -> ExitCode {
    kernel::entry::link();
    let arguments: Vec<String> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [reaper::ARGUMENT, program, ..] => {
            let status = reaper::run(program.as_ref(), &arguments[2..]);
            ExitCode::from(status as u8)
        }
        [_, monitor::ARGUMENT, ..] => match monitor::Start::parse(&arguments[2..]).and_then(monitor::run) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("coracle-runtime: {error}");
                ExitCode::from(125)
            }
        },
        _ => {
            kernel::signal::ignore_broken_pipes();
            command_line(arguments)
        }
    }
}

/// runc's command line.
fn command_line(arguments: Vec<String>) -> ExitCode {
    let typed = match Given::parse(&[GLOBAL_FLAGS], arguments.get(1..).unwrap_or_default()) {
        Ok(typed) => typed,
        Err(message) => {
            Log::default().error(&message);
            return ExitCode::FAILURE;
        }
    };
    if typed.is_on("version") {
        print!("{}", version());
        return ExitCode::SUCCESS;
    }
    let (name, rest) = match typed.operands.split_first() {
        Some((name, rest)) if !typed.is_on("help") => (name.as_str(), rest),
        _ => ("help", &[][..]),
    };
    if name == "help" || name == "h" {
        print!("{}", overview());
        return ExitCode::SUCCESS;
    }
    // Of those that look after a container that is there, none shall fail because its log's directory is gone.
    let makes = matches!(name, "create" | "run" | "restore");
    let log = match log_of(&typed).and_then(|log| if makes { log.try_open().map(|()| log) } else { Ok(log) })
    {
        Ok(log) => log,
        Err(message) => {
            Log::default().error(&message);
            return ExitCode::FAILURE;
        }
    };
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        log.error(&format!("No help topic for '{name}'"));
        return ExitCode::from(3);
    };
    let global = global(&typed, log.clone(), &arguments).map_err(|failed| match makes {
        true => failed.before(&format!("coracle-runtime {name} failed: ")),
        false => failed,
    });
    if typed.value("criu").is_some_and(|path| !path.is_empty()) {
        log.warning("--criu is passed over: criu is looked for in $PATH");
    }
    let record = typed.is_on("debug").then(Record::create).transpose();
    if let Ok(Some(record)) = &record {
        record.install();
    }
    let outcome = global.and_then(|global| execute(command, &global, rest));
    match record {
        Ok(record) => log.acts(&record.map(|record| record.events()).unwrap_or_default()),
        Err(error) => log.warning(&format!("--debug: {error}")),
    }
    match outcome {
        Ok(code) => code,
        Err(failed) => {
            log.error(&failed.message);
            ExitCode::from(failed.status)
        }
    }
}

fn execute(command: &Command, global: &Global, words: &[String]) -> Outcome {
    let flags = [command.flags, HELP_FLAG];
    let given = Given::parse(&flags, words)?;
    if given.is_on("help") {
        print!("{}", arguments::help(command.name, command.operands, command.about, &flags));
        return Ok(ExitCode::SUCCESS);
    }
    let (fewest, most) = command.count;
    let (name, count) = (command.name, given.operands.len());
    if count < fewest || count > most {
        let how_many = match fewest == most {
            true => format!("exactly {fewest}"),
            false if count < fewest => format!("a minimum of {fewest}"),
            false => format!("a maximum of {most}"),
        };
        return Err(Failed::new(format!("coracle-runtime: {name:?} requires {how_many} argument(s)")));
    }
    (command.run)(global, &given)
}

fn log_of(typed: &Given) -> Result<Log, String> {
    let json = match typed.value("log-format") {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(format!("invalid log-format: {other}")),
    };
    Ok(Log { file: typed.value("log").filter(|file| !file.is_empty()).map(str::to_owned), json })
}

fn global(typed: &Given, log: Log, arguments: &[String]) -> Result<Global, Failed> {
    let rootless = match typed.value("rootless") {
        None | Some("auto") => None,
        Some("true" | "1") => Some(true),
        Some("false" | "0") => Some(false),
        Some(other) => {
            return Err(Failed::new(format!("invalid --rootless value {other:?} (use true, false or auto)")));
        }
    };
    let root = typed.value("root").map_or_else(default_root, |root| Ok(PathBuf::from(root)))?;
    Ok(Global {
        root: absolute("--root", root)?,
        log,
        systemd_cgroup: typed.is_on("systemd-cgroup"),
        rootless,
        arguments: arguments.to_vec(),
    })
}

/// A path as it is from everywhere. A relative one means nothing where the working directory has been removed.
pub fn absolute(option: &str, path: PathBuf) -> Result<PathBuf, Failed> {
    std::path::absolute(&path).map_err(|error| {
        Failed::new(format!("{option} {}: the working directory it is relative to: {error}", path.display()))
    })
}

fn default_root() -> Result<PathBuf, Failed> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/run/coracle-runtime"));
    }
    let directory = std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
    directory.map(|directory| PathBuf::from(directory).join("coracle-runtime")).ok_or_else(|| {
        Failed::new(
            "no place for the containers' state: XDG_RUNTIME_DIR is not set (set it, or give --root DIR)",
        )
    })
}

fn version() -> String {
    format!("coracle-runtime version {}\nspec: {}\n", env!("CARGO_PKG_VERSION"), runtime::features::VERSION)
}

fn overview() -> String {
    let mut text = "An OCI runtime with runc's command line\n\n\
        Usage: coracle-runtime [OPTIONS] COMMAND [OPTIONS] ID\n\nCommands:\n"
        .to_owned();
    for command in COMMANDS {
        text.push_str(&format!("  {:<10}  {}\n", command.name, command.about));
    }
    let options = arguments::help("", "", "", &[GLOBAL_FLAGS]);
    text.push_str("\nOptions:\n");
    text.push_str(options.split_once("Options:\n").map_or("", |(_, list)| list));
    text
}
