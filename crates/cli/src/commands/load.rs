use std::io::IsTerminal as _;
use std::process::ExitCode;

use engine::Roots;

use crate::commands::archive;
use crate::error::Error;
use crate::table::write_out;

/// Load images from an archive or a layout
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Read this file instead of standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "source")]
    input: Option<String>,
    /// Print nothing but what was loaded, as is done anyway
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    unpacking: archive::Unpacking,
    /// Where the images are: oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:TAG], a file, or - for standard input
    #[arg(value_name = "SOURCE")]
    source: Option<String>,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let options = arguments.unpacking.options()?;
    let source = arguments.source.or(arguments.input).unwrap_or_else(|| "-".to_owned());
    if source == "-" && std::io::stdin().is_terminal() {
        return Err(Error::new(
            "cannot load from standard input",
            Some("it is a terminal".to_owned()),
            Some("name a file, or redirect one: coracle load -i FILE".to_owned()),
        ));
    }
    let failed = |error: image::Error| {
        Error::from(error).doing(format!("cannot load images from \"{}\"", source), archive::CHECK)
    };
    for loaded in archive::store(roots)?.load(&source.parse().map_err(failed)?, &options).map_err(failed)? {
        for name in &loaded.names {
            write_out(&format!("Loaded image: {name}\n"))?;
        }
        if loaded.names.is_empty() {
            write_out(&format!("Loaded image ID: {}\n", loaded.id))?;
            archive::advise_a_name(&loaded.id);
        }
    }
    Ok(ExitCode::SUCCESS)
}
