//! `start`: lets a created container's process become its program.

use std::process::ExitCode;

use runtime::container::Container;
use runtime::hooks::{self, Moment};

use crate::arguments::Given;
use crate::{Failed, Global, Outcome, delete};

pub fn run(global: &Global, given: &Given) -> Outcome {
    let container = Container::open(&global.root, &given.operands[0])?;
    container.start()?;
    run_hooks(&container)?;
    Ok(ExitCode::SUCCESS)
}

/// The hooks after the start. If one fails the container is stopped: runtime-spec `runtime.md`, "Lifecycle".
pub fn run_hooks(container: &Container) -> Result<(), Failed> {
    let request = &container.record.request;
    let list = request.spec.hooks.as_ref().map_or(&[][..], |hooks| &hooks.poststart);
    if list.is_empty() {
        return Ok(());
    }
    let state = hooks::state_text(&request.spec, &request.id, "running", container.pid(), &request.directory);
    hooks::run(Moment::Poststart, list, &state).map_err(|error| {
        // What the hook said is what to tell; whatever cannot be stopped is for delete, which tells that.
        let _ = delete::stop(container);
        error.into()
    })
}
