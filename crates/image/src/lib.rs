//! Images: an archive in, read-only layers out, which overlayfs merges to a root file system.
//!
//! It reads OCI layouts and docker archives, verifies every byte, unpacks layers in parallel and keeps all of it in a
//! [`Store`]. It fetches images from registries too. It runs nothing and mounts nothing.
//!
//! ```no_run
//! # fn main() -> image::Result<()> {
//! let store = image::Store::open("/var/lib/coracle".as_ref())?;
//! let source = "oci-archive:/tmp/busybox.tar".parse()?;
//! let loaded = store.load(&source, &image::LoadOptions::default())?;
//! let image = store.resolve(&loaded[0].id.to_string(), None)?;
//! println!("{:?}", image.layers);
//! # Ok(())
//! # }
//! ```

mod anatomy;
mod catalog;
mod changes;
mod check;
mod commit;
mod compress;
mod copy;
mod destination;
mod digest;
mod durable;
mod error;
mod form;
mod freight;
mod garbage;
mod history;
mod host;
mod import;
mod inventory;
mod listing;
mod load;
mod lower;
mod merged;
mod oci;
mod plan;
mod progress;
mod prune;
mod recipe;
mod reference;
mod registry;
mod repair;
mod source;
mod staging;
mod store;
mod stream;
mod survey;
mod tar;
mod tree;
mod unpack;
mod usage;
mod verify;
mod xattr;

pub use anatomy::{Branch, LayerAnatomy};
pub use catalog::{Graft, Image, Inspection, Removed, Summary};
pub use changes::{Change, ChangeKind, Changes, Owner};
pub use check::{Flaw, Part};
pub use commit::Commit;
pub use compress::Algorithm;
pub use copy::{Copied, CopyOptions, Location, Which};
pub use digest::Digest;
pub use error::{Error, Result};
pub use form::Ownership;
pub use history::{LayerSize, Step};
pub use load::{LoadOptions, Loaded};
pub use oci::{Config, Descriptor, Empty, Healthcheck, ImageConfig, Platform, RootFs};
pub use progress::{LayerProgress, Progress, Stage};
pub use prune::{Prune, Pruned, Wanted};
pub use recipe::{Layers, ManifestForm, Recipe};
pub use reference::{Reference, fuzz_reference};
pub use registry::{Access, AuthFiles, Credentials, Fault, login, registry_of};
pub use repair::{Mended, Repair};
pub use source::Source;
pub use store::{Hold, RootDirectory, Store};
pub use stream::Limits;
pub use survey::{ImageUsage, Share, Survey};
pub use tar::{Error as TarError, Fault as TarFault, fuzz_archive};
pub use usage::DiskUsage;
pub use verify::{Damage, Verified};
