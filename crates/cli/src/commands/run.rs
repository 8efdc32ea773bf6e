//! `coracle run`.

mod arguments;
mod meaning;

use std::os::fd::AsFd as _;
use std::process::ExitCode;

use engine::{Roots, UserSide};
use kernel::record::Log;

pub use self::arguments::Arguments;
use crate::error::Error;

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let spec = meaning::spec(arguments).map_err(engine::Error::from)?;
    let log = arguments.explain.map(|_| Log::create()).transpose().map_err(engine::Error::from)?;
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let user = UserSide { input: input.as_fd(), output: output.as_fd(), error: error.as_fd() };
    let outcome = engine::run(roots, &spec, user, log.as_ref());
    if let Some(log) = &log {
        print_record(log);
    }
    Ok(ExitCode::from(outcome?.code as u8))
}

fn print_record(log: &Log) {
    for event in log.events() {
        let args: Vec<String> = event.args.iter().map(ToString::to_string).collect();
        eprintln!(
            "{:?} {:?} {}({}) = {} [{} us] {}",
            event.actor,
            event.chapter,
            event.call,
            args.join(", "),
            event.result,
            event.duration_ns / 1000,
            event.why
        );
    }
}
