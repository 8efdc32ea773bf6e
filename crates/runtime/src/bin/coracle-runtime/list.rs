//! `list`: the containers below a root.

use std::process::ExitCode;

use runtime::container::Container;

use crate::arguments::{Flag, Given, option, switch};
use crate::state::{Described, describe};
use crate::{Failed, Global, Outcome};

pub const FLAGS: &[Flag] = &[
    option("format", Some("f"), "FORMAT", "table or json [table]"),
    switch("quiet", Some("q"), "only the ids"),
];

pub fn run(global: &Global, given: &Given) -> Outcome {
    let containers = Container::all(&global.root)?;
    if given.is_on("quiet") {
        containers.iter().for_each(|container| println!("{}", container.record.request.id));
        return Ok(ExitCode::SUCCESS);
    }
    let states = containers.iter().map(describe).collect::<Result<Vec<_>, _>>()?;
    match given.value("format").unwrap_or("table") {
        "json" => {
            println!("{}", serde_json::to_string(&states).map_err(|error| Failed::new(error.to_string()))?)
        }
        "table" => print_table(&states),
        _ => return Err(Failed::new("invalid format option")),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_table(states: &[Described]) {
    let heads = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let cells = |state: &Described| {
        let (pid, status) = (state.pid.to_string(), state.status.name().to_owned());
        let bundle = state.bundle.display().to_string();
        [state.id.clone(), pid, status, bundle, state.created.clone(), state.owner.clone()]
    };
    let rows: Vec<[String; 6]> = std::iter::once(heads).chain(states.iter().map(cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("   ").trim_end());
    }
}
