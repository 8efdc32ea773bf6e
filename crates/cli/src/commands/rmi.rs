use std::collections::BTreeSet;
use std::process::ExitCode;

use engine::Roots;
use image::{Digest, Removed};

use crate::commands::archive;
use crate::error::Error;
use crate::table::write_out;

/// Remove images
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Take all names from an image that is given by its id
    #[arg(short, long)]
    force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let store = archive::store(roots)?;
    for image in &arguments.images {
        let failed =
            |error: Error| error.doing(format!("cannot remove image \"{}\"", image), archive::DIRECTORIES);
        let in_use = || -> Result<BTreeSet<Digest>, Error> {
            let ids = engine::container::images_in_use(roots)?;
            Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
        };
        let removed = store.remove(image, arguments.force, in_use).map_err(failed)?;
        for removed in removed {
            match removed {
                Removed::Untagged(name) => write_out(&format!("Untagged: {name}\n"))?,
                Removed::Deleted(id) => write_out(&format!("Deleted: {id}\n"))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
