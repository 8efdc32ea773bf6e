//! The runtime under those who call it elsewhere: podman, containerd, its CRI plugin, dockerd and its swarm.
//!
//! Each test has a caller of its own with roots of its own, in a place (`place.rs`) that takes everything with it when it goes. The runtime is
//! `coracle-runtime`, or what `NEIGHBOUR_RUNTIME` names: these tests pass on runc too.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    unreachable_pub
)]

mod containerd;
mod cri;
mod docker;
mod place;
mod podman;
mod protobuf;
mod rootless;
