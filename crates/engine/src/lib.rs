//! The life of containers: what docker's users call a container, made of images, limits and the runtime.
//!
//! Prints nothing and parses no command line.

pub mod anatomy;
mod apparmor;
mod attach;
pub mod cdi;
pub mod changes;
pub mod check;
pub mod container;
mod error;
pub mod mounted;
mod names;
mod oci;
pub mod options;
mod roots;
mod run;
mod spawn;
pub mod spec;
pub mod unshared;
pub mod usage;

pub use attach::{Outcome, UserSide};
pub use error::{Error, Result};
pub use roots::Roots;
pub use run::run;
