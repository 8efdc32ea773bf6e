use std::path::PathBuf;
use std::process::ExitCode;

use engine::Roots;

use crate::commands::archive;
use crate::error::Error;
use crate::table::write_out;

/// Make an image of a root file system's archive
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Apply a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// What the image's history says
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    unpacking: archive::Unpacking,
    /// A tar archive, plain or compressed by gzip or zstd; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The image's name
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let mut options = arguments.unpacking.options()?;
    let file = arguments.file.display().to_string();
    let headline = format!("cannot import \"{}\"", file);
    if file.starts_with("http://") || file.starts_with("https://") {
        let cause = "this version of coracle does not fetch files".to_owned();
        let advice = format!("fetch it yourself: curl -fL {file} | coracle import - NAME");
        return Err(Error::new(headline, Some(cause), Some(advice)));
    }
    if arguments.file.is_dir() {
        let advice = format!(
            "pack it: tar -C {file} -c . | coracle import - NAME, or run it as it is: coracle run --rootfs {file}"
        );
        return Err(Error::new(headline, Some("it is a directory".to_owned()), Some(advice)));
    }
    let failed = |error: image::Error| Error::from(error).doing(&headline, archive::CHECK);
    options.name = arguments.name.as_deref().map(str::parse).transpose().map_err(failed)?;
    options.message = arguments.message;
    let imported = archive::store(roots)?.import(&arguments.file, &arguments.changes, &options);
    let imported = imported.map_err(failed)?;
    write_out(&format!("{}\n", imported.id))?;
    Ok(ExitCode::SUCCESS)
}
