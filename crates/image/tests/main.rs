//! The store against real tools and hostile archives. One binary, so that it is linked once.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    unreachable_pub
)]

#[path = "suite/archives.rs"]
mod archives;
#[path = "suite/forge.rs"]
mod forge;
#[path = "suite/scratch.rs"]
mod scratch;
