use std::process::ExitCode;

use engine::Roots;

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
    let store = engine::unshared::open_store(roots)?;
    let Arguments { source, target } = &arguments;
    let tagged = target.parse().and_then(|name| store.tag(source, &name));
    tagged.map_err(|error| {
        let accepted = "a name is like app, user/app:1.0 or host.example:5000/app:1.0";
        Error::from(error).doing(format!("cannot name \"{source}\" \"{target}\""), accepted)
    })?;
    Ok(ExitCode::SUCCESS)
}
