//! Taking away what nobody uses, and compressed blobs that a registry has too.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::Removed;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Document, ManifestOrIndex};
use crate::staging::{self, Staging};
use crate::store::{ImageRecord, ReferenceRecord, Store, remove_if_there};
use crate::usage::DiskUsage;

/// Whether an image may go of which this is when it was made, as it says, and its labels.
pub type Wanted<'a> = dyn Fn(Option<&str>, &BTreeMap<String, String>) -> bool + 'a;

/// Which images [`Store::prune`] takes away.
pub struct Prune<'a> {
    /// Those with names too.
    pub named: bool,
    /// Those that may go.
    pub wanted: &'a Wanted<'a>,
    /// Drop the compressed blobs of those that stay too, if a registry is known to have them.
    pub blobs: bool,
}

/// What [`Store::prune`] took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names and images.
    pub removed: Vec<Removed>,
    /// Compressed blobs that can be fetched again.
    pub blobs: Vec<Digest>,
    /// Bytes of the disk that are free now.
    pub reclaimed: u64,
}

impl Store {
    /// Takes images away that no container uses. `in_use` is asked for the ids of those that are used when no container can begin to
    /// use another one.
    pub fn prune<E: From<Error>>(
        &self,
        prune: &Prune<'_>,
        in_use: impl FnOnce() -> std::result::Result<BTreeSet<Digest>, E>,
    ) -> std::result::Result<Pruned, E> {
        let mut answer = None;
        let pruned = self.staged(|staging| {
            let _alone = self.hold_alone()?;
            let _commit = self.commit_lock()?;
            match in_use() {
                Ok(in_use) => self.prune_alone(prune, &in_use, staging),
                Err(error) => {
                    answer = Some(error);
                    Ok(Pruned::default())
                }
            }
        })?;
        answer.map_or(Ok(pruned), Err)
    }

    fn prune_alone(&self, prune: &Prune<'_>, in_use: &BTreeSet<Digest>, staging: &Staging) -> Result<Pruned> {
        let names = self.reference_records()?;
        let named: BTreeSet<Digest> =
            names.iter().flat_map(|name| name.images.iter().map(|image| image.id)).collect();
        let mut gone = BTreeSet::new();
        for record in self.image_records()? {
            let may_go = !in_use.contains(&record.id) && (prune.named || !named.contains(&record.id));
            if may_go && (prune.wanted)(record.created.as_deref(), &self.labels(record.id)?) {
                gone.insert(record.id);
            }
        }
        // A name goes as a whole or not at all.
        let goes =
            |name: &&ReferenceRecord| prune.named && name.images.iter().all(|image| gone.contains(&image.id));
        let (untag, kept): (Vec<&ReferenceRecord>, Vec<&ReferenceRecord>) = names.iter().partition(goes);
        for image in kept.iter().flat_map(|name| &name.images) {
            gone.remove(&image.id);
        }
        let mut pruned = Pruned { removed: self.forget(&untag, &gone, Some(staging))?, ..Pruned::default() };
        let (layers, blobs) = self.unused()?;
        let mut usage = DiskUsage::default();
        for key in &layers {
            pruned.reclaimed += usage.of(&self.layer_path(key))?;
        }
        for name in &blobs {
            pruned.reclaimed += usage.of(&self.root.join("blobs/sha256").join(name))?;
        }
        self.collect_garbage(Some(staging))?;
        self.prune_host(in_use)?;
        if prune.blobs {
            let pins = staging::pins(self)?;
            for digest in self.fetchable_blobs(&self.image_records()?) {
                let path = self.blob_path(digest);
                let is_needed = pins.iter().any(|pins| pins.names.contains(&digest.hex()));
                if path.exists() && !is_needed {
                    pruned.reclaimed += usage.of(&path)?;
                    remove_if_there(&path)?;
                    pruned.blobs.push(digest);
                }
            }
        }
        self.write_index()?;
        Ok(pruned)
    }

    /// The layers' blobs that can be fetched again: those of images that came from a registry, unless one that did not has them too.
    pub(crate) fn fetchable_blobs(&self, records: &[ImageRecord]) -> BTreeSet<Digest> {
        let (mut fetchable, mut others) = (BTreeSet::new(), BTreeSet::new());
        for record in records {
            // A damaged manifest is for `system check`.
            let Ok(layers) = self.layer_descriptors(record) else { continue };
            for (at, layer) in layers.into_iter().enumerate() {
                let set = if record.is_fetchable(at) { &mut fetchable } else { &mut others };
                set.insert(layer.digest);
            }
        }
        &fetchable - &others
    }

    /// What the manifest of an image says of its layers, bottom first.
    pub(crate) fn layer_descriptors(&self, record: &ImageRecord) -> Result<Vec<Descriptor>> {
        let path = self.blob_path(record.manifest.digest);
        let bytes = fs_err::read(&path)?;
        let bad = |error: serde_json::Error| Error::BadRecord { path, reason: error.to_string() };
        let document: ManifestOrIndex = serde_json::from_slice(&bytes).map_err(bad)?;
        match document.document(record.manifest.digest)? {
            Document::Manifest { layers, .. } => Ok(layers),
            Document::Index(_) => {
                let digest = record.manifest.digest;
                Err(Error::BadManifest { digest, reason: "it is an index" })
            }
        }
    }
}

impl ImageRecord {
    /// Whether the blob of the layer at this place, from the bottom, can be fetched from a registry.
    pub(crate) fn is_fetchable(&self, at: usize) -> bool {
        !self.origin.repositories.is_empty() && at < self.origin.layers
    }
}
