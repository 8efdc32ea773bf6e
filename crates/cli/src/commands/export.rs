use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use engine::Roots;

use crate::commands::archive;
use crate::error::Error;

/// Write all files of a container as a tar archive, without what is mounted in it
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let headline = format!("cannot export \"{}\"", arguments.container);
    let failed = |error: Error| error.doing(headline.clone(), archive::DIRECTORIES);
    if arguments.output.is_none() && std::io::stdout().is_terminal() {
        let cause = "standard output is a terminal, and an archive is no text".to_owned();
        let advice = "name a file, or redirect the output: coracle export -o FILE CONTAINER".to_owned();
        return Err(Error::new(headline, Some(cause), Some(advice)));
    }
    let store = archive::store(roots)?;
    let written = match &arguments.output {
        None => write(roots, &store, &arguments.container, std::io::stdout().lock()),
        Some(path) => write_file(roots, &store, &arguments.container, path),
    };
    written.map_err(|error| failed(error.into()))?;
    Ok(ExitCode::SUCCESS)
}

fn write_file(
    roots: &Roots,
    store: &image::Store,
    container: &str,
    path: &Path,
) -> Result<(), engine::Error> {
    // A symbolic link stays one; what is no file, a pipe or a device, is written as it comes.
    let path = fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs_err::metadata(&path).is_ok_and(|known| !known.is_file()) {
        return write(roots, store, container, fs_err::OpenOptions::new().write(true).open(&path)?);
    }
    // Half an archive is not to be taken for a whole one.
    let half = path.with_added_extension(format!("{}.part", std::process::id()));
    let file = fs_err::OpenOptions::new().write(true).create_new(true).open(&half)?;
    let written = write(roots, store, container, file).and_then(|()| Ok(fs_err::rename(&half, &path)?));
    if written.is_err() {
        // The error that matters is the first one.
        let _ = fs_err::remove_file(&half);
    }
    written
}

fn write(
    roots: &Roots,
    store: &image::Store,
    container: &str,
    output: impl std::io::Write,
) -> Result<(), engine::Error> {
    let mut output = BufWriter::with_capacity(1 << 20, output);
    engine::changes::export(roots, store, container, &mut output)?;
    Ok(output.flush()?)
}
