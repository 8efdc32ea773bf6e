use std::process::ExitCode;

use engine::Roots;
use engine::container::{Container, Status, short};

use crate::error::Error;
use crate::table;

/// List containers
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Those that have ended too
    #[arg(short, long)]
    all: bool,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let mut containers = engine::container::list(roots)?;
    containers.retain(|container| arguments.all || matches!(container.status, Status::Running(_)));
    let id = |container: &Container| match arguments.no_trunc {
        true => container.record.id.clone(),
        false => short(&container.record.id).to_owned(),
    };
    if arguments.quiet {
        let ids: String = containers.iter().map(|container| format!("{}\n", id(container))).collect();
        table::write_out(&ids)?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = runtime::state::now();
    let row = |container: &Container| {
        let record = &container.record;
        vec![
            id(container),
            record.image.clone(),
            command(&record.command, arguments.no_trunc),
            table::ago(now.saturating_sub(record.created)),
            status(&container.status, now),
            record.name.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = containers.iter().map(row).collect();
    table::print(&["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// The command in quotes, at most 20 characters of it.
fn command(command: &[String], whole: bool) -> String {
    let text = command.join(" ").replace(['\n', '\t'], " ");
    if whole || text.chars().count() <= 20 {
        return format!("\"{text}\"");
    }
    format!("\"{}…\"", text.chars().take(19).collect::<String>())
}

fn status(status: &Status, now: u64) -> String {
    match status {
        Status::Starting => "Starting".to_owned(),
        Status::Running(state) => {
            format!("Up {}", table::ago(now.saturating_sub(state.started)).replace(" ago", ""))
        }
        Status::Ended(exit) => {
            let memory = if exit.out_of_memory { ", out of memory" } else { "" };
            format!("Exited ({}{memory}) {}", exit.code, table::ago(now.saturating_sub(exit.ended)))
        }
        Status::Lost => "Exited (unknown: its monitor was killed)".to_owned(),
    }
}
