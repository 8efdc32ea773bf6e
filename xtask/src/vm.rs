//! The virtual machine with the oldest promised kernel. It comes with the next change; until then `test` says so.
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::workspace::Workspace;
pub(crate) fn test(_: &Workspace, _: bool, _: Option<&str>) -> Result<Outcome> {
    Err(Error::Missing { what: "the virtual machine is not there yet".into(), remedy: String::new() })
}
