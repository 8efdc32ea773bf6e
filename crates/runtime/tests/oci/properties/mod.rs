//! One test for each property of the runtime specification: set, and then observed where it has its effect.

mod hooks;
mod kernel_views;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod rest;
mod root;
mod seccomp;
