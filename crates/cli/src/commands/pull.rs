use std::process::ExitCode;
use std::sync::Arc;

use engine::Roots;
use image::{LoadOptions, Source};

use crate::commands::archive;
use crate::commands::login::Registry;
use crate::error::Error;
use crate::progress;
use crate::table::write_out;

/// Fetch an image from a registry, a layout or an archive
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print nothing but the image's name
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    unpacking: archive::Unpacking,
    #[command(flatten)]
    registry: Registry,
    /// Name and password for the registry, in place of those of `login`
    #[arg(long, value_name = "NAME:PASSWORD")]
    creds: Option<String>,
    /// NAME[:TAG][@DIGEST] of a registry, oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:TAG]
    #[arg(value_name = "IMAGE")]
    source: String,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let failed = |error: image::Error| {
        Error::from(error).doing(format!("cannot pull \"{}\"", arguments.source), archive::CHECK)
    };
    let source = match arguments.source.parse().map_err(failed)? {
        Source::Any(_) => {
            Source::Registry(arguments.source.parse::<image::Reference>().map_err(failed)?.or_latest())
        }
        other => other,
    };
    let options = LoadOptions {
        access: arguments.registry.access(arguments.creds.as_deref())?,
        ..arguments.unpacking.options()?
    };
    let store = archive::store(roots)?;
    let progress = Arc::clone(&options.progress);
    for loaded in
        progress::shown(&progress, arguments.quiet, || store.load(&source, &options)).map_err(failed)?
    {
        match loaded.names.first() {
            Some(name) => write_out(&format!("{name}\n"))?,
            None => {
                write_out(&format!("{}\n", loaded.id))?;
                archive::advise_a_name(&loaded.id);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
