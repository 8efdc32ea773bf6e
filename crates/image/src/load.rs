//! Images from files into the store.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fs_err::File;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use serde::Serialize;

use crate::digest::Digest;
use crate::durable;
use crate::error::{Error, Result, system};
use crate::lower::Lower;
use crate::oci::{Descriptor, FULL_NAME, Platform, REF_NAME, media};
use crate::plan::{Plan, PlannedLayer, plans};
use crate::progress::{Progress, Stage};
use crate::reference::Reference;
use crate::registry::{Access, Download, Partial};
use crate::source::{Bytes, Origin, Source};
use crate::staging::Staging;
use crate::store::{
    self, ImageRecord, LayerRecord, PlatformImage, ReferenceRecord, RootDirectory, Store, read_record,
    remove_if_there, to_json, version,
};
use crate::stream::{Budget, Compression, Limits, Plain, Stored, Sums};
use crate::tree::{Summary, Tree};
use crate::unpack;

/// As many layers are fetched at once from a registry: one connection alone seldom fills a line.
const CONNECTIONS: usize = 6;

/// What came of a blob is kept so long for another try.
const PARTIAL_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How images are loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Which image of a multi-platform index; None means this machine's.
    pub platform: Option<Platform>,
    /// What an image may unpack to.
    pub limits: Limits,
    /// The name that the image gets, in place of those that the source gives.
    pub name: Option<Reference>,
    /// How registries are talked to.
    pub access: Access,
    /// Where to say how far it is.
    pub progress: Arc<Progress>,
    /// What the history of an imported image says; None says that it was imported.
    pub message: Option<String>,
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The names that mean it now.
    pub names: Vec<Reference>,
    /// Its id: the digest of its configuration.
    pub id: Digest,
}

impl Store {
    /// Loads every image of `source`, or the one with the source's tag. An image is committed as a whole or not at all.
    ///
    /// Costs one syncfs(2), some fsync(2) and fdatasync(2) for each image.
    pub fn load(&self, source: &Source, options: &LoadOptions) -> Result<Vec<Loaded>> {
        self.staged(|staging| {
            let origin = Origin::open(source, &staging.path.join("spool"), options)?;
            let plans = plans(&origin, source, options)?;
            let loaded =
                plans.into_iter().map(|plan| self.load_one(plan, options, staging)).collect::<Result<_>>()?;
            self.forget_partials(PARTIAL_AGE)?;
            Ok(loaded)
        })
    }

    fn load_one(&self, mut plan: Plan, options: &LoadOptions, staging: &Staging) -> Result<Loaded> {
        let place = staging.path.join(plan.id.hex());
        fs_err::create_dir(&place)?;
        // What is here already is counted on from now on.
        self.pin(staging, || Ok(((), self.needs(&plan))))?;
        let layers = self.unpack_layers(&plan, options, &place)?;
        if plan.manifest.is_none() {
            describe(&mut plan, &layers);
        }
        let record = self.commit(&plan, &layers, &place, staging)?;
        // The same image may come once more, under another name.
        fs_err::remove_dir_all(&place)?;
        Ok(Loaded { names: plan.names, id: record.id })
    }

    /// Names of layers and blobs that a plan's image needs, whatever form the layers turn out to have.
    fn needs(&self, plan: &Plan) -> BTreeSet<String> {
        let mut chain = None;
        let mut names = BTreeSet::new();
        for (layer, diff_id) in plan.layers.iter().zip(&plan.config.rootfs.diff_ids) {
            let id = chain_id(chain, *diff_id);
            chain = Some(id);
            names.extend([
                format!("{}-{}", diff_id.hex(), self.form),
                format!("{}-chain-{}", id.hex(), self.form),
            ]);
            names.extend(layer.descriptor.as_ref().map(|descriptor| descriptor.digest.hex()));
        }
        names
    }

