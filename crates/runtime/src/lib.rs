//! The OCI runtime: an OCI configuration in, a process out.
//!
//! Synchronous and single-threaded up to the container's `execve`. Knows no image, no network, no database.

pub mod request;
pub mod seccomp;
pub mod spec;
