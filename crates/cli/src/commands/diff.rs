use std::process::ExitCode;

use engine::Roots;
use image::{Change, ChangeKind};

use crate::commands::archive;
use crate::error::Error;
use crate::table::write_out;

/// Show what a container has added (A), changed (C) and deleted (D)
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// json for an object with three lists; otherwise a line for each file
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    format: Option<String>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let store = archive::store(roots)?;
    let changes = engine::changes::diff(roots, &store, &arguments.container).map_err(|error| {
        Error::from(error)
            .doing(format!("cannot compare \"{}\" with its image", arguments.container), archive::DIRECTORIES)
    })?;
    print(&changes, arguments.format.is_some())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints changes as docker does, or as podman's JSON.
pub fn print(changes: &[Change], json: bool) -> Result<(), Error> {
    if json {
        let of = |kind: ChangeKind| -> Vec<String> {
            changes
                .iter()
                .filter(|change| change.kind == kind)
                .map(|change| change.path.display().to_string())
                .collect()
        };
        let mut value = serde_json::Map::new();
        for (key, kind) in
            [("changed", ChangeKind::Changed), ("added", ChangeKind::Added), ("deleted", ChangeKind::Deleted)]
        {
            value.insert(key.to_owned(), of(kind).into());
        }
        return write_out(&format!("{}\n", serde_json::Value::Object(value)));
    }
    let line = |change: &Change| {
        let letter = match change.kind {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        };
        let path = change.path.display().to_string();
        let path: String = path.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        format!("{letter} {path}\n")
    };
    write_out(&changes.iter().map(line).collect::<String>())
}
