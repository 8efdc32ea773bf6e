//! `delete`: removes a container and all that is left of it.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;

use runtime::container::{Container, Fault, Status};
use runtime::hooks::{self, Moment};
use runtime::{Error, group, intel_rdt, remains};

use crate::arguments::{Flag, Given, switch};
use crate::{Failed, Global, Outcome};

pub const FLAGS: &[Flag] =
    &[switch("force", Some("f"), "kill the container if it runs; one that is not there is no error")];

/// How long a killed process may take to end, in milliseconds.
const PATIENCE: u32 = 10_000;

pub fn run(global: &Global, given: &Given) -> Outcome {
    let (id, force) = (&given.operands[0], given.is_on("force"));
    let container = match Container::open(&global.root, id) {
        Ok(container) => container,
        Err(Error::Container(Fault::Missing)) if force => {
            // What a killed `create` left has no state yet.
            if let Some(directory) = Container::remains(&global.root, id) {
                destroy(global, &directory, None)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(error.into()),
    };
    let status = container.status()?;
    if !force && !matches!(status, Status::Stopped | Status::Created) {
        return Err(Error::from(Fault::NotStopped { id: id.clone(), status }).into());
    }
    destroy(global, &container.directory, Some(&container))?;
    Ok(ExitCode::SUCCESS)
}

/// Ends what still runs, and removes the control group and the directory. The hooks of the end run last.
pub fn destroy(global: &Global, directory: &Path, container: Option<&Container>) -> Result<(), Failed> {
    match group::find_written(directory)? {
        Some(group) => drop(remains::remove_group(&group)?),
        None => container.map_or(Ok(()), kill_first_process)?,
    }
    if let Some(Container { record, .. }) = container {
        group::remove_unwritten(&record.request)?;
        intel_rdt::remove(&record.request)?;
    }
    match fs_err::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    if let Some(request) = container.map(|container| &container.record.request)
        && let Some(list) = request.spec.hooks.as_ref().map(|hooks| &hooks.poststop)
    {
        let state = hooks::state_text(&request.spec, &request.id, "stopped", 0, &request.directory);
        // One that fails keeps none of the others from running.
        for (number, hook) in list.iter().enumerate() {
            if let Err(error) = hooks::run_one(Moment::Poststop, number, hook, &state) {
                global.log.warning(&error.to_string());
            }
        }
    }
    Ok(())
}

/// Ends every process of a container, and leaves it to be deleted.
pub fn stop(container: &Container) -> Result<(), Failed> {
    match container.group()? {
        Some(group) => Ok(group.kill().map_err(Error::from)?),
        None => kill_first_process(container),
    }
}

/// Without a group there is only the first process to be found; in a PID namespace of its own all others end with it.
fn kill_first_process(container: &Container) -> Result<(), Failed> {
    let Some(process) = container.process()? else { return Ok(()) };
    match kernel::process::send_signal(process.as_fd(), libc::SIGKILL) {
        Err(error) if error.errno() != kernel::Errno::SRCH => return Err(Failed::new(error.to_string())),
        _ => {}
    }
    if kernel::process::has_ended_within(process.as_fd(), PATIENCE)
        .map_err(|error| Failed::new(error.to_string()))?
    {
        return Ok(());
    }
    Err(Failed::new(format!(
        "container init still running (process {} was killed and does not end)",
        container.pid()
    )))
}
