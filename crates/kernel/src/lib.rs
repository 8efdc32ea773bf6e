//! Safe, thin, recorded system calls: the only crate with `unsafe`.
//!
//! Every act that changes the machine (a mount, `clone3`, a write to a control group, `execve`) is one
//! function here. It makes the call, and when recording is on ([`record`]) it also notes the call, its
//! arguments in words, its result and its time, so that `run --explain` cannot say anything but what
//! was done.
//!
//! This crate knows no container: a function here takes what the system call takes, with owned
//! descriptors and flags that cannot be mixed up. Calls that only look (`stat`, `read`) go through `rustix`
//! or `fs-err` directly and are not wrapped.

pub mod bpf;
pub mod entry;
mod error;
pub mod file;
pub mod fs;
pub mod identity;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod process;
mod raw;
pub mod record;
pub mod scheduling;
pub mod seccomp;
pub mod signal;
pub mod socket;

pub use error::{Error, Result};
pub use rustix::io::Errno;
