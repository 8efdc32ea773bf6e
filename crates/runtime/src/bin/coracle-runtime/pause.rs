//! `pause` and `resume`: the freezer.

use std::process::ExitCode;

use runtime::Error;
use runtime::container::{Container, Fault, Status};

use crate::arguments::Given;
use crate::{Failed, Global, Outcome};

pub fn pause(global: &Global, given: &Given) -> Outcome {
    let container = Container::open(&global.root, &given.operands[0])?;
    match container.status()? {
        Status::Running | Status::Created => freeze(&container, true),
        Status::Paused | Status::Stopped => Err(Error::from(Fault::NotRunning).into()),
    }
}

pub fn resume(global: &Global, given: &Given) -> Outcome {
    let container = Container::open(&global.root, &given.operands[0])?;
    match container.status()? {
        Status::Paused => freeze(&container, false),
        _ => Err(Error::from(Fault::NotPaused).into()),
    }
}

fn freeze(container: &Container, frozen: bool) -> Outcome {
    let Some(group) = container.group()? else {
        return Err(Failed::new("the container has no control group, and only a group can be frozen"));
    };
    group.freeze(frozen).map_err(Error::from)?;
    Ok(ExitCode::SUCCESS)
}
