//! The benchmarks. They come with the next change; until then `bench` says so.
use crate::error::{Error, Result};
use crate::workspace::Workspace;
pub(crate) fn bench(_: &Workspace, _: bool, _: Option<&str>) -> Result<()> {
    Err(Error::Missing { what: "the benchmarks are not there yet".into(), remedy: String::new() })
}
