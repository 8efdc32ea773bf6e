//! `list`: the containers below a root.

use std::process::ExitCode;

use runtime::container::Container;

use crate::arguments::{Flag, Given, option, switch};
use crate::state::describe;
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
        "json" => println!("{}", serde_json::Value::from(states)),
        "table" => print_table(&states),
        _ => return Err(Failed::new("invalid format option (use table or json)")),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_table(states: &[serde_json::Value]) {
    const COLUMNS: [(&str, &str); 6] = [
        ("ID", "id"),
        ("PID", "pid"),
        ("STATUS", "status"),
        ("BUNDLE", "bundle"),
        ("CREATED", "created"),
        ("OWNER", "owner"),
    ];
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let heads = COLUMNS.map(|(head, _)| head.to_owned()).to_vec();
    let rows = states.iter().map(|state| COLUMNS.map(|(_, field)| text(&state[field])).to_vec());
    let rows: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("   ").trim_end());
    }
}
