use std::process::ExitCode;

use engine::Roots;

use crate::commands::{archive, diff};
use crate::error::Error;

/// Show which files an image adds (A), changes (C) and deletes (D)
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// json for an object with three lists; otherwise a line for each file
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    format: Option<String>,
    /// A name or id of the image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// What it is compared with [default: the image here that it is built on, else its own layers but the topmost]
    #[arg(value_name = "FROM")]
    from: Option<String>,
}

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let failed =
        |error: Error| error.doing(format!("cannot compare \"{}\"", arguments.image), archive::DIRECTORIES);
    let store = engine::unshared::open_store(roots).map_err(|error| failed(error.into()))?;
    let compared = store.image_diff(&arguments.image, arguments.from.as_deref());
    let (from, changes) = compared.map_err(|error| failed(error.into()))?;
    if arguments.from.is_none() {
        eprintln!("Compared with {from}.");
    }
    diff::print(&changes, arguments.format.is_some())?;
    Ok(ExitCode::SUCCESS)
}
