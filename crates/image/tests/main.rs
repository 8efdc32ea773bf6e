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
#[path = "suite/crash.rs"]
mod crash;
#[path = "suite/forge.rs"]
mod forge;
#[path = "suite/forms.rs"]
mod forms;
#[path = "suite/hostile.rs"]
mod hostile;
#[path = "suite/layers.rs"]
mod layers;
#[path = "suite/listing.rs"]
mod listing;
#[path = "suite/mutations.rs"]
mod mutations;
#[path = "suite/peers.rs"]
mod peers;
#[path = "suite/scratch.rs"]
mod scratch;
#[path = "suite/store.rs"]
mod store;
