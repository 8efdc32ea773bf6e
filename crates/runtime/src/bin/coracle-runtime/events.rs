//! `events`: what a container uses.

use crate::arguments::{Flag, Given, option, switch};
use crate::{Failed, Global, Outcome};

pub const FLAGS: &[Flag] =
    &[option("interval", None, "DURATION", "how often [5s]"), switch("stats", None, "once")];

pub fn run(_global: &Global, _given: &Given) -> Outcome {
    Err(Failed::new("not yet"))
}
