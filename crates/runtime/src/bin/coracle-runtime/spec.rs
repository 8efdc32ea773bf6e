//! `spec`: a configuration to begin with.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::arguments::{Flag, Given, option, switch};
use crate::{Failed, Global, Outcome};

pub const FLAGS: &[Flag] = &[
    option("bundle", Some("b"), "DIR", "where to write it [.]"),
    switch("rootless", None, "for a user without rights"),
];

pub fn run(_: &Global, given: &Given) -> Outcome {
    let path = PathBuf::from(given.value("bundle").unwrap_or("")).join("config.json");
    if path.exists() {
        return Err(Failed::new("File config.json exists. Remove it first"));
    }
    let spec = runtime::template::default_spec(given.is_on("rootless"));
    let text = serde_json::to_string_pretty(&spec).map_err(|error| Failed::new(error.to_string()))?;
    fs_err::write(path, text + "\n")?;
    Ok(ExitCode::SUCCESS)
}
