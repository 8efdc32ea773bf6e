//! `run`: `create` and `start` in one, then waiting for the end.

use std::process::ExitCode;

use runtime::own_file;

use crate::arguments::{Flag, Given, option, switch};
use crate::relay::Relay;
use crate::{Failed, Global, Outcome, create, delete, start};

pub const FLAGS: &[Flag] = &[
    option("bundle", Some("b"), "DIR", "the bundle: a directory with config.json and a root file system [.]"),
    option(
        "console-socket",
        None,
        "PATH",
        "a UNIX socket that gets the other end of the container's terminal",
    ),
    switch("detach", Some("d"), "do not wait for the container's end"),
    switch("keep", None, "do not delete the container when it has ended"),
    option("pid-file", None, "FILE", "write the first process's number there"),
    switch("no-subreaper", None, "leave orphans of the container to the machine's first process"),
    switch(
        "no-pivot",
        None,
        "move the root instead of pivoting to it, where this machine runs from its initial file system",
    ),
    switch("no-new-keyring", None, "keep the caller's session keyring"),
    option("preserve-fds", None, "N", "pass that many descriptors after the standard ones on [0]"),
];

pub fn run(global: &Global, given: &Given) -> Outcome {
    own_file::protect(&global.arguments)?;
    let failed = |failed: Failed| failed.before("coracle-runtime run failed: ");
    let detached = given.is_on("detach");
    let relay = match detached {
        true => None,
        false => Some(Relay::begin(!given.is_on("no-subreaper"))?),
    };
    let (container, mut running) = create::make(global, given, false).map_err(failed)?;
    if let Err(hook) = start::run_hooks(&container) {
        // The first failure is the one to tell.
        let _ = delete::destroy(global, &container.directory, Some(&container));
        return Err(failed(hook));
    }
    let Some(relay) = relay else { return Ok(ExitCode::SUCCESS) };
    let ended = relay.until_end(&running.child, running.terminal.take());
    if !given.is_on("keep") {
        delete::destroy(global, &container.directory, Some(&container))?;
    }
    let code = ended?;
    Ok(ExitCode::from(code as u8))
}
