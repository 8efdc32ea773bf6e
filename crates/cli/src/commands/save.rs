use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use engine::Roots;
use image::{CopyOptions, ManifestForm, Recipe, Source, Which};

use crate::commands::archive;
use crate::error::Error;
use crate::progress;

/// Write images into an archive or a directory
#[derive(Debug, clap::Args)]
#[command(
    after_help = "docker-archive is read by docker load and podman load, and is an OCI layout as well, as the archives that docker writes are: \
                  coracle load and whatever else reads OCI's form find each manifest as it was."
)]
pub struct Arguments {
    /// Write into this file or directory instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// docker-archive, oci-archive, oci-dir, or docker-dir, which is skopeo's dir: with a manifest in docker's form
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive")]
    format: String,
    /// Only the images for this platform, as os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Say nothing of how far it is
    #[arg(short, long)]
    quiet: bool,
    /// Names or ids of the images
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let path = arguments.output.clone().unwrap_or_else(|| PathBuf::from("-"));
    let mut recipe = Recipe::VERBATIM;
    let to = match arguments.format.as_str() {
        "docker-archive" => Source::DockerArchive { path, tag: None },
        "oci-archive" => Source::OciArchive { path, tag: None },
        "oci-dir" => Source::OciDirectory { path, tag: None },
        "docker-dir" => {
            recipe.form = Some(ManifestForm::Docker);
            Source::Directory(path)
        }
        other => {
            let cause = format!("there is no format \"{other}\" that images are saved in here");
            let advice = "write docker-archive, oci-archive, oci-dir or docker-dir".to_owned();
            return Err(Error::new("--format cannot be understood", Some(cause), Some(advice)));
        }
    };
    if arguments.output.is_none() {
        check_standard_output(&to)?;
    }
    let platform = arguments.platform.as_deref().map(engine::options::platform).transpose();
    let which = Which::One(platform.map_err(engine::Error::from)?);
    let options = CopyOptions { which, recipe, ..CopyOptions::default() };
    let store = archive::store(roots)?;
    let progress = Arc::clone(&options.progress);
    let saved = progress::shown(&progress, arguments.quiet, || store.save(&arguments.images, &to, &options));
    saved.map_err(|error| {
        Error::from(error)
            .doing(format!("cannot save \"{}\"", arguments.images.join("\", \"")), archive::CHECK)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn check_standard_output(to: &Source) -> Result<(), Error> {
    let refused = |cause: &str| {
        let advice = "name where it shall be: coracle save -o FILE IMAGE".to_owned();
        Err(Error::new("cannot save to standard output", Some(cause.to_owned()), Some(advice)))
    };
    if matches!(to, Source::OciDirectory { .. } | Source::Directory(_)) {
        return refused("a directory cannot be written there");
    }
    if std::io::stdout().is_terminal() { refused("it is a terminal") } else { Ok(()) }
}
