//! Hooks: programs that a configuration names, run at fixed moments of a container's life with its state on their input.
//!
//! Source: runtime-spec `config.md`, "POSIX-platform Hooks".

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use kernel::process::{self, CloneFlags, Cloned, Ended};
use kernel::record::{Actor, Chapter, because};

use rustix::io::Errno;

use crate::error::{Error, InStep as _, Result};
use crate::request::Request;
use crate::spec::{Hook, Hooks, Spec};

/// When hooks run, as the specification names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The older name of [`Moment::CreateRuntime`], before it.
    Prestart,
    /// In the runtime's namespaces, when the container's are made.
    CreateRuntime,
    /// In the container's namespaces, before its root becomes the root.
    CreateContainer,
    /// In the container, before its program.
    StartContainer,
    /// In the runtime's namespaces, after the program was started.
    Poststart,
    /// In the runtime's namespaces, when the container is deleted.
    Poststop,
}

impl Moment {
    fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// Whether hooks run while both the runtime's and the container's root are in sight.
pub(crate) fn before_root_changes(spec: &Spec) -> bool {
    let any = |hooks: &Hooks| {
        [&hooks.prestart, &hooks.create_runtime, &hooks.create_container].iter().any(|list| !list.is_empty())
    };
    spec.hooks.as_ref().is_some_and(any)
}

/// In the runtime, for a container whose process is `pid`: those of [`Moment::Prestart`] and [`Moment::CreateRuntime`].
pub(crate) fn run_outside(request: &Request, pid: u32) -> Result<()> {
    let Some(hooks) = &request.spec.hooks else { return Ok(()) };
    let state = state_of(request, "creating", pid);
    run(Moment::Prestart, &hooks.prestart, &state)?;
    run(Moment::CreateRuntime, &hooks.create_runtime, &state)
}

/// In the container's process.
pub(crate) fn run_inside(request: &Request, moment: Moment) -> Result<()> {
    let Some(hooks) = &request.spec.hooks else { return Ok(()) };
    let (list, status) = match moment {
        Moment::StartContainer => (&hooks.start_container, "created"),
        _ => (&hooks.create_container, "creating"),
    };
    if list.is_empty() {
        return Ok(());
    }
    run(moment, list, &state_of(request, status, std::process::id()))
}

fn state_of(request: &Request, status: &str, pid: u32) -> String {
    let bundle = request.oci.as_ref().map_or(request.directory.as_path(), |oci| oci.bundle.as_path());
    state_text(&request.spec, &request.id, status, pid, bundle)
}

/// A container's state as hooks and the owner of a seccomp listener are told it: runtime-spec `runtime.md`, "State".
pub fn state_text(spec: &Spec, id: &str, status: &str, pid: u32, bundle: &Path) -> String {
    let mut state = serde_json::json!({
        "ociVersion": spec.oci_version,
        "id": id,
        "status": status,
        "bundle": bundle,
    });
    if pid != 0 {
        state["pid"] = pid.into();
    }
    if !spec.annotations.is_empty() {
        state["annotations"] = serde_json::json!(spec.annotations);
    }
    state.to_string()
}

const STEP: &str = "cannot run a hook";

/// Runs hooks one after the other, each with `state` on its standard input. The first that fails ends it.
///
/// The caller must be single-threaded.
pub fn run(moment: Moment, hooks: &[Hook], state: &str) -> Result<()> {
    hooks.iter().enumerate().try_for_each(|(number, hook)| run_one(moment, number, hook, state))
}

/// Runs one hook, which has this place among those of its moment.
///
/// The caller must be single-threaded.
pub fn run_one(moment: Moment, number: usize, hook: &Hook, state: &str) -> Result<()> {
    because(
        Chapter::Process,
        "a hook of the configuration runs at its moment, with the container's state on its input",
    );
    let failed =
        |reason: String| Error::Hook { moment: moment.name(), number, path: hook.path.clone(), reason };
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| kernel::Error::new("pipe2", "a hook's input", errno))
        .in_step(STEP)?;
    // In a file, so that one who goes on in the background after the hook's end holds nobody up.
    let output = rustix::fs::memfd_create("hook", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|errno| kernel::Error::new("memfd_create", "a hook's output", errno))
        .in_step(STEP)?;
    let failed = |reason: String| failed(reason + &said(&output));
    let child = match process::clone3(CloneFlags::empty(), None).in_step(STEP)? {
        Cloned::Child => become_hook(hook, &reader, &output),
        Cloned::Parent(child) => child,
    };
    drop(reader);
    // A hook need not read it.
    let _ = write_all(&writer, state.as_bytes());
    drop(writer);
    if let Some(seconds) = hook.timeout
        && !process::has_ended_within(
            child.pidfd.as_fd(),
            u32::try_from(seconds.saturating_mul(1000)).unwrap_or(0),
        )
        .in_step(STEP)?
    {
        let _ = process::send_signal(child.pidfd.as_fd(), libc::SIGKILL);
        process::wait(child.pidfd.as_fd()).in_step(STEP)?;
        return Err(failed(format!("hook ran past specified timeout of {seconds}.0s")));
    }
    match process::wait(child.pidfd.as_fd()).in_step(STEP)? {
        Ended::Exited(0) => Ok(()),
        Ended::Exited(status) => Err(failed(format!("exit status {status}"))),
        Ended::Signaled(signal) => Err(failed(format!("signal {signal}"))),
    }
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> std::result::Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// In the hook's process.
fn become_hook(hook: &Hook, input: &OwnedFd, output: &OwnedFd) -> ! {
    kernel::record::actor(Actor::Helper);
    kernel::signal::unblock_all();
    let streams = [(input, 0), (output, 1), (output, 2)];
    let mut set =
        streams.into_iter().map(|(file, number)| process::set_standard_stream(file.as_fd(), number));
    let prepared = set.try_for_each(|set| set).and_then(|()| process::cloexec_all());
    if prepared.is_ok() {
        let path = PathBuf::from(&hook.path);
        let args = if hook.args.is_empty() { vec![path.display().to_string()] } else { hook.args.clone() };
        let error = process::execve(&path, &args, &hook.env);
        // A message that cannot be written is missing in the error, which tells the status all the same.
        let text = format!("{}: {}", path.display(), crate::error::lower_case(error.errno()));
        let _ = write_all(output, text.as_bytes());
    }
    process::exit(127)
}

/// The end of what a hook has printed, as a part of its error.
fn said(output: &OwnedFd) -> String {
    const MOST: usize = 4096;
    let length = rustix::fs::fstat(output).map_or(0, |status| status.st_size as u64);
    let mut bytes = [0; MOST];
    let read = rustix::io::pread(output, &mut bytes, length.saturating_sub(MOST as u64)).unwrap_or(0);
    let text = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).trim().to_owned();
    if text.is_empty() { text } else { format!(", output: {text}") }
}
