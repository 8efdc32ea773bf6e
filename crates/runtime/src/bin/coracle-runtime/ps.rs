//! `ps`: the processes of a container.

use std::process::ExitCode;

use runtime::container::Container;
use runtime::{Error, helper};

use crate::arguments::{Flag, Given, option};
use crate::{Failed, Global, Outcome};

pub const FLAGS: &[Flag] = &[option("format", Some("f"), "FORMAT", "table or json [table]")];

pub fn run(global: &Global, given: &Given) -> Outcome {
    let container = Container::open(&global.root, &given.operands[0])?;
    let pids = match container.group()? {
        Some(group) => group.processes().map_err(Error::from)?,
        None => vec![container.pid()].into_iter().filter(|pid| *pid != 0).collect(),
    };
    match given.value("format").unwrap_or("table") {
        "json" => println!("{}", serde_json::json!(pids)),
        "table" => print_table(&pids, &given.operands[1..])?,
        _ => return Err(Failed::new("invalid format option")),
    }
    Ok(ExitCode::SUCCESS)
}

/// The lines of ps(1) that are about these processes.
fn print_table(pids: &[u32], options: &[String]) -> Result<(), Failed> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default[..] } else { options };
    let text = helper::output("ps", options).map_err(|error| {
        Failed::new(format!("cannot show the processes: {error} (install procps, or use --format json)"))
    })?;
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let Some(column) = head.split_whitespace().position(|name| name == "PID") else {
        return Err(Failed::new("ps shows no column PID with these options"));
    };
    println!("{head}");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            println!("{line}");
        }
    }
    Ok(())
}
