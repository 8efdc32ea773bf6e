use std::process::ExitCode;

use engine::Roots;
use image::{Damage, Verified};

use crate::commands::archive;
use crate::error::Error;
use crate::table;

/// Read every byte of images and compare it with what was fetched
#[derive(Debug, clap::Args)]
#[command(after_help = "Ends with 1 where something is damaged: see coracle system check --repair.")]
pub struct Arguments {
    /// Whole digests
    #[arg(long)]
    no_trunc: bool,
    /// Names or ids [default: all images]
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let verified = archive::store(roots)?
        .verify_images(&arguments.images)
        .map_err(|error| Error::from(error).doing("cannot verify the images", archive::DIRECTORIES))?;
    let mut rows = Vec::new();
    for image in &verified {
        let name = name(image);
        let row = |damage: &Damage| row(&name, damage, arguments.no_trunc);
        rows.extend(image.damage.iter().map(row));
        for digest in &image.dropped {
            eprintln!(
                "blob {} of {name} is not here: a pull of that name fetches it again",
                &digest.hex()[..12]
            );
        }
    }
    if rows.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    table::print(&["IMAGE", "PART", "FILE", "EXPECTED", "FOUND"], &rows)?;
    Ok(ExitCode::FAILURE)
}

fn name(image: &Verified) -> String {
    image.names.first().map_or_else(|| image.id.hex()[..12].to_owned(), ToString::to_string)
}

fn row(image: &str, damage: &Damage, whole: bool) -> Vec<String> {
    let path = damage.path.display().to_string();
    let cut = |text: &str| if whole { text.to_owned() } else { shortened(text) };
    // ROOT/image/layers/KEY/fs/FILE or ROOT/image/blobs/sha256/HEX.
    let (part, file) = match path.rsplit_once("/blobs/sha256/") {
        Some((_, hex)) => (format!("blob {}", cut(hex)), "-".to_owned()),
        None => {
            let inside = path.split_once("/image/layers/").map_or(path.as_str(), |(_, inside)| inside);
            let (key, file) = inside.split_once('/').unwrap_or((inside, ""));
            let digest = key.split('-').next().unwrap_or(key);
            let file = file.strip_prefix("fs").unwrap_or(file);
            (format!("layer {}", cut(digest)), if file.is_empty() { "/".to_owned() } else { file.to_owned() })
        }
    };
    vec![image.to_owned(), part, file, cut(&damage.expected), cut(&damage.found)]
}

/// A text with 12 digits of each digest in it.
fn shortened(text: &str) -> String {
    let word = |word: &str| {
        let digits = word.strip_prefix("sha256:").unwrap_or(word);
        let is_digest = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_digest { digits[..12].to_owned() } else { word.to_owned() }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}
