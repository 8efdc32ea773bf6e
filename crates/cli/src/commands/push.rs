use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use engine::Roots;
use image::{Access, Algorithm, CopyOptions, Layers, Location, Recipe, Reference, Source, Which};

use crate::commands::archive;
use crate::commands::login::Registry;
use crate::error::Error;
use crate::progress;
use crate::table::write_out;

/// What is done with layers on the way
#[derive(Debug, clap::Args)]
pub struct Compression {
    /// Compress layers by gzip or zstd, also those that are compressed in another way [default: plain ones by gzip]
    #[arg(long, value_name = "FORMAT")]
    compression_format: Option<String>,
    /// How much to compress them: 1 to 9 by gzip, 1 to 20 by zstd [default: 6, 3]
    #[arg(long, value_name = "LEVEL", allow_hyphen_values = true)]
    compression_level: Option<i32>,
    /// Compress all layers anew, also those that are in that format already
    #[arg(long)]
    force_compression: bool,
}

impl Compression {
    /// What was typed; `otherwise` is what is done with layers where nothing was.
    pub fn recipe(&self, otherwise: Layers) -> Result<Recipe, Error> {
        let algorithm = match &self.compression_format {
            Some(text) => algorithm("--compression-format", text)?,
            None => Algorithm::Gzip,
        };
        let level = self.compression_level;
        level.map_or(Ok(()), |level| check_level("--compression-level", level, algorithm))?;
        let layers = match (self.force_compression, &self.compression_format) {
            (true, _) => Layers::All,
            (false, Some(_)) => Layers::Other,
            (false, None) if level.is_some() => Layers::Plain,
            (false, None) => otherwise,
        };
        Ok(Recipe { layers, algorithm, level, form: None })
    }
}

/// The algorithm of that name.
pub fn algorithm(option: &str, text: &str) -> Result<Algorithm, Error> {
    match text {
        "gzip" => Ok(Algorithm::Gzip),
        "zstd" => Ok(Algorithm::Zstd),
        other => Err(Error::new(
            format!("{option} cannot be understood"),
            Some(format!("there is no format \"{other}\" that layers are compressed in here")),
            Some("write gzip or zstd".to_owned()),
        )),
    }
}

/// Whether the algorithm has that level.
pub fn check_level(option: &str, level: i32, algorithm: Algorithm) -> Result<(), Error> {
    let levels = algorithm.levels();
    if levels.contains(&level) {
        return Ok(());
    }
    Err(Error::new(
        format!("{option} {level} cannot be honoured"),
        Some("there is no such level of that format".to_owned()),
        Some(format!("give one from {} to {}", levels.start(), levels.end())),
    ))
}

/// Send an image to a registry
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A name that means an index is sent as the whole index if every image of it is here, else as the image for this machine; \
                  --platform and --all-platforms choose otherwise. What is compressed here is sent as it is, so that digests stay."
)]
pub struct Arguments {
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Send an index of all images that are here under the name
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Send only the image for this platform, as os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Write the digest of what was sent into this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    #[command(flatten)]
    compression: Compression,
    #[command(flatten)]
    registry: Registry,
    /// Name and password for the registry, in place of those of `login`
    #[arg(long, value_name = "NAME:PASSWORD")]
    creds: Option<String>,
    /// A name or id of the image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// NAME[:TAG] at a registry, or another place as `coracle copy` has it [default: the image's own name]
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let Arguments { image, .. } = &arguments;
    let text = arguments.destination.clone().unwrap_or_else(|| image.clone());
    let failed = |error: image::Error| {
        Error::from(error).doing(format!("cannot push \"{image}\" to \"{text}\""), archive::DIRECTORIES)
    };
    let destination = match text.parse().map_err(failed)? {
        Source::Any(_) => Source::Registry(text.parse::<Reference>().map_err(failed)?.or_latest()),
        other => other,
    };
    let platform = arguments.platform.as_deref().map(engine::options::platform).transpose();
    let which =
        if arguments.all_platforms { Which::All } else { Which::One(platform.map_err(engine::Error::from)?) };
    let plain = if matches!(destination, Source::Registry(_)) { Layers::Plain } else { Layers::Verbatim };
    let options = CopyOptions {
        to: arguments.registry.access(arguments.creds.as_deref())?,
        // How the destination is trusted says nothing of where dropped blobs come from.
        from: Access { logins: arguments.registry.access(None)?.logins, ..Access::default() },
        which,
        recipe: arguments.compression.recipe(plain)?,
        ..CopyOptions::default()
    };
    let store = archive::store(roots)?;
    let (from, to) = (Location::Store(image.clone()), Location::Outside(destination));
    let progress = Arc::clone(&options.progress);
    let copied =
        progress::shown(&progress, arguments.quiet, || store.copy(&from, &to, &options)).map_err(failed)?;
    write_digest(arguments.digestfile.as_ref(), &copied)?;
    if !arguments.quiet {
        write_out(&format!("{text}: digest: {} size: {}\n", copied.digest, copied.size))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a digest where the caller wants it.
pub fn write_digest(file: Option<&PathBuf>, copied: &image::Copied) -> Result<(), Error> {
    let Some(path) = file else { return Ok(()) };
    fs_err::write(path, copied.digest.to_string()).map_err(|error| {
        let cause = format!("it was sent as {}, but {error}", copied.digest);
        let advice = "name a file that this user may write: --digestfile FILE";
        Error::new("cannot write the digest", Some(cause), Some(advice.to_owned()))
    })
}
