use std::process::ExitCode;

use engine::Roots;

use crate::commands::archive;
use crate::error::Error;
use crate::table::write_out;

/// Mount images read-only on this machine and print where, or list those that are mounted
#[derive(Debug, clap::Args)]
#[command(after_help = "Only root can: what a user mounts is seen in that user's own namespaces only.")]
pub struct Arguments {
    /// Names or ids
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let store = engine::unshared::open_store(roots)?;
    if arguments.images.is_empty() {
        let failed = |error: engine::Error| {
            Error::from(error).doing("cannot list what is mounted", archive::DIRECTORIES)
        };
        for mounted in engine::mounted::list(roots).map_err(failed)? {
            // One that was removed by hand has an id all the same.
            let names = store.inspect(&mounted.id, None).map(|image| image.names).unwrap_or_default();
            let name = names.first().map_or_else(|| mounted.id[..12].to_owned(), ToString::to_string);
            write_out(&format!("{name} {}\n", mounted.path.display()))?;
        }
    }
    for image in &arguments.images {
        let path = engine::mounted::mount(roots, &store, image).map_err(|error| {
            Error::from(error).doing(format!("cannot mount image \"{image}\""), archive::DIRECTORIES)
        })?;
        match arguments.images.len() {
            1 => write_out(&format!("{}\n", path.display()))?,
            _ => write_out(&format!("{image} {}\n", path.display()))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}
