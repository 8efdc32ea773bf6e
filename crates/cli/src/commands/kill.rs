use std::process::ExitCode;

use engine::Roots;

use crate::error::Error;

/// Send a signal to the first process of containers
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let number = kernel::signal::number(&arguments.signal).ok_or_else(|| {
        let accepted =
            "accepted are names with or without SIG (TERM, SIGHUP, RTMIN+3) and numbers from 1 to 64";
        Error::new(
            format!("invalid value \"{}\" for --signal", arguments.signal),
            Some("not a signal".to_owned()),
            Some(accepted.to_owned()),
        )
    })?;
    for container in &arguments.containers {
        engine::container::signal(roots, container, number).map_err(|error| {
            Error::from(error)
                .doing(format!("cannot signal \"{container}\""), "see all containers: coracle ps -a")
        })?;
        crate::table::write_out(&format!("{container}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
