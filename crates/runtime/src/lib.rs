//! The OCI runtime: an OCI configuration in, a process out.
//!
//! Synchronous and single-threaded up to the container's `execve`. Knows no image, no network, no database.

mod bind;
pub mod bundle;
mod capability;
mod cgroup_view;
pub mod checkpoint;
mod child;
pub mod config;
pub mod container;
mod copy_up;
mod device;
mod error;
mod exec;
pub mod features;
pub mod group;
pub mod helper;
mod hidden;
pub mod hooks;
mod idmap;
pub mod intel_rdt;
mod labels;
mod launch;
pub mod limits;
mod memory_policy;
pub mod message;
pub mod monitor;
mod mount_options;
mod namespaces;
mod net_devices;
mod number_list;
mod overlay;
pub mod own_file;
mod private_proc;
mod privilege;
mod program;
pub mod reaper;
pub mod remains;
pub mod request;
mod root;
mod scheduling;
pub mod seccomp;
pub mod spec;
pub mod state;
mod streams;
pub mod template;
mod terminal;
mod user;
mod working_directory;

pub use capability::CAPABILITIES;
pub use error::{Error, Failure, Result};
pub use exec::{Exec, Executed, exec};
pub use launch::{Job, Running, launch, map_by_helpers};
pub use streams::Streams;
