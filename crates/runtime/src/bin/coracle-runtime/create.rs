//! `create`: a container from a bundle, whose program waits for `start`.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use runtime::bundle::{self, Creation};
use runtime::container::Container;
use runtime::request::Oci;
use runtime::spec::Spec;
use runtime::{Running, config, own_file};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::arguments::{Flag, Given, option, switch};
use crate::{Failed, Global, Outcome};

pub const BUNDLE: Flag =
    option("bundle", Some("b"), "DIR", "the bundle: a directory with config.json and a root file system [.]");
pub const CONSOLE_SOCKET: Flag = option(
    "console-socket",
    None,
    "PATH",
    "a UNIX socket that gets the other end of the container's terminal",
);
pub const PID_FILE: Flag = option("pid-file", None, "FILE", "write the first process's number there");
pub const NO_PIVOT: Flag = switch(
    "no-pivot",
    None,
    "move the root instead of pivoting to it, where this machine runs from its initial file system",
);
pub const NO_NEW_KEYRING: Flag = switch("no-new-keyring", None, "keep the caller's session keyring");
pub const PRESERVE_FDS: Flag =
    option("preserve-fds", None, "N", "pass that many descriptors after the standard ones on [0]");
pub const FLAGS: &[Flag] = &[BUNDLE, CONSOLE_SOCKET, PID_FILE, NO_PIVOT, NO_NEW_KEYRING, PRESERVE_FDS];

pub fn run(global: &Global, given: &Given) -> Outcome {
    own_file::protect(&global.arguments)?;
    make(global, given, true).map_err(|failed| failed.before("coracle-runtime create failed: "))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the container, hands its terminal on and writes the file with its number. On failure nothing of it is left.
///
/// With `gated` its program waits for `start`.
pub fn make(global: &Global, given: &Given, gated: bool) -> Result<(Container, Running), Failed> {
    let bundle = crate::absolute("--bundle", given.value("bundle").unwrap_or(".").into())?;
    if !bundle.is_dir() {
        let reason = if bundle.exists() { "not a directory" } else { "no such file or directory" };
        return Err(Failed::new(format!("chdir {}: {reason}", bundle.display())));
    }
    let mut spec = config::read(&bundle)?;
    for warning in config::validate(&spec)? {
        global.log.warning(&warning.to_string());
    }
    let console = given.value("console-socket").filter(|path| !path.is_empty());
    check_terminal(&spec, console.is_some(), gated || given.is_on("detach"))?;
    let console = console.map(connect_to).transpose()?;
    let mut no_environment = Vec::new();
    let environment = spec.process.as_mut().map_or(&mut no_environment, |process| &mut process.env);
    let preserve_fds = preserved(given, environment)?;
    let creation = Creation {
        root: &global.root,
        id: &given.operands[0],
        spec,
        oci: Oci {
            systemd_cgroup: global.systemd_cgroup,
            needs_group: global.rootless == Some(false),
            no_new_keyring: given.is_on("no-new-keyring"),
            no_pivot: given.is_on("no-pivot"),
            preserve_fds,
            bundle,
        },
        gated,
    };
    let (container, mut running) = bundle::create(creation)?;
    let finished = hand_over(given, console, &mut running);
    if let Err(failed) = finished {
        // The first failure is the one to tell.
        let _ = crate::delete::destroy(global, &container.directory, Some(&container));
        return Err(failed);
    }
    Ok((container, running))
}

/// A terminal needs somebody at its other end: who waits, or a socket.
fn check_terminal(spec: &Spec, has_socket: bool, detached: bool) -> Result<(), Failed> {
    let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    match (detached, terminal, has_socket) {
        (true, true, false) => Err(Failed::new(
            "cannot allocate tty if coracle-runtime will detach without setting console socket",
        )),
        (false, _, true) | (true, false, true) => {
            Err(Failed::new("cannot use console socket if coracle-runtime will not detach or allocate tty"))
        }
        _ => Ok(()),
    }
}

fn hand_over(given: &Given, console: Option<OwnedFd>, running: &mut Running) -> Result<(), Failed> {
    if let Some(console) = console
        && let Some(terminal) = running.terminal.take()
    {
        send_terminal(&console, &terminal)?;
    }
    write_pid_file(given.value("pid-file"), running.child.pid)
}

/// `--preserve-fds`, and the descriptors that a service manager passed on: sd_listen_fds(3).
pub fn preserved(given: &Given, environment: &mut Vec<String>) -> Result<u32, Failed> {
    let listening: u32 = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    if listening > 0 {
        environment.push(format!("LISTEN_FDS={listening}"));
        environment.push("LISTEN_PID=1".to_owned());
    }
    let asked: u32 = given.number("preserve-fds")?.unwrap_or(0);
    for number in 3..3 + listening + asked {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            return Err(Failed::new(format!("--preserve-fds: descriptor {number} is not open")));
        }
    }
    Ok(listening + asked)
}

/// Connects to the socket of `--console-socket`.
pub fn connect_to(path: &str) -> Result<OwnedFd, Failed> {
    let failed = |errno| {
        Failed::new(format!("cannot connect to the console socket {path}: {}", std::io::Error::from(errno)))
    };
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
    connect(&socket, &address).map_err(failed)?;
    Ok(socket)
}

/// Sends the other end of a terminal, with its name.
pub fn send_terminal(console: &OwnedFd, terminal: &OwnedFd) -> Result<(), Failed> {
    kernel::socket::send(console, b"/dev/ptmx", &[terminal.as_fd()])
        .map_err(|error| Failed::new(format!("cannot hand the terminal to the console socket: {error}")))
}

/// Writes a process's number into a file: under another name first, so that nobody reads half of it.
pub fn write_pid_file(path: Option<&str>, pid: u32) -> Result<(), Failed> {
    let Some(path) = path.filter(|path| !path.is_empty()).map(PathBuf::from) else { return Ok(()) };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}"));
    fs_err::write(&temporary, pid.to_string())?;
    Ok(fs_err::rename(&temporary, &path)?)
}
