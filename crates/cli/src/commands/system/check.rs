use std::process::ExitCode;
use std::sync::Arc;

use engine::Roots;
use image::{Flaw, Progress, Repair};

use crate::commands::archive;
use crate::commands::login::Registry;
use crate::error::Error;
use crate::progress;
use crate::table::write_out;

/// Look over all that is kept: images, layers, blobs, names, containers
#[derive(Debug, clap::Args)]
#[command(after_help = "Ends with 1 where something is left that is not as it should be.")]
pub struct Arguments {
    /// Mend what can be mended: a bad layer is unpacked again from its blob, or fetched anew, and nothing else is touched
    #[arg(long)]
    repair: bool,
    /// Say nothing of how far it is
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: Registry,
}

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let failed = |error: Error| error.doing("cannot look over the store", archive::DIRECTORIES);
    let access = arguments.registry.access(None)?;
    let store = archive::store(roots)?;
    let mut is_left = false;
    let mut lines = String::new();
    if arguments.repair {
        // By the layer's key: the directory may be called by another path. What cannot be known is not touched.
        let in_use = |layer: &std::path::Path| {
            let is_it = |path: &std::path::PathBuf| {
                path.parent().and_then(|above| above.file_name()) == layer.file_name()
            };
            engine::check::mounted_layers(roots, &store).map_or(true, |mounted| mounted.iter().any(is_it))
        };
        let fetching = Arc::new(Progress::default());
        let repair = Repair { access: &access, in_use: &in_use, progress: &fetching };
        let mended = progress::shown(&fetching, arguments.quiet, || store.repair(&repair));
        for (flaw, outcome) in mended.map_err(|error| failed(error.into()))? {
            match outcome {
                Ok(how) => lines.push_str(&format!("{}: {how}\n", told(&flaw))),
                Err(why) => {
                    is_left = true;
                    lines.push_str(&format!("{}: not repaired: {why}\n", told(&flaw)));
                }
            }
        }
    } else {
        for flaw in store.check().map_err(|error| failed(error.into()))? {
            is_left = true;
            lines.push_str(&format!("{}\n", told(&flaw)));
        }
    }
    let containers = engine::check::check(roots, &store, arguments.repair);
    for flaw in containers.map_err(|error| failed(error.into()))? {
        is_left |= !flaw.is_mended;
        let end = match (flaw.is_mended, arguments.repair) {
            (true, _) => ": removed",
            (false, true) => ": not repaired",
            (false, false) => "",
        };
        lines.push_str(&format!("{}: {}{end}\n", flaw.object, flaw.problem));
    }
    write_out(&lines)?;
    Ok(if is_left { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn told(flaw: &Flaw) -> String {
    let images = match &flaw.images[..] {
        [] => String::new(),
        images => format!(" (of {})", images.join(", ")),
    };
    let text = format!("{}{images}: {}", flaw.part, flaw.problem);
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
