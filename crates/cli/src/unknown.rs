//! What docker has and this version has not: commands and options, each with what to do instead.
//!
//! These are words, not definitions: they are looked at only where the command line is wrong, and cost a start nothing.

/// docker's commands that are none here, and what to do instead.
const COMMANDS: [(&str, &str); 41] = [
    ("attach", FOREGROUND),
    ("build", BUILD),
    ("builder", BUILD),
    ("buildx", BUILD),
    ("compose", "start each container by a coracle run of its own, for example in a script"),
    ("container", "leave the word out: coracle run, ps, stop, kill, rm, inspect"),
    ("context", LOCAL),
    ("cp", FILES),
    ("create", START),
    ("events", STATE),
    ("exec", EXEC),
    ("info", STATE),
    ("init", BUILD),
    ("logs", FOREGROUND),
    ("ls", STATE),
    ("manifest", REGISTRY),
    ("network", "choose --network none, host or container:NAME at each coracle run"),
    ("node", LOCAL),
    ("pause", "send the program a signal: coracle kill -s STOP CONTAINER"),
    ("plugin", LOCAL),
    ("port", "use the host's ports: coracle run --network host"),
    ("prune", "say of what: coracle image prune, coracle system prune"),
    ("rename", "name it when it is started: coracle run --name NAME"),
    ("restart", START),
    ("scout", REGISTRY),
    ("search", REGISTRY),
    ("secret", FILES),
    ("service", LOCAL),
    ("stack", LOCAL),
    ("start", START),
    ("stats", ANATOMY),
    ("swarm", LOCAL),
    ("top", ANATOMY),
    ("trust", REGISTRY),
    ("unpause", "send the program a signal: coracle kill -s CONT CONTAINER"),
    ("update", "give the limits when it is started: see coracle run --help"),
    ("version", "print it: coracle --version"),
    ("volume", FILES),
    ("wait", "coracle run waits itself, and ends with the program's exit code"),
    ("config", LOCAL),
    ("checkpoint", START),
];

const FOREGROUND: &str = "a container runs in the foreground: its output is where coracle run was typed, and goes where that is sent";
const BUILD: &str = "build the image elsewhere, save it as an archive, and load that: coracle load ARCHIVE";
const REGISTRY: &str = "this version only moves images to and from registries: coracle pull, push, copy";
const FILES: &str = "share a directory with the container: coracle run -v FROM:TO";
const START: &str = "start a new one: coracle run IMAGE";
const STATE: &str = "see what is there: coracle ps -a, coracle images";
const LOCAL: &str = "there is no daemon and no cluster, only this machine: see coracle --help";
const ANATOMY: &str = "see its processes and what they use: coracle anatomy CONTAINER";
const EXEC: &str = "run a second container in the namespaces of the first: coracle run --pid container:NAME --network \
                    container:NAME IMAGE";

/// What to do instead of a command that docker has.
pub fn command(typed: &str) -> Option<&'static str> {
    COMMANDS.iter().find(|(name, _)| *name == typed).map(|(_, instead)| *instead)
}

/// Options of `docker run` that are none here: names, why, and what to do instead.
const RUN: [(&[&str], &str, &str); 23] = [
    (
        &["-a", "--attach"],
        "all streams of a container in the foreground are attached",
        "leave it out, and send those away that you do not want: 2> /dev/null",
    ),
    (&["--sig-proxy"], "signals are always passed on to the program", "leave it out"),
    (
        &["--detach-keys"],
        "a container in the foreground cannot be detached from",
        "let your shell do it: coracle run ... &",
    ),
    (
        &["--log-driver", "--log-opt"],
        "this version keeps no logs: output goes where that of coracle goes",
        "send it to a file or a logger: coracle run ... | logger",
    ),
    (
        &[
            "--no-healthcheck",
            "--health-cmd",
            "--health-interval",
            "--health-retries",
            "--health-start-interval",
            "--health-start-period",
            "--health-timeout",
        ],
        "this version makes no health checks, neither the image's nor others",
        "leave it out",
    ),
    (
        &["-P", "--publish-all", "--expose"],
        "this version has no network that a port could be published from",
        "use the host's ports: --network host",
    ),
    (
        &["--link", "--network-alias", "--net-alias"],
        "this version has no network in which containers could find each other by name",
        "share a network: --network container:NAME",
    ),
    (
        &["--ip", "--ip6", "--link-local-ip", "--mac-address"],
        "this version has no network with addresses of its own",
        "use the host's: --network host",
    ),
    (
        &["--gpus"],
        "this version knows no drivers of graphics cards",
        "add the card's devices by name: --device /dev/dri",
    ),
    (
        &["--memory-swappiness"],
        "the kernel's version 2 of control groups has no such setting",
        "limit swap instead: --memory-swap",
    ),
    (
        &["--kernel-memory"],
        "the kernel has given that limit up: memory of its own counts as the container's",
        "limit it all: --memory",
    ),
    (
        &["--cpu-rt-period", "--cpu-rt-runtime"],
        "this version limits no real-time tasks",
        "limit the program itself: --ulimit rtprio=0",
    ),
    (&["--annotation"], "no runtime but coracle's own would read it", "attach a note: --label KEY=VALUE"),
    (
        &["--disable-content-trust"],
        "there is no registry whose signatures could be checked; digests always are",
        "leave it out",
    ),
    (&["--runtime"], "coracle has a runtime of its own, and no other", "leave it out"),
    (
        &["--volumes-from"],
        "this version has no volumes of its own, only directories of the host",
        "name the same directories again: --volume FROM:TO",
    ),
    (
        &["--volume-driver"],
        "this version has no volumes of its own, only directories of the host",
        "name a directory: --volume FROM:TO",
    ),
    (
        &["--isolation", "--cpu-count", "--cpu-percent", "--io-maxbandwidth", "--io-maxiops"],
        "it is for Windows only",
        "leave it out; see the options under Isolation and Limits: coracle run --help",
    ),
    (
        &["--storage-opt"],
        "the root file system is as large as the disk that it is on",
        "give the program a limited place to write to: --read-only --tmpfs /tmp:size=100m",
    ),
    (
        &["--umask"],
        "the program starts with 0022, as under docker",
        "set it in the container: sh -c 'umask 077; exec PROGRAM'",
    ),
    (&["--use-api-socket"], "there is no daemon and so no socket of one", "leave it out"),
    (
        &["--blkio-bps", "--blkio-iops"],
        "limits are given for each disk",
        "name the disk: --device-read-bps PATH:SIZE and its siblings",
    ),
    (
        &["--replace"],
        "names are not taken away from containers that have them",
        "remove the old one first: coracle rm -f NAME",
    ),
];

