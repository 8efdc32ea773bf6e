use std::process::ExitCode;

use engine::{Roots, options};

use crate::error::Error;

/// Ask containers to end, and end those that do not
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The signal that asks [default: the one of --stop-signal, the image's, or TERM]
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Seconds until KILL, -1 to wait for ever [default: those of --stop-timeout, or 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let read = |text: &Option<String>| text.as_deref().map(|text| options::stop_signal("--signal", text));
    let signal = read(&arguments.signal).transpose().map_err(engine::Error::from)?;
    let read = |text: &Option<String>| text.as_deref().map(|text| options::stop_timeout("--time", text));
    let timeout = read(&arguments.time).transpose().map_err(engine::Error::from)?;
    for container in &arguments.containers {
        engine::container::stop(roots, container, signal, timeout).map_err(|error| {
            Error::from(error)
                .doing(format!("cannot stop \"{container}\""), "see all containers: coracle ps -a")
        })?;
        crate::table::write_out(&format!("{container}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
