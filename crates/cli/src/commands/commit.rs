use std::process::ExitCode;

use engine::Roots;
use image::{Commit, Reference};

use crate::commands::archive;
use crate::error::Error;
use crate::table::write_out;

/// Make an image of a container's changes
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Who made it
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// Apply a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// In which form the image is written [default: oci]
    #[arg(short, long, value_name = "FORMAT", value_parser = ["oci", "docker"])]
    format: Option<String>,
    /// What the image's history says
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Stop a running container's processes for the time [default: true]
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: Option<bool>,
    /// Print the image's id and nothing else, as is done anyway
    #[arg(short, long)]
    quiet: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The image's name
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let headline = format!("cannot make an image of \"{}\"", arguments.container);
    let failed = |error: Error| error.doing(headline.clone(), archive::DIRECTORIES);
    let name = arguments.name.as_deref().map(str::parse::<Reference>).transpose();
    let commit = Commit {
        changes: arguments.changes,
        author: arguments.author,
        message: arguments.message,
        docker: arguments.format.as_deref() == Some("docker"),
        name: name.map_err(|error| failed(error.into()))?,
        ..Commit::default()
    };
    let store = archive::store(roots)?;
    let pause = arguments.pause.unwrap_or(true);
    let made = engine::changes::commit(roots, &store, &arguments.container, pause, commit);
    write_out(&format!("{}\n", made.map_err(|error| failed(error.into()))?.id))?;
    Ok(ExitCode::SUCCESS)
}
