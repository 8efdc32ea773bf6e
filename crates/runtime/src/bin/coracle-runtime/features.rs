//! `features`: what this runtime can do.

use std::process::ExitCode;

use crate::arguments::Given;
use crate::{Failed, Global, Outcome};

pub fn run(_: &Global, _: &Given) -> Outcome {
    let features = runtime::features::features();
    println!("{}", serde_json::to_string_pretty(&features).map_err(|error| Failed::new(error.to_string()))?);
    Ok(ExitCode::SUCCESS)
}
