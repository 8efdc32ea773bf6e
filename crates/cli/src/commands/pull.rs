use std::process::ExitCode;

use engine::Roots;
use image::Source;

use crate::commands::archive;
use crate::error::Error;
use crate::table::write_out;

/// Load an image from a layout or an archive
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print nothing but the image's name, as is done anyway
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    unpacking: archive::Unpacking,
    /// oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:TAG]
    #[arg(value_name = "SOURCE")]
    source: String,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let source: Source = arguments.source.parse()?;
    if let Source::Any(_) = source {
        return Err(no_registry(&arguments.source));
    }
    let failed = |error: image::Error| {
        Error::from(error).doing(format!("cannot pull \"{}\"", arguments.source), archive::CHECK)
    };
    let options = arguments.unpacking.options()?;
    for loaded in archive::store(roots)?.load(&source, &options).map_err(failed)? {
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

fn no_registry(source: &str) -> Error {
    let name = source.strip_prefix("docker://").unwrap_or(source);
    Error::new(
        format!("cannot pull \"{}\"", source),
        Some("this version of coracle does not talk to registries".to_owned()),
        Some(format!(
            "bring it as a file: skopeo copy docker://{name} oci-archive:image.tar, then coracle pull oci-archive:image.tar"
        )),
    )
}
