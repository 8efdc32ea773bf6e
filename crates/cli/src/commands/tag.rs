use std::process::ExitCode;

use engine::Roots;

use crate::commands::archive;
use crate::error::Error;

/// Give an image another name
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A name or id of the image
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    /// The new name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let Arguments { source, target } = &arguments;
    let failed = |error: Error| {
        let headline = format!("cannot name \"{}\" \"{}\"", source, target);
        error.doing(headline, archive::DIRECTORIES)
    };
    let store = engine::unshared::open_store(roots).map_err(|error| failed(error.into()))?;
    let tagged = target.parse().and_then(|name| store.tag(source, &name));
    tagged.map_err(|error| failed(error.into()))?;
    Ok(ExitCode::SUCCESS)
}