    /// Unpacks the layers that are not here yet, as many at once as there are processors.
    fn unpack_layers(&self, plan: &Plan, options: &LoadOptions, place: &Path) -> Result<Vec<ReadyLayer>> {
        let (budget, progress) = (Budget::new(options.limits), &options.progress);
        let digests = plan.layers.iter().zip(&plan.config.rootfs.diff_ids);
        progress.begin(digests.map(|(layer, diff_id)| {
            (layer.descriptor.as_ref().map_or(*diff_id, |descriptor| descriptor.digest), layer.size())
        }));
        let mut order: Vec<usize> = (0..plan.layers.len()).collect();
        // The longest first: the last one to end is then short.
        order.sort_by_key(|at| std::cmp::Reverse(plan.layers[*at].size()));
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let results: Mutex<Vec<Option<Result<HalfLayer>>>> =
            Mutex::new((0..plan.layers.len()).map(|_| None).collect());
        let work = || {
            while let Some(at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let result = self.read_layer(plan, *at, (&budget, progress), &place.join(at.to_string()));
                if let Ok(layer) = &result {
                    let was_here = layer.sums.is_none();
                    progress.enter(*at, if was_here { Stage::Here } else { Stage::Done });
                }
                stop.fetch_or(result.is_err(), Ordering::Relaxed);
                if let Ok(mut results) = results.lock() {
                    results[*at] = Some(result);
                }
            }
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let is_remote = plan.layers.iter().any(|layer| matches!(layer.bytes, Bytes::Remote(_)));
        let threads = if is_remote { processors.max(CONNECTIONS) } else { processors }.min(order.len());
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        let results = results.into_inner().unwrap_or_default();
        // An error stops the others, which then have no result: report the error.
        let mut half = Vec::with_capacity(results.len());
        for result in results.into_iter().flatten() {
            half.push(result?);
        }
        self.complete(plan, half)
    }

    /// Ends the layers that need those below them, from the bottom up.
    pub(crate) fn complete(&self, plan: &Plan, half: Vec<HalfLayer>) -> Result<Vec<ReadyLayer>> {
        let mut lower = Lower::new(self.form);
        let mut chain: Option<Digest> = None;
        let mut ready = Vec::with_capacity(half.len());
        for (layer, diff_id) in half.into_iter().zip(&plan.config.rootfs.diff_ids) {
            let below = chain;
            chain = Some(chain_id(chain, *diff_id));
            let own_key = format!("{}-{}", diff_id.hex(), self.form);
            let chain_key = format!("{}-chain-{}", chain_id(below, *diff_id).hex(), self.form);
            let (key, path, staged, record) = match layer.tree {
                Unpacked::Here(key) => {
                    let path = self.layer_path(&key);
                    let record = read_record(&path.join("layer.json"))?;
                    (key, path, None, record)
                }
                Unpacked::Complete(summary) => {
                    let record = layer_record(*diff_id, &summary);
                    (own_key, layer.path.clone(), Some(layer.path), record)
                }
                Unpacked::NeedsLower(tree) => {
                    let record = layer_record(*diff_id, &tree.complete(&lower)?);
                    (chain_key, layer.path.clone(), Some(layer.path), record)
                }
            };
            if let Some(staged) = &staged {
                fs_err::write(staged.join("layer.json"), to_json(&record))?;
            }
            lower.push(&path, record.opaque_root)?;
            ready.push(ReadyLayer { key, staged, blob: layer.blob, sums: layer.sums, record });
        }
        Ok(ready)
    }

    /// Reads a layer. What a registry sent earlier may have been damaged on this disk since: then it is fetched anew, once.
    fn read_layer(&self, plan: &Plan, at: usize, shared: Shared<'_>, path: &Path) -> Result<HalfLayer> {
        let mut resumed = 0;
        match self.read_layer_once(plan, at, shared, path, &mut resumed) {
            Err(error) if error.is_damage() && resumed > 0 => {
                fs_err::remove_dir_all(path)?;
                self.read_layer_once(plan, at, shared, path, &mut resumed)
            }
            other => other,
        }
    }

    fn read_layer_once(
        &self,
        plan: &Plan,
        at: usize,
        shared: Shared<'_>,
        path: &Path,
        resumed: &mut u64,
    ) -> Result<HalfLayer> {
        let layer = &plan.layers[at];
        let diff_ids = &plan.config.rootfs.diff_ids;
        let here = self.layer_here(&diff_ids[..=at]);
        let expected = layer.descriptor.as_ref().map(|descriptor| descriptor.digest);
        let has_blob = expected.is_some_and(|digest| self.blob_path(digest).exists());
        fs_err::create_dir(path)?;
        // A layer whose blob is not here (any more) is read for the blob alone.
        if let (Some(key), true) = (&here, has_blob) {
            return Ok(HalfLayer {
                path: path.to_owned(),
                blob: None,
                sums: None,
                tree: Unpacked::Here(key.clone()),
            });
        }
        self.read_bytes(plan, at, (here, has_blob), shared, path, resumed)
    }

    /// The key under which the last of these layers is here.
    pub(crate) fn layer_here(&self, diff_ids: &[Digest]) -> Option<String> {
        let own_key = format!("{}-{}", diff_ids.last()?.hex(), self.form);
        let chain = diff_ids.iter().fold(None, |chain, diff_id| Some(chain_id(chain, *diff_id)))?;
        let chain_key = format!("{}-chain-{}", chain.hex(), self.form);
        [own_key, chain_key].into_iter().find(|key| self.layer_path(key).is_dir())
    }

    /// Reads a layer's bytes from where they are into the directory `path`: into a tree, unless it is `here`, and into a blob, unless there
    /// is one.
    pub(crate) fn read_bytes(
        &self,
        plan: &Plan,
        at: usize,
        (here, has_blob): (Option<String>, bool),
        (budget, progress): Shared<'_>,
        path: &Path,
        resumed: &mut u64,
    ) -> Result<HalfLayer> {
        let (layer, diff_id) = (&plan.layers[at], plan.config.rootfs.diff_ids[at]);
        let copy = path.join("blob");
        let Opened { reader, had, copy: file, partial } = self.open_layer(layer, has_blob, &copy)?;
        *resumed = had;
        progress.enter(at, Stage::Reading(had));
        let stored = Stored::new(progress.counted(at, reader), file);
        let read = self.unpack_layer(layer, diff_id, (stored, here), budget, path);
        if let Some(partial) = &partial {
            partial.settle(&read, &copy)?;
        }
        let (sums, tree) = read?;
        let blob = copy.exists().then_some(copy);
        Ok(HalfLayer { path: path.to_owned(), blob, sums: Some(sums), tree })
    }

    /// Reads a layer's bytes to their end, and into a tree unless there is one; their sums are as they should be.
    fn unpack_layer(
        &self,
        layer: &PlannedLayer,
        diff_id: Digest,
        (stored, here): (Stored<'_>, Option<String>),
        budget: &Budget,
        path: &Path,
    ) -> Result<(Sums, Unpacked)> {
        let name = diff_id.to_string();
        let read_error = |error| unpack::io_error(&name, error);
        let plain = Plain::new(stored, budget).map_err(read_error)?;
        let (sums, tree) = match here {
            Some(key) => (plain.finish().map_err(read_error)?, Unpacked::Here(key)),
            None => {
                let fs = path.join("fs");
                fs_err::create_dir(&fs)?;
                let (sums, tree) =
                    unpack::unpack(&name, plain, budget, self.form, &fs, &path.join("manifest"))?;
                if tree.is_self_contained() {
                    (sums, Unpacked::Complete(tree.complete(&Lower::new(self.form))?))
                } else {
                    (sums, Unpacked::NeedsLower(Box::new(tree)))
                }
            }
        };
        check_sums(layer, diff_id, &sums)?;
        Ok((sums, tree))
    }

    /// The stored bytes of a layer. Those of a registry are gathered in a file of their own, those of a file are copied to `copy`.
    fn open_layer(&self, layer: &PlannedLayer, has_blob: bool, copy: &Path) -> Result<Opened> {
        let (repository, descriptor) = match (&layer.bytes, &layer.descriptor) {
            (Bytes::Remote(repository), Some(descriptor)) => (repository, descriptor),
            (Bytes::Local(range), _) => {
                let file = if has_blob { None } else { Some(File::create(copy)?) };
                return Ok(Opened { reader: Box::new(range.clone()), had: 0, copy: file, partial: None });
            }
            (Bytes::Remote(_), None) => unreachable!("a registry's layers have descriptors"),
        };
        let blob = self.blob_path(descriptor.digest);
        let path = self.partial_path(descriptor.digest, descriptor.size);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        loop {
            if blob.exists() {
                let reader = Box::new(File::open(&blob)?);
                return Ok(Opened { reader, had: 0, copy: None, partial: None });
            }
            let Some((download, partial)) = Download::begin(repository, descriptor, &path)? else { continue };
            // Whoever had it may have put it in its place just before.
            if blob.exists() {
                remove_if_there(&path)?;
                continue;
            }
            let had = download.resumed();
            return Ok(Opened { reader: Box::new(download), had, copy: None, partial: Some(partial) });
        }
    }

    /// Puts everything in its place, the names last.
    pub(crate) fn commit(
        &self,
        plan: &Plan,
        layers: &[ReadyLayer],
        place: &Path,
        staging: &Staging,
    ) -> Result<ImageRecord> {
        let (Some(manifest), Some(target)) = (&plan.manifest, &plan.target) else {
            return Err(Error::BadConfig { digest: plan.id, reason: "it has no manifest" });
        };
        for (digest, bytes) in &plan.documents {
            fs_err::write(place.join(digest.hex()), bytes)?;
        }
        let image_path = self.image_path(plan.id);
        if !image_path.exists() {
            staging.announce(plan.id)?;
        }
        staging.sync()?;
        let _commit = self.commit_lock()?;
        for (digest, _) in &plan.documents {
            fs_err::rename(place.join(digest.hex()), self.blob_path(*digest))?;
        }
        for layer in layers {
            if let (Some(blob), Some(sums)) = (&layer.blob, &layer.sums) {
                fs_err::rename(blob, self.blob_path(sums.digest))?;
                remove_if_there(&self.partial_path(sums.digest, sums.size))?;
            }
            if let Some(staged) = &layer.staged {
                place_layer(staged, &self.layer_path(&layer.key))?;
            }
        }
        durable::name(&self.blob_path(plan.id))?;
        durable::names_in(&self.root.join("layers"))?;
        let record = ImageRecord {
            version: version(),
            id: plan.id,
            manifest: manifest.clone(),
            platform: plan.config.platform(),
            created: plan.config.created.clone(),
            size: layers.iter().map(|layer| layer.record.size).sum(),
            root: layers.iter().rev().find_map(|layer| layer.record.root).unwrap_or(RootDirectory::DEFAULT),
            layers: layers.iter().map(|layer| layer.key.clone()).collect(),
            mounted: mounted(layers),
            origin: self.origin_of(plan),
        };
        // What has a name is not to fail for want of space.
        let reserve = self.reserve(staging)?;
        staging.publish(&to_json(&record), &image_path)?;
        for name in &plan.names {
            self.name_image(name, target, &record, staging)?;
        }
        fs_err::remove_file(reserve)?;
        self.write_index()?;
        staging.withdraw(plan.id)?;
        Ok(record)
    }

    /// Where an image came from: what was known of it before, and where it comes from now.
    fn origin_of(&self, plan: &Plan) -> store::Origin {
        let known = self.image_record(plan.id).ok();
        // Of another manifest it would be other blobs.
        let known =
            known.filter(|known| Some(known.manifest.digest) == plan.manifest.as_ref().map(|m| m.digest));
        let mut origin = known.map(|known| known.origin).or(plan.below.clone()).unwrap_or_default();
        if let Some(repository) = &plan.repository {
            origin.repositories.retain(|known| known != repository);
            origin.repositories.push(repository.clone());
            origin.layers = plan.layers.len();
        }
        origin
    }

    /// Makes `name` mean `target`. The platforms that it had stay where it meant the same before.
    fn name_image(
        &self,
        name: &Reference,
        target: &Descriptor,
        image: &ImageRecord,
        staging: &Staging,
    ) -> Result<()> {
        let path = self.reference_path(name);
        let mut images = match read_record::<ReferenceRecord>(&path) {
            Ok(known) if known.target.digest == target.digest => known.images,
            _ => Vec::new(),
        };
        images.retain(|known| known.platform != image.platform);
        images.push(PlatformImage { platform: image.platform.clone(), id: image.id });
        let mut target = target.clone();
        // The name stands beside it; what the source called it no longer holds.
        target.annotations.retain(|key, _| key != REF_NAME && key != FULL_NAME);
        let record = ReferenceRecord { version: version(), reference: name.canonical(), target, images };
        staging.publish(&to_json(&record), &path)
    }
}

/// What the threads that unpack an image's layers have in common.
pub(crate) type Shared<'a> = (&'a Budget, &'a Progress);

/// A layer that can be read.
struct Opened {
    reader: Box<dyn Read + Send>,
    /// How much of it was here before.
    had: u64,
    /// Where to write what is read.
    copy: Option<File>,
    /// The file that a registry's bytes are gathered in.
    partial: Option<Partial>,
}

/// A layer of which only what lies below it may be missing.
pub(crate) struct HalfLayer {
    pub(crate) path: PathBuf,
    pub(crate) blob: Option<PathBuf>,
    pub(crate) sums: Option<Sums>,
    pub(crate) tree: Unpacked,
}

/// How far a layer's tree is.
pub(crate) enum Unpacked {
    /// The layer was in the store under this key.
    Here(String),
    Complete(Summary),
    NeedsLower(Box<Tree>),
}

/// A layer that can be committed.
pub(crate) struct ReadyLayer {
    pub(crate) key: String,
    pub(crate) staged: Option<PathBuf>,
    pub(crate) blob: Option<PathBuf>,
    pub(crate) sums: Option<Sums>,
    pub(crate) record: LayerRecord,
}

fn layer_record(diff_id: Digest, summary: &Summary) -> LayerRecord {
    LayerRecord {
        version: version(),
        diff_id,
        size: summary.size,
        opaque_root: summary.opaque_root,
        root: summary.root.as_ref().map(RootDirectory::of),
    }
}

/// The chain id of the specification: of this layer on top of those below.
fn chain_id(below: Option<Digest>, diff_id: Digest) -> Digest {
    match below {
        None => diff_id,
        Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
    }
}

/// Which layers make the root: each once, where it is topmost (overlayfs refuses one directory twice, and what the upper
/// one has covers the lower one), and none below an opaque root.
fn mounted(layers: &[ReadyLayer]) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for layer in layers.iter().rev() {
        if !keys.contains(&layer.key) {
            keys.push(layer.key.clone());
        }
        if layer.record.opaque_root {
            break;
        }
    }
    keys.reverse();
    keys
}

/// Renames a complete layer into place. Where another load was faster, its layer is the same.
fn place_layer(staged: &Path, target: &Path) -> Result<()> {
    match rustix::fs::renameat_with(CWD, staged, CWD, target, RenameFlags::NOREPLACE) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(system("rename", target)(errno)),
    }
}

