use std::process::ExitCode;

use engine::Roots;
use engine::container::Container;

use crate::commands::archive;
use crate::commands::image::prune::{FILTERS, print, prune};
use crate::confirm;
use crate::error::Error;
use crate::filter::Filters;
use crate::table::{self, write_out};

/// Remove containers that have ended, images that no container uses, and blobs that came only in part
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Images with names too, not only those without
    #[arg(short, long)]
    all: bool,
    /// Ask no question
    #[arg(short, long)]
    force: bool,
    /// Only containers and images that fit: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
}

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let filters = Filters::parse(&arguments.filters, &FILTERS)?;
    if !arguments.force {
        let images = match arguments.all {
            true => "all images without at least one container associated to them",
            false => "all dangling images",
        };
        confirm::ask(&format!(
            "This will remove:\n  - all containers that have ended\n  - {images}\n  - blobs that came only in part\n"
        ))?;
    }
    let until = filters.until(runtime::state::now())?;
    let wanted = |container: &Container| {
        let labels = container.record.labels.iter().cloned().collect();
        until.is_none_or(|until| container.record.created < until) && filters.accepts_labels(&labels)
    };
    let (ids, of_containers) = engine::usage::prune(roots, wanted).map_err(|error| {
        Error::from(error).doing("cannot remove the containers", "see all containers: coracle ps -a")
    })?;
    if !ids.is_empty() {
        let ids: String = ids.iter().map(|id| format!("{id}\n")).collect();
        write_out(&format!("Deleted Containers:\n{ids}\n"))?;
    }
    let pruned = prune(roots, arguments.all, false, &filters)?;
    print(&pruned)?;
    let partial = archive::store(roots)?.prune_partial().map_err(|error| {
        Error::from(error).doing("cannot remove the blobs that came only in part", archive::DIRECTORIES)
    })?;
    if partial.count > 0 {
        write_out(&format!("Deleted partial blobs: {}\n\n", partial.count))?;
    }
    let total = of_containers + pruned.reclaimed + partial.bytes;
    write_out(&format!("Total reclaimed space: {}\n", table::size(total)))?;
    Ok(ExitCode::SUCCESS)
}
