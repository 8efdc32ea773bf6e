//! `exec`: another program in a container.

use std::collections::BTreeSet;
use std::process::ExitCode;

use cgroup::Subgroup;
use runtime::container::{Container, Fault, Status};
use runtime::spec::{Capabilities, Process};
use runtime::{Error, Exec, Streams, own_file};

use crate::arguments::{Flag, Given, option, switch};
use crate::relay::Relay;
use crate::{Failed, Global, Outcome, create};

pub const FLAGS: &[Flag] = &[
    option("console-socket", None, "PATH", "a UNIX socket that gets the other end of the program's terminal"),
    option("cwd", None, "DIR", "the working directory"),
    option("env", Some("e"), "NAME=VALUE", "set an environment variable"),
    switch("tty", Some("t"), "give it a terminal"),
    option("user", Some("u"), "UID[:GID]", "who it runs as"),
    option("additional-gids", Some("g"), "GID", "another group"),
    option("process", Some("p"), "FILE", "a process as in config.json"),
    switch("detach", Some("d"), "do not wait for the program's end"),
    option("pid-file", None, "FILE", "write the program's process number there"),
    option("process-label", None, "LABEL", "its SELinux label"),
    option("apparmor", None, "PROFILE", "its AppArmor profile"),
    switch("no-new-privs", None, "set-user-id programs raise nothing"),
    option("cap", Some("c"), "CAPABILITY", "another capability"),
    create::PRESERVE_FDS,
    option(
        "cgroup",
        None,
        "[CONTROLLER:]GROUP",
        "a group below the container's that exists, for the program",
    ),
    switch("ignore-paused", None, "also in a frozen container"),
];

pub fn run(global: &Global, given: &Given) -> Outcome {
    own_file::protect(&global.arguments)?;
    execute(global, given).map_err(|failed| failed.before("exec failed: ").with_status(255))
}

fn execute(global: &Global, given: &Given) -> Outcome {
    let container = Container::open(&global.root, &given.operands[0])?;
    match container.status()? {
        Status::Stopped => return Err(Error::from(Fault::ExecStopped).into()),
        Status::Paused if !given.is_on("ignore-paused") => return Err(Error::from(Fault::ExecPaused).into()),
        _ => {}
    }
    let mut process = process(&container, given)?;
    let of_process = |text: String| text.strip_prefix("config.json: ").map(str::to_owned).unwrap_or(text);
    let warnings = runtime::config::validate_process(&process)
        .map_err(|error| Failed::new(of_process(error.to_string())))?;
    for warning in warnings {
        global.log.warning(&of_process(warning.to_string()));
    }
    let detached = given.is_on("detach");
    let console = given.value("console-socket").filter(|path| !path.is_empty());
    if process.terminal && detached && console.is_none() {
        return Err(Failed::new(
            "cannot allocate tty if coracle-runtime will detach without setting console socket",
        ));
    }
    if console.is_some() && !(process.terminal && detached) {
        return Err(Failed::new(
            "cannot use console socket if coracle-runtime will not detach or allocate tty",
        ));
    }
    let console = console.map(create::connect_to).transpose()?;
    let preserve_fds = create::preserved(given, &mut process.env)?;
    let relay = if detached { None } else { Some(Relay::begin(false)?) };
    let subgroups = subgroups(given.values("cgroup"))?;
    let group = match container.group()? {
        Some(group) => Some(group.below(&subgroups).map_err(Error::from)?),
        None if subgroups.is_empty() => None,
        None => return Err(Failed::new("--cgroup: the container has no control group")),
    };
    let exec = Exec { container: &container, process, streams: Streams::inherited()?, preserve_fds, group };
    let mut executed = runtime::exec(exec)?;
    if let (Some(console), Some(terminal)) = (&console, &executed.terminal) {
        create::send_terminal(console, terminal)?;
    }
    create::write_pid_file(given.value("pid-file"), executed.child.pid)?;
    let Some(relay) = relay else { return Ok(ExitCode::SUCCESS) };
    let code = relay.until_end(&executed.child, executed.terminal.take())?;
    Ok(ExitCode::from(code as u8))
}

/// The process of `--process`, else the container's own with what the options say.
fn process(container: &Container, given: &Given) -> Result<Process, Failed> {
    if let Some(path) = given.value("process") {
        if !std::path::Path::new(path).exists() {
            return Err(Failed::new(format!("open {path}: no such file or directory")));
        }
        return Ok(runtime::config::read_process(path.as_ref())?);
    }
    let own = container.record.request.spec.process.clone().unwrap_or_default();
    let args = given.operands[1..].to_vec();
    if args.is_empty() {
        return Err(Failed::new("process args cannot be empty"));
    }
    let mut process = Process { args, terminal: given.is_on("tty"), console_size: None, ..own };
    if let Some(directory) = given.value("cwd") {
        process.cwd = directory.into();
    }
    process.env.extend(given.values("env").iter().cloned());
    if let Some(user) = given.value("user") {
        let (uid, gid) = match user.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (user, None),
        };
        process.user.uid = id("uid", uid)?;
        process.user.gid = gid.map_or(Ok(process.user.gid), |gid| id("gid", gid))?;
    }
    for group in given.values("additional-gids") {
        process.user.additional_gids.push(id("gid", group)?);
    }
    if let Some(label) = given.value("process-label") {
        process.selinux_label = Some(label.to_owned());
    }
    if let Some(profile) = given.value("apparmor") {
        process.apparmor_profile = Some(profile.to_owned());
    }
    process.no_new_privileges |= given.is_on("no-new-privs");
    add_capabilities(&mut process, given.values("cap"));
    Ok(process)
}

/// The groups below the container's that `--cgroup` names: one for all trees, or one for the trees of controllers each.
fn subgroups(given: &[String]) -> Result<Vec<Subgroup>, Failed> {
    let mut named = BTreeSet::new();
    let mut subgroups = Vec::new();
    let given: Vec<&String> = given.iter().filter(|text| !text.is_empty()).collect();
    for text in &given {
        let wrong = |reason: &str| Err(Failed::new(format!("invalid --cgroup argument: {text} ({reason})")));
        let (controllers, path) = match text.split_once(':') {
            Some(("", path)) if given.len() == 1 => (Vec::new(), path),
            Some((list, path)) => (list.split(',').map(str::to_owned).collect(), path),
            None if given.len() > 1 => return wrong("missing <controller>: prefix"),
            None => (Vec::new(), text.as_str()),
        };
        if controllers.iter().any(String::is_empty) {
            return wrong("empty <controller> prefix");
        }
        if path.contains(':') {
            return wrong("more than one colon");
        }
        if !controllers.iter().all(|controller: &String| named.insert(controller.clone())) {
            return wrong("a controller is named twice");
        }
        subgroups.push(Subgroup { controllers, path: path.to_owned() });
    }
    Ok(subgroups)
}

fn id(kind: &str, text: &str) -> Result<u32, Failed> {
    text.parse()
        .map_err(|_| Failed::new(format!("parsing {text:?} as {kind} failed: it is no number that fits")))
}

fn add_capabilities(process: &mut Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let sets = process.capabilities.get_or_insert_with(Capabilities::default);
    let no_ambient = sets.ambient.is_empty() && sets.inheritable.is_empty();
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
        set.extend(names.iter().cloned());
    }
    if !no_ambient {
        sets.inheritable.extend(names.iter().cloned());
        sets.ambient.extend(names.iter().cloned());
    }
}