fn check_sums(layer: &PlannedLayer, diff_id: Digest, sums: &Sums) -> Result<()> {
    if let Some(descriptor) = &layer.descriptor {
        let blob = format!("layer {}", descriptor.digest);
        if sums.size != descriptor.size {
            return Err(Error::SizeMismatch { blob, expected: descriptor.size, found: sums.size });
        }
        if sums.digest != descriptor.digest {
            return Err(Error::DigestMismatch { blob, expected: descriptor.digest, found: sums.digest });
        }
    }
    if sums.diff_id != diff_id {
        let blob = "an uncompressed layer".to_owned();
        return Err(Error::DigestMismatch { blob, expected: diff_id, found: sums.diff_id });
    }
    Ok(())
}

/// Writes the manifest of an image that came without one (docker archives, `import`).
pub(crate) fn describe(plan: &mut Plan, layers: &[ReadyLayer]) {
    let sums = layers.iter().filter_map(|layer| layer.sums.as_ref());
    let bytes = manifest_json(plan.id, plan.config_size, sums);
    let manifest = Descriptor::of(&bytes, media::MANIFEST);
    plan.documents.push((manifest.digest, bytes));
    plan.target = Some(manifest.clone());
    plan.manifest = Some(manifest);
}

/// The manifest of an image with this configuration and these layers.
pub(crate) fn manifest_json<'a>(
    id: Digest,
    config_size: u64,
    layers: impl Iterator<Item = &'a Sums>,
) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest {
        schema_version: u32,
        media_type: &'static str,
        config: Descriptor,
        layers: Vec<Descriptor>,
    }
    let descriptor = |media_type: &str, digest, size| Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        platform: None,
        annotations: Default::default(),
    };
    let layers = layers.map(|sums| {
        let media_type = match sums.compression {
            Compression::None => media::LAYER,
            Compression::Gzip => media::LAYER_GZIP,
            Compression::Zstd => media::LAYER_ZSTD,
        };
        descriptor(media_type, sums.digest, sums.size)
    });
    to_json(&Manifest {
        schema_version: 2,
        media_type: media::MANIFEST,
        config: descriptor(media::CONFIG, id, config_size),
        layers: layers.collect(),
    })
}
