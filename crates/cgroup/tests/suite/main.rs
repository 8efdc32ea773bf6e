//! Groups on the real kernel: each limit holds, what cannot hold is refused, nothing is left behind.
//!
//! Every test runs on each kind of hierarchy that this machine offers: a hybrid one is also used as if it had version 1 only.
//! Needs root.

mod lifecycle;
mod limits;
mod machine;
mod refusals;
mod runtime;
mod systemd;
