use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use engine::Roots;
use image::{Digest, Prune, Pruned, Removed};

use crate::commands::archive;
use crate::confirm;
use crate::error::Error;
use crate::filter::Filters;
use crate::table::{self, write_out};

/// Remove images that no container uses
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Those with names too, not only those without
    #[arg(short, long)]
    all: bool,
    /// Ask no question
    #[arg(short, long)]
    force: bool,
    /// Drop the compressed blobs of all images that came from a registry too: they run on, and a pull of the name fetches what was dropped
    #[arg(long)]
    blobs: bool,
    /// Only those that fit: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
}

/// The filters of what is pruned.
pub const FILTERS: [&str; 3] = ["until", "label", "label!"];

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let filters = Filters::parse(&arguments.filters, &FILTERS)?;
    if !arguments.force {
        let mut warning = match arguments.all {
            true => "This will remove all images without at least one container associated to them.",
            false => "This will remove all dangling images.",
        }
        .to_owned();
        if arguments.blobs {
            warning.push_str(" It drops all compressed blobs that can be fetched again.");
        }
        confirm::ask(&warning)?;
    }
    let pruned = prune(roots, arguments.all, arguments.blobs, &filters)?;
    print(&pruned)?;
    write_out(&format!("Total reclaimed space: {}\n", table::size(pruned.reclaimed)))?;
    Ok(ExitCode::SUCCESS)
}

/// Removes images; `filters` have the names in [`FILTERS`].
pub fn prune(roots: &Roots, named: bool, blobs: bool, filters: &Filters) -> Result<Pruned, Error> {
    let until = filters.until(runtime::state::now())?;
    let wanted = |created: Option<&str>, labels: &BTreeMap<String, String>| {
        Filters::accepts_created(until, created) && filters.accepts_labels(labels)
    };
    let in_use = || -> Result<BTreeSet<Digest>, engine::Error> {
        let ids = engine::container::images_in_use(roots)?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    };
    let pruned = archive::store(roots)?.prune(&Prune { named, wanted: &wanted, blobs }, in_use);
    pruned.map_err(|error| Error::from(error).doing("cannot remove the images", archive::DIRECTORIES))
}

/// Prints what went, as docker does.
pub fn print(pruned: &Pruned) -> Result<(), Error> {
    let mut out = String::new();
    if !pruned.removed.is_empty() {
        out.push_str("Deleted Images:\n");
        for removed in &pruned.removed {
            match removed {
                Removed::Untagged(name) => out.push_str(&format!("untagged: {name}\n")),
                Removed::Deleted(id) => out.push_str(&format!("deleted: {id}\n")),
            }
        }
        out.push('\n');
    }
    if !pruned.blobs.is_empty() {
        out.push_str("Dropped Blobs:\n");
        pruned.blobs.iter().for_each(|digest| out.push_str(&format!("{digest}\n")));
        out.push('\n');
    }
    write_out(&out)
}