/// Options of docker's other commands that are none here.
const OTHERS: [(&str, &str, &str, &str); 10] = [
    ("ps", "-f", "this version lists without filters", "filter the list: coracle ps -a | grep TEXT"),
    ("ps", "--filter", "this version lists without filters", "filter the list: coracle ps -a | grep TEXT"),
    (
        "ps",
        "--format",
        "this version has one form of the list",
        "take the ids and ask for more: coracle ps -q",
    ),
    ("ps", "-l", LIST, "the newest stands first: coracle ps -a | head -n 2"),
    ("ps", "--latest", LIST, "the newest stands first: coracle ps -a | head -n 2"),
    ("ps", "-n", LIST, "take the lines that you want: coracle ps -a | head"),
    ("ps", "--last", LIST, "take the lines that you want: coracle ps -a | head"),
    (
        "ps",
        "-s",
        "this version does not count what a container has written",
        "ask du in it, or give it a limited place: --tmpfs",
    ),
    (
        "ps",
        "--size",
        "this version does not count what a container has written",
        "ask du in it, or give it a limited place: --tmpfs",
    ),
    ("rm", "-v", "containers have no volumes of their own", "leave it out"),
];

const LIST: &str = "this version lists all that run, or all";

/// Why an option that docker's command of this name has is none here, and what to do instead.
pub fn option(command: &str, typed: &str) -> Option<(&'static str, &'static str)> {
    // `--gpus=all` is the option and its value.
    let typed = typed.split_once('=').map_or(typed, |(name, _)| name);
    if command == "run" {
        let found = RUN.iter().find(|(names, ..)| names.contains(&typed));
        return found.map(|(_, reason, instead)| (*reason, *instead));
    }
    let is_it = |entry: &&(&str, &str, &str, &str)| (entry.0, entry.1) == (command, typed);
    OTHERS.iter().find(is_it).map(|(_, _, reason, instead)| (*reason, *instead))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn what_is_here_is_not_said_to_be_missing() {
        let mut here = crate::Arguments::command();
        here.build();
        for (name, _) in COMMANDS {
            assert!(here.find_subcommand(name).is_none(), "{name}");
        }
        let missing = |name: &str, typed: &str| {
            let command = here.find_subcommand(name).unwrap();
            let is_it = |arg: &clap::Arg| {
                let long = arg.get_long_and_visible_aliases().unwrap_or_default();
                let short = arg.get_short().map(|letter| format!("-{letter}"));
                long.iter().any(|long| format!("--{long}") == typed) || short.as_deref() == Some(typed)
            };
            assert!(!command.get_arguments().any(is_it), "{name} {typed}");
            assert!(option(name, typed).is_some(), "{name} {typed}");
        };
        RUN.iter().flat_map(|(names, ..)| *names).for_each(|typed| missing("run", typed));
        OTHERS.iter().for_each(|(command, typed, ..)| missing(command, typed));
    }

    #[test]
    fn values_are_not_names() {
        assert!(option("run", "--gpus=all").is_some());
        assert!(option("run", "--rm").is_none() && option("ps", "--gpus").is_none());
        assert!(command("exec").is_some() && command("run").is_none());
    }
}
