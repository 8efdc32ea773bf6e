//! What an image is made of, layer by layer, and how images differ.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::changes::{Change, ChangeKind};
use crate::digest::Digest;
use crate::error::Result;
use crate::history::Step;
use crate::inventory::{self, Content, Record};
use crate::merged::{self, Files};
use crate::reference::Reference;
use crate::store::{ImageRecord, Store};

/// A layer of an image.
#[derive(Debug, Clone)]
pub struct LayerAnatomy {
    /// The step that made it.
    pub step: Step,
    /// Files and directories that it has.
    pub files: usize,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of its files that a layer above deletes or overwrites.
    pub wasted: u64,
    /// The largest of those, at most ten: path and bytes.
    pub wasted_files: Vec<(PathBuf, u64)>,
    /// Other images that have this layer, by name where they have one.
    pub shared_with: Vec<String>,
}

/// An image in the tree of those that are here.
#[derive(Debug, Clone)]
pub struct Branch {
    /// The layers that it has beyond those of the branch before: bytes of each.
    pub bytes: u64,
    /// The digest of the topmost of these layers.
    pub diff_id: Digest,
    /// How many layers these are.
    pub layers: usize,
    /// The images that end here.
    pub images: Vec<(Digest, Vec<Reference>)>,
    /// Those that go on.
    pub branches: Vec<Branch>,
}

impl Store {
    /// What each layer of an image adds, the bottom one first.
    pub fn anatomy(&self, name: &str) -> Result<(Digest, Vec<LayerAnatomy>)> {
        let record = self.named_record(name)?;
        let others = self.image_records()?;
        let mut files = Files::new();
        let mut layers: Vec<LayerAnatomy> = Vec::new();
        let steps: Vec<Step> = self.steps(&record)?.into_iter().filter(|step| step.layer.is_some()).collect();
        for (at, (key, step)) in record.layers.iter().zip(steps).enumerate() {
            let effect = merged::add(&mut files, at, &self.inventory(key)?);
            // Of a file with several names each has a line of its own there.
            let bytes = step.layer.as_ref().map_or(0, |layer| layer.size);
            for (path, node) in effect.covered.into_iter().filter(|(_, node)| node.record.size > 0) {
                let below = &mut layers[node.layer];
                below.wasted += node.record.size;
                below.wasted_files.push((path_of(&path), node.record.size));
            }
            let has = |other: &&ImageRecord| other.id != record.id && other.layers.contains(key);
            let mut shared_with: Vec<String> =
                others.iter().filter(has).map(|other| self.shown(other.id)).collect::<Result<_>>()?;
            shared_with.sort();
            layers.push(LayerAnatomy {
                step,
                files: effect.files,
                bytes,
                wasted: 0,
                wasted_files: Vec::new(),
                shared_with,
            });
        }
        for layer in &mut layers {
            layer.wasted_files.sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
            layer.wasted_files.truncate(10);
        }
        Ok((record.id, layers))
    }

    /// How an image differs from another one; where none is named, from the image here that it is built on, else from its own layers but the
    /// topmost. Gives what it was compared with, too.
    pub fn image_diff(&self, name: &str, other: Option<&str>) -> Result<(String, Vec<Change>)> {
        let record = self.named_record(name)?;
        let (from, below) = match other {
            Some(other) => (other.to_owned(), self.named_record(other)?.layers),
            None => self.base_of(&record)?,
        };
        let (before, after) = (self.merged(&below)?, self.merged(&record.layers)?);
        Ok((from, compare(&before, &after)))
    }

    /// The image whose layers are the most of those that this one begins with.
    fn base_of(&self, record: &ImageRecord) -> Result<(String, Vec<String>)> {
        let all = self.image_records()?;
        let is_base = |other: &&ImageRecord| {
            other.layers.len() < record.layers.len() && record.layers.starts_with(&other.layers)
        };
        if let Some(base) = all.iter().filter(is_base).max_by_key(|other| other.layers.len()) {
            return Ok((self.shown(base.id)?, base.layers.clone()));
        }
        let below = record.layers.len().saturating_sub(1);
        let from = if below == 0 { "nothing".to_owned() } else { format!("its first {below} layers") };
        Ok((from, record.layers[..below].to_vec()))
    }

    /// All images by the layers that they begin with.
    pub fn tree(&self) -> Result<Vec<Branch>> {
        let mut records = self.image_records()?;
        records.sort_by(|one, other| one.layers.cmp(&other.layers));
        self.branches(&records, 0)
    }

    /// The branches of images that have the same layers up to `depth`, which are sorted by layers.
    fn branches(&self, records: &[ImageRecord], depth: usize) -> Result<Vec<Branch>> {
        let mut branches = Vec::new();
        let going = records.iter().position(|record| record.layers.len() > depth).unwrap_or(records.len());
        for group in records[going..].chunk_by(|one, other| one.layers[depth] == other.layers[depth]) {
            // As far as they go together and none ends.
            let mut end = depth + 1;
            while group.iter().all(|record| record.layers.len() > end)
                && group.iter().all(|record| record.layers[end] == group[0].layers[end])
            {
                end += 1;
            }
            let mut branch = Branch {
                bytes: 0,
                diff_id: group[0].id,
                layers: end - depth,
                images: Vec::new(),
                branches: self.branches(group, end)?,
            };
            for key in &group[0].layers[depth..end] {
                let layer = self.layer_record(key)?;
                (branch.diff_id, branch.bytes) = (layer.diff_id, branch.bytes + layer.size);
            }
            for record in group.iter().filter(|record| record.layers.len() == end) {
                branch.images.push((record.id, self.names_of(record.id)?));
            }
            branches.push(branch);
        }
        Ok(branches)
    }

    fn inventory(&self, key: &str) -> Result<std::collections::BTreeMap<Vec<u8>, Record>> {
        inventory::read(&self.layer_path(key).join("manifest"))
    }

    fn shown(&self, id: Digest) -> Result<String> {
        let names = self.names_of(id)?;
        Ok(names.first().map_or_else(|| id.hex()[..12].to_owned(), Reference::to_string))
    }
}

fn path_of(path: &[u8]) -> PathBuf {
    Path::new("/").join(std::ffi::OsStr::from_bytes(path))
}

/// What was added, changed and deleted; of what is in a deleted directory nothing more is said.
fn compare(before: &Files, after: &Files) -> Vec<Change> {
    let paths: BTreeSet<&Vec<u8>> =
        before.keys().chain(after.keys()).filter(|path| !path.is_empty()).collect();
    let mut changes = Vec::new();
    let mut deleted: Option<Vec<u8>> = None;
    for path in paths {
        let kind = match (before.get(path), after.get(path)) {
            (None, _) => ChangeKind::Added,
            (Some(_), None) => ChangeKind::Deleted,
            (Some(before), Some(after)) if is_same(&before.record, &after.record) => continue,
            (Some(_), Some(_)) => ChangeKind::Changed,
        };
        if kind == ChangeKind::Deleted {
            if deleted.as_ref().is_some_and(|above| path.starts_with(above)) {
                continue;
            }
            deleted = Some([&path[..], b"/"].concat());
        }
        changes.push(Change { kind, path: path_of(path) });
    }
    changes
}

/// A directory's time says only that something in it was made or removed.
fn is_same(before: &Record, after: &Record) -> bool {
    let is_directory = |record: &Record| matches!(record.content, Content::Directory(_));
    if is_directory(before) && is_directory(after) {
        return (before.mode, before.uid, before.gid, &before.xattrs)
            == (after.mode, after.uid, after.gid, &after.xattrs);
    }
    before == after
}
