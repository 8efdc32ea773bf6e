//! One file for each verb: its arguments, and the thin way from them to the engine.

pub mod kill;
pub mod load;
pub mod ps;
pub mod rm;
pub mod run;
