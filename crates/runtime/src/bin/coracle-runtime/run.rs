//! `run`: `create` and `start` in one, then waiting for the end.

use std::process::ExitCode;

use runtime::own_file;

use crate::arguments::{Flag, Given, switch};
use crate::relay::Relay;
use crate::{Failed, Global, Outcome, create, delete, start};

/// Those of `create`, and what is said about waiting.
pub const FLAGS: &[Flag] = &[
    create::BUNDLE,
    create::CONSOLE_SOCKET,
    DETACH,
    switch("keep", None, "do not delete the container when it has ended"),
    create::PID_FILE,
    NO_SUBREAPER,
    create::NO_PIVOT,
    create::NO_NEW_KEYRING,
    create::PRESERVE_FDS,
];
pub const DETACH: Flag = switch("detach", Some("d"), "do not wait for the container's end");
pub const NO_SUBREAPER: Flag =
    switch("no-subreaper", None, "leave orphans of the container to the machine's first process");

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
