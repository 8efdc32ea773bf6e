use std::process::ExitCode;

use engine::Roots;

use crate::error::Error;

/// Remove containers
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// End running ones first
    #[arg(short, long)]
    force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    for container in &arguments.containers {
        engine::container::remove(roots, container, arguments.force).map_err(|error| {
            Error::from(error)
                .doing(format!("cannot remove \"{container}\""), "see all containers: coracle ps -a")
        })?;
        crate::table::write_out(&format!("{container}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
