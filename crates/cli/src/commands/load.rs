use std::process::ExitCode;

use engine::Roots;

use crate::error::Error;
use crate::table::write_out;

/// Load images from an archive or a layout
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Read this file instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<String>,
    /// Which platform of a multi-platform image, as os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Where the images are: oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:TAG], a file, or - for standard input
    #[arg(value_name = "SOURCE")]
    source: Option<String>,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let source = arguments.source.or(arguments.input).unwrap_or_else(|| "-".to_owned());
    let store = image::Store::open(&roots.persistent)?;
    let options = image::LoadOptions::default();
    for loaded in store.load(&source.parse()?, &options)? {
        for name in &loaded.names {
            write_out(&format!("Loaded image: {name}\n"));
        }
        if loaded.names.is_empty() {
            write_out(&format!("Loaded image ID: {}\n", loaded.id));
        }
    }
    Ok(ExitCode::SUCCESS)
}
