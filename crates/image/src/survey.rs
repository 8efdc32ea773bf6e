//! What the store takes of the disk, part by part.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::digest::Digest;
use crate::error::Result;
use crate::reference::Reference;
use crate::store::Store;
use crate::usage::DiskUsage;

/// A number of things and the bytes of the disk that they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// How many.
    pub count: usize,
    /// How much of the disk.
    pub bytes: u64,
}

/// The store's parts.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// All images, sorted by name.
    pub images: Vec<ImageUsage>,
    /// Unpacked layers.
    pub layers: Share,
    /// Of these, what only images have that no container uses.
    pub unused_layers: Share,
    /// Compressed layers and documents.
    pub blobs: Share,
    /// Of these, what can be fetched again, and what only images have that no container uses.
    pub unused_blobs: Share,
    /// Blobs that are not whole yet.
    pub partial: Share,
    /// What is being loaded just now.
    pub staging: Share,
}

/// What an image takes.
#[derive(Debug, Clone)]
pub struct ImageUsage {
    /// Its id.
    pub id: Digest,
    /// Its names.
    pub names: Vec<Reference>,
    /// When it was made, as it says.
    pub created: Option<String>,
    /// Its unpacked layers that other images have too.
    pub shared: u64,
    /// Its other unpacked layers.
    pub unique: u64,
    /// Its blobs that are here.
    pub blobs: u64,
}

impl Store {
    /// Measures everything. `in_use` are the ids of images that containers use.
    pub fn survey(&self, in_use: &BTreeSet<Digest>) -> Result<Survey> {
        let _hold = self.hold()?;
        let mut usage = DiskUsage::default();
        let mut survey = Survey::default();
        let records = self.image_records()?;
        let fetchable = self.fetchable_blobs(&records);
        let (mut layer_users, mut blob_users) = (BTreeMap::new(), BTreeMap::new());
        let mut needed = Vec::new();
        for record in &records {
            for key in record.layers.iter().collect::<BTreeSet<_>>() {
                layer_users.entry(key.clone()).or_insert_with(Vec::new).push(record.id);
            }
            let mut blobs = BTreeSet::from([record.id]);
            self.mark(&record.manifest, &mut blobs, 0);
            for digest in &blobs {
                blob_users.entry(digest.hex()).or_insert_with(Vec::new).push(record.id);
            }
            needed.push(blobs);
        }
        let is_used = |users: Option<&Vec<Digest>>| users.into_iter().flatten().any(|id| in_use.contains(id));
        let (mut layer_bytes, mut blob_bytes) = (BTreeMap::new(), BTreeMap::new());
        for (name, bytes) in self.measured("layers", &mut usage)? {
            survey.layers.add(bytes);
            if !is_used(layer_users.get(&name)) {
                survey.unused_layers.add(bytes);
            }
            layer_bytes.insert(name, bytes);
        }
        for (name, bytes) in self.measured("blobs/sha256", &mut usage)? {
            survey.blobs.add(bytes);
            let is_fetchable = Digest::from_hex(&name).is_some_and(|digest| fetchable.contains(&digest));
            if is_fetchable || !is_used(blob_users.get(&name)) {
                survey.unused_blobs.add(bytes);
            }
            blob_bytes.insert(name, bytes);
        }
        for (_, bytes) in self.measured("partial", &mut usage)? {
            survey.partial.add(bytes);
        }
        for (_, bytes) in self.measured("staging", &mut usage)? {
            survey.staging.add(bytes);
        }
        let names = self.reference_records()?;
        for (record, blobs) in records.into_iter().zip(needed) {
            let has =
                |id: Digest| names.iter().filter(move |name| name.images.iter().any(|image| image.id == id));
            let mut image = ImageUsage {
                id: record.id,
                names: has(record.id).map(|name| name.reference.parse()).collect::<Result<_>>()?,
                created: record.created,
                shared: 0,
                unique: 0,
                blobs: blobs.iter().filter_map(|digest| blob_bytes.get(&digest.hex())).sum(),
            };
            for key in record.layers.iter().collect::<BTreeSet<_>>() {
                let bytes = layer_bytes.get(key).copied().unwrap_or(0);
                let is_shared = layer_users.get(key).is_some_and(|users| users.len() > 1);
                *(if is_shared { &mut image.shared } else { &mut image.unique }) += bytes;
            }
            survey.images.push(image);
        }
        survey.images.sort_by(|one, other| {
            (one.names.is_empty(), &one.names).cmp(&(other.names.is_empty(), &other.names))
        });
        Ok(survey)
    }

    /// What is in one of the store's directories, and how much of the disk each takes.
    fn measured(&self, directory: &str, usage: &mut DiskUsage) -> Result<Vec<(String, u64)>> {
        let path = self.root.join(directory);
        let entries = match fs_err::read_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry?;
            all.push((entry.file_name().to_string_lossy().into_owned(), usage.of(&entry.path())?));
        }
        Ok(all)
    }

    /// Removes the blobs that came only in part and that nobody fetches now, and gives how many they were and what they took.
    pub fn prune_partial(&self) -> Result<Share> {
        let before = self.measured("partial", &mut DiskUsage::default())?;
        self.forget_partials(std::time::Duration::ZERO)?;
        let mut gone = Share::default();
        for (name, bytes) in before {
            if !Path::new(&self.root).join("partial").join(name).exists() {
                gone.add(bytes);
            }
        }
        Ok(gone)
    }
}

impl Share {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}
