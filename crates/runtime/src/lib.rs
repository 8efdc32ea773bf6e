//! The OCI runtime: an OCI configuration in, a process out.
//!
//! Synchronous and single-threaded up to the container's `execve`. Knows no image, no network, no database.

mod capability;
mod cgroup_view;
mod child;
mod device;
mod error;
pub mod group;
mod launch;
mod limits;
pub mod message;
pub mod monitor;
mod mount_options;
mod namespaces;
mod overlay;
mod privilege;
mod program;
pub mod reaper;
pub mod remains;
pub mod request;
mod root;
pub mod seccomp;
pub mod spec;
pub mod state;
mod terminal;
mod user;

pub use capability::CAPABILITIES;
pub use error::{Error, Failure, Result};
pub use launch::{Running, Streams, launch, map_by_helpers};
