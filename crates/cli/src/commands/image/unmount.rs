use std::process::ExitCode;

use engine::Roots;

use crate::error::Error;
use crate::table::write_out;

/// Unmount images that were mounted to look into them
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// All that are mounted
    #[arg(short, long, conflicts_with = "images")]
    all: bool,
    /// Names or ids
    #[arg(required_unless_present = "all", value_name = "IMAGE")]
    images: Vec<String>,
}

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let failed = |error: Error, image: &str| {
        error.doing(format!("cannot unmount image \"{image}\""), "see what is mounted: coracle image mount")
    };
    let store = engine::unshared::open_store(roots)?;
    if arguments.all {
        let all = engine::mounted::list(roots).map_err(|error| failed(error.into(), "all"))?;
        for mounted in all {
            engine::mounted::unmount(roots, &mounted.id)
                .map_err(|error| failed(error.into(), &mounted.id))?;
            write_out(&format!("{}\n", mounted.id))?;
        }
    }
    for image in &arguments.images {
        let id = store.inspect(image, None).map_err(|error| failed(error.into(), image))?.id.hex();
        if !engine::mounted::unmount(roots, &id).map_err(|error| failed(error.into(), image))? {
            let error = Error::new("it is not mounted", None, None);
            return Err(failed(error, image));
        }
        write_out(&format!("{id}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
