//! `coracle run`.

mod arguments;
mod meaning;

use std::os::fd::AsFd as _;
use std::process::ExitCode;

use engine::{Roots, UserSide};
use kernel::record::Log;

pub use self::arguments::Arguments;
use crate::error::Error;
use crate::explain;

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let spec = meaning::spec(arguments).map_err(engine::Error::from)?;
    let log = arguments.explain.map(|_| Log::create()).transpose().map_err(engine::Error::from)?;
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let user = UserSide { input: input.as_fd(), output: output.as_fd(), error: error.as_fd() };
    let outcome = engine::run(roots, &spec, user, log.as_ref());
    if let (Some(log), Some(form)) = (&log, arguments.explain) {
        explain::print(log, form, &secrets(&spec));
    }
    Ok(ExitCode::from(outcome?.code as u8))
}

/// What is passed by `-e` may be a password.
fn secrets(spec: &engine::spec::Spec) -> Vec<&str> {
    spec.process.environment.iter().filter_map(|(_, value)| value.as_deref()).collect()
}
