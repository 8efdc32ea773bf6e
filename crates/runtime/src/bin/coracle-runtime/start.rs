//! `start`: lets a created container's process become its program.

use std::process::ExitCode;

use runtime::container::Container;
use runtime::hooks::{self, Moment};

use crate::arguments::Given;
use crate::{Global, Outcome};

pub fn run(global: &Global, given: &Given) -> Outcome {
    let container = Container::open(&global.root, &given.operands[0])?;
    container.start()?;
    run_hooks(global, &container);
    Ok(ExitCode::SUCCESS)
}

/// The hooks after the start. The specification has one that fails logged, and the container goes on.
pub fn run_hooks(global: &Global, container: &Container) {
    let request = &container.record.request;
    let Some(list) = request.spec.hooks.as_ref().map(|hooks| &hooks.poststart) else { return };
    let state = hooks::state_text(&request.spec, &request.id, "running", container.pid(), &request.directory);
    if let Err(error) = hooks::run(Moment::Poststart, list, &state) {
        global.log.warning(&error.to_string());
    }
}
