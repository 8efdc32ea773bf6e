use engine::Roots;
use image::{Digest, LoadOptions, Store};

use crate::error::Error;

/// What to do about a source that cannot be read.
pub const CHECK: &str = "check that the path is right and that this user may read it";

/// What to do about the store's own files where nothing better is known.
pub const DIRECTORIES: &str = "see that this user may use coracle's directories, or name others: --root DIR";

/// What may be said of an archive that is unpacked
#[derive(Debug, clap::Args)]
pub struct Unpacking {
    /// Which platform of a multi-platform image, as os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The most that it may unpack to, in bytes, or with k, m, g [default: 256g]
    #[arg(long, value_name = "SIZE")]
    max_size: Option<String>,
    /// The most files and directories that it may unpack to [default: 4000000]
    #[arg(long, value_name = "COUNT")]
    max_entries: Option<u64>,
}

impl Unpacking {
    /// What was typed, as the store takes it.
    pub fn options(&self) -> Result<LoadOptions, Error> {
        let platform = self.platform.as_deref().map(engine::options::platform).transpose();
        let platform = platform.map_err(engine::Error::from)?;
        let mut options = LoadOptions { platform, ..LoadOptions::default() };
        if let Some(size) = &self.max_size {
            options.limits.bytes = engine::options::bytes("--max-size", size).map_err(engine::Error::from)?;
        }
        options.limits.entries = self.max_entries.unwrap_or(options.limits.entries);
        Ok(options)
    }
}

/// The store of a command that has entered a user namespace where one is needed: see `engine::unshared`.
pub fn store(roots: &Roots) -> Result<Store, Error> {
    Store::open(&roots.persistent)
        .map_err(|error| Error::from(error).doing("cannot use the images that are here", DIRECTORIES))
}

/// Says how an image that came without a name gets one. Standard output is for data.
pub fn advise_a_name(id: &Digest) {
    eprintln!("The image has no name; give it one: coracle tag {} NAME", &id.hex()[..12]);
}
